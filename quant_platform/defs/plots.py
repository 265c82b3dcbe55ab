"""Small pictures for an asset's page: PNG data URIs in Markdown. Full-size plots belong to reports."""

import base64
import io
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quant_platform.calculators import bars, liquidity
from quant_platform.storage.lake import Lake

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH_S = 300
_UP, _DOWN, _LINE = "#1a7f5a", "#b3362b", "#2b5b9e"

Plot = Callable[[Lake, str, date], str]


def candles(lake: Lake, table: str, day: date) -> str:
    """Return five-minute candles of a date, one panel a symbol, from a bars table or from the tape itself."""
    rows = lake.scan(table, None, day, day).collect()
    if table == "market/trades":
        rows = bars.bars(rows, bars.BarParams(width_s=_WIDTH_S))
    elif table != "market/bars_5m":
        rows = bars.cascade(rows, width_s=_WIDTH_S)
    return _panels(rows, _draw_candles)


def spreads(lake: Lake, table: str, day: date) -> str:
    """Return the time-weighted quoted spread in bps, one panel a symbol."""
    rows = liquidity.quoted_spread(lake.scan(table, None, day, day).collect(), width_s=_WIDTH_S)
    return _panels(rows, lambda axes, part: axes.plot(part["ts_open"], part["spread_bps"], color=_LINE, linewidth=0.8))


def bands(lake: Lake, table: str, day: date) -> str:
    """Return prices within their Bollinger bands, one panel a symbol."""
    return _panels(lake.scan(table, None, day, day).collect(), _draw_bands)


def _draw_candles(axes: "Axes", part: pl.DataFrame) -> None:
    colours = [_UP if up else _DOWN for up in (part["close"] >= part["open"]).to_list()]
    bodies = part.select(bottom=pl.min_horizontal("open", "close"), height=(pl.col("open") - pl.col("close")).abs())
    axes.vlines(part["ts_open"], part["low"], part["high"], colors=colours, linewidth=0.5)
    axes.bar(part["ts_open"], bodies["height"], 0.0026, bodies["bottom"], color=colours)


def _draw_bands(axes: "Axes", part: pl.DataFrame) -> None:
    axes.fill_between(part["ts_open"], part["bollinger_lower"], part["bollinger_upper"], color=_LINE, alpha=0.25)
    axes.plot(part["ts_open"], part["price"], color=_LINE, linewidth=0.7)


def _panels(rows: pl.DataFrame, draw: Callable[["Axes", pl.DataFrame], object]) -> str:
    """Draw one panel a symbol and return the picture as Markdown; text where there is nothing to draw."""
    if rows.is_empty():
        return "Nothing traded on this date."
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import ConciseDateFormatter
    from matplotlib.figure import Figure

    parts = rows.partition_by("symbol", as_dict=True)
    figure = Figure(figsize=(7, 1.7 * len(parts)), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, ((symbol,), part) in zip(
        figure.subplots(len(parts), squeeze=False)[:, 0], sorted(parts.items()), strict=True
    ):
        draw(axes, part)
        axes.set_title(str(symbol), loc="left", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))  # type: ignore[no-untyped-call]  # matplotlib's
        axes.margins(x=0.01)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return f"![plot](data:image/png;base64,{base64.b64encode(file.getvalue()).decode()})"
