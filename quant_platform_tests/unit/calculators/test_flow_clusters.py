"""Flow clusters: the oracle, a plain loop as second opinion, hand-made tapes, and the edge matrix."""

import itertools
import json
import math
import statistics
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import flow_clusters
from quant_platform.calculators.flow_clusters import FEATURES, STRATEGIES, FlowClustersParams
from quant_platform.calculators.sweeps import SweepParams
from quant_platform.contracts._schema import empty, polars_schema, validated
from quant_platform.contracts.microstructure import FlowClusters
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "flow_clusters_cases.json").read_text())
CASES = {case["id"]: case for case in ORACLE["cases"]}
MAPPINGS = [case for name, case in CASES.items() if name.startswith("mapping")]
MINUTE_MS = 60_000
MEANS = ("mean_size", "mean_notional", "mean_direction", "mean_abs_return")
ALWAYS = {"ts_open", "ts_event", "symbol", "last_trade_id", "samples", "status", "ts_known"}
VALUES = [name for name in polars_schema(FlowClusters) if name not in ALWAYS]
SMALL = FlowClustersParams(window_trades=40, min_trades=5, institutional_size=4.0)


def clusters(trades, params=None):
    frame = flow_clusters.step(flow_clusters.initial(), trades, params or FlowClustersParams())[1]
    return validated(FlowClusters, frame)


def last(frame):
    return frame.to_dicts()[-1]


def random_trades(seed, rows=260, symbol="BTCUSDT", first_id=0):
    """Several minutes of trades of a few sizes and ticks, often at one instant, and now and then a sweep."""
    random = np.random.default_rng(seed)
    ts_ms, price, side, trades = 0, 1_000, 1, []
    for number in range(rows):
        is_swept = random.random() < 0.4 and trades
        side = side if is_swept else int(random.integers(-1, 2))
        ts_ms += int(random.integers(0, 3)) if is_swept else int(random.integers(0, 2_500))
        price += side if is_swept else int(random.integers(-2, 3))
        trades.append(
            {
                "ts_ms": ts_ms,
                "recv_ms": ts_ms + int(random.integers(1, 400)),
                "symbol": symbol,
                "trade_id": first_id + number,
                "price": price / 8,
                "size": float(random.choice([0.25, 1.0, 5.0, 30.0])),
                "aggressor": side,
            }
        )
    return trades


def swept(trades, sweep):
    """Say which trades belong to a sweep that the last of them, or one before, completes: end by end."""
    found = [False] * len(trades)
    for end, newest in enumerate(trades):
        start = end
        while (
            start > 0
            and end - start + 2 <= sweep.window_trades
            and newest["ts_ms"] - trades[start - 1]["ts_ms"] <= sweep.window_ms
            and trades[start - 1]["aggressor"] == newest["aggressor"] != 0
            and (trades[start]["price"] - trades[start - 1]["price"]) * newest["aggressor"] >= 0
        ):
            start -= 1
        run = trades[start : end + 1]
        if newest["aggressor"] and len(run) >= 3 and len({trade["price"] for trade in run}) >= 3:
            found[start : end + 1] = [True] * len(run)
    return found


def loop_labels(points):
    """Farthest points, then Lloyd, one point after the other."""
    starts = [min(points)]
    for _ in range(2):
        starts.append(min(points, key=lambda point: (-min(math.dist(point, c) ** 2 for c in starts), point)))
    labels = None
    while True:
        nearest = [min(range(3), key=lambda k: (math.dist(point, starts[k]), k)) for point in points]
        if nearest == labels:
            return labels
        labels = nearest
        for k in set(labels):
            members = [point for point, label in zip(points, labels, strict=True) if label == k]
            starts[k] = tuple(map(statistics.fmean, zip(*members, strict=True)))


