"""A captured date while it is open: parts that grow, each row once, and the same rows when it is closed."""

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.contracts._schema import contract_of, polars_schema
from quant_platform.pipeline import open_date
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.pending import FOLLOWING, closing, pending
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import Outcome, Unit, UnitStatus, Work
from quant_platform_tests.landed import at_ms, land, market
from quant_platform_tests.unit.pipeline.conftest import MakeEngine, settings_below

DAY = date(2024, 8, 8)
SYMBOL = "AAA"
CLOSED = datetime(2024, 8, 9, tzinfo=UTC)
TRADES, GAPS, SECONDS, MINUTES = "market/trades", "market/gaps", "market/bars_1s", "market/bars_1m"
OF_CHAINS = ["options/chain", "options/greeks", "options/gamma_exposure"]  # which the symbol has not
OTHERS = ["statistics/price_statistics", "statistics/liquidity", "microstructure/closing_imbalance"]


def follow(
    engine: Engine, day: date = DAY, tables: Sequence[str] = FOLLOWING, *, closed_before: datetime | None = None
) -> dict[str, Outcome]:
    """Take the date through every table that follows it, or through those alone."""
    return {table: engine.run(table, [SYMBOL], [day], closed_before=closed_before)[0] for table in tables}


def rows(engine: Engine, table: str, day: date = DAY) -> pl.DataFrame:
    """Return a table's rows as its contract orders them."""
    names = polars_schema(contract_of(table)).names()
    return engine.lake.scan(table, [SYMBOL], day, day).select(names).collect().sort(contract_of(table).sorted_by)


