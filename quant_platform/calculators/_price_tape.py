"""Prices of all symbols in the order of time: what was known at an instant, and averages over windows.

Which prices those are, mids or trades, and what they are compared with, is the business of the calculators.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import polars as pl

from quant_platform.calculators._prevailing_quotes import NO_QUOTES, new_quotes
from quant_platform.calculators._range_totals import first_beyond, maxima, range_totals, sums, tree
from quant_platform.calculators._tape import (
    SEEN,
    Array,
    BySymbol,
    Ordered,
    in_order,
    integers,
    last_rows,
    usable_trades,
)
from quant_platform.calculators._timeline import Timeline
from quant_platform.calculators._touch import distinct

NEVER = int(np.iinfo(np.int64).min)
"""The receipt of nothing: earlier than any."""

_TRADE_COLUMNS = ("symbol", "ts_event", "ts_recv", "trade_id", "price", "size", "aggressor")
_UNSEEN = BySymbol.empty(SEEN)


class Found(NamedTuple):
    """One price a question, NaN where there is none, and the latest receipt of what it was read from."""

    price: Array
    known: Array

    def where(self, is_kept: Array, other: "Found") -> "Found":
        """Return what is kept, and the other's answers for the rest."""
        return Found(np.where(is_kept, self.price, other.price), np.where(is_kept, self.known, other.known))


@dataclass(frozen=True)
class PriceTape:
    """Prices by symbol and time. A tape without rows has one price of NaN, which no instant finds.

    Attributes:
        timeline: Where instants fall.
        ts: Integer UTC ns.
        recv: Receipt of each, integer UTC ns.
        price: > 0.
        size: Base units; of mids, nothing.
    """

    timeline: Timeline
    ts: Array
    recv: Array
    price: Array
    size: Array

    @classmethod
    def of(cls, ordered: Ordered, price: Array, size: Array) -> Self:
        """Return the tape of rows in order.

        Raises:
            ValueError: The symbols and times are more than 63 bits can order.
        """
        rows, starts, symbols = ordered
        ts, recv = integers(rows, "ts_event"), integers(rows, "ts_recv")
        timeline = Timeline.of(ts, starts, symbols)
        if rows.is_empty():
            ts = recv = np.array([NEVER])
            price = size = np.array([np.nan])
        return cls(timeline, ts, recv, price, size)

    def last(self, place: Array, instants: Array) -> Array:
        """Return the row of the last price at or before each instant, -1 where there is none."""
        row = self.timeline.rows_until(place, instants) - 1
        return np.where(row >= self.timeline.begin(place), row, -1)

    def at(self, row: Array) -> Found:
        """Return the price of each row; row -1 has none."""
        is_found = row >= 0
        return Found(np.where(is_found, self.price[row], np.nan), np.where(is_found, self.recv[row], NEVER))

    def reaches(self, place: Array, instants: Array) -> Array:
        """Say whether the symbol's tape goes on at or after each instant."""
        last = self.timeline.end(place) - 1
        is_reached: Array = (last >= self.timeline.begin(place)) & (self.ts[last] >= instants)
        return is_reached

    def volume_average(self, start: Array, stop: Array) -> tuple[Array, Found]:
        """Return the volume of each range of rows, and its volume-weighted price."""
        arrays = [sums(self.size), sums(self._values), maxima(self.recv)]
        volume, value, known = range_totals(arrays, start, stop)
        price = np.divide(value, volume, out=np.full(len(start), np.nan), where=volume > 0)
        return volume, Found(price, known)

    def time_average(self, place: Array, start: Array, end: Array) -> Found:
        """Return the last known price averaged over each window of time, the one prevailing at its start included.

        NaN where no price is known at the start, and where the window has no length.
        """
        first = self.last(place, start)
        is_found = (first >= 0) & (end > start)
        first = np.where(is_found, first, 0)
        last = np.where(is_found, self.timeline.rows_before(place, end) - 1, 0)
        after = np.minimum(first + 1, last)
        head = self.price[first] * (np.where(last > first, self.ts[after], end) - start)
        tail = np.where(last > first, self.price[last] * (end - self.ts[last]), 0.0)
        between, known = range_totals([sums(self._price_times()), maxima(self.recv)], first + 1, last)
        price = np.divide(head + between + tail, end - start, out=np.full(len(start), np.nan), where=is_found)
        known = np.maximum(known, np.maximum(self.recv[first], self.recv[last]))
        return Found(price, np.where(is_found, known, NEVER))

    def participation(self, start: Array, stop: Array, amount: Array) -> Found:
        """Return the volume-weighted price of the first `amount` in each range of rows; the completing one is split.

        NaN where the range has less than that.
        """
        row, rest = first_beyond(tree(self.size, np.add), start, amount)
        is_over = row >= stop
        is_short = is_over & ((row > stop) | (rest > amount * 1e-12))
        row, rest = np.minimum(row, stop), np.where(is_over, 0.0, rest)
        split = np.minimum(row, len(self.price) - 1)
        value, known = range_totals([sums(self._values), maxima(self.recv)], start, row)
        value = np.where(rest > 0, value + rest * self.price[split], value)
        known = np.where(rest > 0, np.maximum(known, self.recv[split]), known)
        is_found = (amount > 0) & ~is_short
        price = np.divide(value, amount, out=np.full(len(start), np.nan), where=is_found)
        return Found(price, np.where(is_found, known, NEVER))

    @cached_property
    def _values(self) -> Array:
        value: Array = self.price * self.size
        return value

    def _price_times(self) -> Array:
        """Return each price times how long it stood; a symbol's last one has no end, and no window asks for it."""
        stood = np.empty(len(self.ts))
        np.subtract(self.ts[1:], self.ts[:-1], out=stood[:-1])
        stood[last_rows(self.timeline.starts, len(self.ts))] = 0
        stood *= self.price
        return stood


