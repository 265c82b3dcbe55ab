"""What the stream does not bring, twice or wrongly brings: refilled, told, kept once, landed as it is."""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from quant_platform.live.collector import collect, status
from quant_platform.settings import Settings
from quant_platform_tests.scripted_venue import (
    Account,
    Line,
    Scripted,
    Venue,
    account_of,
    landed_lines,
    settings_for,
    until,
)


@asynccontextmanager
async def collecting(settings: Settings) -> AsyncIterator[None]:
    task = asyncio.create_task(collect(settings, [i.symbol for i in settings.instruments], say=lambda _: None))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def account(home: Path, symbol: str = "BTCUSDT") -> Account:
    return account_of(landed_lines(home, symbol))


def state_of(settings: Settings, symbol: str = "BTCUSDT") -> defaultdict[str, Any]:
    """Return what the collector tells of a symbol; nothing as long as it tells nothing."""
    found = [state["symbols"].get(symbol, {}) for state in status(settings)]
    return defaultdict(lambda: None, found[0] if found else {})


async def told(home: Path, count: int = 1) -> float:
    return await until(lambda: sum(b'"btcusdt@gap"' in text for text in texts(home)) >= count, within_s=20)


def texts(home: Path) -> list[bytes]:
    return [line.text for line in landed_lines(home)]


@pytest.mark.parametrize("by", ["aggTrades", "historicalTrades"])
def test_missing_ids_are_found_and_filled_within_a_second(tmp_path: Path, by: str) -> None:
    async def scenario() -> None:
        async with Venue() as venue:
            key = {"api_key": "secret"} if by == "historicalTrades" else {}
            async with collecting(settings_for(tmp_path, venue.feed(**key))):
                await venue.connected()
                await venue.send(*(venue.trade() for _ in range(10)))
                for _ in range(7):
                    venue.trade()
                await venue.send(venue.trade(), venue.trade())
                assert await told(tmp_path) < 1.5
                asked = {request.path for request in venue.asked}
                assert asked == {f"/fapi/v1/{by}"}

    asyncio.run(scenario())
    found = account(tmp_path)
    found.require_each_once(range(1, 20))
    assert found.told == {(11, 17): by}
    gap = json.loads(texts(tmp_path)[-1])["data"]
    venue = Venue()
    assert (gap["ts_start"], gap["ts_end"]) == (venue.ms(10) * 1_000_000, venue.ms(18) * 1_000_000)


def test_what_rest_does_not_have_is_on_record_and_the_rest_is_filled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue(unknown={5, 6, 9}) as venue, collecting(settings_for(tmp_path, venue.feed())):
            await venue.connected()
            await venue.send(venue.trade(), venue.trade())
            for _ in range(10):
                venue.trade()
            await venue.send(*(venue.trade() for _ in range(4)))
            await told(tmp_path, 5)

    asyncio.run(scenario())
    found = account(tmp_path)
    by = "aggTrades"
    assert found.told == {(3, 4): by, (5, 6): None, (7, 8): by, (9, 9): None, (10, 12): by}
    found.require_each_once(range(1, 17))


def test_a_hole_of_many_pages_and_a_quiet_day_is_filled(tmp_path: Path) -> None:
    # A trade each 40 s: 4,000 of them are 44 hours, 1,334 aggregates two pages.
    async def scenario() -> None:
        async with Venue(step_ms=40_000) as venue, collecting(settings_for(tmp_path, venue.feed())):
            await venue.connected()
            await venue.send(venue.trade())
            for _ in range(4_000):
                venue.trade()
            await venue.send(*(venue.trade() for _ in range(3)))
            await told(tmp_path)

    asyncio.run(scenario())
    account(tmp_path).require_each_once(range(1, 4_005))


def test_hours_without_a_trade_before_the_missing_one_are_passed_over(tmp_path: Path) -> None:
    three_hours_ms = 3 * 3_600_000

    async def scenario() -> None:
        async with Venue(step_ms=three_hours_ms) as venue, collecting(settings_for(tmp_path, venue.feed())):
            await venue.connected()
            venue.made["BTCUSDT"] = 3
            await venue.send(venue.trade())
            for _ in range(4):
                venue.trade()
            await venue.send(venue.trade())
            await told(tmp_path)

    asyncio.run(scenario())
    account(tmp_path).require_each_once(range(4, 10))


