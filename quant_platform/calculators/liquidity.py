"""Liquidity measured on quotes. What needs trades beside them lives with execution quality."""

import polars as pl

from quant_platform.contracts._schema import INSTANT
from quant_platform.contracts.enums import Status

_NS = 1_000_000_000


def quoted_spread(quotes: pl.DataFrame, width_s: int) -> pl.DataFrame:
    """Return the time-weighted quoted spread of each interval in which a symbol's quote changed.

    Args:
        quotes: Contract `Quote` with `ts_recv` filled; any number of symbols, any row order; order among quotes of
            one instant is `sequence`.
        width_s: The interval's width in seconds.

    Returns:
        `symbol ts_open spread_bps quote_count status ts_known`, by symbol and ts_open. `spread_bps` is the mean of
        (ask - bid)/mid in bps over the time in which the quote in force was valid: both sides there with a price that
        is finite and positive and a size that is not 0, and not crossed (locked counts, as 0). Null where none was.
        A quote holds until the symbol's next one; the one in force at the interval's start counts, the last one holds
        to the end of its interval. `quote_count` counts the quotes that came in the interval, valid or not. An
        interval without a quote has no row: a quiet book cannot be told from a silent feed.
    """
    if width_s < 1:
        raise ValueError(f"width_s must be >= 1, was {width_s}")
    width_ns = width_s * _NS
    ts = pl.col("ts_event").to_physical()
    bid, ask = pl.col("bid_price"), pl.col("ask_price")
    is_valid = (
        pl.all_horizontal(price.is_finite() & (price > 0) for price in (bid, ask))
        & pl.all_horizontal(pl.col(size).ne_missing(0) for size in ("bid_size", "ask_size"))
        & (bid <= ask)
    )
    before = pl.all().exclude("symbol").shift().over("symbol").name.suffix("_before")
    opened = pl.col("ts_open")
    held_ns = pl.min_horizontal(pl.col("ts").shift(-1).over("symbol"), opened + width_ns) - pl.col("ts")
    is_first = opened != pl.col("ts_open_before")
    carried_ns = pl.when(is_first).then(pl.col("ts") - opened)
    weighted = pl.col("bps") * pl.col("held_ns")
    weighted_before = pl.col("bps_before") * pl.col("carried_ns")
    weight = pl.col("held_ns").filter(pl.col("bps").is_not_null()).sum()
    weight_before = pl.col("carried_ns").filter(pl.col("bps_before").is_not_null()).sum()
    return (
        quotes.lazy()
        .filter(pl.col("ts_event").is_not_null() & pl.col("symbol").is_not_null())
        .sort("symbol", "ts_event", "sequence", maintain_order=True)
        .select(
            "symbol",
            ts=ts,
            ts_open=ts - ts.mod(width_ns),
            recv=pl.col("ts_recv").to_physical(),
            bps=pl.when(is_valid).then((ask - bid) / ((ask + bid) / 2) * 1e4),
        )
        .with_columns(before)
        .with_columns(held_ns=held_ns, carried_ns=carried_ns)
        .group_by("symbol", "ts_open", maintain_order=True)
        .agg(
            spread_bps=(weighted.sum() + weighted_before.sum()) / (weight + weight_before),
            quote_count=pl.len().cast(pl.Int64),
            recv=pl.max_horizontal(pl.col("recv").max(), pl.col("recv_before").filter(pl.col("carried_ns") > 0).max()),
        )
        .select(
            "symbol",
            opened.cast(INSTANT),
            pl.col("spread_bps").fill_nan(None),
            "quote_count",
            status=pl.when(pl.col("spread_bps").is_not_nan()).then(pl.lit(Status.OK)).otherwise(pl.lit(Status.NO_DATA)),
            ts_known=pl.max_horizontal("recv", opened + width_ns).cast(INSTANT),
        )
        .collect(engine="in-memory")  # the streaming engine sums a group in parts: other threads, other last bits
    )
