"""Portfolio totals and correlations: the oracles, pandas and numpy, sums worked by hand, and the edge matrix."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import cross_asset
from quant_platform.calculators.cross_asset import PAYLOADS, CorrelationParams
from quant_platform.contracts._schema import INSTANT, empty, polars_schema, validated
from quant_platform.contracts.statistics import Correlation, PortfolioTotals
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLES = Path(__file__).parents[2] / "golden" / "oracles"
PORTFOLIO = {case["id"]: case for case in json.loads((ORACLES / "portfolio_cases.json").read_text())["cases"]}
PAIRS = {case["id"]: case for case in json.loads((ORACLES / "pairs_cases.json").read_text())["cases"]}
CORRELATIONS = [case for name, case in PAIRS.items() if name.startswith("correlation_")]
MINUTE = 60_000_000_000
START = 1_723_105_800_000_000_000  # date -u -d '2024-08-08 08:30' +%s
FEW = CorrelationParams(min_pairs=3)
SHARES = ("institutional_notional_share", "retail_notional_share", "unclassified_notional_share")


def payloads(*rows):
    numbers = {name: pl.Int64 if dtype == INSTANT else dtype for name, dtype in PAYLOADS.items()}
    full = [{"symbol": f"S{k}"} | row for k, row in enumerate(rows)]
    return pl.DataFrame(full, schema=numbers).cast(dict(PAYLOADS))


def whole(*rows):
    return cross_asset.portfolio(payloads(*rows)).row(0, named=True)


def closes(prices, minutes=None):
    """Return bars from closes by symbol; `minutes` since the start, by default one after the other."""
    return pl.concat(
        [
            pl.DataFrame(
                {
                    "ts_open": [START + k * MINUTE for k in minutes or range(len(column))],
                    "symbol": [symbol] * len(column),
                    "close": pl.Series(column, dtype=pl.Float64, strict=False),
                    "ts_known": [START + (k + 1) * MINUTE + 7 for k in minutes or range(len(column))],
                },
                schema_overrides={"symbol": pl.String},
            ).cast({"ts_open": INSTANT, "ts_known": INSTANT})
            for symbol, column in prices.items()
        ]
    )


def of_returns(returns, first=100.0):
    """Return closes with these log returns; where one is None, the bar at its end is missing."""
    known = np.array([0.0 if value is None else value for value in returns])
    prices = first * np.exp(np.append(0.0, np.cumsum(known)))
    return [first, *(None if value is None else price for value, price in zip(returns, prices[1:], strict=True))]


def only(frame, params=FEW):
    (row,) = cross_asset.correlation(frame, params).to_dicts()
    return row


def random_returns(symbols, minutes, seed, scale=1e-3):
    random = np.random.default_rng(seed)
    return scale * (random.standard_normal((symbols, minutes)) + random.standard_normal(minutes))


def grid(returns):
    """Return closes, symbols × minutes, and the minutes."""
    prices = 100 * np.exp(np.cumsum(np.insert(returns, 0, 0.0, axis=1), axis=1))
    return prices, START + MINUTE * np.arange(prices.shape[1])


def log_returns(prices):
    return pd.DataFrame(np.log(prices).T).diff()


def test_totals_of_three_symbols_are_the_oracles():
    case = PORTFOLIO["three_symbols"]
    rows = [{**row, "toxicity_adjusted_level": row["toxicity_level"]} for row in case["inputs"]["symbols"]]
    found = cross_asset.portfolio(payloads(*({k: v for k, v in row.items() if k in PAYLOADS} for row in rows)))
    total, *sectors = found.to_dicts()
    by_sector = case["expected"].pop("by_sector")
    assert {name: total[name] for name in case["expected"]} == pytest.approx(case["expected"], abs=1e-9)
    assert [row["sector"] for row in sectors] == list(by_sector)
    for row, expected in zip(sectors, by_sector.values(), strict=True):
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_totals_of_nothing_are_the_oracles():
    expected = PORTFOLIO["nothing"]["expected"]
    found = cross_asset.portfolio(payloads())
    assert found.height == 1
    row = found.row(0, named=True)
    assert {name: row[name] for name in expected} == expected
    counts = [name for name, dtype in found.schema.items() if name.endswith("_count") and name != "toxic_count"]
    assert {row[name] for name in counts} == {0}
    assert {value for name, value in row.items() if name not in {*counts, "symbols"}} == {None}


def test_every_sum_and_mean_has_the_count_of_what_it_is_over():
    first = {name: 1.0 for name, dtype in PAYLOADS.items() if dtype == pl.Float64} | dict.fromkeys(SHARES, 1 / 4)
    second = {name: 2 * value for name, value in first.items()} | {"vpin": 0.5}
    row = whole(first, second, {})
    assert row["symbols"] == 3
    counts = {value for name, value in row.items() if name.endswith("_count") and name != "toxic_count"}
    assert counts == {2}
    sums = [
        *("total_gex_gross", "total_gex_net", "total_dex_gross", "total_dex_net", "total_vanna_notional"),
        *("total_charm_notional", "total_hedging_notional", "total_volume"),
        *("institutional_net_notional", "retail_net_notional"),
    ]
    assert {row[name] for name in sums} == {3.0}
    assert (row["avg_vpin"], row["avg_toxicity"]) == (0.75, 1.5)
    assert {row[name] for name in SHARES} == {0.375}


def test_shares_are_over_symbols_that_know_all_three_and_add_up_to_one():
    row = whole(
        dict(zip(SHARES, (0.2, 0.3, 0.5), strict=True)),
        dict(zip(SHARES, (0.4, 0.1, 0.5), strict=True)),
        {"institutional_notional_share": 1.0},
    )
    assert [row[name] for name in SHARES] == pytest.approx([0.3, 0.2, 0.5])
    assert row["flow_mix_count"] == 2


def test_toxic_symbols_are_those_of_the_high_level_alone():
    levels = [{"toxicity_adjusted_level": level} for level in ("low", "high", "moderate", "high", None)]
    assert whole(*levels)["toxic_count"] == 2
    assert whole(*levels[:1])["toxic_count"] == 0
    assert whole(*levels[4:])["toxic_count"] is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_known(value):
    row = whole({"gex_net": value, "vpin": value}, {"gex_net": 5.0})
    assert (row["total_gex_net"], row["gex_count"], row["avg_vpin"], row["vpin_count"]) == (5.0, 1, None, 0)


def test_a_sum_beyond_the_floats_is_null():
    assert whole({"gex_net": 1e308}, {"gex_net": 1e308})["total_gex_net"] is None


def test_the_later_of_two_payloads_of_one_symbol_counts():
    row = whole({"symbol": "A", "volume": 1.0}, {"symbol": "B", "volume": 2.0}, {"symbol": "A", "volume": 5.0})
    assert (row["symbols"], row["total_volume"]) == (2, 7.0)


def test_a_symbol_without_a_sector_is_in_the_row_of_all_only():
    found = cross_asset.portfolio(payloads({"volume": 1.0}, {"volume": 2.0, "sector": "s"}))
    assert found.select("sector", "symbols", "total_volume").rows() == [(None, 2, 3.0), ("s", 1, 2.0)]


def test_market_time_is_the_latest_of_each_group():
    found = cross_asset.portfolio(payloads({"ts_event": 5, "sector": "a"}, {"ts_event": 9, "sector": "b"}, {}))
    assert found["ts_event"].to_physical().to_list() == [9, 5, 9]


def test_payloads_in_any_order_give_identical_bytes():
    random = np.random.default_rng(1)
    rows = payloads(*({"sector": f"s{k % 7}", "gex_net": random.standard_normal() * 1e9} for k in range(200)))
    found = cross_asset.portfolio(rows)
    assert ipc_bytes(cross_asset.portfolio(rows.sample(fraction=1, shuffle=True, seed=2))) == ipc_bytes(found)
    assert validated(PortfolioTotals, found).height == 8


@pytest.mark.parametrize("case", CORRELATIONS, ids=lambda case: case["id"])
def test_correlation_is_the_oracles(case):
    given, expected = case["inputs"], case["expected"]
    frame = closes({name: of_returns(given[name]) for name in ("a", "b")})
    found = only(frame, CorrelationParams(min_pairs=given["min_pairs"]))
    assert found["correlation"] == pytest.approx(expected["corr"], abs=1e-9)
    assert found["pairs"] == expected["pairs"]
    assert (found["status"] == "ok") == (expected["corr"] is not None)


def test_flagged_pairs_are_the_oracles():
    given = PORTFOLIO["high_pairs"]["inputs"]
    matrix = np.eye(3)
    for pair, value in given["matrix"].items():
        i, j = ("ABC".index(symbol) for symbol in pair)
        matrix[i, j] = matrix[j, i] = value
    flagged = cross_asset.is_flagged(matrix, CorrelationParams(flag=given["threshold"]))
    found = ["ABC"[i] + "ABC"[j] for i, j in zip(*np.nonzero(np.triu(flagged, 1)), strict=True)]
    assert found == PORTFOLIO["high_pairs"]["expected"]["high_pairs"]


def test_a_correlation_at_the_threshold_is_flagged_whatever_its_last_bits():
    # Deviations (3, -1, -1, -1) and (3, -1, -3, 1) have Σxy = 12, Σx² = 12, Σy² = 20: r² = 0.6.
    frame = closes({"A": of_returns([3, -1, -1, -1]), "B": of_returns([3, -1, -3, 1])})
    at = round(math.sqrt(0.6), 9)
    assert only(frame, CorrelationParams(min_pairs=3, flag=at))["is_flagged"]
    assert not only(frame, CorrelationParams(min_pairs=3, flag=at + 1e-8))["is_flagged"]


def test_correlations_of_whole_series_equal_numpy():
    prices, minutes = grid(random_returns(20, 389, seed=1))
    found = cross_asset.correlation_matrix(prices, minutes)
    np.testing.assert_allclose(found.correlation, np.corrcoef(np.diff(np.log(prices))), rtol=0, atol=1e-12)
    assert (found.pairs == 389).all()


def test_correlations_of_series_with_holes_equal_pandas():
    prices, minutes = grid(random_returns(25, 120, seed=2))
    random = np.random.default_rng(3)
    prices[random.random(prices.shape) < np.linspace(0, 0.9, 25)[:, None]] = np.nan
    found = cross_asset.correlation_matrix(prices, minutes)
    returns = log_returns(prices)
    theirs = returns.corr(min_periods=30).to_numpy()
    assert 0 < np.isnan(theirs).sum() < theirs.size
    np.testing.assert_allclose(found.correlation, theirs, rtol=0, atol=1e-12)
    is_return = returns.notna().to_numpy().astype(int)
    np.testing.assert_array_equal(found.pairs, is_return.T @ is_return)


def test_a_jump_that_the_other_symbol_has_not_seen_costs_no_digits(monkeypatch):
    returns = random_returns(2, 100, seed=4, scale=1e-9)
    returns[0, 49:51] = 300.0, -300.0
    prices, minutes = grid(returns)
    prices[1, 50:52] = np.nan  # so that three returns are not common
    theirs = np.corrcoef(np.delete(returns, [49, 50, 51], axis=1))[0, 1]
    found = cross_asset.correlation_matrix(prices, minutes)
    assert found.pairs[0, 1] == 97
    assert found.correlation[0, 1] == pytest.approx(theirs, abs=1e-6)  # closes are rounded to 1e-16 of themselves
    monkeypatch.setattr(cross_asset, "_CANCELLED", 0.0)
    assert cross_asset.correlation_matrix(prices, minutes).correlation[0, 1] != pytest.approx(theirs, abs=1e-3)


def test_pairs_done_anew_are_the_same_in_blocks_of_any_size(monkeypatch):
    prices, minutes = grid(random_returns(12, 80, seed=5))
    prices[np.random.default_rng(6).random(prices.shape) < 0.1] = np.nan
    by_matrices = cross_asset.correlation_matrix(prices, minutes)
    monkeypatch.setattr(cross_asset, "_CANCELLED", 2.0)
    monkeypatch.setattr(cross_asset, "_BLOCK_PAIRS", 7)
    anew = cross_asset.correlation_matrix(prices, minutes)
    np.testing.assert_allclose(by_matrices.correlation, anew.correlation, rtol=0, atol=1e-13)


def test_a_matrix_is_symmetric_within_bounds_and_one_on_the_diagonal():
    returns = random_returns(6, 200, seed=7)
    prices, minutes = grid(np.concatenate([returns, returns * 1.7, -returns]))
    found = cross_asset.correlation_matrix(prices, minutes).correlation
    np.testing.assert_array_equal(found, found.T)
    assert (np.diag(found) == 1.0).all()
    assert np.abs(found).max() == 1.0
    np.testing.assert_allclose(np.diag(found[:6, 12:]), -1.0, rtol=0, atol=1e-12)


def test_a_return_runs_over_one_minute_and_never_across_a_missing_one():
    a = of_returns([0.01, 0.02, -0.01, 0.03, 0.01, -0.02])
    b = of_returns([0.02, 0.01, -0.03, 0.02, 0.04, -0.01])
    with_hole = [*b[:3], None, *b[4:]]
    found = only(closes({"A": a, "B": with_hole}))
    kept = [0, 1, 4, 5]  # the returns to and from minute 3 are none
    x, y = ([series[k] for k in kept] for series in (np.diff(np.log(a)), np.diff(np.log(b))))
    assert (found["pairs"], found["correlation"]) == (4, pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12))


def test_symbols_are_joined_on_the_minute_not_on_the_place():
    returns = [0.01, 0.02, -0.01, 0.03, 0.01, -0.02]
    early = closes({"A": of_returns(returns)})
    late = closes({"B": of_returns(returns[2:])}, minutes=list(range(2, 7)))
    assert only(pl.concat([early, late]))["correlation"] == pytest.approx(1.0, abs=1e-12)


def test_a_break_between_sessions_has_no_return():
    minutes = [0, 1, 2, 3, 1440, 1441, 1442]
    random = np.random.default_rng(8)
    frame = closes({name: np.exp(random.standard_normal(7)) for name in "AB"}, minutes=minutes)
    assert only(frame)["pairs"] == 5


def test_the_window_is_the_newest_minutes_in_which_anything_traded():
    returns = random_returns(2, 30, seed=9)
    prices, _ = grid(returns)
    frame = closes({"A": list(prices[0]), "B": list(prices[1])})
    found = only(frame, CorrelationParams(min_pairs=3, window_bars=11))
    assert found["pairs"] == 10
    assert found["correlation"] == pytest.approx(np.corrcoef(returns[:, -10:])[0, 1], abs=1e-12)
    gone = closes({"C": [1.0, 2.0]})  # its bars lie before the window
    assert_frame_equal(
        cross_asset.correlation(pl.concat([frame, gone]), CorrelationParams(min_pairs=3, window_bars=11)),
        cross_asset.correlation(frame, CorrelationParams(min_pairs=3, window_bars=11)),
    )


def test_times_are_of_the_newest_minute_and_of_the_latest_known_bar():
    frame = closes({"A": [1.0, 2.0, 3.0], "B": [1.0, 2.0, 4.0], "C": [1.0, 3.0]})
    late = pl.when(symbol="A").then(pl.col("ts_known") + pl.duration(hours=1, time_unit="ns")).otherwise("ts_known")
    found = cross_asset.correlation(frame.with_columns(ts_known=late))
    assert found.select(pl.col("ts_event").to_physical()).to_series().unique().to_list() == [START + 3 * MINUTE]
    known = found.select("symbol_a", "symbol_b", pl.col("ts_known").to_physical()).rows()
    own = START + 3 * MINUTE + 7
    assert known == [("A", "B", own + 60 * MINUTE), ("A", "C", own + 60 * MINUTE), ("B", "C", own)]


@pytest.mark.parametrize(
    ("a", "b", "status", "pairs"),
    [
        ([5.0] * 6, [1.0, 2.0, 1.0, 3.0, 1.0, 2.0], "constant", 5),
        ([5.0] * 6, [7.0] * 6, "constant", 5),
        ([1.01**k for k in range(6)], [1.0, 2.0, 1.0, 3.0, 1.0, 2.0], "constant", 5),
        ([None] * 6, [1.0, 2.0, 1.0, 3.0, 1.0, 2.0], "no_data", 0),
        ([None] * 6, [None] * 6, "no_data", 0),
        ([1.0, 2.0, 4.0], [1.0, 2.0, 3.0], "too_few", 2),
        ([1.0], [2.0], "no_data", 0),
        ([1e300, 1e-300] * 3, [1.0, 2.0, 1.0, 3.0, 1.0, 2.0], "no_data", 0),
    ],
)
def test_what_cannot_be_told_is_null_and_says_why(a, b, status, pairs):
    found = only(closes({"A": a, "B": b}))
    assert (found["correlation"], found["is_flagged"]) == (None, None)
    assert (found["status"], found["pairs"]) == (status, pairs)


def test_constant_only_in_what_both_have_is_constant():
    a = of_returns([0.0, 0.0, 0.0, 0.0, 0.3, -0.1])
    b = of_returns([0.1, -0.1, 0.2, 0.1, None, None])
    assert only(closes({"A": a, "B": b}))["status"] == "constant"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 0.0, -3.0])
def test_one_bad_close_costs_its_own_two_returns_alone(value):
    prices, _ = grid(random_returns(3, 40, seed=10))
    a, b, c = prices.tolist()
    whole = cross_asset.correlation(closes({"A": a, "B": b, "C": c}))
    spoilt = cross_asset.correlation(closes({"A": [*a[:9], value, *a[10:]], "B": b, "C": c}))
    assert spoilt["pairs"].to_list() == [38, 38, 40]
    assert spoilt["status"].to_list() == ["ok"] * 3
    assert_frame_equal(spoilt[2:], whole[2:])


def test_bars_in_any_order_and_the_later_of_two_of_one_minute():
    prices, _ = grid(random_returns(4, 50, seed=11))
    frame = closes(dict(zip("DACB", prices.tolist(), strict=True)))
    found = cross_asset.correlation(frame)
    assert ipc_bytes(cross_asset.correlation(frame.sample(fraction=1, shuffle=True, seed=1))) == ipc_bytes(found)
    wrong = frame.with_columns(close=pl.col("close") * 2)[7:9]
    assert_frame_equal(cross_asset.correlation(pl.concat([wrong, frame])), found)
    assert found.select("symbol_a", "symbol_b").rows() == [tuple(pair) for pair in ("AB", "AC", "AD", "BC", "BD", "CD")]
    assert validated(Correlation, found).height == 6


@pytest.mark.parametrize("frame", [closes({"A": []}), closes({"A": [1.0, 2.0]})], ids=["no bars", "one symbol"])
def test_fewer_than_two_symbols_have_no_pairs_with_the_right_dtypes(frame):
    assert_frame_equal(cross_asset.correlation(frame), empty(Correlation))


def test_a_matrix_of_no_symbols_or_no_minutes_is_empty():
    assert cross_asset.correlation_matrix(np.empty((0, 5)), START + MINUTE * np.arange(5)).correlation.shape == (0, 0)
    found = cross_asset.correlation_matrix(np.empty((2, 0)), np.empty(0, np.int64))
    assert np.isnan(found.correlation).all()
    assert (found.pairs == 0).all()


def test_totals_have_the_contracts_columns_in_order():
    assert cross_asset.portfolio(payloads({})).schema == polars_schema(PortfolioTotals)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"min_pairs": 1}, "2 <= min_pairs < window_bars must hold, were 1 and 390"),
        ({"window_bars": 30}, "2 <= min_pairs < window_bars must hold, were 30 and 30"),
        ({"flag": 0}, "flag must be > 0 and <= 1, was 0"),
        ({"flag": 1.1}, "flag must be > 0 and <= 1, was 1.1"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CorrelationParams(**wrong)
