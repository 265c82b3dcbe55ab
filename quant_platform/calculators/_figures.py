"""Figures of rows that may be anything: which of them count, in bps, and rows taken by their number."""

import polars as pl

from quant_platform.calculators._tape import Array

_SIDES = (-1, 1)
_BPS = 1e4


def is_positive(name: str) -> pl.Expr:
    """Return whether a column's figure is finite and > 0; no figure is not."""
    return (pl.col(name).is_finite() & (pl.col(name) > 0)).fill_null(value=False)


def is_side() -> pl.Expr:
    """Return whether `side` is +1 or -1."""
    return pl.col("side").is_in(_SIDES).fill_null(value=False)


def known_side() -> pl.Expr:
    """Return `side`, 0 where it is none."""
    return pl.when(is_side()).then("side").otherwise(0).cast(pl.Int8)


def finite(figure: pl.Expr) -> pl.Expr:
    """Return a figure, null where it is NaN or infinite."""
    return pl.when(figure.is_finite()).then(figure)


def bps(share: pl.Expr) -> pl.Expr:
    """Return a share in bps, null where it is NaN or infinite."""
    return finite(share * _BPS)


def taken(rows: pl.DataFrame, row: Array) -> pl.DataFrame:
    """Return rows by their numbers, of which -1 is a row of nulls."""
    return rows[pl.Series(row).replace(-1, None).cast(pl.UInt32)]
