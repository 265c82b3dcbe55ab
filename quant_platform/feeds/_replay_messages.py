"""Rows as the venue's messages: the JSON of `data`, a text a row. Where rows come from, and when they go, is not here.

USD-M messages carry E and T, and its depth `pu`; the spot market's bookTicker carries no time at all, its depth E only,
its trades M. Numbers are the shortest text that reads back as the same float. Times are ms; where a chunk has times
that are no whole ms, microseconds.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Book

TRADE, AGG_TRADE, BOOK_TICKER, DEPTH, SNAPSHOT = range(5)
KINDS = {"trade": TRADE, "aggTrade": AGG_TRADE, "bookTicker": BOOK_TICKER, "depth": DEPTH}
KIND_NAMES = [*KINDS, "snapshot"]
USDM, SPOT = "binance_usdm", "binance_spot"

# `id` is the trade's or the aggregate's; a refilled row was not on the stream.
TAPE = pl.Schema(
    {
        "at": pl.Int64,
        "kind": pl.UInt8,
        "id": pl.Int64,
        "first_id": pl.Int64,
        "last_id": pl.Int64,
        "ns": pl.Int64,
        "price": pl.String,
        "size": pl.String,
        "is_buyer_maker": pl.Boolean,
        "is_refill": pl.Boolean,
    }
)
# `at` is the recording's clock, ns; `id` is a trade's or an aggregate's, null for the other kinds.
MESSAGES = pl.Schema({"at": pl.Int64, "kind": pl.UInt8, "id": pl.Int64, "data": pl.String})

_MICROSECONDS_FROM = 10**14
_INTEGER = re.compile(r'":\s*(\d+)')
_TIMES, _TRADE_IDS, _UPDATE_IDS = {"E", "T"}, {"t", "f", "l", "a"}, {"u", "U", "pu", "lastUpdateId"}
_DECIMALS = 12
_LEVELS = range(1, 6)
_BOOK = polars_schema(Book)
_PRICES = pl.col([name for name in _BOOK.names() if "_price_" in name])


class Shift(NamedTuple):
    """What is added to a recording's numbers: to `at`, to the venue's times (whole ms), to the ids."""

    at_ns: int = 0
    time_ns: int = 0
    trade_id: int = 0
    update_id: int = 0


def shifted(text: str, shift: Shift) -> str:
    """Return a message as it was recorded, but for the times and ids that are shifted."""

    def moved(match: re.Match[str]) -> str:
        name = text[text.rfind('"', 0, match.start()) + 1 : match.start()]
        value = int(match[1])
        if name in _TIMES:
            return f'":{value + shift.time_ns // (1_000_000 if value < _MICROSECONDS_FROM else 1_000)}'
        if name in _TRADE_IDS or name in _UPDATE_IDS:
            return f'":{value + (shift.trade_id if name in _TRADE_IDS else shift.update_id)}'
        return match[0]

    return _INTEGER.sub(moved, text)


def time_ns(venue_time: int) -> int:
    """Return a venue's time, ms or microseconds, in ns."""
    return venue_time * (1_000_000 if venue_time < _MICROSECONDS_FROM else 1_000)


def trades(tape: pl.DataFrame, venue: str, symbol: str) -> pl.DataFrame:
    """Return the messages of single trades, as `MESSAGES`, in the rows' order."""
    time = _time(tape["ns"], pl.col("ns"))
    body = {"p": _text("price"), "q": _text("size")}
    if venue == USDM:
        fields = {"e": _quoted("trade"), "E": time, "T": time, "s": _quoted(symbol), "t": pl.col("id"), **body}
        fields |= {"X": _quoted("MARKET"), "m": pl.col("is_buyer_maker")}
    else:
        fields = {"e": _quoted("trade"), "E": time, "s": _quoted(symbol), "t": pl.col("id"), **body, "T": time}
        fields |= {"m": pl.col("is_buyer_maker"), "M": pl.lit("true")}
    return tape.select("at", "kind", "id", data=_object(fields))


