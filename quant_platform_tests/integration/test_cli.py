"""`qp` as people and programs meet it: help, JSON, and whole sentences where something is wrong."""

import json
import os
import re
import shutil
import sqlite3
import stat
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.recipes import READ_ORDER, RECIPES
from quant_platform_tests.every_unit import UNFED, every_unit
from quant_platform_tests.landed import at_ms, land
from quant_platform_tests.landed import market as captured

COMMANDS = (
    *("demo", "backfill", "ingest-chain", "ingest-desk", "ingest-vix1d", "list-data", "gaps", "check", "report"),
    *("up", "collect", "live", "keys", "replay", "maintain", "show-config", "doctor"),
)
DAYS = ("2024-03-04", "2024-03-05")
SYMBOLS = ("AAA", "BBB", "CCC")
DATES = tuple(date.fromisoformat(day) for day in DAYS)
CLOSED = datetime(2024, 3, 6, tzinfo=UTC)
TABLES = set(RECIPES)
FROM_QUOTES = {"market/quotes", "statistics/liquidity", "microstructure/order_book_imbalance"}
LIVE_VALUES = "live/values"
ABSENT = UNFED | {"market/book", LIVE_VALUES, "live/parity"}
"""On record as absent: the archive has no book and no options, no writer ran, and no desk traded."""
OF_ORDERS = {
    "execution/tca_orders",
    "execution/quality",
    "execution/impact",
    "events/out/decision_outcome_analysis",
}
"""What is blocked with the tape, whether or not there are orders."""


@pytest.fixture
def own_home(filled: Path, tmp_path: Path) -> Path:
    """Return a copy of the filled home that a test may spoil."""
    return Path(shutil.copytree(filled, tmp_path / "own"))


def test_help_names_every_command(qp: Any) -> None:
    said = qp("--help")

    assert said.code == 0
    for command in COMMANDS:
        assert command in said.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(qp: Any, command: str) -> None:
    said = qp(command, "--help")

    assert said.code == 0
    assert f"Example: qp {command}" in said.text


def test_list_data_says_what_the_lake_holds(qp: Any, filled: Path) -> None:
    said = qp("list-data", "--json", home=filled)

    assert said.code == 0
    rows = {(row["table"], row["symbol"]): row for row in json.loads(said.out)}
    assert set(rows) == {(unit.table, unit.symbol) for unit in every_unit(SYMBOLS, DATES)}
    for (table, symbol), row in rows.items():
        assert (row["first"], row["last"]) == DAYS
        files = [filled / "lake" / table / f"date={day}" / f"{symbol}.parquet" for day in DAYS]
        bytes_held = sum(file.stat().st_size for file in files)
        counted = (row["days"], row["absent"], row["failed"], row["bytes"])
        assert counted == ((0, 2, 0, 0) if table in ABSENT else (2, 0, 0, bytes_held))
    assert "market/trades" in qp("list-data", home=filled).out


def test_list_data_of_one_symbol_lists_that_one(qp: Any, filled: Path) -> None:
    rows = json.loads(qp("list-data", "--symbols", "BBB", "--json", home=filled).out)

    assert {row["symbol"] for row in rows} == {"BBB"}
    assert {row["table"] for row in rows} == {unit.table for unit in every_unit(["BBB"], DATES) if unit.symbol == "BBB"}


def test_empty_lake_is_a_sentence_and_an_empty_list(qp: Any) -> None:
    assert "The lake is empty" in qp("list-data").out
    assert json.loads(qp("list-data", "--json").out) == []
    assert json.loads(qp("gaps", "--json").out) == []
    assert qp("check", "--json").code == 0


def test_gaps_of_a_tape_without_holes_are_none(qp: Any, filled: Path) -> None:
    assert json.loads(qp("gaps", "--json", home=filled).out) == []
    assert "No trade ids are missing" in qp("gaps", home=filled).out


def test_check_of_a_sound_home_is_green(qp: Any, filled: Path) -> None:
    for flags in ([], ["--stale"]):
        said = qp("check", *flags, "--json", home=filled)
        assert (said.code, json.loads(said.out)) == (0, [])


def test_check_stale_names_exactly_the_days_of_a_changed_parameter(qp: Any, filled: Path) -> None:
    said = qp("check", "--stale", "--json", home=filled, QP_ANALYTICS__PRICE_STATISTICS__WINDOW_BARS="30")

    assert said.code == 1
    named = {(row["table"], row["symbol"], row["date"]) for row in json.loads(said.out)}
    assert named == {("statistics/price_statistics", symbol, day) for symbol in SYMBOLS for day in DAYS}


def test_check_files_finds_a_flipped_bit_and_stops_what_reads_it(qp: Any, own_home: Path) -> None:
    file = own_home / "lake" / "market/bars_1m" / f"date={DAYS[0]}" / "BBB.parquet"
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)

    said = qp("check", "--files", "--json", home=own_home)

    assert said.code == 1
    (row,) = json.loads(said.out)
    assert (row["table"], row["symbol"], row["date"]) == ("market/bars_1m", "BBB", DAYS[0])
    assert row["status"] == "failed"
    assert "run `qp backfill`" in row["why"]
    assert qp("check", home=own_home).code == 1


