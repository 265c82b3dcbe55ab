"""Impact by hand, the square-root oracle, fits on data that keep a law, and the edge matrix."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import _power_law, _student_t, impact
from quant_platform.calculators.impact import ImpactParams
from quant_platform.contracts._schema import INSTANT, empty, polars_schema, validated
from quant_platform.contracts.scorecards import Impact, ImpactFit
from quant_platform_tests.unit.desk_frames import MONDAY, SECOND, orders
from quant_platform_tests.unit.ipc import ipc_bytes
from quant_platform_tests.unit.tca_frames import mid_quotes, quotes, sessions

ORACLE = [
    case
    for case in json.loads(
        (Path(__file__).parents[2] / "golden" / "oracles" / "impact_quality_cases.json").read_text()
    )["cases"]
    if case["id"].startswith("sqrt")
]
DEFAULTS = ImpactParams()
LAST = MONDAY + timedelta(days=30)
VALUES = ("total_bps", "temporary_bps", "permanent_bps")


def settled(*rows, settled_price=100.05, adv=1_000.0, sigma_daily_bps=200.0):
    """Build orders with the mid after them, the volume and the volatility."""
    given = {"settled_price": settled_price, "adv": adv, "sigma_daily_bps": sigma_daily_bps}
    own = [{name: row.pop(name, value) for name, value in given.items()} for row in rows]
    return orders(*rows).hstack(pl.DataFrame(own, schema=dict.fromkeys(given, pl.Float64), strict=False))


def one(row=None, params=DEFAULTS, **given):
    return validated(Impact, impact.impact(settled(row or {}, **given), params)).row(0, named=True)


@pytest.mark.parametrize("case", ORACLE, ids=lambda case: case["id"])
def test_square_root_oracle(case):
    inputs = case["inputs"]
    frame = pl.DataFrame(
        {"q": [inputs["quantity"]], "adv": [inputs["adv"]], "sigma_daily_bps": [inputs["sigma_daily_bps"]]}
    )
    found = frame.select(impact.square_root_bps("q", ImpactParams(y=inputs["Y"]))).item()
    expected = case["expected"]["impact_bps"]
    assert found == (None if expected is None else pytest.approx(expected, **case["tolerance"]))


@pytest.mark.parametrize("name", ["q", "adv", "sigma_daily_bps"])
@pytest.mark.parametrize("bad", [None, 0.0, -1.0, math.nan, math.inf])
def test_the_square_root_law_needs_three_numbers_above_zero(name, bad):
    good = {"q": 10.0, "adv": 1000.0, "sigma_daily_bps": 200.0}
    frame = pl.DataFrame({key: [bad if key == name else value, value] for key, value in good.items()}, strict=False)
    assert frame.select(impact.square_root_bps("q")).to_series().to_list() == [None, pytest.approx(20.0)]


def test_the_parts_by_hand():
    # Bought at 100.1 with the mid at 100, which half an hour later is 100.05: 10 bps, of which 5 went back.
    found = one()
    assert [found[name] for name in VALUES] == pytest.approx([10.0, 5.0, 5.0])
    assert (found["baseline_bps"], found["participation"]) == (pytest.approx(200 * math.sqrt(0.01)), 0.01)
    assert (found["status"], found["baseline_status"]) == ("ok", "ok")
    assert found["ts_settled"].timestamp() == found["ts_known"].timestamp() == 1810
    sold = one({"side": -1})
    assert [sold[name] for name in VALUES] == pytest.approx([-10.0, -5.0, -5.0])


def test_the_horizon_and_the_factor_are_parameters():
    found = one(params=ImpactParams(settle_s=0.5, y=0.7))
    assert found["ts_settled"].timestamp() == 10.5
    assert found["ts_known"].timestamp() == 20  # the order itself was known later
    assert found["baseline_bps"] == pytest.approx(0.7 * 20)


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ({"side": 0}, "invalid_input"),
        ({"side": None}, "invalid_input"),
        ({"avg_price": -1.0}, "invalid_input"),
        ({"arrival_price": 0.0}, "invalid_input"),
        ({"settled_price": math.nan}, "invalid_input"),
        ({"filled_quantity": 0.0, "avg_price": None}, "no_data"),
        ({"filled_quantity": None}, "no_data"),
        ({"arrival_price": None}, "no_data"),
        ({"settled_price": None}, "no_data"),
        ({"avg_price": 1e308, "arrival_price": 1e-308}, "nan"),
    ],
)
def test_an_order_without_its_prices_has_nulls_and_says_why(row, status):
    good = settled({"order_id": "good"})
    found = impact.impact(pl.concat([settled(dict(row)), good]))
    bad, other = found.sort("order_id").rows(named=True)[::-1]
    assert (bad["status"], bad["temporary_bps"], bad["permanent_bps"]) == (status, None, None)
    assert other == one({"order_id": "good"})


def test_the_whole_cost_stands_where_only_the_mid_after_is_missing():
    found = one(settled_price=None)
    assert found["total_bps"] == pytest.approx(10.0)
    assert found["ts_known"].timestamp() == 20
    still_open = one({"ts_done": None}, settled_price=None)
    assert (still_open["ts_settled"], still_open["status"]) == (None, "no_data")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"adv": None}, "no_data"),
        ({"adv": 0.0}, "zero_volume"),
        ({"adv": -1.0}, "invalid_input"),
        ({"adv": math.nan}, "invalid_input"),
        ({"sigma_daily_bps": None}, "invalid_vol"),
        ({"sigma_daily_bps": 0.0}, "invalid_vol"),
        ({"adv": 1e-308, "sigma_daily_bps": 1e308}, "nan"),
    ],
)
def test_the_baseline_is_null_without_volume_or_volatility(given, status):
    found = one(**given)
    assert (found["baseline_bps"], found["baseline_status"], found["status"]) == (None, status, "ok")


def test_an_order_without_fills_has_no_baseline():
    found = one({"filled_quantity": 0.0, "avg_price": None})
    assert (found["baseline_status"], found["participation"], found["filled_quantity"]) == ("no_data", None, None)


def observed(number, *, seed, days=10, factor=0.8, exponent=0.6, noise=0.05, key="a"):
    """Build impacts that keep a power law in daily volatilities, half of them permanent."""
    random = np.random.default_rng(seed)
    size = np.exp(random.normal(-5, 1.5, number))
    sigma = random.choice([100.0, 300.0], number)
    total = sigma * (factor * size**exponent + random.normal(0, noise, number))
    permanent = sigma * (factor / 2 * size**exponent + random.normal(0, noise, number))
    return pl.DataFrame(
        {
            "symbol": key,
            "date": [MONDAY + timedelta(int(k)) for k in np.arange(number) * days // max(number, 1)],
            "participation": size,
            "sigma_daily_bps": sigma,
            "total_bps": total,
            "temporary_bps": total - permanent,
            "permanent_bps": permanent,
            "ts_known": datetime(2024, 8, 1, tzinfo=UTC),
        },
        schema_overrides={"symbol": pl.String, "date": pl.Date, "ts_known": INSTANT},
    )


def fitted(impacts, params=DEFAULTS):
    """Return the fits by group and measure."""
    found = validated(ImpactFit, impact.impact_fit(impacts, LAST, params))
    return {(row["symbol"], row["measure"]): row for row in found.iter_rows(named=True)}


def test_an_exact_law_is_found_with_no_doubt():
    found = fitted(observed(200, seed=1, noise=0.0))
    for measure, factor in (("total", 0.8), ("temporary", 0.4), ("permanent", 0.4)):
        row = found["a", measure]
        assert (row["y"], row["exponent"]) == (pytest.approx(factor), pytest.approx(0.6))
        assert row["exponent_high"] - row["exponent_low"] < 1e-8
        assert row["skill"] == pytest.approx(1.0)
        assert (row["orders"], row["days"], row["skill_orders"], row["status"]) == (200, 10, 60, "ok")


def test_intervals_hold_the_law_about_as_often_as_they_say():
    groups = [observed(300, seed=seed, days=12, noise=0.03, key=f"{seed:03}") for seed in range(150)]
    found = impact.impact_fit(pl.concat(groups), LAST, ImpactParams(confidence=0.9))
    total = found.filter(pl.col("measure") == "total", pl.col("symbol").is_not_null())
    for name, value in (("y", 0.8), ("exponent", 0.6)):
        share = total.select(pl.lit(value).is_between(pl.col(f"{name}_low"), pl.col(f"{name}_high")).mean()).item()
        assert 0.82 <= share <= 0.97


def test_half_widths_are_students_with_the_days_less_one():
    rows = observed(300, seed=3).sort("date", "participation")
    y = (rows["total_bps"] / rows["sigma_daily_bps"]).to_numpy()
    law = _power_law.fit(
        y, rows["participation"].to_numpy(), np.zeros(300, dtype=int), rows["date"].to_physical().to_numpy()
    )
    half = _student_t.critical(0.95, np.array([9]))[0] * law.exponent_error[0]
    found = fitted(rows)["a", "total"]
    assert (found["exponent_high"] - found["exponent"]) == pytest.approx(half, rel=1e-9)


def test_the_skill_is_that_of_earlier_days_on_later_ones():
    rows = observed(400, seed=5)
    later = rows.filter(pl.col("date") > MONDAY + timedelta(6))  # three of ten days: a quarter, rounded up
    earlier = rows.filter(pl.col("date") <= MONDAY + timedelta(6))
    law = fitted(earlier)["a", "total"]
    x = later["participation"].to_numpy()
    y = (later["total_bps"] / later["sigma_daily_bps"]).to_numpy()
    error = ((y - law["y"] * x ** law["exponent"]) ** 2).sum()
    baseline = ((y - law["square_root_y"] * np.sqrt(x)) ** 2).sum()
    found = fitted(rows)["a", "total"]
    assert found["skill"] == pytest.approx(1 - error / baseline, rel=1e-9)
    assert found["skill_orders"] == later.height


def test_what_comes_later_does_not_change_the_fit_that_is_judged():
    rows = observed(400, seed=6)
    is_later = pl.col("date") > MONDAY + timedelta(6)
    worse = rows.with_columns(total_bps=pl.when(is_later).then(-1e4).otherwise("total_bps"))
    assert fitted(worse)["a", "total"]["skill"] < 0.01 < fitted(rows)["a", "total"]["skill"]


def test_the_square_roots_own_factor():
    # Σ y√x ÷ Σ x of two sizes: (0.2·0.1 + 0.9·0.4) / (0.01 + 0.16)
    rows = observed(40, seed=7).with_columns(
        participation=pl.when(pl.int_range(40) % 2 == 0).then(0.01).otherwise(0.16),
        sigma_daily_bps=100.0,
        total_bps=pl.when(pl.int_range(40) % 2 == 0).then(20.0).otherwise(90.0),
    )
    assert fitted(rows)["a", "total"]["square_root_y"] == pytest.approx(0.38 / 0.17)


@pytest.mark.parametrize(
    ("rows", "status", "skill_status"),
    [
        (observed(29, seed=8), "too_few", "too_few"),
        (observed(100, seed=8, days=4), "too_few", "too_few"),
        (observed(50, seed=8, noise=0.01), "ok", "too_few"),
        (observed(200, seed=8).with_columns(participation=0.01), "constant", "constant"),
        (observed(200, seed=8, exponent=3.0, noise=0.0), "above_bound", "above_bound"),
        (observed(200, seed=8).with_columns(total_bps=None), "no_data", "no_data"),
        (observed(200, seed=8, factor=1e305, exponent=1.5, noise=0.0), "nan", "nan"),
    ],
)
def test_a_fit_that_cannot_be_made_is_null_and_says_why(rows, status, skill_status):
    found = fitted(rows)["a", "total"]
    assert (found["status"], found["skill_status"]) == (status, skill_status)
    values = ("y", "y_low", "y_high", "exponent", "exponent_low", "exponent_high")
    assert all((found[name] is None) == (status != "ok") for name in values)
    assert found["skill"] is None
    assert (found["square_root_y"] is None) == (status in ("too_few", "no_data"))


def test_a_perfect_square_root_leaves_nothing_to_gain():
    found = fitted(observed(200, seed=8, exponent=0.5, noise=0.0).with_columns(total_bps=0.0))["a", "total"]
    assert (found["skill"], found["skill_status"]) == (None, "above_bound")


def test_rows_that_are_none_are_left_out_and_groups_do_not_know_each_other():
    a, b = observed(200, seed=9), observed(150, seed=10, key="b")
    bad = a.head(4).with_columns(
        total_bps=pl.Series([math.nan, None, math.inf, 1.0]),
        participation=pl.Series([0.1, 0.1, 0.1, 0.0]),
        temporary_bps=None,
        permanent_bps=None,
        date=pl.lit(MONDAY),
    )
    nowhen = a.head(1).with_columns(date=None)
    found = impact.impact_fit(pl.concat([b, bad, nowhen, a]).sample(fraction=1, shuffle=True, seed=1), LAST)
    apart = [impact.impact_fit(each, LAST) for each in (a, b)]
    of_symbols = [each.filter(pl.col("symbol").is_not_null()) for each in (found, *apart)]
    assert_frame_equal(of_symbols[0], pl.concat(of_symbols[1:]))
    together = pl.concat([a, b]).with_columns(symbol=pl.lit("all"))
    of_all = impact.impact_fit(together, LAST).filter(pl.col("symbol") == "all")
    assert_frame_equal(found.filter(pl.col("symbol").is_null()).drop("symbol"), of_all.drop("symbol"))
    assert set(found["date"]) == {LAST}


def test_no_orders_give_no_rows_with_the_right_dtypes():
    assert_frame_equal(impact.impact(settled()), empty(Impact))
    found = impact.impact_fit(observed(0, seed=0), LAST)
    assert found.is_empty()
    assert found.schema == polars_schema(ImpactFit)


def test_any_row_order_gives_identical_bytes():
    rows = settled(*({"avg_price": 100 + k / 90, "ts_event": k % 7, "symbol": "XY"[k % 2]} for k in range(50)))
    assert ipc_bytes(impact.impact(rows)) == ipc_bytes(impact.impact(rows.sample(fraction=1, shuffle=True, seed=2)))
    impacts = observed(300, seed=12)
    shuffled = impacts.sample(fraction=1, shuffle=True, seed=2)
    assert ipc_bytes(impact.impact_fit(impacts, LAST)) == ipc_bytes(impact.impact_fit(shuffled, LAST))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"settle_s": 0.0}, "settle_s must be > 0 and finite, was 0.0"),
        ({"y": math.inf}, "y must be > 0 and finite, was inf"),
        ({"min_orders": 2}, "min_orders must be >= 3, one more than the parameters, was 2"),
        ({"min_days": 1}, "min_days must be >= 2, was 1"),
        ({"holdout": 1.0}, "holdout must be between 0 and 1, was 1.0"),
        ({"confidence": 0.0}, "confidence must be between 0 and 1, was 0.0"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ImpactParams(**wrong)


# What `impact` wants of the market beside the orders; the default order ends after 10 s, and settles after 1810 s.

MADE = ("settled_price", "adv", "sigma_daily_bps")
MINUTES = {"symbol": pl.String, "date": pl.Date, "close": pl.Float64, "volume": pl.Float64}


def minutes(*rows):
    """Build one-minute bars from (symbol, days after Monday, close, volume)."""
    dated = [(symbol, MONDAY + timedelta(day), close, volume) for symbol, day, close, volume in rows]
    return pl.DataFrame(dated, schema=MINUTES, orient="row")


def marketed(*rows, quotes, sessions, bars=(), params=DEFAULTS):
    return impact.with_market(orders(*rows), quotes, sessions, minutes(*bars), params).rows(named=True)


def test_the_mid_after_an_order_is_the_one_in_force_when_it_settles():
    quotes = mid_quotes((0, 100), (1809, 101), (1810, 102), (1811, 103))
    (found,) = marketed({}, quotes=quotes, sessions=sessions((0, 5000)))
    assert found["settled_price"] == 102
    late = mid_quotes((0, 100), (5, 101), (4000, 103))  # no quote for an hour: the last one stands
    assert marketed({}, quotes=late, sessions=sessions((0, 5000)))[0]["settled_price"] == 101
    soon = ImpactParams(settle_s=0.5)
    assert marketed({}, quotes=quotes, sessions=sessions((0, 5000)), params=soon)[0]["settled_price"] == 100


@pytest.mark.parametrize(
    ("last_quote", "hours", "ts_done", "is_known"),
    [
        (1810, [(0, 5000)], 10, True),
        (1809.5, [(0, 5000)], 10, False),  # the data end before
        (5000, [(0, 1810)], 10, True),
        (5000, [(0, 1809.5)], 10, False),  # the session closes before
        (5000, [(0, 1000), (1200, 5000)], 10, False),  # the next session has a mid, which is another day's
        (5000, [(0, 1000), (1200, 5000)], 1200, True),
        (5000, [(0, 1000), (1200, 5000)], 1100, False),  # it ended between two sessions
        (5000, [(20, 5000)], 10, False),  # and this one before the first
        (5000, [], 10, False),
        (5000, [(0, 5000)], None, False),  # and this one is open
    ],
)
def test_there_is_no_mid_after_an_order_past_the_data_or_the_close(last_quote, hours, ts_done, is_known):
    done = None if ts_done is None else ts_done * SECOND
    quotes = mid_quotes((0, 100), (last_quote, 101))
    (found,) = marketed({"ts_done": done}, quotes=quotes, sessions=sessions(*hours))
    assert (found["settled_price"] is not None) == is_known


def test_volume_and_volatility_by_hand():
    # 100 → 110 → 100, 50 → 55, and one close: three returns of ±ln 1.1, and none from one date to the next.
    first = [("X", 0, 100.0, 1.0), ("X", 0, 110.0, 2.0), ("X", 0, 100.0, 3.0)]
    later = [("X", 1, 50.0, 10.0), ("X", 1, 55.0, 20.0), ("X", 2, 70.0, 300.0)]
    (found,) = marketed({}, quotes=mid_quotes(), sessions=sessions(), bars=first + later)
    assert found["adv"] == pytest.approx((6 + 30 + 300) / 3)
    assert found["sigma_daily_bps"] == pytest.approx(math.sqrt((2 + 1 + 0) / 3) * math.log(1.1) * 1e4)
    (alone,) = marketed({}, quotes=mid_quotes(), sessions=sessions(), bars=first[:1])
    assert (alone["adv"], alone["sigma_daily_bps"]) == (1.0, 0.0)


def test_symbols_do_not_know_each_other():
    both = {
        "X": (100.0, [("X", 0, 100.0, 1.0), ("X", 0, 101.0, 1.0), ("X", 1, 100.0, 4.0)]),
        "Y": (7.0, [("Y", 0, 50.0, 3.0), ("Y", 1, 60.0, 5.0), ("Y", 1, 50.0, 9.0)]),
    }
    quoted = {
        symbol: quotes(
            *({"symbol": symbol, "ts_event": at, "bid_price": p - 1, "ask_price": p + 1} for at in (0, 4000))
        )
        for symbol, (p, _) in both.items()
    }
    hours = {"X": {"ts_open": 0, "ts_close": 5000}, "Y": {"symbol": "Y", "ts_open": 0, "ts_close": 5000}}
    alone = {
        symbol: marketed({"symbol": symbol}, quotes=quoted[symbol], sessions=sessions(hours[symbol]), bars=bars)[0]
        for symbol, (_, bars) in both.items()
    }
    rows = [{"symbol": s, "ts_done": at * SECOND} for s, at in zip("YZXYX", (30, 10, 20, 10, 9000), strict=True)]
    mixed = [bar for pair in zip(both["X"][1], both["Y"][1], strict=True) for bar in pair]
    found = marketed(
        *rows, quotes=pl.concat(quoted.values()), sessions=sessions(*hours.values(), {**hours["Y"], "symbol": "Z"}),
        bars=mixed,
    )  # fmt: skip
    assert [row["symbol"] for row in found] == list("YZXYX")
    for row in found:
        expected = alone.get(row["symbol"], dict.fromkeys(MADE))
        assert [row[name] for name in MADE[1:]] == [expected[name] for name in MADE[1:]]
    assert [row["settled_price"] for row in found] == [7.0, None, 100.0, 7.0, None]


def test_no_orders_and_no_market_leave_the_columns_in_place():
    nothing = impact.with_market(orders(), quotes(), sessions(), minutes())
    assert nothing.schema == pl.Schema({**orders().schema, **dict.fromkeys(MADE, pl.Float64())})
    assert nothing.is_empty()
    alone = impact.with_market(orders({}), quotes(), sessions(), minutes())
    assert_frame_equal(alone.drop(MADE), orders({}))
    assert alone.select(MADE).row(0) == (None, None, None)
    assert impact.impact(alone)["baseline_status"].item() == "no_data"


def test_volume_and_volatility_are_the_same_to_the_last_digit_each_time():
    random, symbols, days = np.random.default_rng(4), 40, 20
    number = symbols * days * 30
    place = np.arange(number)
    bars = pl.DataFrame(
        {
            "symbol": [f"S{n}" for n in place // (days * 30)],
            "date": [MONDAY + timedelta(int(n)) for n in place // 30 % days],
            "close": random.uniform(90, 110, number),
            "volume": random.uniform(0, 1, number),
        }
    )
    own = orders(*({"symbol": f"S{n}"} for n in range(symbols)))
    once, *more = (impact.with_market(own, quotes(), sessions(), bars) for _ in range(10))
    for again in more:
        assert again.equals(once)
