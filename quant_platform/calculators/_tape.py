"""What a fold over a tape stands on: usable rows in order, none folded before, and facts kept by symbol between chunks.

What the rows say is the calculators' part. Windows of a symbol's last trades are in `_trade_windows`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]
SEEN: Mapping[str, Any] = {"last_ts": np.iinfo(np.int64).min, "last_tie": np.iinfo(np.int64).min}
"""How far each symbol's tape was folded: integer UTC ns, and the id or sequence that orders rows of one instant."""

_POSITIVE = ("price", "size")
_REQUIRED = ("symbol", "ts_event", "trade_id", "aggressor")
_BLOCK_ROWS = 16_384
_STRIDE = 64


class Ordered(NamedTuple):
    """Rows by symbol and time, the place of each symbol's first row, and the symbols."""

    rows: pl.DataFrame
    starts: Array
    symbols: list[str]


@dataclass(frozen=True)
class BySymbol:
    """Facts of each symbol.

    Attributes:
        places: Where a symbol is in each array.
        facts: One array a fact, the symbols along its first axis.
        blank: The facts of a symbol that has none yet.
    """

    places: Mapping[str, int]
    facts: Mapping[str, Array]
    blank: Mapping[str, Any]

    @classmethod
    def empty(cls, blank: Mapping[str, Any]) -> Self:
        """Return a table without a symbol."""
        return cls({}, {name: np.array([fact])[:0] for name, fact in blank.items()}, blank)

    def including(self, symbols: Sequence[str]) -> Self:
        """Return the table with blank facts of the symbols that it lacks."""
        new = [symbol for symbol in symbols if symbol not in self.places]
        if not new:
            return self
        places = {**self.places, **{symbol: len(self.places) + k for k, symbol in enumerate(new)}}
        facts = {
            name: np.concatenate([values, np.full((len(new), *values.shape[1:]), self.blank[name], values.dtype)])
            for name, values in self.facts.items()
        }
        return type(self)(places, facts, self.blank)

    def at(self, symbols: Sequence[str]) -> Array:
        """Return the places of symbols that are in the table."""
        return np.fromiter(map(self.places.__getitem__, symbols), np.int64, len(symbols))

    def changed(self, places: Array | slice, facts: Mapping[str, Any]) -> Self:
        """Return the table with other facts at these places."""
        new = {name: self.facts[name].copy() for name in facts}
        for name, values in facts.items():
            new[name][places] = values
        return type(self)(self.places, {**self.facts, **new}, self.blank)

    def replaced(self, symbols: Sequence[str], other: Self) -> Self:
        """Return the table with another one's facts of these symbols, blank where it has none; places stay."""
        table = (self if self.places else type(self).empty(other.blank)).including(symbols)
        known = [symbol for symbol in symbols if symbol in other.places]
        blank = type(self).empty(table.blank).including(symbols)
        table = table.changed(table.at(symbols), blank.facts)
        facts = {name: values[other.at(known)] for name, values in other.facts.items()}
        return table.changed(table.at(known), facts) if known else table


def usable_trades(trades: pl.DataFrame) -> pl.DataFrame:
    """Return the trades whose price and size are finite and > 0, and that have a symbol, time, id and aggressor."""
    nulls = trades.null_count().row(0, named=True)
    is_usable = [
        *(pl.col(name).is_not_null() for name in _REQUIRED if nulls[name]),
        *(
            pl.col(name).is_finite() & (pl.col(name) > 0)
            for name in _POSITIVE
            if not is_positive(trades.get_column(name))
        ),
    ]
    trades = trades.filter(*is_usable) if is_usable else trades
    return trades if trades.schema["symbol"] == pl.String else trades.cast({"symbol": pl.String})


def in_order(rows: pl.DataFrame, tie: str, seen: BySymbol) -> Ordered:
    """Return the rows by (symbol, ts_event, tie) that come after those seen.

    Args:
        rows: No null in symbol, ts_event and tie.
        tie: The column that orders rows of one symbol and instant.
        seen: Facts with at least `SEEN`.
    """
    starts, symbols = symbol_starts(rows)
    if not _is_in_order(rows, starts, symbols, tie):
        rows = rows.sort("symbol", "ts_event", tie, maintain_order=True)
        starts, symbols = symbol_starts(rows)
    known = seen.including(symbols)
    last_ts, last_tie = (known.facts[name][known.at(symbols)] for name in SEEN)
    ts, ties = integers(rows, "ts_event"), integers(rows, tie)
    if not _is_folded(ts[starts], ties[starts], last_ts, last_tie).any():
        return Ordered(rows, starts, symbols)
    counts = np.diff(starts, append=len(ts))
    rows = rows.filter(~_is_folded(ts, ties, np.repeat(last_ts, counts), np.repeat(last_tie, counts)))
    return Ordered(rows, *symbol_starts(rows))


