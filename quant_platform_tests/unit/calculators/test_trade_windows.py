"""Windows of the last trades: what they hold however the tape comes, and sums over ranges."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import _trade_windows, participants
from quant_platform.calculators._trade_windows import entries, no_trades, range_maxima, range_sums, trade_windows

MS = 1_000_000
SECOND = 1_000_000_000


def held(windows):
    """Return the ids of the trades of each window, by (symbol, second)."""
    ids, keys = windows.column("trade_id"), windows.samples.select("symbol", pl.col("ts_open").to_physical()).rows()
    spans = zip(windows.start, windows.stop, strict=True)
    return {(symbol, ts // SECOND): ids[a:b].tolist() for (symbol, ts), (a, b) in zip(keys, spans, strict=True)}


def trades(tape, *rows):
    """Return trades from (symbol, ms, id)."""
    return tape([{"symbol": s, "ts_ms": t, "trade_id": k, "price": 1.0} for s, t, k in rows])


def random_trades(tape, *, rows, symbols, seed):
    random = np.random.default_rng(seed)
    full = [(f"S{random.integers(symbols)}", int(random.integers(0, 30 * rows)), k) for k in range(rows)]
    return trades(tape, *sorted(full, key=lambda row: row[1:]))


def test_windows_of_two_symbols_by_hand(tape):
    rows = trades(tape, ("B", 0, 1), ("A", 10, 2), ("A", 900, 3), ("B", 950, 4), ("A", 1_000, 5), ("A", 1_001, 6))
    windows = trade_windows(no_trades(), rows, last=2, sample_s=1)
    assert held(windows) == {("A", 0): [2, 3], ("A", 1): [5, 6], ("B", 0): [1, 4]}
    assert windows.samples["last_trade_id"].to_list() == [3, 6, 4]
    assert windows.samples["trade_count"].to_list() == [2, 2, 2]
    assert windows.samples["ts_event"].to_physical().to_list() == [900 * MS, 1_001 * MS, 950 * MS]
    assert windows.symbol.tolist() == [0, 0, 0, 0, 1, 1]
    assert windows.tail.select("symbol", "trade_id").rows() == [("A", 6), ("B", 4)]


def test_a_later_chunk_joins_the_tail_and_leaves_other_symbols_alone(tape):
    first = trade_windows(no_trades(), trades(tape, ("B", 0, 1), ("A", 10, 2), ("A", 900, 3)), last=3, sample_s=1)
    second = trade_windows(first.tail, trades(tape, ("B", 999, 4), ("B", 1_000, 5)), last=3, sample_s=1)
    assert held(second) == {("B", 0): [1, 4], ("B", 1): [1, 4, 5]}
    third = trade_windows(second.tail, trades(tape, ("A", 1_000, 6)), last=3, sample_s=1)
    assert held(third) == {("A", 1): [2, 3, 6]}


def test_late_and_repeated_trades_are_ignored(tape):
    first = trade_windows(no_trades(), trades(tape, ("A", 10, 2), ("A", 900, 3)), last=9, sample_s=1)
    late = trades(tape, ("A", 10, 2), ("A", 500, 9), ("A", 900, 2), ("A", 900, 3), ("A", 900, 4), ("A", 900, 4))
    assert held(trade_windows(first.tail, late, last=9, sample_s=1)) == {("A", 0): [2, 3, 4]}
    nothing = trade_windows(first.tail, late[:4], last=9, sample_s=1)
    assert nothing.samples.is_empty()
    assert_frame_equal(nothing.tail, first.tail)


def test_a_chunk_out_of_order_is_put_in_order(tape):
    chunk = trades(tape, ("B", 5, 5), ("A", 3, 3), ("B", 5, 4), ("A", 1, 8))
    windows = trade_windows(no_trades(), chunk, last=9, sample_s=1)
    assert held(windows) == {("A", 0): [8, 3], ("B", 0): [4, 5]}


def test_context_counts_rows_and_time(tape):
    rows = trades(tape, *[("A", t, t) for t in (0, 100, 190, 200, 250, 1_000)])

    def context(**asked):
        windows = trade_windows(no_trades(), rows, last=2, sample_s=1, **asked)
        return [windows.column("trade_id")[k] for k in windows.context]

    assert context() == [200, 250]
    assert context(context_rows=2) == [100, 190]
    assert context(context_rows=9) == [0, 0]
    assert context(context_ns=100 * MS) == [100, 190]
    assert context(context_ns=10 * MS, context_rows=1) == [190, 200]


@pytest.mark.parametrize("context", [{}, {"context_rows": 3}, {"context_ns": 400 * MS}])
@pytest.mark.parametrize("last", [1, 2, 7])
def test_a_dense_tape_is_cut_down_to_what_windows_look_at(tape, context, last):
    rows = random_trades(tape, rows=600, symbols=2, seed=1)
    windows = trade_windows(no_trades(), rows, last=last, sample_s=5, **context)
    assert windows.rows.height < rows.height
    expected = {}
    for (symbol,), part in rows.group_by("symbol"):
        for end in range(1, part.height + 1):
            second = part["ts_event"].to_physical()[end - 1] // (5 * SECOND) * 5
            expected[symbol, second] = part["trade_id"][max(0, end - last) : end].to_list()
    assert held(windows) == expected


@pytest.mark.parametrize("block_rows", [1, 50, 500])
def test_blocks_change_nothing(tape, monkeypatch, block_rows):
    quotes = {"bid_price": pl.lit(1.0), "ask_price": pl.lit(2.0)}
    rows = random_trades(tape, rows=600, symbols=3, seed=2).with_columns(**quotes)
    params = participants.ParticipantParams(sample_s=1, window_trades=20)
    whole = participants.step(participants.initial(), rows, params)[1]
    monkeypatch.setattr(_trade_windows, "_BLOCK_ROWS", block_rows)
    assert_frame_equal(participants.step(participants.initial(), rows, params)[1], whole, check_exact=True)


def test_entries_are_shared_but_where_a_window_ends_before_a_completion(tape):
    windows = trade_windows(no_trades(), trades(tape, *[("A", 1_000 * k, k) for k in range(4)]), last=2, sample_s=1)
    seen = entries(windows, np.array([2, 1, 2, 4]))  # row 2 completes rows 0 and 2; row 3 stays incomplete
    complete = seen.is_complete(np.array([2, 1, 2, 4]))
    assert seen.total(complete).tolist() == [0, 1, 2, 1]
    assert seen.has_any(complete).tolist() == [False, True, True, True]
    assert seen.total(seen.of(windows.column("trade_id"))).tolist() == [0, 1, 3, 5]
    assert len(seen.copied) == 3  # those of the first two windows


def test_sums_and_maxima_of_ranges_in_any_order():
    values = np.array([1.0, -2.0, 4.0, 8.0])
    start, stop = np.array([2, 0, 0, 3]), np.array([3, 2, 3, 4])
    assert range_sums(values, start, stop).tolist() == [4.0, -1.0, 3.0, 8.0]
    assert range_maxima(values, start, stop).tolist() == [4.0, 1.0, 4.0, 8.0]
    assert range_sums(values > 0, start, stop).tolist() == [1, 1, 2, 1]
    assert range_sums(values[:0], start[:0], stop[:0]).tolist() == []


def test_a_range_keeps_no_residue_of_what_lies_outside():
    values = np.array([1e16, 1.0, 1.0, -1e16])
    assert range_sums(values, np.array([1]), np.array([3])).tolist() == [2.0]


def test_symbols_may_be_categorical_and_other_columns_are_left_out(tape):
    rows = random_trades(tape, rows=100, symbols=3, seed=3)
    extended = rows.with_columns(pl.col("symbol").cast(pl.Categorical), note=pl.lit("x"))
    ours, plain = (trade_windows(no_trades(), frame, last=5, sample_s=1) for frame in (extended, rows))
    assert_frame_equal(ours.samples, plain.samples)
    assert_frame_equal(ours.rows, plain.rows)
