"""Partial bars of a stretch of the tape, block by block on all cores. Merging them into bars is `bars`' business."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]
Columns = dict[str, Array]
PARTIAL = pl.Schema(
    {
        "symbol": pl.String(),
        "ts_open": pl.Int64(),
        "first_ts": pl.Int64(),
        "first_id": pl.Int64(),
        "last_ts": pl.Int64(),
        "last_id": pl.Int64(),
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
        "notional": pl.Float64(),
        "trade_count": pl.Int64(),
        "buy_volume": pl.Float64(),
        "sell_volume": pl.Float64(),
        "revision": pl.Int64(),
        "last_recv": pl.Int64(),
    }
)
"""One row per symbol and interval, as sums that more trades can join. Times are integer UTC ns."""

LAST_ID = "last_trade_id"
TRADE_COLUMNS = (
    "ts_event",
    "ts_recv",
    "symbol",
    "trade_id",
    LAST_ID,
    "price",
    "size",
    "aggressor",
)
_READ_ROWS = 1_048_576  # a row group of the lake
_BLOCK_ROWS = 131_072  # a few columns of a block stay in a core's cache; smaller ones cost more calls
_POSITIVE = ("price", "size")


def partial_bars(trades: pl.DataFrame | pl.LazyFrame, width_ns: int) -> pl.DataFrame:
    """Return the partial bars of each block of rows, blocks in their order, with the number of the `block`.

    A lazy tape is read a row group at a time, each thread its own, so that no more than that is ever in memory.

    `revision` counts the trades that came late after others of their own block.

    Raises:
        ValueError: A usable trade has no `ts_recv`.
    """
    tape = trades.lazy()
    is_single = LAST_ID not in tape.collect_schema()
    chosen = tape.select(name for name in TRADE_COLUMNS if name != LAST_ID or not is_single)
    rows = chosen.select(pl.len()).collect().item()
    step = _READ_ROWS if isinstance(trades, pl.LazyFrame) else _BLOCK_ROWS

    def parts(start: int) -> list[dict[str, Any]]:
        return list(_parts(chosen.slice(start, step).collect(), width_ns))

    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        found = [part for chunk in pool.map(parts, range(0, rows, step)) for part in chunk]
    if not found:
        return pl.DataFrame(schema={**PARTIAL, "block": pl.Int64})
    numbers = np.repeat(np.arange(len(found)), [len(part["ts_open"]) for part in found])
    columns = {name: np.concatenate([part[name] for part in found]) for name in PARTIAL if name != "symbol"}
    symbols = pl.concat([part["symbol"] for part in found])
    return pl.DataFrame({"symbol": symbols.cast(pl.String), **columns, "block": numbers})


def _parts(chunk: pl.DataFrame, width_ns: int) -> Iterator[dict[str, Any]]:
    for block in (block for piece in _pieces(chunk) for block in piece.iter_slices(_BLOCK_ROWS)):
        trades, columns, changes = _ordered(block, width_ns)
        if trades.height:
            yield _partial(trades.get_column("symbol"), columns, changes, width_ns)


def _ordered(block: pl.DataFrame, width_ns: int) -> tuple[pl.DataFrame, Columns, Array | None]:
    """Return the usable rows in order; what is so already, as nearly all of a tape is, is only looked at."""
    if not any(column.null_count() for column in block.get_columns()):
        columns, changes = _columns(block), _symbol_changes(block)
        if _is_clean(columns) and _is_in_order(block, columns, changes):
            return block, columns, changes
    trades = _in_order(_usable(block), width_ns)
    return trades, _columns(trades), _symbol_changes(trades)


def _pieces(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield a frame in pieces that lie whole in memory, as they were read: numpy would copy anything else."""
    lengths = [column.chunk_lengths() for column in frame.get_columns()]
    edges = sorted({0, *(edge for column in lengths for edge in accumulate(column))})
    yield from (frame[start:stop] for start, stop in pairwise(edges))


