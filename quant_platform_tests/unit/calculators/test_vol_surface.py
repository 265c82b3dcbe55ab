"""The volatility surface: the oracle of raw SVI, slices with known parameters, arbitrage, and the edge matrix."""

import json
import math
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import _svi
from quant_platform.calculators._svi import Svi
from quant_platform.calculators.vol_surface import VolSurfaceParams, vol_surface
from quant_platform.contracts._schema import validated
from quant_platform.contracts.options import VolSurface
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "svi.json").read_text())
CASES = {case["id"]: case for case in ORACLE["cases"]}
VOGT = {name: CASES["vogt_values"]["inputs"][name] for name in Svi._fields}
GENTLE = CASES["fit_round_trip"]["expected"]["params"]
INSTANT = pl.Datetime("ns", "UTC")
DAY = 86_400_000_000_000
VALUES = [*Svi._fields, "rmse", "min_g", "arbitrage"]
SCHEMA = {
    "ts_event": pl.Int64,
    "ts_recv": pl.Int64,
    "symbol": pl.String,
    "expiry": pl.Date,
    "ts_expiry": pl.Int64,
    "type": pl.String,
    "strike": pl.Float64,
    "multiplier": pl.Float64,
    "bid": pl.Float64,
    "iv": pl.Float64,
    "underlying_price": pl.Float64,
    "rate": pl.Float64,
    "dividend": pl.Float64,
}


def svi(parameters):
    return Svi(*(np.array([parameters[name]], dtype=float) for name in Svi._fields))


def total_variances(parameters, k):
    return _svi.total_variance(svi(parameters), np.asarray(k, dtype=float)).tolist()


def chain(k, w, *, days=90.0, symbol="SPX", minute=0, spot=100.0, rate=0.0, dividend=0.0):
    """Return a chain whose options out of the money have these total variances; each known 7 ns after its minute."""
    now, years = minute * 60_000_000_000, days / 365
    forward = spot * math.exp((rate - dividend) * years)
    rows = [
        {
            "ts_event": now,
            "ts_recv": now + 7,
            "symbol": symbol,
            "expiry": date(2024, 1, 1) + timedelta(days=days),
            "ts_expiry": now + round(days * DAY),
            "type": "C" if each >= 0 else "P",
            "strike": forward * math.exp(each),
            "multiplier": 100.0,
            "bid": 0.05,
            "iv": math.sqrt(variance / years),
            "underlying_price": spot,
            "rate": rate,
            "dividend": dividend,
        }
        for each, variance in zip(k, w, strict=True)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, strict=False).cast(
        dict.fromkeys(("ts_event", "ts_recv", "ts_expiry"), INSTANT)
    )


K = np.linspace(-0.6, 0.5, 23)


def gentle(*, scale=1.0, k=K, **given):
    """Return a chain of the slice without arbitrage, its total variance scaled."""
    return chain(k, [scale * w for w in total_variances(GENTLE, k)], **given)


def fitted(frame, **params):
    return validated(VolSurface, vol_surface(frame, VolSurfaceParams(**params)))


def one(frame, **params):
    (row,) = fitted(frame, **params).to_dicts()
    return row


def test_total_variance_and_g_oracle():
    case = CASES["vogt_values"]
    k = np.array(case["inputs"]["k"])
    for function, wanted in ((_svi.total_variance, "w"), (_svi.g, "g")):
        assert function(svi(VOGT), k).tolist() == pytest.approx(case["expected"][wanted], rel=0, **case["tolerance"])


def test_least_g_oracle():
    case = CASES["vogt_arbitrage_flag"]
    low, high = case["inputs"]["k_range"]
    least = _svi.least_g(svi(case["inputs"]), np.array([low]), np.array([high]))
    assert least.tolist() == pytest.approx([case["expected"]["min_g"]], rel=0, **case["tolerance"])
    inside = np.array(case["expected"]["negative_interval"])
    outside = (
        _svi.least_g(svi(VOGT), np.array([low]), inside[:1]),
        _svi.least_g(svi(VOGT), inside[1:], np.array([high])),
    )
    assert np.concatenate(outside).tolist() == pytest.approx([0.0, 0.0], abs=1e-9)


