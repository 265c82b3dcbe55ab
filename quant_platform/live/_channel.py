"""What one symbol brings: each message once, in order of arrival, until it is handed to the disk; and what is missing.

No socket, no disk and no request here: the collector feeds it, takes its lines, and looks after its holes.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from quant_platform.feeds.binance import (
    AGG_TRADE,
    BOOK_TICKER,
    DEPTH,
    NOTHING,
    UNDECODABLE,
    Fields,
    decode,
    gap_line,
    kind_of,
    ns,
    oddity,
)
from quant_platform.feeds.binance_rest import Refill
from quant_platform.live._holes import Hole, Noted
from quant_platform.settings import Instrument
from quant_platform.storage.landing import Lines


class Batch(NamedTuple):
    """Lines in order of arrival, the bytes of their payloads, and the holes that are open behind them."""

    lines: Lines
    payload_bytes: int
    holes: frozenset[Noted]


Handler = Callable[[int, bytes, Fields], None]

_DAY_NS = 86_400_000_000_000
_IMPLAUSIBLE_JUMP = 10**9  # trades: no symbol trades as often in a year
_LOG = structlog.get_logger()


class Channel:
    """One symbol.

    Args:
        instrument: Its row.
        streams: The names of its streams.
        last_trade: Id and time (ns, 0 where it is not known) of the last trade landed; None where nothing was.
        holes: What an earlier collector left open.
        most_bytes: Above so many bytes that came since the last `take`, `on_full` is called.
        on_full: Stops the sockets from being read.

    Attributes:
        handlers: By stream, what takes a message over: clock, payload, its fields.
        holes: Those whose fate is not known yet.
        has_holes: Set when there is a new one.
        wants_snapshot: Set when the book must begin anew.
    """

    def __init__(
        self,
        instrument: Instrument,
        streams: Sequence[str],
        *,
        last_trade: tuple[int, int] | None,
        holes: Sequence[Hole],
        most_bytes: int,
        on_full: Callable[[], None],
    ) -> None:
        self.instrument = instrument
        by_kind: dict[str | None, Handler] = {AGG_TRADE: self._aggregate, BOOK_TICKER: self._quote, DEPTH: self._depth}
        self.handlers: dict[str, Handler] = {name: by_kind.get(kind_of(name), self._trade) for name in streams}
        self.holes = list(holes)
        self.has_holes, self.wants_snapshot = asyncio.Event(), asyncio.Event()
        if self.holes:
            self.has_holes.set()
        self._next_id = last_trade[0] + 1 if last_trade else None
        self._ts_trade = last_trade[1] if last_trade else 0
        self._quote_id = -1
        self._depth_id: int | None = None
        self._depth_from, self._depth_date = 0, -1
        self._lines: Lines = []
        self._most_bytes, self._on_full = most_bytes, on_full
        self._new_bytes = self._taken_bytes = 0
        self.ts_event: int | None = None
        self.ts_recv: int | None = None
        self._ts_recv_timed = 0
        self.messages = self.duplicates = self.undecodable = self.reconnects = 0

    @property
    def last_trade_id(self) -> int | None:
        """The greatest trade id so far."""
        return None if self._next_id is None else self._next_id - 1

    @property
    def lag_ms(self) -> float | None:
        """How far the last message that has a time was behind it when it came; negative where our clock is behind."""
        return None if self.ts_event is None else (self._ts_recv_timed - self.ts_event) / 1e6

    def odd(self, ts_recv: int, payload: bytes) -> None:
        """Take over what is no message of the venue's shape: it is landed as it is."""
        self.undecodable += 1
        if self.undecodable == 1 or self.undecodable % 1_000 == 0:
            _LOG.warning(
                "message_not_understood",
                symbol=self.instrument.symbol,
                so_far=self.undecodable,
                reason=oddity(payload),
                payload=repr(payload[:200]),
            )
        self._put(ts_recv, payload, *NOTHING)

    def snapshot(self, payload: bytes) -> bool:
        """Take over an answer to a depth request; return whether the diffs since the last break follow it."""
        try:
            message = decode(payload)
        except UNDECODABLE:
            message = None
        if message is None or message.last_update_id is None:
            self.odd(time.time_ns(), payload)
            return False
        ts_event = ns(message.transaction_time or message.event_time)
        self._put(time.time_ns(), payload, ts_event, None, None)
        return message.last_update_id >= self._depth_from

    def refilled(self, trade: Refill, filled_by: str) -> None:
        """Take over a trade that REST gave, if any of its ids is missing."""
        if self._was_missing(trade.first_id, trade.last_id, filled_by):
            last_id = trade.first_id if trade.aggregate_id is not None else trade.last_id
            self._put(time.time_ns(), trade.line, trade.ts_event, trade.first_id, last_id)

    def tell(self, hole: Hole) -> None:
        """Write down what became of a hole, and be done with it."""
        self.holes.remove(hole)
        noted = hole.noted
        for fate in hole.fates():
            line = gap_line(
                self.instrument.venue_symbol,
                (fate.first_id, fate.last_id),
                ts_start=noted.ts_start,
                ts_end=noted.ts_end,
                filled_by=fate.filled_by,
            )
            self._put(time.time_ns(), line, noted.ts_end, fate.first_id, fate.last_id)
            log = _LOG.info if fate.filled_by else _LOG.error
            log("gap_told", symbol=self.instrument.symbol, **fate._asdict())

    def take(self) -> Batch:
        """Hand over the lines since the last call."""
        batch = Batch(self._lines, self._new_bytes, frozenset(hole.noted for hole in self.holes))
        self._lines, self._new_bytes = [], 0
        self._taken_bytes += batch.payload_bytes
        return batch

    def landed(self, payload_bytes: int) -> None:
        """Hear that so much of what was taken is durable."""
        self._taken_bytes -= payload_bytes

    @property
    def bytes_waiting(self) -> int:
        """Bytes of payloads that are not durable yet."""
        return self._taken_bytes + self._new_bytes

    def _trade(self, ts_recv: int, payload: bytes, data: Fields) -> None:
        self._on_tape(ts_recv, payload, data.trade_id, data.trade_id, data)

    def _aggregate(self, ts_recv: int, payload: bytes, data: Fields) -> None:
        self._on_tape(ts_recv, payload, data.first_trade_id, data.last_trade_id, data)

    def _on_tape(self, ts_recv: int, payload: bytes, first: int | None, last: int | None, data: Fields) -> None:
        ts_event = ns(data.transaction_time or data.event_time)
        expected = self._next_id
        if first is None or last is None or ts_event is None or last < first:
            self.odd(ts_recv, payload)
            return
        if first != expected and expected is not None:
            if last < expected:
                if self._was_missing(first, last):
                    self._arrived(ts_recv, payload, ts_event, first, last)
                else:
                    self.duplicates += 1
                return
            if first > expected + _IMPLAUSIBLE_JUMP:
                self.odd(ts_recv, payload)
                return
            if first > expected:
                self._open_hole(Noted(expected, first - 1, min(self._ts_trade or ts_event, ts_event), ts_event))
        self._next_id, self._ts_trade = last + 1, ts_event
        self._arrived(ts_recv, payload, ts_event, first, last)

    def _quote(self, ts_recv: int, payload: bytes, data: Fields) -> None:
        update_id = data.final_update_id
        if update_id is None:
            self.odd(ts_recv, payload)
        elif update_id <= self._quote_id:
            self.duplicates += 1
        else:
            self._quote_id = update_id
            self._arrived(ts_recv, payload, ns(data.transaction_time or data.event_time), None, None)

    def _depth(self, ts_recv: int, payload: bytes, data: Fields) -> None:
        first, final = data.first_update_id, data.final_update_id
        if first is None or final is None:
            self.odd(ts_recv, payload)
            return
        if self._depth_id is not None and final <= self._depth_id:
            self.duplicates += 1
            return
        after = first - 1 if data.previous_update_id is None else data.previous_update_id
        ts_event = ns(data.transaction_time or data.event_time)
        date = self._depth_date if ts_event is None else ts_event // _DAY_NS
        if after != self._depth_id or date != self._depth_date:
            if after != self._depth_id and self._depth_id is not None:
                _LOG.warning("depth_broken", symbol=self.instrument.symbol, expected=self._depth_id, found=after)
            self._depth_from = after
            self.wants_snapshot.set()
        self._depth_id, self._depth_date = final, date
        self._arrived(ts_recv, payload, ts_event, None, None)

    def _was_missing(self, first_id: int, last_id: int, filled_by: str | None = None) -> bool:
        # All of them must hear of it: an aggregate may reach over two holes.
        return sum(hole.came(first_id, last_id, filled_by) for hole in self.holes) > 0

    def _open_hole(self, noted: Noted) -> None:
        _LOG.warning("gap_found", symbol=self.instrument.symbol, **noted._asdict())
        self.holes.append(Hole(noted))
        self.has_holes.set()

    def _arrived(
        self, ts_recv: int, payload: bytes, ts_event: int | None, first_id: int | None, last_id: int | None
    ) -> None:
        self.messages += 1
        self.ts_recv = ts_recv
        if ts_event is not None:
            self.ts_event = ts_event
            self._ts_recv_timed = ts_recv
        self._lines += (ts_recv, payload, ts_event, first_id, last_id)
        self._new_bytes += len(payload)
        if self._new_bytes > self._most_bytes:
            self._on_full()

    def _put(
        self, ts_recv: int, payload: bytes, ts_event: int | None, first_id: int | None, last_id: int | None
    ) -> None:
        self._lines += (ts_recv, payload, ts_event, first_id, last_id)
        self._new_bytes += len(payload)
