"""A date that is still being captured: each run steps only what came since the last, and publishes it as one part.

What a table remembers lies beside its parts: the state of its fold, how far its streams have been read, and rows that
wait. It is published after the part, so a part that it does not name is a killed run's, and goes. When the session is
over the date is built from its beginning like any other, and parts and memory go.
"""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from quant_platform.contracts._schema import contract_of, polars_schema
from quant_platform.pipeline import capture
from quant_platform.pipeline.units import CAPTURED, Fold, Outcome, Unit, UnitStatus, Work, contract_check
from quant_platform.storage import quarantine

Part = tuple[int, int]  # first and last id: of trades, or of the venue's updates
_ONLY: Part = (0, 0)  # of a table that is told so far: its rows have no ids in order


@dataclass(frozen=True)
class Memory:
    """What one table remembers of an open symbol-day.

    Attributes:
        key: Hash of all that shapes the rows but what the streams bring; with another one the date begins anew.
        fold: The state of the table's fold.
        segment: The last segment of the capture that the parts stand for.
        parts: In the order of arrival.
        read: How many parts of each stream have been stepped.
        waiting: Rows of a stream that the others have not caught up with.
        held: Rows of the last interval, which is not over.
        rows: In all parts together; so are `bytes` and `quarantined`.
        facts: As the last step told them.
    """

    key: str
    fold: Any
    segment: int = 0
    parts: tuple[Part, ...] = ()
    read: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    held: pl.DataFrame | None = None
    rows: int = 0
    bytes: int = 0
    quarantined: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)


class _Step(NamedTuple):
    """What the streams bring at once, and how far they have been read after it."""

    streams: Mapping[str, Any]
    segment: int
    read: Mapping[str, int]
    waiting: Mapping[str, pl.DataFrame]
    part: Part | None  # None: the ids are those of the rows


def is_open(work: Work, closed_before: datetime | None) -> bool:
    """Return whether the unit's date is still captured, and not closed by now.

    Args:
        work: The unit.
        closed_before: Sessions that ended by then are to be closed; None closes none.
    """
    table, symbol, date = work.unit
    if work.recipe.is_cross_symbol or work.recipe.is_whole_at_once or work.session is None:
        return False
    if work.lake.path(*work.unit).is_file():
        return False
    if work.recipe.fetch:
        return _is_captured(work, closed_before)
    reads = [read.table for read in work.recipe.inputs if read.table != table]
    if any(work.lake.is_open(read, symbol, date) for read in reads):
        return True
    # What is made of a table that waits for the close waits with it.
    is_lacking = any(not work.lake.path(read, symbol, date).is_file() for read in reads)
    return work.recipe.fold is None and is_lacking and _is_captured(work, closed_before)


def is_small(work: Work, closed_before: datetime | None) -> bool:
    """Return whether the unit takes less than a worker's start: a minute's rows, or what the desk told so far."""
    if work.recipe.is_whole_at_once:
        _, symbol, date = work.unit
        return work.lake.is_open("market/trades", symbol, date)
    return is_open(work, closed_before)


def _is_captured(work: Work, closed_before: datetime | None) -> bool:
    assert work.session is not None  # a closed day is never captured
    is_over = closed_before is not None and work.session.end <= closed_before
    return not is_over and bool(capture.segments(work))


def append(work: Work, *, is_forced: bool = False) -> Outcome:
    """Step what the unit's streams have gained, and publish it. The caller holds the unit's lock."""
    lake, unit, fold = work.lake, work.unit, work.recipe.fold
    if work.recipe.so_far:
        return _told_so_far(work, is_forced=is_forced)
    if fold is None or any(lake.path(*unit._replace(table=stream)).is_file() for stream in fold.streams):
        return Outcome(unit, UnitStatus.OPEN, is_skipped=True)  # it waits for the close
    upstream = {stream: recalled(work, unit._replace(table=stream)) for stream in fold.streams if stream != CAPTURED}
    key = _key(work, upstream)
    memory = None if is_forced else recalled(work, unit)
    if memory is None or memory.key != key:
        lake.drop_open(*unit)
        quarantine.put(work.settings.quarantine, *unit, None)
        memory = Memory(key, fold.opened(work))
    lake.keep_parts(*unit, memory.parts)
    steps = _captured(work, memory) if CAPTURED in fold.streams else _streamed(work, memory, upstream)
    facts = {stream: memory.facts for stream, memory in upstream.items() if memory}
    work = replace(work, open_facts=facts)
    is_skipped = True
    for step in steps:
        memory, is_skipped = _stepped(work, fold, memory, step), False
    return Outcome(
        unit,
        UnitStatus.OPEN,
        rows=memory.rows,
        bytes=memory.bytes,
        quarantined=memory.quarantined,
        checks={"contract": contract_check(work, memory.rows, memory.quarantined)},
        facts={**memory.facts, capture.THROUGH_SEGMENT: str(memory.segment)},
        is_skipped=is_skipped,
    )


