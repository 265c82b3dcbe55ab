"""Pictures of the desk's tables for an asset's page: what orders cost, where the mid went, who did how well."""

from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quant_platform.contracts.enums import Status
from quant_platform.contracts.execution import MARKOUT_HORIZONS_NS
from quant_platform.contracts.scorecards import Dimension, ImpactMeasure
from quant_platform.defs.plots import DOWN, LINE, UP, picture
from quant_platform.storage.lake import Lake

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOTHING = "No order of the desk is known on this date."
_TOO_FEW = "No venue, or no algo, has enough orders in the month up to this date."
_PARTS = {"delay": "delay_bps", "trading": "trading_bps", "opportunity": "opportunity_bps", "fees": "fees_bps"}
_STEPS = ("paper_pnl", "delay_cost", "trading_cost", "opportunity_cost", "fees", "realised_pnl")
_MOST_BARS = 14


def shortfall(lake: Lake, table: str, day: date) -> str:
    """Return the four parts of the shortfall by algo, means by decided value, in bps; positive = paid.

    Of orders that know all four, as in the report: a part that is not known is not 0.
    """
    is_whole = pl.all_horizontal(pl.col(c).is_not_null() for c in _PARTS.values())
    rows = lake.scan(table, None, day, day).filter(is_whole).collect()
    weight = pl.col("quantity") * pl.col("decision_price")
    means = rows.group_by("algo").agg(
        pl.len().alias("n"), *((pl.col(c) * weight).sum() / weight.sum() for c in _PARTS.values())
    )
    return _figure(means.sort("algo").head(_MOST_BARS), _draw_parts)


def waterfall(lake: Lake, table: str, day: date) -> str:
    """Return what lies between paper profit and realised profit by strategy, in quote currency; below 0 = lost."""
    rows = lake.scan(table, None, day, day).collect()
    sums = rows.group_by("strategy").agg(pl.col(_STEPS).sum()).sort("strategy", nulls_last=True)
    return _figure(sums.head(_MOST_BARS), _draw_steps)


def markouts(lake: Lake, table: str, day: date) -> str:
    """Return the mean markout by horizon and liquidity, by notional, in bps; positive = moved our way."""
    rows = lake.scan(table, None, day, day).collect()
    notional = pl.col("price") * pl.col("quantity")
    columns = [f"markout_{name}_bps" for name in MARKOUT_HORIZONS_NS]
    means = rows.group_by("liquidity").agg(
        (pl.col(c) * notional).sum() / notional.filter(pl.col(c).is_not_null()).sum() for c in columns
    )
    return _figure(means.sort("liquidity", nulls_last=True), _draw_markouts)


def quality(lake: Lake, table: str, day: date) -> str:
    """Return how the scores of orders are spread, by algo: the median, and where nine of ten lie."""
    rows = lake.scan(table, None, day, day).filter(pl.col("score").is_not_null()).collect()
    spread = rows.group_by("algo").agg(
        middle=pl.col("score").median(), low=pl.col("score").quantile(0.05), high=pl.col("score").quantile(0.95)
    )
    return _figure(spread.sort("algo").head(_MOST_BARS), _draw_scores)


def quality_trend(lake: Lake, table: str, day: date) -> str:
    """Return how the score of each algo's orders has moved a day over the last days, with its interval."""
    rows = lake.scan(table, None, day, day).filter(pl.col("dimension") == Dimension.ALGO).collect()
    known = rows.filter(pl.col("slope_per_day").is_not_null())
    if known.is_empty() and not rows.is_empty():
        return "There are too few days with scores before this date: no trend can be told."
    return _figure(known.head(_MOST_BARS), _draw_slopes)


def impact(lake: Lake, table: str, day: date) -> str:
    """Return the impact of orders against their share of the day's volume, means of equal numbers, and the law."""
    rows = lake.scan(table, None, day, day).filter(pl.col("total_bps").is_not_null()).collect()
    known = rows.filter(pl.col("participation").is_not_null(), pl.col("baseline_bps").is_not_null())
    if known.is_empty() and not rows.is_empty():
        return "No earlier session says how much trades: impact has no scale on this date."
    tenths = pl.col("participation").rank("ordinal") * 10 // (pl.len() + 1)
    means = known.group_by(tenths.alias("tenth")).agg(
        pl.col("participation").mean(), pl.col("total_bps").mean(), pl.col("baseline_bps").mean()
    )
    return _figure(means.sort("participation"), _draw_impact)


def impact_laws(lake: Lake, table: str, day: date) -> str:
    """Return the laws fitted to the total impact of the month's orders so far, of all and of each symbol's."""
    rows = lake.scan(table, None, day, day).filter(pl.col("measure") == ImpactMeasure.TOTAL).collect()
    known = rows.filter(pl.col("status") == Status.OK)
    if known.is_empty() and not rows.is_empty():
        return "The month has too few orders or days, or their sizes say nothing: no law is fitted."
    return _figure(known.head(_MOST_BARS), _draw_laws)


def venues(lake: Lake, table: str, day: date) -> str:
    """Return the excess cost of each venue over the month so far, with its interval, in bps."""
    return _cards(lake, table, day, "venue", [])


def algos(lake: Lake, table: str, day: date) -> str:
    """Return the excess cost of each algo over the month so far, with its interval, in bps."""
    return _cards(lake, table, day, "member", [pl.col("dimension") == "algo"])


