"""Least squares of y = factor · x^exponent, any number of groups at once, with errors clustered by day.

What y and x are belongs to who asks. Nonlinear least squares rather than a line through logarithms: costs are noisy and
often negative, and leaving out those that have no logarithm would make any impact look large.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LOWEST, HIGHEST = -1.0, 2.0
"""Exponents between which the best is looked for."""

_GRID_STEP = 0.1
_HALVINGS = 44  # of an interval of two steps: to the last bits
_NOISE = 1e-9  # logarithms of x that differ by less are equal


@dataclass(frozen=True)
class PowerLaw:
    """One value a group; NaN where x does not vary, or the best exponent is at an end of those looked through.

    Attributes:
        factor: Of the law.
        exponent: Of the law.
        factor_error: Standard error clustered by day; NaN with one day.
        exponent_error: Likewise.
        days: Days with observations.
        is_varying: Whether x varies.
    """

    factor: Array
    exponent: Array
    factor_error: Array
    exponent_error: Array
    days: Array
    is_varying: Array

    def at(self, x: Array, group: Array) -> Array:
        """Return the law of each group at each x."""
        value: Array = self.factor[group] * x ** self.exponent[group]
        return value


@np.errstate(all="ignore")  # groups of one order or one size, and huge costs: NaN in the end
def fit(y: Array, x: Array, group: Array, day: Array) -> PowerLaw:
    """Return the law of each group.

    Of a given exponent the factor is a ratio of sums, so that one dimension is searched: a grid first, then halving
    where the squared error turns.

    Args:
        y: Finite.
        x: Above 0.
        group: From 0, ascending, without holes.
        day: Any integers, ascending in each group.
    """
    start = np.flatnonzero(np.diff(group, prepend=-1))
    number = np.diff(start, append=len(group))

    def total(values: Array) -> Array:
        sums: Array = np.add.reduceat(values, start)
        return sums

    most = np.maximum.reduceat(np.abs(y), start)
    unit = np.where(most > 0, most, 1.0)
    y = y / unit[group]
    log_x = np.log(x)
    centre = total(log_x) / number
    level = log_x - centre[group]  # the law is y = scale · exp(exponent · level): both ends of the floats are far
    is_varying = np.maximum.reduceat(level, start) - np.minimum.reduceat(level, start) > _NOISE

    def explained(exponent: Array) -> Array:
        power = np.exp(exponent[group] * level)
        share: Array = total(y * power) ** 2 / total(power * power)
        return share

    def is_rising(exponent: Array) -> Array:
        """Return whether a larger exponent explains more."""
        power = np.exp(exponent[group] * level)
        with_y, squared = total(y * power), total(power * power)
        slope = total(y * power * level) * squared - with_y * total(power * power * level)
        rises: Array = with_y * slope > 0
        return rises

    grid = np.arange(LOWEST, HIGHEST + _GRID_STEP / 2, _GRID_STEP)
    best = np.argmax([explained(np.full(len(start), exponent)) for exponent in grid], axis=0)
    is_inside = is_varying & (best > 0) & (best < len(grid) - 1)
    low, high = grid[best] - _GRID_STEP, grid[best] + _GRID_STEP
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        up = is_rising(middle)
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    exponent = np.where(is_inside, (low + high) / 2, np.nan)
    power = np.exp(exponent[group] * level)
    scale = total(y * power) / total(power * power)
    variance, days = _sandwich(y - scale[group] * power, power, scale[group] * power * level, group, day)
    shrink = unit * np.exp(-exponent * centre)
    gradient = shrink * np.stack([np.ones_like(scale), -scale * centre])
    factor_variance = np.einsum("ig,ijg,jg->g", gradient, variance, gradient)
    return PowerLaw(
        factor=scale * shrink,
        exponent=exponent,
        factor_error=np.sqrt(factor_variance),
        exponent_error=np.sqrt(variance[1, 1]),
        days=days,
        is_varying=is_varying,
    )


def _sandwich(residual: Array, first: Array, second: Array, group: Array, day: Array) -> tuple[Array, Array]:
    """Return the 2 x 2 variances of both parameters, one a group, and the days of each.

    The variance is A⁻¹ (Σ over days of g gᵀ) A⁻¹ with A = Σ J Jᵀ and g = a day's Σ J · residual, times
    G/(G - 1) · (n - 1)/(n - 2) for G days and n observations.

    Args:
        residual: y less the law.
        first: Derivative of the law by the first parameter.
        second: By the second.
        group: See `fit`.
        day: See `fit`.
    """
    is_new = (np.diff(group, prepend=-1) != 0) | (np.diff(day, prepend=day[:1]) != 0)
    start = np.flatnonzero(is_new)
    owner = group[start]
    days, number = np.bincount(owner), np.bincount(group)
    jacobian = (first, second)
    scores = [np.add.reduceat(each * residual, start) for each in jacobian]
    meat = np.array([[np.bincount(owner, one * other) for other in scores] for one in scores])
    (a, b), (_, d) = ([np.bincount(group, one * other) for other in jacobian] for one in jacobian)
    inverse = np.array([[d, -b], [-b, a]]) / (a * d - b * b)
    correction = days / (days - 1) * (number - 1) / (number - 2)
    return np.einsum("ijg,jkg,klg->ilg", inverse, meat, inverse) * correction, days
