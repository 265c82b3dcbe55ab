"""What holds of every European option: parity and symmetry of calls and puts, bounds, and the way back from a price."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_platform.calculators.black_scholes import greeks, greeks_of_forward
from quant_platform.calculators.implied_vol import forwards, implied_vol
from quant_platform.contracts._schema import INSTANT

EPSILON = 2.0**-52
YEAR_NS = 365 * 86_400_000_000_000
TWINS = pl.DataFrame({"type": ["C", "P"]})


@st.composite
def options(draw):
    """Draw an option whose strike is up to six standard deviations from its forward."""
    spot = draw(st.floats(0.01, 1e5))
    t_years = draw(st.floats(1 / (365 * 24 * 60), 10))
    iv = draw(st.floats(0.01, 3))
    rate, dividend = draw(st.floats(-0.05, 0.2)), draw(st.floats(-0.05, 0.2))
    deviations = draw(st.floats(-6, 6))
    strike = spot * math.exp((rate - dividend) * t_years + deviations * iv * math.sqrt(t_years))
    return {"spot": spot, "strike": strike, "t_years": t_years, "iv": iv, "rate": rate, "dividend": dividend}


def twins(option):
    """Return the call and the put of one strike."""
    return TWINS.with_columns(pl.lit(value).alias(name) for name, value in option.items())


def noise(option):
    """Return the relative error that rounding of spot ÷ strike leaves, which a short time and a low vol magnify."""
    return 64 * EPSILON * (8 + 1 / (option["iv"] * math.sqrt(option["t_years"])))


def valued(option):
    found = greeks(twins(option))
    assert found.get_column("status").to_list() == ["ok", "ok"]
    return found.to_dicts()


@given(options())
def test_put_call_parity(option):
    call, put = valued(option)
    spot_part = option["spot"] * math.exp(-option["dividend"] * option["t_years"])
    strike_part = option["strike"] * math.exp(-option["rate"] * option["t_years"])
    scale = spot_part + strike_part
    expected = {
        "price": spot_part - strike_part,
        "delta": spot_part / option["spot"],
        "gamma": 0,
        "vega": 0,
        "vanna": 0,
        "rho": option["t_years"] * strike_part,
        "theta_per_year": option["dividend"] * spot_part - option["rate"] * strike_part,
        "charm_per_year": option["dividend"] * spot_part / option["spot"],
    }
    sizes = {"price": scale, "theta_per_year": scale * (abs(option["rate"]) + abs(option["dividend"]))}
    for name, wanted in expected.items():
        size = abs(call[name]) + abs(put[name]) + abs(wanted) + sizes.get(name, 0)
        assert call[name] - put[name] == pytest.approx(wanted, rel=0, abs=noise(option) * size), name


@given(options())
def test_put_call_symmetry(option):
    # A call on S at K is worth a put on K at S with rate and dividend exchanged.
    swapped = {
        **option,
        "spot": option["strike"],
        "strike": option["spot"],
        "rate": option["dividend"],
        "dividend": option["rate"],
    }
    call, put = valued(option)
    other_call, other_put = valued(swapped)
    scale = noise(option) * (option["spot"] + option["strike"]) * math.exp(0.05 * option["t_years"])
    assert call["price"] == pytest.approx(other_put["price"], rel=0, abs=scale)
    assert put["price"] == pytest.approx(other_call["price"], rel=0, abs=scale)
    assert call["vega"] == pytest.approx(other_put["vega"], rel=0, abs=scale * math.sqrt(option["t_years"]))
    # Whoever doubles spot and strike doubles the value: S·delta + K·(slope over the strike) = price.
    weight = call["price"] - option["spot"] * call["delta"]
    assert weight == pytest.approx(option["strike"] * other_put["delta"], rel=0, abs=scale)


@given(options())
def test_values_stand_within_their_bounds(option):
    call, put = valued(option)
    spot_part = option["spot"] * math.exp(-option["dividend"] * option["t_years"])
    strike_part = option["strike"] * math.exp(-option["rate"] * option["t_years"])
    slack = noise(option) * (spot_part + strike_part)
    assert max(spot_part - strike_part, 0) - slack <= call["price"] <= spot_part + slack
    assert max(strike_part - spot_part, 0) - slack <= put["price"] <= strike_part + slack
    assert min(call["price"], put["price"], call["gamma"], call["vega"]) >= 0
    assert 0 <= call["delta"] <= spot_part / option["spot"] * (1 + 1e-15)


@given(options())
def test_the_equation_holds(option):
    # Black and Scholes: theta + (r - q)·S·delta + σ²S²·gamma/2 = r·V; of a forward without carry.
    spot, rate, half = option["spot"], option["rate"], 0.5 * option["iv"] ** 2
    for row in valued(option):
        parts = [
            row["theta_per_year"],
            (rate - option["dividend"]) * spot * row["delta"],
            half * spot**2 * row["gamma"],
            -rate * row["price"],
        ]
        assert math.fsum(parts) == pytest.approx(0, abs=1e-12 * (math.fsum(map(abs, parts)) + spot + option["strike"]))
    on_forward = greeks_of_forward(twins(option).rename({"spot": "forward"}))
    for row in on_forward.to_dicts():
        parts = [row["theta_per_year"], half * spot**2 * row["gamma"], -rate * row["price"]]
        assert math.fsum(parts) == pytest.approx(0, abs=1e-12 * (math.fsum(map(abs, parts)) + spot + option["strike"]))


@given(options())
def test_a_volatility_comes_back_from_its_price(option):
    given_prices = greeks(twins(option)).rename({"iv": "true"})
    for row in implied_vol(given_prices).to_dicts():
        scale = max(row["spot"], row["strike"]) * math.exp(0.05 * row["t_years"])
        bits = 64 * EPSILON * (scale / max(row["vega"], 1e-300) + row["true"])
        if row["status"] == "ok":
            assert abs(row["iv"] - row["true"]) <= bits
        else:
            assert row["status"] in {"no_time_value", "below_intrinsic", "above_bound"}
            assert bits > 1e-7


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=40),
    st.floats(1e-6, 0.999999),
    st.sampled_from(["C", "P"]),
)
def test_every_price_within_its_bounds_has_a_volatility_that_gives_it_back(ratios, share, kind):
    strike = 100 * np.array(ratios)
    spread = np.minimum(strike, 100)
    intrinsic = np.maximum(100 - strike if kind == "C" else strike - 100, 0)
    rows = pl.DataFrame({"strike": strike, "price": intrinsic + share * spread}).with_columns(
        type=pl.lit(kind), spot=pl.lit(100.0), t_years=pl.lit(0.7), rate=pl.lit(0.0), dividend=pl.lit(0.0)
    )
    found = implied_vol(rows)
    assert found.get_column("status").to_list() == ["ok"] * len(ratios)
    again = greeks(found.rename({"price": "given"})).get_column("price").to_numpy()
    assert np.all(np.abs(again - rows.get_column("price").to_numpy()) <= 64 * EPSILON * np.maximum(strike, 100))


@given(options(), st.lists(st.floats(0.8, 1.25), min_size=1, max_size=12, unique=True))
def test_the_forward_of_parity_is_the_forward(option, moneyness):
    forward = option["spot"] * math.exp((option["rate"] - option["dividend"]) * option["t_years"])
    t_years = round(option["t_years"] * YEAR_NS) / YEAR_NS
    rows = pl.concat([twins({**option, "t_years": t_years, "strike": forward * ratio}) for ratio in moneyness])
    quoted = greeks(rows).filter(pl.col("price") > 0)
    chain = quoted.with_columns(
        symbol=pl.lit("X"),
        ts_event=pl.lit(0).cast(INSTANT),
        ts_expiry=pl.lit(round(option["t_years"] * YEAR_NS)).cast(INSTANT),
        bid=pl.col("price"),
        ask=pl.col("price"),
    )
    (found,) = forwards(chain).to_dicts()
    if quoted.height == 2 * len(moneyness):
        assert found["forward"] == pytest.approx(forward, rel=1e-12)
    assert found["status"] in {"ok", "no_valid_contracts"}
