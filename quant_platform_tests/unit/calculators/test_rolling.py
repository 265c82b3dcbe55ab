"""Trailing windows and the z-score, by hand."""

import math

import numpy as np
import pytest

from quant_platform.calculators import rolling


def z_scores(values, width, min_samples):
    with np.errstate(divide="ignore", invalid="ignore"):
        windows = rolling.trailing(np.array(values, dtype=float), np.arange(len(values)), width)
        return rolling.z_score(windows, min_samples=min_samples).tolist()


def test_z_score_includes_its_own_value_and_uses_ddof_1():
    # Windows 1 2 3 (mean 2, std 1) and 2 3 7 (mean 4, std sqrt 7).
    assert z_scores([1, 2, 3, 7], 3, 3) == [
        pytest.approx(v, nan_ok=True) for v in (math.nan, math.nan, 1.0, 3 / math.sqrt(7))
    ]


def test_z_score_is_nan_below_min_samples_and_where_nothing_varies():
    assert np.isnan(z_scores([5, 5, 5, 5], 3, 2)).all()
    assert np.isnan(z_scores([1, 2], 3, 3)).all()


def test_windows_hold_only_values_of_their_own_symbol():
    windows = rolling.trailing(np.array([1.0, 2.0, 30.0, 40.0]), np.array([0, 1, 0, 1]), 3)
    assert windows.count.tolist() == [1, 2, 1, 2]
    assert windows.total().tolist() == [1.0, 3.0, 30.0, 70.0]
    assert windows.rows(2, 4).total().tolist() == [30.0, 70.0]


def test_deviations_within_the_noise_are_zero():
    windows = rolling.trailing(np.array([1.0, 1.0 + 1e-15, 1.0]), np.arange(3), 3)
    assert windows.mean_and_deviations(1e-14)[1].tolist() == [[0.0] * 3] * 3
    assert windows.mean_and_deviations()[1][2].any()
