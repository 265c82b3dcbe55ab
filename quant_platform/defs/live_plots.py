"""The picture of what was served against the batch, for `TableAsset.plot`."""

from datetime import date, timedelta

import polars as pl

from quant_platform.defs.plots import DOWN, LINE, picture
from quant_platform.pipeline.live_parity import TOLERANCE
from quant_platform.storage.lake import Lake

_DATES = 30
_LEAST, _MOST = 1e-17, 10.0
_GREY = "#b9c2cc"
_WIDTH = 0.4


def differences(lake: Lake, table: str, day: date) -> str:
    """Return the largest difference of each metric on each of the last dates, as received and to the date as it ended.

    A bar of no height is no difference; the line is the tolerance.
    """
    first = day - timedelta(days=_DATES - 1)
    rows = (
        lake.scan(table, None, first, day)
        .filter(pl.col("max_final_difference").is_not_null())
        .group_by("metric", days=(pl.col("ts_end").dt.date() - first).dt.total_days())
        .agg(pl.col("max_difference", "max_final_difference").max())
        .collect()
    )
    if rows.is_empty():
        return "Nothing that was served on these dates can be judged."
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = rows.partition_by("metric", as_dict=True)
    figure = Figure(figsize=(7, 1.1 * len(parts) + 0.5), dpi=80)
    FigureCanvasAgg(figure)
    column = figure.subplots(len(parts), sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, ((metric,), part) in zip(column, sorted(parts.items()), strict=True):
        for name, label, colour, side in (
            ("max_difference", "as received", LINE, -_WIDTH),
            ("max_final_difference", "to the final tape", _GREY, _WIDTH),
        ):
            heights = part[name].fill_null(0.0).clip(_LEAST)
            axes.bar(part["days"] + side / 2, heights, _WIDTH, color=colour, label=label)
        axes.axhline(TOLERANCE, color=DOWN, linewidth=0.7, linestyle="--")
        axes.set_title(str(metric), loc="left", fontsize=8, y=1)
        axes.tick_params(labelsize=7)
    column[0].set(yscale="log", ylim=(_LEAST, _MOST), xlim=(-0.7, _DATES - 0.3))
    column[0].legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2, fontsize=6, frameon=False)
    shown = range(_DATES - 1, -1, -7)
    column[-1].set_xticks(list(shown), [(first + timedelta(days=days)).isoformat() for days in shown])
    figure.tight_layout(pad=0.5)
    return picture(figure)
