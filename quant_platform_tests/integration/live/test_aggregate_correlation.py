"""Correlations from lists of bars in a real Redis, and those that others have discovered; numpy is the oracle."""

import json
import threading
from concurrent.futures import wait
from datetime import date

import numpy as np
import pytest
from structlog.testing import capture_logs

from quant_platform.calculators import cross_asset
from quant_platform.feeds.recorded import Wanted
from quant_platform.live import _aggregate_bars
from quant_platform.live._market import Market
from quant_platform.live.aggregate import Aggregator
from quant_platform.storage import redis_keys
from quant_platform.storage.live_store import Batch
from quant_platform_tests.integration.live.aggregate_keys import (
    CORRELATION,
    DISCOVERED,
    MARKET,
    MINUTE,
    NOW,
    SECTORS,
    SUMMARY,
    correlation_of,
    put_bars,
    put_vpin,
)

ALL = {"portfolio", "sectors", "correlation"}


def test_correlations_are_of_the_lists_of_bars(client, written):
    a, b = [1.0, 1.1, 1.05, 1.2, 1.15], [2.0, 2.1, 2.15, 2.3, 2.2]
    put_bars(client, "A", a)
    put_bars(client, "B", b)
    found = written({"correlation"}, CORRELATION)
    assert found["symbols"] == ["A", "B", "C"]
    assert found["matrix"][0] == [1.0, correlation_of(a, b), None]
    assert found["matrix"][2] == [None, None, None]
    assert found["pairs"] == [[4, 4, 0], [4, 4, 0], [0, 0, 0]]
    assert found["high_pairs"] == ([["A", "B"]] if found["matrix"][0][1] >= 0.8 else [])
    assert (found["flag"], found["source"], found["ts"]) == (0.8, "computed", MARKET + 5 * MINUTE)
    assert set(redis_keys.CORRELATION.fields) == set(found)


def test_pairs_above_the_threshold_are_listed_whichever_their_sign(client, written):
    a = [1.0, 1.1, 1.05, 1.2, 1.15]
    put_bars(client, "A", a)
    put_bars(client, "B", [3 * x for x in a])
    put_bars(client, "C", [1 / x for x in a])
    assert written({"correlation"}, CORRELATION)["high_pairs"] == [["A", "B"], ["A", "C"], ["B", "C"]]


def test_new_bars_are_read_as_they_come_and_old_ones_leave_the_window(client, written):
    random = np.random.default_rng(1)
    a, b = (np.exp(random.standard_normal(12)).tolist() for _ in range(2))
    for stop in range(6, 13):
        start = 0 if stop == 6 else stop - 1
        put_bars(client, "A", a[start:stop], minute=start, seq=start + 1)
        put_bars(client, "B", b[start:stop], minute=start, seq=start + 1)
        found = written({"correlation"}, CORRELATION)
        assert found["matrix"][0][1] == correlation_of(a[max(0, stop - 8) : stop], b[max(0, stop - 8) : stop])
        assert found["pairs"][0][1] == min(stop, 8) - 1


def test_only_the_newest_entries_are_read_again(client, written):
    for symbol in SECTORS:
        put_bars(client, symbol, [1.0, 1.1, 1.05, 1.2, 1.15])
    written({"correlation"})
    put_bars(client, "A", [1.3], minute=5, seq=6)
    before = client.info("stats")["total_net_output_bytes"]
    written({"correlation"}, CORRELATION)
    payload = client.strlen(CORRELATION)
    read = client.info("stats")["total_net_output_bytes"] - before - payload
    entry = len(client.lindex("market:A:bars:1min", 0))
    assert read < 3 * 2 * entry + 6_000  # two entries a list, and what INFO itself says


def test_bars_that_were_missed_are_read_again(client, written):
    random = np.random.default_rng(2)
    a, b = (np.exp(random.standard_normal(8)).tolist() for _ in range(2))
    put_bars(client, "A", a[:3])
    put_bars(client, "B", b[:3])
    written({"correlation"})
    put_bars(client, "A", a[3:], minute=3, seq=4)
    put_bars(client, "B", b[3:], minute=3, seq=4)
    written({"correlation"})
    assert written({"correlation"}, CORRELATION)["matrix"][0][1] == correlation_of(a, b)


