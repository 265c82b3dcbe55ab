"""Which ids are captured, as ranges, and what rows of a tape add to them. What the rows say is `frames`' business."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
NOTHING: Array = np.empty((0, 2), np.int64)


class Claim(NamedTuple):
    """What each row adds, in the order of arrival: a row that adds nothing is not there, one may be there repeatedly.

    Attributes:
        rows: The row's number.
        first: First id that nothing brought before.
        last: Last id of the range.
        captured: What is captured then.
    """

    rows: Array
    first: Array
    last: Array
    captured: Array


def claimed(captured: Array, first: Array, last: Array) -> Claim:
    """Return which ids each row brings first.

    Args:
        captured: Ranges (first, last), both included, that neither overlap nor touch, sorted.
        first: First id of each row, in the order of arrival.
        last: Its last id, not below the first.
    """
    if not len(first) or (first[0] > greatest(captured) and (first[1:] > last[:-1]).all()):
        rows = np.arange(len(first))
    else:
        rows, first, last = _claims(captured, first, last)
    return Claim(rows, first, last, _merged(captured, first, last))


def greatest(captured: Array) -> int:
    """Return the greatest captured id, -1 where there is none."""
    return int(captured[-1, 1]) if len(captured) else -1


def _claims(captured: Array, first: Array, last: Array) -> tuple[Array, Array, Array]:
    """Return rows, first and last of what is claimed. Only rows that share ids are looked at one by one."""
    order = np.lexsort((last, first))
    is_repeat = np.append(False, (np.diff(first[order]) == 0) & (np.diff(last[order]) == 0))
    order = order[~is_repeat]
    low, high = _overlapping(captured, first[order], last[order])
    holders = captured[np.minimum(low, len(captured) - 1)] if len(captured) else np.full((len(order), 2), -1)
    is_known = (low < high) & (holders[:, 0] <= first[order]) & (last[order] <= holders[:, 1])
    order, is_free = order[~is_known], (low == high)[~is_known]
    meets = first[order][1:] <= np.maximum.accumulate(last[order])[:-1]
    is_alone = is_free & ~np.append(False, meets) & ~np.append(meets, False)
    alone, others = order[is_alone], np.sort(order[~is_alone])
    pieces = np.array(list(_pieces(captured, first, last, others)), np.int64).reshape(-1, 3)
    found = np.concatenate([np.column_stack([alone, first[alone], last[alone]]), pieces])
    found = found[np.argsort(found[:, 0], kind="stable")]
    return found[:, 0], found[:, 1], found[:, 2]


def _pieces(captured: Array, first: Array, last: Array, rows: Array) -> Iterator[tuple[int, int, int]]:
    taken: list[tuple[int, int]] = []
    low, high = _overlapping(captured, first[rows], last[rows])
    for row, start, stop, a, b in zip(
        *(column.tolist() for column in (rows, first[rows], last[rows], low, high)), strict=True
    ):
        since = taken[bisect_left(taken, start, key=itemgetter(1)) : bisect_right(taken, stop, key=itemgetter(0))]
        for piece in _missing(start, stop, sorted([*map(tuple, captured[a:b].tolist()), *since])):
            insort(taken, piece)
            yield row, *piece


def _missing(first: int, last: int, captured: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, stop in captured:
        if first < start:
            yield first, start - 1
        first = stop + 1
    if first <= last:
        yield first, last


def _overlapping(captured: Array, first: Array, last: Array) -> tuple[Array, Array]:
    """Return which captured ranges, from one to before another, share ids with each row."""
    return np.searchsorted(captured[:, 1], first), np.searchsorted(captured[:, 0], last, "right")


def _merged(captured: Array, first: Array, last: Array) -> Array:
    ranges = np.concatenate([captured, np.column_stack([first, last])])
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    is_start = np.append(True, ranges[1:, 0] > ranges[:-1, 1] + 1)[: len(ranges)]
    return np.column_stack([ranges[is_start, 0], ranges[np.append(is_start[1:], True)[: len(ranges)], 1]])
