"""What the TCA report reduces one date to: numbers against plain sums over a seeded date, and hand-made ones."""

import json
import math
import random
import statistics
from datetime import timedelta

import polars as pl
import pytest

from quant_platform.contracts.execution import TcaOrder
from quant_platform.reports.daily_tca import latest, render
from quant_platform.reports.tca_digest import BENCHMARKS, HORIZONS, PARTS, WORST_SHOWN, chart_instants, worst_orders
from quant_platform.reports.tca_verdict import headline
from quant_platform_tests.unit.reports.tca_report_frames import (
    NOTHING,
    fill,
    framed,
    order,
    real_day,
    tca_day,
)
from quant_platform_tests.unit.reports.test_daily_market import Page

FRAMES = ("orders", "fills", "quality", "algos", "venues", "impact", "impact_fits", "paths", "ranges", "quarantine")
MINUS = "\N{MINUS SIGN}"
EXAMPLE = order()


def empty_day(**changes):
    return tca_day(**(dict.fromkeys(FRAMES, NOTHING) | changes))


def by(frame, key):
    return {row[key]: row for row in frame.iter_rows(named=True)}


def weighted(pairs):
    known = [(weight, value) for weight, value in pairs if value is not None and weight]
    return sum(w * v for w, v in known) / sum(w for w, _ in known)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_cost_by_benchmark_is_the_plain_weighted_mean(benchmark):
    day = real_day()
    rows = [r for r in day.orders.iter_rows(named=True) if r[f"{benchmark}_cost_bps"] is not None]
    weights = [r["filled_quantity"] * r["avg_price"] for r in rows]
    costs = [r[f"{benchmark}_cost_bps"] for r in rows]
    shown = by(day.digest.benchmarks, "benchmark")[benchmark]
    assert shown["orders"] == len(rows)
    assert shown["cost_bps"] == pytest.approx(weighted(zip(weights, costs, strict=True)), rel=1e-12)
    assert shown["median_bps"] == pytest.approx(statistics.median(costs), rel=1e-12)
    paid = sum(r["side"] * r["filled_quantity"] * (r["avg_price"] - r[f"{benchmark}_price"]) for r in rows)
    assert shown["paid"] == pytest.approx(paid, rel=1e-9)
    assert shown["low_bps"] < shown["cost_bps"] < shown["high_bps"]


def test_interval_is_near_that_of_a_plain_bootstrap():
    day, rng = real_day(), random.Random(1)
    rows = [r for r in day.orders.iter_rows(named=True) if r["vwap_cost_bps"] is not None]
    pairs = [(r["filled_quantity"] * r["avg_price"], r["vwap_cost_bps"]) for r in rows]
    means = sorted(weighted(rng.choices(pairs, k=len(pairs))) for _ in range(400))
    shown = by(day.digest.benchmarks, "benchmark")["vwap"]
    width = means[389] - means[10]
    assert shown["high_bps"] - shown["low_bps"] == pytest.approx(width, rel=0.2)
    assert shown["low_bps"] == pytest.approx(means[10], abs=0.2 * width)


def test_cost_beyond_expected_is_the_last_row():
    shown = tca_day().digest.benchmarks.row(-1, named=True)
    assert shown["benchmark"] == "expected"
    assert shown["cost_bps"] == pytest.approx(EXAMPLE["arrival_cost_bps"] - 1.0)
    assert shown["paid"] == pytest.approx((100.05 - 100.02 - 100.02e-4) * 10)


def test_shortfall_of_one_order_worked_by_hand():
    shown = by(tca_day().digest.shortfall, "part")
    # Decided 10 x 100 = 1000. Paper: 10 x 0.10 = 1.0; delay 0.2, trading 0.3, fees 0.1; realised 0.4.
    expected = {"paper": 1.0, "delay": 0.2, "trading": 0.3, "opportunity": 0.0, "fees": 0.1, "realised": 0.4}
    for part, money in (expected | {"shortfall": 0.6}).items():
        assert shown[part]["money"] == pytest.approx(money, abs=1e-9)
        assert shown[part]["bps"] == pytest.approx(money * 10, abs=1e-8)
        assert (shown[part]["orders"], shown[part]["low_bps"]) == (1, None)


