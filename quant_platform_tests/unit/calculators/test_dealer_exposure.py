"""Gamma exposure and dealer flow: the oracles, sums row by row over recorded chains, and the edge matrix."""

import json
import math
from collections import defaultdict
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.dealer_exposure import DealerFlowParams, GammaExposureParams
from quant_platform.contracts._schema import validated
from quant_platform.contracts.dealer import DealerFlow, GammaExposure
from quant_platform.contracts.enums import SignConvention
from quant_platform_tests.unit.dealer_frames import (
    DAY_NS,
    NOW,
    SPX,
    contracts,
    dealer_flow,
    gamma_exposure,
    of_whole,
    recorded_chain,
    snapshots,
)
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLES = Path(__file__).parents[2] / "golden" / "oracles"
GEX_CASES = json.loads((ORACLES / "gex_dex_cases.json").read_text())["cases"]
FLOW_CASES = json.loads((ORACLES / "dealer_flow_cases.json").read_text())["cases"]
GROSS = GammaExposureParams(sign_convention=SignConvention.GROSS)
GOOD = ({"type": "C", "strike": 105.0}, {"type": "P", "strike": 95.0, "delta": -0.4})
CALCULATORS = [(gamma_exposure, GammaExposure), (dealer_flow, DealerFlow)]
BAD = [
    {"open_interest": None},
    {"open_interest": 4.0},
    {"open_interest": 0.0},
    {"open_interest": -10.0},
    {"open_interest": math.nan},
    {"open_interest": math.inf},
    {"multiplier": None},
    {"multiplier": 0.0},
    {"multiplier": math.nan},
    {"strike": 0.0},
    {"strike": None},
    {"strike": math.inf},
    {"type": "X"},
    {"type": None},
    {"days": 0.0},
    {"days": -3.0},
    {"days": None},
    {"gamma": None},
    {"gamma": math.nan},
    {"gamma": math.inf},
]
BAD_FOR_GAMMA = [
    {"gamma": 0.0},
    {"gamma": -0.01},
    {"gamma": 1.01},
    {"delta": None},
    {"delta": -1.01},
    {"delta": math.nan},
]
BAD_FOR_FLOW = [
    {"iv": None},
    {"iv": 0.0},
    {"iv": -0.1},
    {"iv": math.inf},
    {"vanna": None},
    {"charm_per_year": math.nan},
    {"days": 30.01},
    {"days": 60 / 86_400},
]
CASES = [
    *((*case, bad) for case in CALCULATORS for bad in BAD),
    *((*CALCULATORS[0], bad) for bad in BAD_FOR_GAMMA),
    *((*CALCULATORS[1], bad) for bad in BAD_FOR_FLOW),
]


def values_of(row):
    known = ("ts_", "symbol", "status", "sign_convention", "vol_beta", "contracts_", "underlying_price")
    return {name: value for name, value in row.items() if not name.startswith(known)}


@pytest.mark.parametrize("case", GEX_CASES, ids=lambda case: case["id"])
def test_gamma_exposure_oracle(case):
    shots = snapshots(("SPX", NOW, case["inputs"]["spot"]))
    found = validated(GammaExposure, gamma_exposure(shots, contracts(*case["inputs"]["contracts"])))
    row, wanted = of_whole(found), dict(case["expected"])
    by_strike = wanted.pop("by_strike")
    for name, value in wanted.items():
        assert row[name] == (pytest.approx(value, **case["tolerance"]) if isinstance(value, float) else value)
    strikes = found.filter(pl.col("strike").is_not_null() & pl.col("expiry").is_null())
    assert strikes.select("strike", gross="gex_gross", net="gex_net").to_dicts() == [
        pytest.approx(strike, **case["tolerance"]) for strike in by_strike
    ]