def test_what_passed_while_no_collector_ran_is_filled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue() as venue:
            settings = settings_for(tmp_path, venue.feed())
            async with collecting(settings):
                await venue.connected()
                await venue.send(*(venue.trade() for _ in range(10)))
                await until(lambda: len(landed_lines(tmp_path)) == 10)
            for _ in range(30):
                venue.trade()
            await until(lambda: not venue.connections)
            async with collecting(settings):
                await venue.connected()
                await venue.send(*(venue.trade() for _ in range(4)))
                await told(tmp_path)

    asyncio.run(scenario())
    found = account(tmp_path)
    found.require_each_once(range(1, 45))
    assert found.told == {(11, 40): "aggTrades"}


def test_a_hole_left_open_at_the_end_is_filled_by_the_next_collector(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue() as venue:
            settings = settings_for(tmp_path, venue.feed())
            async with collecting(settings):
                venue.scripted.extend([Scripted(429, {"Retry-After": "60"})] * 3)
                await venue.connected()
                await venue.send(venue.trade())
                for _ in range(6):
                    venue.trade()
                await venue.send(*(venue.trade() for _ in range(5)))
                await until(lambda: venue.asked)
                await until(lambda: state_of(settings)["open_gaps"] == [[2, 7]])
            assert account(tmp_path).told == {}
            venue.scripted.clear()
            async with collecting(settings):
                await told(tmp_path)

    asyncio.run(scenario())
    found = account(tmp_path)
    found.require_each_once(range(1, 13))
    assert found.told == {(2, 7): "aggTrades"}


def test_duplicates_and_reordered_trades_are_stored_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue() as venue, collecting(settings_for(tmp_path, venue.feed())):
            await venue.connected()
            messages = [venue.trade() for _ in range(60)]
            swapped = [messages[0], *(messages[i ^ 1] for i in range(2, 60)), messages[1]]
            await venue.send(*swapped, *messages)
            await until(lambda: len(landed_lines(tmp_path)) == 60)
            await asyncio.sleep(0.5)
            assert venue.asked == []  # they were late, not lost

    asyncio.run(scenario())
    found = account(tmp_path)
    found.require_each_once(range(1, 61))
    assert found.told == {}


def test_a_tape_of_aggregates_is_refilled_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue() as venue, collecting(settings_for(tmp_path, venue.feed(), tape="aggTrades")):
            await venue.connected()
            venue.made["BTCUSDT"] = 30
            for number in (0, 1, 5, 6):
                await venue.send(json.dumps({"stream": "btcusdt@aggTrade", "data": venue.aggregate(number)}))
            await told(tmp_path)

    asyncio.run(scenario())
    found = account(tmp_path)
    found.require_each_once(range(1, 22))
    assert found.told == {(7, 15): "aggTrades"}


def test_a_book_begins_with_a_snapshot_and_again_after_a_break(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue() as venue, collecting(settings_for(tmp_path, venue.feed())):
            await venue.connected()
            await venue.send(venue.depth(), venue.depth())
            await until(lambda: len(venue.asked) == 1)
            await until(lambda: sum(b'"lastUpdateId"' in text for text in texts(tmp_path)) == 1)
            venue.update_id += 5
            await venue.send(venue.depth(), venue.depth())
            await until(lambda: sum(b'"lastUpdateId"' in text for text in texts(tmp_path)) == 2)

    asyncio.run(scenario())
    assert [text.partition(b":")[0] for text in texts(tmp_path)].count(b'{"lastUpdateId"') == 2


def test_a_snapshot_that_does_not_reach_the_stream_is_asked_for_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue() as venue:
            venue.scripted.append(Scripted(200, {}, b'{"lastUpdateId":7,"bids":[],"asks":[]}'))
            async with collecting(settings_for(tmp_path, venue.feed())):
                await venue.connected()
                await venue.send(venue.depth())
                await until(lambda: len(venue.asked) == 2)

    asyncio.run(scenario())


def test_frames_that_are_none_are_landed_and_the_stream_goes_on(tmp_path: Path) -> None:
    odd: list[bytes | str] = [
        '{"stream":"ethusdt@trade","data":{"t":',
        b"\x00\x01\xff binary",
        "null",
        '{"stream":"ethusdt@trade","data":{"t":"5","T":1}}',
        '{"stream":"nobody@trade","data":{"t":5,"T":1}}',
        '{"result":null,\n"id":1}',
        "",
    ]

    async def scenario() -> None:
        async with Venue() as venue:
            settings = settings_for(tmp_path, venue.feed(), "BTCUSDT", "ETHUSDT")
            async with collecting(settings):
                await venue.connected()
                await venue.send(venue.trade(), venue.trade("ETHUSDT"))
                for message in odd:
                    await venue.connections[0][0].send(message)
                huge = '{"stream":"btcusdt@trade","x":"' + "y" * 20_000_000 + '"}'
                await venue.connections[0][0].send(huge)
                await venue.send(venue.trade(), venue.trade("ETHUSDT"))
                await until(lambda: venue.trade_message(2) in texts(tmp_path), 30)
                assert venue.opened == 1
                await until(lambda: state_of(settings, "ETHUSDT")["undecodable"] == 2)
                assert state_of(settings)["undecodable"] == 6

    asyncio.run(scenario())
    btc = [line.text for line in landed_lines(tmp_path)]
    assert btc[1:-1] == [
        b"\x00\x01\xff binary",
        b"null",
        b'{"stream":"nobody@trade","data":{"t":5,"T":1}}',
        b'{"result":null, "id":1}',
        b"",
        b'{"stream":"btcusdt@trade","x":"' + b"y" * (1_000 - 31),
    ]
    eth = [line.text for line in landed_lines(tmp_path, "ETHUSDT")]
    assert eth[1:-1] == [odd[0].encode(), odd[3].encode()]  # type: ignore[union-attr]


def test_status_tells_of_each_symbol_and_goes_with_the_collector(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue() as venue:
            settings = settings_for(tmp_path, venue.feed(), "BTCUSDT", "ETHUSDT")
            async with collecting(settings):
                await venue.connected()
                await venue.send(*(venue.trade() for _ in range(5)))
                await until(lambda: state_of(settings)["messages"] == 5)
                await until(lambda: state_of(settings)["bytes_buffered"] == 0)
                (state,) = status(settings)
                btc, eth = state["symbols"]["BTCUSDT"], state["symbols"]["ETHUSDT"]
                assert abs(state["ts_started"] - time.time_ns()) < 60e9
                assert btc["last_trade_id"] == 5
                assert btc["ts_event"] == venue.ms(5) * 1_000_000
                assert btc["lag_ms"] == (btc["ts_recv"] - btc["ts_event"]) / 1e6
                assert eth["last_trade_id"] is None
                assert eth["lag_ms"] is None
                # Of a process that is no more.
                dead = tmp_path / "landing/collectors/4194305.json"
                dead.write_text("{}")
                assert len(status(settings)) == 1
            assert status(settings) == []

    asyncio.run(scenario())


def test_lines_are_given_to_the_publisher_as_they_were_landed(tmp_path: Path) -> None:
    class Kept:
        def __init__(self) -> None:
            self.lines: list[bytes] = []

        def put(self, symbol: str, lines: list[bytes]) -> None:
            assert symbol == "BTCUSDT"
            self.lines += lines

    kept = Kept()

    async def scenario() -> None:
        async with Venue() as venue:
            settings = settings_for(tmp_path, venue.feed())
            task = asyncio.create_task(collect(settings, ["BTCUSDT"], say=lambda _: None, publisher=kept))
            await venue.connected()
            for _ in range(20):
                await venue.send(venue.trade())
                await asyncio.sleep(0.01)
            await until(lambda: len(kept.lines) == 20)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(scenario())
    assert [Line(int(line[:19]), line[20:]) for line in kept.lines] == landed_lines(tmp_path)
