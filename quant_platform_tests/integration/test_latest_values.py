"""The job that publishes the lake's newest values as live keys: a real Redis, and lakes on disk."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import redis

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Gap
from quant_platform.contracts.microstructure import Sweep, Vpin
from quant_platform.defs.build import build_defs
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.latest_values import Published, publish
from quant_platform.defs.resources import Platform
from quant_platform.settings import Settings
from quant_platform.storage import live_store, redis_keys
from quant_platform.storage.lake import Lake
from quant_platform.storage.live_store import Server

SYMBOLS = ("AAA", "BBB", "CCC")
DAYS = tuple(date(2024, 3, day) for day in (4, 5, 6))
NOW_NS = 1_709_800_000_000_000_000
NS = 1_000_000_000
TWO_HOURS_S = 7_200


@pytest.fixture
def settings(market: Any, tmp_path: Path) -> Settings:
    """Return the settings of the small market with a home and a lake of its own."""
    own: Settings = market.settings(tmp_path / "home")
    return own


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with Server(settings), live_store.connect(settings) as client:
        yield client


def keys(client: redis.Redis) -> set[str]:
    return {name.decode() for name in client.scan_iter("analytics:*")}


def payload(client: redis.Redis, name: str) -> dict[str, Any]:
    found = client.get(name)
    assert isinstance(found, bytes), name
    return json.loads(found)


def noon(day: date, seconds: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, 12, 0, seconds, tzinfo=UTC)


def vpin(symbol: str, *times: datetime) -> pl.DataFrame:
    """Return a row a time; `vpin` is its second in hundredths."""
    same = {"symbol": symbol, "last_trade_id": 7, "n_buckets": 50, "buckets_filled": 60, "signing": "venue"}
    rows = [
        same | {"ts_open": t, "ts_event": t, "vpin": t.second / 100, "is_warm": True, "status": "ok", "ts_known": t}
        for t in times
    ]
    return pl.DataFrame(rows, schema=polars_schema(Vpin))


def gap(symbol: str, day: date, status: str) -> pl.DataFrame:
    row = {"symbol": symbol, "first_id": 3, "last_id": 4, "missing": 2, "status": status}
    row |= dict.fromkeys(("ts_start", "ts_end", "ts_known"), noon(day))
    return pl.DataFrame([row], schema=polars_schema(Gap))


@pytest.mark.usefixtures("dagster_home")
def test_job_publishes_the_last_row_of_every_metric_of_symbols_that_nobody_hears(
    settings: Settings, filled: Path, client: redis.Redis
) -> None:
    client.set("market:CCC:ticker", "{}", ex=60)
    platform = Platform(settings.model_copy(update={"lake_uri": (filled / "lake").as_uri()}))
    definitions = build_defs(resource_overrides={"platform": platform})
    before_ns = time.time_ns()
    with dagster_instance(settings) as instance:
        result = definitions.resolve_job_def("publish_latest").execute_in_process(
            instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        )
    platform.close()
    assert result.success
    expected: dict[str, dict[str, Any]] = {}
    for key in redis_keys.METRICS:
        assert key.contract
        for symbol in ("AAA", "BBB"):
            for day in DAYS:
                path = filled / "lake" / key.contract.table / f"date={day}" / f"{symbol}.parquet"
                rows = pl.read_parquet(path, hive_partitioning=False) if path.is_file() else pl.DataFrame()
                if rows.height:
                    expected[key.name(symbol)] = rows.with_columns(pl.selectors.temporal().to_physical()).row(
                        -1, named=True
                    )
    assert keys(client) == expected.keys()
    assert {"analytics:AAA:vpin", "analytics:AAA:toxicity", "analytics:BBB:retail_flow"} <= expected.keys()
    fields = {key.name(symbol): key.fields for key in redis_keys.METRICS for symbol in SYMBOLS}
    for name, row in expected.items():
        said = payload(client, name)
        assert tuple(said) == fields[name]
        assert before_ns < said["ts_written"] < time.time_ns()
        assert said == said | {column: value for column, value in row.items() if column in fields[name]}
        assert TWO_HOURS_S - 60 < client.ttl(name) <= TWO_HOURS_S
    (metadata,) = [e.event_specific_data.metadata for e in result.all_events if e.event_type_value == "STEP_OUTPUT"]
    assert (metadata["written_keys"].value, metadata["live_symbols"].value) == (len(expected), "CCC")


def test_newest_date_that_has_a_row_counts_and_trades_missing_on_it_are_said(
    settings: Settings, client: redis.Redis
) -> None:
    lake = Lake(settings.lake_uri)
    none = vpin("AAA")
    for symbol, rows in {
        "AAA": [vpin("AAA", noon(DAYS[0], 1)), vpin("AAA", noon(DAYS[1], 2), noon(DAYS[1], 3)), none]
    }.items():
        for day, frame in zip(DAYS, rows, strict=True):
            lake.write(Vpin.table, symbol, day, frame)
    lake.write(Vpin.table, "BBB", DAYS[0], vpin("BBB", noon(DAYS[0], 4)))
    lake.write(Gap.table, "AAA", DAYS[0], gap("AAA", DAYS[0], "open"))
    lake.write(Gap.table, "AAA", DAYS[1], gap("AAA", DAYS[1], "filled"))
    lake.write(Gap.table, "BBB", DAYS[0], gap("BBB", DAYS[0], "open"))
    lake.write(Sweep.table, "CCC", DAYS[2], pl.DataFrame(schema=polars_schema(Sweep)))
    assert publish(settings, client, SYMBOLS, NOW_NS) == Published(2, 0, ())
    assert keys(client) == {"analytics:AAA:vpin", "analytics:BBB:vpin"}
    said = {symbol: payload(client, f"analytics:{symbol}:vpin") for symbol in ("AAA", "BBB")}
    assert {s: (p["vpin"], p["has_gap"], p["ts_written"]) for s, p in said.items()} == {
        "AAA": (0.03, False, NOW_NS),
        "BBB": (0.04, True, NOW_NS),
    }


@pytest.mark.parametrize(
    ("standing", "is_kept"),
    [
        ({"ts": int(noon(DAYS[0], 6).timestamp()) * NS}, True),
        ({"ts": int(noon(DAYS[0], 5).timestamp()) * NS}, False),
        ({"ts": int(noon(DAYS[0], 4).timestamp()) * NS}, False),
        ({"ts": None}, False),
        ([], False),
        (None, False),
    ],
)
def test_what_is_newer_stays(settings: Settings, client: redis.Redis, standing: Any, *, is_kept: bool) -> None:
    Lake(settings.lake_uri).write(Vpin.table, "AAA", DAYS[0], vpin("AAA", noon(DAYS[0], 5)))
    client.set("analytics:AAA:vpin", json.dumps(standing), ex=60)
    assert publish(settings, client, SYMBOLS, NOW_NS) == Published(not is_kept, is_kept, ())
    assert (json.loads(client.get("analytics:AAA:vpin") or b"") == standing) is is_kept


@pytest.mark.parametrize("name", ["market:AAA:trades", "market:AAA:book", "market:AAA:bars:1min"])
def test_any_market_key_is_a_live_feed(settings: Settings, client: redis.Redis, name: str) -> None:
    Lake(settings.lake_uri).write(Vpin.table, "AAA", DAYS[0], vpin("AAA", noon(DAYS[0], 5)))
    client.lpush(name, "of any type")
    assert publish(settings, client, SYMBOLS, NOW_NS) == Published(0, 0, ("AAA",))
    assert keys(client) == set()


def test_a_longer_time_to_live_of_the_settings_holds(settings: Settings, client: redis.Redis) -> None:
    Lake(settings.lake_uri).write(Vpin.table, "AAA", DAYS[0], vpin("AAA", noon(DAYS[0], 5)))
    ttls = settings.analytics.store_ttls.model_copy(update={"vpin": 9_000})
    analytics = settings.analytics.model_copy(update={"store_ttls": ttls})
    publish(settings.model_copy(update={"analytics": analytics}), client, SYMBOLS, NOW_NS)
    assert 8_990 < client.ttl("analytics:AAA:vpin") <= 9_000


@pytest.fixture
def tick(settings: Settings) -> Callable[[dg.DagsterInstance], Any]:
    """Return what one tick of the schedule asks for."""

    def evaluate(instance: dg.DagsterInstance) -> Any:
        platform = Platform(settings)
        repository = build_defs(resource_overrides={"platform": platform}).get_repository_def()
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=noon(DAYS[0]),
            repository_def=repository,
            resources={"platform": platform},
        )
        return repository.get_schedule_def("publish_latest").evaluate_tick(context)

    return evaluate


@pytest.mark.usefixtures("dagster_home")
def test_schedule_asks_for_a_run_where_there_is_a_redis(settings: Settings, tick: Any) -> None:
    with dagster_instance(settings) as instance:
        without = tick(instance)
        assert not without.run_requests
        assert "There is no Redis address" in without.skip_message
        with Server(settings):
            assert len(tick(instance).run_requests) == 1
