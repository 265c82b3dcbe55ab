"""The scorecards of the daily TCA report: venues, algos, strategies and brokers, on the date and over its period."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from quant_platform.contracts.enums import Status
from quant_platform.contracts.scorecards import Dimension, Period
from quant_platform.reports import numbers
from quant_platform.reports.page import Cell, Column, Table
from quant_platform.reports.tca_day import DailyTca, standing
from quant_platform.reports.tca_digest import NOT_TOLD
from quant_platform.reports.tca_tables import confidence, cost, interval

_TITLES = {"venue": "Venues", "algo": "Algos", "strategy": "Strategies", "broker": "Brokers"}
_VENUE_COLUMNS = (
    Column("Fills", "count"),
    Column("Share", "of notional"),
    Column("Maker", "of notional", "What waited in the book"),
    Column("Cost", "bps, arrival"),
    Column("Eff. spread", "bps"),
    Column("E/Q", "1"),
    Column("Improved", "bps", "Price improvement to the far touch ÷ notional"),
    Column("Markout", "bps, 5 s"),
)
_ALGO_COLUMNS = (
    Column("Orders", "count"),
    Column("Share", "of notional"),
    Column("Filled", "of notional"),
    Column("Cost", "bps, arrival"),
    Column("Eff. spread", "bps"),
    Column("Markout", "bps, 5 min"),
    Column("Score", "0 to 1", "Mean quality of execution; higher is better"),
)
_NOT_KNOWN: Mapping[str, str] = {
    Status.NO_DATA: "no order's cost was expected",
    Status.NAN: "a cost is no number",
    Status.CONSTANT: "all of its costs are the same",
}


def scorecard_tables(day: DailyTca) -> list[Table]:
    """Return a table of venues, and one each of algos, strategies and brokers that orders name."""
    cards = {"venue": day.venues.rename({"venue": "member"})}
    for dimension in (Dimension.ALGO, Dimension.STRATEGY, Dimension.BROKER):
        cells = day.algos.filter(pl.col("dimension") == dimension)
        if dimension is Dimension.ALGO or cells["member"].count():
            cards[dimension] = cells
    return [_scorecard(name, day, cells) for name, cells in cards.items()]


def _scorecard(name: str, day: DailyTca, cells: pl.DataFrame) -> Table:
    period, title = standing(cells), _TITLES[name]
    columns, of_day = (_VENUE_COLUMNS, _venue_cells) if name == "venue" else (_ALGO_COLUMNS, _algo_cells)
    today = cells.filter(pl.col("period") == Period.DAY).sort("notional", "member", descending=[True, False])
    whole = cells.filter(pl.col("period") == period)
    of_date = {row["member"]: row for row in today.iter_rows(named=True)}
    since = {row["member"]: row for row in whole.iter_rows(named=True)}
    absent = tuple(numbers.missing("it did not trade on this date") for _ in columns)
    lines = [
        (
            Cell(member or NOT_TOLD, style="name"),
            *(of_day(of_date[member], day) if member in of_date else absent),
            *_inference(since.get(member), day),
        )
        for member in dict.fromkeys([*of_date, *since])
    ]
    first = f", {whole['period_start'][0]} to {day.date}" if whole.height else ""
    remark = (
        f"Left: the date. Right: this {period} so far{first}. "
        f"n < {day.params.min_orders}: fewer orders than a mean needs; "
        f"days < {day.params.min_days}: fewer days than t and an interval need."
    )
    return Table(
        title,
        (Column(name.capitalize(), is_number=False), *columns, *_inference_columns(period, day)),
        tuple(lines),
        f"No scorecard of {title.lower()} holds this date.",
        remark,
    )


def _venue_cells(row: Mapping[str, Any], day: DailyTca) -> tuple[Cell, ...]:
    few = _too_few(row["status"], day)
    return (
        numbers.whole(row["fills"], ""),
        numbers.percent(row["notional_share"], 1, "no price is known"),
        few or numbers.percent(row["maker_share"], 0, "fills do not say whether they waited"),
        few or cost(row["arrival_cost_bps"], "no arrival mid"),
        few or numbers.fixed(row["effective_spread_bps"], 2, "no quote before the fills"),
        few or numbers.fixed(row["e_over_q"], 2, "no quote before the fills, or it was locked"),
        few or numbers.fixed(row["price_improvement_bps"], 2, "no quote before the fills", is_signed=True),
        few or numbers.fixed(row["markout_5s_bps"], 2, "no mid after the fills", is_signed=True),
    )


def _algo_cells(row: Mapping[str, Any], day: DailyTca) -> tuple[Cell, ...]:
    few = _too_few(row["status"], day)
    return (
        numbers.whole(row["orders"], ""),
        numbers.percent(row["notional_share"], 1, "no price is known"),
        few or numbers.percent(row["fill_rate"], 1, "no order with a quantity and a price"),
        few or cost(row["arrival_cost_bps"], "no arrival mid, or nothing filled"),
        few or numbers.fixed(row["effective_spread_bps"], 2, "no quote before the fills"),
        few or numbers.fixed(row["markout_5m_bps"], 2, "no mid after the fills", is_signed=True),
        few or numbers.fixed(row["quality_score"], 2, "no order has a score"),
    )


def _inference_columns(period: Period, day: DailyTca) -> tuple[Column, ...]:
    return (
        Column("Orders", f"this {period}", "Orders whose cost and expected cost are both known"),
        Column("Days", f"this {period}"),
        Column("Beyond exp.", "bps, mean", "Cost against arrival less what was expected, an order one vote"),
        Column("Interval", confidence(day), "Of that mean, from drawing days again"),
        Column("t", "1", "Clustered by day and symbol"),
        Column("q", "1", "Least false-discovery rate at which it counts"),
        Column("Finding", is_number=False),
    )


def _inference(row: Mapping[str, Any] | None, day: DailyTca) -> tuple[Cell, ...]:
    if row is None:
        return tuple(numbers.missing("the period has no cell") for _ in range(7))
    few, unsure = _too_few(row["excess_status"], day), _too_few(row["inference_status"], day)
    if unsure and not few:
        unsure = Cell(f"days < {day.params.min_days}", style="null")
    why, why_unsure = (_NOT_KNOWN.get(row[name], row[name]) for name in ("excess_status", "inference_status"))
    return (
        numbers.whole(row["excess_orders"], ""),
        numbers.whole(row["days"], ""),
        few or cost(row["excess_cost_bps"], why),
        unsure or interval(row["excess_low_bps"], row["excess_high_bps"], why_unsure),
        unsure or numbers.fixed(row["excess_t"], 1, why_unsure, is_signed=True),
        unsure or numbers.fixed(row["q_value"], 3, why_unsure),
        _finding(row),
    )


def _finding(row: Mapping[str, Any]) -> Cell:
    if row["is_discovery"] is None:
        return Cell("not judged", style="null")
    if not row["is_discovery"]:
        return Cell("within noise", style="null")
    return Cell("dearer", style="bad") if row["excess_cost_bps"] > 0 else Cell("cheaper", style="ok")


def _too_few(status: str, day: DailyTca) -> Cell | None:
    return Cell(f"n < {day.params.min_orders}", style="null") if status == Status.TOO_FEW else None
