"""What other systems tell the desk, one table an event: `events/in/<name>`. What the platform tells is in `events_out`.

Every event has an id, the version of its schema, a revision, its time, when it was known here, and who told it. A
correction is a new row of the same id with a higher `revision`. An event of a symbol that can also be of the whole
portfolio has a null symbol then, so these tables belong to no symbol.
"""

from enum import StrEnum
from typing import Any, ClassVar

import polars as pl

from quant_platform.contracts._schema import Contract, choice, count, day, identifier, instant, real, rule, sign, text

SCHEMA_VERSION = 1
"""The newest version of the events' schemas that is read here."""


class SettlementStatus(StrEnum):
    """How far a settlement has come."""

    PENDING = "pending"
    SETTLED = "settled"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RiskLimit(StrEnum):
    """What a limit bounds."""

    POSITION = "position"
    NOTIONAL = "notional"
    LOSS = "loss"
    LEVERAGE = "leverage"
    CONCENTRATION = "concentration"
    ORDER_RATE = "order_rate"
    VALUE_AT_RISK = "value_at_risk"


class Severity(StrEnum):
    """How bad a violation is."""

    WARNING = "warning"
    BREACH = "breach"
    CRITICAL = "critical"


class RiskAction(StrEnum):
    """What the risk system did about a violation."""

    LOGGED = "logged"
    ALERTED = "alerted"
    REDUCED = "reduced"
    BLOCKED = "blocked"


class SizingMethod(StrEnum):
    """How the size of a position was found."""

    FIXED = "fixed"
    EQUAL_WEIGHT = "equal_weight"
    VOLATILITY_TARGET = "volatility_target"
    RISK_PARITY = "risk_parity"
    KELLY = "kelly"


class RebalanceReason(StrEnum):
    """Why a portfolio is rebalanced."""

    SCHEDULED = "scheduled"
    DRIFT = "drift"
    SIGNAL = "signal"
    RISK = "risk"
    CASH_FLOW = "cash_flow"


class CorrelationMethod(StrEnum):
    """Which correlation it is."""

    PEARSON = "pearson"
    SPEARMAN = "spearman"
    KENDALL = "kendall"


def _symbol(*, nullable: bool = False) -> Any:  # a column; dataframely is known to _schema only
    of_all = "; null where it is of the whole portfolio or market" if nullable else ""
    return text(f"The platform's unique name of the instrument{of_all}.", nullable=nullable)


def _decision(*, nullable: bool = True) -> Any:
    return text(f"The decision that it is of{'; null where there is none' if nullable else ''}.", nullable=nullable)


def _order(*, nullable: bool = True) -> Any:
    return text(f"The order that it is of{'; null where there is none' if nullable else ''}.", nullable=nullable)


def _strategy() -> Any:
    return text("The strategy that it is of; null where it is of none, or of all.", nullable=True)


def _bps(doc: str, *, nullable: bool = True, **bounds: float) -> Any:
    return real(doc, unit="bps", nullable=nullable, **bounds)


def _share(doc: str, *, nullable: bool = True) -> Any:
    return real(doc, unit="1", nullable=nullable, min=0, max=1)


def _money(doc: str, *, nullable: bool = True, **bounds: float) -> Any:
    return real(doc, unit="quote currency", nullable=nullable, **bounds)


def _sentiment(of: str) -> Any:
    return real(
        f"Of {of}: -1 as bad as can be, +1 as good; null where none was read.", unit="1", nullable=True, min=-1, max=1
    )


class _Event(Contract):
    """What every event has."""

    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "event_id", "revision")

    event_id = text("The id of the event, of whoever tells it.")
    schema_version = identifier("Version of the schema that the teller wrote; 1 where it is not told.", min=1)
    revision = count("0 as first told; a correction has a higher one.")
    ts_event = instant("When it happened.")
    ts_recv = instant("When this revision was known here; the intake fills it where it is not told.")
    source = text("The system that told it; null where it is not told.", nullable=True)

    @rule()
    def schema_version_is_known(cls) -> pl.Expr:
        """Require a version of the schema that this platform reads."""
        return pl.col("schema_version") <= SCHEMA_VERSION


class TradeExecuted(_Event):
    """An execution, as an event: the figures are those of `execution/fills` under the same id and revision."""

    table: ClassVar[str] = "events/in/trade_executed"

    symbol = _symbol()
    decision_id = text("The decision behind its parent order; null where there is none.", nullable=True)
    order_id = text("The order that it fills; null where it is not known.", nullable=True)


class TradingDecision(_Event):
    """A decision, as an event: the figures are those of `execution/decisions` under the same id and revision."""

    table: ClassVar[str] = "events/in/trading_decision"

    symbol = _symbol()
    decision_id = _decision(nullable=False)


