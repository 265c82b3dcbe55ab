"""What orders have cost: the oracle, plain loops in exact fractions as a second opinion, every rule, the edges."""

import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.tca import soundness, tca_orders, with_parents
from quant_platform.contracts._schema import empty, polars_schema, validated
from quant_platform.contracts.execution import Decision, Fill, Order, TcaOrder
from quant_platform.contracts.market import Quote, Trade
from quant_platform_tests.unit.ipc import ipc_bytes
from quant_platform_tests.unit.tca_frames import (
    DAY_S,
    decisions,
    fills,
    mid_quotes,
    orders,
    quotes,
    sessions,
    trades,
)

FOLDER = Path(__file__).parents[2] / "golden" / "oracles"
SHORTFALL = json.loads((FOLDER / "tca_shortfall.json").read_text())["cases"]
COSTS = [
    case for case in json.loads((FOLDER / "twap_vwap_cases.json").read_text())["cases"] if "benchmark" in case["inputs"]
]
WHOLE = [case for case in SHORTFALL if "fills" in case["inputs"]]
PARTS = ("delay_bps", "trading_bps", "opportunity_bps", "fees_bps")
BPS = [name for name in TcaOrder.columns() if name.endswith("_bps") and name != "expected_cost_bps"]
MARKET = {
    "trades": trades((-1, 100.0, 5.0), (1, 101.0, 30.0), (4, 102.0, 10.0), (8, 103.0, 60.0), (20, 104.0, 200.0)),
    "quotes": mid_quotes((-60, 98.0), (-20, 99.0), (0, 100.0), (2, 101.0), (7, 103.0), (30, 105.0), (59, 106.0)),
    "sessions": sessions((-100, -10), (-10, 60)),
}


def found(*, order=None, fill=None, decision=None, **frames):
    """Costs of one order with one fill, changed as said; a frame replaces the market's or the desk's."""
    given = {
        "orders": orders(order or {}),
        "decisions": decisions(decision or {}),
        "fills": fills(fill or {}),
        **MARKET,
        **frames,
    }
    return validated(TcaOrder, tca_orders(**given))


def one(**changes):
    (row,) = found(**changes).to_dicts()
    return row


def seconds(moment):
    return moment and moment.timestamp()


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case["id"])
def test_shortfall_oracle(case):
    inputs, tolerance = case["inputs"], case["tolerance"]["abs_bps"]
    side, quantity = inputs["side"], float(inputs["quantity"])
    cancel = inputs["cancel_price"] and float(inputs["cancel_price"])
    executed = [{"side": side, **{name: float(value) for name, value in each.items()}} for each in inputs["fills"]]
    for each in executed[:1]:
        each["fee"] = float(inputs["fees"])
    row = one(
        order={"side": side, "quantity": quantity, "cancel_price": cancel},
        decision={"side": side, "price": float(inputs["decision_price"])},
        fills=fills(*executed),
        quotes=mid_quotes((0, float(inputs["arrival_price"]))),
    )
    assert row["status"] == "ok"
    for name, value in case["expected"].items():
        assert row[name] == (value if value is None else pytest.approx(value, abs=tolerance)), name
    assert sum(row[name] for name in PARTS) == pytest.approx(row["shortfall_bps"], abs=1e-9)
    if not executed:
        assert all(row[name] is None for name in BPS if name.endswith("_cost_bps"))


def test_shortfall_oracle_of_the_delay_alone():
    (case,) = [case for case in SHORTFALL if case["id"] == "delay_only"]
    inputs = case["inputs"]
    row = one(
        order={"quantity": float(inputs["quantity"])},
        decision={"price": float(inputs["decision_price"])},
        fill={"quantity": float(inputs["filled_quantity"]), "price": 51.5},
        quotes=mid_quotes((0, float(inputs["arrival_price"]))),
    )
    assert row["delay_bps"] == pytest.approx(case["expected"]["delay_bps"], abs=case["tolerance"]["abs_bps"])


def test_every_case_of_the_oracle_is_run_but_the_market_adjusted_one():
    """Nothing here knows betas; whoever adjusts a shortfall for the market runs that case."""
    assert {case["id"] for case in SHORTFALL} - {case["id"] for case in WHOLE} == {"delay_only", "market_adjusted"}
    assert (len(WHOLE), len(COSTS)) == (6, 5)


