"""Which dates have captured segments that their tables do not contain yet, and which are over and wait for their close.

Pending is what the manifest has and the ledger has not: nothing else remembers it, so nothing can lose it.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from math import inf
from typing import NamedTuple

from quant_platform.pipeline import capture
from quant_platform.pipeline.capture import THROUGH_SEGMENT
from quant_platform.pipeline.ledger import Ledger
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.sessions import session
from quant_platform.pipeline.units import Outcome, UnitStatus
from quant_platform.settings import Settings
from quant_platform.storage.landing import Manifest, Segment, is_in_use

FOLLOWING = tuple(table for table, recipe in RECIPES.items() if recipe.fold)
"""The tables that follow an open date."""

_CLOSES_AFTER = timedelta(minutes=2)  # of market time: what is late by less is in the date before it closes
_QUIET = timedelta(minutes=10)  # no segment for so long: the capture has ended
_TAPE = "market/trades"


class Pending(NamedTuple):
    """Symbols with segments to step, by date; and the manifest's position before which nothing is pending."""

    symbols: dict[Date, list[str]]
    position: int


def pending(settings: Settings, ledger: Ledger, position: int = 0) -> Pending:
    """Return what is to be stepped.

    Args:
        settings: The whole tree.
        ledger: What the tables contain.
        position: What the last call returned; only to look at less.
    """
    if not is_in_use(settings.landing):
        return Pending({}, 0)
    calendars = {instrument.symbol: instrument.calendar for instrument in settings.instruments}
    manifest = Manifest(settings.landing)
    listed = manifest.after(position - 1)
    if position and (not listed or listed[0][0] != position):  # the manifest is another one: it was made anew
        position, listed = 0, manifest.after(0)
    landed = [
        (row, s, dates_of(calendars[s.symbol], s)) for row, s in listed if row > position and s.symbol in calendars
    ]
    contained = _contained(settings, ledger, {day for _, _, days in landed for day in days})
    symbols: dict[Date, set[str]] = defaultdict(set)
    reached, is_done_so_far = position, True
    for row, segment, days in landed:
        due = [day for day in days if contained.get((segment.symbol, day), 0) < segment.number]
        for day in due:
            symbols[day].add(segment.symbol)
        is_done_so_far = is_done_so_far and not due
        reached = row if is_done_so_far else reached
    return Pending({day: sorted(symbols[day]) for day in sorted(symbols)}, reached)


def closing(settings: Settings, ledger: Ledger, now: datetime) -> dict[Date, list[str]]:
    """Return the symbols whose session is over while their date is still open, by date.

    A session is over when the market's time, the latest event landed, is past its end; or, where the capture has
    ended, when the clock is.

    Args:
        settings: The whole tree.
        ledger: What the tables contain.
        now: The wall clock, UTC.
    """
    newest = Manifest(settings.landing).newest().values() if is_in_use(settings.landing) else ()
    market_time = max((_utc(s.ts_last) for s in newest if s.ts_last is not None), default=None)
    if market_time is None:
        return {}
    last_landed = max((_utc(int(s.path.stat().st_mtime * 1e9)) for s in newest if s.path.is_file()), default=now)
    reached = max(market_time, now) if now - last_landed > _QUIET else market_time
    found: dict[Date, list[str]] = defaultdict(list)
    calendars = {instrument.symbol: instrument.calendar for instrument in settings.instruments}
    for unit in (o.unit for o in ledger.outcomes(_TAPE, symbols=calendars, status=UnitStatus.OPEN)):
        hours = session(calendars[unit.symbol], unit.date)
        if hours and hours.end + _CLOSES_AFTER <= reached:
            found[unit.date].append(unit.symbol)
    return dict(found)


def _contained(settings: Settings, ledger: Ledger, days: Iterable[Date]) -> dict[tuple[str, Date], float]:
    """Return the last segment that all following tables of a symbol-day contain; 0 where one of them has none.

    A date of which segments are gone takes no others: it is as good as it will ever be.
    """
    instruments = {instrument.symbol: instrument for instrument in settings.instruments}
    found: dict[tuple[str, Date], dict[str, int]] = defaultdict(dict)
    spent: set[tuple[str, Date]] = set()
    for day in days:
        for outcome in ledger.outcomes(start=day, end=day, symbols=instruments):
            symbol, table = outcome.unit.symbol, outcome.unit.table
            found[symbol, day][table] = _through(outcome)
            if table == _TAPE and capture.is_spent(settings.landing, instruments[symbol], outcome.facts):
                spent.add((symbol, day))
    return {
        name: inf if name in spent else min(tables.get(table, 0) for table in FOLLOWING)
        for name, tables in found.items()
    }


def _through(outcome: Outcome) -> int:
    return int(outcome.facts.get(THROUGH_SEGMENT, 0)) if outcome.status.is_usable else 0


def dates_of(calendar: str, segment: Segment) -> list[Date]:
    """Return the trading dates to which a segment may have brought something; none where no line has a time."""
    if segment.ts_first is None or segment.ts_last is None:
        return []
    first, last = _utc(segment.ts_first), _utc(segment.ts_last)
    days = ((first.date() + timedelta(days=away)) for away in range(-1, (last.date() - first.date()).days + 2))
    windows = ((day, session(calendar, day)) for day in days)
    return [day for day, hours in windows if hours and hours.start <= last and first < hours.end]


def _utc(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)
