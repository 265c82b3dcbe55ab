"""The desk's orders through the engine: a simulated desk, orders written by hand, and what goes stale with what."""

import json
import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_platform.pipeline import desk_intake, execution
from quant_platform.pipeline.desk import DESK
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.units import Outcome, Unit, UnitStatus
from quant_platform.settings import BinanceFeed, Feeds, Instrument, Settings
from quant_platform.simulation.desk import desk_path
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.market import MarketParams, write_archive
from quant_platform.storage.lake import ALL_SYMBOLS

DAYS = [date(2024, 3, 4) + timedelta(days=n) for n in range(3)]
FIRST, SECOND, LAST = DAYS
TRADED, QUIET = "SIMBTC", "SIMETH"
MARKET = MarketParams(trades_per_day=6_000, quotes_per_day=12_000)
OF_MARKET = ["market/trades", "market/quotes", "market/bars_1s", "market/bars_1m"]
TABLES = [*(recipe.table for recipe in DESK), *(recipe.table for recipe in execution.EXECUTION)]
OF_ORDERS = [recipe.table for recipe in execution.EXECUTION if not recipe.is_cross_symbol]
OF_ALL = [recipe.table for recipe in execution.EXECUTION if recipe.is_cross_symbol]
INTAKE = int(datetime(2024, 3, 10, tzinfo=UTC).timestamp()) * 1_000_000_000


def settings_below(root: Path) -> Settings:
    feed = BinanceFeed(ws_url="ws://x", rest_url="http://x", archive_url=(root / "archive").as_uri())
    common = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    listed = [Instrument.model_validate({"symbol": s, "venue_symbol": f"{s}USDT", **common}) for s in (TRADED, QUIET)]
    return Settings(
        home=root / "home", feeds=Feeds(binance_usdm=feed), instruments=tuple(listed), pipeline={"workers": 0}
    )


