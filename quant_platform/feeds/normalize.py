"""What every feed's rows go through on their way to the lake, whatever the venue: holes in the trade ids."""

import polars as pl

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import GapStatus
from quant_platform.contracts.market import Gap


def trade_gaps(trades: pl.LazyFrame) -> pl.DataFrame:
    """Return one row per jump in the trade ids, as contract Gap.

    A jump is a row whose `first_trade_id` is above the largest `last_trade_id` before it + 1, in id order. Ids
    that go back (an overlap) are not a hole.

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
    # A run is unbroken: it stands for its rows, and there are few of them.
    starts, ends = tape.filter("is_first"), tape.filter("is_last")
    runs = starts.select("symbol", "first_trade_id", ts_end="ts_event", ts_known="ts_recv").hstack(
        ends.select("last_trade_id", ts_start="ts_event")
    )
    return (
        runs.sort("symbol", "first_trade_id", maintain_order=True)
        .with_columns(before=pl.col("last_trade_id").cum_max().shift().over("symbol"))
        .with_columns(
            ts_start=pl.when(pl.col("last_trade_id") > pl.col("before").fill_null(-1))
            .then("ts_start")
            .forward_fill()
            .shift()
            .over("symbol")
        )
        .filter(pl.col("first_trade_id") > pl.col("before") + 1)
        .select(
            "symbol",
            first_id=pl.col("before") + 1,
            last_id=pl.col("first_trade_id") - 1,
            missing=pl.col("first_trade_id") - pl.col("before") - 1,
            ts_start="ts_start",
            ts_end="ts_end",
            status=pl.lit(GapStatus.OPEN.value),
            filled_by=pl.lit(None, pl.String),
            ts_known="ts_known",
        )
        .cast(polars_schema(Gap))
    )
