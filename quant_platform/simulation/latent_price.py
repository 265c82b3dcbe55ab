"""The hidden price that a simulated market moves around: volatility, seasons of the day, correlation.

Here: what no venue publishes, a day at a time on a grid of seconds. Not here: orders, quotes, trades and
files (`market`, `market_files`). A day depends on the seed, the names and the date alone, never on the days
simulated beside it: levels at midnight come from a chain that starts at `EPOCH`, and the day is bridged between
two of them.
"""

import math
import zlib
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import accumulate

import numpy as np
import numpy.typing as npt

EPOCH = date(2017, 1, 1)
SECONDS = 86_400

# Midnight prices revert to the reference price, so that years after the epoch they are still near it.
_DAILY_PERSISTENCE = 0.95
_MINUTES = SECONDS // 60
_VOLATILITY_HALF_LIFE_MINUTES = 45
# Hour (UTC), width in hours and height of the busy times: Asia's open, Europe's open, New York's open.
_SESSIONS = ((0.5, 1.5, 0.5), (8.0, 1.5, 0.6), (14.5, 2.0, 1.4))

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LatentDay:
    """One symbol-day of the hidden market, second by second from midnight UTC.

    Attributes:
        log_price: Natural log of the price at each second's start, and at the day's end: 86,401 values.
        volatility: Standard deviation of each second's log return, 86,400 values.
        relative_volatility: Volatility against its level at that time of day, mean square 1, 86,400 values.
        activity: Expected rate of orders, relative to the day's other seconds, 86,400 values.
    """

    log_price: FloatArray
    volatility: FloatArray
    relative_volatility: FloatArray
    activity: FloatArray

    def foresight(self, *, horizon_s: int) -> FloatArray:
        """Return, at each second, the log return over the next `horizon_s` in standard deviations."""
        later = np.minimum(np.arange(SECONDS) + horizon_s, SECONDS)
        ahead = self.log_price[later] - self.log_price[:-1]
        return ahead / (self.volatility * math.sqrt(horizon_s))


def latent_day(
    *,
    seed: int,
    venue_symbol: str,
    day: date,
    reference_price: float,
    daily_volatility: float,
    volatility_of_volatility: float,
    correlation: float,
    seasonality: float,
) -> LatentDay:
    """Return one day of the hidden price of `venue_symbol`.

    Returns of any two names share a market factor, so that their correlation is `correlation`; volatility is
    the market's, a stochastic log-volatility (Ornstein-Uhlenbeck by the minute), times a season of the UTC day.
    The price at midnight equals the price at which the day before ended.

    Args:
        seed: Of the whole simulated market.
        venue_symbol: The name on the wire; the same name on two feeds has one hidden price.
        day: UTC date, not before `EPOCH`.
        reference_price: The level that midnight prices revert to, in quote currency.
        daily_volatility: Standard deviation of a day's log return.
        volatility_of_volatility: Standard deviation of log volatility within the day.
        correlation: Between the returns of any two names, 0 to 1.
        seasonality: 0 = no hour is busier than another, 1 = the shape of a crypto venue.
    """
    days = (day - EPOCH).days
    season = 1 + seasonality * (_season() - 1)
    market = generator(seed, "market", day.toordinal())
    own = generator(seed, "own", venue_symbol, day.toordinal())

    relative_volatility = np.exp(
        _log_volatility(market, seed, day, volatility_of_volatility) - volatility_of_volatility**2
    )
    volatility = daily_volatility / math.sqrt(SECONDS) * np.sqrt(season) * relative_volatility
    shared, alone = math.sqrt(correlation), math.sqrt(1 - correlation)
    shocks = shared * market.standard_normal(SECONDS) + alone * own.standard_normal(SECONDS)
    returns = volatility * shocks

    levels = _midnights(seed, venue_symbol, days, daily_volatility, correlation)[-2:]
    variance = np.square(volatility)
    returns += (levels[1] - levels[0] - returns.sum()) * variance / variance.sum()
    log_price = math.log(reference_price) + levels[0] + np.concatenate([[0.0], np.cumsum(returns)])
    return LatentDay(
        log_price=log_price,
        volatility=volatility,
        relative_volatility=relative_volatility,
        activity=season * relative_volatility,
    )


