"""When a symbol's market is served: the session of its calendar that is on at a time of the market, or the next."""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import NamedTuple

from quant_platform.pipeline.sessions import ALWAYS_OPEN, Session, local_session, session
from quant_platform.settings import Instrument, Settings

_LONGEST_CLOSE_DAYS = 30
_QUOTED_AROUND_S = 1_800
_NS = 1_000_000_000


class Served(NamedTuple):
    """A trading date and the half-open window [start, end) in which it is served; integer UTC ns."""

    date: date
    start_ns: int
    end_ns: int


def served_from(settings: Settings, instrument: Instrument, market_ns: int) -> Served:
    """Return the session that is on, or else the next one.

    A symbol that trades around the clock is always served. Others are in their calendar's session, or in
    `analytics.extended_hours` of its dates, or, with `analytics.rth_only` off, on every date of the exchange's clock.

    Args:
        settings: The whole tree.
        instrument: The symbol's row of platform.yaml.
        market_ns: The market's time.

    Raises:
        ValueError: The calendar has no session within a month.
    """
    now = datetime.fromtimestamp(market_ns // _NS, UTC)
    hours = settings.analytics.extended_hours
    local = (hours.open, hours.close) if hours else None
    for away in range(-1, _LONGEST_CLOSE_DAYS):
        day = now.date() + timedelta(days=away)
        window = _window(instrument.calendar, day, settings.analytics.rth_only, local)
        if window and now < window.end:
            return Served(day, int(window.start.timestamp()) * _NS, int(window.end.timestamp()) * _NS)
    raise ValueError(f"The calendar {instrument.calendar} has no session within a month of {now:%Y-%m-%d}.")


def is_quoted(settings: Settings, instrument: Instrument, now_ns: int) -> bool:
    """Return whether quotes may change: in the hours of `served_from`, and half an hour before and after.

    Delayed quotes go on after the close; outside these hours a venue tells the same again and again.
    """
    around_ns = _QUOTED_AROUND_S * _NS
    return any(
        served_from(settings, instrument, at_ns).start_ns <= at_ns
        for at_ns in (now_ns, now_ns + around_ns, now_ns - around_ns)
    )


@cache
def _window(calendar: str, day: date, rth_only: bool, hours: tuple[str, str] | None) -> Session | None:  # noqa: FBT001
    if calendar != ALWAYS_OPEN and not rth_only:
        return local_session(calendar, day, time(), None)
    window = session(calendar, day)
    if calendar == ALWAYS_OPEN or window is None or hours is None:
        return window
    return local_session(calendar, day, *(time.fromisoformat(hour) for hour in hours))
