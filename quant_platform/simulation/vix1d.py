"""A history of VIX1D that never was, as Cboe publishes the real one: seeded, and tied to no simulated market."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from quant_platform.storage.atomic import published

WEEKDAYS_BEFORE = 500
_LEVEL = 13.0  # vol points, to which the walk comes back
_REVERSION = 0.12  # a day
_DAILY_VOLATILITY = 0.16  # of the logarithm
_INTRADAY_VOLATILITY = 0.05
_LEAST = 3.0
_SATURDAY = 5


def write_history(path: Path, *, dates: Sequence[date], seed: int = 0) -> None:
    """Write the index's daily prices: of 500 weekdays before the first date, and of the weekdays up to the last one.

    A row depends on the seed, on the first date and on its own place alone: later dates add rows and change none.

    Args:
        path: The CSV.
        dates: At least one, in order.
        seed: Of the walk.

    Raises:
        OSError: It cannot be written.
    """
    days = [_weekdays_before(dates[0], WEEKDAYS_BEFORE), _weekdays_between(dates[0], dates[-1])]
    generator = np.random.default_rng((seed, dates[0].toordinal()))
    lines, distance = ["DATE,OPEN,HIGH,LOW,CLOSE"], 0.0
    for day in (day for part in days for day in part):
        opened = distance
        shock, above, below = generator.standard_normal(3)
        distance += -_REVERSION * distance + _DAILY_VOLATILITY * shock
        ends = np.array([opened, distance])
        high = ends.max() + _INTRADAY_VOLATILITY * abs(above)
        low = ends.min() - _INTRADAY_VOLATILITY * abs(below)
        prices = np.maximum(_LEAST, _LEVEL * np.exp([opened, high, low, distance]))
        lines.append(",".join([day.strftime("%m/%d/%Y"), *(f"{price:.6f}" for price in prices)]))
    with published(path) as file:
        file.write_text("\n".join([*lines, ""]), encoding="ascii")


def _weekdays_before(first: date, count: int) -> list[date]:
    found: list[date] = []
    day = first
    while len(found) < count:
        day -= timedelta(days=1)
        if day.weekday() < _SATURDAY:
            found.append(day)
    return found[::-1]


def _weekdays_between(first: date, last: date) -> list[date]:
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [day for day in days if day.weekday() < _SATURDAY]
