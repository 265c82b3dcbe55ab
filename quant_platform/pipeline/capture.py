"""What the collector landed as the source of a symbol-day: which segments, and their lines as rows of a raw table."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from quant_platform.contracts._schema import contract_of, empty
from quant_platform.contracts.enums import GapStatus
from quant_platform.contracts.market import Gap, Trade
from quant_platform.feeds import binance, frames
from quant_platform.feeds.recorded import Wanted
from quant_platform.pipeline.units import CAPTURED, Built, Fold, Source, Work
from quant_platform.settings import CAPTURED_FEEDS, Instrument
from quant_platform.storage.landing import Manifest, Segment, growing, has_all, is_in_use, repair
from quant_platform.storage.quarantine import SCHEMA as QUARANTINE

THROUGH_SEGMENT = "through_segment"
FILLS = "fills"
# So much of the landing is parsed at once, and becomes a part.
_BYTES_PER_STEP = 256_000_000
_LINES_PER_SEGMENT = 1 << 40
_SOURCE = "segments {} to {}"
_SOURCE_NUMBERS = re.compile(_SOURCE.format(r"(\d+)", r"(\d+)"))


class _State(NamedTuple):
    """The parser of the table; for the tape also that of the fates of its holes, and those that were filled."""

    rows: frames.State
    gaps: frames.State
    fills: pl.DataFrame


def segments(work: Work, after: int = 0) -> list[Segment]:
    """Return the segments that hold something of the unit's date, by number, from the one after `after`.

    A segment of which no line has a time is of the date of those around it.
    """
    assert work.session is not None  # a closed day was never captured
    if work.instrument.feed not in CAPTURED_FEEDS or not is_in_use(work.settings.landing):
        return []
    start, end = (_ns(bound) for bound in work.session)
    landed = Manifest(work.settings.landing).segments(work.instrument.feed, work.unit.symbol)
    of_the_date = [
        s.ts_first is not None and s.ts_last is not None and s.ts_first < end and s.ts_last >= start for s in landed
    ]
    numbers = [s.number for s, is_one in zip(landed, of_the_date, strict=True) if is_one]
    return [
        s
        for s, is_one in zip(landed, of_the_date, strict=True)
        if (is_one or s.ts_first is None) and numbers and max(numbers[0], after + 1) <= s.number <= numbers[-1]
    ]


def batches(work: Work, after: int) -> Iterator[list[Segment]]:
    """Yield the segments after a number, as many at a time as are parsed at once."""
    batch: list[Segment] = []
    for segment in segments(work, after):
        if batch and sum(s.bytes for s in batch) + segment.bytes > _BYTES_PER_STEP:
            yield batch
            batch = []
        batch.append(segment)
    if batch:
        yield batch


def source(work: Work) -> Source | None:
    """Return the segments of the date; None where it was not captured."""
    found = segments(work)
    if not found:
        return None
    digest = hashlib.sha256("\n".join(segment.sha256 for segment in found).encode()).hexdigest()
    return Source(_SOURCE.format(found[0].number, found[-1].number), digest, found, is_captured=True)


def is_spent(landing: Path, instrument: Instrument, facts: Mapping[str, str]) -> bool:
    """Return whether a file was built of segments that are gone, of which nothing can build it again.

    Args:
        landing: The folder of raw inputs.
        instrument: The file's.
        facts: What the file says of its making.
    """
    numbers = _SOURCE_NUMBERS.fullmatch(facts.get("source", ""))
    if numbers is None or instrument.feed not in CAPTURED_FEEDS:
        return False
    return not has_all(landing, instrument.feed, instrument.symbol, int(numbers[1]), int(numbers[2]))


def read_day(work: Work) -> Built:
    """Return a raw table of the whole date."""
    assert work.source is not None  # a unit without a source is absent
    if lacking := ", ".join(str(s.number) for s in work.source.handle if not s.path.is_file()):
        raise FileNotFoundError(
            f"The segments {lacking} of {work.instrument.feed} {work.unit.symbol} are gone, and so is the file that "
            f"was built of them: put back a copy of {work.lake.path(*work.unit)}, or of the segments."
        )
    facts = {THROUGH_SEGMENT: str(work.source.handle[-1].number)}
    _, built = _step(work, _opened(work), {CAPTURED: work.source.handle})
    rows = built.rows.sort(contract_of(work.unit.table).sorted_by, maintain_order=True)
    return built._replace(rows=rows, facts={**built.facts, **facts})


def so_far(work: Work, state: Any, after: int) -> pl.DataFrame:
    """Return the rows of a raw table that were captured up to now, the segment that still grows included.

    Args:
        work: The unit; its date is open.
        state: What the parts up to a segment left, or `FOLD.opened` gives.
        after: That segment's number, 0 for none.

    Returns:
        The rows after the parts, in the order of arrival.
    """
    feed, symbol = work.instrument.feed, work.unit.symbol
    if not is_in_use(work.settings.landing):
        return empty(contract_of(work.unit.table))
    # In this order: what is closed while this reads is read twice, and the parser knows it again.
    number, content = growing(work.settings.landing, feed, symbol)
    repair(work.settings.landing, feed, symbol, binance.describe)
    closed = _lines(segments(work, after))
    lines = chain(closed, [frames.lines_in(content, number * _LINES_PER_SEGMENT)])
    return _folded(work, state, lines, has_gaps=False)[1].rows


def fills(facts: Mapping[str, str]) -> pl.DataFrame:
    """Return the holes that were filled, as contract Gap, from the facts of the tape's file."""
    rows = json.loads(facts.get(FILLS, "[]"))
    return pl.DataFrame(rows, schema=_integer_times(), orient="row").cast(empty(Gap).schema)