def test_show_config_masks_secrets(qp: Any) -> None:
    secrets = {
        "QP_REDIS_URL": "redis://user:hunter2@localhost:6379/0",
        "QP_FEEDS__BINANCE_USDM__ARCHIVE_URL": "https://reader:hunter2@mirror.example/binance",
    }
    for flags in ([], ["--json"]):
        said = qp("show-config", *flags, **secrets)

        assert said.code == 0
        assert "hunter2" not in said.out + said.err
        assert "mirror.example/binance" in said.out
    tree = json.loads(qp("show-config", "--json").out)
    assert [row["symbol"] for row in tree["instruments"]] == list(SYMBOLS)
    assert tree["partitions"] == {"start": "2024-03-01"}


def test_typo_in_the_configuration_names_file_line_and_key(qp_process: Any, market: Any, tmp_path: Path) -> None:
    config = tmp_path / "platform.yaml"
    config.write_text(market.config.read_text().replace("archive_url", "archive_urll"))
    (line,) = [n for n, text in enumerate(config.read_text().splitlines(), 1) if "archive_urll" in text]

    said = qp_process(tmp_path / "home", config, "list-data")

    assert said.code == 2
    assert f"{config}, line {line}: feeds.binance_usdm.archive_urll" in "".join(said.err.splitlines())
    assert "Traceback" not in said.out + said.err
    assert not (tmp_path / "home").exists()


def test_missing_configuration_is_a_sentence(qp: Any, tmp_path: Path) -> None:
    said = qp("show-config", config=tmp_path / "none.yaml")

    assert said.code == 2
    assert "There is no configuration file" in said.text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--from", "2024-03-05", "--to", "2024-03-04"), "--from 2024-03-05 is after --to 2024-03-04"),
        (("--from", "2024-02-28", "--to", "2024-03-04"), "--from 2024-02-28 is before partitions.start 2024-03-01"),
        (("--from", "2024-03-04", "--to", "2024-03-04", "--symbols", "DOGE"), "There is no instrument 'DOGE'"),
        (("--from", "2024-03-04", "--to", "2099-03-04"), "--to 2099-03-04 is after"),
    ],
)
def test_impossible_backfill_is_refused_in_a_sentence(qp: Any, tmp_path: Path, arguments: Any, sentence: str) -> None:
    said = qp("backfill", *arguments)

    assert said.code == 2
    assert sentence in said.text
    assert not (tmp_path / "home" / "lake").exists()


@pytest.mark.parametrize("command", ["list-data", "gaps"])
def test_unknown_symbol_is_named_with_those_that_are_known(qp: Any, filled: Path, command: str) -> None:
    said = qp(command, "--symbols", "DOGE", home=filled)

    assert said.code == 2
    assert "There is no instrument 'DOGE'" in said.text
    assert "Known: AAA, BBB, CCC" in said.text


def test_report_export_is_one_file_that_needs_no_other(qp: Any, filled: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"

    said = qp("report", "--date", DAYS[1], "--output", str(output), home=filled)

    assert said.code == 0
    text = output.read_text()
    for symbol in SYMBOLS:
        assert symbol in text
    markup = re.sub(r"<script\b[^>]*>.*?</script>", "<script>", text, flags=re.DOTALL)
    assert re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)\s*=\s*[\"'](?!data:|#)", text) == []
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)[^\"']+", markup) == []
    assert "@import" not in markup


def test_report_of_a_date_without_one_says_how_to_make_it(qp: Any, filled: Path) -> None:
    said = qp("report", "--date", "2024-03-06", home=filled)

    assert said.code == 1
    assert "There is no report for 2024-03-06" in said.text
    assert "qp backfill" in said.text


def test_doctor_of_a_sound_machine_is_green(qp: Any, filled: Path) -> None:
    said = qp("doctor", "--json", home=filled)

    found = json.loads(said.out)
    assert said.code == 0, found
    assert all(finding["is_ok"] for finding in found)
    assert {"Python", "QP_HOME", "lake", "archive of binance_usdm", "redis"} <= {finding["what"] for finding in found}


