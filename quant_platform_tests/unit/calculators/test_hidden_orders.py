"""Hidden orders: the oracle, refills and icebergs worked by hand, and the edge matrix."""

import json
import pickle
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import hidden_orders
from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.market import Quote, Trade
from quant_platform.contracts.microstructure import HiddenOrder
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "hidden_orders_cases.json").read_text())
MS = 1_000_000
LATENCY_MS = 7
RULES = ("inside_spread", "excess_size", "refill", "iceberg", "dark_venue")
QUOTE = {"bid_price": 100.0, "bid_size": 5.0, "ask_price": 104.0, "ask_size": 10.0}


def typed(rows, schema):
    integers = {name: pl.Int64 if kind.is_temporal() else kind for name, kind in schema.items()}
    return pl.DataFrame(rows, schema=integers, strict=False).cast(dict(schema))


def tape(rows):
    """Return a signed tape from rows (ts_ms, price, size, other columns): by default against 5 at 100 and 10 at 104."""
    floats = dict.fromkeys(QUOTE, pl.Float64())
    return typed(
        [
            {
                "ts_event": ts_ms * MS,
                "ts_recv": (ts_ms + LATENCY_MS) * MS,
                "symbol": "BTCUSDT",
                "venue": "lit",
                "trade_id": number,
                "first_trade_id": number,
                "last_trade_id": number,
                "price": price,
                "size": size,
                "aggressor": 0,
                **QUOTE,
                **(other[0] if other else {}),
            }
            for number, (ts_ms, price, size, *other) in enumerate(rows)
        ],
        pl.Schema({**polars_schema(Trade), **floats}),
    )


def quotes(rows):
    """Return quotes from rows (ts_ms, ask, ask size, other columns)."""
    return typed(
        [
            {
                "ts_event": ts_ms * MS,
                "ts_recv": (ts_ms + LATENCY_MS) * MS,
                "symbol": "BTCUSDT",
                "venue": "lit",
                "sequence": number,
                **QUOTE,
                "ask_price": ask,
                "ask_size": ask_size,
                **(other[0] if other else {}),
            }
            for number, (ts_ms, ask, ask_size, *other) in enumerate(rows)
        ],
        polars_schema(Quote),
    )


def found(trades, book=None, **params):
    rows = hidden_orders.hidden_orders(
        trades, quotes([]) if book is None else book, hidden_orders.HiddenOrderParams(**params)
    )
    return validated(HiddenOrder, rows)


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda case: case["id"])
def test_hidden_orders_oracle(case):
    inputs, expected = case["inputs"], case["expected"]
    quote = {
        f"{side}_{what}": inputs[f"{side}{'_size' * (what == 'size')}"]
        for side in ("bid", "ask")
        for what in ("price", "size")
    }
    rows = found(tape([(0, price, size, quote) for price, size in inputs["executions"]]))
    assert rows["experimental"].all()
    if expected["rules"] is None:
        assert rows.select("hidden", "hidden_volume", *RULES).row(0) == (None,) * 7
        assert rows["status"].to_list() == ["no_data"]
        return
    assert rows["hidden_volume"].sum() == expected["hidden_volume"]
    assert [rule for rule in RULES if rows[rule].any()] == expected["rules"]
    assert rows["hidden"].any() == bool(expected["rules"])
    assert rows["status"].to_list() == ["ok"] * rows.height


def test_excess_goes_to_the_executions_that_took_it():
    rows = found(tape([(0, 104, 4), (0, 104, 5), (0, 104, 3), (0, 104, 2), (1, 104, 9)]))
    assert rows["hidden_volume"].to_list() == [0, 0, 2, 2, 0]
    assert rows["excess_size"].to_list() == [False, False, True, True, False]
    assert rows["hidden"].to_list() == [False, False, True, True, False]


def test_sums_that_only_round_above_the_displayed_size_are_no_excess():
    shown = {"ask_size": 0.3}
    assert 0.1 + 0.2 > 0.3
    assert found(tape([(0, 104, 0.1, shown), (0, 104, 0.2, shown)]))["hidden_volume"].to_list() == [0, 0]


def test_each_side_of_one_instant_is_an_event():
    rows = found(
        tape([(0, 104, 6, {"aggressor": 1}), (0, 100, 4, {"aggressor": -1}), (0, 104, 6), (0, 100, 4), (0, 102, 1)])
    )
    assert rows["hidden_volume"].to_list() == [0, 0, 2, 3, 1]


def test_a_side_that_did_not_take_the_price_is_no_event():
    rows = found(tape([(0, 104, 20, {"aggressor": -1}), (1, 100, 20, {"aggressor": 1})]))
    assert rows["excess_size"].to_list() == [False, False]
    assert rows["refill"].to_list() == [None, None]


