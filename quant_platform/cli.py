"""`qp`: starts what stands below, and says in whole sentences what happened. No calculation, no orchestration."""

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from quant_platform.settings import CAPTURED_FEEDS, SettingsError, load_settings, masked

if TYPE_CHECKING:
    from quant_platform.defs.backfill import Backfill
    from quant_platform.defs.demo import Demo
    from quant_platform.defs.resources import Platform
    from quant_platform.live.market_keys import Publisher
    from quant_platform.pipeline.units import Outcome
    from quant_platform.settings import Settings

app = typer.Typer(
    help="Ticks in, trusted bars, analytics and reports out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
out = Console(width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Symbols = Annotated[str, typer.Option(help="Comma-separated symbols; all configured ones when omitted.")]
Clock = Literal["now", "recorded"]
Recorded = Annotated[
    datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="Of the recording; else the newest.")
]
Played = Annotated[Clock, typer.Option("--clock", help="Shift the recording to now, or keep its dates.")]
Speed = Annotated[float, typer.Option("--speed", min=0, help="Of the recorded clock; 0 is as fast as it goes.")]


def main() -> None:
    """Run `qp`; a wrong configuration is a sentence and exit code 2, not a traceback."""
    try:
        app()
    except SettingsError as error:
        err.print(f"[red]The configuration is wrong.[/red]\n{error}", highlight=False)
        sys.exit(2)


@app.command(epilog="Example: qp demo")
def demo() -> None:
    """Simulate a week of ticks as archive files and take it through every asset on embedded defaults."""
    raise typer.Exit(0 if _run_demo(_settings()).filled.is_ok else 1)


def _run_demo(settings: "Settings") -> "Demo":
    from quant_platform.defs import demo as week

    files = len(week.SYMBOLS) * week.DAYS * 2
    with _progress("Simulating the archive", files, settings.landing) as tell:
        observed: list[Platform] = []

        def observe(platform: "Platform") -> None:
            observed.append(platform)
            platform.observers.append(_unit_progress(tell, len(week.SYMBOLS) * week.DAYS))

        done = week.demo(settings, on_file=lambda path, rows: tell(path.name, rows), on_platform=observe)
    done.platform.close()
    _print_week(done)
    _print_unsound(done.filled)
    return done


@app.command(epilog="Example: qp up --replay (another port: QP_UI__PORT=3010 qp up --replay)")
def up(
    replay: Annotated[bool, typer.Option("--replay", help="Capture a recorded market, not the real venues.")] = False,
    day: Recorded = None,
    clock: Played = "now",
    speed: Speed = 1.0,
) -> None:
    """Serve the Dagster UI, its daemon, the collector and the report pages on 127.0.0.1 until Ctrl-C.

    Ports are `ui:` settings. A replay on an empty lake simulates the demo's week first.
    """
    from quant_platform.defs import serve

    settings, market = _settings(), None
    if replay:
        market = serve.newest_recorded(settings, day and day.date())
        if market is None and day is None:
            out.print("The lake is empty: the demo's week is simulated first.")
            _run_demo(settings)
            market = serve.newest_recorded(settings, None)
        if market is None:
            raise SettingsError(f"The lake holds no tape of {day and day.date()}: `qp list-data` shows what it holds.")
        market = replace(market, clock=clock, speed=speed)
    raise typer.Exit(serve.serve(settings, say=_plain, replay=market))


@app.command(epilog="Example: qp collect --symbols BTCUSDT,ETHUSDT; qp collect status --json")
def collect(
    what: Annotated[str, typer.Argument(help="Nothing, or `status`: show what the running collectors do.")] = "",
    symbols: Symbols = "",
    as_json: AsJson = False,
) -> None:
    """Capture trades, quotes and books from the venues into the landing, until Ctrl-C.

    It never waits for anything but its disk. One collector a symbol: another one says so, and waits.
    """
    from quant_platform.live import collector

    settings = _settings()
    if what == "status":
        running = collector.status(settings)
        _show(running, as_json=as_json, nothing="No collector is running. `qp collect` starts one.")
        raise typer.Exit(0 if running else 1)
    if what:
        raise SettingsError(f"`qp collect {what}` is not known: it is `qp collect`, or `qp collect status`.")
    chosen = [settings.instrument(name.strip()) for name in symbols.split(",") if name.strip()]
    captured = [
        i for i in chosen or settings.instruments if i.feed in CAPTURED_FEEDS and (chosen or not i.is_simulated)
    ]
    with _market_keys(settings) as publisher:
        code = collector.run(settings, [i.symbol for i in captured], publisher=publisher)
    raise typer.Exit(code)


@contextmanager
def _market_keys(settings: "Settings") -> Iterator["Publisher"]:
    """Yield what writes the market keys; without a Redis they are missing, and the capture goes on."""
    from quant_platform.live.market_keys import Publisher
    from quant_platform.storage.live_store import LiveStoreError, Server

    with ExitStack() as stack:
        try:
            stack.enter_context(Server(settings))
        except LiveStoreError as error:
            err.print(f"The market keys are not written: {error}", highlight=False)
        publisher = Publisher(settings, ttl_s=settings.analytics.store_ttls.market)
        stack.callback(publisher.stop)
        yield publisher


@app.command(epilog="Example: qp replay --date 2024-03-10 --symbols SIMBTC --clock recorded --speed 10")
def replay(
    day: Recorded = None,
    symbols: Symbols = "",
    clock: Played = "recorded",
    speed: Speed = 1.0,
    port: Annotated[int, typer.Option(help="Of 127.0.0.1; 0 takes a free one.")] = 3002,
    frames: Annotated[Path | None, typer.Option(help="A folder of recorded frames to play from.")] = None,
    faults: Annotated[
        str, typer.Option(help="How it misbehaves, such as drop=0.01,duplicate=0.01,disconnect_every_s=30.")
    ] = "",
) -> None:
    """Serve a recorded date over the venue's WebSocket and REST protocol, at 127.0.0.1, until Ctrl-C."""
    from quant_platform.feeds import replay as venue

    settings = _settings()
    names = [settings.instrument(name.strip()).symbol for name in symbols.split(",") if name.strip()]
    raise typer.Exit(
        venue.run(
            settings,
            date=day and day.date(),
            symbols=names or [i.symbol for i in settings.instruments],
            clock=clock,
            speed=speed,
            port=port,
            faults=venue.Faults.parsed(faults),
            frames=frames,
            now_ns=time.time_ns,
            say=_plain,
        )
    )


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

    settings = _settings()
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
    with _progress("Backfilling", units, settings.landing) as tell:
        platform.observers.append(_unit_progress(tell, units))
        done = run(platform, names, first, last)
    platform.close()
    _print_backfill(done)
    _print_unsound(done)
    raise typer.Exit(0 if done.is_ok else 1)


@app.command("list-data", epilog="Example: qp list-data --symbols BTCUSDT --json")
def list_data(symbols: Symbols = "", as_json: AsJson = False) -> None:
    """Show what the lake holds: dates, rows and bytes by table and symbol."""
    rows = []
    platform = _platform()
    names = set(platform.symbols({"qp/symbols": symbols}))
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
    _show(rows, as_json=as_json, nothing="The lake is empty. `qp demo` or `qp backfill` fills it.")


@app.command(epilog="Example: qp gaps --symbols BTCUSDT --json")
def gaps(symbols: Symbols = "", as_json: AsJson = False) -> None:
    """Show the holes in the trade ids."""
    platform = _platform()
    rows = platform.engine.lake.scan("market/gaps", platform.symbols({"qp/symbols": symbols})).collect()
    columns = ["symbol", "first_id", "last_id", "ts_start", "ts_end", "status", "filled_by"]
    _show(rows.select(columns).to_dicts(), as_json=as_json, nothing="No trade ids are missing.")


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

    engine = _platform().engine
    if stale:
        rows = [{"table": u.table, "symbol": u.symbol, "date": u.date.isoformat()} for u in engine.stale()]
        nothing = "Every symbol-day is up to date."
    elif files:
        for instrument in (i for i in engine.settings.instruments if i.feed in CAPTURED_FEEDS):
            landing.repair(engine.settings.landing, instrument.feed, instrument.symbol, binance.describe)
        rows = [_fault(o) for o in engine.ledger.rebuild(engine.lake)]
        nothing = "Every file matches its content hash; the ledger has been rebuilt from the files."
    else:
        rows = [_fault(o) for o in engine.ledger.outcomes() if not o.is_healthy]
        nothing = "No symbol-day is failed, blocked or red."
    _show(rows, as_json=as_json, nothing=nothing)
    raise typer.Exit(1 if rows else 0)


@app.command(epilog="Example: qp report --date 2024-03-10 --output report.html")
def report(
    day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="Trading date.")],
    output: Annotated[Path, typer.Option(help="File to write: one page that needs no other file.")] = Path(
        "daily_market.html"
    ),
) -> None:
    """Export a daily market report as one self-contained page that can be mailed."""
    from quant_platform.reports.page import self_contained

    page = load_settings().reports / "daily_market" / f"{day.date()}.html"
    if not page.is_file():
        err.print(f"There is no report for {day.date()} at {page}. `qp backfill` for that date makes it.")
        raise typer.Exit(1)
    output.write_text(self_contained(page.read_text(encoding="utf-8"), page.parent), encoding="utf-8")
    out.print(f"Wrote {output} ({output.stat().st_size / 1e6:.1f} MB).")


