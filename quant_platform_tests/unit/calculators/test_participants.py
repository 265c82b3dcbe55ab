"""Participants: the oracle, each rule worked by hand, what a later trade completes, and the edge matrix."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import participants
from quant_platform.calculators.participants import InstitutionalParams, ParticipantParams
from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.enums import Status
from quant_platform.contracts.microstructure import ParticipantFlow
from quant_platform_tests.unit.ipc import ipc_bytes

CASES = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "toxicity_cases.json").read_text())["cases"]
ORACLE = next(case for case in CASES if case["id"] == "participants")
MS = 1_000_000
DEFAULTS = ParticipantParams()
HITS = ["notional_hits", "dark_venue_hits", "time_cluster_hits", "passive_hits"]


def flow(trades, params=DEFAULTS):
    return participants.step(participants.initial(), trades, params)[1]


def last(trades, params=DEFAULTS):
    return flow(trades, params).to_dicts()[-1]


def institutional(**fields):
    return ParticipantParams(institutional=InstitutionalParams(**fields))


def test_participants_oracle(signed):
    inputs, expected = ORACLE["inputs"], ORACLE["expected"]
    # The case has no quotes and expects no passive fill: here they are, away from the price.
    rows = [
        {"size": size, "price": price, "aggressor": side, "venue": venue, "ts_ms": ts, "bid": 99.0, "ask": 101.0}
        for size, price, side, venue, ts in inputs["trades"]
    ]
    params = ParticipantParams(
        retail_notional=inputs["retail_notional"],
        institutional=InstitutionalParams(
            notional=inputs["institutional_notional"], dark_venues=tuple(inputs["dark_venues"])
        ),
    )
    found = last(signed(rows), params)
    for name in ("institutional", "retail", "unclassified"):
        assert found[f"{name}_notional_share"] == pytest.approx(
            expected[f"{name}_share"], rel=0, abs=ORACLE["tolerance"]["abs"]
        )
    assert found["institutional_trade_count"] == expected["institutional_trades"]
    assert found["retail_trade_count"] == expected["retail_trades"]
    for name, count in expected["hits"].items():
        assert found[f"{name}_hits"] == count


def test_flows_by_hand(signed):
    rows = [
        {"ts_ms": 0, "price": 100.0, "size": 3_000.0, "aggressor": 1},  # 300,000: institutional
        {"ts_ms": 500, "price": 100.0, "size": 5_000.0, "aggressor": -1},  # 500,000: institutional
        {"ts_ms": 1_000, "price": 100.0, "size": 30.0, "aggressor": 1},  # 3,000: retail
        {"ts_ms": 1_500, "price": 100.0, "size": 10.0, "aggressor": -1},  # 1,000: retail
        {"ts_ms": 2_000, "price": 100.0, "size": 100.0, "aggressor": -1},  # 10,000: neither
        {"ts_ms": 2_500, "price": 100.0, "size": 60.0, "aggressor": 0},  # 6,000 without a side: neither
    ]
    found = last(signed(rows))
    assert found["trade_count"] == 6
    assert found["institutional_notional_share"] == 800_000 / 820_000
    assert found["retail_notional_share"] == 4_000 / 820_000
    assert found["unclassified_notional_share"] == 16_000 / 820_000
    assert found["institutional_aggressor_ratio"] == 2_000 / 8_000
    assert found["retail_aggressor_ratio"] == 20 / 40
    assert found["institutional_net_notional"] == -200_000.0
    assert found["retail_net_notional"] == 2_000.0
    assert [found[f"{name}_trade_count"] for name in ("institutional", "retail", "unclassified")] == [2, 2, 2]
    assert [found[name] for name in HITS] == [2, None, 0, None]
    # Neither venue nor quotes: a large notional weighs 0.4 of the 0.6 that can be told.
    assert found["institutional_score"] == pytest.approx(0.4 / 0.6 * 800_000 / 820_000, rel=1e-15)
    assert found["status"] == Status.OK


def test_thresholds_are_inclusive_for_institutions_and_exclusive_for_retail(signed):
    rows = [{"ts_ms": 0, "price": 1.0, "size": size} for size in (250_000.0, 249_999.0, 10_000.0, 9_999.0)]
    found = last(signed([{**row, "ts_ms": 500 * k} for k, row in enumerate(rows)]))
    assert (found["institutional_trade_count"], found["retail_trade_count"]) == (1, 1)


@pytest.mark.parametrize(
    ("times_ms", "hits"),
    [((0, 50, 100), 3), ((0, 50, 101), 0), ((0, 60, 120, 160), 3), ((0, 0, 0), 3), ((0, 0, 100), 3), ((0, 100), 0)],
)
def test_a_time_cluster_is_three_within_a_tenth_of_a_second(signed, times_ms, hits):
    assert last(signed([{"ts_ms": t, "price": 5.0} for t in times_ms]))["time_cluster_hits"] == hits


def test_other_prices_and_sides_between_do_not_break_a_time_cluster(signed):
    other = [{"ts_ms": 15, "price": 6.0}, {"ts_ms": 35, "price": 5.0, "aggressor": -1}]
    same = [{"ts_ms": t, "price": 5.0} for t in (10, 20, 40)]
    assert last(signed([*same, *other]))["time_cluster_hits"] == 3


def test_a_pause_elsewhere_does_not_hide_a_cluster(signed):
    assert last(signed([{"ts_ms": t, "price": 5.0} for t in (0, 500, 900, 950, 990, 1_500)]))["time_cluster_hits"] == 3


def test_trades_without_a_side_are_no_series(signed):
    rows = [{"ts_ms": t, "price": 5.0, "aggressor": 0, "bid": 5.0, "ask": 5.0} for t in range(4)]
    found = last(signed(rows))
    assert (found["time_cluster_hits"], found["passive_hits"]) == (0, 0)


def at_ask(*times_ms, **fields):
    return [{"ts_ms": t, "price": 5.0, "aggressor": 1, "bid": 4.0, "ask": 5.0, **fields} for t in times_ms]


def test_a_passive_fill_is_three_in_a_row_against_one_quote(signed):
    assert last(signed(at_ask(0, 1_000, 2_000)))["passive_hits"] == 3
    assert last(signed(at_ask(0, 1_000)))["passive_hits"] == 0
    sells = [{**row, "aggressor": -1, "bid": 5.0, "ask": 6.0} for row in at_ask(0, 1_000, 2_000, 3_000)]
    assert last(signed(sells))["passive_hits"] == 4


@pytest.mark.parametrize(
    "between",
    [
        {"price": 4.5},
        {"aggressor": -1, "bid": 5.0, "ask": 6.0},
        {"ask": 5.5},
        {"ask": 4.9},
        {"bid": 5.1},
        {"ask": None},
        {"bid": None},
        {"aggressor": 0},
    ],
    ids=str,
)
def test_anything_else_between_breaks_a_passive_fill(signed, between):
    rows = at_ask(0, 1_000, 2_000, 3_000)
    rows[2] |= between
    assert last(signed(rows))["passive_hits"] == 0


def test_passive_fills_cannot_be_told_without_quotes(signed):
    found = last(signed([*at_ask(0, 1_000, ask=None), *at_ask(2_000, bid=5.5)]))
    assert found["passive_hits"] is None
    assert last(signed([*at_ask(0, 1_000, ask=None), *at_ask(2_000)]))["passive_hits"] == 0


def test_a_locked_quote_is_a_quote(signed):
    assert last(signed(at_ask(0, 1_000, 2_000, bid=5.0)))["passive_hits"] == 3


def test_dark_prints_cannot_be_told_without_venues(signed):
    rows = [{"ts_ms": 0, "price": 5.0, "venue": "FINRA"}, {"ts_ms": 500, "price": 5.0, "venue": None}]
    assert last(signed(rows))["dark_venue_hits"] is None
    assert last(signed(rows), institutional(dark_venues=("FINRA",)))["dark_venue_hits"] == 1
    assert last(signed(rows[1:]), institutional(dark_venues=("FINRA",)))["dark_venue_hits"] is None
    assert last(signed(rows), institutional(dark_venues=("ADF",)))["dark_venue_hits"] == 0


def test_the_score_weighs_rules_by_what_can_be_told(signed):
    rows = [
        {"ts_ms": 0, "price": 5.0, "size": 60_000.0, "venue": "FINRA"},  # large, dark; no quote
        *at_ask(1_000, 1_010, 1_020, size=10_000.0, venue=None),  # cluster, passive; no venue
        {"ts_ms": 9_000, "price": 6.0, "size": 25_000.0, "bid": 4.0, "ask": 7.0},  # nothing, all can be told
    ]
    found = last(signed(rows), institutional(dark_venues=("FINRA",)))
    first, series = (0.4 + 0.2) / 0.8, (0.2 + 0.2) / 0.8
    expected = (first * 300_000 + series * 150_000 + 0 * 150_000) / 600_000
    assert found["institutional_score"] == pytest.approx(expected, rel=1e-15)
    assert [found[name] for name in HITS] == [1, 1, 3, 3]


def test_all_rules_together_score_one(signed):
    rows = at_ask(0, 1, 2, size=50_000.0, venue="D")
    assert last(signed(rows), institutional(dark_venues=("D",)))["institutional_score"] == 1.0


def test_a_series_marks_its_first_trades_only_from_the_trade_on_that_completes_it(signed):
    rows = [{"ts_ms": t, "price": 5.0} for t in (59_950, 59_980, 60_010)]  # the last in the next minute
    found = flow(signed(rows))
    assert found["time_cluster_hits"].to_list() == [0, 3]
    assert found["retail_trade_count"].to_list() == [2, 0]
    quoted = flow(signed(at_ask(59_000, 60_000, 120_000)))
    assert quoted["passive_hits"].to_list() == [0, 0, 3]


@pytest.mark.parametrize("apart_ms", [10, 1_000])
def test_a_passive_fill_that_began_before_the_window_still_counts(signed, apart_ms):
    trades, params = signed(at_ask(*range(0, 4 * apart_ms, apart_ms))), ParticipantParams(window_trades=1)
    state, _ = participants.step(participants.initial(), trades[:3], params)
    _, chunk = participants.step(state, trades[3:], params)
    assert (chunk["trade_count"].item(), chunk["passive_hits"].item()) == (1, 1)
    assert_frame_equal(chunk, flow(trades, params))


def test_a_time_cluster_that_began_before_the_window_still_counts(signed):
    others = [{"ts_ms": 1 + k, "price": 6.0 + k} for k in range(20)]
    trades = signed([{"ts_ms": 0, "price": 5.0}, *others, *({"ts_ms": t, "price": 5.0} for t in (90, 100))])
    params = ParticipantParams(window_trades=1)
    state, _ = participants.step(participants.initial(), trades[:-1], params)
    _, chunk = participants.step(state, trades[-1:], params)
    assert (chunk["trade_count"].item(), chunk["time_cluster_hits"].item()) == (1, 1)
    assert_frame_equal(chunk, flow(trades, params))


def test_the_window_holds_the_last_trades(signed):
    rows = [{"ts_ms": 1_000 * k, "price": 1.0, "size": float(k + 1)} for k in range(5)]
    found = last(signed(rows), ParticipantParams(window_trades=2))
    assert (found["trade_count"], found["retail_net_notional"], found["last_trade_id"]) == (2, 9.0, 4)


def test_known_time_includes_the_trades_before_the_window_that_were_looked_at(signed):
    rows = at_ask(0, 10, 20)
    rows[0]["recv_ms"] = 5_000
    found = flow(signed(rows), ParticipantParams(window_trades=1))
    assert found["ts_known"].to_physical().to_list() == [5_000 * MS]


def test_one_row_an_interval_with_its_last_trade(signed):
    rows = [{"ts_ms": t, "price": 1.0, "trade_id": t, "last_trade_id": t + 3} for t in (1_000, 59_999, 60_000, 185_000)]
    found = flow(signed(rows))
    assert found["ts_open"].to_physical().to_list() == [0, 60_000 * MS, 180_000 * MS]
    assert found["ts_event"].to_physical().to_list() == [59_999 * MS, 60_000 * MS, 185_000 * MS]
    assert found["last_trade_id"].to_list() == [60_002, 60_003, 185_003]


def test_symbols_interleaved_are_apart(random_signed):
    trades = random_signed(count=1_500, symbols=3, seed=1, apart_ms=100)
    params = institutional(dark_venues=("FINRA",))
    together = flow(trades, params)
    for symbol in ("S0", "S1", "S2"):
        assert_frame_equal(together.filter(symbol=symbol), flow(trades.filter(symbol=symbol), params))


def test_row_order_does_not_matter(random_signed):
    trades = random_signed(count=1_000, symbols=3, seed=2, apart_ms=100)
    assert_frame_equal(flow(trades.sample(fraction=1, shuffle=True, seed=3)), flow(trades))


def test_an_empty_tape_gives_no_rows_of_the_right_types(signed):
    assert flow(signed([])).is_empty()
    assert flow(signed([])).schema == polars_schema(ParticipantFlow)
    assert flow(signed([]).clear(3)).is_empty()


@pytest.mark.parametrize(
    "bad",
    [
        *({column: value} for column in ("price", "size") for value in (None, math.nan, math.inf, 0.0, -1.0)),
        {"aggressor": None},
        {"symbol": None},
    ],
    ids=str,
)
def test_a_bad_row_among_good_ones_is_ignored(signed, bad):
    good = [{**row, "trade_id": k} for k, row in enumerate(at_ask(0, 1_000, 2_000))]
    wrong = {"ts_ms": 1_500, "price": 5.0, "trade_id": 9, **bad}
    assert_frame_equal(flow(signed([*good[:2], wrong, good[2]])), flow(signed(good)))


def test_sums_beyond_the_floats_are_null(signed):
    found = last(signed([{"ts_ms": 0, "price": 1e200, "size": 1e200}]))
    assert found.pop("status") == Status.NAN
    assert found.pop("trade_count") == 1
    known = ("ts_open", "ts_event", "symbol", "last_trade_id", "ts_known")
    assert all(found[name] is None for name in found.keys() - set(known))
    assert validated(ParticipantFlow, flow(signed([{"ts_ms": 0, "price": 1e200, "size": 1e200}]))).height == 1


def test_two_identical_runs_give_identical_bytes(random_signed):
    trades = random_signed(count=2_000, symbols=4, seed=4, apart_ms=100)
    assert ipc_bytes(flow(trades)) == ipc_bytes(flow(trades))


def test_participants_keep_their_contract(random_signed):
    found = flow(random_signed(count=2_000, symbols=4, seed=5, apart_ms=100), institutional(dark_venues=("FINRA",)))
    assert validated(ParticipantFlow, found).height > 4
    shares = found.select(pl.sum_horizontal(pl.col("^.*_notional_share$"))).to_series()
    np.testing.assert_allclose(shares, 1.0, rtol=1e-12)


@pytest.mark.parametrize(
    ("params", "wrong", "message"),
    [
        (ParticipantParams, {"window_trades": 0}, "window_trades must be >= 1, was 0"),
        (ParticipantParams, {"sample_s": 0}, "sample_s must be >= 1, was 0"),
        (ParticipantParams, {"retail_notional": -1.0}, "retail_notional must be >= 0"),
        (InstitutionalParams, {"notional": 0.0}, "notional must be > 0"),
        (InstitutionalParams, {"cluster_trades": 1}, "must be >= 2, were 1 and 3"),
        (InstitutionalParams, {"passive_trades": 1}, "must be >= 2, were 3 and 1"),
        (InstitutionalParams, {"cluster_ms": -1}, "cluster_ms must be >= 0, was -1"),
        (InstitutionalParams, {"weights": (0.4, 0.0, 0.2, 0.2)}, "weights must be > 0"),
    ],
)
def test_impossible_parameters_are_refused(params, wrong, message):
    with pytest.raises(ValueError, match=message):
        params(**wrong)