def test_a_locked_book_is_judged_by_the_aggressor():
    locked = {"bid_price": 104.0}
    sides = [locked | {"aggressor": side} for side in (1, -1, 0)]
    rows = found(tape([(ts, 104, 12, other) for ts, other in enumerate(sides)]))
    assert rows["status"].to_list() == ["locked"] * 3
    assert rows["hidden_volume"].to_list() == [2, 7, 0]


@pytest.mark.parametrize(
    ("quote", "status"),
    [
        ({"bid_price": None}, "one_sided"),
        ({"ask_size": None}, "one_sided"),
        ({"bid_price": 105.0}, "crossed"),
        ({"bid_price": float("nan"), "ask_price": float("inf")}, "no_data"),
        ({"bid_size": -1.0, "ask_price": 0.0}, "no_data"),
    ],
)
def test_a_quote_that_says_nothing_is_null_with_a_reason(quote, status):
    rows = found(tape([(0, 104, 50, quote), (1, 102, 3)]), dark_venues=("lit",))
    assert rows["status"].to_list() == [status, "ok"]
    assert rows.select("hidden", "hidden_volume", *RULES).row(0) == (None,) * 7
    assert rows["hidden_volume"][1] == 3


def test_a_dark_print_is_hidden_whole():
    rows = found(tape([(0, 104, 3, {"venue": "D"}), (1, 104, 3)]), dark_venues=("D",))
    assert rows["dark_venue"].to_list() == [True, False]
    assert rows["hidden_volume"].to_list() == [3, 0]
    assert found(tape([(0, 104, 3)]))["dark_venue"].to_list() == [None]


@pytest.mark.parametrize(
    ("taken", "after", "refill"),
    [
        (10, [(50, 104, 8)], True),  # 80 % is enough
        (10, [(100, 104, 8)], True),  # and 100 ms are
        (10, [(50, 104, 7.99)], None),
        (10, [(50, 104, 7.99), (101, 104, 9)], False),
        (10, [(101, 104, 9)], False),
        (10, [(20, 105, 30), (60, 104, 8), (70, 104, 1)], True),
        (10, [(0, 104, 10)], None),  # not after the trade
        (2, [(50, 104, 10)], False),  # 80 % never left
        (2.01, [(50, 104, 10)], True),
        (10, [(50, 105, 10)], None),
        (10, [(50, 104, None)], None),
        (10, [(50, 104, float("nan"), {"symbol": "BTCUSDT"})], None),
        (10, [(50, 104, 9, {"symbol": "ETHUSDT"}), (500, 104, 9, {"symbol": "ETHUSDT"})], None),
        (10, [], None),
    ],
)
def test_refill_of_an_offer(taken, after, refill):
    assert found(tape([(0, 104, taken)]), quotes(after))["refill"].to_list() == [refill]


def test_refill_of_a_bid():
    after = quotes([(10, 104, 10, {"bid_price": 99.0}), (20, 104, 10, {"bid_price": 100.0, "bid_size": 4.0})])
    assert found(tape([(0, 100, 5)]), after)["refill"].to_list() == [True]


def test_a_later_trade_closes_the_time_of_a_refill():
    rows = found(tape([(0, 104, 10), (101, 102, 1)]))
    assert rows["refill"].to_list() == [False, None]
    assert found(tape([(0, 104, 10), (100, 102, 1)]))["refill"].to_list() == [None, None]


def test_all_executions_of_an_event_are_refilled_together():
    rows = found(tape([(0, 104, 1), (0, 104, 1), (0, 104, 1)]), quotes([(9, 104, 10)]))
    assert rows["refill"].to_list() == [True] * 3
    assert rows["refill_count"].to_list() == [1] * 3


def test_the_fifth_refill_of_a_price_makes_an_iceberg():
    trades = tape([(1_000 * k, 104, 10) for k in range(7)])
    book = quotes([(1_000 * k + 50, 104, 1 if k == 2 else 10) for k in range(7)])
    rows = found(trades, book)
    assert rows["refill"].to_list() == [True, True, False, True, True, True, True]
    assert rows["refill_count"].to_list() == [1, 2, 2, 3, 4, 5, 6]
    assert rows["iceberg"].to_list() == [False] * 5 + [True] * 2
    assert rows["hidden"].to_list() == rows["iceberg"].to_list()
    assert rows["hidden_volume"].to_list() == [0] * 7


def test_refills_are_counted_while_the_side_is_taken_at_no_other_price():
    higher = {"ask_price": 105.0}
    trades = tape(
        [(0, 104, 10), (200, 100, 5), (400, 102, 1), (600, 104, 10), (800, 105, 10, higher), (1_000, 104, 10)]
    )
    book = quotes([(50, 104, 10), (650, 104, 10), (850, 105, 10), (1_050, 104, 10), (1_900, 104, 10)])
    rows = found(trades, book, iceberg_refills=2)
    assert rows["refill_count"].to_list() == [1, 0, None, 2, 1, 1]
    assert rows["iceberg"].to_list() == [False, False, False, True, False, False]


