"""The options plot of one symbol: gamma by strike with spot and zero gamma, skew by expiry, slices of the surface."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from quant_platform.reports import numbers
from quant_platform.reports.figure_style import (
    DOWN,
    INK,
    QUIET,
    UP,
    UP_FILL,
    base_layout,
    brief,
    panel_title,
    plain_axis,
)
from quant_platform.reports.market_options_table import level
from quant_platform.reports.page import Figure

_HEIGHT = 420
_SPLIT, _RIGHT = 0.56, 0.63
_MOST_SLICES, _K_SHOWN, _POINTS = 7, 0.4, 33
_NEAR, _FAR = (0x9D, 0xC3, 0xE6), (0x12, 0x32, 0x4F)
_NARROW = 0.6


def options_figure(
    name: str, row: Mapping[str, Any], *, strikes: pl.DataFrame, skews: pl.DataFrame, slices: pl.DataFrame
) -> Figure:
    """Return net gamma by strike within the outline of calls and puts, the skew of each expiry, and the surface.

    Args:
        name: Unique on the page: the element's id.
        row: The symbol's row of `OptionsDay.numbers`.
        strikes: That symbol's rows of `OptionsDay.strikes`; may be empty, like the following.
        skews: Of `OptionsDay.skews`.
        slices: Of `OptionsDay.slices`.
    """
    near = slices.filter(pl.col("k_low") < _K_SHOWN, pl.col("k_high") > -_K_SHOWN)
    layout = base_layout(height=_HEIGHT) | {
        "xaxis": plain_axis() | {"domain": [0, _SPLIT], "anchor": "y", "tickformat": ",", "nticks": 10},
        "yaxis": plain_axis() | {"anchor": "x", "exponentformat": "B", "nticks": 7} | _zero_line(),
        "xaxis2": plain_axis()
        | {"domain": [_RIGHT, 1], "anchor": "y2", "type": "category", "tickangle": 0, "nticks": 6},
        "yaxis2": plain_axis() | {"domain": [0.6, 1], "anchor": "x2", "nticks": 5},
        "xaxis3": plain_axis() | {"domain": [_RIGHT, 1], "anchor": "y3", "nticks": 6},
        "yaxis3": plain_axis() | {"domain": [0, 0.43], "anchor": "x3", "nticks": 5},
        "barmode": "overlay",
        "bargap": 0,
        "hovermode": "closest",
        "legend": {"x": 1.005, "y": 0, "yanchor": "bottom", "font": {"size": 11}},
        "annotations": [
            panel_title(_gamma_title(strikes), 1.0),
            panel_title("Skew by expiry: put less call, vol points", 1.0, x=_RIGHT),
            panel_title("Surface: volatility, %, by log(strike ÷ forward)", 0.43, x=_RIGHT),
        ],
    }
    middle = (_RIGHT + 1) / 2
    for frame, text, x, y in (
        (strikes, "No contract near the price counts.", _SPLIT / 2, 0.5),
        (skews, "No expiry has a skew.", middle, 0.8),
        (near, "No slice was fitted.", middle, 0.2),
    ):
        if frame.is_empty():
            layout["annotations"].append(panel_title(text, y, x=x, anchor="center"))
    data: list[dict[str, Any]] = []
    if strikes.height:
        data += _gamma(strikes)
        layout["shapes"], names = _levels(row, strikes)
        layout["annotations"] += names
    if skews.height:
        data.append(_skew(skews))
    return Figure(name, _label(row), data + _surface(near), layout)


def _gamma_title(strikes: pl.DataFrame) -> str:
    title = "Gamma by strike (quote currency per 1 %): net, within the outline of calls up and puts down"
    return f"{title}; strikes in steps of {level(strikes['step'][0])}" if strikes.height else title


def _gamma(strikes: pl.DataFrame) -> list[dict[str, Any]]:
    at, step, net = strikes["strike"].to_list(), strikes["step"][0], strikes["gex_net"]
    calls, puts = (strikes["gex_gross"] + net) / 2, (net - strikes["gex_gross"]) / 2
    outline = {"color": "#ffffff", "line": {"color": "#b9c2cc", "width": 1}}
    looks = (
        ("calls", calls, 1.0, outline),
        ("puts", puts, 1.0, outline),
        ("net, calls prevail", net.set(net < 0, None), _NARROW, {"color": UP_FILL, "line": {"color": UP, "width": 1}}),
        ("net, puts prevail", net.set(net >= 0, None), _NARROW, {"color": DOWN, "line": {"color": DOWN, "width": 1}}),
    )
    return [
        {
            "type": "bar",
            "name": name,
            "x": at,
            "y": brief(values),
            "width": step * width,
            "marker": marker,
            "showlegend": False,
            "text": [numbers.large(value, "").text for value in values],
            "textposition": "none",
            "hovertemplate": f"%{{x:,}}: %{{text}} per 1 %<extra>{name}</extra>",
        }
        for name, values, width, marker in looks
        if values.count()
    ]


def _levels(row: Mapping[str, Any], strikes: pl.DataFrame) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the lines of spot and of every zero gamma among the strikes, and the names of spot and of the nearest."""
    spot, nearest, half = row["spot"], row["zero_gamma"], strikes["step"][0] / 2
    low, high = strikes["strike"][0] - half, strikes["strike"][-1] + half
    zeros = [zero for zero in json.loads(row["zero_gammas"] or "[]") if low <= zero <= high]
    lines = [_line(spot, {"color": INK, "width": 1.4})]
    lines += [_line(zero, {"color": QUIET, "width": 1.4, "dash": "dash"}) for zero in zeros]
    is_right = nearest is None or spot >= nearest
    names = [_name(f"spot {level(spot)}", spot, is_right=is_right, color=INK)]
    if nearest is not None and low <= nearest <= high:
        names.append(_name(f"zero gamma {level(nearest)}", nearest, is_right=not is_right, color=QUIET))
    return lines, names


