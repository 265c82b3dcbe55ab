"""What a desk does to the price, against the law worked out order by order."""

import math
from dataclasses import replace

import numpy as np
import pytest

from quant_platform.simulation.desk_impact import footprint_of, pushes
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.desk_plan import CLOSING_S, MarketScale, Parents, Plan, Slices
from quant_platform.simulation.latent_price import SECONDS, LatentDay

DESK = DeskParams(impact_noise=0.0)
SCALE = MarketScale(
    order_lots=100.0, touch_lots=100.0, daily_lots=1e6, daily_volatility=0.02, per_second=1_000, midnight=0
)
FLAT = LatentDay(
    log_price=np.zeros(SECONDS + 1),
    volatility=np.full(SECONDS, 0.02 / math.sqrt(SECONDS)),
    relative_volatility=np.ones(SECONDS),
    activity=np.ones(SECONDS),
)


def plan_with(orders: list[tuple[int, list[tuple[float, int]]]]) -> Plan:
    """Return orders of twap and HARBOUR that arrive at 100 s: a side each, and seconds and lots of its executions."""
    count = len(orders)
    zeros = np.zeros(count, dtype=np.int64)
    parents = Parents(
        decided=zeros + 99_000,
        arrived=zeros + 100_000,
        ends=zeros + 80_000_000,
        stops=zeros + 80_000_000,
        side=np.array([side for side, _ in orders]),
        lots=np.array([sum(lots for _, lots in parts) for _, parts in orders]),
        strategy=zeros,
        algo=zeros,
        broker=zeros,
        signal=np.ones(count),
        limit_bps=np.full(count, np.inf),
        is_rejected=zeros > 0,
        is_cancelled=zeros > 0,
    )
    rows = [(place, round(1_000 * at), lots) for place, (_, parts) in enumerate(orders) for at, lots in parts]
    parent, due, lots = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    slices = Slices(
        parent=parent,
        sent=due - 1,
        due=due,
        ends=due,
        lots=lots,
        sought=lots,
        venue=np.zeros_like(lots),
        is_maker=lots < 0,
    )
    return Plan(parents, slices)


def mark(plan: Plan, seconds: list[float], desk: DeskParams = DESK) -> list[float]:
    found = footprint_of(plan, desk, FLAT, SCALE, np.random.default_rng(1)).at(np.array(seconds))
    return [float(one) for one in found]


def law(lots: int) -> float:
    """Return the push of so much of an order of twap through HARBOUR."""
    return 1.0 * 0.9 * DESK.impact * 0.02 * math.sqrt(lots / 1e6)


def test_a_push_is_that_of_the_law_then_decays_to_what_stays() -> None:
    plan = plan_with([(1, [(200.0, 10_000)])])

    at, a_bit_later, half_life_later, long_after = mark(plan, [200.0, 200.001, 380.0, 9_000.0])

    assert at == 0.0
    assert a_bit_later == pytest.approx(law(10_000), rel=1e-4)
    assert half_life_later == pytest.approx(law(10_000) * (0.4 + 0.6 / 2))
    assert long_after == pytest.approx(law(10_000) * 0.4, rel=1e-4)


def test_a_sale_pushes_down_by_as_much() -> None:
    parts = [(200.0, 5_000), (300.0, 5_000)]

    up, down = (mark(plan_with([(side, parts)]), [250.0, 400.0]) for side in (1, -1))

    assert up == [-one for one in down]


def test_an_order_in_parts_pushes_by_the_root_of_all_of_it() -> None:
    parts = [(200.0, 4_000), (200.0, 3_000), (200.001, 9_000)]

    (found,) = mark(plan_with([(1, parts)]), [200.002])

    assert found == pytest.approx(law(16_000), rel=1e-4)


def test_marks_add_up_as_a_loop_over_executions_has_them() -> None:
    rng = np.random.default_rng(3)
    orders = [
        (
            int(rng.choice([-1, 1])),
            sorted(
                (float(at), int(lots))
                for at, lots in zip(
                    rng.integers(200_000, 70_000_000, 8) / 1_000, rng.integers(1, 5_000, 8), strict=True
                )
            ),
        )
        for _ in range(20)
    ]
    seconds = [150.0, 5_000.5, 40_000.0, 81_000.0, CLOSING_S + 1_800.0, float(SECONDS)]

    expected = []
    for second in seconds:
        total = 0.0
        for side, parts in orders:
            done = 0
            for at, lots in parts:
                push = side * (law(done + lots) - law(done))
                done += lots
                if at < second:
                    total += push * (0.4 + 0.6 * 0.5 ** ((second - at) / 180))
        expected.append(total * min((SECONDS - second) / (SECONDS - CLOSING_S), 1))

    np.testing.assert_allclose(mark(plan_with(orders), seconds), expected, rtol=1e-9, atol=1e-15)
    assert expected[-1] == 0


def test_slices_that_seek_nothing_leave_no_mark() -> None:
    parents, slices = plan_with([(1, [(200.0, 10), (300.0, 20)])])

    assert mark(Plan(parents, slices._replace(sought=slices.sought * 0)), [100.0, 1_000.0]) == [0.0, 0.0]


def test_noise_leaves_the_law_as_the_mean() -> None:
    plan = plan_with([(1, [(200.0 + at, 100)]) for at in range(2_000)])
    after = [float(2_200 + 40 * 180)]

    (noisy,) = mark(plan, after, replace(DESK, impact_noise=0.5, permanent_share=1.0))
    (quiet,) = mark(plan, after, replace(DESK, permanent_share=1.0))

    assert noisy == pytest.approx(quiet, rel=0.05)
    assert noisy != quiet


def test_leaky_algos_and_brokers_push_more() -> None:
    parents, slices = plan_with([(1, [(200.0, 100)])] * 2)
    leaky = parents._replace(algo=np.array([0, 2]), broker=np.array([0, 2]))

    one, other = pushes(Plan(leaky, slices), DESK, FLAT, SCALE)

    assert other / one == pytest.approx((2.0 * 2.0) / (1.0 * 0.9))
