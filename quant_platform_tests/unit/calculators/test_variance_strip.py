"""Variance from strips of options: the exchange's worked example, hand-worked strips, and the edge matrix."""

import gzip
import json
import math
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.variance_strip import (
    VarianceIndexParams,
    contributions,
    strips,
    variance_strips,
    vix1d_proxy,
)
from quant_platform.contracts._schema import validated
from quant_platform.contracts.volatility import VarianceStrip, Vix1dProxy
from quant_platform.feeds.cboe import read_sheet
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "vix_replication.json").read_text())
CASES = {case["id"]: case for case in ORACLE["cases"]}
INSTANT = pl.Datetime("ns", "UTC")
MINUTE = 60_000_000_000
MONTH = VarianceIndexParams(43_200)
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
    "ask": pl.Float64,
    "rate": pl.Float64,
}


def chain(options, *, minutes=1_440.0, rate=0.0, symbol="SPX", minute=0):
    """Give (type, strike, bid, ask) the columns of a chain; each option is known 7 ns after its minute."""
    now = minute * MINUTE
    rows = [
        {
            "ts_event": now,
            "ts_recv": now + 7,
            "symbol": symbol,
            "expiry": date(2024, 1, 1),
            "ts_expiry": now + round(minutes * MINUTE),
            "type": kind,
            "strike": strike,
            "multiplier": 100.0,
            "bid": bid,
            "ask": ask,
            "rate": rate,
        }
        for kind, strike, bid, ask in options
    ]
    return pl.DataFrame(rows, schema=SCHEMA, strict=False).cast(
        dict.fromkeys(("ts_event", "ts_recv", "ts_expiry"), INSTANT)
    )


def at(kind, strike, mid):
    """Return an option with that mid."""
    return kind, strike, mid * 0.99, mid * 1.01


# At 100 call and put differ by 1 only: the forward is 101 and k0 is 100; at 105 they differ by 4.
FIVE = [
    at("P", 90.0, 0.5),
    at("P", 95.0, 1.0),
    at("C", 100.0, 3.5),
    at("P", 100.0, 2.5),
    at("C", 105.0, 1.2),
    at("P", 105.0, 5.2),
    at("C", 110.0, 0.4),
]


def priced(frame):
    return validated(VarianceStrip, variance_strips(frame))


def one(options, **given):
    (row,) = priced(chain(options, **given)).to_dicts()
    return row


@pytest.fixture(scope="module")
def published(real_data):
    """Return the two strips of the exchange's worked example as chains."""
    found = {}
    for name in ("near", "next"):
        path = real_data.parent / "oracles" / ORACLE["files"][name]
        if not path.is_file():
            pytest.skip(f"There is no strip at {path}.")
        given = CASES[f"{name}_term"]["inputs"]
        k0, atm, call, put = (given[key] for key in ("K0", "atm_strike", "call", "put"))
        options = []
        for row in pl.read_csv(path, schema_overrides={"strike": pl.Float64, "q": pl.Float64}).to_dicts():
            strike, q = row["strike"], row["q"]
            if strike == k0 != atm:  # the strip tells the mean alone: here they differ by more than at the money
                options += [("C", strike, q + 2, q + 2), ("P", strike, q - 2, q - 2)]
            elif strike == atm:
                options += [("C", strike, call, call), ("P", strike, put, put)]
            else:
                options.append(("P" if strike < k0 else "C", strike, q, q))
        found[name] = chain(options, minutes=given["minutes"], rate=given["rate"])
    return found


@pytest.mark.parametrize("name", ["near", "next"])
def test_published_strip_oracle(published, name):
    case = CASES[f"{name}_term"]
    (found,) = priced(published[name]).to_dicts()
    wanted = case["expected"]
    for key in ("forward", "variance"):
        assert found[key] == pytest.approx(wanted[key], rel=0, **case["tolerance"])
    assert found["n_strikes"] == wanted["n_strikes"]
    assert (found["atm_strike"], found["k0"]) == (case["inputs"]["atm_strike"], case["inputs"]["K0"])


