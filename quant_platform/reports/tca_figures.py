"""The plots of the daily TCA report, as plotly.js takes them: no plotly import, plain dictionaries.

Colour never speaks alone: what was gained, and buys, are hollow; what was paid, and sells, are filled.
"""

import html
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import polars as pl

from quant_platform.reports import numbers
from quant_platform.reports.figure_style import (
    DOWN,
    GRID,
    INK,
    QUIET,
    UP,
    UP_FILL,
    base_layout,
    brief,
    panel_title,
    plain_axis,
)
from quant_platform.reports.page import Figure
from quant_platform.reports.tca_digest import ALL, HORIZONS, PARTS
from quant_platform.reports.tca_tables import BENCHMARK_NAMES, PART_NAMES, horizon_name

_LINES = (INK, "#1f6fb2", "#c2502f", "#3b7f4a", "#7a4fa3", "#8a6d1f", "#2a8c8c", "#a33a6b")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKERS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
_TOTAL, _PAID, _GAINED = (GRID, QUIET), (DOWN, DOWN), (UP_FILL, UP)
_APART = 0.09  # between groups at one horizon, so that their intervals do not hide each other


class _Panel(NamedTuple):
    """One of the two panels of markouts: what it compares, and its place in shares of the plot."""

    title: str
    by: tuple[str, ...]
    axis: int
    legend: str
    start: float
    middle: float
    end: float


_PANELS = (
    _Panel("All fills and by liquidity", ("all", "liquidity"), 1, "legend", 0.0, 0.36, 0.44),
    _Panel("By venue", ("venue",), 3, "legend2", 0.56, 0.92, 1.0),
)


def benchmark_figure(name: str, rows: pl.DataFrame) -> Figure:
    """Return the mean cost against each benchmark, with its interval.

    Args:
        name: Unique on the page: the element's id.
        rows: `TcaDigest.benchmarks`; at least one cost is known.
    """
    known = rows.drop_nulls("cost_bps")
    names = [BENCHMARK_NAMES[benchmark] for benchmark in known["benchmark"]]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "cost",
        "x": brief(known["cost_bps"]),
        "y": names,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": brief(known["high_bps"] - known["cost_bps"]),
            "arrayminus": brief(known["cost_bps"] - known["low_bps"]),
            "color": QUIET,
            "thickness": 1.4,
            "width": 4,
        },
        "marker": {
            "size": 9,
            "color": ["#ffffff" if cost <= 0 else DOWN for cost in known["cost_bps"]],
            "line": {"width": 1.6, "color": [UP if cost <= 0 else DOWN for cost in known["cost_bps"]]},
        },
        "hovertemplate": "%{y}: %{x:+.2f} bps<extra></extra>",
    }
    layout = base_layout(height=60 + 26 * len(names)) | {
        "margin": {"l": 170, "r": 84, "t": 26, "b": 36},
        "xaxis": plain_axis()
        | {"zeroline": True, "zerolinecolor": INK, "zerolinewidth": 1, "nticks": 12, "rangemode": "tozero"},
        "yaxis": plain_axis() | {"autorange": "reversed"},
        "showlegend": False,
        "annotations": [panel_title("Cost, bps of notional: right of 0 was paid, left was gained", 1.0)],
    }
    words = ", ".join(f"{n} {_bps(cost)}" for n, cost in zip(names, known["cost_bps"], strict=True))
    return Figure(name, f"Mean cost in bps with its interval: {words}.", [trace], layout)


