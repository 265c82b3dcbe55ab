"""What costs of orders and fills are computed from, on a closed date and an open one: tables, columns, sessions."""

from collections.abc import Sequence
from datetime import date as Date  # noqa: N812  # `date` names parameters here

import polars as pl

from quant_platform.calculators.benchmarks import SESSIONS
from quant_platform.pipeline.sessions import session
from quant_platform.pipeline.units import Work

DECISIONS, ORDERS, FILLS = "execution/decisions", "execution/orders", "execution/fills"
TRADES, QUOTES = "market/trades", "market/quotes"
PRINT = ("ts_event", "ts_recv", "trade_id", "price", "size", "aggressor")
PREVAILING = ("bid_price", "bid_size", "ask_price", "ask_size")
TOUCH = ("ts_event", "ts_recv", "sequence", *PREVAILING)


def sessions(work: Work, *others: Date, is_over: bool = True) -> pl.DataFrame:
    """Return the unit's session, and those of other dates, which are over."""
    windows = [
        (found, is_over or date != work.unit.date)
        for date in sorted({work.unit.date, *others})
        if (found := session(work.calendar, date))
    ]
    rows = [(work.unit.symbol, window.start, window.end, is_done) for window, is_done in windows]
    return pl.DataFrame(rows, SESSIONS, orient="row")


def ticks(rows: pl.LazyFrame, columns: Sequence[str], symbol: str) -> pl.DataFrame:
    """Return these columns of a symbol's ticks; its name is not read from every row.

    Each is in one piece, but for sides of quotes: few rows of them are looked at, and what all are for is computed
    piece by piece.
    """
    read = rows.select(columns).collect()
    # Column by column: two copies of all of them would be most of what a unit needs.
    whole = [read.drop_in_place(name) if name in PREVAILING else read.drop_in_place(name).rechunk() for name in columns]
    return pl.DataFrame(whole).with_columns(symbol=pl.lit(symbol)).set_sorted("symbol")


def has_mid() -> pl.Expr:
    """Return whether a quote has two sides that do not cross."""
    return (pl.col("bid_price") <= pl.col("ask_price")).fill_null(value=False)


def last_mid(work: Work) -> pl.LazyFrame:
    """Return the quote that the session before closed with."""
    return work.earlier(QUOTES).filter(has_mid()).tail(1)
