"""A burst of ten times the normal rate through the whole live writer: nothing is lost, and the lag ends with it.

The writer runs in this process, over a real Redis.
"""

import json
import time

import pytest

from quant_platform.live.writer import Writer
from quant_platform.settings import Settings
from quant_platform.storage import live_store, redis_keys
from quant_platform.storage.live_store import Server
from quant_platform_tests.streamed import book, instruments, payload, quote, trade

SYMBOLS = ["AAA", "BBB", "CCC"]
NORMAL, BURST = 100, 1_000  # trades of a symbol in a cycle
CYCLES = [*[NORMAL] * 8, *[BURST] * 5, *[NORMAL] * 12]
BUCKET = 50.0
STEP_MS = 2.0
TRADED = {
    redis_keys.VPIN: "last_trade_id",
    redis_keys.TOXICITY: "last_trade_id",
    redis_keys.RETAIL_FLOW: "last_trade_id",
    redis_keys.HIDDEN: "trade_id",
    redis_keys.FLOW_CLUSTERS: "last_trade_id",
}


@pytest.fixture
def settings(tmp_path):
    chosen = tuple(one.model_copy(update={"default_bucket_size": BUCKET}) for one in instruments(*SYMBOLS))
    often = {"update_intervals": {"flow_clustering": 2.0, "vpin": 1.0}, "archive_every_s": 3_600}
    return Settings(home=tmp_path, instruments=chosen, analytics=often)


@pytest.fixture
def client(settings):
    with Server(settings), live_store.connect(settings) as client:
        yield client


def publish(client, first, last):
    """Add quotes, trades and books of all symbols with these numbers, in one go, as a publisher does."""
    pipe = client.pipeline(transaction=False)
    for symbol in SYMBOLS:
        for number in range(first, last + 1):
            at = STEP_MS * number
            rows = {"quotes": quote(number, at, symbol=symbol), "trades": trade(number, at + 1, symbol=symbol)}
            if number % 10 == 0:
                rows["depth"] = book(number, at, symbol=symbol, seq=number // 10)
            for stream, row in rows.items():
                pipe.xadd(f"market:{symbol}:{stream}", {"data": payload(row)})
    pipe.execute()


def reached(client, key, field):
    payloads = [json.loads(client.get(key.name(symbol)) or b"{}") for symbol in SYMBOLS]
    return [found.get(field) or 0 for found in payloads]


def test_a_burst_of_ten_times_the_rate_is_served_whole_and_is_over_when_it_is_over(settings, client):
    writer, last, behind = Writer(settings, SYMBOLS), 0, []
    try:
        publish(client, 1, NORMAL)
        deadline = time.monotonic() + 20
        while min(reached(client, redis_keys.VPIN, "last_trade_id")) < NORMAL - 1:
            assert time.monotonic() < deadline, "not opened"
            writer.cycle()
            time.sleep(0.01)
        last = NORMAL
        for count in CYCLES:
            publish(client, last + 1, last + count)
            last += count
            writer.cycle()
            behind.append(last - min(reached(client, redis_keys.VPIN, "last_trade_id")))
        for _ in range(8):  # each family's turn, once more
            writer.cycle()
        for key, field in TRADED.items():
            assert reached(client, key, field) == [last] * 3, key.metric
            assert not any(reached(client, key, "has_gap")), key.metric
        # A trade is 1 large, so that the buckets count them.
        assert reached(client, redis_keys.VPIN, "buckets_filled") == [last // BUCKET] * 3
        beat = json.loads(client.get(redis_keys.HEARTBEAT.name()))
        assert sum(beat["error_counts"].values()) == 0
        assert beat["malformed"] == 0
    finally:
        writer.close()
    # A value says how far it reaches, and so how late it is: two cycles, which are many trades while the burst lasts.
    assert 2 * NORMAL < max(behind[8:13]) <= 2 * BURST
    assert max(behind[-6:]) <= 2 * NORMAL
