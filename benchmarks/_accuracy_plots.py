"""The pictures of docs/accuracy.md: SVG files, the same bytes each time. What they show is scored elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from _accuracy_scores import BUCKETS_PER_DAY, LATENESS_NS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RIGHT, _WRONG, _LINE, _ORANGE, _GREY = "#1a7f5a", "#b3362b", "#2b5b9e", "#d98a1f", "#444444"
_STYLES = {
    "AAPL visible": (_LINE, "-", "o"),
    "AMZN visible": (_LINE, "--", "s"),
    "AAPL hidden": (_WRONG, "-", "o"),
    "AMZN hidden": (_WRONG, "--", "s"),
    "BTCUSDT": (_ORANGE, "-", "o"),
    "ETHUSDT": (_ORANGE, "--", "s"),
}
_VPINS = {
    "true signs": (_GREY, 2.2),
    "Lee–Ready, quote strictly earlier": (_LINE, 1.1),
    "tick rule": (_RIGHT, 1.1),
    "bulk volume, bars of 10 s": (_ORANGE, 1.1),
    "bulk volume, bars of 60 s": (_WRONG, 1.1),
}
_STYLE = {
    "svg.hashsalt": "accuracy",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
}


def signing(right: Mapping[str, Sequence[float]], depths: Mapping[str, pl.DataFrame], path: Path) -> None:
    """Draw how often Lee and Ready are right by the lateness of the quote, and where hidden executions print.

    Args:
        right: By line the share with the quote of the own instant, then with each lateness.
        depths: By symbol what `depth_in_spread` returned.
        path: The file to write.
    """
    figure = _figure(8.2, 3.3)
    late, first, second = figure.subplots(1, 3, width_ratios=[2.1, 1, 1])
    figure.subplots_adjust(left=0.045, right=0.985, top=0.9, bottom=0.17, wspace=0.2)
    ticks = ["same\ninstant", "strictly\nearlier", *(_duration(ns) for ns in LATENESS_NS[1:])]
    for name, shares in right.items():
        colour, dashes, mark = _STYLES[name]
        percent = [100 * share for share in shares]
        late.plot(
            range(1, len(ticks)), percent[1:], color=colour, linestyle=dashes, marker=mark, markersize=3, label=name
        )
        late.plot([0], percent[:1], color=colour, marker=mark, markersize=3)
    late.axvline(0.5, color=_GREY, linewidth=0.6, linestyle=":")
    late.set_xticks(range(len(ticks)), ticks)
    late.set(title="Right side by the quote that is used, %", ylim=(50, 102), xlabel="quotes made late by")
    late.xaxis.set_label_coords(0.66, -0.12)
    late.legend(ncols=3, loc="lower left", bbox_to_anchor=(0.1, 0.0), columnspacing=0.9, handlelength=2)
    for axes, (symbol, rows) in zip((first, second), depths.items(), strict=True):
        parts = [
            rows.filter(is_right)["depth"].clip(-1.25, 1.25) for is_right in (pl.col("is_right"), ~pl.col("is_right"))
        ]
        weights = [[100 / rows.height] * part.len() for part in parts]
        axes.hist(
            [part.to_list() for part in parts],
            bins=[-1.25 + 0.1 * step for step in range(26)],
            weights=weights,
            stacked=True,
            color=[_RIGHT, _WRONG],
            label=["signed right", "wrong"],
        )
        axes.set_xticks([-1, 0, 1], ["own\nbest", "mid", "far\nbest"])
        axes.set(title=f"{symbol}: hidden, by price, %", xlim=(-1.3, 1.3))
    first.legend(loc="upper left", handlelength=1)
    _save(figure, path)


def vpin_over_the_day(buckets: Mapping[str, Mapping[str, pl.DataFrame]], path: Path) -> None:
    """Draw VPIN by how the volume is signed, a panel a symbol."""
    figure = _figure(8.2, 3.4)
    panels = figure.subplots(1, len(buckets), squeeze=False)[0]
    figure.subplots_adjust(left=0.05, right=0.975, top=0.9, bottom=0.2, wspace=0.14)
    for axes, (symbol, signs) in zip(panels, buckets.items(), strict=True):
        for name, (colour, width) in _VPINS.items():
            rows = signs[name].drop_nulls("vpin")
            axes.plot(_hours(rows["ts_end"]), rows["vpin"].to_list(), color=colour, linewidth=width, label=name)
        axes.set(title=f"{symbol}: VPIN, {BUCKETS_PER_DAY[1]} buckets a day")
        _clock(axes, first=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), columnspacing=1.4, handlelength=1.6)
    _save(figure, path)


def cut(symbol: str, cuts: pl.DataFrame, trades_per_bucket: int, path: Path) -> None:
    """Draw a symbol's VPIN folded over the tape and from the last 1,000 trades alone."""
    figure = _figure(8.2, 2.8)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.05, right=0.975, top=0.89, bottom=0.19)
    hours = _hours(cuts["ts_event"])
    axes.plot(hours, cuts["fold"].to_list(), color=_LINE, linewidth=1.1, label="fold over the tape")
    axes.plot(hours, cuts["cut"].to_list(), ".", color=_ORANGE, markersize=3, label="from the last 1,000 trades alone")
    axes.set(title=f"{symbol}: VPIN, buckets of {trades_per_bucket} trades on average")
    _clock(axes, first=9.5)
    figure.legend(loc="lower center", ncols=2, markerscale=2)
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    mpl.rcdefaults()
    mpl.rcParams.update(_STYLE)
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure


def _save(figure: "Figure", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _hours(times: pl.Series) -> list[float]:
    local = times.dt.convert_time_zone("America/New_York")
    return ((local - local.dt.truncate("1d")).dt.total_microseconds() / 3_600_000_000).to_list()


def _clock(axes: "Axes", *, first: float) -> None:
    axes.set_xticks(range(10, 17), [f"{hour}:00" for hour in range(10, 17)])
    axes.set_xlim(first, 16)


def _duration(ns: int) -> str:
    return f"{ns // 10**9} s" if ns >= 10**9 else f"{ns // 10**6} ms"
