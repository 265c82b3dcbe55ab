"""The history of exposures: standing by hand, windows of each exposure, and null rules."""

import math
import statistics

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.exposure_history import ExposureHistoryParams, exposure_history, exposure_values
from quant_platform.contracts._schema import validated
from quant_platform.contracts.dealer import ExposureHistory
from quant_platform_tests.unit.dealer_frames import (
    INSTANT,
    NOW,
    contracts,
    dealer_flow,
    gamma_exposure,
    of_whole,
    skew,
    snapshots,
)

EXPOSURES = ["charm", "dex_net", "gex_gross", "gex_net", "skew", "vanna"]
SCHEMA = {"symbol": pl.String, "ts_event": INSTANT, "ts_known": INSTANT, "exposure": pl.String, "value": pl.Float64}


def values(numbers, *, exposure="gex_net", symbol="SPX", start=0):
    """Give each number the columns of values, one a snapshot, each known 3 ns after it."""
    rows = [(symbol, start + k, start + k + 3, exposure, number) for k, number in enumerate(numbers)]
    physical = SCHEMA | {"ts_event": pl.Int64, "ts_known": pl.Int64}
    return pl.DataFrame(rows, schema=physical, orient="row", strict=False).cast(SCHEMA)


def newest(numbers, exposure="gex_net"):
    earlier, new = (
        values(numbers[:-1], exposure=exposure),
        values(numbers[-1:], exposure=exposure, start=len(numbers) - 1),
    )
    (row,) = validated(ExposureHistory, exposure_history(new, earlier)).to_dicts()
    return row


def test_standing_by_hand():
    # Mean 6, squares 25 + 9 + 1 + 1 + 36 over 4: std √18.
    row = newest([1.0, 3.0, 7.0, 7.0, 12.0])
    assert row["z_score"] == pytest.approx(6 / math.sqrt(18), rel=1e-14)
    assert (row["mean"], row["samples"], row["percentile"], row["status"]) == (6.0, 5, 1.0, "ok")
    assert newest([1.0, 3.0, 7.0, 12.0, 7.0])["percentile"] == 0.8


@pytest.mark.parametrize("exposure", EXPOSURES)
def test_each_exposure_has_its_window_and_least_samples(exposure):
    window, least = (120, 5) if exposure in {"gex_gross", "gex_net", "dex_net"} else (180, 15)
    numbers = [float(k * k % 997) for k in range(300)]
    row = newest(numbers, exposure)
    used = numbers[-window:]
    assert row["samples"] == window
    assert row["z_score"] == pytest.approx((used[-1] - statistics.mean(used)) / statistics.stdev(used), rel=1e-12)
    assert row["percentile"] == pytest.approx(sum(number <= used[-1] for number in used) / window, rel=1e-15)
    few, enough = newest(numbers[: least - 1], exposure), newest(numbers[:least], exposure)
    assert (few["z_score"], few["status"], few["samples"]) == (None, "too_few", least - 1)
    assert few["percentile"] is not None
    assert (enough["status"], enough["z_score"] is None) == ("ok", False)


def test_a_constant_history_has_no_z_score():
    row = newest([0.1] * 20)
    assert (row["z_score"], row["percentile"], row["std"], row["status"]) == (None, 1.0, 0.0, "constant")


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_what_is_not_known_is_in_no_window(missing):
    row = newest([1.0, 2.0, 3.0, 4.0, 5.0, missing])
    assert (row["value"], row["z_score"], row["percentile"], row["status"], row["samples"]) == (
        None,
        None,
        None,
        "no_data",
        0,
    )
    assert newest([1.0, missing, 2.0, 3.0, missing, 4.0, 9.0])["samples"] == 5


