"""Scorecards: shares add up, intervals hold what they must, and neither units nor splits of fills matter."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import scorecards
from quant_platform.calculators.scorecards import ScorecardParams
from quant_platform.contracts._schema import validated
from quant_platform.contracts.scorecards import AlgoScorecard, VenueScorecard
from quant_platform_tests.unit.desk_frames import desk, fills, quality

SMALL = ScorecardParams(min_orders=3, min_days=2, draws=100)
DESKS = st.builds(
    desk,
    st.integers(1, 60),
    seed=st.integers(0, 10_000),
    days=st.integers(1, 9),
    symbols=st.integers(1, 4),
    algos=st.integers(1, 3),
)
COSTS = ("arrival_cost_bps", "expected_cost_bps")


def card(rows):
    return validated(AlgoScorecard, scorecards.algo_scorecard(rows, quality(), SMALL))


@settings(max_examples=20)
@given(DESKS)
def test_shares_add_up_and_statistics_stand_together(rows):
    found = card(rows)
    shares = found.group_by("dimension", "period", "period_start").agg(
        pl.col("notional_share").sum(), pl.col("orders").sum(), pl.col("notional").sum()
    )
    assert shares.filter(pl.col("notional") > 0)["notional_share"].to_list() == pytest.approx(
        [1.0] * shares.filter(pl.col("notional") > 0).height
    )
    by_period = shares.group_by("dimension", "period").agg(pl.col("orders").sum())
    assert by_period["orders"].unique().to_list() == [rows.height]
    known = found.filter(pl.col("inference_status") == "ok")
    statistics = pl.col("excess_t", "excess_std_error_bps", "excess_low_bps", "excess_high_bps", "p_value", "q_value")
    assert known.select(statistics.null_count().pipe(pl.sum_horizontal)).item() == 0
    assert (known["q_value"] >= known["p_value"] * (1 - 1e-12)).all()
    assert (known["excess_low_bps"] <= known["excess_high_bps"]).all()
    unknown = found.filter(pl.col("inference_status") != "ok")
    assert unknown.select(statistics.count().pipe(pl.sum_horizontal)).item() == 0


@settings(max_examples=20)
@given(DESKS)
def test_costs_the_other_way_round_flip_signs(rows):
    found, flipped = card(rows), card(rows.with_columns(-pl.col(COSTS)))
    signed = pl.col("arrival_cost_bps", "excess_cost_bps", "excess_t")
    interval = {"excess_low_bps": -pl.col("excess_high_bps"), "excess_high_bps": -pl.col("excess_low_bps")}
    assert_frame_equal(found, flipped.with_columns(-signed, **interval), rel_tol=1e-7, abs_tol=1e-7)


@settings(max_examples=20)
@given(DESKS, st.sampled_from([1e-3, 100.0]))
def test_units_of_price_do_not_matter(rows, scale):
    prices = pl.col("avg_price", "decision_price", "arrival_price") * scale
    assert_frame_equal(
        card(rows).drop("notional"), card(rows.with_columns(prices)).drop("notional"), rel_tol=1e-9, abs_tol=1e-9
    )


@settings(max_examples=20)
@given(DESKS, st.integers(1, 3))
def test_a_fill_split_in_two_changes_no_venue(rows, venues):
    done = fills(
        *(
            {
                "order_id": f"o{n % rows.height:04}",
                "venue": f"v{n % venues}",
                "price": 99 + n / 50,
                "quantity": 1 + n % 4,
            }
            for n in range(2 * rows.height)
        )
    )
    halves = pl.concat([done.with_columns(pl.col("quantity") / 2)] * 2)
    whole, split = (
        validated(VenueScorecard, scorecards.venue_scorecard(each, rows, SMALL)).drop("fills")
        for each in (done, halves)
    )
    assert_frame_equal(whole, split, rel_tol=1e-7, abs_tol=1e-7)
