"""Executions and decisions as events: whose they are, row by row, whatever was corrected."""

from quant_platform.calculators.events import trade_executed, trading_decision
from quant_platform.contracts._schema import validated
from quant_platform.contracts.events import TradeExecuted, TradingDecision
from quant_platform_tests.unit.tca_frames import decisions, fills, orders


def test_an_execution_names_the_decision_of_its_parents_parent() -> None:
    family = orders({}, {"decision_id": None, "parent_order_id": "o0"}, {"decision_id": None, "parent_order_id": "o1"})
    told = fills(
        {"order_id": "o2", "venue": "v"}, {"revision": 1, "fill_id": "f0"}, {"order_id": "zz"}, {"order_id": None}
    )
    found = validated(TradeExecuted, trade_executed(told, family))
    assert found.select("event_id", "revision", "source", "decision_id", "order_id").rows() == [
        ("f0", 0, "v", "d0", "o2"),
        ("f0", 1, None, "d0", "o0"),
        ("f2", 0, None, None, "zz"),
        ("f3", 0, None, None, None),
    ]
    assert found["schema_version"].to_list() == [1] * 4
    assert found.select("ts_event", "ts_recv", "symbol").equals(told.select("ts_event", "ts_recv", "symbol"))


def test_an_order_that_was_corrected_counts_once() -> None:
    family = orders({}, {"order_id": "o0", "revision": 1, "decision_id": "d9"})
    assert trade_executed(fills({}), family)["decision_id"].to_list() == ["d9"]


def test_every_revision_of_a_decision_is_an_event() -> None:
    told = decisions({"strategy": "s1"}, {"decision_id": "d0", "revision": 1})
    found = validated(TradingDecision, trading_decision(told))
    assert found.select("event_id", "decision_id", "revision", "source").rows() == [
        ("d0", "d0", 0, "s1"),
        ("d0", "d0", 1, "s"),
    ]
