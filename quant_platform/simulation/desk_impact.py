"""What a simulated desk does to the price: each part of an order that is executed pushes the mid, and the push decays.

The law is that of `DeskParams`. What is permanent stays until the desk's last hour of the date and is undone in it, so
that dates stay independent of one another and each opens where the one before closed.
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.desk_plan import CLOSING_S, MarketScale, Plan
from quant_platform.simulation.latent_price import SECONDS, FloatArray, LatentDay
from quant_platform.simulation.market_files import IntArray


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """The desk's mark on the log of the mid through one symbol-day.

    Attributes:
        seconds: After midnight at which something was executed, ascending, with 0 in front.
        permanent: What stays of all pushes up to each of them.
        temporary: What decays, as it stands right after each of them.
        half_life_s: Of what decays.
    """

    seconds: FloatArray
    permanent: FloatArray
    temporary: FloatArray
    half_life_s: float

    def at(self, seconds: FloatArray) -> FloatArray:
        """Return the mark at these seconds after midnight; it does not know of what is executed then or later."""
        before = np.maximum(np.searchsorted(self.seconds, seconds, side="left") - 1, 0)
        left = self.temporary[before] * np.exp2((self.seconds[before] - seconds) / self.half_life_s)
        winding_down = np.minimum((SECONDS - seconds) / (SECONDS - CLOSING_S), 1)
        return (self.permanent[before] + left) * winding_down


def footprint_of(
    plan: Plan, desk: DeskParams, latent: LatentDay, scale: MarketScale, rng: np.random.Generator
) -> Footprint:
    """Return the mark of a plan's slices, each of which pushes for what it seeks, whatever its limit then allows."""
    executed = np.flatnonzero(plan.slices.sought)
    executed = executed[np.lexsort((plan.slices.due[executed], plan.slices.parent[executed]))]
    parent, sought = plan.slices.parent[executed], plan.slices.sought[executed]
    push = pushes(plan, desk, latent, scale)[parent] * _root_steps(parent, sought)
    push *= 1 + desk.impact_noise * rng.standard_normal(len(push))

    order = np.argsort(plan.slices.due[executed], kind="stable")
    seconds = np.concatenate([[0.0], plan.slices.due[executed][order] / scale.per_second])
    push = np.concatenate([[0.0], push[order]])
    kept = np.exp2(-np.diff(seconds, prepend=0.0) / desk.impact_half_life_s)
    fading = (1 - desk.permanent_share) * push
    standing = accumulate(zip(kept, fading, strict=True), lambda left, step: left * step[0] + step[1], initial=0.0)
    return Footprint(
        seconds=seconds,
        permanent=desk.permanent_share * np.cumsum(push),
        temporary=np.fromiter(standing, dtype=np.float64, count=len(seconds) + 1)[1:],
        half_life_s=desk.impact_half_life_s,
    )


def pushes(plan: Plan, desk: DeskParams, latent: LatentDay, scale: MarketScale) -> FloatArray:
    """Return how far one lot of each order would push the log of the mid, by the law and without its noise."""
    parents = plan.parents
    footprint = np.array([one.footprint for one in desk.algos])[parents.algo]
    footprint = footprint * np.array([one.footprint for one in desk.brokers])[parents.broker]
    volatility = latent.volatility[parents.arrived // scale.per_second] * np.sqrt(SECONDS)
    return np.asarray(parents.side * footprint * desk.impact * volatility / np.sqrt(scale.daily_lots))


def _root_steps(parent: IntArray, lots: IntArray) -> FloatArray:
    """Return by how much each part raises the root of what its order has executed; rows by order and time."""
    is_first = np.diff(parent, prepend=-1) != 0
    running = np.cumsum(lots)
    before = (running - lots)[is_first][np.cumsum(is_first) - 1]
    root = np.sqrt(running - before)
    return np.asarray(root - np.where(is_first, 0.0, np.concatenate([[0.0], root[:-1]])))
