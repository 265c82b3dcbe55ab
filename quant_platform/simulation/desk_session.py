"""One symbol-day of a simulated desk: its plan and its mark on the price, then its executions once there are quotes."""

from dataclasses import dataclass
from datetime import date

from quant_platform.settings import Instrument
from quant_platform.simulation.desk_execution import Fills, fills_of
from quant_platform.simulation.desk_impact import Footprint, footprint_of
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.desk_plan import MarketScale, Plan, Stream, plan_of
from quant_platform.simulation.latent_price import LatentDay
from quant_platform.simulation.market_files import Quotes


@dataclass(frozen=True, kw_only=True)
class DeskSession:
    """What is known of a desk's symbol-day before there are quotes.

    Attributes:
        instrument: What it trades.
        day: UTC date.
        latent: The hidden price.
        desk: What the desk is like.
        scale: How large the market is.
        plan: What it sets out to do.
        footprint: What that does to the price.
        stream: Of random numbers of the symbol-day.
    """

    instrument: Instrument
    day: date
    latent: LatentDay
    desk: DeskParams
    scale: MarketScale
    plan: Plan
    footprint: Footprint
    stream: Stream

    def fills(self, quotes: Quotes) -> Fills:
        """Return what is executed of the plan at quotes that carry its mark."""
        return fills_of(self.plan, self.desk, quotes, self.scale.midnight)


def session_of(
    instrument: Instrument, day: date, latent: LatentDay, desk: DeskParams, scale: MarketScale, *, stream: Stream
) -> DeskSession:
    """Return a desk's symbol-day."""
    plan = plan_of(desk, latent, scale, stream=stream)
    return DeskSession(
        instrument=instrument,
        day=day,
        latent=latent,
        desk=desk,
        scale=scale,
        plan=plan,
        footprint=footprint_of(plan, desk, latent, scale, stream("impact")),
        stream=stream,
    )
