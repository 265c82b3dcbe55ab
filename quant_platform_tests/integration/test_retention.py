"""What `qp maintain` removes of the landing, what it leaves, and that nobody builds from less afterwards."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.feeds.binance import describe
from quant_platform.pipeline import retention
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.pending import FOLLOWING, pending
from quant_platform.pipeline.units import Unit, UnitStatus
from quant_platform.settings import Quality
from quant_platform.storage.landing import Manifest, Segment, Writer, repair
from quant_platform_tests.landed import at_ms, land, market
from quant_platform_tests.unit.pipeline.conftest import MakeEngine, settings_below

DAY, NEXT = date(2024, 8, 8), date(2024, 8, 9)
SYMBOL, FEED, TRADES = "AAA", "binance_usdm", "market/trades"
DAY_IS_OVER = datetime(2024, 8, 9, tzinfo=UTC)
LATER = DAY_IS_OVER + timedelta(days=31)
CAPTURED = ("market/trades", "market/quotes", "market/book")


BROKEN = (
    b'%(ns)d {"stream":"aaa@trade","data":{"e":"trade","E":%(ms)d,"T":%(ms)d,"s":"AAA","t":9001,"p":null,"q":"1"}}',
    b'%(ns)d {"stream":"aaa@bookTicker","data":{"u":9001,"b":"-1","B":"1","a":"-2","A":"1","T":%(ms)d}}',
    b'%(ns)d {"stream":"aaa@depth@100ms","data":{"e":"depthUpdate","E":%(ms)d,"T":%(ms)d,"s":"AAA","U":null,"u":1}}',
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[MakeEngine]:
    """Make engines that are closed at the end; arguments are those of `settings_below`."""
    with ExitStack() as opened:
        yield lambda **given: opened.enter_context(Engine(settings_below(tmp_path, **given)))


def follow(engine: Engine, day: date, *, closed_before: datetime | None = None, **more: Any) -> set[UnitStatus]:
    done = [engine.run(table, [SYMBOL], [day], closed_before=closed_before, **more)[0] for table in FOLLOWING]
    return {outcome.status for outcome in done}


def rows(engine: Engine) -> dict[str, pl.DataFrame]:
    return {table: engine.lake.scan(table, [SYMBOL]).collect() for table in FOLLOWING}


def files(engine: Engine) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in engine.lake.root.rglob("*.parquet")}


def numbers(found: list[Segment]) -> list[int]:
    return [segment.number for segment in found]


LINES = market(SYMBOL, at_ms(DAY, 9), seconds=300)
AFTER = market(SYMBOL, at_ms(NEXT, 9), seconds=120, first_id=1 + sum(b"@trade" in line for line in LINES))


def captured(engine: Engine) -> Engine:
    """Land a date in three segments and the beginning of the next one in two; close the first."""
    land(engine.settings, SYMBOL, LINES[:300], LINES[300:600], LINES[600:], AFTER[:100], AFTER[100:200])
    assert follow(engine, DAY) == {UnitStatus.OPEN}
    assert follow(engine, DAY, closed_before=DAY_IS_OVER) == {UnitStatus.OK}
    assert follow(engine, NEXT) == {UnitStatus.OPEN}
    return engine


def test_segments_go_when_their_date_is_closed_and_old(engine: MakeEngine) -> None:
    one = captured(engine())

    assert retention.retired(one.settings, DAY_IS_OVER + timedelta(days=29.9)) == []
    found = retention.retired(one.settings, DAY_IS_OVER + timedelta(days=30))

    assert numbers(found) == [1, 2, 3]
    # However late it is: the other date is open.
    assert numbers(retention.retired(one.settings, DAY_IS_OVER + timedelta(days=999))) == [1, 2, 3]
    told: list[Segment] = []
    retention.remove(found, told.append)
    assert told == found
    assert not any(segment.path.exists() for segment in found)
    assert retention.retired(one.settings, LATER) == []


@pytest.mark.parametrize("with_manifest", [True, False])
def test_nobody_builds_from_less_afterwards(engine: MakeEngine, *, with_manifest: bool) -> None:
    one = captured(engine())
    before, written = rows(one), files(one)
    retention.remove(retention.retired(one.settings, LATER))
    if not with_manifest:  # it was damaged, and made anew of the files that are there
        for path in one.settings.landing.glob("manifest.sqlite*"):
            path.unlink()
        repair(one.settings.landing, FEED, SYMBOL, describe)
        assert numbers(Manifest(one.settings.landing).segments(FEED, SYMBOL)) == [4, 5]

    assert one.stale() == []
    assert pending(one.settings, one.ledger).symbols == {}
    for again in ({}, {"is_forced": True}):
        assert follow(one, DAY, closed_before=LATER, **again) == {UnitStatus.OK}
    # With another limit every raw table would be built anew.
    other = engine(quality=Quality(max_quarantined_share=0.5))
    assert follow(other, DAY, closed_before=LATER) == {UnitStatus.OK}
    assert not {unit.table for unit in other.stale()} & set(CAPTURED)
    assert other.ledger.rebuild(other.lake) == []
    assert other.stale() == []
    now = files(other)
    for table in CAPTURED:
        path = one.lake.path(table, SYMBOL, DAY)
        assert now[path] == written[path]
    for table, found in rows(other).items():
        assert_frame_equal(found, before[table])


def test_the_open_date_goes_on(engine: MakeEngine) -> None:
    one = captured(engine())
    retention.remove(retention.retired(one.settings, LATER))
    land(one.settings, SYMBOL, AFTER[200:])

    assert pending(one.settings, one.ledger).symbols == {NEXT: [SYMBOL]}
    assert follow(one, NEXT, closed_before=LATER) == {UnitStatus.OK}

    assert numbers(Manifest(one.settings.landing).segments(FEED, SYMBOL)) == [1, 2, 3, 4, 5, 6]
    trades = one.lake.scan(TRADES, [SYMBOL], NEXT, NEXT).collect()
    assert trades.height == sum(b"@trade" in line for line in AFTER)
    # The newest stays for the collector that begins with it.
    assert numbers(retention.retired(one.settings, datetime(2024, 12, 1, tzinfo=UTC))) == [4, 5]


def test_what_comes_for_a_date_whose_segments_are_gone_stays_in_the_landing(engine: MakeEngine) -> None:
    one = captured(engine())
    before = rows(one)[TRADES]
    retention.remove(retention.retired(one.settings, LATER))
    land(one.settings, SYMBOL, market(SYMBOL, at_ms(DAY, 20), seconds=30, first_id=9_000))

    assert pending(one.settings, one.ledger).symbols == {}  # else a run would be asked for again and again
    assert follow(one, DAY, closed_before=LATER) == {UnitStatus.OK}

    assert_frame_equal(rows(one)[TRADES], before)
    assert 6 not in numbers(retention.retired(one.settings, LATER + timedelta(days=999)))


@pytest.mark.parametrize("table", CAPTURED)
@pytest.mark.parametrize("fault", ["missing", "flipped", "red"])
def test_segments_of_a_date_that_is_not_whole_stay(engine: MakeEngine, table: str, fault: str) -> None:
    one = captured(engine())
    path = one.lake.path(table, SYMBOL, DAY)
    if fault == "missing":
        path.unlink()
    elif fault == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 0xFF
        path.write_bytes(content)
    else:
        one = engine(quality=Quality(max_quarantined_share=0.0))
        stamp = at_ms(DAY, 9.05)
        land(one.settings, SYMBOL, [line % {b"ns": stamp * 1_000_000, b"ms": stamp} for line in BROKEN])
        follow(one, DAY, closed_before=LATER)
        assert one.ledger.outcomes(table, start=DAY, end=DAY)[0].is_red

    assert retention.retired(one.settings, LATER) == []


def test_damaged_file_without_its_segments_is_told_and_left(engine: MakeEngine) -> None:
    one = captured(engine())
    retention.remove(retention.retired(one.settings, LATER))
    path = one.lake.path(TRADES, SYMBOL, DAY)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)

    (outcome,) = one.run(TRADES, [SYMBOL], [DAY], is_forced=True)

    assert outcome.status is UnitStatus.FAILED
    assert "put back a copy" in outcome.error
    assert path.read_bytes() == content


def test_killed_half_way_loses_nothing_and_is_gone_on_with(engine: MakeEngine) -> None:
    one = captured(engine())
    before, written = rows(one), files(one)
    program = (
        "import os, signal, sys\n"
        "from datetime import datetime\n"
        "from quant_platform.pipeline import retention\n"
        "from quant_platform.settings import Settings\n"
        "settings = Settings.model_validate_json(sys.argv[1])\n"
        "found = retention.retired(settings, datetime.fromisoformat(sys.argv[2]))\n"
        "retention.remove(found, lambda segment: segment.number == 2 and os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QP_")}
    ended = subprocess.run(
        [sys.executable, "-c", program, one.settings.model_dump_json(), LATER.isoformat()], env=environment, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert [s.number for s in Manifest(one.settings.landing).segments(FEED, SYMBOL) if s.path.exists()] == [3, 4, 5]

    assert one.stale() == []
    assert follow(one, DAY, closed_before=LATER, is_forced=True) == {UnitStatus.OK}
    found = retention.retired(one.settings, LATER)
    assert numbers(found) == [3]
    retention.remove(found)

    assert follow(one, DAY, closed_before=LATER) == {UnitStatus.OK}
    path = one.lake.path(TRADES, SYMBOL, DAY)
    assert files(one)[path] == written[path]
    for table, held in rows(one).items():
        assert_frame_equal(held, before[table])


def test_next_collector_begins_where_the_last_one_ended(engine: MakeEngine) -> None:
    one = captured(engine())
    greatest = Manifest(one.settings.landing).reached(FEED, SYMBOL)
    retention.remove(retention.retired(one.settings, LATER))

    writer = Writer(one.settings.landing, FEED, SYMBOL, describe, segment_s=60, segment_bytes=1 << 26)

    assert (5, writer.salvaged.last_id) == greatest
    writer.append([at_ms(NEXT, 11) * 1_000_000, b"{}", *describe(b"{}")])
    closed = writer.roll()
    writer.close()
    assert closed is not None
    assert closed.number == 6


def test_nothing_was_ever_captured(engine: MakeEngine) -> None:
    assert retention.retired(engine().settings, LATER) == []


def test_unit_without_segments_or_file_is_told(engine: MakeEngine) -> None:
    one = captured(engine())
    retention.remove(retention.retired(one.settings, LATER))
    one.lake.path(TRADES, SYMBOL, DAY).unlink()

    (outcome,) = one.run(TRADES, [SYMBOL], [DAY], closed_before=LATER)

    assert outcome.status is UnitStatus.FAILED
    assert "segments 1, 2, 3" in outcome.error
    assert Unit(TRADES, SYMBOL, DAY) == outcome.unit
