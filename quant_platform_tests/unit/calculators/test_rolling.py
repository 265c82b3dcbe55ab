"""Trailing windows and the z-score by hand; history statistics by the oracle, pandas, and the edge matrix."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import rolling
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "vol_regime_cases.json").read_text())
STATISTICS = [case for case in ORACLE["cases"] if "history" in case["inputs"]]
ORACLE_NAMES = {"zscore": "z_score", "stdev": "std"}
MINUTE = 60_000_000_000
SCHEMA = {"symbol": pl.String, "ts_event": pl.Datetime("ns", "UTC"), "value": pl.Float64}


def z_scores(values, width, min_samples):
    with np.errstate(divide="ignore", invalid="ignore"):
        windows = rolling.trailing(np.array(values, dtype=float), np.arange(len(values)), width)
        return rolling.z_score(windows, min_samples=min_samples).tolist()


def test_z_score_includes_its_own_value_and_uses_ddof_1():
    # Windows 1 2 3 (mean 2, std 1) and 2 3 7 (mean 4, std sqrt 7).
    assert z_scores([1, 2, 3, 7], 3, 3) == [
        pytest.approx(v, nan_ok=True) for v in (math.nan, math.nan, 1.0, 3 / math.sqrt(7))
    ]


def test_z_score_is_nan_below_min_samples_and_where_nothing_varies():
    assert np.isnan(z_scores([5, 5, 5, 5], 3, 2)).all()
    assert np.isnan(z_scores([1, 2], 3, 3)).all()


def test_windows_hold_only_values_of_their_own_symbol():
    windows = rolling.trailing(np.array([1.0, 2.0, 30.0, 40.0]), np.array([0, 1, 0, 1]), 3)
    assert windows.count.tolist() == [1, 2, 1, 2]
    assert windows.total().tolist() == [1.0, 3.0, 30.0, 70.0]
    assert windows.rows(2, 4).total().tolist() == [30.0, 70.0]


def test_deviations_within_the_noise_are_zero():
    windows = rolling.trailing(np.array([1.0, 1.0 + 1e-15, 1.0]), np.arange(3), 3)
    assert windows.mean_and_deviations(1e-14)[1].tolist() == [[0.0] * 3] * 3
    assert windows.mean_and_deviations()[1][2].any()


def history(values, *, symbol="VIX1D", start=0):
    rows = [{"symbol": symbol, "ts_event": (start + k) * MINUTE, "value": value} for k, value in enumerate(values)]
    return pl.DataFrame(rows, schema=SCHEMA, strict=False)


def statistics(values, earlier=None, *, window=480, min_samples=15):
    earlier = history([]) if earlier is None else earlier
    return rolling.history_statistics(values, earlier, window=window, min_samples=min_samples)


def random_history(rows, symbols, seed):
    """Rows in any order, values on a coarse grid so that many are equal, some of them no numbers."""
    random = np.random.default_rng(seed)
    frames = [
        history(random.choice([*np.arange(-20, 20) / 8, math.nan, math.inf, None], rows), symbol=f"S{k}")
        for k in range(symbols)
    ]
    return pl.concat(frames).sample(fraction=1, shuffle=True, seed=seed)


@pytest.mark.parametrize("case", STATISTICS, ids=lambda case: case["id"])
def test_history_statistics_oracle(case):
    given = case["inputs"]
    frame = statistics(history(given["history"]), window=given["window"], min_samples=given["min_samples"])
    found = frame.to_dicts()[-1]
    for name, value in case["expected"].items():
        ours = found[ORACLE_NAMES.get(name, name)]
        assert ours == (None if value is None else pytest.approx(value, rel=0, **case["tolerance"]))


def test_the_oracle_has_history_cases():
    assert {case["id"] for case in STATISTICS} == {"stats_20", "stats_constant", "stats_short"}


def test_percentile_is_the_share_of_the_window_at_or_below_the_value():
    # Windows 3 · 3 1 · 3 1 3 · 1 3 2: 1/1, 1/2, 3/3, 2/3.
    found = statistics(history([3, 1, 3, 2]), window=3, min_samples=3)
    assert found["percentile"].to_list() == [1.0, 0.5, 1.0, pytest.approx(2 / 3, rel=1e-15)]
    # Windows 3 1 3 (mean 7/3, std sqrt(4/3)) and 1 3 2 (mean 2, std 1).
    assert found["z_score"].to_list() == [None, None, pytest.approx(2 / 3 / math.sqrt(4 / 3), rel=1e-14), 0.0]
    assert found["samples"].to_list() == [1, 2, 3, 3]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_history_statistics_equal_pandas(seed):
    values = random_history(300, 4, seed)
    found = statistics(values, window=20, min_samples=15)
    for (symbol,), ours in found.filter(pl.col("samples") > 0).group_by("symbol"):
        usable = values.filter((pl.col("symbol") == symbol) & pl.col("value").is_finite()).sort("ts_event")
        series = usable["value"].to_pandas()
        window = series.rolling(20, min_periods=1)
        theirs = {
            "mean": window.mean(),
            "std": window.std(),
            "z_score": ((series - window.mean()) / window.std()).where(window.count() >= 15),
            "percentile": window.apply(lambda w: (w <= w[-1]).mean(), raw=True),
        }
        for name, column in theirs.items():
            # pandas updates its sums, so that it is the less exact of the two.
            np.testing.assert_allclose(ours[name].to_numpy(), column.to_numpy(), rtol=1e-9, atol=1e-9)


def test_earlier_values_fill_the_windows_and_have_no_rows():
    values = random_history(200, 3, 5)
    at = pl.col("ts_event").to_physical() >= 120 * MINUTE
    by_sessions = statistics(values.filter(at), values.filter(~at), window=30)
    assert_frame_equal(by_sessions, statistics(values, window=30).filter(at))


def test_a_snapshot_seen_by_many_cycles_counts_once_with_its_newest_value():
    seen = pl.concat([history([1, 2]), history([9], start=2), history([2, 4], start=1)])
    assert_frame_equal(statistics(seen, min_samples=2), statistics(history([1, 2, 4]), min_samples=2))
    assert_frame_equal(
        statistics(history([2, 4], start=1), history([1, 7]), min_samples=2),
        statistics(history([1, 2, 4]), min_samples=2)[1:],
    )


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_has_nulls_and_is_in_no_window(bad):
    found = statistics(history([1, 2, bad, 4]), window=3, min_samples=3)
    assert found.row(2)[2:] == (None, None, None, None, None, 0)
    assert found.drop("ts_event")[[0, 1, 3]].equals(
        statistics(history([1, 2, 4]), window=3, min_samples=3).drop("ts_event")
    )


def test_all_null_and_empty_histories_keep_the_columns():
    found = statistics(history([None, None]))
    assert found["samples"].to_list() == [0, 0]
    assert statistics(history([])).schema == found.schema
    assert statistics(history([]), history([1.0])).is_empty()


def test_values_that_overflow_are_null():
    found = statistics(history([1.7e308, -1.7e308]), min_samples=2)
    assert found["std"].to_list() == [None, None]
    assert found["z_score"].to_list() == [None, None]


def test_history_statistics_of_more_rows_than_a_block():
    values = random_history(400, 2, 7)
    whole = statistics(values, window=500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rolling, "_BLOCK_VALUES", 7_000)
        assert_frame_equal(statistics(values, window=500), whole, check_exact=True)


def test_two_runs_of_history_statistics_give_identical_bytes():
    first, second = (ipc_bytes(statistics(random_history(300, 5, 11), window=40)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("wrong", [{"window": 0}, {"min_samples": 0}])
def test_impossible_windows_are_refused(wrong):
    with pytest.raises(ValueError, match="must be >= 1"):
        statistics(history([1.0]), **wrong)