def _opened(_: Work) -> _State:
    return _State(frames.initial(), frames.initial(), empty(Gap))


def _step(work: Work, state: _State, streams: Mapping[str, Any]) -> tuple[_State, Built]:
    return _folded(work, state, _lines(streams[CAPTURED]))


def _lines(closed: Iterable[Segment]) -> Iterator[pl.DataFrame]:
    for segment in closed:
        yield from frames.lines_of(segment.path, first_place=segment.number * _LINES_PER_SEGMENT)


def _folded(
    work: Work, state: _State, chunks: Iterable[pl.DataFrame], *, has_gaps: bool = True
) -> tuple[_State, Built]:
    table, symbol, date = work.unit
    wanted = Wanted(
        table=table,
        symbol=symbol,
        venue_symbol=work.instrument.venue_symbol,
        date=date,
        venue=work.instrument.feed,
    )
    gaps_wanted = Wanted(**{**vars(wanted), "table": Gap.table})
    parser, gap_parser, known = state
    rows, broken = [empty(contract_of(table))], [QUARANTINE.to_frame().drop("table", "symbol")]
    for lines in chunks:
        parser, found = frames.step(parser, lines, wanted)
        rows.append(_of_the_date(work, found.rows))
        broken.append(_named(work, found.broken))
        if table == Trade.table and has_gaps:
            gap_parser, gaps = frames.step(gap_parser, lines, gaps_wanted)
            is_filled = pl.col("status") == GapStatus.FILLED.value
            known = pl.concat([known, _of_the_date(work, gaps.rows.filter(is_filled), "ts_end")])
    facts = {FILLS: json.dumps(known.cast(_integer_times()).rows())} if known.height else {}
    if table == Trade.table:
        facts["tape"] = work.instrument.tape
    built = Built(pl.concat(rows), pl.concat(broken), facts)
    return _State(parser, gap_parser, known), built


FOLD = Fold(_opened, _step, (CAPTURED,))


def _of_the_date(work: Work, rows: pl.DataFrame, column: str = "ts_event") -> pl.DataFrame:
    assert work.session is not None  # a closed day was never captured
    start, end = work.session
    return rows.filter(pl.col(column).is_between(start, end, closed="left"))


def _named(work: Work, broken: pl.DataFrame) -> pl.DataFrame:
    # A line that had waited for the venue's clock may be of an earlier segment.
    number = (pl.col("place") // _LINES_PER_SEGMENT).cast(pl.String).str.zfill(8)
    return broken.select(
        "rule",
        source_file=pl.format("{}/{}/{}.frames", pl.lit(work.instrument.feed), pl.lit(work.unit.symbol), number),
        source_line=pl.col("place") % _LINES_PER_SEGMENT,
        raw="text",
    )


def _integer_times() -> pl.Schema:
    schema = empty(Gap).schema
    return pl.Schema({name: pl.Int64() if dtype.is_temporal() else dtype for name, dtype in schema.items()})


def _ns(instant: datetime) -> int:
    return int(instant.timestamp()) * 1_000_000_000