@pytest.mark.parametrize("case", COSTS, ids=lambda case: case["id"])
def test_cost_oracle(case):
    inputs, expected = case["inputs"], case["expected"]["cost_bps"]
    side, benchmark = inputs["side"], inputs["benchmark"]
    row = one(
        order={"side": side},
        fill={"side": side, "price": inputs["avg_price"]},
        quotes=empty(Quote) if benchmark is None else mid_quotes((0, benchmark)),
    )
    for name in ("arrival", "twap", "open", "close"):
        if benchmark is None and name == "twap":
            continue  # trades stand in
        assert row[f"{name}_cost_bps"] == (expected if expected is None else pytest.approx(expected, abs=1e-9))


def test_every_benchmark_of_a_worked_order():
    row = one(fill={"price": 102.0, "quantity": 10.0})
    assert (row["decision_price"], row["arrival_price"], row["arrival_age_s"]) == (100.0, 100.0, 0.0)
    assert row["market_volume"] == 100.0
    assert row["vwap_price"] == pytest.approx((101 * 30 + 102 * 10 + 103 * 60) / 100)
    assert row["twap_price"] == pytest.approx((100 * 2 + 101 * 5 + 103 * 3) / 10)
    assert row["twap_basis"] == "mid"
    assert (row["open_price"], row["close_price"], row["prev_close_price"]) == (100.0, 106.0, 99.0)
    assert row["pwp_30_price"] == pytest.approx(101.0 * 0.9 + 102.0 * (10 / 3 * 10 - 30) * 0.03)
    assert row["pwp_20_price"] == pytest.approx((101 * 30 + 102 * 10 + 103 * 10) / 50)
    assert row["pwp_10_price"] == pytest.approx((101 * 30 + 102 * 10 + 103 * 60) / 100)
    assert row["pwp_05_price"] == pytest.approx((101 * 30 + 102 * 10 + 103 * 60 + 104 * 100) / 200)
    for name in ("decision", "arrival", "vwap", "twap", "open", "close", "prev_close", "pwp_05", "pwp_30"):
        benchmark = row[f"{name}_price"]
        assert row[f"{name}_cost_bps"] == pytest.approx((102 / benchmark - 1) * 1e4, abs=1e-9)
    assert (row["cancel_price"], row["cancel_price_basis"]) == (103.0, "mid")
    assert (row["status"], row["reasons"]) == ("ok", "")
    assert (row["strategy"], row["filled_quantity"], row["fill_count"]) == ("s", 10.0, 1)
    assert (seconds(row["ts_first_fill"]), seconds(row["ts_last_fill"])) == (5, 5)


def test_nothing_filled_has_no_costs_and_no_delay():
    row = one(fills=empty(Fill), order={"cancel_price": 105.0})
    assert (row["filled_quantity"], row["fill_count"], row["avg_price"], row["fees"]) == (0.0, 0, None, 0.0)
    assert [row[name] for name in PARTS] == [0.0, 0.0, 500.0, 0.0]
    assert row["shortfall_bps"] == 500.0
    assert all(row[name] is None for name in BPS if name.endswith("_cost_bps"))
    assert (row["reasons"], row["ts_first_fill"]) == ("nothing_filled", None)


def test_nothing_filled_without_quotes_has_no_delay_either():
    row = one(fills=empty(Fill), order={"cancel_price": 105.0}, quotes=empty(Quote))
    assert [row[name] for name in PARTS] == [0.0, 0.0, 500.0, 0.0]


def test_nothing_unfilled_needs_no_cancel_price():
    row = one(quotes=empty(Quote), fills=fills({"quantity": 3.3}, {"quantity": 6.7 + 1e-9}))
    assert (row["opportunity_bps"], row["cancel_price"], row["is_overfilled"]) == (0.0, None, False)
    assert row["shortfall_bps"] == 0.0


def test_no_cancel_price_takes_the_mid_at_the_end():
    row = one(fill={"quantity": 4.0}, order={"cancel_price": None})
    assert (row["cancel_price"], row["cancel_price_basis"]) == (103.0, "mid")
    assert row["opportunity_bps"] == pytest.approx(0.6 * 300)
    assert one(order={"cancel_price": 90.0})["cancel_price_basis"] == "desk"


def test_no_arrival_mid_leaves_the_shortfall():
    row = one(quotes=mid_quotes((1, 104.0)), fill={"price": 101.0, "quantity": 5.0})
    assert (row["arrival_price"], row["arrival_age_s"]) == (None, None)
    assert (row["arrival_cost_bps"], row["delay_bps"], row["trading_bps"]) == (None, None, None)
    assert row["shortfall_bps"] == pytest.approx(0.5 * 100 + 0.5 * 400)
    assert row["twap_basis"] == "trade"
    assert row["reasons"].split(",")[0] == "no_arrival"


