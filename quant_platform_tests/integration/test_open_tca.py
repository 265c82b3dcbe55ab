"""What orders have cost on a date that is still captured: at once what is known, and all of it when the date closes."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import tca
from quant_platform.contracts._schema import contract_of, polars_schema
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.resources import DATE_TAG, DESK_DATE_TAG, SYMBOLS_TAG, Platform
from quant_platform.pipeline import desk_intake, open_tca
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.execution import EXECUTION
from quant_platform.pipeline.tca_inputs import QUOTES, TRADES
from quant_platform.pipeline.units import Unit, UnitStatus, Work
from quant_platform_tests.code_location import Location
from quant_platform_tests.landed import at_ms, land, market
from quant_platform_tests.unit.pipeline.conftest import MakeEngine, settings_below

DAY = date(2024, 8, 8)
SYMBOL = "AAA"
CLOSED = datetime(2024, 8, 9, tzinfo=UTC)
INTAKE = int(datetime(2024, 8, 8, 12, tzinfo=UTC).timestamp()) * 1_000_000_000
NINE = datetime(2024, 8, 8, 9, tzinfo=UTC)
COSTS = ("execution/tca_fills", "execution/tca_orders")
HEADS = {
    "decisions": "decision_id,ts_event,ts_recv,strategy,symbol,side,quantity,price",
    "orders": "order_id,ts_event,ts_recv,symbol,side,quantity,ts_done,status,decision_id,revision,parent_order_id",
    "fills": "fill_id,order_id,ts_event,ts_recv,symbol,side,price,quantity,fee,revision",
    "trade_settled": "event_id,ts_event,symbol,fill_id,settlement_status,settlement_date,quantity,cash_amount",
}


def at(seconds: float) -> str:
    return (NINE + timedelta(seconds=seconds)).isoformat()


def told(number: int, start: float, end: float, *, quantity: float = 2, parent: str = "") -> dict[str, list[str]]:
    """Return the rows of an order that buys from `start` to `end` after nine, with two fills; and its decision."""
    name, half = f"o{number}", quantity / 2
    decision = "" if parent else f"d{number}"
    return {
        "decisions": []
        if parent
        else [f"d{number},{at(start - 1)},{at(start - 1)},carry,{SYMBOL},buy,{quantity},1000"],
        "orders": [f"{name},{at(start)},{at(start)},{SYMBOL},buy,{quantity},{at(end)},filled,{decision},0,{parent}"],
        "fills": [
            f"f{number}a,{name},{at(start + 1)},{at(start + 1)},{SYMBOL},buy,1001,{half},0.1,0",
            f"f{number}b,{name},{at(end)},{at(end)},{SYMBOL},buy,1002,{half},0.1,0",
        ],
    }


def rows(engine: Engine, table: str) -> pl.DataFrame:
    names = polars_schema(contract_of(table)).names()
    return engine.lake.scan(table, [SYMBOL], DAY, DAY).select(names).collect().sort(contract_of(table).sorted_by)


def of(engine: Engine, name: str) -> dict[str, Any]:
    return rows(engine, "execution/tca_orders").row(by_predicate=pl.col("order_id") == name, named=True)


class Desk:
    """A desk that tells of one symbol, and the runs that follow."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder, self.number = engine, folder, 0

    def tells(self, *orders: dict[str, list[str]]) -> None:
        """Have files taken in, and what has been told so far computed."""
        for kind, head in HEADS.items():
            lines = [line for one in orders for line in one.get(kind, ())]
            if lines:
                self.number += 1
                path = self.folder / f"{kind}{self.number}.csv"
                path.write_text("\n".join([head, *lines, ""]))
                taken = desk_intake.ingested(self.engine.settings, path, ts_intake=INTAKE)
                assert taken.status == "taken", taken.why
        self.run()

    def run(self, *, closed_before: datetime | None = None, **how: bool) -> dict[str, UnitStatus]:
        done = [
            outcome
            for table in open_tca.TABLES
            for outcome in self.engine.run(table, [SYMBOL], [DAY], closed_before=closed_before, **how)
        ]
        assert all(o.status.is_usable for o in done), [o.error for o in done]
        return {o.unit.table: o.status for o in done}

    def sees(self, lines: list[bytes]) -> None:
        """Have a segment of the market landed and stepped."""
        land(self.engine.settings, SYMBOL, lines)
        self.step()

    def step(self, *, closed_before: datetime | None = None) -> None:
        for table in (TRADES, QUOTES):
            (done,) = self.engine.run(table, [SYMBOL], [DAY], closed_before=closed_before)
            assert done.status.is_usable, done.error


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[MakeEngine]:
    with ExitStack() as opened:
        yield lambda **given: opened.enter_context(Engine(settings_below(tmp_path, **given)))


