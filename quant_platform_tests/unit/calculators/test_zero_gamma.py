"""Zero gamma: the oracle, closed forms, brute force on recorded chains, and chains that have no root."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quant_platform.calculators.dealer_exposure import GammaExposureParams
from quant_platform.calculators.zero_gamma import ZeroGammaParams
from quant_platform.contracts.enums import SignConvention
from quant_platform_tests.unit.dealer_frames import (
    NOW,
    SPX,
    YEAR_NS,
    contracts,
    gamma_exposure,
    of_whole,
    recorded_chain,
    snapshots,
)

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "zero_gamma_cases.json").read_text())
CALL = {"type": "C", "strike": 105.0}
PUT = {"type": "P", "strike": 95.0}


def roots(rows, params=None, shots=SPX):
    row = of_whole(gamma_exposure(shots, contracts(*rows), params or GammaExposureParams()))
    return None if row["zero_gammas"] is None else json.loads(row["zero_gammas"]), row


def net_gamma(level, chain, rate=0.0, dividend=0.0):
    """Sum the textbook's gamma over the rows of a chain, calls less puts, one by one."""
    total = 0.0
    for row in chain:
        years = (row["ts_expiry"] - row["ts_event"]).total_seconds() / 86_400 / 365
        deviation = row["iv"] * math.sqrt(years)
        d1 = (math.log(level / row["strike"]) + (rate - dividend + row["iv"] ** 2 / 2) * years) / deviation
        density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
        gamma = math.exp(-dividend * years) * density / (level * deviation)
        side = 1 if row["type"] == "C" else -1
        total += side * row["open_interest"] * row["multiplier"] * gamma * level**2 * 0.01
    return total


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda case: case["id"])
def test_zero_gamma_oracle(case):
    given, wanted = case["inputs"], case["expected"]
    rows = [
        {"type": c["type"], "strike": c["strike"], "iv": c["sigma"], "open_interest": c["open_interest"]}
        | {"ts_expiry": NOW + round(c["T"] * YEAR_NS)}
        for c in given["contracts"]
    ]
    shots = snapshots(("SPX", NOW, given["spot"])).with_columns(
        rate=pl.lit(given.get("rate", 0.0)), dividend=pl.lit(given.get("dividend", 0.0))
    )
    convention = SignConvention(given.get("sign_convention", "dealer_long_calls_short_puts"))
    params = GammaExposureParams(sign_convention=convention)
    found, row = roots(rows, params, shots)
    assert row["zero_gamma_count"] == wanted["count"]
    assert found == (None if wanted["roots"] is None else pytest.approx(wanted["roots"], **case["tolerance"]))
    assert row["zero_gamma"] == (
        None if wanted["nearest"] is None else pytest.approx(wanted["nearest"], **case["tolerance"])
    )
    if wanted["roots"] is not None:
        assert (row["zero_gamma_from"], row["zero_gamma_to"]) == pytest.approx(
            (0.8 * given["spot"], 1.2 * given["spot"])
        )


@pytest.mark.parametrize("days", [2 / 24, 1.0, 30.0, 700.0])
def test_closed_form_at_any_time_left(days):
    # Equal open interest and volatility: gammas are equal where d1 of the call = -d1 of the put.
    years = days / 365
    found, _ = roots([CALL | {"days": days}, PUT | {"days": days}])
    assert found == pytest.approx([math.sqrt(105 * 95) * math.exp(-(0.2**2) / 2 * years)], abs=100e-6)


def test_perfect_cancellation_has_no_root():
    pair = {"strike": 100.0, "iv": 0.37, "open_interest": 777.0}
    chain = [
        pair | {"type": side, "strike": strike, "days": days}
        for side in "CP"
        for strike in (90.0, 103.0)
        for days in (3.0, 40.0)
    ]
    assert roots(chain)[0] == []


def test_gamma_too_small_for_a_number_is_none():
    # Ten minutes left: between the calls all gammas are below 1e-308, and the puts are more, but far away.
    minutes = {"days": 10 / 1_440}
    calls = [CALL | minutes | {"strike": strike} for strike in (95.0, 105.0)]
    assert roots([*calls, *(PUT | minutes | {"strike": strike} for strike in (200.0, 210.0, 220.0, 230.0))])[0] == []


