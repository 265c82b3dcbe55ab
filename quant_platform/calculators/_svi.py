"""Raw SVI: a slice's total variance as a function of log-moneyness, fitted to many slices at once.

`w(k) = a + b (rho (k - m) + sqrt((k - m)² + s²))` (Gatheral 2004). Given `m` and `s` it is linear in `a` and in the
slopes of its wings, `b (1 + rho)` and `b (1 - rho)`, so that the search is over two numbers (Zeliade 2009). A slice's
result does not depend on the slices beside it: sums are taken over its own points in their own order.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_STEEPEST = 2.0  # of a wing: a steeper one admits arbitrage at some strike, by Lee's moment formula
_VERTEX = np.linspace(-1.5, 1.5, 13)
_WIDTH = np.log(np.geomspace(0.02, 4.0, 8))
_FARTHEST_VERTEX = 3.0
_WIDTHS = np.log([1e-3, 10.0])
_ITERATIONS = 100
_DAMPING, _EASED, _TIGHTENED = 1e-3, 0.2, 5.0
_SMALL_GAIN = 1e-13  # of the loss
_EXACT = 1e-30  # of the squared variances: what rounding leaves of a perfect fit
_SINGULAR = 1e-13
_LEAST_WEIGHT = 0.01
_BLOCK_POINTS = 1 << 13  # bounds the memory, and keeps it in the processor's cache
_G_POINTS = 401
_CALENDAR_POINTS = 101
_FALL = 1e-12  # of total variance: rounding


class Svi(NamedTuple):
    """Parameters of slices, each an array of one value a slice."""

    a: Array
    b: Array
    rho: Array
    m: Array
    s: Array

    def column(self) -> "Svi":
        """Return the parameters so that they broadcast against slices × points."""
        return Svi(*(value[:, None] for value in self))

    def at(self, rows: Array | slice) -> "Svi":
        """Return the parameters of some slices."""
        return Svi(*(value[rows] for value in self))


class _Points(NamedTuple):
    """Points of slices, one after the other: `x` is `k` scaled to [-1, 1] in each, `weight` that of a square."""

    x: Array
    w: Array
    weight: Array
    start: Array
    owner: Array
    steepest: Array

    def of(self, is_wanted: Array) -> "_Points":
        if is_wanted.all():
            return self
        count = np.diff(self.start, append=len(self.x))[is_wanted]
        here = is_wanted[self.owner]
        owner = np.repeat(np.arange(len(count)), count)
        start = np.cumsum(count) - count
        return _Points(self.x[here], self.w[here], self.weight[here], start, owner, self.steepest[is_wanted])

    def sums(self, *values: Array) -> list[Array]:
        """Return the weighted sum of each slice."""
        return [np.add.reduceat(value * self.weight, self.start, axis=-1) for value in values]

    def centred(self, value: Array) -> tuple[Array, Array]:
        """Return the values less their slice's weighted mean, and that mean."""
        mean = self.sums(value)[0] / np.add.reduceat(self.weight, self.start)
        return value - mean[..., self.owner], mean


class _Linear(NamedTuple):
    """The best linear parameters given vertex and width, what they leave, and the basis that they weigh."""

    a: Array
    right: Array
    left: Array
    residual: Array
    loss: Array
    basis: tuple[Array, Array, Array]
    centred: tuple[Array, Array]
    squares: tuple[Array, Array, Array]


def total_variance(svi: Svi, k: Array) -> Array:
    """Return w at log-moneyness k."""
    x = k - svi.m
    w: Array = svi.a + svi.b * (svi.rho * x + np.sqrt(x**2 + svi.s**2))
    return w


def g(svi: Svi, k: Array) -> Array:
    """Return what the density of the price is proportional to (Gatheral and Jacquier 2014); below 0 is arbitrage."""
    x = k - svi.m
    root = np.sqrt(x**2 + svi.s**2)
    w = total_variance(svi, k)
    slope = svi.b * (svi.rho + x / root)
    curvature = svi.b * svi.s**2 / root**3
    value: Array = (1 - k * slope / (2 * w)) ** 2 - slope**2 / 4 * (1 / w + 0.25) + curvature / 2
    return value


def least_g(svi: Svi, low: Array, high: Array) -> Array:
    """Return each slice's least g from `low` to `high`; NaN where total variance is not positive all the way.

    The grid is dense about the vertex, where g turns, and grows sparse in the wings.
    """
    edges = np.arcsinh((np.stack([low, high]) - svi.m) / svi.s)
    share = np.linspace(0.0, 1.0, _G_POINTS)
    t = edges[0][:, None] * (1 - share) + edges[1][:, None] * share
    slices = svi.column()
    k = slices.m + slices.s * np.sinh(t)
    return np.where(np.all(total_variance(slices, k) > 0, axis=1), g(slices, k).min(axis=1), np.nan)