@pytest.fixture
def desk(engine: MakeEngine, tmp_path: Path) -> Desk:
    return Desk(engine(), tmp_path)


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    return market(SYMBOL, at_ms(DAY, 9), seconds=1500)


def until(lines: list[bytes], seconds: float, since: float = 0) -> list[bytes]:
    start = at_ms(DAY, 9) * 1_000_000
    return [line for line in lines if since * 1e9 <= int(line.split(b" ")[0]) - start < seconds * 1e9]


def test_an_order_that_is_done_has_its_costs_before_the_date_closes(desk: Desk, lines: list[bytes]) -> None:
    desk.sees(until(lines, 600))
    desk.tells(told(1, 100, 160))
    row = of(desk.engine, "o1")
    assert row["status"] == "ok"
    quotes, trades = rows(desk.engine, QUOTES), rows(desk.engine, TRADES)
    arrived, done = NINE + timedelta(seconds=100), NINE + timedelta(seconds=160)
    before = quotes.filter(pl.col("ts_event") <= arrived).row(-1, named=True)
    seen = trades.filter((pl.col("ts_event") >= arrived) & (pl.col("ts_event") < done))
    arrival = (before["bid_price"] + before["ask_price"]) / 2
    assert row["arrival_cost_bps"] == pytest.approx((1001.5 / arrival - 1) * 1e4, abs=1e-9)
    vwap = (seen["price"] * seen["size"]).sum() / seen["size"].sum()
    assert row["vwap_cost_bps"] == pytest.approx((1001.5 / vwap - 1) * 1e4, abs=1e-9)
    assert row["close_cost_bps"] is None
    assert row["reasons"] == "no_close,no_prev_close,not_yet"
    fill = rows(desk.engine, "execution/tca_fills").row(by_predicate=pl.col("fill_id") == "f1a", named=True)
    later = quotes.filter(pl.col("ts_event") <= NINE + timedelta(seconds=401)).row(-1, named=True)
    mid = (later["bid_price"] + later["ask_price"]) / 2
    assert fill["markout_5m_bps"] == pytest.approx((mid / 1001 - 1) * 1e4, abs=1e-9)
    assert fill["markout_close_bps"] is None


def test_what_has_not_come_is_null_and_comes_with_the_next_run(desk: Desk, lines: list[bytes]) -> None:
    desk.sees(until(lines, 130))
    desk.tells(told(1, 100, 120), told(2, 125, 160), told(3, 140, 170))
    assert of(desk.engine, "o1")["reasons"] == "no_close,no_prev_close,not_yet"
    assert of(desk.engine, "o2")["reasons"] == "data_end,no_close,no_prev_close,not_yet"
    assert of(desk.engine, "o2")["arrival_cost_bps"] is not None
    assert of(desk.engine, "o3")["arrival_price"] is None
    fills = {row["fill_id"]: row for row in rows(desk.engine, "execution/tca_fills").to_dicts()}
    assert (fills["f1a"]["status"], fills["f3a"]["status"]) == ("ok", "not_yet")
    assert fills["f1a"]["markout_15s_bps"] is not None
    assert (fills["f1a"]["markout_1m_bps"], fills["f3a"]["mid_price"]) == (None, None)

    desk.sees(until(lines, 900, since=130))
    desk.tells(told(4, 700, 720))
    assert {of(desk.engine, f"o{n}")["reasons"] for n in (1, 2, 3, 4)} == {"no_close,no_prev_close,not_yet"}
    assert rows(desk.engine, "execution/tca_fills")["markout_1m_bps"].null_count() == 0


def test_ticks_of_the_segment_that_still_grows_count(desk: Desk, lines: list[bytes]) -> None:
    desk.sees(until(lines, 130))
    land(desk.engine.settings, SYMBOL, until(lines, 600, since=130))  # landed, and stepped by nobody
    desk.tells(told(1, 300, 330))
    assert of(desk.engine, "o1")["reasons"] == "no_close,no_prev_close,not_yet"