@pytest.mark.parametrize("case", FLOW_CASES, ids=lambda case: case["id"])
def test_dealer_flow_oracle(case):
    given = [
        {**c, "expiry": (date.fromisoformat(c["expiry"]) - date(1970, 1, 1)).days, "charm_per_year": c["charm"]}
        for c in case["inputs"]["contracts"]
    ]
    rows = [{k: v for k, v in row.items() if k != "charm"} | {"ts_expiry": row["expiry"] * DAY_NS} for row in given]
    shots = snapshots(("SPX", NOW, case["inputs"]["spot"]))
    found = validated(DealerFlow, dealer_flow(shots, contracts(*rows), DealerFlowParams(max_expiry_days=60)))
    row, wanted = of_whole(found), dict(case["expected"])
    for expiry, sums in wanted.pop("by_expiry", {}).items():
        of_expiry = found.filter(pl.col("expiry") == date.fromisoformat(expiry)).to_dicts()[0]
        ours = {
            "vanna": of_expiry["vanna_shares_per_vol_pt"],
            "charm": of_expiry["charm_shares_per_day"],
            "gamma": of_expiry["gamma_shares_per_pct"],
            "open_interest": of_expiry["open_interest"],
        }
        assert ours == pytest.approx(sums, **case["tolerance"])
    for name, value in wanted.items():
        assert row[name] == (pytest.approx(value, **case["tolerance"]) if isinstance(value, float) else value)


def test_rows_stand_by_strike_and_expiry_with_totals_before_their_parts():
    rows = [{"strike": 105.0, "days": 9.0}, {"strike": 95.0, "days": 9.0}, {"strike": 95.0, "days": 2.0}]
    found = gamma_exposure(SPX, contracts(*rows, {"strike": 95.0, "days": 2.0, "type": "P"}))
    days = pl.col("expiry").to_physical() - NOW // DAY_NS
    # One contract: .02 · 1,000 · 100 · 100² · .01 = 200,000.
    assert found.select("strike", days, "gex_gross", "gex_net").rows() == [
        (None, None, pytest.approx(800_000), pytest.approx(400_000)),
        (95.0, None, pytest.approx(600_000), pytest.approx(200_000)),
        (95.0, 2, pytest.approx(400_000), 0.0),
        (95.0, 9, pytest.approx(200_000), pytest.approx(200_000)),
        (105.0, None, pytest.approx(200_000), pytest.approx(200_000)),
        (105.0, 9, pytest.approx(200_000), pytest.approx(200_000)),
    ]
    assert found["contracts_used"].to_list() == [4, None, None, None, None, None]
    assert set(found["status"]) == {"ok"}


@pytest.mark.parametrize(
    ("put_delta", "bias"),
    # One call of .5: (.5 + d) ÷ (.5 - d) is .11…, .1, 0, -.1 and -.11….
    [
        (-0.4, "long"),
        (-0.45 / 1.1, "neutral"),
        (-0.5, "neutral"),
        (-0.55 / 0.9, "neutral"),
        (-0.625, "short"),
        (0.0, "long"),
    ],
)
def test_directional_bias_is_beyond_a_tenth_of_the_gross(put_delta, bias):
    rows = [{"type": "C", "delta": 0.5}, {"type": "P", "delta": put_delta}]
    assert of_whole(gamma_exposure(SPX, contracts(*rows)))["directional_bias"] == bias


def test_without_deltas_there_is_no_bias():
    row = of_whole(gamma_exposure(SPX, contracts({"delta": 0.0})))
    assert (row["directional_bias"], row["dex_gross"], row["status"]) == (None, 0.0, "ok")


def test_gross_convention_has_all_but_zero_gamma():
    net, gross = (gamma_exposure(SPX, contracts(*GOOD), params) for params in (GammaExposureParams(), GROSS))
    assert set(gross["sign_convention"]) == {"gross"}
    hidden = ["sign_convention", "zero_gamma", "zero_gamma_count", "zero_gammas", "zero_gamma_from", "zero_gamma_to"]
    assert_frame_equal(net.drop(hidden), gross.drop(hidden))
    assert of_whole(net)["zero_gamma_count"] == 1
    assert gross.select(hidden[1:]).null_count().rows() == [(gross.height,) * 5]


