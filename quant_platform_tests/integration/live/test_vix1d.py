"""VIX1D beside the capture: real sources on loopback, a real Redis, and the archive between them."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import redis

from quant_platform.live import vix1d
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.sessions import earlier_sessions
from quant_platform.pipeline.vix1d import VIX1D, VIX1D_REGIME
from quant_platform.settings import Settings
from quant_platform.simulation.vix1d import write_history
from quant_platform.storage import redis_keys, vix1d_archive
from quant_platform.storage.live_store import Server, connect
from quant_platform.storage.vix1d_archive import Asked, Reading
from quant_platform_tests.integration.live.aggregate_keys import Cycles, put_vpin
from quant_platform_tests.integration.live.aggregate_keys import settings_of as settings_of_portfolio
from quant_platform_tests.unit.feeds import conftest
from quant_platform_tests.unit.feeds.conftest import Shelf

shelf = conftest.shelf
S = 1_000_000_000
SOON_S = 20.0
CSV, CHART = "VIX1D_History.csv", "chart?interval=1m&range=1d"
KEY = redis_keys.VIX1D.name()
BLENDED = redis_keys.VIX1D_HISTORY.name()
ANALYTICS = {"history_entries": 5}


def source_history(source: str) -> str:
    return redis_keys.VIX1D_SOURCE_HISTORY.name(source=source)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vix1d, "_TURN_S", 0.02)
    monkeypatch.setattr(vix1d, "_LOOK_S", 0.1)


def last_sessions(count: int) -> list[date]:
    """The last trading dates that are over in New York, the oldest first."""
    return earlier_sessions("XNYS", datetime.now(ZoneInfo("America/New_York")).date(), count)


def csv_of(values: dict[date, object]) -> bytes:
    rows = [f"{day:%m/%d/%Y},1,1,1,{value}\n" for day, value in values.items()]
    return "".join(["DATE,OPEN,HIGH,LOW,CLOSE\n", *rows]).encode()


def chart_of(value: float, at: int) -> bytes:
    meta = {"symbol": "^VIX1D", "regularMarketPrice": value, "regularMarketTime": at}
    return json.dumps({"chart": {"result": [{"meta": meta}]}}).encode()


@pytest.fixture
def settings_of(server: Settings, tmp_path: Path, shelf: Shelf) -> Callable[..., Settings]:
    """Return settings whose sources are the shelf; another home has the same Redis."""

    def make(*, refetch_s: float = 900.0, home: Path = tmp_path / "home", **given) -> Settings:
        feeds = {
            "cboe": {"vix1d_url": f"{shelf.url}/{CSV}"},
            "vix1d": {"yahoo_url": f"{shelf.url}/chart", "min_refetch_s": {"cboe": refetch_s, "yahoo": refetch_s}},
        }
        url = server.home / "redis" / "url"
        return Settings(home=home, redis_url=url.read_text(), **({"feeds": feeds, "analytics": ANALYTICS} | given))

    return make


def kept_until(settings: Settings, is_so: Callable[[], bool]) -> None:
    """Let the keeper run until something is so, then stop it."""

    async def scenario() -> None:
        keeper = asyncio.create_task(vix1d.keep(settings))
        latest = time.monotonic() + SOON_S
        while not await asyncio.to_thread(is_so):
            assert time.monotonic() < latest, "in vain"
            assert not keeper.done()
            await asyncio.sleep(0.01)
        keeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeper

    asyncio.run(scenario())


def kept_for(settings: Settings, seconds: float) -> None:
    ends = time.monotonic() + seconds
    kept_until(settings, lambda: time.monotonic() >= ends)


def payload(client: redis.Redis) -> dict:
    return json.loads(client.get(KEY) or b"{}")


def entries(client: redis.Redis, name: str) -> list[dict]:
    return [json.loads(line) for line in client.lrange(name, 0, -1)]


def asked_paths(shelf: Shelf) -> list[str]:
    return [path for path, _ in shelf.asked]


def test_the_newest_close_stands_with_its_regime_and_its_histories(settings_of, client, shelf) -> None:
    days = last_sessions(21)
    values = [10.0] * 20 + [11.0]
    shelf.files[CSV] = csv_of(dict(zip(days, values, strict=True)))
    settings = settings_of()
    kept_until(settings, lambda: bool(client.exists(KEY)))
    said = payload(client)
    close = datetime.combine(days[-1], datetime.min.time(), ZoneInfo("America/New_York")) + timedelta(hours=16.25)
    assert tuple(said) == redis_keys.VIX1D.fields
    assert (said["symbol"], said["source"], said["value"], said["status"]) == ("VIX1D", "cboe", 11.0, "ok")
    assert said["ts"] == said["ts_event"] == int(close.timestamp()) * S
    # Twenty equal values and one off by 1: z = 20/21 · √21, above the cut-off of 1.5.
    assert said["z_score"] == pytest.approx(20 / 21 * math.sqrt(21), abs=1e-9)
    assert (said["percentile"], said["samples"], said["regime"]) == (1.0, 21, "ELEVATED")
    assert (said["change_5m"], said["change_1h"], said["shock_value"]) == (None, None, 35.0)
    assert 345_590 <= client.ttl(KEY) <= 345_600
    for name in (BLENDED, source_history("cboe")):
        assert [entry["value"] for entry in entries(client, name)] == [11.0, 10.0, 10.0, 10.0, 10.0]
        assert entries(client, name)[0]["regime"] == "ELEVATED"
        assert 604_790 <= client.ttl(name) <= 604_800
    assert asked_paths(shelf) == [CSV]


def test_the_batch_says_the_same(settings_of, client, shelf) -> None:
    days = last_sessions(30)
    shelf.files[CSV] = csv_of({day: 10 + n % 4 for n, day in enumerate(days)})
    settings = settings_of()
    kept_until(settings, lambda: bool(client.exists(KEY)))
    with Engine(settings) as engine:
        for table in (VIX1D, VIX1D_REGIME):
            assert [outcome.status for outcome in engine.run(table, [], [days[-1]])] == ["ok"]
        (row,) = engine.lake.scan(VIX1D_REGIME, None, days[-1], days[-1]).collect().to_dicts()
    said = payload(client)
    assert {name: said[name] for name in ("value", "z_score", "percentile", "samples", "regime")} == {
        name: row[name] for name in ("value", "z_score", "percentile", "samples", "regime")
    }


def test_a_source_is_not_asked_again_before_its_time_and_those_behind_not_at_all(settings_of, client, shelf) -> None:
    shelf.files[CSV] = csv_of({last_sessions(1)[0]: 12.5})
    shelf.files[CHART] = chart_of(14.0, int(time.time()) - 60)
    settings = settings_of()
    kept_until(settings, lambda: bool(client.exists(KEY)))
    kept_for(settings, 0.4)
    assert asked_paths(shelf) == [CSV]
    kept_until(settings_of(refetch_s=0.05), lambda: len(shelf.asked) >= 3)
    assert set(asked_paths(shelf)) == {CSV}
    assert [one.value for day in vix1d_archive.dates(settings.landing) for one in readings(settings, day)] == [12.5]
    assert len(entries(client, BLENDED)) == 1


def readings(settings: Settings, day: date) -> list[Reading]:
    return [reading for _, reading in vix1d_archive.day(settings.landing, day).readings]


@pytest.mark.parametrize(
    "fault",
    [
        Shelf.status(403),
        Shelf.status(429, Retry_After="60"),
        Shelf.status(500),
        Shelf.instead(b"<!DOCTYPE html><html>Access denied</html>"),
        Shelf.instead(b""),
        Shelf.instead(csv_of({date(2024, 3, 8): 0})),
        Shelf.instead(csv_of({date(2024, 3, 8): "NaN"})),
        Shelf.instead(csv_of({date(2024, 3, 8): 12.5})),  # years ago
        Shelf.instead(csv_of({date(2199, 3, 8): 12.5})),  # in the future
        Shelf.cut,
    ],
    ids=["403", "429", "500", "html", "empty", "zero", "nan", "old", "future", "cut"],
)
def test_a_source_that_fails_is_left_alone_and_the_next_one_is_asked(settings_of, client, shelf, fault) -> None:
    shelf.files[CSV] = csv_of({last_sessions(1)[0]: 12.5})
    shelf.answer(CSV, fault)
    at = int(time.time()) - 60
    shelf.files[CHART] = chart_of(14.0, at)
    settings = settings_of()
    kept_until(settings, lambda: bool(client.exists(KEY)))
    said = payload(client)
    assert (said["source"], said["value"], said["ts"]) == ("yahoo", 14.0, at * S)
    assert asked_paths(shelf) == [CSV, CHART]
    known = vix1d_archive.sources(settings.landing)
    assert (known["cboe"].failures, known["yahoo"].failures) == (1, 0)
    dates = vix1d_archive.dates(settings.landing)
    assert max(dates) <= datetime.now(UTC).date()


def test_where_all_fail_the_key_stays_and_backoff_outlives_a_restart(settings_of, client, shelf) -> None:
    shelf.files[CSV] = csv_of({last_sessions(1)[0]: 12.5})
    settings = settings_of()
    kept_until(settings, lambda: bool(client.exists(KEY)))
    said, lives = client.get(KEY), client.ttl(KEY)
    shelf.files.clear()
    vix1d_archive.remember(settings.landing, {"cboe": Asked(time.time_ns() - 901 * S, 0)})
    kept_until(settings, lambda: {"cboe", "yahoo"} <= {*(vix1d_archive.sources(settings.landing) or {})})
    count = len(shelf.asked)
    kept_for(settings, 0.4)
    assert len(shelf.asked) == count
    assert {name: told.failures for name, told in vix1d_archive.sources(settings.landing).items()} == {
        "cboe": 1,
        "yahoo": 1,
    }
    assert json.loads(client.get(KEY))["value"] == json.loads(said)["value"] == 12.5
    assert client.ttl(KEY) <= lives
    # Two minutes after the first failure yahoo, whose least wait is shorter, is asked once more: and fails again.
    waits = settings_of(refetch_s=1.0)
    ago = {
        name: Asked(told.asked - 121 * S, told.failures)
        for name, told in vix1d_archive.sources(settings.landing).items()
    }
    vix1d_archive.remember(settings.landing, {"cboe": Asked(time.time_ns(), 5), "yahoo": ago["yahoo"]})
    kept_until(waits, lambda: vix1d_archive.sources(settings.landing)["yahoo"].failures == 2)
    assert vix1d_archive.sources(settings.landing)["cboe"].failures == 5


def test_a_clock_that_was_ahead_does_not_silence_a_source(settings_of, client, shelf) -> None:
    shelf.files[CSV] = csv_of({last_sessions(1)[0]: 12.5})
    settings = settings_of(refetch_s=0.1)
    vix1d_archive.remember(settings.landing, {"cboe": Asked(time.time_ns() + 10**15, 0)})
    kept_until(settings, lambda: bool(client.exists(KEY)))


def test_the_key_and_its_histories_come_back_after_a_restart_and_a_lost_redis(settings_of, client, shelf) -> None:
    days = last_sessions(3)
    shelf.files[CSV] = csv_of(dict(zip(days, (10.0, 11.0, 12.0), strict=True)))
    lives_s = 864_000  # longer than any weekend with holidays
    settings = settings_of(analytics=ANALYTICS | {"store_ttls": {"vix1d": lives_s}})
    kept_until(settings, lambda: bool(client.exists(KEY)))
    shelf.files.clear()

    def lost_and_back() -> bool:
        if payload(client).get("value") != 12.0:
            return False
        client.flushall()
        latest = time.monotonic() + SOON_S
        while not client.exists(KEY) and time.monotonic() < latest:
            time.sleep(0.01)
        return True

    client.flushall()
    kept_until(settings, lost_and_back)
    assert payload(client)["value"] == 12.0
    for name in (BLENDED, source_history("cboe")):
        assert [entry["value"] for entry in entries(client, name)] == [12.0, 11.0, 10.0]
    # A restart does not lengthen its life: that counts from when the source was heard, at the close of its date.
    age_s = (time.time_ns() - payload(client)["ts"]) // S
    assert client.ttl(KEY) == pytest.approx(lives_s - age_s, abs=10)
    assert asked_paths(shelf) == [CSV]


def test_a_reading_whose_life_is_over_is_not_served_anew(settings_of, client, shelf) -> None:
    settings = settings_of()
    past = time.time_ns() - 345_700 * S
    vix1d_archive.append(settings.landing, [Reading("yahoo", past, past, 12.0)])
    kept_for(settings, 0.5)
    assert not client.exists(KEY)
    assert {CSV, CHART} == set(asked_paths(shelf))


def test_a_reading_by_hand_is_published_where_it_is_the_newest(settings_of, client, shelf) -> None:
    shelf.files[CSV] = csv_of({last_sessions(1)[0]: 12.5})
    settings = settings_of()
    now = time.time_ns()

    def by_hand() -> bool:
        if payload(client).get("value") == 12.5:
            vix1d_archive.append(settings.landing, [Reading("manual", now, now, 40.0)])
        return payload(client).get("source") == "manual"

    kept_until(settings, by_hand)
    said = payload(client)
    assert (said["value"], said["regime"], said["z_score"], said["seq"]) == (40.0, "SHOCK", None, 2)
    assert [(entry["source"], entry["value"]) for entry in entries(client, BLENDED)] == [
        ("manual", 40.0),
        ("cboe", 12.5),
    ]
    assert [entry["value"] for entry in entries(client, source_history("manual"))] == [40.0]
    # One that is older than what stands goes into its own history alone.
    vix1d_archive.append(settings.landing, [Reading("manual", now - S, now + S, 50.0)])
    kept_until(settings, lambda: client.llen(source_history("manual")) == 2)
    assert payload(client)["value"] == 40.0
    assert len(entries(client, BLENDED)) == 2


def test_without_redis_readings_are_put_on_record_and_served_when_it_is_there(settings_of, shelf, tmp_path) -> None:
    shelf.files[CSV] = csv_of({last_sessions(1)[0]: 12.5})
    lone = settings_of().model_copy(update={"redis_url": None})
    kept_until(lone, lambda: bool(vix1d_archive.dates(lone.landing)))

    started: list[Server] = []

    def served() -> bool:
        if not started:
            started.append(Server(lone))
            started[0].start()
        with connect(lone) as client:
            return bool(client.exists(KEY))

    def served_by_the_next_server() -> bool:
        if len(started) == 1:
            started[0].stop()
            started.append(Server(lone))
            started[1].start()
            with connect(lone) as client:
                assert not client.exists(KEY)
        return served()

    try:
        kept_until(lone, lambda: served() and served_by_the_next_server())
    finally:
        for one in started:
            one.stop()


def test_one_process_of_a_home_asks(settings_of, client, shelf) -> None:
    shelf.files[CSV] = csv_of({last_sessions(1)[0]: 12.5})
    settings = settings_of()
    with vix1d_archive.asking(settings.landing):
        kept_for(settings, 0.3)
        assert shelf.asked == []
    kept_until(settings, lambda: bool(client.exists(KEY)))


def test_a_simulated_history_is_served_where_nothing_else_is_and_nobody_is_asked(settings_of, client, shelf) -> None:
    silent = {"cboe": {"vix1d_url": ""}, "vix1d": {"yahoo_url": ""}}
    settings = settings_of(feeds=silent)
    write_history(settings.simulated_vix1d, dates=[date(2024, 3, 4), date(2024, 3, 8)])
    kept_until(settings, lambda: bool(client.exists(KEY)))
    said = payload(client)
    assert (said["source"], said["samples"], said["ts"]) == ("simulated", 480, 1_709_932_500 * S)
    assert client.ttl(KEY) > 345_000
    assert [entry["source"] for entry in entries(client, BLENDED)] == ["simulated"] * 5
    assert shelf.asked == []


def test_a_simulated_history_is_never_served_for_a_source_that_failed(settings_of, client, shelf) -> None:
    settings = settings_of()
    write_history(settings.simulated_vix1d, dates=[date(2024, 3, 4), date(2024, 3, 8)])
    kept_until(settings, lambda: len(vix1d_archive.sources(settings.landing) or {}) == 2)
    kept_for(settings, 0.3)
    assert not client.exists(KEY)


def test_a_broken_row_costs_no_other_and_is_kept_for_the_quarantine(settings_of, client, shelf) -> None:
    before, after = last_sessions(2)
    broken = f"{before:%m/%d/%Y},1,1,1,n/a\n".encode()
    shelf.files[CSV] = csv_of({after: 12.5}) + broken
    settings = settings_of()
    kept_until(settings, lambda: bool(client.exists(KEY)))
    assert payload(client)["value"] == 12.5
    with Engine(settings) as engine:
        first, second = engine.run(VIX1D, [], [before, after])
    assert (first.rows, first.quarantined, first.is_red) == (0, 1, True)
    assert (second.rows, second.quarantined, second.is_red) == (1, 0, False)


def test_the_portfolio_says_what_stands(tmp_path: Path) -> None:
    with Server(settings := settings_of_portfolio(tmp_path)), connect(settings) as own:
        written = Cycles(settings, own)
        put_vpin(own, "A", 0.2)
        assert written({"portfolio"})["vix1d"] is None
        own.set(KEY, json.dumps({"value": 14.75, "source": "cboe"}))
        assert written({"portfolio"})["vix1d"] == 14.75
        for odd in ("<html>", "null", '{"value": "high"}', "[]"):
            own.set(KEY, odd)
            assert written({"portfolio"})["vix1d"] is None
        own.set(KEY, '{"value": null}')
        assert written({"portfolio"})["vix1d"] is None
        assert written.aggregator.counts["malformed"] == 4
