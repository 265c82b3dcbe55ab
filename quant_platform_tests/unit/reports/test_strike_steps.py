"""Strikes in even steps: which step is chosen, what falls into it, what is too far away."""

import polars as pl
import pytest

from quant_platform.reports.strike_steps import by_steps


def spots(**prices: float | None) -> pl.LazyFrame:
    return pl.LazyFrame({"symbol": list(prices), "spot": list(prices.values())}, schema_overrides={"spot": pl.Float64})


def at(*strikes: float, symbol: str = "AAA") -> pl.LazyFrame:
    """Return a value of 1 at each strike."""
    return pl.LazyFrame({"symbol": symbol, "strike": list(strikes), "value": 1.0})


def gathered(rows: pl.LazyFrame, **prices: float | None) -> list[tuple[float, float]]:
    """Return strike and value of each step."""
    found = by_steps(rows, spots(**prices), values=["value"]).collect()
    return list(found.select("strike", "value").iter_rows())


def test_strikes_in_even_distances_stay_what_they_are() -> None:
    found = by_steps(at(90, 100, 110), spots(AAA=100.0), values=["value"]).collect()
    assert found.rows() == [("AAA", 90.0, 10.0, 1.0), ("AAA", 100.0, 10.0, 1.0), ("AAA", 110.0, 10.0, 1.0)]


def test_strikes_beyond_a_fifth_of_the_price_are_left_out() -> None:
    found = gathered(at(79.99, 80, 90, 100, 110, 120, 120.01), AAA=100.0)
    assert found == [(80.0, 1.0), (90.0, 1.0), (100.0, 1.0), (110.0, 1.0), (120.0, 1.0)]


@pytest.mark.parametrize(
    ("spot", "least"),
    [  # 40 % of the price in 60 steps, up to the next round one
        (100.0, 1.0),  # 0.667
        (210.0, 2.0),  # 1.4
        (315.0, 2.5),  # 2.1
        (565.79, 5.0),  # 3.77
        (1_000.0, 10.0),  # 6.67
        (63_000.0, 500.0),  # 420
        (0.6, 0.005),  # 0.004
    ],
)
def test_step_of_dense_strikes_is_round(spot: float, least: float) -> None:
    dense = at(*(spot * (0.8 + 0.0001 * i) for i in range(4_001)))
    found = by_steps(dense, spots(AAA=spot), values=["value"]).collect()
    assert found["step"].unique().to_list() == [pytest.approx(least)]
    assert found.height <= 61
    assert found["value"].sum() == pytest.approx(4_001, abs=2)  # the ends may lie a bit beyond


def test_step_is_no_less_than_the_median_distance() -> None:
    # The median of 15, 3, 3, 3, 3 is 3, so the step is 5.
    assert gathered(at(80, 95, 98, 101, 104, 107), AAA=100.0) == [(80.0, 1.0), (95.0, 1.0), (100.0, 2.0), (105.0, 2.0)]


def test_strikes_halfway_between_multiples_stay_apart() -> None:
    assert gathered(at(90, 110), AAA=100.0) == [(100.0, 1.0), (120.0, 1.0)]
    assert [value for _, value in gathered(at(82.5, 87.5, 92.5, 97.5, 102.5, 107.5), AAA=95.0)] == [1.0] * 6
    assert [value for _, value in gathered(at(0.85, 0.95, 1.05, 1.15), AAA=1.0)] == [1.0] * 4


def test_what_is_kept_apart_is_summed_by_itself() -> None:
    rows = pl.LazyFrame({"symbol": "AAA", "strike": [100.0, 100.4, 100.0], "kind": ["b", "b", "a"], "value": [1, 2, 4]})
    found = by_steps(rows, spots(AAA=100.0), by=["kind"], values=["value"]).collect()
    assert found.select("kind", "strike", "value").rows() == [("a", 100.0, 4), ("b", 100.0, 3)]


def test_each_symbol_has_its_own_step() -> None:
    rows = pl.concat([at(90.0, 100.0, 110.0), at(0.9, 1.0, 1.1, symbol="BBB")])
    found = by_steps(rows, spots(AAA=100.0, BBB=1.0), values=["value"]).collect()
    assert found.select("symbol", "step").unique().sort("symbol").rows() == [("AAA", 10.0), ("BBB", pytest.approx(0.1))]


@pytest.mark.parametrize("spot", [None, 0.0, -1.0])
def test_symbol_without_a_price_has_no_rows(spot: float | None) -> None:
    assert gathered(at(90, 100), AAA=spot) == []


def test_single_strike_is_shown() -> None:
    assert gathered(at(100), AAA=100.0) == [(100.0, 1.0)]
