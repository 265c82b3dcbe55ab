"""Holes in a symbol's trade ids: what is missing of each, who filled the rest, and how that outlives a killed process.

A hole is noted on disk before anything that lies behind it, and struck off after the lines that tell its fate. What a
killed collector had landed of a noted one is read out of the segments.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

import msgspec

from quant_platform.feeds.binance import AGG_TRADE, GAP, UNDECODABLE, Message, decode, kind_of, ns
from quant_platform.storage.atomic import published, sweep
from quant_platform.storage.landing import Segment

AGGREGATES, SINGLES = "aggTrades", "historicalTrades"
_TAIL_BYTES = 1 << 20

Ids = tuple[int, int]
"""A range of trade ids, both ends included."""


class Noted(NamedTuple):
    """A hole as it is noted: its ids, and the venue's times of the trade before and of the trade after it (ns)."""

    first_id: int
    last_id: int
    ts_start: int
    ts_end: int


class Fate(NamedTuple):
    """What became of a range: `filled_by` is null where the venue could not give it."""

    first_id: int
    last_id: int
    filled_by: str | None


class Hole:
    """One hole, until its fate is known.

    Attributes:
        noted: What it was when it was found.
        missing: The ids that neither came nor were told of, in order.
        found_s: When it was found, by the monotonic clock.
    """

    def __init__(self, noted: Noted) -> None:
        self.noted = noted
        self.missing: list[Ids] = [(noted.first_id, noted.last_id)]
        self.found_s = time.monotonic()
        self._filled: list[Fate] = []

    @classmethod
    def rest_of(cls, noted: Noted, segments: Iterable[Segment]) -> Self:
        """Return what is left of a hole after what these segments hold of it."""
        hole = cls(noted)
        for segment in segments:
            for message in _messages(segment.path.read_bytes()):
                hole._recall(message)
        return hole

    def came(self, first_id: int, last_id: int, filled_by: str | None = None) -> bool:
        """Take ids that came, late or as a refill; return whether any of them was missing."""
        found = [(max(a, first_id), min(b, last_id)) for a, b in self.missing if a <= last_id and b >= first_id]
        if not found:
            return False
        self.missing = [
            part
            for a, b in self.missing
            for part in ((a, min(b, first_id - 1)), (max(a, last_id + 1), b))
            if part[0] <= part[1]
        ]
        if filled_by:
            self._filled.extend(Fate(a, b, filled_by) for a, b in found)
        return True

    def fates(self) -> list[Fate]:
        """Return what is to be told of it, now that nothing more will come, in order."""
        told: list[Fate] = []
        for fate in sorted([*self._filled, *(Fate(a, b, None) for a, b in self.missing)], key=lambda f: f.first_id):
            if told and told[-1].filled_by == fate.filled_by and told[-1].last_id + 1 == fate.first_id:
                fate = Fate(told.pop().first_id, fate.last_id, fate.filled_by)  # noqa: PLW2901  # they are one range
            told.append(fate)
        return told

    def _recall(self, message: Message) -> None:
        data, kind = message.data, kind_of(message.stream)
        if data is None:
            return
        if kind == GAP and data.first_id is not None and data.last_id is not None:
            self.came(data.first_id, data.last_id)
            self._filled = [f for f in self._filled if f.last_id < data.first_id or f.first_id > data.last_id]
        elif ids := trade_ids(message):
            filled_by = AGGREGATES if kind == AGG_TRADE else SINGLES
            self.came(*ids, filled_by if message.refill else None)


class Notebook:
    """The file of a symbol's open holes. Whoever holds the symbol's lease writes it."""

    def __init__(self, landing: Path, feed: str, symbol: str) -> None:
        self._path = landing / "collectors" / feed / f"{quote(symbol, safe='')}.holes.json"
        self._noted: frozenset[Noted] = frozenset()

    def read(self) -> frozenset[Noted]:
        """Return the holes that an earlier collector left open; sweep what it left half written.

        Raises:
            OSError: The file cannot be read, or is damaged.
        """
        sweep(self._path)
        if self._path.exists():
            try:
                self._noted = frozenset(msgspec.json.decode(self._path.read_bytes(), type=list[Noted]))
            except msgspec.MsgspecError as error:
                raise OSError(f"{self._path} is damaged: {error}. Delete it; its gaps are then not filled.") from error
        return self._noted

    def note(self, holes: frozenset[Noted]) -> None:
        """Make sure that these are noted, whatever else is."""
        self.write(self._noted | holes)

    def write(self, holes: frozenset[Noted]) -> None:
        """Make sure that these are noted, and no others.

        Raises:
            OSError: The disk is full.
        """
        if holes == self._noted:
            return
        with published(self._path) as temporary:
            temporary.write_bytes(msgspec.json.encode(sorted(holes)))
        self._noted = holes


def trade_ids(message: Message) -> Ids | None:
    """Return the ids of a trade or of an aggregate of trades."""
    data = message.data
    if data is None:
        return None
    first, last = data.trade_id, data.trade_id
    if kind_of(message.stream) == AGG_TRADE:
        first, last = data.first_trade_id, data.last_trade_id
    return None if first is None or last is None else (first, last)


def time_of(trade_id: int, segment: Segment) -> int | None:
    """Return the venue's time (ns) of a trade that a segment holds, looking at the segment's end first."""
    content = segment.path.read_bytes()
    for part in (content[-_TAIL_BYTES:], content):
        for message in _messages(part):
            ids = trade_ids(message)
            if ids and ids[0] <= trade_id <= ids[1] and message.data:
                return ns(message.data.transaction_time or message.data.event_time)
    return None


def _messages(content: bytes) -> Iterator[Message]:
    for line in content.split(b"\n"):
        try:
            yield decode(line.partition(b" ")[2])
        except UNDECODABLE:
            continue