@app.command("show-config", epilog="Example: qp show-config --json")
def show_config(as_json: AsJson = False) -> None:
    """Print the settings in force, secrets masked."""
    tree = load_settings().model_dump(mode="json")
    if as_json:
        print(masked(json.dumps(tree, indent=2)))  # noqa: T201  # data for a program, not for a person
    else:
        import yaml

        print(masked(yaml.safe_dump(tree, sort_keys=False)), end="")  # noqa: T201  # pipes into a file


@app.command(epilog="Example: qp doctor")
def doctor(as_json: AsJson = False) -> None:
    """Show what is installed, reachable and writable, with the fix for each red line; exit code 1 when one is red."""
    from quant_platform.defs.doctor import findings

    found = findings(load_settings())
    if as_json:
        print(json.dumps([f._asdict() for f in found], indent=2))  # noqa: T201  # data for a program
    else:
        for finding in found:
            mark = "[green]ok  [/green]" if finding.is_ok else "[red]RED [/red]"
            out.print(f"{mark} {finding.what}: {finding.detail}", highlight=False)
            if not finding.is_ok:
                out.print(f"     fix: {finding.fix}", highlight=False)
    raise typer.Exit(0 if all(f.is_ok for f in found) else 1)


def _platform() -> "Platform":
    from quant_platform.defs.resources import Platform

    return Platform(_settings())


