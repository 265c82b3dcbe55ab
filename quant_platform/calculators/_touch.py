"""The touch of books and quotes, update by update, as arrays. What it says is the calculators' part."""

import numpy as np
import polars as pl

from quant_platform.calculators._tape import Array, BySymbol, in_order, integers

TOUCH = ("bid_price", "bid_size", "ask_price", "ask_size")

_KEY = ("symbol", "ts_event", "sequence")


def updates(books: pl.DataFrame, seen: BySymbol) -> tuple[pl.DataFrame, Array, list[str]]:
    """Return the new updates in order, where each symbol begins, and its name.

    Args:
        books: Contract `Book` or `Quote`, any row order.
        seen: Facts with at least `SEEN`; an update that is not later is left out.

    Returns:
        `place` (the row in `books`), key, `ts_recv` and `TOUCH`, without rows that lack a part of the key and without
        the second of two with the same key.

    Raises:
        ValueError: An update has no `ts_recv`.
    """
    level = "_1" if "bid_price_1" in books.columns else ""
    touch = (pl.col(name + level).alias(name) for name in TOUCH)
    rows = books.select(*_KEY, "ts_recv", *touch).rechunk().with_row_index("place")
    if any(rows.get_column(name).null_count() for name in _KEY):
        rows = rows.drop_nulls(_KEY)
    rows, starts, symbols = in_order(rows, "sequence", seen)
    if missing := rows.get_column("ts_recv").null_count():
        raise ValueError(f"ts_recv is null in {missing} updates of the book; the lake's scan fills it.")
    return *distinct(rows, starts, "sequence"), symbols


def distinct(rows: pl.DataFrame, starts: Array, tie: str) -> tuple[pl.DataFrame, Array]:
    """Return rows in order without the second of two with the same symbol, ts_event and tie, and the new starts."""
    ts, ties = integers(rows, "ts_event"), integers(rows, tie)
    is_repeated = np.zeros(len(ts), bool)
    np.equal(ties[1:], ties[:-1], out=is_repeated[1:])
    at = np.flatnonzero(is_repeated)
    is_repeated[at] = ts[at] == ts[at - 1]
    is_repeated[starts] = False
    if is_repeated.any():
        rows, starts = rows.filter(~is_repeated), starts - np.cumsum(is_repeated)[starts]
    return rows, starts


def figures(columns: pl.DataFrame) -> Array:
    """Return prices and sizes as an array in which a null is NaN, and a NaN is -1: no number either, but there."""
    values = columns.to_numpy()
    return columns.with_columns(pl.all().fill_nan(-1.0)).to_numpy() if np.isnan(values).any() else values


def is_bad_price(prices: Array) -> Array:
    """Return which of the `figures` are no prices."""
    is_bad: Array = (prices <= 0) | (prices == np.inf)
    return is_bad


def is_bad_size(sizes: Array) -> Array:
    """Return which of the `figures` are no sizes."""
    is_bad: Array = (sizes < 0) | (sizes == np.inf)
    return is_bad
