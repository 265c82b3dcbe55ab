"""What holders and dealers of an option chain must trade as the underlying, volatility and time move."""

from typing import ClassVar

from quant_platform.contracts._schema import Contract, choice, count, day, instant, real, text
from quant_platform.contracts.enums import DirectionalBias, Exposure, SignConvention, Status


class GammaExposure(Contract):
    """Gamma and delta exposure of a snapshot of a chain.

    One row a strike and expiry, one a strike over all its expiries, and one, without a strike, over all.
    """

    table: ClassVar[str] = "options/gamma_exposure"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "strike", "expiry")

    ts_event = instant("Time of the snapshot.")
    symbol = text("The platform's unique name of the underlying.")
    strike = real("Null in the row over all.", unit="quote currency", nullable=True, min_exclusive=0)
    expiry = day("Null in the rows over all expiries.", nullable=True)
    gex_gross = real(
        "Sum of gamma · open interest · multiplier · S² · 0.01, puts like calls.",
        unit="quote currency per 1 %",
        nullable=True,
        min=0,
    )
    gex_net = real("The same of calls less that of puts.", unit="quote currency per 1 %", nullable=True)
    dex_gross = real("Sum of |delta| · open interest · multiplier · S.", unit="quote currency", nullable=True, min=0)
    dex_net = real("Sum of delta · open interest · multiplier · S.", unit="quote currency", nullable=True)
    sign_convention = choice(
        "Which way dealers are taken to hold options; with `gross`, no zero gamma.", SignConvention
    )
    underlying_price = real("S; in the row over all.", unit="quote currency", nullable=True, min_exclusive=0)
    max_gex_strike = real(
        "Strike of the largest `gex_gross`, the nearest to S of equal ones; in the row over all.",
        unit="quote currency",
        nullable=True,
        min_exclusive=0,
    )
    zero_gamma = real(
        "Root of the net gamma nearest to S; in the row over all, null without one.",
        unit="quote currency",
        nullable=True,
        min_exclusive=0,
    )
    zero_gamma_count = count(
        "Roots in the searched range; in the row over all, null where none was searched.", nullable=True
    )
    zero_gammas = text("JSON: the roots, ascending; null where `zero_gamma_count` is.", nullable=True)
    zero_gamma_from = real("Where the search began.", unit="quote currency", nullable=True, min_exclusive=0)
    zero_gamma_to = real("Where it ended.", unit="quote currency", nullable=True, min_exclusive=0)
    directional_bias = choice(
        "From dex_net ÷ dex_gross; in the row over all, null without deltas.", DirectionalBias, nullable=True
    )
    contracts_used = count("Contracts that count; in the row over all.", nullable=True)
    contracts_skipped = count("Contracts that do not; in the row over all.", nullable=True)
    status = choice("Why values are null.", Status)
    ts_known = instant("When the snapshot was known.")


class DealerFlow(Contract):
    """What keeps the holders of a chain hedged as the underlying, volatility and time move.

    One row an expiry, and one, without an expiry, over all. `_net` counts calls less puts.
    """

    table: ClassVar[str] = "options/dealer_flow"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "expiry")

    ts_event = instant("Time of the snapshot.")
    symbol = text("The platform's unique name of the underlying.")
    expiry = day("Null in the row over all.", nullable=True)
    vanna_shares_per_vol_pt = real("Change of delta.", unit="base units per vol point", nullable=True)
    vanna_notional_per_vol_pt = real("The same · S.", unit="quote currency per vol point", nullable=True)
    vanna_net_shares_per_vol_pt = real("Change of delta, net.", unit="base units per vol point", nullable=True)
    vanna_net_notional_per_vol_pt = real("The same · S.", unit="quote currency per vol point", nullable=True)
    charm_shares_per_day = real("Change of delta.", unit="base units per calendar day", nullable=True)
    charm_notional_per_day = real("The same · S.", unit="quote currency per calendar day", nullable=True)
    charm_net_shares_per_day = real("Change of delta, net.", unit="base units per calendar day", nullable=True)
    charm_net_notional_per_day = real("The same · S.", unit="quote currency per calendar day", nullable=True)
    gamma_shares_per_pct = real("Change of delta.", unit="base units per 1 %", nullable=True)
    gamma_notional_per_pct = real("The same · S.", unit="quote currency per 1 %", nullable=True)
    gamma_net_shares_per_pct = real("Change of delta, net.", unit="base units per 1 %", nullable=True)
    gamma_net_notional_per_pct = real("The same · S.", unit="quote currency per 1 %", nullable=True)
    shares_per_pct_move = real("Hedging impact: gamma + vanna · `vol_beta`.", unit="base units per 1 %", nullable=True)
    notional_per_pct_move = real("The same · S.", unit="quote currency per 1 %", nullable=True)
    vol_beta = real("Change of volatility taken for +1 % of S.", unit="vol points per 1 %")
    open_interest = real("Of the contracts that count.", unit="contracts", nullable=True, min=0)
    underlying_price = real("S; in the row over all.", unit="quote currency", nullable=True, min_exclusive=0)
    contracts_used = count("Contracts that count; in the row over all.", nullable=True)
    contracts_skipped = count("Contracts that do not; in the row over all.", nullable=True)
    status = choice("Why values are null.", Status)
    ts_known = instant("When the snapshot was known.")


class Skew(Contract):
    """How much dearer puts are than calls at one |delta|, in volatility.

    One row an expiry, and one, without an expiry, that repeats the nearest expiry with both sides.
    """

    table: ClassVar[str] = "options/skew"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "expiry")

    ts_event = instant("Time of the snapshot.")
    symbol = text("The platform's unique name of the underlying.")
    expiry = day("Null in the headline row.", nullable=True)
    headline_expiry = day("The expiry that the headline row repeats.", nullable=True)
    skew = real("Volatility of the put less that of the call.", unit="1 per √year", nullable=True)
    skew_ratio = real("Volatility of the put ÷ that of the call - 1.", unit="1", nullable=True)
    call_strike = real("Null where no call is near enough.", unit="quote currency", nullable=True, min_exclusive=0)
    call_delta = real("Of that call.", unit="1", nullable=True, min=-1, max=1)
    call_iv = real("Of that call.", unit="1 per √year", nullable=True, min_exclusive=0)
    put_strike = real("Null where no put is near enough.", unit="quote currency", nullable=True, min_exclusive=0)
    put_delta = real("Of that put.", unit="1", nullable=True, min=-1, max=1)
    put_iv = real("Of that put.", unit="1 per √year", nullable=True, min_exclusive=0)
    status = choice("Why `skew` is null; a side that was found stands all the same.", Status)
    ts_known = instant("When the snapshot was known.")


class ExposureHistory(Contract):
    """Where an exposure stands among those of the last snapshots."""

    table: ClassVar[str] = "options/exposure_history"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_event", "exposure")

    ts_event = instant("Time of the snapshot.")
    symbol = text("The platform's unique name of the underlying.")
    exposure = choice("What the value is.", Exposure)
    value = real("Of the whole chain, in the unit of its own table.", unit="", nullable=True)
    z_score = real("(value - mean) ÷ std; null below the least samples and if std = 0.", unit="1", nullable=True)
    percentile = real("Share of the window at or below the value.", unit="1", nullable=True, min=0, max=1)
    mean = real("Of the window.", unit="", nullable=True)
    std = real("Of the window, ddof 1; null below 2 samples.", unit="", nullable=True, min=0)
    samples = count("Snapshots in the window, this one included.")
    status = choice("Why `z_score` is null; the others stand also where it is not `ok`.", Status)
    ts_known = instant("When the snapshot was known.")
