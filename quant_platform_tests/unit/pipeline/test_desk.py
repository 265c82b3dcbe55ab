"""The tables of the desk from its archived files: told once, told again, told otherwise, corrected."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_platform.calculators.revisions import as_of, current
from quant_platform.contracts.events import TOLD_EVENTS
from quant_platform.contracts.execution import Fill
from quant_platform.pipeline.desk import DESK, pending, trading_dates
from quant_platform.pipeline.desk_intake import ingested
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.sessions import trading_date
from quant_platform.pipeline.units import UnitStatus
from quant_platform.settings import DeskFeed

S = 1_000_000_000
NOON = datetime(2024, 3, 8, 12, tzinfo=UTC)
NOW = int(datetime(2024, 3, 10, tzinfo=UTC).timestamp()) * S
FRIDAY = date(2024, 3, 8)
HEAD = "fill_id,order_id,revision,ts_event,ts_recv,symbol,side,price,quantity"


@pytest.fixture
def take(tmp_path: Path, settings):
    def put(name: str, *rows: str, at: int = NOW, head: str = HEAD) -> None:
        path = tmp_path / name
        path.write_text("\n".join([head, *rows, ""]))
        assert ingested(settings(), path, ts_intake=at).status == "taken"

    return put


def fill(
    ident: str = "f1", *, revision: str = "", at: str = "2024-03-08T12:00:00Z", recv: str = "", price: str = "100"
) -> str:
    return f"{ident},o1,{revision},{at},{recv},AAA,buy,{price},2"


def built(engine: Engine, day: date = FRIDAY) -> Any:
    (outcome,) = engine.run("execution/fills", ["AAA"], [day])
    return outcome


def rows_of(engine: Engine, *columns: str) -> list[tuple[Any, ...]]:
    return engine.lake.scan("execution/fills", ["AAA"]).select(columns).collect().rows()


def test_files_of_one_date_are_one_table(engine, take) -> None:
    platform = engine()
    assert built(platform).status is UnitStatus.ABSENT
    take("b.csv", fill("f2", at="2024-03-08T12:00:01Z"), fill("f1"))
    take("a.csv", fill("f3", at="2024-03-08T11:00:00Z"), fill("f4", at="2024-03-09T11:00:00Z"))
    outcome = built(platform)
    assert (outcome.status, outcome.rows, outcome.quarantined) == (UnitStatus.OK, 3, 0)
    assert outcome.facts["files"] == "2"
    assert rows_of(platform, "fill_id") == [("f3",), ("f1",), ("f2",)]
    assert built(platform).is_skipped
    assert built(platform, FRIDAY + timedelta(days=1)).rows == 1


def test_every_kind_has_its_table(engine, take) -> None:
    platform = engine()
    take("d.csv", "d1,2024-03-08T12:00:00Z,s,AAA,B,1", head="decision_id,ts_event,strategy,symbol,side,quantity")
    take("o.csv", "o1,2024-03-08T12:00:00Z,AAA,B,1,filled", head="order_id,ts_event,symbol,side,quantity,status")
    for table in ("execution/decisions", "execution/orders"):
        (outcome,) = platform.run(table, ["AAA"], [FRIDAY])
        assert (outcome.status, outcome.rows) == (UnitStatus.OK, 1)


def test_a_receipt_that_is_not_told_is_assumed(engine, take, settings) -> None:
    late = NOW + 7 * S
    take("a.csv", fill("f1"), fill("f2", recv="2024-03-08T12:00:09Z"))
    take("b.csv", fill("f1", revision="1", price="101"), fill("f2", revision="1", recv="2024-03-08T13:00:00Z"), at=late)
    platform = engine()
    built(platform)
    received = [
        ("f1", 0, NOON),
        ("f1", 1, datetime.fromtimestamp(late // S, UTC)),
        ("f2", 0, NOON + timedelta(seconds=9)),
    ]
    assert rows_of(platform, "fill_id", "revision", "ts_recv") == [*received, ("f2", 1, NOON + timedelta(hours=1))]
    slow = engine(feeds=settings().feeds.model_copy(update={"desk": DeskFeed(assumed_latency_ms=250.5)}))
    assert not built(slow).is_skipped
    assert rows_of(slow, "ts_recv")[0] == (NOON + timedelta(milliseconds=250.5),)
    assert rows_of(slow, "ts_recv")[1:] == [row[2:] for row in [*received[1:], ("f2", 1, NOON + timedelta(hours=1))]]


def test_what_is_told_again_counts_once_and_what_is_told_otherwise_is_quarantined(engine, take, settings) -> None:
    take("a.csv", fill("f1"), fill("f2"), fill("f2"))
    take("b.csv", fill("f1", recv="2024-03-08T12:00:09Z"), fill("f2", price="101"), fill("f3"), at=NOW + S)
    platform = engine(quality={"max_quarantined_share": 0.5})
    outcome = built(platform)
    assert (outcome.rows, outcome.quarantined, outcome.facts["told_again"]) == (3, 1, "2")
    assert rows_of(platform, "fill_id", "price", "ts_recv") == [(f"f{n}", 100.0, NOON) for n in (1, 2, 3)]
    (kept,) = (settings().quarantine / "execution/fills/date=2024-03-08").glob("*.parquet")
    (row,) = pl.read_parquet(kept).rows(named=True)
    assert row["rule"] == "revision|conflict of a.csv with b.csv"
    assert (row["source_file"], row["source_line"]) == ("b.csv", 3)
    assert '"fill_id":"f2"' in row["raw"]
    assert '"price":101.0' in row["raw"]


def test_the_first_that_came_counts_whatever_the_names_of_files(engine, take) -> None:
    take("z.csv", fill("f1", price="100"), at=NOW)
    take("a.csv", fill("f1", price="101"), at=NOW + S)
    platform = engine(quality={"max_quarantined_share": 0.6})
    built(platform)
    assert rows_of(platform, "price") == [(100.0,)]


def test_a_broken_row_is_in_the_quarantine_of_its_date(engine, take, settings) -> None:
    take("a.csv", fill("f1"), fill("f2", price="x"))
    platform = engine(quality={"max_quarantined_share": 0.6})
    assert built(platform).quarantined == 1
    (kept,) = (settings().quarantine / "execution/fills/date=2024-03-08").glob("*.parquet")
    assert pl.read_parquet(kept)["rule"].to_list() == ["price|number"]


def test_a_correction_is_a_row_more_and_old_reports_can_be_told_again(engine, take) -> None:
    platform = engine()
    take("a.csv", fill("f1"))
    before = built(platform)
    take("b.csv", fill("f1", revision="1", price="101"), at=NOW + S)
    after = built(platform)
    assert not after.is_skipped
    assert before.key != after.key
    rows = platform.lake.scan("execution/fills", ["AAA"]).collect()
    assert current(rows, "fill_id")["price"].to_list() == [101.0]
    assert as_of(rows, "fill_id", NOON)["price"].to_list() == [100.0]


def test_the_same_files_give_the_same_bytes(engine, take) -> None:
    take("a.csv", *(fill(f"f{n}", price=str(100 + n % 3)) for n in range(50)))
    take("b.csv", *(fill(f"f{n}", revision="1") for n in range(9)), at=NOW + S)
    platform = engine()
    built(platform)
    path = platform.lake.path("execution/fills", "AAA", FRIDAY)
    first = path.read_bytes()
    platform.run("execution/fills", ["AAA"], [FRIDAY], is_forced=True)
    assert path.read_bytes() == first


def test_pending_is_what_the_tables_lack(engine, take, settings) -> None:
    platform = engine()
    assert pending(settings(), platform.ledger) == ({}, 0)
    take("a.csv", fill("f1"), fill("f2", at="2024-03-07T12:00:00Z"))
    found = pending(settings(), platform.ledger)
    days = {date(2024, 3, 7): ["AAA"], FRIDAY: ["AAA"]}
    assert found.symbols == {"fills": days}
    built(platform)
    again = pending(settings(), platform.ledger, found.position)
    assert again == ({"fills": {date(2024, 3, 7): ["AAA"]}}, found.position)
    built(platform, date(2024, 3, 7))
    done = pending(settings(), platform.ledger, again.position)
    assert done == ({}, found.position)
    take("b.csv", fill("f3"))
    more = pending(settings(), platform.ledger, done.position)
    assert more.symbols == {"fills": {FRIDAY: ["AAA"]}}
    assert more.position >= done.position
    without = settings(instruments=settings().instruments[1:])
    assert pending(without, platform.ledger).symbols == {}


CALENDARS = ["24/7", "XNYS", "XTKS", "XLON"]


@pytest.mark.parametrize("calendar", CALENDARS)
def test_trading_dates_are_those_of_each_moment_alone(calendar: str) -> None:
    start = datetime(2024, 3, 6, tzinfo=UTC)
    hours = [start + timedelta(hours=n, microseconds=n) for n in range(7 * 24)]  # over a change of clocks
    moments = pl.Series([*reversed(hours), None]).cast(pl.Datetime("ns", "UTC"))
    expected = [*(trading_date(calendar, hour) for hour in reversed(hours)), None]
    assert trading_dates(calendar, moments).to_list() == expected


@pytest.mark.parametrize("calendar", CALENDARS)
def test_no_moments_have_no_dates(calendar: str) -> None:
    found = trading_dates(calendar, pl.Series([], dtype=pl.Datetime("ns", "UTC")))
    assert (found.dtype, found.to_list()) == (pl.Date, [])


def test_a_date_that_a_calendar_does_not_reach_is_null() -> None:
    moments = pl.Series([datetime(1990, 1, 1, tzinfo=UTC), NOON]).cast(pl.Datetime("ns", "UTC"))
    assert trading_dates("XNYS", moments).to_list() == [None, FRIDAY]


def test_a_recipe_is_of_each_kind_and_those_of_events_belong_to_no_symbol() -> None:
    assert [recipe.table for recipe in DESK[:3]] == ["execution/decisions", "execution/orders", "execution/fills"]
    assert [recipe.table for recipe in DESK[3:]] == [contract.table for contract in TOLD_EVENTS]
    assert [recipe.is_cross_symbol for recipe in DESK] == [False] * 3 + [True] * len(TOLD_EVENTS)
    assert Fill.sorted_by == ("ts_event", "fill_id", "revision")
