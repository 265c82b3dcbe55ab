"""Recipes of `volatility/vix1d` and `volatility/vix1d_regime`; and what is on record of VIX1D, for batch and live.

Where a date has no reading of a real source, the history that `qp demo` simulated stands in, under a source's name of
its own.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from typing import Any

import msgspec
import polars as pl

from quant_platform.calculators import vol_regime
from quant_platform.contracts._schema import INSTANT, empty, polars_schema, split
from quant_platform.contracts.volatility import VolIndex, VolIndexRegime
from quant_platform.feeds import vix1d_sources
from quant_platform.feeds.vix1d_sources import SIMULATED
from quant_platform.pipeline.sessions import earlier_sessions, session, trading_date
from quant_platform.pipeline.units import Built, Input, Recipe, Source, Work
from quant_platform.settings import Settings
from quant_platform.storage import vix1d_archive
from quant_platform.storage.quarantine import SCHEMA as QUARANTINE
from quant_platform.storage.vix1d_archive import Day, Reading, date_of

VIX1D = VolIndex.table
VIX1D_REGIME = VolIndexRegime.table

# The default window of 480 daily closes reaches over about 695 dates. What lies before a date is read from the archive
# and is no input of the lake: 480 files of a line each are read in 23 ms, the same rows as inputs in 1.4 s, and the
# window of a date is whole also where the lake has that date alone.
LOOKBACK_DATES = 730

_LINE = "line"
_EXCHANGE = "XNYS"


def on_record(settings: Settings, date: Date) -> Day:
    """Return what is on record of a date."""
    found = vix1d_archive.day(settings.landing, date)
    if found.readings:
        return found
    simulated = [reading for reading in _simulated(settings) if date_of(reading.ts_event) == date]
    name = settings.simulated_vix1d.name if simulated else found.source
    return Day(name, list(enumerate(simulated, start=1)), found.refused)


def earlier(settings: Settings, date: Date, sources: Collection[str], count: int) -> list[Reading]:
    """Return the readings of some sources before a date: whole dates, until each has so many or `LOOKBACK_DATES` end.

    Args:
        settings: The whole tree.
        date: The one after the last.
        sources: Their names.
        count: How many readings a source needs.
    """
    first = date - timedelta(days=LOOKBACK_DATES)
    lacking = {source: count for source in sources if source != SIMULATED}
    found: list[Reading] = []
    for day in reversed([day for day in vix1d_archive.dates(settings.landing) if first <= day < date]):
        if not lacking:
            break
        for _, reading in vix1d_archive.day(settings.landing, day, lacking).readings:
            found.append(reading)
            lacking[reading.source] -= 1
        lacking = {source: left for source, left in lacking.items() if left > 0}
    if SIMULATED in sources:
        found += [reading for reading in _simulated(settings) if first <= date_of(reading.ts_event) < date]
    return found


def newest(settings: Settings, date: Date) -> Reading | None:
    """Return the newest reading on record of a date or one before it; None where there is none."""
    for day in reversed([day for day in vix1d_archive.dates(settings.landing) if day <= date]):
        if readings := vix1d_archive.day(settings.landing, day).readings:
            return max((reading for _, reading in readings), key=_ts_event)
    simulated = [reading for reading in _simulated(settings) if date_of(reading.ts_event) <= date]
    return max(simulated, key=_ts_event, default=None)


def first_date(settings: Settings) -> Date | None:
    """Return the first date on record; None where nothing is."""
    on_file = vix1d_archive.dates(settings.landing)[:1]
    return min([*on_file, *(date_of(reading.ts_event) for reading in _simulated(settings)[:1])], default=None)


def session_of(reading: Reading) -> Date:
    """Return the trading date that a reading belongs to, where the index is computed."""
    return trading_date(_EXCHANGE, datetime.fromtimestamp(reading.ts_event / 1e9, UTC))


def sessions(until: Date, count: int) -> list[Date]:
    """Return the last `count` trading dates up to a date, itself included, oldest first."""
    return earlier_sessions(_EXCHANGE, until + timedelta(days=1), count)


def age_sessions(reading: Reading, date: Date) -> int:
    """Return how many trading dates lie after that of a reading, up to a date."""
    first = session_of(reading)
    days = (first + timedelta(days=n) for n in range(1, (date - first).days + 1))
    return sum(session(_EXCHANGE, day) is not None for day in days)


def regimes(readings: Iterable[Reading], before: Iterable[Reading], settings: Settings) -> pl.DataFrame:
    """Return contract `VolIndexRegime` of readings, held against those before them."""
    return vol_regime.vol_regime(_frame(readings), _frame(before), settings.analytics.vol_regime)


def _simulated(settings: Settings) -> list[Reading]:
    try:
        content = settings.simulated_vix1d.read_bytes()
    except FileNotFoundError:
        return []
    latency_ms = settings.feeds.cboe.assumed_latency_ms
    return vix1d_sources.history(
        content, str(settings.simulated_vix1d), source=SIMULATED, ts_recv=None, latency_ms=latency_ms
    ).readings


def _frame(readings: Iterable[Reading]) -> pl.DataFrame:
    rows = [(one.ts_event, one.ts_recv, vix1d_sources.SYMBOL, one.source, one.value) for one in readings]
    schema = polars_schema(VolIndex)
    numbers = {name: pl.Int64() if dtype == INSTANT else dtype for name, dtype in schema.items()}
    return pl.DataFrame(rows, schema=numbers, orient="row").cast(schema) if rows else empty(VolIndex)


def _ts_event(reading: Reading) -> int:
    return reading.ts_event


def _fetched(work: Work) -> Source | None:
    day = on_record(work.settings, work.unit.date)
    if not day.readings and not day.refused:
        return None
    return Source(day.source, _digest([reading for _, reading in day.readings], day.refused), day)


def _day(work: Work) -> Built:
    assert work.source is not None  # a unit with no source is absent and never built
    day: Day = work.source.handle
    lines = pl.Series(_LINE, [line for line, _ in day.readings], pl.Int64)
    good, bad = split(VolIndex, _frame(reading for _, reading in day.readings).with_columns(lines), keep=(_LINE,))
    texts = {line: msgspec.json.encode(reading).decode() for line, reading in day.readings}
    refused = [*day.refused, *((rule, line, texts[line]) for rule, line in bad.select("rule", _LINE).rows())]
    quarantined = pl.DataFrame(
        [(rule, day.source, line, raw) for rule, line, raw in refused],
        schema={name: QUARANTINE[name] for name in ("rule", "source_file", "source_line", "raw")},
        orient="row",
    )
    return Built(good, quarantined)


def _regime(work: Work) -> Built:
    today = work.today(VIX1D).collect()
    before = _frame(_window(work, today["source"].unique().to_list()))
    return Built(vol_regime.vol_regime(today, before, work.settings.analytics.vol_regime))


def _before(work: Work) -> str:
    sources = {reading.source for _, reading in on_record(work.settings, work.unit.date).readings}
    return _digest(_window(work, sources))


def _window(work: Work, sources: Collection[str]) -> list[Reading]:
    return earlier(work.settings, work.unit.date, sources, work.settings.analytics.vol_regime.window - 1)


def _digest(*what: object) -> str:
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()


def _raw_parameters(settings: Settings) -> Mapping[str, Any]:
    return {"max_quarantined_share": settings.quality.max_quarantined_share}


def _regime_parameters(settings: Settings) -> Mapping[str, Any]:
    return asdict(settings.analytics.vol_regime)


VOL_INDICES = (
    Recipe(
        VIX1D,
        _day,
        (vix1d_sources.__name__,),
        fetch=_fetched,
        parameters=_raw_parameters,
        is_cross_symbol=True,
    ),
    Recipe(
        VIX1D_REGIME,
        _regime,
        (vol_regime.__name__,),
        (Input(VIX1D),),
        parameters=_regime_parameters,
        archived=_before,
        is_cross_symbol=True,
    ),
)
