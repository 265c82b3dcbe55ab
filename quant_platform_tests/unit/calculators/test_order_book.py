"""Order-book imbalance: the oracle, hand-worked flows, a plain loop as a second opinion, and the edge matrix."""

import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import _tape, order_book
from quant_platform.contracts._schema import INSTANT, polars_schema, validated
from quant_platform.contracts.market import Book, Quote
from quant_platform.contracts.microstructure import OrderBookImbalance
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "obi_cases.json").read_text())
MS = 1_000_000
SECOND = 1_000_000_000
VALUES = ["l1", "l5", "pressure_ratio", "micro_price", "velocity", "state", "ofi"]


def cases(*ids):
    found = [case for case in ORACLE["cases"] if case["id"] in ids]
    assert len(found) == len(ids)
    return found


def books(rows, *, contract=Book):
    """Return books from rows (ts_ms, bids, asks, other columns by name); levels are (price, size) pairs, best first."""
    filled = []
    for number, (ts_ms, bids, asks, *other) in enumerate(rows):
        row = {
            "ts_event": ts_ms * MS,
            "ts_recv": (ts_ms + 50) * MS,
            "symbol": "BTCUSDT",
            "venue": "binance_usdm",
            "sequence": number,
        }
        for side, levels in (("bid", bids), ("ask", asks)):
            for level, (price, size) in enumerate(levels, 1):
                row |= {f"{side}_price_{level}": price, f"{side}_size_{level}": size}
                if contract is Quote:
                    row |= {f"{side}_price": price, f"{side}_size": size}
        filled.append(row | (other[0] if other else {}))
    schema = polars_schema(contract)
    integers = {name: pl.Int64 if kind.is_temporal() else kind for name, kind in schema.items()}
    return pl.DataFrame(filled, schema=integers, strict=False).cast(dict(schema))


def found(frame, params=order_book.OrderBookParams()):  # noqa: B008  # frozen
    rows = order_book.order_book_imbalance(frame, params)
    return validated(OrderBookImbalance, rows)


def quote(ts_ms, bid, bid_size, ask, ask_size, **other):
    return ts_ms, [(bid, bid_size)], [(ask, ask_size)], other


def book_of_l5(ts_ms, l5):
    """(1 + l5) against (1 - l5)."""
    return quote(ts_ms, 99.0, 1 + l5, 100.0, 1 - l5)


BOOK_CASES = [case for case in ORACLE["cases"] if "bids" in case["inputs"]]


def test_every_oracle_case_is_run_here():
    others = cases("velocity", "velocity_no_history", "ofi")
    assert len(BOOK_CASES) + len(others) == len(ORACLE["cases"])


@pytest.mark.parametrize("case", BOOK_CASES, ids=lambda case: case["id"])
def test_book_oracle(case):
    bids, asks = (case["inputs"][side][:5] for side in ("bids", "asks"))  # the table holds five levels
    (row,) = found(books([(0, bids, asks)])).to_dicts()
    for name, value in case["expected"].items():
        assert row[name] == (
            pytest.approx(value, rel=0, abs=case["tolerance"]["abs"]) if isinstance(value, float) else value
        )
    assert row["depth_status"] == row["status"]
    assert row["velocity"] is None
    assert row["ofi"] is None


@pytest.mark.parametrize("case", cases("velocity", "velocity_no_history"), ids=lambda case: case["id"])
def test_velocity_oracle(case):
    inputs = case["inputs"]
    frame = books([book_of_l5(round(t * 1_000), l5) for t, l5 in inputs["l5_history"]])
    params = order_book.OrderBookParams(sample_s=0.1, velocity_lookback_s=inputs["lookback_s"])  # a sample each
    rows = found(frame, params)
    assert rows.height == frame.height
    expected = case["expected"]["velocity"]
    assert rows["velocity"][-1] == (expected and pytest.approx(expected, rel=0, abs=case["tolerance"]["abs"]))


@pytest.mark.parametrize("contract", [Book, Quote])
def test_ofi_oracle(contract):
    (case,) = cases("ofi")
    rows = [
        quote(1_000 * k, q["bid"], q["bid_size"], q["ask"], q["ask_size"])
        for k, q in enumerate(case["inputs"]["snapshots"])
    ]
    frame = books(rows, contract=contract)
    assert found(frame)["ofi"].to_list() == case["expected"]["ofi"]
    (whole,) = found(frame, order_book.OrderBookParams(sample_s=60))["ofi"]
    assert whole == sum(case["expected"]["ofi"][1:])


