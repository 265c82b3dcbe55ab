"""`kill -9` of an intake, anywhere: a rerun completes it, every row once, with the bytes of one that was whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from quant_platform.pipeline.desk_intake import inbox, watch
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import desk_archive

S = 1_000_000_000
NOW = 1_999_999_999 * S
DAYS = 6
WRITER = """
import os, pathlib, signal, sys
from quant_platform.pipeline.desk_intake import watch
from quant_platform_tests.faults.test_desk_kill import NOW, settings_of

home, left = pathlib.Path(sys.argv[1]), int(sys.argv[2])

def counted(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

for where, name in ((pathlib.Path, "replace"), (pathlib.Path, "unlink"), (pathlib.Path, "mkdir"), (os, "fsync")):
    setattr(where, name, counted(getattr(where, name)))
watch(settings_of(home), NOW + 5_000_000_000)
os.write(1, b"done")
"""
PROJECT = Path(__file__).resolve().parents[2]


def settings_of(home: Path) -> Settings:
    row = Instrument(symbol="AAA", venue_symbol="AAA", feed="binance_usdm", tick_size=0.1, lot_size=0.001)
    return Settings(home=home, instruments=(row,))


def dropped(home: Path) -> Settings:
    settings = settings_of(home)
    folder = inbox(settings)
    folder.mkdir(parents=True)
    rows = [f"f{n},{n // 9},2024-03-{1 + n % DAYS:02d}T12:00:00Z,AAA,B,{n % 7 or 'x'},1" for n in range(100)]
    (folder / "fills.csv").write_text("\n".join(["fill_id,revision,ts_event,symbol,side,price,quantity", *rows, ""]))
    return settings


def kept(settings: Settings) -> dict[str, bytes]:
    """Return parts, raw files and quarantine; receipts are of the clock."""
    root = settings.landing / desk_archive.FOLDER
    assert not list(inbox(settings).iterdir())
    files = [*root.glob("*/*/*/*"), *root.glob("raw/*"), *settings.quarantine.rglob("*.parquet")]
    return {str(path.relative_to(settings.home)): path.read_bytes() for path in sorted(files)}


def run(home: Path, left: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(home), str(left)], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("left", [0, 2, 5, 13, 30])
def test_a_killed_intake_is_completed_by_the_next(tmp_path: Path, left: int) -> None:
    whole = dropped(tmp_path / "whole")
    assert [one.status for one in watch(whole, NOW + 5 * S).files] == ["taken"]
    settings = dropped(tmp_path / "killed")
    assert run(settings.home, left) == (-signal.SIGKILL, "")
    later = NOW + 60 * S
    for one in watch(settings, later).files:
        assert one.status in {"taken", "known"}
    root = settings.landing / desk_archive.FOLDER
    ((_, receipt),) = desk_archive.receipts(root)
    rows = pl.concat(pl.read_parquet(path) for path in root.glob("fills/*/*/*.parquet"))
    assert sorted(rows["fill_id"]) == sorted(f"f{n}" for n in range(100))
    assert sum(day.rows + day.quarantined for day in receipt.days) == 100
    if receipt.ts_intake == NOW + 5 * S:  # it was on record before the kill: nothing tells the two apart
        assert kept(settings) == kept(whole)
    else:
        assert left <= 5
        assert receipt.ts_intake == later


def test_an_intake_that_is_not_killed_says_so(tmp_path: Path) -> None:
    settings = dropped(tmp_path)
    assert run(settings.home, 10_000) == (0, "done")
    assert os.listdir(inbox(settings)) == []  # noqa: PTH208
