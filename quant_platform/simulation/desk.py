"""A simulated desk's own records of what it did in the simulated market, in the platform's own format for desk files.

Here: decisions, orders and fills of a symbol-day as rows of their contracts, and their files. Not here: what the desk
is like (`desk_params`), what it sets out to do (`desk_plan`), what that does to the price (`desk_impact`), what it
pays (`desk_execution`), and what others tell of it (`desk_events`), whose files are written here too.
`market.write_archive` lets the desk trade while it writes the archive.

An order is told of when it is done, with its end; a fill at once. Of the few fills that are told wrong at first, as
revision 0, the price is worse than it was or the fee too high; revision 1 follows minutes to hours later.
"""

import io
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from quant_platform.contracts._schema import INSTANT, Contract, polars_schema
from quant_platform.contracts.events import (
    MarketImpactAssessment,
    NewsSentimentAnalyzed,
    PositionSized,
    RiskViolation,
    TradeSettled,
)
from quant_platform.contracts.execution import Decision, Fill, Liquidity, Order, OrderStatus
from quant_platform.simulation.desk_book import double_mid_ticks, spread_ticks
from quant_platform.simulation.desk_events import DeskEvents, events_of
from quant_platform.simulation.desk_execution import Fills, limits
from quant_platform.simulation.desk_plan import MarketScale
from quant_platform.simulation.desk_session import DeskSession
from quant_platform.simulation.latent_price import SECONDS, FloatArray
from quant_platform.simulation.market_files import BoolArray, IntArray, Quotes
from quant_platform.storage.atomic import published

COST_MODEL = "square-root-1"
KINDS: dict[str, type[Contract]] = {"decisions": Decision, "orders": Order, "fills": Fill}
EVENT_KINDS: dict[str, type[Contract]] = {
    "trade_settled": TradeSettled,
    "risk_violation": RiskViolation,
    "position_sized": PositionSized,
    "market_impact_assessment": MarketImpactAssessment,
    "news_sentiment_analyzed": NewsSentimentAnalyzed,
}

_NS = 1_000_000_000
_RISK_LIMIT_ORDERS = 30
_WORST_ERROR_TICKS = 5
_TOLD_AFTER_MS = (2, 150)
_CORRECTED_AFTER_S = (600, 6 * 3_600)
_ID_DIGITS, _PLACE_DIGITS, _BPS_DIGITS, _FEE_DIGITS = 6, 3, 4, 10


class DeskDay(NamedTuple):
    """A symbol-day's rows, each by its contract."""

    decisions: pl.DataFrame
    orders: pl.DataFrame
    fills: pl.DataFrame
    events: DeskEvents


