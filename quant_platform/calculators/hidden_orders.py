"""Executions against orders that the book did not show, by rules of thumb. Signing the tape is elsewhere.

Experimental: a rule says what is likely. On a day of AMZN whose hidden executions the exchange marks, `inside_spread`
named 90 % of them and `excess_size` another 8 %, and neither accused a visible one; nobody marks icebergs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from quant_platform.calculators._cores import on_all_cores
from quant_platform.calculators._refills import (
    REFILLED,
    RUNS,
    UNKNOWN,
    Quotes,
    best_price_events,
    refill_counts,
    refills,
)
from quant_platform.calculators._tape import (
    SEEN,
    Array,
    BySymbol,
    Ordered,
    first_at,
    in_order,
    integers,
    last_rows,
    rows_of,
    symbol_starts,
    usable_trades,
)
from quant_platform.calculators._touch import TOUCH, distinct, updates
from quant_platform.contracts._schema import INSTANT, empty, polars_schema
from quant_platform.contracts.enums import Status
from quant_platform.contracts.market import Quote, Trade
from quant_platform.contracts.microstructure import HiddenOrder

LOOKBACK_SESSIONS = 0

_MS = 1_000_000
_BLOCK_ROWS = 393_216
_MOST = 2**63 - 1
_STATUSES = (Status.NO_DATA, Status.ONE_SIDED, Status.CROSSED, Status.LOCKED, Status.OK)
_TRADE = ("symbol", "ts_event", "ts_recv", "venue", "trade_id", "price", "size", "aggressor")
_TRADES = pl.Schema({**{name: polars_schema(Trade)[name] for name in _TRADE}, **dict.fromkeys(TOUCH, pl.Float64())})
_QUOTES = pl.Schema({name: polars_schema(Quote)[name] for name in ("symbol", "ts_event", "ts_recv", *TOUCH)})


@dataclass(frozen=True)
class HiddenOrderParams:
    """What counts as hidden.

    Attributes:
        refill_share: The share of the displayed size that has to be back.
        refill_within_ms: How soon it has to be.
        iceberg_refills: So many refills of a price make an iceberg.
        dark_venues: Venues whose prints are dark; without one, `dark_venue` is null.
        max_lag_ms: How far trades and quotes may be apart when they come.
    """

    refill_share: float = 0.8
    refill_within_ms: int = 100
    iceberg_refills: int = 5
    dark_venues: tuple[str, ...] = ()
    max_lag_ms: int = 1_000

    def __post_init__(self) -> None:
        if not 0 < self.refill_share <= 1:
            raise ValueError(f"refill_share must be in (0, 1], was {self.refill_share}")
        for name, least in (("refill_within_ms", 1), ("iceberg_refills", 1), ("max_lag_ms", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, was {getattr(self, name)}")


@dataclass(frozen=True)
class State:
    """What the fold remembers.

    Attributes:
        trades: The latest trades, whose refills may yet come.
        quotes: The latest quotes, whose trades may yet come.
        seen_trades: How far each symbol's trades were folded.
        seen_quotes: How far its quotes were.
        runs: How often the prices that were taken before those trades have been refilled.
    """

    trades: pl.DataFrame
    quotes: pl.DataFrame
    seen_trades: BySymbol
    seen_quotes: BySymbol
    runs: BySymbol


_DEFAULT = HiddenOrderParams()


def initial() -> State:
    """Return the state before the first trade and quote."""
    return State(_TRADES.to_frame(), _QUOTES.to_frame(), *(BySymbol.empty(blank) for blank in (SEEN, SEEN, RUNS)))


def step(
    state: State, trades: pl.DataFrame, quotes: pl.DataFrame, params: HiddenOrderParams = _DEFAULT
) -> tuple[State, pl.DataFrame]:
    """Fold a chunk of the tape and of the quotes, and return the executions whose judgement may have changed.

    `inside_spread`: bid < price < ask. `excess_size`: the executions of one instant at the best price of one side took
    more than was displayed there; what is above it is hidden. `refill`: they left less than `refill_share` of what was
    displayed, and a quote after them, within `refill_within_ms`, shows that share at their price again. `iceberg`: the
    price was refilled `iceberg_refills` times, its side being taken at no other one between. `dark_venue`: printed by
    one of `dark_venues`. A price outside the quote is a sign of a stale quote, not of a hidden order.

    Args:
        state: What `initial` or the previous `step` returned, with the same parameters.
        trades: The signed tape: contract `Trade` with the quote that stood strictly before the trade in `bid_price
            bid_size ask_price ask_size`; any number of symbols, any row order. Rows that are no trades, and late ones,
            are ignored. Without an aggressor, the side taken is the one whose best price it was.
        quotes: Contract `Quote` or `Book`, to see what came after the trades.
        params: The rules' limits, the same in every step.

    Returns:
        The next state, and contract `HiddenOrder` by symbol, ts_event and trade_id: a row for each new trade, and for
        each earlier one of a symbol in the chunk whose refills can still change. The last row of each (symbol,
        trade_id) is that of one pass, however trades and quotes are cut, as long as they come within `max_lag_ms` of
        each other. Statuses: `no_data` without a quote before the trade, `one_sided`, `crossed`, `locked`, `ok`.
        `hidden_volume` is the size inside the spread or in the dark, else the excess. `refill` is null where nothing
        was taken at the best price, and until it is seen or the symbol's trades and quotes are past its time; the row
        is then known no earlier than the end of that time.

    Raises:
        ValueError: A trade or a quote has no `ts_recv`.
    """
    new_trades, seen_trades = _new_trades(trades, state.seen_trades)
    new_quotes, seen_quotes = _new_quotes(quotes, state.seen_quotes)
    symbols = sorted({*new_trades.symbols, *new_quotes.symbols})
    if not symbols:
        return state, empty(HiddenOrder)
    kept_trades, quiet_trades = _parted(state.trades, symbols)
    kept_quotes, quiet_quotes = _parted(state.quotes, symbols)
    tape, tape_edges = _joined(kept_trades, new_trades, symbols)
    book, book_edges = _joined(kept_quotes, new_quotes, symbols)
    now = np.maximum(_last_ts(symbols, seen_trades), _last_ts(symbols, seen_quotes))
    within_ns = params.refill_within_ms * _MS
    horizon = now - within_ns - params.max_lag_ms * _MS
    ts, quote_ts = integers(tape, "ts_event"), integers(book, "ts_event")
    first = min(int(times.min(initial=now.max())) for times in (ts, quote_ts))
    span = int(now.max()) - first + within_ns + 1
    runs = state.runs.including(symbols)
    places = runs.at(symbols)

    found = _no_figures(tape)

    def figures(block: tuple[int, int]) -> dict[str, Array]:
        low, high = block
        trades = slice(tape_edges[low], tape_edges[high])
        return _figures(
            {name: values[trades] for name, values in found.items()},
            tape[trades],
            np.diff(tape_edges[low : high + 1]),
            book[book_edges[low] : book_edges[high]],
            np.diff(book_edges[low : high + 1]),
            offset=np.arange(high - low) * span - first,
            now=now[low:high],
            horizon=horizon[low:high],
            runs={name: facts[places[low:high]] for name, facts in runs.facts.items()},
            params=params,
        )

    symbol_blocks = list(_blocks(tape_edges + book_edges, _MOST // span))
    after = on_all_cores(figures, symbol_blocks)
    held = rows_of(first_at(ts, horizon, tape_edges[:-1], tape_edges[1:]), tape_edges[1:])
    held_quotes = rows_of(first_at(quote_ts, horizon + 1, book_edges[:-1], book_edges[1:]), book_edges[1:])
    following = State(
        pl.concat([quiet_trades, tape[pl.Series(held, dtype=pl.UInt32)]], rechunk=True),
        pl.concat([quiet_quotes, book[pl.Series(held_quotes, dtype=pl.UInt32)]], rechunk=True),
        seen_trades,
        seen_quotes,
        runs.changed(places, {name: np.concatenate([run[name] for run in after]) for name in RUNS}),
    )
    return following, _judged(tape, found, params)


def hidden_orders(trades: pl.DataFrame, quotes: pl.DataFrame, params: HiddenOrderParams = _DEFAULT) -> pl.DataFrame:
    """Return the judgement of all executions: one `step` from `initial`."""
    return step(initial(), trades, quotes, params)[1]


def _new_trades(trades: pl.DataFrame, seen: BySymbol) -> tuple[Ordered, BySymbol]:
    tape = usable_trades(trades.select(pl.col(name).cast(dtype) for name, dtype in _TRADES.items()))
    if missing := tape["ts_recv"].null_count():
        raise ValueError(f"ts_recv is null in {missing} trades; the lake's scan fills it.")
    rows, starts, symbols = in_order(tape, "trade_id", seen)
    new = Ordered(*distinct(rows, starts, "trade_id"), symbols)
    return new, _seen(seen, new, "trade_id")


def _new_quotes(quotes: pl.DataFrame, seen: BySymbol) -> tuple[Ordered, BySymbol]:
    new = Ordered(*updates(quotes, seen))
    return new._replace(rows=new.rows.select(_QUOTES.names())), _seen(seen, new, "sequence")


def _seen(seen: BySymbol, new: Ordered, tie: str) -> BySymbol:
    known, at = seen.including(new.symbols), last_rows(new.starts, new.rows.height)
    newest = {"last_ts": integers(new.rows, "ts_event")[at], "last_tie": integers(new.rows, tie)[at]}
    return known.changed(known.at(new.symbols), newest)


def _parted(rows: pl.DataFrame, symbols: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    if rows.is_empty():
        return rows, rows
    is_touched = rows["symbol"].is_in(symbols)
    return rows.filter(is_touched), rows.filter(~is_touched)


def _joined(kept: pl.DataFrame, new: Ordered, symbols: list[str]) -> tuple[pl.DataFrame, Array]:
    """Return rows by symbol and time, where each symbol's begin, and where the last one's end; all kept are earlier."""
    if kept.height:
        rows = pl.concat([kept, new.rows], rechunk=True).sort("symbol", maintain_order=True)
        new = Ordered(rows, *symbol_starts(rows))
    edges = np.zeros(len(symbols) + 1, np.int64)
    place = {symbol: number for number, symbol in enumerate(symbols)}
    edges[[1 + place[symbol] for symbol in new.symbols]] = np.diff(new.starts, append=new.rows.height)
    return new.rows, np.cumsum(edges)


def _blocks(edges: Array, most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of not too many symbols, with so few rows that what is computed of them stays in a cache."""
    is_start = np.diff(edges[:-1] // _BLOCK_ROWS, prepend=-1) > 0
    is_start[:: max(1, most)] = True
    yield from pairwise([*np.flatnonzero(is_start), len(edges) - 1])


def _last_ts(symbols: list[str], seen: BySymbol) -> Array:
    known = seen.including(symbols)
    last: Array = known.facts["last_ts"][known.at(symbols)]
    return last


def _no_figures(tape: pl.DataFrame) -> dict[str, Array]:
    """Return what is found of trades of which nothing is known yet; the status is set for each."""
    rows = tape.height
    return {
        "status": np.empty(rows, np.uint32),
        "excess": np.zeros(rows),
        "refill": np.full(rows, UNKNOWN, np.int8),
        "refill_count": np.full(rows, UNKNOWN),
        "ts_known": integers(tape, "ts_recv").copy(),
    }


def _figures(
    found: Mapping[str, Array],
    tape: pl.DataFrame,
    trade_counts: Array,
    book: pl.DataFrame,
    quote_counts: Array,
    *,
    offset: Array,
    now: Array,
    horizon: Array,
    runs: Mapping[str, Array],
    params: HiddenOrderParams,
) -> dict[str, Array]:
    """Write down what is found of each trade of some symbols, and return the next runs of the symbols.

    `offset` makes one clock of the symbols' times.
    """
    symbol = np.repeat(np.arange(len(now)), trade_counts)
    clock = integers(tape, "ts_event") + np.repeat(offset, trade_counts)
    quote_clock = np.append(integers(book, "ts_event") + np.repeat(offset, quote_counts), _MOST)
    found["status"][:], takes = _at_touch(tape)
    after = {name: runs[name].copy() for name in RUNS}
    for number, side in enumerate(("bid", "ask")):
        shown, price, size = (
            frame.get_column(f"{side}_{what}").to_numpy()
            for frame, what in ((tape, "size"), (book, "price"), (book, "size"))
        )
        events = best_price_events(tape, clock, symbol, np.flatnonzero(takes[side]), shown)
        refill, known = refills(
            events,
            Quotes(quote_clock, integers(book, "ts_recv"), price, size),
            now,
            share=params.refill_share,
            within_ns=params.refill_within_ms * _MS,
        )
        before = {name: runs[name][:, number] for name in RUNS}
        counts, counted, newest = refill_counts(events, refill == REFILLED, known, before=before, gone=horizon + offset)
        rows, event = events.rows, events.event
        found["excess"][rows] = events.excess
        found["refill"][rows], found["refill_count"][rows] = refill[event], counts[event]
        found["ts_known"][rows] = np.maximum(events.recv, np.maximum(known, counted))[event]
        for name in RUNS:
            after[name][:, number] = newest[name]
    return after


def _at_touch(tape: pl.DataFrame) -> tuple[Array, dict[str, Array]]:
    """Return the place of each trade's status, and of each side whether the trade took it at its best price."""
    price, aggressor = (tape.get_column(name).to_numpy() for name in ("price", "aggressor"))
    bid, bid_size, ask, ask_size = (tape.get_column(name).to_numpy() for name in TOUCH)
    has_bid = (bid > 0) & (bid < np.inf) & (bid_size >= 0) & (bid_size < np.inf)
    has_ask = (ask > 0) & (ask < np.inf) & (ask_size >= 0) & (ask_size < np.inf)
    is_usable, is_open = has_bid & has_ask & (bid <= ask), bid < ask
    status = has_bid.astype(np.uint32) + has_ask + is_usable + (is_usable & is_open)
    is_either = (aggressor == 0) & is_open
    return status, {
        "bid": is_usable & (price == bid) & ((aggressor < 0) | is_either),
        "ask": is_usable & (price == ask) & ((aggressor > 0) | is_either),
    }


def _judged(tape: pl.DataFrame, found: Mapping[str, Array], params: HiddenOrderParams) -> pl.DataFrame:
    """Return contract `HiddenOrder`."""
    is_dark = pl.col("venue").is_in(params.dark_venues) if params.dark_venues else pl.lit(None, pl.Boolean)
    is_usable = pl.Series(found["status"] >= _STATUSES.index(Status.LOCKED))
    rules = ("inside_spread", "excess_size", "iceberg", "dark_venue")
    values = ("hidden", "hidden_volume", *rules)
    return (
        tape.with_columns(pl.Series(name, column) for name, column in found.items())
        .select(
            "ts_event",
            "symbol",
            "trade_id",
            "size",
            "excess",
            inside_spread=(pl.col("bid_price") < pl.col("price")) & (pl.col("price") < pl.col("ask_price")),
            excess_size=pl.col("excess") > 0,
            refill=pl.when(pl.col("refill") != UNKNOWN).then(pl.col("refill") == REFILLED),
            refill_count=pl.when(pl.col("refill_count") != UNKNOWN).then("refill_count"),
            iceberg=pl.col("refill_count") >= params.iceberg_refills,
            dark_venue=is_dark,
            experimental=pl.lit(value=True),
            status=pl.Series(_STATUSES, dtype=pl.String)[found["status"]],
            ts_known=pl.col("ts_known").cast(INSTANT),
        )
        .with_columns(
            hidden=pl.any_horizontal(pl.col(rules).fill_null(value=False)),
            hidden_volume=pl.when(pl.col("inside_spread") | pl.col("dark_venue").fill_null(value=False))
            .then("size")
            .otherwise("excess"),
        )
        .with_columns(pl.when(is_usable).then(pl.col(name)).alias(name) for name in values)
        .select(polars_schema(HiddenOrder).names())
    )
