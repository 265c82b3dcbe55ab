"""The law of the hidden-orders fold: cutting trades and quotes changes nothing. Hand-worked examples are unit tests."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import hidden_orders
from quant_platform.contracts._schema import INSTANT, validated
from quant_platform.contracts.microstructure import HiddenOrder

MS = 1_000_000
TICKS = st.sampled_from([100.0, 101.0, 102.0])
SIZES = st.sampled_from([0.1, 0.2, 0.3, 1.0, 2.0])
TOUCH = st.tuples(TICKS, SIZES, TICKS, SIZES)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 60),  # ms since the event before
        st.integers(0, 400),  # ms until receipt
        st.sampled_from(["A", "B"]),
        TOUCH,
        st.one_of(
            st.none(), st.tuples(st.sampled_from([100.0, 101.0, 101.5, 102.0]), SIZES, st.sampled_from([-1, 0, 1]))
        ),
    ),
    max_size=60,
)
SCHEMA = {
    "ts_event": pl.Int64,
    "ts_recv": pl.Int64,
    "symbol": pl.String,
    "venue": pl.String,
    "trade_id": pl.Int64,
    "sequence": pl.Int64,
    "bid_price": pl.Float64,
    "bid_size": pl.Float64,
    "ask_price": pl.Float64,
    "ask_size": pl.Float64,
    "price": pl.Float64,
    "size": pl.Float64,
    "aggressor": pl.Int8,
}


def tapes(events):
    """Return trades (with the quote given beside them) and quotes of one timeline."""
    made, ts = [], 0
    for number, (gap, delay, symbol, touch, trade) in enumerate(events):
        ts += gap
        key = (ts * MS, (ts + delay) * MS, symbol, "v", number, number)
        made.append((*key, *touch, *(trade or (None, None, None))))
    frame = pl.DataFrame(made, schema=SCHEMA, orient="row").with_columns(pl.col("ts_event", "ts_recv").cast(INSTANT))
    return frame.filter(pl.col("price").is_not_null()), frame.filter(pl.col("price").is_null())


@settings(max_examples=150, deadline=None)
@given(st.data(), EVENTS, st.sampled_from([60, 200]))
def test_cutting_trades_and_quotes_anywhere_changes_nothing(data, events, lag_ms):
    trades, quotes = tapes(events)
    params = hidden_orders.HiddenOrderParams(refill_within_ms=50, iceberg_refills=2, max_lag_ms=lag_ms)
    end = sum(event[0] for event in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, end), max_size=6)))
    skews = [data.draw(st.integers(-lag_ms, lag_ms)) for _ in cuts]
    state, outputs, done = hidden_orders.initial(), [], [0, 0]
    for cut, skew in [*zip(cuts, skews, strict=True), (end, 0)]:
        stops = [
            max(start, int((tape["ts_event"].to_physical() <= until * MS).sum()))
            for start, tape, until in zip(done, (trades, quotes), (cut, cut + skew), strict=True)
        ]
        state, rows = hidden_orders.step(state, trades[done[0] : stops[0]], quotes[done[1] : stops[1]], params)
        done = stops
        outputs.append(rows)
    by_cuts = pl.concat(outputs).unique(["symbol", "trade_id"], keep="last").sort("symbol", "ts_event", "trade_id")
    in_one_pass = hidden_orders.hidden_orders(trades, quotes, params)
    assert_frame_equal(by_cuts, in_one_pass, check_exact=True)
    validated(HiddenOrder, in_one_pass)


@settings(max_examples=100, deadline=None)
@given(st.data(), EVENTS)
def test_cutting_the_tape_within_an_instant_changes_nothing(data, events):
    trades, quotes = tapes([(gap // 30, *rest) for gap, *rest in events])
    cuts = sorted(data.draw(st.lists(st.integers(0, trades.height), max_size=6)))
    state, first = hidden_orders.step(hidden_orders.initial(), trades.clear(), quotes)
    outputs = [first]
    for start, stop in zip([0, *cuts], [*cuts, trades.height], strict=True):
        state, rows = hidden_orders.step(state, trades[start:stop], quotes.clear())
        outputs.append(rows)
    by_cuts = pl.concat(outputs).unique(["symbol", "trade_id"], keep="last").sort("symbol", "ts_event", "trade_id")
    assert_frame_equal(by_cuts, hidden_orders.hidden_orders(trades, quotes), check_exact=True)
