"""What a line says of itself; expected figures are read off the messages, which are Binance's own documented shapes."""

import gzip
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quant_platform.feeds import binance
from quant_platform.feeds.binance import NOTHING, describe, oddity
from quant_platform.settings import Instrument, SettingsError, Sources
from quant_platform.storage.landing import Entry

MS = 1_000_000


def instrument(feed: str = "binance_usdm", **more: object) -> Instrument:
    row = {"symbol": "BTC", "venue_symbol": "BTCUSDT", "feed": feed, "tick_size": 0.1, "lot_size": 0.001}
    return Instrument.model_validate(row | more)


@pytest.mark.parametrize(
    ("payload", "entry"),
    [
        (
            (
                b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256321,"s":"BTCUSDT",'
                b'"t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}'
            ),
            Entry(1723161256321 * MS, 5266583935, 5266583935),
        ),
        (
            b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":5,"a":9,"p":"1","q":"2","f":40,"l":42,"T":4}}',
            Entry(4 * MS, 40, 42),
        ),
        (
            b'{"stream":"btcusdt@aggTrade","data":{"a":9,"p":"1","q":"2","f":40,"l":42,"T":4,"m":true},"refill":true}',
            Entry(4 * MS, 40, 40),
        ),
        (
            b'{"stream":"btcusdt@trade","data":{"t":7,"p":"1","q":"2","T":4,"m":true},"refill":true}',
            Entry(4 * MS, 7, 7),
        ),
        (b'{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}}', NOTHING),
        (
            b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":6,"T":5,"U":1,"u":2,"pu":0,"b":[],"a":[]}}',
            Entry(5 * MS, None, None),
        ),
        (b'{"lastUpdateId":9,"E":7,"T":6,"bids":[["1","2"]],"asks":[]}', Entry(6 * MS, None, None)),
        (b'{"lastUpdateId":9,"bids":[["1","2"]],"asks":[]}', NOTHING),
        (
            b'{"stream":"btcusdt@gap","data":{"first_id":3,"last_id":5,"ts_start":70,"ts_end":80,"filled_by":null}}',
            Entry(80, 3, 5),
        ),
        # Spot in microseconds: the same instant as 1735689600000 ms.
        (b'{"stream":"btcusdt@trade","data":{"T":1735689600000000,"t":1}}', Entry(1735689600000 * MS, 1, 1)),
        (b'{"stream":"btcusdt@trade","data":{"T":null,"t":null,"p":null}}', NOTHING),
        (b'{"stream":"btcusdt@trade","data":{"T":99999999999999,"t":1}}', Entry(None, 1, 1)),
        (b'{"stream":"btcusdt@trade","data":{"T":"4","t":1}}', NOTHING),
        (b'{"stream":"btcusdt@trade","data":{"T":4,"t":-1}}', NOTHING),
        (b'{"stream":"btcusdt@trade","data":{"T":4,"t":9223372036854775808}}', NOTHING),
        (b'{"stream":"btcusdt@trade","data":{"T":4,"t":1', NOTHING),
        (b'{"result":null,"id":1}', NOTHING),
        (b"[]", NOTHING),
        (b"\x00\xff\xfe", NOTHING),
        (b'{"stream":"\xff"}', NOTHING),
        (b'{"x":' + b"[" * 100_000, NOTHING),
    ],
)
def test_describe(payload: bytes, entry: Entry) -> None:
    assert describe(payload) == entry


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b'{"stream":"btcusdt@trade","data":{"T":4,"id":1}}', "Object missing `t` - at `$.data`"),
        (b'{"stream":"btcusdt@aggTrade","data":{"l":4}}', "Object missing `f`, `T` - at `$.data`"),
        (b'{"stream":"btcusdt@depth@100ms","data":{"u":4}}', "Object missing `U` - at `$.data`"),
        (b'{"stream":"btcusdt@trade","data":{"T":4,"t":"1"}}', "Expected `int | null`, got `str` - at `$.data.t`"),
        (b'{"stream":"btcusdt@trade"}', "Object missing required field `data`"),
        (b'{"stream":"btcusdt@aggTrade","data":{"f":9,"l":4,"T":4}}', "Its ids or its time are not credible"),
        (b"[]", "Expected `object`, got `array`"),
    ],
)
def test_oddity_names_the_field(payload: bytes, told: str) -> None:
    assert oddity(payload) == told


@given(st.binary())
@example(b"")
def test_describe_never_raises_and_stays_in_64_bits(payload: bytes) -> None:
    assert all(value is None or 0 <= value < 2**63 for value in describe(payload))


def test_describe_knows_every_recorded_line(real_data: Path) -> None:
    path = real_data / "binance_frames_hft" / "usdm_btcusdt_20240808.part1.jsonl.gz"
    with gzip.open(path) as file:
        entries = [describe(line.partition(b" ")[2]) for line in file]
    # The folder's manifest: 43,286 lines; the file holds 7,032 trades, without a hole.
    assert len(entries) == 43_286
    assert all(entry.ts_event is not None for entry in entries)
    ids = [entry.first_id for entry in entries if entry.first_id is not None]
    assert ids == list(range(ids[0], ids[0] + 7_032))


def test_streams_of_an_instrument() -> None:
    names = binance.streams(instrument(), depth_interval_ms=100)
    assert names == ["btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms"]


def test_streams_of_a_tape_of_aggregates_and_an_interval_without_a_name() -> None:
    names = binance.streams(instrument(tape="aggTrades"), depth_interval_ms=250)
    assert names == ["btcusdt@aggTrade", "btcusdt@bookTicker", "btcusdt@depth"]


def test_streams_leave_out_what_another_live_feed_brings_but_not_what_is_recorded() -> None:
    names = binance.streams(instrument(sources=Sources(book="binance_spot")), depth_interval_ms=100)
    assert names == ["btcusdt@trade", "btcusdt@bookTicker"]
    names = binance.streams(instrument(sources=Sources(book="recorded_frames")), depth_interval_ms=100)
    assert names == ["btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms"]


def test_streams_of_a_feed_that_is_not_live_is_refused_with_the_symbol() -> None:
    with pytest.raises(SettingsError, match="BTC comes from recorded_lobster, which cannot be captured"):
        binance.streams(instrument("recorded_lobster"), depth_interval_ms=100)


def test_streams_of_an_interval_that_the_venue_lacks_is_refused() -> None:
    with pytest.raises(SettingsError, match="binance_spot has 100, 1000, not 250"):
        binance.streams(instrument("binance_spot"), depth_interval_ms=250)


def test_aggregates_are_had_at_an_entrance_of_their_own() -> None:
    public = "wss://fstream.binance.com/public"
    assert binance.entrance(public, "btcusdt@aggTrade") == "wss://fstream.binance.com/market"
    assert binance.entrance(public, "btcusdt@trade") == public
    assert binance.entrance("wss://stream.binance.com:9443/", "a@aggTrade") == "wss://stream.binance.com:9443"


def test_gap_line_says_of_itself_what_it_was_given() -> None:
    line = binance.gap_line("BTCUSDT", (3, 5), ts_start=70, ts_end=80, filled_by="aggTrades")
    assert line == (
        b'{"stream":"btcusdt@gap","data":{"first_id":3,"last_id":5,"ts_start":70,"ts_end":80,"filled_by":"aggTrades"}}'
    )
    assert describe(line) == Entry(80, 3, 5)
