"""Connections to a real server: how many, when they are given up, and when the next one is opened."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from websockets.exceptions import InvalidURI

from quant_platform.feeds.binance import decode
from quant_platform.feeds.binance_stream import Streams
from quant_platform.settings import BinanceFeed
from quant_platform_tests.scripted_venue import Venue, until

TRADES = ["btcusdt@trade"]


class Kept:
    """A receiver that keeps everything."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.reconnects: list[Sequence[str]] = []

    def receive(self, payload: bytes, names: Sequence[str]) -> str | None:
        assert names
        self.payloads.append(payload)
        return decode(payload).stream

    def reconnected(self, names: Sequence[str]) -> None:
        self.reconnects.append(names)


@asynccontextmanager
async def streaming(
    venue: Venue, names: Sequence[str], *, silence_s: float = 20.0, renew_s: float = 3600.0, **settings: object
) -> AsyncIterator[tuple[Kept, asyncio.Event]]:
    kept, has_room = Kept(), asyncio.Event()
    has_room.set()
    streams = Streams(venue.feed(**settings), silence_s=silence_s, renew_s=renew_s, receiver=kept, has_room=has_room)
    task = asyncio.create_task(streams.run(names))
    try:
        await venue.connected()
        yield kept, has_room
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_streams_are_spread_over_as_many_connections_as_they_need() -> None:
    names = [f"s{n}@trade" for n in range(5)]

    async def scenario() -> list[list[str]]:
        async with Venue() as venue, streaming(venue, names, streams_per_connection=2):
            await venue.connected(3)
            return sorted(streams for _, streams in venue.connections)

    assert asyncio.run(scenario()) == [["s0@trade", "s1@trade"], ["s2@trade", "s3@trade"], ["s4@trade"]]


def test_messages_come_as_bytes_in_their_order() -> None:
    async def scenario() -> None:
        async with Venue() as venue, streaming(venue, TRADES) as (kept, _):
            sent = [venue.trade() for _ in range(500)]
            await venue.send(*sent)
            await until(lambda: len(kept.payloads) == 500)
            assert kept.payloads == sent

    asyncio.run(scenario())


def test_a_silent_connection_is_replaced_though_it_pings() -> None:
    async def scenario() -> None:
        async with Venue() as venue, streaming(venue, TRADES, silence_s=0.5) as (kept, _):
            await venue.send(venue.trade())
            connection = venue.connections[0][0]
            start = time.monotonic()
            while venue.opened == 1:
                assert time.monotonic() - start < 5
                with contextlib.suppress(Exception):
                    await (await connection.ping())  # answered, and yet no data
                await asyncio.sleep(0.05)
            assert time.monotonic() - start >= 0.4
            await venue.connected()
            await venue.send(venue.trade())
            await until(lambda: len(kept.payloads) == 2)
            assert kept.reconnects == [TRADES]

    asyncio.run(scenario())


def test_a_busy_connection_is_not_silent() -> None:
    async def scenario() -> int:
        async with Venue() as venue, streaming(venue, TRADES, silence_s=0.3):
            for _ in range(15):
                await venue.send(venue.trade())
                await asyncio.sleep(0.05)
            return venue.opened

    assert asyncio.run(scenario()) == 1


def test_a_connection_of_age_is_closed_after_the_next_one_brings_data() -> None:
    async def scenario() -> None:
        async with Venue() as venue, streaming(venue, TRADES, renew_s=0.5) as (kept, _):
            old = venue.connections[0][0]
            await venue.connected(2)
            sent = venue.trade()
            await venue.send(sent)  # over both
            await until(lambda: old.close_code is not None)
            assert kept.payloads == [sent, sent]
            assert kept.reconnects == []

    asyncio.run(scenario())


def test_a_connection_that_ends_is_opened_again_at_once() -> None:
    async def scenario(how: str) -> float:
        async with Venue() as venue, streaming(venue, TRADES) as (kept, _):
            connection = venue.connections[0][0]
            start = time.monotonic()
            if how == "frame":
                await connection.close(1001, "maintenance")
            else:
                connection.transport.abort()
            await until(lambda: venue.opened == 2)
            took_s = time.monotonic() - start
            await until(lambda: kept.reconnects == [TRADES])
            return took_s

    assert asyncio.run(scenario("frame")) < 2
    assert asyncio.run(scenario("abrupt")) < 2


def test_a_venue_that_drops_every_connection_is_asked_less_and_less_often() -> None:
    async def scenario() -> int:
        async with Venue() as venue, streaming(venue, TRADES):
            end = time.monotonic() + 2.0
            while time.monotonic() < end:
                for connection, _ in list(venue.connections):
                    connection.transport.abort()
                await asyncio.sleep(0.01)
            return venue.opened

    # Waits of at least 0.1, 0.2, 0.4, 0.8 and 1.6 s: in two seconds five openings.
    assert 2 <= asyncio.run(scenario()) <= 5


def test_a_venue_that_comes_up_late_is_found() -> None:
    async def scenario() -> None:
        async with Venue() as venue:
            port = venue.port
        waiting, kept, has_room = Venue(port=port), Kept(), asyncio.Event()
        streams = Streams(waiting.feed(), silence_s=20, renew_s=3600, receiver=kept, has_room=has_room)
        task = asyncio.create_task(streams.run(TRADES))
        await asyncio.sleep(0.5)
        async with waiting:
            await waiting.connected()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_nothing_is_read_while_there_is_no_room_and_that_is_no_silence() -> None:
    async def scenario() -> None:
        async with Venue() as venue, streaming(venue, TRADES, silence_s=0.3) as (kept, has_room):
            has_room.clear()
            await venue.send(*(venue.trade() for _ in range(100)))
            await asyncio.sleep(1.0)
            assert len(kept.payloads) <= 1
            assert venue.opened == 1
            has_room.set()
            await until(lambda: len(kept.payloads) == 100)

    asyncio.run(scenario())


def test_an_address_that_is_none_is_said_at_once() -> None:
    feed = BinanceFeed(ws_url="https://none", rest_url="http://none", archive_url="file:///none")

    async def scenario() -> None:
        Streams(feed, silence_s=1, renew_s=1, receiver=Kept(), has_room=asyncio.Event())

    with pytest.raises(InvalidURI):
        asyncio.run(scenario())
