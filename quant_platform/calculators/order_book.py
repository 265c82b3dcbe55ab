"""What a book says of the next move: imbalance of its levels, and order flow imbalance. Keeping a book is elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Self

import numpy as np
import polars as pl

from quant_platform.calculators._order_flow import LAST, NEVER, flow, intervals
from quant_platform.calculators._tape import Array, BySymbol, framed, integers
from quant_platform.calculators._touch import TOUCH, figures, is_bad_price, is_bad_size, updates
from quant_platform.contracts._schema import INSTANT, empty
from quant_platform.contracts.enums import ImbalanceState, Status
from quant_platform.contracts.microstructure import OrderBookImbalance

LOOKBACK_SESSIONS = 0

_NS = 1_000_000_000
_FIGURES = {"ts_open": np.int64, "ts_event": np.int64, "ts_recv": np.int64, "l5": np.float64}


@dataclass(frozen=True)
class OrderBookParams:
    """Sampling, and what counts as lopsided.

    Attributes:
        sample_s: The interval's width; a row is the value at its last update.
        velocity_lookback_s: How much older the row must be that `velocity` looks back to.
        moderate: |l5| above it is moderate.
        extreme: |l5| above it is extreme.
    """

    sample_s: float = 1.0
    velocity_lookback_s: float = 2.0
    moderate: float = 0.4
    extreme: float = 0.7

    def __post_init__(self) -> None:
        for name in ("sample_s", "velocity_lookback_s"):
            if not 0.001 <= getattr(self, name) < inf:
                raise ValueError(f"{name} must be >= 0.001, was {getattr(self, name)}")
        if not 0 <= self.moderate <= self.extreme <= 1:
            raise ValueError(f"0 <= moderate <= extreme <= 1 must hold, was {self.moderate} and {self.extreme}")


@dataclass(frozen=True)
class State:
    """What the fold remembers of each symbol. Times are integer UTC ns.

    Attributes:
        last: The last update, and the flow of its interval so far.
        history: The rows with an `l5` that a velocity may yet look back to, each symbol's in the order of time, with
            its place in `last`.
    """

    last: BySymbol
    history: Mapping[str, Array]

    def replaced(self, symbols: Sequence[str], other: Self) -> Self:
        """Return the state with what another one says of these symbols in the place of its own."""
        last = self.last.replaced(symbols, other.last)
        is_kept = ~np.isin(self.history["place"], last.at(symbols))
        of_place = last.at(list(other.last.places))
        added = {**other.history, "place": of_place[other.history["place"]]}
        return type(self)(last, {name: np.append(self.history[name][is_kept], added[name]) for name in added})


_DEFAULT = OrderBookParams()


def initial() -> State:
    """Return the state before the first update."""
    history = {"place": np.int64, **_FIGURES}
    return State(BySymbol.empty(LAST), {name: np.empty(0, dtype) for name, dtype in history.items()})


def step(state: State, books: pl.DataFrame, params: OrderBookParams = _DEFAULT) -> tuple[State, pl.DataFrame]:
    """Fold a chunk of books or quotes into the state, and return the intervals that it touched.

    `ofi` is the order flow imbalance of Cont, Kukanov and Stoikov: an update adds `1[b>=b'] q - 1[b<=b'] q'` of the bid
    and `1[a>=a'] q' - 1[a<=a'] q` of the ask, primes being the update before. An empty side has size 0 at a price worse
    than any. An update whose book is not known (`no_data`, `invalid_input`) adds nothing, nor does the one after it.

    Args:
        state: What `initial` or the previous `step` returned, with the same parameters.
        books: Contract `Book`, or `Quote` for a source without depth; `ts_recv` filled, any number of symbols, any row
            order; updates of one instant are ordered by `sequence`. An update that is not later than the last one
            folded of its symbol is ignored, and so is a second one with the same time and sequence.
        params: Sampling and limits, the same in every step.

    Returns:
        The next state, and contract `OrderBookImbalance` by symbol and ts_open: one row for each interval with an
        update in the chunk. An interval that goes on in the next chunk is given again, revised: the last row of each is
        that of one pass, however the books are cut. Statuses: `no_data` both sides are empty, `invalid_input` a price
        is not positive or a size negative or either no finite number, `one_sided`, `crossed`, `zero_size` at both
        touches, `locked`, `ok`. A level that lacks its price or its size is not there.

    Raises:
        ValueError: An update has no `ts_recv`.
    """
    rows, starts, symbols = updates(books, state.last)
    if rows.is_empty():
        return state, empty(OrderBookImbalance)
    last = state.last.including(symbols)
    places = last.at(symbols)
    before = {name: last.facts[name][places] for name in LAST}
    spans = intervals(rows, starts, before, round(params.sample_s * _NS))
    ends = pl.Series(spans.ends, dtype=pl.UInt32)
    symbol, sequence, place = (rows.get_column(name)[ends] for name in ("symbol", "sequence", "place"))
    times = {name: integers(rows, name)[spans.ends] for name in ("ts_event", "ts_recv")} | {"ts_open": spans.opens}
    flows = flow(rows, spans, before)
    says = _imbalances(books, place, params)
    lookback_ns = round(params.velocity_lookback_s * _NS)
    velocity, recv_back, history = _velocity(
        times | {"l5": says["l5"]}, spans.first, places, state.history, lookback_ns
    )
    found = framed(
        {
            "ts_open": spans.opens,
            "ts_event": times["ts_event"],
            "symbol": symbol,
            "sequence": sequence,
            "l1": says["l1"],
            "l5": says["l5"],
            "levels_used": says["levels_used"],
            "pressure_ratio": says["pressure_ratio"],
            "micro_price": says["micro_price"],
            "velocity": velocity,
            "state": says["state"],
            "ofi": np.where(says["has_touch"] & flows["has_flow"], flows["ofi"], np.nan),
            "status": says["status"],
            "depth_status": says["depth_status"],
            "ts_known": np.maximum(flows["latest_recv"], recv_back),
        }
    ).cast(dict.fromkeys(("ts_open", "ts_event", "ts_known"), INSTANT))
    newest = times | flows | {"last_ts": times["ts_event"], "last_tie": sequence.to_numpy()}
    return State(last.changed(places, {name: newest[name][spans.last] for name in LAST}), history), found


def order_book_imbalance(books: pl.DataFrame, params: OrderBookParams = _DEFAULT) -> pl.DataFrame:
    """Return the imbalance of each interval of a whole tape: one `step` from `initial`."""
    return step(initial(), books, params)[1]


def _imbalances(books: pl.DataFrame, places: pl.Series, params: OrderBookParams) -> dict[str, Any]:
    """Return what the books in these places say, each by itself; NaN where there is no value."""
    has_depth = "bid_price_1" in books.columns
    levels = [f"_{level}" for level in range(1, 6)] if has_depth else [""]
    sampled = figures(books.select(name + level for name in TOUCH for level in levels)[places])
    bid, bid_size, ask, ask_size = sampled.T.reshape(len(TOUCH), len(levels), -1)
    has_bid, has_ask = ~(np.isnan(bid) | np.isnan(bid_size)), ~(np.isnan(ask) | np.isnan(ask_size))
    is_bad = is_bad_price(bid) | is_bad_price(ask) | is_bad_size(bid_size) | is_bad_size(ask_size)
    bid_depth, ask_depth = np.where(has_bid, bid_size, 0.0).sum(axis=0), np.where(has_ask, ask_size, 0.0).sum(axis=0)
    bid, bid_size, ask, ask_size = bid[0], bid_size[0], ask[0], ask_size[0]
    reasons = {
        Status.INVALID_INPUT: is_bad.any(axis=0),
        Status.NO_DATA: ~(has_bid[0] | has_ask[0]),
        Status.ONE_SIDED: ~(has_bid[0] & has_ask[0]),
        Status.CROSSED: bid > ask,
        Status.ZERO_SIZE: bid_size + ask_size == 0,
        Status.LOCKED: bid == ask,
    }
    status = np.full(len(bid), len(reasons))
    for number, holds in reversed(list(enumerate(reasons.values()))):
        status[holds] = number
    has_touch = status >= list(reasons).index(Status.LOCKED)
    has_five = has_touch & has_depth
    with np.errstate(invalid="ignore", divide="ignore"):
        l1 = np.where(has_touch, (bid_size - ask_size) / (bid_size + ask_size), np.nan)
        l5 = np.where(has_five, (bid_depth - ask_depth) / (bid_depth + ask_depth), np.nan)
        pressure_ratio = np.where(has_five & (ask_depth > 0), bid_depth / ask_depth, np.nan)
        micro_price = np.where(has_touch, (ask * bid_size + bid * ask_size) / (bid_size + ask_size), np.nan)
    names = pl.Series([*reasons, Status.OK, Status.NO_DEPTH], dtype=pl.String)
    state = np.where(np.isnan(l5), 3, (np.abs(l5) > params.moderate) * 1 + (np.abs(l5) > params.extreme))
    return {
        "l1": l1,
        "l5": l5,
        "levels_used": np.where(has_five, np.minimum(has_bid.sum(axis=0), has_ask.sum(axis=0)), 0),
        "pressure_ratio": pressure_ratio,
        "micro_price": micro_price,
        "state": pl.Series([*ImbalanceState, None], dtype=pl.String)[state],
        "has_touch": has_touch,
        "status": names[status],
        "depth_status": names[np.where(has_touch & ~has_five, len(names) - 1, status)],
    }


def _velocity(
    samples: Mapping[str, Array], first: Array, places: Array, history: Mapping[str, Array], lookback_ns: int
) -> tuple[Array, Array, Mapping[str, Array]]:
    """Return each sample's velocity and the receipt of the row that it looks back to, and the next history.

    Args:
        samples: Columns of a history but the place, in order; `l5` is NaN where there is none.
        first: Each symbol's first sample.
        places: Each symbol's place.
        history: What earlier chunks left.
        lookback_ns: How much older the row must be.
    """
    number = np.full(max(places.max(), history["place"].max(initial=0)) + 1, -1)
    number[places] = np.arange(len(places))
    old = number[history["place"]]
    is_earlier = (old >= 0) & (history["ts_open"] < samples["ts_open"][first[old]])
    end = np.append(first[1:], len(samples["l5"]))
    numbers, at = np.repeat(np.arange(len(first)), end - first), np.flatnonzero(~np.isnan(samples["l5"]))
    symbol = np.concatenate([old[is_earlier], numbers[at]])
    order = np.argsort(symbol, kind="stable")
    rows = {name: np.concatenate([history[name][is_earlier], samples[name][at]])[order] for name in _FIGURES}
    symbol, ts, l5 = symbol[order], rows["ts_event"], rows["l5"]

    oldest, back = np.searchsorted(symbol, symbol), np.arange(len(symbol)) - 1
    while (is_near := (back >= oldest) & (ts - ts[back] < lookback_ns)).any():
        back -= is_near
    here = np.flatnonzero((back >= oldest) & (order >= is_earlier.sum()))
    back, at = back[here], at[order[here] - is_earlier.sum()]
    velocity, recv_back = np.full(len(numbers), np.nan), np.full(len(numbers), NEVER)
    velocity[at] = (l5[here] - l5[back]) / ((ts[here] - ts[back]) / _NS)
    recv_back[at] = rows["ts_recv"][back]

    horizon = samples["ts_event"][end[symbol] - 1] - lookback_ns
    is_kept = np.append((symbol[1:] != symbol[:-1]) | (ts[1:] > horizon[:-1]), True)[: len(symbol)]
    kept = {"place": places[symbol]} | rows
    return velocity, recv_back, {name: np.append(history[name][old < 0], kept[name][is_kept]) for name in history}
