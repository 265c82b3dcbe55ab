"""What is open and trades of simulated options."""

from datetime import date, timedelta
from functools import partial

import numpy as np
import pytest

from quant_platform.settings import Instrument
from quant_platform.simulation import option_flow
from quant_platform.simulation.latent_price import EPOCH, FloatArray, generator
from quant_platform.simulation.market import MarketParams, latent_of
from quant_platform.simulation.option_listing import Contracts, contracts_of, listed_expiries

DAY = date(2024, 3, 6)
STREAM = partial(generator, 7, "options", "SIMBTCUSDT")
BTC = Instrument(symbol="B", venue_symbol="SIMBTCUSDT", feed="binance_usdm", tick_size=0.1, lot_size=0.001)
NAN = np.nan


def contracts_on(day: date) -> Contracts:
    openings = np.full((DAY - EPOCH).days + 10, 60_000.0)
    return contracts_of("SIMBTC", listed_expiries(day, openings, 0.025), day)


def interest_on(day: date, contracts: Contracts) -> FloatArray:
    return option_flow.open_interest(contracts, day, stream=STREAM, notional=1e7, daily_volatility=0.025)


def test_open_interest_gathers_at_round_strikes_near_the_money() -> None:
    contracts = contracts_on(DAY)
    interest = interest_on(DAY, contracts)
    roundness = np.concatenate([np.repeat(one.roundness, 2) for one in contracts.expiries])
    away = np.abs(np.log(contracts.strike / 60_000))

    is_near = away < 0.08
    assert np.median(interest[is_near & (roundness == 2)]) > np.median(interest[is_near & (roundness == 0)])
    for place in range(len(contracts.expiries)):
        own = contracts.place == place
        spread = away[own].max() / 2
        assert interest[own & (away < spread)].mean() > 1.3 * interest[own & (away > spread)].mean()
    np.testing.assert_allclose(interest * 10, np.round(interest * 10), atol=1e-6)


def test_open_interest_of_a_contract_moves_little_from_day_to_day() -> None:
    before, after = contracts_on(DAY), contracts_on(DAY + timedelta(days=1))
    old = dict(zip(before.names, interest_on(DAY, before), strict=True))
    new = dict(zip(after.names, interest_on(DAY + timedelta(days=1), after), strict=True))

    is_old = {one.label for one in before.expiries if (DAY - one.listed).days > 60}
    ratios = [new[name] / old[name] for name in old if name in new and name.split("-")[1] in is_old and old[name] > 50]

    assert len(ratios) > 50
    assert len(set(ratios)) > 50
    assert 0.5 < min(ratios) < 1 < max(ratios) < 2


def test_some_contracts_trade_more_than_is_open_on_unusual_dates_only() -> None:
    contracts = contracts_on(DAY)
    interest = interest_on(DAY, contracts)

    usual, unusual = (
        option_flow.turnover(contracts, DAY, stream=STREAM, interest=interest, mean=0.05, unusual_share=share)
        for share in (0.0, 1.0)
    )

    assert usual.mean() == pytest.approx(0.05, rel=0.2)
    is_unusual = unusual != usual
    assert is_unusual.sum() == 4
    assert unusual[is_unusual].min() >= 1.5
    assert interest[is_unusual].min() > 0


def test_volume_grows_with_the_hours_activity_from_listing_on() -> None:
    contracts = contracts_on(DAY)
    latent = latent_of(BTC, DAY, MarketParams())
    time_s = np.array([0.0, 8 * 3_600.0, 12 * 3_600.0, 86_400.0])

    volume = option_flow.volume(contracts, latent, time_s, expected=np.full(len(contracts.names), 1_000.0))

    share = latent.activity[: 12 * 3_600].sum() / latent.activity.sum()
    at_eight = latent.activity[: 8 * 3_600].sum() / latent.activity.sum()
    is_new = contracts.listed_s == 8 * 3_600
    assert is_new.any()
    assert volume[0].max() == 0
    assert volume[1, is_new].max() == 0
    np.testing.assert_allclose(volume[2, ~is_new], 1_000 * share, atol=0.1)
    np.testing.assert_allclose(volume[3, ~is_new], 1_000, atol=0.1)
    np.testing.assert_allclose(volume[3, is_new], 1_000 * (1 - at_eight), atol=0.1)


def test_trades_print_at_the_touch_or_at_the_mark_where_nobody_quotes() -> None:
    traded = np.array([[0.0, 1.0, 1.0, 1.0]])
    bid, ask = np.array([[0.1, 0.1, NAN, NAN]]), np.array([[0.2, 0.2, 0.0001, NAN]])
    mark = np.array([[0.15, 0.15, 0.0, 0.12344]])

    sides = [
        option_flow.trades(traded, bid=bid, ask=ask, mark=mark, rng=np.random.default_rng(seed))[0]
        for seed in range(20)
    ]

    assert all(np.isnan(one[0]) for one in sides)
    assert {one[1] for one in sides} == {0.1, 0.2}
    assert {tuple(one[2:]) for one in sides} == {(0.0001, 0.1234)}


def test_latest_carries_what_is_known() -> None:
    values = np.array([[NAN, 5.0], [1.0, NAN], [NAN, NAN], [2.0, 6.0]])

    np.testing.assert_array_equal(
        option_flow.latest(values), np.array([[NAN, 5.0], [1.0, 5.0], [1.0, 5.0], [2.0, 6.0]])
    )