def test_doctor_gives_the_fix_for_each_red_line(qp: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    red = {
        "QP_REDIS_URL": "redis://user:hunter2@127.0.0.1:1/0",
        "QP_FEEDS__BINANCE_USDM__ARCHIVE_URL": "http://127.0.0.1:1/archive",
    }

    said = qp("doctor", "--json", home=tmp_path / "file" / "home", **red)

    assert said.code == 1
    found = {finding["what"]: finding for finding in json.loads(said.out)}
    for what in ("QP_HOME", "redis", "archive of binance_usdm"):
        assert not found[what]["is_ok"], what
        assert found[what]["fix"], what
    assert "hunter2" not in said.out
    people = qp("doctor", home=tmp_path / "file" / "home", **red)
    assert people.out.count("fix:") == sum(not finding["is_ok"] for finding in found.values())


@pytest.mark.parametrize("command", ["backfill", "list-data", "check"])
def test_home_below_a_regular_file_is_a_sentence(qp_process: Any, market: Any, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("")
    dates = ("--from", DAYS[0], "--to", DAYS[0]) if command == "backfill" else ()

    said = qp_process(tmp_path / "file" / "home", market.config, command, *dates)

    assert said.code != 0
    assert "Traceback" not in said.out + said.err
    assert str(tmp_path / "file") in "".join(said.err.splitlines())
    assert "QP_HOME" in said.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_home_that_may_not_be_written_is_a_sentence(qp: Any, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(stat.S_IREAD | stat.S_IEXEC)

    said = qp("list-data", home=tmp_path / "locked" / "home")

    assert said.code != 0
    assert "QP_HOME" in said.text


def test_backfill_with_a_corrupt_file_builds_the_rest_and_says_what_failed(
    qp: Any, own_market: Any, tmp_path: Path
) -> None:
    own_market.file("BBB", "trades", "2024-03-04").write_bytes(b"not a zip")

    said = qp("backfill", "--from", DAYS[0], "--to", DAYS[0], config=own_market.config)

    assert said.code == 1
    assert f"market/trades BBB {DAYS[0]}: failed: ArchiveError" in said.text
    assert f"market/bars_5m BBB {DAYS[0]}: blocked: market/bars_1m BBB {DAYS[0]} is blocked" in said.text
    assert "Traceback" not in said.out + said.err
    failed = json.loads(qp("check", "--json", home=tmp_path / "home").out)
    assert {(row["symbol"], row["date"]) for row in failed} == {("BBB", DAYS[0])}
    assert {row["table"] for row in failed} == TABLES - ABSENT - FROM_QUOTES | OF_ORDERS | {"live/parity"}
    held = json.loads(qp("list-data", "--symbols", "AAA,CCC", "--json", home=tmp_path / "home").out)
    assert {row["table"] for row in held if row["days"] == 1} == TABLES - ABSENT


def test_two_backfills_at_once_both_end_well_and_build_each_unit_once(
    qp_started: Any, market: Any, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    pair = [qp_started(home, market.config, "backfill", "--from", DAYS[0], "--to", DAYS[0]) for _ in range(2)]
    said = [process.communicate(timeout=200) for process in pair]

    assert [process.returncode for process in pair] == [0, 0], said
    built: dict[str, int] = {}
    for out, _ in said:
        for line in out.splitlines():
            table, *counts = line.split() or [""]
            if table in TABLES:
                built[table] = built.get(table, 0) + int(counts[0])
    units = every_unit(SYMBOLS, DATES[:1])
    absent = sum(unit.table in ABSENT for unit in units)
    assert built == dict.fromkeys(TABLES, len(SYMBOLS)) | dict.fromkeys(ABSENT, 0)
    with sqlite3.connect(home / "ledger.sqlite") as ledger:
        statuses = ledger.execute("SELECT status, COUNT(*) FROM units GROUP BY status").fetchall()
    assert statuses == [("absent", absent), ("ok", len(units) - absent)]
    assert not list(home.rglob("*.tmp"))


def test_maintain_says_what_it_would_remove_and_removes_it(qp: Any, market: Any, tmp_path: Path) -> None:
    home, day = tmp_path / "home", DATES[0]
    settings = market.settings(home)
    lines = captured("AAA", at_ms(day, 9), seconds=60)
    land(settings, "AAA", lines[:100], lines[100:], captured("AAA", at_ms(DATES[1], 9), seconds=2, first_id=900))
    assert qp("maintain", home=home).out.strip() == "There is nothing to remove."
    with Engine(settings) as engine:
        outcomes = [one for table in READ_ORDER for one in engine.run(table, ["AAA"], [day], closed_before=CLOSED)]
        assert all(outcome.is_healthy for outcome in outcomes)
    segments = [settings.landing / f"segments/binance_usdm/AAA/0000000{number}.frames" for number in (1, 2, 3)]
    wanted = {"what": "segments", "of": "binance_usdm AAA", "count": 2}
    wanted["bytes"] = sum(path.stat().st_size for path in segments[:2])

    dry = qp("maintain", "--dry-run", "--json", home=home)

    assert json.loads(dry.out) == [wanted]
    assert all(path.exists() for path in segments)
    assert json.loads(qp("maintain", "--json", home=home).out) == [wanted]
    assert [path.exists() for path in segments] == [False, False, True]
    assert json.loads(qp("maintain", "--json", home=home).out) == []
    assert qp("check", "--stale", home=home).code == 0
    tape = Path(home / "lake/market/trades" / f"date={DAYS[0]}" / "AAA.parquet").read_bytes()
    with Engine(settings) as engine:
        (again,) = engine.run("market/trades", ["AAA"], [day], is_forced=True, closed_before=CLOSED)
        assert again.is_healthy
    assert Path(home / "lake/market/trades" / f"date={DAYS[0]}" / "AAA.parquet").read_bytes() == tape
