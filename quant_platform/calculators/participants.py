"""Who may be behind the last trades: institutions, retail, or nobody can tell. Rules of thumb, not facts of the tape.

What makes a trade look institutional is written here once, for toxicity too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from quant_platform.calculators._tape import framed, rows_of
from quant_platform.calculators._trade_windows import (
    Array,
    Entries,
    TradeWindows,
    entries,
    no_trades,
    runs,
    trade_windows,
    window_blocks,
)
from quant_platform.contracts._schema import Contract, polars_schema
from quant_platform.contracts.enums import Aggressor, Status
from quant_platform.contracts.microstructure import ParticipantFlow

LOOKBACK_SESSIONS = 1
COLUMNS = ("venue", "bid_price", "ask_price")
"""What the rules need of the signed tape beside a trade's own columns."""

_MS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class InstitutionalParams:
    """What makes a trade look institutional.

    Attributes:
        notional: Price · size from which it does, in quote currency.
        dark_venues: Venues whose prints do; empty where the feed has none, and then nothing is said of them.
        cluster_trades: Fewest trades of one side at one price in `cluster_ms`, both ends inclusive, that do.
        cluster_ms: See there.
        passive_trades: Fewest trades in a row, of one side at one price, that hit the same best quote, that do.
        weights: Of large notional, dark venue, time cluster and passive fill in the score.
    """

    notional: float = 250_000.0
    dark_venues: tuple[str, ...] = ()
    cluster_trades: int = 3
    cluster_ms: int = 100
    passive_trades: int = 3
    weights: tuple[float, float, float, float] = (0.4, 0.2, 0.2, 0.2)

    def __post_init__(self) -> None:
        if not self.notional > 0:
            raise ValueError(f"notional must be > 0, was {self.notional}")
        if min(self.cluster_trades, self.passive_trades) < 2:
            raise ValueError(
                f"cluster_trades and passive_trades must be >= 2, were {self.cluster_trades} and {self.passive_trades}"
            )
        if self.cluster_ms < 0:
            raise ValueError(f"cluster_ms must be >= 0, was {self.cluster_ms}")
        if not min(self.weights) > 0:
            raise ValueError(f"weights must be > 0, were {self.weights}")


INSTITUTIONAL = InstitutionalParams()


@dataclass(frozen=True, kw_only=True)
class ParticipantParams:
    """Whose trades are whose.

    Attributes:
        window_trades: Most trades in a window.
        sample_s: Width of the intervals in seconds, each of which gives one row.
        retail_notional: An aggressive trade below it that is not institutional is retail, in quote currency.
        institutional: What makes a trade look institutional.
    """

    window_trades: int = 200
    sample_s: int = 60
    retail_notional: float = 10_000.0
    institutional: InstitutionalParams = INSTITUTIONAL

    def __post_init__(self) -> None:
        if self.window_trades < 1:
            raise ValueError(f"window_trades must be >= 1, was {self.window_trades}")
        if self.sample_s < 1:
            raise ValueError(f"sample_s must be >= 1, was {self.sample_s}")
        if not self.retail_notional >= 0:
            raise ValueError(f"retail_notional must be >= 0, was {self.retail_notional}")


@dataclass(frozen=True)
class State:
    """The trades that later windows need: some `window_trades` of each symbol."""

    tail: pl.DataFrame


class Hits(NamedTuple):
    """What marks trades as institutional, for each entry of windows of trades.

    Attributes:
        entries: The trades of each window, as known at its last trade.
        notional: Whether the notional is large.
        dark_venue: Whether a dark venue printed it.
        time_cluster: Whether it is in a quick series of one side at one price.
        passive: Whether it is in a series against one resting quote.
        is_venue_known: Whether `dark_venue` can be told.
        is_quoted: Whether `passive` can be told.
    """

    entries: Entries
    notional: Array
    dark_venue: Array
    time_cluster: Array
    passive: Array
    is_venue_known: Array
    is_quoted: Array

    @property
    def is_institutional(self) -> Array:
        """Whether at least one rule hits."""
        return self.notional | self.dark_venue | self.time_cluster | self.passive


class MarkedWindows(NamedTuple):
    """Windows of trades, and the same windows some at a time, with what marks their trades."""

    windows: TradeWindows
    blocks: list[tuple[TradeWindows, Hits]]

    def columns(self, values: Callable[[TradeWindows, Hits], dict[str, Array]]) -> pl.DataFrame:
        """Return a value for each window, null for NaN."""
        return pl.concat([framed(values(*block)) for block in self.blocks])


_DEFAULTS = ParticipantParams()


def initial() -> State:
    """Return the state before the first trade."""
    return State(no_trades(*COLUMNS))


