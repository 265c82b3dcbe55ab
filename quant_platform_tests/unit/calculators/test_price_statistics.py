"""Price statistics: the oracle, pandas as a second opinion on random windows, and the edge matrix."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import price_statistics as statistics
from quant_platform.calculators.price_statistics import PriceStatisticsParams
from quant_platform.contracts._schema import empty, polars_schema, validated
from quant_platform.contracts.statistics import PriceStatistics
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "price_statistics_cases.json").read_text())
MINUTE = 60_000_000_000
SMALL = PriceStatisticsParams(window_bars=12, bollinger_bars=5, periods_per_year=525_600)
ORACLE_NAMES = {"roll": "roll_spread"}


def closes(prices, *, symbol="BTCUSDT", start=0):
    return pl.DataFrame(
        {
            "ts_open": [(start + k) * MINUTE for k in range(len(prices))],
            "symbol": [symbol] * len(prices),
            "close": prices,
            "ts_known": [(start + k + 1) * MINUTE + 7 for k in range(len(prices))],
        },
        schema={
            "ts_open": pl.Datetime("ns", "UTC"),
            "symbol": pl.String,
            "close": pl.Float64,
            "ts_known": pl.Datetime("ns", "UTC"),
        },
        strict=False,
    )


def random_walk(rows, seed):
    return (100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 1e-3, rows)))).tolist()


def last(frame):
    return frame.to_dicts()[-1]


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda case: case["id"])
def test_price_statistics_oracle(case):
    params = PriceStatisticsParams(periods_per_year=case["inputs"].get("periods_per_year", 1))
    found = last(statistics.price_statistics(closes(case["inputs"]["price"]), params))
    for name, value in case["expected"].items():
        ours = found[ORACLE_NAMES.get(name, name)]
        tolerance = {"rel": 0, "abs": 0} | case["tolerance"]
        assert ours == (None if value is None else pytest.approx(value, **tolerance))


def pandas_statistics(prices, params):
    """Compute each window by itself with pandas."""
    series, rows = pd.Series(prices), []
    for stop in range(1, len(series) + 1):
        window = series[max(0, stop - params.window_bars) : stop]
        returns = np.log(window).diff().dropna()
        changes = window.diff().dropna()
        covariance = changes.cov(changes.shift()) if len(changes) > 2 else np.nan
        band = series[max(0, stop - params.bollinger_bars) : stop]
        band = band if len(band) == params.bollinger_bars else pd.Series(dtype=float)
        rows.append(
            {
                "bars_used": len(window),
                "mean": window.mean(),
                "std": window.std(),
                "min": window.min(),
                "max": window.max(),
                "q25": window.quantile(0.25),
                "median": window.median(),
                "q75": window.quantile(0.75),
                "volatility": returns.std() * math.sqrt(params.periods_per_year),
                "skewness": returns.skew(),
                "excess_kurtosis": returns.kurt(),
                "roll_spread": 2 * math.sqrt(-covariance) if covariance < 0 else math.nan,
                "realised_variance": (returns**2).sum(min_count=1),
                "bipower_variance": math.pi / 2 * (returns * returns.shift()).abs().sum(min_count=1),
                "bollinger_mid": band.mean(),
                "bollinger_upper": band.mean() + params.bollinger_width * band.std(),
                "bollinger_lower": band.mean() - params.bollinger_width * band.std(),
                "z_score": (window.iloc[-1] - window.mean()) / window.std()
                if len(window) >= min(15, params.window_bars)
                else math.nan,
            }
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("params", [SMALL, PriceStatisticsParams(window_bars=20)], ids=["small", "20"])
def test_price_statistics_equal_pandas_on_random_closes(params):
    prices = random_walk(45, seed=1)
    found = statistics.price_statistics(closes(prices), params)
    theirs = pandas_statistics(prices, params)
    for column in theirs.columns:
        ours = found[column].cast(pl.Float64).fill_null(math.nan).to_numpy()
        np.testing.assert_allclose(ours, theirs[column], rtol=1e-8, atol=1e-12, err_msg=column)


def test_windows_never_cross_symbols_and_rows_may_come_in_any_order():
    a, b = closes(random_walk(30, 2), symbol="A"), closes(random_walk(25, 3), symbol="B", start=3)
    together = statistics.price_statistics(pl.concat([a, b]).sample(fraction=1, shuffle=True, seed=1), SMALL)
    apart = pl.concat([statistics.price_statistics(frame, SMALL) for frame in (a, b)])
    assert_frame_equal(together, apart)


def test_blocks_of_rows_change_nothing(monkeypatch):
    frame = pl.concat([closes(random_walk(30, 2), symbol="A"), closes(random_walk(25, 3), symbol="B")])
    whole = statistics.price_statistics(frame, SMALL)
    monkeypatch.setattr(statistics, "_BLOCK_ROWS", 7)
    assert_frame_equal(statistics.price_statistics(frame, SMALL), whole)


def test_the_lookback_session_warms_the_window():
    prices = random_walk(40, 4)
    whole = statistics.price_statistics(closes(prices), SMALL)
    assert whole["is_warm"].to_list() == [False] * 11 + [True] * 29
    # A date's rows need no more than the window before them, so earlier history changes nothing.
    late = statistics.price_statistics(closes(prices[9:], start=9), SMALL)
    assert_frame_equal(late.tail(20), whole.tail(20))


def test_a_constant_window_after_a_volatile_one_has_no_residue():
    prices = [*(p * 1e5 for p in random_walk(30, 5)), *[0.1] * 12]
    found = last(statistics.price_statistics(closes(prices), SMALL))
    assert (found["std"], found["volatility"], found["realised_variance"]) == (0.0, 0.0, 0.0)
    assert (found["mean"], found["bollinger_upper"], found["bollinger_lower"]) == (0.1, 0.1, 0.1)
    assert [found[k] for k in ("z_score", "skewness", "excess_kurtosis", "roll_spread")] == [None] * 4
    assert (found["status"], found["is_warm"]) == ("constant", True)


def test_returns_that_differ_by_rounding_alone_are_constant():
    found = last(statistics.price_statistics(closes([100 * 1.01**k for k in range(12)]), SMALL))
    assert found["volatility"] == 0.0
    assert (found["skewness"], found["excess_kurtosis"]) == (None, None)
    assert found["status"] == "constant"


def test_a_straight_line_has_no_roll_spread():
    found = last(statistics.price_statistics(closes([10 + 0.1 * k for k in range(12)]), SMALL))
    assert found["roll_spread"] is None
    assert found["status"] == "ok"


def test_status_says_too_few_until_every_value_can_stand():
    found = statistics.price_statistics(closes(random_walk(14, 6)), SMALL)
    assert found["status"].to_list() == ["too_few"] * 11 + ["ok"] * 3
    assert found["z_score"].is_null().to_list() == [True] * 11 + [False] * 3
    assert found["bollinger_mid"].is_null().to_list() == [True] * 4 + [False] * 10


def test_known_time_is_the_latest_of_the_window():
    frame = closes(random_walk(20, 7)).with_row_index()
    late = (
        pl.when(pl.col("index") == 3)
        .then(pl.col("ts_known") + pl.duration(hours=1, time_unit="ns"))
        .otherwise("ts_known")
    )
    found = statistics.price_statistics(frame.with_columns(ts_known=late), SMALL)["ts_known"].to_physical()
    own = [(k + 1) * MINUTE + 7 for k in range(20)]
    assert found.to_list() == own[:3] + [own[3] + 60 * MINUTE] * 12 + own[15:]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 0.0, -3.0])
def test_a_bad_close_gets_nulls_and_is_in_no_window(value):
    prices = random_walk(20, 8)
    frame = closes([*prices[:9], value, *prices[9:]])
    found = statistics.price_statistics(frame, SMALL)
    bad = found.row(9, named=True)
    assert (bad["status"], bad["bars_used"], bad["is_warm"]) == ("nan", 0, False)
    values = {"price", *polars_schema(PriceStatistics)} - {
        "ts_open",
        "symbol",
        "bars_used",
        "periods_per_year",
        "is_warm",
        "status",
        "ts_known",
    }
    assert all(bad[name] is None for name in values)
    without = statistics.price_statistics(closes(prices), SMALL)
    times = ("ts_open", "ts_known")
    assert_frame_equal(found.filter(pl.col("status") != "nan").drop(times), without.drop(times))


def test_all_closes_null_give_rows_of_nulls():
    found = statistics.price_statistics(closes([None, None]), SMALL)
    assert found["status"].to_list() == ["nan", "nan"]
    assert found["mean"].null_count() == 2


def test_closes_too_large_for_their_squares_give_null_not_infinity():
    found = last(statistics.price_statistics(closes([1e300, 1e-300] * 6), SMALL))
    assert found["std"] is None
    assert found["max"] == 1e300


def test_the_later_of_two_rows_of_one_bar_counts():
    frame = pl.concat([closes([1.0, 2.0, 3.0]), closes([5.0], start=1)])
    assert statistics.price_statistics(frame, SMALL)["price"].to_list() == [1.0, 5.0, 3.0]


def test_no_closes_give_no_rows_with_the_right_dtypes():
    assert_frame_equal(statistics.price_statistics(closes([])), empty(PriceStatistics))


def test_one_close_has_a_mean_and_nothing_that_needs_two():
    found = last(statistics.price_statistics(closes([7.0])))
    assert (found["mean"], found["min"], found["median"], found["bars_used"]) == (7.0, 7.0, 7.0, 1)
    assert [found[k] for k in ("std", "volatility", "realised_variance", "bipower_variance")] == [None] * 4
    assert found["status"] == "too_few"


def test_rows_keep_their_contract():
    frame = closes([*random_walk(30, 9), None, *[5.0] * 15])
    assert validated(PriceStatistics, statistics.price_statistics(frame, SMALL)).height == 46


def test_two_identical_runs_give_identical_bytes():
    first, second = (ipc_bytes(statistics.price_statistics(closes(random_walk(100, 10)))) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window_bars": 4}, "window_bars must be >= 5, was 4"),
        ({"bollinger_bars": 1}, "bollinger_bars must be between 2 and window_bars = 60, was 1"),
        ({"bollinger_bars": 61}, "bollinger_bars must be between 2 and window_bars = 60, was 61"),
        ({"bollinger_width": 0}, "bollinger_width must be > 0, was 0"),
        ({"periods_per_year": math.nan}, "periods_per_year must be > 0, was nan"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PriceStatisticsParams(**wrong)
