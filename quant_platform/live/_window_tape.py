"""Trades that wait for their turn: in the order of their ids, each id once, and what is missing between them.

Who has them and when they may go is the window's business.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Trade
from quant_platform.feeds.id_ranges import NOTHING, claimed
from quant_platform.live._window_rows import CODE, Notices

Array = npt.NDArray[Any]
LEAST = -(2**62)
WAITING = {CODE: pl.Int64(), "read": pl.Int64(), "read_s": pl.Float64(), "is_refill": pl.Boolean()}
"""Beside the contract: number and monotonic time of the read that brought a row, and whether it was refilled."""

_UNKNOWN = -1
_IMPLAUSIBLE_JUMP = 10**9  # no symbol trades as often in a year


class OrderedTrades(NamedTuple):
    """Rows that wait, by symbol and id, and per row its symbol's code, ts_event (ns), and the id that is due."""

    rows: pl.DataFrame
    codes: Array
    ts: Array
    expected: Array

    @property
    def jumps(self) -> Array:
        """The places of rows before which ids are missing."""
        return np.flatnonzero(integers(self.rows, "first_trade_id") > self.expected)


class Tape:
    """The trades of all symbols.

    Args:
        names: By code, the symbols.
        notices: Told of what is dropped.

    Attributes:
        waiting: Contract `Trade`, `ts_written` (ns) and `WAITING`.
        last_ts: By code, ts_event of the last trade that was released, ns; `LEAST` before the first.
        has_gap: By code, whether trades are missing since the symbol was adopted.
    """

    def __init__(self, names: Sequence[str], notices: Notices) -> None:
        self._names, self._notices = names, notices
        self.waiting = pl.Schema({**polars_schema(Trade), "ts_written": pl.Int64(), **WAITING}).to_frame()
        self.last_ts = np.full(len(names), LEAST)
        self.has_gap = np.zeros(len(names), bool)
        self._next_id = np.full(len(names), _UNKNOWN)
        self._missing: dict[int, list[tuple[int, int]]] = {}

    def adopt(self, code: int, last_id: int | None, first_id: int | None) -> None:
        """Go on behind an id; where there is none, from `first_id` on, or with what comes."""
        after = _UNKNOWN if first_id is None else first_id
        self._next_id[code] = after if last_id is None else last_id + 1
        self.last_ts[code], self.has_gap[code] = LEAST, False
        self._missing.pop(code, None)

    def expect(self, code: int, first_id: int) -> None:
        """Begin a symbol's tape with this id, where it has not begun."""
        if self._next_id[code] == _UNKNOWN:
            self._next_id[code] = first_id

    def new(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that are not before what was adopted."""
        return rows.filter(integers(rows, "last_trade_id") >= self._next_id[integers(rows, CODE)])

    def repairable(self) -> list[int]:
        """Return the codes of symbols with a gap of which all came since, though too late."""
        return [code for code, missing in self._missing.items() if not missing]

    def ordered(self, now_s: float) -> OrderedTrades:
        """Put what waits in order, without what is known already; of an aggregate only ids that are not stay."""
        self.waiting = self.waiting.sort(CODE, "first_trade_id", "last_trade_id", "is_refill")
        found = self._expecting()
        first, last = (integers(found.rows, name) for name in ("first_trade_id", "last_trade_id"))
        is_far = first > found.expected + _IMPLAUSIBLE_JUMP
        is_again = np.append(False, (np.diff(found.codes) == 0) & (np.diff(first) == 0) & (np.diff(last) == 0))
        is_known = (last < self._next_id[found.codes]) | is_again[: len(last)]
        is_partly_known = (first < found.expected) & ~is_known
        if not (is_far | is_known | is_partly_known).any():
            return found
        for code, ident in found.rows.filter(is_far).select(CODE, "trade_id").iter_rows():
            self._notices.malformed(self._names[code], now_s, "trade_id|implausible", b"%d" % ident)
        self._note_known(found.rows.filter(is_known))
        cut = np.unique(found.codes[is_partly_known])
        self.waiting = found.rows.filter(~(is_far | is_known))
        if cut.size:
            others = self.waiting.filter(~pl.col(CODE).is_in(cut))
            self.waiting = pl.concat([others, *(self._cut(int(code)) for code in cut)])
        return self.ordered(now_s)

    def released(self, ordered: OrderedTrades, is_free: Array, now_s: float) -> pl.DataFrame:
        """Take out what may go; ids that are missing before it are given up."""
        for place in ordered.jumps:
            if is_free[place]:
                self._give_up(ordered, int(place), now_s)
        rows = ordered.rows.filter(is_free)
        codes = ordered.codes[is_free]
        np.maximum.at(self._next_id, codes, integers(rows, "last_trade_id") + 1)
        self._notices.counts["out_of_order"] += int((ordered.ts[is_free] < self.last_ts[codes]).sum())
        np.maximum.at(self.last_ts, codes, ordered.ts[is_free])
        self.waiting = ordered.rows.filter(~is_free)
        return rows

    def _expecting(self) -> OrderedTrades:
        rows = self.waiting
        codes = integers(rows, CODE)
        before = rows.select(pl.col("last_trade_id").cum_max().shift(1, fill_value=_UNKNOWN).over(CODE)).to_series()
        after = before.to_numpy() + 1
        expected = np.maximum(np.where(after > 0, after, _UNKNOWN), self._next_id[codes])
        expected = np.where(expected == _UNKNOWN, integers(rows, "first_trade_id"), expected)
        return OrderedTrades(rows, codes, integers(rows, "ts_event"), expected)

    def _note_known(self, rows: pl.DataFrame) -> None:
        counts = self._notices.counts
        for code, first, last in (
            rows.filter(~pl.col("is_refill")).select(CODE, "first_trade_id", "last_trade_id").iter_rows()
        ):
            missing = self._missing.get(code, [])
            left = [
                part
                for start, end in missing
                for part in ((start, min(end, first - 1)), (max(start, last + 1), end))
                if part[0] <= part[1]
            ]
            counts["duplicates" if left == missing else "late"] += 1
            if code in self._missing:
                self._missing[code] = left

    def _cut(self, code: int) -> pl.DataFrame:
        """Return a symbol's rows, each cut to ids that none before it has; single trades come before aggregates."""
        rows = self.waiting.filter(pl.col(CODE) == code).sort(
            pl.col("last_trade_id") - pl.col("first_trade_id"), "first_trade_id"
        )
        first, last = (integers(rows, name) for name in ("first_trade_id", "last_trade_id"))
        next_id = int(self._next_id[code])
        known = np.array([[0, next_id - 1]]) if next_id > 0 else NOTHING
        claim = claimed(known, first, last)
        is_whole = pl.Series((claim.first == first[claim.rows]) & (claim.last == last[claim.rows]))
        return rows[claim.rows].with_columns(
            trade_id=claim.first,
            first_trade_id=claim.first,
            last_trade_id=claim.last,
            size=pl.when(is_whole).then("size"),
        )

    def _give_up(self, ordered: OrderedTrades, place: int, now_s: float) -> None:
        code, first = int(ordered.codes[place]), int(ordered.expected[place])
        last = int(ordered.rows["first_trade_id"][place]) - 1
        self._missing.setdefault(code, []).append((first, last))
        self.has_gap[code] = True
        self._notices.counts["gaps"] += 1
        self._notices.say("trades missing", self._names[code], now_s, first_id=first, last_id=last)


def integers(rows: pl.DataFrame, column: str) -> Array:
    """Return a column of integers or times without nulls, as integers."""
    values: Array = rows.get_column(column).to_numpy().view(np.int64)
    return values


def up_to_first(codes: Array, is_stopped: Array) -> Array:
    """Return which rows stand before the first that is stopped, of each run of one code."""
    if not is_stopped.any():
        return np.ones(len(codes), bool)
    stops = np.cumsum(is_stopped)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    before = (stops - is_stopped)[starts]
    free: Array = stops == np.repeat(before, np.diff(starts, append=len(codes)))
    return free
