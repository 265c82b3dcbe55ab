"""Building units over a small archive, in this process: what is built, skipped, refused, and what goes stale."""

import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_platform.pipeline import engine as engine_module
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import Outcome, Recipe, Unit, UnitStatus
from quant_platform.settings import Settings, SettingsError
from quant_platform_tests.unit.pipeline.conftest import SYMBOLS, Archive, MakeEngine, tape

DAYS = [date(2024, 8, 7), date(2024, 8, 8), date(2024, 8, 9)]
MIDDLE = DAYS[1]
TRADES, GAPS, SECONDS, STATISTICS = "market/trades", "market/gaps", "market/bars_1s", "statistics/price_statistics"
TABLES = [TRADES, GAPS, SECONDS, "market/bars_1m", "market/bars_5m", STATISTICS]  # all that trades alone can fill
Stamp = tuple[int, int]


@pytest.fixture
def filled(archive: Archive) -> Archive:
    """An archive of two symbols and three days."""
    for symbol in SYMBOLS:
        for day in DAYS:
            archive.put(symbol, day)
    return archive


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the home that the first test has built, for the others to copy."""
    return tmp_path_factory.mktemp("template") / "home"


@pytest.fixture
def finished(filled: Archive, engine: MakeEngine, template: Path, tmp_path: Path) -> Archive:
    """The filled archive, and a home in which every unit has been built from it."""
    if template.exists():
        shutil.copytree(template, tmp_path / "home")
    else:
        run(engine())
        shutil.copytree(tmp_path / "home", template)
    return filled


def run(one: Engine, tables: list[str] = TABLES, **how: Any) -> list[Outcome]:
    return [outcome for table in tables for outcome in one.run(table, SYMBOLS, DAYS, **how)]


def stamps(one: Engine) -> dict[str, Stamp]:
    """Which inode each lake file is, and when it was written."""
    root = one.settings.home / "lake"
    found = {str(p.relative_to(root)): p.stat() for p in root.rglob("*") if p.is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def contents(one: Engine) -> dict[str, bytes]:
    root = one.settings.home
    places = [p for folder in ("lake", "quarantine") for p in (root / folder).rglob("*") if p.is_file()]
    return {str(p.relative_to(root)): p.read_bytes() for p in places}


def by_status(outcomes: list[Outcome]) -> dict[Unit, str]:
    return {o.unit: f"{o.status} skipped" if o.is_skipped else str(o.status) for o in outcomes}


def test_run_builds_every_unit_and_records_it(filled: Archive, engine: MakeEngine) -> None:
    one = engine()
    seen: list[Outcome] = []
    outcomes = run(one, on_outcome=seen.append)
    assert [o.unit for o in outcomes] == [Unit(t, s, d) for t in TABLES for d in DAYS for s in SYMBOLS]
    assert {o.status for o in outcomes} == {UnitStatus.OK}
    assert sorted(seen, key=str) == sorted(outcomes, key=str)
    assert {o.unit: o for o in one.ledger.outcomes()} == {o.unit: o for o in outcomes}
    assert one.lake.scan(TRADES).collect().height == 2 * 3 * 40
    assert one.stale() == []


def test_footer_says_key_code_checks_and_source(filled: Archive, engine: MakeEngine) -> None:
    one = engine()
    (outcome,) = one.run(TRADES, ["AAA"], [MIDDLE])
    footer = one.lake.footer(TRADES, "AAA", MIDDLE)
    assert footer is not None
    assert footer.metadata["key"] == outcome.key
    assert footer.metadata["code_version"] == RECIPES[TRADES].code_version
    assert footer.metadata["status"] == "ok"
    assert outcome.facts["tape"] == "trades"
    assert outcome.facts["source"] == "AAA-trades-2024-08-08.zip"
    checksum = filled.path("AAA", MIDDLE).with_name("AAA-trades-2024-08-08.zip.CHECKSUM").read_text()
    assert outcome.facts["source_fingerprint"] == checksum.split()[0]
    assert outcome.checks["contract"].detail.startswith("0 of 40 rows broke a rule")


def test_tables_built_ahead_are_those_that_are_asked_for(
    filled: Archive, engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, ahead = engine(home=tmp_path / "plain"), engine(home=tmp_path / "ahead")
    expected = run(plain)
    asked: list[str] = []
    built = Engine._run_alone
    monkeypatch.setattr(Engine, "_run_alone", lambda one, *how: asked.append(how[1]) or built(one, *how))  # type: ignore[func-returns-value]  # append gives None
    ahead.run_ahead(TABLES, SYMBOLS, DAYS)
    told: list[Outcome] = []
    found = run(ahead, on_outcome=told.append)
    assert [replace(one, seconds=0) for one in found] == [replace(one, seconds=0) for one in expected]
    assert len(told) == len(found)
    assert sorted(asked) == sorted(TABLES)  # none was built twice
    assert contents(ahead) == contents(plain)
    assert all(one.is_skipped for one in run(ahead))  # asked for again, they are looked at again


def test_what_is_asked_for_otherwise_is_not_taken_from_what_was_built_ahead(
    filled: Archive, engine: MakeEngine
) -> None:
    one = engine()
    one.run_ahead([TRADES], SYMBOLS, DAYS)
    assert [outcome.unit.date for outcome in one.run(TRADES, SYMBOLS[:1], DAYS[:1])] == DAYS[:1]
    assert len(one.run(TRADES, SYMBOLS, DAYS)) == len(SYMBOLS) * len(DAYS)


def test_an_engine_that_is_closed_leaves_nothing_that_builds_ahead(filled: Archive, engine: MakeEngine) -> None:
    one = engine()
    one.run_ahead(TABLES, SYMBOLS, DAYS)
    one.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
    assert {outcome.status for outcome in run(engine())} == {UnitStatus.OK}


def test_second_run_skips_what_is_up_to_date(finished: Archive, engine: MakeEngine) -> None:
    one = engine()
    first = {o.unit: o for o in one.ledger.outcomes()}
    before = stamps(one)
    second = run(one)
    assert {o.unit: replace(o, is_skipped=False) for o in second} == first  # seconds too: they are the file's
    assert all(o.is_skipped for o in second)
    assert stamps(one) == before


def test_lost_ledger_is_adopted_from_footers_without_rebuilding(finished: Archive, engine: MakeEngine) -> None:
    one = engine()
    first = {o.unit: replace(o, seconds=0.0) for o in one.ledger.outcomes()}
    before = stamps(one)
    for left in one.settings.home.glob("ledger.sqlite*"):
        left.unlink()
    again = engine()
    assert all(o.is_skipped and o.status is UnitStatus.OK for o in run(again))
    assert stamps(again) == before
    assert {o.unit for o in again.ledger.outcomes()} == first.keys()
    assert {o.unit: replace(o, seconds=0.0, is_skipped=False) for o in run(again)} == first
    assert again.stale() == []


def test_lost_ledger_blocks_nothing(filled: Archive, engine: MakeEngine) -> None:
    one = engine()
    run(one, [TRADES])
    one.settings.ledger.unlink()
    assert {o.status for o in run(engine(), [SECONDS])} == {UnitStatus.OK}


def test_file_that_the_ledger_never_heard_of_is_put_on_record(finished: Archive, engine: MakeEngine) -> None:
    one = engine()
    before = one.ledger.outcomes(STATISTICS)
    with closing(sqlite3.connect(one.settings.ledger)) as ledger, ledger:  # as a kill between file and ledger would
        ledger.execute("DELETE FROM units WHERE table_name = ? AND symbol = 'AAA'", (STATISTICS,))
    assert all(o.is_skipped for o in run(one, [STATISTICS]))
    assert [replace(o, seconds=0.0) for o in one.ledger.outcomes(STATISTICS)] == [
        replace(o, seconds=0.0) for o in before
    ]


def test_file_that_is_gone_is_built_again(filled: Archive, engine: MakeEngine) -> None:
    one = engine()
    run(one, [TRADES, SECONDS])
    before = contents(one)
    for table in (SECONDS, TRADES):
        one.lake.path(table, "AAA", MIDDLE).unlink()
        again = by_status(run(one, [table]))
        assert again.pop(Unit(table, "AAA", MIDDLE)) == "ok"
        assert set(again.values()) == {"ok skipped"}
    assert contents(one) == before


def test_input_file_that_is_gone_blocks_with_a_reason(filled: Archive, engine: MakeEngine) -> None:
    one = engine()
    run(one, [TRADES])
    one.lake.path(TRADES, "AAA", MIDDLE).unlink()
    outcomes = {o.unit: o for o in run(one, [SECONDS])}
    refused = outcomes[Unit(SECONDS, "AAA", MIDDLE)]
    assert refused.status is UnitStatus.BLOCKED
    assert f"{TRADES} AAA {MIDDLE} is missing" in refused.error
    assert [o.status for o in outcomes.values()].count(UnitStatus.OK) == 5


@pytest.mark.parametrize(
    ("given", "stale_tables"),
    [
        ({"analytics": {"price_statistics": {"window_bars": 30}}}, {STATISTICS}),
        ({"quality": {"max_quarantined_share": 0.5}}, {TRADES}),
        ({"latency_ms": 60.0}, set(TABLES)),
        ({"instrument": {"tick_size": 0.2}}, set(TABLES)),
        ({"pipeline": {"workers": 0, "memory_budget_mb": 9}}, set()),
    ],
    ids=["parameter", "limit", "latency", "instrument", "nothing"],
)
def test_changed_setting_makes_exactly_its_units_stale(
    finished: Archive, engine: MakeEngine, given: dict[str, Any], stale_tables: set[str]
) -> None:
    changed = engine(**given)
    stale = {Unit(t, s, d) for t in stale_tables for s in SYMBOLS for d in DAYS}
    assert set(changed.stale()) == stale
    built = {o.unit for o in run(changed) if not o.is_skipped}
    assert stale <= built
    assert changed.stale() == []


def test_changed_parameter_rebuilds_exactly_its_units(finished: Archive, engine: MakeEngine) -> None:
    outcomes = run(engine(analytics={"price_statistics": {"window_bars": 30}}))
    assert {o.unit.table for o in outcomes if not o.is_skipped} == {STATISTICS}


def test_changed_latency_rebuilds_what_it_reaches(finished: Archive, engine: MakeEngine) -> None:
    slower = engine(latency_ms=60_000.0)
    run(slower)
    bars = slower.lake.scan("market/bars_1m", ["AAA"], MIDDLE, MIDDLE).collect()
    # Trades stand half a minute apart from the full minute: the later one is known a minute after it came.
    assert (bars["ts_known"] - bars["ts_open"]).unique().to_list() == [timedelta(seconds=90)]


def test_changed_calculator_makes_exactly_its_units_stale(
    finished: Archive, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = engine()
    original = RECIPES[STATISTICS]
    changed = Recipe(
        original.table,
        original.build,
        (*original.code, "quant_platform.calculators.bars"),
        original.inputs,
        parameters=original.parameters,
    )
    monkeypatch.setitem(RECIPES, STATISTICS, changed)
    assert {unit.table for unit in one.stale()} == {STATISTICS}
    assert {o.unit.table for o in run(one) if not o.is_skipped} == {STATISTICS}
    assert one.stale() == []


def test_replaced_source_rebuilds_its_day_and_what_reads_it(finished: Archive, engine: MakeEngine) -> None:
    one = engine()
    finished.put("AAA", MIDDLE, tape(MIDDLE, price=200.0))
    one.run(TRADES, SYMBOLS, DAYS)
    stale = {(u.table, u.symbol, u.date) for u in one.stale()}
    same_day = {(t, "AAA", MIDDLE) for t in (GAPS, SECONDS)}
    assert stale == same_day | {(GAPS, "AAA", DAYS[2])}  # which looks back one session
    built = {o.unit for o in run(one) if not o.is_skipped}
    assert {(u.symbol, u.date) for u in built if u.table in {SECONDS, "market/bars_1m"}} == {("AAA", MIDDLE)}
    assert {(u.symbol, u.date) for u in built if u.table == STATISTICS} == {("AAA", MIDDLE), ("AAA", DAYS[2])}
    assert one.stale() == []
    assert one.lake.scan(TRADES, ["AAA"], MIDDLE, MIDDLE).collect()["price"].min() == 200.0


def test_replaced_source_with_the_same_rows_leaves_what_reads_it(finished: Archive, engine: MakeEngine) -> None:
    finished.put("AAA", MIDDLE, [*tape(MIDDLE), tape(MIDDLE)[-1]])  # the last row twice: one of them is quarantined
    built = [o for o in run(engine(quality={"max_quarantined_share": 0.5})) if not o.is_skipped]
    assert {o.unit.table for o in built} == {TRADES}
    assert sum(o.quarantined for o in built) == 1


def test_stale_between_dates_looks_at_those_alone(finished: Archive, engine: MakeEngine) -> None:
    changed = engine(analytics={"price_statistics": {"window_bars": 30}})
    assert changed.stale(MIDDLE, MIDDLE) == [Unit(STATISTICS, symbol, MIDDLE) for symbol in SYMBOLS]
    assert engine().stale(MIDDLE) == []


def test_stale_passes_over_what_is_no_longer_configured(finished: Archive, engine: MakeEngine) -> None:
    assert engine(instruments=(), latency_ms=60.0).stale() == []


def test_forced_rebuild_gives_identical_bytes(finished: Archive, engine: MakeEngine) -> None:
    one = engine()
    before, inodes = contents(one), stamps(one)
    assert not any(o.is_skipped for o in run(one, is_forced=True))
    assert contents(one) == before
    assert all(stamps(one)[name] != inode for name, inode in inodes.items())


def test_other_home_gives_identical_bytes(finished: Archive, engine: MakeEngine) -> None:
    one, other = engine(), engine(home="other")
    run(other)
    assert contents(one) == contents(other)


def test_failing_symbol_does_not_stop_the_others(filled: Archive, engine: MakeEngine) -> None:
    filled.path("AAA", MIDDLE).write_bytes(b"no zip")
    one = engine()
    outcomes = {o.unit: o for o in run(one)}
    failed = outcomes[Unit(TRADES, "AAA", MIDDLE)]
    assert failed.status is UnitStatus.FAILED
    assert "AAA-trades-2024-08-08.zip" in failed.error
    assert outcomes[Unit(SECONDS, "AAA", MIDDLE)].status is UnitStatus.BLOCKED
    assert f"{TRADES} AAA {MIDDLE} is failed" in outcomes[Unit(SECONDS, "AAA", MIDDLE)].error
    assert {o.status for u, o in outcomes.items() if (u.symbol, u.date) != ("AAA", MIDDLE)} == {UnitStatus.OK}
    filled.put("AAA", MIDDLE)
    assert {o.status for o in run(one)} == {UnitStatus.OK}
    assert one.stale() == []


def test_failure_leaves_the_file_of_before(finished: Archive, engine: MakeEngine) -> None:
    one = engine()
    before = contents(one)
    finished.put("AAA", MIDDLE, ["1,2,3"])
    assert by_status(run(one, [TRADES]))[Unit(TRADES, "AAA", MIDDLE)] == "failed"
    assert contents(one) == before
    assert by_status(run(one, [SECONDS]))[Unit(SECONDS, "AAA", MIDDLE)] == "blocked"
    assert contents(one) == before


def test_red_check_blocks_its_date_and_shortens_the_history_of_the_next(filled: Archive, engine: MakeEngine) -> None:
    bad = [line.replace(",100", ",-100").replace(",101", ",nan") for line in tape(MIDDLE)]
    filled.put("AAA", MIDDLE, bad)
    one = engine()
    outcomes = {o.unit: o for o in run(one)}
    red = outcomes[Unit(TRADES, "AAA", MIDDLE)]
    assert (red.status, red.is_red, red.quarantined, red.rows) == (UnitStatus.OK, True, 12, 28)  # n % 7 of 0 and 1
    assert red.checks["contract"].detail == (
        "12 of 40 rows broke a rule (30.00%; the limit is 1.00%). Most often price|min_exclusive: 6 rows, the first "
        "in line 2 of AAA-trades-2024-08-08.zip."
    )
    refused = {u.table for u, o in outcomes.items() if o.status is UnitStatus.BLOCKED}
    assert refused == set(TABLES) - {TRADES}
    assert {(u.symbol, u.date) for u, o in outcomes.items() if o.status is UnitStatus.BLOCKED} == {("AAA", MIDDLE)}
    assert "has a red blocking check: contract" in outcomes[Unit(GAPS, "AAA", MIDDLE)].error
    assert one.lake.scan(GAPS, ["AAA"]).collect().is_empty()  # of the day after nothing is said: no known id before
    quarantined = pl.read_parquet(one.settings.quarantine / f"market/trades/date={MIDDLE}/AAA.parquet")
    assert quarantined["source_line"].to_list()[:3] == [2, 3, 9]
    assert one.stale() == []
    filled.put("AAA", MIDDLE)
    healed = {o.unit for o in run(one) if not o.is_skipped}
    assert {u for u in healed if u.table == STATISTICS} == {Unit(STATISTICS, "AAA", d) for d in DAYS[1:]}
    assert not (one.settings.quarantine / f"market/trades/date={MIDDLE}/AAA.parquet").exists()


def test_missing_input_blocks_and_missing_lookback_does_not(filled: Archive, engine: MakeEngine) -> None:
    one = engine()
    (refused,) = one.run(SECONDS, ["AAA"], [MIDDLE])
    assert refused.status is UnitStatus.BLOCKED
    assert f"{TRADES} AAA {MIDDLE} has not been built: run `qp backfill`" in refused.error
    one.run(TRADES, ["AAA"], [MIDDLE])
    assert one.run(GAPS, ["AAA"], [MIDDLE])[0].status is UnitStatus.OK
    assert one.stale() == []
    one.run(TRADES, ["AAA"], [DAYS[0]])  # history that comes later
    assert one.stale() == [Unit(GAPS, "AAA", MIDDLE)]


def test_hole_over_midnight_is_a_gap_of_the_later_date(archive: Archive, engine: MakeEngine) -> None:
    archive.put("AAA", DAYS[0])
    archive.put("AAA", MIDDLE, tape(MIDDLE)[5:])
    one = engine()
    for table in (TRADES, GAPS):
        one.run(table, ["AAA"], DAYS[:2])
    first_id = MIDDLE.toordinal() * 40
    gaps = one.lake.scan(GAPS).select("first_id", "last_id", "missing").collect()
    assert gaps.rows() == [(first_id, first_id + 4, 5)]
    assert one.ledger.outcomes(GAPS, start=MIDDLE)[0].rows == 1


def test_absent_day_is_a_file_of_no_rows_all_the_way_down(filled: Archive, engine: MakeEngine) -> None:
    filled.path("AAA", MIDDLE).unlink()
    filled.path("AAA", MIDDLE).with_name("AAA-trades-2024-08-08.zip.CHECKSUM").unlink()
    one = engine()
    outcomes = {o.unit: o for o in run(one)}
    absent = {u for u, o in outcomes.items() if o.status is UnitStatus.ABSENT}
    assert absent == {Unit(table, "AAA", MIDDLE) for table in TABLES}
    for unit in absent:
        footer = one.lake.footer(*unit)
        assert footer is not None
        assert (footer.rows, footer.metadata["status"]) == (0, "absent")
    assert {o.status for u, o in outcomes.items() if u not in absent} == {UnitStatus.OK}
    assert all(o.is_skipped for o in run(one))
    filled.put("AAA", MIDDLE)  # the publisher brings it later
    assert {u for u, status in by_status(run(one)).items() if status == "ok"} >= absent


def test_quotes_that_the_archive_lacks_are_absent(filled: Archive, engine: MakeEngine) -> None:
    (outcome,) = engine().run("market/quotes", ["AAA"], [MIDDLE])
    assert (outcome.status, outcome.rows, outcome.error) == (UnitStatus.ABSENT, 0, "")


def test_closed_day_is_not_missing(archive: Archive, engine: MakeEngine) -> None:
    saturday = date(2024, 8, 10)
    one = engine(instrument={"calendar": "XNYS"})
    outcomes = [o for table in TABLES for o in one.run(table, ["AAA"], [saturday])]
    assert {o.status for o in outcomes} == {UnitStatus.CALENDAR_CLOSED}
    assert {o.rows for o in outcomes} == {0}
    assert one.stale() == []


def test_unknown_symbol_is_refused_before_anything_is_built(filled: Archive, engine: MakeEngine) -> None:
    one = engine()
    with pytest.raises(SettingsError, match="no instrument 'DOGE'"):
        one.run(TRADES, ["AAA", "DOGE"], DAYS)
    assert one.ledger.outcomes() == []


def test_run_of_nothing_is_nothing(engine: MakeEngine) -> None:
    assert engine().run(TRADES, [], DAYS) == []
    assert engine().run(TRADES, ["AAA"], []) == []


def test_unwritable_home_is_told_by_path(filled: Archive, engine: MakeEngine) -> None:
    one = engine()
    (one.settings.home / "lake").write_bytes(b"a file where the lake should be")
    (outcome,) = one.run(TRADES, ["AAA"], [MIDDLE])
    assert outcome.status is UnitStatus.FAILED
    assert str(one.settings.home / "lake") in outcome.error


@pytest.mark.parametrize(("budget_mb", "expected"), [(1, 1), (900, 2), (1300, 3), (100_000, 6)])
def test_memory_budget_bounds_what_is_under_way(
    filled: Archive, engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, budget_mb: float, expected: int
) -> None:
    one = engine(pipeline={"workers": 4, "memory_budget_mb": budget_mb})
    guard, under_way, peak = threading.Lock(), 0, 0

    def slow(unit: Unit, settings: Settings, how: object) -> Outcome:
        nonlocal under_way, peak
        with guard:
            under_way += 1
            peak = max(peak, under_way)
        time.sleep(0.05)
        with guard:
            under_way -= 1
        return Outcome(unit, UnitStatus.OK)

    monkeypatch.setattr(engine_module, "build_unit", slow)
    one.workers._pool = ThreadPoolExecutor(8)
    assert len(one.run(TRADES, SYMBOLS, DAYS)) == 6
    assert peak == expected  # 400 MB are allowed for each fetch; one unit always runs
