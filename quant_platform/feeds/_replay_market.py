"""One replayed symbol as REST sees it: its order book, and the trades that were made so far. HTTP itself is `replay`'s.

The trades lie in a temporary folder, a file a piece, with their ranges of ids and times in memory: a page of them reads
the few files that it needs.
"""

import contextlib
import random
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import polars as pl

from quant_platform.feeds import _replay_messages as messages
from quant_platform.feeds._replay_messages import AGG_TRADE, TAPE, TRADE
from quant_platform.feeds._replay_sources import Piece

_MOST_FILES = 4_096
_WAITING = 1_000  # diffs


class _File(NamedTuple):
    path: Path
    first_id: int
    last_id: int
    first_ns: int
    last_ns: int


class Tape:
    """Trades, or aggregates of them, of one symbol on disk; the oldest are forgotten where there are very many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir()
        self._files: deque[_File] = deque()
        self._count = 0

    def add(self, rows: pl.DataFrame) -> None:
        """Take the next rows over: `TAPE`."""
        if not rows.height:
            return
        path = self._folder / f"{self._count}.arrow"
        self._count += 1
        rows.write_ipc(path, compression="lz4")
        ids, times = rows["id"], rows["ns"]
        ends = ids.min(), ids.max(), times.min(), times.max()
        self._files.append(_File(path, *ends))  # type: ignore[arg-type]  # there is a row
        if len(self._files) > _MOST_FILES:
            self._files.popleft().path.unlink()

    def page(
        self, *, made_until: int, limit: int, from_id: int | None, start_ns: int | None, end_ns: int | None
    ) -> pl.DataFrame:
        """Return `limit` rows at most, by id: from an id or a time on, or the newest where neither is given.

        Args:
            made_until: What is later than this on the recording's clock is not made yet.
            limit: See above.
            from_id: The least id.
            start_ns: The least venue time.
            end_ns: The greatest venue time.
        """
        is_newest = from_id is None and start_ns is None and end_ns is None
        wanted = pl.col("at") <= made_until
        for column, least in (("id", from_id), ("ns", start_ns)):
            if least is not None:
                wanted &= pl.col(column) >= least
        if end_ns is not None:
            wanted &= pl.col("ns") <= end_ns
        files = [
            file
            for file in list(self._files)
            if (from_id is None or file.last_id >= from_id)
            and (start_ns is None or file.last_ns >= start_ns)
            and (end_ns is None or file.first_ns <= end_ns)
        ]
        found, count = [TAPE.to_frame()], 0
        for file in reversed(files) if is_newest else files:
            rows = pl.scan_ipc(file.path).filter(wanted).collect()
            found.append(rows)
            count += rows.height
            if count >= limit:
                break
        rows = pl.concat(found).unique("id", keep="first", maintain_order=True).sort("id")
        return rows.tail(limit) if is_newest else rows.head(limit)


class Book:
    """The whole order book after the messages so far, by the venue's rules; not known after a break of the sequence.

    A recorded snapshot stands behind the diffs that came while it was asked for: so those wait for it.
    """

    def __init__(self) -> None:
        self._sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
        self._last_id: int | None = None
        self._is_fresh = False
        self._times: dict[str, int] = {}
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_WAITING)

    @property
    def is_known(self) -> bool:
        """Whether there is a book: from a snapshot on, until the sequence breaks."""
        return self._last_id is not None

    def ahead(self, snapshot: str) -> "Book":
        """Return what a snapshot will make of this book, which is not known."""
        book = Book()
        book._waiting.extend(self._waiting)
        book.fold(snapshot)
        return book

    def fold(self, data: str) -> None:
        """Take a diff or a snapshot over. What is no such thing breaks the sequence, by its absence."""
        with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError, ValueError):
            self._fold(msgspec.json.decode(data))

    def _fold(self, message: dict[str, Any]) -> None:
        is_snapshot = "lastUpdateId" in message
        final_id = message["lastUpdateId" if is_snapshot else "u"]
        if self._last_id is not None and final_id <= self._last_id:
            return
        if not is_snapshot and (self._last_id is None or not self._follows(message, self._last_id)):
            self._last_id = None
            self._waiting.append(message)
            return
        self._change(message, ("bids", "asks") if is_snapshot else ("b", "a"), is_whole=is_snapshot)
        self._times = {name: message[name] for name in ("E", "T") if name in message}
        self._last_id, self._is_fresh = final_id, is_snapshot
        if is_snapshot:
            waited, self._waiting = self._waiting, deque(maxlen=_WAITING)
            for diff in waited:
                self._fold(diff)

    def _change(self, message: dict[str, Any], names: tuple[str, str], *, is_whole: bool) -> None:
        sides: tuple[dict[str, str], dict[str, str]] = ({}, {}) if is_whole else self._sides
        for side, name in zip(sides, names, strict=True):
            for price, size in message[name]:
                if float(size):
                    side[price] = size
                else:
                    side.pop(price, None)
        self._sides = sides

    def _follows(self, message: dict[str, Any], last_id: int) -> bool:
        previous = message.get("pu")
        if previous is None:
            return bool(message["U"] <= last_id + 1)
        return bool(previous == last_id or (self._is_fresh and previous < last_id))

    def snapshot(self, limit: int) -> dict[str, Any] | None:
        """Return the answer to a request for the `limit` best levels; None where the book is not known."""
        if self._last_id is None:
            return None
        bids, asks = (
            [[price, side[price]] for price in sorted(side, key=float, reverse=is_bid)[:limit]]
            for side, is_bid in zip(self._sides, (True, False), strict=True)
        )
        return {"lastUpdateId": self._last_id, **self._times, "bids": bids, "asks": asks}


class Market:
    """One symbol of one venue.

    Args:
        venue: `binance_usdm` or `binance_spot`.
        venue_symbol: The name on the wire.
        folder: Where its trades may lie; there is no such folder yet.
        lose: The share of trades that nobody gets to see.
        seed: Of what is lost.

    Attributes:
        lost: The trades that are nowhere: when, and first and last id.
        greatest_id: Of the trades so far, read ahead or sent; 0 before the first.
    """

    def __init__(self, venue: str, venue_symbol: str, folder: Path, *, lose: float, seed: str) -> None:
        self.venue, self.venue_symbol = venue, venue_symbol
        folder.mkdir()
        self.trades, self.aggregates = Tape(folder / "trades"), Tape(folder / "aggregates")
        self.greatest_id = 0
        self._book = Book()
        self._upcoming: deque[str] = deque()
        self.lost: list[tuple[int, int, int]] = []
        self._lose, self._random = lose, random.Random(seed)  # noqa: S311  # faults, not secrets
        self._has_own_aggregates = False
        self._next_aggregate = 0

    def take(self, piece: Piece) -> pl.DataFrame:
        """Keep a piece's trades for REST, and return its messages with those of the aggregates that they make."""
        streamed, tape = piece
        if self._lose and tape.height:
            streamed, tape = self._thinned(streamed, tape)
        if not tape.height:
            return streamed
        self.greatest_id = max(self.greatest_id, *tape["last_id"].top_k(1))
        recorded = tape.filter(pl.col("kind") == AGG_TRADE)
        self._has_own_aggregates |= not recorded["is_refill"].all()
        singles = tape.filter(pl.col("kind") == TRADE).unique("id", keep="first", maintain_order=True)
        self.trades.add(singles)
        if self._has_own_aggregates:
            self.aggregates.add(recorded)
            return streamed
        made = pl.concat([messages.aggregated(singles), recorded]).sort("first_id", maintain_order=True)
        # An aggregate's id counts aggregates, and is never above its trades' ids: so it goes on rising when those do.
        start = max(self._next_aggregate, 0) or made["first_id"][0]
        made = made.with_columns(id=pl.int_range(pl.len()) + start)
        self._next_aggregate = start + made.height
        self.aggregates.add(made)
        sent = messages.aggregate_trades(made.filter(~pl.col("is_refill")), self.venue, self.venue_symbol)
        return pl.concat([streamed, sent]).sort("at", maintain_order=True)

    def expect(self, snapshot: str) -> None:
        """Take note of a snapshot that `fold` will be given, after those noted before."""
        self._upcoming.append(snapshot)

    def fold(self, data: str) -> None:
        """Take the next diff or snapshot over into the book."""
        if self._upcoming and data == self._upcoming[0]:
            self._upcoming.popleft()
        self._book.fold(data)

    def depth(self, limit: int) -> dict[str, Any] | None:
        """Return the book's `limit` best levels as REST gives them.

        While the book is not known it is the next recorded snapshot, which lies ahead of the stream: a client passes
        over the diffs before it. None where there is none near.
        """
        if not self._book.is_known and self._upcoming:
            return self._book.ahead(self._upcoming[0]).snapshot(limit)
        return self._book.snapshot(limit)

    def _thinned(self, streamed: pl.DataFrame, tape: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        is_lost = pl.Series([self._random.random() < self._lose for _ in range(tape.height)])
        gone = tape.filter(is_lost)
        self.lost += gone.select("at", "first_id", "last_id").iter_rows()
        return streamed.join(gone, on=["kind", "id"], how="anti", maintain_order="left"), tape.filter(~is_lost)
