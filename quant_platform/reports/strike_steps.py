"""Strikes near the price of the underlying, gathered into even steps: as much of a chain as a plot can show."""

from collections.abc import Iterable

import polars as pl

REACH = 0.2
"""Strikes farther from the price than this share of it are not shown."""

_STEPS = 60
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_DIGITS = 9  # a step that is round up to its last bits is round


def by_steps(rows: pl.LazyFrame, spots: pl.LazyFrame, *, by: Iterable[str] = (), values: Iterable[str]) -> pl.LazyFrame:
    """Return sums over the strikes that are next to one multiple of a round step.

    Args:
        rows: `symbol strike`, `by` and `values`; any number of symbols, any row order.
        spots: `symbol spot`, a row a symbol; a symbol without a spot above 0 has no rows in the answer.
        by: What is kept apart beside symbol and step, such as `expiry`.
        values: What is summed.

    Returns:
        `symbol strike step`, `by` and `values`, sorted by symbol, `by` and strike. `strike` is the multiple, `step` the
        distance of two of them: round, at least the median distance of the symbol's strikes, and so wide that at most
        61 multiples lie within `REACH`.
    """
    near = rows.join(spots.filter(pl.col("spot") > 0), on="symbol").filter(
        (pl.col("strike") / pl.col("spot") - 1).abs() <= REACH
    )
    steps = (
        near.group_by("symbol")
        .agg(
            least=pl.col("spot").first() * (2 * REACH / _STEPS),
            gap=pl.col("strike").unique().sort().diff().median(),
        )
        .select("symbol", step=_rounded_up(pl.max_horizontal("least", "gap")))
    )
    # Strikes halfway between two multiples all go up: rounded to even they would meet in every other one.
    number = (pl.col("strike") / pl.col("step")).round(_DIGITS).round(mode="half_away_from_zero")
    return (
        near.join(steps, on="symbol")
        .with_columns(strike=number * pl.col("step"))
        .group_by("symbol", *by, "strike", "step")
        .agg(pl.col(list(values)).sum())
        .sort("symbol", *by, "strike")
    )


def _rounded_up(value: pl.Expr) -> pl.Expr:
    scale = pl.lit(10.0).pow(value.log10().floor())
    digits = (value / scale).round(_DIGITS)
    return scale * pl.coalesce(pl.when(digits <= leading).then(leading) for leading in _ROUND)
