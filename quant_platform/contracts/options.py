"""Option chains as venues publish them, their greeks, what is wrong with them, and the surface of their volatilities.

A chain is what the venue claims: a greek may be out of range, a quote crossed, a contract past its expiry. Calculators
say why they pass over one.
"""

from typing import ClassVar

from quant_platform.contracts._schema import Contract, choice, count, day, flag, instant, real, text
from quant_platform.contracts.enums import GreeksSource, OptionType, Status


class OptionChain(Contract):
    """One contract of a chain at one instant.

    Prices are for one unit of the underlying, and greeks in one unit whatever the venue's: per 1.00 of the underlying,
    per day, per vol point. `multiplier` turns them into those of a contract.
    """

    table: ClassVar[str] = "options/chain"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "contract")

    ts_event = instant("When the venue says that the chain stood so.")
    ts_recv = instant("Our clock at receipt; null in recordings that do not tell.", nullable=True)
    symbol = text("The platform's unique name of the underlying.")
    venue = text("The feed's name.")
    contract = text("The OSI symbol without blanks, or the venue's name of the contract.")
    type = choice("C call, P put.", OptionType)
    strike = real("Strike.", unit="quote currency", min_exclusive=0)
    expiry = day("Date of expiry, as the contract's name says it.")
    ts_expiry = instant(
        "When it settles: 16:00 in New York, 09:30 where the root settles in the morning, on the last weekday up to "
        "the expiry; 08:00 UTC for crypto."
    )
    multiplier = real(
        "Units of the underlying in one contract; null where the contract was adjusted and delivers something else.",
        unit="units per contract",
        nullable=True,
        min_exclusive=0,
    )
    bid = real("Best bid; null where nobody bids.", unit="quote currency", nullable=True, min_exclusive=0)
    ask = real("Best offer; null where nobody offers.", unit="quote currency", nullable=True, min_exclusive=0)
    bid_size = real("Contracts at the best bid; null if not told.", unit="contracts", nullable=True, min=0)
    ask_size = real("Contracts at the best offer; null if not told.", unit="contracts", nullable=True, min=0)
    last = real(
        "Price of the last trade; null where none is known.", unit="quote currency", nullable=True, min_exclusive=0
    )
    iv = real(
        "The venue's implied volatility, 0.20 = 20 %; null where it gives none, or 0.",
        unit="per year",
        nullable=True,
        min_exclusive=0,
    )
    delta = real("The venue's delta.", unit="1", nullable=True)
    gamma = real("The venue's gamma.", unit="per unit of price", nullable=True)
    vega = real("The venue's vega.", unit="quote currency per vol point", nullable=True)
    theta = real("The venue's theta.", unit="quote currency per day", nullable=True)
    open_interest = real("Open contracts; null where it is not told.", unit="contracts", nullable=True, min=0)
    volume = real(
        "Contracts traded in the day, or in the 24 hours, that the venue counts; null where it is not told.",
        unit="contracts",
        nullable=True,
        min=0,
    )
    underlying_price = real(
        "Price of the underlying, or of the forward that the venue prices the contract by; null where it is not told.",
        unit="quote currency",
        nullable=True,
        min_exclusive=0,
    )


class OptionGreeks(Contract):
    """How the value of one contract of a chain moves, one row a contract and instant.

    The venue's delta, gamma, vega and theta win where it gives a delta and a gamma that can be; the rest, and all where
    it does not, is Black–Scholes–Merton at `iv`. Per 1.00 of the underlying, of volatility and of the
    rate; theta and charm per year of 365 days that passes. All values are null where the status is not `ok`, but for
    the venue's own where only a volatility is missing.
    """

    table: ClassVar[str] = "options/greeks"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "contract")

    ts_event = instant("When the venue says that the chain stood so.")
    symbol = text("The platform's unique name of the underlying.")
    contract = text("The OSI symbol without blanks, or the venue's name of the contract.")
    t_years = real("Time to settlement in years of 365 days; null where it is not known.", unit="years", nullable=True)
    iv = real(
        "Volatility that the model takes: the venue's, else what the mid implies.",
        unit="per year",
        nullable=True,
        min_exclusive=0,
    )
    iv_source = choice("Whose volatility it is: the venue's, or the model's from the mid.", GreeksSource, nullable=True)
    model_price = real("Value of the model.", unit="quote currency", nullable=True, min=0)
    delta = real("Change of value per underlying.", unit="1", nullable=True, min=-1, max=1)
    gamma = real("Change of delta per underlying.", unit="per unit of price", nullable=True, min=0)
    vega = real("Change of value per volatility.", unit="quote currency per 1.00 vol", nullable=True)
    theta_per_year = real("Change of value as time passes.", unit="quote currency per year", nullable=True)
    rho = real("Change of value per rate.", unit="quote currency per 1.00 rate", nullable=True)
    vanna = real("Change of delta per volatility.", unit="per 1.00 vol", nullable=True)
    charm_per_year = real("Change of delta as time passes.", unit="per year", nullable=True)
    source = choice("Whose delta and gamma these are; null where there are none.", GreeksSource, nullable=True)
    status = choice("Why values are null.", Status)
    ts_known = instant("Receipt of the chain; null in recordings that do not tell.", nullable=True)