def _cards(lake: Lake, table: str, day: date, name: str, conditions: Sequence[pl.Expr]) -> str:
    cells = lake.scan(table, None, day, day).filter(*conditions, pl.col("period") == "month").collect()
    known = cells.filter(pl.col("excess_cost_bps").is_not_null())
    if known.is_empty() and not cells.is_empty():
        return _TOO_FEW
    named = known.select(pl.col(name).alias("name"), pl.col("^excess_.*$"))
    return _figure(named.sort("name").head(_MOST_BARS), _draw_cells)


def _figure(rows: pl.DataFrame, draw: Callable[["Axes", pl.DataFrame], None]) -> str:
    if rows.is_empty():
        return _NOTHING
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw(axes, rows)
    axes.axhline(0, color="#888888", linewidth=0.6)
    axes.tick_params(labelsize=7)
    figure.subplots_adjust(left=0.09, right=0.99, top=0.97, bottom=0.14)
    return picture(figure)


def _draw_parts(axes: "Axes", rows: pl.DataFrame) -> None:
    colours = (LINE, UP, DOWN, "#888888")
    for place, ((name, column), colour) in enumerate(zip(_PARTS.items(), colours, strict=True)):
        axes.bar([at + 0.2 * place - 0.3 for at in range(rows.height)], rows[column], 0.2, color=colour, label=name)
    _named(axes, rows["algo"], "bps of decided value")
    axes.legend(fontsize=7, frameon=False, ncols=4)


def _draw_steps(axes: "Axes", rows: pl.DataFrame) -> None:
    colours = ("#888888", LINE, UP, DOWN, "#c98a1b", "#333333")
    for place, (name, colour) in enumerate(zip(_STEPS, colours, strict=True)):
        lost = rows[name] if name.endswith("_pnl") else -rows[name]
        label = name.removesuffix("_pnl").removesuffix("_cost")
        axes.bar([at + 0.14 * place - 0.35 for at in range(rows.height)], lost, 0.14, color=colour, label=label)
    _named(axes, rows["strategy"], "quote currency")
    axes.legend(fontsize=7, frameon=False, ncols=6)


def _draw_markouts(axes: "Axes", rows: pl.DataFrame) -> None:
    for row, colour in zip(rows.iter_rows(named=True), (LINE, UP, DOWN, "#888888"), strict=False):
        values = [row[f"markout_{name}_bps"] for name in MARKOUT_HORIZONS_NS]
        axes.plot(
            range(len(values)), values, marker="o", markersize=3, color=colour, label=row["liquidity"] or "not told"
        )
    axes.set_xticks(range(len(MARKOUT_HORIZONS_NS)), list(MARKOUT_HORIZONS_NS))
    axes.set_ylabel("bps", fontsize=7)
    axes.legend(fontsize=7, frameon=False)


def _draw_scores(axes: "Axes", rows: pl.DataFrame) -> None:
    _interval(axes, rows["middle"], rows["low"], rows["high"])
    _named(axes, rows["algo"], "score, 0 to 1")


def _draw_slopes(axes: "Axes", rows: pl.DataFrame) -> None:
    _interval(axes, rows["slope_per_day"], rows["slope_low"], rows["slope_high"])
    _named(axes, rows["member"], "score a day; above 0 = better")


def _draw_impact(axes: "Axes", rows: pl.DataFrame) -> None:
    axes.plot(rows["participation"] * 100, rows["total_bps"], "o", markersize=4, color=LINE, label="orders, tenths")
    axes.plot(rows["participation"] * 100, rows["baseline_bps"], color=DOWN, linewidth=1, label="Y·σ·√(Q/V)")
    axes.set_xlabel("filled, % of daily volume", fontsize=7)
    axes.set_ylabel("bps", fontsize=7)
    axes.legend(fontsize=7, frameon=False)


def _draw_laws(axes: "Axes", rows: pl.DataFrame) -> None:
    shares = [10 ** (power / 10) for power in range(-40, -9)]
    for law in rows.iter_rows(named=True):
        values = [law["y"] * share ** law["exponent"] for share in shares]
        label = f"{law['symbol'] or 'all'}: {law['y']:.2f}·(Q/V)^{law['exponent']:.2f}"
        axes.plot([100 * share for share in shares], values, linewidth=1 if law["symbol"] else 2, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("filled, % of daily volume", fontsize=7)
    axes.set_ylabel("daily volatilities", fontsize=7)
    axes.legend(fontsize=7, frameon=False)


def _draw_cells(axes: "Axes", rows: pl.DataFrame) -> None:
    _interval(axes, rows["excess_cost_bps"], rows["excess_low_bps"], rows["excess_high_bps"])
    _named(axes, rows["name"], "bps above expected")


def _interval(axes: "Axes", middle: pl.Series, low: pl.Series, high: pl.Series) -> None:
    below, above = (middle - low).fill_null(0).clip(0), (high - middle).fill_null(0).clip(0)
    axes.errorbar(range(len(middle)), middle, yerr=[below, above], fmt="o", markersize=4, capsize=3, color=LINE)


def _named(axes: "Axes", names: pl.Series, label: str) -> None:
    axes.set_xticks(range(len(names)), [name or "not told" for name in names])
    axes.set_ylabel(label, fontsize=7)
