"""LOBSTER days (NASDAQ order messages and the book after each) to trades, quotes and books.

A zip holds two CSV files without headers, line by line what happened and the state of the book after it. Times are
seconds after midnight in New York, prices dollars times 10,000. The direction is that of the resting order, so the
aggressor's side is its negative. The files say when the venue acted, and not when anybody received it.
"""

import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.enums import Tape
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.feeds.recorded import (
    Parsed,
    RecordedError,
    Recording,
    Wanted,
    dollars,
    files_in,
    headless_sheet,
    members,
    midnight_ns,
    parted,
    take_out,
    within,
)
from quant_platform.feeds.sheet import INTEGER, LINE, TEXT, Column, Layout, Sheet, quarantine, typed_columns

VENUE = "NASDAQ"
_LEVELS = 5
_NO_PRICE = 9_999_999_999
_EXECUTION, _HIDDEN_EXECUTION, _CROSS = 4, 5, 6
_PRINTS = (_EXECUTION, _HIDDEN_EXECUTION, _CROSS)
_TYPES = range(1, 8)
_MEMBER = re.compile(
    r"(?P<symbol>.+)_(?P<date>\d{4}-\d{2}-\d{2})_\d+_\d+_(?P<kind>message|orderbook)_(?P<levels>\d+)\.csv"
)
_MESSAGES = Layout(
    (
        Column("time", "time", TEXT),
        Column("type", "type", INTEGER),
        Column("order_id"),
        Column("size", "size", INTEGER),
        Column("price", "price", INTEGER),
        Column("direction", "direction", INTEGER),
    ),
    re.compile(r"-?1"),
)


@dataclass(frozen=True)
class _Day:
    symbol: str
    date: dt.date
    levels: int
    path: Path
    names: dict[str, str]

    def messages(self) -> Sheet:
        return headless_sheet(self.path, self.names["message"], _MESSAGES)

    def books(self) -> Sheet:
        return headless_sheet(self.path, self.names["orderbook"], _book_layout(self.levels))


def find(folder: Path, wanted: Wanted) -> Recording | None:
    """Return the zip of a symbol-day, the one with the most levels; None where the folder has none.

    Raises:
        RecordedError: There is no such folder.
    """
    stem = rf"(?:.*_)?{re.escape(wanted.venue_symbol)}_{wanted.date}"
    name = re.compile(rf"{stem}_(?:.*_)?(\d+)\.zip", re.IGNORECASE)
    found = [(int(match[1]), path) for path in files_in(folder) if (match := name.fullmatch(path.name))]
    return Recording(own=(max(found)[1],)) if found else None


def read_day(recording: Recording, wanted: Wanted) -> Parsed:
    """Return one table of a symbol-day.

    Trades are the executions of visible and of hidden orders, one row each, and crosses, which have no aggressor; as
    the files number no trade, `trade_id` counts them from 1. Quotes and books are the states that differ from the one
    before in the best level or in the first five; their `sequence` is the line of the message.

    Args:
        recording: What `find` returned.
        wanted: What it was asked for; the date is New York's.

    Raises:
        RecordedError: The zip, its members or its columns are wrong: then nothing of it is used.
    """
    (path,), symbol = recording.own, wanted.symbol
    day = _opened(path)
    if (day.symbol.upper(), day.date) != (wanted.venue_symbol.upper(), wanted.date):
        raise RecordedError(
            f"{path} holds {day.symbol} on {day.date}, not {wanted.venue_symbol} on {wanted.date}. Nothing was loaded. "
            "Name it by what it holds."
        )
    messages = day.messages()
    events, broken = _events(messages, wanted.date)
    facts = {"levels": str(day.levels), "out_of_order": str(int((events["ns"].diff() < 0).sum()))}
    if wanted.table == Trade.table:
        rows, bad = parted(Trade, _trades(events, symbol), messages, broken)
        return Parsed(rows=rows, quarantined=bad, facts=facts | {"tape": Tape.TRADES.value})
    sheet = day.books()
    if len(sheet.line_ends) != len(messages.line_ends):
        raise RecordedError(
            f"{sheet.file} has {len(sheet.line_ends)} lines and {messages.file} has {len(messages.line_ends)}: one of "
            "them is cut off, and no state can be told from its message. Nothing was loaded. Copy the file anew."
        )
    books, book_broken = typed_columns(sheet)
    states = events.select(LINE, "ts_event").join(books, on=LINE, maintain_order="left")
    contract = Quote if wanted.table == Quote.table else Book
    rows, bad = parted(contract, _states(states, contract, symbol), sheet, book_broken)
    return Parsed(rows=rows, quarantined=pl.concat([quarantine(messages, broken), bad]), facts=facts)


