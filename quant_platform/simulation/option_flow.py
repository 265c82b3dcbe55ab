"""How much of simulated options is open and how much of them trades, at the prices that they are quoted at.

Amounts are in coins, as are prices; one contract is one coin. Arrays of snapshots × contracts cover one UTC date.
"""

import math
from collections.abc import Callable
from datetime import date

import numpy as np

from quant_platform.simulation.deribit_answers import MIN_AMOUNT, TICK
from quant_platform.simulation.latent_price import SECONDS, FloatArray, LatentDay
from quant_platform.simulation.option_listing import Contracts

Stream = Callable[..., np.random.Generator]
"""Returns the stream of random numbers of one underlying that belongs to a key."""

_USUAL_LIFE_DAYS = 21
_ROUND_WEIGHTS = np.array([1.0, 1.8, 3.0])
_IN_THE_MONEY_WEIGHT = 0.3
_GROWTH = 4.0  # most of a contract's open interest is there after a quarter of its life
_INTEREST_DEVIATION, _DAILY_DEVIATION, _TURNOVER_DEVIATION = 0.7, 0.08, 1.0  # of logs
_UNUSUAL_CONTRACTS, _UNUSUAL_TURNOVER = 4, (1.5, 4.5)


def open_interest(
    contracts: Contracts, day: date, *, stream: Stream, notional: float, daily_volatility: float
) -> FloatArray:
    """Return what is open of each contract through a date: most at round strikes near the price at listing.

    Args:
        contracts: Whose.
        day: UTC date.
        stream: Of the underlying.
        notional: Median value of what is open in a contract of three weeks at the money, in quote currency.
        daily_volatility: Standard deviation of a day's log return of the underlying.
    """
    found = []
    for expiry in contracts.expiries:
        shape = (len(expiry.strikes), 2)  # calls, puts
        own = stream("contract", expiry.settled.toordinal()).standard_normal(shape)
        today = stream("interest", expiry.settled.toordinal(), day.toordinal()).standard_normal(shape)
        life_days = (expiry.settled - expiry.listed).days
        away = np.log(expiry.strikes / expiry.opening)[:, None]
        weight = np.exp(-np.square(away / (daily_volatility * math.sqrt(life_days))) / 2)
        weight = weight * _ROUND_WEIGHTS[expiry.roundness][:, None] * math.sqrt(life_days / _USUAL_LIFE_DAYS)
        weight = weight * np.where(away * np.array([1, -1]) < 0, _IN_THE_MONEY_WEIGHT, 1)
        grown = -math.expm1(-_GROWTH * ((day - expiry.listed).days + 1) / life_days)
        noise = np.exp(_INTEREST_DEVIATION * own + _DAILY_DEVIATION * today)
        found.append((notional / expiry.opening * grown * weight * noise).ravel())
    return _amounts(np.concatenate(found))


def turnover(
    contracts: Contracts, day: date, *, stream: Stream, interest: FloatArray, mean: float, unusual_share: float
) -> FloatArray:
    """Return the share of each contract's open interest that trades in a date.

    Args:
        contracts: Whose.
        day: UTC date.
        stream: Of the underlying.
        interest: What is open of each.
        mean: Of the shares.
        unusual_share: Share of the dates on which a few contracts trade more than is open.
    """
    drawn = np.concatenate(
        [
            stream("turnover", expiry.settled.toordinal(), day.toordinal()).standard_normal(2 * len(expiry.strikes))
            for expiry in contracts.expiries
        ]
    )
    shares = mean * np.exp(_TURNOVER_DEVIATION * drawn - _TURNOVER_DEVIATION**2 / 2)
    rng = stream("unusual", day.toordinal())
    if rng.random() < unusual_share:
        chosen = rng.choice(len(shares), _UNUSUAL_CONTRACTS, replace=False, p=interest / interest.sum())
        shares[chosen] = rng.uniform(*_UNUSUAL_TURNOVER, _UNUSUAL_CONTRACTS)
    return np.asarray(shares)


def volume(contracts: Contracts, latent: LatentDay, time_s: FloatArray, *, expected: FloatArray) -> FloatArray:
    """Return what has traded since midnight, or since a contract came up: snapshots × contracts.

    Args:
        contracts: Whose.
        latent: The hidden market; it tells how busy the hours are.
        time_s: Of the snapshots, in seconds after midnight.
        expected: What trades of each contract in a whole date.
    """
    clock = np.concatenate([[0.0], np.cumsum(latent.activity)])
    elapsed = np.interp(time_s, np.arange(SECONDS + 1), clock / clock[-1])
    at_listing = np.interp(contracts.listed_s, np.arange(SECONDS + 1), clock / clock[-1])
    return _amounts(expected * np.maximum(elapsed[:, None] - at_listing, 0))


def trades(
    traded: FloatArray, *, bid: FloatArray, ask: FloatArray, mark: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Return the price of the last trade between each snapshot and the one before, NaN where there is none.

    It is the bid or the ask, and where there is no such quote the mark on the venue's finest tick.
    """
    is_buy = rng.random(traded.shape) < 0.5
    touch = np.where(is_buy | np.isnan(bid), ask, bid)
    on_tick = np.maximum(np.round(mark / TICK) * TICK, TICK)
    return np.where(traded > 0, np.round(np.where(np.isnan(touch), on_tick, touch), 4), np.nan)


def latest(values: FloatArray) -> FloatArray:
    """Return at each snapshot the last value up to it that is no NaN; NaN before there is one."""
    rows = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    return np.take_along_axis(values, np.maximum.accumulate(rows, axis=0), axis=0)


def _amounts(coins: FloatArray) -> FloatArray:
    """Return amounts in whole steps of the smallest trade."""
    return np.asarray(np.round(np.floor(coins / MIN_AMOUNT) * MIN_AMOUNT, 1))
