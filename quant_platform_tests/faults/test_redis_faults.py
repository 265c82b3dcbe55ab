"""Redis down, hanging, full, or started anew under the publisher; and its server when the parent is killed.

Whoever puts lines never waits, memory has a bound, and all keys are back when Redis is.
"""

import json
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import redis

from quant_platform.live.market_keys import Publisher
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import live_store, redis_keys
from quant_platform.storage.live_store import Server

NOON_MS = 1_723_118_400_000  # date -u -d 2024-08-08T12:00 +%s000
MINUTE_MS = 60_000
NS = 1_000_000
TRADES = "market:AAA:trades"
# A publisher's cycle takes a quarter of a second. Two of them, and as much again for a machine under load, ten times.
SOON_S = 10.0
KEYS = {key.name("AAA") for key in redis_keys.MARKET_KEYS}
PARENT = """
import pathlib, sys, time
from quant_platform.settings import Settings
from quant_platform.storage import live_store

settings = Settings(home=pathlib.Path(sys.argv[1]))
with live_store.Server(settings), live_store.connect(settings) as client:
    print(client.info("server")["process_id"], flush=True)
    time.sleep(600)
"""


def frame(stream, data, time_ms, **more):
    payload = {"stream": f"aaa@{stream}", "data": data | {"E": time_ms, "T": time_ms}} if stream else data
    return f"{time_ms * NS} {json.dumps(payload | more)}".encode()


def trade(ident):
    """One trade a second, of size 1."""
    return frame("trade", {"t": ident, "p": "100", "q": "1", "m": False}, NOON_MS + ident * 1_000)


def quote(ident):
    data = {"u": ident, "b": "99", "B": "1", "a": "101", "A": "1"}
    return frame("bookTicker", data, NOON_MS + ident * 1_000)


def depth(ident):
    data = {"U": ident, "u": ident, "pu": ident - 1, "b": [["99", str(ident)]], "a": []}
    return frame("depth@100ms", data, NOON_MS + ident * 1_000)


def first_lines():
    """All that fills every key: a book, a quote, and trades of three minutes."""
    answer = {"lastUpdateId": 1, "E": NOON_MS, "T": NOON_MS, "bids": [["99", "1"]], "asks": [["101", "1"]]}
    return [frame("", answer, NOON_MS), quote(1), *map(trade, range(180))]


def until(condition, timeout_s=SOON_S):
    latest = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < latest, "in vain"
        time.sleep(0.01)


@pytest.fixture
def settings(tmp_path):
    instrument = Instrument(symbol="AAA", venue_symbol="AAA", feed="binance_usdm", tick_size=0.1, lot_size=0.001)
    return Settings(home=tmp_path, instruments=(instrument,))


@pytest.fixture
def server(settings):
    with Server(settings) as server:
        yield server


@pytest.fixture
def publisher(settings):
    publisher = Publisher(settings)
    yield publisher
    publisher.stop()


def ids(settings):
    """Return the ids of the trades in the Stream, in its order; a repeat of an entry counts once."""
    with live_store.connect(settings) as client:
        entries = [json.loads(fields[b"data"]) for _, fields in client.xrange(TRADES)]
    return list(dict.fromkeys(entry["trade_id"] for entry in entries))


def is_parsed(publisher, trades):
    return "AAA" in publisher._markets and publisher._markets["AAA"].sequences["market/trades"] == trades


def keys(settings):
    with live_store.connect(settings) as client:
        return {key.decode() for key in client.scan_iter("market:*")}


def ticker(settings):
    with live_store.connect(settings) as client:
        return json.loads(client.get("market:AAA:ticker"))


def redis_process(settings):
    with live_store.connect(settings) as client:
        return psutil.Process(client.info("server")["process_id"])