def shortfall_figure(name: str, rows: pl.DataFrame) -> Figure:
    """Return the steps from paper to realised profit, and beside them the shortfall put together from its parts.

    Args:
        name: Unique on the page: the element's id.
        rows: `TcaDigest.shortfall`; all parts are known.
    """
    bps = {row["part"]: row["bps"] for row in rows.iter_rows(named=True)}
    money = {row["part"]: row["money"] for row in rows.iter_rows(named=True)}
    profit = _steps(["paper", *PARTS, "realised"], bps, money, axis="", sign=-1)
    cost = _steps([*PARTS, "shortfall"], bps, money, axis="2", sign=1)
    layout = base_layout(height=330) | {
        "margin": {"l": 64, "r": 24, "t": 30, "b": 36},
        "xaxis": plain_axis() | {"domain": [0, 0.5], "anchor": "y"},
        "yaxis": plain_axis() | _zero() | {"anchor": "x", "range": _reach(profit), "nticks": 7},
        "xaxis2": plain_axis() | {"domain": [0.57, 1], "anchor": "y2"},
        "yaxis2": plain_axis() | _zero() | {"anchor": "x2", "range": _reach(cost), "nticks": 7},
        "showlegend": False,
        "bargap": 0.35,
        "annotations": [
            panel_title("Profit, bps of notional decided, and money: from paper to realised", 1.02),
            panel_title("The shortfall alone: up was paid, down was gained", 1.02, x=0.57),
        ],
    }
    words = ", ".join(f"{PART_NAMES[part].lower()} {_bps(value)}" for part, value in bps.items())
    return Figure(name, f"Waterfall in bps of notional decided: {words}.", [profit, cost], layout)


def markout_figure(name: str, markouts: pl.DataFrame, *, least: int) -> Figure:
    """Return mean markouts by horizon: all fills and by liquidity, by venue; and to the close on a scale of its own.

    Args:
        name: Unique on the page: the element's id.
        markouts: `TcaDigest.markouts`.
        least: Fills below which a point is not drawn.
    """
    known = markouts.filter(pl.col("fills") >= least)
    data: list[dict[str, Any]] = []
    layout = base_layout(height=340) | {
        "margin": {"l": 64, "r": 64, "t": 26, "b": 44},
        "hovermode": "closest",
        "legend": _legend(0),
        "legend2": _legend(0.56),
        "annotations": [],
    }
    for panel in _PANELS:
        layout |= _markout_axes(panel)
        layout["annotations"].append(panel_title(f"{panel.title}: bps, positive = moved our way", 1.0, x=panel.start))
        own = known.filter(pl.col("by").is_in(panel.by))
        groups = own["group"].unique(maintain_order=True).to_list()
        if not groups:
            middle = (panel.start + panel.middle) / 2
            layout["annotations"].append(panel_title("Too few fills.", 0.5, x=middle, anchor="center"))
        for place, group in enumerate(groups):
            rows, aside = own.filter(pl.col("group") == group), _APART * (place - (len(groups) - 1) / 2)
            data += [
                trace
                for trace in (
                    _curve(rows.filter(pl.col("horizon") != "close"), panel, place, aside),
                    _curve(rows.filter(pl.col("horizon") == "close"), panel, place, aside),
                )
                if trace["x"]
            ]
    words = [f"{r['group']} {_bps(r['markout_bps'])}" for r in known.filter(horizon="5s").iter_rows(named=True)]
    said = f" After 5 s: {', '.join(words)}." if words else ""
    return Figure(name, f"Mean markouts from 50 ms to the close.{said}", data, layout)


def _steps(
    parts: list[str], bps: Mapping[str, float], money: Mapping[str, float], *, axis: str, sign: int
) -> dict[str, Any]:
    """Return bars that each begin where the one before ended; the first of a profit, and the last, begin at 0."""
    totals = {"paper", "realised", "shortfall"}
    bases, heights, at = [], [], 0.0
    for part in parts:
        is_total = part in totals
        bases.append(0.0 if is_total else at)
        heights.append(bps[part] if is_total else sign * bps[part])
        at = bases[-1] + heights[-1]
    looks = [_TOTAL if part in totals else _PAID if bps[part] > 0 else _GAINED for part in parts]
    return {
        "type": "bar",
        "name": "shortfall",
        "x": [PART_NAMES[part].removesuffix(" profit") for part in parts],
        "y": brief(pl.Series(heights)),
        "base": brief(pl.Series(bases)),
        "xaxis": f"x{axis}",
        "yaxis": f"y{axis}",
        "marker": {"color": [fill for fill, _ in looks], "line": {"color": [edge for _, edge in looks], "width": 1.2}},
        "text": [
            f"{_bps(height)}<br>{numbers.large(math.copysign(money[part], height), '', is_signed=True).text}"
            for part, height in zip(parts, heights, strict=True)
        ],
        "textposition": "outside",
        "cliponaxis": False,
        "textfont": {"size": 11},
        "hovertemplate": "%{x}: %{text}<extra></extra>",
    }


