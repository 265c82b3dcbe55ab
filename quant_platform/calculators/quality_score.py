"""How well an order was executed, as one score, and how the score moves from day to day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from quant_platform.calculators import _normal, _student_t
from quant_platform.calculators.execution_quality import (
    SPREADS,
    finite,
    in_order,
    is_filled,
    is_order,
    ok_or_no_data,
    spread_quality,
    time_to_fill,
)
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import Status
from quant_platform.contracts.scorecards import Dimension, OrderQuality, QualityTrend

Array = npt.NDArray[Any]

LOOKBACK_SESSIONS = 20

_NS = 1_000_000_000
_DIGITS = 9  # a fill rate is rounded before it is held against 1, which sums of fills miss by their last bits
_PARTS = ("cost", "fill_rate", "e_over_q", "markout", "time_to_fill")


@dataclass(frozen=True, kw_only=True)
class QualityParams:
    """What makes up the score, and what its references and its trend need.

    Attributes:
        cost_weight: Of the cost against arrival, held against the symbol's earlier orders.
        fill_rate_weight: Of the fill rate, held against 1.
        e_over_q_weight: Of effective ÷ quoted spread, held against 1, which pays the quote.
        markout_weight: Of the markout after 5 s, held against 0, in quoted spreads.
        time_to_fill_weight: Of the time to fill, held against the median of the symbol's earlier orders.
        min_samples: Earlier orders of a symbol below which it has no reference.
        trend_days: Calendar days, the newest included, that a trend looks back.
        min_trend_days: Days with scores below which there is no trend.
        confidence: Of intervals.
    """

    cost_weight: float = 0.4
    fill_rate_weight: float = 0.2
    e_over_q_weight: float = 0.15
    markout_weight: float = 0.15
    time_to_fill_weight: float = 0.1
    min_samples: int = 30
    trend_days: int = 20
    min_trend_days: int = 5
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not (isfinite(weight) and weight > 0):
                raise ValueError(f"{name}_weight must be > 0 and finite, was {weight}")
        if self.min_samples < 2:
            raise ValueError(f"min_samples must be >= 2, was {self.min_samples}")
        if not 3 <= self.min_trend_days <= self.trend_days:
            raise ValueError(
                f"3 <= min_trend_days <= trend_days must hold, were {self.min_trend_days} and {self.trend_days}"
            )
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must be between 0 and 1, was {self.confidence}")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each part."""
        return {part: getattr(self, f"{part}_weight") for part in _PARTS}


_DEFAULTS = QualityParams()


def order_quality(
    orders: pl.DataFrame, fills: pl.DataFrame, earlier: pl.DataFrame, params: QualityParams = _DEFAULTS
) -> pl.DataFrame:
    """Return how well each order was executed.

    A score is the mean, by their weights, of the parts that are known. Each part is in [0, 1] by a smooth law of its
    own, so that nothing is cut off, and has its own reference:

    - cost: Φ(-z), where z is the cost against arrival less the mean of the symbol's earlier orders, in their standard
      deviations (ddof 1). The reference is the symbol's, not the algo's, which would be held against itself.
    - fill rate: itself; the reference is 1. An overfilled order has none.
    - E/Q: Φ(1 - E/Q): 0.5 where the order paid the quote, 0.84 at the mid.
    - markout: Φ(markout after 5 s ÷ quoted spread): 0.5 where the price did not move.
    - time to fill: 2^(-time ÷ median) of orders that were filled, with the Kaplan–Meier median of the symbol's earlier
      orders: 0.5 at that median.

    Args:
        orders: `order_id ts_event ts_done ts_last_fill symbol strategy algo broker quantity filled_quantity
            arrival_cost_bps ts_known` of contract `TcaOrder`, one row an order, any row order.
        fills: `order_id ts_known` and what `spread_quality` reads of contract `TcaFill`, each fill once.
        earlier: The columns of `orders` that references are made of, `symbol ts_event ts_done ts_last_fill quantity
            filled_quantity arrival_cost_bps`, of `LOOKBACK_SESSIONS` sessions before: references are frozen at the
            open, and no order is its own.
        params: Weights, and what a reference needs.

    Returns:
        Contract `OrderQuality`, by ts_event and order_id. Status `invalid_input` where the quantities are no numbers,
        and nothing is scored.
    """
    averages = (*SPREADS, "e_over_q", "price_improvement_bps")
    spreads = spread_quality(fills, ["order_id"]).select("order_id", *averages)
    known = fills.group_by("order_id").agg(fills_known=pl.col("ts_known").max())
    rows = (
        _timed(orders)
        .with_columns(finite())
        .join(spreads, on="order_id", how="left")
        .join(known, on="order_id", how="left")
        .join(_references(earlier, params), on="symbol", how="left")
        .with_columns(
            pl.when(pl.col("quantity") > 0).then("quantity"),
            pl.when(pl.col("filled_quantity") >= 0).then("filled_quantity"),
            fill_rate=pl.when("is_valid").then(pl.col("filled_quantity") / pl.col("quantity")),
            cost_z=(pl.col("arrival_cost_bps") - pl.col("cost_mean")) / pl.col("cost_std"),
        )
    )
    return (
        rows.with_columns(_parts(rows))
        .with_columns(finite())
        .with_columns(**_score(params))
        .with_columns(
            ts_known=pl.max_horizontal("ts_known", "fills_known"),
            status=pl.when(pl.col("is_valid"))
            .then(ok_or_no_data(pl.col("score").is_not_null()))
            .otherwise(pl.lit(Status.INVALID_INPUT)),
        )
        .sort("ts_event", "order_id")
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(OrderQuality).items())
    )


