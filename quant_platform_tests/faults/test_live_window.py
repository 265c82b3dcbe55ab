"""What the window makes of a Redis that is emptied, killed, or full of nonsense, and of a burst: all trades, once.

The trades come as they do in production: a line is landed, then published, then read.
"""

import random
import time

import psutil
import pytest
import redis

from quant_platform.feeds.binance import describe
from quant_platform.live.market_keys import Publisher
from quant_platform.live.window import Position, Window
from quant_platform.settings import Settings
from quant_platform.storage import live_store
from quant_platform.storage.landing import Writer
from quant_platform.storage.live_store import Server
from quant_platform_tests.streamed import ids, instruments, lines, payload, publish, quote, taken, trade

SOON_S = 20.0
STREAM = "market:AAA:trades"


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path, instruments=instruments("AAA"))


@pytest.fixture
def server(settings):
    with Server(settings) as server:
        yield server


@pytest.fixture
def client(settings, server):
    with live_store.connect(settings) as client:
        yield client


@pytest.fixture
def window(settings):
    window = Window(settings, ["AAA"])
    yield window
    window.close()


class Market:
    """Lands and publishes trades and quotes in turn, as a collector does."""

    def __init__(self, settings):
        self.writer = Writer(settings.landing, "binance_usdm", "AAA", describe, segment_s=1e9, segment_bytes=1 << 30)
        self.publisher = Publisher(settings)

    def send(self, first, last):
        rows = lines(*(row for k in range(first, last + 1) for row in (quote(k, 10 * k), trade(k, 10 * k + 5))))
        for line in rows:
            received, _, message = line.partition(b" ")
            self.writer.append([int(received), message, *describe(message)])
        self.writer.flush()
        self.publisher.put("AAA", rows)


@pytest.fixture
def market(settings):
    market = Market(settings)
    yield market
    market.publisher.stop()
    market.writer.close()


def until(condition):
    latest = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < latest, "in vain"
        time.sleep(0.01)


def test_emptied_redis_loses_nothing_that_was_landed(settings, server, client, window, market):
    market.send(1, 50)
    found = taken(window, client, until=50)
    market.send(51, 90)
    until(lambda: client.xlen(STREAM) == 90)
    market.writer.roll()
    market.send(91, 120)
    until(lambda: client.xlen(STREAM) == 120)
    client.flushall()
    market.send(121, 150)
    found += taken(window, client, until=150)
    assert found == list(range(1, 151))
    assert (window.has_gap("AAA"), window.counts["refilled"] >= 70) == (False, True)
    assert window.quote_gap_ns("AAA") is None


def test_emptied_redis_without_a_landing_is_a_gap(client, window):
    publish(client, {"trades": [trade(k, k) for k in range(1, 51)]})
    found = taken(window, client, until=50)
    publish(client, {"trades": [trade(k, k) for k in range(51, 61)]})
    client.flushall()
    publish(client, {"trades": [trade(k, k) for k in range(61, 81)]})
    start = time.monotonic()
    found += taken(window, client, until=80)
    assert 2 <= time.monotonic() - start < 10
    assert found == [*range(1, 51), *range(61, 81)]
    assert window.has_gap("AAA")


def test_killed_redis_is_an_error_until_it_is_back_and_then_all_is_there(settings, server, client, window, market):
    market.send(1, 50)
    found = taken(window, client, until=50)
    market.send(51, 90)
    until(lambda: client.xlen(STREAM) == 90)
    psutil.Process(client.info("server")["process_id"]).kill()
    until(lambda: server._process.poll() is not None)
    with pytest.raises(redis.RedisError):
        window.read(client)
    market.send(91, 120)
    server.start()
    with live_store.connect(settings) as again:
        found += taken(window, again, until=120)
    assert found == list(range(1, 121))
    assert not window.has_gap("AAA")


def test_an_opening_that_saw_more_than_the_stream_brought_goes_on_without_a_gap(client, window, market):
    window.hold(["AAA"])
    market.send(1, 80)
    until(lambda: client.xlen(STREAM) == 80)
    window.read(client)
    market.send(81, 100)
    window.adopt("AAA", Position(90, None, None))  # what it read of the landing was not in the Stream yet
    market.send(101, 120)
    assert taken(window, client, until=120) == list(range(91, 121))
    assert not window.has_gap("AAA")


def test_nonsense_among_good_entries_hurts_none_of_them(client, window):
    rng = random.Random(5)
    nonsense = [b"null", b"{", b"\xff", b"[1]", payload(trade(1, price="x")), payload(trade(1, size=-1.0)), b"{}"]
    good, sent = 0, []
    while good < 3_000:
        if rng.random() < 0.5:
            sent.append(rng.choice(nonsense))
        else:
            good += 1
            sent.append(trade(good, good))
    for start in range(0, len(sent), 500):
        publish(client, {"trades": sent[start : start + 500]})
    assert taken(window, client, until=good) == list(range(1, good + 1))
    assert window.counts["malformed"] == len(sent) - good


def test_a_burst_of_ten_times_the_rate_is_all_there(client, settings):
    names = [f"S{k:02d}" for k in range(50)]
    window = Window(settings.model_copy(update={"instruments": instruments(*names)}), names)
    window.read(client)
    for symbol in names:  # 20,000 trades and as many quotes, in one cycle
        rows = range(1, 401)
        entries = {"trades": [trade(k, 10 * k + 5, symbol=symbol) for k in rows]}
        publish(client, entries | {"quotes": [quote(k, 10 * k, symbol=symbol) for k in rows]}, symbol=symbol)
    start = time.process_time()
    window.read(client)
    found = window.take(time.time_ns())
    assert time.process_time() - start < 5
    assert ids(found) == list(range(1, 401)) * 50
    window.read(client)
    assert found.quotes.height + window.take(time.time_ns()).quotes.height == 20_000
    assert window.counts["overtaken"] == window.counts["duplicates"] == 0
    window.close()
