"""Trailing windows of rows within each symbol, and statistics over them that are exact where nothing varies.

What is computed from the windows of one table belongs to that table's calculator. Updating sums are not used: they
keep a residue of what has left the window, so that a constant window would show a standard deviation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


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
