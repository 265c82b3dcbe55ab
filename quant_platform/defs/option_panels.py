"""How the pictures of options are drawn: a grid of panels, bars, lines over time, heatmaps. Not here: which rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from quant_platform.defs.plots import DOWN, LINE, UP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _PALE = "#1d2530", "#b9c2cc"
_SCALES = ((1e12, "T"), (1e9, "bn"), (1e6, "M"), (1e3, "k"))
_LABELS = 4
_GAMMA_WIDTHS = (1.8, 4.2)
_MAP_PITCH = 1.1


def grid(names: Sequence[str], widths: Sequence[float], *, height: float) -> tuple["Figure", Any]:
    """Return a figure and its panels, lines × columns, a line named by its first panel's title.

    Args:
        names: Of the lines.
        widths: Of the columns, against each other.
        height: Of a line, in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(names)
    figure = Figure(figsize=(11, height * count + 0.2), dpi=80)
    FigureCanvasAgg(figure)
    lines = figure.subplots(count, len(widths), squeeze=False, width_ratios=list(widths))
    inches = height * count + 0.2
    figure.subplots_adjust(left=0.06, right=0.99, top=1 - 0.3 / inches, bottom=0.3 / inches, hspace=0.28, wspace=0.14)
    for name, row in zip(names, lines, strict=True):
        row[0].set_title(name, loc="left", fontsize=9, fontweight="bold", y=1)
        for axes in row:
            axes.tick_params(labelsize=7, length=2)
            axes.margins(x=0.01)
    return figure, lines


def gamma_panels(chains: pl.DataFrame, over_time: pl.DataFrame, by_expiry: pl.DataFrame) -> "Figure":
    """Return, a line a symbol and strikes upwards: gamma of the newest snapshot, and the maps of gamma and delta.

    Args:
        chains: `symbol ts_event underlying_price zero_gamma`, in order of time; the last one of a symbol is its newest.
        over_time: `symbol ts_event strike step gex_gross gex_net dex_net`, sorted.
        by_expiry: `symbol expiry strike step gex_gross gex_net dex_net` of the newest snapshots, sorted.
    """
    symbols = sorted(chains["symbol"].unique())
    figure, lines = grid(symbols, _GAMMA_WIDTHS, height=3.0)
    for symbol, (profile, maps) in zip(symbols, lines, strict=True):
        own, times, expiries = (frame.filter(pl.col("symbol") == symbol) for frame in (chains, over_time, by_expiry))
        _profile(profile, times.filter(pl.col("ts_event") == own["ts_event"][-1]), own.tail(1))
        _maps(maps, own, times, expiries)
        if times.height:
            half = times["step"][0] / 2
            for axes in (profile, maps):
                axes.set_ylim(times["strike"].min() - half, times["strike"].max() + half)
    return figure


def short_bars(axes: "Axes", values: pl.Series) -> None:
    """Draw a bar a value, positive and negative told apart, with amounts in k, M, bn or T."""
    known = values.fill_null(0.0)
    colours = [UP if up else DOWN for up in (known >= 0).to_list()]
    axes.vlines(range(known.len()), 0, known, colors=colours, linewidth=min(9.0, 120 / max(1, known.len())))
    axes.axhline(0, color=_PALE, linewidth=0.6)
    axes.locator_params("y", nbins=4)
    _amounts(axes.yaxis)


def dates_below(axes: "Axes", dates: pl.Series) -> None:
    """Write a few of the dates below the places from 0 on, with the year where there are two."""
    pattern = "%-d %b" if dates.dt.year().n_unique() == 1 else "%-d %b %y"
    _some_labels(axes, dates.dt.strftime(pattern).to_list())
    axes.set_xlim(-0.6, dates.len() - 0.4)


def lines_over_time(axes: "Axes", rows: pl.DataFrame, value: pl.Expr) -> None:
    """Draw a value over `ts_event`."""
    values = rows.select(value).to_series()
    axes.plot(range(rows.height), values, color=LINE, linewidth=1, marker="o", markersize=2.5)
    _some_labels(axes, rows["ts_event"].dt.strftime("%H:%M").to_list())


