"""Scorecards against plain loops over their cells, suppression and its words, and the edge matrix."""

import math
from datetime import date, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import _clusters, _student_t, scorecards
from quant_platform.calculators._clusters import ClusterSums
from quant_platform.calculators.scorecards import ScorecardParams
from quant_platform.contracts._schema import empty, validated
from quant_platform.contracts.scorecards import AlgoScorecard, VenueScorecard
from quant_platform_tests.unit.desk_frames import MONDAY, desk, fills, orders, quality
from quant_platform_tests.unit.ipc import ipc_bytes

ANY = ScorecardParams(min_orders=1)
STATISTICS = (
    "arrival_cost_bps",
    "quoted_spread_bps",
    "effective_spread_bps",
    "e_over_q",
    "fill_rate",
    "fill_rate_orders",
    "any_fill_orders",
    "quality_score",
    "excess_cost_bps",
    "excess_t",
    "excess_low_bps",
    "p_value",
    "q_value",
    "is_discovery",
)


def algos(rows, scored=None, params=ANY):
    return validated(AlgoScorecard, scorecards.algo_scorecard(rows, quality() if scored is None else scored, params))


def venues(done, placed, params=ANY):
    return validated(VenueScorecard, scorecards.venue_scorecard(done, placed, params))


def cell(card, **names):
    return card.row(by_predicate=pl.all_horizontal(pl.col(k).eq_missing(v) for k, v in names.items()), named=True)


def week(card, member="twap", dimension="algo"):
    return cell(card, dimension=dimension, member=member, period="week", period_start=MONDAY)


def mean(values):
    return sum(values) / len(values)


def test_a_cell_by_hand():
    rows = orders(
        {"filled_quantity": 10.0, "avg_price": 101.0, "arrival_cost_bps": 100.0, "expected_cost_bps": 60.0},
        {"filled_quantity": 5.0, "avg_price": 102.0, "arrival_cost_bps": 200.0, "expected_cost_bps": 220.0},
        {"filled_quantity": 0.0, "avg_price": None, "arrival_cost_bps": None},
        {"filled_quantity": 10.0, "avg_price": 100.0, "algo": "vwap"},
    )
    scored = quality(
        {"score": 0.8, "quoted_spread_bps": 2.0, "effective_spread_bps": 2.0, "markout_5s_bps": 1.0},
        {"score": 0.4, "quoted_spread_bps": 4.0, "effective_spread_bps": 1.0},
        {"score": None},
    )
    found = week(algos(rows, scored))
    assert (found["orders"], found["symbols"], found["days"], found["notional"]) == (3, 1, 1, 1520.0)
    assert found["notional_share"] == pytest.approx(1520 / 2520)
    assert (found["fill_rate"], found["fill_rate_orders"], found["any_fill_orders"]) == pytest.approx(
        (0.5, 1 / 3, 2 / 3)
    )
    assert found["arrival_cost_bps"] == pytest.approx((1010 * 100 + 510 * 200) / 1520)
    assert found["quoted_spread_bps"] == pytest.approx((1010 * 2 + 510 * 4) / 1520)
    assert found["e_over_q"] == pytest.approx((1010 * 2 + 510 * 1) / (1010 * 2 + 510 * 4))
    assert found["markout_5s_bps"] == 1.0
    assert found["quality_score"] == pytest.approx(0.6)
    assert (found["excess_orders"], found["excess_cost_bps"]) == (2, pytest.approx((40 - 20) / 2))
    assert (found["status"], found["excess_status"], found["inference_status"]) == ("ok", "ok", "too_few")
    assert (found["excess_t"], found["excess_low_bps"], found["q_value"], found["is_discovery"]) == (None,) * 4
    assert found["ts_known"].timestamp() == 25


def test_an_order_without_an_arrival_is_weighed_at_its_decision():
    rows = orders(
        {"arrival_price": None, "decision_price": 50.0, "filled_quantity": 0.0},
        {"arrival_price": 150.0},
        {"arrival_price": None, "decision_price": None, "filled_quantity": 0.0},
    )
    assert week(algos(rows))["fill_rate"] == pytest.approx(1500 / 2000)


