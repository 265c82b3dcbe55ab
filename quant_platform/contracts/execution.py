"""The desk's own tables: decisions, orders and fills as they come in, and what each order and fill has cost.

A correction is a new row of the same id with a higher `revision`. Scorecards over many orders live elsewhere.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

import polars as pl

from quant_platform.contracts._schema import Contract, choice, count, flag, instant, real, rule, sign, text

MARKOUT_HORIZONS_NS: Mapping[str, int] = {
    "50ms": 50_000_000,
    "1s": 1_000_000_000,
    "5s": 5_000_000_000,
    "15s": 15_000_000_000,
    "1m": 60_000_000_000,
    "5m": 300_000_000_000,
}
"""How long after a fill the mid is looked at, by the name that the columns carry."""

PARTICIPATION_RATES: Mapping[str, float] = {"05": 0.05, "10": 0.10, "20": 0.20, "30": 0.30}
"""Shares of the market's volume for participation-weighted prices, by the name that the columns carry."""


class OrderStatus(StrEnum):
    """How far an order has come."""

    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Liquidity(StrEnum):
    """Whether a fill waited in the book, crossed the spread, or came from an auction."""

    MAKER = "maker"
    TAKER = "taker"
    AUCTION = "auction"


class PriceBasis(StrEnum):
    """What a price was read from."""

    MID = "mid"
    TRADE = "trade"
    DESK = "desk"


class TcaStatus(StrEnum):
    """Why the values of a cost row are null; they are null unless the status is `ok` or `locked`."""

    OK = "ok"
    LOCKED = "locked"
    NOT_YET = "not_yet"  # of a fill: the session is not over, and its quotes do not reach the fill yet
    NO_DATA = "no_data"
    ONE_SIDED = "one_sided"
    CROSSED = "crossed"
    INVALID_INPUT = "invalid_input"
    UNFINISHED = "unfinished"


class TcaReason(StrEnum):
    """Why some of the values of an `ok` row are null. Each word says which."""

    NOTHING_FILLED = "nothing_filled"  # avg_price and every cost against a benchmark
    NO_DECISION = "no_decision"  # decision_cost_bps, the four parts and the shortfall
    NO_ARRIVAL = "no_arrival"  # arrival_cost_bps, delay_bps, trading_bps: no mid was known, or is known yet
    NO_CANCEL_PRICE = "no_cancel_price"  # opportunity_bps and the shortfall
    NO_FEE = "no_fee"  # fees_bps and the shortfall
    DATA_END = "data_end"  # VWAP and TWAP, and a mid at ts_done: the tape does not reach there yet
    ZERO_VOLUME = "zero_volume"  # vwap
    NO_PREVAILING = "no_prevailing"  # twap: no price was known at the start, or the interval has no length
    VOLUME_ENDS = "volume_ends"  # one or more pwp: the session closed first, or its tape ends
    NO_OPEN = "no_open"
    NO_CLOSE = "no_close"  # also where the session is not over
    NO_PREV_CLOSE = "no_prev_close"
    NOT_YET = "not_yet"  # the session is not over: what data_end, volume_ends, no_open and no_close say may still come


def _price(doc: str, *, nullable: bool = False) -> Any:  # a column; dataframely is known to _schema only
    return real(doc, unit="quote currency", nullable=nullable, min_exclusive=0)


def _bps(doc: str) -> Any:
    return real(doc, unit="bps", nullable=True)


def _cost(benchmark: str) -> Any:
    return _bps(f"avg_price against {benchmark}; positive = paid.")


class _DeskRow(Contract):
    """What decisions, orders and fills have in common."""

    @rule()
    def side_is_known(cls) -> pl.Expr:
        """Require a side: +1 buy or -1 sell."""
        return pl.col("side") != 0


