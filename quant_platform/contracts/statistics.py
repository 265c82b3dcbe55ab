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