def _partial(symbols: pl.Series, columns: Columns, changes: Array | None, width_ns: int) -> dict[str, Any]:
    ts, first_id, price, size = (columns[name] for name in ("ts_event", "trade_id", "price", "size"))
    starts = _starts(ts, width_ns, changes)
    ends = np.append(starts[1:], len(ts)) - 1
    is_late = columns.get("is_late")
    # A tape of single trades, in order, is counted by its edges alone.
    last_id = columns.get(LAST_ID, first_id)
    is_single = is_late is None and (last_id is first_id or np.array_equal(last_id, first_id))
    count = None if is_single else last_id - first_id + 1
    add, greatest, least = np.add.reduceat, np.maximum.reduceat, np.minimum.reduceat
    return {
        "symbol": symbols.head(len(starts)) if changes is None else symbols.gather(starts),
        "ts_open": ts[starts] // width_ns * width_ns,
        "first_ts": ts[starts],
        "first_id": first_id[starts],
        "last_ts": ts[ends],
        "last_id": first_id[ends],
        "open": price[starts],
        "high": greatest(price, starts),
        "low": least(price, starts),
        "close": price[ends],
        "volume": add(size, starts),
        "notional": add(price * size, starts),
        "trade_count": ends - starts + 1 if count is None else add(count, starts),
        "buy_volume": add(size * (columns["aggressor"] > 0), starts),
        "sell_volume": add(size * (columns["aggressor"] < 0), starts),
        "revision": np.zeros_like(starts) if is_late is None or count is None else add(count * is_late, starts),
        "last_recv": greatest(columns["ts_recv"], starts),
    }


def _starts(ts: Array, width_ns: int, changes: Array | None) -> Array:
    """Return the position of the first row of each interval and symbol."""
    first, last = int(ts[0]) // width_ns + 1, int(ts[-1]) // width_ns
    if changes is None and last - first < len(ts):
        # The rows are in order and the intervals are fewer: looking their edges up is cheaper than dividing each time.
        edges = np.searchsorted(ts, np.arange(first, last + 1) * width_ns)
        return np.append(0, edges[np.diff(edges, prepend=0) > 0])
    interval = ts // width_ns
    is_start = interval[1:] != interval[:-1]
    if changes is not None:
        is_start |= changes
    return np.append(0, np.flatnonzero(is_start) + 1)


def _is_clean(columns: Columns) -> bool:
    values = (columns[name] for name in _POSITIVE)
    return all(v.min() > 0 and v.max() < np.inf for v in values)  # numpy's min and max of a NaN are NaN


def _usable(trades: pl.DataFrame) -> pl.DataFrame:
    usable = trades.filter(
        *(pl.col(name).is_not_null() for name in trades.columns if name != "ts_recv"),
        *(pl.col(name).is_finite() & (pl.col(name) > 0) for name in _POSITIVE),
    )
    if missing := usable.get_column("ts_recv").null_count():
        raise ValueError(f"{missing} trades have no ts_recv: read them through the lake's scan, which fills it in")
    return usable


def _columns(trades: pl.DataFrame) -> Columns:
    """Return all but the symbols as arrays, times as integers."""
    arrays = {column.name: column.to_numpy() for column in trades.iter_columns() if column.name != "symbol"}
    return {name: values.view(np.int64) if values.dtype.kind == "M" else values for name, values in arrays.items()}


def _symbol_changes(trades: pl.DataFrame) -> Array | None:
    """Say of each row but the first whether its symbol is another than the row's before; None: it never is."""
    symbols = trades.get_column("symbol")
    if symbols.is_empty() or (symbols == symbols[0]).all():
        return None
    return (symbols != symbols.shift())[1:].to_numpy()


def _is_in_order(trades: pl.DataFrame, columns: Columns, changes: Array | None) -> bool:
    """Say whether each symbol's rows stand together, in (ts_event, trade_id) order."""
    ts, ids = columns["ts_event"], columns["trade_id"]
    if changes is None and (ts[1:] >= ts[:-1]).all() and (ids[1:] > ids[:-1]).all():
        return True
    forward = (ts[1:] > ts[:-1]) | ((ts[1:] == ts[:-1]) & (ids[1:] > ids[:-1]))
    if changes is None:
        return bool(forward.all())
    stand_together = np.count_nonzero(changes) + 1 == trades.get_column("symbol").n_unique()
    return stand_together and bool((forward | changes).all())


def _in_order(trades: pl.DataFrame, width_ns: int) -> pl.DataFrame:
    """Sort a block, after marking the rows whose bar had closed when they came."""
    ts = pl.col("ts_event").to_physical()
    seen = ts.cum_max().shift().over("symbol")
    return trades.with_columns(is_late=(ts - ts.mod(width_ns) + width_ns <= seen).fill_null(False)).sort(
        "symbol", "ts_event", "trade_id", maintain_order=True
    )