class Decision(_DeskRow):
    """A strategy's decision to trade, as it was when it was made."""

    table: ClassVar[str] = "execution/decisions"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "decision_id", "revision")

    decision_id = text("The desk's id of the decision.")
    revision = count("0 as first told; a correction has a higher one.")
    ts_event = instant("When it was decided.")
    ts_recv = instant("When this revision was known here; the intake fills it where the desk does not tell.")
    strategy = text("The strategy that decided.")
    symbol = text("The platform's unique name of the instrument.")
    side = sign("+1 buy, -1 sell.")
    quantity = real("How much was to be traded.", unit="base units", min_exclusive=0)
    price = _price("Price that the decision was made at; null where it is not told.", nullable=True)
    expected_return_bps = _bps("Return that the strategy expected over its horizon, before costs.")
    expected_cost_bps = _bps("Cost that was expected; positive = paid. Frozen at the decision.")
    cost_model_id = text("What gave the expected cost; null where none was asked.", nullable=True)
    signal_strength = real("The strategy's own measure of its signal.", unit="1", nullable=True)
    confidence = real("The strategy's probability that it is right.", unit="1", nullable=True, min=0, max=1)
    horizon_s = real("How long the position was to be held.", unit="s", nullable=True, min_exclusive=0)
    risk_score = real("The risk system's score of the decision.", unit="1", nullable=True)
    risk_limit_used = real("Share of the risk limit in use with it; above 1 = broken.", unit="1", nullable=True, min=0)


class Order(_DeskRow):
    """An order, or a child of one."""

    table: ClassVar[str] = "execution/orders"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "order_id", "revision")

    order_id = text("The desk's id of the order.")
    parent_order_id = text("The order that it is a part of; null for a parent.", nullable=True)
    decision_id = text("The decision behind it; null where there is none.", nullable=True)
    revision = count("0 as first told; a correction has a higher one.")
    ts_event = instant("When it reached the desk; of a child, when it was sent.")
    ts_recv = instant("When this revision was known here; the intake fills it where the desk does not tell.")
    symbol = text("The platform's unique name of the instrument.")
    side = sign("+1 buy, -1 sell.")
    quantity = real("How much was ordered.", unit="base units", min_exclusive=0)
    algo = text("How it was worked; null where it is not told.", nullable=True)
    broker = text("Who worked it; null where it is not told.", nullable=True)
    limit_price = _price("Worst price allowed; null without a limit.", nullable=True)
    ts_done = instant("When nothing more of it could fill; null while it is open.", nullable=True)
    status = choice("How far it has come.", OrderStatus)
    cancel_price = _price("Price at which the unfilled rest was given up; null where it is not told.", nullable=True)

    @rule()
    def ends_after_it_began(cls) -> pl.Expr:
        """Require that an order is not done before it reaches the desk."""
        return pl.col("ts_done").is_null() | (pl.col("ts_done") >= pl.col("ts_event"))


class Fill(_DeskRow):
    """An execution."""

    table: ClassVar[str] = "execution/fills"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "fill_id", "revision")

    fill_id = text("The venue's or the broker's id of the execution.")
    order_id = text("The order that it fills; null where it is not known.", nullable=True)
    revision = count("0 as first told; a correction has a higher one.")
    ts_event = instant("When it was executed.")
    ts_recv = instant("When this revision was known here; the intake fills it where the desk does not tell.")
    symbol = text("The platform's unique name of the instrument.")
    side = sign("+1 bought, -1 sold.")
    price = _price("Price of the execution.")
    quantity = real("Quantity executed.", unit="base units", min_exclusive=0)
    venue = text("Where it was executed; null where it is not told.", nullable=True)
    fee = real("What it cost; a rebate is negative; null where it is not known.", unit="fee currency", nullable=True)
    fee_currency = text("What the fee is paid in; empty or null for the quote currency.", nullable=True)
    fee_rate = real(
        "Quote currency for one of the fee's currency at ts_event; null where it is the quote currency or not known.",
        unit="quote currency",
        nullable=True,
        min_exclusive=0,
    )
    liquidity = choice("Whether it waited, crossed, or came from an auction.", Liquidity, nullable=True)