def test_quotes_have_no_depth_but_a_touch():
    (row,) = found(books([quote(0, 99, 3, 101, 1)], contract=Quote)).to_dicts()
    assert (row["l1"], row["micro_price"]) == (0.5, 100.5)
    assert (row["status"], row["depth_status"], row["levels_used"]) == ("ok", "no_depth", 0)
    assert all(row[name] is None for name in ("l5", "pressure_ratio", "velocity", "state"))


def test_a_crossed_quote_says_so_twice():
    (row,) = found(books([quote(0, 101, 3, 99, 1)], contract=Quote)).to_dicts()
    assert (row["status"], row["depth_status"], row["l1"]) == ("crossed", "crossed", None)


def test_no_size_offered_has_no_ratio():
    (row,) = found(books([quote(0, 99, 4, 100, 0)])).to_dicts()
    assert (row["l1"], row["l5"], row["micro_price"], row["pressure_ratio"]) == (1, 1, 100, None)
    assert (row["status"], row["state"]) == ("ok", "extreme")


@pytest.mark.parametrize(
    ("bids", "asks"),
    [
        ([(float("nan"), 1)], [(100, 1)]),
        ([(99, float("nan"))], [(100, 1)]),
        ([(99, 1)], [(float("inf"), 1)]),
        ([(99, 1)], [(100, float("inf"))]),
        ([(0.0, 1)], [(100, 1)]),
        ([(-99.0, 1)], [(100, 1)]),
        ([(99, -1)], [(100, 1)]),
        ([(99, 1), (98, float("nan"))], [(100, 1)]),
        ([(99, 1)], [(100, 1), (-1.0, 1)]),
    ],
)
def test_a_figure_that_is_none_is_null_with_a_reason(bids, asks):
    good = [(99.0, 5.0)], [(100.0, 2.0)]
    rows = found(books([(0, *good), (1_000, bids, asks), (2_000, *good), (3_000, *good)]))
    assert rows["status"].to_list() == ["ok", "invalid_input", "ok", "ok"]
    assert rows[1].select(VALUES).row(0) == (None,) * len(VALUES)
    assert rows["l5"].to_list() == [3 / 7, None, 3 / 7, 3 / 7]
    assert rows["velocity"].to_list() == [None, None, 0, 0]


def test_a_touch_that_is_no_number_cuts_the_flow():
    frame = books(
        [
            quote(0, 99, 5, 100, 2),
            quote(1, 99, 6, 100, 2),  # +1
            quote(2, 99, float("nan"), 100, 2),  # not known, nothing
            quote(3, 99, 50, 100, 2),  # nothing
            quote(4, 99, 53, 100, 2),  # +3
            (5, [], []),  # the book was lost
            quote(6, 90, 1, 100, 2),
            quote(7, 90, 1, 100, 1.5),  # +.5
        ]
    )
    assert found(frame)["ofi"].to_list() == [4.5]


def test_an_empty_side_is_a_price_worse_than_any():
    frame = books(
        [
            quote(0, 99, 5, 100, 2),
            (1_000, [], [(100, 2)]),  # the bid of 5 leaves
            (2_000, [(98, 7)], [(100, 2)]),  # a bid of 7 comes
            (3_000, [(98, 7)], []),  # the offer of 2 leaves
            (4_000, [(98, 8)], []),
            quote(5_000, 98, 8, 101, 3),  # an offer of 3 comes
        ]
    )
    rows = found(frame)
    assert rows["status"].to_list() == ["ok", "one_sided", "ok", "one_sided", "one_sided", "ok"]
    assert rows["ofi"].to_list() == [None, None, 7, None, None, -3]
    assert found(frame, order_book.OrderBookParams(sample_s=60))["ofi"].to_list() == [-5 + 7 + 2 + 1 - 3]


def test_a_size_without_its_price_is_no_level():
    rows = found(books([quote(0, None, 5, 100, 2), (1, [(99, 5), (None, 9)], [(100, 5), (101, None)])]))
    assert rows.select("status", "l5", "levels_used").rows() == [("ok", 0, 1)]


def test_both_sides_empty_is_no_data():
    rows = found(books([(0, [], [])]))
    assert rows["status"].to_list() == ["no_data"]
    assert rows.select(VALUES).row(0) == (None,) * len(VALUES)


def test_the_interval_is_half_open_and_its_last_update_counts():
    frame = books([quote(999, 99, 1, 100, 1), quote(1_000, 99, 3, 100, 1), quote(1_999, 99, 1, 100, 3)])
    rows = found(frame)
    assert rows["ts_open"].to_physical().to_list() == [0, SECOND]
    assert rows["ts_event"].to_physical().to_list() == [999 * MS, 1_999 * MS]
    assert rows["sequence"].to_list() == [0, 2]
    assert rows["l1"].to_list() == [0, -0.5]
    assert rows["ofi"].to_list() == [None, 2 - 2 - 2]