def _settings() -> "Settings":
    """Return the settings of a command that writes below QP_HOME.

    Raises:
        SettingsError: The configuration is wrong, or QP_HOME cannot be written.
    """
    from quant_platform.defs.doctor import writable

    settings = load_settings()
    home = writable(settings.home)
    if not home.is_ok:
        raise SettingsError(f"{home.what}: {home.detail}. {home.fix}")
    return settings


def _fault(outcome: "Outcome") -> dict[str, Any]:
    red = "; ".join(f"{name}: {c.detail}" for name, c in outcome.checks.items() if not c.passed)
    unit = outcome.unit
    return {
        "table": unit.table,
        "symbol": unit.symbol,
        "date": unit.date.isoformat(),
        "status": "red" if outcome.status.is_usable else outcome.status.value,
        "why": outcome.error or red,
    }


def _plain(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _show(rows: list[dict[str, Any]], *, as_json: bool, nothing: str) -> None:
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


class _Downloads(ProgressColumn):
    """Bytes in the partial files of landing: workers download, and their files tell how far they are."""

    max_refresh = 0.5

    def __init__(self, landing: Path) -> None:
        super().__init__()
        self._landing = landing

    def render(self, task: Task) -> Text:
        """Return the text of one bar; empty when it is done or nothing is coming in."""
        if task.finished:
            return Text()
        parts = {path.name: path.stat().st_size for path in self._landing.rglob("*.part") if path.exists()}
        return Text(", ".join(f"↓ {name.removesuffix('.part')} {size / 1e6:.1f} MB" for name, size in parts.items()))


@contextmanager
def _progress(label: str, total: int, landing: Path) -> Iterator[Callable[..., None]]:
    """Show a bar with rows a second, and what is being downloaded, in a terminal; nothing elsewhere."""
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        _Downloads(landing),
    ]
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        state: dict[str, Any] = {"label": label, "rows": 0, "task": bar.add_task(label, total=total, rate="")}

        def tell(name: str, rows: int, *, stage: str | None = None, of: int = total) -> None:
            if stage and stage != state["label"]:
                # A stage is known by its first unit; until then the bar before it stands in.
                bar.update(state["task"], visible=bar.tasks[-1].completed > 0)
                state.update(label=stage, rows=0, task=bar.add_task(stage, total=of, rate=""))
            state["rows"] += rows
            elapsed = bar.tasks[-1].elapsed or 0.0
            rate = f"{state['rows'] / elapsed / 1e3:,.0f} k rows/s" if elapsed > 0.1 else ""
            bar.update(state["task"], advance=1, rate=f"{rate} {name}")

        yield tell