def recalled(work: Work, unit: Unit) -> Memory | None:
    """Return what a table remembers of the open date; None where nothing, or not of this version's making."""
    published = work.lake.read_state(*unit)
    try:
        # Ours alone: it lies in the lake's own folder, beside the parts that this module wrote.
        memory = pickle.loads(published) if published else None  # noqa: S301  # a file of ours
    except (pickle.UnpicklingError, AttributeError, ImportError, EOFError, TypeError):
        return None
    return memory if isinstance(memory, Memory) else None


def rows_so_far(work: Work, start: datetime | None = None) -> pl.DataFrame:
    """Return the rows of a raw table up to now: of its file, or of an open date's parts and what was landed since.

    Args:
        work: The unit.
        start: Leave out what is earlier; None leaves out nothing.
    """
    table = contract_of(work.unit.table)
    names = polars_schema(table).names()
    is_wanted = pl.lit(value=True) if start is None else pl.col("ts_event") >= start
    if work.lake.path(*work.unit).is_file():
        return work.today(work.unit.table).filter(is_wanted).select(names).collect()
    memory = recalled(work, work.unit) or Memory("", capture.FOLD.opened(work))
    parts = work.lake.scan_parts(*work.unit, memory.parts).filter(is_wanted).select(names).collect()
    landed = capture.so_far(work, memory.fold, memory.segment).filter(is_wanted)
    return pl.concat([parts, landed]).sort(table.sorted_by)


def first_row(work: Work, is_wanted: pl.Expr) -> pl.DataFrame:
    """Return the first row of a raw table that is wanted, if any: of its file, or of an open date's parts."""
    if work.lake.path(*work.unit).is_file():
        return work.today(work.unit.table).filter(is_wanted).head(1).collect()
    memory = recalled(work, work.unit)
    pieces = [work.lake.scan_parts(*work.unit, [part]) for part in memory.parts] if memory else []
    found = (piece.filter(is_wanted).head(1).collect() for piece in pieces)
    return next((row for row in found if row.height), work.lake.scan_parts(*work.unit, ()).collect())


def _told_so_far(work: Work, *, is_forced: bool) -> Outcome:
    """Bring the table's one part up to now: it is replaced at once, so that a reader sees it before or after."""
    lake, unit, so_far = work.lake, work.unit, work.recipe.so_far
    assert so_far is not None  # or nobody asks for this
    key = _key(work, {})
    memory = None if is_forced else recalled(work, unit)
    if memory is None or memory.key != key:
        memory = Memory(key, None)
    told, built = so_far(work, memory.fold, lake.scan_parts(*unit, memory.parts).collect())
    if built.rows.is_empty() and not memory.parts:
        return Outcome(unit, UnitStatus.OPEN, facts=built.facts, is_skipped=True)
    info = lake.write(*unit, built.rows, part=_ONLY)
    memory = Memory(key, told, parts=(_ONLY,), rows=info.rows, bytes=info.bytes, facts=built.facts)
    lake.write_state(*unit, pickle.dumps(memory, protocol=5))
    return Outcome(
        unit,
        UnitStatus.OPEN,
        rows=info.rows,
        bytes=info.bytes,
        checks={"contract": contract_check(work, info.rows, 0)},
        facts=built.facts,
    )


def _key(work: Work, upstream: Mapping[str, Memory | None]) -> str:
    before = [unit for unit in work.input_units() if unit.date < work.unit.date]
    return work.hashed(
        before=[(str(unit), work.content_hash(unit)) for unit in before],
        streams={stream: memory and memory.key for stream, memory in upstream.items()},
        so_far=work.recipe.so_far_version,
    )


