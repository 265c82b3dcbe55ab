"""Where a replayed symbol-day lies, and reading it piece by piece: frames, segments of the landing, or the lake.

Each raw table comes from the first of them that has it. A piece is what one read gave, in the recording's order: by
receipt where that is known, else by the venue's time. Times and ids leave here shifted.
"""

import datetime as dt
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl
import pyarrow.parquet as pq

from quant_platform.contracts.enums import Tape
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.feeds import _replay_messages as messages
from quant_platform.feeds import frames
from quant_platform.feeds._replay_messages import AGG_TRADE, DEPTH, MESSAGES, SNAPSHOT, TAPE, TRADE, Shift
from quant_platform.feeds.recorded import Wanted, files_in
from quant_platform.settings import CAPTURED_FEEDS, Instrument, Settings
from quant_platform.storage.lake import Footer, Lake
from quant_platform.storage.landing import Manifest, is_in_use

_DAY_NS = 86_400_000_000_000
_TABLES = (Trade.table, Quote.table, Book.table)
_TABLE_OF = (Trade.table, Trade.table, Quote.table, Book.table, Book.table)  # by kind
_ROWS_LOOKED_AT = 4_096
_HEAD_CHARACTERS = 200
_DATE = re.compile(r"_(\d{8})(?:\.|$)")
_CAPTURED = "through_segment"  # a fact of what was built from the landing


class Piece(NamedTuple):
    """What one read gave: `MESSAGES`, and the trades among them as `TAPE`."""

    messages: pl.DataFrame
    tape: pl.DataFrame


class First(NamedTuple):
    """Where a source begins: on the recording's clock, on the venue's, and its first ids; null where it has none."""

    at: int
    venue_ns: int | None
    trade_id: int | None
    update_id: int | None


@dataclass(frozen=True)
class Source:
    """Some tables of a symbol-day in one place.

    `pieces(start, shift, rows)` reads it from `start` on the recording's clock, so many rows at a time at most.
    Depth messages of recorded frames before `start` are read too: the book is made of them.
    """

    tables: frozenset[str]
    pieces: Callable[[int, Shift, int], Iterator[Piece]]

    def first(self, start: int) -> First | None:
        """Return where it begins; None where it holds nothing from `start` on."""
        for piece in self.pieces(start, Shift(), _ROWS_LOOKED_AT):
            rows = piece.messages.filter(pl.col("at") >= start)
            if not rows.height:
                continue
            heads = rows["data"]
            times = heads.str.extract(r'"[ET]":\s*(\d+)').drop_nulls()
            ids = heads.str.extract(r'"(?:u|lastUpdateId)":\s*(\d+)').drop_nulls()
            streamed = piece.tape.filter(~pl.col("is_refill"))["first_id"]
            return First(
                rows["at"][0],
                messages.time_ns(int(times[0])) if len(times) else None,
                streamed[0] if len(streamed) else None,
                int(ids[0]) if len(ids) else None,
            )
        return None


def venue_of(settings: Settings, instrument: Instrument) -> str | None:
    """Return whose messages an instrument's are; None where that is no venue that is replayed."""
    feed = instrument.feed
    venue = settings.feeds.recorded_frames.venue if feed == "recorded_frames" else feed
    return venue if venue in CAPTURED_FEEDS else None


def newest_date(
    lake: Lake, folder: Path | None, instruments: Collection[tuple[Instrument, str]], before: dt.date
) -> dt.date | None:
    """Return the newest date before `before` of which there are frames, or trades in the lake; None without any.

    Trades that came from the landing do not count: what a replay was captured as is no recording.
    """
    names = {instrument.symbol for instrument, _ in instruments}
    found = []
    for symbol, date in sorted(lake.symbol_days(Trade.table), key=lambda one: one[1], reverse=True):
        footer = lake.footer(Trade.table, symbol, date) if symbol in names and date < before else None
        if footer and footer.rows and _CAPTURED not in _facts(footer):
            found.append(date)
            break
    named = (_DATE.search(path.name) for path in (files_in(folder) if folder else ()))
    for date in sorted({dt.datetime.strptime(m[1], "%Y%m%d").date() for m in named if m}, reverse=True):  # noqa: DTZ007  # a date
        wanted = (_wanted(instrument, venue, date) for instrument, venue in instruments)
        if folder and date < before and any(frames.find(folder, one) for one in wanted):
            found.append(date)
            break
    return max(found, default=None)


