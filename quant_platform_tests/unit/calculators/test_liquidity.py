"""The time-weighted quoted spread, by hand."""

import math

import polars as pl
import pytest

from quant_platform.calculators.liquidity import quoted_spread

INSTANT = pl.Datetime("ns", "UTC")
MS = 1_000_000
SCHEMA = {
    "ts_event": INSTANT,
    "ts_recv": INSTANT,
    "symbol": pl.String,
    "bid_price": pl.Float64,
    "bid_size": pl.Float64,
    "ask_price": pl.Float64,
    "ask_size": pl.Float64,
    "sequence": pl.Int64,
}


def quotes(*rows, symbol="A"):
    """Build quotes from (ms, bid, ask), of one unit a side, received 50 ms later."""
    return pl.DataFrame(
        [(ms * MS, (ms + 50) * MS, symbol, bid, 1.0, ask, 1.0, number) for number, (ms, bid, ask) in enumerate(rows)],
        schema=SCHEMA,
        orient="row",
    )


def spread_bps(bid, ask):
    return (ask - bid) / ((ask + bid) / 2) * 1e4


WIDE, NARROW = (99.0, 101.0), (99.5, 100.5)  # 200 and 100 bps of a mid of 100


def test_each_quote_weighs_as_long_as_it_holds():
    # 200 bps from 0 to 600 ms, 100 bps from there to 1,000.
    found = quoted_spread(quotes((0, *WIDE), (600, *NARROW)), 1).to_dicts()
    assert [row["spread_bps"] for row in found] == [pytest.approx(0.6 * 200 + 0.4 * 100)]
    assert [row["status"] for row in found] == ["ok"]
    assert found[0]["quote_count"] == 2


def test_the_quote_in_force_counts_from_the_start_of_the_interval():
    found = quoted_spread(quotes((500, *WIDE), (1_250, *NARROW)), 1)
    assert found["spread_bps"].to_list() == [pytest.approx(200), pytest.approx(0.25 * 200 + 0.75 * 100)]
    assert found["ts_open"].to_physical().to_list() == [0, 1_000 * MS]


def test_time_without_a_quote_before_it_weighs_nothing():
    assert quoted_spread(quotes((900, *WIDE)), 1)["spread_bps"].to_list() == [pytest.approx(200)]


def test_an_interval_without_a_quote_has_no_row():
    found = quoted_spread(quotes((0, *WIDE), (3_500, *NARROW)), 1)
    assert found["ts_open"].to_physical().to_list() == [0, 3_000 * MS]
    assert found["spread_bps"].to_list() == [pytest.approx(200), pytest.approx(150)]


@pytest.mark.parametrize(
    ("bid", "ask"),
    [(101.0, 99.0), (None, 101.0), (99.0, None), (math.nan, 101.0), (99.0, math.inf), (0.0, 1.0), (-2.0, -1.0)],
)
def test_crossed_one_sided_and_bad_quotes_weigh_nothing(bid, ask):
    found = quoted_spread(quotes((0, *WIDE), (250, bid, ask), (750, *NARROW)), 1)
    assert found["spread_bps"].to_list() == [pytest.approx(150)]
    assert found["quote_count"].to_list() == [3]
    found = quoted_spread(quotes((0, bid, ask)), 1)
    assert found["spread_bps"].to_list() == [None]
    assert found["status"].to_list() == ["no_data"]


def test_an_empty_side_is_no_quote_and_an_unknown_size_is_one():
    frame = quotes((0, *WIDE))
    assert quoted_spread(frame.with_columns(bid_size=0.0), 1)["spread_bps"].to_list() == [None]
    assert quoted_spread(frame.with_columns(ask_size=0.0), 1)["spread_bps"].to_list() == [None]
    unknown = frame.with_columns(bid_size=pl.lit(None, pl.Float64))
    assert quoted_spread(unknown, 1)["spread_bps"].to_list() == [pytest.approx(200)]


def test_a_locked_quote_has_a_spread_of_zero():
    assert quoted_spread(quotes((0, 100.0, 100.0)), 1)["spread_bps"].to_list() == [0.0]


def test_quotes_of_one_instant_follow_their_sequence_whatever_the_order_of_rows():
    frame = quotes((0, *WIDE), (0, *NARROW))
    assert quoted_spread(frame.reverse(), 1)["spread_bps"].to_list() == [pytest.approx(100)]


def test_symbols_do_not_touch():
    other = quotes((100, 10.0, 10.1), (900, 10.0, 10.3), symbol="B")
    together = quoted_spread(pl.concat([quotes((0, *WIDE), (600, *NARROW)), other]).sort("ts_event"), 1)
    by_hand = [160.0, (800 * spread_bps(10.0, 10.1) + 100 * spread_bps(10.0, 10.3)) / 900]
    assert together["symbol"].to_list() == ["A", "B"]
    assert together["spread_bps"].to_list() == pytest.approx(by_hand)


def test_known_time_covers_what_was_used():
    late = (
        pl.when(pl.col("sequence") == 0)
        .then(pl.col("ts_recv") + pl.duration(seconds=9, time_unit="ns"))
        .otherwise("ts_recv")
    )
    found = quoted_spread(quotes((500, *WIDE), (1_250, *NARROW), (2_990, *WIDE)).with_columns(ts_recv=late), 1)
    # The first quote came at 9.55 s and is used in two intervals; the third is received after its interval.
    assert found["ts_known"].to_physical().to_list() == [9_550 * MS, 9_550 * MS, 3_040 * MS]


def test_no_quotes_give_no_rows_with_the_right_dtypes():
    found = quoted_spread(quotes(), 60)
    assert found.is_empty()
    assert found.schema == {
        "symbol": pl.String,
        "ts_open": INSTANT,
        "spread_bps": pl.Float64,
        "quote_count": pl.Int64,
        "status": pl.String,
        "ts_known": INSTANT,
    }


def test_a_width_below_a_second_is_refused():
    with pytest.raises(ValueError, match="width_s must be >= 1, was 0"):
        quoted_spread(quotes(), 0)
