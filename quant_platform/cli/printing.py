"""What a command says: tables, and what became of a backfill or a demo."""

import json
import sys
from collections import Counter, defaultdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from quant_platform.defs.backfill import Backfill
    from quant_platform.defs.demo import Demo
    from quant_platform.live.keys_view import Snapshot
    from quant_platform.pipeline.units import Outcome

out = Console(width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True)
_TWO_MINUTES_S = 120


def say(line: str) -> None:
    """Print a sentence as it is."""
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def show_rows(rows: list[dict[str, Any]], *, as_json: bool, nothing: str) -> None:
    """Print rows as a table or as JSON; without any, the table is the sentence `nothing`."""
    if as_json:
        print(json.dumps(rows, indent=2, default=str))  # noqa: T201  # data for a program
        return
    if not rows:
        out.print(nothing)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, value in rows[0].items():
        table.add_column(name, justify="right" if isinstance(value, int) else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()))
    out.print(table)


def keys_table(found: "Snapshot") -> Table:
    """Return the live keys of a symbol as a table, with how their writer fares below it."""
    table = Table(box=None, header_style="bold", pad_edge=False, caption=found.writer, caption_justify="left")
    for name in ("key", "says"):
        table.add_column(name, overflow="fold")
    for name in ("age", "written", "lives"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        ages = (row.age_s, row.written_age_s, row.ttl_s)
        style = None if row.is_there else "dim"
        table.add_row(row.key, escape(row.says), *("" if age is None else _duration(age) for age in ages), style=style)
    return table


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if abs(seconds) < _TWO_MINUTES_S else str(timedelta(seconds=round(seconds)))


def fault_row(outcome: "Outcome") -> dict[str, Any]:
    """Return the row of a symbol-day that is failed, blocked or red."""
    red = "; ".join(f"{name}: {c.detail}" for name, c in outcome.checks.items() if not c.passed)
    unit = outcome.unit
    return {
        "table": unit.table,
        "symbol": unit.symbol,
        "date": unit.date.isoformat(),
        "status": "red" if outcome.status.is_usable else outcome.status.value,
        "why": outcome.error or red,
    }


def print_backfill(done: "Backfill") -> None:
    """Print what a backfill did, by table."""
    by_table: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in done.outcomes:
        by_table[outcome.unit.table].append(outcome)
    rows = [
        {
            "table": table,
            "built": sum(o.status == "ok" and not o.is_skipped for o in outcomes),
            "up to date": sum(o.status == "ok" and o.is_skipped for o in outcomes),
            "absent": sum(o.status == "absent" for o in outcomes),
            "closed": sum(o.status == "calendar_closed" for o in outcomes),
            "failed": sum(not o.status.is_usable for o in outcomes),
            "rows": sum(o.rows for o in outcomes),
            "quarantined": sum(o.quarantined for o in outcomes),
            "bytes": sum(o.bytes for o in outcomes),
        }
        for table, outcomes in by_table.items()
    ]
    show_rows(rows, as_json=False, nothing="There was nothing to do.")
    for outcome in done.outcomes:
        if outcome.status == "absent" and outcome.unit.table in {"market/trades", "market/quotes"}:
            out.print(f"{outcome.unit}: the archive does not have this day; it is recorded as absent.")


def print_week(done: "Demo") -> None:
    """Print what the demo built, how fast, and where to look at it."""
    outcomes = [o for o in done.filled.outcomes if o.status == "ok"]
    dates = sorted({o.unit.date for o in outcomes})
    by_cell: Counter[tuple[str, date]] = Counter()
    for outcome in outcomes:
        by_cell[outcome.unit.table, outcome.unit.date] += outcome.rows
    rows = [
        {"rows": table, **{day.strftime("%m-%d"): by_cell[table, day] for day in dates}}
        for table in dict.fromkeys(o.unit.table for o in outcomes)
    ]
    show_rows(rows, as_json=False, nothing="Nothing was built.")
    raw = [o for o in outcomes if o.unit.table in {"market/trades", "market/quotes"}]
    ticks, stages = sum(o.rows for o in raw), done.seconds_by_stage
    ingest = stages["market/trades"] + stages["market/quotes"]
    settings = done.platform.settings
    out.print(f"\nChecks: {done.filled.checks_passed} passed, {done.filled.checks_failed} failed.", highlight=False)
    if ticks:
        out.print(f"Ticks: {ticks:,} at {sum(o.bytes for o in raw) / ticks:.2f} bytes each, ", end="", highlight=False)
        out.print(f"read from the archive at {ticks / ingest:,.0f} a second.", highlight=False)
    show_rows(
        [{"stage": n, "seconds": f"{s:.1f}"} for n, s in {**stages, "all": sum(stages.values())}.items()],
        as_json=False,
        nothing="",
    )
    if dates:
        out.print(
            f"\nReport: {settings.reports / 'daily_market' / f'{dates[-1]}.html'}", highlight=False, soft_wrap=True
        )
        out.print(
            f"TCA report: {settings.reports / 'daily_tca' / f'{dates[-1]}.html'}", highlight=False, soft_wrap=True
        )


def print_unsound(done: "Backfill") -> None:
    """Print what failed and why, where anything did."""
    if done.unsound:
        err.print(f"\n[red]{len(done.unsound)} units failed, were blocked, or are red:[/red]")
        for outcome in done.unsound:
            fault = fault_row(outcome)
            err.print(f"  {outcome.unit}: {fault['status']}: {fault['why']}", highlight=False, markup=False)
    for step, message in done.step_errors.items():
        err.print(f"\n[red]The step {step} failed:[/red]")
        err.print(message, highlight=False, markup=False)
