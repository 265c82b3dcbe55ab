"""Student's t over numpy arrays: how far out a value lies, and how far out a share of all lies."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MOST_TERMS = 1_000
_MOST_STEPS = 100
_EPS = 8 * float(np.finfo(float).eps)  # less than that a last bit may go to and fro
_TINY = 1e-300


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def two_sided(t: Array, degrees: Array) -> Array:
    """Return P(|T| > |t|); NaN where t is NaN or there are no degrees of freedom.

    It is the regularised incomplete beta function I(n/2, 1/2) at n/(n + t²), by its continued fraction.
    """
    t, n = (np.asarray(values, dtype=float) for values in (t, degrees))
    n = np.where(n >= 1, n, np.nan)
    squared = t * t
    x = n / (n + squared)
    rest = squared / (n + squared)
    far = np.exp(-0.5 * n * np.log1p(squared / n) + 0.5 * np.log(rest) - _log_beta(n))  # x^a (1-x)^b / B(a, b)
    a, b = n / 2, np.full_like(n, 0.5)
    is_near = x > (a + 1) / (a + b + 2)  # there the fraction converges for the other tail
    first, second, at = np.where(is_near, b, a), np.where(is_near, a, b), np.where(is_near, rest, x)
    tail = far * _fraction(first, second, at) / first
    probability: Array = np.where(np.isinf(t), 0.0 * n, np.where(is_near, 1 - tail, tail))
    return probability


@np.errstate(invalid="ignore", divide="ignore", over="ignore")
def critical(confidence: float, degrees: Array) -> Array:
    """Return the t that |T| does not pass with this probability; NaN where there are no degrees of freedom.

    Newton's steps from the normal quantile, which lies below: the tail is convex, so that no step goes too far.
    """
    degrees = np.asarray(degrees, dtype=float)
    each, place = np.unique(degrees, return_inverse=True)
    t = np.where(each >= 1, NormalDist().inv_cdf((1 + confidence) / 2), np.nan)
    for _ in range(_MOST_STEPS):
        log_density = -(each + 1) / 2 * np.log1p(t * t / each) - np.log(each) / 2 - _log_beta(each)
        step = (two_sided(t, each) - (1 - confidence)) / (2 * np.exp(log_density))
        t = t + step
        if not (np.abs(step) > _EPS * t).any():
            break
    quantile: Array = t[place].reshape(degrees.shape)
    return quantile


def _log_beta(n: Array) -> Array:
    """Return ln B(n/2, 1/2); NaN where n is."""
    each, place = np.unique(n, return_inverse=True)
    logs = [math.lgamma(k / 2) + math.lgamma(0.5) - math.lgamma((k + 1) / 2) if k > 0 else math.nan for k in each]
    return np.array(logs)[place].reshape(n.shape)


def _fraction(a: Array, b: Array, x: Array) -> Array:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    c = np.ones_like(x)
    d = 1 / _not_zero(1 - (a + b) * x / (a + 1))
    total, change, m = d.copy(), d, 0
    while m < _MOST_TERMS and (np.abs(change - 1) > _EPS).any():
        m += 1
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _not_zero(1 + factor * d)
            c = _not_zero(1 + factor / c)
            change = c * d
            total *= change
    return total


def _not_zero(values: Array) -> Array:
    return np.where(np.abs(values) < _TINY, _TINY, values)
