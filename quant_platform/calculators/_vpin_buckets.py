"""Volume buckets of signed flow, filled exactly: where each one ends, and what had been filled at each sample point.

Volume is counted in whole units of about 1e-12 of a bucket, so that no sum depends on how the tape was cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import polars as pl

from quant_platform.calculators._tape import SEEN, Array, BySymbol, blocks, first_at, last_rows

_DIGITS = 12
_MOST_UNITS = 2.0**62
_NO_BUCKET = 2**62
_ROWS_PER_EDGE = 32  # where intervals hold more rows than that, looking their edges up is the cheaper way


@dataclass(frozen=True)
class Flow:
    """Volume with its side, by symbol and time: trades, or bars whose volume is signed as a whole.

    Attributes:
        symbols: Their names.
        starts: Where each symbol begins.
        ts: Integer UTC ns, as `recv`.
        recv: When the row was known.
        last_id: The last trade's id.
        size: Base units, > 0.
        share: Share bought less share sold: -1, 0 or 1 in integers, or floats between.
    """

    symbols: list[str]
    starts: Array
    ts: Array
    recv: Array
    last_id: Array
    size: Array
    share: Array


def no_books(n_buckets: int) -> BySymbol:
    """Return the books before the first symbol.

    A book is how far the symbol was folded, its open bucket, its last full ones, and its volume since the open. Volume
    is in whole units, `scale` of them to a base unit and `capacity` to a bucket; `signed` is bought less sold volume,
    `window` the |signed| of the last full buckets, `filled` the count of all. Times are integer UTC ns. Of a symbol
    without a bucket size nothing is counted: its `scale` is 0.
    """
    zeros = ("filled", "volume", "signed", "ts_start", "session_volume", "session_signed", "last_recv")
    window = [0] * n_buckets
    units = {"scale": 0.0, "capacity": _NO_BUCKET}
    return BySymbol.empty({**SEEN, **units, **dict.fromkeys(zeros, 0), "is_warm": False, "window": window})


def opened_books(books: BySymbol, symbols: Sequence[str], sizes: Mapping[str, float | None]) -> BySymbol:
    """Return the books with one for each of these symbols; a new one gets its bucket size, null where there is none."""
    opened = books.including(symbols)
    is_new = opened.facts["last_ts"][opened.at(symbols)] == SEEN["last_ts"]
    new = list(compress(symbols, is_new))
    size = np.array([sizes.get(symbol) or np.nan for symbol in new])
    scale = np.power(10.0, _DIGITS - np.ceil(np.log10(size)))
    is_sized = np.isfinite(size)
    capacity = np.where(is_sized, np.rint(np.where(is_sized, size * scale, 0)), _NO_BUCKET).astype(np.int64)
    return opened.changed(opened.at(new), {"scale": np.where(is_sized, scale, 0.0), "capacity": capacity})


def poured(
    book: Mapping[str, Array], flow: Flow, sample_ns: int
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Pour the flow into the buckets.

    Args:
        book: The facts of each symbol of the flow, in its order.
        flow: What comes after all that the books hold; not empty.
        sample_ns: Width of the intervals; the last row of each is a sample point.

    Returns:
        Facts of the books after the flow; the buckets that it filled; and the samples. In both, `owner` is the symbol's
        number, and `imbalance` the sum of |signed| over as many last full buckets as the window holds.

    Raises:
        ValueError: There are more units than can be counted: a bucket is far too small for what is traded.
    """
    volume, stops = _accumulated(flow, book), _interval_ends(flow, sample_ns)
    last = last_rows(flow.starts, len(volume))
    before = _at(volume, flow.starts - 1)
    base, capacity = before - book["volume"], book["capacity"]
    full = (volume[last] - base) // capacity

    owner, number = _counted(full)
    edge = base[owner] + number * capacity[owner]
    row = np.searchsorted(volume, edge)
    is_point = np.zeros(len(volume), bool)
    is_point[row] = is_point[stops] = True
    points = np.flatnonzero(is_point)
    at_row, at_stop, at_last = (np.searchsorted(points, rows) for rows in (row, stops, last))
    latest = _latest(points, flow, book["last_recv"])
    signed = _signed_sums(points, volume, flow.share)
    signed_before = np.append(0, signed[at_last[:-1]])
    signed_base = signed_before - book["signed"]
    at_edge = signed[at_row] - _signed(volume[row] - edge, flow.share[row])
    parts = at_edge - np.where(number == 1, signed_base[owner], np.roll(at_edge, 1))

    begins, windows = _windows(book["window"], np.abs(parts), owner, number, full)
    sums = np.append(0, np.cumsum(windows))
    n_buckets = book["window"].shape[1]

    def imbalance(owner: Array, new: Array) -> Array:
        total: Array = sums[begins[owner] + new + n_buckets] - sums[begins[owner] + new]
        return total

    def first_beyond(edge: Array) -> Array:
        found: Array = flow.ts[np.minimum(np.searchsorted(volume, edge, side="right"), len(volume) - 1)]
        return found

    is_brimful = volume[row] == edge
    next_start = flow.ts[row]
    next_start[is_brimful] = first_beyond(edge[is_brimful])
    ts_start = np.where(book["volume"] > 0, book["ts_start"], first_beyond(before))
    bucket_start = np.where(number == 1, ts_start[owner], np.roll(next_start, 1))
    # Of a symbol's several buckets the last one stays.
    signed_base[owner] = at_edge
    ts_start[owner] = next_start

    buckets = {
        "owner": owner,
        "bucket": book["filled"][owner] + number,
        "ts_start": bucket_start,
        "ts_end": flow.ts[row],
        "last_trade_id": flow.last_id[row],
        "signed": parts,
        "imbalance": imbalance(owner, number),
        "last_recv": latest[at_row],
    }
    holder = np.searchsorted(flow.starts, stops, side="right") - 1
    done = (volume[stops] - base[holder]) // capacity[holder]
    samples = {
        "owner": holder,
        "ts_open": flow.ts[stops] // sample_ns * sample_ns,
        "ts_event": flow.ts[stops],
        "last_trade_id": flow.last_id[stops],
        "filled": book["filled"][holder] + done,
        "imbalance": imbalance(holder, done),
        "session_volume": (book["session_volume"] - before)[holder] + volume[stops],
        "session_signed": (book["session_signed"] - signed_before)[holder] + signed[at_stop],
        "last_recv": latest[at_stop],
    }
    after = {
        "filled": book["filled"] + full,
        "volume": volume[last] - base - full * capacity,
        "signed": signed[at_last] - signed_base,
        "ts_start": ts_start,
        "session_volume": book["session_volume"] - before + volume[last],
        "session_signed": book["session_signed"] - signed_before + signed[at_last],
        "last_recv": latest[at_last],
        "window": windows[(begins + full)[:, None] + np.arange(n_buckets)],
    }
    return after, buckets, samples