@pytest.mark.parametrize(
    "changes",
    [
        {"order": {"decision_id": None}},
        {"order": {"decision_id": "else"}},
        {"decision": {"symbol": "Y"}},
        {"decision": {"price": None}},
        {"decision": {"price": float("nan")}},
        {"decision": {"price": 0.0}},
        {"decisions": empty(Decision)},
    ],
)
def test_an_order_without_a_decision_price_has_no_shortfall(changes):
    row = one(**changes)
    assert (row["decision_price"], row["decision_cost_bps"], row["shortfall_bps"]) == (None, None, None)
    assert [row[name] for name in PARTS] == [None] * 4
    assert row["arrival_cost_bps"] == 0.0
    assert (row["status"], row["reasons"]) == ("ok", "no_decision")
    assert (row["strategy"] is None) == ("price" not in changes.get("decision", {}))


@pytest.mark.parametrize("side", [1, -1])
def test_an_overfilled_order_is_flagged_and_keeps_the_identity(side):
    row = one(
        order={"side": side, "cancel_price": 104.0},
        decision={"side": side},
        fills=fills({"quantity": 8.0, "side": side, "price": 101.0}, {"quantity": 4.0, "side": side, "fee": 2.0}),
    )
    assert (row["is_overfilled"], row["filled_quantity"]) == (True, 12.0)
    average = (8 * 101 + 4 * 100) / 12
    paper, real = side * 10 * (104 - 100), side * 12 * (104 - average) - 2
    assert row["shortfall_bps"] == pytest.approx((paper - real) / 1_000 * 1e4, abs=1e-9)
    assert sum(row[name] for name in PARTS) == pytest.approx(row["shortfall_bps"], abs=1e-9)


@pytest.mark.parametrize(
    ("fee", "bps"),
    [
        ({"fee": 2.0}, 20.0),
        ({"fee": -0.5}, -5.0),
        ({"fee": 2.0, "fee_currency": ""}, 20.0),
        ({"fee": 0.001, "fee_currency": "BTC", "fee_rate": 60_000.0}, 600.0),
        ({"fee": 0.0, "fee_currency": "BTC"}, 0.0),
        ({"fee": 0.001, "fee_currency": "BTC"}, None),
        ({"fee": 0.001, "fee_currency": "BTC", "fee_rate": float("nan")}, None),
        ({"fee": 0.001, "fee_currency": "BTC", "fee_rate": 0.0}, None),
        ({"fee": None}, None),
        ({"fee": float("inf")}, None),
    ],
)
def test_fees_are_of_the_quote_currency(fee, bps):
    row = one(fill=fee)
    assert row["fees_bps"] == row["shortfall_bps"] == (bps if bps is None else pytest.approx(bps))
    assert row["fees"] == (bps if bps is None else pytest.approx(bps / 10))
    assert row["reasons"] == ("no_fee" if bps is None else "")
    assert row["arrival_cost_bps"] == 0.0


def test_an_open_order_is_unfinished():
    row = one(order={"ts_done": None})
    assert (row["status"], row["reasons"]) == ("unfinished", "")
    assert [row[name] for name in BPS] == [None] * len(BPS)
    assert (row["vwap_price"], row["market_volume"], row["cancel_price"], row["pwp_05_price"]) == (None,) * 4
    assert (row["filled_quantity"], row["avg_price"], row["arrival_price"]) == (10.0, 100.0, 100.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"order": {"side": 0}},
        {"order": {"side": 5}},
        {"order": {"side": None}},
        {"order": {"quantity": 0.0}},
        {"order": {"quantity": float("nan")}},
        {"order": {"quantity": None}},
        {"order": {"quantity": float("inf")}},
        {"order": {"ts_done": -1}},
        {"fill": {"price": 0.0}},
        {"fill": {"price": -3.0}},
        {"fill": {"price": None}},
        {"fill": {"quantity": 0.0}},
        {"fill": {"quantity": float("inf")}},
        {"fill": {"side": -1}},
        {"fill": {"symbol": "Y"}},
    ],
)
def test_a_bad_row_gets_nulls_and_harms_no_other(changes):
    good, bad = {"order_id": "good", "decision_id": "d0"}, changes.get("order", {})
    rows = found(
        orders=orders(bad, good),
        fills=fills(changes.get("fill", {}), {"order_id": "good"}),
    )
    (broken,) = rows.filter(order_id="o0").to_dicts()
    assert (broken["status"], broken["reasons"], broken["is_overfilled"]) == ("invalid_input", "", False)
    assert [broken[name] for name in BPS] == [None] * len(BPS)
    assert_frame_equal(rows.filter(order_id="good").drop("order_id"), found().drop("order_id"))


