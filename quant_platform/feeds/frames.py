"""Recorded WebSocket frames of Binance to trades, quotes and books.

A file is what one connection brought, a line a message: `<local receive time, ns> <JSON>`. The JSON is the combined
stream's envelope (`{"stream": …, "data": …}`), or the answer to a REST depth snapshot as it stands. Files are named
`[usdm_]btcusdt_20240808[.part1][.jsonl][.gz]`, by the local clock's date; parts follow each other.

A date is UTC by the venue's clock. The local clock may be off by seconds, so the ends of the neighbouring dates' files
are looked into as well. A recording has its snapshot at the beginning: where a date's own files start without one, the
book goes on from the date before.
`ts_recv` stays what the local clock said, also where that is before `ts_event`.
"""

import datetime as dt
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from quant_platform.calculators import local_order_book
from quant_platform.contracts._schema import INSTANT, Contract, split
from quant_platform.contracts.enums import Tape
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.feeds.recorded import Parsed, RecordedError, Recording, Wanted, files_in
from quant_platform.feeds.sheet import QUARANTINE, line_text

_PREFIXES = {"binance_usdm": "usdm", "binance_spot": "spot", "binance_coinm": "cm"}
_CHUNK_BYTES = 8 << 20
_DAY_NS = 86_400_000_000_000
_MARGIN_NS = 60_000_000_000
_MICROSECONDS_FROM = 10**14  # as ms this is the year 5138, as us it is 1973
_MEDIAN_OF = 1_001
_EVENTS_PER_STEP = 100_000
_LINES_PER_FILE = 1 << 40
_PLACE = "place"  # number of the file times the above, plus the line: the order of arrival

_INT, _TEXT, _LEVELS = pl.Int64(), pl.String(), pl.List(pl.List(pl.String))
_SNAPSHOT = "snapshot"
_BODIES: dict[str, dict[str, pl.DataType]] = {
    "trade": {"T": _INT, "E": _INT, "t": _INT, "p": _TEXT, "q": _TEXT, "m": pl.Boolean()},
    "bookTicker": {"T": _INT, "E": _INT, "u": _INT, "b": _TEXT, "B": _TEXT, "a": _TEXT, "A": _TEXT},
    "depth": {"T": _INT, "E": _INT, "U": _INT, "u": _INT, "pu": _INT, "b": _LEVELS, "a": _LEVELS},
    _SNAPSHOT: {"T": _INT, "E": _INT, "lastUpdateId": _INT, "bids": _LEVELS, "asks": _LEVELS},
}
_KINDS = {Trade.table: ("trade",), Quote.table: ("bookTicker",), Book.table: ("depth", _SNAPSHOT)}


