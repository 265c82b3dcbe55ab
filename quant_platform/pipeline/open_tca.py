"""What orders and fills have cost on a date that is still captured: what the desk told, or the market brought, since.

A row is computed again where the desk told something new of it, or its market data had not come; all others stand. So
ticks are read from the earliest of those on. When the date closes, `execution` computes it all from its beginning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from quant_platform.calculators import tca
from quant_platform.contracts.execution import MARKOUT_HORIZONS_NS, TcaFill, TcaOrder, TcaReason, TcaStatus
from quant_platform.pipeline import open_date
from quant_platform.pipeline.ledger import Ledger
from quant_platform.pipeline.sessions import earlier_sessions
from quant_platform.pipeline.tca_inputs import (
    DECISIONS,
    FILLS,
    ORDERS,
    PRINT,
    QUOTES,
    TOUCH,
    TRADES,
    has_mid,
    last_mid,
    sessions,
    ticks,
)
from quant_platform.pipeline.units import Built, Outcome, Unit, UnitStatus, Work
from quant_platform.settings import Settings
from quant_platform.storage.lake import metadata_json

TOLD = "told"
"""The fact of an open date's costs that says which files of the desk they stand for."""

_OF_THE_DESK = (DECISIONS, ORDERS, FILLS)
_COSTS = (TcaFill.table, TcaOrder.table)
TABLES = (*_OF_THE_DESK, *_COSTS)
"""What a file of the desk brings up to date on an open date, in this order."""

_SOURCE = "source_fingerprint"
_PREVAILING = timedelta(minutes=10)  # so far before an order the quote is looked for that it met
_HORIZON_NS = max(MARKOUT_HORIZONS_NS.values())
_AWAITED = [r.value for r in (TcaReason.DATA_END, TcaReason.VOLUME_ENDS, TcaReason.NO_ARRIVAL, TcaReason.NO_OPEN)]


class Told(NamedTuple):
    """The revisions of decisions, orders and fills that rows stand for: id and revision of each."""

    decisions: pl.DataFrame
    orders: pl.DataFrame
    fills: pl.DataFrame


def fills_so_far(work: Work, known: pl.DataFrame | None, rows: pl.DataFrame) -> tuple[pl.DataFrame, Built]:
    """Return the revisions that the rows of `execution/tca_fills` stand for, and all of these rows.

    Args:
        work: The unit; its date is open.
        known: What this returned before; None at first.
        rows: The rows as they stand.
    """
    fills = work.today(FILLS).collect()
    reach = pl.col("ts_markout_end") - pl.duration(nanoseconds=_HORIZON_NS, time_unit="ns")
    is_awaited = (pl.col("status") == TcaStatus.NOT_YET) | (pl.col("ts_event") > reach).fill_null(value=True)
    names = pl.concat([_new(fills, known, "fill_id")["fill_id"], rows.filter(is_awaited)["fill_id"]]).implode()
    due, stands = fills.filter(pl.col("fill_id").is_in(names)), rows.filter(~pl.col("fill_id").is_in(names))
    if due.height:
        quotes, _ = _ticks(work, due["ts_event"])
        found = tca.tca_fills(due, quotes, sessions(work, is_over=False))
        reached = pl.when(pl.col("ts_markout_end").is_not_null()).then(pl.col("ts_markout_end").max())
        rows = pl.concat([stands.select(found.columns), found]).with_columns(ts_markout_end=reached)
    return _revisions(fills, "fill_id"), Built(rows, facts=_facts(work))


def orders_so_far(work: Work, known: Told | None, rows: pl.DataFrame) -> tuple[Told, Built]:
    """Return the revisions that the rows of `execution/tca_orders` stand for, and all of these rows.

    Args:
        work: The unit; its date is open.
        known: What this returned before; None at first.
        rows: The rows as they stand.
    """
    assert work.session is not None  # a closed day is never captured
    orders = pl.concat([work.earlier(ORDERS), work.today(ORDERS)]).collect()
    decisions = pl.concat([work.earlier(DECISIONS), work.today(DECISIONS)]).collect()
    fills = work.today(FILLS).collect()
    root = tca.with_parents(orders.select("order_id"), orders)["order_id"]
    heads = orders.filter((root == orders["order_id"]) & (orders["ts_event"] >= work.session.start))["order_id"]
    new_decisions = _new(decisions, known and known.decisions, "decision_id")["decision_id"].implode()
    changed = [
        _new(orders, known and known.orders, "order_id")["order_id"],
        _new(fills, known and known.fills, "fill_id")["order_id"].drop_nulls(),
        orders.filter(pl.col("decision_id").is_in(new_decisions))["order_id"],
    ]
    awaited = rows.filter(pl.col("reasons").str.contains_any(_AWAITED))["order_id"]
    roots = tca.with_parents(pl.concat(changed).to_frame(), orders)["order_id"]
    names = pl.concat([roots, awaited]).unique()
    names = names.filter(names.is_in(heads.implode()))
    due = orders.filter(root.is_in(names.implode()))
    stands = rows.filter(pl.col("order_id").is_in(heads.implode()) & ~pl.col("order_id").is_in(names.implode()))
    if due.height:
        arrivals = due.filter(pl.col("order_id").is_in(names.implode()))["ts_event"]
        quotes, trades = _ticks(work, arrivals, has_trades=True)
        before = earlier_sessions(work.calendar, work.unit.date, tca.LOOKBACK_SESSIONS)
        windows = sessions(work, *before, is_over=False)
        found = tca.tca_orders(due, decisions, fills, trades=trades, quotes=quotes, sessions=windows)
        stands = pl.concat([stands.select(found.columns), found])
    revisions = Told(_revisions(decisions, "decision_id"), _revisions(orders, "order_id"), _revisions(fills, "fill_id"))
    return revisions, Built(stands, facts=_facts(work))