def test_children_of_children_fill_the_parent():
    tree = orders(
        {},
        {"order_id": "c1", "parent_order_id": "o0", "quantity": 6.0, "decision_id": None},
        {"order_id": "c2", "parent_order_id": "o0", "quantity": 4.0, "decision_id": None, "ts_event": 3},
        {"order_id": "c21", "parent_order_id": "c2", "quantity": 4.0, "decision_id": None, "ts_done": None},
    )
    executed = fills(
        {"order_id": "c1", "quantity": 5.0, "price": 101.0, "fee": 1.0},
        {"order_id": "c21", "quantity": 3.0, "price": 103.0, "ts_event": 4},
        {"order_id": "o0", "quantity": 1.0, "price": 99.0, "ts_event": 9},
        {"order_id": None, "price": 1.0},
        {"order_id": "elsewhere", "price": 1.0},
    )
    row = one(orders=tree, fills=executed)
    assert (row["order_id"], row["fill_count"], row["filled_quantity"], row["fees"]) == ("o0", 3, 9.0, 1.0)
    assert row["avg_price"] == pytest.approx((5 * 101 + 3 * 103 + 99) / 9)
    assert (seconds(row["ts_first_fill"]), seconds(row["ts_last_fill"])) == (4, 9)
    assert (row["is_orphan"], row["has_fill_before_order"], row["has_fill_after_done"]) == (False, False, False)


def test_an_order_of_an_unknown_parent_and_a_ring_of_parents_stand_alone():
    ring = orders(
        {"parent_order_id": "gone"},
        {"order_id": "a", "parent_order_id": "b"},
        {"order_id": "b", "parent_order_id": "c"},
        {"order_id": "c", "parent_order_id": "a"},
        {"order_id": "d", "parent_order_id": "c"},
        {"order_id": "self", "parent_order_id": "self"},
    )
    rows = found(orders=ring)
    assert rows["order_id"].to_list() == ["a", "b", "c", "d", "o0", "self"]
    assert rows["is_orphan"].to_list() == [True, True, True, True, True, False]
    assert rows["fill_count"].to_list() == [0, 0, 0, 0, 1, 0]


def test_a_fill_outside_the_life_of_its_order_is_flagged_and_counts():
    tree = orders({}, {"order_id": "c", "parent_order_id": "o0", "ts_event": 6, "ts_done": 8})
    early, late = {"order_id": "c", "ts_event": 5}, {"order_id": "c", "ts_event": 9}
    flags = ("has_fill_before_order", "has_fill_after_done", "fill_count")
    assert [one(orders=tree, fills=fills(each))[flag] for each in (early, late) for flag in flags] == [
        True, False, 1, False, True, 1,
    ]  # fmt: skip
    assert one(fill={"ts_event": 10})["has_fill_after_done"] is False


def test_the_highest_revision_counts_and_a_correction_is_told():
    wrong = {"price": 500.0, "fee": 9.0}
    corrected = fills({"fill_id": "f", "revision": 1, "ts_recv": 9}, {"fill_id": "f", **wrong})
    row = one(fills=corrected)
    assert (row["avg_price"], row["fill_count"], row["has_correction"]) == (100.0, 1, True)
    assert one(fills=fills({}, {"fill_id": "f0"}))["has_correction"] is False
    assert one(decisions=decisions({"price": 7.0}, {"decision_id": "d0", "revision": 2}))["has_correction"] is True
    assert (
        one(orders=orders({"quantity": 7.0}, {"order_id": "o0", "decision_id": "d0", "revision": 1}))["quantity"] == 10
    )


def test_the_same_rows_twice_are_the_same_rows():
    twice = {"orders": orders({}), "decisions": decisions({}), "fills": fills({})}
    twice = {name: pl.concat([frame, frame]) for name, frame in twice.items()}
    assert_frame_equal(found(**twice), found())