def _accumulated(flow: Flow, book: Mapping[str, Array]) -> Array:
    """Return the running sum of volume over all rows."""
    rows, scale = len(flow.size), book["scale"]
    scales = np.repeat(scale, np.diff(flow.starts, append=rows)) if len(scale) > 1 else np.broadcast_to(scale, rows)
    volume, total = np.empty(rows, np.int64), 0.0
    for block in blocks(rows):
        units = np.rint(flow.size[block] * scales[block])
        if (total := total + units.sum()) > _MOST_UNITS:
            raise ValueError(_too_small(flow, book))
        added = units.astype(np.int64)
        added[0] += volume[block.start - 1] if block.start else 0
        np.cumsum(added, out=volume[block])
    return volume


def _interval_ends(flow: Flow, sample_ns: int) -> Array:
    """Return the last row of each symbol and interval."""
    last = last_rows(flow.starts, len(flow.ts))
    opened, closed = flow.ts[flow.starts] // sample_ns, flow.ts[last] // sample_ns
    if (closed - opened).sum() < len(flow.ts) // _ROWS_PER_EDGE:
        owner, number = _counted(closed - opened)
        ends = first_at(flow.ts, (opened[owner] + number) * sample_ns, flow.starts[owner], last[owner]) - 1
    else:
        interval = flow.ts // sample_ns
        ends = np.flatnonzero(interval[1:] != interval[:-1])
    return np.unique(np.append(ends, last))


def _counted(counts: Array) -> tuple[Array, Array]:
    """Return for each k of 0, 1, … as many rows as it counts: k itself, and 1, 2, … of them."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + 1


def _too_small(flow: Flow, book: Mapping[str, Array]) -> str:
    traded = np.add.reduceat(flow.size, flow.starts)
    worst = int(np.argmax(traded * book["scale"]))
    size = book["capacity"][worst] / book["scale"][worst]
    return f"{flow.symbols[worst]} traded {traded[worst]:g} base units, far too much for a bucket_size of {size:g}"


def _signed_sums(points: Array, volume: Array, share: Array) -> Array:
    """Return the running sum of signed volume at these rows, which are in order."""
    sums, total = np.empty(len(points), np.int64), np.int64(0)
    for block in blocks(len(volume)):
        added = volume[block].copy()
        added[1:] -= volume[block][:-1]
        added[0] -= volume[block.start - 1] if block.start else 0
        running = np.cumsum(_signed(added, share[block]))
        own = slice(*np.searchsorted(points, (block.start, block.stop)))
        sums[own] = total + running[points[own] - block.start]
        total += running[-1]
    return sums


def _signed(volume: Array, share: Array) -> Array:
    product: Array = volume * share
    return np.rint(product).astype(np.int64) if product.dtype.kind == "f" else product


def _at(running: Array, rows: Array) -> Array:
    """Return running sums after these rows; before the first row there is nothing."""
    return np.where(rows < 0, 0, running[rows])


def _windows(window: Array, imbalance: Array, owner: Array, number: Array, full: Array) -> tuple[Array, Array]:
    """Return one array of all buckets, each symbol's window and then its new ones, and where each symbol's begin."""
    n_buckets = window.shape[1]
    begins = np.cumsum(full + n_buckets) - full - n_buckets
    values = np.empty(window.size + len(owner), np.int64)
    values[begins[:, None] + np.arange(n_buckets)] = window
    values[begins[owner] + n_buckets + number - 1] = imbalance
    return begins, values


def _latest(points: Array, flow: Flow, last_recv: Array) -> Array:
    """Return the latest receipt of a symbol's rows up to each of these points, earlier chunks included.

    Args:
        points: Rows in order, the last one of each symbol among them.
        flow: The flow.
        last_recv: Latest receipt of each book.
    """
    parts = np.maximum.reduceat(flow.recv, np.append(0, points[:-1] + 1))
    owner = np.searchsorted(flow.starts, points, side="right") - 1
    received = pl.DataFrame({"owner": owner, "recv": np.maximum(parts, last_recv[owner])})
    return received.select(pl.col("recv").cum_max().over("owner")).to_series().to_numpy()
