"""What a simulated desk is like: its strategies, algos, brokers and venues, and what each of them is truly worth.

These are the truths that scorecards should find. With the defaults: `news` and `momentum` know something of what
comes, `carry` knows nothing, and `pairs` believes that it knows far more than it does. `pov` leaks what it is about
to do; `aggressive` never waits, and pays a taker's fees for all it gets. `MERIDIAN` is slow and leaky. `COMET` is
cheap and thin. `DRIFT` pays the highest rebate to orders that wait, which are hit there just before the price goes on
against them.
"""

from dataclasses import dataclass
from math import inf

from quant_platform.simulation._bounds import check

_LONGEST_S = 3_600


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Who decides.

    Attributes:
        name: As decisions carry it.
        share: Of the decisions, against the others' shares.
        skill: Correlation of its signal with the hidden price's return over its horizon.
        believed_skill: What it takes its skill for, in the return and the confidence that it tells.
        horizon_s: How long it means to hold, in seconds.
    """

    name: str
    share: float
    skill: float
    believed_skill: float
    horizon_s: int

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            ValueError: An attribute is outside its bounds; the message names it.
        """
        check(self, "share", above=0)
        check(self, "skill", "believed_skill", least=0, below=1)
        check(self, "horizon_s", least=1)


@dataclass(frozen=True, kw_only=True)
class Algo:
    """How an order is worked: in slices, over a time drawn for each order.

    Attributes:
        name: As orders carry it.
        share: Of the orders, against the others' shares.
        shortest_s: Least time from arrival to end, in seconds.
        longest_s: Most time, in seconds; at most an hour.
        every_s: Usual time between two slices, in seconds.
        follows_volume: Whether slices grow with the market's activity.
        unevenness: Standard deviation of the log of a slice's size.
        maker_share: Share of the slices that wait at the near touch.
        footprint: Its impact against that of the law.
    """

    name: str
    share: float
    shortest_s: float
    longest_s: float
    every_s: float
    follows_volume: bool
    unevenness: float
    maker_share: float
    footprint: float

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            ValueError: An attribute is outside its bounds; the message names it.
        """
        check(self, "share", "shortest_s", "every_s", above=0)
        check(self, "longest_s", least=self.shortest_s, most=_LONGEST_S)
        check(self, "unevenness", "footprint", least=0)
        check(self, "maker_share", least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Through whom an order goes.

    Attributes:
        name: As orders carry it.
        share: Of the orders, against the others' shares.
        delay_s: Mean time from the decision to the order's arrival, in seconds.
        footprint: Its impact against that of the law, on top of the algo's.
    """

    name: str
    share: float
    delay_s: float
    footprint: float

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            ValueError: An attribute is outside its bounds; the message names it.
        """
        check(self, "share", above=0)
        check(self, "delay_s", least=0, most=_LONGEST_S)
        check(self, "footprint", least=0)


@dataclass(frozen=True, kw_only=True)
class Venue:
    """Where slices are executed. The tape and the quotes are those of all venues together.

    Attributes:
        name: As fills carry it.
        share: Of the slices, against the others' shares.
        taker_fee_bps: Of the value, for a fill that crosses the spread.
        maker_fee_bps: Of the value, for a fill that waited; negative = rebate.
        depth: Share of each level of the book that can be taken here.
        fill_probability: Of a slice that waits; above 1/2 it bounds how far adverse selection can raise it.
        adverse_selection: 0 = whether a waiting slice is filled says nothing of what comes, 1 = it is filled mostly
            where the price is about to move against it.
        latency_ms: From sending to the venue's book, in milliseconds.
        fee_currency: What fees are paid in; empty = quote currency.
        fee_rate: Quote currency for one of it.
    """

    name: str
    share: float
    taker_fee_bps: float
    maker_fee_bps: float
    depth: float
    fill_probability: float
    adverse_selection: float
    latency_ms: int
    fee_currency: str = ""
    fee_rate: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            ValueError: An attribute is outside its bounds; the message names it.
        """
        check(self, "share", "fee_rate", above=0)
        check(self, "taker_fee_bps", "maker_fee_bps", above=-inf)
        check(self, "depth", above=0, most=1)
        check(self, "fill_probability", "adverse_selection", least=0, most=1)
        check(self, "latency_ms", least=1)