@dataclass
class _Found:
    """What was read so far: messages, the clocks of all that have a time, and lines that break a rule."""

    messages: list[pl.DataFrame] = field(default_factory=list)
    clocks: list[pl.DataFrame] = field(default_factory=list)
    broken: list[pl.DataFrame] = field(default_factory=list)

    def add(self, frames: pl.DataFrame, table: str) -> None:
        for kind in _KINDS[table]:
            self.messages.append(_decoded(frames.filter(pl.col("kind") == kind), kind, self))

    def has_snapshot_first(self) -> bool:
        """Whether the first of the messages so far is a snapshot."""
        first = min((part for part in self.messages if part.height), key=lambda part: part[_PLACE][0], default=None)
        return first is not None and first["kind"][0] == _SNAPSHOT

    def note(self, rows: pl.DataFrame, rule: str | pl.Expr) -> None:
        self.broken.append(rows.select(_PLACE, rule=pl.lit(rule) if isinstance(rule, str) else rule))


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
    """Return one table of a symbol-day.

    Quotes of the spot market carry no time: theirs is `ts_recv` plus the running median of the venue's time minus
    `ts_recv` over the connection's timed messages, never falling, with `is_ts_event_assumed`. A book starts at its
    first snapshot; where the sequence broke there is a row without levels, and no other until the next snapshot.

    Args:
        recording: What `find` returned.
        wanted: What it was asked for; the date is UTC.

    Raises:
        RecordedError: A file cannot be read: then nothing of the day is used.
    """
    found, table = _Found(), wanted.table
    start = (wanted.date - dt.date(1970, 1, 1)).days * _DAY_NS
    end = start + _DAY_NS
    earliest, latest = start - _MARGIN_NS, end + _MARGIN_NS
    places = {path: number * _LINES_PER_FILE for number, path in enumerate(recording.files)}
    for path in recording.own:
        for lines in _chunks(path):
            found.add(_frames(lines, places[path], wanted, found), table)
    if table == Book.table and not found.has_snapshot_first():
        earliest -= _DAY_NS
    for path in (*recording.before, *recording.after):
        for lines in _chunks(path):
            frames = _frames(lines, places[path], wanted, found)
            found.add(frames.filter(pl.col("ts_recv").is_between(earliest, latest)), table)
            if frames.height and frames["ts_recv"][-1] > latest:
                break
    messages = _dated(found, wanted)
    is_near = pl.col("ns").is_between(earliest, latest).fill_null(value=True)
    found.note(messages.filter(~is_near), "ts_event|outside_date")
    named = messages.filter(is_near).with_columns(
        ts_event=pl.col("ns").cast(INSTANT),
        ts_recv=pl.col("ts_recv").cast(INSTANT),
        symbol=pl.lit(wanted.symbol),
        venue=pl.lit(wanted.venue),
    )
    if table == Book.table:
        rows, facts = _books(named, found, start, end)
    else:
        rows, facts = _rows(named.filter(_between("ns", start, end).fill_null(value=True)), table, found)
    return Parsed(rows=rows, quarantined=_quarantine(recording, found), facts=facts)


def _chunks(path: Path) -> Iterator[pl.DataFrame]:
    """Yield a file's lines with their numbers, some at a time; no lines first, so that there is always a frame."""
    number, rest = 1, b""
    yield pl.DataFrame(schema={_PLACE: _INT, "text": _TEXT})
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while content := file.read(_CHUNK_BYTES):
                whole, newline, rest = (rest + content).rpartition(b"\n")
                if newline:
                    lines = line_text(whole).split("\n")
                    yield pl.DataFrame({_PLACE: range(number, number + len(lines)), "text": lines})
                    number += len(lines)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordedError(
            f"{path} cannot be read: {error}. Nothing was loaded. Copy it anew; what is left of a recording "
            f"that was cut off can be saved with `zcat {path.name} > {path.stem}`."
        ) from error
    if rest:
        yield pl.DataFrame({_PLACE: [number], "text": [line_text(rest)]})


def _frames(lines: pl.DataFrame, first_place: int, wanted: Wanted, found: _Found) -> pl.DataFrame:
    """Return `place ts_recv kind body`, noting the clocks and the lines that are no frames."""
    stream = rf'^\{{\s*"stream"\s*:\s*"{re.escape(wanted.venue_symbol.lower())}@([A-Za-z0-9]+)'
    body = pl.col("body")
    kind = pl.when(body.str.contains(r'^\{\s*"lastUpdateId"')).then(pl.lit(_SNAPSHOT))
    frames = lines.select(
        pl.col(_PLACE) + first_place,
        ts_recv=pl.col("text").str.extract(r"^(\d{16,19}) \{").cast(_INT),
        body=pl.col("text").str.splitn(" ", 2).struct[1],
    ).with_columns(kind=kind.otherwise(body.str.head(120).str.extract(stream)))
    is_frame = pl.col("ts_recv").is_not_null() & pl.col("kind").is_not_null()
    found.note(
        frames.filter(~is_frame),
        pl.when(pl.col("ts_recv").is_null()).then(pl.lit("frame|format")).otherwise(pl.lit("frame|stream")),
    )
    frames = frames.filter(is_frame)
    if wanted.venue == "binance_spot":
        event_time = body.str.head(200).str.extract(r'"E"\s*:\s*(\d+)').cast(_INT)
        found.clocks.append(frames.select(_PLACE, ahead=_ns(event_time) - pl.col("ts_recv")).drop_nulls())
    return frames


