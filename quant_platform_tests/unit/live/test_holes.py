"""Holes in the trade ids: what is missing, what is told, and what a killed collector left; worked by hand."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_platform.live._holes import Fate, Hole, Notebook, Noted, time_of
from quant_platform.storage.landing import Segment

NOTED = Noted(10, 20, 1_000, 2_000)


def segment(path: Path, *messages: dict | str) -> Segment:
    lines = [message if isinstance(message, str) else json.dumps(message) for message in messages]
    path.write_text("".join(f"1700000000000000000 {line}\n" for line in lines))
    return Segment("binance_usdm", "BTC", 1, len(lines), 0, None, None, None, None, "", path)


def trade(trade_id: int, **more: object) -> dict:
    return {"stream": "btcusdt@trade", "data": {"t": trade_id, "T": 1_700_000_000_000 + trade_id}, **more}


def aggregate(first: int, last: int) -> dict:
    return {"stream": "btcusdt@aggTrade", "data": {"a": 1, "f": first, "l": last, "T": 5}, "refill": True}


def gap(first: int, last: int, filled_by: str | None) -> dict:
    data = {"first_id": first, "last_id": last, "ts_start": 1, "ts_end": 2, "filled_by": filled_by}
    return {"stream": "btcusdt@gap", "data": data}


def test_what_comes_late_is_missing_no_more_and_not_told() -> None:
    hole = Hole(NOTED)
    assert hole.came(12, 13)
    assert hole.missing == [(10, 11), (14, 20)]
    assert not hole.came(12, 12)
    assert not hole.came(21, 30)
    assert hole.fates() == [Fate(10, 11, None), Fate(14, 20, None)]


def test_ranges_of_one_fate_are_told_once() -> None:
    hole = Hole(NOTED)
    assert hole.came(8, 12, "aggTrades")
    assert hole.came(13, 15, "aggTrades")
    assert hole.came(18, 25, "aggTrades")
    assert hole.missing == [(16, 17)]
    assert hole.fates() == [Fate(10, 15, "aggTrades"), Fate(16, 17, None), Fate(18, 20, "aggTrades")]


@given(st.lists(st.tuples(st.integers(5, 25), st.integers(0, 6), st.sampled_from([None, "aggTrades"]))))
def test_every_id_has_one_fate_or_came_late(arrivals: list[tuple[int, int, str | None]]) -> None:
    hole = Hole(NOTED)
    fate: dict[int, str | None] = dict.fromkeys(range(10, 21), "missing")
    for first, more, filled_by in arrivals:
        hole.came(first, first + more, filled_by)
        fate |= {i: filled_by or "late" for i in range(first, first + more + 1) if fate.get(i) == "missing"}
    told = {i: f.filled_by for f in hole.fates() for i in range(f.first_id, f.last_id + 1)}
    assert told == {i: None if f == "missing" else f for i, f in fate.items() if f != "late"}
    for one, following in zip(hole.fates(), hole.fates()[1:], strict=False):
        assert one.last_id < following.first_id
        assert one.last_id + 1 < following.first_id or one.filled_by != following.filled_by


def test_rest_of_a_hole_is_what_the_segments_do_not_hold(tmp_path: Path) -> None:
    found = segment(
        tmp_path / "1",
        trade(9),
        trade(21),
        trade(15),  # late
        "{broken",
        aggregate(8, 11),
        trade(18, refill=True),
        gap(13, 13, None),
    )
    hole = Hole.rest_of(NOTED, [found])
    assert hole.missing == [(12, 12), (14, 14), (16, 17), (19, 20)]
    assert [f for f in hole.fates() if f.filled_by] == [Fate(10, 11, "aggTrades"), Fate(18, 18, "historicalTrades")]


def test_rest_of_a_hole_whose_fate_was_told_is_nothing(tmp_path: Path) -> None:
    found = segment(tmp_path / "1", aggregate(8, 20), gap(10, 20, "aggTrades"))
    hole = Hole.rest_of(NOTED, [found])
    assert hole.missing == []
    assert hole.fates() == []


def test_notebook_keeps_what_is_open_across_processes(tmp_path: Path) -> None:
    other = Noted(30, 31, 5, 6)
    book = Notebook(tmp_path, "binance_usdm", "BTC/USDT")
    assert book.read() == frozenset()
    book.note(frozenset({NOTED}))
    book.note(frozenset({other}))
    assert Notebook(tmp_path, "binance_usdm", "BTC/USDT").read() == {NOTED, other}
    book.write(frozenset({other}))
    assert Notebook(tmp_path, "binance_usdm", "BTC/USDT").read() == {other}


def test_a_damaged_notebook_is_named(tmp_path: Path) -> None:
    book = Notebook(tmp_path, "binance_usdm", "BTC")
    book.write(frozenset({NOTED}))
    file = next(tmp_path.rglob("*.json"))
    file.write_text("[[1,2")
    with pytest.raises(OSError, match=r"BTC\.holes\.json is damaged.*Delete it"):
        Notebook(tmp_path, "binance_usdm", "BTC").read()


def test_time_of_a_trade_is_found_though_it_is_far_from_the_end(tmp_path: Path) -> None:
    quotes = [json.dumps({"stream": "btcusdt@bookTicker", "data": {"u": n, "b": "1" * 200}}) for n in range(6_000)]
    found = segment(tmp_path / "1", trade(9), trade(10), *quotes)
    assert time_of(10, found) == (1_700_000_000_000 + 10) * 1_000_000
    assert time_of(11, found) is None
