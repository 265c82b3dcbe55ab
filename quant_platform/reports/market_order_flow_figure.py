"""The order-flow plot of one symbol: price and order flow imbalance, the book, VPIN and toxicity over one clock."""

from datetime import date as Date  # noqa: N812  # `date` names parameters here
from typing import Any, NamedTuple

import polars as pl

from quant_platform.reports.figure_style import (
    DOWN,
    INK,
    QUIET,
    SLOT,
    UP,
    UP_FILL,
    base_layout,
    brief,
    clock,
    minute_texts,
    panel_title,
    plain_axis,
    time_axis,
)
from quant_platform.reports.page import Figure

_SOLID = {"color": INK, "width": 1.4}
_DOTTED = {"color": UP, "width": 1.2, "dash": "dot"}
_DASHED = {"color": QUIET, "width": 1.2, "dash": "dash"}
_HIGHEST = {"color": DOWN, "width": 1.2, "dash": "dot"}
_SHARE_RANGE = [0, 1.02]


class _Panel(NamedTuple):
    bottom: float
    top: float
    title: str
    when_empty: str
    traces: list[dict[str, Any]]


def order_flow_figure(name: str, symbol: str, date: Date, *, slots: pl.DataFrame, bars: pl.DataFrame) -> Figure:
    """Return close with cumulative order flow imbalance, book imbalance, VPIN with its CDF, and toxicity.

    Args:
        name: Unique on the page: the element's id.
        symbol: Whose day it is.
        date: The UTC day that the clock spans.
        slots: That symbol's slots of `OrderFlow`, at least one, in order of time.
        bars: That symbol's five-minute bars, in order of time; may be empty.
    """
    times = pl.concat([slots["ts_open"], bars["ts_open"]]).sort()
    day = clock(date, times).join(slots, on="ts_open", how="left", maintain_order="left")
    day = day.join(bars.select("ts_open", "close"), on="ts_open", how="left", maintain_order="left")
    day = day.with_columns(pl.col("ofi").cum_sum())
    is_touch = slots["l5"].count() == 0 < slots["l1"].count()
    panels = _panels(day, day["l1" if is_touch else "l5"], "the touch alone" if is_touch else "five levels")
    titles = [panel_title(panel.title, panel.top) for panel in panels]
    empty = [p for p in panels if not p.traces]
    remarks = [panel_title(p.when_empty, (p.bottom + p.top) / 2, x=0.5, anchor="center") for p in empty]
    price, book, vpin, toxicity = (plain_axis() | {"domain": [p.bottom, p.top], "nticks": 4} for p in panels)
    right = {"side": "right", "showgrid": False, "tickmode": "auto"}
    layout = base_layout(height=640) | {
        "xaxis": time_axis(day["ts_open"]),
        "yaxis": price | {"tickformat": ","},
        "yaxis2": price | right | {"overlaying": "y", "tickformat": "~s"},
        "yaxis3": book | {"zeroline": True, "zerolinecolor": QUIET},
        "yaxis4": vpin | {"rangemode": "tozero"},
        "yaxis5": vpin | right | {"overlaying": "y4", "range": _SHARE_RANGE},
        "yaxis6": toxicity | {"range": _SHARE_RANGE},
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "showlegend": False,
        "barmode": "overlay",
        "bargap": 0.15,
        "annotations": titles + remarks,
    }
    return Figure(name, _label(symbol, date, day), [trace for panel in panels for trace in panel.traces], layout)


def _panels(day: pl.DataFrame, book: pl.Series, levels: str) -> tuple[_Panel, ...]:
    # A start and a step in place of every time: the page weighs half as much.
    times = {"x0": minute_texts(day["ts_open"])[0], "dx": SLOT.total_seconds() * 1000}
    bought = {"color": UP_FILL, "line": {"color": UP, "width": 1}}
    sold = {"color": DOWN, "line": {"color": DOWN, "width": 1}}

    def drawn(*traces: tuple[str, pl.Series, str, str, dict[str, Any]]) -> list[dict[str, Any]]:
        return [_trace(*trace) | times for trace in traces if trace[1].count()]

    return (
        _Panel(
            *(0.73, 1.0),
            "Close (quote currency): line. Cumulative order flow imbalance (base units): dotted, right scale",
            "Neither bars nor a book on this date.",
            drawn(
                ("close", day["close"], "y", "%{y:,}", {"line": _SOLID}),
                ("cumulative OFI", day["ofi"], "y2", "%{y:,.4~s}", {"line": _DOTTED}),
            ),
        ),
        _Panel(
            *(0.5, 0.67),
            f"Order-book imbalance of {levels}, mean of five minutes (−1 to 1): hollow more bid, filled more offered",
            "No book on this date.",
            drawn(
                ("book, more bid", book.set(book < 0, None), "y3", "%{y:.3f}", {"marker": bought}),
                ("book, more offered", book.set(book >= 0, None), "y3", "%{y:.3f}", {"marker": sold}),
            ),
        ),
        _Panel(
            *(0.23, 0.44),
            "VPIN: line. Its CDF: dotted, right scale. Dashed: too few full buckets, of all volume since the open",
            "No VPIN on this date.",
            drawn(
                ("VPIN", day["vpin"], "y4", "%{y:.3f}", {"line": _SOLID}),
                ("since the open", day["simple_imbalance"], "y4", "%{y:.3f}", {"line": _DASHED}),
                ("CDF", day["cdf"], "y5", "%{y:.2f}", {"line": _DOTTED}),
            ),
        ),
        _Panel(
            *(0.0, 0.17),
            "Toxicity (0 to 1): mean of five minutes, line; highest of five minutes, dotted",
            "No toxicity on this date.",
            drawn(
                ("toxicity, mean", day["toxicity_mean"], "y6", "%{y:.3f}", {"line": _SOLID}),
                ("toxicity, highest", day["toxicity_max"], "y6", "%{y:.3f}", {"line": _HIGHEST}),
            ),
        ),
    )


def _trace(name: str, values: pl.Series, axis: str, hover: str, look: dict[str, Any]) -> dict[str, Any]:
    place = {"y": brief(values), "yaxis": axis}
    kind = {"type": "scatter", "mode": "lines", "connectgaps": False} if "line" in look else {"type": "bar"}
    return {"name": name, "hovertemplate": f"{hover}<extra>{name}</extra>"} | kind | place | look


def _label(symbol: str, date: Date, day: pl.DataFrame) -> str:
    words = f"{symbol} on {date}, UTC: order flow in steps of five minutes."
    for values, sentence in (
        (day["vpin"], "VPIN was {:.3f} at the end."),
        (day["ofi"], "Order flow imbalance added up to {:,.4g} base units."),
        (day["toxicity_max"].sort(), "Toxicity was at most {:.3f}."),
    ):
        known = values.drop_nulls()
        words += f" {sentence.format(known[-1])}" if known.len() else ""
    return words