def opening_prices(
    *,
    seed: int,
    venue_symbol: str,
    last_day: date,
    reference_price: float,
    daily_volatility: float,
    correlation: float,
) -> FloatArray:
    """Return the price at midnight of each date from `EPOCH` to `last_day`, as `latent_day` has it.

    Args:
        seed: As for `latent_day`.
        venue_symbol: As for `latent_day`.
        last_day: UTC date, not before `EPOCH`.
        reference_price: As for `latent_day`.
        daily_volatility: As for `latent_day`.
        correlation: As for `latent_day`.
    """
    levels = _midnights(seed, venue_symbol, (last_day - EPOCH).days, daily_volatility, correlation)[:-1]
    return np.asarray(np.exp(math.log(reference_price) + levels))


def relative_volatility_by_minute(*, seed: int, day: date, volatility_of_volatility: float) -> FloatArray:
    """Return `relative_volatility` of `latent_day` at each minute's start, and at the day's end: 1,441 values.

    It is the market's, so that all symbols share it.

    Args:
        seed: As for `latent_day`.
        day: UTC date.
        volatility_of_volatility: As for `latent_day`.
    """
    path = _log_volatility_path(generator(seed, "market", day.toordinal()), seed, day)
    return np.asarray(np.exp(volatility_of_volatility * path - volatility_of_volatility**2))


def generator(*key: int | str) -> np.random.Generator:
    """Return the stream of random numbers that belongs to `key`, the same on every machine."""
    return np.random.default_rng([part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key])


def _midnights(seed: int, venue_symbol: str, days: int, daily_volatility: float, correlation: float) -> FloatArray:
    """Return log prices against the reference at each midnight from the epoch to the one `days` + 1 after it."""
    market = _standard_midnights(generator(seed, "market levels"), days)
    own = _standard_midnights(generator(seed, "own levels", venue_symbol), days)
    return daily_volatility * (math.sqrt(correlation) * market + math.sqrt(1 - correlation) * own)


def _standard_midnights(chain: np.random.Generator, days: int) -> FloatArray:
    shocks = chain.standard_normal(days + 2)
    levels = list(accumulate(shocks, lambda level, shock: _DAILY_PERSISTENCE * level + shock))
    return np.array(levels, dtype=np.float64)


def _log_volatility(market: np.random.Generator, seed: int, day: date, deviation: float) -> FloatArray:
    """Return log volatility by the second; it ends where the next day's begins."""
    path = _log_volatility_path(market, seed, day)
    return np.asarray(deviation * np.interp(np.arange(SECONDS) / 60, np.arange(_MINUTES + 1), path))


def _log_volatility_path(market: np.random.Generator, seed: int, day: date) -> FloatArray:
    """Return standardised log volatility by the minute, drawn from the day's stream before anything else is."""
    keep = 0.5 ** (1 / _VOLATILITY_HALF_LIFE_MINUTES)
    at_midnight = [float(generator(seed, "volatility", day.toordinal() + ahead).standard_normal()) for ahead in (0, 1)]
    shocks = math.sqrt(1 - keep**2) * market.standard_normal(_MINUTES)
    path = np.array(list(accumulate(shocks, lambda level, shock: keep * level + shock, initial=at_midnight[0])))
    path += (at_midnight[1] - path[-1]) * keep ** np.arange(_MINUTES, -1, -1)
    return path


@cache
def _season() -> FloatArray:
    """Return the usual activity at each second of a UTC day, mean 1."""
    hours = np.arange(SECONDS) / 3600
    shape = np.full(SECONDS, 0.5)
    for peak, width, height in _SESSIONS:
        away = np.abs(hours - peak)
        shape += height * np.exp(-0.5 * np.square(np.minimum(away, 24 - away) / width))
    return np.asarray(shape / shape.mean())
