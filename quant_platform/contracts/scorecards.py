"""How well orders were executed: quality and impact an order, scorecards of venues, algos, brokers and strategies.

Orders and fills themselves, and what they cost against benchmarks, live with execution.
"""

from enum import StrEnum
from typing import ClassVar

from quant_platform.contracts._schema import Contract, choice, count, day, flag, instant, real, text
from quant_platform.contracts.enums import Status


class Period(StrEnum):
    """How long a scorecard looks: a trading date, the week from its Monday, the month from its first."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Dimension(StrEnum):
    """What the cells of a scorecard of orders are told apart by."""

    ALGO = "algo"
    BROKER = "broker"
    STRATEGY = "strategy"


class ImpactMeasure(StrEnum):
    """Which part of an order's impact is fitted: all of it, what goes back after the order, what stays."""

    TOTAL = "total"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


class OrderQuality(Contract):
    """How well an order was executed, as one score and the parts that it is made of.

    A part is in [0, 1], higher is better, and null where it cannot be told; its weight then drops out of the score.
    """

    table: ClassVar[str] = "execution/quality"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "order_id")

    ts_event = instant("When the order reached the desk.")
    order_id = text("The order's id.")
    symbol = text("The platform's unique name of the instrument.")
    strategy = text("Strategy; null where the order does not say.", nullable=True)
    algo = text("Execution algo; null where the order does not say.", nullable=True)
    broker = text("Broker; null where the order does not say.", nullable=True)
    quantity = real("Ordered; null where it is no number above 0.", unit="base units", nullable=True, min_exclusive=0)
    filled_quantity = real("Filled; null where it is not known.", unit="base units", nullable=True, min=0)
    fill_rate = real("Filled ÷ ordered, above 1 if overfilled.", unit="1", nullable=True, min=0)
    is_filled = flag("Whether all of it was filled.", nullable=True)
    duration_s = real(
        "From the desk to its last fill if it was filled, else to its end; null while it is open.",
        unit="s",
        nullable=True,
        min=0,
    )
    arrival_cost_bps = real("Cost against the mid at arrival.", unit="bps", nullable=True)
    cost_z = real("(cost - mean) ÷ std of the symbol's earlier orders.", unit="1", nullable=True)
    quoted_spread_bps = real("Of its fills, by notional.", unit="bps", nullable=True)
    effective_spread_bps = real("Of its fills, by notional.", unit="bps", nullable=True)
    realised_spread_5s_bps = real("Of its fills, by notional.", unit="bps", nullable=True)
    markout_5s_bps = real("Of its fills, by notional; positive = moved our way.", unit="bps", nullable=True)
    markout_5m_bps = real("Of its fills, by notional; positive = moved our way.", unit="bps", nullable=True)
    e_over_q = real("Effective ÷ quoted spread, the ratio of the means.", unit="1", nullable=True)
    price_improvement_bps = real("Amount saved to the far touch ÷ notional.", unit="bps", nullable=True)
    cost_score = real("Φ(-cost_z).", unit="1", nullable=True, min=0, max=1)
    fill_rate_score = real("The fill rate; null if overfilled.", unit="1", nullable=True, min=0, max=1)
    e_over_q_score = real("Φ(1 - E/Q): 0.5 pays the quote.", unit="1", nullable=True, min=0, max=1)
    markout_score = real("Φ(markout after 5 s ÷ quoted spread).", unit="1", nullable=True, min=0, max=1)
    time_to_fill_score = real(
        "2^(-time to fill ÷ the median of the symbol's earlier orders).", unit="1", nullable=True, min=0, max=1
    )
    score = real("Mean of the parts by their weights.", unit="1", nullable=True, min=0, max=1)
    score_weight = real("Share of the weights whose part is known.", unit="1", nullable=True, min=0, max=1)
    status = choice("Why `score` is null.", Status)
    ts_known = instant("Latest known time of the order and of its fills.")


