"""What the desk told becomes a page: the asset, what Redis says of it, the watched folder, and `qp report tca`."""

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import redis
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from pydantic import SecretStr

from quant_platform.defs import report_cache
from quant_platform.defs.assets import tca_report
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.jobs import QUIET
from quant_platform.defs.partitions import daily
from quant_platform.defs.resources import DATE_TAG, SYMBOLS_TAG, Platform
from quant_platform.pipeline import desk_intake, execution
from quant_platform.pipeline.desk import DESK
from quant_platform.pipeline.engine import Engine
from quant_platform.settings import BinanceFeed, DeskFeed, Feeds, Instrument, Settings
from quant_platform.simulation.desk import desk_path
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.market import MarketParams, write_archive
from quant_platform.storage.live_store import address
from quant_platform.storage.redis_keys import REPORT
from quant_platform_tests.code_location import Location

START = date(2024, 3, 1)
FIRST, SECOND, IDLE = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)
TRADED = "SIMBTC"
OF_MARKET = ["market/trades", "market/quotes", "market/bars_1s", "market/bars_1m"]
OF_DESK = [*(recipe.table for recipe in DESK), *(recipe.table for recipe in execution.EXECUTION)]
KINDS = ("decisions", "orders", "fills")
LATEST = REPORT.name(name="daily_tca")
INTAKE = int(datetime(2024, 3, 10, tzinfo=UTC).timestamp()) * 1_000_000_000