def test_lists_without_sequence_numbers_go_on_where_a_known_bar_is(client, written):
    random = np.random.default_rng(3)
    a, b = (np.exp(random.standard_normal(8)).tolist() for _ in range(2))
    for start, stop in ((0, 4), (4, 5), (5, 8)):
        for symbol, closes in (("A", a), ("B", b)):
            for k in range(start, stop):
                bar = {"ts_open": MARKET + k * MINUTE, "close": closes[k]}
                client.lpush(f"market:{symbol}:bars:1min", json.dumps(bar))
        written({"correlation"})
    assert written({"correlation"}, CORRELATION)["matrix"][0][1] == correlation_of(a, b)


def test_a_bar_that_the_collector_revises_is_revised_here(client, written):
    def line(trade_id, minute, price, symbol):
        time_ms = MARKET // 1_000_000 + round(minute * 60_000)
        data = {"e": "trade", "E": time_ms, "T": time_ms, "t": trade_id, "p": str(price), "q": "1", "m": False}
        message = {"stream": f"{symbol.lower()}usdt@trade", "data": data}
        return f"{(time_ms + 3) * 1_000_000} {json.dumps(message)}".encode()

    def collect(market, *lines):
        assert list(market.entries(list(lines)))
        with client.pipeline(transaction=False) as pipe:
            market.write(pipe, NOW, 60)
            is_listed = pipe.execute()[-1]
        if market.is_list_expected and not is_listed:
            market.lost()

    prices = {"A": [10.0, 11.0, 10.5, 12.0, 11.5, 11.6], "B": [7.0, 7.2, 7.1, 7.7, 7.3, 7.9]}
    markets = {}
    for symbol, closes in prices.items():
        wanted = Wanted(table="", symbol=symbol, venue_symbol=f"{symbol}USDT", date=date.min, venue="binance_usdm")
        markets[symbol] = Market(wanted)
        # The bar of the minute in which the tape begins, and that of the newest, are not in the list.
        collect(markets[symbol], line(1, -1, 1.0, symbol))
        for k, price in enumerate(closes):
            collect(markets[symbol], line(10 * (k + 1), k, price, symbol))
    assert written({"correlation"}, CORRELATION)["matrix"][0][1] == correlation_of(*(p[:5] for p in prices.values()))
    late = line(15, 0.5, 10.25, "A")  # of the oldest bar
    collect(markets["A"], late)
    collect(markets["A"], line(70, 6, 11.7, "A"))
    prices["A"][0] = 10.25
    written({"correlation"})
    assert written({"correlation"}, CORRELATION)["matrix"][0][1] == correlation_of(*(p[:5] for p in prices.values()))


@pytest.mark.parametrize("seed", range(5))
def test_lists_read_as_they_grow_and_are_revised_say_what_they_say_read_at_once(settings, client, written, seed):
    random = np.random.default_rng(seed)
    bars = {symbol: {} for symbol in SECTORS}
    sequences = dict.fromkeys(SECTORS, 0)

    def push(symbol, minutes):
        for minute in minutes:
            sequences[symbol] += 1
            put_bars(client, symbol, [bars[symbol][minute]], minute=minute, seq=sequences[symbol])

    for minute in range(30):
        for symbol, known in bars.items():
            if random.random() < 0.8:
                known[minute] = float(np.exp(random.standard_normal()))
                push(symbol, [minute])
            if known and random.random() < 0.15:
                known[int(random.choice(list(known)))] = float(np.exp(random.standard_normal()))
                client.delete(f"market:{symbol}:bars:1min")
                push(symbol, sorted(known))
        if random.random() < 0.6:
            written({"correlation"})
    written({"correlation"})
    kept = written({"correlation"}, CORRELATION)
    fresh, batch = Aggregator(settings, list(SECTORS)), Batch()
    fresh.add({"correlation"}, client, batch, NOW, MARKET)
    wait([fresh._computing])
    fresh.add((), client, batch, NOW, MARKET)
    batch.send(client)
    whole = json.loads(client.get(CORRELATION))
    assert kept["pairs"][0][1] > 0
    assert {name: kept[name] for name in ("matrix", "pairs", "ts")} == {
        name: whole[name] for name in ("matrix", "pairs", "ts")
    }


