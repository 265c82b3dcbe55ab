"""Values of European options: the oracles, differences by hand, guards row by row, and the greeks of a chain."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.black_scholes import VALUES, chain_greeks, greeks, greeks_of_forward
from quant_platform.calculators.implied_vol import with_volatility
from quant_platform.contracts._schema import conformed, empty, polars_schema, validated
from quant_platform.contracts.options import OptionChain, OptionGreeks
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLES = Path(__file__).parents[2] / "golden" / "oracles"
CASES = json.loads((ORACLES / "option_greeks.json").read_text())["cases"]
GRID = pl.read_csv(ORACLES / "option_greeks_grid.csv")
NAMES = {"theta": "theta_per_year", "charm": "charm_per_year"}
SCHEMA = {"type": pl.String} | dict.fromkeys(("spot", "strike", "t_years", "iv", "rate", "dividend"), pl.Float64)
GOOD = {"type": "C", "spot": 42.0, "strike": 40.0, "t_years": 0.5, "iv": 0.2, "rate": 0.1, "dividend": 0.0}
HOUR = 3_600_000_000_000


def options(*rows):
    return pl.DataFrame([{**GOOD, **row} for row in rows], schema=SCHEMA, strict=False)


def value(name, valued=greeks, **row):
    return valued(options(row)).get_column(name)[0]


def slope(name, over, width, valued=greeks, **row):
    """Return the central difference of a value, of fourth order."""
    at = {**GOOD, **row}[over]
    near, far = (
        value(name, valued, **{**row, over: at + n * width}) - value(name, valued, **{**row, over: at - n * width})
        for n in (1, 2)
    )
    return (8 * near - far) / (12 * width)


def on_forward(frame):
    return greeks_of_forward(frame.rename({"spot": "forward"}).drop("dividend"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_greeks_oracle(case):
    given = case["inputs"]
    (found,) = greeks(
        options(
            {
                "type": "C" if given["flag"] == 1 else "P",
                "spot": given["S"],
                "strike": given["K"],
                "t_years": given["T"],
                "iv": given["sigma"],
                "rate": given["r"],
                "dividend": given["q"],
            }
        )
    ).to_dicts()
    expected = {"status": "ok"} | {NAMES.get(name, name): wanted for name, wanted in case["expected"].items()}
    for name, wanted in expected.items():
        assert found[name] == (pytest.approx(wanted, **case["tolerance"]) if isinstance(wanted, float) else wanted), (
            name
        )


@pytest.mark.parametrize("name", ["price", "delta", "gamma", "vega", "theta", "rho", "vanna", "charm"])
def test_greeks_grid(name):
    rows = GRID.select(
        type=pl.when(pl.col("flag") == 1).then(pl.lit("C")).otherwise(pl.lit("P")),
        spot="S",
        strike="K",
        t_years="T",
        iv="sigma",
        rate="r",
        dividend="q",
    )
    found = greeks(rows)
    assert found.get_column("status").to_list() == ["ok"] * GRID.height
    assert found.get_column(NAMES.get(name, name)).to_numpy() == pytest.approx(
        GRID.get_column(name).cast(pl.Float64).to_numpy(), rel=1e-10, abs=1e-12
    )


@pytest.mark.parametrize("kind", ["C", "P"])
@pytest.mark.parametrize("strike", [35.0, 42.0, 55.0])
def test_greeks_are_slopes_of_the_value(kind, strike):
    row = {"type": kind, "strike": strike, "rate": 0.07, "dividend": 0.03}
    for name, of, over, width in (
        ("delta", "price", "spot", 0.05),
        ("gamma", "delta", "spot", 0.05),
        ("vega", "price", "iv", 1e-3),
        ("vanna", "delta", "iv", 1e-3),
        ("rho", "price", "rate", 1e-3),
    ):
        assert value(name, **row) == pytest.approx(slope(of, over, width, **row), rel=1e-8, abs=1e-9), name
    for name, of in (("theta_per_year", "price"), ("charm_per_year", "delta")):
        assert value(name, **row) == pytest.approx(-slope(of, "t_years", 1e-3, **row), rel=1e-8, abs=1e-9), name


@pytest.mark.parametrize("kind", ["C", "P"])
def test_black_76_greeks_are_slopes_of_its_value(kind):
    row = {"type": kind, "strike": 45.0, "rate": 0.07}
    for name, of, over, width in (
        ("delta", "price", "spot", 0.05),
        ("gamma", "delta", "spot", 0.05),
        ("vega", "price", "iv", 1e-3),
        ("vanna", "delta", "iv", 1e-3),
        ("rho", "price", "rate", 1e-3),
    ):
        found = value(name, on_forward, **row)
        assert found == pytest.approx(slope(of, over, width, on_forward, **row), rel=1e-8, abs=1e-9), name
    for name, of in (("theta_per_year", "price"), ("charm_per_year", "delta")):
        found = value(name, on_forward, **row)
        assert found == pytest.approx(-slope(of, "t_years", 1e-3, on_forward, **row), rel=1e-8, abs=1e-9), name


def test_black_76_of_the_forward_is_the_value_on_the_spot():
    # F = 42·exp((0.1 - 0.04)·0.5); price and vega are the same, the deltas differ by dF/dS.
    growth = math.exp(0.06 * 0.5)
    on_spot, forward = options({"dividend": 0.04}), options({"spot": 42 * growth})
    spot_row, forward_row = greeks(on_spot).row(0, named=True), on_forward(forward).row(0, named=True)
    assert forward_row["price"] == pytest.approx(spot_row["price"], rel=1e-14)
    assert forward_row["vega"] == pytest.approx(spot_row["vega"], rel=1e-14)
    assert forward_row["delta"] * growth == pytest.approx(spot_row["delta"], rel=1e-14)
    assert forward_row["rho"] == pytest.approx(-0.5 * spot_row["price"], rel=1e-14)


def test_haugs_option_on_a_future():
    # Haug, The Complete Guide to Option Pricing Formulas: F 105, K 100, T 0.5, r 10 %, vol 36 %: delta .5946.
    row = {"spot": 105.0, "strike": 100.0, "iv": 0.36, "rate": 0.1}
    assert value("delta", on_forward, **row) == pytest.approx(0.5946286597299956, rel=1e-12)


NULLS = {"spot": "invalid_spot", "strike": "invalid_strike", "iv": "invalid_vol"}
BROKEN = [
    *(({name: bad}, status) for name, status in NULLS.items() for bad in (None, math.nan, math.inf, 0.0, -1.0)),
    *(({name: bad}, "invalid_input") for name in ("t_years", "rate", "dividend") for bad in (None, math.nan, math.inf)),
    *(({"type": bad}, "invalid_input") for bad in (None, "", "c", "CALL")),
    ({"t_years": 0.0}, "expired"),
    ({"t_years": -0.1}, "expired"),
    ({"t_years": -0.1, "iv": None, "strike": -1.0, "spot": None}, "expired"),
    ({"spot": -42.0, "strike": -40.0}, "invalid_strike"),
    ({"rate": -1e6}, "nan"),
    ({"spot": 1e300, "strike": 1e-300}, "nan"),
]


@pytest.mark.parametrize(("broken", "status"), BROKEN, ids=str)
@pytest.mark.parametrize("valued", [greeks, on_forward])
def test_a_bad_row_is_null_and_leaves_the_others_alone(broken, status, valued):
    if valued is on_forward and "dividend" in broken:
        return
    alone = valued(options({}, {"type": "P"}))
    found = valued(options({}, broken, {"type": "P"}))
    assert found.row(1, named=True)["status"] == status
    assert set(found.select(VALUES).row(1)) == {None}
    assert_frame_equal(found[[0, 2]], alone, check_exact=True)


def test_extreme_options_have_limits_for_values():
    deep = {"spot": 42.0, "strike": 1e-3}
    assert value("delta", **deep) == pytest.approx(1, abs=1e-15)
    assert (value("gamma", **deep), value("vega", **deep)) == (0, 0)
    assert value("price", strike=4_000.0, t_years=0.01) == 0
    assert value("price", iv=60.0) == pytest.approx(42, rel=1e-12)  # a call is worth its spot at most
    assert value("price", t_years=1e-9) == pytest.approx(2, rel=1e-8)
    assert value("price", type="P", strike=90.0, iv=1e-9) == pytest.approx(90 * math.exp(-0.05) - 42, rel=1e-14)


def test_no_value_is_below_zero():
    strikes = np.linspace(20, 200, 5_000)
    rows = options(*({"strike": strike, "type": kind, "t_years": 1e-3} for strike in strikes for kind in "CP"))
    assert greeks(rows).get_column("price").min() >= 0


def test_empty_frame_keeps_its_columns_and_gets_the_others():
    found = greeks(options())
    assert found.schema == pl.Schema(SCHEMA | dict.fromkeys(VALUES, pl.Float64) | {"status": pl.String})
    assert found.is_empty()


def test_all_null_rows():
    found = greeks(pl.DataFrame({name: [None, None] for name in SCHEMA}, schema=SCHEMA))
    assert found.get_column("status").to_list() == ["invalid_strike"] * 2
    assert set(found.select(VALUES).row(0)) == {None}


def test_whole_numbers_are_numbers_and_other_columns_stay():
    rows = pl.DataFrame(
        {"symbol": ["X"], "type": "C", "spot": 100, "strike": 100, "t_years": 1, "iv": 0.2, "rate": 0, "dividend": 0}
    )
    found = greeks(rows).row(0, named=True)
    assert found["price"] == pytest.approx(100 * math.erf(0.1 / math.sqrt(2)), rel=1e-14)
    assert found["symbol"] == "X"


def random_options(rows=10_000, seed=3):
    chance = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "symbol": chance.choice(["A", "B"], rows),
            "type": chance.choice(["C", "P"], rows),
            "spot": 100.0,
            "strike": chance.uniform(50, 150, rows),
            "t_years": chance.uniform(-0.1, 2, rows),
            "iv": chance.uniform(-0.05, 0.8, rows),
            "rate": 0.04,
            "dividend": 0.01,
        }
    )


def test_rows_do_not_know_one_another():
    rows = random_options()
    whole = greeks(rows)
    parts = pl.concat([greeks(part) for part in (rows[:1], rows[1:4_097], rows[4_097:])])
    assert_frame_equal(whole, parts, check_exact=True)
    assert_frame_equal(greeks(rows.reverse()).reverse(), whole, check_exact=True)
    by_symbol = {name[0]: greeks(part) for name, part in rows.group_by("symbol")}
    for symbol, part in by_symbol.items():
        assert_frame_equal(whole.filter(pl.col("symbol") == symbol), part, check_exact=True)


def test_two_runs_give_identical_bytes():
    assert ipc_bytes(greeks(random_options())) == ipc_bytes(greeks(random_options()))


def chain(*rows):
    """Return a chain of contracts that settle half a year of 365 days after the snapshot."""
    good = {
        "ts_event": 0,
        "ts_recv": 5,
        "symbol": "X",
        "venue": "cboe",
        "type": "C",
        "strike": 40.0,
        "underlying_price": 42.0,
        "iv": 0.2,
        "ts_expiry": 365 * 12 * HOUR,
    }
    full = [{**good, "contract": f"X{number}", "expiry": 182, **row} for number, row in enumerate(rows)]
    schema = polars_schema(OptionChain)
    numbers = {
        name: pl.Int64 if dtype == schema["ts_event"] else pl.Int32 if dtype == pl.Date else dtype
        for name, dtype in schema.items()
    }
    frame = conformed(OptionChain, pl.DataFrame(full, schema=numbers, strict=False).cast(dict(schema)))
    return with_volatility(frame.with_columns(rate=pl.lit(0.1), dividend=pl.lit(0.0)))


VENUE = {"delta": 0.78, "gamma": 0.05, "vega": 0.088, "theta": -0.0125}


def contract(**row):
    (found,) = validated(OptionGreeks, chain_greeks(chain(row))).to_dicts()
    return found


def test_a_chain_without_greeks_gets_the_models():
    # Hull's example: S 42, K 40, r 10 %, vol 20 %, half a year: 4.76.
    found = contract()
    assert (found["source"], found["status"], found["t_years"]) == ("model", "ok", 0.5)
    assert found["model_price"] == pytest.approx(4.759422392871533, rel=1e-12)
    assert found["delta"] == pytest.approx(0.779131290942669, rel=1e-12)
    assert found["theta_per_year"] == pytest.approx(-4.559092194592626, rel=1e-12)


def test_the_venues_greeks_win_in_our_units():
    found = contract(**VENUE)
    assert (found["source"], found["delta"], found["gamma"]) == ("venue", 0.78, 0.05)
    assert found["vega"] == pytest.approx(8.8, rel=1e-14)  # 0.088 per point
    assert found["theta_per_year"] == pytest.approx(-4.5625, rel=1e-14)  # -0.0125 per day
    assert found["vanna"] == pytest.approx(-0.9316006786136685, rel=1e-9)


@pytest.mark.parametrize(
    "broken",
    [
        *({"delta": bad} for bad in (None, math.nan, math.inf, 1.01, -0.1)),
        *({"gamma": bad} for bad in (None, math.nan, math.inf, 0.0, 1.01, -0.1)),
        {"type": "P", "delta": 0.2},
        {"type": "P", "delta": -1.01},
    ],
    ids=str,
)
def test_a_venues_greeks_out_of_range_lose_together(broken):
    found = contract(**{**VENUE, **broken})
    model = contract(type=broken.get("type", "C"))
    assert found == model
    assert found["source"] == "model"


def test_the_bounds_belong_to_the_range():
    assert contract(delta=1.0, gamma=1.0)["source"] == "venue"
    assert contract(type="P", delta=-1.0, gamma=1e-6)["source"] == "venue"
    assert contract(delta=0.0, gamma=0.0001)["source"] == "venue"


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_vega_and_theta_that_a_venue_does_not_give_are_the_models(bad):
    found = contract(**{**VENUE, "vega": bad, "theta": bad})
    assert found["source"] == "venue"
    assert found["vega"] == pytest.approx(8.813415059602852, rel=1e-9)
    assert found["theta_per_year"] == pytest.approx(-4.559092194592626, rel=1e-9)


def test_the_venues_greeks_stand_where_its_volatility_is_missing():
    found = contract(**{**VENUE, "iv": None})
    assert (found["source"], found["status"], found["delta"], found["gamma"]) == ("venue", "no_data", 0.78, 0.05)
    assert [found[name] for name in ("iv", "model_price", "rho", "vanna", "charm_per_year")] == [None] * 5


def test_without_a_volatility_the_mid_implies_one():
    found = contract(iv=None, bid=4.709422392871533, ask=4.809422392871533)
    assert (found["iv_source"], found["source"], found["status"]) == ("model", "model", "ok")
    assert found["iv"] == pytest.approx(0.2, rel=1e-9)
    assert found["delta"] == pytest.approx(0.779131290942669, rel=1e-9)
    assert contract(bid=1.0, ask=2.0)["iv_source"] == "venue"


@pytest.mark.parametrize(
    ("quotes", "status"),
    [
        ({"bid": 4.0}, "one_sided"),
        ({"ask": 4.0}, "one_sided"),
        ({"bid": 5.0, "ask": 4.0}, "crossed"),
        ({"bid": 0.5, "ask": 0.6}, "below_intrinsic"),
        ({"bid": 42.0, "ask": 43.0}, "above_bound"),
    ],
    ids=str,
)
def test_why_there_is_no_volatility_is_told(quotes, status):
    found = contract(iv=0.0, **quotes)
    assert (found["status"], found["iv"], found["iv_source"], found["delta"]) == (status, None, None, None)


@pytest.mark.parametrize(
    ("broken", "status"),
    [
        ({"ts_expiry": 0}, "expired"),
        ({"ts_event": 366 * 12 * HOUR}, "expired"),
        ({"underlying_price": None}, "invalid_spot"),
    ],
    ids=str,
)
def test_a_venues_greeks_of_what_has_no_value_count_for_nothing(broken, status):
    found = contract(**{**VENUE, **broken})
    assert (found["status"], found["source"]) == (status, None)
    assert [found[name] for name in ("delta", "gamma", "vega", "theta_per_year", "model_price")] == [None] * 5


def test_an_empty_chain_has_no_greeks():
    rates = with_volatility(empty(OptionChain).with_columns(rate=pl.lit(0.0), dividend=pl.lit(0.0)))
    assert_frame_equal(chain_greeks(rates), empty(OptionGreeks))


def test_ts_known_is_the_receipt_and_rows_keep_their_order():
    found = chain_greeks(chain({"strike": 50.0}, {"ts_recv": None}, {"symbol": "W", "ts_event": HOUR}))
    assert found.get_column("contract").to_list() == ["X0", "X1", "X2"]
    assert found.get_column("ts_known").dt.epoch("ns").to_list() == [5, None, 5]
    assert found.schema == polars_schema(OptionGreeks)
