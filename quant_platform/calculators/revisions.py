"""Which revision of a desk's row counts: the highest one there is, or the highest one known at a time."""

from datetime import datetime
from typing import TypeVar

import polars as pl

Rows = TypeVar("Rows", pl.DataFrame, pl.LazyFrame)


def current(rows: Rows, name: str) -> Rows:
    """Return the highest revision of each id, for reports.

    Of equal ones, which only different dates or symbols can hold, the one that was known first counts.

    Args:
        rows: With `revision`, `ts_recv` and the id; any number of symbols, any row order.
        name: The column of the id: `decision_id`, `order_id` or `fill_id`.

    Returns:
        Rows as they were, in the order of (`ts_event`, id).
    """
    ordered = rows.sort(name, "revision", "ts_recv", "ts_event", descending=[False, True, False, False])
    return ordered.unique(name, keep="first", maintain_order=True).sort("ts_event", name)


def as_of(rows: Rows, name: str, at: datetime) -> Rows:
    """Return the highest revision of each id that was known at a time, for training.

    Args:
        rows: As for `current`.
        name: The column of the id.
        at: Rows with `ts_recv` after it are not seen.
    """
    return current(rows.filter(pl.col("ts_recv") <= at), name)
