"""Prices of the market: the oracle, hand-worked windows, loops in exact fractions over real and large tapes, edges."""

import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.benchmarks import (
    interval_benchmarks,
    last_mids,
    market,
    ordered_sessions,
    participation_prices,
    session_prices,
)
from quant_platform.contracts._schema import INSTANT, empty
from quant_platform.contracts.market import Quote, Trade
from quant_platform_tests.unit.tca_frames import S, mid_quotes, quotes, sessions, trades

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "twap_vwap_cases.json").read_text())
INTERVALS = [case for case in ORACLE["cases"] if "end" in case["inputs"]]
PWP = [case for case in ORACLE["cases"] if "participation" in case["inputs"]]
NO_TRADES, NO_QUOTES = empty(Trade), empty(Quote)
BPS = Fraction(10_000)


def windows(*rows, symbol="X", quantity=1.0):
    """Windows from (start, end), or (symbol, start, end), in seconds."""
    full = [row if len(row) == 3 else (symbol, *row) for row in rows]
    frame = pl.DataFrame(full, schema=["symbol", "ts_start", "ts_end"], orient="row")
    times = (pl.col(name).mul(S).round().cast(pl.Int64).cast(INSTANT) for name in ("ts_start", "ts_end"))
    return frame.with_columns(*times, quantity=quantity)


def moments(*seconds, symbol="X"):
    return windows(*((second, second) for second in seconds), symbol=symbol).select("symbol", ts_event="ts_start")


def oracle_trades(case):
    return trades(*((at, float(price), float(size)) for at, price, size in case["inputs"]["trades"]))


@pytest.mark.parametrize("case", INTERVALS, ids=lambda case: case["id"])
def test_interval_oracle(case):
    inputs, expected = case["inputs"], case["expected"]
    (row,) = interval_benchmarks(
        windows((inputs["start"], inputs["end"])), market(oracle_trades(case), NO_QUOTES)
    ).to_dicts()
    found = {"twap": row["twap_price"], "vwap": row["vwap_price"], "volume": row["market_volume"]}
    for name, value in expected.items():
        assert found[name] == (value if value is None else pytest.approx(value, abs=case["tolerance"]["abs"]))
    assert row["twap_basis"] == (None if expected["twap"] is None else "trade")


@pytest.mark.parametrize("case", PWP, ids=lambda case: case["id"])
def test_participation_oracle(case):
    inputs, expected = case["inputs"], case["expected"]["pwp_price"]
    asked = windows((inputs["start"], 100), quantity=float(inputs["filled_quantity"]))
    found = participation_prices(asked, market(oracle_trades(case), NO_QUOTES), {"r": inputs["participation"]})
    tolerance = case["tolerance"]["abs"]
    assert found["pwp_r_price"].to_list() == [expected and pytest.approx(expected, abs=tolerance)]


def test_every_case_of_the_oracle_is_run_here_or_with_the_costs():
    costs = [case for case in ORACLE["cases"] if "benchmark" in case["inputs"]]
    assert len(INTERVALS) + len(PWP) + len(costs) == len(ORACLE["cases"]) == 11


def test_mids_are_preferred_and_a_window_begins_with_what_prevails():
    tapes = market(trades((-5, 50.0, 1.0), (3, 60.0, 1.0)), mid_quotes((1, 100.0), (6, 110.0)))
    found = interval_benchmarks(windows((1, 11), (0, 10), (-9, 1), (6, 6)), tapes)
    assert found["twap_price"].to_list() == [105.0, 57.0, None, None]
    assert found["twap_basis"].to_list() == ["mid", "trade", None, None]
    assert found["vwap_price"].to_list() == [60.0, 60.0, 50.0, None]
    assert found["market_volume"].to_list() == [1.0, 1.0, 1.0, 0.0]
    assert found["has_reached_end"].to_list() == [False, False, True, True]