def aggregate_trades(tape: pl.DataFrame, venue: str, symbol: str) -> pl.DataFrame:
    """Return the messages of aggregates, as `MESSAGES`, in the rows' order."""
    time = _time(tape["ns"], pl.col("ns"))
    fields = {"e": _quoted("aggTrade"), "E": time, "s": _quoted(symbol), "a": pl.col("id")}
    fields |= {"p": _text("price"), "q": _text("size"), "f": pl.col("first_id"), "l": pl.col("last_id"), "T": time}
    fields |= {"m": pl.col("is_buyer_maker")} | ({} if venue == USDM else {"M": pl.lit("true")})
    return tape.select("at", "kind", "id", data=_object(fields))


def aggregated(tape: pl.DataFrame) -> pl.DataFrame:
    """Return trades as aggregates: neighbours by id of one price, time and side. `id` is to be given yet."""
    rows = tape.sort("first_id", maintain_order=True)
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in ("price", "ns", "is_buyer_maker"))
    follows = same & (pl.col("first_id") == pl.col("last_id").shift() + 1)
    total = pl.col("size").cast(pl.Float64).sum().round(_DECIMALS).cast(pl.String)
    return (
        rows.group_by(run=(~follows.fill_null(value=False)).cum_sum(), maintain_order=True)
        .agg(
            pl.col("at").max(),
            pl.col("id", "first_id", "ns", "price", "is_buyer_maker").first(),
            pl.col("last_id").last(),
            pl.col("is_refill").any(),
            size=pl.when(pl.len() == 1).then(pl.col("size").first()).otherwise(total),
            kind=pl.lit(AGG_TRADE, pl.UInt8),
        )
        .select(TAPE.names())
    )


def book_tickers(quotes: pl.DataFrame, venue: str, symbol: str, shift: Shift) -> pl.DataFrame:
    """Return rows of `market/quotes`, with `at`, as `MESSAGES`; an empty side has price and size 0."""
    sides = {
        letter: pl.concat_str(pl.lit('"'), pl.col(name).cast(pl.String).fill_null("0"), pl.lit('"'))
        for letter, name in (("b", "bid_price"), ("B", "bid_size"), ("a", "ask_price"), ("A", "ask_size"))
    }
    update = pl.col("sequence") + shift.update_id
    if venue == USDM:
        time = _event_time(quotes, shift)
        fields = {"e": _quoted("bookTicker"), "u": update, "s": _quoted(symbol), **sides, "T": time, "E": time}
    else:
        fields = {"u": update, "s": _quoted(symbol), **sides}
    return quotes.select("at", kind=pl.lit(BOOK_TICKER, pl.UInt8), id=pl.lit(None, pl.Int64), data=_object(fields))


