"""Regimes of volatility indices: the oracle, hand-worked changes, and the edge matrix."""

import json
import math
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.vol_regime import VolRegimeParams, regimes, vol_regime
from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.volatility import VolIndex, VolIndexRegime
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "vol_regime_cases.json").read_text())
REGIMES = [case for case in ORACLE["cases"] if "regime" in case["expected"]]
STATISTICS = [case for case in ORACLE["cases"] if "history" in case["inputs"]]
S = 1_000_000_000
LATENCY = 7


def readings(rows, *, source="cboe"):
    """Give (second, value) the columns of readings; each is known 7 ns after its time."""
    frame = pl.DataFrame(
        [
            {"ts_event": s * S, "ts_recv": s * S + LATENCY, "symbol": "VIX1D", "source": source, "value": value}
            for s, value in rows
        ],
        schema=dict.fromkeys(("ts_event", "ts_recv"), pl.Int64)
        | {"symbol": pl.String, "source": pl.String}
        | {"value": pl.Float64},
        strict=False,
    )
    return frame.cast(dict(polars_schema(VolIndex)))


NONE = readings([])


def described(rows, *, earlier=(), params=None):
    found = vol_regime(readings(rows), readings(earlier), params or VolRegimeParams())
    return validated(VolIndexRegime, found)


@pytest.mark.parametrize("case", REGIMES, ids=lambda case: case["id"])
def test_regime_oracle(case):
    given = case["inputs"]
    row = {"value": given["value"], "z_score": given["zscore"]}
    row |= {name: given[name] for name in ("change_5m", "change_1h")}
    frame = pl.DataFrame([row], schema=dict.fromkeys(row, pl.Float64))
    assert regimes(frame)["regime"].to_list() == [case["expected"]["regime"]]


@pytest.mark.parametrize("case", STATISTICS, ids=lambda case: case["id"])
def test_history_oracle(case):
    given = case["inputs"]
    params = VolRegimeParams(window=given["window"], min_samples=given["min_samples"])
    history = [(60 * minute, value) for minute, value in enumerate(given["history"])]
    for split in (0, len(history) - 1):
        found = described(history[split:], earlier=history[:split], params=params).to_dicts()[-1]
        for name, value in case["expected"].items():
            if name in ("zscore", "percentile", "samples"):
                wanted = None if value is None else pytest.approx(value, rel=0, **case["tolerance"])
                assert found[{"zscore": "z_score"}.get(name, name)] == wanted


@pytest.mark.parametrize(
    ("older", "change_5m", "change_1h"),
    [
        ([(301, 11.0)], 9.0, None),
        ([(300, 11.0)], 9.0, None),
        ([(299, 11.0)], None, None),
        ([(600, 11.0)], 9.0, None),
        ([(601, 11.0)], None, None),
        ([(400, 11.0), (300, 12.0), (100, 13.0)], 8.0, None),
        ([(3_600, 11.0)], None, 9.0),
        ([(7_200, 11.0)], None, 9.0),
        ([(7_201, 11.0)], None, None),
        ([(5_000, 11.0), (3_599, 12.0), (310, None)], None, 9.0),
        ([(5_000, 11.0), (500, 12.0), (310, math.nan)], 8.0, 9.0),
        ([], None, None),
    ],
)
def test_a_change_is_held_against_the_newest_reading_old_enough_unless_too_old(older, change_5m, change_1h):
    now = 100_000
    rows = [(now - age, value) for age, value in older]
    (found,) = described([(now, 20.0)], earlier=rows).to_dicts()
    assert (found["change_5m"], found["change_1h"]) == (change_5m, change_1h)


def test_a_change_at_the_cut_off_counts_whatever_its_last_bits():
    assert 16.4 - 14.4 < 2
    (found,) = described([(3_600, 16.4)], earlier=[(0, 14.4)]).to_dicts()
    assert found["regime"] == "ELEVATED"


def test_each_source_has_a_history_of_its_own_in_any_row_order():
    cboe = [(60 * minute, 10.0 + minute % 7) for minute in range(100)]
    yahoo = [(60 * minute + 5, 30.0 - minute % 5) for minute in range(0, 100, 2)]
    both = pl.concat([readings(cboe), readings(yahoo, source="yahoo")])
    alone = pl.concat([vol_regime(readings(cboe), NONE), vol_regime(readings(yahoo, source="yahoo"), NONE)])
    assert_frame_equal(vol_regime(both.sample(fraction=1, shuffle=True, seed=3), NONE), alone)


