"""What many symbols say together: the totals of a portfolio and its sectors, and how returns move together.

Statistics of one symbol's prices stand in `price_statistics`; a hedge of one symbol by another is not here either.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import polars.selectors as cs

from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.enums import Level, Status
from quant_platform.contracts.statistics import Correlation, PortfolioTotals

Array = npt.NDArray[Any]

PAYLOADS = pl.Schema(
    {
        "symbol": pl.String(),
        "sector": pl.String(),
        "ts_event": INSTANT,
        "vpin": pl.Float64(),
        "gex_gross": pl.Float64(),
        "gex_net": pl.Float64(),
        "dex_gross": pl.Float64(),
        "dex_net": pl.Float64(),
        "vanna_notional": pl.Float64(),
        "charm_notional": pl.Float64(),
        "hedging_notional": pl.Float64(),
        "toxicity_adjusted": pl.Float64(),
        "toxicity_adjusted_level": pl.String(),
        "volume": pl.Float64(),
        "institutional_notional_share": pl.Float64(),
        "retail_notional_share": pl.Float64(),
        "unclassified_notional_share": pl.Float64(),
        "institutional_net_notional": pl.Float64(),
        "retail_net_notional": pl.Float64(),
    }
)
"""What `portfolio` reads of each symbol."""

MINUTE_NS = 60_000_000_000
_FLOW_MIX = ("institutional_notional_share", "retail_notional_share", "unclassified_notional_share")
_SUMS = {
    "total_gex_gross": "gex_gross",
    "total_gex_net": "gex_net",
    "total_dex_gross": "dex_gross",
    "total_dex_net": "dex_net",
    "total_vanna_notional": "vanna_notional",
    "total_charm_notional": "charm_notional",
    "total_hedging_notional": "hedging_notional",
    "total_volume": "volume",
    "institutional_net_notional": "institutional_net_notional",
    "retail_net_notional": "retail_net_notional",
}
_MEANS = {"avg_vpin": "vpin", "avg_toxicity": "toxicity_adjusted"} | {share: share for share in _FLOW_MIX}
_COUNTS = {
    "vpin_count": "vpin",
    "gex_count": "gex_net",
    "dex_count": "dex_net",
    "vanna_count": "vanna_notional",
    "charm_count": "charm_notional",
    "hedging_count": "hedging_notional",
    "toxicity_count": "toxicity_adjusted",
    "volume_count": "volume",
    "flow_mix_count": _FLOW_MIX[0],
    "institutional_net_count": "institutional_net_notional",
    "retail_net_count": "retail_net_notional",
}
_NOISE = 4 * np.finfo(float).eps  # closes are rounded: returns that differ by less are equal
_CANCELLED = 1e-4  # of a sum of squares that a mean takes away all but this share, four digits are lost
_BLOCK_PAIRS = 4_096  # bounds the memory of pairs x minutes arrays
_DIGITS = 9  # a correlation is rounded before it is held against the threshold, which it may miss by its last bits


@dataclass(frozen=True, kw_only=True)
class CorrelationParams:
    """What a correlation needs, and when it is much.

    Attributes:
        min_pairs: Returns that two symbols have in common, below which their correlation is null.
        flag: Absolute correlation from which a pair is flagged.
        window_bars: Most one-minute bars of a symbol.
    """

    min_pairs: int = 30
    flag: float = 0.8
    window_bars: int = 390

    def __post_init__(self) -> None:
        if not 2 <= self.min_pairs < self.window_bars:
            raise ValueError(
                f"2 <= min_pairs < window_bars must hold, were {self.min_pairs} and {self.window_bars}: "
                "n bars have n - 1 returns"
            )
        if not 0 < self.flag <= 1:
            raise ValueError(f"flag must be > 0 and <= 1, was {self.flag}")


class CorrelationMatrix(NamedTuple):
    """Symbols × symbols, symmetric.

    Attributes:
        correlation: In [-1, 1]; NaN where two symbols have fewer than `min_pairs` returns in common, or one of them
            does not vary there. 1 on the diagonal, where it is not NaN.
        pairs: How many returns two symbols have in common; on the diagonal, how many a symbol has.
    """

    correlation: Array
    pairs: Array


class _Moments(NamedTuple):
    """Of the values x and y that each two rows have in common.

    Attributes:
        squares: Σ(x - mean x)².
        products: Σ(x - mean x)(y - mean y).
    """

    squares: Array
    products: Array


_DEFAULTS = CorrelationParams()


def portfolio(payloads: pl.DataFrame) -> pl.DataFrame:
    """Return totals over all symbols, and over those of each sector.

    Args:
        payloads: `PAYLOADS`, one row a symbol, in any order; of two rows of one symbol the later counts. What is not
            known is null; NaN and infinite count as that. Units are those of the contract's sums.

    Returns:
        Contract `PortfolioTotals`: the row of all, then the sectors by name. Without payloads, the row of all with no
        symbols. A symbol without a sector is in the row of all only. The flow mix is the plain mean of the symbols'
        shares, of those that know all three, so that they add up to 1: what traded is not in the payloads, by which
        they could be weighted. A sum beyond the floats is null.
    """
    rows = (
        payloads.select(PAYLOADS.names())
        .unique("symbol", keep="last", maintain_order=True)
        .sort("symbol")
        .with_columns(pl.when(cs.float().is_finite()).then(cs.float()))
        .with_columns(pl.when(pl.all_horizontal(pl.col(_FLOW_MIX).is_not_null())).then(pl.col(_FLOW_MIX)))
    )
    totals = _totals()
    whole = rows.select(**totals)
    sectors = rows.filter(pl.col("sector").is_not_null()).group_by("sector").agg(**totals).sort("sector")
    return (
        pl.concat([whole, sectors], how="diagonal")
        .with_columns(pl.when(cs.float().is_finite()).then(cs.float()))
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(PortfolioTotals).items())
    )


def _totals() -> dict[str, pl.Expr]:
    level = pl.col("toxicity_adjusted_level")
    return {
        "ts_event": pl.col("ts_event").max(),
        "symbols": pl.len(),
        "toxic_count": pl.when(level.count() > 0).then((level == Level.HIGH).sum()),
        **{total: pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()) for total, name in _SUMS.items()},
        **{mean: pl.col(name).mean() for mean, name in _MEANS.items()},
        **{count: pl.col(name).count() for count, name in _COUNTS.items()},
    }


def correlation(closes: pl.DataFrame, params: CorrelationParams = _DEFAULTS) -> pl.DataFrame:
    """Return how the returns of each two symbols correlate over the newest `window_bars` minutes.

    Args:
        closes: `ts_open symbol close ts_known` of one-minute bars, any number of symbols, any row order. Of two rows
            with one symbol and ts_open the later row counts.
        params: The window and the thresholds.

    Returns:
        Contract `Correlation`, sorted: a row for each two symbols that have a bar in the window. See
        `correlation_matrix`; status is `no_data` where two symbols have no return in common, `too_few` below
        `min_pairs`, `constant` where one of them does not vary.
    """
    rows = closes.unique(["symbol", "ts_open"], keep="last", maintain_order=True)
    minutes = rows.get_column("ts_open").unique().sort().tail(params.window_bars)
    rows = rows.filter(pl.col("ts_open").is_in(minutes.implode()))
    symbols = rows.get_column("symbol").unique().sort()
    owner = rows.get_column("symbol").rank("dense").to_numpy() - 1
    grid = np.full((len(symbols), len(minutes)), np.nan)
    grid[owner, minutes.search_sorted(rows.get_column("ts_open")).to_numpy()] = rows.get_column("close").to_numpy()
    found = correlation_matrix(grid, minutes.to_physical().to_numpy(), params)
    known = rows.group_by("symbol").agg(pl.col("ts_known").max()).sort("symbol").get_column("ts_known")
    a, b = np.triu_indices(len(symbols), 1)
    pairs, is_null = pl.col("pairs"), pl.col("correlation").is_nan()
    return (
        pl.DataFrame(
            {
                "symbol_a": symbols.gather(a),
                "symbol_b": symbols.gather(b),
                "correlation": found.correlation[a, b],
                "pairs": found.pairs[a, b],
                "is_flagged": is_flagged(found.correlation, params)[a, b],
                "known_a": known.gather(a),
                "known_b": known.gather(b),
            }
        )
        .with_columns(
            ts_event=pl.lit((minutes.to_physical() + MINUTE_NS).max(), pl.Int64),
            is_flagged=pl.when(~is_null).then("is_flagged"),
            correlation=pl.col("correlation").fill_nan(None),
            status=pl.when(pairs == 0)
            .then(pl.lit(Status.NO_DATA))
            .when(pairs < params.min_pairs)
            .then(pl.lit(Status.TOO_FEW))
            .when(is_null)
            .then(pl.lit(Status.CONSTANT))
            .otherwise(pl.lit(Status.OK)),
            ts_known=pl.max_horizontal("known_a", "known_b"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(Correlation).items())
    )


@np.errstate(all="ignore")  # no pairs, constant returns, closes that are none: NaN in the end
def correlation_matrix(closes: Array, minutes: Array, params: CorrelationParams = _DEFAULTS) -> CorrelationMatrix:
    """Return how the returns of each two rows of closes correlate.

    A return is the log of a close over the close of the minute before. Where that minute has no bar there is none,
    rather than one from an older close: it would span more time than the other symbol's return at its side, and be
    held against a part of it. So there is none across a session's break either.

    Args:
        closes: Symbols × minutes; NaN where there is no bar. What is infinite or not positive counts as that.
        minutes: The start of each minute, ns, ascending.
        params: The thresholds; all of the minutes are used.
    """
    change = np.diff(closes) / closes[:, :-1]
    is_usable = np.isfinite(closes) & (closes > 0)
    is_return = is_usable[:, 1:] & is_usable[:, :-1] & (np.diff(minutes) == MINUTE_NS)
    returns = np.log1p(change)
    is_return &= np.isfinite(returns)  # a ratio beyond the floats
    centred = _centred(returns, is_return)
    counted = is_return.astype(np.float32)  # exact: counts are small
    pairs = counted @ counted.T
    squares, products = _moments(centred, is_return, pairs)
    is_known = (pairs >= params.min_pairs) & (squares > pairs * _NOISE**2)
    scale = np.sqrt(squares)
    # |Σxy| <= √(Σx²·Σy²) holds but for rounding, which alone the clip takes away.
    found = np.where(is_known & is_known.T, np.clip(products / (scale * scale.T), -1.0, 1.0), np.nan)
    diagonal = np.diag_indices_from(found)
    found[diagonal] = np.where(np.isnan(found[diagonal]), np.nan, 1.0)
    return CorrelationMatrix(found, pairs.astype(np.int64))


def is_flagged(correlation: Array, params: CorrelationParams = _DEFAULTS) -> Array:
    """Return whether each |correlation| is at least `flag`; false where it is NaN."""
    reaches: Array = np.abs(np.round(correlation, _DIGITS)) >= params.flag
    return reaches


def _moments(centred: Array, is_return: Array, pairs: Array) -> _Moments:
    """Return the moments of all pairs of rows, from products of matrices.

    Each row is centred on its own mean, so that the mean over what it has in common with another is small, and taking
    its square away loses nothing; where it does, as after a jump that the other has not seen, the pair is done anew.

    Args:
        centred: Symbols × minutes; 0 where there is no return.
        is_return: Where there is one.
        pairs: How many returns two symbols have in common.
    """
    count = np.maximum(pairs, 1).astype(float)
    sums, raw_squares = np.split(np.concatenate([centred, centred**2]) @ is_return.T.astype(float), 2)
    squares = raw_squares - sums**2 / count
    products = centred @ centred.T - sums * sums.T / count
    is_lost = (squares < _CANCELLED * raw_squares) & (raw_squares > pairs * _NOISE**2)
    a, b = np.nonzero(is_lost | is_lost.T)
    a, b = a[a <= b], b[a <= b]
    for start in range(0, len(a), _BLOCK_PAIRS):
        i, j = a[start : start + _BLOCK_PAIRS], b[start : start + _BLOCK_PAIRS]
        is_both = is_return[i] & is_return[j]
        x, y = _centred(centred[i], is_both), _centred(centred[j], is_both)
        squares[i, j], squares[j, i] = (x**2).sum(axis=1), (y**2).sum(axis=1)
        products[i, j] = products[j, i] = (x * y).sum(axis=1)
    return _Moments(squares, products)


def _centred(rows: Array, is_present: Array) -> Array:
    """Return what is present less its row's mean, else 0."""
    total = np.sum(rows, axis=1, where=is_present)
    mean = total / np.maximum(np.sum(is_present, axis=1), 1)
    return np.where(is_present, rows - mean[:, None], 0.0)