class TradeSettled(_Event):
    """A fill's exchange of cash for the instrument, or why it did not come about."""

    table: ClassVar[str] = "events/in/trade_settled"

    symbol = _symbol()
    decision_id = _decision()
    order_id = _order()
    fill_id = text("The fill that is settled.")
    settlement_status = choice("How far it has come.", SettlementStatus)
    settlement_date = day("The date on which it is due, or was settled.")
    quantity = real("Quantity delivered or due.", unit="base units", min_exclusive=0)
    cash_amount = _money("Cash received; negative = paid; null until it has settled.")
    settlement_fee = _money("What the settlement cost; null where it is not known.")
    counterparty = text("With whom it settles; null where it is not told.", nullable=True)
    failure_reason = text("Why it failed, or is late; null where it is neither.", nullable=True)

    @rule()
    def failure_has_a_reason(cls) -> pl.Expr:
        """Require a reason of what failed."""
        return (pl.col("settlement_status") != SettlementStatus.FAILED) | pl.col("failure_reason").is_not_null()


class ExecutionQuality(_Event):
    """What a broker or venue says of how well it executed an order; `execution/quality` is what we measure."""

    table: ClassVar[str] = "events/in/execution_quality"

    symbol = _symbol()
    decision_id = _decision()
    order_id = _order(nullable=False)
    broker = text("Who worked it; null where it is not told.", nullable=True)
    venue = text("Where it was executed; null for all venues together.", nullable=True)
    fill_rate = _share("Filled ÷ ordered.", nullable=False)
    arrival_cost_bps = _bps("Cost against the mid at arrival; positive = paid.")
    vwap_cost_bps = _bps("Cost against the interval's VWAP; positive = paid.")
    effective_spread_bps = _bps("Effective spread; positive = paid.")
    price_improvement_bps = _bps("Better than the far touch; positive = better.")
    time_to_fill_s = real("From arrival to the last fill.", unit="s", nullable=True, min=0)
    quality_score = _share("The teller's own score; 1 is best.")


class RiskViolation(_Event):
    """A limit that was crossed, or nearly."""

    table: ClassVar[str] = "events/in/risk_violation"

    symbol = _symbol(nullable=True)
    decision_id = _decision()
    order_id = _order()
    strategy = _strategy()
    limit_name = text("The risk system's name of the limit.")
    limit_kind = choice("What it bounds.", RiskLimit)
    severity = choice("How bad it is.", Severity)
    limit_value = real("The limit.", unit="limit_unit", min=0)
    observed_value = real("What was measured.", unit="limit_unit", min=0)
    limit_unit = text("Unit of both, such as USDT, bps, or 1 for a ratio.")
    risk_action = choice("What was done about it.", RiskAction)


class PositionSized(_Event):
    """How large a decision's position was to be, and why."""

    table: ClassVar[str] = "events/in/position_sized"

    symbol = _symbol()
    decision_id = _decision(nullable=False)
    strategy = _strategy()
    sizing_method = choice("How the size was found.", SizingMethod)
    side = sign("+1 buy, -1 sell.")
    sized_quantity = real("The size that was found.", unit="base units", min=0)
    sized_notional = _money("Its value at the decision's price; null where that is not told.", min=0)
    capital_fraction = real("Its value ÷ the strategy's capital.", unit="1", nullable=True, min=0)
    daily_volatility_bps = _bps("Volatility that it was sized for.", min=0)
    risk_budget_bps = _bps("Daily risk that it may take, of the strategy's capital.", min=0)

    @rule()
    def side_is_known(cls) -> pl.Expr:
        """Require a side: +1 buy or -1 sell."""
        return pl.col("side") != 0


class PortfolioPerformance(_Event):
    """How a portfolio did over an interval that ends with the event."""

    table: ClassVar[str] = "events/in/portfolio_performance"

    strategy = text("The strategy; null for the whole portfolio.", nullable=True)
    ts_start = instant("Start of the interval; it ends at ts_event.")
    net_asset_value = _money("Value at the end.", nullable=False, min_exclusive=0)
    gross_return_bps = _bps("Return before costs.", min=-10_000)
    net_return_bps = _bps("Return after costs.", nullable=False, min=-10_000)
    realised_pnl = _money("Profit of what was closed; null where it is not told.")
    unrealised_pnl = _money("Change in value of what is open; null where it is not told.")
    fees = _money("Fees and funding; positive = paid.")
    gross_exposure = _money("Sum of the sizes of all positions at the end.", min=0)
    net_exposure = _money("Longs less shorts at the end.")

    @rule()
    def ends_after_it_began(cls) -> pl.Expr:
        """Require that the interval does not end before its start."""
        return pl.col("ts_event") >= pl.col("ts_start")


class Rebalancing(_Event):
    """One instrument's part of a rebalancing."""

    table: ClassVar[str] = "events/in/rebalancing"

    symbol = _symbol()
    decision_id = _decision()
    order_id = _order()
    rebalance_id = text("The rebalancing; its instruments share it.")
    strategy = _strategy()
    rebalance_reason = choice("Why.", RebalanceReason)
    weight_before = real("Signed share of the portfolio's value; null where it is not told.", unit="1", nullable=True)
    weight_target = real("Signed share that it is to have.", unit="1")
    quantity_change = real("To trade; negative = to sell; null where it is not told.", unit="base units", nullable=True)
    expected_cost_bps = _bps("Cost expected of the trade; positive = paid.")


