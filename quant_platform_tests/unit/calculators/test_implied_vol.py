"""Implied volatility: the oracle, round trips near and far, bounds; and forwards by put–call parity."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.black_scholes import greeks, greeks_of_forward
from quant_platform.calculators.implied_vol import forwards, implied_vol, with_underlying
from quant_platform.contracts._schema import INSTANT
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLES = Path(__file__).parents[2] / "golden" / "oracles"
CASES = json.loads((ORACLES / "implied_vol.json").read_text())["cases"]
PARITY = [
    case
    for case in json.loads((ORACLES / "vix_replication.json").read_text())["cases"]
    if "atm_strike" in case["inputs"]
]
SCHEMA = {"type": pl.String} | dict.fromkeys(("price", "spot", "strike", "t_years", "rate", "dividend"), pl.Float64)
GOOD = {"type": "C", "price": 8.0, "spot": 100.0, "strike": 100.0, "t_years": 0.5, "rate": 0.0, "dividend": 0.0}
EPSILON = 2.0**-52
DAY = 86_400_000_000_000
QUOTES = {"type": pl.String} | dict.fromkeys(("strike", "bid", "ask", "rate"), pl.Float64)


def options(*rows):
    return pl.DataFrame([{**GOOD, **row} for row in rows], schema=SCHEMA, strict=False)


def solved(**row):
    (found,) = implied_vol(options(row)).to_dicts()
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_implied_vol_oracle(case):
    given, wanted = case["inputs"], case["expected"]
    found = solved(
        type="C" if given["flag"] == 1 else "P",
        price=given["price"],
        spot=given["S"],
        strike=given["K"],
        t_years=given["T"],
        rate=given["r"],
        dividend=given["q"],
    )
    assert found["status"] == wanted["status"]
    assert found["iv"] == (None if wanted["iv"] is None else pytest.approx(wanted["iv"], rel=0, **case["tolerance"]))


def test_at_the_forward_it_is_the_quantile():
    # C = F·(2N(σ√T/2) - 1): for σ√T = 0.2·√0.5 the price is 100·erf(σ√T/√8).
    total = 0.2 * math.sqrt(0.5)
    assert solved(price=100 * math.erf(total / math.sqrt(8)))["iv"] == pytest.approx(0.2, rel=1e-14)


def grid(kind):
    """Return prices of options up to eight standard deviations from the forward, of vols from 1 % to 500 %."""
    vols, years, distances = np.meshgrid(
        [0.01, 0.05, 0.2, 0.5, 1.0, 2.0, 5.0], [1 / 8760, 1 / 365, 0.02, 0.25, 1.0, 5.0], np.linspace(-8, 8, 65)
    )
    iv, t_years = vols.ravel(), years.ravel()
    strike = 100 * np.exp(0.02 * t_years + distances.ravel() * iv * np.sqrt(t_years))
    rows = pl.DataFrame({"strike": strike, "t_years": t_years, "iv": iv, "rate": 0.05, "dividend": 0.03, "type": kind})
    return greeks(rows.with_columns(spot=pl.lit(100.0)))


@pytest.mark.parametrize("kind", ["C", "P"])
def test_round_trip_is_as_good_as_the_price_allows(kind):
    # A price is good to some of its last bits, and to those of spot and strike where it is in the money.
    given = grid(kind)
    found = implied_vol(given.rename({"iv": "true"}))
    solvable = found.filter(pl.col("status") == "ok")
    assert set(found.get_column("status").unique()) <= {"ok", "no_time_value", "above_bound"}
    assert solvable.height > 0.7 * given.height
    column = {name: solvable.get_column(name).to_numpy() for name in ("iv", "true", "price", "vega", "strike")}
    bits = 16 * EPSILON * (np.maximum(column["strike"], 100) / column["vega"] + column["true"])
    error = np.abs(column["iv"] - column["true"])
    assert np.all(error <= bits)
    assert np.all(error[bits < 1e-7] < 1e-7)
    is_well_conditioned = column["vega"] > 0.01 * np.maximum(column["strike"], 100)
    assert np.count_nonzero(is_well_conditioned) > 400
    assert np.max(error[is_well_conditioned]) < 1e-12


@pytest.mark.parametrize("kind", ["C", "P"])
def test_out_of_the_money_the_tail_itself_is_solved(kind):
    # Down to 2e-12 of the strike the volatility comes back to nine digits: logarithms of prices lose nothing.
    sign = 1 if kind == "C" else -1
    deep = grid(kind).filter(
        (pl.col("strike") - 100) * sign > 0, pl.col("price") > 3e-12 * pl.max_horizontal("strike", 110)
    )
    found = implied_vol(deep.rename({"iv": "true"}))
    assert found.height > 300
    assert set(found.get_column("status")) == {"ok"}
    assert found.get_column("iv").to_numpy() == pytest.approx(found.get_column("true").to_numpy(), rel=1e-9)


def test_prices_close_below_their_bound_are_solved():
    # σ√T up to 10: all but 6e-7 of the spot.
    rows = options(*({"strike": strike} for strike in (0.01, 1, 50, 100, 200, 1e4, 1e6)))
    for vol in (4.0, 8.0, 12.0, 14.0):
        given = greeks(rows.drop("price").with_columns(iv=pl.lit(vol)))
        found = implied_vol(given.rename({"iv": "true"})).get_column("iv").to_numpy()
        bits = (
            16
            * EPSILON
            * (np.maximum(given.get_column("strike").to_numpy(), 100) / given.get_column("vega").to_numpy())
        )
        assert np.all(np.abs(found - vol) <= bits + 16 * EPSILON * vol)


def test_black_76_is_a_dividend_like_the_rate():
    row = {"type": ["P"], "forward": [95.0], "strike": [100.0], "t_years": [0.3], "rate": [0.04], "iv": [0.33]}
    price = greeks_of_forward(pl.DataFrame(row)).get_column("price")[0]
    found = solved(type="P", price=price, spot=95.0, t_years=0.3, rate=0.04, dividend=0.04)
    assert found["iv"] == pytest.approx(0.33, rel=1e-13)


BROKEN = [
    *(({"price": bad}, "invalid_input") for bad in (None, math.nan, math.inf, -math.inf)),
    *(({"spot": bad}, "invalid_spot") for bad in (None, math.nan, math.inf, 0.0, -1.0)),
    *(({"strike": bad}, "invalid_strike") for bad in (None, math.nan, math.inf, 0.0, -1.0)),
    *(({name: bad}, "invalid_input") for name in ("t_years", "rate", "dividend") for bad in (None, math.nan, math.inf)),
    *(({"type": bad}, "invalid_input") for bad in (None, "", "c", "CALL")),
    ({"t_years": 0.0}, "expired"),
    ({"t_years": -1.0, "price": None}, "expired"),
    ({"price": 100.0}, "above_bound"),
    ({"price": 1e9}, "above_bound"),
    ({"price": 99.0, "dividend": 0.1}, "above_bound"),  # the discounted spot is 95.12
    ({"type": "P", "price": 98.0, "rate": 0.1}, "above_bound"),  # the discounted strike is 95.12
    ({"price": 0.0}, "no_time_value"),
    ({"price": 9e-11}, "no_time_value"),  # less than 1e-12 of 100
    ({"price": -9e-11}, "no_time_value"),
    ({"price": -1.1e-10}, "below_intrinsic"),
    ({"price": 20.0, "strike": 80.0}, "no_time_value"),
    ({"price": 19.99, "strike": 80.0}, "below_intrinsic"),
    ({"type": "P", "price": 19.99, "strike": 120.0}, "below_intrinsic"),
    ({"rate": -1e6}, "nan"),
]


@pytest.mark.parametrize(("broken", "status"), BROKEN, ids=str)
def test_a_bad_row_is_null_and_leaves_the_others_alone(broken, status):
    good = ({"strike": 110.0}, {"type": "P", "price": 3.0})
    found = implied_vol(options(good[0], broken, good[1]))
    assert (found.row(1, named=True)["iv"], found.row(1, named=True)["status"]) == (None, status)
    assert_frame_equal(found[[0, 2]], implied_vol(options(*good)), check_exact=True)


def test_what_is_just_inside_the_bounds_is_solved():
    for price in (1.1e-10, 100 - 2e-14):
        found = solved(price=price)
        assert found["status"] == "ok"
        assert found["iv"] > 0


def test_empty_frame_and_null_rows():
    found = implied_vol(options())
    assert found.schema == pl.Schema(SCHEMA | {"iv": pl.Float64, "status": pl.String})
    nulls = implied_vol(pl.DataFrame({name: [None, None] for name in SCHEMA}, schema=SCHEMA))
    assert nulls.select("iv", "status").rows() == [(None, "invalid_strike")] * 2


def random_prices(rows=10_000, seed=4):
    chance = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "symbol": chance.choice(["A", "B"], rows),
            "type": chance.choice(["C", "P"], rows),
            "price": chance.uniform(-1, 60, rows),
            "spot": 100.0,
            "strike": chance.uniform(50, 150, rows),
            "t_years": chance.uniform(-0.05, 2, rows),
            "rate": 0.04,
            "dividend": 0.01,
        }
    )


def test_solved_volatilities_give_the_prices_back():
    found = implied_vol(random_prices()).filter(pl.col("status") == "ok")
    assert found.height > 5_000
    again = greeks(found.rename({"price": "given"}))
    assert again.get_column("price").to_numpy() == pytest.approx(again.get_column("given").to_numpy(), rel=1e-12)


def test_rows_do_not_know_one_another():
    rows = random_prices()
    whole = implied_vol(rows)
    parts = pl.concat([implied_vol(part) for part in (rows[:1], rows[1:5_000], rows[5_000:])])
    assert_frame_equal(whole, parts, check_exact=True)
    assert_frame_equal(implied_vol(rows.reverse()).reverse(), whole, check_exact=True)


def test_two_runs_give_identical_bytes():
    assert ipc_bytes(implied_vol(random_prices())) == ipc_bytes(implied_vol(random_prices()))


def quotes(*rows, symbol="X", ts_event=0, days=73, rate=0.05):
    """Give (type, strike, bid, ask) the columns of a chain; 73 days are a fifth of a year."""
    full = [dict(zip(("type", "strike", "bid", "ask"), row, strict=True), rate=rate) for row in rows]
    return pl.DataFrame(full, schema=QUOTES, orient="row").with_columns(
        symbol=pl.lit(symbol),
        ts_event=pl.lit(ts_event).cast(INSTANT),
        ts_expiry=pl.lit(ts_event + round(days * DAY)).cast(INSTANT),
    )


def european_quotes(spot, iv, strikes, **given):
    """Return calls and puts of one volatility, quoted 0.02 wide around their values."""
    rate, days = given.get("rate", 0.05), given.get("days", 73)
    rows = [{"type": kind, "strike": float(strike)} for strike in strikes for kind in "CP"]
    valued = greeks(
        pl.DataFrame(rows).with_columns(
            spot=pl.lit(spot), iv=pl.lit(iv), t_years=pl.lit(days / 365), rate=pl.lit(rate), dividend=pl.lit(0.0)
        )
    )
    sides = valued.select("type", "strike", bid=pl.col("price") - 0.01, ask=pl.col("price") + 0.01)
    return quotes(*sides.rows(), **given)


def forward(frame):
    (found,) = forwards(frame).to_dicts()
    return found["forward"], found["strikes_used"], found["status"]


def test_forward_by_hand():
    # C - P = 2.0 at 100; e^(0.05·0.2) = 1.01005016708…
    found = forward(quotes(("C", 100.0, 5.9, 6.1), ("P", 100.0, 3.9, 4.1)))
    assert found == (pytest.approx(100 + 2 * math.exp(0.01), rel=1e-14), 1, "ok")


@pytest.mark.parametrize("case", PARITY, ids=lambda case: case["id"])
def test_forward_oracle(case):
    given = case["inputs"]
    mids = (("C", given["call"]), ("P", given["put"]))
    rows = [(kind, given["atm_strike"], mid - 0.5, mid + 0.5) for kind, mid in mids]
    found = forward(quotes(*rows, days=given["minutes"] / 1440, rate=given["rate"]))
    assert found[0] == pytest.approx(case["expected"]["forward"], rel=0, **case["tolerance"])


def test_forward_is_that_of_the_model():
    found = forward(european_quotes(500.0, 0.2, range(440, 560, 5)))
    assert found == (pytest.approx(500 * math.exp(0.01), rel=1e-12), 5, "ok")


@pytest.mark.parametrize("wrong", [(0.01, 0.02), (400.0, 401.0)])
def test_two_wrong_quotes_near_the_money_move_nothing(wrong):
    given = european_quotes(500.0, 0.2, range(440, 560, 5))
    is_wrong = pl.col("strike").is_in([500.0, 505.0]) & (pl.col("type") == "C")
    spoilt = given.with_columns(
        bid=pl.when(is_wrong).then(wrong[0]).otherwise("bid"), ask=pl.when(is_wrong).then(wrong[1]).otherwise("ask")
    )
    assert forward(spoilt)[0] == pytest.approx(500 * math.exp(0.01), rel=1e-12)


def test_a_far_strike_whose_quotes_happen_to_agree_moves_nothing():
    given = pl.concat(
        [european_quotes(500.0, 0.2, range(440, 560, 5)), quotes(("C", 900.0, 0.01, 0.02), ("P", 900.0, 0.01, 0.02))]
    )
    assert forward(given)[0] == pytest.approx(500 * math.exp(0.01), rel=1e-12)


@pytest.mark.parametrize(
    "broken",
    [
        {"bid": None},
        {"ask": None},
        {"bid": 0.0},
        {"bid": 4.2},
        {"bid": math.nan},
        {"ask": math.inf},
        {"ask": math.nan},
        {"strike": math.nan},
        {"strike": None},
        {"rate": None},
        {"rate": math.nan},
        {"type": None},
    ],
    ids=str,
)
def test_without_two_sided_quotes_of_both_there_is_no_forward(broken):
    given = quotes(("C", 100.0, 5.9, 6.1), ("P", 100.0, 3.9, 4.1))
    is_put = pl.col("type") == "P"
    spoilt = given.with_columns(
        pl.when(is_put).then(pl.lit(bad, given.schema[name])).otherwise(name).alias(name)
        for name, bad in broken.items()
    )
    assert forward(spoilt) == (None, 0, "no_valid_contracts")


def test_an_expired_chain_has_no_forward():
    assert forward(quotes(("C", 100.0, 5.9, 6.1), ("P", 100.0, 3.9, 4.1), days=0)) == (None, 0, "expired")


def test_expiries_snapshots_and_symbols_keep_apart_in_any_order():
    parts = [
        european_quotes(500.0, 0.2, range(440, 560, 5)),
        european_quotes(500.0, 0.2, range(440, 560, 5), days=365),
        european_quotes(501.0, 0.2, range(440, 560, 5), ts_event=DAY),
        european_quotes(40.0, 0.5, range(20, 60), symbol="A"),
        quotes(("C", 100.0, 5.9, 6.1), symbol="B"),
    ]
    found = forwards(pl.concat(parts))
    assert found.get_column("symbol").to_list() == ["A", "B", "X", "X", "X"]
    assert found.get_column("status").to_list() == ["ok", "no_valid_contracts", "ok", "ok", "ok"]
    expected = [40 * math.exp(0.01), None, 500 * math.exp(0.01), 500 * math.exp(0.05), 501 * math.exp(0.01)]
    for value, wanted in zip(found.get_column("forward"), expected, strict=True):
        assert value == (None if wanted is None else pytest.approx(wanted, rel=1e-12))
    assert_frame_equal(forwards(pl.concat(parts).sample(fraction=1, shuffle=True, seed=1)), found, check_exact=True)


def test_an_empty_chain_has_no_forwards():
    found = forwards(quotes())
    assert found.schema == forwards(quotes(("C", 100.0, 5.9, 6.1))).schema
    assert found.is_empty()


def test_a_price_of_the_underlying_that_is_missing_follows_from_parity():
    # Call less put is 2 at strike 100, in a year at 5 % and a yield of 1 %: forward 100 + 2 e^0.05, spot e^-0.04 of it.
    year = pl.duration(days=365)
    rows = pl.DataFrame(
        {
            "type": ["C", "P", "C"],
            "strike": [100.0, 100.0, 110.0],
            "bid": [9.0, 7.0, None],
            "ask": [11.0, 9.0, None],
            "underlying_price": [None, None, 101.0],
            "rate": 0.05,
            "dividend": 0.01,
            "symbol": "X",
        },
        schema_overrides={"underlying_price": pl.Float64},
    ).with_columns(ts_event=pl.lit(0).cast(INSTANT), ts_expiry=(pl.lit(0).cast(INSTANT) + year).cast(INSTANT))
    parity = (100 + 2 * math.exp(0.05)) * math.exp(-0.04)
    found = with_underlying(rows)
    assert found["underlying_price"].to_list() == pytest.approx([parity, parity, 101.0], rel=1e-12)
    assert found.columns == rows.columns
    unquoted = with_underlying(rows.with_columns(bid=pl.lit(None, pl.Float64)))
    assert unquoted["underlying_price"].to_list() == [None, None, 101.0]