def depth(
    books: pl.DataFrame, before: pl.DataFrame, *, venue: str, symbol: str, shift: Shift
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return rows of `market/book` as diffs, each from the row before it, and as snapshots where a book begins.

    A row without levels says that the sequence broke. The diff after it does not follow the one before it, so that a
    client asks for a snapshot, which stands behind that diff.

    Args:
        books: The rows, with `at`.
        before: What the call before returned; at first no rows.
        venue: Whose messages they are to be.
        symbol: The name on the wire.
        shift: Of the messages.

    Returns:
        `MESSAGES`, and what the next call needs: the last row with levels, and those after it.
    """
    rows = pl.concat([before, books])
    has_levels = ~pl.all_horizontal(_PRICES.is_null())
    marks = rows.select(has_levels).to_series()
    carried = rows.slice(marks.arg_true()[-1] if marks.any() else 0)
    previous = pl.col([name for name in _BOOK.names() if "_price_" in name or "_size_" in name]).shift()
    known = (
        rows.with_columns(
            place=pl.int_range(pl.len()),
            pu=pl.col("sequence").shift() + shift.update_id,
            is_break=(~has_levels).shift(fill_value=False),
        )
        .filter(has_levels)
        .with_columns(previous.name.prefix("last_"), is_first=pl.int_range(pl.len()) == 0)
    )
    # What was carried over has been sent; of a book's first row there is nothing before it to tell a change from.
    is_new = pl.col("place") >= before.height
    update, name = pl.col("sequence") + shift.update_id, _quoted(symbol)
    time = _event_time(rows, shift)
    head = {"e": _quoted("depthUpdate"), "E": time} | ({"T": time} if venue == USDM else {}) | {"s": name}
    ids = {"U": pl.col("pu") + 1, "u": update} | ({"pu": pl.col("pu")} if venue == USDM else {})
    diffs = known.filter(is_new & ~pl.col("is_first")).select(
        "at",
        "place",
        kind=pl.lit(DEPTH, pl.UInt8),
        data=_object({**head, **ids, "b": _changes("bid"), "a": _changes("ask")}),
    )
    times = {"E": time, "T": time} if venue == USDM else {}
    snapshots = known.filter(is_new & (pl.col("is_first") | pl.col("is_break"))).select(
        "at",
        "place",
        kind=pl.lit(SNAPSHOT, pl.UInt8),
        data=_object({"lastUpdateId": update, **times, "bids": _levels("bid"), "asks": _levels("ask")}),
    )
    messages = pl.concat([diffs, snapshots]).sort("place", maintain_order=True)
    return messages.select("at", "kind", id=pl.lit(None, pl.Int64), data="data"), carried


def _changes(side: str) -> pl.Expr:
    """Return the levels of a side that are new, have another size, or (size 0) are gone."""
    changed, gone = [], []
    for level in _LEVELS:
        price, size = f"{side}_price_{level}", f"{side}_size_{level}"
        is_same = pl.any_horizontal(
            (pl.col(price) == pl.col(f"last_{side}_price_{j}")) & (pl.col(size) == pl.col(f"last_{side}_size_{j}"))
            for j in _LEVELS
        )
        changed.append(pl.when(~is_same.fill_null(value=False)).then(_level(price, pl.col(size))))
        is_there = pl.any_horizontal(pl.col(f"last_{price}") == pl.col(f"{side}_price_{j}") for j in _LEVELS)
        gone.append(pl.when(~is_there.fill_null(value=False)).then(_level(f"last_{price}", pl.lit("0"))))
    return _array([*changed, *gone])


def _levels(side: str) -> pl.Expr:
    return _array([_level(f"{side}_price_{level}", pl.col(f"{side}_size_{level}")) for level in _LEVELS])


def _level(price: str, size: pl.Expr) -> pl.Expr:
    """Return `["price","size"]`, null where there is no such level."""
    parts = (pl.lit('["'), pl.col(price).cast(pl.String), pl.lit('","'), size.cast(pl.String), pl.lit('"]'))
    return pl.concat_str(*parts)


def _array(items: list[pl.Expr]) -> pl.Expr:
    return pl.concat_str(pl.lit("["), pl.concat_str(items, separator=",", ignore_nulls=True), pl.lit("]"))


def _object(fields: Mapping[str, pl.Expr]) -> pl.Expr:
    parts: list[pl.Expr] = []
    for position, (name, value) in enumerate(fields.items()):
        parts += [pl.lit(f'{"," if position else "{"}"{name}":'), value.cast(pl.String)]
    return pl.concat_str([*parts, pl.lit("}")])


def _quoted(text: str) -> pl.Expr:
    return pl.lit(f'"{text}"')


def _text(column: str) -> pl.Expr:
    return pl.concat_str(pl.lit('"'), pl.col(column), pl.lit('"'))


def _event_time(rows: pl.DataFrame, shift: Shift) -> pl.Expr:
    return _time(rows["ts_event"].to_physical(), pl.col("ts_event").to_physical() + shift.time_ns)


def _time(recorded_ns: pl.Series, ns: pl.Expr) -> pl.Expr:
    return ns // (1_000 if (recorded_ns % 1_000_000 != 0).any() else 1_000_000)