def whole(desk: Desk) -> dict[str, pl.DataFrame]:
    """Return the costs that the calculators find in all that the open date has, at once."""
    one, lake = desk.engine, desk.engine.lake
    work = Work(Unit(COSTS[0], SYMBOL, DAY), next(r for r in EXECUTION if r.table == COSTS[0]), one.settings, lake)
    hours = open_tca.sessions(work, DAY - timedelta(days=1), is_over=False)
    quotes, trades = (lake.scan(table, [SYMBOL], DAY, DAY).collect() for table in (QUOTES, TRADES))
    decisions, orders, fills = (lake.scan(table, [SYMBOL], DAY, DAY).collect() for table in open_tca.TABLES[:3])
    return {
        COSTS[0]: tca.tca_fills(fills, quotes, hours),
        COSTS[1]: tca.tca_orders(orders, decisions, fills, trades=trades, quotes=quotes, sessions=hours),
    }


def test_rows_told_bit_by_bit_are_those_told_at_once(desk: Desk, lines: list[bytes]) -> None:
    child = told(6, 640, 650, parent="o5")
    steps: list[tuple[float, list[dict[str, list[str]]]]] = [
        (130, [told(1, 100, 120), told(2, 125, 160)]),
        (400, [told(3, 350, 390, quantity=900)]),  # more than the market has traded: PWP waits
        (800, [child, told(4, 700, 900)]),  # a child before its parent
        (1100, [told(5, 630, 655)]),
        (1300, [{"fills": [f"f1a,o1,{at(101)},{at(1250)},{SYMBOL},buy,1003,1,0.1,1"]}]),
        (1500, [told(7, 1400, 1420), {"orders": [f"o8,{at(1410)},{at(1410)},{SYMBOL},sell,5,,open,,0,"]}]),
    ]
    reached = 0.0
    for seconds, orders in steps:
        desk.sees(until(lines, seconds, since=reached))
        desk.tells(*orders)
        for table, found in whole(desk).items():
            assert_frame_equal(rows(desk.engine, table), found, check_row_order=False, rel_tol=0, abs_tol=1e-9)
        reached = seconds
    assert of(desk.engine, "o5")["fill_count"] == 4
    assert "o6" not in rows(desk.engine, "execution/tca_orders")["order_id"].to_list()
    assert of(desk.engine, "o1")["has_correction"]
    assert of(desk.engine, "o8")["status"] == "unfinished"


