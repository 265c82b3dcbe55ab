"""The laws of flow clusters: cuts and row order change nothing, shares add up. Hand-worked examples are unit tests."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import flow_clusters
from quant_platform.calculators.flow_clusters import STRATEGIES, FlowClustersParams
from quant_platform.calculators.sweeps import SweepParams
from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.market import Trade
from quant_platform.contracts.microstructure import FlowClusters

MS = 1_000_000
KEY = ["symbol", "ts_open"]
PARAMS = FlowClustersParams(
    window_trades=12, min_trades=4, institutional_size=3, sample_s=5, sweep=SweepParams(window_trades=4, window_ms=400)
)

ROWS = st.lists(
    st.tuples(
        st.integers(0, 300),  # ms since the trade before: often the same instant, sometimes over an interval's edge
        st.integers(0, 20_000),  # ms of receipt
        st.sampled_from(["A", "B", "1000"]),
        st.one_of(st.integers(800, 806).map(lambda ticks: ticks / 8), st.sampled_from([float("nan"), 0.0])),
        st.one_of(st.sampled_from([0.5, 1.0, 8.0]), st.floats(1e-6, 1e6)),
        st.sampled_from([-1, 0, 1, 1]),
    ),
    max_size=80,
)


def trades(rows, pace):
    """Give rows of growing time the columns of a tape."""
    ts, numbers = 0, []
    for row in rows:
        ts += row[0] * pace
        numbers.append(ts)
    schema = polars_schema(Trade)
    return pl.DataFrame(
        {
            "ts_event": [ts * MS for ts in numbers],
            "ts_recv": [row[1] * MS for row in rows],
            "symbol": [row[2] for row in rows],
            "venue": ["v"] * len(rows),
            "trade_id": list(range(len(rows))),
            "first_trade_id": list(range(len(rows))),
            "last_trade_id": list(range(len(rows))),
            "price": [row[3] for row in rows],
            "size": [row[4] for row in rows],
            "aggressor": [row[5] for row in rows],
        },
        schema={name: pl.Int64 if dtype.is_temporal() else dtype for name, dtype in schema.items()},
    ).cast(dict(schema))


def whole(tape):
    return flow_clusters.step(flow_clusters.initial(), tape, PARAMS)[1]


@settings(max_examples=100, deadline=None)
@given(st.data(), ROWS, st.sampled_from([1, 10]))
def test_cutting_the_tape_anywhere_changes_nothing(data, rows, pace):
    tape = trades(rows, pace)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    state, outputs = flow_clusters.initial(), []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        state, touched = flow_clusters.step(state, tape[start:stop], PARAMS)
        outputs.append(touched)
    by_cuts = pl.concat(outputs).unique(KEY, keep="last").sort(KEY)
    assert_frame_equal(by_cuts, whole(tape), check_exact=True)


@settings(max_examples=50, deadline=None)
@given(st.data(), ROWS)
def test_the_order_of_rows_changes_nothing(data, rows):
    tape = trades(rows, 10)
    shuffled = tape[data.draw(st.permutations(range(len(rows))))]
    assert_frame_equal(whole(shuffled), whole(tape), check_exact=True)


@settings(max_examples=50, deadline=None)
@given(ROWS)
def test_shares_and_counts_add_up(rows):
    found = validated(FlowClusters, whole(trades(rows, 10)))
    ok = found.filter(pl.col("status") == "ok")
    assert (found["samples"] <= PARAMS.window_trades).all()
    assert (found.filter(pl.col("samples") < PARAMS.min_trades)["status"] == "too_few").all()
    assert (
        ok.select(pl.sum_horizontal(f"{name}_trade_count" for name in STRATEGIES)).to_series() == ok["samples"]
    ).all()
    for shares in ([f"{name}_share" for name in STRATEGIES], ["institutional_share", "retail_share"]):
        assert ((ok.select(pl.sum_horizontal(shares)).to_series() - 1).abs() < 1e-12).all()
    assert (ok["fallback"] == (ok["clusters_used"] == 1)).all()
