"""The law of the local order book: cutting the events anywhere changes nothing. Hand-worked examples are unit tests."""

import pickle

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import local_order_book
from quant_platform.contracts._schema import validated
from quant_platform.contracts.market import Book

MS = 1_000_000
LEVELS = st.lists(
    st.tuples(st.integers(1, 12).map(float), st.sampled_from([0.0, 1.0, 2.5, float("nan")]).map(float)), max_size=4
)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),  # ms since the event before
        st.sampled_from(["A", "B"]),
        st.sampled_from(["snapshot", "diff", "diff", "diff"]),
        st.integers(-2, 3),  # ids since the event before
        st.integers(0, 2),  # ids that the diff reaches back over
        st.sampled_from([None, 0, 0, 1]),  # how far the previous id is off
        LEVELS,
        LEVELS,
    ),
    max_size=50,
)


def events(rows):
    made, ts, last = [], 0, {"A": 10, "B": 10}
    for gap, symbol, kind, more, reach, off, bids, asks in rows:
        ts += gap
        before, last[symbol] = last[symbol], max(last[symbol] + more, 0)
        levels = (
            ([price for price, _ in side] for side in (bids, asks)),
            ([size for _, size in side] for side in (bids, asks)),
        )
        (bid_prices, ask_prices), (bid_sizes, ask_sizes) = levels
        made.append(
            {
                "ts_event": ts * MS,
                "ts_recv": (ts + 5) * MS,
                "symbol": symbol,
                "venue": "v",
                "kind": kind,
                "first_id": None if kind == "snapshot" else last[symbol] - reach,
                "final_id": last[symbol],
                "previous_id": None if off is None else before - off,
                "bid_prices": bid_prices,
                "bid_sizes": bid_sizes,
                "ask_prices": ask_prices,
                "ask_sizes": ask_sizes,
            }
        )
    integers = {name: pl.Int64 if kind.is_temporal() else kind for name, kind in local_order_book.EVENTS.items()}
    return pl.DataFrame(made, schema=integers).cast(local_order_book.EVENTS)


@settings(max_examples=150, deadline=None)
@given(st.data(), ROWS)
def test_cutting_the_events_anywhere_changes_nothing(data, rows):
    stream = events(rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    state, outputs = local_order_book.initial(), []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        state, touched = local_order_book.step(pickle.loads(pickle.dumps(state)), stream[start:stop])
        outputs.append(touched)
    whole, in_one_pass = local_order_book.step(local_order_book.initial(), stream)
    assert_frame_equal(pl.concat(outputs).sort("symbol", maintain_order=True), in_one_pass)
    assert_frame_equal(local_order_book.gaps(state), local_order_book.gaps(whole))
    validated(Book, in_one_pass)
    by_symbol = in_one_pass.group_by("symbol").agg(pl.col("ts_event").is_sorted())
    assert by_symbol["ts_event"].all()
