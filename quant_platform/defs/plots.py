"""Small pictures for an asset's page: PNG data URIs in Markdown. Full-size plots belong to reports."""

import base64
import io
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from quant_platform.calculators import bars
from quant_platform.storage.lake import Lake

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_S = 300
UP, DOWN, LINE = "#1a7f5a", "#b3362b", "#2b5b9e"

Plot = Callable[[Lake, str, date], str]


def candles(lake: Lake, table: str, day: date) -> str:
    """Return five-minute candles of a date, one panel a symbol, from a bars table or from the tape itself."""
    rows = lake.scan(table, None, day, day).collect()
    if table == "market/trades":
        rows = bars.bars(rows, bars.BarParams(width_s=_WIDTH_S))
    elif table != "market/bars_5m":
        rows = bars.cascade(rows, width_s=_WIDTH_S)
    return panels(rows, _draw_candles)


def spreads(lake: Lake, table: str, day: date) -> str:
    """Return the time-weighted quoted spread in bps, one panel a symbol."""
    rows = lake.scan(table, None, day, day).collect()
    return panels(rows, lambda axes, hours, part: axes.plot(hours, part["spread_bps"], color=LINE, linewidth=0.8))


def mids(lake: Lake, table: str, day: date) -> str:
    """Return five-minute candles of the mid-quote, one panel a symbol; a mid needs both sides."""
    mid = (pl.col("bid_price") + pl.col("ask_price")) / 2
    rows = (
        lake.scan(table, None, day, day)
        .filter(mid.is_not_null())
        .group_by("symbol", ts_open=pl.col("ts_event").dt.truncate(f"{_WIDTH_S}s"), maintain_order=True)
        .agg(open=mid.first(), high=mid.max(), low=mid.min(), close=mid.last())
        .collect()
    )
    return panels(rows, _draw_candles)


def bands(lake: Lake, table: str, day: date) -> str:
    """Return prices within their Bollinger bands, one panel a symbol."""
    return panels(lake.scan(table, None, day, day).collect(), _draw_bands)


def panels(
    rows: pl.DataFrame,
    draw: Callable[["Axes", pl.Series, pl.DataFrame], object],
    *,
    nothing: str = "Nothing traded on this date.",
) -> str:
    """Draw one panel a symbol over the hours of the date; return the picture as Markdown.

    Args:
        rows: `symbol ts_open`, and what is drawn.
        draw: Given the panel, the hours of its rows since midnight, and the rows.
        nothing: What is returned where there are no rows.
    """
    if rows.is_empty():
        return nothing
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = rows.partition_by("symbol", as_dict=True)
    midnight = rows["ts_open"].dt.truncate("1d").min()
    figure = Figure(figsize=(7, 1.7 * len(parts)), dpi=80)
    FigureCanvasAgg(figure)
    column = figure.subplots(len(parts), sharex=True, squeeze=False)[:, 0]
    figure.subplots_adjust(left=0.11, right=0.99, top=1 - 0.12 / len(parts), bottom=0.2 / len(parts), hspace=0.3)
    for axes, ((symbol,), part) in zip(column, sorted(parts.items()), strict=True):
        draw(axes, (part["ts_open"] - midnight).dt.total_seconds() / 3600, part)
        axes.set_title(str(symbol), loc="left", fontsize=8, y=1)  # to find its height costs as much as the drawing
        axes.tick_params(labelsize=7)
        axes.margins(x=0.01)
    column[-1].set_xlabel("hour, UTC", fontsize=7)
    return picture(figure)


def picture(figure: "Figure") -> str:
    """Return a figure as Markdown that holds it."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return f"![plot](data:image/png;base64,{base64.b64encode(file.getvalue()).decode()})"


def uprights(
    axes: "Axes",
    hours: pl.Series,
    start: pl.Series | float,
    end: pl.Series,
    *,
    color: str,
    linewidth: float,
    label: str | None = None,
) -> None:
    """Draw an upright line at each hour: one line with gaps, where an object for each would cost ten times as much."""
    x, y = np.repeat(hours.to_numpy(), 3), np.full(3 * len(hours), np.nan)
    y[::3], y[1::3] = start, end
    axes.plot(x, y, color=color, linewidth=linewidth, label=label, solid_capstyle="butt")


def _draw_candles(axes: "Axes", hours: pl.Series, part: pl.DataFrame) -> None:
    is_up = part["close"] >= part["open"]
    for chosen, color in ((is_up, UP), (~is_up, DOWN)):
        at, of = hours.filter(chosen), part.filter(chosen)
        uprights(axes, at, of["low"], of["high"], color=color, linewidth=0.5)
        uprights(axes, at, of["open"], of["close"], color=color, linewidth=1.6)


def _draw_bands(axes: "Axes", hours: pl.Series, part: pl.DataFrame) -> None:
    axes.fill_between(hours, part["bollinger_lower"], part["bollinger_upper"], color=LINE, alpha=0.25)
    axes.plot(hours, part["price"], color=LINE, linewidth=0.7)