class ChainQuality(Contract):
    """What is wrong with a snapshot of a chain as the venue published it; one row a snapshot."""

    table: ClassVar[str] = "options/chain_quality"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event",)

    ts_event = instant("Time of the snapshot.")
    symbol = text("The platform's unique name of the underlying.")
    contracts = count("Contracts in it.")
    two_sided = count("Those with a bid and an offer.")
    one_sided = count("Those with one of them.")
    without_open_interest = count("Those whose open interest is not told.")
    crossed = count("Those whose bid is above the offer.")
    crossed_share = real("Of those with both.", unit="1", nullable=True, min=0, max=1)
    parity_pairs = count("Strikes where both the call and the put have two quotes that do not cross.")
    parity_violations = count("Those where the expiry's forward is outside what the quotes leave room for.")
    parity_share = real("Of those strikes.", unit="1", nullable=True, min=0, max=1)
    underlying_price = real(
        "What the venue says, at the next expiry.", unit="quote currency", nullable=True, min_exclusive=0
    )
    parity_price = real("What put-call parity says there.", unit="quote currency", nullable=True, min_exclusive=0)
    underlying_gap = real("The first ÷ the second - 1.", unit="1", nullable=True)
    open_interest_compared = count("Contracts that the session before listed too.", nullable=True)
    open_interest_change = real("Their open interest ÷ that of then - 1.", unit="1", nullable=True, min=-1)
    is_crossed = flag("Whether too many are crossed.")
    is_parity_broken = flag("Whether too many break parity.")
    is_underlying_stale = flag("Whether the underlying's price is of another time than the quotes.")
    is_open_interest_off = flag("Whether open interest jumped.")
    status = choice("`no_data` where no contract has two quotes.", Status)
    ts_known = instant("When the snapshot was known.")


class VolSurface(Contract):
    """A slice of the surface as raw SVI, one row a snapshot and settlement.

    Total variance `w(k) = a + b (rho (k - m) + sqrt((k - m)² + s²))` at `k = log(strike / forward)`; the implied
    volatility is `sqrt(w / years)`.
    """

    table: ClassVar[str] = "options/vol_surface"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "ts_expiry")

    ts_event = instant("When the chain stood so.")
    symbol = text("The platform's unique name of the underlying.")
    expiry = day("Date of expiry; series that settle at two times of it are two slices.")
    ts_expiry = instant("When the slice settles.")
    years = real("Years of 365 days to settlement.", unit="years")
    forward = real(
        "Forward that `k` is relative to; null without a usable contract.",
        unit="quote currency",
        nullable=True,
        min_exclusive=0,
    )
    k_low = real("Lowest `k` with a usable contract.", unit="1", nullable=True)
    k_high = real("Highest `k` with a usable contract.", unit="1", nullable=True)
    a = real("Level.", unit="1", nullable=True)
    b = real("Mean slope of the wings.", unit="1", nullable=True, min=0)
    rho = real("Tilt; 0 where `b` is 0.", unit="1", nullable=True, min=-1, max=1)
    m = real("Place of the vertex.", unit="1", nullable=True)
    s = real("Width of the vertex.", unit="1", nullable=True, min_exclusive=0)
    rmse = real("Root weighted mean square of what the fit leaves of total variance.", unit="1", nullable=True, min=0)
    min_g = real(
        "Least g from `k_low` to `k_high`, which has the sign of the price's density; null where total variance is "
        "not positive.",
        unit="1",
        nullable=True,
    )
    arbitrage = flag("Whether a butterfly costs less than nothing: `min_g` is negative or null.", nullable=True)
    calendar_arbitrage = flag(
        "Whether total variance falls anywhere since the settlement before; null without one, or where no `k` is "
        "quoted in both.",
        nullable=True,
    )
    n = count("Points fitted: strikes with a usable contract out of the money.")
    status = choice("Why the parameters are null.", Status)
    ts_known = instant("Latest receipt of the slice's contracts, and of the slice that it is held against.")