def test_periods_begin_with_the_date_the_monday_and_the_first():
    found = algos(orders({"date": date(2026, 3, 1)}, {"date": date(2026, 3, 4)}))
    starts = found.filter(pl.col("dimension") == "algo").select("period", "period_start", "orders").rows()
    assert starts == [
        ("day", date(2026, 3, 1), 1),
        ("day", date(2026, 3, 4), 1),
        ("month", date(2026, 3, 1), 2),
        ("week", date(2026, 2, 23), 1),
        ("week", date(2026, 3, 2), 1),
    ]


def test_orders_that_do_not_say_have_a_cell_of_their_own():
    found = algos(orders({"broker": None}, {}, {"broker": None}))
    assert week(found, None, "broker")["orders"] == 2
    shares = found.group_by("dimension", "period", "period_start").agg(pl.col("notional_share").sum())
    assert shares["notional_share"].to_list() == pytest.approx([1.0] * 9)


@pytest.mark.parametrize("seed", [1, 2])
def test_excess_costs_equal_plain_loops_and_the_cluster_statistics(seed):
    rows = desk(600, seed=seed, effect=2.0)
    params = ScorecardParams(draws=200, seed=9)
    found = algos(rows, params=params)
    for row in found.filter(pl.col("period") == "month").iter_rows(named=True):
        own = rows.filter(pl.col(row["dimension"]).eq_missing(row["member"]), pl.col("arrival_cost_bps").is_not_null())
        values = {}
        for day, symbol, cost, expected in own.select(
            "date", "symbol", "arrival_cost_bps", "expected_cost_bps"
        ).iter_rows():
            values.setdefault((day.toordinal(), symbol), []).append(cost - expected)
        keys = sorted(values)
        assert row["excess_orders"] == own.height
        assert row["excess_cost_bps"] == pytest.approx(mean([v for each in values.values() for v in each]))
        day, symbol = (pl.Series([key[k] for key in keys]).rank("dense").to_numpy() for k in (0, 1))
        counts, totals = (pl.Series([f(values[key]) for key in keys]).to_numpy() for f in (len, math.fsum))
        sums = ClusterSums(0 * day.astype(int), day, symbol, counts, totals)
        means = _clusters.cluster_means(sums)
        low, high = _clusters.bootstrap_interval(sums, draws=200, confidence=0.95, seed=9)
        assert row["excess_std_error_bps"] == pytest.approx(means.std_error[0], rel=1e-9)
        assert (row["excess_t"], row["excess_degrees"]) == (pytest.approx(means.t[0], rel=1e-9), means.degrees[0])
        assert row["p_value"] == pytest.approx(_student_t.two_sided(means.t, means.degrees)[0], rel=1e-9)
        assert (row["excess_low_bps"], row["excess_high_bps"]) == pytest.approx((low[0], high[0]), rel=1e-9)
        assert row["inference_status"] == "ok"


def test_discoveries_are_among_the_cells_of_one_dimension_and_period():
    found = algos(desk(900, seed=3, algos=6, effect=3.0), params=ScorecardParams(false_discovery_rate=0.05))
    judged = found.filter(pl.col("p_value").is_not_null())
    assert judged["q_value"].null_count() == 0
    for _, family in judged.group_by("dimension", "period", "period_start"):
        p = sorted(family["p_value"])
        for p_value, q_value, is_discovery in family.select("p_value", "q_value", "is_discovery").iter_rows():
            expected = min(p[k] * len(p) / (k + 1) for k in range(len(p)) if p[k] >= p_value)
            assert q_value == pytest.approx(expected)
            assert is_discovery == (q_value <= 0.05)


def test_a_cell_of_too_few_orders_says_so_and_keeps_its_counts():
    rows = desk(40, seed=4, algos=1).with_columns(symbol=pl.lit("X"))
    found = week(algos(rows.head(29), params=ScorecardParams()), "a0")
    assert (found["status"], found["excess_status"], found["inference_status"]) == ("too_few",) * 3
    assert [found[name] for name in STATISTICS] == [None] * len(STATISTICS)
    assert found["orders"] > 0
    assert found["notional_share"] == 1.0


def test_thirty_orders_of_which_few_have_an_expected_cost():
    known = [{"date": MONDAY + timedelta(k % 6), "expected_cost_bps": 6.0 if k < 29 else None} for k in range(40)]
    found = week(algos(orders(*known), params=ScorecardParams()))
    assert (found["status"], found["excess_status"], found["excess_orders"]) == ("ok", "too_few", 29)
    assert found["fill_rate"] == 1.0
    none = week(algos(orders(*({"expected_cost_bps": None} for _ in range(40))), params=ScorecardParams()))
    assert (none["status"], none["excess_status"], none["excess_cost_bps"]) == ("ok", "no_data", None)


