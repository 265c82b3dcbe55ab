"""The market keys of frames written by hand, in a real Redis. What its failures do stands in faults/."""

import itertools
import json
import time

import pytest

from quant_platform.live.market_keys import Publisher
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import redis_keys

MIDNIGHT_MS = 1_723_075_200_000  # date -u -d 2024-08-08 +%s000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
NOON_MS = MIDNIGHT_MS + DAY_MS // 2
NS = 1_000_000
DELAY_MS = 3


def line(payload, time_ms):
    return f"{(time_ms + DELAY_MS) * NS} {json.dumps(payload, separators=(',', ':'))}".encode()


def trade(ident, time_ms=NOON_MS, *, price="100.0", size="1", maker=False, name="aaausdt"):
    data = {"e": "trade", "E": time_ms, "T": time_ms, "t": ident, "p": price, "q": size, "m": maker}
    return line({"stream": f"{name}@trade", "data": data}, time_ms)


def ticker(ident, time_ms=NOON_MS, *, bid="99.9", ask="100.1"):
    data = {"u": ident, "b": bid, "B": "2.5", "a": ask, "A": "2.6", "T": time_ms, "E": time_ms}
    return line({"stream": "aaausdt@bookTicker", "data": data}, time_ms)


def snapshot(last_id, time_ms=NOON_MS):
    sides = {"bids": [["99", "1"], ["98", "2"]], "asks": [["101", "3"]]}
    return line({"lastUpdateId": last_id, "E": time_ms, "T": time_ms} | sides, time_ms)


def depth(previous_id, last_id, time_ms=NOON_MS, *, bids=(), asks=()):
    data = {"E": time_ms, "T": time_ms, "U": previous_id + 1, "u": last_id, "pu": previous_id, "b": bids, "a": asks}
    return line({"stream": "aaausdt@depth@100ms", "data": data}, time_ms)


@pytest.fixture(scope="module")
def settings(server):
    row = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    instruments = (
        Instrument(symbol="AAA.P", venue_symbol="AAAUSDT", **row),
        Instrument(symbol="BBB", venue_symbol="BBBUSDT", **row),
    )
    return Settings(home=server.home, instruments=instruments)


@pytest.fixture
def publish(settings, client):
    """Return a function that puts lines of AAA.P and returns when they are written."""
    publisher = Publisher(settings)
    marks = itertools.count(1)

    def written(*lines, to=publisher):
        to.put("AAA.P", list(lines))
        for mark in itertools.islice(marks, 2):  # the second is parsed after all that the first's cycle wrote
            to.put("BBB", [trade(mark, name="bbbusdt")])
            until(lambda mark=mark: mark in {entry["trade_id"] for entry in stream(client, "market:BBB:trades")})
        return to

    yield written
    publisher.stop()


def until(condition, timeout_s=30):
    latest = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < latest, "in vain"
        time.sleep(0.01)


def stream(client, key):
    return [json.loads(fields[b"data"]) for _, fields in client.xrange(key)]


def string(client, key):
    return json.loads(client.get(key))


def names(client, symbol):
    return {name.decode() for name in client.scan_iter(f"market:{symbol}:*")}


def bar_list(client):
    return [json.loads(bar) for bar in client.lrange("market:AAA.P:bars:1min", 0, -1)]


def test_every_key_has_its_type_its_fields_and_an_end(publish, client):
    before = time.time_ns()
    publish(snapshot(10), ticker(1), trade(1, NOON_MS - 1), trade(2), trade(3, NOON_MS + MINUTE_MS))
    for key in redis_keys.MARKET_KEYS:
        name = key.name("AAA.P")
        assert client.type(name).decode() == key.type
        assert 50 < client.ttl(name) <= 60
        match key.type:
            case redis_keys.KeyType.STREAM:
                payloads = stream(client, name)
            case redis_keys.KeyType.LIST:
                payloads = bar_list(client)
            case _:
                payloads = [string(client, name)]
        assert payloads
        for payload in payloads:
            assert tuple(payload) == key.fields
            assert payload["symbol"] == "AAA.P"
            assert before < payload["ts_written"] < time.time_ns()
    assert names(client, "AAA.P") == {key.name("AAA.P") for key in redis_keys.MARKET_KEYS}