def sources(
    settings: Settings, lake: Lake, folder: Path | None, instrument: Instrument, *, venue: str, date: dt.date
) -> list[Source]:
    """Return where the tables of a symbol-day lie; an empty list where nothing of it was recorded.

    The landing is passed over where the lake holds a whole date that did not come from there: a date that is replayed
    is captured under its own name, and what was captured so far is not the recording.

    Raises:
        RecordedError: There is no such folder, or a file cannot be read.
    """
    found: list[Source] = []
    missing = set(_TABLES)
    wanted = _wanted(instrument, venue, date)
    recording = frames.find(folder, wanted) if folder else None
    if recording and (has := _tables_in(recording.own, wanted) & missing):
        found.append(_framed(recording.own, wanted, has, span=None))
        missing -= has
    start = (date - dt.date(1970, 1, 1)).days * _DAY_NS
    whole = {table: lake.footer(table, instrument.symbol, date) for table in missing}
    landed = {table for table, footer in whole.items() if footer is None or _CAPTURED in _facts(footer)}
    listed = Manifest(settings.landing).segments(venue, instrument.symbol) if is_in_use(settings.landing) else ()
    segments = tuple(
        segment.path
        for segment in listed
        if segment.ts_first is not None and segment.ts_last is not None
        if segment.ts_first < start + _DAY_NS and segment.ts_last >= start
    )
    if segments and (has := _tables_in(segments, wanted) & landed):
        found.append(_framed(segments, wanted, has, span=(start, start + _DAY_NS)))
        missing -= has
    for table in sorted(missing):
        footer = whole[table]
        if footer and footer.rows:
            is_aggregated = _facts(footer).get("tape") == Tape.AGG_TRADES.value
            found.append(_stored(lake.path(table, instrument.symbol, date), table, wanted, is_aggregated=is_aggregated))
    return found


def _facts(footer: Footer) -> dict[str, str]:
    """Return what was told of a tape when it was made."""
    facts: dict[str, str] = json.loads(footer.metadata.get("facts", "{}"))
    return facts


def _wanted(instrument: Instrument, venue: str, date: dt.date) -> Wanted:
    return Wanted(table="", symbol=instrument.symbol, venue_symbol=instrument.venue_symbol, date=date, venue=venue)


def _messages_in(path: Path, wanted: Wanted, count: int) -> Iterator[pl.DataFrame]:
    """Yield what `_frames` finds in so many lines of a file at a time."""
    for chunk in frames.lines_of(path):
        for lines in chunk.iter_slices(count):
            yield _frames(lines, wanted)


def _tables_in(paths: tuple[Path, ...], wanted: Wanted) -> set[str]:
    """Return the tables whose messages stand at the beginning of the first file that has any."""
    for path in paths:
        # A piece is too little where one kind is rare.
        for lines in frames.lines_of(path):
            kinds = _frames(lines, wanted)["kind"].unique()
            if len(kinds):
                return {_TABLE_OF[kind] for kind in kinds}
    return set()


def _framed(paths: tuple[Path, ...], wanted: Wanted, tables: Collection[str], span: tuple[int, int] | None) -> Source:
    kinds = [kind for kind, table in enumerate(_TABLE_OF) if table in tables]

    def pieces(start: int, shift: Shift, count: int) -> Iterator[Piece]:
        latest = 0
        for path in paths:
            for found in _messages_in(path, wanted, count):
                rows = found.filter(pl.col("kind").is_in(kinds))
                if span:
                    rows = rows.filter(pl.col("at").is_between(*span, closed="left"))
                rows = rows.filter((pl.col("at") >= start) | pl.col("kind").is_in([DEPTH, SNAPSHOT]))
                if rows.height:
                    rows = rows.with_columns(at=pl.max_horizontal(pl.col("at").cum_max(), latest))
                    latest = rows["at"][-1]
                    yield _piece(rows, shift)

    return Source(frozenset(tables), pieces)


