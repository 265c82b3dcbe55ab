"""Where the net gamma of a chain changes its sign as the underlying moves. Exposures at the spot lie elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from quant_platform.calculators.option_chain import SECONDS_PER_YEAR, Array, Chain, run_starts

_TOLERANCE = 0.5e-6  # of the spot: half of what is asked, as a root lies between two ends
_NOISE = 1e-12  # a net below this share of the gross is a rounded zero
_LEAST_DEVIATION = 1e-7  # of log(x/spot) at expiry: a contract with less is seen at no level that is told apart
_BLOCK_ROWS = 1024  # keeps contracts x levels arrays in the core's cache
_MAX_STEPS = 60  # halving alone needs 25
_LEAST_EXPONENT = -690.0
_LEAST_VALUE = np.exp(_LEAST_EXPONENT)
_SQRT_TAU = np.sqrt(2 * np.pi)


@dataclass(frozen=True, kw_only=True)
class ZeroGammaParams:
    """Where roots are searched.

    Attributes:
        reach: How far from the spot, as a share of it; below 1.
        points: Levels at which the net gamma is computed, evenly spaced; two roots between neighbours are not seen.
    """

    reach: float = 0.2
    points: int = 61

    def __post_init__(self) -> None:
        if not 0 < self.reach < 1:
            raise ValueError(f"reach must be > 0 and < 1, was {self.reach}")
        if self.points < 2:
            raise ValueError(f"points must be >= 2, was {self.points}")


class Roots(NamedTuple):
    """Levels of the underlying where the net gamma crosses zero.

    Attributes:
        owner: The snapshot of each, ascending.
        level: In quote currency, ascending within a snapshot.
        is_searched: Of each snapshot, whether any contract could be used to search.
    """

    owner: Array
    level: Array
    is_searched: Array


class _Bells(NamedTuple):
    """Gamma exposure of each contract over levels x of the underlying, as x · exp(a·m² + b·m + c), m = log(x/spot).

    It is open interest · multiplier · 0.01 · x² · gamma(x), with the Black-Scholes gamma at the contract's own
    volatility, whose d1 is linear in m. So of a contract at a level only its exponential is left to compute.

    Attributes:
        owner: The snapshot of each contract.
        is_put: Whether it is a put.
        exponent: (a, b, c) × contracts.
    """

    owner: Array
    is_put: Array
    exponent: Array

    def at(self, rows: Array) -> "_Bells":
        return _Bells(self.owner[rows], self.is_put[rows], self.exponent.take(rows, axis=1))


@np.errstate(all="ignore")  # what is no number is left out, or halves a bracket
def zero_gammas(chain: Chain, params: ZeroGammaParams, *, min_open_interest: float) -> Roots:
    """Return the roots of the net gamma exposure, calls less puts, over levels of the underlying.

    The volatility of each contract stays as the level moves (sticky strike). All expiries count.

    Args:
        chain: Snapshots with `underlying_price rate dividend`, the rates continuous, per year; contracts with
            `type strike expiry ts_expiry multiplier iv open_interest`. Contracts without a volatility above 0, time
            left, or `min_open_interest` are left out.
        params: Where to search.
        min_open_interest: In contracts.
    """
    bells = _bells(chain, min_open_interest)
    is_searched = np.zeros(chain.height, dtype=bool)
    is_searched[bells.owner] = True
    levels = np.log(np.linspace(1 - params.reach, 1 + params.reach, params.points))
    calls, puts = _sums(bells, levels, chain.height)
    net = np.where(np.abs(calls - puts) > _NOISE * (calls + puts), calls - puts, 0.0)
    owner, place = np.nonzero(net)  # a zero on a level lies between the levels at its sides
    is_crossing = (owner[1:] == owner[:-1]) & np.diff(net[owner, place] > 0)
    first = np.flatnonzero(is_crossing)
    owner, low, high = owner[first], place[first], place[first + 1]
    root = _refined(_net(bells, owner, chain.height), levels[low], levels[high], net[owner, low], net[owner, high])
    return Roots(owner, chain.spots[owner] * np.exp(root), is_searched)


def _bells(chain: Chain, min_open_interest: float) -> _Bells:
    """Return the usable contracts, by snapshot, calls first."""
    volatility, years = chain.columns["iv"], chain.seconds_left / SECONDS_PER_YEAR
    rate, dividend = chain.of_snapshots["rate"][chain.owner], chain.of_snapshots["dividend"][chain.owner]
    units = chain.underlying_units(min_open_interest=min_open_interest)
    deviation = volatility * np.sqrt(years)
    slope = 1 / deviation
    d1 = (np.log(chain.spots[chain.owner] / chain.columns["strike"]) + (rate - dividend) * years) * slope
    d1 += deviation / 2
    log_scale = np.log(units * 0.01 * slope / _SQRT_TAU) - dividend * years
    exponent = np.empty((3, len(d1)))
    exponent[0], exponent[1], exponent[2] = -0.5 * slope * slope, -slope * d1, log_scale - 0.5 * d1 * d1
    is_used = chain.is_listed() & (volatility > 0) & (deviation > _LEAST_DEVIATION) & np.isfinite(exponent).all(axis=0)
    bells = _Bells(chain.owner, chain.is_put, exponent)
    rows = np.flatnonzero(is_used)
    return bells.at(rows[np.lexsort((bells.is_put[rows], bells.owner[rows]))])


def _sums(bells: _Bells, levels: Array, snapshots: int) -> tuple[Array, Array]:
    """Return the exposure ÷ x of calls and of puts, each snapshots × levels."""
    groups = bells.owner * 2 + bells.is_put
    sums = np.zeros((len(levels), snapshots * 2))
    powers = np.column_stack([levels * levels, levels, np.ones(len(levels))])
    held = np.empty((len(levels), _BLOCK_ROWS))
    for start in range(0, len(groups), _BLOCK_ROWS):
        exponent, group = bells.exponent[:, start : start + _BLOCK_ROWS], groups[start : start + _BLOCK_ROWS]
        values = _exp(np.matmul(powers, exponent, out=held[:, : len(group)]))
        starts = run_starts(group)
        sums[:, group[starts]] += np.add.reduceat(values, starts, axis=1)
    return sums[:, ::2].T, sums[:, 1::2].T


def _exp(exponent: Array) -> Array:
    """Return e to these powers, in their place; what is below 1e-300 is 0, as exp is slow near the end of its range."""
    if exponent.min() > _LEAST_EXPONENT:
        return np.exp(exponent, out=exponent)
    np.maximum(exponent, _LEAST_EXPONENT, out=exponent)
    np.exp(exponent, out=exponent)
    exponent -= _LEAST_VALUE
    return exponent


def _net(bells: _Bells, owner: Array, snapshots: int) -> Callable[[Array], Array]:
    """Return the function that gives the net exposure ÷ x of some snapshots, each at a level of its own."""
    ends = np.cumsum(np.bincount(bells.owner, minlength=snapshots))
    starts = np.concatenate([[0], ends[:-1]])
    sign = np.where(bells.is_put, -1.0, 1.0)
    held = [slice(start, end) for start, end in zip(starts[owner].tolist(), ends[owner].tolist(), strict=True)]

    def at(rows: slice, m: float) -> float:
        a, b, c = bells.exponent[:, rows]
        values = a * m
        values += b
        values *= m
        values += c
        values = _exp(values)
        values *= sign[rows]
        return float(values.sum())

    def net(level: Array) -> Array:
        return np.array([at(rows, m) for rows, m in zip(held, level.tolist(), strict=True)])

    return net


def _refined(net: Callable[[Array], Array], low: Array, high: Array, at_low: Array, at_high: Array) -> Array:
    """Return the root within each bracket, by Chandrupatla's method: interpolate where that is safe, else halve.

    Args:
        net: The function of which roots are wanted, of all brackets at once.
        low: One end of each bracket.
        high: The other end, where the function has the other sign.
        at_low: The function at `low`.
        at_high: The function at `high`.
    """
    a, b, f_a, f_b = high, low, at_high, at_low
    share = np.full(len(low), 0.5)
    best = low
    is_done = np.zeros(len(low), dtype=bool)
    step = 0
    while step < _MAX_STEPS and not is_done.all():
        step += 1
        x = a + share * (b - a)
        f_x = net(x)
        is_same = np.sign(f_x) == np.sign(f_a)
        c, f_c = np.where(is_same, a, b), np.where(is_same, f_a, f_b)
        b, f_b = np.where(is_same, b, a), np.where(is_same, f_b, f_a)
        a, f_a = x, f_x
        best = np.where(is_done, best, np.where(np.abs(f_a) < np.abs(f_b), a, b))
        least = _TOLERANCE / np.abs(b - a)
        is_done |= (least > 0.5) | (f_x == 0)
        xi, phi = (a - b) / (c - b), (f_a - f_b) / (f_c - f_b)
        is_safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        jump = f_a / (f_b - f_a) * f_c / (f_b - f_c) + (c - a) / (b - a) * f_a / (f_c - f_a) * f_b / (f_c - f_b)
        share = np.clip(np.where(is_safe, jump, 0.5), least, 1 - least)
    return best
