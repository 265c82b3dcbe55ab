"""Bulk volume: time bars whose volume is parted into bought and sold by how far the price moved.

Source: Andersen and Bondarenko, "Assessing Measures of Order Flow Toxicity via Perfect Trade Classification" (2013), of
which the abstract was read. It names the scheme of Easley, Lopez de Prado and O'Hara, and finds it less accurate than
the tick rule.
"""

import math

import numpy as np
import polars as pl

from quant_platform.calculators._tape import Array

OPEN_BAR = pl.Schema(
    {
        "symbol": pl.String(),
        "bar": pl.Int64(),
        "ts": pl.Int64(),
        "recv": pl.Int64(),
        "last_trade_id": pl.Int64(),
        "close": pl.Float64(),
        "previous_close": pl.Float64(),
        "units": pl.Float64(),
    }
)
"""The bar that each symbol's last trade is in: its number, last trade, and volume in units of the symbol's book."""


def closed_bars(
    open_bars: pl.DataFrame, tape: pl.DataFrame, scales: pl.DataFrame, bar_ns: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the open bars after the tape, and the bars that it closed: those with a later one of their symbol.

    Args:
        open_bars: `OPEN_BAR`, one row a symbol at most.
        tape: Trades in order, none before an open bar's last one.
        scales: `symbol scale`, units to a base unit.
        bar_ns: Width of the bars.

    Returns:
        Two frames as `OPEN_BAR`, sorted by symbol and bar; `recv` of a closed bar is not before its end.
    """
    ts = pl.col("ts_event").to_physical()
    rows = tape.join(scales, on="symbol", how="left", maintain_order="left").select(
        "symbol",
        bar=ts // bar_ns,
        ts=ts,
        recv=pl.col("ts_recv").to_physical(),
        last_trade_id="last_trade_id",
        close="price",
        previous_close=pl.lit(None, pl.Float64),
        units=(pl.col("size") * pl.col("scale")).round(),
    )
    bars = (
        pl.concat([open_bars.join(rows, on="symbol", how="semi", maintain_order="left"), rows])
        .group_by("symbol", "bar", maintain_order=True)
        .agg(
            pl.col("ts", "last_trade_id", "close").last(),
            pl.col("recv").max(),
            pl.col("previous_close").first(),
            pl.col("units").sum(),  # whole numbers: exact in any order
        )
        .sort("symbol", "bar")
        .with_columns(previous_close=pl.coalesce("previous_close", pl.col("close").shift().over("symbol")))
        .select(OPEN_BAR.names())
    )
    is_open = (pl.col("symbol") != pl.col("symbol").shift(-1)).fill_null(True)
    ends = (pl.col("bar") + 1) * bar_ns
    closed = bars.filter(~is_open).with_columns(recv=pl.max_horizontal("recv", ends))
    kept = open_bars.join(bars, on="symbol", how="anti", maintain_order="left")
    return pl.concat([kept, bars.filter(is_open)], rechunk=True), closed


def bought_less_sold(bars: pl.DataFrame) -> Array:
    """Return the share of each bar's volume that was bought less that sold, of `close previous_close price_change_std`.

    The bought share is the normal distribution function of the change over its standard deviation; half if one is null.
    """
    change = (pl.col("close") - pl.col("previous_close")) / (pl.col("price_change_std") * math.sqrt(2))
    scaled = bars.select(change.fill_null(0.0)).to_series().to_numpy()
    share: Array = np.frompyfunc(math.erf, 1, 1)(scaled).astype(float)
    return share