def cut(lines: list[bytes], pieces: int, seed: int = 3) -> list[list[bytes]]:
    places = [0, *sorted(random.Random(seed).sample(range(1, len(lines)), pieces - 1)), len(lines)]
    return [lines[a:b] for a, b in itertools.pairwise(places)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[MakeEngine]:
    """Make engines that are closed at the end; arguments are those of `settings_below`."""
    with ExitStack() as opened:
        yield lambda **given: opened.enter_context(Engine(settings_below(tmp_path, **given)))


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return market(SYMBOL, at_ms(DAY, 9), seconds=1500)


def test_parts_grow_and_the_close_gives_the_same_rows(engine: MakeEngine, lines: list[bytes]) -> None:
    one = engine(instrument={"default_bucket_size": 200.0})
    for piece in cut(lines, 6):
        land(one.settings, SYMBOL, piece)
        outcomes = follow(one)
        assert {o.status for o in outcomes.values()} == {UnitStatus.OPEN}, {t: o.error for t, o in outcomes.items()}
    open_rows = {table: rows(one, table) for table in FOLLOWING}
    assert len(one.lake.read_state("market/trades", SYMBOL, DAY) or b"") < 100_000

    closed = follow(one, closed_before=CLOSED)
    assert {o.status for o in closed.values()} == {UnitStatus.OK}, {t: o.error for t, o in closed.items()}
    folder = one.lake.path("market/trades", SYMBOL, DAY).parent
    for table in FOLLOWING:
        folder = one.lake.path(table, SYMBOL, DAY).parent
        assert [path.name for path in folder.iterdir()] == [f"{SYMBOL}.parquet"], table
        whole, known = rows(one, table), open_rows[table]
        key = ["symbol", *contract_of(table).sorted_by]
        assert known.height > 0 or table in {"market/gaps", "microstructure/sweeps", "microstructure/hidden_orders"}, (
            table
        )
        extra = known.join(whole, on=key, how="anti")
        assert extra.is_empty(), (table, extra)
        assert_frame_equal(known, whole.join(known, on=key, how="semi"), rel_tol=1e-9, check_row_order=True)
        # What an open date lacks is its last interval, and what waits for the other streams.
        assert known.height >= 0.9 * whole.height - 3, table
    assert rows(one, "market/trades").height == sum(b"@trade" in line for line in lines)


def test_nothing_new_is_nothing_done(engine: MakeEngine, lines: list[bytes]) -> None:
    one = engine()
    land(one.settings, SYMBOL, lines[:500])
    follow(one)
    folder = one.lake.path("market/trades", SYMBOL, DAY).parent
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = follow(one)
    assert all(outcome.is_skipped for outcome in again.values())
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_part_of_a_killed_run_goes(engine: MakeEngine, lines: list[bytes]) -> None:
    one = engine()
    land(one.settings, SYMBOL, lines[:500])
    follow(one, tables=[TRADES])
    state = one.lake.read_state("market/trades", SYMBOL, DAY)
    land(one.settings, SYMBOL, lines[500:600])
    one.run("market/trades", [SYMBOL], [DAY])
    assert state is not None
    one.lake.write_state("market/trades", SYMBOL, DAY, state)  # the part was published, its memory was not
    land(one.settings, SYMBOL, lines[600:900])
    follow(one, tables=[TRADES])
    ids = rows(one, "market/trades")["trade_id"]
    assert ids.to_list() == list(range(1, sum(b"@trade" in line for line in lines[:900]) + 1))


def test_other_parameters_begin_anew(engine: MakeEngine, lines: list[bytes]) -> None:
    land(engine().settings, SYMBOL, lines[:400], lines[400:900])
    follow(engine())
    changed = follow(engine(latency_ms=1.0))
    assert not any(outcome.is_skipped for outcome in changed.values())
    again = rows(engine(), "market/trades")
    assert again["trade_id"].is_unique().all()
    assert again.height == sum(b"@trade" in line for line in lines[:900])


def test_segment_over_midnight_is_of_both_dates(engine: MakeEngine) -> None:
    one, following = engine(), DAY + timedelta(days=1)
    lines = market(SYMBOL, at_ms(DAY, 24) - 30_000, seconds=60)
    land(one.settings, SYMBOL, lines)
    assert sorted(pending(one.settings, one.ledger).symbols) == [DAY, following]
    for day in (DAY, following):
        follow(one, day, [TRADES])
    before, after = (rows(one, "market/trades", day) for day in (DAY, following))
    assert before.height + after.height == sum(b"@trade" in line for line in lines)
    assert before["ts_event"].max() < CLOSED <= after["ts_event"].min()


def test_pending_is_what_the_manifest_has_and_the_ledger_has_not(engine: MakeEngine, lines: list[bytes]) -> None:
    one = engine()
    assert pending(one.settings, one.ledger) == ({}, 0)
    land(one.settings, SYMBOL, lines[:300], lines[300:600])
    waiting = pending(one.settings, one.ledger)
    assert waiting.symbols == {DAY: [SYMBOL]}
    assert waiting.position == 0
    follow(one)
    done = pending(one.settings, one.ledger)
    assert done.symbols == {}
    assert done.position == 2
    land(one.settings, SYMBOL, lines[600:700])
    one.run("market/trades", [SYMBOL], [DAY])
    assert pending(one.settings, one.ledger, done.position).symbols == {DAY: [SYMBOL]}  # what follows has not run
    follow(one)
    assert pending(one.settings, one.ledger, done.position).symbols == {}


def test_manifest_that_was_made_anew_is_read_from_its_beginning(engine: MakeEngine, lines: list[bytes]) -> None:
    one = engine()
    land(one.settings, SYMBOL, lines[:300])
    assert pending(one.settings, one.ledger, position=7).symbols == {DAY: [SYMBOL]}


def test_segment_after_the_close_makes_the_date_pending_and_is_stored(engine: MakeEngine, lines: list[bytes]) -> None:
    one = engine()
    land(one.settings, SYMBOL, lines[:600])
    follow(one, closed_before=CLOSED)
    land(one.settings, SYMBOL, lines[600:700])
    assert pending(one.settings, one.ledger).symbols == {DAY: [SYMBOL]}
    follow(one)
    assert rows(one, "market/trades").height == sum(b"@trade" in line for line in lines[:700])
    assert pending(one.settings, one.ledger).symbols == {}


def test_tables_that_do_not_follow_wait_for_the_close(engine: MakeEngine, lines: list[bytes]) -> None:
    one = engine()
    land(one.settings, SYMBOL, lines)
    follow(one)
    for table in OF_CHAINS + OTHERS:
        (outcome,) = one.run(table, [SYMBOL], [DAY])
        assert (outcome.status, outcome.rows, outcome.error) == (UnitStatus.OPEN, 0, "")
    follow(one, closed_before=CLOSED)
    closed = [one.run(table, [SYMBOL], [DAY], closed_before=CLOSED)[0].status for table in OF_CHAINS + OTHERS]
    assert closed == [UnitStatus.ABSENT] * len(OF_CHAINS) + [UnitStatus.OK] * len(OTHERS)


def test_date_is_due_to_close_when_the_market_has_passed_its_end(engine: MakeEngine, lines: list[bytes]) -> None:
    one = engine()
    soon = datetime.now(UTC)
    land(one.settings, SYMBOL, lines[:300])
    follow(one)
    assert closing(one.settings, one.ledger, soon) == {}  # the market is at nine
    assert closing(one.settings, one.ledger, soon + timedelta(minutes=11)) == {DAY: [SYMBOL]}  # the capture has ended
    land(one.settings, "BBB", market("BBB", at_ms(DAY, 24) + 60_000, seconds=30))
    assert closing(one.settings, one.ledger, soon) == {}
    land(one.settings, "BBB", market("BBB", at_ms(DAY, 24) + 180_000, seconds=30))
    assert closing(one.settings, one.ledger, soon) == {DAY: [SYMBOL]}


def test_hole_is_open_until_its_refill_is_landed(engine: MakeEngine) -> None:
    one = engine()
    lines = market(SYMBOL, at_ms(DAY, 9), seconds=120)
    trades = [line for line in lines if b"@trade" in line]
    lost = trades[20:25]
    land(one.settings, SYMBOL, [line for line in lines if line not in lost])
    follow(one, tables=[TRADES, GAPS])
    gaps = rows(one, "market/gaps")
    assert gaps.select("first_id", "last_id", "missing", "status", "filled_by").rows() == [(21, 25, 5, "open", None)]

    now = int(lines[-1].split(b" ")[0]) + 1
    refill = (
        b'%d {"stream":"aaa@aggTrade","data":{"a":7,"p":"1000","q":"12","f":21,"l":25,"T":%d,"m":true},"refill":true}'
    )
    fate = (
        b'%d {"stream":"aaa@gap","data":{"first_id":21,"last_id":25,"ts_start":%d,"ts_end":%d,"filled_by":"aggTrades"}}'
    )
    start, end = (gaps[name].dt.epoch("ns")[0] for name in ("ts_start", "ts_end"))
    land(one.settings, SYMBOL, [refill % (now, (start + end) // 2_000_000), fate % (now + 1, start, end)])
    follow(one, tables=[TRADES, GAPS])
    for closed_before in (None, CLOSED):
        follow(one, tables=[TRADES, GAPS], closed_before=closed_before)
        gaps = rows(one, "market/gaps")
        assert gaps.select("first_id", "last_id", "status", "filled_by").rows() == [(21, 25, "filled", "aggTrades")]
        refilled = rows(one, "market/trades").filter(pl.col("first_trade_id") != pl.col("last_trade_id"))
        assert refilled.select("trade_id", "last_trade_id", "size").rows() == [(21, 25, 12.0)]


def test_late_trade_revises_its_bar(engine: MakeEngine) -> None:
    one = engine()
    lines = market(SYMBOL, at_ms(DAY, 9), seconds=180)
    late = next(line for line in lines if b"@trade" in line)
    land(one.settings, SYMBOL, [line for line in lines if line != late])
    follow(one, tables=[TRADES, SECONDS, MINUTES])
    before = rows(one, "market/bars_1m")
    land(one.settings, SYMBOL, [b"%d %s" % (int(lines[-1].split(b" ")[0]) + 1, late.split(b" ", 1)[1])])
    follow(one, tables=[TRADES, SECONDS, MINUTES])
    after = rows(one, "market/bars_1m")
    assert after["trade_count"][0] == before["trade_count"][0] + 1
    assert after["revision"][0] == 1
    assert after.height == before.height


def test_day_begins_warm_when_the_one_before_has_closed(engine: MakeEngine) -> None:
    one, following = engine(), DAY + timedelta(days=1)
    land(one.settings, SYMBOL, market(SYMBOL, at_ms(DAY, 9), seconds=600))
    land(one.settings, SYMBOL, market(SYMBOL, at_ms(following, 0), seconds=120, first_id=10_000))
    follow(one)
    follow(one, following)
    work = Work(Unit("microstructure/vpin", SYMBOL, following), RECIPES["microstructure/vpin"], one.settings, one.lake)
    cold = open_date.recalled(work, work.unit)
    follow(one, closed_before=CLOSED)
    follow(one, following)
    warm = open_date.recalled(work, work.unit)
    assert cold is not None
    assert warm is not None
    assert cold.fold.sizes["bucket_size"].to_list() == [None]
    assert warm.fold.sizes["bucket_size"][0] > 0