def _line(at: float, look: dict[str, Any]) -> dict[str, Any]:
    return {"type": "line", "xref": "x", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": look}


def _name(text: str, at: float, *, is_right: bool, color: str) -> dict[str, Any]:
    place = {
        "xref": "x",
        "x": at,
        "xanchor": "left" if is_right else "right",
        "yref": "paper",
        "y": 1,
        "yanchor": "top",
    }
    font = {"size": 11, "color": color}
    return {
        "text": text,
        "showarrow": False,
        "xshift": 4 if is_right else -4,
        "bgcolor": "#ffffff",
        "font": font,
    } | place


def _skew(skews: pl.DataFrame) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "skew",
        "x": [f"{expiry:%d %b %y}" for expiry in skews["expiry"].to_list()],
        "y": brief(skews["skew"] * 100),
        "xaxis": "x2",
        "yaxis": "y2",
        "line": {"color": INK, "width": 1.4},
        "marker": {"size": 5},
        "showlegend": False,
        "hovertemplate": "%{x}: %{y:+.2f} vol points<extra>skew</extra>",
    }


def _surface(slices: pl.DataFrame) -> list[dict[str, Any]]:
    """Return a line a slice, near ones pale, those with arbitrage dashed; of many so many, evenly chosen."""
    count = min(_MOST_SLICES, slices.height)
    traces = []
    for number, at in enumerate(sorted({round(place) for place in np.linspace(0, slices.height - 1, count)})):
        of = slices.row(at, named=True)
        k = pl.Series(np.linspace(max(of["k_low"], -_K_SHOWN), min(of["k_high"], _K_SHOWN), _POINTS))
        away = k - of["m"]
        variance = of["a"] + of["b"] * (of["rho"] * away + (away**2 + of["s"] ** 2).sqrt())
        expiry = f"{of['ts_expiry']:%d %b %y}"
        is_flagged = bool(of["arbitrage"] or of["calendar_arbitrage"])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": expiry,
                "x": brief(k),
                "y": brief(100 * (variance.clip(lower_bound=0) / of["years"]).sqrt()),
                "xaxis": "x3",
                "yaxis": "y3",
                "line": {
                    "color": _shade(number / max(1, count - 1)),
                    "width": 1.4,
                    "dash": "dash" if is_flagged else "solid",
                },
                "hovertemplate": f"%{{x:.3f}}: %{{y:.1f}} %<extra>{expiry}{', arbitrage' * is_flagged}</extra>",
            }
        )
    return traces


def _shade(share: float) -> str:
    return "#" + "".join(f"{round(near + share * (far - near)):02x}" for near, far in zip(_NEAR, _FAR, strict=True))


def _zero_line() -> dict[str, Any]:
    return {"zeroline": True, "zerolinecolor": QUIET, "zerolinewidth": 1}


def _label(row: Mapping[str, Any]) -> str:
    words = (
        f"{row['symbol']}: gamma of the option chain by strike, skew by expiry, and slices of the volatility surface."
    )
    if row["gex_net"] is not None and row["spot"] is not None:
        words += f" Net gamma was {numbers.large(row['gex_net'], '').text} per 1 % at {level(row['spot'])}."
    if row["zero_gamma"] is not None:
        words += f" Zero gamma was at {level(row['zero_gamma'])}."
    return words
