"""The tables of the daily TCA report, and the definitions beneath them. Cells only; no arithmetic on costs."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from quant_platform.reports import numbers
from quant_platform.reports.page import Cell, Column, Table
from quant_platform.reports.tca_day import DailyTca
from quant_platform.reports.tca_digest import (
    ALL,
    BEYOND_EXPECTED,
    HORIZONS,
    LEAST_FOR_INTERVAL,
    NOT_TOLD,
    WORST_SHOWN,
)
from quant_platform.reports.tca_notes import Note

BENCHMARK_NAMES: Mapping[str, str] = {
    "arrival": "Arrival mid",
    "decision": "Decision",
    "vwap": "Interval VWAP",
    "twap": "Interval TWAP",
    "pwp_05": "PWP 5 %",
    "pwp_10": "PWP 10 %",
    "pwp_20": "PWP 20 %",
    "pwp_30": "PWP 30 %",
    "open": "Open",
    "close": "Close",
    "prev_close": "Previous close",
    BEYOND_EXPECTED: "Arrival, beyond expected",
}
PART_NAMES: Mapping[str, str] = {
    "paper": "Paper profit",
    "delay": "Delay",
    "trading": "Trading",
    "opportunity": "Opportunity",
    "fees": "Fees",
    "realised": "Realised profit",
    "shortfall": "Shortfall",
}
DEFINITIONS: Mapping[str, str] = {
    "Sign": "cost in bps, positive = paid; markout, positive = the mid moved our way after the fill.",
    "Cost against a benchmark B": (
        "s·(P ÷ B - 1), with side s (+1 buy, -1 sell) and average fill price P. Arrival is the mid when the order "
        "reached the desk, decision the price that was decided at; VWAP and TWAP are those of the order's life; "
        "PWP r is the market's VWAP from arrival until the order is r of what traded."
    ),
    "Mean and interval": (
        "means are weighted by notional filled (shortfall: by notional decided). An interval comes from drawing the "
        "date's orders again with replacement; orders of one date share its market, so that it is rather too narrow. "
        "What scorecards say beyond the date is a mean of orders, its t clustered by day and symbol, its interval from "
        "drawing days again."
    ),
    "Implementation shortfall": (
        "paper less realised profit, in bps of notional decided: delay s·q·(A - D), trading s·q·(P - A), opportunity "
        "s·(X - q)·(C - D), and fees; D decision, A arrival, C where the rest was given up, X ordered, q filled. "
        "Paper profit is s·X·(C - D)."
    ),
    "Beyond expected": (
        "cost against arrival less the cost that was expected when it was decided. q is the least false-discovery "
        "rate at which a cell counts among those of its table."
    ),
    "Spreads": (
        "effective 2·s·(P - M) ÷ M with the mid M before the fill; E/Q is effective ÷ quoted; price improvement is "
        "what fills saved to the far touch."
    ),
    "Time to fill": ("median of Kaplan and Meier: an order that was cancelled counts as long as it stood."),
}
_HORIZON_NAMES = {"50ms": "50 ms", "1s": "1 s", "5s": "5 s", "15s": "15 s", "1m": "1 min", "5m": "5 min"}
_NO_FILLS = "nothing was filled, or the benchmark is not known"
_FEW = f"fewer than {LEAST_FOR_INTERVAL} orders: no interval"


def benchmarks_table(day: DailyTca) -> Table:
    """Return the cost against each benchmark, with its interval."""
    lines = [
        (
            Cell(BENCHMARK_NAMES[row["benchmark"]], style="name"),
            numbers.whole(row["orders"], ""),
            numbers.percent(row["notional_share"], 1, _NO_FILLS),
            cost(row["cost_bps"], _NO_FILLS),
            interval(row["low_bps"], row["high_bps"], _FEW if row["orders"] else _NO_FILLS),
            cost(row["median_bps"], _NO_FILLS),
            numbers.large(row["paid"], _NO_FILLS, is_signed=True),
        )
        for row in day.digest.benchmarks.iter_rows(named=True)
    ]
    columns = (
        Column("Benchmark", is_number=False),
        Column("Orders", "count", "Orders with fills whose benchmark is known"),
        Column("Of notional", "filled", "Their share of what was filled"),
        Column("Cost", "bps, mean", "Weighted by notional filled; positive = paid"),
        Column("Interval", confidence(day), "Of the mean, from drawing orders again"),
        Column("Median order", "bps", "Half of the orders cost more"),
        Column("Paid", "quote ccy", "The same in money"),
    )
    return Table("Cost by benchmark", columns, tuple(lines) if day.orders.height else (), "No orders on this date.")


def shortfall_table(day: DailyTca) -> Table:
    """Return paper profit, the four parts, and what is left."""
    rows = day.digest.shortfall
    lines = [
        (
            Cell(PART_NAMES[row["part"]], style="name"),
            numbers.fixed(row["bps"], 2, "", is_signed=True),
            interval(row["low_bps"], row["high_bps"], _FEW),
            numbers.large(row["money"], "", is_signed=True),
        )
        for row in rows.iter_rows(named=True)
        if row["orders"]
    ]
    columns = (
        Column("Part", is_number=False),
        Column("Mean", "bps of decided", "Profits: positive = gained. Parts and shortfall: positive = paid"),
        Column("Interval", confidence(day), "Of the mean, from drawing orders again"),
        Column("Money", "quote ccy"),
    )
    known, all_orders = rows["orders"][0], day.orders.height
    remark = f"{known:,} of {all_orders:,} orders: those whose parts, and a price for what did not fill, are all known."
    empty = "No order has all of its parts: a decision's price, an arrival mid, fees, and a price for the rest."
    return Table("Implementation shortfall", columns, tuple(lines), empty, remark)


def markouts_table(day: DailyTca) -> Table:
    """Return the mean markout at each horizon: all fills, by liquidity, and by venue."""
    least = day.params.min_orders
    lines = []
    known = {(r["by"], r["group"], r["horizon"]): r for r in day.digest.markouts.iter_rows(named=True)}
    groups = day.digest.fills.select(
        pl.concat_list(
            pl.lit(f"all/{ALL}"),
            pl.lit("liquidity/") + pl.col("liquidity").fill_null(NOT_TOLD),
            pl.lit("venue/") + pl.col("venue").fill_null(NOT_TOLD),
        ).alias("group")
    ).explode("group")
    for name, count in groups.group_by("group").len().sort("group").iter_rows():
        by, group = name.split("/", 1)
        cells = [_markout(known.get((by, group, horizon)), least) for horizon in HORIZONS]
        title = "All fills" if by == "all" else f"{by.capitalize()}: {group}"
        lines.append((Cell(title, style="name"), numbers.whole(count, ""), *cells))
    columns = (
        Column("Fills", is_number=False),
        Column("Count", "fills"),
        *(Column(horizon_name(horizon), "bps") for horizon in HORIZONS),
    )
    remark = f"Weighted by notional; positive = moved our way. n < {least}: fewer fills than a mean needs."
    return Table("Markouts", columns, tuple(lines), "No fills on this date.", remark)


def worst_table(day: DailyTca) -> Table:
    """Return the orders that paid most, most first."""
    lines = [
        (
            Cell(str(number), style="name"),
            Cell(row["order_id"]),
            Cell(row["symbol"]),
            Cell("buy" if row["side"] > 0 else "sell"),
            Cell(row["algo"]) if row["algo"] else numbers.missing("the order does not say"),
            Cell(f"{row['ts_event']:%H:%M:%S}"),
            lasted(row["duration_s"], "no end is known"),
            numbers.large(row["notional"], ""),
            numbers.percent(row["filled_quantity"] / row["quantity"], 0, ""),
            cost(row["arrival_cost_bps"], ""),
            numbers.large(row["arrival_paid"], "", is_signed=True),
            cost(row["vwap_cost_bps"], "no VWAP: nothing traded, or the tape does not reach the order's end"),
            cost(row["shortfall_bps"], "a part of the shortfall is not known"),
            cost(row["excess_cost_bps"], "no cost was expected"),
            numbers.fixed(row["score"], 2, "no score"),
        )
        for number, row in enumerate(day.digest.worst.iter_rows(named=True), start=1)
    ]
    columns = (
        Column("#", is_number=False),
        Column("Order", is_number=False),
        Column("Symbol", is_number=False),
        Column("Side", is_number=False),
        Column("Algo", is_number=False),
        Column("Arrival", "UTC"),
        Column("Lasted", "", "To the last fill if filled, else to its end"),
        Column("Notional", "filled"),
        Column("Filled"),
        Column("Cost", "bps, arrival"),
        Column("Paid", "quote ccy"),
        Column("Cost", "bps, VWAP"),
        Column("Shortfall", "bps"),
        Column("Beyond exp.", "bps", "Cost against arrival less what was expected"),
        Column("Score", "0 to 1", "Quality of execution; higher is better"),
    )
    empty = "No order paid anything against arrival."
    return Table(f"Worst {WORST_SHOWN} orders, by money paid against arrival", columns, tuple(lines), empty)


def fill_times_table(day: DailyTca) -> Table:
    """Return how much of what was ordered was filled, and how soon."""
    lines = []
    for row in day.digest.fill_times.iter_rows(named=True):
        why = "no order with a quantity and a price"
        slow = "fewer than half were seen to fill" if row["filled"] or row["censored"] else "no duration is known"
        lines.append(
            (
                Cell("All orders" if row["group"] == ALL else row["group"], style="name"),
                numbers.whole(row["orders"], ""),
                numbers.percent(row["fill_rate"], 1, why),
                numbers.percent(row["fill_rate_orders"], 1, why),
                numbers.percent(row["any_fill_orders"], 1, why),
                numbers.whole(row["censored"], "no duration is known"),
                lasted(row["median_s"], slow),
                _span(
                    row["median_low_s"],
                    row["median_high_s"],
                    slow if row["median_s"] is None else "too few orders for an interval",
                ),
            )
        )
    columns = (
        Column("Algo", is_number=False),
        Column("Orders", "count"),
        Column("Filled", "of notional", "At the arrival mid, else at the decision's price"),
        Column("Whole", "of orders"),
        Column("Any fill", "of orders"),
        Column("Cut short", "orders", "Cancelled, rejected or expired before they were filled"),
        Column("Time to fill", "median"),
        Column("Interval", f"{day.params.confidence:.0%}".replace("%", " %"), "Greenwood's, of the median"),
    )
    return Table("Fill rates and time to fill", columns, tuple(lines), "No orders on this date.")


def impact_table(day: DailyTca) -> Table:
    """Return the date's mean impact, and the law fitted to it."""
    rows = day.digest.impact
    lines = []
    for row in rows.iter_rows(named=True):
        why = f"not fitted: {row['fit_status'].replace('_', ' ')}" if row["fit_status"] else "no fit was made"
        lines.append(
            (
                Cell(row["measure"].capitalize(), style="name"),
                numbers.whole(row["orders"], ""),
                cost(row["mean_bps"], "no mid after the orders is known yet"),
                interval(row["low_bps"], row["high_bps"], _FEW),
                numbers.whole(row["fit_orders"], why),
                numbers.fixed(row["fit_y"], 2, why),
                interval(row["fit_y_low"], row["fit_y_high"], why, 2),
                numbers.fixed(row["fit_exponent"], 2, why),
                interval(row["fit_exponent_low"], row["fit_exponent_high"], why, 2),
            )
        )
    columns = (
        Column("Impact", is_number=False),
        Column("Orders", "of the date"),
        Column("Mean", "bps", "By notional filled; positive = the price moved against us"),
        Column("Interval", confidence(day)),
        Column("Orders", "fitted"),
        Column("Y", "1", "Of Y·σ·(Q/V)^exponent"),
        Column("Interval", "of Y"),
        Column("Exponent", "1", "The square-root law says 0.5"),
        Column("Interval", "of the exponent"),
    )
    has_any = any(row["orders"] or row["fit_status"] for row in rows.iter_rows(named=True))
    empty = "No impact is known of this date's orders."
    return Table("Market impact", columns, tuple(lines) if has_any else (), empty)


