"""What was expected of decisions, what became of them, and how right the models were that expected it.

What an order has cost is tca's; sums over strategies and symbols are attribution's.
"""

from datetime import date as Date  # noqa: N812  # `date` names parameters here
from datetime import timedelta

import polars as pl

from quant_platform.calculators._figures import bps
from quant_platform.calculators.benchmarks import last_mids, market_mids
from quant_platform.calculators.revisions import current
from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.events_out import (
    DecisionOutcomeAnalysis,
    ExecutionCostPrediction,
    ModelPerformanceFeedback,
    OutcomeReason,
)

LOOKBACK_SESSIONS = 0

_LONGEST_S = 3e9  # beyond it nanoseconds do not fit
_FROZEN = ("expected_cost_bps", "expected_return_bps", "cost_model_id")


def date_end(date: Date) -> pl.Expr:
    """Return the end of a date, UTC."""
    return pl.lit(date + timedelta(days=1)).cast(INSTANT)


def cost_predictions(decisions: pl.DataFrame) -> pl.DataFrame:
    """Return the cost that was expected of each decision when it was made.

    Args:
        decisions: Contract `Decision`, all revisions, any number of symbols, any row order.

    Returns:
        Contract `ExecutionCostPrediction`, by time and id: a row a decision whose first revision expects a cost.
        `expected_cost` = expected_cost_bps ÷ 1e4 x quantity x price, all of that revision.
    """
    told = decisions.sort("decision_id", "revision")
    others = pl.struct("expected_cost_bps", "cost_model_id")
    rows = told.with_columns(is_corrected=(others != others.first()).any().over("decision_id")).unique(
        "decision_id", keep="first", maintain_order=True
    )
    return (
        rows.filter(pl.col("expected_cost_bps").is_not_null())
        .with_columns(
            model_id="cost_model_id",
            expected_cost=pl.col("expected_cost_bps") / 1e4 * pl.col("quantity") * pl.col("price"),
            ts_known="ts_recv",
        )
        .sort(ExecutionCostPrediction.sorted_by)
        .select(polars_schema(ExecutionCostPrediction).names())
    )


def decision_outcomes(
    decisions: pl.DataFrame, orders: pl.DataFrame, *, quotes: pl.DataFrame, ends: pl.DataFrame
) -> pl.DataFrame:
    """Return what became of each decision, against what was expected of it when it was made.

    With side s, the decision's price D, the average fill price P and the mid H at the horizon: realised return
    s·(H - D) ÷ D, return of what was filled s·(H - P) ÷ P. The realised cost is that against arrival, averaged over the
    decision's orders by quantity filled at the arrival mid; their shortfall by quantity x decision price. Expectations
    are those of the first revision, all else is of the highest.

    Args:
        decisions: Contract `Decision`, all revisions, any number of symbols, any row order.
        orders: Contract `TcaOrder`: those that name the decisions, and others, which are left out.
        quotes: Contract `Quote`, from before the first decision to the last horizon.
        ends: `symbol data_end`, one row a symbol: until when the quotes are whole; a later horizon is not reached.

    Returns:
        Contract `DecisionOutcomeAnalysis`, by time and id, a row a decision. A cost is null where that of one of the
        decision's orders is; `reasons` says why values are null.

    Raises:
        ValueError: A quote has no ts_recv.
    """
    frozen = decisions.sort("decision_id", "revision").unique("decision_id", keep="first", maintain_order=True)
    rows = current(decisions, "decision_id").drop(_FROZEN)
    rows = rows.join(frozen.select("decision_id", *_FROZEN), on="decision_id", how="left", maintain_order="left")
    rows = rows.join(_of_orders(orders), on=["decision_id", "symbol"], how="left", maintain_order="left")
    rows = _at_horizon(rows, quotes, ends).with_columns(
        model_id="cost_model_id",
        order_count=pl.col("order_count").fill_null(0),
        is_corrected=(pl.col("revision") > 0) | pl.col("has_correction").fill_null(value=False),
    )
    side, decided, horizon = pl.col("side"), pl.col("price"), pl.col("horizon_price")
    return (
        rows.with_columns(
            excess_cost_bps=pl.col("realised_cost_bps") - pl.col("expected_cost_bps"),
            realised_return_bps=bps(side * (horizon - decided) / decided),
            filled_return_bps=bps(side * (horizon - pl.col("avg_price")) / pl.col("avg_price")),
        )
        .with_columns(return_error_bps=pl.col("realised_return_bps") - pl.col("expected_return_bps"))
        .with_columns(reasons=_reasons(), ts_known=pl.max_horizontal("ts_recv", "orders_known", "horizon_known"))
        .sort(DecisionOutcomeAnalysis.sorted_by)
        .select(polars_schema(DecisionOutcomeAnalysis).names())
    )


