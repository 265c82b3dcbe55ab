"""The index of units: what it keeps, what it can make anew from the files, and several writers at once."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.ledger import Ledger
from quant_platform.pipeline.units import CheckResult, Outcome, Unit, UnitStatus
from quant_platform_tests.unit.pipeline.conftest import Archive

DAY = date(2024, 8, 8)
TRADES = "market/trades"
GOOD = Outcome(
    Unit(TRADES, "AAA", DAY),
    UnitStatus.OK,
    key="k",
    content_hash="h",
    rows=40,
    bytes=4_000,
    seconds=0.25,
    quarantined=1,
    checks={"contract": CheckResult(passed=True, is_blocking=True, detail="1 of 41 rows.")},
    facts={"tape": "trades", "source": "é.zip"},
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "home" / "ledger.sqlite")


def test_what_is_recorded_comes_back(ledger: Ledger) -> None:
    ledger.record([GOOD])
    assert ledger.outcomes() == [GOOD]


def test_later_outcome_replaces_the_earlier(ledger: Ledger) -> None:
    absent = Outcome(GOOD.unit, UnitStatus.ABSENT, key="k2", content_hash="h2")
    ledger.record([GOOD, absent])
    assert ledger.outcomes() == [absent]


@pytest.mark.parametrize("status", [UnitStatus.FAILED, UnitStatus.BLOCKED])
def test_failure_keeps_what_is_known_of_the_file_it_left(ledger: Ledger, status: UnitStatus) -> None:
    ledger.record([GOOD])
    ledger.record([Outcome(GOOD.unit, status, error="why", seconds=9.0)])
    assert ledger.outcomes() == [replace(GOOD, status=status, error="why", seconds=9.0)]


def test_failure_of_a_unit_without_a_file(ledger: Ledger) -> None:
    ledger.record([Outcome(GOOD.unit, UnitStatus.FAILED, error="why")])
    (found,) = ledger.outcomes()
    assert (found.status, found.key, found.content_hash, found.error) == (UnitStatus.FAILED, "", "", "why")


def test_success_clears_an_earlier_error(ledger: Ledger) -> None:
    ledger.record([Outcome(GOOD.unit, UnitStatus.FAILED, error="why"), GOOD])
    assert ledger.outcomes() == [GOOD]


def test_outcomes_by_table_symbols_and_dates_both_ends_included(ledger: Ledger) -> None:
    units = [Unit(t, s, DAY + timedelta(days=n)) for t in (TRADES, "market/gaps") for s in "AB" for n in range(3)]
    ledger.record(replace(GOOD, unit=unit) for unit in reversed(units))

    def found(**asked: object) -> list[Unit]:
        return [outcome.unit for outcome in ledger.outcomes(**asked)]

    assert found() == sorted(units, key=lambda u: (u.table, u.date, u.symbol))
    assert found(table=TRADES, symbols=["B"], start=DAY + timedelta(days=1)) == units[4:6]
    assert found(table=TRADES, symbols=["B"], end=DAY) == units[3:4]
    assert found(symbols=[]) == []
    assert found(table="market/none") == []


def test_first_dates_by_symbol(ledger: Ledger) -> None:
    later = DAY + timedelta(days=1)
    ledger.record(replace(GOOD, unit=Unit(TRADES, s, d)) for s, d in (("A", later), ("A", DAY), ("B", later)))
    assert ledger.first_dates(TRADES) == {"A": DAY, "B": later}
    assert ledger.first_dates("market/gaps") == {}


def test_rebuild_makes_the_same_index_from_the_files(engine: Callable[..., Engine], archive: Archive) -> None:
    archive.put("AAA", DAY)
    one = engine()
    one.run(TRADES, ["AAA", "BBB"], [DAY])
    one.run("market/bars_1s", ["AAA", "BBB"], [DAY])
    before = one.ledger.outcomes()
    one.settings.ledger.unlink()
    again = Ledger(one.settings.ledger)
    assert again.rebuild(one.lake) == []
    assert again.outcomes() == [replace(outcome, seconds=0.0) for outcome in before]
    assert {outcome.status for outcome in before} == {UnitStatus.OK, UnitStatus.ABSENT}


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "emptied"])
def test_rebuild_reports_damage_and_the_next_run_heals_it(
    engine: Callable[..., Engine], archive: Archive, damage: str
) -> None:
    archive.put("AAA", DAY)
    archive.put("BBB", DAY)
    one = engine()
    one.run(TRADES, ["AAA", "BBB"], [DAY])
    path = one.lake.path(TRADES, "AAA", DAY)
    whole = path.read_bytes()
    broken = bytearray(whole)
    broken[20] ^= 1
    path.write_bytes({"flipped bit": bytes(broken), "truncated": whole[:-9], "emptied": b""}[damage])
    (fault,) = one.ledger.rebuild(one.lake)
    assert (fault.unit, fault.status) == (Unit(TRADES, "AAA", DAY), UnitStatus.FAILED)
    assert str(path) in fault.error
    assert "qp backfill" in fault.error
    (blocked,) = one.run("market/bars_1s", ["AAA"], [DAY])
    assert blocked.status is UnitStatus.BLOCKED
    healed, other = one.run(TRADES, ["AAA", "BBB"], [DAY])
    assert (healed.status, healed.is_skipped, other.is_skipped) == (UnitStatus.OK, False, True)
    assert path.read_bytes() == whole


def test_rebuild_passes_over_files_of_others(engine: Callable[..., Engine], archive: Archive) -> None:
    archive.put("AAA", DAY)
    one = engine()
    one.run(TRADES, ["AAA"], [DAY])
    path = one.lake.path(TRADES, "AAA", DAY)
    one.lake.scan(TRADES).collect().write_parquet(path.with_name("FOREIGN.parquet"))
    assert one.ledger.rebuild(one.lake) == []
    assert [outcome.unit.symbol for outcome in one.ledger.outcomes()] == ["AAA"]
