"""Which options a simulated venue lists on a coin: Deribit's expiries, and strikes around the price when each came up.

Here: contracts, and when they come and go, which depend on the date and the coin's history alone. Not here: what they
cost and how they trade (`options`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

from quant_platform.simulation.latent_price import EPOCH, SECONDS, FloatArray
from quant_platform.simulation.market_files import BoolArray, IntArray

ROLL_S = 8 * 3600
"""Second of the UTC day at which options settle, and new ones are listed."""

_DAILIES, _WEEKLIES, _MONTHLIES, _QUARTERLIES = 3, 3, 3, 4
_FRIDAY = 4
_IDS_PER_EXPIRY = 100
_COARSEST = 4  # steps between the strikes farthest out, on whose multiples a ladder is centred
_ROUND_STEPS = (10, 20, 25, 50, 100)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


@dataclass(frozen=True)
class Ladder:
    """How the strikes of a kind of expiry stand.

    Attributes:
        period: The venue's word for how often such an expiry comes.
        has_future: Whether a future settles with it; else the venue makes up a synthetic one.
        step: Between strikes near the money, in standard deviations of a day's return, before it is made round.
        offsets: The strikes, in steps from the one at the centre.
    """

    period: str
    has_future: bool
    step: float
    offsets: tuple[int, ...]


_DAY = Ladder("day", False, 0.32, (-16, -12, -10, -8, *range(-6, 7), 8, 10, 12, 16))
_WEEK = Ladder("week", True, 0.6, (-20, -16, -12, -10, -8, *range(-7, 8), 8, 10, 12, 16, 20))
_MONTH = Ladder("month", True, 1.2, (-16, -14, -12, -10, *range(-8, 9), 10, 12, 14, 16, 20, 24, 28))


@dataclass(frozen=True, eq=False)
class Expiry:
    """One expiry and its strikes.

    Attributes:
        settled: It settles at 08:00 UTC of this date.
        listed: It was listed at 08:00 UTC of this date.
        ladder: How its strikes stand.
        opening: Price of the coin at midnight of the date of listing.
        strikes: Ascending, in quote currency.
        roundness: Of each strike: 0, 1 on every fifth step from zero, 2 on every tenth.
    """

    settled: date
    listed: date
    ladder: Ladder
    opening: float
    strikes: FloatArray
    roundness: IntArray

    @property
    def label(self) -> str:
        """The date as the venue writes it, such as `8MAR24`."""
        return f"{self.settled.day}{_MONTHS[self.settled.month - 1]}{self.settled:%y}"

    def names(self, base: str) -> list[str]:
        """Return the venue's names, by strike, the call before the put."""
        written = (np.format_float_positional(strike, trim="-").replace(".", "d") for strike in self.strikes)
        stem = f"{base}-{self.label}"
        return [f"{stem}-{strike}-{kind}" for strike in written for kind in "CP"]


class Contracts(NamedTuple):
    """Contracts by expiry, strike, the call before the put; each array has one value a contract.

    Attributes:
        expiries: By date.
        names: The venue's.
        instrument_id: A number that no other contract on the coin has.
        place: Of its expiry in `expiries`.
        strike: In quote currency.
        is_call: Else it is a put.
        settles_s: When it settles, in seconds after midnight UTC of the date that was asked for.
        listed_s: When it was listed, likewise.
    """

    expiries: Sequence[Expiry]
    names: Sequence[str]
    instrument_id: IntArray
    place: IntArray
    strike: FloatArray
    is_call: BoolArray
    settles_s: FloatArray
    listed_s: FloatArray


def contracts_of(base: str, expiries: Sequence[Expiry], day: date) -> Contracts:
    """Return the contracts of expiries, seen from a date."""
    counts = [2 * len(expiry.strikes) for expiry in expiries]
    strike = np.concatenate([np.repeat(expiry.strikes, 2) for expiry in expiries])
    rolls_s = np.array([[(at - day).days * SECONDS + ROLL_S for at in (one.settled, one.listed)] for one in expiries])
    settles_s, listed_s = np.repeat(rolls_s.astype(np.float64), counts, axis=0).T
    return Contracts(
        expiries=expiries,
        names=[name for expiry in expiries for name in expiry.names(base)],
        instrument_id=np.concatenate(
            [
                (one.settled - EPOCH).days * _IDS_PER_EXPIRY + np.arange(count)
                for one, count in zip(expiries, counts, strict=True)
            ]
        ),
        place=np.repeat(np.arange(len(expiries)), counts),
        strike=strike,
        is_call=np.arange(len(strike)) % 2 == 0,
        settles_s=settles_s,
        listed_s=listed_s,
    )