def model_feedback(
    predictions: pl.DataFrame, outcomes: pl.DataFrame, assessments: pl.DataFrame, date: Date
) -> pl.DataFrame:
    """Return how right each model of costs was on a date.

    With predicted cost E and realised cost R of a decision: bias is the mean of R - E, the error the mean of |R - E|.
    An interval is that of the model's newest assessment of the decision, made no later than the decision; its ends
    belong to it.

    Args:
        predictions: Contract `ExecutionCostPrediction` of the date; those that name no model are left out.
        outcomes: Contract `DecisionOutcomeAnalysis` of the date.
        assessments: Contract `MarketImpactAssessment`, all revisions.
        date: The trading date.

    Returns:
        Contract `ModelPerformanceFeedback`, by model. Means are null where nothing could be scored.
    """
    given = (
        current(assessments, "event_id")
        .filter(pl.col("decision_id").is_not_null() & pl.col("cost_low_bps").is_not_null())
        .select(
            "decision_id",
            "model_id",
            "cost_low_bps",
            "cost_high_bps",
            "interval_probability",
            ts_assessed="ts_event",
            interval_known="ts_recv",
        )
    )
    rows = predictions.filter(pl.col("model_id").is_not_null()).select(
        "decision_id", "model_id", "ts_event", "expected_cost_bps", "ts_known"
    )
    intervals = (
        rows.join(given, on=["decision_id", "model_id"])
        .filter(pl.col("ts_assessed") <= pl.col("ts_event"))
        .sort("ts_assessed")
        .unique(["decision_id", "model_id"], keep="last")
        .drop("ts_event", "expected_cost_bps", "ts_known", "ts_assessed")
    )
    realised = outcomes.select("decision_id", "realised_cost_bps", outcome_known="ts_known")
    error = pl.col("realised_cost_bps") - pl.col("expected_cost_bps")
    is_judged = pl.col("realised_cost_bps").is_not_null() & pl.col("cost_low_bps").is_not_null()
    is_inside = pl.col("realised_cost_bps").is_between("cost_low_bps", "cost_high_bps")
    is_scored = pl.col("realised_cost_bps").is_not_null()
    return (
        rows.join(realised, on="decision_id", how="left")
        .join(intervals, on=["decision_id", "model_id"], how="left")
        .sort("model_id", "ts_event", "decision_id")
        .group_by("model_id", maintain_order=True)
        .agg(
            predictions=pl.len().cast(pl.Int64),
            scored=is_scored.sum().cast(pl.Int64),
            mean_expected_cost_bps=pl.col("expected_cost_bps").filter(is_scored).mean(),
            mean_realised_cost_bps=pl.col("realised_cost_bps").mean(),
            bias_bps=error.mean(),
            mean_absolute_error_bps=error.abs().mean(),
            intervals=is_judged.sum().cast(pl.Int64),
            inside_share=is_inside.filter(is_judged).mean(),
            interval_probability=pl.col("interval_probability").filter(is_judged).mean(),
            ts_known=pl.max_horizontal("ts_known", "outcome_known", "interval_known").max(),
        )
        .with_columns(date=pl.lit(date), ts_event=date_end(date))
        .select(polars_schema(ModelPerformanceFeedback).names())
    )