class TcaOrder(Contract):
    """What one parent order has cost, with its children's fills.

    Costs are avg_price against a benchmark. The four parts are shares of the decided value (quantity x
    decision_price), and sum to the shortfall: paper profit less real profit. All figures in bps are null
    unless `status` is `ok`; `reasons` says why one is null in an `ok` row.
    """

    table: ClassVar[str] = "execution/tca_orders"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "order_id")
    is_revised: ClassVar[bool] = True

    order_id = text("The parent order.")
    decision_id = text("The decision behind it; null where there is none.", nullable=True)
    ts_event = instant("When it reached the desk: the arrival.")
    ts_done = instant("When nothing more of it could fill; null while it is open.", nullable=True)
    symbol = text("The platform's unique name of the instrument.")
    strategy = text("The strategy that decided; null without a decision.", nullable=True)
    algo = text("How it was worked.", nullable=True)
    broker = text("Who worked it.", nullable=True)
    side = sign("+1 buy, -1 sell.")
    quantity = real("How much was ordered; null where that is no quantity.", unit="base units", nullable=True)
    filled_quantity = real("Sum of its fills; null where one is no fill.", unit="base units", nullable=True, min=0)
    fill_count = count("How many fills it has.")
    avg_price = _price("Quantity-weighted price of its fills; null where nothing was filled.", nullable=True)
    ts_first_fill = instant("Its first fill; null where nothing was filled.", nullable=True)
    ts_last_fill = instant("Its last fill; null where nothing was filled.", nullable=True)
    fees = real(
        "Fees of its fills, converted at the rates stored with them; null where one is not known.",
        unit="quote currency",
        nullable=True,
    )
    expected_cost_bps = _bps("Cost that was expected at the decision; positive = paid.")
    decision_price = _price("Price of the decision.", nullable=True)
    arrival_price = _price("Last mid at or before the arrival.", nullable=True)
    arrival_age_s = real("Age of that mid: large where the symbol was halted.", unit="s", nullable=True, min=0)
    market_volume = real(
        "Volume of the market in [ts_event, ts_done); null where the tape does not reach there.",
        unit="base units",
        nullable=True,
        min=0,
    )
    vwap_price = _price("Volume-weighted price of that volume; null where nothing traded.", nullable=True)
    twap_price = _price("Last known price, averaged over the time in [ts_event, ts_done).", nullable=True)
    twap_basis = choice("Mids, or trades where no mid prevailed at the arrival.", PriceBasis, nullable=True)
    pwp_05_price = _price("VWAP from the arrival until filled_quantity is 5 % of what traded.", nullable=True)
    pwp_10_price = _price("The same until it is 10 %.", nullable=True)
    pwp_20_price = _price("The same until it is 20 %.", nullable=True)
    pwp_30_price = _price("The same until it is 30 %.", nullable=True)
    open_price = _price("First mid of the session.", nullable=True)
    close_price = _price("Last mid of the session; null while it is not over.", nullable=True)
    prev_close_price = _price("Last mid of the session before.", nullable=True)
    cancel_price = _price("What the unfilled rest is marked at.", nullable=True)
    cancel_price_basis = choice("The desk's own price, or the last mid at ts_done.", PriceBasis, nullable=True)
    decision_cost_bps = _cost("the decision's price")
    arrival_cost_bps = _cost("the arrival mid")
    vwap_cost_bps = _cost("the interval's VWAP")
    twap_cost_bps = _cost("the interval's TWAP")
    open_cost_bps = _cost("the session's open")
    close_cost_bps = _cost("the session's close")
    prev_close_cost_bps = _cost("the close of the session before")
    pwp_05_cost_bps = _cost("the price of 5 % participation")
    pwp_10_cost_bps = _cost("the price of 10 % participation")
    pwp_20_cost_bps = _cost("the price of 20 % participation")
    pwp_30_cost_bps = _cost("the price of 30 % participation")
    delay_bps = _bps("What the filled part lost from decision to arrival; positive = paid.")
    trading_bps = _bps("What it lost from arrival to its fills; positive = paid.")
    opportunity_bps = _bps("What the unfilled rest lost from the decision to its end; positive = paid.")
    fees_bps = _bps("Fees; a rebate is negative.")
    shortfall_bps = _bps("Implementation shortfall: the four parts together.")
    is_overfilled = flag("Whether more was filled than ordered: the excess is marked at cancel_price.")
    is_orphan = flag("Whether the order names a parent that is not known, or one that is its own descendant.")
    has_fill_before_order = flag("Whether a fill is earlier than the order that it names.")
    has_fill_after_done = flag("Whether a fill is later than the end of the order that it names.")
    has_correction = flag("Whether the order, its decision or a fill is not as it was first told.")
    status = choice("Why values are null.", TcaStatus)
    reasons = text("Why some values of an `ok` row are null: words of TcaReason, comma-separated; empty if none is.")
    ts_known = instant("Latest receipt of what it used, never before ts_done, nor before a close that it used.")


