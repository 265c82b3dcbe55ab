"""The tables of the daily market report: headline, gaps, quarantine, coverage. Cells only; no arithmetic on prices."""

from collections.abc import Mapping

import polars as pl

from quant_platform.contracts._schema import all_contracts
from quant_platform.reports import numbers
from quant_platform.reports.market_day import DailyMarket, null_reasons
from quant_platform.reports.page import Cell, Column, Table

GAPS_SHOWN = 20
_STATUSES: Mapping[str, Cell] = {
    "ok": Cell("✓", style="ok"),
    "absent": Cell("○ absent", "the archive has no file for this date", "info"),
    "calendar_closed": Cell("– closed", "the instrument's calendar is closed on this date", "info"),
    "missing": Cell("? missing", "expected, but not built yet", "warn"),
    "failed": Cell("✗ failed", "the build raised an error: see its run", "bad"),
    "blocked": Cell("⊘ blocked", "a blocking check on its input is red", "bad"),
}
_HEADLINE = (
    Column("Symbol", is_number=False),
    Column("Close", "quote ccy", "Price of the last trade"),
    Column("Return", "bps", "Close against the close of the previous date in the mart"),
    Column("Range", "bps", "High minus low, against the open"),
    Column("VWAP", "quote ccy", "Volume-weighted average price"),
    Column("Volume", "base units", "Sum of trade sizes"),
    Column("Notional", "quote ccy", "VWAP times volume"),
    Column("Trades", "count", "Trades, counted by id"),
    Column("Bought", "of volume", "Share of volume in trades that a buyer initiated"),
    Column("Spread", "bps, median", "Median of the five-minute time-weighted quoted spreads"),
    Column("Volatility", "per year", "Annualised, over the window of one-minute bars that ends at the close"),
    Column("Z-score", "of close", "Close against the mean of that window, in standard deviations"),
    Column("Gaps", "count", "Holes in the trade ids, refilled ones too"),
    Column("Quarantined", "rows", "Rows set aside because they break a rule"),
    Column("Complete", "of trade ids", "Trades captured, of those that the ids say there were; rounded down"),
)


def headline_table(day: DailyMarket, rows: pl.DataFrame) -> Table:
    """Return one line per symbol from the rows of `headline`."""
    lines = []
    for row in rows.iter_rows(named=True):
        symbol, why = row["symbol"], null_reasons(day, row["symbol"])
        decimals = _decimals(day, symbol)
        move = row["return_bps"]
        gaps = numbers.whole(row["gap_count"], why["gap_count"])
        set_aside = numbers.whole(row["quarantined_rows"], why["quarantined_rows"])
        lines.append(
            (
                Cell(symbol, style="name"),
                numbers.fixed(row["close"], decimals, why["close"]),
                _styled(
                    numbers.fixed(move, 1, why["return_bps"], is_signed=True), "up" if (move or 0) >= 0 else "down"
                ),
                numbers.fixed(row["range_bps"], 1, why["range_bps"]),
                numbers.fixed(row["vwap"], decimals, why["vwap"]),
                numbers.large(row["volume"], why["volume"]),
                numbers.large(row["notional"], why["notional"]),
                numbers.whole(row["trade_count"], why["trade_count"]),
                numbers.percent(row["buy_share"], 1, why["buy_share"]),
                numbers.fixed(row["median_spread_bps"], 3, why["median_spread_bps"]),
                numbers.percent(row["volatility"], 1, why["volatility"]),
                numbers.fixed(row["z_score"], 2, why["z_score"], is_signed=True),
                _styled(gaps, "warn" if row["missing_trades"] else ""),
                _styled(set_aside, "warn" if row["quarantined_rows"] else ""),
                numbers.completeness(row["completeness"], why["completeness"]),
            )
        )
    return Table("Headline", _HEADLINE, tuple(lines), "The report covers no symbols.")


