"""The quality score part by part with hand arithmetic, its references, its trend, and the edge matrix."""

import math
from datetime import UTC, datetime, timedelta
from statistics import NormalDist, linear_regression

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import quality_score
from quant_platform.calculators.quality_score import QualityParams
from quant_platform.contracts._schema import INSTANT, empty, polars_schema, validated
from quant_platform.contracts.scorecards import OrderQuality, QualityTrend
from quant_platform_tests.unit.desk_frames import MONDAY, SECOND, fills, orders
from quant_platform_tests.unit.ipc import ipc_bytes

PHI = NormalDist().cdf
FEW = QualityParams(min_samples=3)
PARTS = ("cost_score", "fill_rate_score", "e_over_q_score", "markout_score", "time_to_fill_score")
# Costs of mean 10 and standard deviation 5; times to fill of 10, 20 and 30 s, whose median is 20 s.
EARLIER = orders(
    *({"arrival_cost_bps": cost, "ts_last_fill": s * SECOND} for cost, s in ((5.0, 10), (10.0, 20), (15.0, 30)))
)


def scored(row=None, fill=None, *, earlier=EARLIER, params=FEW):
    """Return the quality of one order with one fill."""
    found = quality_score.order_quality(orders(row or {}), fills({} if fill is None else fill), earlier, params)
    return validated(OrderQuality, found).row(0, named=True)


def test_every_part_by_hand():
    found = scored({"arrival_cost_bps": 20.0}, {"effective_spread_bps": 1.0, "markout_5s_bps": 3.0})
    assert found["cost_z"] == pytest.approx(2.0)
    expected = (PHI(-2), 1.0, PHI(1 - 0.5), PHI(3 / 2), 2 ** (-10 / 20))
    for name, part in zip(PARTS, expected, strict=True):
        assert found[name] == pytest.approx(part, rel=1e-12)
    weights = (0.4, 0.2, 0.15, 0.15, 0.1)
    assert found["score"] == pytest.approx(sum(w * p for w, p in zip(weights, expected, strict=True)), rel=1e-12)
    assert (found["score_weight"], found["status"], found["duration_s"]) == (pytest.approx(1.0), "ok", 10.0)
    assert found["ts_known"].timestamp() == 30  # the fill was known last


def test_an_order_at_every_reference_scores_one_half_but_for_its_fill_rate():
    found = scored(
        {"arrival_cost_bps": 10.0, "ts_last_fill": 20 * SECOND}, {"effective_spread_bps": 2.0, "markout_5s_bps": 0.0}
    )
    assert [found[name] for name in PARTS] == pytest.approx([0.5, 1.0, 0.5, 0.5, 0.5])
    assert found["score"] == pytest.approx(0.6)


def test_weights_of_missing_parts_drop_out():
    found = scored({"filled_quantity": 5.0, "ts_done": None}, {"quoted_spread_bps": None}, earlier=EARLIER.clear())
    assert [found[name] for name in PARTS] == [None, 0.5, None, None, None]
    assert (found["score"], found["score_weight"]) == (0.5, pytest.approx(0.2))
    assert (found["is_filled"], found["duration_s"], found["status"]) == (False, None, "ok")


def test_an_order_without_fills_scores_by_its_fill_rate_alone():
    row = {"filled_quantity": 0.0, "arrival_cost_bps": None, "ts_last_fill": None}
    found = scored(row, {"order_id": "another"})
    assert (found["score"], found["score_weight"], found["fill_rate"]) == (0.0, pytest.approx(0.2), 0.0)
    assert (found["is_filled"], found["duration_s"]) == (False, 10.0)  # it stood until its cancel
    assert found["effective_spread_bps"] is None


def test_an_overfilled_order_has_a_rate_above_one_and_no_score_of_it():
    found = scored({"filled_quantity": 12.0})
    assert (found["fill_rate"], found["fill_rate_score"], found["is_filled"]) == (1.2, None, True)
    rounded = scored({"quantity": 0.3, "filled_quantity": 0.1 + 0.2})
    assert (rounded["fill_rate_score"], rounded["is_filled"]) == (1.0, True)


