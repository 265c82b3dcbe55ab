"""Clustered means against plain loops and closed forms, the bootstrap's coverage, and Benjamini–Hochberg by hand."""

import math
import random
from itertools import groupby

import numpy as np
import polars as pl
import pytest

from quant_platform.calculators import _clusters, _student_t
from quant_platform.calculators._clusters import ClusterSums


def summed(rows):
    """Return the sums of rows (cell, day, symbol, value)."""
    keys = sorted({row[:3] for row in rows})
    values = [[row[3] for row in rows if row[:3] == key] for key in keys]
    cell, day, symbol = (np.array(column) for column in zip(*keys, strict=True))
    return ClusterSums(
        cell, day, symbol, np.array([len(each) for each in values]), np.array([math.fsum(each) for each in values])
    )


def observations(seed, *, cells=3, days=6, symbols=4, number=150):
    numbers = random.Random(seed)
    by_day = [numbers.gauss(0, 3) for _ in range(days)]
    by_symbol = [numbers.gauss(0, 3) for _ in range(symbols)]
    drawn = [(numbers.randrange(cells), numbers.randrange(days), numbers.randrange(symbols)) for _ in range(number)]
    return [(c, d, s, by_day[d] + by_symbol[s] + numbers.gauss(1, 2)) for c, d, s in drawn]


def plain_two_way(values):
    """Compute mean, standard error and degrees of rows (day, symbol, value) with dictionaries."""
    mean = sum(v for *_, v in values) / len(values)
    variances, sizes = [], []
    for places in ((0,), (1,), (0, 1)):
        sums = {}
        for value in values:
            cluster = tuple(value[place] for place in places)
            sums[cluster] = sums.get(cluster, 0.0) + value[2] - mean
        sizes.append(len(sums))
        factor = len(sums) / (len(sums) - 1) if len(sums) > 1 else math.nan
        variances.append(factor * sum(each**2 for each in sums.values()) / len(values) ** 2)
    by_day, by_symbol, by_both = variances
    variance = max(by_day, by_symbol, by_day + by_symbol - by_both) if sizes[1] > 1 else by_day
    degrees = min(sizes[:2]) - 1 if sizes[1] > 1 else sizes[0] - 1
    return mean, math.sqrt(variance), degrees


@pytest.mark.parametrize("seed", range(5))
def test_two_way_errors_equal_plain_loops(seed):
    rows = observations(seed)
    found = _clusters.cluster_means(summed(rows))
    for cell in range(3):
        mean, error, degrees = plain_two_way([row[1:] for row in rows if row[0] == cell])
        assert found.mean[cell] == pytest.approx(mean, rel=1e-12)
        assert found.std_error[cell] == pytest.approx(error, rel=1e-10)
        assert (found.degrees[cell], found.days[cell]) == (degrees, 6)
        assert found.t[cell] == pytest.approx(mean / error, rel=1e-10)


def test_the_difference_itself_counts_where_it_is_the_largest():
    # Whole days and whole symbols move: both one-way variances hold what the other one misses.
    rows = [(0, d, s, (-1.0) ** d + (-1.0) ** s) for d in range(4) for s in range(4)]
    # Days and symbols each sum to ±4, four of each: 64 · 4/3; both together to 0 or ±2: 32 · 16/15; 16 observations.
    variance = (2 * 64 * 4 / 3 - 32 * 16 / 15) / 16**2
    assert _clusters.cluster_means(summed(rows)).std_error[0] == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_a_negative_difference_gives_the_larger_one_way_error():
    # Every day and every symbol sums to zero but for the last: by both is larger than by day and by symbol together.
    rows = [(0, d, s, 10.0 * (-1) ** (d + s)) for d in range(4) for s in range(4)]
    rows.append((0, 0, 0, 1.0))
    mean = 1 / 17
    by_day = 4 / 3 * ((1 - 5 * mean) ** 2 + 3 * (4 * mean) ** 2) / 17**2
    found = _clusters.cluster_means(summed(rows))
    assert found.std_error[0] == pytest.approx(math.sqrt(by_day), rel=1e-9)


def test_one_way_with_equal_clusters_is_the_error_of_the_means_of_days():
    # One symbol, five days of three: s²/5 of the five means, with 4 degrees.
    days = [1.0, 4.0, 2.0, 8.0, 5.0]
    found = _clusters.cluster_means(summed([(0, d, 0, m + e) for d, m in enumerate(days) for e in (-1.0, 0.0, 1.0)]))
    assert found.mean[0] == pytest.approx(4.0)
    assert found.std_error[0] == pytest.approx(np.std(days, ddof=1) / math.sqrt(5), rel=1e-12)
    assert found.degrees[0] == 4


