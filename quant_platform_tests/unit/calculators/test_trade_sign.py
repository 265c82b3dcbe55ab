"""Signing trades: the oracle, hand-worked quotes and ticks, a plain loop as a second opinion, and the edge matrix."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import trade_sign
from quant_platform.calculators.trade_sign import SIGNED, TradeSignParams
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Quote
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "lee_ready_cases.json").read_text())
TICK_CASES = [case for case in ORACLE["cases"] if "trades" in case["inputs"]]
FLOAT_CASES = [case for case in ORACLE["cases"] if "trades" not in case["inputs"]]
MS = 1_000_000
LEE_READY = TradeSignParams(signing="lee_ready")
QUOTE_FIELDS = ("bid_price", "bid_size", "ask_price", "ask_size")


def book(rows):
    """Quotes from rows with ts_ms, bid and ask; the rest has defaults."""
    full = [
        {
            "ts_event": row["ts_ms"] * MS,
            "ts_recv": row.get("recv_ms", row["ts_ms"] + 5) * MS,
            "symbol": row.get("symbol", "BTCUSDT"),
            "venue": "binance_usdm",
            "bid_price": row["bid"],
            "bid_size": row.get("bid_size", 1.0),
            "ask_price": row["ask"],
            "ask_size": row.get("ask_size", 2.0),
            "sequence": row.get("sequence", number),
        }
        for number, row in enumerate(rows)
    ]
    schema = polars_schema(Quote)
    numbers = {name: pl.Int64 if dtype.is_temporal() else dtype for name, dtype in schema.items()}
    return pl.DataFrame(full, schema=numbers, strict=False).cast(dict(schema)).select(schema.names())


def found(frame):
    return frame["aggressor"].to_list(), frame["rule"].to_list()


@pytest.mark.parametrize("case", TICK_CASES, ids=lambda case: case["id"])
def test_lee_ready_oracle(case, tape):
    inputs = case["inputs"]
    trades = tape(
        [{"ts_ms": t["ts"], "symbol": t["symbol"], "price": t["price_ticks"] * 0.05} for t in inputs["trades"]]
    )
    quotes = book(
        [
            {"ts_ms": q["ts"], "symbol": q["symbol"], "bid": q["bid_ticks"] * 0.05, "ask": q["ask_ticks"] * 0.05}
            for q in inputs["quotes"]
        ]
    )
    params = TradeSignParams(
        signing="lee_ready", allow_exact=inputs["allow_exact"], max_quote_age_ms=inputs["max_quote_age_ms"]
    )
    by_arrival = trade_sign.signed(trades, quotes, params).sort("ts_event")
    assert found(by_arrival) == (case["expected"]["aggressor"], case["expected"]["rule"])


@pytest.mark.parametrize("case", FLOAT_CASES, ids=lambda case: case["id"])
def test_lee_ready_oracle_of_floats(case, tape):
    inputs = case["inputs"]
    trades = tape([{"ts_ms": 1, "price": inputs["previous_price"]}, {"ts_ms": 3, "price": inputs["price"]}])
    signs = trade_sign.signed(trades, book([{"ts_ms": 2, "bid": inputs["bid"], "ask": inputs["ask"]}]), LEE_READY)
    assert signs.row(1, named=True)["aggressor"] == case["expected"]["aggressor"]
    assert signs.row(1, named=True)["rule"] == case["expected"]["rule"]


def test_every_case_of_the_oracle_is_run():
    assert len(TICK_CASES) + len(FLOAT_CASES) == len(ORACLE["cases"]) == 13
    assert FLOAT_CASES


TAPE = [
    {"ts_ms": 1, "price": 100.0, "aggressor": -1},  # before any quote
    {"ts_ms": 11, "price": 104.0, "aggressor": 0},  # above the mid of 102
    {"ts_ms": 12, "price": 102.0, "aggressor": 0},  # at it, below the last different price of 104
    {"ts_ms": 13, "price": 102.0, "aggressor": 1},
    {"ts_ms": 14, "price": 101.0, "aggressor": 0},  # below it
]


@pytest.mark.parametrize(
    ("signing", "aggressor", "rule"),
    [
        ("auto", [-1, 1, -1, 1, -1], ["venue", "quote", "tick", "venue", "quote"]),
        ("venue", [-1, 0, 0, 1, 0], ["venue", "none", "none", "venue", "none"]),
        ("lee_ready", [0, 1, -1, -1, -1], ["none", "quote", "tick", "tick", "quote"]),
        ("quote", [0, 1, 0, 0, -1], ["none", "quote", "none", "none", "quote"]),
        ("tick", [0, 1, -1, -1, -1], ["none", "tick", "tick", "tick", "tick"]),
    ],
)
def test_each_way_of_signing(tape, signing, aggressor, rule):
    quotes = book([{"ts_ms": 10, "bid": 100.0, "ask": 104.0}])
    signs = trade_sign.signed(tape(TAPE), quotes, TradeSignParams(signing=signing))
    assert found(signs) == (aggressor, rule)


def test_the_signed_tape_carries_the_quote_before_each_trade(tape):
    quotes = book(
        [
            {"ts_ms": 10, "bid": 9.0, "ask": 11.0, "bid_size": 3.0, "ask_size": 4.0},
            {"ts_ms": 20, "bid": 8.0, "ask": None, "ask_size": 0.0},
        ]
    )
    trades = tape([{"ts_ms": t, "price": 10.0} for t in (10, 15, 20, 25, 5_020, 5_021)])
    signs = trade_sign.signed(trades, quotes)
    assert signs.schema == SIGNED
    first, second, one_sided, none = (9.0, 3.0, 11.0, 4.0), (9.0, 3.0, 11.0, 4.0), (8.0, 1.0, None, None), (None,) * 4
    assert signs.select(QUOTE_FIELDS).rows() == [none, first, second, one_sided, one_sided, none]
    assert signs["quote_age_ns"].to_list() == [None, 5 * MS, 10 * MS, 5 * MS, 5_000 * MS, 5_001 * MS]


def test_the_row_is_known_when_its_quote_is(tape):
    quotes = book([{"ts_ms": 10, "recv_ms": 90, "bid": 9.0, "ask": 11.0}])
    trades = tape([{"ts_ms": t, "recv_ms": t + 50, "price": 10.0} for t in (9, 15, 60)])
    received = trade_sign.signed(trades, quotes)["ts_recv"].to_physical()
    assert (received // MS).to_list() == [59, 90, 110]
    too_old = trade_sign.signed(trades, quotes, TradeSignParams(max_quote_age_ms=4))["ts_recv"].to_physical()
    assert (too_old // MS).to_list() == [59, 65, 110]


def test_a_trade_without_receive_time_does_not_get_its_quotes(tape):
    trades = tape([{"ts_ms": 15, "price": 10.0}]).with_columns(ts_recv=pl.lit(None, pl.Datetime("ns", "UTC")))
    assert trade_sign.signed(trades, book([{"ts_ms": 10, "bid": 9.0, "ask": 11.0}]))["ts_recv"].to_list() == [None]


def test_sequence_orders_quotes_of_one_instant(tape):
    quotes = book(
        [
            {"ts_ms": 10, "sequence": 8, "bid": 6.0, "ask": 8.0},
            {"ts_ms": 10, "sequence": 9, "bid": 12.0, "ask": 14.0},
            {"ts_ms": 10, "sequence": 7, "bid": 1.0, "ask": 3.0},
        ]
    )
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        signs = trade_sign.signed(tape([{"ts_ms": 11, "price": 10.0}]), quotes[order], LEE_READY)
        assert signs["bid_price"].to_list() == [12.0]
        assert signs["aggressor"].to_list() == [-1]


@pytest.mark.parametrize(
    ("quote", "why"),
    [
        ({"bid": None, "ask": 11.0}, "no bid"),
        ({"bid": 9.0, "ask": None}, "no ask"),
        ({"bid": None, "ask": None}, "no side"),
        ({"bid": 9.0, "ask": 11.0, "bid_size": 0.0}, "empty bid"),
        ({"bid": 9.0, "ask": 11.0, "ask_size": 0.0}, "empty ask"),
        ({"bid": 11.0, "ask": 9.0}, "crossed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_quote_that_cannot_say_gives_way_to_the_tick_rule(tape, quote, why):
    trades = tape([{"ts_ms": 5, "price": 10.6}, {"ts_ms": 11, "price": 10.5}])
    quotes = book([{"ts_ms": 2, "bid": 9.0, "ask": 11.0}, {"ts_ms": 10, **quote}])
    assert found(trade_sign.signed(trades, quotes, LEE_READY)) == ([1, -1], ["quote", "tick"])


def test_unknown_quote_sizes_do_not_keep_the_quote_from_signing(tape):
    quotes = book([{"ts_ms": 2, "bid": 9.0, "ask": 11.0, "bid_size": None, "ask_size": None}])
    signs = trade_sign.signed(tape([{"ts_ms": 5, "price": 10.5}]), quotes, LEE_READY)
    assert found(signs) == ([1], ["quote"])
    assert signs["bid_size"].to_list() == [None]


@pytest.mark.parametrize("column", QUOTE_FIELDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_a_bad_quote_among_good_ones_is_ignored(tape, column, value):
    good = book([{"ts_ms": 2, "bid": 9.0, "ask": 11.0}])
    bad = book([{"ts_ms": 3, "sequence": 7, "bid": 1.0, "ask": 2.0}]).with_columns(pl.lit(value).alias(column))
    trades = tape([{"ts_ms": 5, "price": 10.5}])
    signs = trade_sign.signed(trades, pl.concat([good, bad]), LEE_READY)
    assert_frame_equal(signs, trade_sign.signed(trades, good, LEE_READY))
    assert signs["bid_price"].to_list() == [9.0]


@pytest.mark.parametrize("column", ["bid_price", "ask_price"])
def test_a_price_of_zero_is_no_quote(tape, column):
    quotes = book([{"ts_ms": 2, "bid": 9.0, "ask": 11.0}, {"ts_ms": 3, "bid": 9.5, "ask": 10.0}])
    quotes = quotes.with_columns(pl.when(pl.col("sequence") == 1).then(0.0).otherwise(column).alias(column))
    assert trade_sign.signed(tape([{"ts_ms": 5, "price": 10.5}]), quotes)["bid_price"].to_list() == [9.0]


@pytest.mark.parametrize("column", ["symbol", "ts_event", "sequence"])
def test_a_quote_that_is_not_placed_is_ignored(tape, column):
    quotes = book([{"ts_ms": 2, "bid": 9.0, "ask": 11.0}, {"ts_ms": 3, "bid": 1.0, "ask": 2.0}])
    missing = pl.lit(None, quotes.schema[column])
    quotes = quotes.with_columns(pl.when(pl.col("bid_price") == 1.0).then(missing).otherwise(column).alias(column))
    assert trade_sign.signed(tape([{"ts_ms": 5, "price": 10.5}]), quotes)["bid_price"].to_list() == [9.0]


@pytest.mark.parametrize("column", ["price", "size"])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_a_bad_trade_among_good_ones_is_ignored(tape, column, value):
    good = [{"ts_ms": 10, "price": 2.0}, {"ts_ms": 30, "price": 3.0}]
    bad = {"ts_ms": 20, "trade_id": 99, "price": 5.0, "size": 1.0, column: value}
    signs = trade_sign.signed(tape([good[0], bad, good[1]]), book([]), LEE_READY)
    assert_frame_equal(
        signs.drop("^.*trade_id$"), trade_sign.signed(tape(good), book([]), LEE_READY).drop("^.*trade_id$")
    )
    assert found(signs) == ([0, 1], ["none", "tick"])


@pytest.mark.parametrize("column", ["symbol", "ts_event", "trade_id", "aggressor"])
def test_a_trade_with_a_null_in_what_identifies_it_is_ignored(tape, column):
    trades = tape([{"ts_ms": 10, "price": 2.0}, {"ts_ms": 20, "price": 5.0}, {"ts_ms": 30, "price": 3.0}])
    missing = pl.lit(None, trades.schema[column])
    trades = trades.with_columns(pl.when(pl.col("price") == 5.0).then(missing).otherwise(column).alias(column))
    assert found(trade_sign.signed(trades, book([]), LEE_READY)) == ([0, 1], ["none", "tick"])


def test_no_trades_give_an_empty_tape_with_the_right_dtypes(tape):
    for quotes in (book([]), book([{"ts_ms": 1, "bid": 1.0, "ask": 2.0}])):
        signs = trade_sign.signed(tape([]), quotes)
        assert signs.is_empty()
        assert signs.schema == SIGNED
    nulls = pl.DataFrame([dict.fromkeys(tape([]).columns)] * 3, schema=tape([]).schema)
    assert trade_sign.signed(nulls, book([])).is_empty()


def test_a_constant_price_without_quotes_is_never_signed(tape):
    signs = trade_sign.signed(tape([{"ts_ms": t, "price": 0.1} for t in range(5)]), book([]), LEE_READY)
    assert found(signs) == ([0] * 5, ["none"] * 5)


def test_prices_that_differ_by_rounding_only_are_one_price(tape):
    trades = tape([{"ts_ms": 1, "price": 0.3}, {"ts_ms": 2, "price": 0.1 + 0.2}, {"ts_ms": 3, "price": 0.4}])
    assert found(trade_sign.signed(trades, book([]), LEE_READY)) == ([0, 0, 1], ["none", "none", "tick"])


def test_prices_beyond_any_unit_compare_as_infinite(tape):
    trades = tape([{"ts_ms": t, "price": p} for t, p in ((1, 1e305), (11, 1e306), (12, 5.0), (13, 1e305))])
    quotes = book([{"ts_ms": 2, "bid": 1e305, "ask": 1e305}, {"ts_ms": 11, "sequence": 9, "bid": 9.0, "ask": 11.0}])
    signs = trade_sign.signed(trades, quotes, LEE_READY)
    assert found(signs) == ([0, 0, -1, 1], ["none", "none", "quote", "quote"])


def test_trades_of_one_instant_are_ordered_by_id_whatever_their_arrival(tape):
    trades = tape([{"ts_ms": 1, "trade_id": k, "price": p} for k, p in ((3, 3.0), (1, 1.0), (4, 2.0), (2, 2.0))])
    signs = trade_sign.signed(trades, book([]), LEE_READY)
    assert signs["trade_id"].to_list() == [1, 2, 3, 4]
    assert signs["aggressor"].to_list() == [0, 1, 1, -1]


def test_symbols_neither_share_quotes_nor_prices(tape):
    trades = tape(
        [
            {"ts_ms": t, "symbol": s, "price": p}
            for t, s, p in ((5, "C", 7.0), (6, "A", 5.0), (7, "B", 6.0), (8, "A", 5.0))
        ]
    )
    quotes = book([{"ts_ms": 1, "symbol": s, "bid": 5.0, "ask": 6.0} for s in ("A", "D", "0")])
    signs = trade_sign.signed(trades, quotes, LEE_READY)
    assert signs["symbol"].to_list() == ["A", "A", "B", "C"]
    assert signs["bid_price"].to_list() == [5.0, 5.0, None, None]
    assert found(signs) == ([-1, -1, 0, 0], ["quote", "quote", "none", "none"])


@pytest.mark.parametrize("shift_ms", [-1_000_000, 1_000_000])
def test_quotes_all_before_or_all_after_the_trades(tape, shift_ms):
    times = {"A": 2_000_000, "B": 2_000_500}
    trades = tape([{"ts_ms": t, "symbol": s, "price": 10.5} for s, t in times.items()])
    quotes = book([{"ts_ms": t + shift_ms, "symbol": s, "bid": 9.0, "ask": 11.0} for s, t in times.items()])
    signs = trade_sign.signed(trades, quotes, TradeSignParams(signing="lee_ready", max_quote_age_ms=None))
    assert signs["aggressor"].to_list() == ([1, 1] if shift_ms < 0 else [0, 0])


def test_symbols_and_times_that_cannot_be_ordered_in_one_number_are_refused(tape):
    century = 100 * 365 * 86_400_000
    trades = tape([{"ts_ms": t, "symbol": s, "price": 1.0} for s in ("A", "B", "C") for t in (0, century)])
    quotes = book([{"ts_ms": t, "bid": 1.0, "ask": 2.0} for t in (0, century)])
    with pytest.raises(ValueError, match=r"4 symbols over .* ns are more than one step can order"):
        trade_sign.signed(trades, quotes)


def test_a_late_trade_and_a_late_quote_are_ignored(tape):
    state, _ = trade_sign.step(
        trade_sign.initial(),
        tape([{"ts_ms": 10, "trade_id": 5, "price": 10.0}]),
        book([{"ts_ms": 20, "sequence": 7, "bid": 9.0, "ask": 11.0}]),
    )
    late_trades = tape([{"ts_ms": 9, "trade_id": 9, "price": 1.0}, {"ts_ms": 10, "trade_id": 5, "price": 1.0}])
    late_quotes = book(
        [{"ts_ms": 19, "sequence": 9, "bid": 1.0, "ask": 2.0}, {"ts_ms": 20, "sequence": 7, "bid": 1.0, "ask": 2.0}]
    )
    next_trades = tape(
        [{"ts_ms": 30, "trade_id": 6, "price": 10.0}, {"ts_ms": 9, "trade_id": 1, "symbol": "ETHUSDT", "price": 3.0}]
    )
    _, signs = trade_sign.step(state, pl.concat([late_trades, next_trades]), late_quotes, LEE_READY)
    assert signs["trade_id"].to_list() == [6, 1]
    assert signs["bid_price"].to_list() == [9.0, None]
    assert found(signs) == ([0, 0], ["none", "none"])


def test_the_state_carries_price_and_quote_over_and_survives_pickling(tape):
    trades = tape([{"ts_ms": t, "price": p} for t, p in ((1, 3.0), (2, 2.0), (3, 2.0), (21, 2.0))])
    state, first = trade_sign.step(
        trade_sign.initial(), trades[:2], book([{"ts_ms": 20, "bid": 1.0, "ask": 3.0}]), LEE_READY
    )
    assert found(first) == ([0, -1], ["none", "tick"])
    _, second = trade_sign.step(pickle.loads(pickle.dumps(state)), trades[2:], book([]), LEE_READY)
    assert found(second) == ([-1, -1], ["tick", "tick"])
    assert second["bid_price"].to_list() == [None, 1.0]


def test_a_trade_of_the_last_quotes_instant_still_finds_the_quote_before_it(tape):
    early = book([{"ts_ms": 10, "bid": 9.0, "ask": 11.0}, {"ts_ms": 20, "sequence": 1, "bid": 1.0, "ask": 2.0}])
    later = book([{"ts_ms": 20, "sequence": 2, "bid": 2.0, "ask": 3.0}])
    trades = tape([{"ts_ms": 20, "price": 10.5}, {"ts_ms": 21, "price": 10.5}])
    state, _ = trade_sign.step(trade_sign.initial(), tape([]), early)
    state, _ = trade_sign.step(state, tape([]), later)
    for exact, bids in ((False, [9.0, 2.0]), (True, [2.0, 2.0])):
        params = TradeSignParams(allow_exact=exact)
        assert trade_sign.step(state, trades, book([]), params)[1]["bid_price"].to_list() == bids


def test_quotes_that_come_one_by_one_leave_the_last_two_instants(tape):
    state = trade_sign.initial()
    for number, ms in enumerate((10, 20, 30)):
        quote = book([{"ts_ms": ms, "sequence": number, "bid": float(ms), "ask": 99.0}])
        state, _ = trade_sign.step(state, tape([]), quote)
    signs = trade_sign.step(state, tape([{"ts_ms": t, "price": 50.0} for t in (20, 30, 31)]), book([]))[1]
    assert signs["bid_price"].to_list() == [None, 20.0, 30.0]


def test_trades_that_carry_their_quote_are_signed_alike(tape):
    trades, quotes = random_market(tape, rows=400, symbols=3, seed=2)
    joined = trade_sign.signed(trades, quotes, TradeSignParams(signing="venue"))
    for signing in ("lee_ready", "quote", "tick"):
        params = TradeSignParams(signing=signing)
        wanted = trade_sign.signed(trades, quotes, params)
        assert_frame_equal(trade_sign.signed_at_quotes(joined.sample(fraction=1, shuffle=True, seed=3), params), wanted)
    bare = trades.with_columns(bid_price=pl.lit(1.0), ask_price=pl.lit(math.inf), note=pl.lit("x"))
    assert set(trade_sign.signed_at_quotes(bare, LEE_READY)["rule"]) == {"tick", "none"}


def random_market(tape, *, rows, symbols, seed):
    random = np.random.default_rng(seed)
    trades = tape(
        [
            {
                "ts_ms": int(random.integers(0, 30_000)),
                "symbol": f"S{random.integers(symbols)}",
                "trade_id": int(k),
                "price": float(random.integers(90, 110)) / 10,
                "aggressor": int(random.integers(-1, 2)),
            }
            for k in random.permutation(rows)
        ]
    )
    quotes = book(
        [
            {
                "ts_ms": int(random.integers(0, 30_000)),
                "symbol": f"S{random.integers(symbols + 1)}",
                "sequence": int(k),
                "bid": float(random.integers(90, 100)) / 10,
                "ask": float(random.integers(97, 110)) / 10 if random.random() > 0.1 else None,
            }
            for k in random.permutation(rows)
        ]
    )
    return trades, quotes


def by_loop(trades, quotes, max_age_ms):
    """Lee and Ready, trade by trade, in tenths."""
    quotes = quotes.sort("ts_event", "sequence").with_columns(pl.col("ts_event").to_physical()).to_dicts()
    last, different, signs = {}, {}, []
    for trade in trades.sort("ts_event", "trade_id").with_columns(pl.col("ts_event").to_physical()).to_dicts():
        symbol, ts, price = trade["symbol"], trade["ts_event"], round(trade["price"] * 10)
        if symbol in last and price != last[symbol]:
            different[symbol] = last[symbol]
        last[symbol] = price
        tick = (price > different[symbol]) - (price < different[symbol]) if symbol in different else 0
        before = [q for q in quotes if q["symbol"] == symbol and q["ts_event"] < ts]
        quote, side = before[-1] if before else None, 0
        if quote and quote["ask_price"] and ts - quote["ts_event"] <= max_age_ms * MS:
            bid, ask = round(quote["bid_price"] * 10), round(quote["ask_price"] * 10)
            side = (bid <= ask) * ((2 * price > bid + ask) - (2 * price < bid + ask))
        signs.append((symbol, ts, trade["trade_id"], side or tick, "quote" if side else "tick" if tick else "none"))
    return sorted(signs)


@pytest.mark.parametrize("symbols", [1, 3, 50])
def test_lee_ready_equals_a_loop_over_a_random_tape(tape, symbols):
    trades, quotes = random_market(tape, rows=300, symbols=symbols, seed=symbols)
    params = TradeSignParams(signing="lee_ready", max_quote_age_ms=1_000)
    signs = trade_sign.signed(trades, quotes, params).with_columns(pl.col("ts_event").to_physical())
    rows = signs.select("symbol", "ts_event", "trade_id", "aggressor", pl.col("rule").cast(pl.String)).rows()
    assert rows == by_loop(trades, quotes, 1_000)
    assert len({row[-1] for row in rows}) == 3


@pytest.mark.parametrize("block_rows", [1, 7, 100])
def test_signs_do_not_depend_on_the_size_of_blocks(tape, monkeypatch, block_rows):
    trades, quotes = random_market(tape, rows=300, symbols=3, seed=4)
    whole = trade_sign.signed(trades, quotes, LEE_READY)
    monkeypatch.setattr("quant_platform.calculators._tape._BLOCK_ROWS", block_rows)
    assert_frame_equal(trade_sign.signed(trades, quotes, LEE_READY), whole)


def test_symbols_may_be_categorical_and_frames_in_parts(tape):
    trades, quotes = random_market(tape, rows=200, symbols=3, seed=5)
    parts = [
        pl.concat([frame[:90], frame[90:]], rechunk=False).with_columns(pl.col("symbol").cast(pl.Categorical))
        for frame in (trades, quotes)
    ]
    assert_frame_equal(trade_sign.signed(*parts), trade_sign.signed(trades, quotes))


def test_two_identical_runs_give_identical_bytes(tape):
    trades, quotes = random_market(tape, rows=1_000, symbols=4, seed=6)
    assert ipc_bytes(trade_sign.signed(trades, quotes)) == ipc_bytes(trade_sign.signed(trades, quotes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"signing": "bvc"}, "signing must be one of auto, venue, lee_ready, quote, tick, was bvc"),
        ({"max_quote_age_ms": -1}, "max_quote_age_ms must be >= 0, was -1"),
    ],
)
def test_impossible_parameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TradeSignParams(**arguments)
