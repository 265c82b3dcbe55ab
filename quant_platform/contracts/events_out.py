"""What the platform tells of the desk's trading, one table an event: `events/out/<name>`. What it is told: `events`.

Costs in bps and in money are positive when paid. Money is in quote currency; sums over symbols take them to be quoted
in one. How each is computed stands with `calculators.outcomes` and `calculators.attribution`.
"""

from enum import StrEnum
from typing import Any, ClassVar

from quant_platform.contracts._schema import Contract, count, day, flag, instant, real, sign, text


class OutcomeReason(StrEnum):
    """Why values of a decision's outcome are null. Each word says which."""

    NO_PRICE = "no_price"  # both returns, and the shortfall of its orders
    NO_HORIZON = "no_horizon"  # horizon_price and both returns
    DATA_END = "data_end"  # the same: the market's data do not reach the horizon
    NO_QUOTE = "no_quote"  # the same: no mid prevailed at the horizon
    NO_EXPECTED_COST = "no_expected_cost"  # excess_cost_bps
    NO_ORDER = "no_order"  # every realised cost
    NOTHING_FILLED = "nothing_filled"  # realised_cost_bps, excess_cost_bps, filled_return_bps
    NO_COST = "no_cost"  # realised_cost_bps of what was filled: no arrival mid, or the order is not sound or not done


def _bps(doc: str, **bounds: float) -> Any:  # a column; dataframely is known to _schema only
    return real(doc, unit="bps", nullable=True, **bounds)


def _money(doc: str, *, nullable: bool = False, **bounds: float) -> Any:
    return real(doc, unit="quote currency", nullable=nullable, **bounds)


def _price(doc: str) -> Any:
    return real(doc, unit="quote currency", nullable=True, min_exclusive=0)


def _decided(doc: str = "When it was decided.") -> Any:
    return instant(doc)


def _strategy() -> Any:
    return text("The strategy that decided; null where no decision is known.", nullable=True)


def _ended() -> Any:
    return instant("When the date ended, UTC.")


class ExecutionCostPrediction(Contract):
    """The cost that was expected of a decision when it was made, by its first revision, whatever came after."""

    table: ClassVar[str] = "events/out/execution_cost_prediction"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "decision_id")

    decision_id = text("The decision.")
    ts_event = _decided()
    symbol = text("The platform's unique name of the instrument.")
    strategy = text("The strategy that decided.")
    model_id = text("What gave the expected cost; null where it is not told.", nullable=True)
    side = sign("+1 buy, -1 sell.")
    quantity = real("How much was to be traded.", unit="base units", min_exclusive=0)
    price = _price("Price that the decision was made at; null where it is not told.")
    expected_cost_bps = real("Expected cost.", unit="bps")
    expected_cost = _money("The same in money: of quantity x price.", nullable=True)
    is_corrected = flag("Whether a later revision expects another cost, or names another model.")
    ts_known = instant("When the first revision was known here.")


class DecisionOutcomeAnalysis(Contract):
    """What became of a decision: its expected cost and return against what they were at its horizon."""

    table: ClassVar[str] = "events/out/decision_outcome_analysis"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "decision_id")

    decision_id = text("The decision.")
    ts_event = _decided()
    ts_horizon = instant("When its horizon ended; null where none is told.", nullable=True)
    symbol = text("The platform's unique name of the instrument.")
    strategy = text("The strategy that decided.")
    model_id = text("What gave the expected cost; null where it is not told.", nullable=True)
    side = sign("+1 buy, -1 sell.")
    quantity = real("How much was to be traded.", unit="base units", min_exclusive=0)
    price = _price("Price of the decision, D; null where it is not told.")
    order_count = count("How many parent orders name it.")
    filled_quantity = real("What they filled; null where one cannot be told.", unit="base units", nullable=True, min=0)
    avg_price = _price("Quantity-weighted price of that, P; null where nothing was filled.")
    expected_cost_bps = _bps("Cost that was first expected; positive = paid.")
    realised_cost_bps = _bps("Cost against arrival, by quantity filled at the arrival mid; positive = paid.")
    excess_cost_bps = _bps("Realised less expected; positive = worse than expected.")
    shortfall_bps = _bps("Implementation shortfall of its orders, by decided value; positive = paid.")
    horizon_price = _price("Last mid at or before ts_horizon, H.")
    expected_return_bps = _bps("Return that was first expected, before costs.")
    realised_return_bps = _bps("side x (H - D) ÷ D: the same, as it came.")
    return_error_bps = _bps("Realised less expected return; positive = better than expected.")
    filled_return_bps = _bps("side x (H - P) ÷ P: the return of what was filled, before fees.")
    is_corrected = flag("Whether the decision, an order or a fill is not as it was first told.")
    reasons = text("Why values are null: words of OutcomeReason, comma-separated; empty if none is.")
    ts_known = instant("Latest receipt of what it used, never before ts_horizon where a price of then was used.")


