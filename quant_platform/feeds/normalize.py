"""What every feed's rows go through on their way to the lake, whatever the venue: holes in the trade ids."""

import polars as pl

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import GapStatus
from quant_platform.contracts.market import Gap

Runs = pl.DataFrame  # unbroken ranges of ids by symbol; there are few of them


def runs(trades: pl.LazyFrame) -> Runs:
    """Return the unbroken ranges of ids: `symbol first_trade_id last_trade_id ts_end ts_known ts_start`.

    `ts_start` is the venue time of a range's last trade, where a hole may start; `ts_end` that of its first, where a
    hole ends, and `ts_known` the receipt of that one.

    Args:
        trades: Rows of `market/trades`, receive times filled; any number of symbols, any order.
    """
    is_new_run = pl.any_horizontal(
        pl.col("first_trade_id") != pl.col("last_trade_id").shift() + 1,
        pl.col("symbol") != pl.col("symbol").shift(),
    ).fill_null(value=True)
    tape = (
        trades.select("symbol", "first_trade_id", "last_trade_id", "ts_event", "ts_recv")
        .with_columns(is_first=is_new_run)
        .with_columns(is_last=pl.col("is_first").shift(-1, fill_value=True))
        .filter(pl.col("is_first") | pl.col("is_last"))
        .collect()
    )
    starts, ends = tape.filter("is_first"), tape.filter("is_last")
    return starts.select("symbol", "first_trade_id", ts_end="ts_event", ts_known="ts_recv").hstack(
        ends.select("last_trade_id", ts_start="ts_event")
    )


def merged(known: Runs, trades: pl.LazyFrame) -> Runs:
    """Return the ranges with more trades, those that touch or overlap as one."""
    every = pl.concat([known, runs(trades)]).sort("symbol", "first_trade_id", maintain_order=True)
    before = pl.col("last_trade_id").cum_max().shift().over("symbol")
    is_new = (pl.col("first_trade_id") > before + 1).fill_null(value=True)
    return (
        every.with_columns(run=is_new.cum_sum())
        .group_by("symbol", "run", maintain_order=True)
        .agg(
            pl.col("first_trade_id", "ts_end", "ts_known").first(),
            pl.col("last_trade_id").max(),
            pl.col("ts_start").sort_by("last_trade_id", maintain_order=True).last(),
        )
        .select(known.columns)
    )


def holes(known: Runs) -> pl.DataFrame:
    """Return one open row per jump in the trade ids, as contract Gap: between a range and the next of its symbol.

    Ids that go back (an overlap) are not a hole.
    """
    before = pl.col("last_trade_id", "ts_start").shift().over("symbol")
    return (
        known.sort("symbol", "first_trade_id")
        .with_columns(before.name.prefix("before_"))
        .filter(pl.col("before_last_trade_id").is_not_null())
        .select(
            "symbol",
            first_id=pl.col("before_last_trade_id") + 1,
            last_id=pl.col("first_trade_id") - 1,
            missing=pl.col("first_trade_id") - pl.col("before_last_trade_id") - 1,
            ts_start="before_ts_start",
            ts_end="ts_end",
            status=pl.lit(GapStatus.OPEN.value),
            filled_by=pl.lit(None, pl.String),
            ts_known="ts_known",
        )
        .cast(polars_schema(Gap))
    )


def trade_gaps(trades: pl.LazyFrame) -> pl.DataFrame:
    """Return the holes of a whole tape: `runs`, `merged`, `holes`."""
    return holes(merged(runs(trades.head(0)), trades))
