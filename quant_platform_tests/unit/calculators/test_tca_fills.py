"""Quotes that fills met and mids after them: the oracle, a plain loop as a second opinion, every rule, the edges."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.tca import tca_fills
from quant_platform.contracts._schema import empty, polars_schema, validated
from quant_platform.contracts.execution import MARKOUT_HORIZONS_NS, Fill, TcaFill
from quant_platform.contracts.market import Quote
from quant_platform_tests.unit.ipc import ipc_bytes
from quant_platform_tests.unit.tca_frames import S, fills, mid_quotes, quotes, sessions

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "markout_cases.json").read_text())["cases"]
AT_ONCE = [case for case in ORACLE if "bid" in case["inputs"]]
AS_OF = [case for case in ORACLE if "mids" in case["inputs"]]
HORIZONS_S = {name: ns / S for name, ns in MARKOUT_HORIZONS_NS.items()}
MARKOUTS = [f"markout_{name}_bps" for name in (*HORIZONS_S, "close")]
REALISED = [f"realised_spread_{name}_bps" for name in HORIZONS_S]
SPREADS = ("mid_price", "quoted_spread_bps", "effective_spread_bps", "price_improvement", "price_improvement_amount")
HOURS = sessions((0, 1_000))


def found(fill, book, hours=HOURS):
    frame = fill if isinstance(fill, pl.DataFrame) else fills(fill)
    return validated(TcaFill, tca_fills(frame, book, hours))


def one(fill, book, hours=HOURS):
    (row,) = found(fill, book, hours).to_dicts()
    return row


def seconds(moment):
    return moment and moment.timestamp()


@pytest.mark.parametrize("case", AT_ONCE, ids=lambda case: case["id"])
def test_markout_oracle(case):
    inputs, expected = case["inputs"], case["expected"]
    after = inputs["mid_after"]
    book = quotes((0, inputs["bid"], inputs["ask"]), (6, after, after), (99, 1.0, 1.0))
    row = one({"side": inputs["side"], "price": inputs["price"]}, book)
    figures = {
        "mid": row["mid_price"],
        "quoted_bps": row["quoted_spread_bps"],
        "effective_bps": row["effective_spread_bps"],
        "e_over_q": row["e_over_q"],
        "price_improvement": row["price_improvement"],
        "realized_bps": row["realised_spread_5s_bps"],
        "impact_bps": row["effective_spread_bps"] - row["realised_spread_5s_bps"],
        "markout_bps": row["markout_5s_bps"],
    }
    assert set(figures) == set(expected)
    for name, value in expected.items():
        assert figures[name] == (value if value is None else pytest.approx(value, abs=case["tolerance"]["abs"])), name
    assert row["status"] == ("locked" if inputs["bid"] == inputs["ask"] else "ok")


@pytest.mark.parametrize("case", AS_OF, ids=lambda case: case["id"])
def test_markout_oracle_as_of(case):
    """Each horizon of the oracle is stretched to a minute: which mid is the last one does not depend on the clock."""
    inputs = case["inputs"]
    for horizon, expected in zip(inputs["horizons_s"], case["expected"]["markout_bps"], strict=True):
        stretch = 60 / horizon
        book = mid_quotes(*((at * stretch, mid) for at, mid in inputs["mids"]))
        row = one(
            {"side": inputs["side"], "price": inputs["price"], "ts_event": inputs["ts_fill"]},
            book,
            sessions((-1, 100_000)),
        )
        assert row["markout_1m_bps"] == pytest.approx(expected, abs=case["tolerance"]["abs"])


def test_every_case_of_the_oracle_is_run():
    assert len(AT_ONCE) + len(AS_OF) == len(ORACLE) == 6


def test_a_quote_of_the_fills_own_instant_is_not_the_one_it_met():
    book = quotes((1, 99.0, 101.0), (5, 199.0, 201.0), (5.05, 103.0, 105.0), (999, 1.0, 1.0))
    row = one({"ts_event": 5}, book)
    assert (row["bid_price"], row["ask_price"], row["mid_price"], row["quote_age_s"]) == (99.0, 101.0, 100.0, 4.0)
    assert row["markout_50ms_bps"] == pytest.approx(400.0)
    assert row["realised_spread_50ms_bps"] == pytest.approx(-800.0)


@pytest.mark.parametrize(("side", "price"), [(1, 100.5), (-1, 99.5)])
def test_no_more_is_improved_than_was_displayed(side, price):
    touch = {"ts_event": 0, "bid_price": 99.0, "ask_price": 101.0}
    shown = {"ask_size": 4.0, "bid_size": 3.0}
    row = one({"side": side, "price": price}, quotes({**touch, **shown}))
    assert (row["price_improvement"], row["capped_quantity"]) == (0.5, 4.0 if side > 0 else 3.0)
    assert row["price_improvement_amount"] == 0.5 * row["capped_quantity"]
    row = one({"side": side, "price": price, "quantity": 2.0}, quotes({**touch, **shown}))
    assert (row["capped_quantity"], row["price_improvement_amount"]) == (2.0, 1.0)
    untold = one({"side": side, "price": price}, quotes({**touch, "ask_size": None, "bid_size": None}))
    assert (untold["price_improvement"], untold["capped_quantity"], untold["price_improvement_amount"]) == (
        0.5,
        None,
        None,
    )


def test_a_fill_beyond_the_touch_has_a_negative_improvement():
    assert one({"price": 103.0}, quotes((0, 99.0, 101.0)))["price_improvement"] == -2.0


@pytest.mark.parametrize(
    ("touch", "status"),
    [
        ({"bid_price": None}, "one_sided"),
        ({"ask_price": None}, "one_sided"),
        ({"ask_size": 0.0}, "one_sided"),
        ({"bid_price": 102.0}, "crossed"),
        ({"ts_event": 5}, "no_data"),
        ({"symbol": "Y"}, "no_data"),
    ],
)
def test_without_a_whole_quote_there_are_no_spreads(touch, status):
    late = {"ts_event": 6, "bid_price": 110.0, "ask_price": 110.0}
    book = quotes({"ts_event": 4, "bid_price": 99.0, "ask_price": 101.0, **touch}, late, {**late, "ts_event": 900})
    row = one({}, book)
    assert row["status"] == status
    assert [row[name] for name in SPREADS] == [None] * 5
    assert [row[name] for name in REALISED] == [None] * 6
    assert row["e_over_q"] is None
    assert row["markout_5m_bps"] == pytest.approx(1_000.0)


def test_a_locked_book_has_spreads_and_no_ratio():
    row = one({"price": 101.0}, quotes((0, 100.0, 100.0)))
    assert (row["status"], row["quoted_spread_bps"], row["e_over_q"]) == ("locked", 0.0, None)
    assert row["effective_spread_bps"] == pytest.approx(200.0)


@pytest.mark.parametrize(
    "bad",
    [{"side": 0}, {"side": None}, {"side": 3}]
    + [{name: value} for name in ("price", "quantity") for value in (None, 0.0, -1.0, float("nan"), float("inf"))],
)
def test_a_bad_fill_gets_nulls_and_harms_no_other(bad):
    book = mid_quotes((0, 100.0), (900, 101.0))
    rows = found(fills({**bad, "fill_id": "bad"}, {"fill_id": "good"}), book)
    (row,) = rows.filter(fill_id="bad").to_dicts()
    given = {"fill_id", "order_id", "ts_event", "symbol", "side", "status", "ts_known", "price", "quantity"}
    assert row["status"] == "invalid_input"
    assert all(value is None for name, value in row.items() if name not in {*given, "ts_markout_end"})
    assert seconds(row["ts_known"]) == 5
    assert_frame_equal(rows.filter(fill_id="good"), found({"fill_id": "good"}, book))


def test_markouts_end_with_the_data():
    row = one(
        {"ts_event": 5},
        mid_quotes((0, 100.0), (10, 101.0), (20, 102.0)),
        sessions({"ts_open": 0, "ts_close": 900, "is_over": False}),
    )
    assert [row[name] for name in MARKOUTS] == [0.0, 0.0, pytest.approx(100.0), pytest.approx(200.0), None, None, None]
    assert [row[name] is None for name in REALISED] == [False] * 4 + [True] * 2
    assert seconds(row["ts_markout_end"]) == 20


def test_markouts_do_not_cross_the_close():
    book = mid_quotes((0, 100.0), (9, 101.0), (10, 102.0), (400, 103.0))
    row = one({"ts_event": 5}, book, sessions((0, 10), (10, 900)))
    assert [row[name] for name in MARKOUTS] == [0.0, 0.0, None, None, None, None, pytest.approx(100.0)]
    assert seconds(row["ts_markout_end"]) == 9
    row = one({"ts_event": 10}, book, sessions((0, 10), (10, 900)))
    assert (row["markout_5m_bps"], row["markout_close_bps"]) == (pytest.approx(200.0), pytest.approx(300.0))


@pytest.mark.parametrize(
    "hours", [sessions((0, 5)), sessions((6, 900)), sessions({"symbol": "Y", "ts_open": 0, "ts_close": 9}), sessions()]
)
def test_a_fill_outside_sessions_has_no_markouts(hours):
    row = one({"ts_event": 5}, mid_quotes((0, 100.0), (900, 101.0)), hours)
    assert [row[name] for name in (*MARKOUTS, "ts_markout_end")] == [None] * 8
    assert row["effective_spread_bps"] == 0.0


def test_a_fill_after_the_sessions_last_quote_has_no_markouts():
    row = one({"ts_event": 50}, mid_quotes((0, 100.0), (40, 101.0)))
    assert [row[name] for name in MARKOUTS] == [None] * 7
    assert seconds(row["ts_markout_end"]) == 40
    assert one({"ts_event": 50}, mid_quotes((-9, 100.0)))["ts_markout_end"] is None


def test_a_fill_that_the_quotes_of_an_open_session_do_not_reach_waits():
    going_on = sessions({"ts_open": 0, "ts_close": 900, "is_over": False})
    book = mid_quotes((0, 100.0), (20, 101.0))
    waits, reached = (one({"ts_event": at}, book, going_on) for at in (20.5, 20))
    assert (waits["status"], reached["status"]) == ("not_yet", "ok")
    assert waits["price"] == 100.0
    assert {waits[name] for name in (*SPREADS, "bid_price", "quote_age_s", *MARKOUTS, *REALISED)} == {None}
    # Nothing will come of a session that is over, or of none.
    for hours in (sessions((0, 900)), sessions({"ts_open": 50, "ts_close": 900, "is_over": False})):
        assert one({"ts_event": 20.5}, book, hours)["status"] == "ok"


def test_known_is_the_latest_of_what_was_used():
    book = mid_quotes((0, 100.0), (7, 101.0), (20, 102.0))
    late = quotes(
        {"ts_event": 0, "bid_price": 99.0, "ask_price": 101.0, "ts_recv": 30},
        {"ts_event": 7, "bid_price": 99.0, "ask_price": 101.0, "ts_recv": 31},
        {"ts_event": 20, "bid_price": 99.0, "ask_price": 101.0, "ts_recv": 40},
    )
    going_on = sessions({"ts_open": 0, "ts_close": 1_000, "is_over": False})
    assert seconds(one({}, book, going_on)["ts_known"]) == 20
    assert seconds(one({"ts_recv": 33}, book, going_on)["ts_known"]) == 33
    assert seconds(one({"ts_event": 1}, mid_quotes((0, 100.0), (3, 101.0)), going_on)["ts_known"]) == 2
    assert seconds(one({"ts_event": 5}, late, going_on)["ts_known"]) == 40
    assert seconds(one({}, late.head(1), sessions())["ts_known"]) == 30
    assert seconds(one({}, book)["ts_known"]) == 1_000
    assert seconds(one({}, empty(Quote))["ts_known"]) == 5


def test_the_highest_revision_counts():
    rows = found(fills({"price": 3.0}, {"fill_id": "f0", "revision": 1}), mid_quotes((0, 100.0)))
    assert rows["price"].to_list() == [100.0]


def test_nothing_in_nothing_out():
    for book in (empty(Quote), mid_quotes((0, 100.0))):
        for hours in (HOURS, sessions()):
            rows = found(empty(Fill), book, hours)
            assert rows.is_empty()
            assert rows.schema == polars_schema(TcaFill)
    row = one({}, empty(Quote), sessions())
    assert (row["status"], row["price"], row["markout_1s_bps"]) == ("no_data", 100.0, None)


def test_quotes_without_receipts_are_refused():
    with pytest.raises(ValueError, match="ts_recv is null in 1 rows of the tape"):
        found({}, quotes({"ts_event": 0, "bid_price": None, "ask_price": 1.0, "ts_recv": None}))


def random_market(seed):
    rng = np.random.default_rng(seed)
    level = {"X": 100.0, "Y": 0.02}
    book, executed = [], []
    for number, symbol in enumerate(rng.choice(["X", "Y"], 400)):
        mid = level[symbol] * (1 + rng.normal() * 0.01)
        spread = rng.choice([0.0, 0.001, -0.001], p=[0.1, 0.8, 0.1]) * mid
        bid = mid - spread if rng.random() < 0.95 else None
        at = round(rng.uniform(0, 900), 2)
        sizes = {"bid_size": round(rng.exponential(5), 1), "ask_size": round(rng.exponential(5), 1)}
        book.append(
            {"ts_event": at, "symbol": symbol, "bid_price": bid, "ask_price": mid + spread, **sizes, "sequence": number}
        )
    for symbol in rng.choice(["X", "Y"], 60):
        price = level[symbol] * (1 + rng.normal() * 0.01)
        at, side = round(rng.uniform(-5, 905), 2), int(rng.choice([-1, 1]))
        executed.append(
            {
                "ts_event": at,
                "symbol": symbol,
                "side": side,
                "price": price,
                "quantity": round(rng.exponential(5), 1) + 0.1,
            }
        )
    hours = [{"symbol": s, "ts_open": a, "ts_close": b} for s in ("X", "Y") for a, b in ((0, 400), (450, 900))]
    return fills(*executed), quotes(*book), sessions(*hours)


def plainly(fill, book, hours):
    """One fill's figures by loops over all quotes, in exact fractions; None where there is none."""
    side, price, at = fill["side"], Fraction(fill["price"]), fill["ts_event"]
    mine = [
        (
            q["ts_event"],
            *(
                None if q[f"{s}_size"] == 0 or q[f"{s}_price"] is None else Fraction(q[f"{s}_price"])
                for s in ("bid", "ask")
            ),
            q,
        )
        for q in book
        if q["symbol"] == fill["symbol"]
    ]
    mids = [(ts, (bid + ask) / 2) for ts, bid, ask, _ in mine if None not in (bid, ask) and bid <= ask]
    figures = dict.fromkeys([*SPREADS, "e_over_q", *REALISED, *MARKOUTS])
    before = [quote for quote in mine if quote[0] < at]
    status, middle = "no_data", None
    if before:
        _, bid, ask, quote = before[-1]
        status = "one_sided" if None in (bid, ask) else "crossed" if bid > ask else "locked" if bid == ask else "ok"
        if status in ("locked", "ok"):
            middle = (bid + ask) / 2
            far, size = (ask, quote["ask_size"]) if side > 0 else (bid, quote["bid_size"])
            better = side * (far - price)
            quoted, effective = (ask - bid) / middle * 10_000, 2 * side * (price - middle) / middle * 10_000
            amount = better * min(Fraction(size), Fraction(fill["quantity"]))
            figures.update(zip(SPREADS, (middle, quoted, effective, better, amount), strict=True))
            figures["e_over_q"] = effective / quoted if quoted else None
    session = [h for h in hours if h["symbol"] == fill["symbol"] and h["ts_open"] <= at < h["ts_close"]]
    if session:
        inside = [ts for ts, *_ in mine if session[0]["ts_open"] <= ts < session[0]["ts_close"]]
        for name, horizon in MARKOUT_HORIZONS_NS.items():
            known = [mid for ts, mid in mids if ts <= at + horizon]
            if known and inside and at + horizon <= inside[-1]:
                figures[f"markout_{name}_bps"] = side * (known[-1] / price - 1) * 10_000
                if middle:
                    figures[f"realised_spread_{name}_bps"] = 2 * side * (price - known[-1]) / middle * 10_000
        closing = [mid for ts, mid in mids if session[0]["ts_open"] <= ts < session[0]["ts_close"]]
        if closing and inside[-1] >= at:
            figures["markout_close_bps"] = side * (closing[-1] / price - 1) * 10_000
    return status, figures


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_loops_in_exact_fractions(seed):
    frames = random_market(seed)
    rows = found(*frames)
    executed, book, hours = (frame.with_columns(pl.selectors.datetime().to_physical()) for frame in frames)
    in_order, hours = book.sort("ts_event", "sequence").to_dicts(), hours.to_dicts()
    by_id = {fill["fill_id"]: fill for fill in executed.to_dicts()}
    assert {"ok", "locked", "crossed"} <= set(rows["status"])
    for row in rows.to_dicts():
        status, figures = plainly(by_id[row["fill_id"]], in_order, hours)
        assert row["status"] == status
        for name, value in figures.items():
            if value is None:
                assert row[name] is None, name
            else:
                assert row[name] == pytest.approx(float(value), rel=0, abs=1e-9), name


def test_any_row_order_and_two_runs_give_the_same_bytes():
    frames = random_market(9)
    rows = tca_fills(*frames)
    shuffled = [frame.sample(fraction=1, shuffle=True, seed=5) for frame in frames]
    assert ipc_bytes(tca_fills(*shuffled)) == ipc_bytes(rows) == ipc_bytes(tca_fills(*frames))
    keys = rows.select("symbol", "ts_event", "fill_id").rows()
    assert keys == sorted(keys)