def test_shortfall_parts_sum_and_lead_from_paper_to_realised():
    shown = by(real_day().digest.shortfall, "part")
    for unit in ("bps", "money"):
        total = math.fsum(shown[part][unit] for part in PARTS)
        assert total == pytest.approx(shown["shortfall"][unit], rel=1e-9)
        assert shown["paper"][unit] - total == pytest.approx(shown["realised"][unit], rel=1e-9)


def test_shortfall_leaves_out_orders_that_lack_a_part():
    without = [order(2, arrival_price=None, reasons="no_arrival"), order(3, cancel_price=None)]
    day = tca_day([order(), *without])
    assert day.digest.shortfall["orders"].to_list() == [1] * 7
    assert (
        "1 of 3 orders: those whose parts, and a price for what did not fill, are all known."
        in Page(render(day)).paragraphs
    )


def test_markouts_are_plain_weighted_means_by_venue_and_liquidity():
    day = real_day()
    rows = list(day.fills.iter_rows(named=True))
    shown = {(r["by"], r["group"], r["horizon"]): r for r in day.digest.markouts.iter_rows(named=True)}
    for key, column, group in (
        ("all", None, "All"),
        ("venue", "venue", "deribit"),
        ("liquidity", "liquidity", "maker"),
    ):
        own = [r for r in rows if column is None or r[column] == group]
        for horizon in HORIZONS:
            wanted = weighted((r["price"] * r["quantity"], r[f"markout_{horizon}_bps"]) for r in own)
            assert shown[key, group, horizon]["markout_bps"] == pytest.approx(wanted, rel=1e-9)
            assert shown[key, group, horizon]["fills"] == len(own)


def test_splitting_a_fill_changes_no_markout_and_no_interval():
    fills = [fill(n, f"o{n}", markout_5s_bps=float(n)) for n in range(1, 13)]
    halves = [f | {"fill_id": f"{f['fill_id']}{half}", "quantity": 5.0} for f in fills for half in "ab"]
    whole, split = (tca_day(fills=rows).digest.markouts.drop("fills") for rows in (fills, halves))
    assert whole.equals(split)


def test_an_interval_needs_ten_orders():
    nine, ten = ([order(n, avg_price=100.05 + n / 100) for n in range(count)] for count in (9, 10))
    assert tca_day(nine).digest.benchmarks["low_bps"].is_null().all()
    arrival = tca_day(ten).digest.benchmarks.row(0, named=True)
    assert arrival["low_bps"] < arrival["cost_bps"] < arrival["high_bps"]


def test_interval_of_many_orders_is_as_wide_as_the_spread_of_their_mean():
    rng = random.Random(2)
    rows = [order(0, order_id=f"o{n:04d}", vwap_cost_bps=rng.gauss(1, 5)) for n in range(2_500)]
    shown = by(tca_day(rows).digest.benchmarks, "benchmark")["vwap"]
    width = 2 * 1.96 * 5 / math.sqrt(2_500)  # all weigh the same
    assert shown["high_bps"] - shown["low_bps"] == pytest.approx(width, rel=0.2)


def test_fill_rates_by_notional_and_the_median_time_to_fill():
    half = order(2, filled_quantity=5.0)
    shown = by(tca_day([EXAMPLE, half]).digest.fill_times, "group")
    assert set(shown) == {"All", "VWAP"}
    assert shown["All"]["fill_rate"] == pytest.approx(0.75)
    assert (shown["All"]["fill_rate_orders"], shown["All"]["any_fill_orders"]) == (0.5, 1.0)
    assert (shown["All"]["filled"], shown["All"]["censored"], shown["All"]["median_s"]) == (1, 1, 180.0)


