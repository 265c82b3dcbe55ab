"""What a desk sets out to do: shares, sizes, times and lives, and what its strategies truly know."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.desk_plan import CLOSING_S, FIRST_S, MarketScale, Plan, plan_of
from quant_platform.simulation.latent_price import SECONDS, LatentDay, generator, latent_day

DESK = DeskParams(orders_per_day=3_000)
SCALE = MarketScale(
    order_lots=2_000.0,
    touch_lots=1_667.0,
    daily_lots=2_800_000.0,
    daily_volatility=0.025,
    per_second=1_000,
    midnight=1_709_510_400_000,
)


def planned(latent: LatentDay, desk: DeskParams = DESK, scale: MarketScale = SCALE) -> Plan:
    return plan_of(desk, latent, scale, stream=lambda key: generator(7, key))


@pytest.fixture(scope="module")
def latent() -> LatentDay:
    return latent_day(
        seed=7,
        venue_symbol="SIMBTCUSDT",
        day=date(2024, 3, 4),
        reference_price=60_000.0,
        daily_volatility=0.025,
        volatility_of_volatility=0.5,
        correlation=0.7,
        seasonality=1.0,
    )


@pytest.fixture(scope="module")
def plan(latent: LatentDay) -> Plan:
    return planned(latent)


def test_orders_are_decided_before_they_arrive_and_end_within_the_desks_hours(plan: Plan) -> None:
    parents = plan.parents

    assert DESK.orders_per_day <= len(parents.side) <= 1.1 * DESK.orders_per_day
    assert (np.diff(parents.decided) >= 0).all()
    assert parents.decided[0] >= FIRST_S * SCALE.per_second
    assert (parents.decided < parents.arrived).all()
    assert (parents.arrived <= parents.stops).all()
    assert (parents.ends <= CLOSING_S * SCALE.per_second).all()
    assert parents.lots.min() >= 1


def test_slices_live_within_their_orders(plan: Plan) -> None:
    parents, slices = plan
    done = slices.sought > 0

    assert (slices.sent >= parents.arrived[slices.parent]).all()
    assert (slices.ends <= parents.stops[slices.parent]).all()
    assert (slices.sent <= slices.due).all()
    assert (slices.due <= slices.ends).all()
    assert (slices.lots >= 1).all()
    assert ((slices.sought >= 0) & (slices.sought <= slices.lots)).all()
    assert (slices.sought[~slices.is_maker] == slices.lots[~slices.is_maker]).all()
    executed = np.bincount(slices.parent[done], slices.sought[done], minlength=len(parents.lots))
    assert (executed <= parents.lots).all()
    assert (executed == parents.lots).mean() > 0.6


def test_a_rejected_order_sends_nothing_and_one_called_back_not_all(plan: Plan) -> None:
    parents, slices = plan
    sent = np.bincount(slices.parent, slices.sought, minlength=len(parents.lots)) / parents.lots

    assert sent[parents.is_rejected].max() == 0
    assert not (parents.is_rejected & parents.is_cancelled).any()
    assert sent[parents.is_cancelled].mean() < 0.8 < sent[~parents.is_rejected & ~parents.is_cancelled].mean()


def test_shares_are_those_of_the_parameters(plan: Plan) -> None:
    parents, slices = plan
    for shares, places in (
        ([one.share for one in DESK.strategies], parents.strategy),
        ([one.share for one in DESK.algos], parents.algo),
        ([one.share for one in DESK.brokers], parents.broker),
        ([one.share for one in DESK.venues], slices.venue),
    ):
        np.testing.assert_allclose(np.bincount(places) / len(places), shares, atol=0.06)
    assert parents.is_rejected.mean() == pytest.approx(DESK.reject_share, abs=0.01)
    assert np.isfinite(parents.limit_bps).mean() == pytest.approx(DESK.limit_share, abs=0.03)


def test_signals_know_as_much_as_the_strategys_skill_says(latent: LatentDay, plan: Plan) -> None:
    parents = plan.parents
    second = parents.decided // SCALE.per_second
    for place, strategy in enumerate(DESK.strategies[:4]):
        of = parents.strategy == place
        later = np.minimum(second[of] + strategy.horizon_s, SECONDS)
        ahead = latent.log_price[later] - latent.log_price[second[of]]
        seen = np.corrcoef(parents.side[of] * parents.signal[of], ahead / latent.volatility[second[of]])[0, 1]
        assert seen == pytest.approx(strategy.skill, abs=0.12)


def test_slow_brokers_bring_orders_late(plan: Plan) -> None:
    parents = plan.parents
    for place, broker in enumerate(DESK.brokers):
        delays_s = (parents.arrived - parents.decided)[parents.broker == place] / SCALE.per_second
        assert delays_s.mean() == pytest.approx(broker.delay_s, rel=0.15)


def test_an_even_algo_cuts_evenly_and_others_follow_the_market(plan: Plan) -> None:
    parents, slices = plan
    share = slices.lots / parents.lots[slices.parent]
    names = np.array([algo.name for algo in DESK.algos])[parents.algo[slices.parent]]
    # Whole slices of orders large enough that lots do not matter, none of them the rest of another.
    first_sent = ~np.concatenate([[False], (slices.sent[1:] == slices.ends[:-1]) & (np.diff(slices.parent) == 0)])
    large = (parents.lots[slices.parent] > 1_000) & first_sent

    def spread(name: str) -> float:
        of = large & (names == name)
        parts = np.bincount(slices.parent[of])[slices.parent[of]]
        return float(np.std(np.log(share[of] * parts)[parts > 4]))

    assert spread("twap") < spread("vwap") < spread("pov")


def test_orders_that_wait_are_filled_as_their_venue_says(latent: LatentDay) -> None:
    desk = replace(DESK, algos=DESK.algos[:1], partial_share=0.0, chase_share=0.0, cancel_share=0.0)
    parents, slices = planned(latent, desk)
    waits = slices.is_maker
    ahead = np.minimum(slices.due // SCALE.per_second + 10, SECONDS)
    now = slices.due // SCALE.per_second
    favour = parents.side[slices.parent] * (latent.log_price[ahead] - latent.log_price[now])
    selected = {}
    for place, venue in enumerate(desk.venues):
        of = waits & (slices.venue == place)
        met = slices.sought[of] > 0
        assert met.mean() == pytest.approx(venue.fill_probability, abs=0.05)
        selected[venue.name] = favour[of][met].mean() - favour[of].mean()

    assert selected["DRIFT"] < selected["COMET"] < selected["ARBOR"] + 1e-5
    assert selected["DRIFT"] < 0


def test_what_waits_in_vain_crosses_or_is_given_up(latent: LatentDay) -> None:
    rests = {
        share: sum(
            (parents.lots.sum() - slices.sought.sum())
            for parents, slices in [
                planned(latent, replace(DESK, chase_share=share, cancel_share=0.0, reject_share=0.0))
            ]
        )
        for share in (0.0, 1.0)
    }

    assert rests[1.0] < 0.01 * rests[0.0]


@pytest.mark.parametrize("lots", [0.01, 3.0, 1e6])
def test_orders_of_any_size_are_cut_to_whole_lots(latent: LatentDay, lots: float) -> None:
    parents, slices = planned(latent, replace(DESK, orders_per_day=50), replace(SCALE, order_lots=lots))

    assert parents.lots.min() >= 1
    assert slices.lots.min() >= 1
    assert np.bincount(slices.parent).max() <= 120


def test_a_desk_whose_orders_are_all_rejected_plans_no_slice(latent: LatentDay) -> None:
    parents, slices = planned(latent, replace(DESK, orders_per_day=5, reject_share=1.0))

    assert len(parents.side) == 5
    assert [len(column) for column in slices] == [0] * len(slices)