class TcaFill(Contract):
    """The quote that a fill met, and where the mid went after it.

    The quote is the last one strictly before the fill. `status` says what that quote was: spreads are null unless it is
    `ok` or `locked`. Markouts do not depend on it: they compare the last mid at or before each instant with the fill.
    """

    table: ClassVar[str] = "execution/tca_fills"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "fill_id")
    is_revised: ClassVar[bool] = True

    fill_id = text("The execution.")
    order_id = text("The order that it fills; null where it is not known.", nullable=True)
    ts_event = instant("When it was executed.")
    symbol = text("The platform's unique name of the instrument.")
    venue = text("Where it was executed.", nullable=True)
    liquidity = choice("Whether it waited, crossed, or came from an auction.", Liquidity, nullable=True)
    side = sign("+1 bought, -1 sold.")
    price = _price("Price of the execution; null where it is none.", nullable=True)
    quantity = real("Quantity executed; null where it is none.", unit="base units", nullable=True, min_exclusive=0)
    bid_price = _price("Best bid before the fill.", nullable=True)
    ask_price = _price("Best offer before the fill.", nullable=True)
    mid_price = _price("Their middle.", nullable=True)
    quote_age_s = real("Age of that quote.", unit="s", nullable=True, min_exclusive=0)
    quoted_spread_bps = real("Spread of that quote ÷ mid.", unit="bps", nullable=True, min=0)
    effective_spread_bps = _bps("Effective spread: twice the distance of the fill from the mid; positive = paid.")
    e_over_q = real("Effective ÷ quoted spread; null where the book is locked.", unit="1", nullable=True)
    price_improvement = real(
        "Far touch less price, in the fill's favour: positive = better than the quote.",
        unit="quote currency per unit",
        nullable=True,
    )
    capped_quantity = real(
        "Quantity of the fill that the far touch displayed.", unit="base units", nullable=True, min=0
    )
    price_improvement_amount = real(
        "price_improvement x capped_quantity: no more is credited than was displayed.",
        unit="quote currency",
        nullable=True,
    )
    realised_spread_50ms_bps = _bps("Realised spread: twice the distance of the fill from the mid 50 ms later.")
    realised_spread_1s_bps = _bps("The same 1 s later.")
    realised_spread_5s_bps = _bps("The same 5 s later.")
    realised_spread_15s_bps = _bps("The same 15 s later.")
    realised_spread_1m_bps = _bps("The same 1 min later.")
    realised_spread_5m_bps = _bps("The same 5 min later.")
    markout_50ms_bps = _bps("Mid 50 ms after the fill against its price; positive = moved our way.")
    markout_1s_bps = _bps("The same 1 s later.")
    markout_5s_bps = _bps("The same 5 s later.")
    markout_15s_bps = _bps("The same 15 s later.")
    markout_1m_bps = _bps("The same 1 min later.")
    markout_5m_bps = _bps("The same 5 min later.")
    markout_close_bps = _bps("Last mid of the session against the fill's price; null while it is not over.")
    ts_markout_end = instant(
        "How far markouts can reach: the last quote of the fill's session; null outside sessions, or without quotes.",
        nullable=True,
    )
    status = choice("What the quote before the fill was.", TcaStatus)
    ts_known = instant("Latest receipt of what it used, never before the last instant that a markout looked at.")