def test_worst_orders_are_those_that_paid_most_money():
    large = order(2, quantity=1000.0, filled_quantity=1000.0, avg_price=100.03)  # 10 paid, at 1 bp
    gain = order(3, avg_price=99.0)
    ties = [order(n) for n in (5, 4)]
    ids = worst_orders(framed(TcaOrder, [*ties, gain, large, order(6, status="unfinished")]))["order_id"].to_list()
    assert ids == ["o2", "o4", "o5"]
    assert worst_orders(real_day().orders).height == WORST_SHOWN


def test_chart_instants_span_the_order_and_a_margin():
    instants = chart_instants(framed(TcaOrder, [EXAMPLE]))["ts_event"]
    margin = timedelta(minutes=4) * 0.2
    assert instants[0] == EXAMPLE["ts_event"] - margin
    assert instants[-1] == EXAMPLE["ts_done"] + margin
    assert instants.is_sorted()
    assert chart_instants(framed(TcaOrder, [])).height == 0
    short = order(ts_done=EXAMPLE["ts_event"], ts_last_fill=EXAMPLE["ts_event"])
    assert chart_instants(framed(TcaOrder, [short]))["ts_event"][0] == EXAMPLE["ts_event"] - timedelta(seconds=30)


def test_headline_is_small_json():
    day = real_day()
    numbers = headline(day)
    assert json.loads(json.dumps(latest(day, "somewhere.html"), allow_nan=False)) == {
        "path": "somewhere.html",
        "date": "2024-08-08",
        "headline": numbers,
    }
    notional = sum((r["filled_quantity"] or 0) * (r["avg_price"] or 0) for r in day.orders.iter_rows(named=True))
    assert numbers["notional"] == pytest.approx(notional)
    assert (numbers["orders"], numbers["fills"], numbers["revised_orders"]) == (240, day.fills.height, 3)
    assert numbers["largest_part"] in PARTS
    nothing = headline(empty_day())
    assert (nothing["orders"], nothing["notional"], nothing["arrival_cost_bps"], nothing["largest_part"]) == (
        0,
        None,
        None,
        None,
    )


def test_rows_in_any_order_give_the_same_bytes():
    day = real_day()
    turned = tca_day(**{name: getattr(day, name).sample(fraction=1, shuffle=True, seed=3) for name in FRAMES})
    again = tca_day(**{name: getattr(day, name) for name in FRAMES})
    assert render(turned) == render(again)


def test_scaling_all_quantities_leaves_bps_and_intervals():
    rows = [order(n, avg_price=100.0 + n / 50) for n in range(12)]
    double = [order(n, avg_price=100.0 + n / 50, quantity=20.0, filled_quantity=20.0, fees=0.2) for n in range(12)]
    one, two = (tca_day(each).digest for each in (rows, double))
    bps = ["cost_bps", "low_bps", "high_bps", "median_bps"]
    for before, after in zip(one.benchmarks[bps].rows(), two.benchmarks[bps].rows(), strict=True):
        assert after == pytest.approx(before, rel=1e-12) if before[0] is not None else after == before
    assert (two.shortfall["money"] / one.shortfall["money"]).drop_nans().to_list() == pytest.approx([2.0] * 6)


def test_not_a_number_is_null():
    day = tca_day([order(2, arrival_cost_bps=float("nan"), vwap_cost_bps=float("inf"))])
    assert day.digest.benchmarks.filter(pl.col("benchmark").is_in(["arrival", "vwap"]))["cost_bps"].null_count() == 2


def test_frame_without_a_column_is_refused_by_name():
    with pytest.raises(ValueError, match=r"frame 'ranges' of a daily TCA report lacks: high"):
        tca_day(ranges=pl.DataFrame({"symbol": ["AAA"], "low": [1.0]}))
