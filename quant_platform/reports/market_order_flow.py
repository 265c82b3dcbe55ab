"""One date's order flow as a report takes it: a line of numbers a symbol, and five-minute slots to draw.

Here: tables of `microstructure/*` in, two small frames out. Not here: reasons and cells (market_order_flow_table),
plots (market_order_flow_figure).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from quant_platform.contracts.enums import Level, VpinMethod
from quant_platform.contracts.microstructure import (
    FlowClusters,
    HiddenOrder,
    OrderBookImbalance,
    ParticipantFlow,
    Sweep,
    Toxicity,
    Vpin,
)
from quant_platform.reports.figure_style import SLOT

CLUSTERS = ("momentum", "mean_reversion", "hedging")
SHARES = ("institutional_notional_share", "retail_notional_share")


def _sum(name: str) -> pl.Expr:
    """Return the sum of what is known; null, and not 0, where nothing is."""
    return pl.when(pl.col(name).count() > 0).then(pl.col(name).sum())


_method, _toxicity, _side = pl.col("method"), pl.col("toxicity_adjusted"), pl.col("side")
_same_method = pl.col("vpin").filter(_method == _method.last())
_high_minutes = pl.col("ts_open").filter(pl.col("toxicity_adjusted_level") == Level.HIGH).dt.truncate("1m").n_unique()
_is_judged = pl.col("hidden").is_not_null()
_NUMBERS: Mapping[str, Iterable[pl.Expr]] = {
    Vpin.table: (
        pl.col("vpin").last(),
        pl.col("cdf", "level", "method").last().name.prefix("vpin_"),
        pl.col("is_warm").last().alias("is_vpin_warm"),
        _same_method.min().alias("vpin_low"),
        _same_method.max().alias("vpin_high"),
        pl.col("status").last().alias("vpin_status"),
    ),
    Toxicity.table: (
        _toxicity.mean().alias("toxicity_mean"),
        _toxicity.max().alias("toxicity_max"),
        pl.when(_toxicity.count() > 0).then(_high_minutes.cast(pl.Int64)).alias("toxicity_high_minutes"),
        pl.col("status").last().alias("toxicity_status"),
    ),
    OrderBookImbalance.table: (
        pl.col("l1", "l5").abs().mean().name.prefix("imbalance_"),
        _sum("ofi").alias("ofi"),
        pl.col("status").last().alias("book_status"),
        pl.col("depth_status").last(),
    ),
    Sweep.table: (
        (_side == 1).sum().cast(pl.Int64).alias("sweeps_bought"),
        (_side == -1).sum().cast(pl.Int64).alias("sweeps_sold"),
        pl.col("volume").filter(_side != 0).sum().alias("swept_volume"),
    ),
    HiddenOrder.table: (
        _sum("hidden_volume"),
        _is_judged.mean().alias("hidden_judged_share"),
        pl.col("status").last().alias("hidden_status"),
    ),
    ParticipantFlow.table: (pl.col(SHARES).mean(), pl.col("status").last().alias("participant_status")),
    FlowClusters.table: (
        pl.col([f"{name}_share" for name in CLUSTERS]).mean(),
        pl.col("status").last().alias("cluster_status"),
    ),
}
_SLOTS: Mapping[str, Iterable[pl.Expr]] = {
    Vpin.table: (
        pl.when(_method == VpinMethod.BUCKETS).then("vpin").last(),
        pl.when(_method == VpinMethod.SIMPLE_IMBALANCE).then("vpin").last().alias("simple_imbalance"),
        pl.col("cdf").last(),
    ),
    Toxicity.table: (_toxicity.mean().alias("toxicity_mean"), _toxicity.max().alias("toxicity_max")),
    OrderBookImbalance.table: (pl.col("l1", "l5").mean(), _sum("ofi")),
}
TABLES = tuple(_NUMBERS)


@dataclass(frozen=True)
class OrderFlow:
    """What a report shows of one date's order flow.

    Attributes:
        numbers: One row per symbol that any table has, sorted. `vpin vpin_cdf vpin_level vpin_method is_vpin_warm` are
            those after the day's last trade, `vpin_low vpin_high` the range of that method; `imbalance_l1 imbalance_l5`
            are means of absolute values; `hidden_judged_share` is the share of trades that could be held against a
            quote; the shares of notional and of the clusters are means of the day's samples; the `*_status` are those
            of each table's last row, null where it has none.
        slots: One row per symbol and five minutes that VPIN, toxicity or the book have, sorted. `vpin`, or
            `simple_imbalance` in its stead, and `cdf` are the last ones, `ofi` is the sum, `toxicity_max` the maximum;
            the others are means.
    """

    numbers: pl.DataFrame
    slots: pl.DataFrame


def order_flow(tables: Mapping[str, pl.LazyFrame]) -> OrderFlow:
    """Reduce the order-flow tables of one date; what is not known is null.

    Args:
        tables: By name, each of `TABLES`: columns of its contract, rows in order of time within a symbol, maybe none.
    """
    numbers = [tables[table].group_by("symbol").agg(*columns) for table, columns in _NUMBERS.items()]
    slot = pl.col("ts_open").dt.truncate(SLOT)
    slots = [tables[table].group_by("symbol", slot).agg(*columns) for table, columns in _SLOTS.items()]
    frames = (pl.concat(numbers, how="align"), pl.concat(slots, how="align"))
    return OrderFlow(*pl.collect_all(frames, engine="in-memory"))
