"""Frames of Binance, recorded or just captured, to trades, quotes, books and gaps: a resumable fold over lines.

A recorded file is what one connection brought, a line a message, as `_frame_messages` tells. Files are named
`[usdm_]btcusdt_20240808[.part1][.jsonl][.gz]`, by the local clock's date; parts follow each other. What the collector
lands has the same lines.

A recorded date is UTC by the venue's clock. The local clock may be off by seconds, so the ends of the neighbouring
dates' files are looked into as well. A recording has its snapshot at the beginning: where a date's own files start
without one, the book goes on from the date before.
`ts_recv` stays what the local clock said, also where that is before `ts_event`.
"""

import datetime as dt
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from quant_platform.calculators import local_order_book
from quant_platform.contracts._schema import INSTANT, Contract, contract_of, empty, polars_schema, split
from quant_platform.contracts.enums import GapStatus, Tape
from quant_platform.contracts.market import Book, Gap, Quote, Trade
from quant_platform.feeds._frame_messages import (
    BROKEN,
    PLACE,
    Clock,
    dated,
    decoded,
    framed,
    is_snapshot,
)
from quant_platform.feeds.id_ranges import NOTHING, Array, claimed, greatest
from quant_platform.feeds.recorded import Parsed, RecordedError, Recording, Wanted, files_in
from quant_platform.feeds.sheet import QUARANTINE, line_text

_PREFIXES = {"binance_usdm": "usdm", "binance_spot": "spot", "binance_coinm": "cm"}
_CHUNK_BYTES = 8 << 20
_DAY_NS = 86_400_000_000_000
_MARGIN_NS = 60_000_000_000
_LINES_PER_FILE = 1 << 40
_ORIGIN = (PLACE, "text")
_NAMED = (*_ORIGIN, "ts_event", "ts_recv", "symbol", "venue")


@dataclass(frozen=True)
class State:
    """What the fold over one symbol's lines remembers for one table.

    Attributes:
        clock: How the venue's clock stands to ours, and what waits until that is known.
        latest: The greatest time that was estimated, UTC ns.
        captured: The ids of the trades so far, as ranges that neither overlap nor touch: (first, last), sorted.
        sequence: The greatest update id of the quotes so far.
        book: The local order book.
    """

    clock: Clock = field(default_factory=Clock)
    latest: int | None = None
    captured: Array = field(default_factory=NOTHING.copy)
    sequence: int = -1
    book: local_order_book.State = field(default_factory=local_order_book.initial)


@dataclass(frozen=True)
class Rows:
    """What a step gives.

    Attributes:
        rows: The table's contract, of all dates, sorted as it says.
        broken: Lines that broke a rule: `place text rule`, by place. One that had waited is of an earlier step.
        out_of_order: How many trades came after one with a greater id.
    """

    rows: pl.DataFrame
    broken: pl.DataFrame
    out_of_order: int = 0


def initial() -> State:
    """Return the state before the first line."""
    return State()


def step(state: State, lines: pl.DataFrame, wanted: Wanted) -> tuple[State, Rows]:
    """Fold lines into the rows of one table of one symbol. Cutting the lines anywhere changes nothing.

    A trade is there once by its ids, whether it was streamed or refilled: one whose ids are captured already is a
    duplicate, and an aggregate of which some ids are captured is cut to the others, a row for each range of them, and
    its size is not known any more. A quote is there once by its update id, which only rises.

    Quotes and snapshots of the spot market carry no time: theirs is `ts_recv` plus the running median of the venue's
    time minus `ts_recv` over the timed messages so far, never falling, with `is_ts_event_assumed`. Those before the
    first timed message wait for it. A book starts at its first snapshot; where the sequence broke there is a row
    without levels, and no other until the next snapshot.

    Args:
        state: What `initial` or the previous `step` returned for this table and symbol.
        lines: `place` (Int64, increasing over all steps: the order of arrival) and `text`, as `lines_of` returns.
        wanted: The table (`market/trades`, `market/quotes`, `market/book` or `market/gaps`), the symbol and the venue.
            Its date does not matter.
    """
    clock, frames, strangers = framed(state.clock, lines, wanted)
    messages, misshapen = decoded(frames, wanted.table)
    messages, latest = dated(messages, state.latest)
    state, found = _folded(replace(state, clock=clock, latest=latest), messages, wanted)
    return state, replace(found, broken=pl.concat([strangers, misshapen, found.broken]).sort(PLACE))


