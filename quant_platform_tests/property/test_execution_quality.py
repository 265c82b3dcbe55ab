"""Execution quality: splitting a fill changes nothing, survival is a share, and shares and weights add up."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import execution_quality, quality_score
from quant_platform.contracts._schema import validated
from quant_platform.contracts.scorecards import OrderQuality
from quant_platform_tests.unit.desk_frames import SECOND, fills, orders

SIZES = st.integers(1, 50).map(lambda k: k / 4)
SPREADS = st.integers(-40, 40).map(lambda k: k / 8)
FILLS = st.lists(
    st.fixed_dictionaries(
        {
            "order_id": st.sampled_from(["o0000", "o0001"]),
            "price": st.integers(90, 110).map(float),
            "quantity": SIZES,
            "quoted_spread_bps": st.one_of(st.none(), st.integers(0, 16).map(lambda k: k / 8)),
            "effective_spread_bps": st.one_of(st.none(), SPREADS),
            "markout_5s_bps": st.one_of(st.none(), SPREADS),
            "price_improvement": st.one_of(st.none(), SPREADS),
            "price_improvement_amount": st.one_of(st.none(), SPREADS),
        }
    ),
    min_size=1,
    max_size=8,
)


def in_halves(rows):
    """Split each fill in two of a third and two thirds."""
    parts = []
    for row in rows:
        for share in (1 / 3, 2 / 3):
            amount = row["price_improvement_amount"]
            parts.append(
                row
                | {
                    "quantity": row["quantity"] * share,
                    "price_improvement_amount": None if amount is None else amount * share,
                }
            )
    return parts


@settings(max_examples=40)
@given(FILLS)
def test_a_fill_split_in_two_changes_nothing(rows):
    whole, split = (execution_quality.spread_quality(fills(*each), ["order_id"]) for each in (rows, in_halves(rows)))
    assert_frame_equal(whole.drop("fills"), split.drop("fills"), rel_tol=1e-9, abs_tol=1e-9)
    shares = whole.select(pl.sum_horizontal("improved_share", "at_quote_share", "outside_share", ignore_nulls=False))
    assert shares.to_series().drop_nulls().to_list() == pytest.approx([1.0] * shares.to_series().count())


@settings(max_examples=20)
@given(FILLS, st.lists(st.tuples(SIZES, SIZES, SPREADS, st.integers(0, 60)), min_size=2, max_size=8))
def test_scores_are_shares_whatever_comes_and_do_not_see_how_fills_were_split(rows, sizes):
    placed = orders(
        *(
            {"quantity": quantity, "filled_quantity": filled, "arrival_cost_bps": cost, "ts_last_fill": s * SECOND}
            for quantity, filled, cost, s in sizes
        )
    )
    params = quality_score.QualityParams(min_samples=2)
    found = quality_score.order_quality(placed, fills(*rows), placed, params)
    again = quality_score.order_quality(placed, fills(*in_halves(rows)), placed, params)
    assert_frame_equal(validated(OrderQuality, found), again, rel_tol=1e-9, abs_tol=1e-9)
    scored = found.filter(pl.col("score").is_not_null())
    parts = scored.select(pl.min_horizontal(pl.col("^.*_score$")).alias("low"), pl.max_horizontal(pl.col("^.*_score$")))
    assert (scored["score"] >= parts["low"] - 1e-12).all()
    assert (scored["score"] <= parts.to_series(1) + 1e-12).all()


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30))
def test_survival_falls_from_one_and_stays_within_its_interval(ends):
    frame = pl.DataFrame(
        {"key": "a", "duration_s": [float(s) for s, _ in ends], "is_filled": [is_filled for _, is_filled in ends]}
    )
    curve = execution_quality.kaplan_meier(frame, ["key"])
    survival = [1.0, *curve["survival"].to_list()]
    assert all(later < earlier for earlier, later in pairwise(survival))
    inside = curve.drop_nulls().filter(
        pl.col("survival").is_between("survival_low", "survival_high"),
        pl.col("survival_low") >= 0,
        pl.col("survival_high") <= 1,
    )
    assert inside.height == curve.drop_nulls().height
    if all(is_filled for _, is_filled in ends):  # without a cancel it is the share that took longer
        longer = [sum(s > time for s, _ in ends) / len(ends) for time in curve["time_s"]]
        assert curve["survival"].to_list() == pytest.approx(longer, abs=1e-12)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 100), st.sampled_from([-1, 1]), SIZES), min_size=1, max_size=20))
def test_hold_time_does_not_see_sides_or_how_fills_were_split(rows):
    def held(parts):
        frame = pl.DataFrame(
            {
                "key": "a",
                "ts_event": [s * SECOND for s, *_ in parts],
                "fill_id": [f"{n:04}" for n in range(len(parts))],
                "side": [side for _, side, _ in parts],
                "quantity": [quantity for *_, quantity in parts],
            }
        ).cast({"ts_event": pl.Datetime("ns", "UTC")})
        return execution_quality.hold_times(frame, ["key"])

    rows = sorted(rows, key=lambda row: row[0])
    whole = held(rows)
    assert_frame_equal(whole, held([(s, -side, q) for s, side, q in rows]))
    assert_frame_equal(whole, held([part for s, side, q in rows for part in [(s, side, q / 2)] * 2]))
    assert whole["hold_s"].is_null().all() or 0 <= whole["hold_s"].item() <= 100
