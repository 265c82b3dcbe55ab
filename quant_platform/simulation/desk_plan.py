"""What a simulated desk sets out to do on one symbol-day: its orders, and the slices that they are worked in.

Everything here is known without a quote: the hidden price, its volatility and the market's activity decide. Times are
counted from midnight UTC in the archive's own unit, quantities in lots. Not here: what the plan does to the price
(`desk_impact`), and what its slices pay (`desk_execution`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from quant_platform.simulation.desk_params import Algo, Broker, DeskParams, Strategy, Venue
from quant_platform.simulation.latent_price import SECONDS, FloatArray, LatentDay
from quant_platform.simulation.market_files import BoolArray, IntArray

Stream = Callable[..., np.random.Generator]
"""Returns the stream of random numbers of one symbol-day that belongs to a key."""

FIRST_S, LAST_DECISION_S, CLOSING_S = 300, 21 * 3_600, 23 * 3_600
"""When the desk begins, when it decides for the last time, and when nothing of it is left in the market."""

# A day has between the floor and this much more of orders.
_SURPLUS = 0.1
_MOST_SLICES = 60
_LARGEST_SLICE_TOUCHES = 3.0
# A slice goes out in the first part of its turn, so that turns stay in order.
_JITTER = 0.8
_FORESIGHT_S = 10
_CALLED_BACK = (0.1, 0.9)
_LIMIT_BPS = (5.0, 60.0)
_REJECTED_MS = 8


@dataclass(frozen=True, kw_only=True)
class MarketScale:
    """How large the market is that the desk trades in, and the desk's orders in it.

    Attributes:
        order_lots: Median quantity of the desk's orders.
        touch_lots: Usual quantity at the best bid or offer.
        daily_lots: Usual volume of a day.
        daily_volatility: Usual standard deviation of a day's log return.
        per_second: Units of time in a second.
        midnight: Start of the date, in that unit.
    """

    order_lots: float
    touch_lots: float
    daily_lots: float
    daily_volatility: float
    per_second: int
    midnight: int


class Parents(NamedTuple):
    """Orders by the time of their decision; each array has one value an order.

    Attributes:
        decided: When it was decided.
        arrived: When it reached the desk.
        ends: When its algo means to be done with it.
        stops: When nothing more of it is done: then, unless it was rejected or called back.
        side: +1 buy, -1 sell.
        lots: How much.
        strategy: Place in `DeskParams.strategies`.
        algo: Place in `DeskParams.algos`.
        broker: Place in `DeskParams.brokers`.
        signal: The strategy's signal in the order's direction, in standard deviations.
        limit_bps: How far from the mid at arrival it may pay; infinite without a limit.
        is_rejected: Whether the broker took it at all.
        is_cancelled: Whether it is called back before its time.
    """

    decided: IntArray
    arrived: IntArray
    ends: IntArray
    stops: IntArray
    side: IntArray
    lots: IntArray
    strategy: IntArray
    algo: IntArray
    broker: IntArray
    signal: FloatArray
    limit_bps: FloatArray
    is_rejected: BoolArray
    is_cancelled: BoolArray


class Slices(NamedTuple):
    """Parts of orders, by order and time of sending; each array has one value a slice.

    Attributes:
        parent: Place of its order.
        sent: When it was sent.
        due: When it is executed, if it is.
        ends: When nothing more of it can be.
        lots: How much was sent.
        sought: How much of it is executed, if its limit allows.
        venue: Place in `DeskParams.venues`.
        is_maker: Whether it waits at the near touch; else it takes what stands on the other side.
    """

    parent: IntArray
    sent: IntArray
    due: IntArray
    ends: IntArray
    lots: IntArray
    sought: IntArray
    venue: IntArray
    is_maker: BoolArray


class Plan(NamedTuple):
    """A symbol-day's orders and slices."""

    parents: Parents
    slices: Slices


def plan_of(desk: DeskParams, latent: LatentDay, scale: MarketScale, *, stream: Stream) -> Plan:
    """Return the orders of a symbol-day, and the slices that they are worked in."""
    parents = _parents(desk, latent, scale, stream("orders"))
    rng = stream("slices")
    slices = _sent(desk, latent, scale, parents, rng)
    slices = _waited(slices, desk, latent, parents, rng=rng, per_second=scale.per_second)
    slices = _joined(slices, _chasing(desk, scale, parents, slices, rng))
    return Plan(parents, _picked(slices, np.lexsort((slices.is_maker, slices.sent, slices.parent))))


