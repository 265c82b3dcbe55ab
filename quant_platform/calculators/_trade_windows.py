"""The last N trades of each symbol at each sample point. What is computed from a window belongs to its calculator."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from quant_platform.calculators._tape import first_at, integers, rows_of, symbol_runs, usable_trades
from quant_platform.calculators.trade_sign import SIGNED
from quant_platform.contracts._schema import INSTANT

Array = npt.NDArray[Any]

_NS = 1_000_000_000
_BLOCK_ROWS = 65_536
_TRADE = ("symbol", "ts_event", "ts_recv", "trade_id", "last_trade_id", "price", "size", "aggressor")


class Joined(NamedTuple):
    """Retained and new trades of the symbols that have new ones.

    Attributes:
        rows: The trades, sorted by (symbol, ts_event, trade_id), with the columns of the tail.
        symbol: A number for each row's symbol, in the order of their names.
        is_new: Which rows were not in the tail.
        untouched: The tail of all other symbols.
    """

    rows: pl.DataFrame
    symbol: Array
    is_new: Array
    untouched: pl.DataFrame


@dataclass(frozen=True)
class TradeWindows:
    """Windows of rows at the sample points that a chunk touched.

    The window of sample k is `rows[start[k]:stop[k]]`; its last trade, `rows[stop[k] - 1]`, is the last one of the
    symbol in the interval that opens at `samples["ts_open"][k]`. Windows of one symbol overlap; none crosses symbols.

    Attributes:
        rows: Retained and new trades, sorted by (symbol, ts_event, trade_id). Those that no window looks at may be
            left out, so that neighbours from different windows may be apart on the tape.
        symbol: A number for each row's symbol, in the order of their names.
        samples: `symbol ts_open ts_event last_trade_id trade_count`, sorted by symbol and ts_open, one row per window.
        start: First row of each window.
        stop: The row after the last one of each window; increasing.
        context: First row that what is said of the window's trades may look at; `start` without a context.
        tail: What the next chunk needs: part of the state.
    """

    rows: pl.DataFrame
    symbol: Array
    samples: pl.DataFrame
    start: Array
    stop: Array
    context: Array
    tail: pl.DataFrame

    def column(self, name: str) -> Array:
        """Return a column of `rows`: times as integer UTC ns, a null float as NaN."""
        column = self.rows.get_column(name)
        values: Array = (column.to_physical() if column.dtype == INSTANT else column).to_numpy()
        return values

    @property
    def ts_known(self) -> pl.Series:
        """The latest `ts_recv` that each sample used, its context included."""
        latest = range_maxima(self.column("ts_recv"), self.context, self.stop)
        return pl.Series("ts_known", latest, dtype=pl.Int64).cast(INSTANT)


@dataclass(frozen=True)
class Entries:
    """The trades of each window as they look at the window's last trade.

    What a later trade says of an earlier one holds in windows that have both, and not in one that ends between them.
    Such a window has entries of its own, behind one entry for each row, which all other windows share.

    Attributes:
        copied: The rows that those entries stand for.
        seen: The last row of the window that each of them belongs to.
        start: First entry of each window.
        stop: The entry after the last one of each window.
    """

    copied: Array
    seen: Array
    start: Array
    stop: Array

    def of(self, values: Array) -> Array:
        """Return a value for each entry from one for each row."""
        return np.concatenate([values, values[self.copied]])

    def is_complete(self, completed_at: Array) -> Array:
        """Return for each entry whether something was complete by its window's last trade."""
        return np.concatenate([completed_at < len(completed_at), completed_at[self.copied] <= self.seen])

    def total(self, values: Array) -> Array:
        """Return the sum over each window of the values of its entries, of booleans their count."""
        return range_sums(values, self.start, self.stop)

    def has_any(self, values: Array) -> Array:
        """Return for each window whether some of its entries' booleans is true."""
        return range_maxima(values, self.start, self.stop)


def no_trades(*extra: str) -> pl.DataFrame:
    """Return the tail before the first trade.

    Args:
        extra: Columns of the signed tape wanted beside symbol, times, ids, price, size and aggressor.
    """
    return pl.Schema({name: SIGNED[name] for name in (*_TRADE, *extra)}).to_frame()