def test_what_a_mean_needs_for_its_error():
    varied = [{"date": MONDAY + timedelta(k % 5), "arrival_cost_bps": 3.0 + k} for k in range(40)]
    assert week(algos(orders(*varied), params=ScorecardParams()))["inference_status"] == "ok"
    days = [row | {"date": MONDAY + timedelta(k % 4)} for k, row in enumerate(varied)]
    assert week(algos(orders(*days), params=ScorecardParams()))["inference_status"] == "too_few"
    constant = [row | {"arrival_cost_bps": 0.1 + 0.2} for row in varied]
    found = week(algos(orders(*constant), params=ScorecardParams()))
    assert (found["inference_status"], found["excess_status"], found["p_value"]) == ("constant", "ok", None)
    huge = [row | {"arrival_cost_bps": 1e308} for row in varied]
    found = week(algos(orders(*huge, *varied), params=ScorecardParams()))
    assert (found["excess_status"], found["inference_status"], found["excess_cost_bps"]) == ("nan", "nan", None)
    wide = [row | {"arrival_cost_bps": 1e200 * k} for k, row in enumerate(varied)]
    found = week(algos(orders(*wide), params=ScorecardParams()))
    assert (found["excess_status"], found["inference_status"], found["excess_t"]) == ("ok", "nan", None)


def test_other_cells_do_not_change_a_cell_but_for_its_share_and_rank():
    rows = desk(400, seed=5)
    both = algos(rows)
    alone = algos(rows.filter(pl.col("algo") == "a1"))
    relative = ["notional_share", "q_value", "is_discovery"]
    own = pl.col("dimension") == "algo", pl.col("member") == "a1"
    assert_frame_equal(both.filter(*own).drop(relative), alone.filter(*own).drop(relative))


@pytest.mark.parametrize(
    "bad",
    [
        {"quantity": math.nan, "arrival_cost_bps": None},
        {"filled_quantity": None},
        {"arrival_cost_bps": math.inf},
        {"avg_price": -1.0},
    ],
)
def test_one_bad_order_among_good_ones_is_counted_and_in_no_mean(bad):
    good = [
        {"filled_quantity": 10.0, "date": MONDAY + timedelta(k % 6), "arrival_cost_bps": float(k)} for k in range(12)
    ]
    found, wanted = (week(algos(orders(*rows))) for rows in ([*good, bad | {"expected_cost_bps": None}], good))
    assert found["orders"] == wanted["orders"] + 1
    for name in ("excess_cost_bps", "excess_t", "arrival_cost_bps", "fill_rate"):
        assert found[name] == pytest.approx(wanted[name])


def test_an_order_without_a_date_or_a_symbol_is_in_no_cell():
    found = algos(orders({}, {"date": None}, {"symbol": None}))
    assert found.filter(pl.col("orders") != 1).is_empty()


def test_all_null_orders_have_a_cell_without_values():
    rows = orders({}).with_columns(
        pl.exclude("order_id", "date", "symbol", "ts_known").map_batches(lambda s: s.clear(1))
    )
    found = week(algos(rows), None)
    assert (found["orders"], found["notional"], found["status"], found["fill_rate"]) == (1, None, "ok", None)
    assert (found["excess_status"], found["notional_share"]) == ("no_data", None)