def _captured(work: Work, memory: Memory) -> Iterator[_Step]:
    """Yield the segments that came, some at a time."""
    for segments in capture.batches(work, after=memory.segment):
        yield _Step({CAPTURED: segments}, segments[-1].number, {}, {}, None)


def _streamed(work: Work, memory: Memory, upstream: Mapping[str, Memory | None]) -> Iterator[_Step]:
    """Yield what the streams gained since the last run, if anything."""
    new = {name: ups.parts[memory.read.get(name, 0) :] if ups else () for name, ups in upstream.items()}
    segment = min((ups.segment for ups in upstream.values() if ups), default=0)
    driving = next((parts for parts in new.values() if parts), None)
    if driving is None and segment == memory.segment:
        return
    arrived = {name: work.lake.scan_parts(name, *work.unit[1:], parts) for name, parts in new.items()}
    waiting: Mapping[str, pl.DataFrame] = {}
    if len(arrived) > 1:
        arrived, waiting = _aligned(arrived, memory.waiting)
    yield _Step(
        arrived,
        segment,
        {name: len(ups.parts) if ups else 0 for name, ups in upstream.items()},
        waiting,
        _span(driving or ()),
    )


def _aligned(
    arrived: Mapping[str, pl.LazyFrame], waiting: Mapping[str, pl.DataFrame]
) -> tuple[dict[str, pl.LazyFrame], dict[str, pl.DataFrame]]:
    """Cut the streams at one event time: up to where each of them is known, so that none is stepped before another."""
    frames = {name: rows.collect() for name, rows in arrived.items()}
    frames = {name: pl.concat([waiting[name], rows]) if name in waiting else rows for name, rows in frames.items()}
    ends = [rows.select(pl.col("ts_event").max()) for rows in frames.values() if rows.height]
    if not ends:
        return {name: rows.lazy() for name, rows in frames.items()}, frames
    is_known = pl.col("ts_event") < pl.concat(ends).to_series().min()
    ready = {name: rows.filter(is_known).lazy() for name, rows in frames.items()}
    return ready, {name: rows.filter(~is_known) for name, rows in frames.items()}


def _stepped(work: Work, fold: Fold, memory: Memory, step: _Step) -> Memory:
    lake, unit, contract = work.lake, work.unit, contract_of(work.unit.table)
    state, built = fold.step(work, memory.fold, step.streams)
    rows, held = built.rows, None
    if contract.is_revised and "ts_open" in contract.sorted_by:
        rows, held = _of_whole_intervals(pl.concat([memory.held, rows]) if memory.held is not None else rows)
    parts, size = memory.parts, 0
    if rows.height:
        part = step.part or _ids(rows)
        parts, size = (*parts, part), lake.write(*unit, rows, part=part).bytes
    broken = built.quarantined if built.quarantined is not None else pl.DataFrame()
    if broken.height:
        quarantine.put(work.settings.quarantine, *unit, broken, part=memory.segment + 1)
    memory = Memory(
        key=memory.key,
        fold=state,
        segment=step.segment,
        parts=parts,
        read=step.read,
        waiting=step.waiting,
        held=held,
        rows=memory.rows + rows.height,
        bytes=memory.bytes + size,
        quarantined=memory.quarantined + broken.height,
        facts=built.facts,
    )
    lake.write_state(*unit, pickle.dumps(memory, protocol=5))
    return memory


def _of_whole_intervals(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows as they stand of the intervals that are over, and that of the last one."""
    newest = rows.unique("ts_open", keep="last", maintain_order=True).sort("ts_open")
    return newest.head(-1), newest.tail(1)


def _span(parts: Sequence[Part]) -> Part | None:
    return (min(first for first, _ in parts), max(last for _, last in parts)) if parts else None


def _ids(rows: pl.DataFrame) -> Part:
    first, last = ("first_trade_id", "last_trade_id") if "first_trade_id" in rows.columns else ("sequence", "sequence")
    return int(rows[first].min()), int(rows[last].max())  # type: ignore[arg-type]  # ids are never null