def test_known_time_waits_for_what_was_used():
    trades = tape(
        [
            (0, 104, 5, {"ts_recv": 900 * MS}),
            (0, 104, 5),  # the event's volume holds the trade before, received at 900
            (1_000, 104, 10),  # refilled, received at 1,057
            (2_000, 104, 10, {"symbol": "ETHUSDT"}),  # its time ends at 2,100 without a refill
            (3_000, 102, 1),
            (3_000, 102, 1, {"symbol": "ETHUSDT"}),
        ]
    )
    late = {"ts_recv": 5_000 * MS}
    rows = found(trades, quotes([(40, 104, 10, late), (1_050, 104, 10), (2_090, 105, 1, {"symbol": "ETHUSDT"})]))
    known = rows.sort("ts_event", "trade_id")["ts_known"].to_physical().to_list()
    # The third counts the refill of the first, which was known at 5,000.
    assert known == [5_000 * MS, 5_000 * MS, 5_000 * MS, 2_100 * MS, 3_007 * MS, 3_007 * MS]


def test_a_book_serves_as_well_as_quotes():
    levels = quotes([(50, 104, 9)]).rename({name: f"{name}_1" for name in QUOTE})
    assert found(tape([(0, 104, 10)]), levels)["refill"].to_list() == [True]


def test_no_trades_give_no_rows():
    state, rows = hidden_orders.step(hidden_orders.initial(), tape([]), quotes([]))
    assert_frame_equal(rows, polars_schema(HiddenOrder).to_frame())
    state, rows = hidden_orders.step(state, tape([]), quotes([(0, 104, 1)]))
    assert_frame_equal(rows, polars_schema(HiddenOrder).to_frame())
    assert state.quotes.height == 1


def test_one_bad_row_among_good_ones_is_left_out():
    bad = [
        (1, float("nan"), 1.0),
        (2, 104.0, 0.0),
        (3, 104.0, float("inf")),
        (4, None, 1.0),
        (5, 104.0, 1.0, {"aggressor": None}),
    ]
    rows = found(tape([(0, 102, 1), *bad, (6, 103, 1)]))
    assert rows["trade_id"].to_list() == [0, 6]


@pytest.mark.parametrize("missing", ["trade", "quote"])
def test_a_row_without_receipt_is_refused(missing):
    trades = tape([(0, 104, 1, {"ts_recv": None if missing == "trade" else 0})])
    book = quotes([(0, 104, 1, {"ts_recv": None if missing == "quote" else 0})])
    with pytest.raises(ValueError, match="ts_recv is null in 1"):
        hidden_orders.hidden_orders(trades, book)


def test_order_of_rows_does_not_matter_and_repeats_are_ignored():
    trades = tape([(0, 104, 6), (0, 104, 6), (50, 102, 2), (0, 104, 8, {"symbol": "ETHUSDT"})])
    book = quotes([(20, 104, 9), (20, 104, 1)])
    rows = found(trades, book)
    for seed in range(4):
        mixed = pl.concat([trades, trades]).sample(fraction=1, shuffle=True, seed=seed)
        assert_frame_equal(found(mixed, pl.concat([book, book]).reverse()), rows)


def test_late_trades_are_ignored():
    state, _ = hidden_orders.step(hidden_orders.initial(), tape([(500, 102, 1)]), quotes([]))
    state, rows = hidden_orders.step(state, tape([(400, 102, 1, {"trade_id": 9})]), quotes([]))
    assert rows.is_empty()


def test_refills_that_come_in_later_chunks_revise_the_row():
    state, rows = hidden_orders.step(hidden_orders.initial(), tape([(0, 104, 4)]), quotes([]))
    assert rows["refill"].to_list() == [None]
    more = tape([(0, 104, 7, {"trade_id": 1})])
    state, rows = hidden_orders.step(pickle.loads(pickle.dumps(state)), more, quotes([]))
    assert rows.select("trade_id", "hidden_volume").rows() == [(0, 0), (1, 1)]
    state, rows = hidden_orders.step(state, tape([]), quotes([(30, 104, 10)]))
    assert rows.select("trade_id", "refill").rows() == [(0, True), (1, True)]
    state, rows = hidden_orders.step(state, tape([]), quotes([(2_000, 104, 10, {"sequence": 9})]))
    assert rows.height == 2  # told for the last time
    assert state.trades.is_empty()
    assert hidden_orders.step(state, tape([]), quotes([(2_001, 104, 10, {"sequence": 10})]))[1].is_empty()


