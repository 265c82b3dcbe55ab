"""Commands about recorded dates: simulate or build them, and look at what there is."""

import math
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from quant_platform.cli._app import AsJson, Symbols, app, checked_settings, new_platform
from quant_platform.cli.printing import (
    err,
    fault_row,
    keys_table,
    out,
    print_backfill,
    print_unsound,
    print_week,
    show_rows,
)
from quant_platform.cli.progress import progress, unit_progress
from quant_platform.settings import (
    CAPTURED_FEEDS,
    DESK_CONTRACTS,
    EVENT_ALIASES,
    SettingsError,
    desk_kind,
    load_settings,
)

ReportName = Literal["market", "tca"]

_FIRST_READING_NS = 631_152_000 * 1_000_000_000  # calendars begin in 1990

if TYPE_CHECKING:
    from quant_platform.defs.demo import Demo
    from quant_platform.defs.resources import Platform
    from quant_platform.pipeline.desk_intake import Ingested
    from quant_platform.pipeline.units import Outcome
    from quant_platform.settings import Settings


@app.command(epilog="Example: qp demo")
def demo() -> None:
    """Simulate a week of ticks as archive files, take it through every asset, and serve one symbol's live keys."""
    settings = checked_settings()
    done = run_demo(settings)
    if done.filled.is_ok:
        _print_live(settings, done)
    out.print("Next: `make up`, then open http://127.0.0.1:3000.", highlight=False)
    raise typer.Exit(0 if done.filled.is_ok else 1)


def _print_live(settings: "Settings", done: "Demo") -> None:
    from redis import RedisError

    from quant_platform.defs import demo as week
    from quant_platform.live.rehearsal import rehearsed
    from quant_platform.storage.live_store import LiveStoreError

    symbol, start = week.SYMBOLS[0], time.perf_counter()
    try:
        found = rehearsed(settings, symbol, max(o.unit.date for o in done.filled.outcomes if o.status == "ok"))
    except (LiveStoreError, RedisError) as error:
        err.print(f"No live keys are shown: {error}", highlight=False)
        return
    out.print(f"\nThe live keys of {symbol} at the end of the week, served in {time.perf_counter() - start:.1f} s:")
    out.print(keys_table(found))


def run_demo(settings: "Settings") -> "Demo":
    """Simulate the demo's week and build it, with progress and a summary."""
    from quant_platform.defs import demo as week

    files = len(week.SYMBOLS) * week.DAYS * week.FILES_PER_SYMBOL_DAY
    with progress("Simulating the archive", files, settings.landing) as tell:
        observed: list[Platform] = []

        def observe(platform: "Platform") -> None:
            observed.append(platform)
            platform.observers.append(unit_progress(tell, len(week.SYMBOLS) * week.DAYS))

        done = week.demo(settings, on_file=lambda path, rows: tell(path.name, rows), on_platform=observe)
    done.platform.close()
    print_week(done)
    print_unsound(done.filled)
    return done


@app.command(epilog="Example: qp backfill --from 2024-08-08 --to 2024-08-08 --symbols BTCUSDT,ETHUSDT")
def backfill(
    start: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First trading date.")],
    end: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last trading date, included.")],
    symbols: Symbols = "",
    force: Annotated[bool, typer.Option("--force", help="Build again also what is up to date.")] = False,
) -> None:
    """Bring every asset up to date for a range of dates, in this process; it all appears in the UI.

    A killed backfill resumes where it stopped. A symbol-day that fails does not stop the others: the command then
    ends with a table of what failed and why, and exit code 1.
    """
    from quant_platform.defs.resources import SYMBOLS_TAG, Platform

    settings = checked_settings()
    first, last = start.date(), end.date()
    if first > last:
        raise SettingsError(f"--from {first} is after --to {last}: swap them.")
    if first < settings.partitions.start:
        raise SettingsError(
            f"--from {first} is before partitions.start {settings.partitions.start}: move that setting."
        )
    if last > (newest := datetime.now(UTC).date() + timedelta(days=1)):
        raise SettingsError(f"--to {last} is after {newest}, the newest partition: name an earlier date.")
    platform = Platform(settings, is_forced=force)
    names = platform.symbols({SYMBOLS_TAG: symbols})
    platform.engine.start()
    from quant_platform.defs.backfill import backfill as run  # imports Dagster, which takes seconds

    units = len(names) * ((last - first).days + 1)
    with progress("Backfilling", units, settings.landing) as tell:
        platform.observers.append(unit_progress(tell, units))
        done = run(platform, names, first, last)
    platform.close()
    print_backfill(done)
    print_unsound(done)
    raise typer.Exit(0 if done.is_ok else 1)