def test_a_slice_with_arbitrage_is_published_flagged():
    case = CASES["vogt_arbitrage_flag"]
    k = np.linspace(*case["inputs"]["k_range"], 61)
    found = one(chain(k, total_variances(VOGT, k)))
    assert (found["status"], found["arbitrage"]) == ("ok", case["expected"]["arbitrage"])
    assert found["min_g"] == pytest.approx(case["expected"]["min_g"], rel=0, **case["tolerance"])
    assert {name: found[name] for name in VOGT} == pytest.approx(VOGT, rel=0, abs=1e-9)


def test_round_trip_oracle():
    case = CASES["fit_round_trip"]
    found = one(chain(case["inputs"]["k"], case["inputs"]["w"]))
    wanted = case["expected"]
    assert {name: found[name] for name in wanted["params"]} == pytest.approx(
        wanted["params"], rel=0, **case["tolerance"]
    )
    assert found["rmse"] == pytest.approx(wanted["rmse"], rel=0, **case["tolerance"])
    assert (found["arbitrage"], found["n"]) == (wanted["arbitrage"], len(case["inputs"]["k"]))


def test_too_few_oracle():
    case = CASES["fit_too_few"]
    found = one(chain(case["inputs"]["k"], case["inputs"]["w"]))
    assert (found["status"], found["n"]) == (case["expected"]["status"], 4)
    assert {found[name] for name in VALUES} == {None}
    assert found["forward"] == 100.0
    assert one(gentle(k=[-0.2, -0.1, 0.0, 0.1, 0.2]))["status"] == "ok"
    assert one(gentle(k=[-0.2, -0.1, 0.0, 0.1, 0.2]), min_points=6)["status"] == "too_few"


def test_the_slice_is_relative_to_the_forward():
    found = one(gentle(days=365.0, rate=0.05, dividend=0.02))
    assert found["forward"] == pytest.approx(100 * math.exp(0.03), rel=1e-14)
    assert found["m"] == pytest.approx(GENTLE["m"], abs=1e-9)
    assert found["years"] == 1.0
    assert (found["k_low"], found["k_high"]) == pytest.approx((-0.6, 0.5), rel=1e-12)


def test_of_a_strike_the_option_out_of_the_money_counts():
    good = gentle()
    other = good.with_columns(
        type=pl.when(pl.col("type") == "C").then(pl.lit("P")).otherwise(pl.lit("C")), iv=pl.col("iv") * 2
    )
    assert one(pl.concat([other, good])) == one(good)


def test_a_flat_slice_has_no_slope():
    found = one(chain(K, [0.04] * len(K)))
    assert found["a"] == pytest.approx(0.04, rel=1e-14)
    assert found["b"] == pytest.approx(0.0, abs=1e-12)
    assert (found["arbitrage"], found["status"]) == (False, "ok")
    assert found["min_g"] == pytest.approx(1.0, abs=1e-9)


def test_wings_are_no_steeper_than_lee_allows():
    # A slope of 3 on the right is above the 2 that moments admit.
    found = one(chain(K, [0.04 + 3 * max(k, 0.0) for k in K]))
    assert found["b"] * (1 + found["rho"]) == pytest.approx(2.0, rel=1e-12)
    assert found["rmse"] > 0.01


def price_slopes(k, w):
    """Return how an undiscounted option's price changes with total variance, by differences of Black's formula."""

    def price(strike, variance):
        d1 = -strike / math.sqrt(variance) + math.sqrt(variance) / 2
        below = [math.erfc(-d / math.sqrt(2)) / 2 for d in (d1, d1 - math.sqrt(variance))]
        return below[0] - math.exp(strike) * below[1]

    return np.array([(price(x, v + 1e-6) - price(x, v - 1e-6)) / 2e-6 for x, v in zip(k, w, strict=True)])