def trade_windows(
    tail: pl.DataFrame,
    trades: pl.DataFrame,
    *,
    last: int,
    sample_s: int,
    context_rows: int = 0,
    context_ns: int | None = None,
) -> TradeWindows:
    """Return the last trades of each symbol after the last trade of every interval that a chunk touches.

    However the tape is cut, the last window of each (symbol, ts_open) holds the same trades, and so does its context.

    Args:
        tail: `no_trades` of the wanted columns, or the `tail` of the previous call with the same arguments.
        trades: Any number of symbols, any row order, the columns of `tail` and more. A row with a null in what is not
            nullable on the tape, or with a price or size that is NaN, infinite, zero or negative, is ignored; so is
            one that is not later, by (ts_event, trade_id), than all that came of its symbol in earlier chunks, and
            the second of two with the same symbol, ts_event and trade_id.
        last: Most trades in a window.
        sample_s: Width of the intervals in seconds.
        context_rows: As many rows before a window are in its context.
        context_ns: So are all rows not more than this before the window's first trade; none if None.

    Raises:
        ValueError: A usable trade has no `ts_recv`.
    """
    rows, symbol, is_new, untouched = joined(tail, trades)
    ts = rows.get_column("ts_event").to_physical().to_numpy()
    interval = ts // (sample_s * _NS)
    symbol_first, symbol_end = runs(symbol)
    is_edge = np.append((interval[1:] != interval[:-1]) | (symbol[1:] != symbol[:-1]), True)[: len(ts)]
    stop: Array = np.flatnonzero(is_edge & is_new) + 1

    def window(stop: Array, size: int) -> tuple[Array, Array]:
        floor = symbol_first[np.searchsorted(symbol_end, stop)]
        start = np.maximum(floor, stop - size)
        context = np.maximum(floor, start - context_rows)
        if context_ns is not None:
            oldest = ts[np.minimum(start, stop - 1)] - context_ns
            context = np.minimum(context, first_at(ts, oldest, floor, start))
        return start, context

    start, context = window(stop, last)
    opens = pl.Series("ts_open", interval[stop - 1] * (sample_s * _NS), dtype=pl.Int64).cast(INSTANT)
    newest = pl.Series(stop - 1, dtype=pl.UInt32)
    samples = rows.select("symbol", "ts_event", "last_trade_id")[newest].insert_column(1, opens)
    samples = samples.with_columns(trade_count=pl.Series(stop - start))
    is_kept = np.zeros(len(ts), bool)
    is_kept[rows_of(window(symbol_end, last - 1)[1], symbol_end)] = True
    if 2 * (stop - context).sum() < len(ts):  # on a dense tape most trades are in no window
        is_needed = is_kept.copy()
        is_needed[rows_of(np.maximum(context, np.append(0, stop[:-1])), stop)] = True
        place = np.flatnonzero(is_needed)
        rows, symbol, is_kept = rows.filter(is_needed), symbol[place], is_kept[place]
        start, stop, context = (np.searchsorted(place, edge) for edge in (start, stop, context))
    tail = pl.concat([untouched, rows.filter(is_kept)], rechunk=True)  # else it would grow a chunk a step
    return TradeWindows(rows, symbol, samples, start, stop, context, tail)