def expected(trades, params):
    """Compute one row from a symbol's trades up to the sample point, with loops."""
    is_swept = swept(trades, params.sweep)
    rows = []
    for k, trade in enumerate(trades):
        before = trades[k - 1] if k else trade
        change = trade["price"] / before["price"] - 1
        notional = trade["price"] * trade["size"]
        rows.append(
            {
                "means": (trade["size"], notional, trade["aggressor"], abs(change)),
                "features": (
                    math.log1p(trade["size"]),
                    trade["aggressor"],
                    change,
                    math.log1p(notional),
                    float(is_swept[k]),
                    math.log1p((trade["ts_ms"] - before["ts_ms"]) / 1_000),
                ),
            }
        )
    rows = rows[-params.window_trades :]
    features = list(zip(*(row["features"] for row in rows), strict=True))
    scale = [(statistics.fmean(values), statistics.stdev(values)) for values in features]
    points = [
        tuple((v - m) / s if s else 0.0 for v, (m, s) in zip(row["features"], scale, strict=True)) for row in rows
    ]
    labels = loop_labels(points)
    groups = [[k for k, label in enumerate(labels) if label == cluster] for cluster in range(3)]
    means = [tuple(map(statistics.fmean, zip(*(rows[k]["means"] for k in group), strict=True))) for group in groups]
    momentum = max(range(3), key=lambda c: (abs(means[c][2]) * (means[c][3] + 1e-6), -means[c][0]))
    others = [c for c in range(3) if c != momentum]
    hedging = max(others, key=lambda c: (means[c][1] * (1 - min(abs(means[c][2]), 1)), -means[c][0]))
    places = dict(zip(STRATEGIES, (momentum, 3 - momentum - hedging, hedging), strict=True))
    institutional = sum(
        len(group) for group, mean in zip(groups, means, strict=True) if mean[0] >= params.institutional_size
    )
    found = {
        "samples": len(rows),
        "clusters_used": 3,
        "fallback": False,
        "institutional_share": institutional / len(rows),
        "retail_share": 1 - institutional / len(rows),
        "status": "ok",
    }
    for strategy, cluster in places.items():
        centroid = map(statistics.fmean, zip(*(points[k] for k in groups[cluster]), strict=True))
        found[f"{strategy}_share"] = len(groups[cluster]) / len(rows)
        found[f"{strategy}_trade_count"] = len(groups[cluster])
        found |= {f"{strategy}_{name}": value for name, value in zip(MEANS, means[cluster], strict=True)}
        found |= {f"{strategy}_centroid_{name}": value for name, value in zip(FEATURES, centroid, strict=True)}
    return found


def assert_row(found, wanted):
    for name, value in wanted.items():
        assert found[name] == (pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value), name


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("case", MAPPINGS, ids=lambda case: case["id"])
def test_mapping_oracle_in_any_order_of_clusters(case, order):
    given = case["inputs"]["clusters"]
    means = {
        name.removeprefix("mean_"): np.array([[given[k][name] for k in order]], dtype=float)
        for name in ("mean_size", "mean_notional", "mean_direction", "mean_abs_return")
    }
    places = flow_clusters.strategies(**means)[0]
    assert {strategy: order[place] for strategy, place in zip(STRATEGIES, places, strict=True)} == case["expected"]


def test_constant_trades_oracle(tape):
    given = CASES["constant_trades"]["inputs"]
    trades = [
        {
            "ts_ms": 1_000 * given["gap_s"] * k,
            "price": given["price"],
            "size": given["size"],
            "aggressor": given["aggressor"],
        }
        for k in range(given["n"])
    ]
    found = last(clusters(tape(trades)))
    assert_row(found, CASES["constant_trades"]["expected"])
    # One cluster, all of one direction: momentum has it all; of the others there is nothing to say.
    assert_row(found, {"status": "ok", "momentum_share": 1.0, "mean_reversion_share": 0.0, "hedging_share": 0.0})
    assert_row(found, {"momentum_mean_size": 10.0, "momentum_mean_direction": 1.0, "momentum_trade_count": 40})
    assert [found[f"hedging_{name}"] for name in (*MEANS, "centroid_size")] == [None] * 5


def test_too_few_oracle(tape):
    case = CASES["too_few"]
    found = last(clusters(tape(random_trades(1, rows=case["inputs"]["n"]))))
    assert case["expected"]["strategy_distribution"] is None
    assert found["status"] == case["expected"]["status"]
    assert all(found[name] is None for name in VALUES)
    assert found["samples"] == 29


def test_thirty_trades_are_enough(tape):
    found = last(clusters(tape(random_trades(1, rows=30))))
    assert (found["samples"], found["status"]) == (30, "ok")


def test_every_oracle_case_is_run():
    assert set(CASES) == {case["id"] for case in MAPPINGS} | {"constant_trades", "too_few"}


@pytest.mark.parametrize("seed", range(8))
def test_rows_equal_a_plain_loop(tape, seed):
    trades = random_trades(seed)
    found = clusters(tape(trades), SMALL)
    assert found.height >= 3
    for row in found.to_dicts():
        end = row["ts_open"].timestamp() * 1_000 + MINUTE_MS
        until = [trade for trade in trades if trade["ts_ms"] < end]
        assert row["last_trade_id"] == until[-1]["trade_id"]
        if row["status"] == "ok":
            assert_row(row, expected(until, SMALL))
    assert last(found)["status"] == "ok"