def _decoded(frames: pl.DataFrame, kind: str, found: _Found) -> pl.DataFrame:
    """Return messages of one kind as columns, `ns` being the venue's time; noting those that are not of its shape."""
    body = _json(frames["body"], kind)
    found.note(frames.filter(body.is_null()), "frame|json")
    fields = body.struct.unnest() if kind == _SNAPSHOT else body.struct.field("data").struct.unnest()
    messages = frames.select(_PLACE, "ts_recv").hstack(fields).filter(body.is_not_null())
    messages = messages.select(pl.all().exclude("T", "E"), ns=_ns(pl.coalesce("T", "E")))
    if kind in {"trade", "bookTicker"}:
        return messages
    bids, asks = ("bids", "asks") if kind == _SNAPSHOT else ("b", "a")
    return messages.select(
        _PLACE,
        "ts_recv",
        "ns",
        kind=pl.lit(_SNAPSHOT if kind == _SNAPSHOT else "diff"),
        first_id=pl.lit(None, _INT) if kind == _SNAPSHOT else pl.col("U"),
        final_id=pl.col("lastUpdateId" if kind == _SNAPSHOT else "u"),
        previous_id=pl.lit(None, _INT) if kind == _SNAPSHOT else pl.col("pu"),
        **{
            f"{side}_{name}": pl.col(levels).list.eval(
                pl.element().list.get(i, null_on_oob=True).cast(pl.Float64, strict=False)
            )
            for side, levels in (("bid", bids), ("ask", asks))
            for i, name in enumerate(("prices", "sizes"))
        },
    )


def _json(texts: pl.Series, kind: str) -> pl.Series:
    """Return the texts decoded, null where one is not of its kind's shape."""
    fields = pl.Struct(_BODIES[kind])
    dtype = fields if kind == _SNAPSHOT else pl.Struct({"data": fields})
    try:
        values = texts.str.json_decode(dtype)
        if values.len() == texts.len():
            return values
    except pl.exceptions.ComputeError:
        pass
    if texts.len() == 1:
        return pl.Series(texts.name, [None], dtype=dtype)
    half = texts.len() // 2
    return pl.concat([_json(texts[:half], kind), _json(texts[half:], kind)])


def _ns(time: pl.Expr) -> pl.Expr:
    return time * pl.when(time < _MICROSECONDS_FROM).then(1_000_000).otherwise(1_000)


def _dated(found: _Found, wanted: Wanted) -> pl.DataFrame:
    """Return the messages in the order of arrival, each with a time; `is_assumed` where it is an estimate."""
    messages = pl.concat(found.messages).sort(_PLACE).with_columns(is_assumed=pl.col("ns").is_null())
    if wanted.venue != "binance_spot":
        return messages
    median = pl.col("ahead").rolling_median(_MEDIAN_OF, min_samples=1).round().cast(_INT)
    clocks = pl.concat(found.clocks).sort(_PLACE).select(_PLACE, ahead=median)
    ahead = pl.col("ahead").fill_null(strategy="backward")
    estimate = (pl.col("ts_recv") + ahead).cum_max()
    return (
        messages.join_asof(clocks, on=_PLACE)
        .with_columns(ns=pl.when("is_assumed").then(estimate).otherwise("ns"))
        .drop("ahead")
    )