def _unit_progress(tell: Callable[..., None], total: int) -> Callable[["Outcome"], None]:
    def observe(outcome: "Outcome") -> None:
        rows = 0 if outcome.is_skipped else outcome.rows
        tell(f"{outcome.unit.symbol} {outcome.unit.date}", rows, stage=outcome.unit.table, of=total)

    return observe


def _print_backfill(done: "Backfill") -> None:
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
    _show(rows, as_json=False, nothing="There was nothing to do.")
    for outcome in done.outcomes:
        if outcome.status == "absent" and outcome.unit.table in {"market/trades", "market/quotes"}:
            out.print(f"{outcome.unit}: the archive does not have this day; it is recorded as absent.")


def _print_week(done: "Demo") -> None:
    outcomes = [o for o in done.filled.outcomes if o.status == "ok"]
    dates = sorted({o.unit.date for o in outcomes})
    by_cell: Counter[tuple[str, date]] = Counter()
    for outcome in outcomes:
        by_cell[outcome.unit.table, outcome.unit.date] += outcome.rows
    rows = [
        {"rows": table, **{day.strftime("%m-%d"): by_cell[table, day] for day in dates}}
        for table in dict.fromkeys(o.unit.table for o in outcomes)
    ]
    _show(rows, as_json=False, nothing="Nothing was built.")
    raw = [o for o in outcomes if o.unit.table in {"market/trades", "market/quotes"}]
    ticks, stages = sum(o.rows for o in raw), done.seconds_by_stage
    ingest = stages["market/trades"] + stages["market/quotes"]
    settings = done.platform.settings
    out.print(f"\nChecks: {done.filled.checks_passed} passed, {done.filled.checks_failed} failed.", highlight=False)
    if ticks:
        out.print(f"Ticks: {ticks:,} at {sum(o.bytes for o in raw) / ticks:.2f} bytes each, ", end="", highlight=False)
        out.print(f"read from the archive at {ticks / ingest:,.0f} a second.", highlight=False)
    _show(
        [{"stage": n, "seconds": f"{s:.1f}"} for n, s in {**stages, "all": sum(stages.values())}.items()],
        as_json=False,
        nothing="",
    )
    if dates:
        out.print(
            f"\nReport: {settings.reports / 'daily_market' / f'{dates[-1]}.html'}", highlight=False, soft_wrap=True
        )
    out.print("Next: `make up`, then open http://127.0.0.1:3000.", highlight=False)


def _print_unsound(done: "Backfill") -> None:
    if done.unsound:
        err.print(f"\n[red]{len(done.unsound)} units failed, were blocked, or are red:[/red]")
        for outcome in done.unsound:
            fault = _fault(outcome)
            err.print(f"  {outcome.unit}: {fault['status']}: {fault['why']}", highlight=False, markup=False)
    for step, message in done.step_errors.items():
        err.print(f"\n[red]The step {step} failed:[/red]")
        err.print(message, highlight=False, markup=False)


if __name__ == "__main__":
    main()
