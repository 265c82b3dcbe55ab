"""European options as arrays, and why one of them cannot be valued."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from quant_platform.calculators._normal import Array
from quant_platform.contracts.enums import OptionType, Status

_YEAR_NS = 365 * 86_400 * 1_000_000_000


class Options(NamedTuple):
    """Options as arrays of one length, NaN where null; `flag` is +1 of calls, -1 of puts, NaN of anything else."""

    flag: Array
    spot: Array
    strike: Array
    t_years: Array
    rate: Array
    dividend: Array


def years_left() -> pl.Expr:
    """Return the time from `ts_event` to `ts_expiry` in years of 365 days, null where either is."""
    return (pl.col("ts_expiry").to_physical() - pl.col("ts_event").to_physical()) / _YEAR_NS


def european(options: pl.DataFrame) -> Options:
    """Return `type spot strike t_years rate dividend` as arrays."""
    kind = options.get_column("type")
    is_call, is_put = (floats(kind == side) == 1 for side in (OptionType.CALL, OptionType.PUT))
    flag = is_call - is_put.astype(float)
    flag[flag == 0] = np.nan
    return Options(flag, *(floats(options.get_column(name)) for name in Options._fields[1:]))


def floats(values: pl.Series) -> Array:
    """Return the values as floats, NaN where null."""
    return values.cast(pl.Float64).to_numpy()


def picked(values: pl.Series, rows: Array | list[int]) -> pl.Series:
    """Return the values at these rows."""
    return values[pl.Series(rows, dtype=pl.get_index_type())]


def blocks(rows: int, size: int) -> Iterator[slice]:
    """Return slices that cover the rows."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def statuses(options: Options, is_ok: Array, *guards: tuple[Array, Status]) -> pl.Series:
    """Return the column `status`: of each row that is not ok the first reason that holds.

    Args:
        options: What was to be valued.
        is_ok: Which rows were.
        guards: Which rows break a rule of the caller's own, and the status that says so. They come after `expired`,
            `invalid_strike`, `invalid_spot` and `invalid_input`; where nothing holds the status is `nan`.
    """
    bad = np.flatnonzero(~is_ok)
    if not len(bad):
        return pl.Series("status", [Status.OK], dtype=pl.String).new_from_index(0, len(is_ok))
    flag, spot, strike, t_years, rate, dividend = (column[bad] for column in options)
    reasons = [
        (t_years <= 0, Status.EXPIRED),
        (~(np.isfinite(strike) & (strike > 0)), Status.INVALID_STRIKE),
        (~(np.isfinite(spot) & (spot > 0)), Status.INVALID_SPOT),
        (~np.isfinite([flag, t_years, rate, dividend]).all(axis=0), Status.INVALID_INPUT),
        *((is_broken[bad], status) for is_broken, status in guards),
    ]
    codes = np.zeros(len(is_ok), dtype=np.uint8)
    codes[bad] = np.select([holds for holds, _ in reasons], range(2, len(reasons) + 2), default=1)
    words = [Status.OK, Status.NAN, *(status for _, status in reasons)]
    return picked(pl.Series("status", words, dtype=pl.String), codes)
