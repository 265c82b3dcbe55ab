"""A local order book per symbol: snapshots and depth diffs folded into rows of five levels. What they say is elsewhere.

The events are what a venue sends about its book, one row a message in the order of arrival, as the feed's parser
writes them (`EVENTS`):

    ts_event       the venue's transaction time; for a snapshot without one, the parser's estimate
    ts_recv        our clock at receipt
    symbol, venue
    kind           `snapshot`: the whole book as it stood; `diff`: the levels that changed
    first_id       U, the first update in a diff; null in a snapshot
    final_id       u, the last update in it; a snapshot's lastUpdateId
    previous_id    pu, the `final_id` of the diff before (Binance futures); null where the venue has none (Binance spot)
    bid_prices, bid_sizes, ask_prices, ask_sizes
                   levels in any order: a price and its new total size; in a diff, size 0 removes the price

The rules are Binance's "How to manage a local order book correctly", but for one: a diff brings all that changed after
`previous_id`, so it follows a snapshot that lies behind that, also where its U is above the snapshot's lastUpdateId. A
snapshot asked for over REST arrives behind the stream, so diffs that come while there is no book wait for it.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from math import inf
from typing import NamedTuple

import numpy as np
import polars as pl

from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.market import Book

LOOKBACK_SESSIONS = 0
_LEVELS = pl.List(pl.Float64)
EVENTS = pl.Schema(
    {
        "ts_event": INSTANT,
        "ts_recv": INSTANT,
        "symbol": pl.String(),
        "venue": pl.String(),
        "kind": pl.String(),
        "first_id": pl.Int64(),
        "final_id": pl.Int64(),
        "previous_id": pl.Int64(),
        "bid_prices": _LEVELS,
        "bid_sizes": _LEVELS,
        "ask_prices": _LEVELS,
        "ask_sizes": _LEVELS,
    }
)
GAPS = pl.Schema(
    {
        "symbol": pl.String(),
        "expected_id": pl.Int64(),
        "found_id": pl.Int64(),
        "ts_start": INSTANT,
        "ts_end": INSTANT,
        "ts_known": INSTANT,
    }
)

_WAITING = 1_000  # diffs: seven seconds of a busy symbol, where a snapshot's answer takes one
_NEAR, _NEAR_MOST = 64, 256  # prices
_NO_LEVELS = [inf] * 5
_BOOK = polars_schema(Book)
_FIGURES = _BOOK.names()[5:]


class Gap(NamedTuple):
    """A break of the sequence: a row of `gaps`. Times are integer UTC ns."""

    symbol: str
    expected_id: int
    found_id: int
    ts_start: int
    ts_end: int
    ts_known: int


@dataclass(frozen=True)
class State:
    """What the fold remembers: each symbol's book, and the breaks so far."""

    books: "dict[str, _LocalBook]" = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()


def initial() -> State:
    """Return the state before the first event."""
    return State()


def step(state: State, events: pl.DataFrame) -> tuple[State, pl.DataFrame]:
    """Fold messages into the books, and return each state of the five best levels that they led to.

    The book of a symbol is known from its first snapshot on. A snapshot that is not newer than the known book is
    ignored, and so is a diff: it was received twice, or is part of the snapshot. The next diff must name the last one
    as `previous_id`, or, where the venue has none, go on from it without a hole; the first after a snapshot may reach
    back over it. Else messages were lost and the book is not known until the next snapshot.

    Args:
        state: What `initial` or the previous `step` returned.
        events: Columns `EVENTS`, any number of symbols, in the order of arrival. A row that is no message (a null, a
            price that is not positive and finite, a size that is negative, lists of unequal length, another kind) is
            ignored, and thereby breaks the sequence.

    Returns:
        The next state, and contract `Book`, by symbol in the order of updates: one row for each snapshot and for each
        diff that changed one of the five best levels of a side, `sequence` being its `final_id`; and where the
        sequence broke one row without levels. `ts_event` never falls within a symbol, and `ts_recv` of a diff that
        waited is the snapshot's. Cutting the events anywhere changes nothing.
    """
    books, copied = dict(state.books), set[str]()
    rows = _Rows()
    for event in _messages(events):
        symbol = event.symbol
        if symbol not in copied:
            books[symbol] = books[symbol].copy() if symbol in books else _LocalBook()
            copied.add(symbol)
        books[symbol].fold(event, rows)
    return State(books, (*state.gaps, *rows.gaps)), rows.frame()


