"""The waterfall and the scores of strategies, against sums by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from quant_platform.calculators.attribution import performance_attribution, strategy_performance, unreconciled
from quant_platform.contracts._schema import validated
from quant_platform.contracts.events_out import DecisionOutcomeAnalysis, PerformanceAttribution, StrategyPerformance
from quant_platform_tests.unit.outcome_frames import DAY, NOON, costs, framed

# Sold 5 at 48, decided at 50, arrived at 49, all filled and no price to give up at: C is P.
WHOLE: dict[str, Any] = {
    "side": -1,
    "quantity": 5.0,
    "filled_quantity": 5.0,
    "avg_price": 48.0,
    "fees": 1.0,
    "decision_price": 50.0,
    "arrival_price": 49.0,
    "cancel_price": None,
    "arrival_cost_bps": 1 / 49 * 1e4,
    "delay_bps": 5 / 250 * 1e4,
    "trading_bps": 5 / 250 * 1e4,
    "opportunity_bps": 0.0,
    "fees_bps": 1 / 250 * 1e4,
    "shortfall_bps": 11 / 250 * 1e4,
}
UNKNOWN: dict[str, Any] = {"shortfall_bps": None, "opportunity_bps": None, "cancel_price": None}
PARTS = ["paper_pnl", "delay_cost", "trading_cost", "opportunity_cost", "fees", "realised_pnl"]


def outcomes(*rows: dict[str, Any]) -> pl.DataFrame:
    usual = {"ts_event": NOON, "symbol": "X", "strategy": "s", "side": 1, "quantity": 1.0, "order_count": 1}
    usual |= {"is_corrected": False, "reasons": "", "ts_known": NOON + timedelta(hours=1)}
    return framed(DecisionOutcomeAnalysis, [{"decision_id": f"d{n}", **row} for n, row in enumerate(rows)], usual)


def test_a_waterfall_is_what_a_desk_would_reckon() -> None:
    found = validated(PerformanceAttribution, performance_attribution(costs({}, WHOLE, UNKNOWN), DAY))
    (row,) = found.rows(named=True)
    # Paper 10 x (104 - 100) and -5 x (48 - 50); realised 6 x (104 - 102) - 3 and 0 - 1.
    assert [row[name] for name in PARTS] == pytest.approx([40 + 10, 6 + 5, 6 + 5, 16 + 0, 3 + 1, 9 - 1])
    assert row["residual"] == pytest.approx(0, abs=1e-12)
    assert (row["orders"], row["unknown_orders"], row["decided_notional"]) == (2, 1, 1250.0)
    assert (row["date"], row["ts_event"]) == (DAY, datetime(2024, 3, 9, tzinfo=UTC))
    assert unreconciled(found) == 0


def test_each_strategy_and_symbol_has_a_waterfall_and_so_have_orders_without_a_decision() -> None:
    rows = costs({"strategy": "b"}, {"symbol": "Y"}, {"strategy": None, "decision_price": None, **UNKNOWN}, {})
    found = performance_attribution(rows, DAY)
    told = found.select("strategy", "symbol", "orders", "unknown_orders", "paper_pnl").rows()
    assert told == [(None, "X", 0, 1, 0.0), ("b", "X", 1, 0, 40.0), ("s", "X", 1, 0, 40.0), ("s", "Y", 1, 0, 40.0)]


def test_an_order_of_which_nothing_was_filled_loses_its_paper_profit() -> None:
    none = {"filled_quantity": 0.0, "avg_price": None, "fees": 0.0, "fees_bps": 0.0, "arrival_cost_bps": None}
    none |= {"delay_bps": 0.0, "trading_bps": 0.0, "opportunity_bps": 400.0, "shortfall_bps": 400.0}
    (row,) = performance_attribution(costs(none), DAY).rows(named=True)
    assert [row[name] for name in PARTS] == pytest.approx([40, 0, 0, 40, 0, 0])


def test_a_waterfall_that_does_not_add_up_is_counted() -> None:
    found = performance_attribution(costs({}, {"symbol": "Y", "trading_bps": 60.001}), DAY)
    assert found["residual"].to_list() == pytest.approx([0, -0.0001], abs=1e-9)
    assert unreconciled(found) == 1
    # 1e-9 of a shortfall of 31 and a basis point of 1,000.
    assert unreconciled(found.with_columns(residual=pl.lit(31.1e-9))) == 0
    assert unreconciled(found.with_columns(residual=pl.lit(-31.2e-9))) == 2


def test_no_orders_give_no_rows() -> None:
    assert performance_attribution(costs(), DAY).is_empty()
    assert strategy_performance(costs(), outcomes(), DAY).is_empty()


def test_a_strategys_day_is_what_a_desk_would_reckon() -> None:
    made = outcomes({"realised_return_bps": 5.0}, {"realised_return_bps": -5.0}, {"realised_return_bps": 0.0}, {})
    found = validated(StrategyPerformance, strategy_performance(costs({}, WHOLE, UNKNOWN), made, DAY))
    (row,) = found.rows(named=True)
    assert (row["orders"], row["pnl_orders"], row["decisions"], row["judged_decisions"]) == (3, 2, 4, 3)
    assert row["fill_rate"] == pytest.approx((6 * 101 + 5 * 49 + 6 * 101) / (10 * 101 + 5 * 49 + 10 * 101))
    assert row["notional"] == 612 + 240 + 612
    assert (row["paper_pnl"], row["realised_pnl"]) == pytest.approx((50, 8))
    assert row["shortfall_bps"] == pytest.approx((50 - 8) / 1250 * 1e4)
    first, second = 1 / 101 * 1e4, 1 / 49 * 1e4
    assert row["arrival_cost_bps"] == pytest.approx((2 * 612 * first + 240 * second) / (2 * 612 + 240))
    assert row["excess_cost_bps"] == pytest.approx((2 * first + second) / 3 - 60)
    assert row["hit_rate"] == pytest.approx(1 / 3)
    assert row["ts_known"] == NOON + timedelta(hours=1)


def test_a_strategy_may_only_decide_or_only_trade() -> None:
    rows = costs({"strategy": None, **UNKNOWN, "filled_quantity": None, "avg_price": None, "arrival_cost_bps": None})
    found = validated(StrategyPerformance, strategy_performance(rows, outcomes({"strategy": "t"}), DAY))
    names = ["strategy", "orders", "fill_rate", "notional", "paper_pnl", "arrival_cost_bps", "decisions", "hit_rate"]
    assert found.select(names).rows() == [
        (None, 1, None, 0.0, None, None, 0, None),
        ("t", 0, None, 0.0, None, None, 1, None),
    ]