def test_whole_lists_are_read_some_a_call_and_correlations_wait_for_all(client, written, monkeypatch):
    monkeypatch.setattr(_aggregate_bars, "_LISTS_PER_READING", 1)
    for symbol in SECTORS:
        put_bars(client, symbol, [1.0, 1.1, 1.05, 1.2, 1.15])
    assert written({"correlation"}, CORRELATION) is None
    assert written(set(), CORRELATION) is None
    assert written(set(), CORRELATION)["pairs"] == [[4] * 3] * 3
    written(set(), CORRELATION)
    assert client.get(CORRELATION) is not None
    assert written(set(), CORRELATION)["seq"] == 1


def test_without_any_bar_no_correlations_are_written(client, written):
    assert written({"correlation"}, CORRELATION) is None
    put_bars(client, "A", [1.0, 1.1])
    assert written(set(), CORRELATION) is None
    written({"correlation"})
    assert written({"correlation"}, CORRELATION)["pairs"][0][0] == 1


def test_closes_outlive_their_lists(client, written):
    put_bars(client, "A", [1.0, 1.1, 1.05, 1.2])
    first = written({"correlation"}, CORRELATION)
    client.flushall()
    again = written({"correlation"}, CORRELATION)
    assert (again["matrix"], again["pairs"], again["seq"]) == (first["matrix"], first["pairs"], 2)


@pytest.mark.parametrize(
    "entry",
    [
        "null",
        "{",
        '{"ts_open": 1, "close": 1.0}',
        '{"ts_open": -60000000000, "close": 1.0}',
        '{"close": 1.0}',
        '{"ts_open": 0, "close": null}',
        '{"ts_open": 0, "close": "1"}',
    ],
)
def test_an_entry_that_is_no_bar_is_counted_and_skipped(client, written, aggregator, entry):
    a, b = [1.0, 1.1, 1.05, 1.2, 1.15], [2.0, 2.1, 2.15, 2.3, 2.2]
    put_bars(client, "A", a)
    client.linsert("market:A:bars:1min", "BEFORE", client.lindex("market:A:bars:1min", 2), entry)
    put_bars(client, "B", b)
    with capture_logs() as logs:
        assert written({"correlation"}, CORRELATION)["matrix"][0][1] == correlation_of(a, b)
    assert aggregator.counts["malformed"] == 1
    assert logs[0]["keys"] == ["market:A:bars:1min"]


def test_a_list_of_another_type_does_not_stop_the_others(client, written, aggregator):
    client.set("market:A:bars:1min", "x")
    put_bars(client, "B", [1.0, 1.1, 1.05, 1.2])
    put_vpin(client, "C", 0.5)
    assert written({"portfolio", "correlation"}, CORRELATION)["pairs"][1][1] == 3
    assert aggregator.counts["malformed"] == 1


