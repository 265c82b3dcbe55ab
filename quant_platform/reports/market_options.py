"""One date's option chains as a report takes them: a line of numbers a symbol, and its newest snapshot to draw.

Here: tables of `options/*` and what follows from chains in, small frames out. Not here: reasons and cells
(market_options_table), sentences (market_options_verdict), plots (market_options_figure).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from quant_platform.contracts._schema import empty
from quant_platform.contracts.dealer import DealerFlow, ExposureHistory, GammaExposure, Skew
from quant_platform.contracts.enums import Exposure, Status
from quant_platform.contracts.microstructure import UnusualActivity
from quant_platform.contracts.options import VolSurface
from quant_platform.contracts.volatility import Vix1dProxy, VolIndexRegime
from quant_platform.reports.strike_steps import by_steps

_GAMMA = ("gex_gross", "gex_net")
_LEVELS = (
    "max_gex_strike",
    "zero_gamma",
    "zero_gamma_count",
    "zero_gammas",
    "zero_gamma_from",
    "zero_gamma_to",
    "directional_bias",
    "sign_convention",
    "contracts_used",
    "contracts_skipped",
)
_FLOWS = ("vanna_net_notional_per_vol_pt", "charm_net_notional_per_day", "notional_per_pct_move")
_of_chain = pl.col("strike").is_null() & pl.col("expiry").is_null()
_is_newest = pl.col("ts_event") == pl.col("ts_event").max().over("symbol")
_is_fitted = pl.col("status") == Status.OK


def _standing(exposure: Exposure) -> tuple[pl.Expr, ...]:
    """Return where an exposure's last value stands among the last ones."""
    own = pl.col("exposure") == exposure
    names = {name: name for name in ("z_score", "percentile", "samples")} | {"status": "history_status"}
    return tuple(pl.col(name).filter(own).last().alias(f"{exposure}_{alias}") for name, alias in names.items())


_ROWS: Mapping[str, pl.Expr] = {
    GammaExposure.table: _of_chain,
    DealerFlow.table: pl.col("expiry").is_null(),
    Skew.table: pl.col("expiry").is_null(),
    VolSurface.table: _is_newest,
}
_NUMBERS: Mapping[str, Iterable[pl.Expr]] = {
    GammaExposure.table: (
        pl.col("ts_event").last().alias("snapshot"),
        pl.len().cast(pl.Int64).alias("snapshots"),
        pl.col("underlying_price").last().alias("spot"),
        pl.col(*_GAMMA, "dex_gross", "dex_net", *_LEVELS).last(),
        pl.col("status").last().alias("gamma_status"),
    ),
    DealerFlow.table: (pl.col(_FLOWS).last(), pl.col("status").last().alias("flow_status")),
    Skew.table: (
        pl.col("skew", "headline_expiry", "put_delta", "call_delta").last(),
        pl.col("status").last().alias("skew_status"),
    ),
    ExposureHistory.table: (*_standing(Exposure.GEX_NET), *_standing(Exposure.SKEW)),
    VolSurface.table: (
        pl.len().cast(pl.Int64).alias("slices"),
        _is_fitted.sum().cast(pl.Int64).alias("slices_fitted"),
        pl.col("arbitrage").sum().cast(pl.Int64).alias("slices_with_butterflies"),
        pl.col("calendar_arbitrage").sum().cast(pl.Int64).alias("slices_with_calendars"),
        pl.any_horizontal("arbitrage", "calendar_arbitrage").sum().cast(pl.Int64).alias("slices_with_arbitrage"),
    ),
    Vix1dProxy.table: (
        pl.col("vix1d_proxy", "horizon_minutes").last(),
        pl.col("status").last().alias("proxy_status"),
    ),
    UnusualActivity.table: (
        pl.col("classification", "score", "volume_oi_ratio", "max_contract_ratio", "dominant_flow").last(),
        pl.col("status").last().alias("activity_status"),
    ),
}
TABLES = (*_NUMBERS, VolIndexRegime.table)
_SLICE = ("ts_expiry", "years", "k_low", "k_high", "a", "b", "rho", "m", "s", "arbitrage", "calendar_arbitrage")


@dataclass(frozen=True)
class OptionsDay:
    """What a report shows of one date's option chains; the newest snapshot unless it says otherwise.

    Attributes:
        numbers: One row per symbol that any table has, sorted, null where a table has none of it. `snapshot` is the
            newest snapshot's time, `snapshots` how many there are; `gex_* dex_* zero_gamma*`, skew, flows and activity
            are those of the whole chain, in the units of their tables; `gex_net_*` and `skew_*` say where these stand
            among the last ones; `slices*` count those of the surface, fitted, or with either kind of arbitrage; the
            `*_status` are those of each table's last row.
        strikes: `symbol strike step gex_gross gex_net`, a row a step of strikes, sorted.
        skews: `symbol expiry skew`, a row an expiry that has one, sorted.
        slices: The fitted slices of the surface, sorted: `symbol ts_expiry`, the SVI parameters, the flags.
        regimes: Contract `VolIndexRegime`: the last reading of each index and source.
    """

    numbers: pl.DataFrame
    strikes: pl.DataFrame
    skews: pl.DataFrame
    slices: pl.DataFrame
    regimes: pl.DataFrame


def options_day(tables: Mapping[str, pl.LazyFrame]) -> OptionsDay:
    """Reduce the tables of one date's chains; what is not known is null.

    Args:
        tables: By name, each of `TABLES`: columns of its contract, rows in order of time within a symbol, maybe none.
    """
    numbers = [
        tables[table].filter(_ROWS.get(table, pl.lit(value=True))).group_by("symbol").agg(*columns)
        for table, columns in _NUMBERS.items()
    ]
    gamma = tables[GammaExposure.table]
    newest = gamma.filter(_is_newest)
    spots = newest.filter(_of_chain).select("symbol", spot="underlying_price")
    of_strikes = newest.filter(pl.col("strike").is_not_null() & pl.col("expiry").is_null())
    skews = tables[Skew.table].filter(_is_newest & pl.col("expiry").is_not_null() & pl.col("skew").is_not_null())
    regimes = tables[VolIndexRegime.table]
    frames = (
        pl.concat(numbers, how="align"),
        by_steps(of_strikes, spots, values=_GAMMA),
        skews.select("symbol", "expiry", "skew").sort("symbol", "expiry"),
        tables[VolSurface.table].filter(_is_newest & _is_fitted).select("symbol", *_SLICE).sort("symbol", "ts_expiry"),
        regimes.group_by("symbol", "source").last().select(regimes.collect_schema().names()).sort("symbol", "source"),
    )
    return OptionsDay(*pl.collect_all(frames, engine="in-memory"))


def no_options() -> OptionsDay:
    """Return a date without a chain."""
    contracts = (GammaExposure, DealerFlow, Skew, ExposureHistory, VolSurface, Vix1dProxy, UnusualActivity)
    return options_day({contract.table: empty(contract).lazy() for contract in (*contracts, VolIndexRegime)})