def test_ticks_before_the_orders_that_are_due_are_not_read(
    desk: Desk, lines: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.sees(lines)
    desk.tells(told(1, 100, 120))
    read: list[datetime] = []
    computed = tca.tca_orders
    monkeypatch.setattr(
        tca, "tca_orders", lambda *a, **k: (read.append(k["trades"]["ts_event"].min()), computed(*a, **k))[1]
    )
    desk.tells(told(2, 1300, 1320))
    (first,) = read
    assert NINE + timedelta(seconds=1300 - 601) <= first <= NINE + timedelta(seconds=1300 - 595)


def test_the_close_leaves_one_file_with_every_figure(desk: Desk, lines: list[bytes]) -> None:
    desk.sees(lines)
    desk.tells(told(1, 100, 120), told(2, 1000, 1020))
    so_far = {table: rows(desk.engine, table) for table in COSTS}
    folder = desk.engine.lake.path(COSTS[1], SYMBOL, DAY).parent
    assert sorted(p.name for p in folder.iterdir()) == [f"{SYMBOL}.0-0.parquet", f"_{SYMBOL}.state"]
    desk.step(closed_before=CLOSED)
    done = desk.run(closed_before=CLOSED)
    assert set(done.values()) == {UnitStatus.OK}
    for table, known in so_far.items():
        found = rows(desk.engine, table)
        folder = desk.engine.lake.path(table, SYMBOL, DAY).parent
        assert [path.name for path in folder.iterdir()] == [f"{SYMBOL}.parquet"]
        later = [name for name in known.columns if "close" in name or name in {"reasons", "ts_known", "ts_markout_end"}]
        assert_frame_equal(known.drop(later), found.drop(later), rel_tol=0, abs_tol=1e-9)
    assert rows(desk.engine, COSTS[1])["close_cost_bps"].null_count() == 0
    assert set(rows(desk.engine, COSTS[1])["reasons"]) == {"no_prev_close"}
    assert rows(desk.engine, COSTS[0])["markout_close_bps"].null_count() == 0


def test_a_symbol_that_nobody_traded_leaves_nothing(desk: Desk, lines: list[bytes]) -> None:
    desk.sees(until(lines, 60))
    statuses = desk.run()
    assert [statuses[table] for table in COSTS] == [UnitStatus.OPEN, UnitStatus.OPEN]
    assert not desk.engine.lake.path(COSTS[1], SYMBOL, DAY).parent.exists()
    assert open_tca.behind(desk.engine.settings, desk.engine.ledger) == {}


@pytest.fixture
def location(tmp_path: Path, dagster_home: None) -> Iterator[Location]:
    settings = settings_below(tmp_path)
    unsettled = settings.feeds.desk.model_copy(update={"settle_s": 0})
    settings = settings.model_copy(update={"feeds": settings.feeds.model_copy(update={"desk": unsettled})})
    platform = Platform(settings)
    with dagster_instance(settings) as instance:
        yield Location(platform, instance)
    platform.close()


@pytest.fixture
def drop(location: Location) -> Callable[[dict[str, list[str]]], None]:
    folder = desk_intake.inbox(location.platform.settings)

    def dropped(order: dict[str, list[str]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, lines in order.items():
            (folder / f"{kind}.{time.time_ns()}.csv").write_text("\n".join([HEADS[kind], *lines, ""]))
        time.sleep(0.02)

    return dropped


def test_dropped_fills_of_an_open_date_have_a_run_of_their_own(
    location: Location, drop: Callable[[dict[str, list[str]]], None], lines: list[bytes]
) -> None:
    engine = location.platform.engine
    desk = Desk(engine, Path())
    desk.sees(until(lines, 600))
    drop(told(1, 100, 160))
    # A run that steps the date's segments does not keep it waiting.
    job = location.definitions.resolve_job_def("near_real_time")
    location.instance.create_run_for_job(
        job_def=job, tags={DATE_TAG: DAY.isoformat()}, status=dg.DagsterRunStatus.STARTED
    )
    done = location.tick("desk_files")
    (request,) = done.run_requests
    assert (request.job_name, request.partition_key) == ("execution_so_far", DAY.isoformat())
    assert (request.tags[DESK_DATE_TAG], request.tags[SYMBOLS_TAG]) == (DAY.isoformat(), SYMBOL)
    assert DATE_TAG not in request.tags
    assert location.execute(request.job_name, request).is_success
    assert of(engine, "o1")["arrival_cost_bps"] is not None
    assert location.tick("desk_files", done.cursor).run_requests == []
    assert location.tick("desk_files").run_requests == []


def test_events_of_an_open_date_do_not_keep_its_costs_waiting(
    location: Location, drop: Callable[[dict[str, list[str]]], None], lines: list[bytes]
) -> None:
    engine = location.platform.engine
    Desk(engine, Path()).sees(until(lines, 600))
    drop({**told(1, 100, 160), "trade_settled": [f"s1,{at(170)},{SYMBOL},f1a,settled,{DAY},1,-1001"]})
    done = location.tick("desk_files")
    of_events, of_costs = done.run_requests
    assert (of_costs.job_name, of_costs.tags[SYMBOLS_TAG]) == ("execution_so_far", SYMBOL)
    assert (of_events.job_name, of_events.asset_selection) == (
        "daily_execution",
        [dg.AssetKey(["events", "in", "trade_settled"])],
    )
    assert location.execute("execution_so_far", of_costs).is_success
    assert of(engine, "o1")["status"] == "ok"
    assert {o.unit.table for o in engine.ledger.outcomes(start=DAY, end=DAY)} == {TRADES, QUOTES, *open_tca.TABLES}


def test_costs_that_a_killed_run_left_behind_are_asked_for_again(
    location: Location, drop: Callable[[dict[str, list[str]]], None], lines: list[bytes]
) -> None:
    engine = location.platform.engine
    Desk(engine, Path()).sees(until(lines, 600))
    drop(told(1, 100, 160))
    done = location.tick("desk_files")
    for table in open_tca.TABLES[:-1]:  # and then it was killed
        engine.run(table, [SYMBOL], [DAY])
    (request,) = location.tick("desk_files", done.cursor).run_requests
    assert (request.job_name, request.tags[SYMBOLS_TAG]) == ("execution_so_far", SYMBOL)
    location.execute(request.job_name, request)
    assert of(engine, "o1")["status"] == "ok"
    assert location.tick("desk_files", done.cursor).run_requests == []