class QualityTrend(Contract):
    """How the mean score of a day's orders has moved over the last days, by strategy and by algo."""

    table: ClassVar[str] = "execution/quality_trend"
    sorted_by: ClassVar[tuple[str, ...]] = ("date", "dimension", "member")

    date = day("Trading date, the last of the days.")
    dimension = choice("Whose orders: those of an algo or of a strategy.", Dimension)
    member = text("The algo or strategy; null where orders do not say.", nullable=True)
    days = count("Days with a score.")
    score = real("Mean of the days' mean scores, each day one vote.", unit="1", nullable=True, min=0, max=1)
    slope_per_day = real("Of the least-squares line through them; positive = better.", unit="1/day", nullable=True)
    slope_low = real("Low end of its interval.", unit="1/day", nullable=True)
    slope_high = real("High end of its interval.", unit="1/day", nullable=True)
    status = choice("Why values are null: `too_few` days.", Status)
    ts_known = instant("Latest known time of the scores.")


class Impact(Contract):
    """What an order did to the price, against the mid well after it.

    `temporary_bps` and `permanent_bps` add up to `total_bps`.
    """

    table: ClassVar[str] = "execution/impact"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "order_id")

    ts_event = instant("When the order reached the desk.")
    order_id = text("The order's id.")
    symbol = text("The platform's unique name of the instrument.")
    ts_settled = instant("When the mid after the order is read; null while it is open.", nullable=True)
    filled_quantity = real("Filled; null where it is no number above 0.", unit="base units", nullable=True)
    participation = real("Filled ÷ mean daily volume.", unit="1", nullable=True, min_exclusive=0)
    sigma_daily_bps = real("Daily volatility; null where it is not known, or 0.", unit="bps", nullable=True)
    total_bps = real("s·(P - A)/A: cost against the mid at arrival.", unit="bps", nullable=True)
    temporary_bps = real("s·(P - M)/A: what had gone back when the mid M was read.", unit="bps", nullable=True)
    permanent_bps = real("s·(M - A)/A: what stayed.", unit="bps", nullable=True)
    baseline_bps = real("Y·σ·√(participation).", unit="bps", nullable=True, min=0)
    status = choice("Why `temporary_bps` and `permanent_bps` are null.", Status)
    baseline_status = choice("Why `baseline_bps` is null.", Status)
    ts_known = instant("Latest known time of the order, and not before the mid after it.")


class ImpactFit(Contract):
    """The power law Y·σ·(Q/V)^exponent fitted to the impact of the month's orders so far.

    Intervals are symmetric, from errors clustered by day. Values are null where the status is not `ok`.
    """

    table: ClassVar[str] = "execution/impact_fit"
    sorted_by: ClassVar[tuple[str, ...]] = ("date", "symbol", "measure")

    date = day("Trading date, the last whose orders are in it.")
    symbol = text("The instrument whose orders are fitted; null for those of all.", nullable=True)
    measure = choice("What is fitted.", ImpactMeasure)
    orders = count("Orders fitted.")
    days = count("Their days.")
    y = real("The law's factor.", unit="1", nullable=True)
    y_low = real("Lower end of its interval.", unit="1", nullable=True)
    y_high = real("Upper end of its interval.", unit="1", nullable=True)
    exponent = real("The law's exponent.", unit="1", nullable=True)
    exponent_low = real("Lower end of its interval.", unit="1", nullable=True)
    exponent_high = real("Upper end of its interval.", unit="1", nullable=True)
    square_root_y = real(
        "Best factor at the exponent 1/2; also where no exponent can be told.", unit="1", nullable=True
    )
    skill = real(
        "1 - squared error ÷ that of the square-root law on the last days, both fitted on the days before them.",
        unit="1",
        nullable=True,
        max=1,
    )
    skill_orders = count("Orders of those last days.")
    status = choice("Why the fit is null.", Status)
    skill_status = choice("Why `skill` is null.", Status)
    ts_known = instant("Latest known time of the orders.")