def test_an_iceberg_grows_over_chunks():
    state = hidden_orders.initial()
    for k in range(6):
        book = quotes([(10_000 * k + 10, 104, 10, {"sequence": k})])
        state, rows = hidden_orders.step(state, tape([(10_000 * k, 104, 10, {"trade_id": k})]), book)
        assert rows["refill_count"].to_list()[-1:] == [k + 1]
    assert rows["iceberg"].to_list()[-1:] == [True]


@pytest.mark.parametrize("clock_ms", [1_099, 1_100, 1_101])
def test_an_event_is_counted_once_when_it_leaves_the_state(clock_ms):
    first, book = tape([(0, 104, 10)]), quotes([(50, 104, 10), (clock_ms, 104, 10)])
    state, _ = hidden_orders.step(hidden_orders.initial(), first, book)  # it may leave 1,100 ms after its time
    assert state.trades.height == (clock_ms <= 1_100)
    second, more = tape([(2_000, 104, 10, {"trade_id": 1})]), quotes([(2_050, 104, 10, {"sequence": 2})])
    _, rows = hidden_orders.step(state, second, more)
    assert rows["refill_count"].to_list()[-1:] == [2]


def test_a_price_that_was_left_in_between_begins_anew():
    higher = {"ask_price": 105.0}
    state = hidden_orders.initial()
    for k, price in enumerate([104, 104]):
        book = quotes([(5_000 * k + 10, price, 10, {"sequence": k}), (5_000 * k + 4_000, price, 1, {"sequence": k})])
        state, rows = hidden_orders.step(state, tape([(5_000 * k, price, 10, {"trade_id": k})]), book)
    assert rows["refill_count"].to_list() == [2]
    assert state.trades.is_empty()
    trades = tape([(10_000, 105, 10, higher | {"trade_id": 5}), (10_500, 104, 10, {"trade_id": 6})])
    _, rows = hidden_orders.step(state, trades, quotes([(10_510, 104, 10, {"sequence": 9})]))
    assert rows["refill_count"].to_list() == [0, 1]


def test_symbols_without_news_are_left_alone():
    both = [(0, 104, 10), (0, 104, 10, {"symbol": "ETHUSDT"})]
    state, _ = hidden_orders.step(hidden_orders.initial(), tape(both), quotes([]))
    state, rows = hidden_orders.step(state, tape([]), quotes([(10, 104, 10, {"symbol": "ETHUSDT"})]))
    assert rows.select("symbol", "refill").rows() == [("ETHUSDT", True)]
    assert state.trades["symbol"].to_list() == ["BTCUSDT", "ETHUSDT"]


def test_symbols_whose_times_are_far_apart_do_not_meet():
    century = 100 * 365 * 86_400_000
    ages = {"A": 0, "B": century, "C": 0, "D": century}  # three centuries are more than one 63-bit clock of ns can tell
    trades = tape([(ts, 104, 10, {"symbol": symbol}) for symbol, ts in ages.items()])
    book = quotes([(ts + 10, 104, 10 * (symbol > "B"), {"symbol": symbol}) for symbol, ts in ages.items()])
    assert found(trades, book).select("symbol", "refill").rows() == [("A", None), ("B", None), ("C", True), ("D", True)]


@pytest.mark.parametrize("block_rows", [1, 5])
def test_blocks_of_symbols_change_nothing(monkeypatch, block_rows):
    names = [{"symbol": f"S{k}"} for k in range(7)]
    trades = tape([(10 * k, 104.0, 9.0, name) for k in range(4) for name in names])
    book = quotes([(10 * k + 2, 104.0, 10.0 - k, name) for k in range(4) for name in names])
    expected = found(trades, book, iceberg_refills=2)
    assert set(expected["refill_count"]) == {1, 2, 3}
    monkeypatch.setattr(hidden_orders, "_BLOCK_ROWS", block_rows)
    assert ipc_bytes(found(trades, book, iceberg_refills=2)) == ipc_bytes(expected)


def test_two_runs_give_the_same_bytes():
    trades, book = (
        tape([(k * 10, 104, 1 + k % 5) for k in range(200)]),
        quotes([(k * 9, 104, k % 11) for k in range(200)]),
    )
    assert ipc_bytes(found(trades, book)) == ipc_bytes(found(trades.clone(), book.clone()))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"refill_share": 0}, r"refill_share must be in \(0, 1\], was 0"),
        ({"refill_within_ms": 0}, "refill_within_ms must be >= 1, was 0"),
        ({"iceberg_refills": 0}, "iceberg_refills must be >= 1, was 0"),
        ({"max_lag_ms": -1}, "max_lag_ms must be >= 0, was -1"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        hidden_orders.HiddenOrderParams(**params)