def test_default_window_is_the_last_150_trades(tape):
    trades = random_trades(3, rows=400)
    assert_row(last(clusters(tape(trades))), expected(trades, FlowClustersParams()))


def test_three_kinds_of_trades_are_told_apart(tape):
    # Rising small buys; large two-sided blocks at one price, an hour apart; tiny two-sided trades.
    trend = [{"price": 100 + k / 10, "size": 5.0, "aggressor": 1, "gap": 100} for k in range(20)]
    blocks = [{"price": 102.0, "size": 900.0, "aggressor": (-1) ** k, "gap": 3_600_000} for k in range(20)]
    noise = [{"price": 102.0, "size": 0.1, "aggressor": (-1) ** k, "gap": 1_000} for k in range(20)]
    rows, ts_ms = [], 0
    for trade in (*trend, *blocks, *noise):
        ts_ms += trade["gap"]
        rows.append({name: value for name, value in trade.items() if name != "gap"} | {"ts_ms": ts_ms})
    found = last(clusters(tape(rows)))
    assert_row(found, {f"{strategy}_trade_count": 20 for strategy in STRATEGIES})
    assert_row(found, {"momentum_mean_size": 5.0, "hedging_mean_size": 900.0, "mean_reversion_mean_size": 0.1})
    assert_row(found, {"momentum_mean_direction": 1.0, "hedging_mean_direction": 0.0})
    assert_row(found, {"institutional_share": 1 / 3, "retail_share": 2 / 3})


def test_trades_of_no_known_side_and_one_kind_are_hedging(tape):
    rows = [{"ts_ms": 1_000 * k, "price": 100.0, "aggressor": 0} for k in range(40)]
    assert_row(last(clusters(tape(rows))), {"fallback": True, "hedging_share": 1.0, "momentum_share": 0.0})


def test_a_sweep_counts_from_the_trade_that_completes_it(tape):
    # The second trade of three prices is the last of its minute: nobody knows of a sweep by then.
    quiet = [{"ts_ms": 1_000 * k, "price": 100 + k % 2, "aggressor": (-1) ** k} for k in range(40)]
    rows = [*quiet]
    rows += [{"ts_ms": 59_800 + 150 * k, "price": 101.0 + k, "aggressor": 1} for k in range(3)]
    rows += [{"ts_ms": 61_000 + 1_000 * k, "price": 100 + k % 2, "aggressor": (-1) ** k} for k in range(10)]
    trades = [{"trade_id": k} | row for k, row in enumerate(rows)]
    first, second = clusters(tape(trades)).to_dicts()
    assert [first[f"{strategy}_centroid_sweep"] for strategy in STRATEGIES] == [0.0] * 3
    with_size = [{"size": 1.0} | trade for trade in trades]
    assert sum(swept(with_size, SweepParams())) == 3
    assert_row(first, expected(with_size[:42], FlowClustersParams()))
    assert_row(second, expected(with_size, FlowClustersParams()))
    assert max(second[f"{strategy}_centroid_sweep"] for strategy in STRATEGIES) > 1


def test_a_sweep_may_have_begun_before_the_window(tape):
    # In the end the window holds only the last trade of a sweep.
    rows = [{"ts_ms": 2 * k, "price": 100.0 + k, "size": 2.0**k} for k in range(8)]
    rows += [{"ts_ms": 2_000 + k, "price": 90.0 - k * (k % 2), "aggressor": -1} for k in range(5)]
    trades = [{"size": 1.0, "aggressor": 1, "trade_id": k} | row for k, row in enumerate(rows)]
    params = FlowClustersParams(window_trades=6, min_trades=3)
    state, outputs = flow_clusters.initial(), []
    for k in range(len(trades)):
        state, output = flow_clusters.step(state, tape(trades[k : k + 1]), params)
        outputs.append(last(output))
    for end in range(6, len(trades)):
        assert_row(outputs[end], expected(trades[: end + 1], params))


def test_ts_known_is_the_latest_receipt_of_what_was_used(tape):
    rows = [{"ts_ms": 10 * k, "price": 100.0 + k % 3} for k in range(50)]
    rows[10]["recv_ms"] = 9_000
    assert last(clusters(tape(rows)))["ts_known"].timestamp() == 9.0
    later = [
        row | {"ts_ms": row["ts_ms"] + 60_000, "recv_ms": 70_000 + k, "trade_id": 100 + k} for k, row in enumerate(rows)
    ]
    alone = FlowClustersParams(window_trades=20, min_trades=20, sweep=SweepParams(window_trades=3))
    assert [row["ts_known"].timestamp() for row in clusters(tape(rows + later), alone).to_dicts()] == [0.54, 70.049]


