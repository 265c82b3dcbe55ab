"""The chart of one order: the mid around its life, its fills, the arrival mid and the interval's VWAP."""

import html
from collections.abc import Mapping
from typing import Any

import polars as pl

from quant_platform.reports import numbers
from quant_platform.reports.figure_style import DOWN, INK, QUIET, UP, base_layout, panel_title, plain_axis
from quant_platform.reports.page import Figure

FILLS_DRAWN = 200

_INSTANT = "%Y-%m-%dT%H:%M:%S%.3f"
_DASHES = {"arrival": "dot", "VWAP": "dash"}


def order_figure(name: str, rank: int, row: Mapping[str, Any], *, path: pl.DataFrame, fills: pl.DataFrame) -> Figure:
    """Return the mid around an order's life with its fills, the arrival mid and the interval's VWAP.

    Args:
        name: Unique on the page: the element's id.
        rank: Its place among the worst.
        row: Its row of `TcaDigest.worst`.
        path: Its rows of `DailyTca.paths`, in order of time; may be empty, like the following.
        fills: Its rows of `TcaDigest.fills`.
    """
    drawn = fills.drop_nulls(["price", "quantity"]).sort("quantity", "fill_id", descending=[True, False])
    drawn = drawn.head(FILLS_DRAWN).sort("ts_event", "fill_id")
    data: list[dict[str, Any]] = []
    if path["mid_price"].count():
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "mid",
                "x": path["ts_event"].dt.strftime(_INSTANT).to_list(),
                "y": path["mid_price"].round_sig_figs(9).to_list(),
                "line": {"color": "#8a94a0", "width": 1.2, "shape": "hv"},
                "hovertemplate": "%{y:,} mid<extra></extra>",
            }
        )
    if drawn.height:
        data.append(_fill_marks(drawn, is_buy=row["side"] > 0))
    start, end = (f"{at:%Y-%m-%dT%H:%M:%S.%f}" for at in (row["ts_event"], row["ts_done"]))
    life = {
        "type": "rect",
        "xref": "x",
        "x0": start,
        "x1": end,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"width": 0},
    }
    levels = {"arrival": row["arrival_price"], "VWAP": row["vwap_price"]}
    lines, names = _levels({text: value for text, value in levels.items() if value is not None})
    cost = numbers.fixed(row["arrival_cost_bps"], 2, "", is_signed=True).text
    title = (
        f"<b>{rank}</b>  {html.escape(row['symbol'])} {'buy' if row['side'] > 0 else 'sell'}"
        f"{', ' + html.escape(row['algo']) if row['algo'] else ''}: {cost} bps, "
        f"{numbers.large(row['arrival_paid'], '').text} paid"
    )
    layout = base_layout(height=270) | {
        "margin": {"l": 64, "r": 74, "t": 26, "b": 36},
        "xaxis": plain_axis() | {"type": "date", "tickformat": "%H:%M:%S", "hoverformat": "%H:%M:%S.%L", "nticks": 5},
        "yaxis": plain_axis() | {"tickformat": ",", "nticks": 6},
        "hovermode": "closest",
        "showlegend": False,
        "shapes": [life | {"fillcolor": "#f1f4f7", "layer": "below"}, *lines],
        "annotations": [panel_title(title, 1.0), *names],
    }
    words = (
        f"Order {row['order_id']}: the mid around its life, and {drawn.height} of its {row['fill_count']} fills; "
        f"arrival mid {row['arrival_price']:,.7g}, average price {row['avg_price']:,.7g}."
    )
    if not path["mid_price"].count():
        layout["annotations"].append(panel_title("No mids of its life are known.", 0.02, x=0.01))
    return Figure(name, words, data, layout)


def _fill_marks(fills: pl.DataFrame, *, is_buy: bool) -> dict[str, Any]:
    largest = pl.col("quantity").max()
    sizes = fills.select((6 + 8 * (pl.col("quantity") / largest).sqrt()).round(1)).to_series()
    words = fills.select(
        pl.format(
            "{} at {}, {}",
            pl.col("quantity").round_sig_figs(6),
            pl.col("venue").fill_null("no venue told"),
            pl.col("liquidity").fill_null("liquidity not told"),
        )
    ).to_series()
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "fills",
        "x": fills["ts_event"].dt.strftime(_INSTANT).to_list(),
        "y": fills["price"].round_sig_figs(9).to_list(),
        "text": [html.escape(text) for text in words],
        "marker": {
            "symbol": "triangle-up" if is_buy else "triangle-down",
            "size": sizes.to_list(),
            "color": "#ffffff" if is_buy else DOWN,
            "line": {"width": 1.3, "color": UP if is_buy else DOWN},
        },
        "hovertemplate": "%{y:,}: %{text}<extra>fill</extra>",
    }


def _levels(levels: Mapping[str, float]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a line a price, and their names at the right: the upper one above its line, the lower one below."""
    place = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y"}
    lines = [
        place | {"y0": value, "y1": value, "line": {"color": INK, "width": 1, "dash": _DASHES[text]}}
        for text, value in levels.items()
    ]
    upper = max(levels, key=lambda text: levels[text], default="")
    names = [
        {
            "text": f"{text}<br>{value:,.7g}",
            "showarrow": False,
            "align": "left",
            "font": {"size": 11, "color": QUIET},
            "xref": "paper",
            "x": 1.005,
            "xanchor": "left",
            "yref": "y",
            "y": value,
            "yanchor": "bottom" if text == upper else "top",
        }
        for text, value in levels.items()
    ]
    return lines, names