def test_windows_count_snapshots_and_not_cycles():
    earlier = values([1.0, 2.0, 3.0, 4.0])
    again = pl.concat([values([9.0], start=3), values([4.0], start=3), values([7.0], start=4), values([6.0], start=4)])
    found = exposure_history(again, pl.concat([earlier, earlier]))
    assert_frame_equal(found, exposure_history(values([4.0, 6.0], start=3), values([1.0, 2.0, 3.0])))
    assert found["samples"].to_list() == [4, 5]


def test_symbols_and_exposures_share_nothing():
    parts = [
        values([float(k), 2.0, 5.0, 1.0, 7.0], exposure=e, symbol=s)
        for k, (e, s) in enumerate([("skew", "A"), ("gex_net", "B"), ("gex_net", "A")])
    ]
    found = exposure_history(pl.concat(parts).sample(fraction=1, shuffle=True, seed=3), values([]))
    for part in parts:
        alone = exposure_history(part, values([]))
        same = found.join(part.select("symbol", "exposure").unique(), on=["symbol", "exposure"], how="semi")
        assert_frame_equal(same, alone)
    assert found.select("symbol", "ts_event", "exposure").equals(
        found.select("symbol", "ts_event", "exposure").sort(pl.all())
    )


def test_no_values_give_an_empty_frame():
    empty = validated(ExposureHistory, exposure_history(values([]), values([1.0])))
    assert empty.is_empty()


def test_values_are_those_over_all_of_each_snapshot():
    shots = snapshots(("SPX", NOW, 100.0), ("SPX", NOW + 60, 100.0), ("NDX", NOW, None))
    rows = [{"strike": 105.0, "delta": 0.25}, {"strike": 95.0, "type": "P", "delta": -0.25, "iv": 0.3, "days": 40.0}]
    both = [rows[0], rows[1] | {"days": 15.0}, rows[1]]
    chain = pl.concat([contracts(*both), contracts(*rows, ts=NOW + 60), contracts(*both, symbol="NDX")])
    tables = gamma_exposure(shots, chain), dealer_flow(shots, chain), skew(shots, chain)
    found = exposure_values(*tables)
    assert found.height == 3 * len(EXPOSURES)
    first = (pl.col("symbol") == "SPX") & (pl.col("ts_event").to_physical() == NOW)
    gamma, flow, headline = (of_whole(table.filter(first)) for table in tables)
    assert dict(found.filter(first).sort("exposure").select("exposure", "value").rows()) == {
        "charm": flow["charm_notional_per_day"],
        "dex_net": gamma["dex_net"],
        "gex_gross": gamma["gex_gross"],
        "gex_net": gamma["gex_net"],
        "skew": pytest.approx(0.1),
        "vanna": flow["vanna_notional_per_vol_pt"],
    }
    assert headline["skew"] == pytest.approx(0.1)
    history = validated(ExposureHistory, exposure_history(found, found.clear()))
    assert history.filter(pl.col("symbol") == "NDX", pl.col("exposure") != "skew")["status"].unique().to_list() == [
        "no_data"
    ]
    assert history["ts_known"].to_physical().unique().sort().to_list() == [NOW + 7, NOW + 67]


@pytest.mark.parametrize("wrong", [{"gamma_window": 4}, {"gamma_min_samples": 1}, {"flow_window": 14}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="must hold"):
        ExposureHistoryParams(**wrong)


@pytest.mark.parametrize("cut", [1, 7, 150, 299])
def test_a_history_cut_anywhere_is_the_same(cut):
    full = pl.concat(
        [values([float(k * k % 97) for k in range(300)], exposure=exposure) for exposure in ("skew", "gex_net")]
    )
    is_early = pl.col("ts_event").to_physical() < cut
    early, late = full.filter(is_early), full.filter(~is_early)
    whole = exposure_history(full, full.clear())
    assert_frame_equal(exposure_history(late, early), whole.filter(~is_early), rel_tol=1e-12)
    assert_frame_equal(exposure_history(early, full.clear()), whole.filter(is_early), rel_tol=1e-12)
