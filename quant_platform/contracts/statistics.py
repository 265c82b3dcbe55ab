"""Statistics of prices over windows."""

from typing import ClassVar

from quant_platform.contracts._schema import Contract, choice, count, flag, instant, real, text
from quant_platform.contracts.enums import Status


class PriceStatistics(Contract):
    """Trailing-window statistics of one-minute closes, one row a bar. Null, never 0, where a window is too short."""

    table: ClassVar[str] = "statistics/price_statistics"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_open",)

    ts_open = instant("Start of the bar that closes the window.")
    symbol = text("The platform's unique name of the instrument.")
    price = real(
        "Close of that bar; null where it was no number.",
        unit="quote currency",
        nullable=True,
        min_exclusive=0,
    )
    bars_used = count("Bars in the window, at most `window_bars`.")
    mean = real("Mean close.", unit="quote currency", nullable=True)
    std = real("Standard deviation of closes, ddof 1; null below 2.", unit="quote currency", nullable=True, min=0)
    min = real("Lowest close.", unit="quote currency", nullable=True)
    max = real("Highest close.", unit="quote currency", nullable=True)
    q25 = real("First quartile, linear interpolation.", unit="quote currency", nullable=True)
    median = real("Median.", unit="quote currency", nullable=True)
    q75 = real("Third quartile, linear interpolation.", unit="quote currency", nullable=True)
    volatility = real(
        "Std of log returns (ddof 1), annualised by `periods_per_year`.",
        unit="per year",
        nullable=True,
        min=0,
    )
    skewness = real("Bias-corrected skewness of log returns.", unit="1", nullable=True)
    excess_kurtosis = real("Bias-corrected excess kurtosis of log returns.", unit="1", nullable=True)
    roll_spread = real(
        "Roll's spread 2·sqrt(-cov(dp_t, dp_t-1)); null if cov >= 0.",
        unit="quote currency",
        nullable=True,
        min=0,
    )
    realised_variance = real("Sum of squared log returns.", unit="1", nullable=True, min=0)
    bipower_variance = real("pi/2 · sum |r_t||r_t-1|.", unit="1", nullable=True, min=0)
    bollinger_mid = real("Mean of the Bollinger window.", unit="quote currency", nullable=True)
    bollinger_upper = real("Mid + width · std.", unit="quote currency", nullable=True)
    bollinger_lower = real("Mid - width · std.", unit="quote currency", nullable=True)
    z_score = real("(price - mean)/std over the window, ddof 1, x included; null if std = 0.", unit="1", nullable=True)
    periods_per_year = real("Annualisation used.", unit="bars per year", min_exclusive=0)
    is_warm = flag("Whether the window was full, earlier sessions included.")
    status = choice("Why values are null; mean, std and range stand also where it is not `ok`.", Status)
    ts_known = instant("Latest known time of the bars in the window.")


class Liquidity(Contract):
    """Five-minute liquidity of the quotes; no row where no quote came."""

    table: ClassVar[str] = "statistics/liquidity"
    sorted_by: ClassVar[tuple[str, ...]] = ("ts_open",)

    ts_open = instant("Start of the interval [ts_open, ts_open + 300 s).")
    symbol = text("The platform's unique name of the instrument.")
    spread_bps = real(
        "Time-weighted (ask - bid)/mid while both sides stood and were not crossed; null where they never did.",
        unit="bps",
        nullable=True,
        min=0,
    )
    quote_count = count("Quotes that came in the interval, valid or not.")
    status = choice("Why the spread is null.", Status)
    ts_known = instant("Latest receipt of the quotes used, never before the interval's end.")


class Correlation(Contract):
    """How the one-minute returns of two symbols move together, one row a pair of symbols; no table of the lake."""

    sorted_by: ClassVar[tuple[str, ...]] = ("symbol_a", "symbol_b")

    ts_event = instant("End of the newest minute in the window.")
    symbol_a = text("The symbol that comes first in the alphabet.")
    symbol_b = text("The other symbol.")
    correlation = real("Pearson's, of the log returns that both have.", unit="1", nullable=True, min=-1, max=1)
    pairs = count("Minutes of which both have a return.")
    is_flagged = flag("Whether |correlation| reaches the risk threshold; null where it is null.", nullable=True)
    status = choice("Why `correlation` is null.", Status)
    ts_known = instant("Latest known time of the two symbols' bars in the window.")


class PortfolioTotals(Contract):
    """Totals over symbols, one row a sector and one, without a sector, of all; no table of the lake.

    A mean or sum is over the symbols that know the value, counted beside it, and null where none does.
    """

    sorted_by: ClassVar[tuple[str, ...]] = ("sector",)

    sector = text("The sector; null in the row of all symbols.", nullable=True)
    ts_event = instant("Latest market time of what was used; null where none is known.", nullable=True)
    symbols = count("Symbols.")
    avg_vpin = real("Mean VPIN.", unit="1", nullable=True, min=0, max=1)
    vpin_count = count("Symbols whose VPIN is known.")
    total_gex_gross = real("Sum of gamma exposures, puts like calls.", unit="USD per 1 %", nullable=True)
    total_gex_net = real("Sum of gamma exposures, calls less puts.", unit="USD per 1 %", nullable=True)
    gex_count = count("Symbols whose net gamma exposure is known.")
    total_dex_gross = real("Sum of delta exposures' amounts.", unit="USD", nullable=True)
    total_dex_net = real("Sum of delta exposures.", unit="USD", nullable=True)
    dex_count = count("Symbols whose net delta exposure is known.")
    total_vanna_notional = real("Sum of vanna flows.", unit="USD per vol point", nullable=True)
    vanna_count = count("Symbols whose vanna flow is known.")
    total_charm_notional = real("Sum of charm flows.", unit="USD per day", nullable=True)
    charm_count = count("Symbols whose charm flow is known.")
    total_hedging_notional = real("Sum of hedging flows.", unit="USD per 1 %", nullable=True)
    hedging_count = count("Symbols whose hedging flow is known.")
    toxic_count = count("Symbols whose toxicity level is high; null where no level is known.", nullable=True)
    avg_toxicity = real("Mean adjusted toxicity.", unit="1", nullable=True, min=0, max=1)
    toxicity_count = count("Symbols whose adjusted toxicity is known.")
    total_volume = real(
        "Sum of volumes, each in the base units of its own symbol.", unit="base units", nullable=True, min=0
    )
    volume_count = count("Symbols whose volume is known.")
    institutional_notional_share = real("Mean share of notional.", unit="1", nullable=True, min=0, max=1)
    retail_notional_share = real("Mean share of notional.", unit="1", nullable=True, min=0, max=1)
    unclassified_notional_share = real("Mean share of notional.", unit="1", nullable=True, min=0, max=1)
    flow_mix_count = count("Symbols of which all three shares are known.")
    institutional_net_notional = real(
        "Sum of what institutions bought less sold.", unit="quote currency", nullable=True
    )
    institutional_net_count = count("Symbols whose institutional net notional is known.")
    retail_net_notional = real("Sum of what retail bought less sold.", unit="quote currency", nullable=True)
    retail_net_count = count("Symbols whose retail net notional is known.")
