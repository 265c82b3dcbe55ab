"""Parts on all cores: in their order, at the same time, and with their errors."""

import threading

import polars as pl
import pytest

from quant_platform.calculators._cores import on_all_cores


def test_finds_stand_in_the_order_of_the_parts():
    assert on_all_cores(lambda part: part**2, range(100)) == [part**2 for part in range(100)]
    assert on_all_cores(str, []) == []


def test_parts_run_at_the_same_time(monkeypatch):
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 2)
    meeting = threading.Barrier(2)  # breaks unless both come
    assert sorted(on_all_cores(lambda _: meeting.wait(timeout=10), ["one", "other"])) == [0, 1]


def test_one_part_starts_no_thread():
    assert on_all_cores(lambda _: threading.current_thread(), ["only"]) == [threading.current_thread()]


def test_an_error_of_a_part_is_raised():
    with pytest.raises(ZeroDivisionError):
        on_all_cores(lambda part: 1 / part, [1, 0, 2])