def test_a_tape_that_ends_before_the_order_says_so():
    going_on = sessions((-100, -10), {"ts_open": -10, "ts_close": 60, "is_over": False})
    short = {"trades": trades((1, 101.0, 30.0)), "quotes": mid_quotes((0, 100.0), (9, 101.0))}
    row = one(sessions=going_on, fill={"quantity": 4.0}, **short)
    assert (row["market_volume"], row["vwap_price"], row["twap_price"], row["twap_basis"]) == (None,) * 4
    assert (row["cancel_price"], row["opportunity_bps"], row["shortfall_bps"]) == (None,) * 3
    assert row["reasons"] == "no_cancel_price,data_end,volume_ends,no_close,no_prev_close,not_yet"
    late = one(order={"ts_event": 9.5}, sessions=going_on, fill={"ts_event": 9.7}, **short)
    assert (late["arrival_price"], late["arrival_age_s"], late["arrival_cost_bps"]) == (None,) * 3
    assert late["reasons"] == "no_arrival,data_end,volume_ends,no_close,no_prev_close,not_yet"
    assert one(order={"ts_event": 9.5}, sessions=sessions((-10, 60)), **short)["arrival_price"] == 101.0
    reached = one(sessions=going_on, trades=short["trades"], quotes=mid_quotes((0, 100.0), (10, 101.0)))
    assert (reached["vwap_price"], reached["twap_price"], reached["market_volume"]) == (101.0, 100.0, 30.0)
    over = one(**short)
    assert (over["twap_price"], over["close_price"]) == (pytest.approx(100.1), 101.0)


def test_a_halted_symbol_keeps_its_last_mid_and_shows_its_age():
    row = one(trades=trades((-50, 100.0, 1.0)), quotes=mid_quotes((-40, 97.0), (-30, 98.0)), fill={"quantity": 5.0})
    assert (row["arrival_price"], row["arrival_age_s"], row["twap_price"], row["cancel_price"]) == (98, 30, 98, 98)
    assert (row["market_volume"], row["vwap_price"]) == (0.0, None)
    assert row["reasons"] == "zero_volume,volume_ends,no_open,no_close"


def test_an_interval_without_length_has_no_vwap_and_no_twap():
    row = one(order={"ts_done": 0})
    assert (row["vwap_price"], row["twap_price"], row["market_volume"]) == (None, None, 0.0)
    assert row["reasons"] == "zero_volume,no_prevailing"


def test_an_unknown_symbol_has_its_own_shortfall_only():
    changed = {"symbol": "Z"}
    row = one(order=changed, fill={**changed, "price": 101.0}, decision=changed)
    assert row["shortfall_bps"] == pytest.approx(100.0)
    assert row["reasons"] == "no_arrival,data_end,volume_ends,no_open,no_close,no_prev_close"


def test_participation_ends_with_the_session_of_the_orders_end():
    hours = sessions((-100, -10), (-10, 15), (18, 60))
    assert one(sessions=hours)["pwp_05_price"] is None
    assert one(sessions=hours, order={"ts_done": 17})["pwp_05_price"] is None
    across = one(sessions=hours, order={"ts_done": 19})
    assert across["pwp_05_price"] is not None
    assert across["close_price"] == 103.0
    without = one(sessions=sessions())
    assert (without["pwp_30_price"], without["open_price"]) == (None, None)
    assert without["reasons"] == "volume_ends,no_open,no_close,no_prev_close"


def test_an_order_before_the_open_belongs_to_the_session_that_follows():
    row = one(sessions=sessions((-100, -30), (-5, 60)), order={"ts_event": -20}, fill={"ts_event": -19})
    assert (row["open_price"], row["close_price"], row["prev_close_price"]) == (100.0, 106.0, 98.0)
    assert (row["arrival_price"], row["has_fill_before_order"]) == (99.0, False)


def test_an_order_across_midnight_uses_both_days():
    end = DAY_S
    row = one(
        order={"ts_event": end - 10, "ts_done": end + 10},
        decision={"ts_event": end - 11},
        fill={"ts_event": end + 1, "quantity": 5.0},
        trades=trades((end - 5, 100.0, 10.0), (end + 5, 110.0, 30.0), (end + 20, 120.0, 60.0)),
        quotes=mid_quotes((1, 90.0), (end - 10, 100.0), (end, 104.0), (end + 20, 108.0)),
        sessions=sessions((0, end), (end, 2 * end)),
    )
    assert row["vwap_price"] == pytest.approx(107.5)
    assert row["twap_price"] == pytest.approx(102.0)
    assert row["pwp_10_price"] == pytest.approx((1_000 + 3_300 + 1_200) / 50)
    assert (row["open_price"], row["close_price"], row["prev_close_price"]) == (90.0, 100.0, None)
    assert row["cancel_price"] == 104.0