def open_symbols(ledger: Ledger, date: Date) -> set[str]:
    """Return the symbols whose date is still captured."""
    return {o.unit.symbol for o in ledger.outcomes(TRADES, start=date, end=date, status=UnitStatus.OPEN)}


def behind(settings: Settings, ledger: Ledger) -> dict[Date, list[str]]:
    """Return the symbols whose costs of an open date do not stand for all that the desk's tables hold, by date.

    Where costs failed or were blocked, they wait for what the desk tells next.

    Args:
        settings: The whole tree.
        ledger: What the tables contain.
    """
    symbols = {instrument.symbol for instrument in settings.instruments}
    open_days = {o.unit[1:] for o in ledger.outcomes(TRADES, symbols=symbols, status=UnitStatus.OPEN)}
    found: dict[Date, list[str]] = {}
    for date in sorted({date for _, date in open_days}):
        known = {o.unit: o for table in TABLES for o in ledger.outcomes(table, start=date, end=date)}
        for symbol in sorted(symbol for symbol, day in open_days if day == date):
            told = _told({table: known[unit] for table in _OF_THE_DESK if (unit := Unit(table, symbol, date)) in known})
            costs = [known.get(Unit(table, symbol, date)) for table in _COSTS]
            if told and any(one is None or (one.status.is_usable and one.facts.get(TOLD) != told) for one in costs):
                found.setdefault(date, []).append(symbol)
    return found


def _facts(work: Work) -> Mapping[str, str]:
    facts = {table: work.facts(table) for table in _OF_THE_DESK}
    return {TOLD: metadata_json({table: told[_SOURCE] for table, told in facts.items() if _SOURCE in told})}


def _told(outcomes: Mapping[str, Outcome]) -> str:
    """Return the fact of costs that stand for all of this; nothing where the desk has told nothing."""
    names = {table: one.facts[_SOURCE] for table, one in outcomes.items() if _SOURCE in one.facts}
    return metadata_json(names) if names else ""


def _new(rows: pl.DataFrame, known: pl.DataFrame | None, name: str) -> pl.DataFrame:
    return rows if known is None else rows.join(known, on=[name, "revision"], how="anti")


def _revisions(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    return rows.select(name, "revision")


def _ticks(work: Work, moments: pl.Series, *, has_trades: bool = False) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return quotes, and trades where they are asked for, from the first moment on, and the quote that it met.

    With them stand the last mid of the session before and the first one of this.
    """
    assert work.session is not None  # a closed day is never captured
    since = moments.min()
    assert isinstance(since, datetime)  # cut to a microsecond, never later
    start: datetime | None = since - _PREVAILING
    quotes = _so_far(work, QUOTES, TOUCH, start).select(TOUCH)
    if quotes.filter(has_mid() & (pl.col("ts_event") < since)).is_empty():
        start, quotes = None, _so_far(work, QUOTES, TOUCH, None).select(TOUCH)
    marks = [last_mid(work)]
    if start:
        marks.append(open_date.first_row(_of(work, QUOTES), has_mid()).lazy())
    rows = pl.concat([mark.select(TOUCH) for mark in marks] + [quotes.lazy()])
    trades = _so_far(work, TRADES, PRINT, start) if has_trades else pl.DataFrame()
    return ticks(rows, TOUCH, work.unit.symbol), trades


def _so_far(work: Work, table: str, columns: Sequence[str], start: datetime | None) -> pl.DataFrame:
    return ticks(open_date.rows_so_far(_of(work, table), start).lazy(), columns, work.unit.symbol)


def _of(work: Work, table: str) -> Work:
    return replace(work, unit=work.unit._replace(table=table))
