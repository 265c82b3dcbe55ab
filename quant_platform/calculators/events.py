"""Executions and decisions as events: which fill or decision it is, and whose; their figures stay where they are."""

import polars as pl

from quant_platform.calculators.tca import with_parents
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.events import SCHEMA_VERSION, TradeExecuted, TradingDecision

LOOKBACK_SESSIONS = 1
"""A fill's parent order may have been sent on the date before."""


def trade_executed(fills: pl.DataFrame, orders: pl.DataFrame) -> pl.DataFrame:
    """Return an event for each revision of each fill.

    Args:
        fills: Contract `Fill`, all revisions, any number of symbols, any row order.
        orders: Contract `Order`, of the fills' dates and those before on which parents were sent.

    Returns:
        Contract `TradeExecuted`, row by row as the fills. `source` is the venue, `decision_id` that of the parent order
        of the whole family.
    """
    parents = with_parents(fills.select("order_id"), orders).rename({"order_id": "parent_id"})
    newest = orders.sort("revision", descending=True).unique("order_id", keep="first")
    decided = newest.select("decision_id", parent_id="order_id")
    rows = fills.hstack(parents).join(decided, on="parent_id", how="left", maintain_order="left")
    return _events(rows.with_columns(event_id="fill_id", source="venue")).select(polars_schema(TradeExecuted).names())


def trading_decision(decisions: pl.DataFrame) -> pl.DataFrame:
    """Return an event for each revision of each decision.

    Args:
        decisions: Contract `Decision`, all revisions, any number of symbols, any row order.

    Returns:
        Contract `TradingDecision`, row by row as the decisions. `source` is the strategy.
    """
    rows = _events(decisions.with_columns(event_id="decision_id", source="strategy"))
    return rows.select(polars_schema(TradingDecision).names())


def _events(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(schema_version=pl.lit(SCHEMA_VERSION, pl.Int64))