@pytest.mark.parametrize("quantity", [None, 0.0, -1.0, math.nan, math.inf])
def test_an_order_without_a_quantity_is_not_scored(quantity):
    found = scored({"quantity": quantity})
    assert (found["status"], found["quantity"], found["score"], found["score_weight"]) == (
        "invalid_input",
        None,
        None,
        0.0,
    )
    assert [found[name] for name in (*PARTS, "fill_rate", "is_filled", "duration_s")] == [None] * 8


def test_an_order_that_ends_before_it_begins_has_no_duration():
    found = scored({"ts_last_fill": -SECOND})
    assert (found["duration_s"], found["time_to_fill_score"], found["status"]) == (None, None, "ok")


def test_an_order_of_which_nothing_is_known_has_no_score():
    # Overfilled, without a cost, a spread or a reference.
    found = scored({"filled_quantity": 12.0, "arrival_cost_bps": math.nan}, {"order_id": None}, earlier=EARLIER.clear())
    assert (found["score"], found["score_weight"], found["status"], found["arrival_cost_bps"]) == (
        None,
        0.0,
        "no_data",
        None,
    )


def test_a_reference_needs_enough_orders_that_differ():
    assert scored(params=QualityParams(min_samples=4))["cost_z"] is None
    assert scored(params=QualityParams(min_samples=4))["time_to_fill_score"] is None
    constant = EARLIER.with_columns(arrival_cost_bps=7.0)
    found = scored(earlier=constant)
    assert found["cost_z"] is None
    assert found["time_to_fill_score"] is not None
    one_bad = pl.concat([EARLIER, EARLIER.head(1).with_columns(arrival_cost_bps=math.nan, quantity=math.nan)])
    assert scored(earlier=one_bad) == scored()


def test_references_are_those_of_the_symbol():
    other = EARLIER.with_columns(symbol=pl.lit("Y"), arrival_cost_bps=pl.col("arrival_cost_bps") * 10)
    assert scored(earlier=pl.concat([other, EARLIER])) == scored()
    assert scored(earlier=other)["cost_z"] is None


def test_cancelled_orders_make_the_reference_longer():
    # One filled at 10 s, two cancelled at 40 s and filled at 50 s: less than half are left at 50 s only.
    earlier = orders(
        {"ts_last_fill": 10 * SECOND},
        {"filled_quantity": 0.0, "ts_done": 40 * SECOND},
        {"ts_last_fill": 50 * SECOND},
    )
    assert scored(earlier=earlier)["time_to_fill_score"] == pytest.approx(2 ** (-10 / 50))


def test_rows_come_sorted_and_in_any_order_with_identical_bytes():
    rows = orders(
        *({"ts_event": (k % 5) * SECOND, "symbol": "XY"[k % 2], "arrival_cost_bps": k / 7} for k in range(40))
    )
    done = fills(
        *({"order_id": f"o{k % 40:04}", "effective_spread_bps": k / 3, "price": 90 + k / 9} for k in range(120))
    )

    def written(*frames):
        return ipc_bytes(quality_score.order_quality(*frames, FEW))

    shuffled = (each.sample(fraction=1, shuffle=True, seed=1) for each in (rows, done, EARLIER))
    assert written(rows, done, EARLIER) == written(*shuffled)
    found = quality_score.order_quality(rows, done, EARLIER, FEW)
    assert_frame_equal(found, found.sort("ts_event", "order_id"))


def test_no_orders_give_no_rows():
    for done in (fills(), fills({})):
        assert_frame_equal(quality_score.order_quality(orders(), done, orders()), empty(OrderQuality))
    assert quality_score.order_quality(orders({}), fills(), orders())["score"].to_list() == [1.0]


def daily(scores, *, key="a", per_day=1):
    """Build scores of days from their means; None where the day has none."""
    rows = [
        (key, MONDAY + timedelta(day), None if score is None else score + (n - (per_day - 1) / 2) / 100)
        for day, score in enumerate(scores)
        for n in range(per_day)
    ]
    return pl.DataFrame(rows, schema={"key": pl.String, "date": pl.Date, "score": pl.Float64}, orient="row")


