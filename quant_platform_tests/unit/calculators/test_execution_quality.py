"""Fill rates, survival, hold time and spreads: the oracle, plain loops, and the edge matrix."""

import json
import math
from collections import deque
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import execution_quality
from quant_platform.calculators.execution_quality import SPREADS
from quant_platform_tests.unit.desk_frames import SECOND, fills
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = {
    case["id"]: case
    for case in json.loads(
        (Path(__file__).parents[2] / "golden" / "oracles" / "impact_quality_cases.json").read_text()
    )["cases"]
}
RATES = {"fill_rate_qty": "fill_rate_quantity"}


def ordered(quantities, *, key="a"):
    schema = {"key": pl.String, "quantity": pl.Float64, "filled_quantity": pl.Float64}
    return pl.DataFrame([(key, *pair) for pair in quantities], schema=schema, orient="row")


def ended(durations, is_filled, *, key="a"):
    schema = {"key": pl.String, "duration_s": pl.Float64, "is_filled": pl.Boolean}
    return pl.DataFrame({"key": [key] * len(durations), "duration_s": durations, "is_filled": is_filled}, schema=schema)


def test_fill_rates_oracle():
    case = ORACLE["fill_rate"]
    found = execution_quality.fill_rates(ordered(case["inputs"]["orders"]), ["key"]).row(0, named=True)
    for name, value in case["expected"].items():
        assert found[RATES.get(name, name)] == pytest.approx(value, **case["tolerance"])
    assert (found["orders"], found["quantity"], found["filled_quantity"], found["status"]) == (3, 400.0, 150.0, "ok")


def test_partial_fills_whose_sum_misses_by_its_last_bit_are_whole():
    found = execution_quality.fill_rates(ordered([(1.0, sum([0.1] * 10)), (0.3, 0.1 + 0.2)]), ["key"])
    assert found["fill_rate_orders"].to_list() == [1.0]


@pytest.mark.parametrize(
    "bad", [(None, 1), (0, 0), (-5, 1), (math.nan, 1), (math.inf, 1), (5, None), (5, -1), (5, math.nan)]
)
def test_an_order_without_quantities_is_in_no_fill_rate(bad):
    good = ordered([(100, 50)])
    both = execution_quality.fill_rates(pl.concat([ordered([bad]), good]), ["key"])
    assert_frame_equal(both, execution_quality.fill_rates(good, ["key"]))
    alone = execution_quality.fill_rates(ordered([bad]), ["key"]).row(0)
    assert alone == ("a", 0, None, None, None, None, None, "no_data")


def test_kaplan_meier_oracle():
    case = ORACLE["kaplan_meier"]
    orders = ended(case["inputs"]["durations_s"], case["inputs"]["filled"])
    found = execution_quality.kaplan_meier(orders, ["key"])
    assert found["time_s"].to_list() == case["expected"]["times"]
    assert found["survival"].to_list() == pytest.approx(case["expected"]["survival"], **case["tolerance"])
    median = execution_quality.time_to_fill(orders, ["key"]).row(0, named=True)
    assert (median["median_s"], median["filled"], median["censored"], median["status"]) == (3.0, 3, 2, "ok")


def test_greenwoods_interval_by_hand():
    # S = .8: variance of ln(-ln S) = (1/(5·4)) / ln(.8)²; S = .6: (1/20 + 1/12) / ln(.6)².
    found = execution_quality.kaplan_meier(ended([1, 2, 2, 3, 5], [True, True, False, True, False]), ["key"])
    for row, terms in ((0, 1 / 20), (1, 1 / 20 + 1 / 12), (2, 1 / 20 + 1 / 12 + 1 / 2)):
        survival = (0.8, 0.6, 0.3)[row]
        reach = math.exp(1.959963984540054 * math.sqrt(terms) / abs(math.log(survival)))
        assert found["survival_low"][row] == pytest.approx(survival**reach, rel=1e-12)
        assert found["survival_high"][row] == pytest.approx(survival ** (1 / reach), rel=1e-12)


