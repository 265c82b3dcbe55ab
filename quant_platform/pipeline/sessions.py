"""A calendar and a trading date in, a time window out. What happens inside the window is not known here."""

import warnings
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any, NamedTuple

ALWAYS_OPEN = "24/7"


class Session(NamedTuple):
    """The half-open window [start, end) of a trading date, in UTC."""

    start: datetime
    end: datetime


def session(calendar: str, day: date) -> Session | None:
    """Return the window of a trading date, or None where the calendar is closed.

    Args:
        calendar: `24/7` (UTC days) or a name that exchange_calendars knows, such as `XNYS`.
        day: The trading date.

    Raises:
        ValueError: The calendar is not known.
    """
    if calendar == ALWAYS_OPEN:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return Session(start, start + timedelta(days=1))
    hours, label = _exchange(calendar), day.isoformat()
    if not hours.is_session(label):
        return None
    return Session(hours.session_open(label).to_pydatetime(), hours.session_close(label).to_pydatetime())


def local_session(calendar: str, day: date, opens: time, closes: time | None) -> Session:
    """Return a window of a date by the clock of the calendar's exchange, whatever its own hours are.

    Args:
        calendar: A name that exchange_calendars knows.
        day: The date there.
        opens: When the window opens.
        closes: When it closes, on the same date; None for the next midnight.
    """
    zone = _exchange(calendar).tz
    start = datetime.combine(day, opens, zone)
    end = datetime.combine(day, closes, zone) if closes else datetime.combine(day + timedelta(days=1), time(), zone)
    return Session(start.astimezone(UTC), end.astimezone(UTC))


def trading_date(calendar: str, moment: datetime) -> date:
    """Return the trading date that a moment belongs to: that of the exchange's clock, or the last one before it."""
    if calendar == ALWAYS_OPEN:
        return moment.astimezone(UTC).date()
    day = moment.astimezone(_exchange(calendar).tz).date()
    return day if session(calendar, day) else earlier_sessions(calendar, day, 1)[0]


def earlier_sessions(calendar: str, day: date, count: int) -> list[date]:
    """Return the `count` trading dates before `day`, oldest first."""
    if calendar == ALWAYS_OPEN:
        return [day - timedelta(days=back) for back in range(count, 0, -1)]
    found: list[date] = []
    while len(found) < count:
        day -= timedelta(days=1)
        if session(calendar, day):
            found.insert(0, day)
    return found


def later_session(calendar: str, day: date) -> date:
    """Return the trading date after `day`."""
    day += timedelta(days=1)
    while session(calendar, day) is None:
        day += timedelta(days=1)
    return day


@cache
def _exchange(calendar: str) -> Any:
    import exchange_calendars

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its use of pandas, which is not ours to mend
        try:
            return exchange_calendars.get_calendar(calendar, start="1990-01-01")
        except exchange_calendars.errors.InvalidCalendarName:
            raise ValueError(f"There is no calendar '{calendar}': use 24/7 or a name of exchange_calendars.") from None
        except (ValueError, NotImplementedError):  # some are recorded less far back
            return exchange_calendars.get_calendar(calendar)
