"""Sizes that come back after they were taken: which events are refilled, and how often a price has been.

An event is all executions of one instant against one side of the book at its best price; each side is looked at alone.
On the clock of all symbols, each symbol's time begins after the end of the one before: rows by symbol and time are
sorted by it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from quant_platform.calculators._tape import Array

NEVER = np.iinfo(np.int64).min
RUNS: Mapping[str, Any] = {"price": [np.nan] * 2, "refills": [0] * 2, "known": [NEVER] * 2}
"""Of a symbol's bid and offer: the price at which it was taken last, its refills since, and when they were known."""

UNKNOWN, NOT_REFILLED, REFILLED = -1, 0, 1
_ROUNDING = 1e-9


class Events(NamedTuple):
    """Events on one side by symbol and time, and the executions that they are made of.

    Attributes:
        symbol: A number for each event's symbol.
        clock: Time on the clock of all symbols.
        ts: Time, ns.
        price: The best price.
        shown: The size displayed there before.
        volume: The size taken.
        recv: Latest receipt of its executions, ns.
        rows: The executions, by event and in their order.
        event: The event of each of them.
        excess: The part of each of their sizes that was not displayed.
    """

    symbol: Array
    clock: Array
    ts: Array
    price: Array
    shown: Array
    volume: Array
    recv: Array
    rows: Array
    event: Array
    excess: Array


class Quotes(NamedTuple):
    """Updates of one side by symbol and time.

    Attributes:
        clock: Time on the clock of all symbols, and after the last one a time that never comes.
        recv: Receipt, ns.
        price: The best price.
        size: The size displayed there.
    """

    clock: Array
    recv: Array
    price: Array
    size: Array


def best_price_events(tape: pl.DataFrame, clock: Array, symbol: Array, rows: Array, shown: Array) -> Events:
    """Return the events of a tape on one side, in order.

    Args:
        tape: Trades by symbol, ts_event and trade_id.
        clock: Their times on the clock of all symbols.
        symbol: A number for each trade's symbol.
        rows: The trades that took that side at its best price.
        shown: The size displayed there before each trade.
    """
    ts, recv, price, size = (tape.get_column(name).to_numpy() for name in ("ts_event", "ts_recv", "price", "size"))
    shown, taken = shown.take(rows), size.take(rows)
    is_first = _is_change(clock.take(rows), price.take(rows))
    begins, event = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    ends = np.append(begins[1:], len(rows))[: len(begins)] - 1
    place, end = begins, ends
    while len(longer := np.flatnonzero(place < end)):  # one by one: the last bit depends on nothing before the event
        place, end = place.take(longer) + 1, end.take(longer)
        taken[place] += taken.take(place - 1)
    over = taken - shown
    over = np.where(over > shown * _ROUNDING, over, 0.0)
    excess = over.copy()
    excess[1:] -= over[:-1] * ~is_first[1:]
    at = rows[begins]
    latest = np.maximum.reduceat(recv.view(np.int64).take(rows), begins)
    return Events(
        symbol.take(at),
        clock.take(at),
        ts.view(np.int64).take(at),
        price.take(at),
        shown.take(begins),
        taken.take(ends),
        latest,
        rows,
        event,
        excess,
    )


