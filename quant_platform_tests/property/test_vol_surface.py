"""Raw SVI: any slice is found again from its points, and any points give a slice that keeps its contract."""

import math
from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_platform.calculators import _svi
from quant_platform.calculators._svi import Svi
from quant_platform.calculators.vol_surface import vol_surface
from quant_platform.contracts._schema import INSTANT, validated
from quant_platform.contracts.options import VolSurface

YEAR = 365 * 86_400_000_000_000


def reals(low, high):
    return st.floats(low, high, allow_nan=False)


@given(
    st.lists(
        st.tuples(
            reals(1e-3, 0.2),
            reals(0.02, 0.9),
            reals(-0.95, 0.95),
            reals(-0.25, 0.25),
            reals(0.02, 0.8),
            reals(0.5, 1.5),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_slice_is_found_again_from_its_points(slices):
    *parameters, reach = (np.array(values) for values in zip(*slices, strict=True))
    svi = Svi(*parameters)
    k = np.linspace(-reach, reach, 41).T
    w = _svi.total_variance(svi.column(), k)
    found, rmse = _svi.fit(k.ravel(), w.ravel(), np.arange(len(slices)) * 41)
    assert (rmse <= 1e-9 * w.mean(axis=1)).all()
    again = _svi.total_variance(found.column(), k)
    assert again.ravel().tolist() == pytest.approx(w.ravel().tolist(), rel=1e-7)


@given(
    st.lists(st.tuples(reals(10.0, 400.0), reals(0.01, 3.0)), min_size=5, max_size=30, unique_by=lambda each: each[0])
)
def test_any_points_give_a_slice_no_worse_than_a_flat_one(points):
    strikes, ivs = (np.array(values) for values in zip(*points, strict=True))
    chain = pl.DataFrame(
        {
            "ts_event": 0,
            "ts_recv": 1,
            "symbol": "X",
            "expiry": date(1971, 1, 1),
            "ts_expiry": YEAR,
            "type": np.where(strikes >= 100, "C", "P"),
            "strike": strikes,
            "multiplier": 100.0,
            "bid": 0.05,
            "iv": ivs,
            "underlying_price": 100.0,
            "rate": 0.0,
            "dividend": 0.0,
        }
    ).cast(dict.fromkeys(("ts_event", "ts_recv", "ts_expiry"), INSTANT))
    (row,) = validated(VolSurface, vol_surface(chain)).to_dicts()
    assert (row["status"], row["n"]) == ("ok", len(points))
    k, w = np.log(strikes / 100), ivs**2
    exponent = -((k / ivs - ivs / 2) ** 2) / 2 - np.log(ivs)
    weights = np.maximum(np.exp(exponent - exponent.max()), 0.01)
    flat = np.average(w, weights=weights)
    assert row["rmse"] <= math.sqrt(np.average((w - flat) ** 2, weights=weights)) * (1 + 1e-9) + 1e-15
    assert row["b"] * (1 + abs(row["rho"])) <= 2 + 1e-12
    assert row["arbitrage"] == (row["min_g"] is None or row["min_g"] < 0)
    assert math.isfinite(row["m"])