def test_known_time_is_the_latest_receipt_of_what_was_used():
    frame = books(
        [
            quote(0, 99, 1, 100, 1, ts_recv=5_000 * MS),
            quote(1_000, 99, 2, 100, 1, ts_recv=1_100 * MS),  # its flow used the first, received later
            quote(1_500, 99, 3, 100, 1, ts_recv=1_600 * MS),
            quote(2_000, 99, 4, 100, 1, ts_recv=2_100 * MS),  # its velocity used the first
            quote(4_000, 99, 4, 100, 1, ts_recv=4_100 * MS),
        ]
    )
    known = found(frame)["ts_known"].to_physical().to_list()
    assert known == [5_000 * MS, 5_000 * MS, 5_000 * MS, 4_100 * MS]


def test_velocity_skips_rows_without_depth():
    rows = [book_of_l5(0, 0.1), (1_000, [(101, 1)], [(100, 1)]), book_of_l5(3_000, 0.7)]
    assert found(books(rows))["velocity"].to_list() == [None, None, pytest.approx(0.2)]


def test_velocity_forgets_a_row_that_was_revised_away():
    state, _ = order_book.step(order_book.initial(), books([book_of_l5(0, 0.1), book_of_l5(1_000, 0.5)]))
    crossed = books(
        [(1_500, [(101, 1)], [(100, 1)], {"sequence": 7}), (3_500, *book_of_l5(0, 0.8)[1:3], {"sequence": 8})]
    )
    _, rows = order_book.step(state, crossed)
    assert rows["velocity"].to_list() == [None, pytest.approx(0.2)]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sample_s": 0}, "sample_s must be >= 0.001, was 0"),
        ({"velocity_lookback_s": float("inf")}, "velocity_lookback_s must be >= 0.001, was inf"),
        ({"moderate": 0.8}, "0 <= moderate <= extreme <= 1 must hold, was 0.8 and 0.7"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        order_book.OrderBookParams(**params)


@pytest.mark.parametrize("contract", [Book, Quote])
def test_no_books_give_no_rows(contract):
    state, rows = order_book.step(order_book.initial(), books([], contract=contract))
    assert_frame_equal(rows, polars_schema(OrderBookImbalance).to_frame())
    assert not state.last.places


def test_rows_without_symbol_time_or_sequence_are_left_out():
    names = ("symbol", "ts_event", "sequence")
    rows = found(books([quote(0, 99, 1, 100, 1), *(quote(1, 99, 9, 100, 1, **{name: None}) for name in names)]))
    assert rows["l1"].to_list() == [0]


def test_an_update_without_receipt_is_refused():
    with pytest.raises(ValueError, match="ts_recv is null in 1 updates"):
        order_book.order_book_imbalance(books([quote(0, 99, 1, 100, 1, ts_recv=None)]))


def test_order_of_rows_does_not_matter_and_sequence_breaks_ties():
    rows = [quote(0, 99, size, 100, 1, sequence=k) for k, size in enumerate([1, 5, 2])]
    frame = books([*rows, quote(0, 99, 7, 100, 1, sequence=1, symbol="ETHUSDT")])
    in_order = found(frame)
    assert in_order["ofi"].to_list() == [1, None]
    assert in_order["sequence"].to_list() == [2, 1]
    for seed in range(5):
        assert_frame_equal(found(frame.sample(fraction=1, shuffle=True, seed=seed)), in_order)


def test_a_second_row_of_one_sequence_is_ignored():
    first = books([quote(0, 99, 1, 100, 1, sequence=5), quote(0, 99, 8, 100, 1, sequence=5)])
    other = books([quote(0, 99, 9, 100, 1, sequence=5, symbol="ETHUSDT"), quote(1, 99, 2, 100, 1, sequence=6)])
    rows = found(pl.concat([first, other]))
    assert rows.select("symbol", "sequence", "ofi").rows() == [("BTCUSDT", 6, 1), ("ETHUSDT", 5, None)]
    state, _ = order_book.step(order_book.initial(), first[:1])
    assert order_book.step(state, first[1:])[1].is_empty()


def test_late_updates_are_ignored():
    state, _ = order_book.step(order_book.initial(), books([quote(5_000, 99, 1, 100, 1, sequence=9)]))
    again, rows = order_book.step(state, books([quote(4_000, 99, 7, 100, 1, sequence=10)]))
    assert rows.is_empty()
    assert again is state


def random_books(*, rows, symbols, seed, contract=Book):
    """Return interleaved books on a grid of eighths, so that sums are exact; some crossed, one-sided or empty."""
    random = np.random.default_rng(seed)
    made = []
    for k in range(rows):
        mid = 100 + random.integers(-3, 4)
        bids = [(float(mid - 1 - j), float(random.integers(0, 9)) / 8) for j in range(random.integers(0, 6))]
        asks = [
            (float(mid + random.integers(-2, 2) + j), float(random.integers(0, 9)) / 8)
            for j in range(random.integers(0, 6))
        ]
        other = {
            "symbol": f"S{random.integers(symbols)}",
            "sequence": k,
            "ts_recv": int(random.integers(0, 10**6)) * MS,
        }
        made.append((int(k * 7 // 3), bids, asks, other))
    return books(made, contract=contract)


def flow(now, before):
    """Return one update's flow as the formula has it, side by side; None where a book is not known."""
    if not any(now) or before is None or not any(before):
        return None
    (bid, q), (ask, r) = now[0] or (-np.inf, 0), now[1] or (np.inf, 0)
    (bid0, q0), (ask0, r0) = before[0] or (-np.inf, 0), before[1] or (np.inf, 0)
    return (bid >= bid0) * q - (bid <= bid0) * q0 - (ask <= ask0) * r + (ask >= ask0) * r0


def looped_ofi(frame, width_ms):
    """Sum the formula update by update."""
    before, sums = {}, {}
    for row in frame.sort("ts_event", "sequence").iter_rows(named=True):
        symbol = row["symbol"]
        touch = [
            None if row[f"{side}_price_1"] is None else (row[f"{side}_price_1"], row[f"{side}_size_1"])
            for side in ("bid", "ask")
        ]
        now = flow(touch, before.get(symbol))
        before[symbol] = touch
        key = symbol, int(row["ts_event"].timestamp() * 1_000) // width_ms
        if now is not None:
            sums[key] = (sums.get(key) or 0) + now
        else:
            sums.setdefault(key, None)
    return [sums[key] for key in sorted(sums)]


@pytest.mark.parametrize("symbols", [1, 3])
def test_ofi_equals_a_plain_loop(symbols):
    frame = random_books(rows=1_500, symbols=symbols, seed=symbols)
    rows = found(frame, order_book.OrderBookParams(sample_s=0.02))
    expected = looped_ofi(frame, 20)
    has_values = rows["status"].is_in(["ok", "locked"])
    assert {"crossed", "one_sided", "no_data", "locked", "ok", "zero_size"} == set(rows["status"])
    assert rows["ofi"].to_list() == [value if ok else None for value, ok in zip(expected, has_values, strict=True)]


def test_cuts_and_a_pickled_state_change_nothing():
    frame, params = (
        random_books(rows=400, symbols=3, seed=5),
        order_book.OrderBookParams(sample_s=0.1, velocity_lookback_s=0.2),
    )
    state, chunks = order_book.initial(), []
    for start in range(0, 400, 37):
        state, rows = order_book.step(pickle.loads(pickle.dumps(state)), frame[start : start + 37], params)
        chunks.append(rows)
    last = pl.concat(chunks).unique(["symbol", "ts_open"], keep="last").sort("symbol", "ts_open")
    whole = found(frame, params)
    assert whole["velocity"].null_count() < whole.height
    assert_frame_equal(last, whole, check_exact=True)
    assert len(state.history["l5"]) < 20


@pytest.mark.parametrize("block_rows", [1, 7])
def test_blocks_of_rows_and_chunks_change_nothing(monkeypatch, block_rows):
    whole = random_books(rows=60, symbols=3, seed=2)
    expected = found(whole, order_book.OrderBookParams(sample_s=0.01))
    monkeypatch.setattr(_tape, "_BLOCK_ROWS", block_rows)
    chunked = pl.concat([whole[:13], whole[13:14], whole[14:]], rechunk=False)
    assert_frame_equal(found(chunked, order_book.OrderBookParams(sample_s=0.01)), expected, check_exact=True)


def test_two_runs_give_the_same_bytes():
    frame = random_books(rows=300, symbols=4, seed=9)
    assert ipc_bytes(found(frame)) == ipc_bytes(found(frame.clone()))


def test_a_constant_book_has_no_flow():
    rows = found(books([quote(k * 100, 99, 1, 100, 1) for k in range(50)]))
    assert rows["ofi"].to_list() == [0] * 5
    assert rows["velocity"].to_list() == [None, None, 0, 0, 0]
    assert rows.schema["ts_open"] == INSTANT
