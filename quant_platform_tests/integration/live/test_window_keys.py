"""What a window finds under the keys: Streams, a user's own lists and strings in their place, and bad entries."""

import json
import time

import pytest
import redis
from structlog.testing import capture_logs

from quant_platform.live import _window_keys
from quant_platform.live.window import Window
from quant_platform.settings import Settings
from quant_platform.storage import live_store
from quant_platform.storage.live_store import Server
from quant_platform_tests.streamed import DELAY, MS, NOON, book, both, ids, instruments, payload, publish, quote, trade

LATER = NOON + 3_600_000 * MS
TRADES, QUOTES, BOOK, TICKER = (f"market:AAA:{name}" for name in ("trades", "quotes", "book", "ticker"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    settings = Settings(home=tmp_path_factory.mktemp("home"), instruments=instruments("AAA", "BBB"))
    with Server(settings):
        yield settings


@pytest.fixture
def window(server):
    window = Window(server, ["AAA", "BBB"])
    yield window
    window.close()


def read(window, client):
    """Read, and take all: nothing waits for what may be on its way."""
    window.read(client)
    return both(window, LATER)


def without(row, *names):
    return {name: value for name, value in row.items() if name not in names}


BAD = {
    "no JSON": b"{",
    "null": b"null",
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
    "not UTF-8": b"\xff\x00",
    "two objects": payload(trade(2)) * 2,
    "deep": b'{"price":' + b"[" * 5_000,
    "a text for a price": payload(trade(2, price="100")),
    "a fraction for an id": payload(trade(2, trade_id=2.5)),
    "a boolean for a size": payload(trade(2, size=True)),
    "an id beyond 64 bits": payload(trade(2, trade_id=2**70)),
    "a price that is no number": payload(trade(2, price=float("nan"))),
    "a price without end": payload(trade(2)).replace(b"100.0", b"1e999"),
    "no price": payload(without(trade(2), "price")),
    "no id": payload(without(trade(2), "trade_id")),
    "a price of zero": payload(trade(2, price=0.0)),
    "a size below zero": payload(trade(2, size=-1.0)),
    "another side": payload(trade(2, aggressor=7)),
    "ids backwards": payload(trade(2, last=1)),
    "an id below zero": payload(trade(-2)),
    "no time": payload(trade(2, ts_event=None)),
    "another symbol": payload(trade(2, symbol="BBB")),
    "a time far ahead": payload(trade(2, ts_event=time.time_ns() + 7_200 * 10**9)),
}


@pytest.mark.parametrize("entry", BAD.values(), ids=BAD)
def test_a_bad_entry_is_counted_named_and_skipped(window, client, entry):
    publish(client, {"trades": [trade(1), entry, trade(2)]})
    with capture_logs() as logs:
        assert ids(read(window, client)) == [1, 2]
    assert window.counts["malformed"] == 1
    (warning,) = [log for log in logs if log["log_level"] == "warning"]
    assert (warning["symbol"], warning["times"]) == ("AAA", 1)
    assert warning["reason"].startswith("market/trades: ")


def test_an_entry_without_data_is_bad(window, client):
    client.xadd(TRADES, {"other": "1"})
    client.xadd(TRADES, {"more": "1", "data": payload(trade(1))})
    assert ids(read(window, client)) == [1]
    assert window.counts["malformed"] == 1


def test_bad_quotes_and_books_do_not_hurt_the_good(window, client):
    upside_down = book(2, 2, bid_price_2=99.5, bid_size_2=1.0)
    publish(client, {"quotes": [quote(1), quote(2, 2), quote(3, 3, bid_price="x")], "depth": [book(1), upside_down]})
    chunk = read(window, client)
    assert chunk.quotes["sequence"].to_list() == [1, 2]
    assert chunk.books["sequence"].to_list() == [1]
    assert window.counts["malformed"] == 2


def test_what_may_be_left_out_is_filled_in(window, client):
    before = time.time_ns()
    left_out = ("ts_written", "ts", "seq", "symbol", "venue", "ts_recv", "first_trade_id", "last_trade_id")
    publish(client, {"trades": [without(trade(5), *left_out)]})
    (row,) = read(window, client).trades.iter_rows(named=True)
    assert (row["symbol"], row["venue"], row["first_trade_id"], row["last_trade_id"]) == ("AAA", "binance_usdm", 5, 5)
    assert before <= int(row["ts_recv"].timestamp() * 1e9) + 1_000 <= time.time_ns() + 1_000


def test_lists_are_read_newest_first_and_left_as_they_are(window, client):
    client.lpush(TRADES, *map(payload, (trade(1), trade(2))))
    client.lpush(QUOTES, *map(payload, (without(quote(7), "seq", "is_ts_event_assumed"), quote(8, 1))))
    chunk = read(window, client)
    assert (ids(chunk), chunk.quotes["sequence"].to_list()) == ([1, 2], [7, 8])
    assert ids(read(window, client)) == []
    client.lpush(TRADES, *(payload(trade(k)) for k in range(3, 400)))
    client.ltrim(TRADES, 0, 389)
    assert ids(read(window, client)) == []
    window.read(client)
    assert client.llen(TRADES) == 390
    assert window.counts["duplicates"] == 0


def test_the_numbers_in_a_list_are_the_users_own(window, client):
    client.lpush(QUOTES, payload(quote(1, 1, seq=10)), payload(quote(2, 2, seq=90)))
    assert read(window, client).quotes.height == 2
    assert window.counts["lost_quotes"] == 0


def test_a_list_that_grew_by_more_than_is_looked_at_is_read_whole(window, client):
    client.lpush(TRADES, payload(trade(1)), b"null")
    window.read(client)
    client.lpush(TRADES, *(payload(trade(k)) for k in range(2, 1_000)))
    assert ids(read(window, client)) == list(range(1, 1_000))
    client.lpush(TRADES, b"null", payload(trade(1_000)))
    assert ids(read(window, client)) == [1_000]
    assert (window.counts["malformed"], window.counts["duplicates"]) == (2, 0)


def test_ticker_and_book_stand_in_where_there_is_no_stream(window, client):
    client.set(TICKER, json.dumps({"last": 100.5, "bid": 99.0, "ask": 101.0, "volume": 5.0}))
    client.set(BOOK, json.dumps({"bids": [[99, 1], [98, 2]], "asks": [[101, 3]], "sequence": 40}))
    before = time.time_ns()
    chunk = read(window, client)
    (row,) = chunk.quotes.iter_rows(named=True)
    assert (row["bid_price"], row["bid_size"], row["ask_price"], row["sequence"]) == (99.0, None, 101.0, 1)
    (row,) = chunk.books.iter_rows(named=True)
    assert [row[f"bid_{what}_{n}"] for n in (1, 2, 3) for what in ("price", "size")] == [99, 1, 98, 2, None, None]
    assert (row["ask_price_1"], row["ask_size_1"], row["sequence"]) == (101, 3, 40)
    assert before < chunk.books["ts_event"].to_physical()[0] < time.time_ns()

    assert read(window, client).quotes.is_empty()  # nothing changed
    client.set(TICKER, json.dumps({"last": 100.6, "bid": None, "ask": None}))
    client.set(BOOK, "null")
    assert all(rows.is_empty() for rows in read(window, client))
    assert window.counts["malformed"] == 1
    client.set(TICKER, json.dumps({"bid": 99.5, "ask": None, "ts": time.time_ns() + DELAY}))
    assert read(window, client).quotes.select("bid_price", "ask_price").rows() == [(99.5, None)]


def test_ticker_and_book_beside_a_stream_are_not_read(window, client):
    client.set(TICKER, json.dumps({"bid": 1.0, "ask": 2.0}))
    publish(client, {"trades": [trade(1)]})
    chunk = read(window, client)
    assert (ids(chunk), chunk.quotes.height) == ([1], 0)


def test_another_type_is_told_and_the_other_keys_are_read(window, client):
    publish(client, {"trades": [trade(1)]})
    window.read(client)
    client.hset(QUOTES, mapping={"a": "b"})
    client.lpush("market:BBB:trades", payload(trade(9, symbol="BBB")))
    publish(client, {"trades": [trade(2)]})
    assert ids(read(window, client)) == [1, 2, 9]
    assert window.counts["wrong_type"] == 1
    client.delete(QUOTES)
    publish(client, {"quotes": [quote(1)], "trades": [trade(3)]})
    assert ids(read(window, client)) == [3]


def test_a_symbol_may_begin_with_a_list_later(window, client, monkeypatch):
    read(window, client)
    client.set("market:BBB:ticker", json.dumps({"bid": 1.0, "ask": 2.0}))
    assert read(window, client).quotes.is_empty()
    monkeypatch.setattr(_window_keys, "_TYPES_AGAIN_S", 0.0)
    assert read(window, client).quotes["symbol"].to_list() == ["BBB"]


def test_a_stream_that_begins_anew_with_lower_ids_is_read(window, client):
    client.xadd(TRADES, {"data": payload(trade(1))}, id="9000000000000-0")
    assert ids(read(window, client)) == [1]
    client.delete(TRADES)
    client.xadd(TRADES, {"data": payload(trade(1))}, id="8000000000000-0")
    client.xadd(TRADES, {"data": payload(trade(2))}, id="8000000000000-1")
    assert ids(read(window, client)) == [2]
    assert window.counts["duplicates"] == 1


def test_a_stream_that_ended_is_read_when_it_begins(window, client):
    client.xadd(TRADES, {"data": payload(trade(1))}, id="9000000000000-0")
    read(window, client)
    client.delete(TRADES)
    read(window, client)
    client.xadd(TRADES, {"data": payload(trade(2))}, id="5-0")
    assert ids(read(window, client)) == [2]


def test_of_many_streams_the_newest_entries_are_where_it_begins(server, client, monkeypatch):
    monkeypatch.setattr(_window_keys, "_MOST_ENTRIES", 30)
    monkeypatch.setattr(_window_keys, "_FEWEST_ENTRIES", 5)
    publish(client, {"trades": [trade(k) for k in range(1, 101)]})
    window = Window(server, ["AAA", "BBB"])
    assert ids(read(window, client)) == [96, 97, 98, 99, 100]
    publish(client, {"trades": [trade(k) for k in range(101, 121)]})
    assert ids(read(window, client)) == list(range(101, 121))
    window.close()


def test_an_error_half_way_loses_nothing(window, client, server):
    publish(client, {"trades": [trade(1)]})
    client.lpush("market:BBB:trades", payload(trade(9, symbol="BBB")))
    read(window, client)
    publish(client, {"trades": [trade(2)]})
    with live_store.connect(server) as failing:
        commands = []

        def pipelined(client, those, answered=_window_keys._pipelined):
            commands.extend(those)
            if those and those[0][0] == b"LRANGE":
                raise redis.ConnectionError("gone")
            return answered(client, those)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_window_keys, "_pipelined", pipelined)
            with pytest.raises(redis.ConnectionError):
                window.read(failing)
    assert any(command[0] == b"XREAD" for command in commands)
    assert ids(read(window, client)) == [2]


@pytest.mark.parametrize("protocol", [2, 3])
def test_both_protocols(window, server, protocol):
    path = live_store.address(server).removeprefix("unix://")
    with redis.Redis(unix_socket_path=path, protocol=protocol) as client:
        client.flushall()
        publish(client, {"trades": [trade(1)], "quotes": [quote(1)]})
        assert ids(read(window, client)) == [1]
        publish(client, {"trades": [trade(2)]})
        assert ids(read(window, client)) == [2]
