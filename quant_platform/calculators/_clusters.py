"""Means whose observations hang together by day and by symbol: their error, a bootstrap interval, false discoveries.

What is averaged, and what a cell is, belongs to who asks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from quant_platform.calculators import _student_t

Array = npt.NDArray[Any]

_BLOCK_DRAWS = 1 << 20  # bounds the memory of days x draws arrays, whatever the number of cells
_NOISE = 8 * float(np.finfo(float).eps)  # a spread of values below this share of them is rounding


@dataclass(frozen=True)
class ClusterSums:
    """Observations summed by cell, day and symbol: rows in order of cell and day, each combination once.

    Attributes:
        cell: From 0, without holes; each has two days or more.
        day: Any integers.
        symbol: Any integers.
        count: Observations, at least 1.
        total: Their sum.
    """

    cell: Array
    day: Array
    symbol: Array
    count: Array
    total: Array


@dataclass(frozen=True)
class ClusterMeans:
    """One value a cell.

    Attributes:
        count: Observations.
        days: Days.
        mean: Of the observations.
        std_error: Clustered by day and symbol.
        degrees: Degrees of freedom of mean ÷ std_error.
    """

    count: Array
    days: Array
    mean: Array
    std_error: Array
    degrees: Array

    @property
    @np.errstate(invalid="ignore", divide="ignore")
    def t(self) -> Array:
        """Mean ÷ std_error."""
        t: Array = self.mean / self.std_error
        return t


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def cluster_means(sums: ClusterSums) -> ClusterMeans:
    """Return each cell's mean and its error when observations of one day, or of one symbol, hang together.

    The variance is Cameron, Gelbach and Miller's for two ways: that by day, and that by symbol, less that by both, each
    times G/(G - 1) for its G clusters. The difference may be negative, or nearly zero, which would make any mean
    significant: it is never taken below the larger of the two one-way variances. A cell with one symbol is clustered
    by day alone. Degrees of freedom are those of the way with fewer clusters.
    """
    cell = sums.cell
    count = np.bincount(cell, sums.count)
    mean = np.bincount(cell, sums.total) / count
    residual = sums.total - sums.count * mean[cell]
    by_day = np.flatnonzero(_is_first(cell, sums.day))
    order = np.lexsort((sums.day, sums.symbol, cell))
    by_symbol = np.flatnonzero(_is_first(cell[order], sums.symbol[order]))
    days, day_variance = _one_way(cell[by_day], _segments(residual, by_day))
    symbols, symbol_variance = _one_way(cell[order][by_symbol], _segments(residual[order], by_symbol))
    _, both_variance = _one_way(cell, residual)
    one_way = np.where(symbols > 1, np.maximum(day_variance, symbol_variance), day_variance)
    variance = np.fmax(one_way, np.where(symbols > 1, day_variance + symbol_variance - both_variance, np.nan))
    degrees = np.where(symbols > 1, np.minimum(days, symbols), days) - 1
    return ClusterMeans(count.astype(np.int64), days, mean, np.sqrt(variance) / count, degrees)


def bootstrap_interval(sums: ClusterSums, *, draws: int, confidence: float, seed: int) -> tuple[Array, Array]:
    """Return the interval of each cell's mean when its days are drawn again, with replacement.

    Levels are the expanded percentiles: those at which the interval of a symmetric mean is as wide as Student's, which
    plain percentiles miss where days are few. A cell's draws depend on the seed and its own days alone.

    Source: the levels are those of `ExpandProbs` in the R package resample.
    """
    by_day = np.flatnonzero(_is_first(sums.cell, sums.day))
    cell, total, count = sums.cell[by_day], _segments(sums.total, by_day), _segments(sums.count, by_day)
    days = np.bincount(cell)
    first = np.cumsum(days) - days
    uniform = np.random.default_rng(seed).random((days.max(initial=0), draws))
    place = np.arange(len(cell)) - first[cell]
    wide = np.sqrt(days / (days - 1)) * _student_t.critical(confidence, days - 1)
    normal = NormalDist()
    low_level = np.array([normal.cdf(-each) for each in wide])
    low, high = np.empty(len(days)), np.empty(len(days))
    for start, stop in _blocks(days, draws):
        rows = slice(first[start], first[start] + days[start:stop].sum())
        drawn = first[cell[rows], None] + (uniform[place[rows]] * days[cell[rows], None]).astype(np.int64)
        at = first[start:stop] - first[start]
        means = np.add.reduceat(total[drawn], at, axis=0) / np.add.reduceat(count[drawn], at, axis=0)
        means.sort(axis=1)
        low[start:stop] = _quantile(means, low_level[start:stop])
        high[start:stop] = _quantile(means, 1 - low_level[start:stop])
    return low, high


def false_discovery(p: str, family: list[str]) -> pl.Expr:
    """Return the least rate of false discoveries at which each row's p-value counts; null where it is null.

    Benjamini and Hochberg: of m p-values of a family, the i-th smallest becomes the least p·m/j over all j >= i.

    Args:
        p: The column of p-values.
        family: Columns that tell families apart.
    """
    value = pl.col(p)
    rank = value.rank("ordinal").over(family)
    scaled = value * value.count().over(family) / rank
    return scaled.cum_min(reverse=True).over(family, order_by=p)


def is_constant(low: str, high: str) -> pl.Expr:
    """Return whether values between these two columns differ by rounding alone."""
    least, most = pl.col(low), pl.col(high)
    return (most - least) <= _NOISE * pl.max_horizontal(least.abs(), most.abs())


def _is_first(cell: Array, key: Array) -> Array:
    """Return where a run of equal cell and key begins."""
    is_new = np.ones(len(cell), dtype=bool)
    is_new[1:] = (np.diff(cell) != 0) | (np.diff(key) != 0)
    return is_new


def _segments(values: Array, starts: Array) -> Array:
    """Return the sum of each segment."""
    sums: Array = np.add.reduceat(values, starts) if len(starts) else values[:0]
    return sums


def _one_way(cell: Array, residuals: Array) -> tuple[Array, Array]:
    """Return the clusters of each cell, and the variance of its sum by them."""
    clusters = np.bincount(cell)
    return clusters, np.bincount(cell, residuals**2) * clusters / (clusters - 1)


def _blocks(days: Array, draws: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of cells with about as many days as the memory may hold."""
    block = np.cumsum(days) * draws // _BLOCK_DRAWS
    edges = [*np.flatnonzero(np.diff(block, prepend=-1)), len(days)]
    yield from pairwise(edges)


def _quantile(ascending: Array, level: Array) -> Array:
    """Return the quantile of each row at its own level, linear between values."""
    at = level * (ascending.shape[1] - 1)
    below = np.floor(at).astype(np.int64)
    above = np.minimum(below + 1, ascending.shape[1] - 1)
    row = np.arange(len(ascending))
    quantile: Array = ascending[row, below] + (at - below) * (ascending[row, above] - ascending[row, below])
    return quantile
