"""Tables built in a thread before they are asked for, each handed out once."""

import threading
from collections.abc import Callable
from datetime import date

import pytest

from quant_platform.pipeline.ahead import Ahead
from quant_platform.pipeline.units import Outcome, Unit, UnitStatus

DAY = date(2024, 8, 8)


def outcome(table: str, symbol: str) -> Outcome:
    return Outcome(Unit(table, symbol, DAY), UnitStatus.OK)


def two_units(table: str, tell: Callable[[Outcome], None]) -> list[Outcome]:
    done = [outcome(table, "ETHUSDT"), outcome(table, "BTCUSDT")]
    for one in done:
        tell(one)
    return done[::-1]


def test_each_table_is_told_unit_by_unit_and_returned_as_it_was_built() -> None:
    ahead = Ahead(two_units, ["a/1", "a/2"])
    for table in ("a/2", "a/1"):  # in whatever order they are asked for
        told: list[Outcome] = []
        assert ahead.take(table, told.append) == [outcome(table, "BTCUSDT"), outcome(table, "ETHUSDT")]
        assert told == [outcome(table, "ETHUSDT"), outcome(table, "BTCUSDT")]
        assert table not in ahead


def test_a_table_is_told_while_it_is_built_and_the_next_begins_before_it_is_asked_for() -> None:
    may_end, has_begun = threading.Event(), threading.Event()

    def build(table: str, tell: Callable[[Outcome], None]) -> list[Outcome]:
        tell(outcome(table, "BTCUSDT"))
        if table == "a/1":
            may_end.wait(10)
        else:
            has_begun.set()
        return []

    ahead = Ahead(build, ["a/1", "a/2"])
    assert ahead.take("a/1", lambda _: may_end.set()) == []
    assert has_begun.wait(10)


def test_an_error_is_raised_where_its_table_is_asked_for_and_stops_no_other() -> None:
    def build(table: str, tell: Callable[[Outcome], None]) -> list[Outcome]:
        if table == "a/1":
            raise OSError("the disk is full")
        return two_units(table, tell)

    ahead = Ahead(build, ["a/1", "a/2"])
    with pytest.raises(OSError, match="the disk is full"):
        ahead.take("a/1", lambda _: None)
    assert len(ahead.take("a/2", lambda _: None)) == 2


def test_what_was_stopped_ends_with_the_table_under_way() -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def build(table: str, tell: Callable[[Outcome], None]) -> list[Outcome]:
        has_begun.set()
        may_end.wait(10)
        return two_units(table, tell)

    ahead = Ahead(build, ["a/1", "a/2"])
    assert has_begun.wait(10)
    ahead.stop()
    may_end.set()
    ahead.join()
    assert len(ahead.take("a/1", lambda _: None)) == 2
    with pytest.raises(RuntimeError, match="a/2 was not built, because the engine was closed"):
        ahead.take("a/2", lambda _: None)
