"""Which captured segments nothing needs any more, and their removal. The manifest keeps their rows: they were there.

A segment goes when each date that it may have brought something to is over for long, and whole in the lake: closed,
sound, its files as they were written, and made of this segment too. A file whose segments are gone is not built again.
"""

from collections.abc import Callable, Iterator
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from datetime import datetime, timedelta
from functools import cache

from quant_platform.pipeline.capture import THROUGH_SEGMENT
from quant_platform.pipeline.pending import dates_of
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.sessions import session
from quant_platform.pipeline.units import Unit, outcome_on_disk
from quant_platform.settings import CAPTURED_FEEDS, Instrument, Settings
from quant_platform.storage.atomic import fsync_folder
from quant_platform.storage.lake import Lake
from quant_platform.storage.landing import Manifest, Segment, is_in_use

_CAPTURED = tuple(table for table, recipe in RECIPES.items() if recipe.capture)


def retired(settings: Settings, now: datetime) -> list[Segment]:
    """Return the segments that may go, by feed, symbol and number.

    Each symbol's newest one stays, and the one with its greatest trade id: its next collector begins with them.

    Args:
        settings: The whole tree; symbols that it does not have keep all of theirs.
        now: The wall clock, UTC.

    Raises:
        OSError: The manifest or a file of the lake cannot be read.
    """
    if not is_in_use(settings.landing):
        return []
    captured = (instrument for instrument in settings.instruments if instrument.feed in CAPTURED_FEEDS)
    return [segment for instrument in captured for segment in _of_symbol(settings, instrument, now)]


def remove(segments: list[Segment], on_removed: Callable[[Segment], None] = lambda _: None) -> None:
    """Remove the files; a killed removal is gone on with by the next one.

    Raises:
        OSError: A file cannot be removed; those before it are.
    """
    for segment in segments:
        segment.path.unlink(missing_ok=True)
        on_removed(segment)
    for folder in {segment.path.parent for segment in segments}:
        fsync_folder(folder)


def _of_symbol(settings: Settings, instrument: Instrument, now: datetime) -> Iterator[Segment]:
    landed = [s for s in Manifest(settings.landing).segments(instrument.feed, instrument.symbol) if s.path.is_file()]
    stay = (
        {max(landed, key=lambda s: s.number), max(landed, key=lambda s: (s.last_id or 0, s.number))} if landed else ()
    )
    lake, keep = Lake(settings.lake_uri), timedelta(days=settings.retention.segments_days)

    @cache
    def through(day: Date) -> int:
        """Return the last segment in the lake's files of a date that is over for long; 0 where it is not whole."""
        hours = session(instrument.calendar, day)
        is_over = hours is not None and hours.end + keep <= now
        return min(_through(lake, Unit(table, instrument.symbol, day)) for table in _CAPTURED) if is_over else 0

    days: list[Date] = []
    for segment in landed:
        # One without any time is of the dates of that before it.
        days = dates_of(instrument.calendar, segment) if segment.ts_first is not None else days
        if segment not in stay and days and all(through(day) >= segment.number for day in days):
            yield segment


def _through(lake: Lake, unit: Unit) -> int:
    found = outcome_on_disk(lake, unit)
    if found is None or not found.is_healthy or lake.read_state(*unit) is not None:
        return 0
    is_sound = found.content_hash == lake.recomputed_hash(*unit)
    return int(found.facts.get(THROUGH_SEGMENT, 0)) if is_sound else 0
