"""The disk's side of one symbol: lines into segments, open holes noted beside them. Called from threads, one at a time.

What lies behind a hole is never durable before the hole is noted, and a note never goes before the hole's fate is.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from quant_platform.feeds.binance import describe
from quant_platform.live._channel import Batch
from quant_platform.live._holes import Hole, Notebook, Noted, time_of
from quant_platform.settings import Instrument, Settings
from quant_platform.storage.landing import Manifest, Segment, Writer

_MARGIN_NS = 60_000_000_000


class Landed(NamedTuple):
    """What became durable: the bytes of its payloads, and its lines, where they are wanted."""

    payload_bytes: int
    lines: list[bytes]


class Sink:
    """One symbol's segments, and its lease.

    Attributes:
        last_trade: Id and time (ns, 0 where it is not known) of the last trade landed; None where there is none.
        holes: What is left of those that were open when an earlier collector ended.

    Raises:
        LeaseHeldError: Another process has the symbol.
        OSError: The folder cannot be read or written.
    """

    def __init__(self, settings: Settings, instrument: Instrument, *, wants_lines: bool) -> None:
        capture, landing = settings.capture, settings.landing
        feed, symbol = instrument.feed, instrument.symbol
        self._wants_lines = wants_lines
        self._lines: list[bytes] = []
        self._bytes = 0
        self._noted: frozenset[Noted] | None = None
        self._writer = Writer(
            landing,
            feed,
            symbol,
            describe,
            segment_s=capture.segment_s,
            segment_bytes=int(capture.segment_mb * 1_000_000),
        )
        try:
            self._notebook = Notebook(landing, feed, symbol)
            self.last_trade: tuple[int, int] | None = None
            self.holes: list[Hole] = []
            if (last_id := self._writer.salvaged.last_id) is not None:
                held = [segment for segment in Manifest(landing).segments(feed, symbol) if segment.path.is_file()]
                self._look_back(held, last_id)
        except BaseException:
            self._writer.close()
            raise

    def has_work(self, batch: Batch) -> bool:
        """Whether there is something to land, or a segment to close."""
        return bool(batch.lines or self._bytes or batch.holes != self._noted or self._writer.is_due(time.time_ns()))

    def land(self, batch: Batch) -> Landed:
        """Make lines durable, with what was not before, and close the segment when it is due.

        Raises:
            OSError: The disk is full; the next call writes what this one could not.
        """
        self._take(batch)
        pieces = self._writer.flush()
        if self._wants_lines:
            for piece in pieces:
                self._lines += piece[:-1].split(b"\n")
        self._notebook.write(batch.holes)
        self._noted = batch.holes
        if self._writer.is_due(time.time_ns()):
            self._writer.roll()
        landed = Landed(self._bytes, self._lines)
        self._lines, self._bytes = [], 0
        return landed

    def close(self, batch: Batch) -> None:
        """Land the last lines, close the segment, and give the lease back.

        Raises:
            OSError: The disk is full; what is lacking stays on record as missing ids.
        """
        self._take(batch)
        self._writer.close()
        self._notebook.write(batch.holes)

    def _take(self, batch: Batch) -> None:
        self._writer.append(batch.lines)
        self._bytes += batch.payload_bytes
        self._notebook.note(batch.holes)

    def _look_back(self, segments: Sequence[Segment], last_id: int) -> None:
        last = next(segment for segment in reversed(segments) if segment.last_id == last_id)
        ts_last = time_of(last_id, last)
        self.last_trade = last_id, ts_last if ts_last is not None else last.ts_first or 0
        # Of a hole behind which nothing was landed the next trade tells again.
        for noted in sorted(noted for noted in self._notebook.read() if noted.last_id < last_id):
            self.holes.append(
                Hole.rest_of(
                    noted,
                    (
                        segment
                        for segment in segments
                        if segment.ts_first is not None
                        and segment.ts_last is not None
                        and segment.ts_last >= noted.ts_start - _MARGIN_NS
                        and segment.ts_first <= noted.ts_end + _MARGIN_NS
                    ),
                )
            )
