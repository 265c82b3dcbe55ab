"""Recipes of `execution/*` that follow from the desk's rows and the market: costs, quality, impact, scorecards.

A table of orders or fills is of a symbol and date; scorecards belong to no symbol, and look back over their month.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import polars as pl

from quant_platform.calculators import benchmarks, execution_quality, impact, quality_score, scorecards, tca
from quant_platform.calculators._order_fills import families
from quant_platform.contracts._schema import contract_of, empty
from quant_platform.contracts.execution import TcaFill, TcaOrder
from quant_platform.contracts.scorecards import AlgoScorecard, Impact, OrderQuality, VenueScorecard
from quant_platform.pipeline.sessions import earlier_sessions, later_session, session
from quant_platform.pipeline.units import Built, Input, Recipe, Unit, Work, outcome_on_disk, usable_hash
from quant_platform.settings import Settings

DECISIONS, ORDERS, FILLS = "execution/decisions", "execution/orders", "execution/fills"
TRADES, QUOTES, MINUTES = "market/trades", "market/quotes", "market/bars_1m"
REFERENCE_SESSIONS = 20
"""Earlier sessions whose orders are the reference of quality, and whose volume and volatility that of impact."""

MONTH_SESSIONS = 31
CHECKS = "tca_checks"
"""The fact of a `execution/tca_orders` file that its checks read: JSON, a count for each."""

_AHEAD = (ORDERS, FILLS, TRADES, QUOTES)
_WHOLE = 1e-9
_PRINT = ("symbol", "ts_event", "ts_recv", "trade_id", "price", "size", "aggressor")
_TOUCH = ("symbol", "ts_event", "ts_recv", "sequence", "bid_price", "bid_size", "ask_price", "ask_size")


def _ends_later(work: Work) -> bool:
    """Return whether an order of the date ends after its session: then the next session is read too."""
    if work.session is None or not work.readable(ORDERS):
        return False
    last: datetime | None = work.today(ORDERS).select(pl.col("ts_done").max()).collect().item()
    return last is not None and last >= work.session.end


def _next_units(work: Work) -> list[Unit]:
    if not _ends_later(work):
        return []
    date = later_session(work.calendar, work.unit.date)
    units = [Unit(table, work.unit.symbol, date) for table in _AHEAD]
    return [unit for unit in units if usable_hash(outcome_on_disk(work.lake, unit))]


def _ahead(work: Work) -> list[tuple[str, str | None]]:
    """Return what a unit reads of the session after its own, which then is part of its key."""
    return [(str(unit), work.content_hash(unit)) for unit in _next_units(work)]


def _told(work: Work, table: str) -> pl.DataFrame:
    """Return the rows of the date, and of the next session where an order reaches into it."""
    return pl.concat([work.today(table), *_ahead_of(work, table)]).collect()


def _ahead_of(work: Work, table: str) -> list[pl.LazyFrame]:
    return [work.lake.scan(table, [u.symbol], u.date, u.date) for u in _next_units(work) if u.table == table]


def _sessions(work: Work, *, before: int = 0) -> pl.DataFrame:
    """Return the unit's session, those before, and the next one where an order reaches into it."""
    dates = [*earlier_sessions(work.calendar, work.unit.date, before), work.unit.date]
    dates += sorted({unit.date for unit in _next_units(work)})
    windows = [found for date in dates if (found := session(work.calendar, date))]
    rows = [(work.unit.symbol, window.start, window.end, True) for window in windows]
    return pl.DataFrame(rows, benchmarks.SESSIONS, orient="row")


def _last_mid(work: Work) -> pl.LazyFrame:
    """Return the quote that the session before closed with."""
    has_mid = (pl.col("bid_price") <= pl.col("ask_price")).fill_null(value=False)
    return work.earlier(QUOTES).filter(has_mid).tail(1)


