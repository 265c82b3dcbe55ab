"""What a row of `market/book` must keep."""

import polars as pl
import pytest

from quant_platform.contracts._schema import conformed, empty, polars_schema, split
from quant_platform.contracts.market import Book

NAMES = [f"{side}_{what}_{level}" for side in ("bid", "ask") for what in ("price", "size") for level in range(1, 6)]


def book(**figures):
    row = {"symbol": "BTCUSDT", "venue": "binance_usdm", "sequence": 1, **figures}
    rows = pl.DataFrame([row]).with_columns(ts_event=pl.datetime(2024, 8, 8, time_unit="ns", time_zone="UTC"))
    return conformed(Book, pl.concat([empty(Book), rows], how="diagonal_relaxed"))


def test_columns_are_five_levels_of_each_side():
    assert polars_schema(Book).names() == ["ts_event", "ts_recv", "symbol", "venue", "sequence", *NAMES]


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"bid_price_1": 100.0, "bid_size_1": 1.0},
        {"bid_price_1": 101.0, "ask_price_1": 100.0},
        {"bid_price_1": 100.0, "bid_price_2": 99.0, "ask_price_1": 100.0, "ask_price_2": 101.0},
        {"ask_price_1": 1.0, "ask_size_1": 0.0},
    ],
)
def test_empty_one_sided_crossed_and_locked_books_are_data(figures):
    assert split(Book, book(**figures)).good.height == 1


@pytest.mark.parametrize(
    ("figures", "rule"),
    [
        ({"bid_price_2": 100.0, "bid_price_3": 100.0}, "levels_in_order"),
        ({"ask_price_4": 101.0, "ask_price_5": 100.0}, "levels_in_order"),
        ({"bid_price_5": 0.0}, "bid_price_5|min_exclusive"),
        ({"ask_size_3": -1.0}, "ask_size_3|min"),
        ({"ask_size_3": float("nan")}, "ask_size_3|"),
    ],
)
def test_what_no_book_can_be_breaks_a_rule(figures, rule):
    bad = split(Book, book(**figures)).bad
    assert bad["rule"].to_list()[0].startswith(rule)
