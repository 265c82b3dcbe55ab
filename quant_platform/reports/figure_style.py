"""What all plots look like: colours, layout, axes, titles within the plot, and the clock of a date.

Colour never speaks alone: up and buyers are hollow, down and sellers are filled.
"""

from datetime import UTC, datetime, timedelta
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from typing import Any

import polars as pl

UP, DOWN, INK, GRID, QUIET = "#1f6fb2", "#c2502f", "#1d2530", "#e9ecf0", "#667080"
UP_FILL = "#e3eef8"
SLOT = timedelta(minutes=5)
_FONT = '-apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_MINUTES = "%Y-%m-%dT%H:%M"


def base_layout(height: int) -> dict[str, Any]:
    """Return size, margins and fonts; axes and titles are added by the plot."""
    return {
        "height": height,
        "margin": {"l": 64, "r": 84, "t": 26, "b": 44},
        "font": {"family": _FONT, "size": 12, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "dragmode": "zoom",
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": "#c9d0d8"},
    }


def plain_axis() -> dict[str, Any]:
    """Return an axis without ticks and zero line."""
    return {"gridcolor": GRID, "linecolor": "#c9d0d8", "zeroline": False, "ticks": "", "automargin": False}


def clock(date: Date, instants: pl.Series) -> pl.DataFrame:
    """Return `ts_open`: all slots of the UTC day, and of those instants that lie outside it."""
    # A slot without data stays on the clock as null, so that lines break where data do.
    midnight = datetime(date.year, date.month, date.day, tzinfo=UTC)
    slots = pl.datetime_range(
        min([midnight, *instants.head(1)]),
        max([midnight + timedelta(days=1) - SLOT, *instants.tail(1)]),
        interval=SLOT,
        time_unit="ns",
        eager=True,
    )
    return pl.DataFrame({"ts_open": slots})


def time_axis(slots: pl.Series) -> dict[str, Any]:
    """Return the time axis that all panels of a date share, below the lowest: it spans the clock's slots."""
    return plain_axis() | {
        "anchor": "free",  # a panel without a trace has no axis that could be the anchor
        "position": 0,
        "type": "date",
        "range": [minute_texts(slots)[0], minute_texts(slots + SLOT)[-1]],
        "rangeslider": {"visible": False},
        "ticks": "outside",
        "tickcolor": "#c9d0d8",
        "tickformat": "%H:%M\n%d %b",
        "hoverformat": "%H:%M UTC",
        "showspikes": True,
        "spikemode": "across",
        "spikethickness": 1,
        "spikedash": "dot",
        "spikecolor": QUIET,
    }


def panel_title(text: str, y: float, *, x: float = 0, anchor: str = "left") -> dict[str, Any]:
    """Return the title of a panel, or a remark within it; `x` and `y` are shares of the plot."""
    place = {"xref": "paper", "yref": "paper", "x": x, "y": y, "xanchor": anchor, "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "font": {"size": 12, "color": QUIET}} | place


def minute_texts(instants: pl.Series) -> list[str]:
    """Return times to the minute, as plotly takes them."""
    return instants.dt.strftime(_MINUTES).to_list()


def brief(values: pl.Series) -> list[float | None]:
    """Return six significant digits: a plot shows no more, and the page weighs a third less."""
    return values.cast(pl.Float64).round_sig_figs(6).to_list()