def _tca_orders(work: Work) -> Built:
    assert work.session is not None  # a closed day is never built
    # Children may be sent on the date after their parent's: those of yesterday's are no parents of today's.
    orders, fills = pl.concat([work.earlier(ORDERS).collect(), _told(work, ORDERS)]), _told(work, FILLS)
    decisions = work.scan(DECISIONS).collect() if work.readable(DECISIONS) else empty(contract_of(DECISIONS))
    quotes = pl.concat(part.select(_TOUCH) for part in (_last_mid(work), work.today(QUOTES), *_ahead_of(work, QUOTES)))
    prints = pl.concat(part.select(_PRINT) for part in (work.today(TRADES), *_ahead_of(work, TRADES)))
    rows = tca.tca_orders(
        orders,
        decisions,
        fills,
        trades=prints.collect().rechunk(),
        quotes=quotes.collect().rechunk(),
        sessions=_sessions(work, before=tca.LOOKBACK_SESSIONS),
    )
    rows = rows.filter(pl.col("ts_event").is_between(work.session.start, work.session.end, closed="left"))
    return Built(rows, facts={CHECKS: _judged(work, rows, fills)})


def _judged(work: Work, rows: pl.DataFrame, fills: pl.DataFrame) -> str:
    """Return how many orders break what must hold, and how many fills are outside the range of the day's trades."""
    parts = pl.sum_horizontal("delay_bps", "trading_bps", "opportunity_bps", "fees_bps")
    side, filled, ordered = pl.col("side"), pl.col("filled_quantity"), pl.col("quantity")
    decided, given_up = pl.col("decision_price"), pl.col("cancel_price").fill_null(pl.col("avg_price"))
    paper = side * ordered * (given_up - decided)
    real = (side * filled * (given_up - pl.col("avg_price"))).fill_null(0) - pl.col("fees")
    told = rows.filter(pl.col("shortfall_bps").is_not_null(), pl.col("delay_bps").is_not_null())
    gap = told.select(
        parts=(parts - pl.col("shortfall_bps")).abs(),
        profit=((paper - real) / (ordered * decided) * 1e4 - pl.col("shortfall_bps")).abs(),
        size=pl.col("shortfall_bps").abs() + 1,
    )
    trades = work.today(TRADES).select(low=pl.col("price").min(), high=pl.col("price").max()).collect()
    low, high = trades.row(0)
    outside = 0 if low is None else fills.filter(~pl.col("price").is_between(low, high)).height
    return json.dumps(
        {
            "orders": rows.height,
            "identity_broken": gap.filter(pl.max_horizontal("parts", "profit") > _WHOLE * pl.col("size")).height,
            "overfilled": int(rows["is_overfilled"].sum()),
            "filled_outside_life": rows.filter("has_fill_before_order" | pl.col("has_fill_after_done")).height,
            "unfinished": rows.filter(pl.col("status") == "unfinished").height,
            "without_arrival": rows.filter(pl.col("reasons").str.contains("no_arrival")).height,
            "revised": int(rows["has_correction"].sum()),
            "fills": fills.height,
            "fills_without_order": fills["order_id"].null_count(),
            "outside_range": outside,
        }
    )


def _tca_fills(work: Work) -> Built:
    quotes = work.today(QUOTES).select(_TOUCH).collect().rechunk()
    return Built(tca.tca_fills(work.today(FILLS).collect(), quotes, _sessions(work)))


def _parents(work: Work, fills: pl.DataFrame) -> pl.DataFrame:
    """Return the fills, each with its parent's order."""
    parents = families(work.scan(ORDERS).collect()).select("order_id", "root")
    return (
        fills.join(parents, on="order_id", how="left", maintain_order="left")
        .with_columns(order_id=pl.coalesce("root", "order_id"))
        .drop("root")
    )


def _quality(work: Work) -> Built:
    orders, earlier = work.today(TcaOrder.table).collect(), work.earlier(TcaOrder.table).collect()
    fills = _parents(work, work.today(TcaFill.table).collect())
    return Built(quality_score.order_quality(orders, fills, earlier, work.settings.analytics.execution_quality))


def _impact(work: Work) -> Built:
    params = work.settings.analytics.impact
    minutes = (
        work.earlier(MINUTES)
        .select("symbol", "ts_open", "close", "volume", date=pl.col("ts_open").dt.date())
        .sort("ts_open")
        .collect()
    )
    orders = work.today(TcaOrder.table).collect()
    quotes = work.today(QUOTES).select(_TOUCH).collect().rechunk()
    found = impact.with_market(orders, quotes, _sessions(work), minutes, params)
    return Built(impact.impact(found, params))


