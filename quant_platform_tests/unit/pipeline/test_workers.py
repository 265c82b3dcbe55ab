"""The pool: order, how far it runs ahead of what is taken, and that a dead process is not the end of it."""

import math
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

import pytest

from quant_platform.pipeline.workers import Workers


@pytest.fixture
def thread() -> Iterator[Workers]:
    workers = Workers(0)
    yield workers
    workers.close()


@pytest.fixture
def process() -> Iterator[Workers]:
    workers = Workers(1)
    yield workers
    workers.close()


def test_map_gives_results_in_order_and_takes_only_what_workers_can_go_on_with(thread: Workers) -> None:
    taken = []

    def given() -> Iterator[int]:
        for number in range(6):
            taken.append(number)
            yield number

    results = thread.map(lambda number: number * number, given())
    assert next(results) == 0
    assert taken == [0]
    assert list(results) == [1, 4, 9, 16, 25]


def test_map_raises_what_the_function_raised(thread: Workers) -> None:
    with pytest.raises(ZeroDivisionError):
        list(thread.map(lambda number: 1 // number, [1, 0]))


def test_a_process_that_died_gives_way_to_another(process: Workers) -> None:
    first = process.submit(os.getpid).result()
    assert first != os.getpid()
    with pytest.raises(BrokenProcessPool):
        list(process.map(os._exit, [1]))
    assert list(process.map(math.sqrt, [4.0, 9.0])) == [2.0, 3.0]
    assert process.submit(os.getpid).result() != first


def test_a_closed_pool_starts_again_when_it_is_needed(process: Workers) -> None:
    assert process.submit(math.sqrt, 4.0).result() == 2.0
    process.close()
    assert process.submit(math.sqrt, 9.0).result() == 3.0
