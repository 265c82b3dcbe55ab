"""Recipes of `events/*` that follow from other tables: executions and decisions as events, and what the platform tells.

Events that come as files are `desk`'s. Most tables here belong to no symbol: a unit reads the files of all of them.
"""

import hashlib
import json

import polars as pl

from quant_platform.calculators import attribution, events, outcomes
from quant_platform.contracts._schema import INSTANT, contract_of, empty, polars_schema
from quant_platform.contracts.events import MarketImpactAssessment, TradeExecuted, TradingDecision
from quant_platform.contracts.events_out import (
    DecisionOutcomeAnalysis,
    ExecutionCostPrediction,
    ModelPerformanceFeedback,
    PerformanceAttribution,
    StrategyPerformance,
    TcaReport,
)
from quant_platform.contracts.execution import Decision, Fill, Order, TcaOrder
from quant_platform.pipeline.sessions import later_session, session
from quant_platform.pipeline.units import Built, Input, Recipe, Source, Unit, Work, outcome_on_disk, usable_hash
from quant_platform.reports.tca_day import headline_path

QUOTES = "market/quotes"
CHECK = "unreconciled"
"""The fact of an `events/out/performance_attribution` file that its check reads: waterfalls that do not add up."""

_FAR_S = 30 * 86_400  # no more than one session ahead is read
_TOUCH = ("symbol", "ts_event", "ts_recv", "sequence", "bid_price", "bid_size", "ask_price", "ask_size")


def _of_all(work: Work, table: str, *, with_earlier: bool = False) -> pl.DataFrame:
    """Return the rows of every symbol of the unit's date, and of the lookback sessions."""
    wanted = (unit for unit in work.readable(table) if with_earlier or unit.date == work.unit.date)
    frames = [work.lake.scan(t, [s], d, d) for t, s, d in wanted]
    return (
        pl.concat(frames or [empty(contract_of(table)).lazy()])
        .collect()
        .select(polars_schema(contract_of(table)).names())
    )


def _trade_executed(work: Work) -> Built:
    orders = _of_all(work, Order.table, with_earlier=True)
    return Built(events.trade_executed(_of_all(work, Fill.table), orders))


def _trading_decision(work: Work) -> Built:
    return Built(events.trading_decision(_of_all(work, Decision.table)))


def _cost_predictions(work: Work) -> Built:
    return Built(outcomes.cost_predictions(_of_all(work, Decision.table)))


def _later_units(work: Work) -> list[Unit]:
    """Return what is read of the next session: quotes where a horizon ends there, orders where a decision has none."""
    if work.session is None or not work.readable(Decision.table):
        return []
    rows = work.today(Decision.table).select("decision_id", "ts_event", "horizon_s").collect()
    held = pl.duration(seconds=pl.col("horizon_s").clip(upper_bound=_FAR_S).ceil())
    ends = rows.select((pl.col("ts_event") + held).max()).item()
    ordered = work.today(TcaOrder.table).select("decision_id").collect()
    tables = [QUOTES] if ends is not None and ends > work.session.end else []
    tables += [] if rows["decision_id"].is_in(ordered["decision_id"].implode()).all() else [TcaOrder.table]
    date = later_session(work.calendar, work.unit.date)
    units = [Unit(table, work.unit.symbol, date) for table in tables]
    return [unit for unit in units if usable_hash(outcome_on_disk(work.lake, unit))]


def _later(work: Work) -> list[tuple[str, str | None]]:
    """Return what a unit reads of the next session, which then is part of its key."""
    return [(str(unit), work.content_hash(unit)) for unit in _later_units(work)]


def _decision_outcomes(work: Work) -> Built:
    later = _later_units(work)

    def told(table: str) -> pl.LazyFrame:
        ahead = (work.lake.scan(table, [unit.symbol], unit.date, unit.date) for unit in later if unit.table == table)
        return pl.concat([work.today(table), *ahead])

    reached = [session(work.calendar, unit.date) for unit in later if unit.table == QUOTES] or [work.session]
    end = max(window.end for window in reached if window)
    return Built(
        outcomes.decision_outcomes(
            work.today(Decision.table).collect(),
            told(TcaOrder.table).collect(),
            quotes=told(QUOTES).select(_TOUCH).collect().rechunk(),
            ends=pl.DataFrame({"symbol": [work.unit.symbol], "data_end": pl.Series([end]).cast(INSTANT)}),
        )
    )


