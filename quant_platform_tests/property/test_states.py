"""States put together from states over a few symbols go on as if each symbol had been folded in them from the start."""

import itertools

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import (
    flow_clusters,
    hidden_orders,
    order_book,
    participants,
    states,
    sweeps,
    toxicity,
    trade_sign,
    vpin,
)
from quant_platform.contracts._schema import empty, polars_schema
from quant_platform.contracts.market import Quote, Trade
from quant_platform.contracts.microstructure import Vpin

MS = 1_000_000
SIZES = pl.DataFrame({"symbol": ["A", "B", "C"], "bucket_size": [4.0, 5.0, 6.0]})
SMALL = {"window_trades": 4, "sample_s": 1}
NO_VPIN = empty(Vpin).select("symbol", "ts_open", "vpin", "ts_known")
FOLDS = {
    "trade_sign": (trade_sign.initial(), trade_sign.step),
    "vpin": (vpin.initial(), lambda s, tape, _: vpin.step(s, tape, SIZES, vpin.VpinParams(n_buckets=2, sample_s=1))),
    "toxicity": (
        toxicity.initial(),
        lambda s, tape, _: toxicity.step(s, tape, NO_VPIN, toxicity.ToxicityParams(**SMALL)),
    ),
    "participants": (
        participants.initial(),
        lambda s, tape, _: participants.step(s, tape, participants.ParticipantParams(**SMALL)),
    ),
    "sweeps": (sweeps.initial(), lambda s, tape, _: sweeps.step(s, tape)),
    "hidden_orders": (hidden_orders.initial(), hidden_orders.step),
    "flow_clusters": (
        flow_clusters.initial(),
        lambda s, tape, _: flow_clusters.step(s, tape, flow_clusters.FlowClustersParams(min_trades=3, **SMALL)),
    ),
    "order_book": (order_book.initial(), lambda s, _, quotes: order_book.step(s, quotes)),
}
ROWS = st.lists(
    st.tuples(
        st.sampled_from("ABC"),
        st.sampled_from([1, 20, 400, 1_100]),  # ms since the row before
        st.sampled_from([9.0, 10.0, 10.5, 11.0]),
        st.sampled_from([0.5, 1.0, 3.0, 8.0]),
        st.sampled_from([-1, 0, 1]),
    ),
    min_size=1,
    max_size=40,
)


def market(rows):
    """Return trades signed at quotes that stand 5 ms before each."""
    times = list(itertools.accumulate(10 + row[1] for row in rows))
    trades = pl.DataFrame(
        {
            "ts_event": [t * MS for t in times],
            "ts_recv": [t * MS + 5 for t in times],
            "symbol": [row[0] for row in rows],
            "venue": "V",
            **{name: range(len(rows)) for name in ("trade_id", "first_trade_id", "last_trade_id")},
            "price": [row[2] for row in rows],
            "size": [row[3] for row in rows],
            "aggressor": [row[4] for row in rows],
        },
        schema=polars_schema(Trade),
    )
    quotes = pl.DataFrame(
        {
            "ts_event": [(t - 5) * MS for t in times],
            "ts_recv": [(t - 5) * MS + 5 for t in times],
            "symbol": [row[0] for row in rows],
            "venue": "V",
            "bid_price": 9.5,
            "bid_size": [row[3] for row in rows],
            "ask_price": 10.5,
            "ask_size": 2.0,
            "sequence": list(range(len(rows))),
            "is_ts_event_assumed": False,
        },
        schema=polars_schema(Quote),
    )
    return trade_sign.signed(trades, quotes), quotes


def of(symbols, *frames):
    return (frame.filter(pl.col("symbol").is_in(symbols)) for frame in frames)


@pytest.mark.parametrize("name", FOLDS)
@settings(max_examples=40, deadline=None)
@given(rows=ROWS, cut=st.integers(0, 40), noise=ROWS)
def test_a_symbol_taken_from_another_state_goes_on_as_if_it_had_always_been_there(name, rows, cut, noise):
    initial, step = FOLDS[name]
    tape, quotes = market(rows)
    before = [frame[:cut] for frame in (tape.sort("ts_event"), quotes.sort("ts_event"))]
    after = [frame[cut:] for frame in (tape.sort("ts_event"), quotes.sort("ts_event"))]
    whole, _ = step(initial, *before)
    expected = step(whole, *after)[1]
    # B was folded elsewhere; what was known of it here is of another market.
    here, _ = step(initial, *of(["A", "C"], *before))
    here, _ = step(here, *of(["B"], *market(noise)))
    elsewhere, _ = step(initial, *of(["B"], *before))
    found = step(states.replaced(here, ["B"], elsewhere), *after)[1]
    for one, other in zip(frames_of(found), frames_of(expected), strict=True):
        assert_frame_equal(one, other, check_exact=True)


@settings(max_examples=20, deadline=None)
@given(rows=ROWS)
def test_a_symbol_that_the_other_state_does_not_know_is_forgotten(rows):
    tape, quotes = market(rows)
    for initial, step in FOLDS.values():
        known, _ = step(initial, tape, quotes)
        forgotten = states.replaced(known, ["A", "B", "C"], initial)
        for one, other in zip(
            frames_of(step(forgotten, tape, quotes)[1]), frames_of(step(initial, tape, quotes)[1]), strict=True
        ):
            assert_frame_equal(one, other, check_exact=True)


def test_what_is_not_kept_by_symbol_is_refused():
    with pytest.raises(TypeError, match="int is no state"):
        states.replaced(1, ["A"], 2)


def frames_of(output):
    return [output] if isinstance(output, pl.DataFrame) else list(output)
