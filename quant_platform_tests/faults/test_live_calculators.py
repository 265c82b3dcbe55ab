"""A live writer whose calculators fail, and symbols that give them nothing: the others are served as ever.

The writer runs in this process, over a real Redis; a calculator is made to raise.
"""

import pytest
from structlog.testing import capture_logs

from quant_platform.calculators import flow_clusters, order_book, vpin
from quant_platform.live import _auctions
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import live_store, redis_keys
from quant_platform.storage.live_store import Server
from quant_platform_tests.served import cycles_until, heartbeat, payload, seconds, writer
from quant_platform_tests.streamed import NOON, instruments, publish

SYMBOLS = ["AAA", "BBB", "CCC"]
NS = 1_000_000_000


@pytest.fixture
def server(tmp_path):
    settings = Settings(home=tmp_path)
    with Server(settings):
        yield live_store.address(settings)


@pytest.fixture
def client(server):
    with live_store.connect(Settings(redis_url=server)) as client:
        yield client


@pytest.fixture
def live(tmp_path, server):
    one = writer(tmp_path, server, *instruments(*SYMBOLS))
    yield one
    one.close()


def send(client, first, last, symbols=SYMBOLS, streams=("trades", "quotes", "depth")):
    for symbol in symbols:
        rows = seconds(first, last, NOON + first * NS, symbol)
        publish(client, {stream: rows[stream] for stream in streams}, symbol=symbol)


def serve(live, client, first, last):
    """Publish rows of all symbols, and return when they were stepped: the order book's are, whatever trades do."""
    send(client, first, last)
    cycles_until(live, lambda: all(payload(client, redis_keys.OBI, s).get("sequence", 0) >= last for s in SYMBOLS))


def raised(*_):
    raise ValueError("it cannot be")


def test_a_family_that_fails_again_and_again_is_counted_named_and_logged(live, client, monkeypatch):
    serve(live, client, 1, 30)
    assert sum(heartbeat(client)["error_counts"].values()) == 0
    monkeypatch.setattr(flow_clusters, "step", raised)
    with capture_logs() as logs:
        for first in range(31, 111, 10):
            serve(live, client, first, first + 9)
    beat = heartbeat(client)
    assert beat["error_counts"]["flow_clustering"] >= 3
    assert sum(beat["error_counts"].values()) == beat["error_counts"]["flow_clustering"]
    assert "a calculator failed" in {log["event"] for log in logs}
    assert beat["last_updates"]["vpin"] > beat["last_updates"]["flow_clustering"]
    for symbol in SYMBOLS:  # one update waits for the next: it may be the last trade's turn
        assert payload(client, redis_keys.VPIN, symbol)["last_trade_id"] >= 109
        assert payload(client, redis_keys.VPIN, symbol)["has_gap"] is False
        assert payload(client, redis_keys.FLOW_CLUSTERS, symbol).get("last_trade_id", 0) <= 30  # left to its end


def test_three_heartbeats_with_a_growing_count_are_a_log_error_and_end_with_it(live, client, monkeypatch):
    serve(live, client, 1, 30)
    number = 30
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(order_book, "step", raised)
        while not heartbeat(client)["failing"]:
            assert number < 60, "in vain"
            number += 1
            send(client, number, number)
            live.cycle()
            live.cycle() if number == 31 else None
    assert heartbeat(client)["failing"] == ["order_book"]
    assert [log["family"] for log in logs if log["event"] == "a calculator fails again and again"] == ["order_book"]
    serve(live, client, number + 1, number + 5)
    assert heartbeat(client)["failing"] == []


def test_a_family_that_fails_in_each_of_its_rare_turns_is_named_too(tmp_path, server, client, monkeypatch):
    live = writer(tmp_path, server, *instruments("AAA"), update_intervals={"flow_clustering": 1.0})  # each second cycle
    try:
        send(client, 1, 30, ["AAA"])
        cycles_until(live, lambda: payload(client, redis_keys.FLOW_CLUSTERS).get("last_trade_id", 0) >= 29)
        monkeypatch.setattr(flow_clusters, "step", raised)
        for number in range(31, 45):
            send(client, number, number, ["AAA"])
            live.cycle()
        assert heartbeat(client)["error_counts"]["flow_clustering"] >= 4
        assert heartbeat(client)["failing"] == ["flow_clustering"]
    finally:
        live.close()


def test_the_key_of_a_family_that_fails_is_left_to_its_end(live, client, monkeypatch):
    serve(live, client, 1, 30)
    cycles_until(live, lambda: payload(client, redis_keys.VPIN).get("last_trade_id", 0) >= 30)
    monkeypatch.setattr(vpin, "step", raised)
    serve(live, client, 31, 60)
    sequence = payload(client, redis_keys.VPIN)["seq"]
    serve(live, client, 61, 90)
    assert payload(client, redis_keys.VPIN)["seq"] == sequence
    assert heartbeat(client)["error_counts"]["vpin"] >= 2


def test_a_closing_auction_that_cannot_be_computed_stops_nothing(tmp_path, server, client, monkeypatch):
    row = {"feed": "recorded_lean", "tick_size": 0.01, "lot_size": 1, "calendar": "XNYS"}
    live = writer(tmp_path, server, Instrument(symbol="AAA", venue_symbol="AAA", **row))
    try:
        friday = 1_709_931_480 * NS  # date -u -d 2024-03-08T20:58 +%s
        publish(client, seconds(1, 30, friday))
        cycles_until(live, lambda: payload(client, redis_keys.VPIN).get("last_trade_id", 0) >= 29)
        monkeypatch.setattr(_auctions, "closing_imbalance", raised)
        publish(client, seconds(31, 60, friday + 30 * NS))
        for _ in range(6):
            live.cycle()
        assert payload(client, redis_keys.VPIN)["last_trade_id"] >= 59
        assert heartbeat(client)["error_counts"]["moc"] >= 1
    finally:
        live.close()


def test_a_symbol_without_trades_has_what_quotes_and_books_feed_and_hurts_nobody(live, client):
    send(client, 1, 40, ["AAA", "BBB"])
    send(client, 1, 40, ["CCC"], ["quotes", "depth"])
    cycles_until(live, lambda: all(payload(client, redis_keys.OBI, symbol) for symbol in SYMBOLS))
    cycles_until(live, lambda: payload(client, redis_keys.VPIN).get("last_trade_id", 0) >= 39)
    for key in redis_keys.METRICS:
        assert bool(payload(client, key, "CCC")) == (key is redis_keys.OBI), key.metric
    assert sum(heartbeat(client)["error_counts"].values()) == 0
    cycles_until(live, lambda: payload(client, redis_keys.PORTFOLIO).get("vpin_count") == 2)
