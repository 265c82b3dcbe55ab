"""`kill -9` of a backfill: no half file is ever visible, what is finished stays, and the end is the same bytes."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psutil
import pytest

from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import UnitStatus
from quant_platform.settings import Instrument, Settings, load_settings
from quant_platform.simulation.market import MarketParams, write_archive
from quant_platform.storage.lake import Lake
from quant_platform_tests.every_unit import UNFED, every_unit

DAYS = [date(2024, 8, 7), date(2024, 8, 8), date(2024, 8, 9)]
SYMBOLS = ("BTCUSDT", "ETHUSDT")
KILLS = 10
BACKFILL = """
from datetime import date
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.settings import load_settings

if __name__ == "__main__":
    settings = load_settings()
    days = [date(2024, 8, 7), date(2024, 8, 8), date(2024, 8, 9)]
    with Engine(settings) as engine:
        for table in RECIPES:
            for_each = lambda o: print("skipped" if o.is_skipped else "built", o.status, o.unit, o.error, flush=True)
            engine.run(table, ["BTCUSDT", "ETHUSDT"], days, on_outcome=for_each)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulate an archive of six symbol-days, one of them missing, and return a platform.yaml over it."""
    root = tmp_path_factory.mktemp("kill")
    row = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    instruments = [Instrument(symbol=s, venue_symbol=s, **row) for s in SYMBOLS]
    small = MarketParams(trades_per_day=3_000, quotes_per_day=3_000)
    (root / "archive").mkdir()
    files = write_archive(root / "archive", instruments=instruments, dates=DAYS, params=small)
    for absent in (files[0], files[0].with_name(f"{files[0].name}.CHECKSUM")):
        absent.unlink()
    path = root / "platform.yaml"
    feed = f"binance_usdm: {{archive_url: '{(root / 'archive').as_uri()}'}}"
    rows = "\n".join(
        f"  - {{symbol: {s}, venue_symbol: {s}, feed: binance_usdm, tick_size: 0.1, lot_size: 0.001}}" for s in SYMBOLS
    )
    path.write_text(f"feeds: {{{feed}}}\npipeline: {{workers: 2}}\ninstruments:\n{rows}\n")
    return path


def settings_of(config: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("QP_HOME", str(home))
    return load_settings(config)


def started(config: Path, home: Path) -> "subprocess.Popen[str]":
    script = config.with_name("backfill.py")
    script.write_text(BACKFILL)
    environment = {**os.environ, "QP_HOME": str(home), "QP_CONFIG": str(config)}
    return subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)


def of_home(home: Path) -> Iterator[psutil.Process]:
    """Every process that was started for this home, workers included."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("QP_HOME") == str(home):
                yield process


def visible(home: Path) -> dict[Path, tuple[int, int]]:
    found = {path: path.stat() for path in (home / "lake").rglob("*.parquet")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in found.items()}


def tree(home: Path) -> dict[str, bytes]:
    places = [p for folder in ("lake", "quarantine") for p in (home / folder).rglob("*") if p.is_file()]
    return {str(p.relative_to(home)): p.read_bytes() for p in places}


def check_every_visible_file(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    for table in lake.tables():
        for symbol, day in lake.symbol_days(table):
            footer = lake.footer(table, symbol, day)
            assert footer is not None
            assert lake.recomputed_hash(table, symbol, day) == footer.content_hash


@pytest.mark.parametrize("seed", [7, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(100, 110))])
def test_backfill_killed_again_and_again_ends_as_if_it_never_was(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    home, dice = tmp_path / "killed", random.Random(seed)
    settings = settings_of(config, home, monkeypatch)
    monkeypatch.delenv("QP_HOME")  # this process is not one of those to be counted
    finished: dict[Path, tuple[int, int]] = {}
    units = len(every_unit(SYMBOLS, DAYS))
    for _ in range(KILLS):
        with started(config, home) as backfill:
            assert backfill.stdout
            built = 0
            wanted = dice.randint(1, 2 * units // KILLS - 3)
            for line in backfill.stdout:
                built += line.startswith("built")
                if built >= wanted:
                    break
            time.sleep(dice.uniform(0, 0.03))  # a unit takes some 20 ms: the kill walks through it
            os.kill(backfill.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while left := list(of_home(home)):
            assert time.monotonic() < deadline, f"orphans: {left}"
            time.sleep(0.02)
        check_every_visible_file(settings)
        now = visible(home)
        assert finished.items() <= now.items()  # neither lost nor written again
        finished = now
    assert 0 < len(finished) < units, "the kills came too early or too late"

    with started(config, home) as backfill:
        assert backfill.stdout
        lines = backfill.stdout.read().splitlines()
    assert backfill.returncode == 0
    assert len(lines) == units
    assert sum(line.startswith("built") for line in lines) == units - len(finished)
    assert finished.items() <= visible(home).items()

    straight = settings_of(config, tmp_path / "straight", monkeypatch)
    with Engine(
        straight.model_copy(update={"pipeline": straight.pipeline.model_copy(update={"workers": 0})})
    ) as engine:
        for table in RECIPES:
            engine.run(table, SYMBOLS, DAYS)
    assert tree(home) == tree(straight.home)
    with Engine(settings) as engine:
        assert engine.stale() == []
        statuses = {outcome.unit: outcome.status for outcome in engine.ledger.outcomes()}
    from_quotes = {"market/quotes", "statistics/liquidity", "microstructure/order_book_imbalance"}
    never = {"market/book", "live/values", "live/parity"} | UNFED  # the archive has no book, and no writer ran
    absent = every_unit(["BTCUSDT"], DAYS[:1], RECIPES.keys() - from_quotes - never)
    absent |= every_unit(SYMBOLS, DAYS, never)
    assert {unit for unit, status in statuses.items() if status is UnitStatus.ABSENT} == absent
    assert {status for unit, status in statuses.items() if unit not in absent} == {UnitStatus.OK}
    assert len(statuses) == units
