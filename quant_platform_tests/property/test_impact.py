"""Impact: parts add up, sides flip signs, scales do not matter, and a power law is found in any units."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import _power_law, impact
from quant_platform.contracts._schema import validated
from quant_platform.contracts.scorecards import Impact
from quant_platform_tests.unit.desk_frames import orders

PRICES = st.floats(50, 200, allow_nan=False)
VALUES = ("total_bps", "temporary_bps", "permanent_bps")
ORDERS = st.lists(
    st.fixed_dictionaries(
        {
            "side": st.sampled_from([-1, 1]),
            "filled_quantity": st.floats(0.01, 1e4),
            "avg_price": PRICES,
            "arrival_price": PRICES,
            "settled_price": st.one_of(st.none(), PRICES),
            "adv": st.one_of(st.none(), st.floats(1, 1e6)),
        }
    ),
    max_size=6,
)


def measured(rows, *, scale=1.0, lot=1.0, flip=1):
    """Return the impact of orders in other prices, other quantities, or on the other side."""
    own = ("settled_price", "adv")
    placed = orders(*({key: value for key, value in row.items() if key not in own} for row in rows)).hstack(
        pl.DataFrame([{key: row[key] for key in own} for row in rows], schema=dict.fromkeys(own, pl.Float64))
    )
    prices = pl.col("avg_price", "arrival_price", "settled_price") * scale
    amounts = pl.col("filled_quantity", "adv") * lot
    return validated(
        Impact,
        impact.impact(placed.with_columns(prices, amounts, pl.col("side") * flip, sigma_daily_bps=150.0)),
    )


@settings(max_examples=40)
@given(ORDERS)
def test_parts_add_up_and_sides_flip_signs(rows):
    found = measured(rows).drop_nulls(VALUES)
    whole = (found["temporary_bps"] + found["permanent_bps"]).to_list()
    assert whole == pytest.approx(found["total_bps"].to_list(), abs=1e-8)
    flipped = measured(rows, flip=-1).with_columns(-pl.col(VALUES))
    assert_frame_equal(measured(rows), flipped)


@settings(max_examples=30)
@given(ORDERS, st.sampled_from([1e-3, 7.0, 1e4]))
def test_units_of_price_and_quantity_do_not_matter(rows, scale):
    assert_frame_equal(measured(rows), measured(rows, scale=scale), rel_tol=1e-9, abs_tol=1e-7)
    lots = measured(rows, lot=scale).drop("filled_quantity")
    assert_frame_equal(measured(rows).drop("filled_quantity"), lots, rel_tol=1e-9)


@given(st.floats(-0.9, 1.9), st.floats(0.01, 100), st.sampled_from([-1, 1]), st.integers(3, 60), st.floats(1e-6, 1e6))
def test_a_power_law_is_found_in_any_units(exponent, factor, sign, number, unit):
    x = np.geomspace(1e-4, 0.5, number)
    day = np.arange(number) * 4 // number
    law = _power_law.fit(sign * factor * (x * unit) ** exponent, x * unit, np.zeros(number, dtype=np.int64), day)
    assert law.exponent[0] == pytest.approx(exponent, abs=1e-8)
    assert law.factor[0] == pytest.approx(sign * factor, rel=1e-5)