def gaps_table(day: DailyMarket) -> Table:
    """Return the largest gaps, first; the remark says how many are not shown."""
    largest = day.gaps.sort("missing", "symbol", "first_id", descending=[True, False, False])
    stamp = "%Y-%m-%d %H:%M:%S%.3f"
    shown = largest.head(GAPS_SHOWN).with_columns(
        seconds=(pl.col("ts_end") - pl.col("ts_start")).dt.total_nanoseconds() / 1e9,
        start=pl.col("ts_start").dt.strftime(stamp),
        end=pl.col("ts_end").dt.strftime(stamp),
    )
    rows = tuple(
        (
            Cell(row["symbol"], style="name"),
            numbers.whole(row["missing"], ""),
            Cell(str(row["first_id"])),
            Cell(str(row["last_id"])),
            Cell(row["start"]),
            Cell(row["end"]),
            numbers.fixed(row["seconds"], 3, ""),
            Cell(row["status"], style="warn" if row["status"] == "open" else ""),
            Cell(row["filled_by"]) if row["filled_by"] else numbers.missing("not refilled"),
        )
        for row in shown.iter_rows(named=True)
    )
    columns = (
        Column("Symbol", is_number=False),
        Column("Missing", "trade ids"),
        Column("First id"),
        Column("Last id"),
        Column("Last trade before", "UTC"),
        Column("First trade after", "UTC"),
        Column("Silence", "s"),
        Column("Status", is_number=False),
        Column("Filled by", is_number=False),
    )
    hidden = largest.slice(GAPS_SHOWN)
    remark = (
        f"{hidden.height:,} smaller gaps with {hidden['missing'].sum():,} missing ids are not shown; "
        "they are in market/gaps."
        if hidden.height
        else ""
    )
    return Table("Gaps in the trade ids", columns, rows, "No gap in the trade ids is on record.", remark)


def quarantine_table(day: DailyMarket) -> Table:
    """Return the rows set aside, by table, symbol and rule, most first."""
    rows = tuple(
        (
            Cell(table, style="name"),
            Cell(symbol),
            Cell(rule),
            numbers.whole(count, "not counted"),
        )
        for table, symbol, rule, count in day.quarantine.sort(
            "rows", "table", "symbol", "rule", descending=[True, False, False, False]
        ).iter_rows()
    )
    columns = (
        Column("Table", is_number=False),
        Column("Symbol", is_number=False),
        Column("Rule broken", is_number=False),
        Column("Rows", "count"),
    )
    return Table("Quarantine", columns, rows, "No row of this date is in quarantine.")


def coverage_table(day: DailyMarket) -> Table:
    """Return tables × symbols: state, rows and bytes on disk."""
    known = {(table, symbol): (status, rows, size) for table, symbol, status, rows, size in day.coverage.iter_rows()}
    lineage = [contract.table for contract in all_contracts()]
    tables = sorted({table for table, _ in known}, key=lambda t: (t not in lineage, [*lineage, t].index(t), t))
    lines = [
        (Cell(table, style="name"), *(_state(known.get((table, symbol))) for symbol in day.symbols)) for table in tables
    ]
    columns = (
        Column("Table", is_number=False),
        *(Column(symbol, is_number=False) for symbol in day.symbols),
    )
    remark = (
        f"{day.coverage['rows'].sum():,} rows and {numbers.size(int(day.coverage['bytes'].sum()))} in all."
        if tables
        else ""
    )
    return Table("Coverage", columns, tuple(lines), "Nothing is known of this date's tables.", remark)


def _state(known: tuple[str, int | None, int | None] | None) -> Cell:
    if known is None:
        return numbers.missing("not expected")
    status, rows, size = known
    mark = _STATUSES.get(status, Cell(status, "a state that this report does not know", "warn"))
    if status != "ok":
        return mark
    parts = [mark.text]
    parts += [f"{rows:,} rows"] if rows is not None else []
    parts += [numbers.size(size)] if size is not None else []
    return Cell(" · ".join(parts).replace(" · ", " ", 1), style=mark.style)


def _decimals(day: DailyMarket, symbol: str) -> int:
    prices = day.daily.filter(pl.col("symbol") == symbol).select("open", "high", "low", "close")
    return numbers.price_decimals([p for column in prices for p in column.drop_nulls()])


def _styled(cell: Cell, style: str) -> Cell:
    return cell if cell.reason else Cell(cell.text, style=style)