def _of_orders(orders: pl.DataFrame) -> pl.DataFrame:
    """Return what the orders of each decision filled and cost together; a sum is null where a part of it is."""
    filled, arrival = pl.col("filled_quantity"), pl.col("arrival_price")

    def of_filled(part: pl.Expr) -> pl.Expr:
        return pl.when(filled == 0).then(0.0).otherwise(part)

    paid = of_filled(pl.col("arrival_cost_bps") * filled * arrival)
    lost = pl.col("shortfall_bps") * pl.col("quantity") * pl.col("decision_price")
    known = orders.filter(pl.col("decision_id").is_not_null()).sort("ts_event", "order_id")
    return known.group_by("decision_id", "symbol", maintain_order=True).agg(
        order_count=pl.len().cast(pl.Int64),
        filled_quantity=_whole(filled),
        avg_price=_whole(of_filled(filled * pl.col("avg_price"))) / _positive(filled),
        realised_cost_bps=_whole(paid) / _positive(of_filled(filled * arrival)),
        shortfall_bps=_whole(lost) / _positive(pl.col("quantity") * pl.col("decision_price")),
        has_correction=pl.col("has_correction").any(),
        orders_known=pl.col("ts_known").max(),
    )


def _whole(parts: pl.Expr) -> pl.Expr:
    return pl.when(parts.is_not_null().all()).then(parts.sum())


def _positive(parts: pl.Expr) -> pl.Expr:
    return pl.when(parts.sum() > 0).then(_whole(parts))


def _at_horizon(rows: pl.DataFrame, quotes: pl.DataFrame, ends: pl.DataFrame) -> pl.DataFrame:
    horizon_ns = (pl.when(pl.col("horizon_s") <= _LONGEST_S).then("horizon_s") * 1e9).round().cast(pl.Int64)
    rows = rows.join(ends, on="symbol", how="left", maintain_order="left").with_columns(
        ts_horizon=pl.col("ts_event") + horizon_ns.cast(pl.Duration("ns"))
    )
    rows = rows.with_columns(is_reached=(pl.col("ts_horizon") <= pl.col("data_end")).fill_null(value=False))
    moments = rows.select("symbol", ts_event=pl.coalesce("ts_horizon", "ts_event"))
    found = last_mids(moments, market_mids(quotes)).select("mid_price", mid_known="ts_known")
    used = pl.when("is_reached")
    return rows.hstack(found).with_columns(
        horizon_price=used.then("mid_price"),
        horizon_known=used.then(pl.max_horizontal("mid_known", "ts_horizon")),
    )


def _reasons() -> pl.Expr:
    has_orders, has_fill = pl.col("order_count") > 0, pl.col("avg_price").is_not_null()
    has_horizon = pl.col("ts_horizon").is_not_null()
    words = {
        OutcomeReason.NO_PRICE: pl.col("price").is_null(),
        OutcomeReason.NO_HORIZON: ~has_horizon,
        OutcomeReason.DATA_END: has_horizon & ~pl.col("is_reached"),
        OutcomeReason.NO_QUOTE: pl.col("is_reached") & pl.col("horizon_price").is_null(),
        OutcomeReason.NO_EXPECTED_COST: pl.col("expected_cost_bps").is_null(),
        OutcomeReason.NO_ORDER: ~has_orders,
        OutcomeReason.NOTHING_FILLED: has_orders & (pl.col("filled_quantity") == 0).fill_null(value=False),
        OutcomeReason.NO_COST: has_orders
        & (has_fill | pl.col("filled_quantity").is_null())
        & pl.col("realised_cost_bps").is_null(),
    }
    told = [pl.when(is_so).then(pl.lit(word)) for word, is_so in words.items()]
    return pl.concat_str(told, separator=",", ignore_nulls=True)