class NewsSentimentAnalyzed(_Event):
    """What texts said of a symbol or the market: news, social media and analysts apart."""

    table: ClassVar[str] = "events/in/news_sentiment_analyzed"

    symbol = _symbol(nullable=True)
    news_sentiment = _sentiment("news")
    social_sentiment = _sentiment("social media")
    analyst_sentiment = _sentiment("analysts")
    news_count = count("How many news items were read.")
    social_count = count("How many posts were read.")
    analyst_count = count("How many analysts' texts were read.")
    sentiment_confidence = _share("The model's probability that the signs are right.")
    model_id = text("What read them; null where it is not told.", nullable=True)
    window_s = real(
        "How far back the texts reach; null where it is not told.", unit="s", nullable=True, min_exclusive=0
    )

    @rule()
    def sentiment_is_of_texts(cls) -> pl.Expr:
        """Require texts behind each sentiment."""
        kinds = ("news", "social", "analyst")
        return pl.all_horizontal(pl.col(f"{k}_sentiment").is_null() | (pl.col(f"{k}_count") > 0) for k in kinds)


class MarketImpactAssessment(_Event):
    """What a model expects an order to cost through the market that it moves, with an interval where it gives one."""

    table: ClassVar[str] = "events/in/market_impact_assessment"

    symbol = _symbol()
    decision_id = _decision()
    order_id = _order()
    model_id = text("The model.")
    side = sign("+1 buy, -1 sell.")
    quantity = real("Quantity that was asked about.", unit="base units", min_exclusive=0)
    impact_cost_bps = _bps("Cost that is expected against arrival; positive = paid.", nullable=False)
    temporary_impact_bps = _bps("Part of it that goes back; null where it is not told.")
    permanent_impact_bps = _bps("Part of it that stays; null where it is not told.")
    cost_low_bps = _bps("Low end of the interval; null where none is given.")
    cost_high_bps = _bps("High end of the interval; null where none is given.")
    interval_probability = _share("Share of costs that are to lie inside; null without an interval.")
    participation_rate = _share("Share of the market's volume that was assumed.")
    daily_volume = real("Volume of a day that was assumed.", unit="base units", nullable=True, min_exclusive=0)
    daily_volatility_bps = _bps("Volatility that was assumed.", min=0)

    @rule()
    def side_is_known(cls) -> pl.Expr:
        """Require a side: +1 buy or -1 sell."""
        return pl.col("side") != 0

    @rule()
    def interval_is_whole(cls) -> pl.Expr:
        """Require both ends of an interval or neither, and the low one first."""
        low, high = pl.col("cost_low_bps"), pl.col("cost_high_bps")
        return (low.is_null() & high.is_null()) | (low <= high).fill_null(value=False)


class TechnicalIndicatorComputed(_Event):
    """One value of an indicator."""

    table: ClassVar[str] = "events/in/technical_indicator_computed"

    symbol = _symbol()
    indicator = text("Its name, such as rsi or macd.")
    parameters = text("What it was computed with, as the teller writes it; null where it is not told.", nullable=True)
    timeframe_s = real("Width of the bars that it is of.", unit="s", min_exclusive=0)
    indicator_value = real("Its value.", unit="the indicator's own")
    signal_strength = real(
        "What it says: -1 sell, +1 buy; null where it says nothing.", unit="1", nullable=True, min=-1, max=1
    )


class CorrelationMatrixUpdated(_Event):
    """One pair of a matrix of correlations; the rows of a matrix share `matrix_id`."""

    table: ClassVar[str] = "events/in/correlation_matrix_updated"

    symbol = _symbol()
    other_symbol = text("The other instrument, by the platform's name.")
    matrix_id = text("The matrix.")
    correlation_method = choice("Which correlation it is.", CorrelationMethod)
    correlation = real("Of returns.", unit="1", min=-1, max=1)
    window_s = real("How far back the returns reach.", unit="s", min_exclusive=0)
    sample_count = count("How many returns of each there are; null where it is not told.", nullable=True)

    @rule()
    def is_a_pair(cls) -> pl.Expr:
        """Require two instruments."""
        return pl.col("symbol") != pl.col("other_symbol")


TOLD_EVENTS: tuple[type[Contract], ...] = (
    TradeSettled,
    ExecutionQuality,
    RiskViolation,
    PositionSized,
    PortfolioPerformance,
    Rebalancing,
    NewsSentimentAnalyzed,
    MarketImpactAssessment,
    TechnicalIndicatorComputed,
    CorrelationMatrixUpdated,
)
"""Events that come as files of their own; executions and decisions come as `Fill` and `Decision`."""
EVENT_WORDS: dict[str, type[StrEnum]] = {
    "settlement_status": SettlementStatus,
    "limit_kind": RiskLimit,
    "severity": Severity,
    "risk_action": RiskAction,
    "sizing_method": SizingMethod,
    "rebalance_reason": RebalanceReason,
    "correlation_method": CorrelationMethod,
}
"""The words of the columns that have a closed vocabulary."""
