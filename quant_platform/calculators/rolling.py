"""Trailing windows of rows within each symbol, and statistics over them that are exact where nothing varies.

What is computed from the windows of one table belongs to that table's calculator. Updating sums are not used: they
keep a residue of what has left the window, so that a constant window would show a standard deviation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]

_BLOCK_VALUES = 1 << 16  # bounds the memory of rows x window arrays, whatever the number of symbols
_KEY = ("symbol", "ts_event")


@dataclass(frozen=True)
class Windows:
    """One window a row, oldest value first; a value counts only where `is_present`.

    Attributes:
        values: Rows x width; a view where it can be.
        is_present: Rows x width: whether the value belongs to the row's symbol.
    """

    values: Array
    is_present: Array

    @property
    def count(self) -> Array:
        """Values in each window."""
        count: Array = self.is_present.sum(axis=1)
        return count

    def rows(self, start: int, stop: int) -> "Windows":
        """Return the windows of some rows."""
        return Windows(self.values[start:stop], self.is_present[start:stop])

    def total(self) -> Array:
        """Return the sum of each window, 0 if empty."""
        total: Array = np.where(self.is_present, self.values, 0.0).sum(axis=1)
        return total

    def mean_and_deviations(self, noise: Array | float = 0.0) -> tuple[Array, Array]:
        """Return each window's mean (NaN if empty), and rows x width deviations from it, 0 where not present.

        Args:
            noise: A window whose values differ by no more than this is constant: its deviations are exactly 0.
        """
        newest = self.values[:, -1]
        shifted = np.where(self.is_present, self.values - newest[:, None], 0.0)  # exact zeros if constant
        is_constant = shifted.max(axis=1) - shifted.min(axis=1) <= noise
        shifted[is_constant] = 0.0
        shift = shifted.sum(axis=1) / self.count
        return newest + shift, np.where(self.is_present, shifted - shift[:, None], 0.0)


def trailing(values: Array, rank: Array, width: int) -> Windows:
    """Return for each row the window of the last `width` values of its symbol, itself included.

    Args:
        values: One value a row, rows sorted by symbol and time.
        rank: The value's place among those of its symbol, from 0; negative where the row has none.
        width: Most values in a window.
    """
    padded = np.concatenate([np.zeros(width - 1, dtype=values.dtype), values])
    age = np.arange(width)[::-1]
    return Windows(np.lib.stride_tricks.sliding_window_view(padded, width), age <= rank[:, None])


def standard_deviation(deviations: Array, count: Array) -> Array:
    """Return the standard deviation (ddof 1) of each window; NaN below 2 values."""
    return np.where(count >= 2, np.sqrt((deviations**2).sum(axis=1) / (count - 1)), np.nan)


def z_score(windows: Windows, *, min_samples: int) -> Array:
    """Return (x - mean)/std of the newest value x of each window, which includes x; ddof 1.

    NaN below `min_samples` values, and where the window is constant.
    """
    _, deviations = windows.mean_and_deviations()
    std = standard_deviation(deviations, windows.count)
    return np.where((windows.count >= min_samples) & (std > 0), deviations[:, -1] / std, np.nan)


def history_statistics(
    values: pl.DataFrame | pl.LazyFrame, earlier: pl.DataFrame | pl.LazyFrame, *, window: int, min_samples: int
) -> pl.DataFrame:
    """Return where each value stands in the history of its symbol: the last `window` values, itself included.

    Args:
        values: `symbol ts_event value`, any number of symbols, any row order. The same `ts_event` again is the same
            snapshot of the source, seen by another cycle: it counts once, with the later row's value.
        earlier: The same columns: what lies before, at least the last `window - 1` values of each symbol if there
            are so many. Snapshots that are in `values` too count once.
        window: Most values in a window.
        min_samples: Values below which the z-score is null.

    Returns:
        `symbol ts_event value z_score percentile mean std samples`, one row for each snapshot of `values`, by symbol
        and ts_event. `z_score` = (value - mean)/std; null below `min_samples` and where nothing varies.
        `percentile` is the share of the window at or below the value, in (0, 1]. `std` has ddof 1, null below 2
        values. A value that is null, NaN or infinite is in no window, and its row has 0 samples and nulls.

    Raises:
        ValueError: `window` or `min_samples` is below 1.
    """
    if window < 1 or min_samples < 1:
        raise ValueError(f"window and min_samples must be >= 1, were {window} and {min_samples}")
    value = pl.col("value").cast(pl.Float64)
    given = ((earlier.lazy(), False), (values.lazy(), True))
    snapshots = (
        pl.concat([frame.select(*_KEY, value, pl.lit(is_new).alias("is_new")) for frame, is_new in given])
        .with_columns(pl.when(pl.col("value").is_finite()).then("value"))
        .unique(_KEY, keep="last", maintain_order=True)
        .sort(_KEY)
        .collect(engine="in-memory")
    )
    is_known, is_new = snapshots.get_column("value").is_not_null().to_numpy(), snapshots.get_column("is_new").to_numpy()
    usable = snapshots.get_column("value").to_numpy()[is_known]
    view = np.lib.stride_tricks.sliding_window_view(np.concatenate([np.zeros(window), usable]), window)[1:]
    rank = _rank(snapshots.get_column("symbol").filter(pl.Series(is_known)))
    age = np.arange(window)[::-1]
    new = is_new[is_known].nonzero()[0]
    blocks = np.array_split(new, 1 + len(new) * window // _BLOCK_VALUES)
    columns = [_place_in_history(Windows(view[rows], age <= rank[rows, None]), min_samples) for rows in blocks]
    found = snapshots.filter(pl.Series(is_new)).drop("is_new")
    has_value = is_known[is_new]
    for name in columns[0]:
        statistic = np.full(found.height, 0.0 if name == "samples" else np.nan)
        statistic[has_value] = np.concatenate([block[name] for block in columns])
        statistic[~np.isfinite(statistic)] = np.nan
        column = pl.Series(name, statistic, nan_to_null=True)
        found.insert_column(found.width, column.cast(pl.Int64) if name == "samples" else column)
    return found


def _rank(symbols: pl.Series) -> Array:
    """Return the place of each row among those of its symbol, from 0; rows of one symbol stand together."""
    rows = np.arange(len(symbols))
    is_first = np.ones(len(symbols), dtype=bool)
    is_first[1:] = (symbols[1:] != symbols[:-1]).to_numpy()
    rank: Array = rows - np.maximum.accumulate(np.where(is_first, rows, 0))
    return rank


@np.errstate(all="ignore")  # one value has no deviation, huge ones overflow: null in the end
def _place_in_history(windows: Windows, min_samples: int) -> dict[str, Array]:
    mean, deviations = windows.mean_and_deviations()
    newest = windows.values[:, -1:]
    at_or_below = ((windows.values <= newest) & windows.is_present).sum(axis=1)
    return {
        "z_score": z_score(windows, min_samples=min_samples),
        "percentile": at_or_below / windows.count,
        "mean": mean,
        "std": standard_deviation(deviations, windows.count),
        "samples": windows.count,
    }
