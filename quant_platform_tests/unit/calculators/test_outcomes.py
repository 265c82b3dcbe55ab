"""Predictions, outcomes and how right models were, against arithmetic by hand."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from quant_platform.calculators.outcomes import cost_predictions, decision_outcomes, model_feedback
from quant_platform.contracts._schema import INSTANT, validated
from quant_platform.contracts.events import MarketImpactAssessment
from quant_platform.contracts.events_out import (
    DecisionOutcomeAnalysis,
    ExecutionCostPrediction,
    ModelPerformanceFeedback,
)
from quant_platform_tests.unit import tca_frames
from quant_platform_tests.unit.outcome_frames import costs, framed
from quant_platform_tests.unit.tca_frames import S, mid_quotes

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = date(1970, 1, 1)
MIDS = ((0, 100.0), (50, 103.0), (100, 105.0))


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def decided(*rows: dict[str, Any]) -> pl.DataFrame:
    usual = {"ts_event": 10, "horizon_s": 60.0, "expected_cost_bps": 60.0, "expected_return_bps": 200.0}
    return tca_frames.decisions(*({**usual, "cost_model_id": "m", **row} for row in rows))


def outcome(*rows: dict[str, Any], orders: pl.DataFrame | None = None, end: float = 1000, mids: Any = MIDS) -> Any:
    ends = pl.DataFrame({"symbol": ["X"], "data_end": pl.Series([int(end * S)]).cast(INSTANT)})
    given = costs({}) if orders is None else orders
    found = decision_outcomes(decided(*rows), given, quotes=mid_quotes(*mids), ends=ends)
    return validated(DecisionOutcomeAnalysis, found)


def test_a_prediction_is_the_first_revisions() -> None:
    rows = decided({}, {"expected_cost_bps": 5.0, "price": None}, {"expected_cost_bps": None}, {})
    again = decided({"revision": 1, "expected_cost_bps": 99.0, "ts_recv": 500}, {"revision": 1, "quantity": 3.0})
    again = pl.concat([again, again[:1].with_columns(decision_id=pl.lit("d2"))])
    again = again.with_columns(
        pl.when(decision_id="d1").then(5.0).otherwise("expected_cost_bps").alias("expected_cost_bps")
    )
    found = validated(ExecutionCostPrediction, cost_predictions(pl.concat([again, rows])))
    told = found.select(
        "decision_id", "model_id", "expected_cost_bps", "expected_cost", "is_corrected", "ts_known"
    ).rows()
    # 60 bps of 10 x 100 are 6.
    assert told == [
        ("d0", "m", 60.0, 6.0, True, at(10)),
        ("d1", "m", 5.0, None, False, at(10)),
        ("d3", "m", 60.0, 6.0, False, at(10)),
    ]


def test_an_outcome_is_what_a_desk_would_reckon() -> None:
    (row,) = outcome({}).rows(named=True)
    # Decided at 100, filled at 102, and 60 s after 10 s the mid is the 103 of 50 s.
    assert (row["ts_horizon"], row["horizon_price"]) == (at(70), 103.0)
    assert row["realised_return_bps"] == pytest.approx(300)
    assert row["return_error_bps"] == pytest.approx(100)
    assert row["filled_return_bps"] == pytest.approx(1 / 102 * 1e4)
    assert row["realised_cost_bps"] == pytest.approx(1 / 101 * 1e4)
    assert row["excess_cost_bps"] == pytest.approx(1 / 101 * 1e4 - 60)
    assert (row["shortfall_bps"], row["order_count"], row["filled_quantity"], row["avg_price"]) == (310, 1, 6, 102)
    assert (row["is_corrected"], row["reasons"]) == (False, "")


def test_a_sale_gains_when_the_price_falls() -> None:
    (row,) = outcome({"side": -1}, orders=costs({"side": -1}), mids=((0, 100.0), (50, 98.0))).rows(named=True)
    assert row["realised_return_bps"] == pytest.approx(200)
    assert row["filled_return_bps"] == pytest.approx(4 / 102 * 1e4)


def test_orders_of_a_decision_weigh_by_what_they_filled() -> None:
    two = costs(
        {},
        {
            "quantity": 30.0,
            "filled_quantity": 4.0,
            "avg_price": 99.0,
            "arrival_price": 110.0,
            "arrival_cost_bps": -1000.0,
            "shortfall_bps": 10.0,
            "has_correction": True,
        },
        {"decision_id": "d7"},
        {"filled_quantity": 0.0, "avg_price": None, "arrival_cost_bps": None, "shortfall_bps": 0.0},
    )
    (row,) = outcome({}, orders=two).rows(named=True)
    assert (row["order_count"], row["filled_quantity"], row["is_corrected"]) == (3, 10.0, True)
    assert row["avg_price"] == pytest.approx((6 * 102 + 4 * 99) / 10)
    assert row["realised_cost_bps"] == pytest.approx((6 * 1e4 - 4 * 110 * 1000) / (6 * 101 + 4 * 110))
    assert row["shortfall_bps"] == pytest.approx((310 * 10 + 10 * 30) / (10 + 30 + 10))


@pytest.mark.parametrize(
    ("decision", "order", "end", "reasons", "nulls"),
    [
        ({"price": None}, {}, 1000, "no_price", ["realised_return_bps", "return_error_bps"]),
        ({"horizon_s": None}, {}, 1000, "no_horizon", ["ts_horizon", "horizon_price", "realised_return_bps"]),
        ({"horizon_s": 1e10}, {}, 1000, "no_horizon", ["horizon_price"]),
        ({}, {}, 69, "data_end", ["horizon_price", "realised_return_bps", "filled_return_bps"]),
        ({"ts_event": -100}, {}, 1000, "no_quote", ["horizon_price"]),
        ({"expected_cost_bps": None}, {}, 1000, "no_expected_cost", ["excess_cost_bps"]),
        ({}, {"decision_id": "d9"}, 1000, "no_order", ["filled_quantity", "realised_cost_bps", "shortfall_bps"]),
        ({}, {"symbol": "Y"}, 1000, "no_order", ["filled_quantity"]),
        (
            {},
            {"filled_quantity": 0.0, "avg_price": None, "arrival_cost_bps": None},
            1000,
            "nothing_filled",
            ["avg_price", "realised_cost_bps", "excess_cost_bps", "filled_return_bps"],
        ),
        ({}, {"arrival_cost_bps": None}, 1000, "no_cost", ["realised_cost_bps", "excess_cost_bps"]),
        ({}, {"filled_quantity": None, "avg_price": None}, 1000, "no_cost", ["filled_quantity", "realised_cost_bps"]),
        ({"price": None, "horizon_s": None}, {}, 1000, "no_price,no_horizon", ["realised_return_bps"]),
    ],
)
def test_what_cannot_be_told_is_null_and_says_why(
    decision: dict[str, Any], order: dict[str, Any], end: float, reasons: str, nulls: list[str]
) -> None:
    (row,) = outcome(decision, orders=costs(order), end=end).rows(named=True)
    assert row["reasons"] == reasons
    assert {name: row[name] for name in nulls} == dict.fromkeys(nulls)


def test_the_expectation_is_frozen_and_all_else_is_of_the_highest_revision() -> None:
    rows = [{"decision_id": "d0"}, {"decision_id": "d0", "revision": 1, "price": 50.0, "expected_cost_bps": 1.0}]
    (row,) = outcome(*rows).rows(named=True)
    assert (row["expected_cost_bps"], row["price"], row["is_corrected"]) == (60.0, 50.0, True)
    assert row["realised_return_bps"] == pytest.approx((103 - 50) / 50 * 1e4)


def test_a_return_is_known_when_its_horizon_is_over_and_a_cost_when_its_orders_are() -> None:
    order = costs({"ts_known": at(40)})
    assert outcome({}, orders=order)["ts_known"].item() == at(70)
    assert outcome({}, orders=order, end=69)["ts_known"].item() == at(40)
    assert outcome({"ts_recv": 55}, orders=order, end=69)["ts_known"].item() == at(55)


def assessed(*rows: dict[str, Any]) -> pl.DataFrame:
    usual = {"schema_version": 1, "revision": 0, "ts_event": at(10), "ts_recv": at(10), "symbol": "X", "model_id": "m"}
    usual |= {"side": 1, "quantity": 1.0, "impact_cost_bps": 1.0, "interval_probability": 0.8}
    return framed(MarketImpactAssessment, [{"event_id": f"a{n}", **row} for n, row in enumerate(rows)], usual)


def feedback(decisions: pl.DataFrame, realised: dict[str, float | None], given: pl.DataFrame) -> list[dict[str, Any]]:
    usual = {"ts_event": at(10), "symbol": "X", "strategy": "s", "side": 1, "quantity": 1.0, "order_count": 1}
    usual |= {"is_corrected": False, "reasons": "", "ts_known": at(99)}
    rows = [{"decision_id": name, "realised_cost_bps": cost} for name, cost in realised.items()]
    known = framed(DecisionOutcomeAnalysis, rows, usual)
    found = model_feedback(cost_predictions(decisions), known, given, DAY)
    return list(validated(ModelPerformanceFeedback, found).iter_rows(named=True))


def test_a_model_is_scored_by_bias_error_and_how_often_its_interval_held() -> None:
    rows = decided({}, {}, {}, {}, {"cost_model_id": "other"}, {"cost_model_id": None})
    realised = {"d0": 70.0, "d1": 40.0, "d2": 60.0, "d3": None, "d4": 1.0, "d5": 2.0}
    given = assessed(
        {"decision_id": "d0", "cost_low_bps": 50.0, "cost_high_bps": 70.0},  # its ends belong to it
        {"decision_id": "d1", "cost_low_bps": 50.0, "cost_high_bps": 70.0},
        {"decision_id": "d3", "cost_low_bps": 0.0, "cost_high_bps": 1.0},  # of no known cost
        {"decision_id": "d2", "cost_low_bps": 0.0, "cost_high_bps": 1e6, "ts_event": at(11)},  # after the decision
        {"decision_id": "d4", "cost_low_bps": 0.0, "cost_high_bps": 9.0},  # another model's
        {"decision_id": "d1", "cost_low_bps": 0.0, "cost_high_bps": 1e6, "ts_event": at(9)},  # an older one
    )
    one, other = feedback(rows, realised, given)
    assert (one["model_id"], one["predictions"], one["scored"], one["intervals"]) == ("m", 4, 3, 2)
    assert one["mean_expected_cost_bps"] == pytest.approx(60)
    assert one["mean_realised_cost_bps"] == pytest.approx(170 / 3)
    assert one["bias_bps"] == pytest.approx((10 - 20 + 0) / 3)
    assert one["mean_absolute_error_bps"] == pytest.approx((10 + 20 + 0) / 3)
    assert (one["inside_share"], one["interval_probability"], one["ts_known"]) == (0.5, pytest.approx(0.8), at(99))
    assert (other["model_id"], other["bias_bps"], other["inside_share"]) == ("other", -59.0, None)


def test_an_interval_that_was_corrected_counts_as_corrected() -> None:
    given = assessed(
        {"event_id": "a", "decision_id": "d0", "cost_low_bps": 0.0, "cost_high_bps": 1.0},
        {"event_id": "a", "decision_id": "d0", "cost_low_bps": 0.0, "cost_high_bps": 100.0, "revision": 1},
    )
    assert feedback(decided({}), {"d0": 70.0}, given)[0]["inside_share"] == 1.0


def test_a_model_of_which_nothing_is_known_yet_has_no_score() -> None:
    (one,) = feedback(decided({}), {}, assessed())
    assert (one["predictions"], one["scored"], one["bias_bps"], one["intervals"]) == (1, 0, None, 0)
