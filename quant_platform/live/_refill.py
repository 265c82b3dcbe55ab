"""What is asked for over REST while the streams go on: trades that fill a hole, and snapshots of the book."""

import asyncio
import time
from collections.abc import AsyncIterator

import structlog

from quant_platform.feeds.binance_rest import WINDOW_MS, Refill, Rest, VenueError
from quant_platform.live._channel import Channel
from quant_platform.live._holes import AGGREGATES, SINGLES, Hole, Noted

_GRACE_S = 0.2  # what is late comes by itself
_LAG_S, _LAGS = 1.0, 5  # REST knows of a trade a little later than the stream
_AHEAD_S, _AHEAD_TRIES = 0.1, 30
_MARGIN_MS = 1_000
_FARTHEST_MS = 31 * 86_400_000  # a wrong time of the trade before must not cost a request for each hour since 1970
_AGAIN_S = 10.0
_LOG = structlog.get_logger()


async def fill_holes(channel: Channel, rest: Rest) -> None:
    """Fill a symbol's holes as they are found, oldest first, until cancelled."""
    while True:
        await channel.has_holes.wait()
        channel.has_holes.clear()
        while channel.holes:
            hole = channel.holes[0]
            if hole.missing:
                await asyncio.sleep(hole.found_s + _GRACE_S - time.monotonic())
            try:
                await _fill(channel, rest, hole)
            except VenueError as error:
                _LOG.error("gap_not_filled_yet", symbol=channel.instrument.symbol, reason=str(error))
                await asyncio.sleep(_AGAIN_S)
                continue
            channel.tell(hole)


async def keep_snapshots(channel: Channel, rest: Rest) -> None:
    """Ask for a snapshot of the book whenever it must begin anew, until cancelled."""
    while True:
        await channel.wants_snapshot.wait()
        channel.wants_snapshot.clear()
        try:
            is_enough = channel.snapshot(await rest.depth(channel.instrument.venue_symbol))
        except VenueError as error:
            _LOG.error("no_snapshot_yet", symbol=channel.instrument.symbol, reason=str(error))
            is_enough = False
            await asyncio.sleep(_AGAIN_S)
        if not is_enough:
            await asyncio.sleep(_LAG_S)
            channel.wants_snapshot.set()


async def _fill(channel: Channel, rest: Rest, hole: Hole) -> None:
    by_singles = rest.has_key and channel.instrument.tape == "trades"
    symbol = channel.instrument.venue_symbol
    if not hole.missing:
        return
    pages = _singles(rest, symbol, hole.noted) if by_singles else _aggregates(rest, symbol, hole.noted)
    async for page in pages:
        for trade in page:
            if trade.first_id > hole.noted.last_id or not hole.missing:
                return
            await _until_streamed(channel, trade.last_id)
            channel.refilled(trade, SINGLES if by_singles else AGGREGATES)


async def _until_streamed(channel: Channel, trade_id: int) -> None:
    """Wait for the stream, but not long: what it brings itself is worth more than its share of an aggregate."""
    for _ in range(_AHEAD_TRIES):
        if (channel.last_trade_id or 0) >= trade_id:
            return
        await asyncio.sleep(_AHEAD_S)


async def _aggregates(rest: Rest, symbol: str, noted: Noted) -> AsyncIterator[list[Refill]]:
    """Yield pages of aggregate trades from the hole's time on, until the venue has no more."""
    end_ms = noted.ts_end // 1_000_000
    time_ms = max(noted.ts_start // 1_000_000 - _MARGIN_MS, end_ms - _FARTHEST_MS)
    lags = 0
    while not (page := await rest.aggregates_since(symbol, time_ms)):
        if time_ms + WINDOW_MS < end_ms:
            time_ms += WINDOW_MS
        elif (lags := lags + 1) > _LAGS:
            return
        else:
            await asyncio.sleep(_LAG_S)
    while lags <= _LAGS:
        yield page
        next_id = (page[-1].aggregate_id or 0) + 1
        while not (page := await rest.aggregates_from(symbol, next_id)):
            lags += 1
            if lags > _LAGS:
                return
            await asyncio.sleep(_LAG_S)


async def _singles(rest: Rest, symbol: str, noted: Noted) -> AsyncIterator[list[Refill]]:
    """Yield pages of single trades from the hole's first id on, until the venue has no more."""
    next_id, lags = noted.first_id, 0
    while lags <= _LAGS:
        if page := await rest.trades_from(symbol, next_id):
            next_id = page[-1].last_id + 1
            yield page
        else:
            lags += 1
            await asyncio.sleep(_LAG_S)
