"""The laws of the VPIN fold: cuts change nothing, volume is conserved, values are shares. Examples are unit tests."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import vpin
from quant_platform.calculators.vpin import VpinParams

INSTANT = pl.Datetime("ns", "UTC")
MS = 1_000_000
ROWS = st.lists(
    st.tuples(
        st.integers(0, 8_000),  # ms: often the same instant
        st.integers(0, 20_000),  # ms of receipt, in an order of its own
        st.sampled_from(["A", "B", "1000", "no size"]),
        st.integers(8, 12),
        st.one_of(st.floats(1e-6, 100), st.sampled_from([0.1, 0.3, 1.0, 7.0])),
        st.sampled_from([-1, 0, 1]),
    ),
    max_size=40,
)
SIZES = st.tuples(*(st.one_of(st.floats(0.5, 50), st.sampled_from([0.3, 1.0])) for _ in range(3)))
PARAMS = st.sampled_from(
    [
        VpinParams(n_buckets=1, sample_s=1),
        VpinParams(n_buckets=4, sample_s=2),
        VpinParams(n_buckets=2, sample_s=3, signing="bvc", bar_s=1),
    ]
)


def trades(rows):
    """Rows in the order of the tape: cuts are made in time, as `step` asks."""
    rows = sorted(rows, key=lambda row: row[0])
    frame = pl.DataFrame(
        {
            "ts_event": [row[0] * MS for row in rows],
            "ts_recv": [row[1] * MS for row in rows],
            "symbol": [row[2] for row in rows],
            "trade_id": list(range(len(rows))),
            "last_trade_id": [k + 1 for k in range(len(rows))],
            "price": [float(row[3]) for row in rows],
            "size": [row[4] for row in rows],
            "aggressor": [row[5] for row in rows],
        },
        schema_overrides={
            "ts_event": pl.Int64,
            "ts_recv": pl.Int64,
            "symbol": pl.String,
            "trade_id": pl.Int64,
            "last_trade_id": pl.Int64,
            "price": pl.Float64,
            "size": pl.Float64,
            "aggressor": pl.Int8,
        },
    )
    return frame.cast({"ts_event": INSTANT, "ts_recv": INSTANT})


def known(sizes):
    return pl.DataFrame({"symbol": ["A", "B", "1000"], "bucket_size": sizes, "price_change_std": [0.5, 1.0, 2.0]})


def last_per_key(samples):
    return samples.unique(["symbol", "ts_open"], keep="last").sort("symbol", "ts_open")


@settings(max_examples=150, deadline=None)
@given(st.data(), ROWS, SIZES, PARAMS)
def test_cutting_the_tape_anywhere_changes_nothing(data, rows, sizes, params):
    tape, sizes = trades(rows), known(sizes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    opens_at = data.draw(st.one_of(st.none(), st.integers(0, len(rows))))
    marks = sorted({0, len(rows), *([] if opens_at is None else [opens_at])})

    def folded(edges):
        state, outputs = vpin.initial(), []
        for start, stop in pairwise(edges):
            state = vpin.opened(state) if start == opens_at else state
            state, found = vpin.step(state, tape[start:stop], sizes, params)
            outputs.append(found)
        buckets = pl.concat([vpin.vpin(tape[:0], sizes).buckets, *(found.buckets for found in outputs)])
        samples = pl.concat([vpin.vpin(tape[:0], sizes).samples, *(found.samples for found in outputs)])
        return state, buckets.sort("symbol", "bucket"), last_per_key(samples)

    state, buckets, samples = folded(marks)
    cut_state, cut_buckets, cut_samples = folded(sorted({*marks, *cuts}))
    assert_frame_equal(cut_buckets, buckets, check_exact=True)
    assert_frame_equal(cut_samples, samples, check_exact=True)
    for name, values in state.books.facts.items():
        for symbol, place in state.books.places.items():
            cut_value = cut_state.books.facts[name][cut_state.books.places[symbol]]
            is_set = name != "ts_start" or state.books.facts["volume"][place]
            assert not is_set or (cut_value == values[place]).all(), (name, symbol)


@settings(max_examples=100, deadline=None)
@given(ROWS, SIZES)
def test_volume_is_conserved_and_values_are_shares(rows, sizes):
    tape, sizes = trades(rows), known(sizes)
    state, found = vpin.step(vpin.initial(), tape, sizes, VpinParams(n_buckets=3, sample_s=1))
    for symbol, size in sizes.select("symbol", "bucket_size").iter_rows():
        place = state.books.places.get(symbol)
        if place is None:
            continue
        own = found.buckets.filter(symbol=symbol)
        left = state.books.facts["volume"][place] / state.books.facts["scale"][place]
        traded = tape.filter(symbol=symbol)["size"].sum()
        assert own.height * size + left == pytest.approx(traded, rel=1e-9)
        assert 0 <= left < size
        assert (own["buy_volume"] + own["sell_volume"]).to_list() == pytest.approx([size] * own.height, rel=1e-11)
    for column in (found.buckets["imbalance"], found.buckets["vpin"], found.samples["vpin"]):
        assert column.drop_nulls().is_between(0, 1).all()
