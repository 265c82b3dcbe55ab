"""Totals over any ranges of arrays, at a cost that hardly depends on how many ranges there are.

A difference of two prefix sums loses the digits in which the sums agree. Here nothing is subtracted: a total combines
nodes of a tree of pairs, at most two a level, so that a sum of positive numbers is right to some twenty roundings,
whatever stands outside its range.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from quant_platform.calculators._cores import on_all_cores
from quant_platform.calculators._tape import Array, blocks

_LONGEST = 4_096  # of a segment, which numpy sums in pairs as well


class Totalled(NamedTuple):
    """Values, what makes a total of them, and the total of none."""

    values: Array
    combine: np.ufunc
    blank: Any


def sums(values: Array) -> Totalled:
    """Have numbers >= 0 added up."""
    return Totalled(values, np.add, 0.0)


def maxima(values: Array) -> Totalled:
    """Have the largest of integers found."""
    return Totalled(values, np.maximum, np.iinfo(np.int64).min)


def range_totals(arrays: Sequence[Totalled], start: Array, stop: Array) -> list[Array]:
    """Return the total of each array over each range [start, stop).

    The arrays, of one length > 0, are cut at every start and stop and read once; trees stand on the segments between.
    """
    rows = len(arrays[0].values)
    cuts = np.sort(np.concatenate([start, stop, np.arange(0, rows, _LONGEST)]))
    cuts = cuts[(cuts < rows) & (np.diff(cuts, prepend=-1) > 0)]
    trees = [_with_blanks(tree(each.combine.reduceat(each.values, cuts), each.combine), each.blank) for each in arrays]
    totals = [np.full(len(start), each.blank, each.values.dtype) for each in arrays]
    low, high = np.searchsorted(cuts, start), np.searchsorted(cuts, stop)
    on_all_cores(
        lambda block: _add_nodes(arrays, trees, low[block], high[block], [total[block] for total in totals]),
        list(blocks(len(start))),
    )
    return totals


def tree(values: Array, combine: np.ufunc) -> list[Array]:
    """Return the values, the combinations of neighbours in pairs, of those in pairs, and so on to one.

    Where a level has an odd number of nodes, its last one stands alone.
    """
    levels = [values]
    while len(levels[-1]) > 1:
        below = levels[-1]
        pairs = combine(below[0:-1:2], below[1::2])
        levels.append(np.append(pairs, below[-1]) if len(below) % 2 else pairs)
    return levels


def first_beyond(levels: Sequence[Array], start: Array, amount: Array) -> tuple[Array, Array]:
    """Return where the sum from `start` on first exceeds an amount, and what is left of the amount there.

    Where it never does, that is the end of the values.

    Args:
        levels: A `tree` of sums of numbers >= 0.
        start: Where each sum begins.
        amount: What each is to exceed.
    """
    found = on_all_cores(lambda block: _first_beyond(levels, start[block], amount[block]), list(blocks(len(start))))
    rows, left = zip(*found, strict=True) if found else ([start], [amount])
    return np.concatenate(rows), np.concatenate(left)


def _with_blanks(levels: Sequence[Array], blank: Any) -> list[Array]:
    """Return the levels with a last node that is nothing, which the place -1 names."""
    return [np.append(nodes, blank) for nodes in levels]


def _add_nodes(
    arrays: Sequence[Totalled], trees: Sequence[Sequence[Array]], low: Array, high: Array, totals: Sequence[Array]
) -> None:
    for level in zip(*trees, strict=True):
        is_open = low < high
        if not is_open.any():
            return
        is_second = is_open & (low & 1 == 1)
        for at in (np.where(is_second, low, -1), np.where(is_open & (high & 1 == 1), high - 1, -1)):
            for each, nodes, total in zip(arrays, level, totals, strict=True):
                each.combine(total, nodes[at], out=total)
        low, high = (low + is_second) >> 1, high >> 1


def _first_beyond(levels: Sequence[Array], start: Array, amount: Array) -> tuple[Array, Array]:
    place, left = start, amount
    depth = np.full(len(start), -1)
    top = len(levels) - 1
    for number, nodes in enumerate(levels):  # up, past whole nodes that do not exceed it
        if (depth >= 0).all():
            break
        is_at = (depth < 0) & (place < len(nodes)) & ((place & 1 == 1) | (number == top))
        node = nodes[np.where(is_at, place, 0)]
        is_passed = is_at & (node <= left)
        left = np.where(is_passed, left - node, left)
        depth[is_at & ~is_passed] = number
        place = np.where(depth < 0, (place + (place & 1)) >> 1, place)
    for number in range(depth.max(initial=0), 0, -1):  # down, within the node that does
        is_within = depth >= number
        node = levels[number - 1][np.where(is_within, 2 * place, 0)]
        is_passed = is_within & (node <= left)
        left = np.where(is_passed, left - node, left)
        place = np.where(is_within, 2 * place + is_passed, place)
    return np.where(depth < 0, len(levels[0]), place), left