def test_known_is_the_latest_of_what_was_used():
    quiet = {"sessions": sessions({"ts_open": -10, "ts_close": 60, "is_over": False})}
    assert seconds(one(**quiet, order={"ts_done": 12})["ts_known"]) == 20  # the trade that completes 5 %
    assert seconds(one()["ts_known"]) == 60  # the close
    assert seconds(one(order={"ts_recv": 70})["ts_known"]) == 70
    assert seconds(one(decision={"ts_recv": 71})["ts_known"]) == 71
    assert seconds(one(fill={"ts_recv": 72})["ts_known"]) == 72
    late = MARKET["trades"].with_columns(ts_recv=pl.col("ts_event").dt.offset_by("80s"))
    assert seconds(one(trades=late)["ts_known"]) == 100
    late = MARKET["quotes"].with_columns(ts_recv=pl.col("ts_event").dt.offset_by("80s"))
    assert seconds(one(quotes=late)["ts_known"]) == 139
    child = orders({}, {"order_id": "c", "parent_order_id": "o0", "ts_recv": 73})
    assert seconds(one(orders=child, fill={"order_id": "c"})["ts_known"]) == 73
    assert seconds(one(order={"ts_done": 75})["ts_known"]) == 75


def test_nothing_in_nothing_out():
    nothing = {"orders": empty(Order), "decisions": empty(Decision), "fills": empty(Fill)}
    bare = {"trades": empty(Trade), "quotes": empty(Quote), "sessions": sessions()}
    for frames in (nothing, nothing | bare):
        assert found(**frames).schema == polars_schema(TcaOrder)
        assert found(**frames).is_empty()
    row = one(**bare)
    assert (row["status"], row["shortfall_bps"]) == ("ok", 0.0)
    assert row["reasons"] == "no_arrival,data_end,volume_ends,no_open,no_close,no_prev_close"


def test_rows_without_a_key_are_ignored():
    rows = orders({}, {"order_id": None}, {"ts_event": None, "ts_recv": 0}, {"symbol": None})
    assert found(orders=rows)["order_id"].to_list() == ["o0"]


def test_figures_beyond_all_measure_are_null():
    row = one(fills=fills({"price": 1e308}, {"price": 1.0}), order={"quantity": 20.0})
    assert (row["avg_price"], row["status"]) == (None, "invalid_input")
    row = one(decision={"price": 1e-320}, order={"cancel_price": 1e300})
    assert (row["decision_cost_bps"], row["shortfall_bps"], row["arrival_cost_bps"]) == (None, None, 0.0)


def random_desk(seed):
    """Two symbols interleaved, orders with children, and all kinds of gaps."""
    rng = np.random.default_rng(seed)
    symbols = ["X", "Y"]
    level = {"X": 100.0, "Y": 0.02}

    def price(symbol):
        return level[symbol] * (1 + rng.normal() * 0.01)

    def at(low, high):
        return round(rng.uniform(low, high), 1)

    tape = [
        {"ts_event": at(0, 100), "price": price(s), "size": round(rng.exponential(20), 3) + 0.1, "symbol": s}
        for s in rng.choice(symbols, 120)
    ]
    book = []
    for symbol in rng.choice(symbols, 80):
        mid = price(symbol)
        book.append(
            {
                "ts_event": at(0, 100),
                "symbol": symbol,
                "bid_price": mid * 0.999 if rng.random() < 0.9 else None,
                "ask_price": mid * (1.001 if rng.random() < 0.9 else 0.99),
            }
        )
    desk, decided, executed = [], [], []
    for number in range(25):
        symbol, side, start = rng.choice(symbols), int(rng.choice([-1, 1])), at(-5, 90)
        common = {"symbol": symbol, "side": side}
        parent = {**common, "ts_event": start, "ts_done": start + at(0, 30)}
        parent["quantity"] = round(rng.exponential(5), 2) + 0.1
        cancel_price = price(symbol) if rng.random() < 0.5 else None
        ids = {"order_id": f"o{number}", "decision_id": f"d{number}"}
        desk.append({**parent, **ids, "cancel_price": cancel_price})
        desk.append({**parent, "order_id": f"c{number}", "decision_id": None, "parent_order_id": f"o{number}"})
        if rng.random() < 0.9:
            decided.append({**common, "decision_id": f"d{number}", "price": price(symbol), "ts_event": start - 1})
        for _ in range(rng.integers(0, 4)):
            order_id = f"{rng.choice(['o', 'c'])}{number}"
            fill = {**common, "order_id": order_id, "ts_event": start + at(0, 20), "price": price(symbol)}
            executed.append({**fill, "quantity": round(rng.exponential(2), 2) + 0.01, "fee": round(rng.normal(), 3)})
    hours = [{"symbol": s, "ts_open": a, "ts_close": b} for s in symbols for a, b in ((0, 40), (50, 100))]
    return {
        "orders": orders(*desk),
        "decisions": decisions(*decided),
        "fills": fills(*executed),
        "trades": trades(*tape),
        "quotes": quotes(*book),
        "sessions": sessions(*hours),
    }