@pytest.mark.parametrize(
    ("calculator", "contract", "bad"), CASES, ids=lambda part: getattr(part, "__name__", str(part))
)
def test_a_bad_contract_among_good_ones_is_skipped_and_counted(calculator, contract, bad):
    wanted = calculator(SPX, contracts(*GOOD))
    found = validated(
        contract, calculator(SPX, contracts(GOOD[0], bad, {"contract": "SPX-1"} | GOOD[1] | {"contract": "last"}))
    )
    counts = ["contracts_skipped"]
    zero_gamma = pl.selectors.starts_with("zero_gamma")
    assert_frame_equal(found.drop(counts).drop(zero_gamma), wanted.drop(counts).drop(zero_gamma))
    assert of_whole(found)["contracts_skipped"] == 1
    alone = calculator(SPX, contracts(bad)).to_dicts()
    assert len(alone) == 1
    assert (alone[0]["status"], alone[0]["contracts_used"], alone[0]["contracts_skipped"]) == (
        "no_valid_contracts",
        0,
        1,
    )
    assert set(values_of(alone[0]).values()) == {None}


@pytest.mark.parametrize(("calculator", "contract"), CALCULATORS)
@pytest.mark.parametrize("spot", [None, math.nan, math.inf, 0.0, -1.0])
def test_without_a_price_of_the_underlying_values_are_null(calculator, contract, spot):
    (row,) = validated(contract, calculator(snapshots(("SPX", NOW, spot)), contracts(*GOOD))).to_dicts()
    assert (row["status"], row["contracts_skipped"], row["underlying_price"]) == ("invalid_spot", 2, None)
    assert set(values_of(row).values()) == {None}


@pytest.mark.parametrize(("calculator", "contract"), CALCULATORS)
def test_frames_without_rows(calculator, contract):
    nothing = contracts()
    empty = validated(contract, calculator(snapshots(), nothing))
    assert empty.is_empty()
    assert empty.schema == calculator(SPX, contracts(*GOOD)).schema
    assert calculator(snapshots(), contracts(*GOOD)).is_empty()
    (row,) = validated(contract, calculator(SPX, nothing)).to_dicts()
    assert (row["status"], row["contracts_used"], row["contracts_skipped"]) == ("no_valid_contracts", 0, 0)
    assert set(values_of(row).values()) == {None}


def test_at_the_close_of_its_last_day_a_contract_no_longer_counts():
    rows = [{"days": 0.0}, {"days": 1e-9}, {"days": 61 / 86_400}]
    assert of_whole(gamma_exposure(SPX, contracts(*rows)))["contracts_used"] == 2
    assert of_whole(dealer_flow(SPX, contracts(*rows)))["contracts_used"] == 1
    over = dealer_flow(SPX, contracts(*rows[:2]))
    assert (over.height, over["status"][0]) == (1, "no_valid_contracts")


@pytest.mark.parametrize("side", ["C", "P"])
def test_a_one_sided_chain(side):
    row = of_whole(gamma_exposure(SPX, contracts({"type": side}, {"type": side, "strike": 110.0})))
    assert row["gex_net"] == (row["gex_gross"] if side == "C" else -row["gex_gross"])
    assert (row["zero_gamma"], row["zero_gamma_count"], row["zero_gammas"]) == (None, 0, "[]")


def test_of_one_contract_twice_the_later_counts():
    first, other, later = {"contract": "A", "gamma": 0.5}, {"contract": "B"}, {"contract": "A", "gamma": 0.01}
    for calculator, _ in CALCULATORS:
        assert_frame_equal(calculator(SPX, contracts(first, other, later)), calculator(SPX, contracts(other, later)))
    both = of_whole(gamma_exposure(SPX, contracts(first, other, later)))
    assert (both["contracts_used"], both["contracts_skipped"]) == (2, 0)