def test_server_killed_and_started_anew_has_all_keys_again(settings, server, publisher):
    publisher.put("AAA", first_lines())
    until(lambda: keys(settings) == KEYS)
    redis_process(settings).kill()
    until(lambda: not psutil.pid_exists(server._process.pid) or server._process.poll() is not None)
    for ident in range(180, 200):
        publisher.put("AAA", [trade(ident)])
    publisher.put("AAA", [quote(2), depth(2)])
    until(lambda: publisher.status().error)

    server.start()
    until(lambda: keys(settings) == KEYS)
    until(lambda: ids(settings) == list(range(180, 200)))
    assert (ticker(settings)["volume"], ticker(settings)["last_trade_id"]) == (200.0, 199)
    with live_store.connect(settings) as client:
        bars = [json.loads(bar) for bar in client.lrange("market:AAA:bars:1min", 0, -1)]
    # The tape begins with a minute of which it is not known whether it is whole; that of the last trade is open.
    assert [(bar["ts_open"] // NS - NOON_MS, bar["volume"]) for bar in bars] == [
        (2 * MINUTE_MS, 60.0),
        (MINUTE_MS, 60.0),
    ]
    status = publisher.status()
    assert (status.error, status.waiting_bytes, status.dropped_entries) == ("", 0, 0)


def test_publisher_that_starts_before_redis_loses_nothing(settings, publisher):
    publisher.put("AAA", first_lines())
    until(lambda: "no server was started" in publisher.status().error)
    with Server(settings):
        until(lambda: ids(settings) == list(range(180)))
        until(lambda: keys(settings) == KEYS)


def test_server_that_hangs_holds_nobody_up(settings, server, publisher):
    publisher.put("AAA", first_lines())
    until(lambda: keys(settings) == KEYS)
    process = redis_process(settings)
    process.suspend()
    took_s = []
    try:
        for ident in range(180, 480):  # three seconds: six calls that time out
            start = time.perf_counter()
            publisher.put("AAA", [trade(ident)])
            took_s.append(time.perf_counter() - start)
            time.sleep(0.01)
        until(lambda: publisher.status().error)
    finally:
        process.resume()
    assert sorted(took_s)[-10] < 0.003
    assert max(took_s) < live_store.TIMEOUT_S / 5  # it never stood in a call
    until(lambda: ids(settings) == list(range(480)))
    until(lambda: ticker(settings)["volume"] == 480.0)
    until(lambda: not publisher.status().error)


def test_server_without_memory_takes_all_when_it_has_some(settings, server, publisher):
    with live_store.connect(settings) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        publisher.put("AAA", first_lines())
        until(lambda: "maxmemory" in publisher.status().error)
        assert keys(settings) == set()
        client.config_set("maxmemory", 0)
        until(lambda: keys(settings) == KEYS)
        until(lambda: ids(settings) == list(range(180)))
        assert client.xlen(TRADES) == 180  # an entry that was refused is not there twice


def test_emptied_server_is_filled_by_what_comes_next(settings, server, publisher):
    publisher.put("AAA", first_lines())
    until(lambda: keys(settings) == KEYS)
    with live_store.connect(settings) as client:
        client.flushall()
        publisher.put("AAA", [trade(180)])
        until(lambda: {TRADES, "market:AAA:ticker", "market:AAA:book", "market:AAA:bars:1min"} == keys(settings))
        until(lambda: client.llen("market:AAA:bars:1min") == 2)


def test_memory_has_a_bound_and_the_oldest_go(settings):
    limit = 200_000
    publisher = Publisher(settings, limit_bytes=limit)
    try:
        most, put = 0, 0
        for _ in range(20):
            publisher.put("AAA", [trade(ident) for ident in range(put, put + 200)])
            put += 200
            until(partial(is_parsed, publisher, put))
            most = max(most, publisher.status().waiting_bytes)
        assert limit / 2 < most <= limit
        assert publisher.status().dropped_lines == 0
        with Server(settings):
            until(lambda: ids(settings) == list(range(publisher.status().dropped_entries, put)))
            assert 0 < publisher.status().dropped_entries < put
            assert ticker(settings)["volume"] == float(put)  # what the Stream lost, the others did not
            until(lambda: not publisher.status().error)
    finally:
        publisher.stop()


def test_lines_above_the_bound_are_dropped_and_what_they_fed_starts_anew(settings, server):
    publisher = Publisher(settings, limit_bytes=100_000)
    try:
        publisher.put("AAA", first_lines())
        until(lambda: keys(settings) == KEYS)
        for start in range(180, 2_180, 100):  # at once, so that the parser has not had its turn
            publisher.put("AAA", [trade(ident) for ident in range(start, start + 100)])
        dropped = publisher.status().dropped_lines
        assert 0 < dropped < 2_000
        until(lambda: not publisher.status().waiting_bytes)
        until(lambda: ticker(settings)["last_trade_id"] == 2_179)
        first = (ticker(settings)["volume_since"] // NS - NOON_MS) // 1_000
        assert first >= 180 + dropped
        assert ticker(settings)["volume"] == 2_180 - first
    finally:
        publisher.stop()


def test_key_that_somebody_else_keeps_as_a_list_does_not_stop_the_others(settings, server, publisher):
    with live_store.connect(settings) as client:
        client.lpush(TRADES, "{}")
        publisher.put("AAA", first_lines())
        until(lambda: keys(settings) == KEYS)
        until(lambda: publisher.status().refused_writes == 180)
        assert client.type(TRADES) == b"list"
        assert (publisher.status().error, publisher.status().waiting_bytes) == ("", 0)


def test_stop_does_not_wait_for_a_server_that_hangs(settings, server):
    publisher = Publisher(settings)
    publisher.put("AAA", first_lines())
    until(lambda: keys(settings) == KEYS)
    process = redis_process(settings)
    process.suspend()
    try:
        publisher.put("AAA", [trade(180)])
        start = time.monotonic()
        publisher.stop()
        assert time.monotonic() - start < 3
    finally:
        process.resume()


def test_server_ends_with_a_killed_parent_and_the_next_start_replaces_it(settings):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(settings.home)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        orphan = psutil.Process(int(parent.stdout.readline()))
        assert orphan.is_running()
        parent.send_signal(signal.SIGKILL)
    orphan.wait(SOON_S)
    assert (settings.home / "redis" / "redis.sock").exists()
    with pytest.raises(redis.ConnectionError):
        redis_process(settings)
    with Server(settings):
        assert redis_process(settings).is_running()


def test_server_that_hangs_is_replaced_by_its_owner(settings, server):
    hanging = redis_process(settings)
    hanging.suspend()
    server.start()
    assert redis_process(settings).pid != hanging.pid
    assert not hanging.is_running()