def test_the_fit_is_no_worse_than_the_slice_that_the_noise_was_added_to():
    random = np.random.default_rng(5)
    w = np.array(total_variances(GENTLE, K))
    for _ in range(20):
        noise = random.normal(0, 1e-3, len(K))
        slopes = price_slopes(K, w + noise)
        weights = np.maximum(slopes / slopes.max(), 0.01)
        assert one(chain(K, w + noise))["rmse"] <= math.sqrt((weights * noise**2).sum() / weights.sum()) * (1 + 1e-6)


def test_a_square_counts_by_how_the_price_changes_with_total_variance():
    # The least weight counts: at the last put the price changes by less than a hundredth of the most.
    w = 0.2 * np.array(total_variances(GENTLE, K))
    w[0] *= 1.5
    found = one(chain(K, w))
    slopes = price_slopes(K, w)
    weights = np.maximum(slopes / slopes.max(), 0.01)
    assert (weights == 0.01).any()
    residual = w - total_variances(found, K)
    assert found["rmse"] == pytest.approx(math.sqrt((weights * residual**2).sum() / weights.sum()), rel=1e-6)
    # The level's derivative vanishes at the least.
    assert (weights * residual).sum() == pytest.approx(0.0, abs=1e-9)


def test_total_variance_that_falls_with_expiry_is_flagged():
    frames = [gentle(days=30, scale=0.5), gentle(days=60, scale=0.8), gentle(days=90, scale=0.7), gentle(days=120)]
    assert fitted(pl.concat(frames))["calendar_arbitrage"].to_list() == [None, False, True, False]


def test_a_fall_in_one_place_is_enough():
    # The least variance is a + b·.2·√.84: .0583 of the near slice, .0590 and .0550 of the later ones. The wings rise.
    steep = chain(K, total_variances({**GENTLE, "b": 0.12, "a": 0.037}, K), days=120)
    assert fitted(pl.concat([gentle(days=90), steep]))["calendar_arbitrage"].to_list() == [None, False]
    crossing = chain(K, total_variances({**GENTLE, "b": 0.12, "a": 0.033}, K), days=120)
    assert fitted(pl.concat([gentle(days=90), crossing]))["calendar_arbitrage"].to_list() == [None, True]


def test_known_time_is_the_latest_receipt_of_both_slices_compared():
    late = gentle(days=30).with_columns(pl.col("ts_recv") + pl.duration(seconds=9, time_unit="ns"))
    found = fitted(pl.concat([late, gentle(days=60), gentle(days=90)]))
    assert found["ts_known"].to_physical().to_list() == [9_000_000_007, 9_000_000_007, 7]


def test_only_what_is_quoted_in_both_is_compared():
    apart = [gentle(days=30, k=np.linspace(-0.6, -0.1, 9)), gentle(days=60, scale=0.5, k=np.linspace(0.0, 0.5, 9))]
    assert fitted(pl.concat(apart))["calendar_arbitrage"].to_list() == [None, None]


def test_a_slice_without_parameters_is_passed_over_in_comparison():
    frames = [gentle(days=30), gentle(days=60, k=K[:3]), gentle(days=90, scale=0.9)]
    found = fitted(pl.concat(frames))
    assert found["status"].to_list() == ["ok", "too_few", "ok"]
    assert found["calendar_arbitrage"].to_list() == [None, None, True]


@pytest.mark.parametrize(
    "bad",
    [
        {"bid": None},
        {"bid": 0.0},
        {"iv": None},
        {"iv": math.nan},
        {"iv": math.inf},
        {"iv": 0.0},
        {"iv": -0.2},
        {"iv": 1e200},
        {"strike": None},
        {"strike": math.nan},
        {"strike": 0.0},
        {"strike": -1.0},
        {"underlying_price": None},
        {"underlying_price": 0.0},
        {"rate": math.nan},
        {"type": "X"},
        {"type": None},
    ],
)
def test_an_unusable_contract_among_good_ones_is_no_point(bad):
    good = gentle()
    wrong = (
        good[9:10]
        .with_columns(pl.col("strike") * 1.01)
        .with_columns(**{name: pl.lit(value, SCHEMA[name]) for name, value in bad.items()})
    )
    assert_frame_equal(fitted(pl.concat([good[:9], wrong, good[9:]])), fitted(good), check_exact=True)
    alone = one(wrong)
    assert (alone["status"], alone["n"], alone["forward"]) == ("no_valid_contracts", 0, None)
    assert {alone[name] for name in VALUES} == {None}