def test_an_adjusted_contract_counts_with_its_own_multiplier():
    # .02 · 1,000 · (100 + 150) · 100² · .01
    row = of_whole(gamma_exposure(SPX, contracts({"contract": "TSLA"}, {"contract": "TSLA1", "multiplier": 150.0})))
    assert row["gex_gross"] == pytest.approx(500_000, rel=1e-14)


@pytest.mark.parametrize(("calculator", "contract"), CALCULATORS)
def test_symbols_and_instants_do_not_mix_in_any_row_order(calculator, contract):
    parts = [("B", NOW, 90.0), ("A", NOW, 100.0), ("B", NOW + 60, 95.0), ("EMPTY", NOW, 1.0)]
    chains = [
        contracts(*GOOD[: 1 + k % 2], {"strike": 90.0 + k}, symbol=s, ts=ts) for k, (s, ts, _) in enumerate(parts[:3])
    ]
    stray = contracts({}, symbol="UNASKED")
    mixed = pl.concat([*chains, stray]).sample(fraction=1, shuffle=True, seed=1)
    found = validated(contract, calculator(snapshots(*parts), mixed))
    alone = [calculator(snapshots(part), chain) for part, chain in zip(parts, [*chains, stray], strict=True)]
    assert_frame_equal(found, pl.concat([alone[1], alone[0], alone[2], alone[3]]))
    assert found["ts_known"].to_physical().unique().to_list() == [NOW + 7, NOW + 67]


@pytest.mark.parametrize("calculator", [gamma_exposure, dealer_flow])
def test_a_snapshot_given_twice_is_one(calculator):
    twice = pl.concat([snapshots(("SPX", NOW, 1.0)), SPX])
    assert_frame_equal(calculator(twice, contracts(*GOOD)), calculator(SPX, contracts(*GOOD)))


@pytest.mark.parametrize("calculator", [gamma_exposure, dealer_flow])
def test_two_runs_give_identical_bytes(calculator):
    chain = contracts(
        *({"strike": 80.0 + k % 41, "days": 1.0 + k % 7, "gamma": 0.001 * (1 + k % 9)} for k in range(400))
    )
    assert ipc_bytes(calculator(SPX, chain)) == ipc_bytes(calculator(SPX, chain))


@pytest.mark.parametrize("name", ["META", "TSLA"])
def test_gamma_exposure_of_recorded_chains_against_sums_row_by_row(real_data, name):
    shots, chain = recorded_chain(real_data, name)
    spot = shots["underlying_price"][0]
    sums, used, skipped = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0]), 0, 0
    for row in chain.iter_rows(named=True):
        gamma, delta, interest = row["gamma"], row["delta"], row["open_interest"]
        if (
            None in (gamma, delta, interest)
            or not (0 < gamma <= 1 and abs(delta) <= 1 and interest >= 5)
            or row["ts_expiry"] <= row["ts_event"]
        ):
            skipped += 1
            continue
        used += 1
        gex, dex = gamma * interest * 100 * spot * spot * 0.01, delta * interest * 100 * spot
        parts = gex, gex if row["type"] == "C" else -gex, abs(dex), dex
        for key in ((row["strike"], row["expiry"]), (row["strike"], None), (None, None)):
            sums[key] = [total + part for total, part in zip(sums[key], parts, strict=True)]
    found = validated(GammaExposure, gamma_exposure(shots, chain))
    assert found.height == len(sums)
    for row in found.iter_rows(named=True):
        gross, net, dex_gross, dex_net = sums[row["strike"], row["expiry"]]
        assert row["gex_gross"] == pytest.approx(gross, rel=1e-9)
        assert row["gex_net"] == pytest.approx(net, abs=1e-9 * gross)
        assert row["dex_gross"] == pytest.approx(dex_gross, rel=1e-9)
        assert row["dex_net"] == pytest.approx(dex_net, abs=1e-9 * dex_gross)
    row = of_whole(found)
    assert (row["contracts_used"], row["contracts_skipped"]) == (used, skipped)
    assert used > 1_000
    assert skipped > 500
    strikes = {strike: parts[0] for (strike, expiry), parts in sums.items() if strike and expiry is None}
    assert row["max_gex_strike"] == max(strikes, key=strikes.get)


