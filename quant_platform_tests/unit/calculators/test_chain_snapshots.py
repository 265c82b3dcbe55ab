"""Whole snapshots of chains: which price is the underlying's, and when it was known."""

import polars as pl
from polars.testing import assert_frame_equal

from quant_platform.calculators.option_chain import chain_snapshots
from quant_platform.contracts._schema import INSTANT

HOUR = 3_600_000_000_000
TIMES = ("ts_event", "ts_recv", "ts_expiry")


def chain(*rows):
    columns = ("symbol", "ts_event", "ts_recv", "ts_expiry", "underlying_price")
    schema = dict(zip(columns, (pl.String, *[pl.Int64] * 3, pl.Float64), strict=True))
    frame = pl.DataFrame(rows, schema=schema, orient="row").cast(dict.fromkeys(TIMES, INSTANT))
    return frame.with_columns(rate=pl.lit(0.03), dividend=pl.lit(0.01))


def test_the_price_is_that_of_the_settlement_that_comes_next():
    found = chain_snapshots(
        chain(
            ("X", 10 * HOUR, 5, 9 * HOUR, 90.0),  # expired
            ("X", 10 * HOUR, 8, 30 * HOUR, 103.0),
            ("X", 10 * HOUR, 6, 20 * HOUR, 101.0),
            ("X", 10 * HOUR, 7, 20 * HOUR, 102.0),
            ("X", 10 * HOUR, 7, 15 * HOUR, None),
        )
    )
    (row,) = found.cast({"ts_known": pl.Int64}).to_dicts()
    assert (row["underlying_price"], row["ts_known"], row["rate"], row["dividend"]) == (101.5, 8, 0.03, 0.01)


def test_a_snapshot_without_a_price_is_there_all_the_same():
    found = chain_snapshots(
        chain(("Y", 0, 1, HOUR, None), ("X", HOUR, 2, HOUR, 100.0), ("X", 2 * HOUR, 3, 3 * HOUR, 100.0))
    )
    assert found.select("symbol", "underlying_price").rows() == [("Y", None), ("X", None), ("X", 100.0)]


def test_an_empty_chain_has_no_snapshots():
    found = chain_snapshots(chain())
    assert_frame_equal(found, chain_snapshots(chain(("X", 0, 1, HOUR, 1.0))).clear())