def settings_at(archive: Path, home: Path, redis_url: str | None = None) -> Settings:
    feed = BinanceFeed(ws_url="ws://x", rest_url="http://x", archive_url=archive.as_uri())
    listed = Instrument(symbol=TRADED, venue_symbol=f"{TRADED}USDT", feed="binance_usdm", tick_size=0.1, lot_size=0.001)
    return Settings(
        home=home,
        feeds=Feeds(binance_usdm=feed, desk=DeskFeed(settle_s=0.001)),
        instruments=(listed,),
        partitions={"start": START},
        pipeline={"workers": 0},
        redis_url=SecretStr(redis_url) if redis_url else None,
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small market of three dates, on two of which a desk trades."""
    root = tmp_path_factory.mktemp("tca") / "archive"
    (listed,) = settings_at(root, root).instruments
    few = MarketParams(trades_per_day=3_000, quotes_per_day=6_000)
    desk = DeskParams(orders_per_day=60, order_notional=20_000)
    write_archive(root, instruments=[listed], dates=[FIRST, SECOND], params=few, desk=desk)
    return root


@pytest.fixture(scope="module")
def of_market(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds the market of two dates, and nothing of the desk; tests copy it."""
    home = tmp_path_factory.mktemp("market") / "home"
    with Engine(settings_at(archive, home)) as one:
        for table in OF_MARKET:
            one.run(table, [TRADED], [FIRST, SECOND])
    return home


@pytest.fixture(scope="module")
def of_desk(archive: Path, of_market: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the desk's costs stand too; tests copy it."""
    home = Path(shutil.copytree(of_market, tmp_path_factory.mktemp("desk") / "home"))
    settings = settings_at(archive, home)
    for day in (FIRST, SECOND):
        for kind in KINDS:
            assert desk_intake.ingested(settings, desk_path(archive, day, kind), ts_intake=INTAKE).status == "taken"
    built(settings, FIRST, SECOND)
    return home


@pytest.fixture
def own(archive: Path, of_desk: Path, tmp_path: Path, dagster_home: None) -> Settings:
    """Settings over a copy of the desk's home, without Redis."""
    return settings_at(archive, Path(shutil.copytree(of_desk, tmp_path / "home")))


@pytest.fixture
def cached(own: Settings, server: Settings, client: redis.Redis, archive: Path) -> Settings:
    """The same with an empty Redis."""
    return settings_at(archive, own.home, address(server))


def built(settings: Settings, *days: date) -> None:
    with Engine(settings) as one:
        for table in OF_DESK:
            assert all(outcome.is_healthy for outcome in one.run(table, [TRADED], list(days)))


def materialized(settings: Settings, first: date, last: date | None = None) -> dict[str, dict[str, Any]]:
    """Materialise the report of a date, or of a range in one run; return what each date's event says."""
    ends = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
    platform = Platform(settings)
    done = dg.materialize(
        [tca_report.daily_tca_report(daily(START))],
        resources={"platform": platform},
        partition_key=None if last else first.isoformat(),
        tags={name: str(day) for name, day in ends.items()} if last else None,
        run_config=QUIET,
    )
    platform.close()
    assert done.success
    events = (event.step_materialization_data.materialization for event in done.get_asset_materialization_events())
    return {str(one.partition): {name: value.value for name, value in one.metadata.items()} for one in events}


def page_of(settings: Settings, day: date) -> Path:
    return settings.reports / "daily_tca" / f"{day}.html"


def rows(settings: Settings, table: str, *days: date) -> pl.DataFrame:
    platform = Platform(settings)
    frame = platform.engine.lake.scan(table, None, days[0], days[-1]).collect()
    platform.close()
    return frame


def corrected(settings: Settings, day: date) -> None:
    """Have the first fill of the first order that was told right be corrected, and costs built again."""
    costs = rows(settings, "execution/tca_orders", day).filter(~pl.col("has_correction"), pl.col("fill_count") > 0)
    orders = rows(settings, "execution/orders", day)
    family = pl.any_horizontal(pl.col("order_id", "parent_order_id") == costs["order_id"][0])
    own = orders.filter(family.fill_null(value=False))["order_id"]
    told = rows(settings, "execution/fills", day).filter(pl.col("order_id").is_in(own.implode())).row(0, named=True)
    line = {
        "fill_id": told["fill_id"],
        "order_id": told["order_id"],
        "ts_event": told["ts_event"].isoformat(),
        "ts_recv": "2024-03-09T00:00:00Z",
        "symbol": TRADED,
        "side": "buy" if told["side"] > 0 else "sell",
        "price": told["price"] * 1.0001,
        "quantity": told["quantity"],
        "fee": told["fee"],
        "revision": 1,
    }
    path = settings.home / "late.csv"
    path.write_text("\n".join([",".join(line), ",".join(str(value) for value in line.values()), ""]))
    assert desk_intake.ingested(settings, path, ts_intake=INTAKE + 1).status == "taken"
    built(settings, day)


def test_a_date_has_a_page_with_its_tables_and_says_where(own: Settings) -> None:
    (event,) = materialized(own, FIRST).values()
    page = page_of(own, FIRST)
    assert (event["path"], event["is_cached"]) == (str(page), False)
    assert event["page"] == f"{own.ui.files_url}/reports/daily_tca/{FIRST}.html"
    text = page.read_text()
    assert f"Daily TCA {FIRST} (UTC)" in text
    costs = rows(own, "execution/tca_orders", FIRST)
    revised = costs["has_correction"].sum()
    assert event["headline"]["revised_orders"] == revised
    assert (f"This page is revised: {revised} order" if revised else "Nothing on this page is revised.") in text
    assert event["orders"] == costs.height == pl.read_parquet(page.with_suffix(".orders.parquet")).height
    filled = [row for row in costs.to_dicts() if row["arrival_cost_bps"] is not None]
    values = [row["filled_quantity"] * row["avg_price"] for row in filled]
    paid = math.fsum(row["arrival_cost_bps"] * value for row, value in zip(filled, values, strict=True))
    assert event["headline"]["arrival_cost_bps"] == pytest.approx(paid / math.fsum(values), abs=1e-9)
    assert event["headline"]["fills"] == rows(own, "execution/tca_fills", FIRST).height


def test_what_the_page_shows_of_the_market_is_what_a_loop_finds_in_the_lake(own: Settings) -> None:
    platform = Platform(own)
    shown = tca_report.inputs(platform, SECOND)
    platform.close()
    prices = rows(own, "market/trades", SECOND)["price"]
    assert shown.ranges.to_dicts() == [{"symbol": TRADED, "low": prices.min(), "high": prices.max()}]
    quotes = rows(own, "market/quotes", SECOND).sort("ts_event", "sequence").to_dicts()
    for row in shown.paths.sample(25, seed=1).to_dicts():
        before = [q for q in quotes if q["ts_event"] <= row["ts_event"] and q["bid_price"] <= q["ask_price"]]
        expected = (before[-1]["bid_price"] + before[-1]["ask_price"]) / 2 if before else None
        assert row["mid_price"] == pytest.approx(expected, rel=1e-12)
    parents = set(shown.orders["order_id"])
    assert set(shown.fills["order_id"]) <= parents
    assert not set(rows(own, "execution/tca_fills", SECOND)["order_id"]) <= parents  # children filled them
    month = rows(own, "execution/impact", FIRST, SECOND)
    fitted = month.drop_nulls(["participation", "sigma_daily_bps", "total_bps"])
    assert dict(shown.impact_fits.select("measure", "orders").iter_rows())["total"] == fitted.height > 0
    assert set(shown.algos["period"]) == {"day", "week", "month"}


def test_a_page_made_again_after_a_correction_says_that_it_is_revised(cached: Settings, client: redis.Redis) -> None:
    materialized(cached, SECOND)
    before, first = latest(client)["headline"], page_of(cached, SECOND).read_text()
    corrected(cached, SECOND)
    (event,) = materialized(cached, SECOND).values()
    after, again = latest(client)["headline"], page_of(cached, SECOND).read_text()
    assert (event["is_cached"], after["revised_orders"]) == (True, before["revised_orders"] + 1)
    assert after["arrival_paid"] != before["arrival_paid"]
    assert f"This page is revised: {after['revised_orders']} orders are not as first told" in again
    assert f"This page is revised: {after['revised_orders']}" not in first


def test_a_date_without_orders_has_no_page(own: Settings) -> None:
    assert materialized(own, IDLE) == {str(IDLE): {"orders": 0}}
    assert not page_of(own, IDLE).exists()


def test_fills_alone_have_no_page(own: Settings) -> None:
    path = own.home / "orphans.csv"
    path.write_text(
        "fill_id,order_id,ts_event,symbol,side,price,quantity\n"
        f"x1,,{IDLE}T12:00:00Z,{TRADED},buy,60000,1\nx2,o9,{IDLE}T12:00:00Z,{TRADED},sell,60000,1\n"
    )
    assert desk_intake.ingested(own, path, ts_intake=INTAKE).status == "taken"
    with Engine(own) as one:
        for table in (*OF_MARKET, *OF_DESK):
            one.run(table, [TRADED], [IDLE])
    assert rows(own, "execution/tca_fills", IDLE).height == 2
    assert materialized(own, IDLE) == {str(IDLE): {"orders": 0}}


def test_a_fill_of_a_child_sent_after_midnight_is_its_parents(own: Settings) -> None:
    orders, fills = own.home / "orders.csv", own.home / "fills.csv"
    orders.write_text(
        "order_id,parent_order_id,ts_event,symbol,side,quantity,status\n"
        f"p,,{SECOND}T23:59:00Z,{TRADED},buy,1,open\nc,p,{IDLE}T00:00:30Z,{TRADED},buy,1,filled\n"
    )
    fills.write_text(
        f"fill_id,order_id,ts_event,symbol,side,price,quantity\nx1,c,{IDLE}T00:00:40Z,{TRADED},buy,60000,1\n"
    )
    for path in (orders, fills):
        assert desk_intake.ingested(own, path, ts_intake=INTAKE).status == "taken"
    with Engine(own) as one:
        for table in (*OF_MARKET, *OF_DESK):
            one.run(table, [TRADED], [SECOND, IDLE])
    platform = Platform(own)
    assert tca_report.inputs(platform, IDLE).fills["order_id"].to_list() == ["p"]
    platform.close()


def test_a_range_is_one_run_with_a_page_for_each_date_of_orders(cached: Settings, client: redis.Redis) -> None:
    found = materialized(cached, FIRST, IDLE)
    assert {day: event["orders"] > 0 for day, event in found.items()} == {
        str(FIRST): True,
        str(SECOND): True,
        str(IDLE): False,
    }
    assert [page_of(cached, day).exists() for day in (FIRST, SECOND, IDLE)] == [True, True, False]
    assert latest(client)["date"] == str(SECOND)


def latest(client: redis.Redis) -> dict[str, Any]:
    found = client.get(LATEST)
    assert isinstance(found, bytes)
    payload: dict[str, Any] = json.loads(found)
    return payload


def test_redis_says_where_the_newest_page_is_and_what_it_says(cached: Settings, client: redis.Redis) -> None:
    before = time.time_ns()
    (event,) = materialized(cached, FIRST).values()
    found = latest(client)
    assert tuple(found) == REPORT.fields
    assert (found["name"], found["symbol"], found["seq"], found["date"]) == ("daily_tca", "all", 1, str(FIRST))
    assert found["path"] == str(page_of(cached, FIRST))
    assert found["headline"] == event["headline"]
    assert datetime.fromtimestamp(found["ts"] / 1e9, UTC) == datetime(2024, 3, 5, tzinfo=UTC)
    assert before < found["ts_written"] < time.time_ns()
    assert REPORT.ttl_s
    assert REPORT.ttl_s - 60 < client.ttl(LATEST) <= REPORT.ttl_s


def test_an_older_date_does_not_take_the_place_of_a_newer_one(cached: Settings, client: redis.Redis) -> None:
    assert materialized(cached, SECOND)[str(SECOND)]["is_cached"]
    newest = client.get(LATEST)
    assert not materialized(cached, FIRST)[str(FIRST)]["is_cached"]
    assert client.get(LATEST) == newest
    assert page_of(cached, FIRST).exists()
    assert materialized(cached, SECOND)[str(SECOND)]["is_cached"]
    assert client.get(LATEST) != newest  # the same date is told anew


@pytest.mark.parametrize("foreign", [b"no JSON", b"[1]", b"{}", b'{"date": null}', b"\xff"])
def test_what_others_wrote_under_the_key_is_written_over(server: Settings, client: redis.Redis, foreign: bytes) -> None:
    client.set(LATEST, foreign)
    assert report_cache.put(server, "daily_tca", {"path": "x", "date": "2024-03-04", "headline": {}})
    assert latest(client)["date"] == "2024-03-04"


def test_names_do_not_share_a_key_and_another_type_is_left_alone(server: Settings, client: redis.Redis) -> None:
    told = {"path": "x", "date": "2024-03-04", "headline": {}}
    client.rpush(LATEST, b"1")
    assert not report_cache.put(server, "daily_tca", told)
    assert report_cache.put(server, "daily_market", told)
    assert client.lrange(LATEST, 0, -1) == [b"1"]


def test_a_redis_that_does_not_answer_does_not_stop_the_page(own: Settings, archive: Path, free_port: Any) -> None:
    deaf = settings_at(archive, own.home, f"redis://user:hunter2@127.0.0.1:{free_port()}/0")
    assert not materialized(deaf, FIRST)[str(FIRST)]["is_cached"]
    assert page_of(deaf, FIRST).exists()


# The folder that is watched.


@pytest.fixture
def location(archive: Path, of_market: Path, tmp_path: Path, dagster_home: None) -> Iterator[Location]:
    platform = Platform(settings_at(archive, Path(shutil.copytree(of_market, tmp_path / "home"))))
    with dagster_instance(platform.settings) as instance:
        yield Location(platform, instance)
    platform.close()


@pytest.fixture
def drop(location: Location) -> Callable[..., Path]:
    """Drop a file where the desk's files are looked for, and let it settle."""
    folder = desk_intake.inbox(location.platform.settings)

    def dropped(name: str, content: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
        time.sleep(0.02)
        return folder / name

    return dropped


def test_dropped_files_become_a_page_by_one_run_for_each_date(
    location: Location, drop: Callable[..., Path], archive: Path
) -> None:
    settings = location.platform.settings
    sources = [desk_path(archive, day, kind) for day in (FIRST, SECOND) for kind in KINDS]
    dropped = [drop(source.name, source.read_text()) for source in sources]
    found = location.tick("desk_files")
    assert not any(path.exists() for path in dropped)
    assert [request.partition_key for request in found.run_requests] == [str(FIRST), str(SECOND)]
    for request in found.run_requests:
        assert (request.tags[DATE_TAG], request.tags[SYMBOLS_TAG]) == (request.partition_key, TRADED)
        assert request.run_config == QUIET

    run = location.execute("daily_execution", found.run_requests[0])
    assert run.is_success
    for table in (*OF_DESK, "reports/daily_tca"):
        key = dg.AssetKey(table.split("/"))
        assert location.instance.get_materialized_partitions(key) == {str(FIRST)}, table
    assert f"Daily TCA {FIRST}" in page_of(settings, FIRST).read_text()
    assert not page_of(settings, SECOND).exists()
    lake = location.platform.engine.lake
    (said,) = lake.scan("events/out/tca_report").collect().rows(named=True)
    shown = lake.scan("execution/tca_orders", None, FIRST, FIRST).collect()
    assert settings.home / said["path"] == page_of(settings, FIRST)
    assert (said["date"], said["orders"]) == (FIRST, shown.height)
    assert (said["revised_orders"], said["ts_known"] >= shown["ts_known"].max()) == (
        shown["has_correction"].sum(),
        True,
    )
    again = location.tick("desk_files", found.cursor)
    assert [request.partition_key for request in again.run_requests] == [str(SECOND)]

    built(settings, SECOND)
    done = location.tick("desk_files", again.cursor)
    assert (done.run_requests, int(done.cursor) > 0) == ([], True)


def test_a_date_under_way_is_not_asked_for_twice(location: Location, drop: Callable[..., Path], archive: Path) -> None:
    drop("orders.csv", desk_path(archive, FIRST, "orders").read_text())
    (request,) = location.tick("desk_files").run_requests
    job = location.definitions.resolve_job_def("daily_execution")
    tags = {**request.tags, PARTITION_NAME_TAG: str(FIRST)}
    location.instance.create_run_for_job(job_def=job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    tick = location.tick("desk_files")
    assert tick.run_requests == []
    assert str(FIRST) in tick.skip_message


def test_a_date_of_which_events_alone_are_told_runs_their_tables_and_no_others(
    location: Location, drop: Callable[..., Path]
) -> None:
    head = "event_id,ts_event,symbol,news_sentiment,news_count,social_count,analyst_count"
    drop("news.csv", f"{head}\nn1,{IDLE}T12:00:00Z,,0.5,1,0,0\n")
    first = location.tick("desk_files")
    (request,) = first.run_requests
    news = dg.AssetKey(["events", "in", "news_sentiment_analyzed"])
    assert (request.partition_key, request.asset_selection) == (str(IDLE), [news])
    assert location.execute(request.job_name, request).is_success
    assert location.instance.get_materialized_partitions(news) == {str(IDLE)}
    assert location.tick("desk_files", first.cursor).run_requests == []


def test_an_empty_folder_asks_for_nothing(location: Location) -> None:
    assert location.tick("desk_files").run_requests == []
    desk_intake.inbox(location.platform.settings).mkdir(parents=True)
    assert location.tick("desk_files").run_requests == []


def test_a_refused_file_is_logged_and_the_others_are_taken(
    location: Location, drop: Callable[..., Path], archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = drop("bad.csv", "a,b\n1,2\n")
    drop("orders.csv", desk_path(archive, SECOND, "orders").read_text())
    (request,) = location.tick("desk_files").run_requests
    assert request.partition_key == str(SECOND)
    assert not bad.exists()
    assert (bad.parent / "refused" / "bad.csv").is_file()
    (line,) = [text for text in capfd.readouterr().err.splitlines() if "was refused" in text]
    assert "bad.csv was refused: It has none of the columns" in line


def test_dates_before_the_first_partition_are_left_out(
    location: Location, drop: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    head = "order_id,ts_event,symbol,side,quantity,status"
    drop("old.csv", f"{head}\no1,2024-02-28T12:00:00Z,{TRADED},buy,1,open\n")
    assert location.tick("desk_files").run_requests == []
    assert "2024-02-28 is no partition" in capfd.readouterr().err


# The command.


def test_the_page_is_exported_as_one_file(own: Settings, qp: Any, tmp_path: Path) -> None:
    materialized(own, FIRST)
    output = tmp_path / "tca.html"
    said = qp("report", "tca", "--date", str(FIRST), "--output", str(output), home=own.home)
    assert said.code == 0
    assert "Wrote" in said.text
    text = output.read_text()
    assert f"Daily TCA {FIRST}" in text
    markup = re.sub(r"<script\b[^>]*>.*?</script>", "<script>", text, flags=re.DOTALL)
    assert re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)\s*=\s*[\"'](?!data:|#)", text) == []
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)[^\"']+", markup) == []


def test_a_date_without_a_page_says_how_to_make_one(qp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = qp("report", "tca", "--date", str(IDLE))
    assert said.code == 1
    assert f"There is no report for {IDLE}" in said.text
    assert f"daily_tca/{IDLE}.html" in said.text.replace(" ", "")
    assert "qp backfill" in said.text
    unknown = qp("report", "risk", "--date", str(IDLE))
    assert unknown.code == 2
    assert "'risk' is not one of 'market', 'tca'" in unknown.text
    assert list(tmp_path.glob("*.html")) == []
