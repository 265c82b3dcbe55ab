"""What events must keep, whoever tells them; and that a kind, its table and its words belong together."""

from datetime import UTC, date, datetime
from typing import Any, get_args

import polars as pl
import pytest

from quant_platform.contracts._schema import Contract, polars_schema, split, validated
from quant_platform.contracts.events import (
    EVENT_WORDS,
    TOLD_EVENTS,
    CorrelationMatrixUpdated,
    MarketImpactAssessment,
    NewsSentimentAnalyzed,
    PortfolioPerformance,
    PositionSized,
    Rebalancing,
    RiskViolation,
    TradeExecuted,
    TradeSettled,
    TradingDecision,
)
from quant_platform.settings import DESK_CONTRACTS, DeskKind

NOON = datetime(2024, 3, 8, 12, tzinfo=UTC)
ENVELOPE = ["event_id", "schema_version", "revision", "ts_event", "ts_recv", "source"]
USUAL: dict[str, Any] = {
    "schema_version": 1,
    "revision": 0,
    "side": 1,
    "other_symbol": "BBB",
    "settlement_date": date(2024, 3, 8),
    **{column: next(iter(words)) for column, words in EVENT_WORDS.items()},
}


def event(contract: type[Contract], **changed: Any) -> pl.DataFrame:
    """Return one usual row of an event: columns that may be null are, numbers are 0.5 or 1, times noon."""
    samples: dict[Any, Any] = {pl.String: "AAA", pl.Float64: 0.5, pl.Int64: 1, pl.Datetime: NOON}
    row = {
        name: USUAL.get(name, samples.get(dtype.base_type())) if not contract.columns()[name].nullable else None
        for name, dtype in polars_schema(contract).items()
    }
    return pl.DataFrame([row | changed], schema=polars_schema(contract))


@pytest.mark.parametrize("contract", [TradeExecuted, TradingDecision, *TOLD_EVENTS], ids=lambda c: c.__name__)
def test_every_event_has_the_envelope_and_a_usual_row_keeps_its_contract(contract: type[Contract]) -> None:
    assert polars_schema(contract).names()[: len(ENVELOPE)] == ENVELOPE
    assert validated(contract, event(contract)).height == 1
    assert split(contract, event(contract, schema_version=2)).bad["rule"].to_list() == ["schema_version_is_known"]
    assert split(contract, event(contract, revision=-1)).bad["rule"].to_list() == ["revision|min"]


@pytest.mark.parametrize(
    ("contract", "changed", "rule"),
    [
        (TradeSettled, {"settlement_status": "failed"}, "failure_has_a_reason"),
        (TradeSettled, {"settlement_status": "failed", "failure_reason": "no cash"}, None),
        (TradeSettled, {"quantity": 0.0}, "quantity|min_exclusive"),
        (RiskViolation, {"symbol": None, "strategy": None}, None),
        (RiskViolation, {"severity": "bad"}, "severity|"),
        (RiskViolation, {"observed_value": -1.0}, "observed_value|min"),
        (PositionSized, {"side": 0}, "side_is_known"),
        (PositionSized, {"decision_id": None}, "decision_id|nullability"),
        (PortfolioPerformance, {"ts_start": datetime(2024, 3, 8, 13, tzinfo=UTC)}, "ends_after_it_began"),
        (PortfolioPerformance, {"net_return_bps": -10_001.0}, "net_return_bps|min"),
        (Rebalancing, {"weight_target": float("inf")}, "weight_target|"),
        (NewsSentimentAnalyzed, {"social_sentiment": -1.0, "social_count": 3}, None),
        (NewsSentimentAnalyzed, {"social_sentiment": -1.1, "social_count": 3}, "social_sentiment|min"),
        (NewsSentimentAnalyzed, {"social_sentiment": -1.0, "social_count": 0}, "sentiment_is_of_texts"),
        (MarketImpactAssessment, {"cost_low_bps": 1.0, "cost_high_bps": 2.0}, None),
        (MarketImpactAssessment, {"cost_low_bps": 1.0}, "interval_is_whole"),
        (MarketImpactAssessment, {"cost_high_bps": 1.0}, "interval_is_whole"),
        (MarketImpactAssessment, {"cost_low_bps": 2.0, "cost_high_bps": 1.0}, "interval_is_whole"),
        (CorrelationMatrixUpdated, {"other_symbol": "AAA"}, "is_a_pair"),
        (CorrelationMatrixUpdated, {"correlation": 1.01}, "correlation|max"),
    ],
)
def test_what_cannot_be_breaks_a_rule(contract: type[Contract], changed: dict[str, Any], rule: str | None) -> None:
    bad = split(contract, event(contract, **changed)).bad["rule"].to_list()
    assert [one.startswith(rule or "?") for one in bad] == ([True] if rule else [])


def test_a_kind_is_the_last_part_of_its_table() -> None:
    assert tuple(DESK_CONTRACTS) == get_args(DeskKind)
    assert [contract.table.rpartition("/")[2] for contract in DESK_CONTRACTS.values()] == list(DESK_CONTRACTS)


def test_closed_vocabularies_are_those_of_the_columns() -> None:
    columns = {name: column for contract in TOLD_EVENTS for name, column in contract.columns().items()}
    bounds = {name: (column.metadata or {}).get("bounds") for name, column in columns.items()}
    assert {name: told for name, told in bounds.items() if told} == {
        name: " · ".join(words) for name, words in EVENT_WORDS.items()
    }