def _reach(trace: Mapping[str, Any]) -> list[float]:
    """Return the range of a waterfall's axis, with room for the texts: below the bars that fall, above the others."""
    ends = [(base + height, height) for base, height in zip(trace["base"], trace["y"], strict=True)]
    sizes = [0.0, *trace["base"], *(end for end, _ in ends)]
    room = 0.22 * (max(sizes) - min(sizes) or 1.0)
    texts = [end - room if height < 0 else end + room for end, height in ends]
    return [min(0.0, *texts), max(0.0, *texts)]


def _legend(x: float) -> dict[str, Any]:
    return {"orientation": "h", "x": x, "y": -0.12, "yanchor": "top", "font": {"size": 11}}


def _markout_axes(panel: _Panel) -> dict[str, Any]:
    """Return the axes of a panel: the horizons on one, the close on another beside it."""
    left, right = panel.axis, panel.axis + 1
    last = len(HORIZONS) - 2
    names = [horizon_name(horizon) for horizon in HORIZONS]
    value = plain_axis() | _zero() | {"nticks": 7, "rangemode": "tozero"}
    return {
        _axis("xaxis", left): plain_axis()
        | {
            "domain": [panel.start, panel.middle],
            "anchor": f"y{left}",
            "tickvals": list(range(last + 1)),
            "ticktext": names[:-1],
            "range": [-0.4, last + 0.4],
            "zeroline": False,
        },
        _axis("yaxis", left): value | {"anchor": f"x{left}"},
        _axis("xaxis", right): plain_axis()
        | {
            "domain": [panel.middle + 0.015, panel.end],
            "anchor": f"y{right}",
            "tickvals": [last + 1],
            "ticktext": names[-1:],
            "range": [last + 0.6, last + 1.4],
        },
        _axis("yaxis", right): value | {"anchor": f"x{right}", "side": "right"},
    }


def _curve(rows: pl.DataFrame, panel: _Panel, place: int, aside: float) -> dict[str, Any]:
    """Return one group's line through its horizons, or its point at the close, a little aside of the others."""
    at = [HORIZONS.index(horizon) for horizon in rows["horizon"]]
    is_close = at == [len(HORIZONS) - 1]
    look = place + (panel.axis > 1)  # the first look is that of all fills
    color = _LINES[look % len(_LINES)]
    text = html.escape("".join(rows["group"].head(1).replace(ALL, "All fills")))
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": text,
        "legendgroup": f"{panel.axis}-{place}",
        "showlegend": not is_close,
        "legend": panel.legend,
        "x": [horizon + aside for horizon in at],
        "y": brief(rows["markout_bps"]),
        "text": [f"{horizon_name(h)}, {n:,} fills" for h, n in rows.select("horizon", "fills").iter_rows()],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": brief(rows["high_bps"] - rows["markout_bps"]),
            "arrayminus": brief(rows["markout_bps"] - rows["low_bps"]),
            "color": color,
            "thickness": 0.8,
            "width": 2,
        },
        "xaxis": f"x{panel.axis + is_close}",
        "yaxis": f"y{panel.axis + is_close}",
        "line": {"color": color, "width": 1.6, "dash": _DASHES[look % len(_DASHES)]},
        "marker": {"symbol": _MARKERS[look % len(_MARKERS)], "size": 7},
        "hovertemplate": f"%{{y:+.2f}} bps after %{{text}}<extra>{text}</extra>",
    }


def _axis(kind: str, number: int) -> str:
    return kind if number == 1 else f"{kind}{number}"


def _zero() -> dict[str, Any]:
    return {"zeroline": True, "zerolinecolor": QUIET, "zerolinewidth": 1}


def _bps(value: float) -> str:
    return numbers.fixed(value, 2, "", is_signed=True).text
