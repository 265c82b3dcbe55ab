"""The simulated history of VIX1D: Cboe's format exactly, weekdays alone, and a past that later dates do not change."""

import math
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from quant_platform.feeds.vix1d_sources import history
from quant_platform.simulation.vix1d import write_history

MONDAY = date(2024, 3, 4)
WEEK = [MONDAY + timedelta(days=n) for n in range(7)]


def text(folder: Path, **given) -> str:
    write_history(folder / "VIX1D_History.csv", **({"dates": WEEK} | given))
    return (folder / "VIX1D_History.csv").read_text()


def test_it_is_read_as_cboes(tmp_path: Path) -> None:
    found = history(text(tmp_path).encode(), "csv", source="simulated", ts_recv=None, latency_ms=50)
    assert found.refused == []
    assert len(found.readings) == 505
    assert all(3 <= one.value < 80 for one in found.readings)


def test_rows_are_weekdays_with_prices_that_fit(tmp_path: Path) -> None:
    rows = [line.split(",") for line in text(tmp_path).splitlines()[1:]]
    days = [date(int(row[0][6:]), int(row[0][:2]), int(row[0][3:5])) for row in rows]
    assert days[-1] == date(2024, 3, 8)
    assert all(day.weekday() < 5 for day in days)
    assert all((after - before).days == (3 if after.weekday() == 0 else 1) for before, after in pairwise(days))
    for _, *cells in rows:
        opened, high, low, close = map(float, cells)
        assert low <= min(opened, close) <= max(opened, close) <= high
        assert all(len(cell.partition(".")[2]) == 6 for cell in cells)


def test_the_same_seed_gives_the_same_bytes_and_later_dates_only_add(tmp_path: Path) -> None:
    whole = text(tmp_path)
    assert text(tmp_path) == whole
    assert text(tmp_path, seed=1) != whole
    assert text(tmp_path, dates=[*WEEK, MONDAY + timedelta(days=7)]).startswith(whole)
    assert whole.startswith(text(tmp_path, dates=WEEK[:2]))


def test_the_level_comes_back_to_where_it_was(tmp_path: Path) -> None:
    logs = [math.log(float(line.rsplit(",", 1)[1])) for line in text(tmp_path).splitlines()[1:]]
    mean = sum(logs) / len(logs)
    assert mean == pytest.approx(math.log(13), abs=0.25)
    # A walk without a way back would spread by 0.16 · √500 = 3.6; this one's spread is 0.16 / √(1 - 0.88²) = 0.34.
    spread = math.sqrt(sum((value - mean) ** 2 for value in logs) / len(logs))
    assert spread == pytest.approx(0.34, rel=0.4)