def plainly(order, desk):
    """One order's figures by loops over everything, in exact fractions; None where there is none."""
    symbol, side, quantity = order["symbol"], order["side"], Fraction(order["quantity"])
    start, end = order["ts_event"], order["ts_done"]
    ticks = [t for t in desk["trades"] if t["symbol"] == symbol]
    mids = [
        (q["ts_event"], (Fraction(q["bid_price"]) + Fraction(q["ask_price"])) / 2)
        for q in desk["quotes"]
        if q["symbol"] == symbol and q["bid_price"] is not None and q["bid_price"] <= q["ask_price"]
    ]
    prints = [(t["ts_event"], Fraction(t["price"])) for t in ticks]
    hours = [h for h in desk["sessions"] if h["symbol"] == symbol]
    family = {order["order_id"], *(o["order_id"] for o in desk["orders"] if o["parent_order_id"] == order["order_id"])}
    mine = [f for f in desk["fills"] if f["order_id"] in family]
    filled = sum((Fraction(f["quantity"]) for f in mine), Fraction(0))
    average = sum(Fraction(f["price"]) * Fraction(f["quantity"]) for f in mine) / filled if mine else None
    fees = sum((Fraction(f["fee"]) for f in mine), Fraction(0))
    decided = [Fraction(d["price"]) for d in desk["decisions"] if d["decision_id"] == order["decision_id"]]

    def last(series, moment):
        known = [price for ts, price in series if ts <= moment]
        return known[-1] if known else None

    def average_over_time(series):
        if last(series, start) is None or start == end:
            return None
        moments = [start, *(ts for ts, _ in series if start < ts < end), end]
        area = sum(last(series, a) * (b - a) for a, b in pairwise(moments))
        return area / (end - start)

    def participation(rate):
        until = max((h["ts_close"] for h in hours if h["ts_open"] <= end), default=start)
        rest, value = filled / Fraction(rate), Fraction(0)
        for t in ticks:
            if start <= t["ts_event"] < until and rest > 0:
                part = min(rest, Fraction(t["size"]))
                value, rest = value + part * Fraction(t["price"]), rest - part
        return value / (filled / Fraction(rate)) if mine and not rest else None

    own = next((n for n, h in enumerate(hours) if h["ts_close"] > start), None)
    inside = [[m for ts, m in mids if h["ts_open"] <= ts < h["ts_close"]] for h in hours]
    traded = [t for t in ticks if start <= t["ts_event"] < end]
    volume = sum(Fraction(t["size"]) for t in traded)
    by_mids = average_over_time(mids)
    told = order["cancel_price"]
    prices = {
        "decision": decided[0] if decided else None,
        "arrival": last(mids, start),
        "vwap": sum(Fraction(t["price"]) * Fraction(t["size"]) for t in traded) / volume if traded else None,
        "twap": average_over_time(prints) if by_mids is None else by_mids,
        "open": inside[own][0] if own is not None and inside[own] else None,
        "close": inside[own][-1] if own is not None and inside[own] else None,
        "prev_close": inside[own - 1][-1] if own and inside[own - 1] else None,
        **{f"pwp_{rate}": participation(float(f"0.{rate}")) for rate in ("05", "10", "20", "30")},
        "cancel": last(mids, end) if told is None else Fraction(told),
    }
    figures = {f"{name}_price": price for name, price in prices.items()}
    for name in set(prices) - {"cancel"}:
        is_known = mine and prices[name] is not None
        figures[f"{name}_cost_bps"] = side * (average / prices[name] - 1) * 10_000 if is_known else None
    d, a, c = prices["decision"], prices["arrival"], prices["cancel"]
    parts = dict.fromkeys(PARTS)
    if d is not None:
        scale = 10_000 / (quantity * d)
        parts["fees_bps"] = fees * scale
        parts["opportunity_bps"] = None if c is None else side * (quantity - filled) * (c - d) * scale
        parts["delay_bps"] = Fraction(0) if not mine else None if a is None else side * filled * (a - d) * scale
        parts["trading_bps"] = Fraction(0) if not mine else None if a is None else side * filled * (average - a) * scale
        if c is not None:
            paper, real = side * quantity * (c - d), side * filled * (c - (average or 0)) - fees
            figures["shortfall_bps"] = (paper - real) * scale
    return {"shortfall_bps": None, **figures, **parts, "filled_quantity": filled, "market_volume": volume}