def test_what_an_order_filled_at_a_venue_is_one_observation():
    placed = orders({"expected_cost_bps": 6.0}, {"expected_cost_bps": 1.0})
    done = fills(
        {"price": 100.1, "quantity": 3.0, "effective_spread_bps": 4.0},
        {"price": 100.2, "quantity": 1.0, "liquidity": "maker"},
        {"price": 100.4, "quantity": 2.0, "venue": "south"},
        {"order_id": "o0001", "side": -1, "price": 99.9, "quantity": 2.0},
        {"order_id": None, "price": 100.0, "quantity": 5.0, "liquidity": None, "quoted_spread_bps": 8.0},
    )
    found = cell(venues(done, placed), venue="north", period="week", period_start=MONDAY)
    assert (found["orders"], found["fills"], found["symbols"]) == (2, 4, 1)
    # Bought 4 at 100.125 and sold 2 at 99.9, both from 100: 12.5 and 10 bps, 6.5 and 9 more than expected.
    assert found["excess_cost_bps"] == pytest.approx((6.5 + 9.0) / 2)
    notional = 300.3 + 100.2 + 199.8 + 500.0
    assert found["notional"] == pytest.approx(notional)
    assert found["notional_share"] == pytest.approx(notional / (notional + 200.8))
    assert found["effective_spread_bps"] == pytest.approx((300.3 * 4 + 800.0 * 2) / notional)
    assert found["quoted_spread_bps"] == pytest.approx((600.3 * 2 + 500 * 8) / notional)
    assert found["maker_share"] == pytest.approx(100.2 / 600.3)
    assert found["ts_known"].timestamp() == 30


def test_fills_are_of_the_date_of_their_order():
    late = fills({"date": MONDAY + timedelta(1)}, {"date": MONDAY + timedelta(1), "order_id": None})
    found = venues(late, orders({})).filter(pl.col("period") == "day")
    assert found.select("period_start", "orders", "fills").rows() == [
        (MONDAY, 1, 1),
        (MONDAY + timedelta(1), 0, 1),
    ]
    assert found["status"].to_list() == ["ok", "no_data"]


@pytest.mark.parametrize("bad", [{"price": math.nan}, {"quantity": 0.0}, {"price": None}, {"symbol": None}])
def test_a_fill_that_is_none_is_in_no_cell(bad):
    good = {"price": 100.1}
    found, wanted = (venues(fills(*rows), orders({})) for rows in ([good, bad], [good]))
    assert_frame_equal(found, wanted)


def test_an_order_without_an_arrival_has_no_excess_at_its_venues():
    found = venues(fills({}), orders({"arrival_price": None}))
    assert found["excess_status"].to_list() == ["no_data"] * 3
    assert found["arrival_cost_bps"].null_count() == 3


def test_any_row_order_gives_identical_bytes():
    rows = desk(500, seed=6)
    scored = quality(*({"score": (k % 11) / 11, "quoted_spread_bps": 1 + k / 9} for k in range(500)))
    done = fills(
        *(
            {"order_id": f"o{k % 500:04}", "venue": f"v{k % 4}", "price": 99 + k / 700, "quantity": 1 + k % 5}
            for k in range(1_500)
        )
    )

    def written(orders_, scored_, done_):
        cards = scorecards.algo_scorecard(orders_, scored_), scorecards.venue_scorecard(done_, orders_)
        return [ipc_bytes(card) for card in cards]

    frames = (rows, scored, done)
    shuffled = (frame.sample(fraction=1, shuffle=True, seed=7) for frame in frames)
    assert written(*frames) == written(*frames) == written(*shuffled)


def test_no_orders_give_no_rows_with_the_right_dtypes():
    assert_frame_equal(scorecards.algo_scorecard(orders(), quality()), empty(AlgoScorecard))
    assert_frame_equal(scorecards.venue_scorecard(fills(), orders()), empty(VenueScorecard))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_orders": 0}, "min_orders must be >= 1, was 0"),
        ({"min_days": 1}, "min_days must be >= 2, was 1"),
        ({"draws": 99}, "draws must be >= 100, was 99"),
        ({"seed": -1}, "seed must be >= 0, was -1"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, was 1.0"),
        ({"false_discovery_rate": 0.0}, "false_discovery_rate must be between 0 and 1, was 0.0"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ScorecardParams(**wrong)


def test_only_cells_of_the_periods_that_hold_a_date_are_shown():
    starts = {"day": ["2024-08-08", "2024-08-07"], "week": ["2024-08-05", "2024-07-29"], "month": ["2024-08-01"]}
    cells = pl.DataFrame(
        [{"period": period, "period_start": date.fromisoformat(one)} for period, days in starts.items() for one in days]
        + [{"period": "week", "period_start": date(2024, 8, 1)}]  # the month's first day is no week's
    )
    shown = scorecards.holding(date(2024, 8, 8), cells)
    assert shown.rows() == [
        ("day", date(2024, 8, 8)),
        ("week", date(2024, 8, 5)),
        ("month", date(2024, 8, 1)),
    ]