def run(one: Engine, tables: list[str], days: list[date] = DAYS) -> dict[Unit, Outcome]:
    return {o.unit: o for table in tables for o in one.run(table, [TRADED, QUIET], days)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small market of three dates, in one of whose symbols a desk trades."""
    root = tmp_path_factory.mktemp("execution")
    settings = settings_below(root)
    traded, quiet = settings.instruments
    desk = DeskParams(orders_per_day=60, order_notional=20_000)
    write_archive(root / "archive", instruments=[traded], dates=DAYS, params=MARKET, desk=desk)
    write_archive(root / "archive", instruments=[quiet], dates=DAYS, params=MARKET)
    return root


@pytest.fixture(scope="module")
def built(root: Path) -> Iterator[tuple[Engine, dict[Unit, Outcome]]]:
    """Every table of the three dates; tests only read."""
    settings = settings_below(root)
    for day in DAYS:
        for kind in ("decisions", "orders", "fills"):
            taken = desk_intake.ingested(settings, desk_path(root / "archive", day, kind), ts_intake=INTAKE)
            assert taken.status == "taken", taken.why
    with Engine(settings) as one:
        yield one, run(one, [*OF_MARKET, *TABLES])


def rows(one: Engine, table: str, day: date, symbol: str = TRADED) -> pl.DataFrame:
    return one.lake.scan(table, [symbol], day, day).collect()


def test_a_symbol_that_nobody_traded_is_absent_and_scorecards_stand_all_the_same(
    built: tuple[Engine, dict[Unit, Outcome]],
) -> None:
    one, outcomes = built
    assert {outcomes[Unit(t, TRADED, d)].status for t in OF_ORDERS for d in DAYS} == {UnitStatus.OK}
    assert {outcomes[Unit(t, QUIET, d)].status for t in OF_ORDERS for d in DAYS} == {UnitStatus.ABSENT}
    assert {outcomes[Unit(t, ALL_SYMBOLS, d)].status for t in OF_ALL for d in DAYS} == {UnitStatus.OK}
    for day in DAYS:
        told = json.loads(outcomes[Unit("execution/tca_orders", TRADED, day)].facts[execution.CHECKS])
        assert told["orders"] == rows(one, "execution/tca_orders", day).height >= 60
        assert (told["identity_broken"], told["overfilled"], told["outside_range"]) == (0, 0, 0)


def test_costs_of_an_order_are_those_that_a_loop_finds_in_the_lake(built: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, _ = built
    quotes = rows(one, "market/quotes", SECOND).sort("ts_event", "sequence").to_dicts()
    trades = rows(one, "market/trades", SECOND).sort("ts_event", "trade_id").to_dicts()
    newest = {f["fill_id"]: f for f in rows(one, "execution/fills", SECOND).sort("revision").to_dicts()}
    orders = {o["order_id"]: o for o in rows(one, "execution/orders", SECOND).sort("revision").to_dicts()}
    found = [r for r in rows(one, "execution/tca_orders", SECOND).to_dicts() if r["fill_count"] > 1]
    assert len(found) > 20
    for row in found[:20]:
        family = {k for k, o in orders.items() if row["order_id"] in (k, o["parent_order_id"])}
        own = [f for f in newest.values() if f["order_id"] in family]
        quantity = math.fsum(f["quantity"] for f in own)
        paid = math.fsum(f["price"] * f["quantity"] for f in own) / quantity
        before = [q for q in quotes if q["ts_event"] <= row["ts_event"] and q["bid_price"] <= q["ask_price"]]
        arrival = (before[-1]["bid_price"] + before[-1]["ask_price"]) / 2
        seen = [t for t in trades if row["ts_event"] <= t["ts_event"] < row["ts_done"]]
        volume = math.fsum(t["size"] for t in seen)
        vwap = math.fsum(t["price"] * t["size"] for t in seen) / volume
        assert row["filled_quantity"] == pytest.approx(quantity, rel=1e-12)
        assert row["arrival_cost_bps"] == pytest.approx(row["side"] * (paid / arrival - 1) * 1e4, abs=1e-7)
        assert row["vwap_cost_bps"] == pytest.approx(row["side"] * (paid / vwap - 1) * 1e4, abs=1e-7)


def test_scorecards_count_the_month_so_far(built: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, _ = built
    counts = [rows(one, "execution/tca_orders", day).height for day in DAYS]
    for number, day in enumerate(DAYS):
        card = rows(one, "execution/algo_scorecard", day, ALL_SYMBOLS).filter(pl.col("dimension") == "algo")
        sums = dict(card.group_by("period").agg(pl.col("orders").sum()).iter_rows())
        assert sums == {"day": counts[number], "week": sum(counts[: number + 1]), "month": sum(counts[: number + 1])}
        venues = rows(one, "execution/venue_scorecard", day, ALL_SYMBOLS).filter(pl.col("period") == "day")
        assert venues["fills"].sum() == rows(one, "execution/tca_fills", day).height


def test_impact_has_the_scale_of_the_sessions_before(built: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, _ = built
    assert set(rows(one, "execution/impact", FIRST)["baseline_status"]) == {"no_data"}
    volumes = [rows(one, "market/bars_1m", day)["volume"].sum() for day in (FIRST, SECOND)]
    squares = []
    for day in (FIRST, SECOND):
        closes = rows(one, "market/bars_1m", day).sort("ts_open")["close"].to_list()
        squares.append(math.fsum(math.log(after / before) ** 2 for before, after in pairwise(closes)))
    found = rows(one, "execution/impact", LAST).filter(pl.col("participation").is_not_null()).row(0, named=True)
    assert found["participation"] == pytest.approx(found["filled_quantity"] / (sum(volumes) / 2), rel=1e-12)
    assert found["sigma_daily_bps"] == pytest.approx(math.sqrt(sum(squares) / 2) * 1e4, rel=1e-9)


def test_laws_of_impact_are_of_the_months_orders_so_far(built: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, _ = built
    names = ["participation", "sigma_daily_bps", "permanent_bps"]
    seen = 0
    for day in DAYS:
        seen += rows(one, "execution/impact", day).drop_nulls(names).height
        fits = rows(one, "execution/impact_fit", day, ALL_SYMBOLS).filter(pl.col("measure") == "permanent")
        of_all = dict(fits.select("symbol", "orders").iter_rows())
        assert of_all.pop(None) == sum(of_all.values()) == seen
    assert seen


HEADS = {
    "orders": "order_id,ts_event,ts_recv,symbol,side,quantity,ts_done,status,decision_id,revision,parent_order_id",
    "fills": "fill_id,order_id,ts_event,ts_recv,symbol,side,price,quantity,fee,revision",
    "decisions": "decision_id,ts_event,ts_recv,strategy,symbol,side,quantity,price",
}


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Iterator[tuple[Engine, Any]]:
    """An engine over the quiet symbol's market, and a function that has a file of the desk taken in."""
    settings = settings_below(root).model_copy(
        update={"home": tmp_path / "home", "lake_uri": (tmp_path / "home" / "lake").as_uri()}
    )
    number = iter(range(100))

    def take(kind: str, *lines: str) -> None:
        path = tmp_path / f"{kind}{next(number)}.csv"
        path.write_text("\n".join([HEADS[kind], *lines, ""]))
        taken = desk_intake.ingested(settings, path, ts_intake=INTAKE)
        assert taken.status == "taken", taken.why

    with Engine(settings) as one:
        run(one, OF_MARKET)
        yield one, take


def test_an_order_over_midnight_is_followed_into_the_next_date(own: tuple[Engine, Any]) -> None:
    one, take = own
    late, done = "2024-03-04T23:59:00Z", "2024-03-05T00:02:00Z"
    take("decisions", f"d1,2024-03-04T23:58:00Z,,carry,{QUIET},buy,2,2600")
    take(
        "orders",
        f"o1,{late},{late},{QUIET},buy,2,{done},filled,d1,0,",
        f"c1,2024-03-05T00:00:30Z,,{QUIET},buy,1,{done},filled,,0,o1",
    )
    take(
        "fills",
        f"f1,o1,2024-03-04T23:59:30Z,,{QUIET},buy,2601,1,0,0",
        f"f2,c1,2024-03-05T00:01:00Z,,{QUIET},buy,2603,1,0,0",
    )
    run(one, TABLES)
    row = rows(one, "execution/tca_orders", FIRST, QUIET).row(0, named=True)
    assert (row["fill_count"], row["avg_price"], row["status"]) == (2, 2602.0, "ok")
    assert rows(one, "execution/tca_orders", SECOND, QUIET).is_empty()  # the child is nobody's parent
    trades = pl.concat(rows(one, "market/trades", day, QUIET) for day in (FIRST, SECOND))
    start, end = (datetime.fromisoformat(at) for at in (late, done))
    seen = trades.filter((pl.col("ts_event") >= start) & (pl.col("ts_event") < end))
    vwap = (seen["price"] * seen["size"]).sum() / seen["size"].sum()
    assert row["vwap_price"] == pytest.approx(vwap, rel=1e-12)
    # A fill of the next date that is corrected makes the order's date stale.
    take("fills", f"f2,c1,2024-03-05T00:01:00Z,2024-03-09T00:00:00Z,{QUIET},buy,2605,1,0,1")
    run(one, ["execution/fills"], [SECOND])
    assert Unit("execution/tca_orders", QUIET, FIRST) in one.stale()
    run(one, TABLES)
    again = rows(one, "execution/tca_orders", FIRST, QUIET).row(0, named=True)
    assert (again["avg_price"], again["has_correction"]) == (2603.0, True)


def test_what_the_desk_tells_wrong_is_flagged_and_costs_nothing_else(own: tuple[Engine, Any]) -> None:
    one, take = own
    price = rows(one, "market/trades", FIRST, QUIET)["price"].median()
    at, done = "2024-03-04T12:00:00Z", "2024-03-04T12:10:00Z"
    take("orders", f"o1,{at},{at},{QUIET},buy,2,{done},filled,,0,", f"o2,{at},{at},{QUIET},sell,1,,open,,0,")
    take(
        "fills",
        f"early,o1,2024-03-04T11:59:00Z,,{QUIET},buy,{price},1,0,0",
        f"over,o1,2024-03-04T12:05:00Z,,{QUIET},buy,{price},2,0,0",
        f"orphan,,2024-03-04T12:05:00Z,,{QUIET},buy,{price},1,0,0",
        f"far,o9,2024-03-04T12:06:00Z,,{QUIET},buy,99999,1,0,0",
    )
    outcomes = run(one, TABLES)
    told = json.loads(outcomes[Unit("execution/tca_orders", QUIET, FIRST)].facts[execution.CHECKS])
    assert told == {
        "orders": 2,
        "identity_broken": 0,
        "overfilled": 1,
        "filled_outside_life": 1,
        "unfinished": 1,
        "without_arrival": 0,
        "revised": 0,
        "fills": 4,
        "fills_without_order": 1,
        "outside_range": 1,
    }
    found = {row["order_id"]: row for row in rows(one, "execution/tca_orders", FIRST, QUIET).to_dicts()}
    assert (found["o1"]["status"], found["o2"]["status"]) == ("ok", "unfinished")
    assert rows(one, "execution/tca_fills", FIRST, QUIET).height == 4
