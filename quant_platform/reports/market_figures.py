"""The plots of the daily market report, as plotly.js takes them: no plotly import, plain dictionaries.

Colour never speaks alone: up and buyers are hollow, down and sellers are filled; symbols differ by dash and marker.
"""

import html
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from typing import Any

import polars as pl

from quant_platform.reports.figure_style import (
    DOWN,
    INK,
    QUIET,
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

_LINES = ("#1f6fb2", "#c2502f", "#3b7f4a", "#7a4fa3", "#8a6d1f", "#2a8c8c", "#a33a6b", "#55606e")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")


def session(
    name: str,
    symbol: str,
    date: Date,
    *,
    bars: pl.DataFrame,
    spreads: pl.DataFrame,
    gaps: pl.DataFrame,
    vwap: float | None,
) -> Figure:
    """Return candles, volume by net aggressor, and the quoted spread of one symbol over one clock.

    Args:
        name: Unique on the page: the element's id.
        symbol: Whose day it is.
        date: The UTC day that the clock spans.
        bars: That symbol's five-minute bars, at least one, in order of time.
        spreads: That symbol's five-minute spreads, in order of time; may be empty.
        gaps: That symbol's gaps: each is marked at its end on the price panel.
        vwap: The day's VWAP, drawn as a line; None draws none.
    """
    slots = clock(date, bars["ts_open"])
    opens = minute_texts(bars["ts_open"])
    quoted = slots.join(spreads, on="ts_open", how="left", maintain_order="left")
    layout = base_layout(height=520) | {
        "xaxis": time_axis(slots["ts_open"]),
        "yaxis": plain_axis() | {"domain": [0.46, 1], "tickformat": ",", "nticks": 6},
        "yaxis2": plain_axis() | {"domain": [0.22, 0.38], "nticks": 4, "rangemode": "tozero"},
        "yaxis3": plain_axis() | {"domain": [0, 0.14], "nticks": 4, "rangemode": "tozero"},
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "showlegend": False,
        "bargap": 0.15,
        "annotations": [
            panel_title("Price (quote currency)", 1.0),
            panel_title("Volume (base units)", 0.38),
            panel_title("Quoted spread, time-weighted (bps)", 0.14),
        ],
    }
    data = [_candles(bars, opens), *_volumes(bars, opens)]
    if spreads.height:
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "spread",
                "x": minute_texts(quoted["ts_open"]),
                "y": brief(quoted["spread_bps"]),
                "yaxis": "y3",
                "line": {"color": INK, "width": 1.2, "shape": "hv"},
                "connectgaps": False,
                "hovertemplate": "%{y:.2f} bps<extra>spread</extra>",
            }
        )
    else:
        layout["annotations"].append(panel_title("No quotes on this date.", 0.09, x=0.5, anchor="center"))
    if vwap is not None:
        layout["shapes"] = [_level(vwap)]
        layout["annotations"].append(_level_name("VWAP", vwap))
    if gaps.height:
        data.append(_gap_marks(gaps, top=bars["high"].max()))
    return Figure(name, _session_label(symbol, date, bars, spreads, gaps), data, layout)


def context(name: str, date: Date, daily: pl.DataFrame, symbols: tuple[str, ...]) -> Figure:
    """Return each symbol's closes rebased to 100 and its volume as a multiple of its own median, date by date.

    Args:
        name: Unique on the page: the element's id.
        date: The report's date: its points are the large ones.
        daily: The mart's rows of at least two dates.
        symbols: The order of colours, dashes and markers.
    """
    data: list[dict[str, Any]] = []
    for i, symbol in enumerate(symbols):
        rows = daily.filter(pl.col("symbol") == symbol, pl.col("close") > 0, pl.col("volume") > 0).select(
            "trading_date",
            rebased=pl.col("close") / pl.col("close").first() * 100,
            relative=pl.col("volume") / pl.col("volume").median(),
        )
        dates = rows["trading_date"].to_list()
        panels = (
            ("x", "y", rows["rebased"], "%{y:.2f}"),
            ("x2", "y2", rows["relative"], "%{y:.2f} × median"),
        )
        for x, y, values, hover in panels:
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": html.escape(symbol),
                    "legendgroup": str(i),
                    "showlegend": x == "x",
                    "x": [f"{d:%Y-%m-%d}" for d in dates],
                    "y": brief(values),
                    "xaxis": x,
                    "yaxis": y,
                    "line": {
                        "color": _LINES[i % len(_LINES)],
                        "width": 1.6,
                        "dash": _DASHES[i % len(_DASHES)],
                    },
                    "marker": {
                        "symbol": _MARKERS[i % len(_MARKERS)],
                        "size": [9 if d == date else 4 for d in dates],
                    },
                    "hovertemplate": hover,
                }
            )
    axis = plain_axis() | {"type": "date", "tickformat": "%d %b", "hoverformat": "%a %d %b %Y", "nticks": 8}
    layout = base_layout(height=300) | {
        "xaxis": axis | {"domain": [0, 0.47], "anchor": "y"},
        "xaxis2": axis | {"domain": [0.53, 1], "anchor": "y2"},
        "yaxis": plain_axis() | {"anchor": "x", "nticks": 6},
        "yaxis2": plain_axis() | {"anchor": "x2", "nticks": 6, "rangemode": "tozero"},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top", "itemsizing": "constant"},
        "annotations": [
            panel_title("Close, first date shown = 100", 1.0),
            panel_title("Volume, multiple of own median", 1.0, x=0.53),
        ],
    }
    span = f"{daily['trading_date'].sort()[0]} to {date}"
    return Figure(name, f"Closes rebased to 100 and volume against its median, {span}.", data, layout)


