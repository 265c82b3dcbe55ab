"""Claim: `qp backfill` over many days costs little more than the arithmetic in it."""

import datetime as dt
import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree
from typing import Any

from _harness import ROOT, Measurement, Result, Verdict, interleaved

FIRST = dt.date(2024, 7, 1)
DAYS = 30
SYMBOL = "BTCUSDT"
# A symbol of the middle field. What a unit costs beside its arithmetic is the same for any number of rows: with fewer
# the share of it is larger, and a round of the leading symbols' millions would take a quarter of an hour.
TRADES, QUOTES = 250_000, 500_000


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time the command on an empty QP_HOME against the recipes of the same units in a pool of the same width."""
    days = 3 if is_quick else DAYS
    dates = [FIRST + dt.timedelta(days=n) for n in range(days)]
    files = archive(folder, dates)

    def whole() -> float:
        rmtree(folder / "home", ignore_errors=True)
        return command_seconds(folder / "home", folder / "archive", dates)

    def computed() -> float:
        rmtree(folder / "plain", ignore_errors=True)
        return recipes_seconds(folder / "plain", folder / "archive", dates)

    seconds = interleaved({"qp backfill": whole, "the recipes alone": computed}, rounds)
    files_alike = require_same_files(folder / "home", folder / "plain")
    cores = os.cpu_count() or 1
    notes = {
        "qp backfill": "one process from its start to its end: definitions, units with locks, keys, checks and ledger, "
        "the Dagster run and its events, plots, dbt, two reports",
        "the recipes alone": f"each unit's fetch, build and write of its file, table by table; {cores} warm processes",
    }
    timed = [Measurement(name=name, values=values, note=notes[name]) for name, values in seconds.items()]
    middle = {row.name: row.median for row in timed}
    return Result(
        title=f"Backfill overhead: {days} days of one symbol",
        unit="s",
        how=f"{files} simulated archive zips, at least {TRADES:,} trades and {QUOTES:,} quotes a day; every table of "
        "the job. The whole is the command on an empty QP_HOME; the part is the same units' recipes called in plain "
        "processes, one thread of Polars each as in the command, which read and write the same files.",
        measurements=timed,
        verdicts=[
            Verdict(
                claim="whole ÷ pure compute",
                measured=middle["qp backfill"] / middle["the recipes alone"],
                floor=1.5,
                goal=1.2,
                is_more_better=False,
            ),
        ],
        notes=[
            f"{files_alike:,} files of both have the same content hashes",
            "The part has no locks, keys, hashes of inputs, checks, ledger, dbt or reports",
            "Overhead is the same for any number of rows: larger days have a smaller ratio, smaller ones a larger",
        ],
    )


def archive(folder: Path, dates: Sequence[dt.date]) -> int:
    """Write the zips of the dates; return how many."""
    from quant_platform.settings import load_settings
    from quant_platform.simulation.market import MarketParams, write_archive

    instrument = load_settings(ROOT / "platform.yaml").instrument(SYMBOL)
    market = MarketParams(trades_per_day=TRADES, quotes_per_day=QUOTES)
    return len(write_archive(folder / "archive", instruments=[instrument], dates=dates, params=market))


def recipe(table: str, day: dt.date, *, is_absent: bool) -> bool:
    """Build one unit's file in this process by what its recipe names alone; return whether there was nothing to build.

    Args:
        table: Such as `market/trades`.
        day: The unit's date.
        is_absent: Whether a table that it cannot do without had nothing.
    """
    from dataclasses import replace

    from quant_platform.contracts._schema import contract_of, empty
    from quant_platform.pipeline.recipes import RECIPES
    from quant_platform.pipeline.units import Built, Unit, UnitStatus, Work
    from quant_platform.storage.lake import ALL_SYMBOLS, Lake, metadata_json

    settings, how = _settings_tree(), RECIPES[table]
    unit = Unit(table, ALL_SYMBOLS if how.is_cross_symbol else SYMBOL, day)
    work = Work(unit, how, settings, Lake(settings.lake_uri, assumed_latency_ms=settings.assumed_latency_ms))
    if how.fetch:
        work = replace(work, source=how.fetch(work))
        is_absent = work.source is None
    built = Built(empty(contract_of(table))) if is_absent else how.build(work)
    # What a recipe reads of its inputs' footers; the rest of what the platform writes there is overhead.
    metadata = {
        "status": (UnitStatus.ABSENT if is_absent else UnitStatus.OK).value,
        "key": "plain",
        "quarantined": "0",
        "checks": "{}",
        "facts": metadata_json(dict(built.facts)),
    }
    work.lake.write(*unit, built.rows, metadata=metadata)
    return is_absent


def recipes_seconds(home: Path, zips: Path, dates: Sequence[dt.date]) -> float:
    """Build every unit's file in a plain pool, table by table; return the seconds of that."""
    from quant_platform.pipeline.recipes import RECIPES

    cores = os.cpu_count() or 1
    absent: dict[str, set[dt.date]] = {}
    with (
        _environment(**_settings(home, zips), POLARS_MAX_THREADS="1"),
        ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool,
    ):
        for _ in pool.map(_imported, range(4 * cores)):  # imports come before the clock
            pass
        start = time.perf_counter()
        for table, how in RECIPES.items():
            needed = [absent[read.table] for read in how.inputs if not read.is_optional]
            every = [absent[read.table] for read in how.inputs]
            lacking = set().union(*needed) | (set.intersection(*every) if every else set())
            due = [pool.submit(recipe, table, day, is_absent=day in lacking) for day in dates]
            absent[table] = {day for day, done in zip(dates, due, strict=True) if done.result()}
        return time.perf_counter() - start


def command_seconds(home: Path, zips: Path, dates: Sequence[dt.date]) -> float:
    """Return the seconds of `qp backfill` from its start to its end."""
    command = [str(Path(sys.executable).with_name("qp")), "backfill"]
    command += ["--from", str(dates[0]), "--to", str(dates[-1]), "--symbols", SYMBOL]
    with _environment(**_settings(home, zips), DO_NOT_TRACK="1"):
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(
            f"`{' '.join(command[1:])}` ended with {done.returncode}: {(done.stderr + done.stdout)[-2_000:]}"
        )
    return seconds


def require_same_files(home: Path, plain: Path) -> int:
    """Return how many files the command wrote, each of which the recipes alone have written alike."""
    from quant_platform.storage.lake import Lake

    whole, part = Lake((home / "lake").as_uri()), Lake((plain / "lake").as_uri())
    count = 0
    for table in whole.tables():
        for symbol, day in whole.symbol_days(table):
            ours, theirs = whole.footer(table, symbol, day), part.footer(table, symbol, day)
            if not ours or not theirs or ours.content_hash != theirs.content_hash:
                raise RuntimeError(f"{table} of {symbol} on {day} differs between the command and the recipes alone.")
            count += 1
    return count


def _imported(_: int) -> None:
    from quant_platform.pipeline.recipes import RECIPES

    assert RECIPES
    time.sleep(0.2)  # so that every process of the pool gets one


@functools.cache
def _settings_tree() -> Any:
    from quant_platform.settings import load_settings

    return load_settings()


def _settings(home: Path, zips: Path) -> Mapping[str, str]:
    return {
        "QP_HOME": str(home),
        "QP_CONFIG": str(ROOT / "platform.yaml"),
        "QP_FEEDS__BINANCE_USDM__ARCHIVE_URL": zips.as_uri(),
    }


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Let processes started in the block see these settings of the platform, and nobody else's."""
    before: dict[str, Any] = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("QP_", "DAGSTER_"))]:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
