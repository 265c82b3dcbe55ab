"""Frames as a page takes them: the declared columns, in order, without what JSON cannot say."""

from collections.abc import Sequence

import polars as pl


def shaped(frame: pl.DataFrame, schema: pl.Schema, order: Sequence[str], *, of: str) -> pl.DataFrame:
    """Return the declared columns, sorted, with null in place of NaN and infinity.

    Args:
        frame: At least the declared columns, unless it has no rows.
        schema: What is declared.
        order: Columns to sort by.
        of: The frame's name, for messages.

    Raises:
        ValueError: A declared column is missing.
    """
    if frame.is_empty():
        return schema.to_frame()
    absent = [column for column in schema if column not in frame.columns]
    if absent:
        raise ValueError(f"The frame {of} lacks: {', '.join(absent)}.")
    reals = [column for column, dtype in schema.items() if dtype == pl.Float64]
    return (
        frame.select(pl.col(column).cast(dtype) for column, dtype in schema.items())
        .with_columns(pl.when(pl.col(column).is_finite()).then(pl.col(column)).alias(column) for column in reals)
        .sort(order)
    )
