"""Order flow imbalance per interval of a book's updates, as a fold. What an interval's last book says is elsewhere."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from quant_platform.calculators._tape import SEEN, Array, integers, is_positive
from quant_platform.calculators._touch import TOUCH, figures, is_bad_price, is_bad_size

NEVER = np.iinfo(np.int64).min
# Beside an unknown book any price is a worse bid and a worse ask, so that neither leaving nor entering it is a flow.
_UNKNOWN = {"bid_price": np.inf, "bid_size": 0.0, "ask_price": -np.inf, "ask_size": 0.0}
LAST: Mapping[str, Any] = {
    **SEEN,
    **_UNKNOWN,
    **dict.fromkeys(("bid_size_before", "ask_size_before", "bid_moves", "ask_moves"), 0.0),
    **dict.fromkeys(("ts_open", "ts_recv", "latest_recv"), NEVER),
    "has_flow": False,
}
"""A symbol's last update (times in ns), and what `flow` made of its interval so far; blank before the first one."""


class Intervals(NamedTuple):
    """Where the intervals lie in a chunk's rows.

    Attributes:
        begins: First row of each interval.
        ends: Last row of each interval.
        opens: Start of each interval, ns.
        of: The interval of each row.
        first: Each symbol's first interval.
        goes_on: Whether that one is the interval of the symbol's last update.
    """

    begins: Array
    ends: Array
    opens: Array
    of: Array
    first: Array
    goes_on: Array

    @property
    def last(self) -> Array:
        """Each symbol's last interval."""
        return np.append(self.first[1:], len(self.begins)) - 1


def intervals(rows: pl.DataFrame, starts: Array, before: Mapping[str, Array], width_ns: int) -> Intervals:
    """Cut rows in order of (symbol, ts_event) into intervals; `starts` are each symbol's first row."""
    number = integers(rows, "ts_event") // width_ns
    is_begin = np.empty(len(number), np.bool_)
    np.not_equal(number[1:], number[:-1], out=is_begin[1:])
    is_begin[starts] = True
    begins = np.flatnonzero(is_begin)
    ends = np.append(begins[1:], len(number)) - 1
    opens, first = number[begins] * width_ns, np.searchsorted(begins, starts)
    of = np.repeat(np.arange(len(begins), dtype=np.int32), ends - begins + 1)
    return Intervals(begins, ends, opens, of, first, goes_on=opens[first] == before["ts_open"])


def flow(rows: pl.DataFrame, spans: Intervals, before: Mapping[str, Array]) -> dict[str, Array]:
    """Return each interval's `ofi` so far and the columns of `LAST` that it is made of.

    While a price stands, the flow of its side is the change of its size. So the sum over an interval is the change of
    size from before the interval to its end, corrected at each move of the price: a few rows instead of all, and the
    same last bit however the rows are cut, since corrections are added one by one in their order.
    """
    touch = _touch(rows)
    columns = {name: values[spans.ends] for name, values in touch.items()}
    for side in ("bid", "ask"):
        columns |= _of_side(side, touch, spans, before)
    bid, ask = (
        columns[f"{side}_size"] - columns[f"{side}_size_before"] + columns[f"{side}_moves"] for side in ("bid", "ask")
    )
    return {
        **columns,
        "ofi": bid - ask,
        "has_flow": _has_flow(touch["bid_price"] < np.inf, spans, before),
        "latest_recv": _latest_recv(integers(rows, "ts_recv"), spans, before),
    }


def _of_side(side: str, touch: Mapping[str, Array], spans: Intervals, before: Mapping[str, Array]) -> dict[str, Array]:
    """Return the size of a side before each interval, and the sum of its corrections at the moves of its price."""
    price, size, starts = touch[f"{side}_price"], touch[f"{side}_size"], spans.begins[spans.first]
    standing = size[spans.begins - 1]
    standing[spans.first] = np.where(spans.goes_on, before[f"{side}_size_before"], before[f"{side}_size"])
    is_move = np.empty(len(price), np.bool_)
    np.not_equal(price[1:], price[:-1], out=is_move[1:])
    is_move[starts] = True
    moves = np.flatnonzero(is_move)
    from_price, from_size = price.take(moves - 1, mode="wrap"), size.take(moves - 1, mode="wrap")
    to_price, to_size = price.take(moves), size.take(moves)
    at_start = np.searchsorted(moves, starts)
    from_price[at_start], from_size[at_start] = before[f"{side}_price"], before[f"{side}_size"]
    is_better = to_price > from_price if side == "bid" else to_price < from_price
    corrections: Array = np.where(is_better, from_size, -to_size)
    corrections[at_start[from_price[at_start] == to_price[at_start]]] = 0.0
    corrections[at_start] += np.where(spans.goes_on, before[f"{side}_moves"], 0.0)
    total = np.bincount(spans.of[moves], weights=corrections, minlength=len(spans.begins))
    return {f"{side}_size_before": standing, f"{side}_moves": total}


def _touch(rows: pl.DataFrame) -> dict[str, Array]:
    """Return best prices and sizes without a null: an empty side is a price worse than any, with size 0."""
    columns = {name: rows.get_column(name) for name in TOUCH}
    if all(is_positive(column) for column in columns.values()):
        return {name: column.to_numpy() for name, column in columns.items()}
    bid, bid_size, ask, ask_size = figures(rows.select(TOUCH)).T
    has_bid, has_ask = ~(np.isnan(bid) | np.isnan(bid_size)), ~(np.isnan(ask) | np.isnan(ask_size))
    is_bad = is_bad_price(bid) | is_bad_price(ask) | is_bad_size(bid_size) | is_bad_size(ask_size)
    is_known = (has_bid | has_ask) & ~is_bad
    return {
        "bid_price": np.where(is_known, np.where(has_bid, bid, -np.inf), _UNKNOWN["bid_price"]),
        "bid_size": np.where(is_known & has_bid, bid_size, 0.0),
        "ask_price": np.where(is_known, np.where(has_ask, ask, np.inf), _UNKNOWN["ask_price"]),
        "ask_size": np.where(is_known & has_ask, ask_size, 0.0),
    }


def _has_flow(is_known: Array, spans: Intervals, before: Mapping[str, Array]) -> Array:
    """Return whether an interval has an update whose book and the one before are known."""
    is_pair = is_known.copy()
    is_pair[1:] &= is_known[:-1]
    starts = spans.begins[spans.first]
    is_pair[starts] = is_known[starts] & (before["bid_price"] < np.inf)
    lost = np.bincount(spans.of[np.flatnonzero(~is_pair)], minlength=len(spans.begins))
    has_flow: Array = spans.ends - spans.begins + 1 > lost
    has_flow[spans.first] |= spans.goes_on & before["has_flow"]
    return has_flow


def _latest_recv(recv: Array, spans: Intervals, before: Mapping[str, Array]) -> Array:
    """Return the latest receipt of an interval's updates and of the one before it."""
    earlier = recv[spans.begins - 1]
    earlier[spans.first] = np.where(spans.goes_on, before["latest_recv"], before["ts_recv"])
    latest: Array = np.maximum(np.maximum.reduceat(recv, spans.begins), earlier)
    return latest