def plain_kaplan_meier(durations, is_filled):
    survival, curve = 1.0, {}
    for time in sorted({d for d, f in zip(durations, is_filled, strict=True) if f}):
        at_risk = sum(d >= time for d in durations)
        survival *= 1 - sum(d == time and f for d, f in zip(durations, is_filled, strict=True)) / at_risk
        curve[time] = survival
    return curve


def test_survival_of_many_groups_equals_a_plain_loop():
    random = np.random.default_rng(1)
    keys = random.choice(["a", "b", "c", None], 300)
    durations, is_filled = random.integers(0, 20, 300).astype(float), random.random(300) < 0.6
    frame = pl.DataFrame(
        {"key": keys, "duration_s": durations, "is_filled": is_filled}, schema_overrides={"key": pl.String}
    )
    found = execution_quality.kaplan_meier(frame, ["key"])
    medians = execution_quality.time_to_fill(frame, ["key"])
    for key in (None, "a", "b", "c"):
        own = np.array([each == key for each in keys])
        curve = plain_kaplan_meier(durations[own].tolist(), is_filled[own].tolist())
        ours = found.filter(pl.col("key").eq_missing(key))
        assert ours["time_s"].to_list() == list(curve)
        assert ours["survival"].to_list() == pytest.approx(list(curve.values()), abs=1e-12)
        median = next((time for time, survival in curve.items() if survival <= 0.5 + 1e-12), None)
        assert medians.filter(pl.col("key").eq_missing(key))["median_s"].to_list() == [median]
    assert medians["key"].to_list() == [None, "a", "b", "c"]


def test_the_median_is_null_where_half_are_not_seen_to_fill():
    found = execution_quality.time_to_fill(ended([1, 2, 3, 4], [True, False, False, False]), ["key"]).row(0, named=True)
    assert (found["median_s"], found["status"]) == (None, "too_few")


def test_a_survival_of_exactly_one_half_is_the_median():
    # 23/24 · 22/23 · … · 12/13 misses one half by its last bit.
    found = execution_quality.time_to_fill(ended([float(k) for k in range(1, 25)], [True] * 24), ["key"])
    assert math.prod((23 - k) / (24 - k) for k in range(12)) > 0.5
    assert found["median_s"].to_list() == [12.0]


def test_the_interval_of_the_median_reads_the_ends_of_the_survival():
    orders = ended([float(k) for k in range(1, 41)], [True] * 40)
    curve = execution_quality.kaplan_meier(orders, ["key"])
    found = execution_quality.time_to_fill(orders, ["key"]).row(0, named=True)
    low = next(t for t, s in curve.select("time_s", "survival_low").iter_rows() if s <= 0.5)
    high = next(t for t, s in curve.select("time_s", "survival_high").iter_rows() if s <= 0.5)
    assert (found["median_low_s"], found["median_high_s"]) == (low, high)
    assert low < found["median_s"] == 20.0 < high
    assert curve.row(-1, named=True)["survival_low"] is None  # nothing is left


@pytest.mark.parametrize("bad", [(None, True), (-1.0, True), (math.nan, True), (math.inf, False), (1.0, None)])
def test_an_order_without_a_duration_is_in_no_survival(bad):
    good = ended([1, 2], [True, False])
    wrong = ended([bad[0]], [bad[1]])
    for calculator in (execution_quality.kaplan_meier, execution_quality.time_to_fill):
        assert_frame_equal(calculator(pl.concat([wrong, good]), ["key"]), calculator(good, ["key"]))
    assert execution_quality.time_to_fill(wrong, ["key"]).row(0) == ("a", 0, 0, None, None, None, "no_data")


def held(rows):
    """Build fills of positions from rows (key, seconds, side, quantity)."""
    return pl.DataFrame(
        {
            "key": [row[0] for row in rows],
            "ts_event": [int(row[1] * SECOND) for row in rows],
            "fill_id": [f"{n:04}" for n in range(len(rows))],
            "side": [row[2] for row in rows],
            "quantity": [row[3] for row in rows],
        },
        schema={
            "key": pl.String,
            "ts_event": pl.Int64,
            "fill_id": pl.String,
            "side": pl.Int8,
            "quantity": pl.Float64,
        },
        strict=False,
    ).cast({"ts_event": pl.Datetime("ns", "UTC")})