@pytest.mark.parametrize("days", [0, -1])
def test_an_expired_slice_among_good_ones_is_null(days):
    expired = gentle().with_columns(ts_expiry=pl.lit(days * DAY).cast(INSTANT))
    found = fitted(pl.concat([gentle(), expired]))
    assert found["status"].to_list() == ["expired", "ok"]
    assert_frame_equal(found[1:], fitted(gentle()))
    assert found["calendar_arbitrage"].to_list() == [None, None]


def test_sums_that_overflow_are_null():
    found = fitted(pl.concat([chain(K, [1e160] * 22 + [1e300]), gentle(days=120)]))
    assert found["status"].to_list() == ["nan", "ok"]
    assert found.select(VALUES).row(0) == (None,) * len(VALUES)
    assert found["calendar_arbitrage"].to_list() == [None, None]


def test_underlyings_snapshots_and_settlements_do_not_mix_in_any_row_order():
    frames = [
        gentle(symbol="A"),
        gentle(symbol="B", scale=1.3, days=30),
        gentle(symbol="B", scale=0.9, days=60),
        gentle(symbol="B", scale=0.4, minute=5, k=K[::2]),
        gentle(symbol="C", k=K[:2]),
    ]
    together = fitted(pl.concat(frames).sample(fraction=1, shuffle=True, seed=8))
    alone = pl.concat([fitted(frame) for frame in frames])
    assert_frame_equal(together.drop("calendar_arbitrage"), alone.drop("calendar_arbitrage"), check_exact=True)
    assert together["calendar_arbitrage"].to_list() == [None, None, True, None, None]
    assert together["ts_known"].to_physical().to_list() == [7, 7, 7, 5 * 60_000_000_000 + 7, 7]


def test_two_settlements_of_one_date_are_two_slices():
    morning = gentle(days=90).with_columns(ts_expiry=pl.col("ts_expiry") - pl.duration(hours=6, time_unit="ns"))
    found = fitted(pl.concat([gentle(days=90), morning]))
    assert found["expiry"].n_unique() == 1
    assert found["n"].to_list() == [len(K), len(K)]


def test_a_contract_given_twice_counts_once_with_the_later_row():
    assert one(pl.concat([gentle().with_columns(pl.col("iv") * 3), gentle()])) == one(gentle())


def test_an_adjusted_contract_of_the_same_strike_does_not_count():
    adjusted = gentle().with_columns(iv=pl.lit(0.9), multiplier=pl.lit(None, pl.Float64))
    assert_frame_equal(fitted(pl.concat([gentle(), adjusted])), fitted(gentle()))
    assert fitted(adjusted).is_empty()


def test_no_contracts_give_an_empty_frame():
    assert_frame_equal(vol_surface(gentle().clear()), fitted(gentle()).clear())


def test_slices_of_more_points_than_a_block_are_those_fitted_alone():
    k = np.linspace(-0.8, 0.6, 701)
    frames = [gentle(k=k, symbol=f"S{n:02}", scale=1 + n / 9) for n in range(40)]
    together = fitted(pl.concat(frames))
    assert_frame_equal(together, pl.concat([fitted(frame) for frame in frames]), check_exact=True)


def test_two_runs_give_identical_bytes():
    random = np.random.default_rng(3)
    w = np.array(total_variances(GENTLE, K))
    frames = [chain(K, w * random.uniform(0.9, 1.1, len(K)), symbol=f"S{n}") for n in range(30)]
    rows = pl.concat(frames)
    assert ipc_bytes(vol_surface(rows)) == ipc_bytes(vol_surface(rows))


def test_fewer_points_than_parameters_are_refused():
    with pytest.raises(ValueError, match="must be >= 5"):
        VolSurfaceParams(min_points=4)
