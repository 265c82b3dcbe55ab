"""Recipes of `execution/*` that follow from the desk's rows and the market: costs, quality, impact, scorecards.

A table of orders or fills is of a symbol and date; scorecards belong to no symbol, and look back over their month.
"""

import json
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from datetime import datetime, timedelta

import polars as pl

from quant_platform.calculators import execution_quality, impact, quality_score, scorecards, tca
from quant_platform.contracts._schema import contract_of, empty
from quant_platform.contracts.execution import TcaFill, TcaOrder
from quant_platform.contracts.scorecards import (
    AlgoScorecard,
    Impact,
    ImpactFit,
    OrderQuality,
    Period,
    QualityTrend,
    VenueScorecard,
)
from quant_platform.pipeline import open_tca, tca_inputs
from quant_platform.pipeline.sessions import earlier_sessions, later_session
from quant_platform.pipeline.tca_inputs import (
    DECISIONS,
    FILLS,
    ORDERS,
    PRINT,
    QUOTES,
    TOUCH,
    TRADES,
    last_mid,
    sessions,
    ticks,
)
from quant_platform.pipeline.units import Built, Input, Recipe, Unit, Work, outcome_on_disk, section_of, usable_hash

MINUTES = "market/bars_1m"
REFERENCE_SESSIONS = 20
"""Earlier sessions whose orders are the reference of quality, and whose volume and volatility that of impact."""

MONTH_SESSIONS = 31
CHECKS = "tca_checks"
"""The fact of a `execution/tca_orders` file that its checks read: JSON, a count for each."""

_AHEAD = (ORDERS, FILLS, TRADES, QUOTES)


def _next_units(work: Work) -> list[Unit]:
    """Return what is read of the next session: there an order of the date may end."""
    if work.session is None or not work.readable(ORDERS):
        return []
    last: datetime | None = work.today(ORDERS).select(pl.col("ts_done").max()).collect().item()
    if last is None or last < work.session.end:
        return []
    date = later_session(work.calendar, work.unit.date)
    units = [Unit(table, work.unit.symbol, date) for table in _AHEAD]
    return [unit for unit in units if usable_hash(outcome_on_disk(work.lake, unit))]


def _ahead(work: Work) -> list[tuple[str, str | None]]:
    """Return what a unit reads of the next session, which then is part of its key."""
    return [(str(unit), work.content_hash(unit)) for unit in _next_units(work)]


def _tca_orders(work: Work) -> Built:
    assert work.session is not None  # a closed day is never built
    ahead = _next_units(work)

    def told(table: str, *before: pl.LazyFrame) -> pl.LazyFrame:
        later = (work.lake.scan(table, [unit.symbol], unit.date, unit.date) for unit in ahead if unit.table == table)
        return pl.concat([*before, work.today(table), *later])

    fills = told(FILLS).collect()
    before = earlier_sessions(work.calendar, work.unit.date, tca.LOOKBACK_SESSIONS)
    rows = tca.tca_orders(
        # Children may be sent on the date after their parent's: those of yesterday's are no parents of today's.
        told(ORDERS, work.earlier(ORDERS)).collect(),
        pl.concat([work.earlier(DECISIONS), work.today(DECISIONS)]).collect(),
        fills,
        trades=ticks(told(TRADES), PRINT, work.unit.symbol),
        quotes=ticks(told(QUOTES, last_mid(work)), TOUCH, work.unit.symbol),
        sessions=sessions(work, *before, *(unit.date for unit in ahead)),
    )
    rows = rows.filter(pl.col("ts_event").is_between(work.session.start, work.session.end, closed="left"))
    found = tca.soundness(rows, fills, work.today(TRADES).select("price").collect())
    return Built(rows, facts={CHECKS: json.dumps(found)})


def _tca_fills(work: Work) -> Built:
    quotes = ticks(work.today(QUOTES), TOUCH, work.unit.symbol)
    return Built(tca.tca_fills(work.today(FILLS).collect(), quotes, sessions(work)))


def _quality(work: Work) -> Built:
    orders, earlier = work.today(TcaOrder.table).collect(), work.earlier(TcaOrder.table).collect()
    fills = tca.with_parents(work.today(TcaFill.table).collect(), work.scan(ORDERS).collect())
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
    quotes = ticks(work.today(QUOTES), TOUCH, work.unit.symbol)
    found = impact.with_market(orders, quotes, sessions(work), minutes, params)
    return Built(impact.impact(found, params))


