"""Quotes, or books, that wait for their turn: by time and update id, which only rise; and which of them were lost.

Who has them and when they may go is the window's business.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from quant_platform.contracts._schema import Contract, polars_schema
from quant_platform.contracts.market import Book
from quant_platform.live._window_rows import CODE, Notices
from quant_platform.live._window_tape import LEAST, WAITING, Array, integers

Key = tuple[int, int]
"""ts_event, ns, and sequence."""


class Loss(NamedTuple):
    """Entries that a Stream lost: how many at least, between which, and when that was seen (monotonic clock)."""

    before: Key
    after: Key
    entries: int
    seen_s: float


class OrderedUpdates(NamedTuple):
    """Rows that wait, by symbol, time and update id, and per row its symbol's code and ts_event (ns)."""

    rows: pl.DataFrame
    codes: Array
    ts: Array


class Updates:
    """The quotes, or the books, of all symbols.

    Args:
        contract: `Quote` or `Book`.
        names: By code, the symbols.
        notices: Told of what is dropped.

    Attributes:
        waiting: The contract and `WAITING`.
    """

    def __init__(self, contract: type[Contract], names: Sequence[str], notices: Notices) -> None:
        self._notices = notices
        self._what = "books" if contract is Book else "quotes"
        self.waiting = pl.Schema({**polars_schema(contract), **WAITING}).to_frame()
        self._last, self._adopted = np.full((2, 2, len(names)), LEAST)
        self._read = np.full((3, len(names)), LEAST)  # number of the last entry, and its key

    def adopt(self, code: int, last: Key | None) -> None:
        """Go on behind a key; where there is none, with what comes."""
        self._last[:, code] = self._adopted[:, code] = last or (LEAST, LEAST)

    def new(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that are behind what was adopted."""
        return rows.filter(~_is_behind(rows, self._last))

    def losses(self, rows: pl.DataFrame, seen_s: float) -> dict[int, Loss]:
        """Return what the numbers of the entries say was lost, by code.

        Args:
            rows: Contract, `symbol_code` and `seq`, as they stood in the Streams.
            seen_s: The monotonic clock.
        """
        if rows["seq"].null_count():
            rows = rows.filter(pl.col("seq").is_not_null())
        if rows.is_empty():
            return {}
        codes, *keys = (integers(rows, name) for name in (CODE, "seq", "ts_event", "sequence"))
        now = np.stack(keys)
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        ends = np.append(starts[1:], len(codes)) - 1
        before = np.roll(now, 1, axis=1)
        before[:, starts] = self._read[:, codes[starts]]
        found: dict[int, Loss] = {}
        for place in np.flatnonzero((now[0] != before[0] + 1) & (before[0] != LEAST)).tolist():
            (number, *last), (seq, *this) = before[:, place].tolist(), now[:, place].tolist()
            if this <= last:
                continue  # it came twice
            # Numbers begin at 1 again with a new collector.
            if count := seq - (number if seq > number else 0) - 1:
                code = int(codes[place])
                loss = Loss((last[0], last[1]), (this[0], this[1]), count, seen_s)
                found[code] = joined(found.get(code), loss)
                self._notices.counts[f"lost_{self._what}"] += count
        self._read[:, codes[ends]] = now[:, ends]
        return found

    def ordered(self) -> OrderedUpdates:
        """Put what waits in order, without what is known already or comes too late."""
        rows = self.waiting.sort(CODE, "ts_event", "sequence", "is_refill")
        codes, ts, sequence = (integers(rows, name) for name in (CODE, "ts_event", "sequence"))
        is_again = np.append(False, (np.diff(codes) == 0) & (np.diff(ts) == 0) & (np.diff(sequence) == 0))[: len(codes)]
        is_old = _is_behind(rows, self._last)
        if (is_again | is_old).any():
            is_streamed = ~rows.get_column("is_refill").to_numpy()
            is_late = is_streamed & is_old & ~is_again & ~_is_behind(rows, self._adopted)
            self._notices.counts[f"late_{self._what}"] += int(is_late.sum())
            self._notices.counts["duplicates"] += int(((is_again | is_old) & is_streamed & ~is_late).sum())
            is_kept = ~(is_again | is_old)
            rows, codes, ts = rows.filter(is_kept), codes[is_kept], ts[is_kept]
        return OrderedUpdates(rows, codes, ts)

    def released(self, ordered: OrderedUpdates, is_free: Array) -> pl.DataFrame:
        """Take out what may go."""
        rows, self.waiting = ordered.rows.filter(is_free), ordered.rows.filter(~is_free)
        codes = ordered.codes[is_free]
        self._last[:, codes] = ordered.ts[is_free], integers(rows, "sequence")  # of a symbol's rows the last counts
        return rows


class Instants:
    """The last two instants of the quotes that went, by code: so much of them does a fold remember."""

    def __init__(self, symbols: int) -> None:
        self._last = np.full((2, symbols), LEAST)

    def adopt(self, code: int, ts: int) -> None:
        """Begin anew."""
        self._last[:, code] = LEAST, ts

    def are_behind(self, codes: Array, ts: Array) -> Array:
        """Return which trades come so late that none of the two is before them."""
        behind: Array = ts <= self._last[0][codes]
        return behind

    def add(self, codes: Array, ts: Array) -> None:
        """Take in the quotes that go now, by symbol and time."""
        is_new = np.append(True, (np.diff(codes) != 0) | (np.diff(ts) != 0))[: len(codes)]
        codes, ts = codes[is_new], ts[is_new]
        last = np.flatnonzero(np.diff(codes, append=-1))
        symbols, latest = codes[last], ts[last]
        older = np.where(self._last[1][symbols] < latest, self._last[1][symbols], self._last[0][symbols])
        has_two = (last > 0) & (codes[last - 1] == symbols)
        self._last[:, symbols] = np.where(has_two, ts[last - 1], older), latest


def joined(one: Loss | None, other: Loss) -> Loss:
    """Return two losses of one symbol as one, which is given up when the older one is."""
    if one is None:
        return other
    keys = min(one.before, other.before), max(one.after, other.after)
    return Loss(*keys, one.entries + other.entries, min(one.seen_s, other.seen_s))


def _is_behind(rows: pl.DataFrame, keys: Array) -> Array:
    """Return which rows are not after their symbol's key."""
    codes, ts, sequence = (integers(rows, name) for name in (CODE, "ts_event", "sequence"))
    last_ts, last_sequence = keys[:, codes]
    is_behind: Array = (ts < last_ts) | ((ts == last_ts) & (sequence <= last_sequence))
    return is_behind
