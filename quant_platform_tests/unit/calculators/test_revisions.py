"""Which revision counts, now and as it was known at a time."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from quant_platform.calculators.revisions import as_of, current
from quant_platform.contracts._schema import empty
from quant_platform.contracts.execution import Fill

NOON = datetime(2024, 3, 8, 12, tzinfo=UTC)
SCHEMA = {"fill_id": pl.String, "revision": pl.Int64, "ts_event": pl.Int64, "ts_recv": pl.Int64, "price": pl.Float64}


def fills(*rows: tuple[str, int, int, int, float]) -> pl.DataFrame:
    since = [pl.lit(NOON) + pl.duration(seconds=name) for name in ("ts_event", "ts_recv")]
    return pl.DataFrame(rows, SCHEMA, orient="row").with_columns(
        ts_event=since[0].dt.cast_time_unit("ns"), ts_recv=since[1].dt.cast_time_unit("ns")
    )


TOLD = fills(("a", 0, 0, 1, 100.0), ("b", 0, 2, 3, 200.0), ("a", 1, 0, 60, 101.0), ("a", 2, 0, 120, 102.0))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_highest_revision_is_current_in_any_order(order: tuple[int, ...]) -> None:
    assert current(TOLD[list(order)], "fill_id")["price"].to_list() == [102.0, 200.0]


@pytest.mark.parametrize(
    ("seconds", "prices"),
    [(0, []), (1, [100.0]), (59, [100.0, 200.0]), (60, [101.0, 200.0]), (119, [101.0, 200.0]), (120, [102.0, 200.0])],
)
def test_a_revision_counts_from_when_it_was_known(seconds: int, prices: list[float]) -> None:
    assert as_of(TOLD, "fill_id", NOON + timedelta(seconds=seconds))["price"].to_list() == prices


def test_a_late_first_revision_does_not_replace_a_correction() -> None:
    rows = fills(("a", 1, 0, 5, 101.0), ("a", 0, 0, 9, 100.0))
    assert current(rows, "fill_id")["price"].to_list() == [101.0]


def test_of_equal_revisions_the_first_known_counts() -> None:
    rows = fills(("a", 1, 9, 7, 103.0), ("a", 1, 0, 5, 101.0), ("a", 0, 0, 1, 100.0))
    assert current(rows, "fill_id")["price"].to_list() == [101.0]


def test_lazy_rows_give_the_same() -> None:
    assert current(TOLD.lazy(), "fill_id").collect().equals(current(TOLD, "fill_id"))
    assert as_of(TOLD.lazy(), "fill_id", NOON).collect().height == 0


def test_no_rows_give_none() -> None:
    assert current(empty(Fill), "fill_id").equals(empty(Fill))
    assert as_of(empty(Fill), "fill_id", NOON).equals(empty(Fill))