class _Day(NamedTuple):
    """A symbol-day of the desk with its quotes and executions, and how numbers of it are written."""

    session: DeskSession
    quotes: Quotes
    fills: Fills

    def instants(self, times: IntArray) -> pl.Series:
        """Return file times as UTC nanoseconds."""
        return pl.Series(times * (_NS // self.session.scale.per_second)).cast(INSTANT)

    def ids(self, letter: str, numbers: IntArray) -> pl.Series:
        """Return ids that no other symbol-day has, counted from 0."""
        stem = f"{self.session.instrument.symbol}-{self.session.day:%Y%m%d}-{letter}"
        return stem + pl.Series(numbers).cast(pl.String).str.zfill(_ID_DIGITS)

    def mids(self, times: IntArray) -> FloatArray:
        """Return the mid in force at file times, in quote currency."""
        return np.round(double_mid_ticks(self.quotes, times) / 2 * self.session.instrument.tick_size, self.digits + 1)

    def prices(self, ticks: IntArray | FloatArray) -> FloatArray:
        """Return ticks in quote currency."""
        return np.round(ticks * self.session.instrument.tick_size, self.digits)

    def quantities(self, lots: IntArray) -> FloatArray:
        """Return lots in base units."""
        return np.round(lots * self.session.instrument.lot_size, _digits(self.session.instrument.lot_size))

    @property
    def digits(self) -> int:
        """The decimals of a price."""
        return _digits(self.session.instrument.tick_size)

    @property
    def order_ids(self) -> pl.Series:
        """The ids of the orders, which count them as they arrive."""
        return self.ids("O", np.argsort(np.argsort(self.session.plan.parents.arrived, kind="stable"), kind="stable"))

    @property
    def slice_ids(self) -> pl.Series:
        """The ids of the slices, which count those of an order as they are sent."""
        parent = self.session.plan.slices.parent
        place = np.arange(len(parent)) - np.searchsorted(parent, parent)
        return self.order_ids.gather(parent) + "-" + pl.Series(place).cast(pl.String).str.zfill(_PLACE_DIGITS)

    @property
    def is_whole(self) -> BoolArray:
        """Whether a slice is all of its order, which then has no children."""
        parents, slices = self.session.plan
        is_only = np.bincount(slices.parent)[slices.parent] == 1
        return np.asarray(is_only & (slices.lots == parents.lots[slices.parent]))


def records_of(session: DeskSession, quotes: Quotes, fills: Fills) -> DeskDay:
    """Return the rows that the desk would have written of a symbol-day.

    Args:
        session: Its plan.
        quotes: Of the day, with the desk's mark.
        fills: What was executed of the plan at them.
    """
    day = _Day(session, quotes, fills)
    decisions, executed = _decisions(day), _fills(day)
    return DeskDay(decisions, _orders(day), executed, events_of(session, decisions, executed))


def write_desk(
    root: Path, day: date, records: Sequence[DeskDay], *, on_file: Callable[[Path, int], None] | None = None
) -> list[Path]:
    """Write a date's rows of all symbols as CSV, a file a kind, and return the files.

    Args:
        root: The files come below its `desk`.
        day: UTC date.
        records: Of each symbol; a second call for the date replaces them.
        on_file: Called after each file, with its path and its number of rows.
    """
    written = []
    for kind, contract in KINDS.items():
        rows = pl.concat([getattr(one, kind) for one in records]).sort(contract.sorted_by)
        written.append(_published(desk_path(root, day, kind), rows, on_file))
    return written


def write_events(
    root: Path, records: Sequence[DeskDay], *, on_file: Callable[[Path, int], None] | None = None
) -> list[Path]:
    """Write the events of all dates and symbols as CSV, a file a kind, and return the files.

    Args:
        root: The files come below its `desk`.
        records: Of each symbol and date; a second call replaces them.
        on_file: Called after each file, with its path and its number of rows.
    """
    written = []
    for kind, contract in EVENT_KINDS.items():
        rows = pl.concat([getattr(one.events, kind) for one in records]).sort(contract.sorted_by)
        written.append(_published(event_path(root, kind), rows, on_file))
    return written


def desk_path(root: Path, day: date, kind: str) -> Path:
    """Return where a date's file of one of `KINDS` lies."""
    return root / "desk" / f"{kind}-{day.isoformat()}.csv"


def event_path(root: Path, kind: str) -> Path:
    """Return where the file of one of `EVENT_KINDS` lies."""
    return root / "desk" / f"{kind}.csv"


def _published(path: Path, rows: pl.DataFrame, on_file: Callable[[Path, int], None] | None) -> Path:
    text = io.BytesIO()
    rows.write_csv(text, datetime_format="%Y-%m-%dT%H:%M:%S%.9fZ")
    with published(path) as temporary:
        temporary.write_bytes(text.getvalue())
    if on_file is not None:
        on_file(path, rows.height)
    return path


def _decisions(day: _Day) -> pl.DataFrame:
    session = day.session
    desk, scale, parents = session.desk, session.scale, session.plan.parents
    rng = session.stream("decisions")
    count = len(parents.side)
    believed = np.array([one.believed_skill for one in desk.strategies])[parents.strategy]
    horizon_s = np.array([one.horizon_s for one in desk.strategies])[parents.strategy]
    volatility_bps = scale.daily_volatility * 1e4
    expected = believed * parents.signal * volatility_bps * np.sqrt(horizon_s / SECONDS)
    # The normal distribution within a hundredth, as a logistic curve.
    certainty = believed * parents.signal / np.sqrt(1 - believed**2)
    confidence = 1 / (1 + np.exp(-1.702 * certainty))
    decided = scale.midnight + parents.decided
    mid, spread = double_mid_ticks(day.quotes, decided) / 2, spread_ticks(day.quotes, decided)
    impact_bps = desk.expected_impact * volatility_bps * np.sqrt(parents.lots / scale.daily_lots)
    limit_lots = _RISK_LIMIT_ORDERS * scale.order_lots
    used = np.abs(np.cumsum(parents.side * parents.lots)) / limit_lots
    nervous = session.latent.relative_volatility[parents.decided // scale.per_second]
    return _rows(
        Decision,
        decision_id=day.ids("D", np.arange(count)),
        revision=0,
        ts_event=day.instants(decided),
        ts_recv=day.instants(decided + _delays(rng, count, scale)),
        strategy=_words([one.name for one in desk.strategies], parents.strategy),
        symbol=session.instrument.symbol,
        side=parents.side,
        quantity=day.quantities(parents.lots),
        price=day.mids(decided),
        expected_return_bps=np.round(expected, _BPS_DIGITS),
        expected_cost_bps=np.round(spread / 2 / mid * 1e4 + impact_bps, _BPS_DIGITS),
        cost_model_id=COST_MODEL,
        signal_strength=np.round(parents.signal, _BPS_DIGITS),
        confidence=np.round(confidence, _BPS_DIGITS),
        horizon_s=horizon_s.astype(np.float64),
        risk_score=np.round(used * nervous, _BPS_DIGITS),
        risk_limit_used=np.round(used, _BPS_DIGITS),
    )


def _orders(day: _Day) -> pl.DataFrame:
    session, fills = day.session, day.fills
    desk, scale = session.desk, session.scale
    parents, slices = session.plan
    rng = session.stream("orders told")
    count = len(parents.side)
    filled = _sums(slices.parent[fills.part], fills.lots, count)
    last = np.zeros(count, dtype=np.int64)
    np.maximum.at(last, slices.parent[fills.part], fills.time)
    is_filled = filled == parents.lots
    arrived = scale.midnight + parents.arrived
    # A filled order is done right after its last fill, so that its time holds all of them.
    done = np.where(is_filled, last + 1, scale.midnight + parents.stops)
    is_told = ~is_filled & (rng.random(count) >= desk.untold_share)
    limit = limits(parents, day.quotes, scale.midnight)
    own = _rows(
        Order,
        order_id=day.order_ids,
        parent_order_id=None,
        decision_id=day.ids("D", np.arange(count)),
        revision=0,
        ts_event=day.instants(arrived),
        ts_recv=day.instants(done + _delays(rng, count, scale)),
        symbol=session.instrument.symbol,
        side=parents.side,
        quantity=day.quantities(parents.lots),
        algo=_words([one.name for one in desk.algos], parents.algo),
        broker=_words([one.name for one in desk.brokers], parents.broker),
        limit_price=np.where(np.isfinite(limit), day.prices(limit), np.nan),
        ts_done=day.instants(done),
        status=_words(
            (OrderStatus.FILLED, OrderStatus.REJECTED, OrderStatus.CANCELLED, OrderStatus.EXPIRED),
            np.select([is_filled, parents.is_rejected, parents.is_cancelled], [0, 1, 2], 3),
        ),
        cancel_price=np.where(is_told, day.mids(done), np.nan),
    )
    is_child = ~day.is_whole
    parent = slices.parent
    is_done = _sums(fills.part, fills.lots, len(parent)) == slices.lots
    ended = scale.midnight + np.where(is_done, slices.due, slices.ends)
    children = _rows(
        Order,
        order_id=day.slice_ids,
        parent_order_id=day.order_ids.gather(parent),
        decision_id=None,
        revision=0,
        ts_event=day.instants(scale.midnight + slices.sent),
        ts_recv=day.instants(ended + _delays(rng, len(parent), scale)),
        symbol=session.instrument.symbol,
        side=parents.side[parent],
        quantity=day.quantities(slices.lots),
        algo=own["algo"].gather(parent),
        broker=own["broker"].gather(parent),
        limit_price=own["limit_price"].gather(parent),
        ts_done=day.instants(ended),
        status=_words(
            (OrderStatus.FILLED, OrderStatus.CANCELLED, OrderStatus.EXPIRED),
            np.select([is_done, slices.is_maker], [0, 1], 2),
        ),
        cancel_price=None,
    )
    return pl.concat([own, children.filter(is_child)])


def _fills(day: _Day) -> pl.DataFrame:
    session, fills = day.session, day.fills
    desk, scale = session.desk, session.scale
    rng = session.stream("fills told")
    count = len(fills.part)
    venue = session.plan.slices.venue[fills.part]
    fee_bps = np.array([(one.taker_fee_bps, one.maker_fee_bps) for one in desk.venues])
    fee_rate = np.array([one.fee_rate for one in desk.venues])[venue]
    quantity = day.quantities(fills.lots)
    fee_per_price = fee_bps[venue, fills.is_maker.astype(np.int64)] / 1e4 * quantity / fee_rate
    is_foreign = np.array([one.fee_currency != "" for one in desk.venues])[venue]

    is_wrong = rng.random(count) < desk.correction_share
    is_price_wrong = is_wrong & ~fills.is_maker & (rng.random(count) < 0.5)
    error = rng.integers(1, _WORST_ERROR_TICKS + 1, count) * fills.side
    price = day.prices(fills.price_ticks)
    told_price = day.prices(np.maximum(fills.price_ticks + is_price_wrong * error, 1))
    fee, told_fee = price * fee_per_price, told_price * fee_per_price
    told_fee = np.where(is_wrong & ~is_price_wrong, told_fee + np.abs(told_fee), told_fee)
    told = fills.time + _delays(rng, count, scale)
    corrected = told + rng.integers(*_CORRECTED_AFTER_S, count) * scale.per_second

    first = _rows(
        Fill,
        fill_id=day.ids("F", np.arange(count)),
        order_id=day.order_ids.gather(session.plan.slices.parent[fills.part]).zip_with(
            pl.Series(day.is_whole[fills.part]), day.slice_ids.gather(fills.part)
        ),
        revision=0,
        ts_event=day.instants(fills.time),
        ts_recv=day.instants(told),
        symbol=session.instrument.symbol,
        side=fills.side,
        price=told_price,
        quantity=quantity,
        venue=_words([one.name for one in desk.venues], venue),
        fee=np.round(told_fee, _FEE_DIGITS),
        fee_currency=_words([one.fee_currency or None for one in desk.venues], venue),
        fee_rate=np.where(is_foreign, fee_rate, np.nan),
        liquidity=_words((Liquidity.TAKER, Liquidity.MAKER), fills.is_maker.astype(np.int64)),
    )
    again = first.with_columns(
        revision=pl.lit(1, pl.Int64),
        ts_recv=day.instants(corrected),
        price=pl.Series(price),
        fee=pl.Series(np.round(fee, _FEE_DIGITS)),
    )
    return pl.concat([first, again.filter(is_wrong)])


def _rows(contract: type[Contract], **columns: Any) -> pl.DataFrame:
    """Return a contract's rows; not a number stands for null."""
    return pl.DataFrame(columns).cast(polars_schema(contract)).fill_nan(None)


def _words(words: Sequence[str | None], places: IntArray) -> pl.Series:
    return pl.Series(words, dtype=pl.String).gather(places)


def _sums(places: IntArray, lots: IntArray, count: int) -> IntArray:
    sums = np.zeros(count, dtype=np.int64)
    np.add.at(sums, places, lots)
    return sums


def _delays(rng: np.random.Generator, count: int, scale: MarketScale) -> IntArray:
    """Return how long each row was on its way here, in file units."""
    return rng.integers(*_TOLD_AFTER_MS, count) * scale.per_second // 1_000


def _digits(step: float) -> int:
    exponent = Decimal(str(step)).normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0