def window_blocks(windows: TradeWindows) -> list[TradeWindows]:
    """Return the windows, some at a time, so that what is computed of their rows stays in a core's cache."""
    ends = zip(*runs(windows.stop // _BLOCK_ROWS), strict=True)
    return [_block(windows, first, end) for first, end in ends] or [windows]


def _block(windows: TradeWindows, first: int, end: int) -> TradeWindows:
    row, after = windows.context[first], windows.stop[end - 1]
    return TradeWindows(
        rows=windows.rows[row:after],
        symbol=windows.symbol[row:after],
        samples=windows.samples[first:end],
        start=windows.start[first:end] - row,
        stop=windows.stop[first:end] - row,
        context=windows.context[first:end] - row,
        tail=windows.tail,
    )


def entries(windows: TradeWindows, *completed_at: Array) -> Entries:
    """Return the trades of each window, apart where a window ends before what a later trade completes.

    Args:
        windows: Windows of trades.
        completed_at: For each row the row of the trade that completes something about it: itself, a later one of the
            same symbol, or the number of rows if none does.
    """
    last = windows.stop - 1
    rows = windows.rows.height
    ends_before = np.cumsum(np.bincount(windows.stop, minlength=rows + 1))  # windows without the row, among the first
    is_between = np.zeros(len(last), bool)
    for completion in completed_at:
        later = np.flatnonzero((completion > np.arange(rows)) & (completion < rows))
        is_between |= _covered(ends_before[later], ends_before[completion[later]], len(last))
    start, stop = windows.start.copy(), windows.stop.copy()
    copied = rows_of(start[is_between], stop[is_between])
    end = np.cumsum(length := (stop - start)[is_between])
    start[is_between], stop[is_between] = rows + end - length, rows + end
    return Entries(copied, np.repeat(last[is_between], length), start, stop)


def joined(tail: pl.DataFrame, trades: pl.DataFrame) -> Joined:
    """Return the tail and the new trades of the symbols that have new ones.

    Args:
        tail: `no_trades`, or retained trades, each symbol's together and in (ts_event, trade_id) order.
        trades: What `trade_windows` takes.

    Raises:
        ValueError: A usable trade has no `ts_recv`.
    """
    new = usable_trades(trades.select(pl.col(name).cast(dtype) for name, dtype in tail.schema.items()))
    if missing := new.get_column("ts_recv").null_count():
        raise ValueError(f"{missing} trades have no ts_recv: read them through the lake's scan, which fills it in")
    (old_names, old_counts), (names, counts) = (symbol_runs(frame.get_column("symbol")) for frame in (tail, new))
    ranks = pl.concat([old_names, names]).rank("dense").to_numpy() - 1
    old_code, code = np.split(ranks, [len(old_names)])
    is_touched = np.isin(old_code, code)
    kept, untouched = tail, tail.clear()
    if not is_touched.all():
        is_kept = np.repeat(is_touched, old_counts)
        kept, untouched = tail.filter(is_kept), tail.filter(~is_kept)
    symbol = np.repeat(np.append(old_code[is_touched], code), np.append(old_counts[is_touched], counts))
    rows = pl.concat([kept, new], rechunk=True)
    ts, ids = integers(rows, "ts_event"), integers(rows, "trade_id")
    is_new = np.ones(rows.height, bool)
    is_new[: rows.height - new.height] = False
    if not _is_in_order(symbol, ts, ids):
        order = np.argsort(symbol, kind="stable")  # enough where the new trades are in order, and later than the old
        if not _is_in_order(symbol[order], ts[order], ids[order]):
            order = np.lexsort((ids, ts, symbol))
            order = order[~_is_superseded(symbol[order], ts[order], ids[order], is_new[order])]
        rows, symbol, is_new = rows[order], symbol[order], is_new[order]
    return Joined(rows.with_columns(pl.col("symbol").set_sorted()), symbol, is_new, untouched)


def runs(values: Array) -> tuple[Array, Array]:
    """Return where each run of equal values starts, and where it ends (the row after its last one)."""
    start: Array = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
    return start, np.append(start[1:], len(values))[: len(start)]


@np.errstate(over="ignore")  # a sum beyond the floats is infinite
def range_sums(values: Array, start: Array, stop: Array) -> Array:
    """Return the sum of `values[start[k]:stop[k]]` for each k, of booleans their count.

    No range is empty; they may overlap, but of two ranges the one that starts later does not end earlier. Every range
    is added up by itself: differences of running sums would keep a residue of what has left the window.
    """
    return _by_range(np.add, values, start, stop, np.int64 if values.dtype == bool else None)


def range_maxima(values: Array, start: Array, stop: Array) -> Array:
    """Return the largest of `values[start[k]:stop[k]]` for each k; ranges as in `range_sums`."""
    return _by_range(np.maximum, values, start, stop)


def _by_range(combine: np.ufunc, values: Array, start: Array, stop: Array, dtype: type | None = None) -> Array:
    order = np.argsort(start, kind="stable")  # between two ranges numpy combines whatever lies there, unasked
    edges = np.column_stack([start[order], stop[order]]).ravel()
    # The last range needs no end where that is the end of the values, and cannot have one.
    combined = combine.reduceat(values, edges[edges < len(values)], dtype=dtype)[::2]
    found: Array = np.empty_like(combined)
    found[order] = combined
    return found


def _is_in_order(symbol: Array, ts: Array, ids: Array) -> bool:
    back = np.flatnonzero((ts[1:] < ts[:-1]) | (ids[1:] <= ids[:-1])) + 1
    is_later = (ts[back] > ts[back - 1]) | (symbol[back] > symbol[back - 1])
    return bool(is_later.all() and (symbol[1:] >= symbol[:-1]).all())


def _is_superseded(symbol: Array, ts: Array, ids: Array, is_new: Array) -> Array:
    """Say which rows, sorted, repeat the one before, or are new and not later than an old one of their symbol."""
    is_repeated = (symbol[1:] == symbol[:-1]) & (ts[1:] == ts[:-1]) & (ids[1:] == ids[:-1])
    next_old = np.minimum.accumulate(np.where(is_new, len(symbol), np.arange(len(symbol)))[::-1])[::-1]
    is_late = is_new & (np.append(symbol, -1)[next_old] == symbol)
    superseded: Array = is_late | np.append(False, is_repeated)
    return superseded


def _covered(start: Array, stop: Array, rows: int) -> Array:
    """Say of each row whether a range covers it."""
    steps = np.bincount(start, minlength=rows + 1) - np.bincount(stop, minlength=rows + 1)
    covered: Array = np.cumsum(steps)[:rows] > 0
    return covered
