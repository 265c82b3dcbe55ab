"""Sweeps: one side trading quickly through several prices. Who may be behind them is the business of other modules."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from quant_platform.calculators._tape import first_at, framed, rows_of
from quant_platform.calculators._trade_windows import (
    Array,
    joined,
    no_trades,
    range_maxima,
    range_sums,
    runs,
)
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import Aggressor, Status
from quant_platform.contracts.microstructure import Sweep

LOOKBACK_SESSIONS = 1

_MS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class SweepParams:
    """What makes a run of trades a sweep.

    Attributes:
        window_trades: Most trades looked at: the newest and those before it.
        window_ms: Trades older than the newest by more than this are not looked at.
        min_trades: Fewest trades of a sweep.
        min_price_levels: Fewest different prices of a sweep.
        min_volume: Least volume of a sweep, in base units; 0 asks for none.
    """

    window_trades: int = 50
    window_ms: int = 1_000
    min_trades: int = 3
    min_price_levels: int = 3
    min_volume: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.min_price_levels <= self.min_trades <= self.window_trades:
            raise ValueError(
                "1 <= min_price_levels <= min_trades <= window_trades must hold, "
                f"were {self.min_price_levels}, {self.min_trades} and {self.window_trades}"
            )
        if self.window_ms < 0:
            raise ValueError(f"window_ms must be >= 0, was {self.window_ms}")
        if not self.min_volume >= 0:
            raise ValueError(f"min_volume must be >= 0, was {self.min_volume}")


@dataclass(frozen=True)
class State:
    """Each symbol's last `window_trades` trades, and those of sweeps that the next trade may continue."""

    tail: pl.DataFrame


_DEFAULTS = SweepParams()


def initial() -> State:
    """Return the state before the first trade."""
    return State(no_trades())


def step(state: State, trades: pl.DataFrame, params: SweepParams = _DEFAULTS) -> tuple[State, pl.DataFrame]:
    """Fold a chunk of the signed tape into the state, and return the sweeps that it began or continued.

    At any trade, the run is the longest one that ends there, of one known aggressor, with prices that never move
    against it (a buyer's do not fall), among the last `window_trades` trades not older than `window_ms`, both ends
    inclusive. The rule holds at a trade when that run has `min_trades` trades on `min_price_levels` prices with
    `min_volume`. A sweep is all trades of runs at which it holds and that overlap: so it may be longer than a window,
    and no trade is in two of them.

    Cutting the tape anywhere changes nothing: a sweep that goes on is returned again, and of all outputs the last row
    per symbol and first_trade_id is the row of one pass over the whole tape.

    Args:
        state: What `initial` or the previous `step` returned, with the same parameters.
        trades: The signed tape, any number of symbols, any row order. A row with a null, or with a price or size that
            is NaN, infinite, zero or negative, is ignored, and so is one that is not later, by (ts_event, trade_id),
            than what came of its symbol in earlier chunks. A row is one trade, also on an aggTrades tape.
        params: What makes a sweep.

    Returns:
        The next state, and one row per sweep: contract `Sweep` with `value` 1, sorted by symbol and ts_start.

    Raises:
        ValueError: A usable trade has no `ts_recv`.
    """
    rows, symbol, is_new, untouched = joined(state.tail, trades)
    level = _levels(rows)
    first, last = _sweeps(rows, level, symbol, params)
    symbol_first, symbol_end = runs(symbol)
    # The next trade's run may reach back so far; a sweep that it may overlap is kept whole.
    reach = symbol_end - (params.window_trades - 1)
    owner = np.searchsorted(symbol_end, last, side="right")
    can_go_on = last >= reach[owner]
    kept_from = np.maximum(symbol_first, symbol_end - params.window_trades)
    np.minimum.at(kept_from, owner[can_go_on], first[can_go_on])
    is_kept = np.zeros(rows.height, bool)
    is_kept[rows_of(kept_from, symbol_end)] = True
    is_touched = is_new[last]
    return (
        State(pl.concat([untouched, rows.filter(is_kept)], rechunk=True)),
        _described(rows, level, first[is_touched], last[is_touched], np.ones(is_touched.sum(), np.int64)),
    )


def latest(state: State, params: SweepParams = _DEFAULTS) -> pl.DataFrame:
    """Return what the rule says at each symbol's newest trade.

    Args:
        state: What `step` returned, with the same parameters.
        params: What makes a sweep.

    Returns:
        One row per symbol that has traded: contract `Sweep`, sorted by symbol. It describes the run that ends at the
        newest trade, whether it is a sweep (`value` 1 and its `side`) or not (0 and 0).
    """
    rows = state.tail.sort("symbol", maintain_order=True)
    symbol = rows.get_column("symbol").rle_id().to_numpy()
    newest = runs(symbol)[1] - 1
    begin, _ = _runs(rows, symbol)
    start = begin[np.searchsorted(begin, newest, side="right") - 1]
    level = _levels(rows)
    start, holds = _windows(rows, level, start, newest, params)
    return _described(rows, level, start, newest, holds.astype(np.int64))


def in_sweep(trades: pl.DataFrame, params: SweepParams = _DEFAULTS) -> pl.Series:
    """Return for each trade whether it belongs to a run at which the rule of `step` holds, by the last of the trades.

    Args:
        trades: `symbol ts_event price size aggressor`, usable, sorted by (symbol, ts_event, trade_id).
        params: What makes a sweep.
    """
    return pl.Series("in_sweep", completed_at(trades, params) < trades.height)


