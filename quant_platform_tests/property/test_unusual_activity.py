"""The laws of unusual option activity. Examples worked by hand are unit tests."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators.unusual_activity import unusual_activity

INSTANT = pl.Datetime("ns", "UTC")
CONTRACTS = st.lists(
    st.tuples(
        st.sampled_from(["A", "B"]),
        st.integers(0, 1),
        st.sampled_from(["C", "P", "X"]),
        st.one_of(st.integers(0, 10_000).map(float), st.sampled_from([float("nan"), -1.0, None])),
        st.one_of(st.integers(0, 10_000).map(float), st.none()),
        st.one_of(st.floats(0, 1e4), st.none()),
    ),
    max_size=30,
)
SNAPSHOTS = pl.DataFrame(
    {"symbol": ["A", "A", "B", "B"], "ts_event": [0, 1, 0, 1], "ts_known": [5, 6, 7, 8]},
    schema={"symbol": pl.String, "ts_event": INSTANT, "ts_known": INSTANT},
)


def chain(contracts):
    columns = {
        "symbol": pl.String,
        "ts_event": INSTANT,
        "type": pl.String,
        "volume": pl.Float64,
        "open_interest": pl.Float64,
        "price": pl.Float64,
    }
    return pl.DataFrame(contracts, schema=columns, orient="row").with_columns(multiplier=pl.lit(100.0))


@settings(max_examples=50, deadline=None)
@given(st.data(), CONTRACTS)
def test_the_order_of_contracts_changes_nothing(data, contracts):
    shuffled = data.draw(st.permutations(contracts))
    assert_frame_equal(unusual_activity(SNAPSHOTS, chain(shuffled)), unusual_activity(SNAPSHOTS, chain(contracts)))


@settings(max_examples=50, deadline=None)
@given(CONTRACTS)
def test_scores_are_shares_and_stand_only_where_something_traded(contracts):
    found = unusual_activity(SNAPSHOTS, chain(contracts))
    assert found.height == SNAPSHOTS.height
    assert found["score"].drop_nulls().is_between(0, 1 + 1e-12).all()
    assert (found["score"].is_null() == found["classification"].is_in(["absent", "inactive"])).all()
    assert (found["contracts_used"] + found["contracts_skipped"]).sum() == len(contracts)


@settings(max_examples=50, deadline=None)
@given(CONTRACTS, st.integers(1, 10_000))
def test_more_volume_in_a_contract_never_lowers_the_score(contracts, more):
    usable = [row for row in contracts if row[2] != "X" and row[3] is not None and row[3] >= 0 and row[4] is not None]
    busier = [(*row[:3], row[3] + more, *row[4:]) for row in usable]
    before, after = (unusual_activity(SNAPSHOTS, chain(rows))["score"].fill_null(0.0) for rows in (usable, busier))
    assert (after >= before - 1e-12).all()