@app.command(
    "ingest-chain", epilog="Example: qp ingest-chain spx_quotedata.csv _SPX.json.gz --symbol SPX; then qp backfill"
)
def ingest_chain(
    files: Annotated[list[Path], typer.Argument(help="Cboe's JSON, or the CSV of its web page; plain or .gz.")],
    symbol: Annotated[str, typer.Option(help="Whose chain they are.")],
    as_json: AsJson = False,
) -> None:
    """Archive files of Cboe's delayed quotes as snapshots of a symbol's option chain, each under its trading date.

    A file that is no such chain is refused and the others are taken; exit code 1 when any was refused.
    """
    from quant_platform.feeds import cboe
    from quant_platform.live.chain_intake import ingested

    settings = checked_settings()
    instrument = settings.instrument(symbol)
    if instrument.chain is None or instrument.chain.feed != cboe.VENUE:
        raise SettingsError(
            f"{symbol} has no chain from Cboe: add 'chain: {{feed: cboe, venue_symbol: …}}' to its row under "
            "'instruments:', with rate and dividend."
        )
    done = [ingested(settings, instrument, path) for path in files]
    blank = None if as_json else ""
    rows = [{name: blank if value is None else value for name, value in one._asdict().items()} for one in done]
    show_rows(rows, as_json=as_json, nothing="")
    raise typer.Exit(1 if any(one.status == "refused" for one in done) else 0)


