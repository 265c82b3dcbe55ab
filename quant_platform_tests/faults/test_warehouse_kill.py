"""`kill -9` of a builder of the warehouse: the old or the new file whole, never half; the next build completes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from quant_platform.storage.warehouse import rebuilt

ROWS = 50_000
BUILDER = """
import os, pathlib, signal, sys
import duckdb
from quant_platform.storage.warehouse import rebuilt

path, dies = pathlib.Path(sys.argv[1]), sys.argv[2]

if dies != "by the parent":
    replace = pathlib.Path.replace

    def fatal(self, target):
        if dies == "after the rename":
            replace(self, target)
        os.kill(os.getpid(), signal.SIGKILL)

    pathlib.Path.replace = fatal

generation = int(sys.argv[3])
while True:
    generation += 1
    with rebuilt(path) as new, duckdb.connect(new) as connection:
        for table in ("daily", "symbols"):
            connection.execute(
                f"create or replace table {table} as select range as row, {generation} as generation from range(50000)"
            )
    print(generation, flush=True)
"""


def generations(path: Path) -> set[tuple[int, int, int]]:
    with duckdb.connect(path, read_only=True) as connection:
        return set(
            connection.execute(
                "select count(*), min(generation), max(generation) from daily"
                " union all select count(*), min(generation), max(generation) from symbols"
            ).fetchall()
        )


def start(path: Path, dies: str, generation: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(path), dies, str(generation)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.soak)])
def test_builder_killed_at_any_moment_leaves_one_whole_generation(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "warehouse.duckdb"
    generation = 0
    for repetition in range(kills):
        with start(path, "by the parent", generation) as builder:
            assert builder.stdout
            swapped = int(builder.stdout.readline())
            time.sleep(0.007 * (repetition % 10))  # a build takes some 60 ms: the kill walks through it
            os.kill(builder.pid, signal.SIGKILL)
            swapped = max([swapped, *(int(line) for line in builder.stdout.read().split())])
        ((rows, low, high),) = generations(path)
        assert (rows, low) == (ROWS, high)
        assert high in {swapped, swapped + 1}
        generation = high
    with rebuilt(path) as new:
        assert generations(new) == {(ROWS, generation, generation)}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["warehouse.duckdb", "warehouse.duckdb.lock"]


@pytest.mark.parametrize(("dies", "left"), [("before the rename", 1), ("after the rename", 2)])
def test_builder_killed_beside_the_rename_leaves_old_or_new_whole(tmp_path: Path, dies: str, left: int) -> None:
    path = tmp_path / "warehouse.duckdb"
    with rebuilt(path) as new, duckdb.connect(new) as connection:
        for table in ("daily", "symbols"):
            connection.execute(f"create table {table} as select range as row, 1 as generation from range({ROWS})")
    with start(path, dies, 1) as builder:
        assert builder.wait(30) == -signal.SIGKILL
    assert generations(path) == {(ROWS, left, left)}
    with rebuilt(path) as new:
        assert generations(new) == {(ROWS, left, left)}
    assert not path.with_name("warehouse.duckdb.build").exists()