def test_discovered_correlations_win_while_they_are_there(client, written):
    put_bars(client, "A", [1.0, 1.1, 1.05, 1.2])
    matrix = [[1, 0.9, None], [0.9, 1, -0.3], [None, -0.3, None]]
    client.set(DISCOVERED, json.dumps({"symbols": ["X", "Y", "Z"], "matrix": matrix}))
    found = written({"correlation"}, CORRELATION)
    assert (found["symbols"], found["matrix"], found["pairs"]) == (["X", "Y", "Z"], matrix, None)
    assert (found["high_pairs"], found["source"], found["ts"]) == ([["X", "Y"]], "discovered", MARKET)
    client.delete(DISCOVERED)
    assert written({"correlation"}, CORRELATION)["source"] == "computed"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("[]", "Expected `object`"),
        ('{"symbols": ["A"]}', "missing required field `matrix`"),
        ('{"symbols": [], "matrix": []}', "symbols must be named, each once"),
        ('{"symbols": ["A", "A"], "matrix": [[1, 0], [0, 1]]}', "symbols must be named, each once"),
        ('{"symbols": ["A", "B"], "matrix": [[1, 0]]}', "matrix must have 2 rows of 2 values"),
        ('{"symbols": ["A", "B"], "matrix": [[1, 0], [0]]}', "matrix must have 2 rows of 2 values"),
        ('{"symbols": ["A", "B"], "matrix": [[1, 1.1], [1.1, 1]]}', "from -1 to 1"),
        ('{"symbols": ["A", "B"], "matrix": [[1, 0.5], [0.4, 1]]}', "matrix must be symmetric"),
        ('{"symbols": ["A", "B"], "matrix": [[1, 0.5], [null, 1]]}', "matrix must be symmetric"),
        ('{"symbols": ["A", "B"], "matrix": [[0.9, 0.5], [0.5, 1]]}', "with itself must be 1 or null"),
    ],
)
def test_what_is_no_matrix_of_correlations_is_counted_named_once_and_ignored(
    client, written, aggregator, found, reason
):
    put_bars(client, "A", [1.0, 1.1, 1.05, 1.2])
    client.set(DISCOVERED, found)
    with capture_logs() as logs:
        assert written({"correlation"}, CORRELATION)["source"] == "computed"
        written({"correlation"})
    assert aggregator.counts["malformed"] == 2
    assert [log["keys"] for log in logs] == [[DISCOVERED]]
    assert reason in logs[0]["reason"]


def test_discovered_correlations_of_another_type_of_key_are_malformed(client, written, aggregator):
    put_bars(client, "A", [1.0, 1.1, 1.05, 1.2])
    client.lpush(DISCOVERED, "x")
    assert written({"correlation"}, CORRELATION)["source"] == "computed"
    assert aggregator.counts["malformed"] == 1


def test_rounded_correlations_are_taken(client, written):
    above, symbols = 1 + 1e-12, ["A", "B"]
    client.set(DISCOVERED, json.dumps({"symbols": symbols, "matrix": [[1, above], [1, 1]]}))
    assert written({"correlation"}, CORRELATION)["matrix"] == [[1.0, 1.0], [1.0, 1.0]]


def test_correlations_that_are_computed_keep_no_cycle_waiting(client, aggregator, monkeypatch):
    is_released = threading.Event()
    original = cross_asset.correlation_matrix

    def slow(*arguments):
        assert is_released.wait(10)
        return original(*arguments)

    monkeypatch.setattr(cross_asset, "correlation_matrix", slow)
    put_vpin(client, "A", 0.5)
    put_bars(client, "A", [1.0, 1.1])
    for _ in range(3):
        batch = Batch()
        aggregator.add(ALL, client, batch, NOW, MARKET)
        batch.send(client)
    assert json.loads(client.get(SUMMARY))["seq"] == 3
    assert not client.exists(CORRELATION)
    is_released.set()
    wait([aggregator._computing])
    aggregator.add((), client, batch := Batch(), NOW, MARKET)
    batch.send(client)
    assert json.loads(client.get(CORRELATION))["seq"] == 1
    assert aggregator._computing is not None  # what came due in the meantime
    wait([aggregator._computing])


def test_discovered_correlations_need_no_bars_and_may_all_be_null(client, written, monkeypatch):
    monkeypatch.setattr(_aggregate_bars, "_LISTS_PER_READING", 1)
    client.set(DISCOVERED, '{"symbols": ["X", "Y"], "matrix": [[null, null], [null, null]]}')
    found = written({"correlation"}, CORRELATION)
    assert (found["matrix"], found["source"]) == ([[None, None]] * 2, "discovered")
