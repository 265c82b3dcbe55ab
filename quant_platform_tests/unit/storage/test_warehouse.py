"""The swap of the warehouse file, with real DuckDB files; readers stand in other processes, as in life."""

import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from quant_platform.storage.warehouse import rebuilt

READER = """
import sys, duckdb
path = sys.argv[1]
old = duckdb.connect(path, read_only=True)
print(old.execute("select max(generation) from daily").fetchone()[0], flush=True)
sys.stdin.readline()
print(*old.execute("select count(*), max(generation) from daily").fetchone(), flush=True)
old.close()
with duckdb.connect(path, read_only=True) as new:
    print(*new.execute("select count(*), max(generation) from daily").fetchone(), flush=True)
"""


def build(path: Path, table: str, generation: int) -> None:
    with duckdb.connect(path) as connection:
        connection.execute(
            f"create or replace table {table} as select range as row, {generation} as generation from range(5000)"
        )


def generation(path: Path, table: str) -> int:
    with duckdb.connect(path, read_only=True) as connection:
        row = connection.execute(f"select max(generation) from {table}").fetchone()
    assert row is not None
    return int(row[0])


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_rebuilt_where_there_was_none_makes_the_folder_and_the_file(tmp_path: Path) -> None:
    path = tmp_path / "home" / "warehouse.duckdb"
    with rebuilt(path) as new:
        build(new, "daily", 1)
        assert not path.exists()
    assert generation(path, "daily") == 1
    assert "warehouse.duckdb.build" not in names(path.parent)


def test_rebuilt_one_table_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with rebuilt(path) as new:
        build(new, "daily", 1)
        build(new, "symbols", 1)
    with rebuilt(path) as new:
        build(new, "daily", 2)
    assert (generation(path, "daily"), generation(path, "symbols")) == (2, 1)


def test_rebuilt_when_the_body_raises_leaves_the_old_file_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with rebuilt(path) as new:
        build(new, "daily", 1)
    before, listing = path.read_bytes(), names(tmp_path)

    def failing(new: Path) -> None:
        build(new, "daily", 2)
        raise RuntimeError("a test is red")

    with pytest.raises(RuntimeError, match="a test is red"), rebuilt(path) as new:
        failing(new)
    assert path.read_bytes() == before
    assert names(tmp_path) == listing


def test_rebuilt_when_nothing_was_built_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No warehouse was built"), rebuilt(tmp_path / "warehouse.duckdb"):
        pass


def test_rebuilt_on_a_file_that_is_no_warehouse_raises_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    path.write_bytes(b"x" * 20_000)
    with pytest.raises(duckdb.IOException, match="not a valid DuckDB"), rebuilt(path):
        pytest.fail("the body must not run")
    assert path.read_bytes() == b"x" * 20_000


def test_rebuilt_sweeps_what_a_dead_builder_left(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    spill = tmp_path / "warehouse.duckdb.build" / "warehouse.duckdb.tmp"
    spill.mkdir(parents=True)
    (spill / "duckdb_temp_storage").write_bytes(b"half")
    (spill.parent / "warehouse.duckdb").write_bytes(b"half")
    (spill.parent / "warehouse.duckdb.wal").write_bytes(b"half")
    with rebuilt(path) as new:
        assert not new.exists()
        build(new, "daily", 1)
    assert generation(path, "daily") == 1


def test_rebuilt_folds_in_what_the_builder_left_in_its_log(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    killed = """
import os, signal, sys, duckdb
c = duckdb.connect(sys.argv[1])
c.execute("create table daily as select 7 as generation")
os.kill(os.getpid(), signal.SIGKILL)
"""
    with rebuilt(path) as new:
        subprocess.run([sys.executable, "-c", killed, str(new)], check=False)
        assert new.with_name("warehouse.duckdb.wal").stat().st_size > 0
    assert generation(path, "daily") == 7


def test_views_stay_readable_when_they_name_the_catalog(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with rebuilt(path) as new, duckdb.connect(new) as connection:
        connection.execute("create schema marts; create table marts.daily as select 3 as generation")
        connection.execute("create view latest as select * from warehouse.marts.daily")
    assert generation(path, "latest") == 3


def test_a_reader_sees_the_old_whole_while_the_swap_happens_and_then_the_new(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with rebuilt(path) as new:
        build(new, "daily", 1)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin
        assert reader.stdout
        assert reader.stdout.readline().split() == ["1"]
        with rebuilt(path) as new:
            build(new, "daily", 2)
        answers, _ = reader.communicate("\n", timeout=30)
    assert [line.split() for line in answers.splitlines()] == [["5000", "1"], ["5000", "2"]]


def test_rebuilt_is_refused_while_something_else_writes_the_warehouse(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with rebuilt(path) as new:
        build(new, "daily", 1)
    writer = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", writer, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        with pytest.raises(duckdb.IOException, match="lock"), rebuilt(path):
            pytest.fail("the body must not run")
        process.communicate("\n", timeout=30)
    assert generation(path, "daily") == 1


def test_a_second_builder_waits_and_starts_from_what_the_first_swapped_in(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    inside, order = threading.Event(), []

    def second() -> None:
        inside.wait(30)
        with rebuilt(path) as new:
            order.append("second")
            build(new, "symbols", 2)

    thread = threading.Thread(target=second)
    thread.start()
    with rebuilt(path) as new:
        inside.set()
        build(new, "daily", 1)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert (generation(path, "daily"), generation(path, "symbols")) == (1, 2)
