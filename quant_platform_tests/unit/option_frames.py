"""One small date of option chains, made through the contracts: what the tests of its report and its plots stand on."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from quant_platform.contracts._schema import Contract, empty
from quant_platform.contracts.dealer import DealerFlow, ExposureHistory, GammaExposure, Skew
from quant_platform.contracts.microstructure import UnusualActivity
from quant_platform.contracts.options import VolSurface
from quant_platform.contracts.volatility import Vix1dProxy, VolIndexRegime
from quant_platform.reports.market_options import TABLES, OptionsDay, options_day
from quant_platform_tests.unit.order_flow_frames import rows

FIRST, LAST = 0, 3600
"""Seconds of the two snapshots since midnight."""
NEAR, FAR = date(2024, 8, 16), date(2024, 9, 27)
_CONVENTION = "dealer_long_calls_short_puts"


def gamma(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """Dealers short 10 at a price of 101, an hour later long 20 of 100 gross at 100; changes apply to that total.

    Of the last snapshot: puts of 30 at 90, calls of 30 and puts of 10 at 100, calls of 30 at 110.
    """
    levels = {
        "zero_gamma": 98.0,
        "zero_gamma_count": 2,
        "zero_gammas": "[98.0, 115.0]",
        "zero_gamma_from": 80.0,
        "zero_gamma_to": 120.0,
    }
    whole = {"max_gex_strike": 100.0, "directional_bias": "long", "contracts_used": 6, "contracts_skipped": 1234}
    earlier = _exposure(30.0, -10.0, 5.0) | whole | {"at": FIRST, "underlying_price": 101.0, "zero_gamma": 102.0}
    last = _exposure(100.0, 20.0, -400.0) | whole | levels | {"at": LAST, "underlying_price": 100.0}
    by_strike = ((90.0, 30.0, -30.0, -300.0), (100.0, 40.0, 20.0, -200.0), (110.0, 30.0, 30.0, 100.0))
    strikes = [_exposure(*sums) | {"at": LAST, "strike": strike} for strike, *sums in by_strike]
    by_expiry = (
        (90.0, NEAR, 30.0, -30.0, -300.0),
        (100.0, NEAR, 15.0, -5.0, -200.0),
        (100.0, FAR, 25.0, 25.0, 0.0),
        (110.0, FAR, 30.0, 30.0, 100.0),
    )
    cells = [_exposure(*sums) | {"at": LAST, "strike": strike, "expiry": expiry} for strike, expiry, *sums in by_expiry]
    before = _exposure(30.0, -10.0, 5.0) | {"at": FIRST, "strike": 100.0}
    return rows(GammaExposure, earlier, before, last | changes, *strikes, *cells, symbol=symbol)


def _exposure(gross: float, net: float, delta: float) -> dict[str, Any]:
    return {"gex_gross": gross, "gex_net": net, "dex_gross": 500.0, "dex_net": delta, "sign_convention": _CONVENTION}


def flows(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """What hedgers trade: in all 70, 6 and −8; half of the last snapshot's is of the far expiry."""
    names = ("notional_per_pct_move", "vanna_net_notional_per_vol_pt", "charm_net_notional_per_day")
    whole = {"vol_beta": -0.3} | dict(zip(names, (70.0, 6.0, -8.0), strict=True)) | changes
    half = {"at": LAST, "vol_beta": -0.3} | dict(zip(names, (35.0, 3.0, -4.0), strict=True))
    older = {"at": FIRST, "expiry": NEAR} | dict.fromkeys(names, 9.0)
    return rows(
        DealerFlow,
        whole | {"at": FIRST},
        older,
        whole | {"at": LAST},
        half | {"expiry": NEAR},
        half | {"expiry": FAR},
        symbol=symbol,
    )