def plain_bootstrap(rows, *, draws, confidence, seed):
    """Draw the days of one cell again, one draw after another."""
    days = [[row[3] for row in group] for _, group in groupby(sorted(rows), key=lambda row: row[1])]
    uniform = np.random.default_rng(seed).random((len(days), draws))
    means = []
    for b in range(draws):
        drawn = [value for u in uniform[:, b] for value in days[int(u * len(days))]]
        means.append(sum(drawn) / len(drawn))
    t = _student_t.critical(confidence, np.array([len(days) - 1]))[0]
    level = 0.5 * math.erfc(t * math.sqrt(len(days) / (len(days) - 1)) / math.sqrt(2))
    return np.quantile(means, level), np.quantile(means, 1 - level)


def test_the_bootstrap_equals_plain_draws_and_depends_on_the_cell_alone(monkeypatch):
    rows = [row for row in observations(7, number=200) if row[0] < 2 or row[1] < 4]  # the last cell has fewer days
    low, high = _clusters.bootstrap_interval(summed(rows), draws=200, confidence=0.9, seed=3)
    for cell in range(3):
        own = [row for row in rows if row[0] == cell]
        expected = plain_bootstrap(own, draws=200, confidence=0.9, seed=3)
        assert (low[cell], high[cell]) == pytest.approx(expected, rel=1e-9)
        alone = _clusters.bootstrap_interval(summed([(0, *row[1:]) for row in own]), draws=200, confidence=0.9, seed=3)
        assert (low[cell], high[cell]) == (alone[0][0], alone[1][0])
    monkeypatch.setattr(_clusters, "_BLOCK_DRAWS", 1_000)
    blocks = _clusters.bootstrap_interval(summed(rows), draws=200, confidence=0.9, seed=3)
    assert [each.tolist() for each in blocks] == [low.tolist(), high.tolist()]


@pytest.mark.parametrize("days", [5, 8, 20])
def test_the_bootstrap_interval_holds_the_mean_as_often_as_it_says(days):
    # 1,000 cells of normal days around 0, each of five orders with a market of its own.
    numbers = np.random.default_rng(days)
    cells = 1_000
    totals = 5 * numbers.normal(0, 3, (cells, days)) + numbers.normal(0, 2, (cells, days)) * math.sqrt(5)
    cell, day = np.repeat(np.arange(cells), days), np.tile(np.arange(days), cells)
    sums = ClusterSums(cell, day, np.zeros_like(cell), np.full(cells * days, 5), totals.ravel())
    low, high = _clusters.bootstrap_interval(sums, draws=200, confidence=0.9, seed=0)
    covered = ((low <= 0) & (high >= 0)).mean()
    assert 0.86 <= covered <= 0.94


def test_false_discovery_rates_by_hand():
    # Sorted: .01 .02 .03 .04 with m = 4: .04 .04 .04 .04; the family of one keeps its p.
    frame = pl.DataFrame({"f": ["a"] * 5 + ["b"], "p": [0.04, 0.01, None, 0.03, 0.02, 0.5]})
    found = frame.select(_clusters.false_discovery("p", ["f"])).to_series().to_list()
    assert found == [pytest.approx(v) if v else None for v in (0.04, 0.04, None, 0.04, 0.04, 0.5)]
    # Sorted: .005 .009 .05 .1 .5 with m = 5: .025 → .0225, .0225, .0833, .125, .5.
    frame = pl.DataFrame({"f": ["a"] * 5, "p": [0.5, 0.009, 0.1, 0.05, 0.005]})
    found = frame.select(_clusters.false_discovery("p", ["f"])).to_series().to_list()
    assert found == pytest.approx([0.5, 0.0225, 0.125, 0.25 / 3, 0.0225])


def test_false_discoveries_are_those_of_the_stepwise_rule():
    # Reject the k smallest, k the largest with p(k) <= rate · k/m: the q-value of each is at most the rate.
    numbers = np.random.default_rng(4)
    p = np.sort(np.concatenate([numbers.random(30), numbers.random(10) / 50]))
    frame = pl.DataFrame({"f": "a", "p": numbers.permutation(p)})
    q = frame.with_columns(q=_clusters.false_discovery("p", ["f"])).sort("p")["q"].to_numpy()
    for rate in (0.01, 0.05, 0.1, 0.3, 0.9):
        passing = [k for k in range(1, 41) if p[k - 1] <= rate * k / 40]
        assert (q <= rate).sum() == max(passing, default=0)


def test_values_that_differ_by_rounding_are_constant():
    frame = pl.DataFrame({"low": [0.1, 0.0, -1.0, None], "high": [0.1 + 2e-17, 0.0, 1.0, None]})
    found = frame.select(_clusters.is_constant("low", "high")).to_series().to_list()
    assert found == [True, True, False, None]


def test_no_observations_give_no_cells():
    nothing = np.array([], dtype=np.int64)
    sums = ClusterSums(nothing, nothing, nothing, nothing, nothing.astype(float))
    assert _clusters.cluster_means(sums).mean.size == 0
    assert [each.size for each in _clusters.bootstrap_interval(sums, draws=100, confidence=0.9, seed=0)] == [0, 0]