@pytest.mark.parametrize("cut", [0, 1, 14, 15, 130, 200])
def test_where_the_history_is_cut_changes_nothing(cut):
    rows = [(60 * minute, 12.0 + (minute * 37 % 11) / 8) for minute in range(200)]
    whole = described(rows, params=VolRegimeParams(window=20))
    after = described(rows[cut:], earlier=rows[:cut], params=VolRegimeParams(window=20))
    assert_frame_equal(after, whole.tail(200 - cut), check_exact=True)


def test_the_same_instant_again_is_the_same_reading():
    rows = [(60 * minute, 12.0 + minute) for minute in range(20)]
    assert_frame_equal(described([*rows[:5], (240, 16.0), *rows[4:]]), described(rows))
    assert_frame_equal(described(rows[10:], earlier=rows), described(rows).tail(10))


@pytest.mark.parametrize(
    ("bad", "status"),
    [(None, "no_data"), (math.nan, "nan"), (math.inf, "nan"), (0.0, "invalid_vol"), (-1, "invalid_vol")],
)
def test_an_unusable_reading_is_null_with_its_reason_and_in_no_window(bad, status):
    good = [(60 * minute, 12.0 + minute % 3) for minute in range(40)]
    found = described([*good[:20], (1_190, bad), *good[20:]])
    row = found.filter(status=status).to_dicts()[0]
    names = ("value", "z_score", "percentile", "change_5m", "change_1h", "regime")
    assert {row[name] for name in names} == {None}
    assert row["samples"] == 0
    assert_frame_equal(found.filter(status="ok"), described(good))


def test_known_time_is_the_latest_receipt_in_the_window():
    rows = readings([(60 * minute, 12.0) for minute in range(30)])
    late = (
        pl.when(pl.col("ts_event").dt.epoch("s") == 300)
        .then(pl.lit(5_000 * S))
        .otherwise(pl.col("ts_recv").to_physical())
    )
    found = vol_regime(rows.with_columns(ts_recv=late.cast(rows.schema["ts_recv"])), NONE, VolRegimeParams(window=15))
    known = found["ts_known"].to_physical().to_list()
    # The late reading of minute 5 is in windows up to minute 19, and held against up to minute 5 + 10.
    assert known[4] == 240 * S + LATENCY
    assert known[5:20] == [5_000 * S] * 15
    assert known[20] == 1_200 * S + LATENCY


def test_known_time_is_that_of_the_reading_held_against_too():
    rows = readings([(0, 12.0), (290, 12.0), (295, 12.0), (300, 12.0)])
    late = pl.when(pl.col("ts_event").to_physical() == 0).then(999 * S).otherwise(pl.col("ts_recv").to_physical())
    rows = rows.with_columns(ts_recv=late.cast(rows.schema["ts_recv"]))
    found = vol_regime(rows, NONE, VolRegimeParams(window=2, min_samples=2))
    assert found["ts_known"].to_physical().to_list() == [999 * S, 999 * S, 295 * S + LATENCY, 999 * S]


def test_cut_offs_are_published():
    params = VolRegimeParams(shock_value=44.0, benign_z_score=-0.5)
    (row,) = described([(0, 40.0)], params=params).to_dicts()
    assert (row["shock_value"], row["benign_z_score"], row["window"], row["regime"]) == (44.0, -0.5, 480, "ELEVATED")


def test_no_readings_give_an_empty_frame():
    assert_frame_equal(vol_regime(NONE, NONE), described([(0, 12.0)]).clear())
    assert vol_regime(NONE, readings([(0, 12.0)])).is_empty()


def test_two_runs_give_identical_bytes():
    frames = [readings([(60 * k, 10 + (k * n % 13) / 7) for k in range(300)], source=f"S{n}") for n in range(9)]
    rows = pl.concat(frames)
    assert ipc_bytes(vol_regime(rows, NONE)) == ipc_bytes(vol_regime(rows, NONE))


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 14},
        {"min_samples": 1},
        {"shock_value": 25.0},
        {"benign_value": 25.0},
        {"benign_value": 0.0},
        {"benign_z_score": 1.5},
        {"shock_change_5m": 0.0},
        {"elevated_change_1h": math.nan},
    ],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        VolRegimeParams(**wrong)
