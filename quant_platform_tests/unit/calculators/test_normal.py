"""The normal distribution against the C library's erfc, and Mills' ratio against Laplace's continued fraction."""

import math

import numpy as np
import pytest

from quant_platform.calculators._normal import density, distribution, mills


def laplace(x):
    """Return Q(x)/φ(x) = 1/(x + 1/(x + 2/(x + 3/…))), which converges fast above 5."""
    below = x
    for term in range(200, 0, -1):
        below = x + term / below
    return 1 / below


def test_distribution_is_erfc_to_the_last_digits():
    x = np.concatenate([np.linspace(-10, 10, 20_001), np.geomspace(1e-12, 1, 200), [0.0, -0.0]])
    expected = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    found = distribution(x, density(x))
    assert np.max(np.abs(found - expected)) < 5e-16
    assert np.max(np.abs(found / expected - 1)) < 2e-14  # √2 rounds: erfc itself is off by x² bits in the tail


def test_mills_ratio_far_out_is_laplaces_continued_fraction():
    x = np.concatenate([np.linspace(5, 60, 1_000), np.geomspace(60, 1e12, 100)])
    assert mills(x) == pytest.approx(np.array([laplace(value) for value in x]), rel=2e-15)


def test_mills_ratio_at_zero_is_the_root_of_half_pi():
    assert mills(np.zeros(1))[0] == pytest.approx(math.sqrt(math.pi / 2), rel=1e-15)


def test_what_is_no_number_stays_none():
    x = np.array([np.nan, 0.0])
    assert np.isnan(distribution(x, density(x))).tolist() == [True, False]