def test_an_empty_tape_gives_an_empty_frame(tape):
    assert clusters(tape([])).equals(empty(FlowClusters))


def test_one_trade_is_too_few(tape):
    found = last(clusters(tape([{"ts_ms": 0, "price": 100.0}])))
    assert (found["status"], found["samples"]) == ("too_few", 1)
    assert all(found[name] is None for name in VALUES)


def test_trades_that_are_all_null_give_no_rows(tape):
    trades = tape(random_trades(1)).with_columns(pl.lit(None, pl.Float64).alias("price"))
    assert clusters(trades).is_empty()


@pytest.mark.parametrize(
    "bad",
    [
        {"price": None},
        {"price": math.nan},
        {"price": math.inf},
        {"price": 0.0},
        {"price": -1.0},
        {"size": None},
        {"size": math.nan},
        {"size": 0.0},
        {"size": -math.inf},
    ],
)
def test_a_bad_row_among_good_ones_is_ignored(tape, bad):
    trades = random_trades(2)
    spoilt = [*trades[:200], trades[199] | bad | {"trade_id": 1_000}, *trades[200:]]
    assert_frame_equal(clusters(tape(spoilt)), clusters(tape(trades)), check_exact=True)


def test_means_that_overflow_are_null(tape):
    rows = [{"ts_ms": 1_000 * k, "price": 1e200, "size": 1e200 * (1 + k % 3)} for k in range(40)]
    found = last(clusters(tape(rows)))
    assert found["status"] == "nan"
    assert all(found[name] is None for name in VALUES)


def test_rows_of_one_instant_follow_their_ids_in_any_row_order(tape):
    trades = random_trades(4)
    for trade in trades:
        trade["ts_ms"] -= trade["ts_ms"] % 5_000
    shuffled = [trades[k] for k in np.random.default_rng(1).permutation(len(trades))]
    found = clusters(tape(shuffled), SMALL)
    assert ipc_bytes(found) == ipc_bytes(clusters(tape(trades), SMALL))
    assert_row(last(found), expected(trades, SMALL))


def test_interleaved_symbols_do_not_mix(tape):
    # A symbol's first trade has none before it, whatever stands above it in the frame.
    names = {"A": random_trades(5, symbol="A", rows=35), "B": random_trades(6, symbol="B", rows=90)}
    both = sorted((*names["A"], *names["B"]), key=lambda trade: trade["ts_ms"])
    found = clusters(tape(both), SMALL)
    alone = pl.concat([clusters(tape(trades), SMALL) for trades in names.values()])
    assert ipc_bytes(found) == ipc_bytes(alone)


def test_more_windows_than_a_block(tape, monkeypatch):
    trades = tape(random_trades(7))
    whole = clusters(trades, SMALL)
    monkeypatch.setattr(flow_clusters, "_WINDOWS_AT_ONCE", 2)
    assert ipc_bytes(clusters(trades, SMALL)) == ipc_bytes(whole)


def test_two_runs_give_identical_bytes(tape):
    trades = tape([trade for k in range(5) for trade in random_trades(k, symbol=f"S{k}")])
    assert ipc_bytes(clusters(trades)) == ipc_bytes(clusters(trades))


def test_features_that_differ_by_rounding_do_not_vary():
    features = np.array([[[0.1, 0.1 + 1e-16, 0.1 - 1e-16, 0.1], [1.0, 2.0, 3.0, 4.0]]])
    found = flow_clusters._standardised(features, np.ones((1, 4), bool))
    assert found[0, 0].tolist() == [0.0] * 4
    assert found[0, 1].tolist() == pytest.approx([v / statistics.stdev([1, 2, 3, 4]) for v in (-1.5, -0.5, 0.5, 1.5)])


def test_a_trade_without_receive_time_is_refused(tape):
    trades = tape(random_trades(1)).with_columns(ts_recv=pl.lit(None, pl.Datetime("ns", "UTC")))
    with pytest.raises(ValueError, match="no ts_recv"):
        clusters(trades)


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_trades": 2},
        {"min_trades": 151},
        {"institutional_size": 0.0},
        {"institutional_size": math.nan},
        {"sample_s": 0},
    ],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        FlowClustersParams(**wrong)
