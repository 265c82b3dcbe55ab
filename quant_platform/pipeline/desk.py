"""Recipes of `execution/decisions`, `orders` and `fills`, and of events that come in: what the desk's files told.

The intake has sorted the files' rows by date and symbol. Here they are put together, all revisions: what was
told twice counts once, and what was told otherwise under the same revision is quarantined. Not here: which revision
counts (`calculators.revisions`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from datetime import time, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from quant_platform.contracts._schema import polars_schema
from quant_platform.feeds import desk
from quant_platform.pipeline.ledger import Ledger
from quant_platform.pipeline.sessions import ALWAYS_OPEN, local_session, trading_date
from quant_platform.pipeline.units import Built, Recipe, Source, Work, unit_symbols
from quant_platform.settings import DESK_CONTRACTS, DESK_IDS, EVENT_ID, DeskKind, Settings
from quant_platform.storage import desk_archive

_A_DAY = timedelta(days=1)
_QUARANTINED = ("rule", "source_file", "source_line", "raw")


class Pending(NamedTuple):
    """Symbols with rows that the tables lack, by kind and date; and the time before which no receipt has any."""

    symbols: dict[DeskKind, dict[Date, list[str]]]
    position: int


_KINDS = {contract.table: kind for kind, contract in DESK_CONTRACTS.items()}


def table(kind: DeskKind) -> str:
    """Return the table of a kind."""
    return DESK_CONTRACTS[kind].table


def is_cross_symbol(kind: DeskKind) -> bool:
    """Return whether the kind's table belongs to no symbol: an event's, which may be of the whole portfolio."""
    return DESK_IDS[kind] == EVENT_ID


def pending(settings: Settings, ledger: Ledger, position: int = 0) -> Pending:
    """Return what has been taken in and is not in the tables yet.

    Args:
        settings: The whole tree.
        ledger: What the tables contain.
        position: What the last call returned; only to look at less.
    """
    root, known = settings.landing / desk_archive.FOLDER, unit_symbols(settings)
    days: dict[tuple[DeskKind, Date], set[str]] = defaultdict(set)
    told = list(desk_archive.receipts(root, position))
    for _, one in told:
        for day in one.days:
            if day.symbol in known:
                days[one.kind, day.date].add(day.symbol)
    due: dict[DeskKind, dict[Date, list[str]]] = defaultdict(dict)
    for (kind, date), symbols in sorted(days.items()):
        outcomes = ledger.outcomes(table(kind), symbols=symbols, start=date, end=date)
        contained = {o.unit.symbol: o.facts.get("source_fingerprint") for o in outcomes if o.status.is_usable}
        lacking = [
            s for s in sorted(symbols) if contained.get(s) != _fingerprint(desk_archive.parts(root, kind, s, date))
        ]
        if lacking:
            due[kind][date] = lacking
    waiting = [
        written
        for written, one in told
        if any(day.symbol in due.get(one.kind, {}).get(day.date, ()) for day in one.days)
    ]
    return Pending(dict(due), min(waiting, default=max((written for written, _ in told), default=position)))


def trading_dates(calendar: str, moments: pl.Series) -> pl.Series:
    """Return the trading date of each time, as `trading_date` has it; null where the calendar does not reach.

    Args:
        calendar: `24/7` or a name of exchange_calendars.
        moments: UTC; nulls stay.
    """
    utc = moments.dt.date()
    if calendar == ALWAYS_OPEN:
        return utc
    near = {day + away * _A_DAY for day in utc.unique().drop_nulls() for away in (-1, 0, 1)}
    windows = [(local_session(calendar, day, time(), None).start, _session_date(calendar, day)) for day in sorted(near)]
    starts = pl.DataFrame(windows, schema={"start": pl.Datetime("ns", "UTC"), "date": pl.Date}, orient="row")
    rows = moments.alias("moment").to_frame().with_row_index()
    placed = rows.sort("moment").join_asof(starts, left_on="moment", right_on="start")
    return placed.sort("index")["date"]


def _session_date(calendar: str, day: Date) -> Date | None:
    try:
        return trading_date(calendar, local_session(calendar, day, time(12), None).start)
    except ValueError:  # before the first or after the last session of exchange_calendars
        return None


def _fetched(work: Work) -> Source | None:
    root = work.settings.landing / desk_archive.FOLDER
    paths = desk_archive.parts(root, _KINDS[work.unit.table], work.unit.symbol, work.unit.date)
    if not paths:
        return None
    return Source(f"{len(paths)} files of the desk", _fingerprint(paths), paths)


def _fingerprint(paths: list[Path]) -> str:
    return hashlib.sha256("\n".join(path.name for path in paths).encode()).hexdigest()


def _day(work: Work) -> Built:
    assert work.source is not None  # a unit with no source is absent and never built
    kind = _KINDS[work.unit.table]
    contract, name = DESK_CONTRACTS[kind], DESK_IDS[kind]
    told = desk_archive.read(work.source.handle)
    is_whole = pl.col("rule").is_null()
    whole, broken = told.filter(is_whole), told.filter(~is_whole).select(_QUARANTINED)
    keys = [name, "revision"]
    content = [column for column in polars_schema(contract) if column not in {*keys, "ts_recv"}]
    is_first = whole.select(pl.struct(keys).is_first_distinct()).to_series()
    firsts, again = whole.filter(is_first), whole.filter(~is_first)
    before = firsts.select(*keys, *(pl.col(c).alias(f"{c}_before") for c in (*content, "source_file")))
    others = again.join(before, on=keys, how="left", maintain_order="left").filter(
        pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c}_before")) for c in content)
    )
    conflicts = others.select(
        rule=pl.format("revision|conflict of {} with {}", "source_file_before", "source_file"),
        source_file="source_file",
        source_line="source_line",
        raw=pl.struct(name, "revision", *content).struct.json_encode(),
    )
    latency = pl.duration(nanoseconds=round(work.settings.feeds.desk.assumed_latency_ms * 1e6), time_unit="ns")
    assumed = pl.when(pl.col("revision") == 0).then(pl.col("ts_event") + latency).otherwise("ts_intake")
    rows = firsts.with_columns(pl.coalesce("ts_recv", assumed)).select(polars_schema(contract).names())
    facts = {"files": str(len(work.source.handle)), "told_again": str(again.height - others.height)}
    return Built(rows.sort(contract.sorted_by), pl.concat([broken, conflicts]), facts)


def _parameters(settings: Settings) -> Mapping[str, Any]:
    return {
        "max_quarantined_share": settings.quality.max_quarantined_share,
        "desk_latency_ms": settings.feeds.desk.assumed_latency_ms,
    }


DESK = tuple(
    Recipe(
        table(kind),
        _day,
        (desk.__name__,),
        fetch=_fetched,
        parameters=_parameters,
        is_cross_symbol=is_cross_symbol(kind),
        is_whole_at_once=True,
    )
    for kind in DESK_CONTRACTS
)