def test_published_delta_k(published, real_data):
    for name, frame in published.items():
        table = pl.read_csv(real_data.parent / "oracles" / ORACLE["files"][name])
        strip = frame.filter((pl.col("type") == "P") | (pl.col("strike") > CASES[f"{name}_term"]["inputs"]["K0"]))
        strip = strip.unique("strike").with_columns(q=pl.col("bid"), years=pl.lit(0.1))
        assert contributions(strip)["delta_k"].to_list() == table["delta_k"].cast(pl.Float64).to_list()


def test_published_index_oracle(published):
    case = CASES["index"]
    (found,) = vix1d_proxy(priced(pl.concat(published.values())), MONTH).to_dicts()
    assert found["vix1d_proxy"] == pytest.approx(case["expected"]["index"], rel=0, **case["tolerance"])
    assert round(found["vix1d_proxy"], 2) == case["expected"]["index_rounded"]


@pytest.mark.parametrize(
    ("recorded", "trading_date"),
    [("spx_2022-06-11", "2022-06-10"), ("spx_2023-02-07", "2023-02-07"), ("spx_2024-01-07", "2024-01-05")],
)
def test_a_month_of_recorded_chains_is_near_the_close_of_the_exchanges_index(real_data, recorded, trading_date):
    # Quotes of the weekly series after the close, delayed and without a rate: half a point is what that costs.
    sheet = gzip.decompress((real_data / "cboe_quotedata" / f"{recorded}.csv.gz").read_bytes())
    rows = read_sheet(sheet, recorded, symbol="SPX").rows.filter(pl.col("contract").str.starts_with("SPXW"))
    found = priced(rows.with_columns(rate=pl.lit(0.0), ts_recv="ts_event"))
    closes = pl.read_csv(gzip.decompress((real_data / "vix" / "vix-daily.csv.gz").read_bytes()))
    close = closes.filter(pl.nth(0) == trading_date).select(pl.nth(4)).item()
    assert vix1d_proxy(found, MONTH)["vix1d_proxy"].to_list() == pytest.approx([close], abs=0.5)


def test_five_strikes_oracle():
    case = CASES["five_strikes"]
    found = one(FIVE, minutes=case["inputs"]["T"] * 525_600)
    assert found["forward"] == pytest.approx(case["inputs"]["forward"], rel=1e-14)
    assert (found["k0"], found["n_strikes"]) == (case["inputs"]["K0"], 5)
    assert found["variance"] == pytest.approx(case["expected"]["variance"], rel=0, **case["tolerance"])
    assert math.sqrt(found["variance"]) == pytest.approx(case["expected"]["volatility"], rel=0, **case["tolerance"])


def test_delta_k_oracle():
    case = CASES["uneven_strikes_delta_k"]
    strip = chain([("P", strike, 1.0, 1.0) for strike in case["inputs"]["strike"]])
    found = contributions(strip.with_columns(q=1.0, years=0.5).sample(fraction=1, shuffle=True, seed=2))
    assert found["delta_k"].to_list() == case["expected"]["delta_k"]
    # 2/0.5 · 10/80² · 1
    assert found["contribution"][0] == pytest.approx(4 * 10 / 6_400, rel=1e-15)


def test_the_rate_grows_prices_to_the_settlement():
    # exp(0.1 · 0.5) on the difference of 1, and on every price.
    found = one(FIVE, minutes=262_800, rate=0.1)
    growth = math.exp(0.05)
    forward = 100 + growth
    total = 4 * growth * (2.5 / 8_100 + 5 / 9_025 + 15 / 10_000 + 6 / 11_025 + 2 / 12_100)
    assert found["forward"] == pytest.approx(forward, rel=1e-15)
    assert found["variance"] == pytest.approx(total - 2 * (forward / 100 - 1) ** 2, rel=1e-13)


def flat_strips(minutes, variances):
    frames = [chain(FIVE, minutes=each) for each in minutes]
    return variance_strips(pl.concat(frames)).sort("minutes").with_columns(variance=pl.Series(variances))