def refills(events: Events, quotes: Quotes, now: Array, *, share: float, within_ns: int) -> tuple[Array, Array]:
    """Return whether each event was refilled, and when that was known, `NEVER` where no quote was needed.

    An event that leaves less than a share of what was displayed is refilled when a quote after it, but not more than
    `within_ns`, shows that share again at its price.

    Args:
        events: What was taken.
        quotes: The quotes of that side.
        now: The latest time that is known of each symbol, ns.
        share: The share that counts.
        within_ns: How long a refill may take.
    """
    wanted = share * events.shown
    waiting = np.flatnonzero(events.shown - events.volume < wanted)
    refill, known = np.full(len(wanted), NOT_REFILLED, np.int8), np.full(len(wanted), NEVER)
    price, least = events.price.take(waiting), wanted.take(waiting) * (1 - _ROUNDING)
    clock, closes = events.clock.take(waiting), events.ts.take(waiting) + within_ns
    refill[waiting[closes >= now.take(events.symbol.take(waiting))]] = UNKNOWN
    known[waiting] = closes
    at, until = np.searchsorted(quotes.clock, clock, side="right"), clock + within_ns
    while len(waiting) and len(quotes.recv):
        is_late = quotes.clock.take(at) > until
        recv = quotes.recv.take(at, mode="clip")  # behind the last quote all are late
        is_back = (quotes.price.take(at, mode="clip") == price) & (quotes.size.take(at, mode="clip") >= least)
        is_back &= ~is_late
        back, late, left = (np.flatnonzero(which) for which in (is_back, is_late, ~(is_back | is_late)))
        refill[waiting.take(back)], known[waiting.take(back)] = REFILLED, recv.take(back)
        known[waiting.take(late)] = closes.take(late)
        closes = np.maximum(closes, recv)  # a refill that does not come is known when all quotes until then are
        waiting, at, until = waiting.take(left), at.take(left) + 1, until.take(left)
        price, least, closes = price.take(left), least.take(left), closes.take(left)
    return refill, np.where(refill == UNKNOWN, NEVER, known)


def refill_counts(
    events: Events, is_refilled: Array, known: Array, *, before: Mapping[str, Array], gone: Array
) -> tuple[Array, Array, dict[str, Array]]:
    """Return the refills of each event's price until now, when they were known, and the next `RUNS` of that side.

    A price is counted for as long as its side is taken at no other one.

    Args:
        events: What was taken.
        is_refilled: Of each event.
        known: Of each event.
        before: `RUNS` of each symbol before the events, of that side.
        gone: What is earlier will not be seen again, for each symbol, on the clock of all symbols.
    """
    is_first = _is_change(events.symbol, events.price)
    begins = np.flatnonzero(is_first)
    price, count, latest = (before[name][events.symbol[begins]] for name in RUNS)
    goes_on = _is_change(events.symbol)[begins] & (events.price[begins] == price)
    total = np.cumsum(is_refilled)
    base = total[begins] - is_refilled[begins] - np.where(goes_on, count, 0)
    run = np.cumsum(is_first) - 1
    counts = total - base[run]
    is_news = is_first | is_refilled
    latest_known = np.where(is_refilled, known, NEVER)
    latest_known[begins] = np.maximum(latest_known[begins], np.where(goes_on, latest, NEVER))
    news = np.flatnonzero(is_news)
    latest_known = _running_maxima(latest_known[news], run[news])[np.cumsum(is_news) - 1]

    last_gone = np.searchsorted(events.clock, gone) - 1
    of = np.flatnonzero(np.append(events.symbol, -1)[last_gone] == np.arange(len(gone)))
    after = {name: before[name].copy() for name in RUNS}
    for name, newer in (("price", events.price), ("refills", counts), ("known", latest_known)):
        after[name][of] = newer[last_gone[of]]
    return counts, latest_known, after


def _running_maxima(values: Array, group: Array) -> Array:
    """Return the largest value until each place, within groups that stand one after the other."""
    highest, reach = values.copy(), 1
    while (is_less := (highest[reach:] < highest[:-reach]) & (group[reach:] == group[:-reach])).any():
        highest[reach:] = np.where(is_less, highest[:-reach], highest[reach:])  # each pass looks back twice as far
        reach *= 2
    return highest


def _is_change(*columns: Array) -> Array:
    """Return which rows differ from the one before in any column; the first one does."""
    is_change = np.ones(len(columns[0]), bool)
    is_change[1:] = columns[0][1:] != columns[0][:-1]
    for column in columns[1:]:
        is_change[1:] |= column[1:] != column[:-1]
    return is_change