def notes_table(notes: Iterable[Note]) -> Table:
    """Return what is wrong with the data, or not finished."""
    lines = tuple(
        (
            Cell(note.name, style="name"),
            numbers.whole(note.count, ""),
            Cell(note.of),
            Cell(", ".join(note.examples)) if note.examples else numbers.missing("counted alone"),
            Cell(note.meaning),
        )
        for note in notes
    )
    columns = (
        Column("Note", is_number=False),
        Column("Count"),
        Column("Of", is_number=False),
        Column("For example", is_number=False),
        Column("What it means for the numbers", is_number=False),
    )
    return Table("Data quality", columns, lines, "Nothing is wrong with this date's data, and nothing is unfinished.")


def horizon_name(horizon: str) -> str:
    """Return how long after a fill a column looks, as people say it."""
    return _HORIZON_NAMES.get(horizon, horizon)


def lasted(seconds: float | None, reason: str) -> Cell:
    """Return a span of time in the unit that suits it."""
    if seconds is None:
        return numbers.missing(reason)
    for scale, unit in ((3600, "h"), (60, "min")):
        if seconds >= scale:
            return Cell(f"{seconds / scale:.1f} {unit}")
    return Cell(f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms")


def _markout(row: Mapping[str, Any] | None, least: int) -> Cell:
    if row is None:
        return numbers.missing("no mid that long after the fills")
    if row["fills"] < least:
        return Cell(f"n < {least}", style="null")
    return numbers.fixed(row["markout_bps"], 2, "", is_signed=True)


def cost(value: float | None, reason: str) -> Cell:
    """Return a signed cost in bps; what was paid has another colour than what was gained."""
    cell = numbers.fixed(value, 2, reason, is_signed=True)
    return cell if value is None else Cell(cell.text, style="down" if value > 0 else "up")


def interval(low: float | None, high: float | None, reason: str, decimals: int = 2) -> Cell:
    """Return both ends of an interval, signed."""
    if low is None or high is None:
        return numbers.missing(reason)
    ends = [numbers.fixed(end, decimals, "", is_signed=True).text for end in (low, high)]
    return Cell(" to ".join(ends))


def _span(low: float | None, high: float | None, reason: str) -> Cell:
    if low is None:
        return numbers.missing(reason)
    return Cell(
        f"{lasted(low, '').text} to {lasted(high, '').text}" if high is not None else f"from {lasted(low, '').text}"
    )


def confidence(day: DailyTca) -> str:
    """Return the unit of an interval in bps: how sure it is."""
    return f"bps, {day.params.confidence:.0%}".replace("%", " %")