def _rows(messages: pl.DataFrame, table: str, found: _Found) -> tuple[pl.DataFrame, dict[str, str]]:
    """Return the contract's rows of trades or quotes, in its order; of those that share an id the first to arrive."""
    contract: type[Contract]
    if table == Trade.table:
        contract, ident = Trade, "trade_id"
        figures = {"price": "p", "size": "q"}
        own = {
            "trade_id": pl.col("t"),
            "first_trade_id": pl.col("t"),
            "last_trade_id": pl.col("t"),
            # The maker bought, so a seller crossed the spread.
            "aggressor": 1 - 2 * pl.col("m").cast(pl.Int8),
        }
    else:
        contract, ident = Quote, "sequence"
        figures = {"bid_price": "b", "bid_size": "B", "ask_price": "a", "ask_size": "A"}
        own = {"sequence": pl.col("u"), "is_ts_event_assumed": pl.col("is_assumed")}
    rows = messages.select(
        "ts_event",
        "ts_recv",
        "symbol",
        "venue",
        _PLACE,
        **{name: pl.col(letter).cast(pl.Float64, strict=False) for name, letter in figures.items()},
        **own,
    )
    is_first = rows[ident].is_first_distinct() | rows[ident].is_null()
    found.note(rows.filter(~is_first), f"{ident}|duplicate")
    out_of_order = int((rows[ident].diff() < 0).sum())
    good, bad = split(contract, rows.filter(is_first), keep=(_PLACE,))
    found.note(bad, pl.col("rule"))
    facts = {"out_of_order": str(out_of_order)} | ({"tape": Tape.TRADES.value} if contract is Trade else {})
    return good.sort(contract.sorted_by, maintain_order=True), facts


def _books(events: pl.DataFrame, found: _Found, start: int, end: int) -> tuple[pl.DataFrame, dict[str, str]]:
    """Return the books of [start, end) that snapshots and diffs lead to."""
    prices, sizes = pl.col("bid_prices", "ask_prices"), pl.col("bid_sizes", "ask_sizes")
    number = pl.element().is_finite()
    is_whole = pl.all_horizontal(
        pl.col("ts_event", "final_id").is_not_null(),
        pl.col("first_id").is_not_null() | (pl.col("kind") == _SNAPSHOT),
        prices.list.eval((number & (pl.element() > 0)).fill_null(value=False)).list.all(),
        sizes.list.eval((number & (pl.element() >= 0)).fill_null(value=False)).list.all(),
    ).fill_null(value=False)
    found.note(events.filter(~is_whole), "frame|levels")
    events = events.filter(is_whole).select(local_order_book.EVENTS.names())
    state, rows = local_order_book.step(local_order_book.initial(), events.clear())
    books = [rows]
    for part in events.iter_slices(_EVENTS_PER_STEP):
        state, rows = local_order_book.step(state, part)
        books.append(rows)
    breaks = local_order_book.gaps(state).filter(_between("ts_end", start, end))
    return pl.concat(books).filter(_between("ts_event", start, end)), {"sequence_breaks": str(breaks.height)}


def _between(column: str, start: int, end: int) -> pl.Expr:
    return pl.col(column).to_physical().is_between(start, end, closed="left")


def _quarantine(recording: Recording, found: _Found) -> pl.DataFrame:
    """Return the lines of the date's own files that broke a rule; a neighbour's are reported on its own date."""
    broken = pl.concat(found.broken).sort(_PLACE)
    quarantined = [QUARANTINE.to_frame()]
    for number, path in enumerate(recording.files):
        lines = broken.filter(pl.col(_PLACE) // _LINES_PER_FILE == number).with_columns(
            pl.col(_PLACE) % _LINES_PER_FILE
        )
        if path in recording.own and lines.height:
            texts = pl.concat(lines.join(chunk, on=_PLACE, maintain_order="left") for chunk in _chunks(path))
            quarantined.append(
                texts.select("rule", source_file=pl.lit(path.name), source_line=pl.col(_PLACE), raw=pl.col("text"))
            )
    return pl.concat(quarantined)