def _profile(axes: "Axes", rows: pl.DataFrame, chain: pl.DataFrame) -> None:
    """Draw net gamma by strike, to the right where calls prevail, within the outline of calls and puts."""
    if rows.is_empty():
        return
    step, at = rows["step"][0], _places(rows)
    gross, net = np.zeros(at.max() + 1), np.zeros(at.max() + 1)
    gross[at], net[at] = rows["gex_gross"], rows["gex_net"]
    edges = rows["strike"][0] + step * (np.arange(len(net) + 1) - 0.5)
    for side in ((gross + net) / 2, (net - gross) / 2):
        axes.stairs(side, edges, orientation="horizontal", color=_PALE)
    colours = np.where(net >= 0, UP, DOWN).tolist()
    axes.hlines(edges[:-1] + step / 2, 0, net, colors=colours, linewidth=max(1.0, 150 / len(net)))
    spot, zero = chain["underlying_price"][0], chain["zero_gamma"][0]
    axes.axhline(spot, color=_INK, linewidth=0.9, label=f"spot {spot:,.6g}")
    if zero is not None:
        axes.axhline(zero, color=_INK, linewidth=0.9, linestyle=":", label=f"zero gamma {zero:,.6g}")
    axes.set_title("net gamma per 1 %; calls →, puts ←", loc="right", fontsize=7, y=1)
    axes.legend(loc="upper left", fontsize=6, frameon=False)
    axes.locator_params("x", nbins=5)
    _amounts(axes.xaxis)


def _maps(axes: "Axes", chains: pl.DataFrame, over_time: pl.DataFrame, by_expiry: pl.DataFrame) -> None:
    """Draw four maps side by side, each one wide; panels of their own would cost four times as much."""
    maps = (
        ("net gamma by expiry", "gex_net", by_expiry, "expiry"),
        ("net gamma over time, UTC", "gex_net", over_time, "ts_event"),
        ("net delta by expiry", "dex_net", by_expiry, "expiry"),
        ("net delta over time, UTC", "dex_net", over_time, "ts_event"),
    )
    ticks: list[tuple[float, str, Literal["left", "right"]]] = []
    for number, (title, column, rows, across) in enumerate(maps):
        left = number * _MAP_PITCH
        axes.text(left, 1.02, title, fontsize=7, transform=axes.get_xaxis_transform())
        if rows.is_empty():
            continue
        places = chains["ts_event"] if across == "ts_event" else rows[across].unique().sort()
        columns = places.search_sorted(rows[across]).to_numpy()
        _heatmap(axes, rows, rows[column], columns, (left, places.len()))
        middles = left + (np.arange(places.len()) + 0.5) / places.len()
        texts = places.dt.strftime("%H:%M" if across == "ts_event" else "%-d %b %y")
        ticks.append((left, texts[0], "left"))
        if places.len() > 1:
            ticks.append((left + 1, texts[-1], "right"))
        if across == "ts_event":
            axes.plot(middles, chains["underlying_price"], color=_INK, linewidth=0.9)
            axes.plot(middles, chains["zero_gamma"], color=_INK, linewidth=0.9, linestyle=":")
        else:
            axes.plot([left, left + 1], [chains["underlying_price"][-1]] * 2, color=_INK, linewidth=0.9)
    axes.set_xticks([place for place, *_ in ticks], [text for _, text, _ in ticks])
    for label, (*_, side) in zip(axes.get_xticklabels(), ticks, strict=True):
        label.set_horizontalalignment(side)
    axes.tick_params(left=False, labelleft=False, bottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xlim(0, len(maps) * _MAP_PITCH)


def _heatmap(axes: "Axes", rows: pl.DataFrame, of: pl.Series, columns: Any, place: tuple[float, int]) -> None:
    """Draw a value over strikes and columns, its sign by colour; the square root tells small ones from none."""
    step, at, (left, width) = rows["step"][0], _places(rows), place
    values = np.zeros((at.max() + 1, width))
    values[at, columns] = of
    shades = np.sign(values) * np.sqrt(np.abs(values))
    most = np.abs(shades).max() or 1.0
    bottom = float(str(rows["strike"].min())) - step / 2
    extent = (left, left + 1, bottom, bottom + step * len(values))
    axes.imshow(shades, aspect="auto", origin="lower", extent=extent, cmap=_signed_colours(), vmin=-most, vmax=most)


def _places(rows: pl.DataFrame) -> Any:
    """Return the place of each row's strike, the lowest at 0, one a step."""
    return ((rows["strike"] - rows["strike"].min()) / rows["step"][0]).round().cast(pl.Int64).to_numpy()


def _signed_colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", [DOWN, "#ffffff", UP])


def _some_labels(axes: "Axes", texts: Sequence[str]) -> None:
    places = sorted({round(place) for place in np.linspace(0, len(texts) - 1, min(_LABELS, len(texts)))})
    axes.set_xticks(places, [texts[place] for place in places])


def _amounts(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: _amount(value))


def _amount(value: float) -> str:
    for scale, suffix in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:g} {suffix}"
    return f"{value:g}"