def gaps(state: State) -> pl.DataFrame:
    """Return the breaks of sequence so far (`GAPS`), in the order in which they were seen.

    `expected_id` is the last update known, `found_id` the `previous_id` (or `first_id`) that did not follow it;
    `ts_start` the time of the last good message, `ts_end` and `ts_known` venue time and receipt of the one after the
    hole. The book is not known from `ts_start` until its next row with levels.
    """
    return pl.DataFrame(
        state.gaps,
        schema={name: pl.Int64 if kind.is_temporal() else kind for name, kind in GAPS.items()},
        orient="row",
    ).cast(GAPS)


class _Event(NamedTuple):
    """One message. Bid prices are negative, so that on both sides the least price is the best."""

    ts_event: int
    ts_recv: int
    symbol: str
    venue: str
    kind: str
    first_id: int
    final_id: int
    previous_id: int | None
    bid_prices: list[float]
    bid_sizes: list[float]
    ask_prices: list[float]
    ask_sizes: list[float]


@dataclass(slots=True)
class _Side:
    """One side of a book. Most changes are far from the touch, so only the prices up to `limit` are kept in order."""

    sizes: dict[float, float] = field(default_factory=dict)
    near: list[float] = field(default_factory=list)
    limit: float = inf
    best: list[float] = field(default_factory=lambda: _NO_LEVELS * 2)

    def copy(self) -> "_Side":
        return _Side(self.sizes.copy(), self.near.copy(), self.limit, self.best)

    def replace(self, prices: list[float], sizes: list[float]) -> None:
        self.sizes = {price: size for price, size in zip(prices, sizes, strict=True) if size}
        self._order()
        self._look()

    def change(self, prices: list[float], sizes: list[float]) -> bool:
        """Return whether one of the five best levels is another now."""
        known, near, limit, before = self.sizes, self.near, self.limit, self.best
        for price, size in zip(prices, sizes, strict=True):
            if size:
                if price <= limit and price not in known:
                    insort(near, price)
                known[price] = size
            elif known.pop(price, None) is not None and price <= limit:
                del near[bisect_left(near, price)]
        if len(near) < 5 or len(near) > _NEAR_MOST:
            self._order()
        self._look()
        return self.best != before

    def _order(self) -> None:
        self.near = nsmallest(_NEAR, self.sizes)
        self.limit = self.near[-1] if len(self.near) < len(self.sizes) else inf

    def _look(self) -> None:
        prices = self.near[:5]
        missing = _NO_LEVELS[len(prices) :]
        self.best = [*prices, *missing, *map(self.sizes.__getitem__, prices), *missing]


