"""The venue ends connections, falls silent, or lets them grow old: nothing is missing then, and nothing double."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from quant_platform.live.collector import collect, status
from quant_platform_tests.scripted_venue import Account, Venue, account_of, landed_lines, settings_for, until

ROUNDS = 5


async def trading(venue: Venue) -> None:
    """Make trades, quotes and depth without end; each connection gets what is made while it stands."""
    while True:
        messages = [venue.trade() for _ in range(5)] + [venue.quote(), venue.depth()]
        await venue.send(*messages)
        await asyncio.sleep(0.01)


async def ended(venue: Venue, how: str) -> None:
    for connection, _ in list(venue.connections):
        if how == "abrupt":
            connection.transport.abort()
        else:
            await connection.close(1001, "24 hours")


def captured(home: Path, *, how: str, rounds: int) -> tuple[Venue, Account]:
    dice = random.Random(rounds)

    async def scenario() -> Venue:
        async with Venue(step_ms=1) as venue:
            settings = settings_for(home, venue.feed())
            task = asyncio.create_task(collect(settings, ["BTCUSDT"], say=lambda _: None))
            await venue.connected()
            market = asyncio.create_task(trading(venue))
            for number in range(1, rounds + 1):
                await asyncio.sleep(dice.uniform(0.1, 0.4))
                await ended(venue, how)
                await until(lambda number=number: venue.opened > number and venue.connections, 40)
            await asyncio.sleep(0.3)
            assert not market.done()
            market.cancel()
            await asyncio.wait([market])
            await venue.send(venue.trade())
            last = venue.made["BTCUSDT"]
            tells = lambda: [state["symbols"].get("BTCUSDT") for state in status(settings)]  # noqa: E731
            await until(lambda: [s["last_trade_id"] for s in tells() if s] == [last])
            await until(lambda: [s["open_gaps"] for s in tells() if s] == [[]], 60)
            (told,) = tells()
            assert told["reconnects"] == rounds
            task.cancel()
            await asyncio.wait([task])
            return venue

    venue = asyncio.run(scenario())
    return venue, account_of(landed_lines(home))


@pytest.mark.parametrize("how", ["abrupt", "close frame"])
@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(40, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_what_passed_between_two_connections_is_filled(tmp_path: Path, how: str, rounds: int) -> None:
    venue, account = captured(tmp_path, how=how, rounds=rounds)
    account.require_each_once(range(1, venue.made["BTCUSDT"] + 1))
    assert account.lost == set()
    assert set(account.told.values()) == {"aggTrades"}


def test_a_renewal_overlaps_and_leaves_neither_a_hole_nor_a_second_copy(tmp_path: Path) -> None:
    async def scenario() -> Venue:
        async with Venue(step_ms=1) as venue:
            settings = settings_for(tmp_path, venue.feed(), renew_h=0.7 / 3600)
            task = asyncio.create_task(collect(settings, ["BTCUSDT"], say=lambda _: None))
            await venue.connected()
            market = asyncio.create_task(trading(venue))
            await until(lambda: venue.opened >= 4, 20)
            assert not market.done()
            market.cancel()
            await asyncio.wait([market])
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.wait([task])
            return venue

    venue = asyncio.run(scenario())
    lines = [line.text for line in landed_lines(tmp_path)]
    account = account_of(landed_lines(tmp_path))
    account.require_each_once(range(1, venue.made["BTCUSDT"] + 1))
    assert account.told == {}
    assert len(set(lines)) == len(lines)
    # One at the beginning: the sequence of the depth never broke.
    assert sum(line.startswith(b'{"lastUpdateId"') for line in lines) == 1


def test_a_silent_socket_is_left_and_what_it_kept_back_is_filled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue() as venue:
            settings = settings_for(tmp_path, venue.feed(), silence_s=0.5)
            task = asyncio.create_task(collect(settings, ["BTCUSDT"], say=lambda _: None))
            await venue.connected()
            await venue.send(venue.trade())
            for _ in range(10):
                venue.trade()  # not sent: the socket stands, and brings nothing
            start = time.monotonic()
            await until(lambda: venue.opened == 2 and venue.connections, 10)
            assert time.monotonic() - start < 3
            await venue.send(*(venue.trade() for _ in range(3)))
            await until(lambda: any(b'"btcusdt@gap"' in line.text for line in landed_lines(tmp_path)))
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(scenario())
    account = account_of(landed_lines(tmp_path))
    account.require_each_once(range(1, 15))
    assert account.told == {(2, 11): "aggTrades"}