def test_the_trend_is_the_line_through_the_means_of_days():
    scores = [0.5, 0.52, 0.47, 0.61, 0.58, 0.6]
    found = quality_score.quality_trend(daily(scores, per_day=3), ["key"]).row(0, named=True)
    slope, level = linear_regression(range(6), scores)
    residual = sum((y - level - slope * x) ** 2 for x, y in enumerate(scores))
    half = 2.7764451051977987 * math.sqrt(residual / 4 / 17.5)  # t of 4 degrees; Σ(x - 2.5)² = 17.5
    assert found["slope_per_day"] == pytest.approx(slope, rel=1e-9)
    assert (found["slope_low"], found["slope_high"]) == pytest.approx((slope - half, slope + half), rel=1e-9)
    assert (found["days"], found["score"], found["status"]) == (6, pytest.approx(np.mean(scores)), "ok")


def test_the_trend_counts_days_back_from_the_newest_of_all_groups():
    long = daily([9.0] * 10 + [0.1 * k for k in range(20)])
    found = quality_score.quality_trend(long, ["key"]).row(0, named=True)
    assert (found["days"], found["slope_per_day"]) == (20, pytest.approx(0.1))
    old = daily([0.5] * 7, key="old")
    found = quality_score.quality_trend(pl.concat([long, old]), ["key"])
    assert found["key"].to_list() == ["a"]  # the other one has no day among the last twenty


def test_a_trend_of_too_few_days_is_null():
    gaps = daily([0.5, None, 0.6, math.nan, 0.7, math.inf, 0.7])
    found = quality_score.quality_trend(gaps, ["key"]).row(0)
    assert found == ("a", 4, None, None, None, None, "too_few")
    found = quality_score.quality_trend(gaps, ["key"], QualityParams(min_trend_days=4)).row(0, named=True)
    assert found["slope_per_day"] == pytest.approx(linear_regression([0, 2, 4, 6], [0.5, 0.6, 0.7, 0.7]).slope)


def test_a_constant_score_has_no_slope_and_no_scores_have_no_trend():
    found = quality_score.quality_trend(daily([0.5] * 6), ["key"]).row(0)
    assert found == ("a", 6, 0.5, 0.0, 0.0, 0.0, "ok")
    assert quality_score.quality_trend(daily([]), ["key"]).is_empty()
    assert quality_score.quality_trend(daily([None] * 6), ["key"])["status"].to_list() == ["too_few"]


def test_trends_are_those_of_strategies_and_of_algos():
    days = [0.5, 0.52, 0.47, 0.61, 0.58, 0.6]
    known = datetime(2024, 8, 12, tzinfo=UTC)
    rows = pl.concat(
        daily(scores).select("date", "score", strategy=pl.lit(strategy), algo=pl.lit(algo, pl.String))
        for scores, strategy, algo in ((days, "carry", "TWAP"), (days[::-1], "news", "TWAP"), (days[:2], "news", None))
    ).with_columns(ts_known=pl.lit(known).cast(INSTANT))
    last = MONDAY + timedelta(days=5)
    found = validated(QualityTrend, quality_score.trends(rows, last))
    assert found.select("dimension", "member", "days", "status").rows() == [
        ("algo", None, 2, "too_few"),
        ("algo", "TWAP", 6, "ok"),
        ("strategy", "carry", 6, "ok"),
        ("strategy", "news", 6, "ok"),
    ]
    slope = linear_regression(range(6), days).slope
    assert found["slope_per_day"].to_list()[1:3] == [pytest.approx(0, abs=1e-12), pytest.approx(slope)]
    assert found["date"].to_list() == [last] * 4
    assert quality_score.trends(rows.clear(), last).schema == polars_schema(QualityTrend)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cost_weight": 0.0}, "cost_weight must be > 0 and finite, was 0.0"),
        ({"markout_weight": math.inf}, "markout_weight must be > 0 and finite, was inf"),
        ({"min_samples": 1}, "min_samples must be >= 2, was 1"),
        ({"min_trend_days": 2}, "3 <= min_trend_days <= trend_days must hold, were 2 and 20"),
        ({"trend_days": 4}, "3 <= min_trend_days <= trend_days must hold, were 5 and 4"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, was 1.0"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        QualityParams(**wrong)
