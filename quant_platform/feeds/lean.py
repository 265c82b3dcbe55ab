"""QuantConnect Lean's US equity ticks to trades and quotes.

One zip a symbol, date and kind, holding one CSV without a header: `SYMBOL_YYYYMMDD_KIND.zip` in the folder, or
`SYMBOL/YYYYMMDD_KIND.zip` as in Lean's own tree. Times are milliseconds since midnight in New York, prices dollars
times 10,000. A date's rows are all of that calendar date: trading before the open and after the close is part of it.

Trades name the exchange by its letter (`D`: reported off exchange, through FINRA); the tape says neither side nor id.
Quotes are the national best bid and offer, one side a row (0: not this side), with the exchange that set it: a bid row
and the offer row after it with the same time are one quote. They are not each venue's own quote: keeping the last of
each venue and taking the best of them leaves the market crossed for 99 % of the session, because a venue never says
that it has left the best price; the last of each side is crossed for none of it.
"""

import re
from pathlib import Path
from typing import Literal

import polars as pl

from quant_platform.contracts._schema import INSTANT
from quant_platform.contracts.enums import Tape
from quant_platform.contracts.market import Quote, Trade
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
from quant_platform.feeds.sheet import INTEGER, LINE, TEXT, Column, Layout, typed_columns

FEED = "recorded_lean"
_KINDS: dict[str, Literal["trade", "quote"]] = {Trade.table: "trade", Quote.table: "quote"}
_LAYOUTS = {
    Trade.table: Layout(
        (
            Column("time", "ms", INTEGER),
            Column("price", "price", INTEGER),
            Column("size", "size", INTEGER),
            Column("exchange", "venue", TEXT),
            Column("condition"),
            Column("suspicious", "suspicious", INTEGER),
        ),
        re.compile(r"[01]"),
    ),
    Quote.table: Layout(
        (
            Column("time", "ms", INTEGER),
            Column("bid_price", "bid_price", INTEGER),
            Column("bid_size", "bid_size", INTEGER),
            Column("ask_price", "ask_price", INTEGER),
            Column("ask_size", "ask_size", INTEGER),
            Column("exchange"),
            Column("condition"),
            Column("suspicious", "suspicious", INTEGER),
        ),
        re.compile(r"[01]"),
    ),
}


def find(folder: Path, wanted: Wanted) -> Recording | None:
    """Return the zip of a symbol-day; None where the folder has none, or the format has no such table.

    Raises:
        RecordedError: There is no such folder.
    """
    flat = {path.name.lower(): path for path in files_in(folder)}
    if wanted.table not in _KINDS:
        return None
    symbol, name = wanted.venue_symbol.lower(), f"{wanted.date:%Y%m%d}_{_KINDS[wanted.table]}.zip"
    path = flat.get(f"{symbol}_{name}", folder / symbol / name)
    return Recording(own=(path,)) if path.is_file() else None


def read_day(recording: Recording, wanted: Wanted) -> Parsed:
    """Return one table of a symbol-day; `trade_id` and `sequence` are line numbers of the file.

    Rows that the recorder flagged as suspicious are quarantined. A quote is one change of the best bid or offer.

    Args:
        recording: What `find` returned.
        wanted: What it was asked for; the date is New York's.

    Raises:
        RecordedError: The zip, its member or its columns are wrong: then nothing of it is used.
    """
    (path,), table, date = recording.own, wanted.table, wanted.date
    expected = f"{date:%Y%m%d}_{wanted.venue_symbol}_{_KINDS[table]}_tick.csv".lower()
    names = members(path)
    if [name.lower() for name in names] != [expected]:
        found = ", ".join(names) or "no file at all"
        raise RecordedError(
            f"{path} must hold one file, {expected}, and holds {found}. Nothing was loaded. Copy the file anew, or "
            "name it by what it holds."
        )
    sheet = headless_sheet(path, names[0], _LAYOUTS[table])
    typed, broken = typed_columns(sheet)
    typed = take_out(typed, ~within(date, pl.col("ms") * 1_000_000), "ts_event|outside_date", broken)
    typed = take_out(typed, pl.col("suspicious") != 0, "suspicious|flagged", broken)
    facts = {"out_of_order": str(int((typed["ms"].diff() < 0).sum()))}
    typed = typed.select(
        pl.all().exclude("ms", "suspicious"),
        ts_event=(pl.col("ms") * 1_000_000 + midnight_ns(date)).cast(INSTANT),
        ts_recv=pl.lit(None, INSTANT),
        symbol=pl.lit(wanted.symbol),
    )
    if table == Trade.table:
        rows, bad = parted(Trade, _trades(typed), sheet, broken)
        return Parsed(rows=rows, quarantined=bad, facts=facts | {"tape": Tape.TRADES.value})
    figures = pl.col("bid_price", "bid_size", "ask_price", "ask_size")
    # A wrong side would stand until the next one: it must not become part of a state.
    typed = take_out(typed, pl.any_horizontal(figures < 0), "row|negative", broken)
    typed = take_out(typed, (pl.col("bid_price") == 0) & (pl.col("ask_price") == 0), "row|no_side", broken)
    rows, bad = parted(Quote, _quotes(typed), sheet, broken)
    return Parsed(rows=rows, quarantined=bad, facts=facts)


def _trades(typed: pl.DataFrame) -> pl.DataFrame:
    number = pl.col(LINE).cast(pl.Int64)
    return typed.with_columns(
        price=dollars(pl.col("price")),
        size=pl.col("size").cast(pl.Float64),
        trade_id=number,
        first_trade_id=number,
        last_trade_id=number,
        aggressor=pl.lit(0, pl.Int8),
    )


def _quotes(typed: pl.DataFrame) -> pl.DataFrame:
    has_bid, has_ask = pl.col("bid_price") != 0, pl.col("ask_price") != 0
    is_bid_alone, is_ask_alone = has_bid & ~has_ask, has_ask & ~has_bid
    is_half = is_bid_alone & is_ask_alone.shift(-1) & (pl.col("ts_event") == pl.col("ts_event").shift(-1))
    figures = {}
    for side, has_side in (("bid", has_bid), ("ask", has_ask)):
        price, size = pl.col(f"{side}_price"), pl.col(f"{side}_size")
        figures[f"{side}_price"] = pl.when(has_side).then(dollars(price)).forward_fill()
        figures[f"{side}_size"] = pl.when(has_side).then(size.cast(pl.Float64)).forward_fill()
    states = typed.with_columns(is_half=is_half.fill_null(value=False), **figures).filter(~pl.col("is_half"))
    is_new = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in figures)
    return states.filter(is_new).select(
        pl.all().exclude("is_half"),
        venue=pl.lit(FEED),
        sequence=pl.col(LINE).cast(pl.Int64),
        is_ts_event_assumed=pl.lit(value=False),
    )