def _quality_trend(work: Work) -> Built:
    params = work.settings.analytics.execution_quality
    oldest = work.unit.date - timedelta(days=params.trend_days)
    scores = _dated(work, OrderQuality.table, oldest)
    return Built(quality_score.trends(scores, work.unit.date, params))


def _of_periods(work: Work, table: str) -> pl.DataFrame:
    """Return the rows of every symbol of the date's month and week so far, each with its trading date."""
    return _dated(work, table, min(scorecards.period_starts(work.unit.date).values()))


def _dated(work: Work, table: str, first: Date) -> pl.DataFrame:
    """Return the rows of every symbol since a date, as far as inputs reach, each with its trading date."""
    frames = [
        work.lake.scan(t, [s], d, d).with_columns(date=pl.lit(d)) for t, s, d in work.readable(table) if d >= first
    ]
    return pl.concat(frames or [empty(contract_of(table)).lazy().with_columns(date=pl.lit(None, pl.Date))]).collect()


def _venue_scorecard(work: Work) -> Built:
    fills = tca.with_parents(_of_periods(work, TcaFill.table), _of_periods(work, ORDERS))
    card = scorecards.venue_scorecard(fills, _of_periods(work, TcaOrder.table), work.settings.analytics.scorecards)
    return Built(scorecards.holding(work.unit.date, card))


def _algo_scorecard(work: Work) -> Built:
    orders, quality = _of_periods(work, TcaOrder.table), _of_periods(work, OrderQuality.table)
    card = scorecards.algo_scorecard(orders, quality, work.settings.analytics.scorecards)
    return Built(scorecards.holding(work.unit.date, card))


def _impact_fit(work: Work) -> Built:
    orders = _dated(work, Impact.table, scorecards.period_starts(work.unit.date)[Period.MONTH])
    return Built(impact.impact_fit(orders, work.unit.date, work.settings.analytics.impact))


def _every(table: str) -> Input:
    return Input(table, lookback_sessions=MONTH_SESSIONS, is_each_symbol=True)


EXECUTION = (
    Recipe(
        TcaFill.table,
        _tca_fills,
        (tca.__name__, tca_inputs.__name__),
        (Input(FILLS), Input(QUOTES, is_optional=True)),
        so_far=open_tca.fills_so_far,
    ),
    Recipe(
        TcaOrder.table,
        _tca_orders,
        (tca.__name__, tca_inputs.__name__),
        (
            Input(ORDERS, lookback_sessions=1),
            Input(FILLS, is_optional=True),
            Input(DECISIONS, lookback_sessions=1, is_optional=True),
            Input(TRADES, is_optional=True),
            Input(QUOTES, lookback_sessions=tca.LOOKBACK_SESSIONS, is_optional=True),
        ),
        archived=_ahead,
        so_far=open_tca.orders_so_far,
    ),
    Recipe(
        OrderQuality.table,
        _quality,
        (quality_score.__name__, execution_quality.__name__, tca.__name__),
        (
            Input(TcaOrder.table, lookback_sessions=REFERENCE_SESSIONS),
            Input(TcaFill.table, is_optional=True),
            Input(ORDERS, lookback_sessions=1),
        ),
        parameters=section_of("execution_quality"),
    ),
    Recipe(
        Impact.table,
        _impact,
        (impact.__name__, tca_inputs.__name__),
        (
            Input(TcaOrder.table),
            Input(QUOTES, is_optional=True),
            Input(MINUTES, lookback_sessions=REFERENCE_SESSIONS, is_optional=True),
        ),
        parameters=section_of("impact"),
    ),
    Recipe(
        ImpactFit.table,
        _impact_fit,
        (impact.__name__, scorecards.__name__),
        (_every(Impact.table),),
        parameters=section_of("impact"),
        is_cross_symbol=True,
    ),
    Recipe(
        QualityTrend.table,
        _quality_trend,
        (quality_score.__name__,),
        (_every(OrderQuality.table),),
        parameters=section_of("execution_quality"),
        is_cross_symbol=True,
    ),
    Recipe(
        VenueScorecard.table,
        _venue_scorecard,
        (scorecards.__name__, tca.__name__),
        (_every(TcaFill.table), _every(TcaOrder.table), _every(ORDERS)),
        parameters=section_of("scorecards"),
        is_cross_symbol=True,
    ),
    Recipe(
        AlgoScorecard.table,
        _algo_scorecard,
        (scorecards.__name__,),
        (_every(TcaOrder.table), _every(OrderQuality.table)),
        parameters=section_of("scorecards"),
        is_cross_symbol=True,
    ),
)