def _frames(lines: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    """Return `at kind data is_refill` of the lines that are messages of the symbol's streams, or snapshots."""
    text, body = pl.col("text"), pl.col("body")
    name = wanted.venue_symbol.lower()
    head = body.str.head(_HEAD_CHARACTERS)
    kind = head.str.extract(rf'^\{{\s*"stream"\s*:\s*"{name}@([A-Za-z]+)["@]')
    is_refill = body.str.ends_with(',"refill":true}')
    data = (
        pl.when(is_refill).then(body.str.strip_suffix(',"refill":true}')).otherwise(body.str.strip_suffix("}"))
    ).str.splitn('"data":', 2)
    is_snapshot = head.str.contains(r'^\{\s*"lastUpdateId"')
    parts = text.str.splitn(" ", 2)
    return (
        lines.select(
            at=parts.struct[0].cast(pl.Int64, strict=False),
            body=parts.struct[1].str.strip_chars(),
        )
        .select(
            "at",
            kind=pl.when(is_snapshot)
            .then(pl.lit(SNAPSHOT))
            .otherwise(kind.replace_strict(messages.KINDS, default=None, return_dtype=pl.UInt8))
            .cast(pl.UInt8),
            data=pl.when(is_snapshot).then(body).otherwise(data.struct[1].str.strip_chars()),
            is_refill=is_refill,
        )
        .drop_nulls()
    )


class _Trade(msgspec.Struct):
    p: str
    q: str
    T: int
    m: bool
    t: int | None = None
    a: int | None = None
    f: int | None = None
    l: int | None = None  # noqa: E741  # the venue's letter


_decoder = msgspec.json.Decoder(_Trade)


def _piece(rows: pl.DataFrame, shift: Shift) -> Piece:
    """Return recorded messages, shifted; a line that does not decode as a trade is sent, but is none of the tape."""
    if any(shift):
        rows = rows.with_columns(
            pl.col("at") + shift.at_ns,
            data=pl.Series([messages.shifted(text, shift) for text in rows["data"]], dtype=pl.String),
        )
    printed = rows.with_row_index("row").filter(pl.col("kind") <= AGG_TRADE)
    tape = []
    for row, at, kind, data, is_refill in printed.iter_rows():
        try:
            trade = _decoder.decode(data)
        except msgspec.DecodeError:
            continue
        ids = (trade.t, trade.t, trade.t) if kind == TRADE else (trade.a, trade.f, trade.l)
        if None not in ids:
            # What was refilled had been made before: REST may give it from the beginning of the piece on.
            since = rows["at"][0] if is_refill else at
            tape.append((row, since, kind, *ids, messages.time_ns(trade.T), trade.p, trade.q, trade.m, is_refill))
    found = pl.DataFrame(tape, schema={"row": pl.UInt32(), **TAPE}, orient="row")
    streamed = (
        rows.with_row_index("row")
        .join(found.select("row", "id"), on="row", how="left", maintain_order="left")
        .filter(~pl.col("is_refill"))
    )
    return Piece(streamed.select(MESSAGES.names()), found.select(TAPE.names()))


def _stored(path: Path, table: str, wanted: Wanted, *, is_aggregated: bool) -> Source:
    def pieces(start: int, shift: Shift, count: int) -> Iterator[Piece]:
        latest, books = 0, pl.DataFrame()
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=count):
                rows = pl.DataFrame(pl.from_arrow(batch))
                at = pl.coalesce(pl.col("ts_recv"), pl.col("ts_event")).to_physical()
                rows = rows.with_columns(at=pl.max_horizontal(at.cum_max(), latest))
                latest = rows["at"][-1]
                rows = rows.filter(pl.col("at") >= start).with_columns(pl.col("at") + shift.at_ns)
                if not rows.height:
                    continue
                if table == Book.table:
                    before = books if books.height else rows.clear()
                    sent, books = messages.depth(
                        rows, before, venue=wanted.venue, symbol=wanted.venue_symbol, shift=shift
                    )
                    yield Piece(sent, TAPE.to_frame())
                elif table == Quote.table:
                    sent = messages.book_tickers(rows, wanted.venue, wanted.venue_symbol, shift)
                    yield Piece(sent, TAPE.to_frame())
                else:
                    yield _stored_tape(rows, wanted, shift, is_aggregated=is_aggregated)

    return Source(frozenset({table}), pieces)


def _stored_tape(rows: pl.DataFrame, wanted: Wanted, shift: Shift, *, is_aggregated: bool) -> Piece:
    """Return rows of `market/trades`; in a tape of single trades a row of several ids is what a refill gave."""
    is_single = (pl.col("first_trade_id") == pl.col("last_trade_id")) & (not is_aggregated)
    tape = rows.select(
        at="at",
        kind=pl.when(is_single).then(pl.lit(TRADE)).otherwise(pl.lit(AGG_TRADE)).cast(pl.UInt8),
        id=pl.col("trade_id") + shift.trade_id,
        first_id=pl.col("first_trade_id") + shift.trade_id,
        last_id=pl.col("last_trade_id") + shift.trade_id,
        ns=pl.col("ts_event").to_physical() + shift.time_ns,
        price=pl.col("price").cast(pl.String),
        size=pl.col("size").cast(pl.String),
        is_buyer_maker=pl.col("aggressor") == -1,
        is_refill=~is_single & (not is_aggregated),
    )
    # An aggregate that was cut has no size: what it was cannot be told any more.
    tape = tape.drop_nulls("size")
    streamed = tape.filter(~pl.col("is_refill"))
    encode = messages.aggregate_trades if is_aggregated else messages.trades
    return Piece(encode(streamed, wanted.venue, wanted.venue_symbol), tape)