@pytest.mark.parametrize("name", ["META", "TSLA"])
def test_dealer_flow_of_recorded_chains_against_sums_row_by_row(real_data, name):
    shots, chain = recorded_chain(real_data, name)
    # The files hold no vanna and charm: any numbers of the contract do to check the sums.
    chain = chain.with_columns(vanna=pl.col("delta") * pl.col("iv"), charm_per_year=pl.col("gamma") - pl.col("delta"))
    spot = shots["underlying_price"][0]
    sums, used = defaultdict(lambda: np.zeros(7)), 0
    for row in chain.iter_rows(named=True):
        numbers = [row[name] for name in ("vanna", "charm_per_year", "gamma", "iv", "open_interest")]
        left = (row["ts_expiry"] - row["ts_event"]).total_seconds()
        if None in numbers or not (row["iv"] > 0 and row["open_interest"] >= 5 and 60 < left <= 30 * 86_400):
            continue
        used += 1
        weight = row["open_interest"] * 100
        flows = np.array(
            [row["vanna"] * weight * 0.01, row["charm_per_year"] / 365 * weight, row["gamma"] * weight * 0.01 * spot]
        )
        signed = flows if row["type"] == "C" else -flows
        for key in (row["expiry"], None):
            sums[key] = sums[key] + np.array([*flows, *signed, row["open_interest"]])
    found = validated(DealerFlow, dealer_flow(shots, chain))
    assert found.height == len(sums) > 3
    for row in found.iter_rows(named=True):
        vanna, charm, gamma, vanna_net, charm_net, gamma_net, interest = sums[row["expiry"]]
        near = {"rel": 1e-9, "abs": 1e-9 * interest}
        assert row["vanna_shares_per_vol_pt"] == pytest.approx(vanna, **near)
        assert row["vanna_net_shares_per_vol_pt"] == pytest.approx(vanna_net, **near)
        assert row["vanna_net_notional_per_vol_pt"] == pytest.approx(vanna_net * spot, **near)
        assert row["charm_shares_per_day"] == pytest.approx(charm, **near)
        assert row["charm_notional_per_day"] == pytest.approx(charm * spot, **near)
        assert row["charm_net_notional_per_day"] == pytest.approx(charm_net * spot, **near)
        assert row["gamma_notional_per_pct"] == pytest.approx(gamma * spot, **near)
        assert row["gamma_net_shares_per_pct"] == pytest.approx(gamma_net, **near)
        assert row["shares_per_pct_move"] == pytest.approx(gamma - 0.3 * vanna, **near)
        assert row["notional_per_pct_move"] == pytest.approx((gamma - 0.3 * vanna) * spot, **near)
        assert row["open_interest"] == interest
    assert of_whole(found)["contracts_used"] == used > 500


@pytest.mark.parametrize(
    ("params", "wrong"),
    [
        (GammaExposureParams, {"min_open_interest": -1}),
        (GammaExposureParams, {"bias": 1}),
        (DealerFlowParams, {"min_open_interest": math.nan}),
        (DealerFlowParams, {"max_expiry_days": 0}),
        (DealerFlowParams, {"min_seconds_left": -1}),
        (DealerFlowParams, {"vol_beta": math.inf}),
    ],
)
def test_impossible_parameters_are_refused(params, wrong):
    with pytest.raises(ValueError, match="must"):
        params(**wrong)