class _Cell(Contract):
    """What every scorecard says of a cell."""

    period = choice("How long the cell looks.", Period)
    period_start = day("First day of the period.")
    orders = count("Orders in the cell.")
    symbols = count("Their symbols.")
    days = count("Their trading dates.")
    notional = real("What was filled; null where no price is known.", unit="quote currency", nullable=True, min=0)
    notional_share = real("Of all cells of the period.", unit="1", nullable=True, min=0, max=1)
    arrival_cost_bps = real("Cost against the mid at arrival, by notional.", unit="bps", nullable=True)
    quoted_spread_bps = real("By notional.", unit="bps", nullable=True)
    effective_spread_bps = real("By notional.", unit="bps", nullable=True)
    realised_spread_5s_bps = real("By notional.", unit="bps", nullable=True)
    markout_5s_bps = real("By notional; positive = moved our way.", unit="bps", nullable=True)
    markout_5m_bps = real("By notional; positive = moved our way.", unit="bps", nullable=True)
    e_over_q = real("Effective ÷ quoted spread, the ratio of the means.", unit="1", nullable=True)
    price_improvement_bps = real("Amount saved to the far touch ÷ notional.", unit="bps", nullable=True)
    excess_orders = count("Orders whose cost and expected cost are both known.")
    excess_cost_bps = real("Mean of cost - expected cost, an order one vote.", unit="bps", nullable=True)
    excess_std_error_bps = real("Standard error, clustered by day and symbol.", unit="bps", nullable=True, min=0)
    excess_t = real("Mean ÷ standard error.", unit="1", nullable=True)
    excess_degrees = count("Degrees of freedom of t.", nullable=True)
    excess_low_bps = real("Lower end of the bootstrap interval, by day.", unit="bps", nullable=True)
    excess_high_bps = real("Upper end of the bootstrap interval, by day.", unit="bps", nullable=True)
    p_value = real("Two-sided.", unit="1", nullable=True, min=0, max=1)
    q_value = real("Least false-discovery rate at which the cell counts.", unit="1", nullable=True, min=0, max=1)
    is_discovery = flag("Whether it counts at the wanted rate; null where `q_value` is.", nullable=True)
    status = choice("Why means are null: `too_few` orders.", Status)
    excess_status = choice("Why `excess_cost_bps` is null.", Status)
    inference_status = choice("Why t, interval and p are null.", Status)
    ts_known = instant("Latest known time of what is in the cell.")


class _Member(Contract):
    """Whose orders a cell holds."""

    dimension = choice("What the cells are told apart by.", Dimension)
    member = text("The algo, broker or strategy; null where orders do not say.", nullable=True)


class _Venue(Contract):
    """Where the fills of a cell were executed."""

    venue = text("The venue; null where fills do not say.", nullable=True)


class AlgoScorecard(_Member, _Cell):
    """What orders cost by algo, broker and strategy, a day, a week and a month.

    Counts, notional and its share always stand. All else is null, `too_few`, below the least number of orders.
    """

    table: ClassVar[str] = "execution/algo_scorecard"
    sorted_by: ClassVar[tuple[str, ...]] = ("dimension", "period", "period_start", "member")

    fill_rate = real("Filled ÷ ordered, by notional.", unit="1", nullable=True, min=0)
    fill_rate_orders = real("Share of orders that were filled whole.", unit="1", nullable=True, min=0, max=1)
    any_fill_orders = real("Share of orders with any fill.", unit="1", nullable=True, min=0, max=1)
    quality_score = real("Mean score of its orders.", unit="1", nullable=True, min=0, max=1)


class VenueScorecard(_Venue, _Cell):
    """What fills cost by venue, a day, a week and a month.

    Counts, notional and its share always stand. All else is null, `too_few`, below the least number of orders.
    """

    table: ClassVar[str] = "execution/venue_scorecard"
    sorted_by: ClassVar[tuple[str, ...]] = ("period", "period_start", "venue")

    fills = count("Fills in the cell.")
    maker_share = real(
        "Notional that waited in the book ÷ that of fills which say whether they did.",
        unit="1",
        nullable=True,
        min=0,
        max=1,
    )