def _parents(desk: DeskParams, latent: LatentDay, scale: MarketScale, rng: np.random.Generator) -> Parents:
    count = desk.orders_per_day + int(rng.random() * _SURPLUS * desk.orders_per_day)
    clock = np.concatenate([[0.0], np.cumsum(latent.activity)])
    drawn = np.sort(rng.uniform(clock[FIRST_S], clock[LAST_DECISION_S], count))
    decided_s = np.interp(drawn, clock, np.arange(SECONDS + 1))
    strategy, algo, broker = (_drawn(rng, role, count) for role in (desk.strategies, desk.algos, desk.brokers))
    signal = _signals(desk, latent, decided_s.astype(np.int64), strategy, rng)
    lots = np.maximum(scale.order_lots * np.exp(desk.order_deviation * rng.standard_normal(count)), 1).astype(np.int64)

    delay_s = np.array([one.delay_s for one in desk.brokers])[broker] * rng.standard_exponential(count)
    shortest, longest = np.array([(one.shortest_s, one.longest_s) for one in desk.algos])[algo].T
    duration_s = shortest + (longest - shortest) * rng.random(count)
    decided = (decided_s * scale.per_second).astype(np.int64)
    last = CLOSING_S * scale.per_second
    arrived = np.minimum(decided + 1 + (delay_s * scale.per_second).astype(np.int64), last - 1)
    ends = np.minimum(arrived + 1 + (duration_s * scale.per_second).astype(np.int64), last)
    is_rejected, is_cancelled, is_limited = (
        rng.random(count) < share for share in (desk.reject_share, desk.cancel_share, desk.limit_share)
    )
    called_back = arrived + 1 + (rng.uniform(*_CALLED_BACK, count) * (ends - arrived - 1)).astype(np.int64)
    refused = arrived + _REJECTED_MS * scale.per_second // 1_000
    return Parents(
        decided=decided,
        arrived=arrived,
        ends=ends,
        stops=np.select([is_rejected, is_cancelled], [refused, called_back], ends),
        side=np.where(signal < 0, -1, 1),
        lots=lots,
        strategy=strategy,
        algo=algo,
        broker=broker,
        signal=np.abs(signal),
        limit_bps=np.where(is_limited, rng.uniform(*_LIMIT_BPS, count), np.inf),
        is_rejected=is_rejected,
        is_cancelled=is_cancelled & ~is_rejected,
    )


def _signals(
    desk: DeskParams, latent: LatentDay, second: IntArray, strategy: IntArray, rng: np.random.Generator
) -> FloatArray:
    """Return signals of unit variance that see the hidden return over their horizon as far as their skill goes."""
    skill = np.array([one.skill for one in desk.strategies])[strategy]
    horizon_s = np.array([one.horizon_s for one in desk.strategies])[strategy]
    noise = rng.standard_normal(len(second))
    return np.asarray(skill * _returns_ahead(latent, second, horizon_s) + np.sqrt(1 - skill**2) * noise)