def _candles(bars: pl.DataFrame, opens: list[str]) -> dict[str, Any]:
    return {
        "type": "candlestick",
        "name": "price",
        "x": opens,
        **{column: bars[column].to_list() for column in ("open", "high", "low", "close")},
        "increasing": {"line": {"color": UP, "width": 1}, "fillcolor": "#ffffff"},
        "decreasing": {"line": {"color": DOWN, "width": 1}, "fillcolor": DOWN},
    }


def _volumes(bars: pl.DataFrame, opens: list[str]) -> list[dict[str, Any]]:
    net = bars["buy_volume"] - bars["sell_volume"]
    shares = (bars["buy_volume"] / bars["volume"]).round(4)
    looks = (
        ("net buyers", net >= 0, {"color": UP_FILL, "line": {"color": UP, "width": 1}}),
        ("net sellers", net < 0, {"color": DOWN, "line": {"color": DOWN, "width": 1}}),
    )
    traces = []
    for name, chosen, marker in looks:
        at = chosen.arg_true().to_list()
        if at:
            traces.append(
                {
                    "type": "bar",
                    "name": name,
                    "x": [opens[i] for i in at],
                    "y": brief(bars["volume"][at]),
                    "customdata": shares[at].to_list(),
                    "yaxis": "y2",
                    "offsetgroup": "volume",
                    "marker": marker,
                    "hovertemplate": f"%{{y:,.4~g}}, %{{customdata:.0%}} bought<extra>{name}</extra>",
                }
            )
    return traces


def _gap_marks(gaps: pl.DataFrame, top: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "gap",
        "x": gaps["ts_end"].dt.strftime("%Y-%m-%dT%H:%M:%S").to_list(),
        "y": [top] * gaps.height,
        "customdata": gaps["missing"].to_list(),
        "marker": {"symbol": "triangle-down", "size": 10, "color": INK},
        "hovertemplate": "%{customdata:,} trade ids missing<extra>gap</extra>",
    }


def _session_label(symbol: str, date: Date, bars: pl.DataFrame, spreads: pl.DataFrame, gaps: pl.DataFrame) -> str:
    first, last = bars["open"][0], bars["close"][-1]
    words = (
        f"{symbol} on {date}, UTC: {bars.height} five-minute candles with volume and quoted spread. "
        f"Opened at {first:g}, high {bars['high'].sort()[-1]:g}, low {bars['low'].sort()[0]:g}, closed at {last:g}."
    )
    if not spreads.height:
        words += " No quotes."
    return words + (f" {gaps.height} gaps in the trade ids are marked." if gaps.height else "")


def _level(value: float) -> dict[str, Any]:
    line = {"color": QUIET, "width": 1, "dash": "dot"}
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "yref": "y",
        "y0": value,
        "y1": value,
        "line": line,
    }


def _level_name(name: str, value: float) -> dict[str, Any]:
    place = {"xref": "paper", "x": 1.005, "xanchor": "left", "yref": "y", "y": value, "yanchor": "middle"}
    return {
        "text": f"{name}<br>{value:,.7g}",
        "showarrow": False,
        "align": "left",
        "font": {"size": 11, "color": QUIET},
    } | place