def test_a_mid_stands_while_quotes_have_one_side_or_cross():
    tapes = market(
        NO_TRADES,
        quotes(
            (0, 99.0, 101.0),
            {"ts_event": 2, "bid_price": 120.0, "ask_price": None},
            {"ts_event": 3, "bid_price": 120.0, "ask_price": 130.0, "ask_size": 0.0},
            (4, 131.0, 130.0),
            (8, 110.0, 110.0),
        ),
    )
    assert interval_benchmarks(windows((0, 10)), tapes)["twap_price"].to_list() == [102.0]
    found = last_mids(moments(-1, 0, 7, 8, 99), tapes.mids)
    assert found["mid_price"].to_list() == [None, 100.0, 100.0, 110.0, 110.0]
    assert found["age_s"].to_list() == [None, 0.0, 7.0, 0.0, 91.0]
    assert found["ts_known"].to_physical().to_list() == [None, 0, 0, 8 * S, 8 * S]


def test_what_is_known_is_the_latest_receipt_of_what_was_used():
    tapes = market(
        trades(
            {"ts_event": 1, "price": 10.0, "ts_recv": 7},
            {"ts_event": 2, "price": 10.0, "ts_recv": 3},
            {"ts_event": 4, "price": 10.0, "ts_recv": 5},
        ),
        quotes({"ts_event": 0, "bid_price": 9.0, "ask_price": 11.0, "ts_recv": 6}),
    )
    found = interval_benchmarks(windows((0, 3), (2, 3), (2, 5), (-2, -1)), tapes)
    assert [known and known // S for known in found["ts_known"].to_physical()] == [7, 6, 6, None]
    pwp = participation_prices(
        windows((1, 9), (2, 9), (2, 9), quantity=pl.Series([0.5, 1.0, 1.5])), tapes, {"all": 1.0}
    )
    assert [known // S for known in pwp["ts_known"].to_physical()] == [7, 3, 5]


def test_participation_needs_a_quantity_and_ends_with_the_window():
    tapes = market(trades((0, 10.0, 4.0), (1, 20.0, 4.0), (2, 40.0, 4.0)), NO_QUOTES)
    asked = pl.Series([None, float("nan"), float("inf"), 0.0, -1.0, 2.0, 4.0, 4.5, 0.0001])
    found = participation_prices(windows(*[(0, 2)] * 9, quantity=asked), tapes, {"50": 0.5})
    assert found["pwp_50_price"].to_list() == [None, None, None, None, None, 10.0, 15.0, None, 10.0]
    assert found["ts_known"].null_count() == 6
    assert found.columns == ["pwp_50_price", "ts_known"]


def test_participation_does_not_run_into_the_next_symbol():
    tape = trades((0, 10.0, 1.0), {"ts_event": 1, "price": 99.0, "symbol": "Y", "size": 50.0})
    asked = windows(("X", 0, 9), ("Y", 0, 9), ("Z", 0, 9), quantity=2.0)
    found = participation_prices(asked, market(tape, NO_QUOTES), {"all": 1.0})
    assert found["pwp_all_price"].to_list() == [None, 99.0, None]


def test_a_session_opens_with_its_first_mid_and_closes_with_its_last():
    hours = ordered_sessions(
        sessions(
            {"ts_open": 20, "ts_close": 30, "is_over": False},
            (0, 10),
            (10, 20),
            (0, 10),
            {"ts_open": None, "ts_close": 1},
        )
    )
    tapes = market(NO_TRADES, mid_quotes((-1, 5.0), (0, 10.0), (9, 11.0), (10, 12.0), (21, 13.0)))
    found = session_prices(hours, tapes.mids)
    assert found["open_price"].to_list() == [10.0, 12.0, 13.0]
    assert found["close_price"].to_list() == [11.0, 12.0, None]
    assert found["prev_close_price"].to_list() == [None, 11.0, 12.0]
    assert [known and known // S for known in found["close_known"].to_physical()] == [10, 20, None]
    assert [known and known // S for known in found["prev_close_known"].to_physical()] == [None, 10, 20]
    assert (found["open_known"].to_physical() // S).to_list() == [0, 10, 21]


def test_sessions_of_symbols_are_told_apart():
    hours = ordered_sessions(sessions((0, 10), {"symbol": "Y", "ts_open": 5, "ts_close": 9}))
    symbols = pl.Series(["X", "X", "X", "Y", "Y", "Z"])
    at = np.array([0, 10, -1, 4, 9, 5]) * S
    assert hours.opened_by(symbols, at).tolist() == [0, 0, -1, -1, 1, -1]
    assert hours.not_closed_by(symbols, at).tolist() == [0, -1, 0, 1, -1, -1]
    prices = session_prices(hours, market(NO_TRADES, mid_quotes((1, 10.0))).mids)
    assert prices["close_price"].to_list() == [10.0, None]
    assert prices["prev_close_price"].to_list() == [None, None]


def test_nothing_in_nothing_out():
    tapes, none = market(NO_TRADES, NO_QUOTES), windows().cast({"symbol": pl.String})
    asked = windows((0, 1))
    assert interval_benchmarks(asked, tapes).row(0) == (0.0, None, None, None, False, None)
    assert participation_prices(asked, tapes).row(0) == (None,) * 5
    assert last_mids(moments(0), tapes.mids).row(0) == (None,) * 3
    assert session_prices(ordered_sessions(sessions((0, 1))), tapes.mids).row(0) == (None,) * 6
    for full in (tapes, market(trades((0, 1.0, 1.0)), mid_quotes((0, 2.0)))):
        assert interval_benchmarks(none, full).schema == interval_benchmarks(asked, full).schema
        assert participation_prices(none, full).height == last_mids(moments(), full.mids).height == 0
        assert session_prices(ordered_sessions(sessions()), full.mids).height == 0


def test_a_tape_without_receipts_is_refused():
    with pytest.raises(ValueError, match="ts_recv is null in 1 rows of the tape"):
        market(trades({"ts_event": 0, "price": 1.0, "ts_recv": None}), NO_QUOTES)
    with pytest.raises(ValueError, match="ts_recv is null in 1 rows of the tape"):
        market(NO_TRADES, quotes({"ts_event": 0, "bid_price": 1.0, "ask_price": None, "ts_recv": None}))


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), 0.0, -1.0])
def test_a_bad_tick_is_passed_over(bad):
    good = [(0, 10.0, 1.0), (5, 20.0, 1.0)]
    with_bad = trades(*good, {"ts_event": 1, "price": bad}, {"ts_event": 2, "price": 99.0, "size": bad})
    bad_quote = {"ts_event": 1, "bid_price": bad, "ask_price": 300.0}
    with_quotes = quotes((0, 9.0, 11.0), bad_quote, (5, 19.0, 21.0))
    asked = windows((0, 10))
    found = interval_benchmarks(asked, market(with_bad, with_quotes))
    assert_frame_equal(found, interval_benchmarks(asked, market(trades(*good), mid_quotes((0, 10.0), (5, 20.0)))))


def test_a_trade_twice_counts_once_as_first_received_in_any_row_order():
    late = {"ts_event": 1, "price": 10.0, "trade_id": 1, "ts_recv": 9, "size": 2.0}
    rows = [late, {**late, "ts_recv": 2}, {"ts_event": 0, "price": 20.0, "trade_id": 0, "ts_recv": 0}]
    for seed in range(4):
        random.Random(seed).shuffle(rows)
        (row,) = interval_benchmarks(windows((0, 5)), market(trades(*rows), NO_QUOTES)).to_dicts()
        assert row["market_volume"] == 3.0
        assert row["vwap_price"] == pytest.approx(40 / 3)
        assert row["ts_known"].second == 2


def in_fractions(tape, start, end):
    """VWAP and TWAP of one window of (ts, price, size) in exact arithmetic, by loops; None where there is none."""
    inside = [(Fraction(price), Fraction(size)) for ts, price, size in tape if start <= ts < end]
    volume = sum(size for _, size in inside)
    vwap = sum(price * size for price, size in inside) / volume if volume else None
    known = [(ts, Fraction(price)) for ts, price, _ in tape if ts < end]
    if not known or known[0][0] > start:
        return vwap, None
    until = [*(max(ts, start) for ts, _ in known[1:]), end]
    return vwap, sum(p * (b - max(a, start)) for (a, p), b in zip(known, until, strict=True)) / (end - start)


def assert_within(found, exact, label):
    if exact is None:
        assert found is None, label
    else:
        assert abs(Fraction(found) / exact - 1) * BPS <= Fraction(1, 10**9), label


def test_a_day_of_five_million_ticks_agrees_with_exact_arithmetic():
    """Windows short and long in cents and thousandths, which whole numbers add up exactly; huge trades in between."""
    rng, rows, step = np.random.default_rng(3), 5_000_000, 17_000_000
    cents = 6_000_000 + np.cumsum(rng.integers(-1, 2, rows, dtype=np.int8), dtype=np.int64)
    lots = rng.integers(1, 200, rows)
    lots[::500_009] = 10**10
    times, price = pl.Series(np.arange(rows) * step).cast(INSTANT), cents / 100
    base = pl.DataFrame({"ts_event": times, "ts_recv": times, "price": price}).with_columns(
        symbol=pl.lit("X"), trade_id=pl.int_range(rows), bid_size=1.0, ask_size=1.0, aggressor=pl.lit(1, pl.Int8)
    )
    tape = base.with_columns(pl.Series("size", lots / 1_000))
    book = base.with_columns(sequence="trade_id", bid_price="price", ask_price="price")
    first = rng.integers(0, rows // 2, 200)
    length = rng.exponential(1.0, 200) * 10.0 ** rng.integers(0, 7, 200)
    last = first + 1 + np.minimum(length, rows // 2 - 1).astype(int)
    quantity = rng.integers(1, 10**6, 200)
    asked = pl.DataFrame(
        {"symbol": "X", "ts_start": first * step + 5, "ts_end": last * step + 9, "quantity": quantity / 1_000}
    ).cast({"ts_start": INSTANT, "ts_end": INSTANT})
    tapes = market(tape, book)
    found = interval_benchmarks(asked, tapes)
    pwp = participation_prices(asked, tapes, {"all": 1.0})["pwp_all_price"]
    value = np.cumsum(cents * lots)
    volume, area = np.cumsum(lots), np.cumsum(cents)
    for each, (a, b, wanted) in enumerate(zip(first.tolist(), last.tolist(), quantity.tolist(), strict=True)):
        vwap = Fraction(int(value[b] - value[a]), int(volume[b] - volume[a])) / 100
        between = int(area[b - 1] - area[a]) * step if b > a + 1 else 0
        twap = Fraction(int(cents[a]) * (step - 5) + between + int(cents[b]) * 9, (b - a) * step + 4) / 100
        reached = int(np.searchsorted(volume, volume[a] + wanted))
        rest = wanted - int(volume[reached - 1] - volume[a])
        paid = Fraction(int(value[reached - 1] - value[a]) + rest * int(cents[reached]), wanted) / 100
        assert_within(found["vwap_price"][each], vwap, (each, "vwap"))
        assert_within(found["twap_price"][each], twap, (each, "twap"))
        assert_within(pwp[each], paid if reached <= b else None, (each, "pwp"))


def test_symbols_of_any_scale_do_not_disturb_each_other():
    """A coin of 1e-6 that trades by the trillion stands beside one of 60,000 that trades by the thousandth."""
    big = [(at, 6e4 + at, 0.001 * (1 + at % 3)) for at in range(200)]
    small = [(at, 1e-6 * (1 + at % 7), 1e12 + at) for at in range(200)]
    named = [
        {"ts_event": at, "price": price, "size": size, "symbol": symbol, "trade_id": at}
        for symbol, tape in (("X", big), ("A", small))
        for at, price, size in tape
    ]
    tapes = market(trades(*named), NO_QUOTES)
    spans = [(3, 9), (10, 150), (0, 200), (199, 300)]
    for symbol, tape in (("X", big), ("A", small)):
        found = interval_benchmarks(windows(*spans, symbol=symbol), tapes)
        for each, (start, end) in enumerate(spans):
            vwap, twap = in_fractions(tape, start, end)
            assert_within(found["vwap_price"][each], vwap, (symbol, each))
            assert_within(found["twap_price"][each], twap, (symbol, each))
