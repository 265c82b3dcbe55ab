"""What option chains and volatility indices say of volatility: replicated indices, published ones, regimes."""

from typing import ClassVar

from quant_platform.contracts._schema import Contract, choice, count, day, instant, real, text
from quant_platform.contracts.enums import Status, VolRegime


class VarianceStrip(Contract):
    """The variance that a strip of options prices, one row a snapshot and settlement."""

    table: ClassVar[str] = "volatility/variance_strips"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "ts_expiry")

    ts_event = instant("When the chain stood so.")
    symbol = text("The platform's unique name of the underlying.")
    expiry = day("Date of expiry; series that settle at two times of it are two strips.")
    ts_expiry = instant("When the strip settles.")
    minutes = real("Minutes to settlement.", unit="min")
    atm_strike = real("Strike where call and put differ least.", unit="quote currency", nullable=True, min_exclusive=0)
    forward = real("Forward by put-call parity at that strike.", unit="quote currency", nullable=True, min_exclusive=0)
    k0 = real("Highest strike up to the forward.", unit="quote currency", nullable=True, min_exclusive=0)
    variance = real("Variance a year.", unit="per year", nullable=True, min=0)
    n_strikes = count("Strikes in the strip.")
    contracts_skipped = count("Contracts whose price or strike is unusable; an option that nobody bids for is none.")
    status = choice("Why values are null.", Status)
    ts_known = instant("Latest receipt of the strip's contracts.")


class Vix1dProxy(Contract):
    """A volatility index over a short horizon, from our own strips, one row a snapshot.

    The arithmetic is that of the exchange's 30-day index, in calendar time. It is not the exchange's VIX1D.
    """

    table: ClassVar[str] = "volatility/vix1d_proxy"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event",)

    ts_event = instant("When the chain stood so.")
    symbol = text("The platform's unique name of the underlying.")
    vix1d_proxy = real("100 · volatility a year, over the horizon.", unit="vol points", nullable=True, min=0)
    horizon_minutes = real("The horizon.", unit="min", min_exclusive=0)
    near_ts_expiry = instant("Settlement of the last strip up to the horizon.", nullable=True)
    near_variance = real("Its variance a year.", unit="per year", nullable=True, min=0)
    next_ts_expiry = instant("Settlement of the first strip beyond the horizon.", nullable=True)
    next_variance = real("Its variance a year.", unit="per year", nullable=True, min=0)
    status = choice("Why the value is null; `too_few` where strips do not enclose the horizon.", Status)
    ts_known = instant("Latest receipt of the two strips' contracts; of all strips where they do not enclose it.")


class VolIndex(Contract):
    """A reading of a volatility index, as a source publishes it."""

    table: ClassVar[str] = "volatility/vix1d"
    sorted_by: ClassVar[tuple[str, ...]] = ("source", "ts_event")

    ts_event = instant("The time that the source gives the reading.")
    ts_recv = instant("Our clock at receipt.")
    symbol = text("The platform's name of the index.")
    source = text("Who published it.")
    value = real("The reading.", unit="vol points", min_exclusive=0)


class VolIndexRegime(Contract):
    """Where each reading of a volatility index stands in its source's history."""

    table: ClassVar[str] = "volatility/vix1d_regime"
    sorted_by: ClassVar[tuple[str, ...]] = ("source", "ts_event")

    ts_event = instant("The time that the source gives the reading.")
    symbol = text("The platform's name of the index.")
    source = text("Who published it.")
    value = real("The reading.", unit="vol points", nullable=True, min_exclusive=0)
    z_score = real("(value - mean)/std of the window, which includes it; ddof 1.", unit="1", nullable=True)
    percentile = real("Share of the window at or below it.", unit="1", nullable=True, min_exclusive=0, max=1)
    samples = count("Readings in the window, at most `window`.")
    change_5m = real(
        "Change since the newest reading 5 min older or more; null where that one is above 10 min older.",
        unit="vol points",
        nullable=True,
    )
    change_1h = real(
        "Change since the newest reading 1 h older or more; null where that one is above 2 h older.",
        unit="vol points",
        nullable=True,
    )
    regime = choice("The first whose conditions hold; a null holds none.", VolRegime, nullable=True)
    window = count("Most readings in a window.")
    min_samples = count("Readings below which there is no z-score.")
    shock_value = real("Reading from which it is a shock.", unit="vol points")
    shock_change_5m = real("|change_5m| from which it is a shock.", unit="vol points")
    elevated_value = real("Reading from which it is elevated.", unit="vol points")
    elevated_change_1h = real("|change_1h| from which it is elevated.", unit="vol points")
    elevated_z_score = real("z-score from which it is elevated.", unit="1")
    benign_value = real("Reading up to which it may be benign.", unit="vol points")
    benign_z_score = real("z-score up to which it may be benign.", unit="1")
    status = choice("Why values are null.", Status)
    ts_known = instant("Latest receipt of the readings used.")