@app.command(
    "ingest-desk", epilog="Example: qp ingest-desk orders.csv fills.parquet; qp ingest-desk export.csv --mapping broker"
)
def ingest_desk(
    files: Annotated[list[Path], typer.Argument(help="CSV, plain or .gz, or Parquet.")],
    mapping: Annotated[str, typer.Option(help="Which of feeds.desk.mappings reads them; none for own files.")] = "",
    kind: Annotated[
        str, typer.Option(help="decisions, orders, fills or an event; an own file's columns say it when omitted.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Take files of the desk's decisions, orders, fills and events; `qp backfill` brings them to the lake.

    What was taken before is not taken twice. A file that cannot be used is refused and the others are taken; exit code
    1 when any was refused. Rows that break a rule are quarantined, and the table says which.
    """
    from quant_platform.pipeline.desk_intake import ingested

    settings = checked_settings()
    own = desk_kind(kind)
    if kind and (mapping or own is None):
        known = ", ".join((*DESK_CONTRACTS, *EVENT_ALIASES))
        raise SettingsError(f"--kind {kind} must be one of {known}; a mapping tells its own.")
    done = [ingested(settings, path, ts_intake=time.time_ns(), mapping=mapping or None, kind=own) for path in files]
    show_rows([row for one in done for row in _desk_rows(one)], as_json=as_json, nothing="")
    raise typer.Exit(1 if any(one.receipt is None for one in done) else 0)


def _desk_rows(one: "Ingested") -> list[dict[str, Any]]:
    """Return what was taken of a file by date, and a last row for what is of no date, and why."""
    from quant_platform.feeds.desk import reason

    blank = {"file": str(one.file), "status": one.status, "kind": "", "date": "", "symbols": "", "rows": 0}
    if one.receipt is None:
        return [{**blank, "status": "refused", "quarantined": 0, "why": one.why}]
    found, by_date = one.receipt, defaultdict(list)
    blank["kind"] = found.kind
    for day in found.days:
        by_date[day.date].append(day)
    rows = [
        {
            **blank,
            "date": date.isoformat(),
            "symbols": ", ".join(day.symbol for day in days),
            "rows": sum(day.rows for day in days),
            "quarantined": sum(day.quarantined for day in days),
            "why": "",
        }
        for date, days in by_date.items()
    ]
    notes = [f"{rule} ({count} rows): {reason(rule)}" for rule, count in found.rules.items()]
    notes += [f"{found.left_out} rows were left out by the mapping's filter"] if found.left_out else []
    notes += [f"columns that the contract does not have: {', '.join(found.unread)}"] if found.unread else []
    if notes or not rows:
        rows.append({**blank, "quarantined": found.unplaced, "why": "; ".join(notes) or "it has no rows"})
    return rows


@app.command("ingest-vix1d", epilog="Example: qp ingest-vix1d 14.32 --ts 2026-11-20T20:15:00+00:00")
def ingest_vix1d(
    value: Annotated[float, typer.Argument(help="In vol points.")],
    ts: Annotated[
        str, typer.Option(help="When it was so, ISO 8601, UTC if it tells no offset; now when omitted.")
    ] = "",
) -> None:
    """Put a reading of VIX1D on record by hand, as of the source `manual`.

    A running collector publishes it within seconds where it is the newest one.
    """
    from quant_platform.feeds.vix1d_sources import MANUAL, SYMBOL
    from quant_platform.storage import vix1d_archive

    settings, now = checked_settings(), time.time_ns()
    if not (math.isfinite(value) and value > 0):
        raise SettingsError(f"{value} is no reading of {SYMBOL}: it must be a number above 0.")
    ts_event = _instant_ns(ts) if ts else now
    if not _FIRST_READING_NS <= ts_event <= now:
        raise SettingsError(f"--ts {ts} is in the future, or before 1990: name the time of the reading.")
    date = vix1d_archive.date_of(ts_event)
    if not vix1d_archive.append(settings.landing, [vix1d_archive.Reading(MANUAL, ts_event, now, value)]):
        err.print(f"A reading of {MANUAL} at {ts} is on record already, and stays: name another --ts.", highlight=False)
        raise typer.Exit(1)
    out.print(f"{SYMBOL} {value} is on record under {date}. `qp backfill` of that date brings it to the lake.")


def _instant_ns(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"--ts {text} is no time: write it as 2026-11-20T20:15:00+00:00.") from None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since // timedelta(microseconds=1)) * 1_000


@app.command("list-data", epilog="Example: qp list-data --symbols BTCUSDT --json")
def list_data(symbols: Symbols = "", as_json: AsJson = False) -> None:
    """Show what the lake holds: dates, rows and bytes by table and symbol."""
    from quant_platform.pipeline.units import unit_symbols

    rows = []
    platform = new_platform()
    names = set(platform.symbols({"qp/symbols": symbols})) if symbols else unit_symbols(platform.settings)
    by_series: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in platform.engine.ledger.outcomes(symbols=names):
        by_series[outcome.unit.table, outcome.unit.symbol].append(outcome)
    for (table, symbol), days in sorted(by_series.items()):
        held = [o for o in days if o.status == "ok"]
        rows.append(
            {
                "table": table,
                "symbol": symbol,
                "first": min(o.unit.date for o in days).isoformat(),
                "last": max(o.unit.date for o in days).isoformat(),
                "days": len(held),
                "absent": sum(o.status == "absent" for o in days),
                "failed": sum(not o.status.is_usable for o in days),
                "rows": sum(o.rows for o in held),
                "bytes": sum(o.bytes for o in held),
            }
        )
    show_rows(rows, as_json=as_json, nothing="The lake is empty. `qp demo` or `qp backfill` fills it.")


@app.command(epilog="Example: qp gaps --symbols BTCUSDT --json")
def gaps(symbols: Symbols = "", as_json: AsJson = False) -> None:
    """Show the holes in the trade ids."""
    platform = new_platform()
    rows = platform.engine.lake.scan("market/gaps", platform.symbols({"qp/symbols": symbols})).collect()
    columns = ["symbol", "first_id", "last_id", "ts_start", "ts_end", "status", "filled_by"]
    show_rows(rows.select(columns).to_dicts(), as_json=as_json, nothing="No trade ids are missing.")


@app.command(epilog="Example: qp check --stale")
def check(
    stale: Annotated[
        bool, typer.Option("--stale", help="Symbol-days whose inputs, parameters or code have changed since.")
    ] = False,
    files: Annotated[
        bool, typer.Option("--files", help="Hash every lake file again; rebuild ledger and manifest from the files.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is failed, blocked or red; exit code 1 when anything is."""
    from quant_platform.feeds import binance
    from quant_platform.storage import landing

    engine = new_platform().engine
    if stale:
        rows = [{"table": u.table, "symbol": u.symbol, "date": u.date.isoformat()} for u in engine.stale()]
        nothing = "Every symbol-day is up to date."
    elif files:
        for instrument in (i for i in engine.settings.instruments if i.feed in CAPTURED_FEEDS):
            landing.repair(engine.settings.landing, instrument.feed, instrument.symbol, binance.describe)
        rows = [fault_row(o) for o in engine.ledger.rebuild(engine.lake)]
        nothing = "Every file matches its content hash; the ledger has been rebuilt from the files."
    else:
        rows = [fault_row(o) for o in engine.ledger.outcomes() if not o.is_healthy]
        nothing = "No symbol-day is failed, blocked or red."
    show_rows(rows, as_json=as_json, nothing=nothing)
    raise typer.Exit(1 if rows else 0)


@app.command(epilog="Example: qp report tca --date 2024-03-10 --output tca.html")
def report(
    day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="Trading date.")],
    what: Annotated[ReportName, typer.Argument(help="Of the market, or what the desk's orders have cost.")] = "market",
    output: Annotated[
        Path | None, typer.Option(help="File to write: one page that needs no other file. Default: daily_<what>.html.")
    ] = None,
) -> None:
    """Export a daily report as one self-contained page that can be mailed."""
    from quant_platform.reports.page import self_contained

    name = f"daily_{what}"
    output = output or Path(f"{name}.html")
    page = load_settings().reports / name / f"{day.date()}.html"
    if not page.is_file():
        err.print(f"There is no report for {day.date()} at {page}. `qp backfill` for that date makes it.")
        raise typer.Exit(1)
    output.write_text(self_contained(page.read_text(encoding="utf-8"), page.parent), encoding="utf-8")
    out.print(f"Wrote {output} ({output.stat().st_size / 1e6:.1f} MB).")