def _sent(
    desk: DeskParams, latent: LatentDay, scale: MarketScale, parents: Parents, rng: np.random.Generator
) -> Slices:
    """Return the slices of all orders as their algos send them, none of those that wait executed yet."""
    every_s, maker_share, unevenness, follows_volume = (
        np.array([getattr(one, name) for one in desk.algos])[parents.algo]
        for name in ("every_s", "maker_share", "unevenness", "follows_volume")
    )
    spans = parents.ends - parents.arrived
    at_most = max(_LARGEST_SLICE_TOUCHES * scale.touch_lots, 1)
    turns = np.maximum(np.ceil(spans / (every_s * scale.per_second)), np.ceil(parents.lots / at_most))
    turns = np.where(parents.is_rejected, 0, np.minimum(turns, np.minimum(parents.lots, _MOST_SLICES))).astype(np.int64)

    parent = np.repeat(np.arange(len(turns)), turns)
    first = np.cumsum(turns) - turns
    turn = np.arange(len(parent)) - first[parent]
    gap = (spans / np.maximum(turns, 1))[parent]
    sent = parents.arrived[parent] + ((turn + _JITTER * rng.random(len(parent))) * gap).astype(np.int64)

    weight = np.exp(unevenness[parent] * rng.standard_normal(len(parent)))
    weight *= np.where(follows_volume[parent], latent.activity[sent // scale.per_second], 1.0)
    running = np.concatenate([[0.0], np.cumsum(weight)])
    before, whole = running[first], running[first + turns] - running[first]
    wanted = parents.lots[parent] * ((running[1:] - before[parent]) / whole[parent])
    done = np.rint(wanted).astype(np.int64)
    lots = done - np.where(turn == 0, 0, np.concatenate([[0], done[:-1]]))

    venue = _drawn(rng, desk.venues, len(parent))
    is_maker = rng.random(len(parent)) < maker_share[parent]
    latency = _latency(desk, scale)[venue]
    arrives = sent + latency
    # What waits in vain still has time to cross before the order ends.
    turn_ends = np.minimum(sent + gap.astype(np.int64), parents.stops[parent] - latency)
    is_maker &= arrives < turn_ends
    slices = Slices(
        parent=parent,
        sent=sent,
        due=arrives,
        ends=np.where(is_maker, turn_ends, arrives),
        lots=lots,
        sought=np.where(is_maker, 0, lots),
        venue=venue,
        is_maker=is_maker,
    )
    return _picked(slices, (lots > 0) & (slices.ends <= parents.stops[parent]))


def _waited(
    slices: Slices, desk: DeskParams, latent: LatentDay, parents: Parents, *, rng: np.random.Generator, per_second: int
) -> Slices:
    """Return the slices with what those that wait get: less where the price is about to go their way."""
    fill_probability, adverse = np.array([(one.fill_probability, one.adverse_selection) for one in desk.venues])[
        slices.venue
    ].T
    arrives = slices.due
    met = arrives + (rng.random(len(arrives)) * (slices.ends - arrives)).astype(np.int64)
    ahead = parents.side[slices.parent] * _returns_ahead(latent, met // per_second, _FORESIGHT_S)
    is_met = rng.random(len(met)) < fill_probability * (1 - adverse * np.tanh(ahead))
    is_partial = rng.random(len(met)) < desk.partial_share
    part = np.ceil(slices.lots * rng.random(len(met))).astype(np.int64)
    got = np.where(is_met, np.where(is_partial, part, slices.lots), 0)
    return slices._replace(
        due=np.where(slices.is_maker, met, slices.due),
        sought=np.where(slices.is_maker, got, slices.lots),
    )


def _chasing(
    desk: DeskParams, scale: MarketScale, parents: Parents, slices: Slices, rng: np.random.Generator
) -> Slices:
    """Return the slices that cross the spread for what others have waited for in vain."""
    due = slices.ends + _latency(desk, scale)[slices.venue]
    rest = slices.lots - slices.sought
    is_chased = (rest > 0) & (rng.random(len(rest)) < desk.chase_share) & (due <= parents.stops[slices.parent])
    chasing = slices._replace(
        sent=slices.ends, due=due, ends=due, lots=rest, sought=rest, is_maker=np.zeros(len(rest), dtype=np.bool_)
    )
    return _picked(chasing, is_chased)


def _returns_ahead(latent: LatentDay, second: IntArray, horizon_s: IntArray | int) -> FloatArray:
    """Return hidden log returns from these seconds on, in standard deviations."""
    later = np.minimum(second + horizon_s, SECONDS)
    moves = latent.log_price[later] - latent.log_price[second]
    return np.asarray(moves / (latent.volatility[second] * np.sqrt(horizon_s)))


def _latency(desk: DeskParams, scale: MarketScale) -> IntArray:
    return np.array([one.latency_ms for one in desk.venues], dtype=np.int64) * scale.per_second // 1_000


def _drawn(
    rng: np.random.Generator, role: Sequence[Strategy] | Sequence[Algo] | Sequence[Broker] | Sequence[Venue], count: int
) -> IntArray:
    """Return places in `role`, as often as their shares say."""
    shares = np.array([one.share for one in role])
    return np.asarray(rng.choice(len(role), count, p=shares / shares.sum()))


def _picked(slices: Slices, index: BoolArray | IntArray) -> Slices:
    return Slices._make(column[index] for column in slices)


def _joined(one: Slices, other: Slices) -> Slices:
    return Slices._make(np.concatenate(pair) for pair in zip(one, other, strict=True))
