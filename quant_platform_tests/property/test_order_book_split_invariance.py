"""The law of the order-book fold: cutting the books anywhere changes nothing. Hand-worked examples are unit tests."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import order_book
from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.market import Book, Quote
from quant_platform.contracts.microstructure import OrderBookImbalance

MS = 1_000_000
PRICES = st.sampled_from([None, 99.0, 100.0, 100.5, 101.0, float("nan"), 0.0])
SIZES = st.one_of(st.floats(1e-3, 1e3), st.sampled_from([None, 0.0, 0.1, 0.3, float("inf")]))
ROWS = st.lists(
    st.tuples(
        st.integers(0, 400),  # ms since the update before, of all symbols
        st.sampled_from([0, 1]),  # sequences since then: often the same one again
        st.integers(0, 3_000),  # ms until receipt
        st.sampled_from(["A", "B", "1000"]),
        st.tuples(PRICES, SIZES, PRICES, SIZES),
        st.tuples(SIZES, SIZES),
    ),
    max_size=40,
)


def books(rows, contract):
    """Return books in the order of time and sequence; the second level exists in `Book` only."""
    level = "_1" if contract is Book else ""
    made, ts, sequence = [], 0, 0
    for gap, more, delay, symbol, touch, second in rows:
        ts, sequence = ts + gap, sequence + more
        row = {"ts_event": ts * MS, "ts_recv": (ts + delay) * MS, "symbol": symbol, "venue": "v", "sequence": sequence}
        row |= {f"{name}{level}": value for name, value in zip(order_book.TOUCH, touch, strict=True)}
        if contract is Book:
            row |= {"bid_price_2": 98.5, "bid_size_2": second[0], "ask_price_2": 101.5, "ask_size_2": second[1]}
        made.append(row)
    schema = polars_schema(contract)
    integers = {name: pl.Int64 if kind.is_temporal() else kind for name, kind in schema.items()}
    return pl.DataFrame(made, schema=integers).cast(dict(schema))


@settings(max_examples=150, deadline=None)
@given(st.data(), ROWS, st.sampled_from([Book, Quote]), st.sampled_from([0.25, 1.0]))
def test_cutting_the_books_anywhere_changes_nothing(data, rows, contract, sample_s):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    tape, params = books(rows, contract), order_book.OrderBookParams(sample_s, velocity_lookback_s=0.5)
    state, outputs = order_book.initial(), []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        state, touched = order_book.step(state, tape[start:stop], params)
        outputs.append(touched)
    by_cuts = pl.concat(outputs).unique(["symbol", "ts_open"], keep="last").sort("symbol", "ts_open")
    in_one_pass = order_book.order_book_imbalance(tape, params)
    assert_frame_equal(by_cuts, in_one_pass, check_exact=True)
    validated(OrderBookImbalance, in_one_pass)
    has_touch = in_one_pass["status"].is_in(["ok", "locked"])
    assert in_one_pass.filter(~has_touch).select(
        "l1", "l5", "micro_price", "ofi"
    ).null_count().sum_horizontal().to_list() == [4 * (~has_touch).sum()]
