"""What a symbol's channel makes of messages: each once, holes found, books begun anew. No socket, no disk."""

import asyncio
import json
from typing import Any

import pytest

from quant_platform.feeds.binance import decode
from quant_platform.live._channel import Channel
from quant_platform.live._holes import Hole, Noted
from quant_platform.settings import Instrument
from quant_platform.storage.landing import FIELDS, Entry
from quant_platform_tests.scripted_venue import START_MS, Venue

MS = 1_000_000
STREAMS = ("btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms")


def channel(*, last_trade: tuple[int, int] | None = None, holes: tuple[Hole, ...] = (), **more: Any) -> Channel:
    row = {"symbol": "BTC", "venue_symbol": "BTCUSDT", "feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    more = {"most_bytes": 1 << 20, "on_full": lambda: None} | more
    streams = more.pop("streams", STREAMS)
    return Channel(Instrument.model_validate(row), streams, last_trade=last_trade, holes=holes, **more)


def give(to: Channel, *payloads: bytes) -> None:
    for number, payload in enumerate(payloads):
        message = decode(payload)
        assert message.stream
        assert message.data
        to.handlers[message.stream](10**18 + number, payload, message.data)


def entries(of: Channel) -> list[Entry]:
    lines = of.take().lines
    return [Entry(*lines[i + 2 : i + FIELDS]) for i in range(0, len(lines), FIELDS)]


def payloads(of: Channel) -> list[bytes]:
    return of.take().lines[1::FIELDS]


def ids(of: Channel) -> list[int | None]:
    return [entry.first_id for entry in entries(of)]


def aggregate(first: int, last: int) -> bytes:
    return json.dumps({"stream": "btcusdt@aggTrade", "data": {"f": first, "l": last, "T": START_MS + first}}).encode()


@pytest.fixture
def venue() -> Venue:
    return Venue()


def test_the_first_trade_ever_has_no_hole_before_it(venue: Venue) -> None:
    btc = channel()
    give(btc, venue.trade_message(100), venue.trade_message(101))
    assert ids(btc) == [100, 101]
    assert not btc.holes


def test_a_trade_that_was_landed_before_the_start_is_dropped(venue: Venue) -> None:
    btc = channel(last_trade=(100, 5))
    give(btc, venue.trade_message(99), venue.trade_message(100), venue.trade_message(101))
    assert ids(btc) == [101]
    assert btc.duplicates == 2


def test_a_jump_is_a_hole_between_two_times(venue: Venue) -> None:
    btc = channel()
    give(btc, venue.trade_message(1), venue.trade_message(5))
    assert ids(btc) == [1, 5]
    assert [hole.noted for hole in btc.holes] == [Noted(2, 4, venue.ms(1) * MS, venue.ms(5) * MS)]
    assert btc.has_holes.is_set()


def test_a_jump_since_the_last_landed_trade_is_a_hole(venue: Venue) -> None:
    btc = channel(last_trade=(3, venue.ms(3) * MS))
    give(btc, venue.trade_message(6))
    assert [hole.noted for hole in btc.holes] == [Noted(4, 5, venue.ms(3) * MS, venue.ms(6) * MS)]


def test_what_was_late_fills_the_hole_and_leaves_nothing_to_tell(venue: Venue) -> None:
    btc = channel()
    give(btc, *(venue.trade_message(i) for i in (1, 4, 3, 2, 3, 5)))
    assert ids(btc) == [1, 4, 3, 2, 5]
    assert btc.duplicates == 1
    btc.tell(btc.holes[0])
    assert entries(btc) == []


def test_holes_are_told_where_what_came_is_not(venue: Venue) -> None:
    btc = channel()
    give(btc, venue.trade_message(1), venue.trade_message(5), venue.trade_message(3))
    btc.take()
    btc.tell(btc.holes[0])
    lines = [json.loads(payload)["data"] for payload in payloads(btc)]
    times = {"ts_start": venue.ms(1) * MS, "ts_end": venue.ms(5) * MS, "filled_by": None}
    assert lines == [{"first_id": 2, "last_id": 2, **times}, {"first_id": 4, "last_id": 4, **times}]
    assert not btc.holes


def test_aggregates_are_continuous_by_their_first_and_last_ids() -> None:
    agg = channel(streams=("btcusdt@aggTrade",))
    give(agg, aggregate(1, 3), aggregate(4, 4), aggregate(4, 4), aggregate(8, 9))
    assert [entry[1:] for entry in entries(agg)] == [(1, 3), (4, 4), (8, 9)]
    assert agg.duplicates == 1
    assert [hole.missing for hole in agg.holes] == [[(5, 7)]]
    assert agg.last_trade_id == 9


@pytest.mark.parametrize(
    "data",
    [
        {"t": None, "T": START_MS},
        {"T": START_MS},
        {"t": 2, "T": None, "E": None},
        {"t": 3_000_000_000, "T": START_MS},  # no market trades as often between two messages
    ],
)
def test_what_has_no_credible_id_or_time_is_landed_and_moves_nothing(venue: Venue, data: dict[str, Any]) -> None:
    btc = channel()
    odd = json.dumps({"stream": "btcusdt@trade", "data": data}).encode()
    give(btc, venue.trade_message(1), odd, venue.trade_message(2))
    assert payloads(btc) == [venue.trade_message(1), odd, venue.trade_message(2)]
    assert btc.undecodable == 1
    assert not btc.holes


def test_quotes_are_kept_once_by_their_update_id(venue: Venue) -> None:
    btc = channel()
    first, second = venue.quote(), venue.quote()
    give(btc, first, second, first, second)
    assert payloads(btc) == [first, second]


def test_the_book_begins_with_a_snapshot_and_after_each_break(venue: Venue) -> None:
    btc = channel()

    def wants(*payloads: bytes) -> bool:
        btc.wants_snapshot.clear()
        give(btc, *payloads)
        return btc.wants_snapshot.is_set()

    first, second = venue.depth(), venue.depth()
    assert wants(first)
    assert not wants(second)
    assert not wants(first, second)  # the overlap of two connections
    venue.update_id += 10
    assert wants(venue.depth())
    assert not wants(venue.depth())


def test_the_book_begins_anew_on_each_utc_date(venue: Venue) -> None:
    btc = channel()
    midnight_ms = 1_723_248_000_000  # 2024-08-10
    give(btc, venue.depth(ms=midnight_ms - 1))
    btc.wants_snapshot.clear()
    give(btc, venue.depth(ms=midnight_ms))
    assert btc.wants_snapshot.is_set()


def test_a_spot_book_is_continuous_where_u_follows_u() -> None:
    btc = channel()

    def diff(first: int, final: int) -> bytes:
        data = {"e": "depthUpdate", "E": START_MS, "U": first, "u": final, "b": [], "a": []}
        return json.dumps({"stream": STREAMS[2], "data": data}).encode()

    give(btc, diff(5, 7))
    btc.wants_snapshot.clear()
    give(btc, diff(8, 8))
    assert not btc.wants_snapshot.is_set()
    give(btc, diff(10, 11))
    assert btc.wants_snapshot.is_set()
    # 9 lies between: a snapshot at 8 does not reach the diff from 10 on, one at 9 does.
    assert not btc.snapshot(b'{"lastUpdateId":8,"bids":[],"asks":[]}')
    assert btc.snapshot(b'{"lastUpdateId":9,"bids":[],"asks":[]}')
    assert len(entries(btc)) == 5


def test_an_answer_that_is_no_snapshot_is_landed_and_not_enough() -> None:
    btc = channel()
    assert not btc.snapshot(b"<html>")
    assert btc.undecodable == 1


def test_lines_are_taken_once_with_their_bytes_and_the_holes_behind_them(venue: Venue) -> None:
    btc = channel()
    payloads = [venue.trade_message(1), venue.trade_message(3)]
    give(btc, *payloads)
    batch = btc.take()
    assert batch.payload_bytes == sum(map(len, payloads)) == btc.bytes_waiting
    assert [hole.first_id for hole in batch.holes] == [2]
    assert btc.take().lines == []
    btc.landed(batch.payload_bytes)
    assert btc.bytes_waiting == 0


def test_too_much_that_waits_is_said(venue: Venue) -> None:
    calls: list[bool] = []
    btc = channel(most_bytes=1_000, on_full=lambda: calls.append(True))
    give(btc, *(venue.trade() for _ in range(5)))
    assert not calls
    give(btc, *(venue.trade() for _ in range(5)))
    assert calls


def test_lag_is_negative_where_our_clock_is_behind(venue: Venue) -> None:
    btc = channel()
    assert btc.lag_ms is None
    message = decode(venue.trade_message(1))
    assert message.data
    btc.handlers["btcusdt@trade"]((venue.ms(1) - 5_000) * MS, b"", message.data)
    assert btc.lag_ms == -5_000


def test_a_clock_that_jumps_back_changes_no_order(venue: Venue) -> None:
    btc = channel()
    for ts_recv, trade_id in ((10**18, 1), (10**18 - 5 * 10**9, 2), (10**18 + 1, 3)):
        payload = venue.trade_message(trade_id)
        message = decode(payload)
        assert message.data
        btc.handlers["btcusdt@trade"](ts_recv, payload, message.data)
    assert ids(btc) == [1, 2, 3]


def test_open_holes_of_an_earlier_collector_are_looked_after_at_once() -> None:
    left = Hole(Noted(2, 3, 1, 2))

    async def scenario() -> bool:
        return channel(last_trade=(9, 1), holes=(left,)).has_holes.is_set()

    assert asyncio.run(scenario())
