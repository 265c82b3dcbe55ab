"""States of folds over many symbols, put together from states over a few. What a state means is its calculator's."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import polars as pl

State = TypeVar("State")


def replaced(state: State, symbols: Sequence[str], other: State) -> State:
    """Return the state with what another one says of these symbols in the place of its own.

    Folding is by symbol: the result goes on as if each symbol had been folded in it from the beginning.

    Args:
        state: Of any calculator's fold.
        symbols: All that the other one may know; those it does not know are forgotten.
        other: A state of the same calculator, folded with the same parameters.

    Raises:
        TypeError: It is no state that is kept by symbol.
    """
    together: State = _replaced(state, symbols, other)
    return together


def _replaced(state: Any, symbols: Sequence[str], other: Any) -> Any:
    if hasattr(state, "replaced"):  # it knows how its own parts hang together
        return state.replaced(symbols, other)
    if isinstance(state, pl.DataFrame):
        own = state.filter(~pl.col("symbol").is_in(symbols)) if state.height else state
        return pl.concat([own, other], rechunk=True) if own.height else other
    if is_dataclass(state) and not isinstance(state, type):
        names = [field.name for field in fields(state)]
        return replace(state, **{n: _replaced(getattr(state, n), symbols, getattr(other, n)) for n in names})
    raise TypeError(f"A {type(state).__name__} is no state that is kept by symbol.")