def expiries_after(roll: date) -> list[date]:
    """Return the expiries that are listed from 08:00 UTC of `roll` to the next 08:00, ascending.

    They are Deribit's: the next three days, Fridays, and last Fridays of months, and the next four last Fridays of
    quarters.
    """
    days = [roll + timedelta(days=n + 1) for n in range(_DAILIES)]
    friday = roll + timedelta(days=(_FRIDAY - roll.weekday() - 1) % 7 + 1)
    weeks = [friday + timedelta(weeks=n) for n in range(_WEEKLIES)]
    return sorted({*days, *weeks, *_last_fridays(roll, 1, _MONTHLIES), *_last_fridays(roll, 3, _QUARTERLIES)})


def listed_expiries(roll: date, openings: FloatArray, daily_volatility: float) -> list[Expiry]:
    """Return what is listed from 08:00 UTC of `roll` to the next 08:00, by date.

    Args:
        roll: A date, not before the day before `EPOCH`.
        openings: Price of the coin at midnight UTC of each date from `EPOCH` to `roll` or later.
        daily_volatility: Standard deviation of a day's log return: how far strikes stand from each other.
    """
    return [_expiry(settled, openings, daily_volatility) for settled in expiries_after(roll)]


def _expiry(settled: date, openings: FloatArray, daily_volatility: float) -> Expiry:
    ladder, listed = _terms(settled)
    opening = float(openings[max((listed - EPOCH).days, 0)])
    mantissa, exponent = _round_step(opening * daily_volatility * ladder.step)
    step = mantissa * 10.0**exponent
    centre = _COARSEST * round(opening / step / _COARSEST)
    steps = centre + np.array(ladder.offsets)
    steps = steps[steps > 0]
    units = steps * mantissa
    # Whole numbers divided, so that a strike is the float that its name says.
    strikes = units * 10.0**exponent if exponent >= 0 else units / 10.0**-exponent
    roundness = (steps % 5 == 0).astype(np.int64) + (steps % 10 == 0)
    return Expiry(settled, listed, ladder, opening, strikes, roundness)


def _terms(settled: date) -> tuple[Ladder, date]:
    """Return the ladder of an expiry, and the roll at which it came up: the first at which it is among those listed."""
    if settled.weekday() != _FRIDAY:
        return _DAY, settled - timedelta(days=_DAILIES)
    if settled != _last_friday(settled.year, settled.month):
        return _WEEK, settled - timedelta(weeks=_WEEKLIES)
    months = 3 * _QUARTERLIES if settled.month % 3 == 0 else _MONTHLIES
    return _MONTH, _last_friday(*_months_later(settled.year, settled.month, -months))


def _last_fridays(roll: date, every: int, count: int) -> Sequence[date]:
    """Return the next last Fridays of months whose number is a multiple of `every`."""
    months = [_months_later(roll.year, roll.month, ahead) for ahead in range(every * (count + 1))]
    fridays = [_last_friday(year, month) for year, month in months if month % every == 0]
    return [friday for friday in fridays if friday > roll][:count]


def _last_friday(year: int, month: int) -> date:
    last = date(*_months_later(year, month, 1), 1) - timedelta(days=1)
    return last - timedelta(days=(last.weekday() - _FRIDAY) % 7)


def _months_later(year: int, month: int, months: int) -> tuple[int, int]:
    years, before = divmod(month - 1 + months, 12)
    return year + years, before + 1


def _round_step(wanted: float) -> tuple[int, int]:
    """Return the nearest of 1, 2, 2.5 and 5 times a power of ten, as two digits and an exponent."""
    exponent = math.floor(math.log10(wanted)) - 1
    return min(_ROUND_STEPS, key=lambda step: abs(math.log(wanted / (step * 10.0**exponent)))), exponent