def lines_of(path: Path, first_place: int = 0) -> Iterator[pl.DataFrame]:
    """Yield the lines of a file in chunks of bounded size: `place` (`first_place` + the line, from 1 on) and `text`.

    Args:
        path: A segment of the landing or a recorded file, plain or `.gz`; the last line may lack its newline.
        first_place: What to add to the lines' numbers.

    Raises:
        RecordedError: The file cannot be read.
    """
    place, rest = first_place + 1, b""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while content := file.read(_CHUNK_BYTES):
                whole, newline, rest = (rest + content).rpartition(b"\n")
                if newline:
                    lines = _lines(whole + newline, place)
                    yield lines
                    place += lines.height
    except (OSError, EOFError, zlib.error) as error:
        saved = f" What is left of one that was cut off can be saved with `zcat {path.name} > {path.stem}`."
        raise RecordedError(
            f"{path} cannot be read: {error}. Nothing was loaded. Copy it anew.{saved * (path.suffix == '.gz')}"
        ) from error
    if rest:
        yield _lines(rest + b"\n", place)


def lines_in(content: bytes, first_place: int) -> pl.DataFrame:
    """Return the whole lines of a segment that still grows, as `lines_of` does; what follows the last newline waits."""
    return _lines(content[: content.rfind(b"\n") + 1], first_place + 1)


def find(folder: Path, wanted: Wanted) -> Recording | None:
    """Return the files of a symbol-day, and of the dates beside it; None where the folder has none of the date.

    Raises:
        RecordedError: There is no such folder.
    """
    stem = f"(?:{_PREFIXES[wanted.venue]}_)?{re.escape(wanted.venue_symbol.lower())}"
    name = re.compile(rf"{stem}_(\d{{8}})(?:\.part(\d+))?(?:\.jsonl)?(?:\.gz)?")
    matches = [(name.fullmatch(path.name.lower()), path) for path in files_in(folder)]
    parts = sorted((match[1], int(match[2] or 0), path) for match, path in matches if match)
    before, own, after = (
        tuple(path for day, _, path in parts if day == f"{wanted.date + dt.timedelta(days=away):%Y%m%d}")
        for away in (-1, 0, 1)
    )
    return Recording(own=own, before=before, after=after) if own else None


def read_day(recording: Recording, wanted: Wanted) -> Parsed:
    """Return one table of a symbol-day: the fold over its files, cut to the date.

    Args:
        recording: What `find` returned.
        wanted: What it was asked for; the date is UTC.

    Raises:
        RecordedError: A file cannot be read: then nothing of the day is used.
    """
    start = (wanted.date - dt.date(1970, 1, 1)).days * _DAY_NS
    end = start + _DAY_NS
    earliest, latest = start - _MARGIN_NS, end + _MARGIN_NS
    if wanted.table == Book.table and not _begins_with_snapshot(recording.own, wanted):
        earliest -= _DAY_NS
    is_near = pl.col("ns").is_between(earliest, latest).fill_null(value=True)
    is_of_the_date = _between("ns", start, end).fill_null(value=True)
    state, out_of_order, prints = initial(), 0, 0
    rows, broken = [empty(contract_of(wanted.table))], [BROKEN.to_frame()]
    for frames, strangers in _day_frames(recording, wanted, earliest, latest):
        messages, misshapen = decoded(frames, wanted.table)
        messages, latest_estimate = dated(messages, state.latest)
        strays = messages.filter(~is_near).select(PLACE, "text", rule=pl.lit("ts_event|outside_date"))
        messages = messages.filter(is_near if wanted.table == Book.table else is_of_the_date)
        state, found = _folded(replace(state, latest=latest_estimate), messages, wanted)
        rows.append(found.rows)
        broken += [strangers, misshapen, strays, found.broken]
        out_of_order += found.out_of_order
        prints += messages["t"].count() if wanted.table == Trade.table else 0
    facts = {}
    if wanted.table == Book.table:
        breaks = local_order_book.gaps(state.book).filter(_between("ts_end", start, end))
        facts = {"sequence_breaks": str(breaks.height)}
        rows = [part.filter(_between("ts_event", start, end)) for part in rows]
    day = pl.concat(rows).sort(contract_of(wanted.table).sorted_by, maintain_order=True)
    if wanted.table == Trade.table:
        tape = Tape.AGG_TRADES if day.height and not prints else Tape.TRADES
        facts = {"out_of_order": str(out_of_order), "tape": tape.value}
    return Parsed(rows=day, quarantined=_quarantine(recording, pl.concat(broken)), facts=facts)


