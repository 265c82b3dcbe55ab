"""Runs of symbols: what folds over a tape of many symbols are cut by."""

import numpy as np
import polars as pl
import pytest

from quant_platform.calculators._tape import symbol_runs


def runs(symbols):
    names, counts = symbol_runs(symbols)
    return list(zip(names.to_list(), counts.tolist(), strict=True))


def test_runs_by_hand():
    assert runs(pl.Series(["B", "B", "A", "B"])) == [("B", 2), ("A", 1), ("B", 1)]
    assert runs(pl.Series(["A", "A"])) == [("A", 2)]
    assert runs(pl.Series([], dtype=pl.String)) == []


@pytest.mark.parametrize("lengths", [(63, 1), (64, 64), (1, 200, 1), (65, 2, 3, 127), (1,) * 150])
def test_sorted_symbols_have_the_same_runs(lengths):
    names = [f"S{number:03}" for number in range(len(lengths))]
    symbols = pl.Series(np.repeat(names, lengths))
    assert symbols.set_sorted().flags["SORTED_ASC"]
    assert runs(symbols.set_sorted()) == runs(symbols) == list(zip(names, lengths, strict=True))
