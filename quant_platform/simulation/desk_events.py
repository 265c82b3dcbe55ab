"""What the systems around a simulated desk tell of its symbol-day: sizing, impact, limits, settlement, sentiment.

All of it follows from what the desk decided and did, or from the hidden price, and from the seed. The laws:

- every decision is sized for its symbol's usual volatility, out of one account;
- the impact model is the one whose cost the decision carries, with an interval for half an hour's diffusion;
- a warning is told where a decision leaves more than `_WARNED` of the risk limit used, a breach above all of it;
- fills of venues whose fees are not in quote currency settle bilaterally, hours later; few fail at first;
- each hour texts are read: their tone sees the next hour's hidden return as far as its skill goes.
"""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from quant_platform.contracts._schema import INSTANT, Contract, polars_schema
from quant_platform.contracts.events import (
    SCHEMA_VERSION,
    MarketImpactAssessment,
    NewsSentimentAnalyzed,
    PositionSized,
    RiskAction,
    RiskLimit,
    RiskViolation,
    SettlementStatus,
    Severity,
    SizingMethod,
    TradeSettled,
)
from quant_platform.simulation.desk_session import DeskSession

_NS = 1_000_000_000
_HOUR_S = 3_600
_CAPITAL = 50_000_000.0
_WARNED = 0.8
_Z_80 = 1.2816  # of the normal distribution: 80 % lie within so many deviations
_ORDER_S = 1_800
_SETTLED_AFTER_S = (1_800, 4 * _HOUR_S)
_FAILED_SHARE = 0.02
_TONES = {"news": (0.25, 6.0), "social": (0.05, 40.0), "analyst": (0.10, 0.4)}
"""How far a tone sees the next hour's return, and how many texts an hour has."""
_DIGITS = 4


class DeskEvents(NamedTuple):
    """A symbol-day's events, each by its contract."""

    trade_settled: pl.DataFrame
    risk_violation: pl.DataFrame
    position_sized: pl.DataFrame
    market_impact_assessment: pl.DataFrame
    news_sentiment_analyzed: pl.DataFrame


def events_of(session: DeskSession, decisions: pl.DataFrame, fills: pl.DataFrame) -> DeskEvents:
    """Return what was told of a symbol-day.

    Args:
        session: The desk's plan, and what it is made from.
        decisions: Contract `Decision`: the desk's of the date.
        fills: Contract `Fill`: the desk's, all revisions.
    """
    return DeskEvents(
        _settled(session, fills),
        _violations(session, decisions),
        _sized(session, decisions),
        _assessed(session, decisions),
        _read(session),
    )


def _settled(session: DeskSession, fills: pl.DataFrame) -> pl.DataFrame:
    bilateral = [venue.name for venue in session.desk.venues if venue.fee_currency]
    own = fills.filter(pl.col("revision") == pl.col("revision").max().over("fill_id"), pl.col("venue").is_in(bilateral))
    rng = session.stream("settlements")
    after = pl.Series(rng.integers(*_SETTLED_AFTER_S, own.height) * _NS).cast(pl.Duration("ns"))
    failed = pl.Series(rng.random(own.height) < _FAILED_SHARE)
    rows = own.with_columns(after=after, failed=failed, fill_ts="ts_event", side=pl.col("side").cast(pl.Float64))
    # All is told of the fill's date: what settles after midnight is pending at its end.
    ends = pl.lit(session.day).cast(INSTANT) + pl.duration(days=1)
    late = pl.col("fill_ts") + pl.col("after") >= ends
    status = (
        pl.when("failed")
        .then(pl.lit(SettlementStatus.FAILED))
        .when(late)
        .then(pl.lit(SettlementStatus.PENDING))
        .otherwise(pl.lit(SettlementStatus.SETTLED))
    )
    rows = rows.with_columns(
        settlement_status=status,
        ts_event=pl.when(late).then(ends - pl.duration(seconds=1)).otherwise(pl.col("fill_ts") + pl.col("after")),
    )
    return _events(
        session,
        TradeSettled,
        rows,
        "S",
        ts_recv=pl.col("ts_event") + pl.duration(milliseconds=100),
        settlement_date=(pl.col("fill_ts") + pl.col("after")).dt.date(),
        cash_amount=pl.when(pl.col("settlement_status") == SettlementStatus.SETTLED).then(
            -pl.col("side") * pl.col("price") * pl.col("quantity")
        ),
        settlement_fee=0.0,
        counterparty="venue",
        failure_reason=pl.when("failed").then(pl.lit("instruction not matched")),
    )