class PerformanceAttribution(Contract):
    """The waterfall from what was decided to what was got, in money, a row a strategy and symbol of a date.

    paper_pnl - delay_cost - trading_cost - opportunity_cost - fees = realised_pnl.
    """

    table: ClassVar[str] = "events/out/performance_attribution"
    sorted_by: ClassVar[tuple[str, ...]] = ("date", "strategy", "symbol")

    date = day("Trading date of the orders' arrival.")
    ts_event = _ended()
    strategy = _strategy()
    symbol = text("The platform's unique name of the instrument.")
    orders = count("Parent orders that the sums hold.")
    unknown_orders = count("Parent orders of which a part is not known; they are in no sum.")
    decided_notional = _money("Sum of quantity x decision price.", min=0)
    paper_pnl = _money("Profit had all been traded at the decision price, at once and for nothing.")
    delay_cost = _money("Lost from decision to arrival.")
    trading_cost = _money("Lost from arrival to the fills.")
    opportunity_cost = _money("Lost on what was not filled.")
    fees = _money("Fees; rebates are negative.")
    realised_pnl = _money("Profit of what was filled, after fees; from fills, not from the other parts.")
    residual = _money("paper_pnl less costs and fees less realised_pnl: rounding alone.")
    ts_known = instant("Latest ts_known of the orders.")


class StrategyPerformance(Contract):
    """How a strategy did on a date: what it traded, what it made, what that cost, how often it was right."""

    table: ClassVar[str] = "events/out/strategy_performance"
    sorted_by: ClassVar[tuple[str, ...]] = ("date", "strategy")

    date = day("Trading date of the orders' arrival and of the decisions.")
    ts_event = _ended()
    strategy = _strategy()
    orders = count("Parent orders.")
    fill_rate = real("Value filled ÷ value ordered, both at the arrival mid.", unit="1", nullable=True, min=0)
    notional = _money("Value filled.", min=0)
    pnl_orders = count("Orders whose profit is known.")
    paper_pnl = _money("Their profit had all been traded at the decision price; null without such.", nullable=True)
    realised_pnl = _money("Their profit after all costs; null without such.", nullable=True)
    arrival_cost_bps = _bps("Cost against arrival, by value filled; positive = paid.")
    shortfall_bps = _bps("(paper - realised profit) ÷ decided value of these orders; positive = paid.")
    excess_cost_bps = _bps("Mean cost against arrival less what was expected, each order alike; positive = worse.")
    decisions = count("Decisions.")
    judged_decisions = count("Decisions whose return at their horizon is known.")
    hit_rate = real("Share of these whose return was above 0.", unit="1", nullable=True, min=0, max=1)
    ts_known = instant("Latest ts_known of what it used.")


class TcaReport(Contract):
    """What the daily TCA report of a date said: where it is, and its headline's numbers."""

    table: ClassVar[str] = "events/out/tca_report"
    sorted_by: ClassVar[tuple[str, ...]] = ("date",)

    date = day("Trading date.")
    ts_event = _ended()
    path = text("The page, relative to QP_HOME.")
    orders = count("Parent orders that arrived.")
    fills = count("Fills.")
    notional = _money("Value filled; null where it is not known.", nullable=True)
    arrival_cost_bps = _bps("Mean cost against arrival, by value; positive = paid.")
    arrival_cost_low_bps = _bps("Low end of its interval.")
    arrival_cost_high_bps = _bps("High end of its interval.")
    arrival_paid = _money("The same in money.", nullable=True)
    vwap_cost_bps = _bps("Mean cost against the interval's VWAP, by value; positive = paid.")
    excess_cost_bps = _bps("Mean cost beyond what was expected, by value; positive = worse.")
    shortfall_bps = _bps("Mean implementation shortfall, by decided value; positive = paid.")
    largest_part = text("The largest of the shortfall's parts; null without a shortfall.", nullable=True)
    largest_part_bps = _bps("What it is.")
    revised_orders = count("Orders that are not as they were first told.")
    ts_known = instant("Latest ts_known of the orders and fills that it shows.")


class ModelPerformanceFeedback(Contract):
    """How right a model of costs was, over the decisions of a date whose cost is known."""

    table: ClassVar[str] = "events/out/model_performance_feedback"
    sorted_by: ClassVar[tuple[str, ...]] = ("date", "model_id")

    date = day("Trading date of the decisions.")
    ts_event = _ended()
    model_id = text("The model.")
    predictions = count("Decisions whose cost it predicted.")
    scored = count("Of these, those whose realised cost is known.")
    mean_expected_cost_bps = _bps("Mean prediction of those scored.")
    mean_realised_cost_bps = _bps("Mean realised cost of those scored.")
    bias_bps = _bps("Realised less predicted, mean; positive = it was too cheap.")
    mean_absolute_error_bps = _bps("Mean distance of realised from predicted.", min=0)
    intervals = count("Of those scored, those for which the model gave an interval.")
    inside_share = real("Share of these whose cost lay inside it.", unit="1", nullable=True, min=0, max=1)
    interval_probability = real(
        "Share that was to lie inside, mean; null where it is not told.", unit="1", nullable=True, min=0, max=1
    )
    ts_known = instant("Latest ts_known of what it used.")
