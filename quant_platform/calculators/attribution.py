"""What decisions made on paper, what was lost on the way to the account, and how strategies did: sums over orders.

What an order has cost is tca's; what became of a decision is outcomes'.
"""

from datetime import date as Date  # noqa: N812  # `date` names parameters here

import polars as pl

from quant_platform.calculators.outcomes import date_end
from quant_platform.calculators.scorecards import excess_cost_bps
from quant_platform.calculators.tca import profits
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.events_out import PerformanceAttribution, StrategyPerformance

LOOKBACK_SESSIONS = 0

_WHOLE = 1e-9
_PARTS = {"delay_cost": "delay_bps", "trading_cost": "trading_bps", "opportunity_cost": "opportunity_bps"}
_LOST = ("delay_cost", "trading_cost", "opportunity_cost", "fees")


def performance_attribution(orders: pl.DataFrame, date: Date) -> pl.DataFrame:
    """Return the waterfall from paper profit to realised profit of each strategy and symbol, in money.

    Profits are `tca.profits`. The parts are those of an order's shortfall in bps, each x X·D ÷ 1e4, with what was
    ordered X and the decision's price D.

    Args:
        orders: Contract `TcaOrder` of the date, each once, any row order.
        date: The trading date.

    Returns:
        Contract `PerformanceAttribution`, by strategy and symbol. Orders of which one of the parts is not known are
        counted, and in no sum. See `unreconciled` for how near to 0 `residual` must be.
    """
    sums = ("decided_notional", "paper_pnl", *_LOST, "realised_pnl")
    return (
        _in_money(orders)
        .sort("strategy", "symbol", "ts_event", "order_id")
        .group_by("strategy", "symbol", maintain_order=True)
        .agg(
            pl.col(sums).filter("is_known").sum(),
            orders=pl.col("is_known").sum().cast(pl.Int64),
            unknown_orders=(~pl.col("is_known")).sum().cast(pl.Int64),
            ts_known=pl.col("ts_known").max(),
        )
        .with_columns(
            date=pl.lit(date),
            ts_event=date_end(date),
            residual=pl.col("paper_pnl") - pl.sum_horizontal(_LOST) - pl.col("realised_pnl"),
        )
        .select(polars_schema(PerformanceAttribution).names())
    )


def unreconciled(waterfalls: pl.DataFrame) -> int:
    """Return how many waterfalls do not add up.

    Args:
        waterfalls: Contract `PerformanceAttribution`.

    Returns:
        Rows whose residual is more than 1e-9 of the shortfall and a basis point of the decided value.
    """
    lost = (pl.col("paper_pnl") - pl.col("realised_pnl")).abs()
    is_off = pl.col("residual").abs() > _WHOLE * (lost + pl.col("decided_notional") / 1e4)
    return waterfalls.filter(is_off).height


def strategy_performance(orders: pl.DataFrame, outcomes: pl.DataFrame, date: Date) -> pl.DataFrame:
    """Return how each strategy did on a date.

    Letters are those of `tca_orders`; where there is no A the decision's price stands for it. Fill rate: Σ q·A ÷ Σ X·A.
    Paper and realised profit as in `performance_attribution`, over the orders where both are known; the shortfall is
    their difference ÷ Σ X·D. Cost against arrival is weighted by q·P, the excess cost gives each order one vote. Hit
    rate: the share of decisions whose return at their horizon, before costs, was above 0.

    Args:
        orders: Contract `TcaOrder` of the date, each once, any row order.
        outcomes: Contract `DecisionOutcomeAnalysis` of the date.
        date: The trading date.

    Returns:
        Contract `StrategyPerformance`, by strategy: those that decided something, or whose orders arrived; null for
        orders without a decision.
    """
    filled, value = pl.col("filled_quantity"), pl.col("filled_quantity") * pl.col("avg_price")
    usual = pl.coalesce("arrival_price", "decision_price")
    is_order = filled.is_not_null() & pl.col("quantity").is_not_null() & usual.is_not_null()
    cost = pl.col("arrival_cost_bps")
    weight = pl.when(cost.is_not_null()).then(value)
    known, has_known = pl.col("is_known"), pl.col("is_known").any()
    paper, realised = (pl.col(name).filter(known).sum() for name in ("paper_pnl", "realised_pnl"))
    traded = (
        _in_money(orders)
        .sort("strategy", "symbol", "ts_event", "order_id")
        .group_by("strategy", maintain_order=True)
        .agg(
            orders=pl.len().cast(pl.Int64),
            fill_rate=_ratio(
                (filled * usual).filter(is_order).sum(), (pl.col("quantity") * usual).filter(is_order).sum()
            ),
            notional=value.sum(),
            pnl_orders=known.sum().cast(pl.Int64),
            paper_pnl=pl.when(has_known).then(paper),
            realised_pnl=pl.when(has_known).then(realised),
            arrival_cost_bps=_ratio((cost * weight).sum(), weight.sum()),
            shortfall_bps=_ratio((paper - realised) * 1e4, pl.col("decided_notional").filter(known).sum()),
            excess_cost_bps=excess_cost_bps().mean(),
            orders_known=pl.col("ts_known").max(),
        )
    )
    made = pl.col("realised_return_bps")
    decided = outcomes.group_by("strategy").agg(
        decisions=pl.len().cast(pl.Int64),
        judged_decisions=made.count().cast(pl.Int64),
        hit_rate=(made > 0).mean(),
        outcomes_known=pl.col("ts_known").max(),
    )
    counted = ("orders", "pnl_orders", "decisions", "judged_decisions")
    return (
        traded.join(decided, on="strategy", how="full", coalesce=True, nulls_equal=True)
        .with_columns(
            pl.col(counted).fill_null(0),
            pl.col("notional").fill_null(0.0),
            date=pl.lit(date),
            ts_event=date_end(date),
            ts_known=pl.max_horizontal("orders_known", "outcomes_known"),
        )
        .sort("strategy")
        .select(polars_schema(StrategyPerformance).names())
    )


def _in_money(orders: pl.DataFrame) -> pl.DataFrame:
    """Return the orders with paper and realised profit, decided value and the parts of the shortfall, in money."""
    value = pl.col("quantity") * pl.col("decision_price")
    paper, realised = profits()
    return orders.with_columns(
        decided_notional=value,
        paper_pnl=paper,
        realised_pnl=realised,
        is_known=pl.col("shortfall_bps").is_not_null() & pl.col("delay_bps").is_not_null(),
        **{name: pl.col(part) / 1e4 * value for name, part in _PARTS.items()},
    ).with_columns(is_known=pl.col("is_known") & pl.all_horizontal(pl.col("paper_pnl", *_LOST).is_not_null()))


def _ratio(above: pl.Expr, below: pl.Expr) -> pl.Expr:
    return pl.when(below > 0).then(above / below)