def executions(path: Path) -> pl.DataFrame:
    """Return every execution with what the tape does not tell, for scoring what infers it.

    Returns:
        `ts_event trade_id price size`, `aggressor` (the true side; 0 in a cross) and `is_hidden` (the resting order
        was not displayed), in the order of the file.

    Raises:
        RecordedError: The zip, its members or its columns are wrong.
    """
    day = _opened(path)
    events, _ = _events(day.messages(), day.date)
    prints = _trades(events, day.symbol).select("ts_event", "trade_id", "price", "size", "aggressor")
    types = events["type"].filter(events["type"].is_in(_PRINTS))
    return prints.with_columns(is_hidden=types == _HIDDEN_EXECUTION)


def _opened(path: Path) -> _Day:
    found = {match["kind"]: match for name in members(path) if (match := _MEMBER.fullmatch(name))}
    if missing := [kind for kind in ("message", "orderbook") if kind not in found]:
        raise RecordedError(
            f"{path} holds no file named like SYMBOL_YYYY-MM-DD_START_END_{missing[0]}_LEVELS.csv. Nothing was loaded. "
            "Copy the file anew; if it stays so, it is not of LOBSTER."
        )
    message, book = found["message"], found["orderbook"]
    date = dt.date.fromisoformat(message["date"])
    return _Day(message["symbol"], date, int(book["levels"]), path, {"message": message[0], "orderbook": book[0]})


def _book_layout(levels: int) -> Layout:
    columns = [
        Column(name, name if level <= _LEVELS else "", INTEGER)
        for level in range(1, levels + 1)
        for name in (f"ask_price_{level}", f"ask_size_{level}", f"bid_price_{level}", f"bid_size_{level}")
    ]
    return Layout(tuple(columns), re.compile(r"\d+"))


def _events(sheet: Sheet, date: dt.date) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Return the messages with their times, and the lines that are none, with a rule."""
    typed, broken = typed_columns(sheet)
    typed = take_out(typed, ~pl.col("time").str.contains(r"^\d{1,6}(\.\d*)?$"), "ts_event|numeric", broken)
    seconds = pl.col("time").str.split_exact(".", 1)
    # Digits beyond nanoseconds are what a float left behind: rounded away, as integers.
    decimals = seconds.struct[1].fill_null("").str.head(10).str.pad_end(10, "0").cast(pl.Int64)
    typed = typed.with_columns(ns=seconds.struct[0].cast(pl.Int64) * 1_000_000_000 + (decimals + 5) // 10)
    typed = take_out(typed, ~within(date, pl.col("ns")), "ts_event|outside_date", broken)
    typed = take_out(typed, ~pl.col("type").is_in(_TYPES), "type|is_in", broken)
    typed = take_out(typed, ~pl.col("direction").is_in([-1, 1]), "direction|is_in", broken)
    return typed.with_columns(ts_event=(pl.col("ns") + midnight_ns(date)).cast(INSTANT)), broken


def _trades(events: pl.DataFrame, symbol: str) -> pl.DataFrame:
    number = pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
    return events.filter(pl.col("type").is_in(_PRINTS)).select(
        "ts_event",
        ts_recv=pl.lit(None, INSTANT),
        symbol=pl.lit(symbol),
        venue=pl.lit(VENUE),
        trade_id=number,
        first_trade_id=number,
        last_trade_id=number,
        price=dollars(pl.col("price")),
        size=pl.col("size").cast(pl.Float64),
        aggressor=pl.when(pl.col("type") == _CROSS).then(0).otherwise(-pl.col("direction")).cast(pl.Int8),
        source_line=pl.col(LINE),
    )


def _states(states: pl.DataFrame, contract: type[Quote | Book], symbol: str) -> pl.DataFrame:
    """Return the states in which a level that the contract holds differs from the one before, as its columns."""
    is_book = contract is Book
    levels = [level for level in range(1, (_LEVELS if is_book else 1) + 1) if f"ask_price_{level}" in states.columns]
    figures: dict[str, pl.Expr] = {}
    for side in ("bid", "ask"):
        for level in levels:
            price, size, suffix = pl.col(f"{side}_price_{level}"), pl.col(f"{side}_size_{level}"), f"_{level}" * is_book
            is_there = price.abs() < _NO_PRICE
            figures[f"{side}_price{suffix}"] = pl.when(is_there).then(dollars(price))
            figures[f"{side}_size{suffix}"] = pl.when(is_there).then(size.cast(pl.Float64))
    known = states.select("ts_event", LINE, **figures)
    is_new = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in figures)
    rows = known.filter(is_new | (pl.int_range(pl.len()) == 0)).with_columns(
        symbol=pl.lit(symbol), venue=pl.lit(VENUE), sequence=pl.col(LINE).cast(pl.Int64)
    )
    if not is_book:
        rows = rows.with_columns(is_ts_event_assumed=pl.lit(value=False))
    return rows.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in polars_schema(contract).items() if name not in rows.columns
    )