@pytest.mark.parametrize("name", ["exact_30_days", "constant_variance"])
def test_interpolation_oracle(name):
    given, case = CASES[name]["inputs"], CASES[name]
    found = flat_strips([given["n1"], given["n2"]], [given["var1"], given["var2"]])
    (row,) = validated(Vix1dProxy, vix1d_proxy(found, MONTH)).to_dicts()
    assert row["vix1d_proxy"] == pytest.approx(case["expected"]["index"], rel=0, **case["tolerance"])


def test_the_strips_around_the_horizon_are_taken():
    # One day lies a quarter between 6 h and 78 h: total variance .04 · 360 · .75 + .09 · 4,680 · .25.
    found = flat_strips([60, 360, 4_680, 9_000], [0.5, 0.04, 0.09, 0.7])
    (row,) = validated(Vix1dProxy, vix1d_proxy(found)).to_dicts()
    assert row["vix1d_proxy"] == pytest.approx(100 * math.sqrt((10.8 + 105.3) / 1_440), rel=1e-14)
    assert (row["near_variance"], row["next_variance"], row["horizon_minutes"]) == (0.04, 0.09, 1_440)


@pytest.mark.parametrize(
    ("minutes", "variances", "status"),
    [
        ([360, 700], [0.04, 0.09], "too_few"),
        ([1_441, 9_000], [0.04, 0.09], "too_few"),
        ([360, 9_000], [0.04, None], "too_few"),
        ([360, 9_000], [None, None], "no_data"),
        ([360, 1_440], [0.04, 0.09], "ok"),
    ],
)
def test_a_horizon_that_is_not_enclosed_gives_null(minutes, variances, status):
    (row,) = validated(Vix1dProxy, vix1d_proxy(flat_strips(minutes, variances))).to_dicts()
    assert row["status"] == status
    assert row["vix1d_proxy"] == (pytest.approx(30.0) if status == "ok" else None)


def test_the_strip_ends_at_two_neighbours_without_a_bid():
    options = [
        at("P", 70.0, 9.0),  # beyond the end
        ("P", 75.0, 0.0, 0.1),
        ("P", 80.0, None, 0.1),
        at("P", 85.0, 0.2),
        ("P", 90.0, 0.0, 0.1),  # alone: passed over
        at("P", 95.0, 1.0),
        at("C", 100.0, 3.0),
        at("P", 100.0, 3.0),
        ("C", 105.0, None, None),
        at("C", 110.0, 0.4),
        ("C", 115.0, 0.0, 0.1),
        ("C", 120.0, 0.0, 0.1),
        at("C", 125.0, 9.0),  # beyond the end
    ]
    frame = chain(options).with_columns(price=pl.when(pl.col("bid") > 0).then((pl.col("bid") + pl.col("ask")) / 2))
    k0 = frame.select("symbol", "ts_event", "ts_expiry", k0=100.0).unique()
    assert strips(frame, k0)["strike"].to_list() == [85.0, 95.0, 100.0, 110.0]
    found = one(options)
    assert (found["n_strikes"], found["contracts_skipped"], found["status"]) == (4, 0, "ok")


def test_of_two_strikes_at_the_money_the_lower_counts():
    options = [at("P", 90.0, 1.0), at("C", 110.0, 1.0)]
    for strike, call, put in ((100.0, 4.0, 3.0), (101.0, 3.0, 4.0)):
        options += [("C", strike, call, call), ("P", strike, put, put)]
    found = one(options)
    assert (found["atm_strike"], found["forward"], found["k0"]) == (100.0, 101.0, 101.0)


@pytest.mark.parametrize(
    "bad",
    [
        ("C", 107.0, math.nan, 1.0),
        ("C", 107.0, math.inf, math.inf),
        ("C", 107.0, 1.0, math.nan),
        ("C", 107.0, 1.0, None),
        ("C", 107.0, 1.0, 0.9),
        ("C", 107.0, -1.0, 1.0),
        ("C", math.nan, 1.0, 1.0),
        ("C", None, 1.0, 1.0),
        ("C", 0.0, 1.0, 1.0),
        ("X", 107.0, 1.0, 1.0),
        (None, 107.0, 1.0, 1.0),
    ],
)
def test_an_unusable_option_among_good_ones_is_skipped_and_counted(bad):
    assert one([*FIVE[:3], bad, *FIVE[3:]]) == one(FIVE) | {"contracts_skipped": 1}
    alone = one([bad])
    assert (alone["variance"], alone["status"], alone["contracts_skipped"]) == (None, "no_valid_contracts", 1)