_STRATEGIES = (
    Strategy(name="momentum", share=0.30, skill=0.20, believed_skill=0.20, horizon_s=1_800),
    Strategy(name="reversion", share=0.25, skill=0.08, believed_skill=0.10, horizon_s=600),
    Strategy(name="news", share=0.15, skill=0.45, believed_skill=0.40, horizon_s=300),
    Strategy(name="pairs", share=0.15, skill=0.03, believed_skill=0.35, horizon_s=3_600),
    Strategy(name="carry", share=0.15, skill=0.0, believed_skill=0.05, horizon_s=14_400),
)
_ALGOS = (
    Algo(
        name="twap",
        share=0.25,
        shortest_s=900,
        longest_s=3_600,
        every_s=300,
        follows_volume=False,
        unevenness=0.0,
        maker_share=0.5,
        footprint=1.0,
    ),
    Algo(
        name="vwap",
        share=0.25,
        shortest_s=900,
        longest_s=3_600,
        every_s=300,
        follows_volume=True,
        unevenness=0.15,
        maker_share=0.5,
        footprint=0.9,
    ),
    Algo(
        name="pov",
        share=0.25,
        shortest_s=600,
        longest_s=2_400,
        every_s=180,
        follows_volume=True,
        unevenness=0.6,
        maker_share=0.35,
        footprint=2.0,
    ),
    Algo(
        name="aggressive",
        share=0.25,
        shortest_s=1,
        longest_s=20,
        every_s=5,
        follows_volume=False,
        unevenness=0.3,
        maker_share=0.0,
        footprint=1.0,
    ),
)
_BROKERS = (
    Broker(name="HARBOUR", share=0.40, delay_s=0.3, footprint=0.9),
    Broker(name="NORTHGATE", share=0.35, delay_s=1.0, footprint=1.0),
    Broker(name="MERIDIAN", share=0.25, delay_s=45.0, footprint=2.0),
)
_VENUES = (
    Venue(
        name="ARBOR",
        share=0.40,
        taker_fee_bps=3.0,
        maker_fee_bps=-0.2,
        depth=1.0,
        fill_probability=0.75,
        adverse_selection=0.1,
        latency_ms=4,
    ),
    Venue(
        name="BEACON",
        share=0.25,
        taker_fee_bps=4.5,
        maker_fee_bps=0.5,
        depth=0.8,
        fill_probability=0.65,
        adverse_selection=0.2,
        latency_ms=8,
        fee_currency="BCN",
        fee_rate=2.5,
    ),
    Venue(
        name="COMET",
        share=0.20,
        taker_fee_bps=1.0,
        maker_fee_bps=1.0,
        depth=0.1,
        fill_probability=0.45,
        adverse_selection=0.4,
        latency_ms=15,
    ),
    Venue(
        name="DRIFT",
        share=0.15,
        taker_fee_bps=5.0,
        maker_fee_bps=-1.0,
        depth=0.6,
        fill_probability=0.5,
        adverse_selection=1.0,
        latency_ms=40,
    ),
)


@dataclass(frozen=True, kw_only=True)
class DeskParams:
    """A desk that trades in the simulated market, and how the price answers to it.

    The law: when Q of an order has been executed, the log of the mid has been pushed by
    `footprint * impact * σ * sqrt(Q / V)` in the order's direction, where σ is the hidden volatility at its arrival,
    scaled to a day, V a day's usual volume, and the footprint the algo's times the broker's. `permanent_share` of each
    push stays, the rest decays; each push has its own noise.

    Attributes:
        orders_per_day: Floor of the parent orders per symbol-day; a day has up to a tenth more.
        order_notional: Median value of an order, in quote currency.
        order_deviation: Standard deviation of the log of an order's value.
        impact: Factor of the law.
        impact_noise: Standard deviation of each push against the law's.
        permanent_share: Share of a push that stays.
        impact_half_life_s: Seconds in which half of the rest is gone.
        expected_impact: Factor of the square-root model that decisions carry: it knows neither the hour's volatility
            nor who works the order.
        partial_share: Share of the waiting slices that are filled in part only, of those that are filled.
        chase_share: Share of the waiting slices whose rest is sent across the spread at the end of their time.
        limit_share: Share of the orders with a limit.
        reject_share: Share of the orders that the broker rejects.
        cancel_share: Share of the orders that are called back halfway.
        untold_share: Share of the unfilled rests without a cancel price.
        correction_share: Share of the fills whose price or fee is told wrong at first.
        strategies: Who decides.
        algos: How orders are worked.
        brokers: Through whom.
        venues: Where.
    """

    orders_per_day: int = 160
    order_notional: float = 120_000.0
    order_deviation: float = 1.0
    impact: float = 0.9
    impact_noise: float = 0.5
    permanent_share: float = 0.4
    impact_half_life_s: float = 180.0
    expected_impact: float = 0.5
    partial_share: float = 0.25
    chase_share: float = 0.9
    limit_share: float = 0.15
    reject_share: float = 0.015
    cancel_share: float = 0.06
    untold_share: float = 0.3
    correction_share: float = 0.01
    strategies: tuple[Strategy, ...] = _STRATEGIES
    algos: tuple[Algo, ...] = _ALGOS
    brokers: tuple[Broker, ...] = _BROKERS
    venues: tuple[Venue, ...] = _VENUES

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            ValueError: A parameter is outside its bounds; the message names it.
        """
        check(self, "orders_per_day", least=1)
        check(self, "order_notional", "impact_half_life_s", above=0)
        check(self, "order_deviation", "impact", "impact_noise", "expected_impact", least=0)
        check(self, "permanent_share", "partial_share", "chase_share", "limit_share", least=0, most=1)
        check(self, "reject_share", "cancel_share", "untold_share", "correction_share", least=0, most=1)
        for role in ("strategies", "algos", "brokers", "venues"):
            names = [one.name for one in getattr(self, role)]
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{role} must have one or more, each with a name of its own, had {names}")