def quality_trend(scores: pl.DataFrame, keys: Sequence[str], params: QualityParams = _DEFAULTS) -> pl.DataFrame:
    """Return how the mean score of a day has moved over the last days.

    Args:
        scores: The keys, the trading `date`, and `score`, one row an order, any row order. Days are counted back from
            the newest date of all groups, so that all look back to the same date.
        keys: Columns that tell groups apart.
        params: How far it looks back, and what it needs.

    Returns:
        The keys, `days` with a score, `score` = their mean, `slope_per_day` of the least-squares line through the days'
        means, each day one vote, and `slope_low slope_high`, Student's interval. Null, `too_few`, below
        `min_trend_days`.
    """
    score, x, y = pl.col("score"), pl.col("x"), pl.col("y")
    oldest = pl.col("date").max() - pl.duration(days=params.trend_days)
    daily = (
        in_order(scores.filter(pl.col("date") > oldest), [*keys, "date", "score"])
        .group_by(*keys, "date", maintain_order=True)
        .agg(pl.when(score.is_finite()).then(score).mean())
        .with_columns(x=pl.when(score.is_not_null()).then(pl.col("date").to_physical()))
        .with_columns(x=x - x.mean().over(*keys), y=score - score.mean().over(*keys))
    )
    lines = daily.group_by(*keys, maintain_order=True).agg(
        days=score.count().cast(pl.Int64),
        score=score.mean(),
        slope_per_day=(x * y).sum() / (x * x).sum(),
        squares=(x * x).sum(),
        residual=((y - x * (x * y).sum() / (x * x).sum()) ** 2).sum(),
    )
    degrees = lines.get_column("days") - 2
    reach = pl.lit(pl.Series(_student_t.critical(params.confidence, degrees.to_numpy()), dtype=pl.Float64))
    half = reach * (pl.col("residual") / (pl.col("days") - 2) / pl.col("squares")).sqrt()
    is_enough = pl.col("days") >= params.min_trend_days
    slope = pl.col("slope_per_day")
    return (
        lines.with_columns(slope_low=slope - half, slope_high=slope + half)
        .with_columns(
            pl.when(is_enough).then(pl.col("score", "slope_per_day", "slope_low", "slope_high")),
            status=pl.when(is_enough).then(pl.lit(Status.OK)).otherwise(pl.lit(Status.TOO_FEW)),
        )
        .select(*keys, "days", "score", "slope_per_day", "slope_low", "slope_high", "status")
    )