@pytest.mark.parametrize(
    ("options", "given", "status"),
    [
        (FIVE, {"minutes": 0}, "expired"),
        (FIVE, {"minutes": -60}, "expired"),
        (FIVE, {"rate": None}, "invalid_input"),
        (FIVE, {"rate": math.nan}, "invalid_input"),
        (FIVE[:2], {}, "no_valid_contracts"),
        (FIVE[:1], {}, "no_valid_contracts"),
        ([("C", 100.0, None, None), ("P", 100.0, None, None)], {}, "no_valid_contracts"),
        (FIVE[2:4], {}, "one_sided"),
        (FIVE[:4], {}, "one_sided"),
        (FIVE[2:], {}, "one_sided"),
        ([*FIVE[:4], at("C", 105.0, 1e308), at("C", 110.0, 1e308)], {"minutes": 1}, "nan"),
        # A forward of 101 over strikes worth nothing: the last term is all there is.
        (
            [at("P", 99.0, 1e-9), at("C", 100.0, 1.0 + 1e-9), at("P", 100.0, 1e-9), at("C", 100.1, 1e-9)],
            {},
            "invalid_input",
        ),
    ],
)
def test_a_strip_without_a_value_says_why(options, given, status):
    found = one(options, **given)
    assert found["status"] == status
    assert {found[name] for name in ("atm_strike", "forward", "k0", "variance")} == {None}


def test_underlyings_snapshots_and_settlements_do_not_mix_in_any_row_order():
    dear = [(kind, strike, 2 * bid, 2 * ask) for kind, strike, bid, ask in FIVE]
    frames = [
        chain(FIVE, symbol="B", minutes=500),
        chain(dear, symbol="A", minutes=500),
        chain(dear, symbol="B", minutes=900),
        chain(FIVE[:2], symbol="B", minute=3, minutes=500),
    ]
    together = priced(pl.concat(frames).sample(fraction=1, shuffle=True, seed=4))
    assert together.select("symbol", "minutes").rows() == [("A", 500), ("B", 500), ("B", 900), ("B", 500)]
    assert_frame_equal(together, pl.concat([priced(frames[place]) for place in (1, 0, 2, 3)]), check_exact=True)
    assert together["ts_known"].to_physical().to_list() == [7, 7, 7, 3 * MINUTE + 7]


def test_an_option_given_twice_counts_once_with_the_later_row():
    assert one([("P", 90.0, 7.0, 8.0), *FIVE]) == one(FIVE)


def test_an_adjusted_contract_of_the_same_strike_does_not_count():
    adjusted = chain([at("P", 90.0, 7.0)]).with_columns(multiplier=pl.lit(None, pl.Float64))
    assert_frame_equal(priced(pl.concat([chain(FIVE), adjusted])), priced(chain(FIVE)))


def test_no_options_give_empty_frames():
    assert_frame_equal(variance_strips(chain([])), priced(chain(FIVE)).clear())
    proxy = vix1d_proxy(variance_strips(chain([])))
    assert_frame_equal(proxy, vix1d_proxy(variance_strips(chain(FIVE))).clear())


def test_two_runs_give_identical_bytes():
    frames = [
        chain([(k, s, bid + n / 7, ask + n / 7) for k, s, bid, ask in FIVE], symbol=f"S{n}", minutes=m)
        for n in range(40)
        for m in (300, 3_000)
    ]
    rows = pl.concat(frames)
    assert ipc_bytes(variance_strips(rows)) == ipc_bytes(variance_strips(rows))
    assert ipc_bytes(vix1d_proxy(variance_strips(rows))) == ipc_bytes(vix1d_proxy(variance_strips(rows)))


@pytest.mark.parametrize("horizon", [0, -1, math.nan, math.inf])
def test_impossible_parameters_are_refused(horizon):
    with pytest.raises(ValueError, match="must"):
        VarianceIndexParams(horizon)