def _dated(work: Work, table: str) -> pl.DataFrame:
    """Return the month's rows so far of every symbol, each with its trading date."""
    month = [u for u in work.readable(table) if (u.date.year, u.date.month) == _month(work) or _is_of_week(work, u)]
    frames = [work.lake.scan(t, [s], d, d).with_columns(date=pl.lit(d)) for t, s, d in month]
    return pl.concat(frames or [empty(contract_of(table)).lazy().with_columns(date=pl.lit(None, pl.Date))]).collect()


def _month(work: Work) -> tuple[int, int]:
    return work.unit.date.year, work.unit.date.month


def _is_of_week(work: Work, unit: Unit) -> bool:
    return unit.date.isocalendar()[:2] == work.unit.date.isocalendar()[:2]


def _venue_scorecard(work: Work) -> Built:
    orders = _dated(work, ORDERS).drop("date")
    parents = families(orders).select("order_id", "root")
    fills = (
        _dated(work, TcaFill.table)
        .join(parents, on="order_id", how="left", maintain_order="left")
        .with_columns(order_id=pl.coalesce("root", "order_id"))
    )
    card = scorecards.venue_scorecard(fills, _dated(work, TcaOrder.table), work.settings.analytics.scorecards)
    return Built(_newest(work, card))


def _algo_scorecard(work: Work) -> Built:
    orders, quality = _dated(work, TcaOrder.table), _dated(work, OrderQuality.table)
    card = scorecards.algo_scorecard(orders, quality, work.settings.analytics.scorecards)
    return Built(_newest(work, card))


def _newest(work: Work, card: pl.DataFrame) -> pl.DataFrame:
    """Return the cells of the day, the week and the month that the date is in."""
    date = work.unit.date
    firsts = {"day": date, "week": date.fromisocalendar(*date.isocalendar()[:2], 1), "month": date.replace(day=1)}
    of_date = pl.any_horizontal(
        (pl.col("period") == period) & (pl.col("period_start") == first) for period, first in firsts.items()
    )
    return card.filter(of_date)


def _section(name: str) -> Callable[[Settings], Mapping[str, Any]]:
    return lambda settings: asdict(getattr(settings.analytics, name))


def _every(table: str) -> Input:
    return Input(table, lookback_sessions=MONTH_SESSIONS, is_each_symbol=True)


EXECUTION = (
    Recipe(
        TcaFill.table,
        _tca_fills,
        (tca.__name__,),
        (Input(FILLS), Input(QUOTES, is_optional=True)),
    ),
    Recipe(
        TcaOrder.table,
        _tca_orders,
        (tca.__name__,),
        (
            Input(ORDERS, lookback_sessions=1),
            Input(FILLS, is_optional=True),
            Input(DECISIONS, lookback_sessions=1, is_optional=True),
            Input(TRADES, is_optional=True),
            Input(QUOTES, lookback_sessions=tca.LOOKBACK_SESSIONS, is_optional=True),
        ),
        archived=_ahead,
    ),
    Recipe(
        OrderQuality.table,
        _quality,
        (quality_score.__name__, execution_quality.__name__),
        (
            Input(TcaOrder.table, lookback_sessions=REFERENCE_SESSIONS),
            Input(TcaFill.table, is_optional=True),
            Input(ORDERS, lookback_sessions=1),
        ),
        parameters=_section("execution_quality"),
    ),
    Recipe(
        Impact.table,
        _impact,
        (impact.__name__,),
        (
            Input(TcaOrder.table),
            Input(QUOTES, is_optional=True),
            Input(MINUTES, lookback_sessions=REFERENCE_SESSIONS, is_optional=True),
        ),
        parameters=_section("impact"),
    ),
    Recipe(
        VenueScorecard.table,
        _venue_scorecard,
        (scorecards.__name__,),
        (_every(TcaFill.table), _every(TcaOrder.table), _every(ORDERS)),
        parameters=_section("scorecards"),
        is_cross_symbol=True,
    ),
    Recipe(
        AlgoScorecard.table,
        _algo_scorecard,
        (scorecards.__name__,),
        (_every(TcaOrder.table), _every(OrderQuality.table)),
        parameters=_section("scorecards"),
        is_cross_symbol=True,
    ),
)