def completed_at(trades: pl.DataFrame, params: SweepParams = _DEFAULTS) -> Array:
    """Return for each trade the row of the first trade, itself or a later one, that shows it to be in a sweep.

    So at a sample point whose last row is `r`, the trades in sweeps are those with `completed_at <= r`.

    Args:
        trades: What `in_sweep` takes. What is said of a row is complete when the `window_trades - 1` rows before it
            are there too.
        params: What makes a sweep.

    Returns:
        Row numbers; the number of rows where no trade shows it.
    """
    symbol = trades.get_column("symbol").rle_id().to_numpy()
    start, holding = _holding(trades, _levels(trades), symbol, params)
    is_holding = np.zeros(trades.height, bool)
    is_holding[holding] = True
    following = np.cumsum(is_holding) - is_holding  # the place in `holding` of the first one not before the row
    is_in_run = np.append(start, trades.height)[following] <= np.arange(trades.height)
    return np.where(is_in_run, np.append(holding, trades.height)[following], trades.height)


def _sweeps(rows: pl.DataFrame, level: Array, symbol: Array, params: SweepParams) -> tuple[Array, Array]:
    """Return the first and the last row of each sweep."""
    start, holding = _holding(rows, level, symbol, params)
    is_first = np.append(True, start[1:] > holding[:-1])[: len(start)]
    is_last = np.append(is_first[1:], True)[: len(start)]
    return start[is_first], holding[is_last]


def _holding(rows: pl.DataFrame, level: Array, symbol: Array, params: SweepParams) -> tuple[Array, Array]:
    """Return the rows at which the rule holds, after the first rows of the runs that end there; both increase."""
    begin, end = _runs(rows, symbol)
    moves = params.min_price_levels - 1  # without bounds a run is no shorter
    is_far = np.flatnonzero(level[end - 1] - level[begin] >= moves)
    begin, end = begin[is_far], end[is_far]
    ends, start = rows_of(begin, end), np.repeat(begin, end - begin)
    is_far = np.flatnonzero(level[ends] - level[start] >= moves)
    ends = ends[is_far]
    start, holds = _windows(rows, level, start[is_far], ends, params)
    return start[holds], ends[holds]


def _runs(rows: pl.DataFrame, symbol: Array) -> tuple[Array, Array]:
    """Return the first row of each run, however long, and the row after its last one; every row is in one."""
    price, aggressor = rows.get_column("price").to_numpy(), rows.get_column("aggressor").to_numpy()
    towards = price * aggressor
    goes_on = (symbol[1:] == symbol[:-1]) & (aggressor[1:] == aggressor[:-1]) & (towards[1:] >= towards[:-1])
    goes_on &= aggressor[1:] != Aggressor.UNKNOWN
    begin: Array = np.flatnonzero(np.append(True, ~goes_on)[: len(price)])
    return begin, np.append(begin[1:], len(price))[: len(begin)]


def _windows(rows: pl.DataFrame, level: Array, start: Array, ends: Array, params: SweepParams) -> tuple[Array, Array]:
    """Return the first row of the run that ends at each of some rows, and whether the rule holds there."""
    ts = rows.get_column("ts_event").to_physical().to_numpy()
    start = np.maximum(start, ends - (params.window_trades - 1))
    oldest = ts[ends] - params.window_ms * _MS
    late = np.flatnonzero(ts[start] < oldest)
    start[late] = first_at(ts, oldest[late], start[late], ends[late])
    holds = (
        (ends - start + 1 >= params.min_trades)
        & (level[ends] - level[start] + 1 >= params.min_price_levels)
        & (rows.get_column("aggressor").to_numpy()[ends] != Aggressor.UNKNOWN)
    )
    if params.min_volume:
        held = np.flatnonzero(holds)
        holds[held] = range_sums(rows.get_column("size").to_numpy(), start[held], ends[held] + 1) >= params.min_volume
    return start, holds


def _levels(rows: pl.DataFrame) -> Array:
    """Return how often the price has changed up to each row: within a run, one less than its different prices."""
    price = rows.get_column("price").to_numpy()
    changes: Array = np.cumsum(np.append(False, price[1:] != price[:-1])[: len(price)])
    return changes


@np.errstate(over="ignore")  # sums beyond the floats are null in the end
def _described(rows: pl.DataFrame, level: Array, first: Array, last: Array, value: Array) -> pl.DataFrame:
    column = {name: rows.get_column(name).to_physical().to_numpy() for name in rows.columns if name != "symbol"}
    stop = last + 1
    amounts = pl.col("volume", "notional")
    is_finite = pl.all_horizontal(amounts.is_finite())
    return (
        framed(
            {
                "ts_start": column["ts_event"][first],
                "ts_end": column["ts_event"][last],
                "symbol": rows.get_column("symbol")[first],
                "first_trade_id": column["trade_id"][first],
                "last_trade_id": column["last_trade_id"][last],
                "value": value,
                "side": column["aggressor"][last] * value,
                "trade_count": stop - first,
                "price_levels": level[last] - level[first] + 1,
                "volume": range_sums(column["size"], first, stop),
                "notional": range_sums(column["price"] * column["size"], first, stop),
                "ts_known": range_maxima(column["ts_recv"], first, stop),
            }
        )
        .with_columns(
            pl.when(is_finite).then(amounts),
            status=pl.when(is_finite).then(pl.lit(Status.OK)).otherwise(pl.lit(Status.NAN)),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(Sweep).items())
    )