def _violations(session: DeskSession, decisions: pl.DataFrame) -> pl.DataFrame:
    used = pl.col("risk_limit_used")
    is_breach = used > 1
    return _events(
        session,
        RiskViolation,
        decisions.filter(used > _WARNED),
        "R",
        limit_name="symbol position",
        limit_kind=RiskLimit.POSITION,
        severity=pl.when(is_breach).then(pl.lit(Severity.BREACH)).otherwise(pl.lit(Severity.WARNING)),
        limit_value=1.0,
        observed_value=used,
        limit_unit="1",
        risk_action=pl.when(is_breach).then(pl.lit(RiskAction.ALERTED)).otherwise(pl.lit(RiskAction.LOGGED)),
    )


def _sized(session: DeskSession, decisions: pl.DataFrame) -> pl.DataFrame:
    notional = pl.col("quantity") * pl.col("price")
    volatility_bps = session.scale.daily_volatility * 1e4
    return _events(
        session,
        PositionSized,
        decisions,
        "P",
        sizing_method=SizingMethod.VOLATILITY_TARGET,
        sized_quantity="quantity",
        sized_notional=notional.round(2),
        capital_fraction=(notional / _CAPITAL).round(8),
        daily_volatility_bps=volatility_bps,
        risk_budget_bps=(notional / _CAPITAL * volatility_bps).round(_DIGITS),
    )


def _assessed(session: DeskSession, decisions: pl.DataFrame) -> pl.DataFrame:
    scale = session.scale
    # The average price of an order worked evenly over T strays from arrival by σ·sqrt(T / 3).
    wide = _Z_80 * scale.daily_volatility * 1e4 * np.sqrt(_ORDER_S / 86_400 / 3)
    daily = scale.daily_lots * session.instrument.lot_size
    cost = pl.col("expected_cost_bps")
    return _events(
        session,
        MarketImpactAssessment,
        decisions,
        "M",
        model_id="cost_model_id",
        impact_cost_bps=cost,
        cost_low_bps=(cost - wide).round(_DIGITS),
        cost_high_bps=(cost + wide).round(_DIGITS),
        interval_probability=0.8,
        participation_rate=(pl.col("quantity") / daily).clip(upper_bound=1).round(8),
        daily_volume=round(daily, _DIGITS),
        daily_volatility_bps=scale.daily_volatility * 1e4,
    )


def _read(session: DeskSession) -> pl.DataFrame:
    rng, latent = session.stream("sentiment"), session.latent
    hours = np.arange(1, 24)
    start = hours * _HOUR_S
    moves = latent.log_price[start + _HOUR_S] - latent.log_price[start]
    ahead = moves / (latent.volatility[start] * np.sqrt(_HOUR_S))
    told: dict[str, Any] = {}
    for name, (skill, texts) in _TONES.items():
        count = rng.poisson(texts, len(hours))
        seen = skill * ahead + np.sqrt(1 - skill**2) * rng.standard_normal(len(hours))
        told[f"{name}_count"] = count
        told[f"{name}_sentiment"] = np.where(count > 0, np.round(np.tanh(seen / 2), _DIGITS), np.nan)
    midnight = int(pl.Series([session.day]).cast(INSTANT).to_physical()[0])
    at = pl.Series(midnight + start * _NS).cast(INSTANT)
    rows = pl.DataFrame({"ts_event": at, **told}).with_columns(
        symbol=pl.lit(session.instrument.symbol), ts_recv=pl.col("ts_event") + pl.duration(milliseconds=40)
    )
    return _events(
        session,
        NewsSentimentAnalyzed,
        rows,
        "N",
        sentiment_confidence=0.6,
        model_id="lexicon-1",
        window_s=float(_HOUR_S),
    )


def _events(
    session: DeskSession, contract: type[Contract], rows: pl.DataFrame, letter: str, **columns: Any
) -> pl.DataFrame:
    """Return a contract's rows: `columns` as told, the others as `rows` have them; not a number stands for null.

    A text of `columns` is a column of `rows` where there is one of that name, else a word.
    """
    schema = polars_schema(contract)
    stem = f"{session.instrument.symbol}-{session.day:%Y%m%d}-{letter}"
    known: dict[str, Any] = {
        "event_id": pl.format("{}{}", pl.lit(stem), pl.int_range(pl.len()).cast(pl.String).str.zfill(6)),
        "schema_version": SCHEMA_VERSION,
        "revision": 0,
        "source": f"simulated {contract.table.rpartition('/')[2]}",
        **columns,
    }
    named = {
        name: pl.lit(value) if not isinstance(value, pl.Expr) and value not in rows.columns else value
        for name, value in known.items()
    }
    absent = [name for name in schema if name not in named and name not in rows.columns]
    full = rows.with_columns(**named, **dict.fromkeys(absent, pl.lit(None)))
    return full.select(schema.names()).cast(schema).fill_nan(None)