def falls(near: Svi, later: Svi, low: Array, high: Array) -> Array:
    """Return whether total variance is anywhere from `low` to `high` lower in the later slice than in the near one."""
    share = np.linspace(0.0, 1.0, _CALENDAR_POINTS)
    k = low[:, None] * (1 - share) + high[:, None] * share
    before, after = total_variance(near.column(), k), total_variance(later.column(), k)
    is_lower: Array = np.any(after < before - _FALL * np.abs(before), axis=1)
    return is_lower


def fit(k: Array, w: Array, start: Array) -> tuple[Svi, Array]:
    """Return each slice's parameters, and the root mean square of what they leave of its total variance.

    A square counts by how the option's price changes with total variance, so that options far from the money, whose
    volatility their price hardly tells, do not bend the slice where it is traded; each counts a little.

    Wings are at most as steep as Lee's moment formula allows; `b` >= 0 and `rho` in [-1, 1]. Where a slice is flat `b`
    and `rho` are 0, and vertex and width mean nothing.

    Args:
        k: Log-moneyness of the points, slice after slice; at least 5 different ones in each.
        w: Their total variances.
        start: Where each slice starts, ascending from 0.
    """
    stop = np.append(start[1:], len(k))
    blocks, first = [], 0
    while first < len(start):
        last = max(first + 1, int(np.searchsorted(stop, start[first] + _BLOCK_POINTS, side="right")))
        points = slice(start[first], stop[last - 1])
        blocks.append(_fit_block(k[points], w[points], start[first:last] - start[first]))
        first = last
    parts = [np.concatenate(part) for part in zip(*blocks, strict=True)]
    return Svi(*parts[:5]), parts[5]


def _fit_block(k: Array, w: Array, start: Array) -> tuple[Array, ...]:
    count = np.diff(start, append=len(k))
    owner = np.repeat(np.arange(len(start)), count)
    low, high = np.minimum.reduceat(k, start), np.maximum.reduceat(k, start)
    middle, half = (low + high) / 2, (high - low) / 2
    weight = _weight(k, w, start, owner)
    points = _Points((k - middle[owner]) / half[owner], w, weight, start, owner, _STEEPEST * half)
    vertex, width = _descended(points, *_best_start(points))
    linear = _linear(points, vertex, width)
    right, left = linear.right / half, linear.left / half
    b = (right + left) / 2
    rho = np.where(b > 0, np.clip((right - left) / (right + left), -1.0, 1.0), 0.0)
    return (
        linear.a,
        b,
        rho,
        middle + half * vertex,
        half * np.exp(width),
        np.sqrt(linear.loss / np.add.reduceat(weight, start)),
    )


def _weight(k: Array, w: Array, start: Array, owner: Array) -> Array:
    """Return how the options' prices change with total variance, as a share of the most in their slice."""
    exponent = -((k / np.sqrt(w) - np.sqrt(w) / 2) ** 2) / 2 - np.log(w) / 2
    weight: Array = np.maximum(np.exp(exponent - np.maximum.reduceat(exponent, start)[owner]), _LEAST_WEIGHT)
    return weight


def _best_start(points: _Points) -> tuple[Array, Array]:
    """Return of a grid of vertices and log widths the pair that fits each slice best."""
    vertex = np.repeat(_VERTEX[:, None], len(points.start), axis=1)
    losses = np.concatenate([_linear(points, vertex, np.full_like(vertex, width)).loss for width in _WIDTH])
    width, vertex = np.divmod(losses.argmin(axis=0), len(_VERTEX))
    return _VERTEX[vertex], _WIDTH[width]


def _descended(points: _Points, vertex: Array, width: Array) -> tuple[Array, Array]:
    """Follow Levenberg and Marquardt down from a start, each slice with a damping of its own, until none gains."""
    vertex, width = vertex.copy(), width.copy()
    active, damping = np.arange(len(vertex)), np.full(len(vertex), _DAMPING)
    for _ in range(_ITERATIONS):
        here, wide = vertex[active], width[active]
        best = _linear(points, here, wide)
        by_vertex, by_width = _gauss_newton(points, best, wide, damping)
        next_here = np.clip(here + by_vertex, -_FARTHEST_VERTEX, _FARTHEST_VERTEX)
        next_wide = np.clip(wide + by_width, *_WIDTHS)
        loss = _linear(points, next_here, next_wide).loss
        is_better = loss < best.loss
        vertex[active], width[active] = np.where(is_better, next_here, here), np.where(is_better, next_wide, wide)
        is_perfect = best.loss <= _EXACT * points.sums(points.w**2)[0]
        is_going = (np.abs(best.loss - loss) > _SMALL_GAIN * best.loss) & ~is_perfect
        if not is_going.any():
            break
        damping = (damping * np.where(is_better, _EASED, _TIGHTENED))[is_going]
        active, points = active[is_going], points.of(is_going)
    return vertex, width


