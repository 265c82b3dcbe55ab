"""The law of the bars fold: cutting the tape anywhere changes nothing. Examples worked by hand are unit tests."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import bars

INSTANT = pl.Datetime("ns", "UTC")
MS = 1_000_000

ROWS = st.lists(
    st.tuples(
        st.integers(0, 8_000),  # ms of the event: often the same instant, often late
        st.integers(0, 20_000),  # ms of receipt
        st.sampled_from(["A", "B", "1000"]),
        st.integers(0, 3),  # more prints of one aggregate
        st.one_of(st.floats(1e-6, 1e6), st.sampled_from([0.1, float("nan"), 0.0])),
        st.floats(1e-6, 1e6),
        st.sampled_from([-1, 0, 1]),
    ),
    max_size=40,
)


def trades(rows, ids):
    """Give the rows ids in an order of their own, and the columns of a tape."""
    return pl.DataFrame(
        {
            "ts_event": [row[0] * MS for row in rows],
            "ts_recv": [row[1] * MS for row in rows],
            "symbol": [row[2] for row in rows],
            "trade_id": [10 * k for k in ids],
            "last_trade_id": [10 * k + row[3] for k, row in zip(ids, rows, strict=True)],
            "price": [row[4] for row in rows],
            "size": [row[5] for row in rows],
            "aggressor": [row[6] for row in rows],
        },
        schema_overrides={
            "ts_event": INSTANT,
            "ts_recv": INSTANT,
            "symbol": pl.String,
            "trade_id": pl.Int64,
            "last_trade_id": pl.Int64,
            "price": pl.Float64,
            "size": pl.Float64,
            "aggressor": pl.Int8,
        },
    )


def expected_revisions(rows, width_ms):
    """Count late prints with a loop over the arrivals, per symbol and interval."""
    newest, counts = {}, {}
    for ts, _, symbol, more, price, _, _ in rows:
        if not price > 0:
            continue
        start = ts // width_ms * width_ms
        late = symbol in newest and start + width_ms <= newest[symbol]
        counts[symbol, start] = counts.get((symbol, start), 0) + (1 + more) * late
        newest[symbol] = max(ts, newest.get(symbol, ts))
    return [counts[key] for key in sorted(counts)]


@settings(max_examples=100, deadline=None)
@given(st.data(), ROWS, st.sampled_from([1, 5]))
def test_cutting_the_tape_anywhere_changes_nothing(data, rows, width_s):
    ids = data.draw(st.permutations(range(len(rows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    tape, params = trades(rows, ids), bars.BarParams(width_s)
    state, outputs = bars.initial(), []
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        state, touched = bars.step(state, tape[start:stop], params)
        outputs.append(touched)
    by_cuts = pl.concat(outputs).unique(["symbol", "ts_open"], keep="last").sort("symbol", "ts_open")
    in_one_pass = bars.bars(tape, params)
    assert_frame_equal(by_cuts, in_one_pass, rel_tol=1e-12, abs_tol=0)
    assert in_one_pass["revision"].to_list() == expected_revisions(rows, width_s * 1_000)
    assert state.partials.sort("symbol", "ts_open")["trade_count"].to_list() == in_one_pass["trade_count"].to_list()


@settings(max_examples=50, deadline=None)
@given(st.data(), ROWS)
def test_the_order_of_arrival_changes_only_revisions(data, rows):
    tape = trades(rows, range(len(rows)))
    shuffled = tape[data.draw(st.permutations(range(len(rows))))]
    assert_frame_equal(bars.bars(shuffled).drop("revision"), bars.bars(tape).drop("revision"), rel_tol=1e-12, abs_tol=0)


@settings(max_examples=50, deadline=None)
@given(ROWS, st.sampled_from([5, 60]))
def test_cascade_equals_bars_from_trades(rows, width_s):
    tape = trades(sorted(rows, key=lambda row: row[0]), range(len(rows)))
    wide = bars.bars(tape, bars.BarParams(width_s))
    assert_frame_equal(bars.cascade(bars.bars(tape), width_s), wide, rel_tol=1e-12, abs_tol=0)
