"""What the live writer makes of clocks: skewed, set back, or changed for the summer; and of a session's end and start.

The whole writer in this process, over a real Redis and with real rows; only our own clock is turned.
"""

import json
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from quant_platform.live import _places
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import live_store, redis_keys
from quant_platform.storage.live_store import Server
from quant_platform_tests.served import BUCKET, SOON_S, cycles_until, heartbeat, payload, seconds, writer
from quant_platform_tests.streamed import NOON, instruments, publish

NS = 1_000_000_000
SERVED = [key for key in redis_keys.METRICS if key not in (redis_keys.MOC, redis_keys.SWEEP)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    with Server(settings):
        yield live_store.address(settings)


@pytest.fixture
def client(server):
    with live_store.connect(Settings(redis_url=server)) as client:
        client.flushall()
        yield client


@pytest.fixture
def start(tmp_path, server):
    """Make writers that are closed at the end."""
    with ExitStack() as opened:

        def started(*instruments, **analytics):
            one = writer(tmp_path, server, *instruments, **analytics)
            opened.callback(one.close)
            return one

        yield started


@pytest.mark.parametrize("skew_s", [-5, 0, 5])
def test_a_venue_whose_clock_is_off_is_served_in_its_own_time(client, start, skew_s):
    live = start(*instruments("AAA"))
    now_ns = time.time_ns() + skew_s * NS
    publish(client, seconds(1, 30, now_ns - 60 * NS))
    publish(client, seconds(31, 60, now_ns - 30 * NS))

    def is_served(key):
        found = payload(client, key)
        return "has_gap" in found and found.get("last_trade_id", 60) == 60

    cycles_until(live, lambda: all(map(is_served, SERVED)))  # families take turns
    for key in SERVED:
        found = payload(client, key)
        assert found["has_gap"] is False, key.metric
        assert 0 < client.pttl(key.name("AAA")) <= 60_000
        # A value of the last second is that old by our clock, whatever sign that has.
        age_s = (found["ts_written"] - found["ts"]) / NS
        assert -skew_s + 0.9 < age_s < -skew_s + SOON_S, key.metric
    assert payload(client, redis_keys.VPIN)["buckets_filled"] == 60 // BUCKET
    beat = heartbeat(client)
    assert (beat["state"], beat["failing"], sum(beat["error_counts"].values())) == ("active", [], 0)


def test_a_clock_that_is_set_back_stops_nothing(client, start, monkeypatch):
    live = start(*instruments("AAA"))
    publish(client, seconds(1, 30, NOON))
    cycles_until(live, lambda: payload(client, redis_keys.VPIN).get("last_trade_id") == 30)
    before = payload(client, redis_keys.VPIN)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600 * NS)
    publish(client, seconds(31, 60, NOON + 30 * NS))
    cycles_until(live, lambda: payload(client, redis_keys.VPIN).get("last_trade_id") == 60)
    after = payload(client, redis_keys.VPIN)
    assert after["seq"] > before["seq"]
    assert after["ts"] > before["ts"]
    assert before["ts_written"] - after["ts_written"] > 3_590 * NS
    assert (after["has_gap"], after["buckets_filled"]) == (False, 60 // BUCKET)
    sequence = after["seq"]
    cycles_until(live, lambda: payload(client, redis_keys.VPIN)["seq"] > sequence + 2)  # refreshed as before
    beat = heartbeat(client)
    assert abs(beat["ts_written"] - time.time_ns()) < SOON_S * NS
    assert sum(beat["error_counts"].values()) == 0
    assert payload(client, redis_keys.PORTFOLIO)["symbols"] == 1
    # A clock that is put right again is a jump ahead.
    monkeypatch.setattr(time, "time_ns", real)
    publish(client, seconds(61, 90, NOON + 60 * NS))
    cycles_until(live, lambda: payload(client, redis_keys.VPIN).get("last_trade_id") == 90)
    assert payload(client, redis_keys.VPIN)["has_gap"] is False


def test_a_market_that_falls_silent_as_our_clock_is_set_back_is_left_to_its_end(client, start, monkeypatch):
    live = start(*instruments("AAA"), store_ttls={"market": 1})
    publish(client, seconds(1, 30, NOON))
    cycles_until(live, lambda: payload(client, redis_keys.VPIN).get("last_trade_id") == 30)
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600 * NS)
    time.sleep(1.2)
    live.cycle()
    sequence = payload(client, redis_keys.VPIN)["seq"]
    for _ in range(4):
        live.cycle()
    assert payload(client, redis_keys.VPIN)["seq"] == sequence


def ns(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS


def push(client, first, last, start_ns):
    """Put rows before a user's own lists, newest first."""
    for stream, rows in seconds(first, last, start_ns, symbol="XYZ").items():
        for row in rows:
            entry = {name: row[name] for name in row if name not in {"ts_written", "ts", "seq"}}
            client.lpush(f"market:XYZ:{stream}", json.dumps(entry | {"venue": "user"}))


def test_an_exchange_opens_by_its_own_clock_the_week_that_summer_time_begins(client, start, monkeypatch):
    monkeypatch.setattr(_places, "_AGAIN_S", 0.2)  # here the next session comes within a second of the last opening
    row = {"feed": "recorded_lean", "tick_size": 0.01, "lot_size": 1, "calendar": "XNYS"}
    live = start(Instrument(symbol="XYZ", venue_symbol="XYZ", **row))

    def value(key):
        return payload(client, key, "XYZ")

    # 2024-03-08 New York closes at 16:00 EST, 21:00 UTC. Clocks go forward on the 10th.
    push(client, 1, 60, ns("2024-03-08T20:58:00"))
    cycles_until(live, lambda: value(redis_keys.VPIN).get("last_trade_id") == 60)
    assert heartbeat(client)["state"] == "active"
    cycles_until(live, lambda: value(redis_keys.MOC))  # the close is near
    push(client, 61, 130, ns("2024-03-08T20:59:00"))  # ten of them are after the close
    cycles_until(live, lambda: heartbeat(client)["state"] == "idle")
    assert heartbeat(client)["idle_symbols"] == 1
    assert value(redis_keys.VPIN)["last_trade_id"] <= 120

    # Idle is not dead: nothing but the heartbeat is written.
    push(client, 131, 140, ns("2024-03-11T13:29:45"))  # nine hours and a half of a day, EDT, but for seconds
    sequence, beats = value(redis_keys.VPIN)["seq"], set()
    for _ in range(5):
        live.cycle()
        beats.add(heartbeat(client)["ts_written"])
    assert len(beats) == 5
    assert heartbeat(client)["running"] is True
    assert heartbeat(client)["state"] == "idle"
    assert value(redis_keys.VPIN)["seq"] == sequence

    # 2024-03-11 it opens at 09:30 EDT, 13:30 UTC: an hour earlier than on Friday.
    push(client, 141, 200, ns("2024-03-11T13:30:00"))
    cycles_until(live, lambda: value(redis_keys.VPIN).get("last_trade_id") == 200)
    assert heartbeat(client)["state"] == "active"
    cycles_until(live, lambda: value(redis_keys.OBI)["ts"] >= ns("2024-03-11T13:30:50"))
    assert sum(heartbeat(client)["error_counts"].values()) == 0
    assert heartbeat(client)["malformed"] == 0