def trends(scores: pl.DataFrame, date: Date, params: QualityParams = _DEFAULTS) -> pl.DataFrame:
    """Return the trend of each strategy's and each algo's score.

    Args:
        scores: `strategy algo score ts_known` of contract `OrderQuality` and the trading `date`, of that date and those
            before it, any number of symbols, any row order.
        date: The trading date that the trends end with.
        params: As for `quality_trend`.

    Returns:
        Contract `QualityTrend`, by dimension and member, null first.
    """
    dimensions = (Dimension.ALGO, Dimension.STRATEGY)
    keys = ["dimension", "member"]
    rows = pl.concat(
        scores.select("date", "score", "ts_known", dimension=pl.lit(str(one)), member=str(one)) for one in dimensions
    )
    known = rows.group_by(keys).agg(pl.col("ts_known").max())
    return (
        quality_trend(rows, keys, params)
        .join(known, on=keys, how="left", nulls_equal=True)
        .with_columns(date=pl.lit(date))
        .sort(QualityTrend.sorted_by)
        .select(polars_schema(QualityTrend).names())
    )


def _timed(orders: pl.DataFrame) -> pl.DataFrame:
    """Return the orders with `is_valid is_filled duration_s`, the last two null where they cannot be told."""
    ended = pl.when("is_filled").then("ts_last_fill").otherwise("ts_done")
    duration = (ended - pl.col("ts_event")).dt.total_nanoseconds() / _NS
    return orders.with_columns(is_valid=is_order(), is_filled=pl.when(is_order()).then(is_filled())).with_columns(
        duration_s=pl.when("is_valid", duration >= 0).then(duration)
    )


def _references(earlier: pl.DataFrame, params: QualityParams) -> pl.DataFrame:
    """Return `symbol cost_mean cost_std median_s`, each null where the symbol has too few orders for it."""
    cost = pl.col("arrival_cost_bps")
    costs = (
        in_order(earlier.filter(cost.is_finite()), ["symbol", "arrival_cost_bps"])
        .group_by("symbol")
        .agg(pl.len(), cost_mean=cost.mean(), cost_std=cost.std(), spread=cost.max() - cost.min())
        .filter((pl.col("len") >= params.min_samples) & (pl.col("spread") > 0))
    )
    times = time_to_fill(_timed(earlier), ["symbol"]).filter(
        pl.col("filled") + pl.col("censored") >= params.min_samples
    )
    return costs.select("symbol", "cost_mean", "cost_std").join(
        times.select("symbol", "median_s"), on="symbol", how="full", coalesce=True
    )


def _parts(rows: pl.DataFrame) -> list[pl.Series]:
    """Return the score of each part of valid orders; NaN where it cannot be told."""

    def of(column: str) -> Array:
        return rows.get_column(column).cast(pl.Float64).to_numpy()  # null is NaN

    rate, quoted, median = np.round(of("fill_rate"), _DIGITS), of("quoted_spread_bps"), of("median_s")
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        parts = {
            "cost": _share_below(-of("cost_z")),
            "fill_rate": np.where(rate <= 1, rate, np.nan),
            "e_over_q": _share_below(1 - of("e_over_q")),
            "markout": np.where(quoted > 0, _share_below(of("markout_5s_bps") / quoted), np.nan),
            "time_to_fill": np.where(
                (of("is_filled") == 1) & (median > 0), np.exp2(-of("duration_s") / median), np.nan
            ),
        }
    is_valid = rows.get_column("is_valid").to_numpy()
    return [pl.Series(f"{name}_score", np.where(is_valid, part, np.nan)) for name, part in parts.items()]


def _share_below(z: Array) -> Array:
    """Return Φ(z)."""
    return _normal.distribution(z, _normal.density(z))


def _score(params: QualityParams) -> dict[str, pl.Expr]:
    """Return the mean of the parts that are known by their weights, and the share of all weights that these have."""
    known = pl.sum_horizontal(pl.col(f"{name}_score").is_not_null() * weight for name, weight in params.weights.items())
    total = pl.sum_horizontal(pl.col(f"{name}_score") * weight for name, weight in params.weights.items())
    return {"score": pl.when(known > 0).then(total / known), "score_weight": known / sum(params.weights.values())}
