"""Totals over ranges: plain loops as a second opinion, an exact sum for the digits, and the edges."""

import math

import numpy as np
import pytest

from quant_platform.calculators._range_totals import first_beyond, maxima, range_totals, sums, tree

NOTHING = np.iinfo(np.int64).min
EPSILON = 2.0**-53


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 17, 100, 4_096, 9_001])
def test_totals_are_those_of_a_loop(rows):
    random = np.random.default_rng(rows)
    values = random.integers(0, 5, rows)  # sums of whole numbers are exact in any order
    start, stop = random.integers(0, rows + 1, (2, 200))
    total, largest = range_totals([sums(values.astype(float)), maxima(values)], start, stop)
    assert total.tolist() == [values[a:b].sum() for a, b in zip(start, stop, strict=True)]
    assert largest.tolist() == [values[a:b].max(initial=NOTHING) for a, b in zip(start, stop, strict=True)]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 17, 100, 1_001])
def test_the_first_row_beyond_an_amount_is_that_of_a_loop(rows):
    random = np.random.default_rng(rows)
    values = random.integers(0, 4, rows).astype(float)
    start, amount = random.integers(0, rows + 1, 300), random.integers(0, 20, 300).astype(float)
    row, left = first_beyond(tree(values, np.add), start, amount)
    for each in range(300):
        place, rest = start[each], amount[each]
        while place < rows and values[place] <= rest:
            rest -= values[place]
            place += 1
        assert (row[each], left[each]) == (place, rest)


def test_no_ranges_have_no_totals():
    none = np.zeros(0, np.int64)
    assert [total.tolist() for total in range_totals([sums(np.ones(3)), maxima(np.arange(3))], none, none)] == [[], []]
    row, left = first_beyond(tree(np.ones(3), np.add), none, np.zeros(0))
    assert (row.tolist(), left.tolist()) == ([], [])


def test_what_stands_outside_a_range_takes_no_digit_from_it():
    """A difference of prefix sums would be 0 here: 1e-6 is lost beside 1e18."""
    values = np.array([1e18, 1e-6, 2e-6, 1e18])
    (total,) = range_totals([sums(values)], np.array([1]), np.array([3]))
    assert total.tolist() == [1e-6 + 2e-6]
    row, left = first_beyond(tree(values, np.add), np.array([1]), np.array([2e-6]))
    assert (row.tolist(), left.tolist()) == ([2], [1e-6])


def test_sums_of_many_are_right_to_some_roundings():
    random = np.random.default_rng(7)
    values = random.exponential(1.0, 200_000) * 10.0 ** random.integers(-6, 7, 200_000)
    start = np.array([0, 1, 77_777, 150_000])
    stop = np.array([200_000, 199_999, 77_900, 190_001])
    (total,) = range_totals([sums(values)], start, stop)
    for found, a, b in zip(total, start, stop, strict=True):
        assert found == pytest.approx(math.fsum(values[a:b]), rel=40 * EPSILON, abs=0)
