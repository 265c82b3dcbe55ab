"""Unusual option volume: the oracle, hand-worked scores, and the edge matrix."""

import json
import math
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.unusual_activity import UnusualActivityParams, unusual_activity
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "unusual_activity_cases.json").read_text())
INSTANT = pl.Datetime("ns", "UTC")
MINUTE = 60_000_000_000
VALUES = [
    "score",
    "volume_oi_ratio",
    "max_contract_ratio",
    "large_notional_count",
    "high_ratio_count",
    "call_volume",
    "put_volume",
    "dominant_flow",
]


def snapshots(*rows):
    """Give (symbol, minute) the columns of snapshots; each is known 7 ns after its minute."""
    return pl.DataFrame(
        [{"symbol": symbol, "ts_event": minute * MINUTE, "ts_known": minute * MINUTE + 7} for symbol, minute in rows],
        schema={"symbol": pl.String, "ts_event": INSTANT, "ts_known": INSTANT},
    )


def chain(contracts, *, symbol="SPX", minute=0):
    """Give (type, volume, open interest, price) the columns of contracts."""
    return pl.DataFrame(
        [
            {
                "symbol": symbol,
                "ts_event": minute * MINUTE,
                "type": right,
                "volume": volume,
                "open_interest": interest,
                "price": price,
                "multiplier": 100.0,
            }
            for right, volume, interest, price in contracts
        ],
        schema={
            "symbol": pl.String,
            "ts_event": INSTANT,
            "type": pl.String,
            "volume": pl.Float64,
            "open_interest": pl.Float64,
            "price": pl.Float64,
            "multiplier": pl.Float64,
        },
        strict=False,
    )


def one(contracts, params=None):
    frame = unusual_activity(snapshots(("SPX", 0)), chain(contracts), params or UnusualActivityParams())
    (row,) = frame.to_dicts()
    return row


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda case: case["id"])
def test_unusual_activity_oracle(case):
    found = one([(c["type"], c["volume"], c["open_interest"], c["price"]) for c in case["inputs"]["contracts"]])
    for name, value in case["expected"].items():
        is_number = isinstance(value, float)
        assert found[name] == (pytest.approx(value, rel=0, **case["tolerance"]) if is_number else value)


def test_every_part_of_the_score_saturates():
    # Ratios of 20 on ten contracts, each of 2,000 · 250 · 100 = 5e7: all four parts are full.
    found = one([("P", 2_000, 100, 250.0)] * 10)
    assert found["score"] == pytest.approx(1.0, abs=1e-15)
    assert found["classification"] == "extreme"
    assert (found["large_notional_count"], found["high_ratio_count"]) == (10, 10)


def test_parts_add_up_by_hand():
    # .45 · (1/1.5) + .30 · 1 (110/210 is above .35) + .15 · 1/3 + .10 · 1/10
    found = one([("C", 100, 100, 5_000.0), ("P", 10, 110, 1.0)])
    assert found["score"] == pytest.approx(0.3 + 0.3 + 0.05 + 0.01, abs=1e-15)
    assert found["volume_oi_ratio"] == pytest.approx(110 / 210, rel=1e-15)


@pytest.mark.parametrize(
    ("volume", "word"),
    [(4_999, "normal"), (5_000, "watch"), (9_999, "watch"), (10_000, "elevated"), (14_999, "elevated")],
)
def test_words_begin_at_their_cut_off(volume, word):
    # One part only: score = min(volume / 10,000 / 1.5, 1).
    params = UnusualActivityParams(
        contract_ratio_weight=1 - 3e-12,
        volume_oi_weight=1e-12,
        large_notional_weight=1e-12,
        high_ratio_weight=1e-12,
        watch=0.3333333,
        elevated=0.6666666,
        extreme=0.9999999,
    )
    assert one([("C", volume, 10_000, 1.0)], params)["classification"] == word
    assert one([("C", 15_000, 10_000, 1.0)], params)["classification"] == "extreme"


@pytest.mark.parametrize(
    ("calls", "puts", "flow"),
    [(60, 40, "BALANCED"), (61, 40, "CALL"), (40, 60, "BALANCED"), (40, 61, "PUT"), (5, 0, "CALL")],
)
def test_one_side_dominates_beyond_a_fifth_of_volume(calls, puts, flow):
    found = one([("C", calls, 10_000, 1.0), ("P", puts, 10_000, 1.0)])
    assert found["dominant_flow"] == flow
    assert (found["call_volume"], found["put_volume"]) == (calls, puts)