def test_entries_are_the_rows_of_the_tables(publish, client):
    publish(trade(7, maker=True, price="61800.3"), ticker(5, NOON_MS + 1), snapshot(10, NOON_MS + 2))
    publish(trade(8, NOON_MS + 4), depth(10, 11, NOON_MS + 5, bids=[["99.5", "4"]], asks=[["101", "0"]]))
    when = lambda ms: {"ts": ms * NS, "ts_event": ms * NS, "ts_recv": (ms + DELAY_MS) * NS, "venue": "binance_usdm"}  # noqa: E731

    trades, quotes, books = (stream(client, f"market:AAA.P:{name}") for name in ("trades", "quotes", "depth"))
    for payload in (*trades, *quotes, *books):
        payload.pop("ts_written")
    one = {"trade_id": 7, "first_trade_id": 7, "last_trade_id": 7, "price": 61800.3, "size": 1.0, "aggressor": -1}
    two = {"trade_id": 8, "first_trade_id": 8, "last_trade_id": 8, "price": 100.0, "size": 1.0, "aggressor": 1}
    named = {"symbol": "AAA.P"}
    assert trades == [when(NOON_MS) | named | {"seq": 1} | one, when(NOON_MS + 4) | named | {"seq": 2} | two]
    quote = {"bid_price": 99.9, "bid_size": 2.5, "ask_price": 100.1, "ask_size": 2.6, "sequence": 5}
    assert quotes == [when(NOON_MS + 1) | named | {"seq": 1, "is_ts_event_assumed": False} | quote]
    assert [(b["seq"], b["sequence"], b["ts"]) for b in books] == [
        (1, 10, (NOON_MS + 2) * NS),
        (2, 11, (NOON_MS + 5) * NS),
    ]
    assert [books[1][f"bid_{what}_{i}"] for i in range(1, 5) for what in ("price", "size")] == [
        *(99.5, 4.0),
        *(99.0, 1.0),
        *(98.0, 2.0),
        *(None, None),
    ]
    assert books[1]["ask_price_1"] is None


def test_ticker_and_book_are_the_latest(publish, client):
    publish(trade(1, price="100.5", size="2"))
    first = string(client, "market:AAA.P:ticker")
    assert (first["last"], first["bid"], first["volume"], first["last_trade_id"]) == (100.5, None, 2.0, 1)
    assert client.get("market:AAA.P:book") is None

    publish(snapshot(10, NOON_MS + 1), ticker(5, NOON_MS + 9), trade(2, NOON_MS + 5, price="101", size="0.5"))
    latest = string(client, "market:AAA.P:ticker")
    assert latest | {"ts_written": 0, "seq": 0} == {
        "ts_written": 0,
        "ts": (NOON_MS + 9) * NS,
        "seq": 0,
        "symbol": "AAA.P",
        "last_trade_id": 2,
        "last": 101.0,
        "bid": 99.9,
        "ask": 100.1,
        "volume": 2.5,
        "volume_since": NOON_MS * NS,
    }
    assert latest["seq"] > first["seq"]
    book = string(client, "market:AAA.P:book")
    assert (book["ts"], book["sequence"]) == ((NOON_MS + 1) * NS, 10)
    assert (book["bids"], book["asks"]) == ([[99.0, 1.0], [98.0, 2.0]], [[101.0, 3.0]])


def test_book_says_that_it_is_not_known_where_the_sequence_broke(publish, client):
    publish(snapshot(10), depth(12, 13, NOON_MS + 1, bids=[["99.5", "4"]]))
    book = string(client, "market:AAA.P:book")
    assert (book["bids"], book["asks"], book["sequence"]) == ([], [], 13)

    publish(snapshot(20, NOON_MS + 2))
    assert string(client, "market:AAA.P:book")["bids"] == [[99.0, 1.0], [98.0, 2.0]]


def test_a_refilled_trade_counts_but_is_not_the_last(publish, client):
    publish(trade(1, NOON_MS, price="100"), trade(4, NOON_MS + 4, price="104"))
    refilled = {"a": 9, "p": "102", "q": "5", "f": 2, "l": 3, "T": NOON_MS + 2, "m": False}
    publish(line({"stream": "aaausdt@aggTrade", "data": refilled, "refill": True}, NOON_MS + 9))
    latest = string(client, "market:AAA.P:ticker")
    assert (latest["last"], latest["last_trade_id"], latest["volume"]) == (104.0, 4, 7.0)
    assert [(e["trade_id"], e["last_trade_id"]) for e in stream(client, "market:AAA.P:trades")] == [
        (1, 1),
        (4, 4),
        (2, 3),
    ]


def test_volume_is_the_dates(publish, client):
    late = MIDNIGHT_MS + DAY_MS - 10
    publish(trade(1, late, size="3"), trade(2, late + 5, size="4"))
    assert string(client, "market:AAA.P:ticker")["volume"] == 7.0
    assert string(client, "market:AAA.P:ticker")["volume_since"] == late * NS

    publish(trade(3, late + 9, size="5"), trade(4, late + 10, size="0.5"), trade(5, late + 99, size="0.25"))
    assert string(client, "market:AAA.P:ticker")["volume"] == 0.75
    assert string(client, "market:AAA.P:ticker")["volume_since"] == (MIDNIGHT_MS + DAY_MS) * NS


