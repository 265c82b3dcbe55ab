"""A symbol as it stands now: earlier sessions from the lake, and what was captured of the date, by the batch's recipes.

It reads the lake and the landing, and keeps nothing. What a state means is the calculators' business.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date as Date  # noqa: N812  # `date` names fields here
from typing import Any, NamedTuple

import polars as pl

from quant_platform.calculators import bars
from quant_platform.contracts._schema import contract_of, empty
from quant_platform.live.window import Position
from quant_platform.pipeline import open_date
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.sessions import earlier_sessions
from quant_platform.pipeline.units import Fold, Unit, Work
from quant_platform.settings import Settings
from quant_platform.storage.lake import Lake

TRADES = "market/trades"
QUOTES = "market/quotes"
TAPE = "microstructure/signed_trades"
VPIN = "microstructure/vpin"
TOXICITY = "microstructure/toxicity"
PARTICIPANTS = "microstructure/participant_flow"
SWEEPS = "microstructure/sweeps"
HIDDEN = "microstructure/hidden_orders"
CLUSTERS = "microstructure/flow_clusters"
BOOK = "microstructure/order_book_imbalance"
FOLDED = (VPIN, TOXICITY, PARTICIPANTS, SWEEPS, HIDDEN, CLUSTERS)
"""What is folded over the signed tape, in this order: toxicity reads the VPIN of the same step."""

_BUCKETS = "microstructure/vpin_buckets"
_MINUTES = "market/bars_1m"
_TRADES_PER_STEP = 500_000


class Opened(NamedTuple):
    """One symbol's fold up to now.

    Attributes:
        symbol: Its name.
        date: The trading date that it stands in.
        position: How far its streams were folded.
        states: By table of `TAPE` and `FOLDED`, what the fold of the batch left.
        rows: By table of `FOLDED` and `BOOK`, the last rows of the session before and of the date, in their order.
        trades: The date's trades.
    """

    symbol: str
    date: Date
    position: Position
    states: Mapping[str, Any]
    rows: Mapping[str, pl.DataFrame]
    trades: pl.DataFrame


@dataclass(frozen=True)
class _Work(Work):
    """A unit whose session before may not be closed yet: then it reads what was captured of it."""

    unclosed: Mapping[str, pl.DataFrame] = field(default_factory=dict)

    def earlier(self, table: str) -> pl.LazyFrame:
        """Return an input's rows of the lookback sessions."""
        rows = super().earlier(table)
        return pl.concat([rows, self.unclosed[table].lazy()]) if table in self.unclosed else rows


def opened(settings: Settings, lake: Lake, symbol: str, date: Date) -> Opened:
    """Return a symbol as it stands now.

    Args:
        settings: The whole tree.
        lake: Where closed dates and the parts of open ones are.
        symbol: Its name.
        date: The trading date that is on.

    Raises:
        OSError: The lake or the landing cannot be read.
        ValueError: A calculator refuses what is in them.
    """
    calendar = settings.instrument(symbol).calendar
    before = earlier_sessions(calendar, date, 1)[0]
    unclosed = {} if lake.path(TAPE, symbol, before).is_file() else _captured(settings, lake, symbol, before)
    works = _works(settings, lake, symbol, date, unclosed)
    trades, quotes = (open_date.rows_so_far(works[table]) for table in (TRADES, QUOTES))
    trades, quotes = _known_on_both(trades, quotes)
    states, rows = _folded(works, FOLDED, trades, quotes, last=settings.analytics.history_entries + 1)
    earlier = {table: _stored(settings, lake, Unit(table, symbol, before)) for table in (*FOLDED, BOOK)}
    rows[BOOK] = _stored(settings, lake, Unit(BOOK, symbol, date))
    position = Position(
        last_trade_id=_last(trades, "last_trade_id"),
        last_quote=_last_update(quotes),
        last_book=None,  # an order book's fold looks back for seconds only: it begins anew
    )
    return Opened(
        symbol, date, position, states, {table: pl.concat([earlier[table], rows[table]]) for table in earlier}, trades
    )


