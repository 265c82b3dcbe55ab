"""What simulated options cost: read back as the venue's, and held against what cannot be."""

import math
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from quant_platform.calculators import implied_vol, vol_surface
from quant_platform.simulation.options import ChainParams, write_chains
from quant_platform_tests.unit.simulation.conftest import FRIDAY, MARKET, PARAMS, SATURDAY, SOL, THURSDAY, hidden, rows

YEAR_S = 365 * 86_400
SOL_DATE = date(2024, 3, 27)


def black_76(*, forward: float, strike: float, years: float, iv: float, is_call: bool) -> float:
    """Worked from the normal distribution alone: no rates."""
    deviation = iv * math.sqrt(years)
    d_1 = math.log(forward / strike) / deviation + deviation / 2
    sign = 1 if is_call else -1
    beyond = [0.5 * math.erfc(-sign * d / math.sqrt(2)) for d in (d_1, d_1 - deviation)]
    return sign * (forward * beyond[0] - strike * beyond[1])


@pytest.fixture(scope="module")
def month_end(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Another coin, two days before a quarter's expiry, often enough to see options shortly before they settle."""
    root, params = tmp_path_factory.mktemp("month_end"), ChainParams(every_s=2_400)
    paths = write_chains(root, instruments=[SOL], dates=[SOL_DATE], market=MARKET, params=params)
    return rows(paths[8:14], SOL.symbol)


def test_model_prices_lie_within_the_quotes(chain: pl.DataFrame) -> None:
    quoted = chain.filter(pl.col("ask").is_not_null())
    assert quoted.height > 0.8 * chain.height
    for row in quoted.sample(1_500, seed=1).iter_rows(named=True):
        model = black_76(
            forward=row["underlying_price"],
            strike=row["strike"],
            years=row["seconds"] / YEAR_S,
            iv=row["iv"],
            is_call=row["type"] == "C",
        )
        assert (row["bid"] or 0) < model + 1e-9 < row["ask"] + 1e-9


def test_quotes_never_cross_and_what_has_no_bid_is_worth_little(chain: pl.DataFrame) -> None:
    assert chain.filter(pl.col("bid") >= pl.col("ask")).is_empty()
    assert chain.filter(pl.col("bid").is_not_null() & pl.col("ask").is_null()).is_empty()
    no_bid = chain.filter(pl.col("bid").is_null() & pl.col("ask").is_not_null())
    assert no_bid.height > 100
    assert (no_bid["ask"] / no_bid["underlying_price"]).max() <= 0.0005
    unquoted = chain.filter(pl.col("ask").is_null())
    is_in_the_money = (unquoted["strike"] < unquoted["underlying_price"]) == (unquoted["type"] == "C")
    assert is_in_the_money.all()


def test_spreads_widen_with_vega_and_with_the_distance_from_the_money(chain: pl.DataFrame) -> None:
    last = chain.filter((pl.col("ts_event") == pl.col("ts_event").max()) & (pl.col("bid").is_not_null()))
    spreads: dict[date, list[tuple[float, float, float]]] = {}
    for row in last.iter_rows(named=True):
        option = {"forward": row["underlying_price"], "strike": row["strike"], "is_call": row["type"] == "C"}
        low, high = (black_76(**option, years=row["seconds"] / YEAR_S, iv=row["iv"] + step) for step in (-0.01, 0.01))
        away = abs(math.log(row["strike"] / row["underlying_price"]))
        of_price = (row["ask"] - row["bid"]) / row["underlying_price"]
        spreads.setdefault(row["expiry"], []).append(
            (away, of_price, of_price * row["underlying_price"] / (high - low))
        )
    (_, near_short, _), (_, near, in_vol), (_, _, far_in_vol) = (
        choose(spreads[expiry]) for expiry, choose in ((min(spreads), min), (max(spreads), min), (max(spreads), max))
    )

    assert near_short < 0.0015
    assert near > 5 * 0.0005  # of the venue's tick
    assert in_vol == pytest.approx(PARAMS.half_spread_volatility / 0.01, rel=0.35)  # the ticks' share is added
    assert far_in_vol > 1.5 * in_vol


@pytest.mark.parametrize("name", ["chain", "month_end"])
def test_the_surface_has_no_arbitrage(name: str, request: pytest.FixtureRequest) -> None:
    surface = vol_surface.vol_surface(request.getfixturevalue(name))

    assert surface.filter(pl.col("status") == "ok").height > 0.9 * surface.height
    assert surface["arbitrage"].sum() == surface["calendar_arbitrage"].sum() == 0
    assert surface["calendar_arbitrage"].count() > 0.8 * surface.height
    assert surface["rmse"].max() < 1e-4


@pytest.mark.parametrize("name", ["chain", "month_end"])
def test_total_variance_grows_with_time_and_prices_are_convex(name: str, request: pytest.FixtureRequest) -> None:
    """What the surface's calculator says, again without it: from the venue's volatilities alone."""
    chain = request.getfixturevalue(name).with_columns(years=pl.col("seconds") / YEAR_S)
    calls = chain.filter(pl.col("type") == "C").sort("ts_event", "ts_expiry", "strike")
    curve = calls.filter(pl.col("ts_event") == pl.col("ts_event").max())
    before: Any = None
    for (_,), one in curve.group_by(["ts_expiry"], maintain_order=True):
        strikes = one["strike"].to_numpy()
        prices = np.array(
            [
                black_76(forward=row[0], strike=row[1], years=row[2], iv=row[3], is_call=True)
                for row in one.select("underlying_price", "strike", "years", "iv").iter_rows()
            ]
        )
        slopes = np.diff(prices) / np.diff(strikes)
        # Volatilities are told to a hundredth of a vol point, prices follow from them.
        rounding = 2 * 0.00005 * 0.4 * one["underlying_price"][0] * math.sqrt(one["years"][0]) / np.diff(strikes).min()
        assert np.all((slopes <= rounding) & (slopes >= -1 - rounding))
        assert np.all(np.diff(slopes) >= -2 * rounding)
        total = one["iv"].to_numpy() ** 2 * one["years"].to_numpy()
        if before is not None:
            inside = (strikes >= before[0][0]) & (strikes <= before[0][-1])
            assert np.all(total[inside] >= np.interp(strikes[inside], *before) * 0.999)
        before = (strikes, total)


def test_calls_and_puts_keep_parity_within_their_spreads(chain: pl.DataFrame) -> None:
    keys = ["ts_event", "ts_expiry", "strike"]
    both = chain.filter(pl.col("bid").is_not_null()).with_columns(
        mid=(pl.col("bid") + pl.col("ask")) / 2, half=(pl.col("ask") - pl.col("bid")) / 2
    )
    calls, puts = (both.filter(pl.col("type") == kind) for kind in "CP")
    pairs = calls.join(puts, on=keys, suffix="_put")

    gap = (pairs["mid"] - pairs["mid_put"]) - (pairs["underlying_price"] - pairs["strike"])

    assert pairs.height > 2_000
    assert ((gap.abs() - pairs["half"] - pairs["half_put"]) <= 1e-6).all()


@pytest.mark.parametrize("name", ["chain", "month_end"])
def test_mids_imply_volatilities_near_the_venues(name: str, request: pytest.FixtureRequest) -> None:
    chain = request.getfixturevalue(name)
    implied = implied_vol.with_volatility(chain.with_columns(iv=pl.lit(None, pl.Float64)))["iv"]

    beside = chain.select("iv", mid=implied).filter(pl.col("mid").is_not_null())

    assert beside.height > 0.7 * chain.height
    assert beside["mid"].is_between(0.05, 3).all()
    assert ((beside["mid"] / beside["iv"]).log().abs().quantile(0.99) or 1) < 0.05


def test_puts_are_dearer_than_calls_as_far_out(chain: pl.DataFrame) -> None:
    last = chain.filter((pl.col("ts_event") == pl.col("ts_event").max()) & (pl.col("expiry") == date(2024, 3, 29)))
    away = (last["strike"] / last["underlying_price"]).log().to_numpy()
    low, mid, high = np.interp([-0.15, 0.0, 0.15], away[np.argsort(away)], last["iv"].to_numpy()[np.argsort(away)])

    assert low > high
    assert low > mid


def test_the_level_follows_the_hidden_volatility_of_the_last_day(chain: pl.DataFrame) -> None:
    nearest = (
        chain.filter(pl.col("ts_event").dt.hour() == 12)
        .with_columns(away=(pl.col("strike") / pl.col("underlying_price")).log().abs())
        .sort("ts_event", "ts_expiry", "away")
        .group_by("ts_event", maintain_order=True)
        .first()
    )
    found = []
    for day, iv in zip((THURSDAY, FRIDAY, SATURDAY), nearest["iv"], strict=True):
        path = np.concatenate([hidden(day - timedelta(days=1)).relative_volatility, hidden(day).relative_volatility])
        recent = math.sqrt(np.mean(np.square(path[43_200 : 43_200 + 86_400])))
        found.append(iv / (0.025 * math.sqrt(365) * PARAMS.volatility_premium * recent))

    # The nearest expiry is 20 hours ahead, over which expected variance reverts a little.
    np.testing.assert_allclose(found, 1, atol=0.04)
    assert nearest["iv"].max() > 1.05 * nearest["iv"].min()