@dataclass(slots=True)
class _LocalBook:
    """One symbol's book. `last_id` is None while it is not known."""

    bids: _Side = field(default_factory=_Side)
    asks: _Side = field(default_factory=_Side)
    last_id: int | None = None
    is_fresh: bool = False
    ts_event: int = 0
    waiting: deque[_Event] = field(default_factory=lambda: deque(maxlen=_WAITING))

    def copy(self) -> "_LocalBook":
        return _LocalBook(
            self.bids.copy(), self.asks.copy(), self.last_id, self.is_fresh, self.ts_event, self.waiting.copy()
        )

    def fold(self, event: _Event, rows: "_Rows") -> None:
        if self.last_id is not None and event.final_id <= self.last_id:
            return
        if event.kind == "snapshot":
            self._start(event, rows)
        elif self.last_id is None:
            self.waiting.append(event)
        elif self._follows(event, self.last_id):
            has_new_bids = self.bids.change(event.bid_prices, event.bid_sizes)
            has_new_asks = self.asks.change(event.ask_prices, event.ask_sizes)
            self._advance(event, is_fresh=False)
            if has_new_bids or has_new_asks:
                rows.add(event, self)
        else:
            self._stop(event, self.last_id, rows)

    def _follows(self, event: _Event, last_id: int) -> bool:
        if event.previous_id is None:
            return event.first_id <= last_id + 1
        return event.previous_id == last_id or (self.is_fresh and event.previous_id < last_id)

    def _start(self, snapshot: _Event, rows: "_Rows") -> None:
        self.bids.replace(snapshot.bid_prices, snapshot.bid_sizes)
        self.asks.replace(snapshot.ask_prices, snapshot.ask_sizes)
        self._advance(snapshot, is_fresh=True)
        rows.add(snapshot, self)
        waited, self.waiting = self.waiting, deque(maxlen=_WAITING)
        for diff in waited:
            self.fold(diff._replace(ts_recv=max(diff.ts_recv, snapshot.ts_recv)), rows)

    def _stop(self, event: _Event, last_id: int, rows: "_Rows") -> None:
        found_id = event.first_id if event.previous_id is None else event.previous_id
        rows.gaps.append(Gap(event.symbol, last_id, found_id, self.ts_event, event.ts_event, event.ts_recv))
        self.bids, self.asks = _Side(), _Side()
        self._advance(event, is_fresh=False)
        rows.add(event, self)
        self.last_id = None
        self.waiting.append(event)

    def _advance(self, event: _Event, *, is_fresh: bool) -> None:
        self.last_id = event.final_id
        self.is_fresh = is_fresh
        self.ts_event = max(self.ts_event, event.ts_event)


@dataclass
class _Rows:
    """What a step puts out."""

    keys: list[tuple[int, int, str, str, int]] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def add(self, event: _Event, book: _LocalBook) -> None:
        self.keys.append((book.ts_event, event.ts_recv, event.symbol, event.venue, event.final_id))
        self.levels += book.bids.best
        self.levels += book.asks.best

    def frame(self) -> pl.DataFrame:
        """Return contract `Book`."""
        levels = np.array(self.levels).reshape(-1, len(_FIGURES))
        levels[np.isinf(levels)] = np.nan
        levels[:, :5] *= -1
        names = ("ts_event", "ts_recv", "symbol", "venue", "sequence")
        keys = pl.DataFrame(
            self.keys, schema=dict.fromkeys(names, pl.Int64) | {"symbol": pl.String, "venue": pl.String}, orient="row"
        )
        figures = pl.DataFrame(levels, schema=_FIGURES).with_columns(pl.all().fill_nan(None))
        return pl.concat([keys, figures], how="horizontal").cast(_BOOK).sort("symbol", maintain_order=True)


def _messages(events: pl.DataFrame) -> Iterator[_Event]:
    prices, sizes = pl.col("bid_prices", "ask_prices"), pl.col("bid_sizes", "ask_sizes")
    number = pl.element().is_finite()
    is_message = pl.all_horizontal(
        pl.col("ts_event", "ts_recv", "symbol", "venue", "final_id").is_not_null(),
        pl.col("first_id").is_not_null() | (pl.col("kind") == "snapshot"),
        pl.col("kind").is_in(["snapshot", "diff"]),
        pl.col("bid_prices").list.len() == pl.col("bid_sizes").list.len(),
        pl.col("ask_prices").list.len() == pl.col("ask_sizes").list.len(),
        prices.list.eval((number & (pl.element() > 0)).fill_null(value=False)).list.all(),
        sizes.list.eval((number & (pl.element() >= 0)).fill_null(value=False)).list.all(),
    )
    plain = events.filter(is_message).with_columns(
        pl.col("ts_event", "ts_recv").to_physical(), pl.col("bid_prices").list.eval(-pl.element())
    )
    return map(_Event._make, zip(*(plain[name].to_list() for name in EVENTS), strict=True))