def _performance_attribution(work: Work) -> Built:
    rows = attribution.performance_attribution(_of_all(work, TcaOrder.table), work.unit.date)
    return Built(rows, facts={CHECK: str(attribution.unreconciled(rows))})


def _strategy_performance(work: Work) -> Built:
    orders, decided = _of_all(work, TcaOrder.table), _of_all(work, DecisionOutcomeAnalysis.table)
    return Built(attribution.strategy_performance(orders, decided, work.unit.date))


def _model_feedback(work: Work) -> Built:
    predictions, assessments = (
        work.today(table).collect() for table in (ExecutionCostPrediction.table, MarketImpactAssessment.table)
    )
    decided = _of_all(work, DecisionOutcomeAnalysis.table)
    return Built(outcomes.model_feedback(predictions, decided, assessments, work.unit.date))


def _reported(work: Work) -> Source | None:
    path = headline_path(work.settings.reports, work.unit.date)
    if not path.is_file():
        return None
    content = path.read_bytes()
    return Source(path.name, hashlib.sha256(content).hexdigest(), content)


def _tca_report(work: Work) -> Built:
    assert work.source is not None  # a unit with no source is absent and never built
    told = json.loads(work.source.handle)
    page = work.settings.reports.relative_to(work.settings.home) / told.pop("page")
    schema = polars_schema(TcaReport)
    rows = pl.DataFrame([told]).with_columns(
        path=pl.lit(page.as_posix()), date=pl.lit(work.unit.date), ts_event=outcomes.date_end(work.unit.date)
    )
    return Built(rows.cast(schema).select(schema.names()))


def _every(table: str, lookback_sessions: int = 0, *, is_optional: bool = False) -> Input:
    return Input(table, lookback_sessions=lookback_sessions, is_optional=is_optional, is_each_symbol=True)


EVENTS = (
    Recipe(
        TradeExecuted.table,
        _trade_executed,
        (events.__name__,),
        (_every(Fill.table), _every(Order.table, events.LOOKBACK_SESSIONS, is_optional=True)),
        is_cross_symbol=True,
    ),
    Recipe(
        TradingDecision.table, _trading_decision, (events.__name__,), (_every(Decision.table),), is_cross_symbol=True
    ),
    Recipe(
        ExecutionCostPrediction.table,
        _cost_predictions,
        (outcomes.__name__,),
        (_every(Decision.table),),
        is_cross_symbol=True,
    ),
    Recipe(
        DecisionOutcomeAnalysis.table,
        _decision_outcomes,
        (outcomes.__name__,),
        (Input(Decision.table), Input(TcaOrder.table, is_optional=True), Input(QUOTES, is_optional=True)),
        archived=_later,
    ),
    Recipe(
        PerformanceAttribution.table,
        _performance_attribution,
        (attribution.__name__,),
        (_every(TcaOrder.table),),
        is_cross_symbol=True,
    ),
    Recipe(
        StrategyPerformance.table,
        _strategy_performance,
        (attribution.__name__,),
        (_every(TcaOrder.table, is_optional=True), _every(DecisionOutcomeAnalysis.table, is_optional=True)),
        is_cross_symbol=True,
    ),
    Recipe(
        ModelPerformanceFeedback.table,
        _model_feedback,
        (outcomes.__name__,),
        (
            Input(ExecutionCostPrediction.table),
            _every(DecisionOutcomeAnalysis.table, is_optional=True),
            Input(MarketImpactAssessment.table, is_optional=True),
        ),
        is_cross_symbol=True,
    ),
    Recipe(TcaReport.table, _tca_report, (outcomes.__name__,), fetch=_reported, is_cross_symbol=True),
)
