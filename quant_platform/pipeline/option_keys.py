"""What live keys show of option tables: of each snapshot the rows over the whole chain, by the batch's own functions.

The live writer makes them of the chain that came now and of those before; parity reads them from the lake.
"""

from collections.abc import Mapping

import polars as pl

from quant_platform.calculators import exposure_history
from quant_platform.contracts.enums import Exposure
from quant_platform.pipeline import options
from quant_platform.pipeline.options import DEALER_FLOW, GAMMA_EXPOSURE, SKEW, UNUSUAL_ACTIVITY
from quant_platform.settings import Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import Key

EXPOSURES = (GAMMA_EXPOSURE, DEALER_FLOW, SKEW)
TABLES = (*EXPOSURES, UNUSUAL_ACTIVITY)
"""What the keys of options show."""

OF_WHOLE_CHAINS: Mapping[str, pl.Expr] = {
    GAMMA_EXPOSURE: pl.col("strike").is_null() & pl.col("expiry").is_null(),
    DEALER_FLOW: pl.col("expiry").is_null(),
    SKEW: pl.col("expiry").is_null(),
    UNUSUAL_ACTIVITY: pl.lit(value=True),
}
"""Which rows of each table are over a whole chain: one a snapshot."""

_STANDINGS: Mapping[Key, Mapping[str, Exposure]] = {
    redis_keys.GEX: {"": Exposure.GEX_NET, "gross_": Exposure.GEX_GROSS},
    redis_keys.DEX: {"": Exposure.DEX_NET},
    redis_keys.VANNA: {"": Exposure.VANNA},
    redis_keys.CHARM: {"": Exposure.CHARM},
    redis_keys.SKEW: {"": Exposure.SKEW},
}


def known(chain: pl.DataFrame, symbol: str, settings: Settings) -> pl.DataFrame:
    """Return the rows of one symbol's chain with receipt filled as the lake fills it."""
    latency = pl.duration(nanoseconds=round(settings.assumed_latency_ms[symbol] * 1e6), time_unit="ns")
    return chain.with_columns(pl.col("ts_recv").fill_null(pl.col("ts_event") + latency))


def exposures(chain: pl.DataFrame, settings: Settings) -> dict[str, pl.DataFrame]:
    """Return the rows over whole chains of the tables of exposures, by table.

    Args:
        chain: Contract `OptionChain`, receipt filled, any number of underlyings and snapshots.
        settings: The whole tree.
    """
    held, greeks = options.valued(chain, {symbol: settings.instrument(symbol) for symbol in chain["symbol"].unique()})
    found = options.exposures(held, greeks, settings)
    return {table: rows.filter(OF_WHOLE_CHAINS[table]) for table, rows in found.items()}


def values(totals: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Return the exposures of whole chains of which histories are kept, as `exposure_history.exposure_values` does."""
    return exposure_history.exposure_values(*(totals[table] for table in EXPOSURES))


def shown(totals: Mapping[str, pl.DataFrame], earlier: pl.DataFrame, settings: Settings) -> dict[Key, pl.DataFrame]:
    """Return what each key of exposures shows of some snapshots.

    Args:
        totals: By table of `EXPOSURES`, the rows over whole chains.
        earlier: What `values` says of earlier snapshots.
        settings: The whole tree.

    Returns:
        By key, a row a snapshot: the columns of its contract, and `z_score` and `percentile` where it has them. The
        levels of zero gamma are a list.
    """
    standings = exposure_history.exposure_history(values(totals), earlier, settings.analytics.exposure_history).lazy()
    found = {}
    for key in redis_keys.OPTION_METRICS:
        if key is redis_keys.UNUSUAL:
            continue
        assert key.contract  # a metric's
        rows = totals[key.contract.table].lazy()
        for prefix, exposure in _STANDINGS.get(key, {}).items():
            of_one = standings.filter(pl.col("exposure") == exposure).select(
                "symbol", "ts_event", pl.col("z_score", "percentile").name.prefix(prefix)
            )
            rows = rows.join(of_one, on=["symbol", "ts_event"], how="left", maintain_order="left")
        if key is redis_keys.GEX:
            rows = rows.with_columns(pl.col("zero_gammas").str.json_decode(pl.List(pl.Float64)))
        found[key] = rows
    return dict(zip(found, pl.collect_all(found.values(), engine="in-memory"), strict=True))