@pytest.mark.parametrize(
    "bad",
    [
        {"iv": None},
        {"iv": 0.0},
        {"iv": math.nan},
        {"iv": math.inf},
        {"open_interest": 4.0},
        {"open_interest": None},
        {"days": 0.0},
        {"days": -1.0},
        {"days": None},
        {"type": "X"},
        {"strike": 0.0},
        {"multiplier": None},
    ],
)
def test_an_unusable_contract_takes_no_part(bad):
    assert roots([CALL, PUT, PUT | {"open_interest": 5_000.0} | bad])[0] == roots([CALL, PUT])[0]


def test_a_weekend_file_without_volatilities_was_not_searched():
    found, row = roots([CALL | {"iv": 0.0}, PUT | {"iv": 0.0}])
    assert (found, row["zero_gamma"], row["zero_gamma_count"], row["zero_gamma_from"]) == (None, None, None, None)
    assert (row["status"], row["contracts_used"]) == ("ok", 2)


@pytest.mark.parametrize("rate", [None, math.nan, math.inf])
def test_without_a_rate_nothing_is_searched(rate):
    found, row = roots([CALL, PUT], shots=SPX.with_columns(rate=pl.lit(rate, pl.Float64)))
    assert (found, row["zero_gamma_count"], row["status"]) == (None, None, "ok")


def test_a_root_on_a_searched_level_is_found_once():
    # Levels of 50, 75, 100, 125 and 150: the root is the third, but for rounding of the strikes.
    half = math.exp(0.2**2 / 2 * 15 / 365)
    found, _ = roots(
        [CALL | {"strike": 110 * half}, PUT | {"strike": 100 / 1.1 * half}],
        GammaExposureParams(zero_gamma=ZeroGammaParams(reach=0.5, points=5)),
    )
    assert found == pytest.approx([100.0], abs=1e-4)


def test_symbols_share_nothing():
    chain = pl.concat([contracts(CALL, PUT, symbol=name) for name in ("B", "A")] + [contracts(CALL, symbol="C")])
    shots = snapshots(("A", NOW, 100.0), ("C", NOW, 100.0), ("B", NOW, 90.0), ("D", NOW, 90.0))
    found = gamma_exposure(shots, chain.sample(fraction=1, shuffle=True, seed=1))
    whole = found.filter(pl.col("strike").is_null())
    assert whole["symbol"].to_list() == ["A", "B", "C", "D"]
    assert whole["zero_gamma_count"].to_list() == [1, 1, 0, None]
    assert whole["zero_gamma"][0] == pytest.approx(whole["zero_gamma"][1], abs=2e-4)


@pytest.mark.parametrize("name", ["META", "TSLA"])
def test_recorded_chains_against_sums_row_by_row(real_data, name):
    shots, chain = recorded_chain(real_data, name)
    shots = shots.with_columns(rate=pl.lit(0.04), dividend=pl.lit(0.003))
    spot = shots["underlying_price"][0]
    used = chain.filter(
        (pl.col("iv") > 0) & (pl.col("open_interest") >= 5) & (pl.col("ts_expiry") > pl.col("ts_event"))
    ).to_dicts()
    levels = np.linspace(0.8 * spot, 1.2 * spot, 61)
    curve = np.array([net_gamma(level, used, 0.04, 0.003) for level in levels])
    crossings = np.flatnonzero(curve[1:] * curve[:-1] < 0)
    found = json.loads(of_whole(gamma_exposure(shots, chain))["zero_gammas"])
    assert len(found) == len(crossings) > 0
    for root, crossing in zip(found, crossings, strict=True):
        assert levels[crossing] < root < levels[crossing + 1]
        below, above = (net_gamma(root + step, used, 0.04, 0.003) for step in (-1e-6 * spot, 1e-6 * spot))
        assert below * above < 0


@pytest.mark.parametrize("wrong", [{"reach": 0}, {"reach": 1}, {"reach": math.nan}, {"points": 1}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        ZeroGammaParams(**wrong)
