"""Option chains as venues publish them. What is computed from a chain lives elsewhere.

A chain is what the venue claims: a greek may be out of range, a quote crossed, a contract past its expiry. Calculators
say why they pass over one.
"""

from typing import ClassVar

from quant_platform.contracts._schema import Contract, choice, day, instant, real, text
from quant_platform.contracts.enums import GreeksSource, OptionType, Status


class OptionChain(Contract):
    """One contract of a chain at one instant; no table of the lake yet.

    Prices are for one unit of the underlying, and greeks in one unit whatever the venue's: per 1.00 of the underlying,
    per day, per vol point. `multiplier` turns them into those of a contract.
    """

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
    """How the value of one contract of a chain moves, one row a contract and instant; no table of the lake.

    The venue's delta, gamma, vega and theta win where it gives a delta and a gamma that can be; the rest, and all where
    it does not, is Black–Scholes–Merton at the venue's volatility. Per 1.00 of the underlying, of volatility and of the
    rate; theta and charm per year of 365 days that passes. All values are null where the status is not `ok`, but for
    the venue's own where it is `invalid_vol`.
    """

    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "contract")

    ts_event = instant("When the venue says that the chain stood so.")
    symbol = text("The platform's unique name of the underlying.")
    contract = text("The OSI symbol without blanks, or the venue's name of the contract.")
    t_years = real("Time to settlement in years of 365 days; null where it is not known.", unit="years", nullable=True)
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