def step(
    state: State, trades: pl.DataFrame, params: ParticipantParams = _DEFAULTS, *, windows: MarkedWindows | None = None
) -> tuple[State, pl.DataFrame]:
    """Fold a chunk of the signed tape into the state, and return the participants after each interval it touched.

    Cutting the tape anywhere changes nothing: of all outputs, the last row per symbol and ts_open is the row of one
    pass over the whole tape.

    Args:
        state: What `initial` or the previous `step` returned, with the same parameters.
        trades: The signed tape, any number of symbols, any row order. A row with a null in what the tape requires, or
            with a price or size that is NaN, infinite, zero or negative, is ignored, and so is one that is not later,
            by (ts_event, trade_id), than what came of its symbol in earlier chunks. A row is one trade, also on an
            aggTrades tape.
        params: The window and the rules.
        windows: What `windows_for_hits` gives for this state, these trades and these params, where it was asked.

    Returns:
        The next state, and one row per symbol and interval: contract `ParticipantFlow`, sorted by symbol and ts_open,
        over the last `window_trades` trades up to the last one in the interval. A trade is institutional if a rule of
        `hits` marks it by then, from its own series of trades, even where that began before the window; retail if not,
        and small, and of a known side; else unclassified. Values are null where sums overflow (`nan`).

    Raises:
        ValueError: A usable trade has no `ts_recv`.
    """
    marked = windows or windows_for_hits(
        state.tail, trades, params.window_trades, params.sample_s, params.institutional
    )
    values = marked.columns(lambda block, hits: _participants(block, hits, params))
    whole = marked.windows
    return State(whole.tail), described(ParticipantFlow, whole, whole.samples.hstack(values))


def windows_for_hits(
    tail: pl.DataFrame, trades: pl.DataFrame, last: int, sample_s: int, params: InstitutionalParams
) -> MarkedWindows:
    """Return windows of the signed tape, and which of their trades are marked.

    Args:
        tail: `no_trades(*COLUMNS)`, or the tail that the previous call returned with the same arguments.
        trades: The signed tape.
        last: Most trades in a window.
        sample_s: Width of the intervals in seconds.
        params: What makes a trade look institutional.
    """
    windows = trade_windows(
        tail,
        trades,
        last=last,
        sample_s=sample_s,
        context_rows=params.passive_trades - 1,
        context_ns=params.cluster_ms * _MS,
    )
    return MarkedWindows(windows, [(block, hits(block, params)) for block in window_blocks(windows)])


@np.errstate(over="ignore")  # a notional beyond the floats is large
def hits(windows: TradeWindows, params: InstitutionalParams) -> Hits:
    """Return which of four rules mark the trades of each window.

    Large notional; print of a dark venue; time cluster: one of `cluster_trades` trades of one known side at one price
    within `cluster_ms`, whatever traded between them; passive fill: one of `passive_trades` trades in a row, of one
    known side at one price, which was the best quote of the other side before each of them, so that resting orders
    took them all. Of a trade without a quote before it, or with a crossed one, passive fill cannot be told.

    Args:
        windows: Windows with all rows as context that are in a series with one of theirs.
        params: What makes a trade look institutional.
    """
    price, aggressor = windows.column("price"), windows.column("aggressor")
    bid, ask = windows.column("bid_price"), windows.column("ask_price")
    signed_price = price * aggressor
    is_quoted = bid <= ask
    is_at_touch = is_quoted & ((signed_price == ask) | (signed_price == -bid))
    cluster = _cluster_completed_at(windows.symbol, windows.column("ts_event"), signed_price, params)
    passive = _series_completed_at(windows.symbol, signed_price * is_at_touch, params.passive_trades)
    seen = entries(windows, cluster, passive)
    is_venue_known, is_dark = _dark_prints(windows.rows.get_column("venue"), params.dark_venues)
    return Hits(
        entries=seen,
        notional=seen.of(price * windows.column("size") >= params.notional),
        dark_venue=seen.of(is_dark),
        time_cluster=seen.is_complete(cluster),
        passive=seen.is_complete(passive),
        is_venue_known=seen.of(is_venue_known),
        is_quoted=seen.of(is_quoted),
    )


def institutional_score(marked: Hits, notional: Array, params: InstitutionalParams) -> Array:
    """Return how institutional each window looks, in [0, 1]: the notional-weighted mean of its trades' scores.

    A trade's score is the weight of the rules that hit it, in that of the rules that can be told of it.

    Args:
        marked: What `hits` returned.
        notional: Price · size of each entry.
        params: The weights.
    """
    large, dark, cluster, passive = params.weights
    hit = large * marked.notional + dark * marked.dark_venue + cluster * marked.time_cluster + passive * marked.passive
    known = large + dark * marked.is_venue_known + cluster + passive * marked.is_quoted
    score: Array = marked.entries.total(notional * (hit / known)) / marked.entries.total(notional)
    return score


def hit_count(marked: Hits, is_hit: Array, is_known: Array) -> Array:
    """Return how many trades of each window a rule hits, as floats; NaN where it can be told of none."""
    return np.where(marked.entries.has_any(is_known), marked.entries.total(is_hit), np.nan)


