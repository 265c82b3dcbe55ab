"""Where instants fall among rows: a plain loop as a second opinion, unknown symbols, and what cannot be ordered."""

import numpy as np
import polars as pl
import pytest

from quant_platform.calculators._timeline import Timeline

TS = {"A": [5, 5, 9], "B": [1, 9, 9, 20], "C": [7]}


def timeline(symbols):
    counts = [len(TS[symbol]) for symbol in symbols]
    ts = np.array([moment for symbol in symbols for moment in TS[symbol]], dtype=np.int64)
    return Timeline.of(ts, np.cumsum(counts, dtype=np.int64) - counts, symbols)


@pytest.mark.parametrize("symbols", [["A"], ["A", "B", "C"]])
def test_rows_before_and_until_are_those_of_a_loop(symbols):
    line = timeline(symbols)
    asked = [(symbol, moment) for symbol in symbols for moment in (-(10**18), 0, 1, 5, 7, 9, 10, 20, 21, 10**18)]
    place = line.place(pl.Series([symbol for symbol, _ in asked]))
    moments = np.array([moment for _, moment in asked])
    begin = {symbol: sum(len(TS[other]) for other in symbols[:number]) for number, symbol in enumerate(symbols)}
    before = [begin[symbol] + sum(ts < moment for ts in TS[symbol]) for symbol, moment in asked]
    until = [begin[symbol] + sum(ts <= moment for ts in TS[symbol]) for symbol, moment in asked]
    assert line.rows_before(place, moments).tolist() == before
    assert line.rows_until(place, moments).tolist() == until
    assert line.begin(place).tolist() == [begin[symbol] for symbol, _ in asked]
    assert line.end(place).tolist() == [begin[symbol] + len(TS[symbol]) for symbol, _ in asked]


@pytest.mark.parametrize("symbols", [[], ["A"], ["A", "B"]])
def test_an_unknown_symbol_has_no_rows(symbols):
    line = timeline(symbols)
    place = line.place(pl.Series(["Z", "Z"], dtype=pl.String))
    rows = sum(len(TS[symbol]) for symbol in symbols)
    for found in (line.rows_before(place, np.array([0, 99])), line.begin(place), line.end(place)):
        assert found.tolist() == [rows, rows]


def test_more_than_63_bits_is_refused():
    with pytest.raises(ValueError, match=r"2 symbols over \d+ ns are more than can be ordered"):
        Timeline.of(np.array([0, 2**62]), np.array([0, 1]), ["A", "B"])
