"""The power law against data that keep one, numpy's own least squares, and errors written out in loops."""

import math

import numpy as np
import pytest

from quant_platform.calculators import _power_law


def noisy(seed, *, number=400, days=8, noise=0.05):
    random = np.random.default_rng(seed)
    x = np.exp(random.normal(-5, 1.5, number))
    day = np.sort(random.integers(0, days, number))
    y = 0.8 * x**0.6 + noise * (random.normal(0, 1, number) + random.normal(0, 1, days)[day])
    return y, x, day


def one_group(y, x, day):
    return _power_law.fit(y, x, np.zeros(len(y), dtype=np.int64), day)


def error_of(y, x, exponent):
    """Return the squared error at the best factor of an exponent, by numpy's least squares."""
    return np.linalg.lstsq((x**exponent)[:, None], y, rcond=None)[1][0]


@pytest.mark.parametrize(("factor", "exponent"), [(1.0, 0.5), (0.3, 1.1), (-2.0, 0.2), (5.0, -0.7)])
def test_an_exact_law_is_found_again(factor, exponent):
    x = np.geomspace(1e-5, 0.3, 50)
    law = one_group(factor * x**exponent, x, np.arange(50) % 5)
    assert law.factor[0] == pytest.approx(factor, rel=1e-9)
    assert law.exponent[0] == pytest.approx(exponent, rel=1e-9)
    assert law.at(np.array([0.01]), np.array([0]))[0] == pytest.approx(factor * 0.01**exponent, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_no_exponent_nearby_or_on_a_finer_grid_is_better(seed):
    y, x, day = noisy(seed)
    law = one_group(y, x, day)
    least = error_of(y, x, law.exponent[0])
    assert law.factor[0] == pytest.approx(np.linalg.lstsq((x ** law.exponent[0])[:, None], y, rcond=None)[0][0])
    for exponent in [*np.arange(-1, 2, 0.013), law.exponent[0] - 1e-4, law.exponent[0] + 1e-4]:
        assert error_of(y, x, exponent) >= least * (1 - 1e-12)


def test_errors_are_those_of_the_sandwich_in_both_parameters():
    y, x, day = noisy(11)
    law = one_group(y, x, day)
    factor, exponent = law.factor[0], law.exponent[0]
    bread, meat, scores = np.zeros((2, 2)), np.zeros((2, 2)), {}
    for yi, xi, d in zip(y, x, day, strict=True):
        gradient = np.array([xi**exponent, factor * xi**exponent * math.log(xi)])
        bread += np.outer(gradient, gradient)
        scores[d] = scores.get(d, 0) + gradient * (yi - factor * xi**exponent)
    for score in scores.values():
        meat += np.outer(score, score)
    variance = np.linalg.inv(bread) @ meat @ np.linalg.inv(bread) * 8 / 7 * 399 / 398
    assert law.factor_error[0] == pytest.approx(math.sqrt(variance[0, 0]), rel=1e-6)
    assert law.exponent_error[0] == pytest.approx(math.sqrt(variance[1, 1]), rel=1e-6)
    assert law.days[0] == 8


def test_groups_do_not_know_each_other():
    parts = [noisy(seed, number=100 + 50 * seed) for seed in range(3)]
    y, x, day = (np.concatenate(each) for each in zip(*parts, strict=True))
    group = np.repeat(np.arange(3), [100, 150, 200])
    together = _power_law.fit(y, x, group, day)
    for number, part in enumerate(parts):
        alone = one_group(*part)
        for name in ("factor", "exponent", "factor_error", "exponent_error"):
            assert getattr(together, name)[number] == pytest.approx(getattr(alone, name)[0], rel=1e-9)


def test_sizes_that_do_not_vary_and_exponents_beyond_the_range_give_none():
    constant = one_group(np.array([1.0, 2.0, 3.0]), np.full(3, 0.1), np.arange(3))
    assert np.isnan(constant.exponent[0])
    assert not constant.is_varying[0]
    x = np.geomspace(0.01, 1, 20)
    steep = one_group(x**3, x, np.arange(20) % 4)
    assert np.isnan([steep.factor[0], steep.exponent[0], steep.exponent_error[0]]).all()
    assert steep.is_varying[0]


def test_values_near_the_end_of_the_floats_are_fitted():
    y, x, day = noisy(3)
    huge, plain = one_group(y * 1e300, x, day), one_group(y, x, day)
    assert huge.exponent[0] == pytest.approx(plain.exponent[0], rel=1e-12)
    assert huge.factor[0] == pytest.approx(plain.factor[0] * 1e300, rel=1e-12)
    assert huge.exponent_error[0] == pytest.approx(plain.exponent_error[0], rel=1e-9)
    assert np.isnan(one_group(np.zeros(400), x, day).exponent[0])


def test_no_observations_give_no_groups():
    nothing = np.array([])
    law = _power_law.fit(nothing, nothing, nothing.astype(np.int64), nothing.astype(np.int32))
    assert law.exponent.size == 0
