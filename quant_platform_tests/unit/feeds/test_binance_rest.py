"""Requests against a real server: what is asked, what comes back, and how patient it is."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import pytest

from quant_platform.feeds.binance_rest import Rest, VenueError
from quant_platform_tests.scripted_venue import Scripted, Venue

T = TypeVar("T")


def asked(venue: Venue, ask: Callable[[Rest], Awaitable[T]], **settings: object) -> T:
    async def scenario() -> T:
        async with venue, Rest("binance_usdm", venue.feed(**settings), attempts=4, first_wait_s=0.05) as rest:
            return await ask(rest)

    return asyncio.run(scenario())


def test_aggregates_come_as_they_stand_with_their_ids() -> None:
    venue = Venue()
    venue.made["BTCUSDT"] = 8
    first, second = asked(venue, lambda rest: rest.aggregates_from("BTCUSDT", 1))
    assert (first.first_id, first.last_id, first.aggregate_id) == (4, 6, 1)
    assert first.ts_event == venue.ms(4) * 1_000_000
    assert msgspec.json.decode(first.line) == {
        "stream": "btcusdt@aggTrade",
        "data": venue.aggregate(1),
        "refill": True,
    }
    assert (second.first_id, second.last_id) == (7, 8)
    assert venue.asked[0].query == {"symbol": "BTCUSDT", "fromId": "1", "limit": "1000"}


def test_aggregates_since_ask_for_less_than_an_hour() -> None:
    venue = Venue()
    venue.made["BTCUSDT"] = 8
    found = asked(venue, lambda rest: rest.aggregates_since("BTCUSDT", venue.ms(4)))
    assert [trade.first_id for trade in found] == [4, 7]
    query = venue.asked[0].query
    assert int(query["endTime"]) - int(query["startTime"]) < 3_600_000


def test_single_trades_want_the_key_which_goes_into_a_header_alone() -> None:
    venue = Venue()
    venue.made["BTCUSDT"] = 5
    found = asked(venue, lambda rest: rest.trades_from("BTCUSDT", 4), api_key="secret")
    assert [msgspec.json.decode(trade.line) for trade in found] == [
        {
            "stream": "btcusdt@trade",
            "data": {"t": i, "p": "100.5", "q": "0.5", "T": venue.ms(i), "m": i % 2 == 0},
            "refill": True,
        }
        for i in (4, 5)
    ]
    assert venue.asked[0].headers["X-MBX-APIKEY"] == "secret"
    assert "secret" not in str(venue.asked[0].query)


@pytest.mark.parametrize("status", [429, 418])
def test_no_request_is_sent_before_the_pause_is_over_whoever_asks(status: int) -> None:
    venue = Venue()
    venue.scripted.append(Scripted(status, {"Retry-After": "1"}))

    async def both(rest: Rest) -> None:
        await asyncio.gather(rest.depth("BTCUSDT"), rest.aggregates_from("BTCUSDT", 0))

    asked(venue, both)
    first, *later = venue.asked
    assert len(later) == 2
    assert min(request.at_s for request in later) - first.at_s >= 1.0


def test_server_errors_are_tried_again_at_growing_intervals() -> None:
    venue = Venue()
    venue.scripted.extend([Scripted(500), Scripted(503), Scripted(502)])
    assert b'"lastUpdateId": 1000' in asked(venue, lambda rest: rest.depth("BTCUSDT"))
    times = [request.at_s for request in venue.asked]
    waits = [after - before for before, after in itertools.pairwise(times)]
    # 0.05 s, doubled each time, and as much jitter at most, above what the requests take.
    assert len(waits) == 3
    assert all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True))


def test_attempts_have_an_end_and_the_error_says_what_was_asked() -> None:
    venue = Venue()
    venue.scripted.extend([Scripted(500)] * 10)
    with pytest.raises(VenueError, match=r"/fapi/v1/depth for BTCUSDT could not be had in 4 attempts: it answered 500"):
        asked(venue, lambda rest: rest.depth("BTCUSDT"))
    assert len(venue.asked) == 4


def test_a_refusal_is_not_asked_again() -> None:
    venue = Venue()
    venue.scripted.append(Scripted(400, {}, b'{"code":-1121,"msg":"Invalid symbol."}'))
    with pytest.raises(VenueError, match=r"it answered 400 Bad Request: .*Invalid symbol.*Check venue_symbol"):
        asked(venue, lambda rest: rest.depth("NONE"))
    assert len(venue.asked) == 1


@pytest.mark.parametrize("body", [b"<html>", b'[{"a":1}]', b'{"code":1}', b'[{"a":1,"f":1,"l":1,"T":99999999999999}]'])
def test_an_answer_of_another_shape_is_said(body: bytes) -> None:
    venue = Venue()
    venue.scripted.append(Scripted(200, {}, body))
    with pytest.raises(VenueError, match=r"is not understood|does not exist"):
        asked(venue, lambda rest: rest.aggregates_from("BTCUSDT", 0))


def test_a_venue_that_is_not_there_is_asked_a_bounded_number_of_times() -> None:
    async def scenario() -> None:
        async with Venue() as venue:
            feed = venue.feed()
        async with Rest("binance_usdm", feed, attempts=2, first_wait_s=0.01) as rest:
            await rest.depth("BTCUSDT")

    start = time.monotonic()
    with pytest.raises(VenueError, match="2 attempts: ConnectError"):
        asyncio.run(scenario())
    assert time.monotonic() - start < 5