def symbol_starts(rows: pl.DataFrame) -> tuple[Array, list[str]]:
    """Return the place of each symbol's first row, and the symbol; rows stand together by symbol."""
    is_one = (pl.col("symbol") == pl.col("symbol").first()).all()
    if rows.height and rows.select(is_one).item():  # a name that is not laid out for every row stays so
        return np.zeros(1, np.int64), rows.select(pl.col("symbol").first()).to_series().to_list()
    names, counts = symbol_runs(rows.get_column("symbol"))
    return np.cumsum(counts) - counts, names.to_list()


def symbol_runs(symbols: pl.Series) -> tuple[pl.Series, Array]:
    """Return the symbol of each run of rows with one symbol, and how many rows it has."""
    rows = len(symbols)
    if symbols.is_empty() or (symbols[0] == symbols[-1] and _is_constant(symbols)):
        return symbols.head(1), np.full(min(rows, 1), rows)
    if symbols.flags["SORTED_ASC"]:  # between two equal symbols all are equal
        sparse = np.append(np.arange(0, rows, _STRIDE), rows - 1)
        spread = symbols[sparse]
        differ = np.flatnonzero((spread[1:] != spread[:-1]).to_numpy())
        at = rows_of(sparse[differ], sparse[differ + 1])
        starts = at[(symbols[at] != symbols[at + 1]).to_numpy()] + 1
    else:
        starts = (symbols[1:] != symbols[:-1]).arg_true().to_numpy().astype(np.int64) + 1
    starts = np.append(0, starts)
    return symbols[starts], np.diff(starts, append=rows)


def is_positive(column: pl.Series) -> bool:
    """Say whether a column has rows, and all are finite and > 0."""
    if column.null_count() or column.is_empty():
        return False
    return bool(((column > 0) & (column < np.inf)).all())  # a NaN counts as more than any number


def framed(columns: Mapping[str, Array | pl.Series]) -> pl.DataFrame:
    """Return columns as a frame, with null for NaN; given arrays at once, Polars would first start threads for them."""
    return pl.DataFrame([pl.Series(name, values, nan_to_null=True) for name, values in columns.items()])


def last_rows(starts: Array, rows: int) -> Array:
    """Return the place of each symbol's last row."""
    return np.append(starts[1:], rows)[: len(starts)] - 1


def integers(rows: pl.DataFrame, column: str) -> Array:
    """Return a column of integers or times without nulls, as integers."""
    values: Array = rows.get_column(column).to_numpy().view(np.int64)
    return values


def blocks(rows: int) -> Iterator[slice]:
    """Yield slices so short that what is computed in one stays in a core's cache, and memory is used again."""
    yield from (slice(start, min(start + _BLOCK_ROWS, rows)) for start in range(0, rows, _BLOCK_ROWS))


def rows_of(start: Array, stop: Array) -> Array:
    """Return the rows of each range, one range after the other."""
    length = stop - start
    rows: Array = np.arange(length.sum()) + np.repeat(stop - np.cumsum(length), length)
    return rows


def first_at(values: Array, bounds: Array, low: Array, high: Array) -> Array:
    """Return the first place in each range [low, high) whose value is not below a bound, `high` where there is none.

    Values are sorted within each range: all ranges are bisected at once.
    """
    while (is_open := low < high).any():
        middle = (low + high) // 2
        is_below = is_open & (values[np.minimum(middle, len(values) - 1)] < bounds)
        low, high = np.where(is_below, middle + 1, low), np.where(is_below, high, middle)
    return low


def _is_in_order(rows: pl.DataFrame, starts: Array, symbols: Sequence[str], tie: str) -> bool:
    if any(later <= symbol for symbol, later in pairwise(symbols)):
        return False
    ts, ties = integers(rows, "ts_event"), integers(rows, tie)
    for block in blocks(len(ts) - 1):
        after = slice(block.start + 1, block.stop + 1)
        falls = np.flatnonzero((ts[after] < ts[block]) | (ties[after] < ties[block])) + after.start
        back = falls[ts[falls] <= ts[falls - 1]]
        if (starts[np.searchsorted(starts, back, side="right") - 1] < back).any():
            return False
    return True


def _is_constant(symbols: pl.Series) -> bool:
    return symbols.flags["SORTED_ASC"] or bool((symbols == symbols[0]).all())


def _is_folded(ts: Array, ties: Array, last_ts: Array, last_tie: Array) -> Array:
    folded: Array = (ts < last_ts) | ((ts == last_ts) & (ties <= last_tie))
    return folded