def _gauss_newton(points: _Points, linear: _Linear, width: Array, damping: Array) -> tuple[Array, Array]:
    """Return the damped step in vertex and log width, the linear parameters following (Kaufman's approximation)."""
    right, left, root = linear.basis
    owner = points.owner
    at_vertex = (linear.left[owner] * left - linear.right[owner] * right) / root
    at_width = (linear.right + linear.left)[owner] * np.exp(2 * width)[owner] / (2 * root)
    tangents = [_without_basis(points, linear, points.centred(tangent)[0]) for tangent in (at_vertex, at_width)]
    aa, bb, ab, ar, br = points.sums(
        tangents[0] ** 2,
        tangents[1] ** 2,
        tangents[0] * tangents[1],
        tangents[0] * linear.residual,
        tangents[1] * linear.residual,
    )
    aa, bb = aa * (1 + damping), bb * (1 + damping)
    determinant = aa * bb - ab**2
    is_regular = determinant > _SINGULAR * aa * bb
    safe = np.where(is_regular, determinant, 1.0)
    alone = np.where(aa > 0, ar / np.where(aa > 0, aa, 1.0), 0.0)
    return (
        np.where(is_regular, (bb * ar - ab * br) / safe, alone),
        np.where(is_regular, (aa * br - ab * ar) / safe, 0.0),
    )


def _without_basis(points: _Points, linear: _Linear, tangent: Array) -> Array:
    """Return the tangent less its projection on the wings whose slope is free to move."""
    right, left = linear.centred
    rr, ll, rl = linear.squares
    along_right, along_left = points.sums(right * tangent, left * tangent)
    is_right = (linear.right > 0) & (linear.right < points.steepest) & (rr > 0)
    is_left = (linear.left > 0) & (linear.left < points.steepest) & (ll > 0)
    both = rr * ll - rl**2
    is_both = is_right & is_left & (both > _SINGULAR * rr * ll)
    safe = np.where(is_both, both, 1.0)
    only_right = np.where(is_right, along_right / np.where(rr > 0, rr, 1.0), 0.0)
    only_left = np.where(is_left & ~is_right, along_left / np.where(ll > 0, ll, 1.0), 0.0)
    by_right = np.where(is_both, (ll * along_right - rl * along_left) / safe, only_right)
    by_left = np.where(is_both, (rr * along_left - rl * along_right) / safe, only_left)
    without: Array = tangent - by_right[points.owner] * right - by_left[points.owner] * left
    return without


def _linear(points: _Points, vertex: Array, width: Array) -> _Linear:
    """Return the least squares of the level and the two wings' slopes, the slopes within [0, steepest]."""
    x = points.x - vertex[..., points.owner]
    root = np.sqrt(x**2 + np.exp(2 * width)[..., points.owner])
    right, left = (root + x) / 2, (root - x) / 2
    (rc, r_mean), (lc, l_mean), (wc, w_mean) = (points.centred(value) for value in (right, left, points.w))
    rr, ll, rl, rw, lw = points.sums(rc**2, lc**2, rc * lc, rc * wc, lc * wc)
    by_right, by_left = _boxed((rr, ll, rl), (rw, lw), points.steepest)
    residual = wc - by_right[..., points.owner] * rc - by_left[..., points.owner] * lc
    (loss,) = points.sums(residual**2)
    level = w_mean - by_right * r_mean - by_left * l_mean
    return _Linear(level, by_right, by_left, residual, loss, (right, left, root), (rc, lc), (rr, ll, rl))


def _boxed(squares: tuple[Array, Array, Array], products: tuple[Array, Array], most: Array) -> tuple[Array, Array]:
    """Return the least of the quadratic `rr u² + ll v² + 2 rl uv - 2 rw u - 2 lw v` with u and v in [0, most].

    It is convex: where its own least lies outside, the least is on an edge.
    """
    (rr, ll, rl), (rw, lw) = squares, products
    both = rr * ll - rl**2
    safe = np.where(both > 0, both, 1.0)
    u, v = (ll * rw - rl * lw) / safe, (rr * lw - rl * rw) / safe
    is_inside = (both > _SINGULAR * rr * ll) & (u >= 0) & (u <= most) & (v >= 0) & (v <= most)

    def along(square: Array, cross: Array, product: Array, other: Array) -> Array:
        least: Array = np.clip(
            np.where(square > 0, (product - cross * other) / np.where(square > 0, square, 1.0), 0.0), 0.0, most
        )
        return least

    most = np.broadcast_to(most, both.shape)
    none = np.zeros_like(both)
    edges_u = np.stack([none, most, along(rr, rl, rw, none), along(rr, rl, rw, most)])
    edges_v = np.stack([along(ll, rl, lw, none), along(ll, rl, lw, most), none, most])
    cost = rr * edges_u**2 + ll * edges_v**2 + 2 * rl * edges_u * edges_v - 2 * rw * edges_u - 2 * lw * edges_v
    best = cost.argmin(axis=0)[None]
    edge_u, edge_v = (np.take_along_axis(edges, best, axis=0)[0] for edges in (edges_u, edges_v))
    return np.where(is_inside, u, edge_u), np.where(is_inside, v, edge_v)