def test_hold_time_by_hand():
    # 10 bought at 0 s, 10 at 10 s; 15 sold at 30 s: 10 held 30 s and 5 held 20 s.
    found = execution_quality.hold_times(held([("a", 0, 1, 10), ("a", 10, 1, 10), ("a", 30, -1, 15)]), ["key"])
    assert found.row(0) == ("a", 15.0, pytest.approx(400 / 15), "ok")


def plain_hold(rows):
    """Pair each close with the oldest open lot."""
    lots, closed, total = deque(), 0.0, 0.0
    for _, seconds, side, quantity in rows:
        left = quantity
        while left and lots and lots[0][1] != side:
            take = min(left, lots[0][2])
            closed, total, left = closed + take, total + take * (seconds - lots[0][0]), left - take
            lots[0][2] -= take
            if not lots[0][2]:
                lots.popleft()
        if left:
            lots.append([seconds, side, left])
    return closed, total


def test_hold_times_through_flips_equal_pairing_lot_by_lot():
    random = np.random.default_rng(5)
    seconds = np.sort(random.integers(0, 10_000, 400))
    rows = [
        (str(random.choice(["a", "b"])), int(s), int(random.choice([-1, 1])), float(random.integers(1, 20)))
        for s in seconds
    ]
    found = execution_quality.hold_times(held(rows).sample(fraction=1, shuffle=True, seed=2), ["key"])
    for key, closed_quantity, hold_s, status in found.iter_rows():
        closed, total = plain_hold([row for row in rows if row[0] == key])
        assert (closed_quantity, hold_s, status) == (closed, pytest.approx(total / closed, rel=1e-12), "ok")


@pytest.mark.parametrize(
    "bad", [("a", 5, 0, 3), ("a", 5, None, 3), ("a", 5, 1, None), ("a", 5, 1, math.nan), ("a", 5, 1, -2)]
)
def test_a_fill_that_is_none_holds_nothing(bad):
    good = [("a", 0, 1, 10), ("a", 30, -1, 10)]
    assert_frame_equal(
        execution_quality.hold_times(held([*good, bad]), ["key"]), execution_quality.hold_times(held(good), ["key"])
    )
    assert execution_quality.hold_times(held([bad]), ["key"]).row(0) == ("a", None, None, "no_data")


def test_spreads_are_weighed_by_notional():
    found = execution_quality.spread_quality(
        fills(
            {"price": 100.0, "quantity": 1.0, "effective_spread_bps": 2.0, "markout_5s_bps": None},
            {
                "price": 50.0,
                "quantity": 6.0,
                "quoted_spread_bps": 4.0,
                "effective_spread_bps": 1.0,
                "price_improvement": 0.02,
                "price_improvement_amount": 0.06,
            },
        ),
        ["venue"],
    ).row(0, named=True)
    assert (found["fills"], found["notional"], found["status"]) == (2, 400.0, "ok")
    assert found["quoted_spread_bps"] == pytest.approx((100 * 2 + 300 * 4) / 400)
    assert found["effective_spread_bps"] == pytest.approx((100 * 2 + 300 * 1) / 400)
    assert found["markout_5s_bps"] == 0.5  # of the fill that has one
    assert found["e_over_q"] == pytest.approx(500 / 1400)  # not the mean of 1 and 1/4
    assert found["price_improvement_bps"] == pytest.approx(0.06 / 400 * 1e4)
    assert (found["improved_share"], found["at_quote_share"], found["outside_share"]) == (0.75, 0.25, 0.0)


def test_a_locked_book_has_no_e_over_q():
    locked = fills({"quoted_spread_bps": 0.0, "effective_spread_bps": 0.0})
    found = execution_quality.spread_quality(locked, ["venue"]).row(0, named=True)
    assert (found["e_over_q"], found["quoted_spread_bps"], found["status"]) == (None, 0.0, "ok")


def test_e_over_q_is_of_fills_that_have_both():
    found = execution_quality.spread_quality(
        fills({"effective_spread_bps": 1.0}, {"effective_spread_bps": None}, {"quoted_spread_bps": None}), ["venue"]
    )
    assert found["e_over_q"].to_list() == [0.5]


