"""Skew: the oracle, recorded chains against a search row by row, and the edge matrix."""

import json
import math
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.skew import SkewParams
from quant_platform.contracts._schema import validated
from quant_platform.contracts.dealer import Skew
from quant_platform_tests.unit.dealer_frames import NOW, SPX, contracts, of_whole, recorded_chain, skew, snapshots

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "skew_cases.json").read_text())
CALL = {"type": "C", "strike": 105.0, "delta": 0.27, "iv": 0.18}
PUT = {"type": "P", "strike": 95.0, "delta": -0.24, "iv": 0.22}


def of_expiries(frame):
    return frame.filter(pl.col("expiry").is_not_null())


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda case: case["id"])
def test_skew_oracle(case):
    shots = snapshots(("SPX", NOW, case["inputs"]["spot"]))
    found = validated(Skew, skew(shots, contracts(*case["inputs"]["contracts"])))
    (row,) = of_expiries(found).to_dicts()
    for name, value in case["expected"].items():
        assert row[name] == (pytest.approx(value, rel=0, **case["tolerance"]) if isinstance(value, float) else value)
    assert row["status"] == ("one_sided" if case["expected"]["skew"] is None else "ok")
    assert (of_whole(found)["skew"], of_whole(found)["status"]) == (row["skew"], row["status"])


def test_headline_is_the_nearest_expiry_with_both_sides():
    rows = [
        CALL | {"days": 0.0},
        PUT | {"days": 0.0},
        CALL | {"days": 2.0},
        PUT | {"days": 2.0, "delta": -0.1499},
        CALL | {"days": 9.0},
        PUT | {"days": 9.0, "iv": 0.21},
        CALL | {"days": 30.0},
        PUT | {"days": 30.0, "iv": 0.40},
        CALL | {"days": 60.0, "delta": 0.36},
    ]
    found = validated(Skew, skew(SPX, contracts(*rows)))
    assert found.select("expiry", "skew", "status").rows() == [
        (None, pytest.approx(0.03), "ok"),
        (date(2026, 1, 3), None, "one_sided"),
        (date(2026, 1, 10), pytest.approx(0.03), "ok"),
        (date(2026, 1, 31), pytest.approx(0.22), "ok"),
        (date(2026, 3, 2), None, "no_valid_contracts"),
    ]
    assert found["headline_expiry"].to_list() == [date(2026, 1, 10), None, None, None, None]
    assert (of_whole(found)["call_delta"], of_whole(found)["put_delta"]) == (0.27, -0.24)


def test_the_tolerance_itself_is_near_enough():
    assert of_whole(skew(SPX, contracts(CALL | {"delta": 0.35}, PUT | {"delta": -0.15})))["status"] == "ok"
    assert of_whole(skew(SPX, contracts(CALL | {"delta": 0.351}, PUT)))["status"] == "one_sided"


@pytest.mark.parametrize("spot", [None, math.nan, math.inf, -1.0])
def test_only_ties_need_a_price_of_the_underlying(spot):
    shots = snapshots(("SPX", NOW, spot))
    tied = [CALL | {"delta": 0.2, "strike": 107.0}, CALL | {"delta": 0.3, "iv": 0.17}, PUT]
    assert of_whole(skew(shots, contracts(*tied)))["call_strike"] == 105.0
    assert of_whole(skew(shots, contracts(CALL, PUT)))["skew"] == pytest.approx(0.04)


@pytest.mark.parametrize(
    "bad",
    [
        {"iv": None},
        {"iv": 0.0},
        {"iv": -0.2},
        {"iv": math.nan},
        {"iv": math.inf},
        {"delta": None},
        {"delta": math.nan},
        {"delta": math.inf},
        {"strike": 0.0},
        {"strike": None},
        {"type": "X"},
        {"type": None},
        {"days": 0.0},
        {"days": None},
    ],
)
def test_a_bad_contract_is_no_candidate(bad):
    wanted = skew(SPX, contracts(CALL, PUT, {"delta": 0.9}))
    assert_frame_equal(skew(SPX, contracts(CALL, PUT, {"delta": 0.25, "strike": 100.0} | bad)), wanted)
    (row,) = skew(SPX, contracts({"delta": 0.25} | bad)).to_dicts()
    assert (row["expiry"], row["skew"], row["status"]) == (None, None, "no_valid_contracts")


def test_frames_without_rows():
    empty = validated(Skew, skew(snapshots(), contracts()))
    assert empty.is_empty()
    assert empty.schema == skew(SPX, contracts(CALL, PUT)).schema
    (row,) = validated(Skew, skew(SPX, contracts())).to_dicts()
    assert row["status"] == "no_valid_contracts"


def test_of_one_contract_twice_the_later_counts():
    twice = contracts(CALL | {"contract": "A", "iv": 0.5}, PUT | {"contract": "B"}, CALL | {"contract": "A"})
    assert of_whole(skew(SPX, twice))["call_iv"] == 0.18


def test_symbols_and_instants_do_not_mix_in_any_row_order():
    parts = [("B", NOW, 90.0), ("A", NOW, 100.0), ("B", NOW + 60, 95.0)]
    chains = [
        contracts(CALL | {"iv": 0.1 + k / 100}, PUT, CALL | {"days": 3.0}, symbol=s, ts=ts)
        for k, (s, ts, _) in enumerate(parts)
    ]
    found = skew(snapshots(*parts), pl.concat(chains).sample(fraction=1, shuffle=True, seed=2))
    alone = [skew(snapshots(part), chain) for part, chain in zip(parts, chains, strict=True)]
    assert_frame_equal(found, pl.concat([alone[1], alone[0], alone[2]]))


@pytest.mark.parametrize("name", ["META", "TSLA"])
def test_recorded_chains_against_a_search_row_by_row(real_data, name):
    shots, chain = recorded_chain(real_data, name)
    spot = shots["underlying_price"][0]
    best = {}
    for row in chain.iter_rows(named=True):
        if not row["iv"] or row["delta"] is None or row["ts_expiry"] <= row["ts_event"]:
            continue
        distance = round(abs(abs(row["delta"]) - 0.25), 12)
        rank = distance, abs(row["strike"] - spot), row["strike"]
        key = row["expiry"], row["type"]
        if distance <= 0.10 and (key not in best or rank < best[key][0]):
            best[key] = rank, row["strike"], row["iv"]
    found = of_expiries(validated(Skew, skew(shots, chain)))
    assert found.height == chain["expiry"].n_unique() > 10
    for row in found.iter_rows(named=True):
        call, put = best.get((row["expiry"], "C")), best.get((row["expiry"], "P"))
        assert (row["call_strike"], row["put_strike"]) == (call and call[1], put and put[1])
        if call and put:
            assert row["skew"] == pytest.approx(put[2] - call[2], abs=1e-12)
            assert row["skew_ratio"] == pytest.approx(put[2] / call[2] - 1, abs=1e-12)
    assert (found["status"] == "ok").sum() > 10


@pytest.mark.parametrize("wrong", [{"target": 0}, {"target": 1}, {"tolerance": -0.1}, {"tolerance": 0.25}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        SkewParams(**wrong)