@pytest.mark.parametrize("seed", range(6))
def test_costs_are_those_of_loops_in_exact_fractions(seed):
    frames = random_desk(seed)
    rows = validated(TcaOrder, tca_orders(**frames))
    order = {name: "ts_open" if name == "sessions" else "ts_event" for name in frames}
    numbers = {name: frame.with_columns(pl.selectors.datetime().to_physical()) for name, frame in frames.items()}
    desk = {name: frame.sort(order[name], maintain_order=True).to_dicts() for name, frame in numbers.items()}
    parents = {order["order_id"]: order for order in desk["orders"] if order["parent_order_id"] is None}
    assert rows.height == len(parents) == 25
    for row in rows.to_dicts():
        for name, value in plainly(parents[row["order_id"]], desk).items():
            label = (row["order_id"], name, row["reasons"])
            if value is None:
                assert row[name] is None, label
            elif name.endswith("_bps"):
                assert abs(Fraction(row[name]) - value) < Fraction(1, 10**9), label
            else:
                assert abs(Fraction(row[name]) - value) <= abs(value) * Fraction(1, 10**13), label


def test_any_row_order_and_two_runs_give_the_same_bytes():
    frames = random_desk(11)
    rows = tca_orders(**frames)
    keys = rows.select("symbol", "ts_event", "order_id").rows()
    assert keys == sorted(keys)
    shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=5) for name, frame in frames.items()}
    assert ipc_bytes(tca_orders(**shuffled)) == ipc_bytes(rows) == ipc_bytes(tca_orders(**frames))


def test_symbols_do_not_see_each_other():
    frames = random_desk(12)
    both = tca_orders(**frames)
    for symbol in ("X", "Y"):
        alone = tca_orders(**{name: frame.filter(symbol=symbol) for name, frame in frames.items()})
        assert_frame_equal(both.filter(symbol=symbol), alone, rel_tol=1e-14, abs_tol=1e-10)


def test_fills_take_the_parent_of_a_family_and_else_stay():
    family = orders({}, {"parent_order_id": "o0"}, {"parent_order_id": "o1"})
    given = fills({"order_id": "o2"}, {"order_id": None}, {"order_id": "o9"})
    assert_frame_equal(with_parents(given, family), given.with_columns(order_id=pl.Series(["o0", None, "o9"])))


def test_orders_that_break_the_identity_are_counted():
    sound = found(order={"quantity": 100.0, "cancel_price": 103.0}, fill={"quantity": 40.0})
    tape, executed = MARKET["trades"], fills({"quantity": 40.0})
    assert soundness(sound, executed, tape)["identity_broken"] == 0
    for name in ("delay_bps", "trading_bps", "opportunity_bps", "fees_bps", "shortfall_bps", "avg_price"):
        assert soundness(sound.with_columns(pl.col(name) + 0.01), executed, tape)["identity_broken"] == 1, name


def test_what_is_wrong_with_orders_and_fills_is_counted():
    executed = fills({"price": 104.0}, {"order_id": None, "price": 104.01}, {"order_id": "o1", "price": 99.99})
    # Of an order that is still open, nothing is said yet.
    rows = found(orders=orders({}, {"ts_done": None}), fills=executed, quotes=quotes())
    assert soundness(rows, executed, MARKET["trades"]) == {
        "orders": 2,
        "identity_broken": 0,
        "overfilled": 0,
        "filled_outside_life": 0,
        "unfinished": 1,
        "without_arrival": 1,
        "revised": 0,
        "fills": 3,
        "fills_without_order": 1,
        "outside_range": 2,
    }
    assert soundness(rows, executed, MARKET["trades"].clear())["outside_range"] == 0