@pytest.mark.parametrize(
    "bad", [{"price": None}, {"price": math.nan}, {"price": -1.0, "quantity": -1.0}, {"quantity": 0.0}]
)
def test_a_fill_without_a_notional_is_in_no_mean(bad):
    good = fills({"effective_spread_bps": 1.0})
    assert_frame_equal(
        execution_quality.spread_quality(pl.concat([fills(bad), good]), ["venue"]),
        execution_quality.spread_quality(good, ["venue"]),
    )
    found = execution_quality.spread_quality(fills(bad), ["venue"]).row(0, named=True)
    assert (found["fills"], found["notional"], found["status"]) == (0, None, "no_data")
    assert [found[name] for name in (*SPREADS, "e_over_q", "improved_share")] == [None] * 7


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_spread_that_is_no_number_is_left_out_of_its_own_mean(value):
    found = execution_quality.spread_quality(
        fills({"quoted_spread_bps": value, "price_improvement": value}, {"quoted_spread_bps": 6.0}), ["venue"]
    ).row(0, named=True)
    assert (found["quoted_spread_bps"], found["effective_spread_bps"], found["fills"]) == (6.0, 2.0, 2)
    assert found["at_quote_share"] == 1.0


def test_sums_that_overflow_are_null():
    found = execution_quality.spread_quality(fills(*[{"price": 1e308}] * 2), ["venue"]).row(0, named=True)
    assert (found["notional"], found["quoted_spread_bps"], found["fills"]) == (None, None, 2)
    found = execution_quality.fill_rates(ordered([(1e308, 1e308)] * 2), ["key"]).row(0, named=True)
    assert (found["quantity"], found["fill_rate_quantity"], found["fill_rate_orders"]) == (None, None, 1.0)


CALCULATORS = [
    (execution_quality.fill_rates, ordered([(100, 50), (30, 30), (7, 0)] * 40)),
    (execution_quality.kaplan_meier, ended([float(k % 9) for k in range(90)], [k % 3 > 0 for k in range(90)])),
    (execution_quality.time_to_fill, ended([float(k % 9) for k in range(90)], [k % 3 > 0 for k in range(90)])),
    (execution_quality.hold_times, held([("a", k, (-1) ** (k // 3), 0.1 * k + 1) for k in range(90)])),
    (
        execution_quality.spread_quality,
        fills(*({"price": 90 + k / 7, "effective_spread_bps": k / 3} for k in range(90))).with_columns(key=pl.lit("a")),
    ),
]


@pytest.mark.parametrize(("calculator", "rows"), CALCULATORS, ids=lambda part: getattr(part, "__name__", ""))
def test_any_row_order_gives_identical_bytes_and_no_rows_give_no_rows(calculator, rows):
    def written(frame):
        return ipc_bytes(calculator(frame, ["key"]))

    assert written(rows) == written(rows.sample(fraction=1, shuffle=True, seed=3)) == written(rows[::-1])
    nothing = calculator(rows.clear(), ["key"])
    assert nothing.is_empty()
    assert nothing.schema == calculator(rows, ["key"]).schema


@pytest.mark.parametrize(("calculator", "rows"), CALCULATORS, ids=lambda part: getattr(part, "__name__", ""))
def test_groups_do_not_know_each_other(calculator, rows):
    half = rows.with_columns(key=pl.lit("b"))[: rows.height // 2]
    together = calculator(pl.concat([rows, half]).sample(fraction=1, shuffle=True, seed=4), ["key"])
    assert_frame_equal(together, pl.concat([calculator(rows, ["key"]), calculator(half, ["key"])]))


@pytest.mark.parametrize(("calculator", "rows"), CALCULATORS, ids=lambda part: getattr(part, "__name__", ""))
def test_all_null_gives_a_row_without_values(calculator, rows):
    empty = rows.head(3).with_columns(pl.exclude("key", "fill_id").map_batches(lambda s: s.clear(len(s))))
    found = calculator(empty, ["key"])
    assert found.is_empty() or found["status"].to_list() == ["no_data"]