def prints(trades: pl.DataFrame) -> PriceTape:
    """Return the tape of usable trades, a repeated id once: as it was first received.

    Raises:
        ValueError: A trade has no ts_recv, or the symbols and times are more than 63 bits can order.
    """
    columns = usable_trades(trades.select(_TRADE_COLUMNS))
    ordered = in_order(columns, "trade_id", _UNSEEN)
    rows, starts = distinct(ordered.rows, ordered.starts, "trade_id")
    if rows.height < ordered.rows.height:
        ordered = in_order(columns.sort("ts_recv"), "trade_id", _UNSEEN)
        rows, starts = distinct(ordered.rows, ordered.starts, "trade_id")
    price, size = (rows.get_column(name).to_numpy() for name in ("price", "size"))
    return PriceTape.of(_received(Ordered(rows, starts, ordered.symbols)), price, size)


def ordered_quotes(quotes: pl.DataFrame) -> Ordered:
    """Return the usable quotes in order; a side without a size is empty.

    Raises:
        ValueError: A quote has no ts_recv.
    """
    return _received(new_quotes(quotes, NO_QUOTES))


def mids(quotes: Ordered) -> PriceTape:
    """Return the tape of mids: a quote with one side, or a crossed one, has none, and the mid before it stands."""
    has_mid = quotes.rows.select((pl.col("bid_price") <= pl.col("ask_price")).fill_null(value=False)).to_series()
    if not has_mid.all():
        quotes = in_order(quotes.rows.filter(has_mid), "sequence", _UNSEEN)
    mid = (quotes.rows.get_column("bid_price") + quotes.rows.get_column("ask_price")) / 2
    return PriceTape.of(quotes, mid.to_numpy(), np.zeros(0))


def _received(ordered: Ordered) -> Ordered:
    if missing := ordered.rows.get_column("ts_recv").null_count():
        raise ValueError(f"ts_recv is null in {missing} rows of the tape; the lake's scan fills it.")
    return ordered