def _works(
    settings: Settings, lake: Lake, symbol: str, date: Date, unclosed: Mapping[str, pl.DataFrame]
) -> dict[str, _Work]:
    tables = (TRADES, QUOTES, TAPE, _BUCKETS, *FOLDED)
    return {
        table: _Work(Unit(table, symbol, date), RECIPES[table], settings, lake, unclosed=unclosed) for table in tables
    }


def _captured(settings: Settings, lake: Lake, symbol: str, date: Date) -> dict[str, pl.DataFrame]:
    """Return what later sessions look back to, of a date that was captured and not closed yet."""
    works = _works(settings, lake, symbol, date, {})
    trades, quotes = (open_date.rows_so_far(works[table]) for table in (TRADES, QUOTES))
    if trades.is_empty():
        return {}
    _, rows = _folded(works, (TAPE, _BUCKETS), trades, quotes, last=trades.height)
    minutes = bars.cascade(bars.bars(trades), 60)
    return {_MINUTES: minutes, TAPE: rows[TAPE], _BUCKETS: rows[_BUCKETS]}


def _folded(
    works: Mapping[str, _Work], tables: Sequence[str], trades: pl.DataFrame, quotes: pl.DataFrame, *, last: int
) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    """Return the states after these rows, and the last rows of each table."""
    folds = {table: _fold(table) for table in dict.fromkeys((TAPE, *tables))}
    states = {table: fold.opened(works[table]) for table, fold in folds.items()}
    rows = {table: empty(contract_of(table)) for table in tables}
    for some_trades, some_quotes in _steps(trades, quotes):
        streams = {TRADES: some_trades.lazy(), QUOTES: some_quotes.lazy()}
        for table, fold in folds.items():
            states[table], built = fold.step(works[table], states[table], streams)
            if table in (TAPE, VPIN):
                streams[table] = built.rows.lazy()
            if table in rows:
                rows[table] = newest(table, pl.concat([rows[table], built.rows])).tail(last)
    return states, rows


def _fold(table: str) -> Fold:
    fold = RECIPES[table].fold
    assert fold is not None  # all of these follow an open date
    return fold


def newest(table: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return a table's rows without those that a later one revises, in their order."""
    name = ["symbol", *contract_of(table).sorted_by]
    return rows.unique(name, keep="last", maintain_order=True)


def _steps(trades: pl.DataFrame, quotes: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Yield trades and quotes some at a time, both up to one event time."""
    times, seen = quotes["ts_event"], 0
    for start in range(0, max(trades.height, 1), _TRADES_PER_STEP):
        some = trades[start : start + _TRADES_PER_STEP]
        is_last = start + some.height >= trades.height
        end = quotes.height if is_last else int(times.search_sorted(some["ts_event"][-1], side="right"))
        yield some, quotes[seen:end]
        seen = end


def _known_on_both(trades: pl.DataFrame, quotes: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return both up to the event time that both have reached: what is later comes with the streams."""
    ends = [rows["ts_event"][-1] for rows in (trades, quotes) if rows.height]
    if not ends:
        return trades, quotes
    is_known = pl.col("ts_event") <= min(ends)
    return trades.filter(is_known), quotes.filter(is_known)


def _stored(settings: Settings, lake: Lake, unit: Unit) -> pl.DataFrame:
    """Return the last rows of a table on a date, closed or open."""
    work = Work(unit, RECIPES[unit.table], settings, lake)
    memory = None if lake.path(*unit).is_file() else open_date.recalled(work, unit)
    rows = lake.scan_parts(*unit, memory.parts) if memory and memory.parts else work.today(unit.table)
    return newest(unit.table, rows.tail(2 * settings.analytics.history_entries).collect())


def _last(rows: pl.DataFrame, column: str) -> int | None:
    value = rows[column].max()
    return None if value is None else int(value)  # type: ignore[arg-type]  # a column of integers


def _last_update(rows: pl.DataFrame) -> tuple[int, int] | None:
    return (int(rows["ts_event"].to_physical()[-1]), int(rows["sequence"][-1])) if rows.height else None