def skews(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """A skew of 2 vol points, an hour later of 3.5, and 5 of the far expiry; changes apply to the headlines."""
    sides = {"headline_expiry": NEAR, "put_delta": -0.26, "call_delta": 0.24}
    return rows(
        Skew,
        {"at": FIRST, "skew": 0.02, **sides},
        {"at": FIRST, "skew": 0.02, "expiry": NEAR},
        {"at": LAST, "skew": 0.035, **sides, **changes},
        {"at": LAST, "skew": 0.035, "expiry": NEAR},
        {"at": LAST, "skew": 0.05, "expiry": FAR},
        {"at": LAST, "expiry": date(2024, 12, 27), "status": "one_sided"},
        symbol=symbol,
    )


def history(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """Net gamma 1.5 standard deviations high, skew 0.25 low, of 24 snapshots each."""
    gammas = {"exposure": "gex_net", "value": 20.0, "samples": 24, "percentile": 0.9, "z_score": 1.5, **changes}
    skew = {"exposure": "skew", "value": 0.035, "samples": 24, "percentile": 0.5, "z_score": -0.25, **changes}
    return rows(
        ExposureHistory,
        gammas | {"at": FIRST, "z_score": 0.0},
        gammas | {"at": LAST},
        skew | {"at": LAST},
        symbol=symbol,
    )


def surface(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """A flat slice of 20 % without arbitrage, one with either kind, and one that was not fitted."""
    fitted = {
        "at": LAST,
        "k_low": -0.1,
        "k_high": 0.1,
        "a": 0.0004,
        "b": 0.0,
        "rho": 0.0,
        "m": 0.0,
        "s": 1.0,
        "years": 0.01,
        "arbitrage": False,
        "calendar_arbitrage": None,
        **changes,
    }
    near, far = _settlement(NEAR), _settlement(FAR)
    return rows(
        VolSurface,
        fitted | near | {"at": FIRST, "arbitrage": True},
        fitted | near,
        fitted | far | {"years": 0.04, "arbitrage": True, "calendar_arbitrage": True},
        {"at": LAST, "status": "too_few", **_settlement(date(2024, 12, 27))},
        symbol=symbol,
    )


def _settlement(expiry: date) -> dict[str, Any]:
    return {"expiry": expiry, "ts_expiry": datetime(expiry.year, expiry.month, expiry.day, 8, tzinfo=UTC)}


def proxies(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """An index of its own of 50, an hour later of 54.321 vol points over a day."""
    whole = {"horizon_minutes": 1440.0}
    return rows(
        Vix1dProxy,
        {**whole, "at": FIRST, "vix1d_proxy": 50.0},
        {**whole, "at": LAST, "vix1d_proxy": 54.321, **changes},
        symbol=symbol,
    )


def activity(symbol: str = "AAA", **changes: Any) -> pl.DataFrame:
    """Activity that was normal, and is elevated at last, mostly of calls."""
    ratios = {"volume_oi_ratio": 0.25, "max_contract_ratio": 12.5, "dominant_flow": "CALL"}
    return rows(
        UnusualActivity,
        {**ratios, "at": FIRST, "score": 0.1, "classification": "normal"},
        {**ratios, "at": LAST, "score": 0.61, "classification": "elevated", **changes},
        symbol=symbol,
    )


def regimes(symbol: str = "VIX1D", **changes: Any) -> pl.DataFrame:
    """Two readings of one source, the last one of 14.2."""
    whole = {"source": "cboe", "samples": 60, "regime": "NORMAL", **dict.fromkeys(_CUTOFFS, 1.0)}
    return rows(
        VolIndexRegime,
        {**whole, "at": FIRST, "value": 12.0, "z_score": 0.0},
        {**whole, "at": LAST, "value": 14.2, "z_score": 0.5, **changes},
        symbol=symbol,
    )


_CUTOFFS = (
    "shock_value",
    "shock_change_5m",
    "elevated_value",
    "elevated_change_1h",
    "elevated_z_score",
    "benign_value",
    "benign_z_score",
)
MADE: Mapping[type[Contract], Callable[..., pl.DataFrame]] = {
    GammaExposure: gamma,
    DealerFlow: flows,
    Skew: skews,
    ExposureHistory: history,
    VolSurface: surface,
    Vix1dProxy: proxies,
    UnusualActivity: activity,
}


def chains(*symbols: str, **frames: pl.DataFrame) -> OptionsDay:
    """The date of those symbols (AAA if none is named); a frame under its table's name stands in place of its own.

    There is no published index unless `vix1d_regime` is given.
    """
    tables = {
        contract.table: pl.concat([made(symbol) for symbol in symbols or ("AAA",)]) for contract, made in MADE.items()
    }
    tables[VolIndexRegime.table] = empty(VolIndexRegime)
    by_name = {table.partition("/")[2]: table for table in TABLES}
    tables |= {by_name[name]: frame for name, frame in frames.items()}
    return options_day({table: frame.lazy() for table, frame in tables.items()})