def test_open_interest_of_zero_counts_as_one():
    found = one([("C", 3, 0, 1.0)])
    assert (found["max_contract_ratio"], found["volume_oi_ratio"]) == (3.0, 3.0)


@pytest.mark.parametrize(
    "bad",
    [
        ("C", None, 100, 1.0),
        ("C", 100, None, 1.0),
        ("C", math.nan, 100, 1.0),
        ("C", math.inf, 100, 1.0),
        ("C", -1, 100, 1.0),
        ("C", 100, -1, 1.0),
        ("C", 100, math.nan, 1.0),
        ("X", 100, 100, 1.0),
        (None, 100, 100, 1.0),
    ],
)
def test_an_unusable_contract_among_good_ones_is_skipped_and_counted(bad):
    good = [("C", 10, 1_000, 1.0), ("P", 10, 1_000, 1.0)]
    assert one([good[0], bad, good[1]]) == one(good) | {"contracts_skipped": 1}
    alone = one([bad])
    assert (alone["classification"], alone["status"]) == ("absent", "no_valid_contracts")
    assert (alone["contracts_used"], alone["contracts_skipped"]) == (0, 1)
    assert all(alone[name] is None for name in VALUES)


@pytest.mark.parametrize("price", [None, math.nan, math.inf])
def test_a_price_that_is_no_number_is_only_no_large_notional(price):
    found = one([("C", 10_000, 10_000, price)])
    assert found["large_notional_count"] == 0
    assert found["score"] == pytest.approx(0.3 + 0.3 + 0.01, abs=1e-15)


def test_without_volume_all_values_are_null():
    found = one([("C", 0, 100, 1.0), ("P", 0, 0, 1.0)])
    assert all(found[name] is None for name in VALUES)
    assert (found["classification"], found["status"], found["contracts_used"]) == ("inactive", "zero_volume", 2)


def test_symbols_and_instants_do_not_mix_in_any_row_order():
    hot, quiet = [("C", 3_000, 1_000, 2.0)], [("P", 10, 1_000, 1.0)]
    contracts = pl.concat(
        [
            chain(hot, symbol="B"),
            chain(quiet, symbol="A"),
            chain(quiet, symbol="B", minute=1),
            chain(hot, symbol="C"),
        ]
    )
    wanted = snapshots(("B", 1), ("A", 0), ("EMPTY", 0), ("B", 0))
    found = unusual_activity(wanted, contracts.sample(fraction=1, shuffle=True, seed=1))
    assert found.select("symbol", pl.col("ts_event").to_physical() // MINUTE, "dominant_flow").rows() == [
        ("A", 0, "PUT"),
        ("B", 0, "CALL"),
        ("B", 1, "PUT"),
        ("EMPTY", 0, None),
    ]
    assert found["ts_known"].to_physical().to_list() == [7, 7, MINUTE + 7, 7]
    assert found["status"].to_list() == ["ok", "ok", "ok", "no_data"]


def test_a_snapshot_given_twice_is_one_row():
    contracts = chain([("C", 10, 1_000, 1.0)])
    assert_frame_equal(
        unusual_activity(snapshots(("SPX", 0), ("SPX", 0)), contracts),
        unusual_activity(snapshots(("SPX", 0)), contracts),
    )


def test_no_snapshots_give_an_empty_frame_of_the_same_columns():
    empty = unusual_activity(snapshots(), chain([]))
    assert empty.is_empty()
    assert empty.schema == unusual_activity(snapshots(("SPX", 0)), chain([("C", 1, 1, 1.0)])).schema


def test_two_runs_give_identical_bytes():
    contracts = pl.concat([chain([("C", k + 0.1, 7 * k, 1.3)] * 50, symbol=f"S{k % 7}") for k in range(40)])
    wanted = snapshots(*[(f"S{k}", 0) for k in range(7)])
    assert ipc_bytes(unusual_activity(wanted, contracts)) == ipc_bytes(unusual_activity(wanted, contracts))


@pytest.mark.parametrize(
    "wrong",
    [{"large_notional": 0}, {"volume_oi_weight": 0.5}, {"watch": 0.6}, {"extreme": 0.6}, {"dominance": math.nan}],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must|<"):
        UnusualActivityParams(**wrong)
