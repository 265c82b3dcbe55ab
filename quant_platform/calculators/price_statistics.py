"""Statistics of trailing windows of closes, one symbol's at a time. Joint statistics of symbols live elsewhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import polars.selectors as cs

from quant_platform.calculators import rolling
from quant_platform.calculators.rolling import Array, Windows
from quant_platform.contracts._schema import INSTANT, empty
from quant_platform.contracts.enums import Status
from quant_platform.contracts.statistics import PriceStatistics

LOOKBACK_SESSIONS = 1
Z_MIN_SAMPLES = 15

_KURTOSIS_BARS = 5
_BLOCK_ROWS = 16_384  # bounds the memory of rows x window arrays, whatever the number of symbols
_NOISE = 4 * np.finfo(float).eps  # closes are rounded: returns that differ by less are equal


@dataclass(frozen=True)
class PriceStatisticsParams:
    """Window lengths in bars, band width in standard deviations, and how many bars a year has (24/7 minutes)."""

    window_bars: int = 60
    bollinger_bars: int = 20
    bollinger_width: float = 2.0
    periods_per_year: float = 525_600.0

    def __post_init__(self) -> None:
        if self.window_bars < _KURTOSIS_BARS:
            raise ValueError(f"window_bars must be >= {_KURTOSIS_BARS}, was {self.window_bars}")
        if not 2 <= self.bollinger_bars <= self.window_bars:
            raise ValueError(
                f"bollinger_bars must be between 2 and window_bars = {self.window_bars}, was {self.bollinger_bars}"
            )
        if not self.bollinger_width > 0:
            raise ValueError(f"bollinger_width must be > 0, was {self.bollinger_width}")
        if not self.periods_per_year > 0:
            raise ValueError(f"periods_per_year must be > 0, was {self.periods_per_year}")

    @property
    def bars_needed(self) -> int:
        """Bars below which the bands, the z-score or the kurtosis are null."""
        return max(self.bollinger_bars, min(Z_MIN_SAMPLES, self.window_bars), _KURTOSIS_BARS)


_DEFAULTS = PriceStatisticsParams()


def price_statistics(closes: pl.DataFrame, params: PriceStatisticsParams = _DEFAULTS) -> pl.DataFrame:
    """Return statistics of the last `window_bars` bars of each symbol, one row a bar.

    Args:
        closes: `ts_open symbol close ts_known`, any number of symbols, any row order; of the session and of
            `LOOKBACK_SESSIONS` before it. Of two rows with one symbol and ts_open the later row counts.
        params: Window lengths and the annualisation.

    Returns:
        Contract `PriceStatistics`, sorted by symbol and ts_open. A window holds bars, not minutes: a minute without
        a trade has none. Skewness and kurtosis are of log returns and bias-corrected. Null below 2 bars (std),
        3 (volatility, bipower variance), 4 (skewness, Roll's spread), 5 (kurtosis), `bollinger_bars` (the bands),
        and `Z_MIN_SAMPLES`, or a full window if that is less (z-score); and skewness, kurtosis and z-score where
        nothing varies.
        A close that is null, NaN, infinite or not positive gets a row of nulls with status `nan`, and is in no
        window: the return after it runs from the last usable close.
        Other rows have status `too_few` below `params.bars_needed` bars, else `constant` where closes or their
        returns do not vary, else `ok`.
    """
    is_usable = pl.col("close").is_finite() & (pl.col("close") > 0)
    rows = (
        closes.select("ts_open", "symbol", "close", "ts_known")
        .unique(["symbol", "ts_open"], keep="last", maintain_order=True)
        .sort("symbol", "ts_open")
        .with_columns(is_usable=is_usable.fill_null(False))
    )
    unusable = rows.filter(~pl.col("is_usable")).select(
        "ts_open",
        "symbol",
        "ts_known",
        bars_used=pl.lit(0, pl.Int64),
        periods_per_year=pl.lit(params.periods_per_year, pl.Float64),
        is_warm=False,
        status=pl.lit(Status.NAN.value),
    )
    return (
        pl.concat([empty(PriceStatistics), *_statistics(rows.filter("is_usable"), params), unusable], how="diagonal")
        .sort("symbol", "ts_open")
        .with_columns(pl.when(cs.float().is_finite()).then(cs.float()))
    )


def _statistics(rows: pl.DataFrame, params: PriceStatisticsParams) -> Iterator[pl.DataFrame]:
    """Yield the rows with their statistics, block by block; NaN or infinite where a value is null."""
    windows = _windows(rows, params) if rows.height else {}
    for start in range(0, rows.height, _BLOCK_ROWS):
        stop = start + _BLOCK_ROWS
        columns = _columns({name: w.rows(start, stop) for name, w in windows.items()}, params)
        yield (
            rows[start:stop]
            .select("ts_open", "symbol", price="close")
            .with_columns(**{name: pl.Series(values) for name, values in columns.items()})
            .with_columns(pl.col("ts_known").cast(INSTANT))
        )


@np.errstate(all="ignore")  # prices from one end of the floats to the other: null in the end
def _windows(rows: pl.DataFrame, params: PriceStatisticsParams) -> dict[str, Windows]:
    price = rows.get_column("close").to_numpy()
    rank = rows.select(pl.int_range(pl.len()).over("symbol")).to_series().to_numpy()
    known = rows.get_column("ts_known").to_physical().to_numpy()
    previous = np.where(rank > 0, np.roll(price, 1), price)
    change = price - previous
    log_return = np.log1p(change / previous)
    product = np.abs(log_return * np.roll(log_return, 1))
    width = params.window_bars
    return {
        "price": rolling.trailing(price, rank, width),
        "band": rolling.trailing(price, rank, params.bollinger_bars),
        "known": rolling.trailing(known, rank, width),
        "return": rolling.trailing(log_return, rank - 1, width - 1),
        "squared_return": rolling.trailing(log_return**2, rank - 1, width - 1),
        "product": rolling.trailing(product, rank - 2, width - 2),
        "change": rolling.trailing(change, rank - 2, width - 2),
        "change_before": rolling.trailing(np.roll(change, 1), rank - 2, width - 2),
    }


@np.errstate(all="ignore")  # a window of too few values divides by zero: null in the end
def _columns(windows: Mapping[str, Windows], params: PriceStatisticsParams) -> dict[str, Array]:
    prices, known = windows["price"], windows["known"]
    mean, deviations = prices.mean_and_deviations()
    std = rolling.standard_deviation(deviations, prices.count)
    returns = _return_statistics(windows, params)
    is_constant = (std == 0) | (returns["volatility"] == 0)
    return {
        "bars_used": prices.count,
        "mean": mean,
        "std": std,
        **_order_statistics(prices),
        **returns,
        "roll_spread": _roll_spread(windows),
        **_bollinger_bands(windows["band"], params),
        "z_score": rolling.z_score(prices, min_samples=min(Z_MIN_SAMPLES, params.window_bars)),
        "periods_per_year": np.full(len(std), float(params.periods_per_year)),
        "is_warm": prices.count == params.window_bars,
        "status": np.select(
            [prices.count < params.bars_needed, is_constant],
            [Status.TOO_FEW.value, Status.CONSTANT.value],
            Status.OK.value,
        ),
        "ts_known": np.where(known.is_present, known.values, np.iinfo(np.int64).min).max(axis=1),
    }


def _order_statistics(prices: Windows) -> dict[str, Array]:
    ordered = np.sort(np.where(prices.is_present, prices.values, np.inf), axis=1)
    last = prices.count - 1

    def quantile(share: float) -> Array:
        place = share * last
        ends = np.column_stack([np.floor(place), np.ceil(place)]).astype(np.int64)
        low, high = np.take_along_axis(ordered, ends, axis=1).T
        between: Array = low + (place - ends[:, 0]) * (high - low)
        return between

    return {
        "min": quantile(0),
        "max": quantile(1),
        "q25": quantile(0.25),
        "median": quantile(0.5),
        "q75": quantile(0.75),
    }


def _return_statistics(windows: Mapping[str, Windows], params: PriceStatisticsParams) -> dict[str, Array]:
    _, deviations = windows["return"].mean_and_deviations(_NOISE)
    count = windows["return"].count
    n = count.astype(float)
    std = rolling.standard_deviation(deviations, count)
    scaled = deviations / std[:, None]
    third, fourth = (scaled**3).sum(axis=1), (scaled**4).sum(axis=1)
    excess = n * (n + 1) / ((n - 1) * (n - 2) * (n - 3)) * fourth - 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
    return {
        "volatility": std * np.sqrt(params.periods_per_year),
        "skewness": np.where(n >= 3, n / ((n - 1) * (n - 2)) * third, np.nan),
        "excess_kurtosis": np.where(n >= 4, excess, np.nan),
        "realised_variance": np.where(n >= 1, windows["squared_return"].total(), np.nan),
        "bipower_variance": np.where(n >= 2, np.pi / 2 * windows["product"].total(), np.nan),
    }


def _roll_spread(windows: Mapping[str, Windows]) -> Array:
    noise = _NOISE * np.abs(windows["price"].values).max(axis=1)
    _, now = windows["change"].mean_and_deviations(noise)
    _, before = windows["change_before"].mean_and_deviations(noise)
    count = windows["change"].count
    covariance = (now * before).sum(axis=1) / (count - 1)
    return np.where((count >= 2) & (covariance < 0), 2 * np.sqrt(-covariance), np.nan)


def _bollinger_bands(closes: Windows, params: PriceStatisticsParams) -> dict[str, Array]:
    mean, deviations = closes.mean_and_deviations()
    reach = params.bollinger_width * rolling.standard_deviation(deviations, closes.count)
    is_full = closes.count == params.bollinger_bars
    bands = {"bollinger_mid": mean, "bollinger_upper": mean + reach, "bollinger_lower": mean - reach}
    return {name: np.where(is_full, band, np.nan) for name, band in bands.items()}