def _day_frames(
    recording: Recording, wanted: Wanted, earliest: int, latest: int
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield what `framed` finds in a date's files, and in the others near it in time; last what still waits."""
    clock = Clock()
    own = [number for number, path in enumerate(recording.files) if path in recording.own]
    is_own = (pl.col(PLACE) // _LINES_PER_FILE).is_between(own[0], own[-1])
    is_near = is_own | pl.col("ts_recv").is_between(earliest, latest)
    for number, path in enumerate(recording.files):
        for lines in lines_of(path, number * _LINES_PER_FILE):
            clock, frames, broken = framed(clock, lines, wanted)
            yield frames.filter(is_near), broken
            if number > own[-1] and frames.height and frames["ts_recv"][-1] > latest:
                break
    yield clock.given_up().filter(is_near), BROKEN.to_frame()


def _begins_with_snapshot(paths: tuple[Path, ...], wanted: Wanted) -> bool:
    untimed = replace(wanted, venue="")
    chunks = (framed(Clock(), lines, untimed)[1] for path in paths for lines in lines_of(path))
    first = next((frames for frames in chunks if frames.height), None)
    return first is not None and is_snapshot(first)


def _lines(content: bytes, place: int) -> pl.DataFrame:
    """Return whole lines with their places: as Arrow reads them, a quarter of the time of a list of texts."""
    text = line_text(content).encode()
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1
    offsets = pa.py_buffer(np.append(0, ends))
    lines = pl.Series("text", pa.LargeStringArray.from_buffers(len(ends), offsets, pa.py_buffer(text)))
    return pl.DataFrame({PLACE: np.arange(place, place + len(ends)), "text": lines.str.strip_suffix("\n")})


def _folded(state: State, messages: pl.DataFrame, wanted: Wanted) -> tuple[State, Rows]:
    named = messages.with_columns(
        ts_event=pl.col("ns").cast(INSTANT),
        ts_recv=pl.col("ts_recv").cast(INSTANT),
        symbol=pl.lit(wanted.symbol),
        venue=pl.lit(wanted.venue),
    )
    fold = {Trade.table: _trades, Quote.table: _quotes, Book.table: _books, Gap.table: _gaps}[wanted.table]
    state, found = fold(state, named)
    contract = contract_of(wanted.table)
    rows = found.rows.select(polars_schema(contract).names()).sort(contract.sorted_by, maintain_order=True)
    return state, replace(found, rows=rows)


def _trades(state: State, messages: pl.DataFrame) -> tuple[State, Rows]:
    ident = pl.coalesce("t", "f")
    rows = messages.select(
        *_NAMED,
        trade_id=ident,
        first_trade_id=ident,
        last_trade_id=pl.coalesce("t", "l"),
        price=_number("p"),
        size=_number("q"),
        # The maker bought, so a seller crossed the spread.
        aggressor=1 - 2 * pl.col("m").cast(pl.Int8),
    )
    rows, broken = _keeping(Trade, rows)
    # Only an aggregate that was cut may lack its size.
    sizeless = rows.filter(pl.col("size").is_null())
    rows = rows.filter(pl.col("size").is_not_null()) if sizeless.height else rows
    first, last = (rows[name].to_numpy() for name in ("first_trade_id", "last_trade_id"))
    claim = claimed(state.captured, first, last)
    is_new = np.zeros(rows.height, bool)
    is_new[claim.rows] = True
    before = np.maximum.accumulate(np.append(greatest(state.captured), claim.first))[:-1]
    is_whole = pl.Series((claim.first == first[claim.rows]) & (claim.last == last[claim.rows]))
    good = rows[claim.rows].with_columns(
        trade_id=claim.first,
        first_trade_id=claim.first,
        last_trade_id=claim.last,
        size=pl.when(is_whole).then("size"),
    )
    return replace(state, captured=claim.captured), Rows(
        good,
        pl.concat([broken, _noted(sizeless, "size|nullability"), _noted(rows.filter(~is_new), "trade_id|duplicate")]),
        int((claim.first < before).sum()),
    )


def _quotes(state: State, messages: pl.DataFrame) -> tuple[State, Rows]:
    rows, broken = _keeping(
        Quote,
        messages.select(
            *_NAMED,
            sequence="u",
            is_ts_event_assumed="is_assumed",
            **{
                name: _number(letter)
                for name, letter in {"bid_price": "b", "bid_size": "B", "ask_price": "a", "ask_size": "A"}.items()
            },
        ),
    )
    reached = rows["sequence"].to_numpy()
    before = np.maximum.accumulate(np.append(state.sequence, reached))
    is_new = reached > before[:-1]
    duplicates = _noted(rows.filter(~is_new), "sequence|duplicate")
    return replace(state, sequence=int(before[-1])), Rows(rows.filter(is_new), pl.concat([broken, duplicates]))


def _books(state: State, messages: pl.DataFrame) -> tuple[State, Rows]:
    prices, sizes = pl.col("bid_prices", "ask_prices"), pl.col("bid_sizes", "ask_sizes")
    number = pl.element().is_finite()
    is_whole = pl.all_horizontal(
        pl.col("ts_event", "final_id").is_not_null(),
        pl.col("first_id").is_not_null() | (pl.col("kind") == "snapshot"),
        prices.list.eval((number & (pl.element() > 0)).fill_null(value=False)).list.all(),
        sizes.list.eval((number & (pl.element() >= 0)).fill_null(value=False)).list.all(),
    ).fill_null(value=False)
    events = messages.filter(is_whole).select(local_order_book.EVENTS.names())
    book, rows = local_order_book.step(state.book, events)
    return replace(state, book=book), Rows(rows, _noted(messages.filter(~is_whole), "frame|levels"))


def _gaps(state: State, messages: pl.DataFrame) -> tuple[State, Rows]:
    is_filled = pl.col("filled_by").is_not_null()
    rows, broken = _keeping(
        Gap,
        messages.select(
            *_ORIGIN,
            "symbol",
            "first_id",
            "last_id",
            "filled_by",
            pl.col("ts_start", "ts_end").cast(INSTANT),
            missing=pl.col("last_id") - pl.col("first_id") + 1,
            status=pl.when(is_filled).then(pl.lit(GapStatus.FILLED.value)).otherwise(pl.lit(GapStatus.OPEN.value)),
            ts_known="ts_recv",
        ),
    )
    return state, Rows(rows, broken)


def _keeping(contract: type[Contract], rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows that keep the contract, with their origin, and the lines of the others."""
    _, bad = split(contract, rows, keep=_ORIGIN)
    kept = rows.join(bad, on=PLACE, how="anti", maintain_order="left") if bad.height else rows
    return kept, _noted(bad, pl.col("rule"))


def _noted(rows: pl.DataFrame, rule: str | pl.Expr) -> pl.DataFrame:
    return rows.select(*_ORIGIN, rule=pl.lit(rule) if isinstance(rule, str) else rule)


def _number(letter: str) -> pl.Expr:
    return pl.col(letter).cast(pl.Float64, strict=False)


def _between(column: str, start: int, end: int) -> pl.Expr:
    return pl.col(column).to_physical().is_between(start, end, closed="left")


def _quarantine(recording: Recording, broken: pl.DataFrame) -> pl.DataFrame:
    """Return the lines of the date's own files that broke a rule; a neighbour's are reported on its own date."""
    own = [(number, path.name) for number, path in enumerate(recording.files) if path in recording.own]
    names = pl.DataFrame(own, schema={"file": pl.Int64, "source_file": pl.String}, orient="row")
    return (
        broken.sort(PLACE)
        .with_columns(file=pl.col(PLACE) // _LINES_PER_FILE, source_line=pl.col(PLACE) % _LINES_PER_FILE)
        .join(names, on="file", maintain_order="left")
        .select(pl.col("text").alias(name) if name == "raw" else name for name in QUARANTINE)
    )
