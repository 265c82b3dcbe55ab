"""Holes in the trade ids, each worked by hand, and against a walk over every id."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.market import Gap, Trade
from quant_platform.feeds.normalize import trade_gaps

NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)
LATENCY = timedelta(milliseconds=50)
Row = tuple[str, int, int, int]


def tape(*rows: Row) -> pl.LazyFrame:
    """Trades as (symbol, first id, last id, seconds after noon), received 50 ms later."""
    return pl.LazyFrame(
        [
            {
                "ts_event": NOON + timedelta(seconds=second),
                "ts_recv": NOON + timedelta(seconds=second) + LATENCY,
                "symbol": symbol,
                "venue": "binance_usdm",
                "trade_id": first,
                "first_trade_id": first,
                "last_trade_id": last,
                "price": 1.0,
                "size": 1.0,
                "aggressor": 1,
            }
            for symbol, first, last, second in rows
        ],
        schema=polars_schema(Trade),
    )


def holes(*rows: Row) -> list[Row]:
    """The gaps as (symbol, first id, last id, seconds from the trade before to the trade after)."""
    gaps = validated(Gap, trade_gaps(tape(*rows)))
    assert (gaps["missing"] == gaps["last_id"] - gaps["first_id"] + 1).all()
    spans = (gaps["ts_end"] - gaps["ts_start"]).dt.total_seconds()
    return list(zip(gaps["symbol"], gaps["first_id"], gaps["last_id"], spans, strict=True))


def prints(symbol: str, *ids: int) -> list[Row]:
    """Single prints, as many seconds after noon as their id says."""
    return [(symbol, one, one, one) for one in ids]


def test_unbroken_ids_leave_no_gap() -> None:
    assert holes(*prints("A", 5, 6, 7, 8)) == []


def test_no_trades_leave_no_gap() -> None:
    gaps = trade_gaps(tape())
    assert gaps.schema == polars_schema(Gap)
    assert gaps.is_empty()


def test_single_trade_leaves_no_gap() -> None:
    assert holes(*prints("A", 5)) == []


def test_one_gap_says_its_ids_and_the_times_on_both_sides() -> None:
    gaps = trade_gaps(tape(*prints("A", 5, 6, 10)))
    assert gaps.to_dicts() == [
        {
            "symbol": "A",
            "first_id": 7,
            "last_id": 9,
            "missing": 3,
            "ts_start": NOON + timedelta(seconds=6),
            "ts_end": NOON + timedelta(seconds=10),
            "status": "open",
            "filled_by": None,
            "ts_known": NOON + timedelta(seconds=10) + LATENCY,
        }
    ]


def test_several_gaps_in_order_of_ids() -> None:
    assert holes(*prints("A", 1, 3, 4, 9)) == [("A", 2, 2, 2), ("A", 5, 8, 5)]


def test_aggregates_are_ranges() -> None:
    assert holes(("A", 1, 5, 0), ("A", 6, 6, 1), ("A", 7, 10, 2)) == []
    assert holes(("A", 1, 5, 0), ("A", 8, 10, 2), ("A", 12, 12, 3)) == [("A", 6, 7, 2), ("A", 11, 11, 1)]


def test_overlap_is_no_gap() -> None:
    assert holes(("A", 1, 5, 0), ("A", 4, 8, 1), ("A", 9, 9, 2)) == []


def test_gap_after_a_contained_row_starts_at_the_largest_id() -> None:
    assert holes(("A", 1, 10, 7), ("A", 3, 4, 1), ("A", 15, 15, 9)) == [("A", 11, 14, 2)]


def test_rows_out_of_order_give_the_same_gaps() -> None:
    assert holes(*prints("A", 9, 1, 4, 3)) == [("A", 2, 2, 2), ("A", 5, 8, 5)]


def test_symbols_are_told_apart() -> None:
    rows = [*prints("B", 100, 102), *prints("A", 1, 2, 4)]
    expected = [("A", 3, 3, 2), ("B", 101, 101, 2)]
    assert holes(*rows) == expected
    assert holes(rows[0], rows[2], rows[3], rows[1], rows[4]) == expected


def test_one_symbols_last_id_is_not_the_others_start() -> None:
    assert holes(*prints("A", 1, 2), *prints("B", 90, 91)) == []
    assert holes(*prints("A", 1, 2), *prints("B", 3, 5)) == [("B", 4, 4, 2)]


def test_duplicates_are_no_gap() -> None:
    assert holes(*prints("A", 1, 1, 2, 2, 4, 4)) == [("A", 3, 3, 2)]


def test_columns_beside_the_needed_ones_may_lack() -> None:
    needed = ["symbol", "first_trade_id", "last_trade_id", "ts_event", "ts_recv"]
    assert trade_gaps(tape(*prints("A", 1, 3)).select(needed)).height == 1


ROWS = st.tuples(st.sampled_from("AB"), st.integers(0, 40), st.integers(0, 6)).map(
    lambda r: (r[0], r[1], r[1] + r[2], r[1] + r[2])
)


@given(rows=st.lists(ROWS, max_size=14))
def test_gaps_are_the_ids_between_first_and_last_that_no_row_holds(rows: list[Row]) -> None:
    found = {(symbol, i) for symbol, first, last, _ in holes(*rows) for i in range(first, last + 1)}
    held = {(symbol, i) for symbol, first, last, _ in rows for i in range(first, last + 1)}
    spans = {s: [i for symbol, i in held if symbol == s] for s in "AB"}
    between = {(s, i) for s, ids in spans.items() if ids for i in range(min(ids), max(ids) + 1)}
    assert found == between - held


@pytest.mark.parametrize("start", [0, 2**40])
def test_large_ids_stay_exact(start: int) -> None:
    rows = [("A", start, start, 0), ("A", start + 2**33, start + 2**33, 1)]
    assert holes(*rows) == [("A", start + 1, start + 2**33 - 1, 1)]
