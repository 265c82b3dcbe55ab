"""One symbol's keys as people read them, from a real Redis: what is there, what is not, and why."""

import json

import pytest

from quant_platform.live.keys_view import snapshot
from quant_platform.settings import Instrument
from quant_platform.storage import redis_keys

NOW_NS = 1_723_118_400_000_000_000
S = 1_000_000_000
ROW = {"venue_symbol": "A", "feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
CHAIN = {"feed": "deribit", "venue_symbol": "BTC"}
HEARTBEAT = {
    "ts_written": NOW_NS - S // 2,
    "running": True,
    "state": "active",
    "cadence_hz": 2.0,
    "error_counts": {"vpin": 0, "order_book": 3},
    "overruns": 1,
    "cycle_ms": 12.3456,
}


@pytest.fixture
def row(client):
    """Return what is said of one key; `calendar` is the instrument's."""

    def found(key, calendar="24/7"):
        instrument = Instrument(symbol="A.P", **ROW, calendar=calendar, chain=CHAIN)
        (one,) = [row for row in snapshot(client, instrument, NOW_NS).rows if row.key == key.name("A.P")]
        return one

    return found


def put(client, key, **fields):
    payload = dict.fromkeys(key.fields) | {"ts": NOW_NS - 2 * S, "ts_written": NOW_NS - S, "status": "ok"} | fields
    text = json.dumps(payload)
    match key.type:
        case redis_keys.KeyType.STREAM:
            client.xadd(key.name("A.P"), {redis_keys.STREAM_FIELD: text})
        case redis_keys.KeyType.LIST:
            client.lpush(key.name("A.P"), text)
        case redis_keys.KeyType.STRING:
            client.set(key.name("A.P"), text)
    client.expire(key.name("A.P"), 60)


@pytest.mark.parametrize(
    ("key", "fields", "says"),
    [
        (
            redis_keys.TRADES,
            {"price": 61800.3, "size": 0.5, "aggressor": -1},
            "price 61,800.30 · size 0.5 · aggressor sell",
        ),
        (
            redis_keys.TICKER,
            {"last": 61800, "bid": 999.9, "volume": 0.001},
            "last 61,800.00 · bid 999.9 · ask – · volume 0.001",
        ),
        (redis_keys.BOOK, {"bids": [[99.5, 2], [99, 1]], "asks": []}, "bids 99.5 × 2 · asks –"),
        (redis_keys.VPIN, {"vpin": 0.3456, "cdf": 0.9, "level": "moderate"}, "vpin 34.6% · cdf 90.0% · level moderate"),
        (redis_keys.VPIN, {"status": "too_few", "is_warm": False}, "vpin – · cdf – · level – · too_few · not warm"),
        (
            redis_keys.OBI,
            {"l1": -0.5, "l5": 0, "velocity": 0.25, "depth_status": "ok"},
            "l1 -50.0% · l5 0.0% · velocity +0.25 per s",
        ),
        (redis_keys.OBI, {"l1": 1, "depth_status": "no_depth"}, "l1 100.0% · l5 – · velocity – · no_depth"),
        (
            redis_keys.SWEEP,
            {"side": 1, "notional": 1234567.891, "has_gap": True},
            "side buy · notional 1,234,567.89 · trades are missing",
        ),
        (
            redis_keys.GEX,
            {"gex_net": -2_345_678.9, "gex_gross": 5e6, "zero_gamma": 99.5, "has_gap": True},
            "gex net -2,345,678.90 · gex gross 5,000,000.00 · zero gamma 99.5 · z score – · contracts are missing",
        ),
        (
            redis_keys.SKEW,
            {"skew": 0.1, "headline_expiry": "2024-08-23", "status": "no_valid_contracts"},
            "skew 0.1 · skew ratio – · headline expiry 2024-08-23 · z score – · no_valid_contracts",
        ),
        (
            redis_keys.OPTION_CHAIN,
            {"venue": "deribit", "underlying_price": 101},
            "venue deribit · underlying price 101",
        ),
        (redis_keys.HIDDEN, {"hidden": False, "hidden_volume": 0}, "hidden no · hidden volume 0"),
    ],
)
def test_what_is_there_is_told_in_its_units_with_its_ages(client, row, key, fields, says):
    put(client, key, **fields)
    one = row(key)
    assert one.is_there
    assert one.says == says
    assert (one.age_s, one.written_age_s) == (2.0, 1.0)
    assert 59 < one.ttl_s <= 60


def test_the_newest_entry_of_a_stream_and_of_a_list_counts(client, row):
    for price in (1.0, 2.0):
        put(client, redis_keys.TRADES, price=price)
        put(client, redis_keys.BARS_1MIN, close=price)
    assert "price 2 " in row(redis_keys.TRADES).says
    assert "close 2 " in row(redis_keys.BARS_1MIN).says


@pytest.mark.parametrize("foreign", ["null", "[1]", "not JSON", "\udcff".encode("utf-8", "surrogateescape")])
def test_what_is_no_object_is_not_there(client, row, foreign):
    client.set("analytics:A.P:vpin", foreign)
    client.set("market:A.P:ticker", foreign)
    assert {row(key)[1:] for key in (redis_keys.VPIN, redis_keys.TICKER)} == {
        (False, "holds no JSON object", None, None, None)
    }


def test_another_type_of_value_does_not_hide_the_others(client, row):
    client.set("market:A.P:trades", "a string")
    put(client, redis_keys.VPIN, vpin=0.5)
    assert row(redis_keys.TRADES).says.startswith("cannot be read: WRONGTYPE")
    assert row(redis_keys.VPIN).is_there


def test_why_a_key_is_missing(client, row):
    assert row(redis_keys.VPIN).says == "the writer is not running"
    assert row(redis_keys.MOC).says == "none for a 24/7 symbol"
    assert row(redis_keys.MOC, calendar="XNYS").says == "the writer is not running"
    assert row(redis_keys.TRADES).says == "the collector is not running, or does not capture this symbol"
    client.set("heartbeat:analytics", json.dumps(HEARTBEAT))
    assert row(redis_keys.VPIN).says == "its market is not heard"
    assert row(redis_keys.OBI).says == "its calculator has failed 3 times"
    put(client, redis_keys.TRADES, price=1.0)
    assert row(redis_keys.VPIN).says == "not computed yet"
    assert row(redis_keys.BOOK).says == "nothing has come yet"
    client.set("heartbeat:analytics", json.dumps(HEARTBEAT | {"opening_symbols": 2}))
    assert row(redis_keys.VPIN).says == "not computed yet, symbols are being opened"
    client.set("heartbeat:analytics", json.dumps(HEARTBEAT | {"running": False}))
    assert row(redis_keys.VPIN).says == "the writer is not running"


def test_why_a_key_of_options_is_missing(client, row):
    assert row(redis_keys.OPTION_CHAIN).says == "no chain has come: its feed is not polled, or does not answer"
    assert row(redis_keys.GEX).says == "the writer is not running"
    client.set("heartbeat:analytics", json.dumps(HEARTBEAT | {"error_counts": {"gex_dex": 2}}))
    put(client, redis_keys.TRADES, price=1.0)
    assert row(redis_keys.SKEW).says == "there is no chain"
    put(client, redis_keys.OPTION_CHAIN, underlying_price=5)
    assert row(redis_keys.SKEW).says == "not computed yet"
    assert row(redis_keys.DEX).says == "its calculator has failed 2 times"


def test_a_symbol_with_options_has_their_rows_too(client):
    rows = snapshot(client, Instrument(symbol="A.P", **ROW, chain=CHAIN), NOW_NS).rows
    names = [key.name("A.P") for key in (redis_keys.OPTION_CHAIN, *redis_keys.OPTION_METRICS)]
    assert [row.key for row in rows][-len(names) :] == names


def test_every_key_of_a_symbol_has_a_row(client):
    instrument = Instrument(symbol="A.P", **ROW)
    rows = snapshot(client, instrument, NOW_NS).rows
    assert [row.key for row in rows] == [key.name("A.P") for key in (*redis_keys.MARKET_KEYS, *redis_keys.METRICS)]
    assert not any(row.is_there for row in rows)


def test_the_writer_in_one_line(client):
    instrument = Instrument(symbol="A.P", **ROW)
    assert snapshot(client, instrument, NOW_NS).writer == "The writer is not running: there is no heartbeat."
    client.set("heartbeat:analytics", json.dumps(HEARTBEAT))
    assert snapshot(client, instrument, NOW_NS).writer == (
        "Writer active at 2 Hz, cycle 12.3456 ms, 1 overruns, heartbeat 0.5 s old, errors: order_book 3"
    )
    client.set("heartbeat:analytics", json.dumps(HEARTBEAT | {"running": False}))
    assert snapshot(client, instrument, NOW_NS).writer == "The writer has stopped."
    client.set("heartbeat:analytics", "{}")
    assert "errors: none" in snapshot(client, instrument, NOW_NS).writer