def test_closed_bars_of_whole_minutes_newest_first(publish, client):
    publish(trade(1, NOON_MS + 30_000, price="1000"))  # of this minute only a part came
    publish(
        trade(2, NOON_MS + MINUTE_MS, price="100", size="1"),
        trade(3, NOON_MS + MINUTE_MS + 1, price="103", size="2", maker=True),
        trade(4, NOON_MS + 2 * MINUTE_MS - 1, price="101", size="1"),
        trade(5, NOON_MS + 2 * MINUTE_MS, price="110", size="4"),
        trade(6, NOON_MS + 2 * MINUTE_MS + 5, price="109", size="1"),
    )
    (bar,) = bar_list(client)
    assert {name: bar[name] for name in ("open", "high", "low", "close", "volume", "vwap")} == {
        "open": 100.0,
        "high": 103.0,
        "low": 100.0,
        "close": 101.0,
        "volume": 4.0,
        "vwap": (100 + 206 + 101) / 4,
    }
    assert (bar["buy_volume"], bar["sell_volume"], bar["trade_count"], bar["revision"]) == (2.0, 2.0, 3, 0)
    assert (bar["ts_open"], bar["ts"]) == ((NOON_MS + MINUTE_MS) * NS, (NOON_MS + 2 * MINUTE_MS) * NS)
    assert (bar["ts_known"], bar["last_trade_id"]) == ((NOON_MS + 2 * MINUTE_MS + DELAY_MS - 1) * NS, 4)

    publish(ticker(1, NOON_MS + 3 * MINUTE_MS))  # the market's time closes a bar, not the next trade alone
    assert [(b["close"], b["volume"], b["last_trade_id"]) for b in bar_list(client)] == [
        (109.0, 5.0, 6),
        (101.0, 4.0, 4),
    ]


def test_late_trade_revises_a_closed_bar(publish, client):
    minutes = [NOON_MS + i * MINUTE_MS for i in range(5)]
    publish(*(trade(i, ms, price=str(100 + i)) for i, ms in enumerate(minutes, start=1)))
    assert [bar["close"] for bar in bar_list(client)] == [104.0, 103.0, 102.0]

    publish(trade(9, minutes[2] + 7, price="150"))
    assert [(bar["close"], bar["revision"]) for bar in bar_list(client)] == [(104.0, 0), (150.0, 1), (102.0, 0)]


def test_list_and_streams_are_capped(publish, client):
    publish(*(trade(i, NOON_MS + i * 2_400) for i in range(1, 10_501)))  # 420 minutes
    assert [bar["ts_open"] // NS for bar in bar_list(client)] == [
        NOON_MS + i * MINUTE_MS for i in range(419, 419 - 390, -1)
    ]
    trades = stream(client, "market:AAA.P:trades")
    assert 10_000 <= len(trades) < 10_200
    assert [entry["trade_id"] for entry in trades] == list(range(10_501 - len(trades), 10_501))

    publish(trade(20_000, NOON_MS + 422 * MINUTE_MS))
    bars = bar_list(client)
    assert (len(bars), bars[0]["ts_open"] // NS) == (390, NOON_MS + 420 * MINUTE_MS)


def test_next_publisher_goes_on_with_the_list(publish, client, settings):
    minutes = [NOON_MS + i * MINUTE_MS for i in range(10)]
    first = publish(*(trade(i, ms) for i, ms in enumerate(minutes[:4])))
    first.stop()
    second = Publisher(settings)
    try:
        publish(*(trade(i, minutes[i] + 30_000) for i in range(4, 8)), to=second)
    finally:
        second.stop()
    opened = [(bar["ts_open"] // NS - NOON_MS) // MINUTE_MS for bar in bar_list(client)]
    assert opened == [6, 5, 2, 1]  # the third minute was open when the first ended, the fourth when the second began


def test_lines_that_are_no_frames_and_symbols_that_are_none_hurt_nobody(publish, client):
    publisher = publish(b"\xff\x00 nonsense", b"", line({"stream": "other@trade"}, NOON_MS), trade(1))
    publisher.put("NONE", [trade(1)])
    publish(trade(2))
    assert [entry["trade_id"] for entry in stream(client, "market:AAA.P:trades")] == [1, 2]
    until(lambda: publisher.status().failed_batches == 1)
    assert publisher.status()._replace(failed_batches=0, waiting_bytes=0) == ("", 0, 0, 0, 0, 0)


def test_stop_writes_what_waits(settings, client):
    publisher = Publisher(settings)
    publisher.put("AAA.P", [trade(1), trade(2)])
    publisher.stop()
    assert [entry["trade_id"] for entry in stream(client, "market:AAA.P:trades")] == [1, 2]
    publisher.put("AAA.P", [trade(3)])
    assert client.xlen("market:AAA.P:trades") == 2


def test_keys_end_when_nothing_comes(settings, client):
    publisher = Publisher(settings, ttl_s=1)
    publisher.put("AAA.P", [snapshot(10), ticker(1), *(trade(i, NOON_MS + i * MINUTE_MS) for i in range(4))])
    until(lambda: len(names(client, "AAA.P")) == 6)
    until(lambda: not names(client, "AAA.P"))
    publisher.put("AAA.P", [trade(4, NOON_MS + 3 * MINUTE_MS + 1)])
    until(lambda: len(bar_list(client)) == 2)
    publisher.stop()
