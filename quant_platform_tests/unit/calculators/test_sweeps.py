"""Sweeps: the oracle, sweeps worked by hand, live and batch beside each other, and the edge matrix."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import sweeps
from quant_platform.calculators.sweeps import SweepParams
from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.enums import Status
from quant_platform.contracts.microstructure import Sweep
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "sweep_cases.json").read_text())
MS = 1_000_000
DEFAULTS = SweepParams()


def rows(*prices, start_ms=0, every_ms=1, **fields):
    """Return buys at these prices, one every `every_ms`."""
    return [{"ts_ms": start_ms + k * every_ms, "price": float(price), **fields} for k, price in enumerate(prices)]


def found(trades, params=DEFAULTS):
    return sweeps.step(sweeps.initial(), trades, params)[1]


def random_tape(tape, *, count, symbols, seed):
    random = np.random.default_rng(seed)
    return tape(
        [
            {
                "ts_ms": int(random.integers(0, 20 * count)),
                "symbol": f"S{random.integers(symbols)}",
                "trade_id": k,
                "price": float(random.integers(1, 12)) / 8,
                "size": float(random.integers(1, 50)) / 16,
                "aggressor": int(random.choice([-1, 1, 1, 1, 0])),
            }
            for k in range(count)
        ]
    )


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda case: case["id"])
def test_sweeps_oracle(case, tape):
    trades = tape([{**row, "ts_ms": row["ts"]} for row in case["inputs"]["trades"]])
    state, events = sweeps.step(sweeps.initial(), trades)
    latest = sweeps.latest(state).to_dicts()
    expected = case["expected"]
    if expected["value"] is None:
        assert latest == []
        return
    (ours,) = latest
    for name, value in expected.items():
        wanted = value * MS if name.startswith("ts_") else value
        got = ours[name]
        got = sweeps.latest(state)[name].to_physical().item() if name.startswith("ts_") else got
        assert got == pytest.approx(wanted, rel=0, abs=case["tolerance"]["abs"])
    assert events.height == expected["value"]


def test_a_sweep_longer_than_a_window_is_one_row(tape):
    prices = range(100, 160)
    events = found(tape(rows(*prices)))
    (sweep,) = events.to_dicts()
    assert (sweep["trade_count"], sweep["price_levels"], sweep["first_trade_id"], sweep["last_trade_id"]) == (
        60,
        60,
        0,
        59,
    )
    assert (sweep["volume"], sweep["notional"]) == (60.0, float(sum(prices)))
    assert (sweep["value"], sweep["side"], sweep["status"]) == (1, 1, Status.OK)


def test_a_growing_sweep_is_returned_again_under_its_key(tape):
    trades = tape(rows(*range(100, 170), every_ms=3))
    state, first = sweeps.step(sweeps.initial(), trades[:4])
    outputs = [first]
    for k in range(4, 70):
        state, more = sweeps.step(state, trades[k : k + 1])
        outputs.append(more)
    assert [frame["trade_count"].item() for frame in outputs] == list(range(4, 71))
    assert pl.concat(outputs)["first_trade_id"].unique().to_list() == [0]
    assert_frame_equal(outputs[-1], found(trades))


def test_a_sweep_that_stands_still_is_not_returned_again(tape):
    state, _ = sweeps.step(sweeps.initial(), tape(rows(100, 101, 102)))
    _, more = sweeps.step(state, tape(rows(90, start_ms=5, trade_id=9)))
    assert more.is_empty()


def test_sweeps_of_two_sides_that_touch_are_two_rows(tape):
    buys, sells = rows(100, 101, 102), rows(102, 101, 100, start_ms=3, aggressor=-1)
    events = found(tape([*buys, *sells]))
    assert events["side"].to_list() == [1, -1]
    assert events["trade_count"].to_list() == [3, 3]
    assert events["price_levels"].to_list() == [3, 3]


def test_runs_that_overlap_are_one_sweep_and_those_that_do_not_are_two(tape):
    # 100 101 102 | a pause of 900 ms | 102 103 104: the rule fails at 102 again (2 prices in its window), holds at 104.
    near = found(tape([*rows(100, 101, 102), *rows(102, 103, 104, start_ms=902)]))
    assert near.select("first_trade_id", "last_trade_id", "price_levels").rows() == [(0, 5, 5)]
    far = found(tape([*rows(100, 101, 102), *rows(102, 103, 104, start_ms=1_003)]))
    assert far.select("first_trade_id", "last_trade_id", "price_levels").rows() == [(0, 2, 3), (3, 5, 3)]


def test_runs_that_share_one_trade_are_one_sweep(tape):
    # At 103 the window begins with 102 and has two prices; at 104 it has three.
    trades = tape([*rows(100, 101, 102), *rows(103, 104, start_ms=1_002, every_ms=0)])
    assert found(trades).select("first_trade_id", "last_trade_id", "trade_count").rows() == [(0, 4, 5)]


@pytest.mark.parametrize("cut", range(10))
def test_a_sweep_goes_on_after_trades_at_which_the_rule_does_not_hold(tape, cut):
    # Windows of four trades: the rule fails at the third 105 and at 106, and holds again at 107, from a 105 on.
    trades, params = tape(rows(100, 101, 102, 103, 104, 105, 105, 105, 106, 107)), SweepParams(window_trades=4)
    state, _ = sweeps.step(sweeps.initial(), trades[:cut], params)
    _, events = sweeps.step(state, trades[cut:], params)
    assert events.select("first_trade_id", "last_trade_id").rows() == [(0, 9)]


@pytest.mark.parametrize("cut", [0, 20, 53, 54])
def test_a_run_reaches_back_over_fifty_trades_whatever_the_cut(tape, cut):
    trades = tape([*rows(*[90] * 5, aggressor=-1), *rows(100, *[101] * 48, 102, start_ms=5)])
    state, _ = sweeps.step(sweeps.initial(), trades[:cut])
    state, events = sweeps.step(state, trades[cut:])
    assert events.select("first_trade_id", "trade_count").rows() == [(5, 50)]
    assert sweeps.latest(state)["trade_count"].to_list() == [50]


def test_the_latest_run_counts_fifty_trades_at_most(tape):
    state, _ = sweeps.step(sweeps.initial(), tape(rows(*[100] * 60)))
    assert sweeps.latest(state).select("value", "trade_count", "price_levels").rows() == [(0, 50, 1)]


def test_trades_of_one_instant_are_ordered_by_id(tape):
    shuffled = [{"ts_ms": 5, "price": 100.0 + k, "trade_id": k} for k in (2, 0, 1)]
    (sweep,) = found(tape(shuffled)).to_dicts()
    assert (sweep["first_trade_id"], sweep["last_trade_id"], sweep["trade_count"]) == (0, 2, 3)


def test_two_symbols_interleaved_are_apart(tape):
    up, down = rows(10, 11, 12, symbol="B"), rows(20, 19, 18, symbol="A", aggressor=-1)
    both = [row for pair in zip(up, down, strict=True) for row in pair]
    events = found(tape(both))
    assert events.select("symbol", "side", "trade_count").rows() == [("A", -1, 3), ("B", 1, 3)]
    alone = found(tape([{**row, "trade_id": 2 * k} for k, row in enumerate(up)]))
    assert_frame_equal(events.filter(symbol="B"), alone)


def test_minimum_volume_counts_the_run_within_the_window(tape):
    trades = tape(rows(100, 101, 102, 103, size=2.0))
    assert found(trades, SweepParams(min_volume=8.0))["trade_count"].to_list() == [4]
    assert found(trades, SweepParams(min_volume=8.1)).is_empty()


def test_known_time_is_the_latest_receipt_of_the_sweep(tape):
    late = rows(100, 101, 102)
    late[1]["recv_ms"] = 900
    assert found(tape(late))["ts_known"].to_physical().to_list() == [900 * MS]


def test_in_sweep_marks_the_trades_of_sweeps(tape):
    trades = tape([*rows(90, aggressor=-1), *rows(100, 100, 101, 103, start_ms=1), *rows(103, start_ms=5, aggressor=0)])
    assert sweeps.in_sweep(trades).to_list() == [False, True, True, True, True, False]


def test_a_trade_is_in_a_sweep_from_the_trade_on_that_shows_it(tape):
    trades = tape([*rows(90, aggressor=-1), *rows(100, 101, 102, 103, start_ms=1)])
    assert sweeps.completed_at(trades).tolist() == [5, 3, 3, 3, 4]
    for seen in range(1, 6):
        assert (sweeps.completed_at(trades)[:seen] < seen).tolist() == sweeps.in_sweep(trades[:seen]).to_list()


def test_in_sweep_agrees_with_the_rows_of_step(tape):
    trades = random_tape(tape, count=3_000, symbols=3, seed=1).sort("symbol", "ts_event", "trade_id")
    events = found(trades)
    assert events.height > 20
    assert sweeps.in_sweep(trades).sum() == events["trade_count"].sum()


def test_the_latest_value_follows_the_newest_trade(tape):
    state, _ = sweeps.step(sweeps.initial(), tape([*rows(100, 101, 102), *rows(7, symbol="A")]))
    assert sweeps.latest(state).select("symbol", "value", "side", "trade_count").rows() == [
        ("A", 0, 0, 1),
        ("BTCUSDT", 1, 1, 3),
    ]
    state, _ = sweeps.step(state, tape(rows(101, start_ms=9, trade_id=9, aggressor=-1)))
    assert sweeps.latest(state).filter(symbol="BTCUSDT").select("value", "side", "trade_count").rows() == [(0, 0, 1)]


def test_a_trade_of_unknown_side_is_no_sweep_even_where_one_trade_is_enough(tape):
    one = SweepParams(min_trades=1, min_price_levels=1)
    assert found(tape(rows(100, aggressor=0)), one).is_empty()
    assert found(tape(rows(100, aggressor=-1)), one)["trade_count"].to_list() == [1]


def test_an_empty_tape_gives_no_rows_of_the_right_types(tape):
    state, events = sweeps.step(sweeps.initial(), tape([]))
    assert events.is_empty()
    assert events.schema == polars_schema(Sweep)
    assert sweeps.latest(state).schema == polars_schema(Sweep)
    assert sweeps.in_sweep(tape([])).to_list() == []


@pytest.mark.parametrize("count", range(1, 7))
def test_a_short_tape_has_no_sweep_of_more_trades(tape, count):
    trades = tape(rows(*range(100, 100 + count)))
    assert found(trades, SweepParams(min_trades=4))["trade_count"].to_list() == ([count] if count >= 4 else [])


@pytest.mark.parametrize(
    "bad",
    [
        *({column: value} for column in ("price", "size") for value in (None, math.nan, math.inf, 0.0, -1.0)),
        {"aggressor": None},
        {"symbol": None},
    ],
    ids=str,
)
def test_a_bad_row_among_good_ones_is_ignored(tape, bad):
    good = [{**row, "trade_id": k} for k, row in enumerate(rows(100, 101, 102, every_ms=2))]
    wrong = {"ts_ms": 3, "trade_id": 99, "price": 50.0, **bad}
    assert_frame_equal(found(tape([*good[:2], wrong, good[2]])), found(tape(good)))


def test_a_tape_of_nulls_gives_no_rows(tape):
    trades = tape([]).clear(3)
    assert found(trades).is_empty()


def test_constant_prices_and_opposite_sides_are_no_sweep(tape):
    assert found(tape(rows(*[100] * 20))).is_empty()
    assert found(tape(rows(100, 101, 102, aggressor=-1))).is_empty()


def test_sums_beyond_the_floats_are_null(tape):
    (sweep,) = found(tape(rows(1e300, 1.1e300, 1.2e300, size=1e300))).to_dicts()
    assert (sweep["volume"], sweep["notional"], sweep["status"]) == (None, None, Status.NAN)
    assert sweep["trade_count"] == 3


def test_a_trade_without_receive_time_is_refused(tape):
    trades = tape(rows(100)).with_columns(ts_recv=pl.lit(None, pl.Datetime("ns", "UTC")))
    with pytest.raises(ValueError, match="1 trades have no ts_recv"):
        found(trades)


def test_two_identical_runs_give_identical_bytes(tape):
    trades = random_tape(tape, count=2_000, symbols=4, seed=2)
    assert ipc_bytes(found(trades)) == ipc_bytes(found(trades))


def test_sweeps_keep_their_contract(tape):
    state, events = sweeps.step(sweeps.initial(), random_tape(tape, count=2_000, symbols=4, seed=3))
    assert validated(Sweep, events).height > 10
    assert validated(Sweep, sweeps.latest(state)).height == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_trades": 2}, "were 3, 2 and 50"),
        ({"min_price_levels": 0}, "were 0, 3 and 50"),
        ({"window_trades": 2}, "were 3, 3 and 2"),
        ({"window_ms": -1}, "window_ms must be >= 0, was -1"),
        ({"min_volume": -1.0}, "min_volume must be >= 0"),
        ({"min_volume": math.nan}, "min_volume must be >= 0"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SweepParams(**wrong)
