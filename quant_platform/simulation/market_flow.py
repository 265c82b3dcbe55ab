"""When orders come, on which side, how large they are, and how much stands at the touch: the draws of `market`."""

from datetime import date

import numpy as np

from quant_platform.simulation.latent_price import SECONDS, FloatArray, LatentDay
from quant_platform.simulation.market_files import BoolArray, IntArray

_LARGEST_RUN_ORDERS = 500
_SIZE_TAIL = 1.6
_LARGEST_SIZE = 10_000.0


def midnight(day: date, per_second: int) -> int:
    """Return the start of a UTC date in file units."""
    return (day - date(1970, 1, 1)).days * SECONDS * per_second


def order_signs(
    rng: np.random.Generator,
    foresight: FloatArray,
    *,
    run_exponent: float,
    noise: float,
    informed: float,
) -> FloatArray:
    """Return each order's side: runs of power-law length, some coin tosses, some that know what comes.

    Args:
        rng: Drawn from.
        foresight: At each order, the hidden return of the next seconds.
        run_exponent: Tail exponent of the runs' lengths.
        noise: Share of coin tosses.
        informed: Share on the side of `foresight`.
    """
    orders = len(foresight)
    lengths = 1 + np.minimum(rng.pareto(run_exponent, orders), _LARGEST_RUN_ORDERS - 1).astype(np.int64)
    coins = rng.choice([-1.0, 1.0], (2, orders))
    runs = np.repeat(coins[0], lengths)[:orders]
    what = rng.random(orders)
    return np.select(
        [what < noise, what < noise + informed],
        [coins[1], np.copysign(1.0, foresight)],
        runs,
    )


def event_times(rng: np.random.Generator, latent: LatentDay, count: int, per_second: int) -> IntArray:
    """Return sorted times since midnight in file units: bursts on a clock that runs with the activity."""
    # Squared normals are waiting times with twice an exponential's variance: bursts and lulls.
    elapsed = np.cumsum(np.square(rng.standard_normal(count + 1)))
    clock = np.concatenate([[0.0], np.cumsum(latent.activity)])
    seconds = np.interp(elapsed[:-1] * (clock[-1] / elapsed[-1]), clock, np.arange(SECONDS + 1))
    return np.asarray(np.minimum((seconds * per_second).astype(np.int64), SECONDS * per_second - 1))


def standing_lots(rng: np.random.Generator, scale_lots: float, lean: FloatArray, is_update: BoolArray) -> IntArray:
    """Return the quantity at one side of the touch: a new one at each update, standing in between."""
    at = np.flatnonzero(is_update)
    drawn = 1 + (scale_lots * np.exp(rng.standard_normal(len(at)) + lean[at])).astype(np.int64)
    return np.asarray(drawn[np.cumsum(is_update) - 1])


def changes(ticks: IntArray) -> BoolArray:
    """Mark where a price differs from the one before; the first always does."""
    return np.asarray(np.diff(ticks, prepend=ticks[0] - 1) != 0)


def trade_lots(rng: np.random.Generator, scale_lots: float, count: int) -> IntArray:
    """Return the sizes of trades: a Pareto tail above the scale."""
    return 1 + np.asarray(scale_lots * np.minimum(rng.pareto(_SIZE_TAIL, count), _LARGEST_SIZE)).astype(np.int64)


def mean_trade_lots(scale_lots: float) -> float:
    """Return the mean size of trades."""
    return 1 + scale_lots / (_SIZE_TAIL - 1)
