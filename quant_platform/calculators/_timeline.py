"""Where instants fall among rows by symbol and time, for all symbols at once. What the rows say is not known here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from quant_platform.calculators._tape import Array, last_rows

_MOST = 2**63 - 1


@dataclass(frozen=True)
class Timeline:
    """Rows by symbol and time.

    Attributes:
        places: Each symbol's place in `starts`.
        starts: Where each symbol's rows begin; the last entry is the end, and the place of every other symbol.
        keys: One number a row that orders all by symbol and time.
        low: The earliest time.
        high: The latest time.
        span: How far the keys of one symbol and the next are apart.
    """

    places: Mapping[str, int]
    starts: Array
    keys: Array
    low: int
    high: int
    span: int

    @classmethod
    def of(cls, ts: Array, starts: Array, symbols: Sequence[str]) -> Self:
        """Return the timeline of times sorted within each symbol.

        Raises:
            ValueError: The symbols and times are more than 63 bits can order.
        """
        low = int(ts[starts].min()) if len(ts) else 0
        high = int(ts[last_rows(starts, len(ts))].max()) if len(ts) else 0
        span = high - low + 3
        if high + 2 + len(symbols) * span > _MOST:
            raise ValueError(f"{len(symbols)} symbols over {span} ns are more than can be ordered: take fewer at once")
        keys = ts
        if len(symbols) > 1:
            keys = ts + np.repeat(np.arange(len(symbols)) * span, np.diff(starts, append=len(ts)))
        places = {symbol: place for place, symbol in enumerate(symbols)}
        return cls(places, np.append(starts, len(ts)).astype(np.int64), keys, low, high, span)

    def place(self, symbols: pl.Series) -> Array:
        """Return the place of each symbol; one that has no row here is placed after all others."""
        if len(self.places) == 1:
            is_other: Array = (symbols.cast(pl.String) != next(iter(self.places))).to_numpy()
            return is_other.astype(np.int64)
        known = pl.DataFrame(
            {"symbol": list(self.places), "place": range(len(self.places))},
            schema={"symbol": pl.String, "place": pl.Int64},
        )
        found = symbols.cast(pl.String).to_frame("symbol").join(known, on="symbol", how="left", maintain_order="left")
        place: Array = found.get_column("place").fill_null(len(self.places)).to_numpy()
        return place

    def begin(self, place: Array) -> Array:
        """Return the first row of each symbol."""
        begin: Array = self.starts[place]
        return begin

    def end(self, place: Array) -> Array:
        """Return the row after the last of each symbol."""
        end: Array = self.starts[np.minimum(place + 1, len(self.places))]
        return end

    def rows_before(self, place: Array, instants: Array) -> Array:
        """Return the symbol's first row at or after each instant: all its rows before that are strictly earlier."""
        rows: Array = np.searchsorted(self.keys, self._keys_of(place, instants), side="left")
        return rows

    def rows_until(self, place: Array, instants: Array) -> Array:
        """Return the symbol's first row after each instant: all its rows before that are at or before it."""
        rows: Array = np.searchsorted(self.keys, self._keys_of(place, instants), side="right")
        return rows

    def _keys_of(self, place: Array, instants: Array) -> Array:
        keys: Array = np.clip(instants, self.low - 1, self.high + 1) + place * self.span
        return keys
