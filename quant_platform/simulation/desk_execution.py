"""What a simulated desk's slices are executed at, given the quotes of the symbol-day that it has left its mark on.

A slice that takes walks the book that stood strictly before it; a slice that waited is hit at the near touch. Nothing
is executed beyond its order's limit. Each fill is a print of its own on the tape.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from quant_platform.simulation.desk_book import before, double_mid_ticks, far_side, near_touch
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.desk_plan import Parents, Plan
from quant_platform.simulation.latent_price import FloatArray
from quant_platform.simulation.market_files import BoolArray, IntArray, Quotes, Trades

_ALL = np.iinfo(np.int64).max


class Fills(NamedTuple):
    """Executions by time; each array has one value an execution.

    Attributes:
        part: Place of its slice in the plan.
        time: Of the venue, in file units.
        side: +1 bought, -1 sold.
        price_ticks: At which.
        lots: How much.
        is_maker: Whether the desk waited; else it crossed the spread.
    """

    part: IntArray
    time: IntArray
    side: IntArray
    price_ticks: IntArray
    lots: IntArray
    is_maker: BoolArray


def fills_of(plan: Plan, desk: DeskParams, quotes: Quotes, midnight: int) -> Fills:
    """Return what is executed of a plan."""
    slices = plan.slices
    time = midnight + slices.due
    side = plan.parents.side[slices.parent]
    standing = before(quotes, time)
    prices, shown = far_side(quotes, standing, side)
    depth = np.array([one.depth for one in desk.venues])[slices.venue]
    room = np.cumsum(np.maximum((shown * depth[:, None]).astype(np.int64), 1), axis=1)
    room[:, -1] = _ALL  # the last level gives all that is left
    # A slice that waited is hit for what it gets at one price.
    prices[slices.is_maker, 0] = near_touch(quotes, standing, side)[slices.is_maker]
    room[slices.is_maker] = _ALL
    lots = np.diff(np.minimum(room, slices.sought[:, None]), axis=1, prepend=0)
    lots[side[:, None] * prices > (side * limits(plan.parents, quotes, midnight)[slices.parent])[:, None]] = 0
    part, level = np.nonzero(lots)
    order = np.argsort(slices.due[part], kind="stable")
    part, level = part[order], level[order]
    return Fills(
        part=part,
        time=time[part],
        side=side[part],
        price_ticks=np.maximum(prices[part, level], 1),
        lots=lots[part, level],
        is_maker=slices.is_maker[part],
    )


def limits(parents: Parents, quotes: Quotes, midnight: int) -> FloatArray:
    """Return each order's limit in ticks, against the mid at its arrival; infinite against the order without one."""
    mid = double_mid_ticks(quotes, midnight + parents.arrived) / 2
    away = parents.side * parents.limit_bps / 1e4
    return np.where(parents.side > 0, np.floor(mid * (1 + away)), np.ceil(mid * (1 + away)))


def with_fills(trades: Trades, fills: Fills, rng: np.random.Generator) -> Trades:
    """Return the tape with the desk's executions in the places of as many others, drawn at random.

    Args:
        trades: The tape without the desk.
        fills: The desk's, by time.
        rng: Drawn from.

    Raises:
        ValueError: The desk is more than half of the tape.
    """
    count, others = len(trades.time), len(trades.time) - len(fills.time)
    if 2 * others < count:
        raise ValueError(
            f"the desk executes {count - others} times in a day of {count} trades, more than half of them: raise "
            "trades_per_day of the market, or lower orders_per_day of the desk"
        )
    kept = np.delete(np.arange(count), rng.choice(count, count - others, replace=False, shuffle=False))
    at = np.searchsorted(trades.time[kept], fills.time, side="right")
    # A buyer was the maker where the desk bought and waited, and where it sold and did not.
    is_buyer_maker = (fills.side > 0) == fills.is_maker
    return replace(
        trades,
        price_ticks=np.insert(trades.price_ticks[kept], at, fills.price_ticks),
        lots=np.insert(trades.lots[kept], at, fills.lots),
        time=np.insert(trades.time[kept], at, fills.time),
        is_buyer_maker=np.insert(trades.is_buyer_maker[kept], at, is_buyer_maker),
    )