@np.errstate(all="ignore")  # nobody's volume is zero, sums may overflow: null in the end
def _participants(windows: TradeWindows, marked: Hits, params: ParticipantParams) -> dict[str, Array]:
    seen = marked.entries
    size, side = seen.of(windows.column("size")), seen.of(windows.column("aggressor"))
    notional = seen.of(windows.column("price")) * size
    has_side = side != Aggressor.UNKNOWN
    is_institutional = marked.is_institutional
    is_retail = ~is_institutional & (notional < params.retail_notional) & has_side
    total = seen.total(notional)

    def share(is_member: Array) -> Array:
        return seen.total(notional * is_member) / total

    columns = {
        "is_finite": np.isfinite(total),
        "notional_hits": seen.total(marked.notional),
        "dark_venue_hits": hit_count(marked, marked.dark_venue, marked.is_venue_known),
        "time_cluster_hits": seen.total(marked.time_cluster),
        "passive_hits": hit_count(marked, marked.passive, marked.is_quoted),
        "institutional_score": institutional_score(marked, notional, params.institutional),
        "unclassified_notional_share": share(~is_institutional & ~is_retail),
        "unclassified_trade_count": seen.total(~is_institutional & ~is_retail),
    }
    for name, is_member in (("institutional", is_institutional), ("retail", is_retail)):
        direction = side * is_member
        ratio = np.abs(seen.total(size * direction)) / seen.total(size * is_member)
        columns |= {
            f"{name}_notional_share": share(is_member),
            f"{name}_trade_count": seen.total(is_member),
            f"{name}_aggressor_ratio": np.where(seen.has_any(is_member & has_side), ratio, np.nan),
            f"{name}_net_notional": seen.total(notional * direction),
        }
    return columns


def described(contract: type[Contract], windows: TradeWindows, rows: pl.DataFrame) -> pl.DataFrame:
    """Return what is said of each window, and null for all of it where `is_finite` does not hold.

    Args:
        contract: What the row is.
        windows: The windows.
        rows: Their samples, what is said of them, and `is_finite`; columns that the contract lacks are left out.
    """
    is_finite = pl.col("is_finite")
    return rows.with_columns(
        pl.when(is_finite).then(pl.exclude(windows.samples.columns)),
        windows.ts_known,
        status=pl.when(is_finite).then(pl.lit(Status.OK)).otherwise(pl.lit(Status.NAN)),
    ).select(pl.col(name).cast(dtype) for name, dtype in polars_schema(contract).items())


def _dark_prints(venue: pl.Series, dark_venues: tuple[str, ...]) -> tuple[Array, Array]:
    """Return whether it can be told that a dark venue printed each row, and whether one did."""
    if not dark_venues:
        return np.zeros(len(venue), bool), np.zeros(len(venue), bool)
    return venue.is_not_null().to_numpy(), venue.is_in(dark_venues).fill_null(False).to_numpy()


def _series_completed_at(symbol: Array, kind: Array, least: int) -> Array:
    """Return for each row the row at which its series has enough rows.

    Args:
        symbol: Number of each row's symbol.
        kind: Rows of one symbol and kind, one after the other, are a series, but not of kind 0.
        least: How many rows are enough.
    """
    place = np.arange(len(kind))
    goes_on = np.append(False, (symbol[1:] == symbol[:-1]) & (kind[1:] == kind[:-1]))[: len(kind)]
    first = np.maximum.accumulate(place * ~goes_on)
    return _next_end((place - first >= least - 1) & (kind != 0), least)


def _cluster_completed_at(symbol: Array, ts: Array, signed_price: Array, params: InstitutionalParams) -> Array:
    """Return for each row the row that completes its first time cluster; sides are in the sign of the price."""
    least, within = params.cluster_trades, params.cluster_ms * _MS
    # Rows of one cluster lie in one stretch without a pause: only long stretches need sorting, and only their runs.
    has_pause = np.append(True, (symbol[1:] != symbol[:-1]) | (ts[1:] - ts[:-1] > within))[: len(ts)]
    begin = np.flatnonzero(has_pause)
    length = np.diff(begin, append=len(ts))
    is_long = length >= least
    rows = rows_of(begin[is_long], (begin + length)[is_long])
    kind = np.repeat(begin[is_long], length[is_long]) + 1j * signed_price[rows]  # real parts are compared first
    has_side = signed_price[rows] != 0
    rows, kind = rows[has_side], kind[has_side]
    start, end = runs(kind)
    order = np.argsort(kind[start], kind="stable")
    place = rows_of(start[order], end[order])
    rows, kind, ts = rows[place], kind[place], ts[rows[place]]
    first, last = slice(max(0, len(rows) - least + 1)), slice(least - 1, None)
    is_end = np.zeros(len(rows), bool)
    is_end[last] = (kind[first] == kind[last]) & (ts[last] - ts[first] <= within)
    completed = np.full(len(symbol), len(symbol))
    completed[rows] = np.append(rows, len(symbol))[_next_end(is_end, least)]
    return completed


def _next_end(is_end: Array, least: int) -> Array:
    """Return for each place the next one at which a series ends, itself or less than `least` on; else their number."""
    found, ends = np.full(len(is_end), len(is_end)), np.flatnonzero(is_end)
    for behind in reversed(range(least)):
        found[ends - behind] = ends
    return found
