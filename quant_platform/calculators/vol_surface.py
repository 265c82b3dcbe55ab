"""The volatility surface as raw SVI, one slice a settlement, arbitrage flagged; how slices are fitted is _svi's."""

from dataclasses import dataclass
from math import inf

import numpy as np
import polars as pl

from quant_platform.calculators import _svi
from quant_platform.calculators._svi import Array, Svi
from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.enums import OptionType, Status
from quant_platform.contracts.options import VolSurface

LOOKBACK_SESSIONS = 0

_KEY = ("symbol", "ts_event", "ts_expiry")
_NS_PER_YEAR = 365 * 86_400 * 1_000_000_000
_UNFITTED = pl.DataFrame(
    schema=dict.fromkeys(("k_low", "k_high", *Svi._fields, "rmse", "min_g"), pl.Float64)
    | dict.fromkeys(("arbitrage", "calendar_arbitrage"), pl.Boolean)
    | {"ts_recv_before": INSTANT}
)
_BLOCK_SLICES = 256  # bounds the memory of slices × grid arrays


@dataclass(frozen=True, kw_only=True)
class VolSurfaceParams:
    """What a slice needs.

    Attributes:
        min_points: Strikes below which a slice is not fitted; raw SVI has five parameters.
    """

    min_points: int = 5

    def __post_init__(self) -> None:
        if self.min_points < 5:
            raise ValueError(f"min_points must be >= 5, the number of parameters, was {self.min_points}")


_DEFAULTS = VolSurfaceParams()


def vol_surface(chain: pl.DataFrame, params: VolSurfaceParams = _DEFAULTS) -> pl.DataFrame:
    """Return the slices of each snapshot of option chains.

    A strike gives one point: the option out of the money, the call where the strike is the forward. Slices are fitted
    by least squares of total variance, weighted by how prices change with it, each by itself, and one with arbitrage is
    given with its flag: both kinds are looked for where there are quotes. Two settlements of one snapshot are compared
    at equal log-moneyness.

    Args:
        chain: `ts_event ts_recv symbol expiry ts_expiry type strike multiplier bid iv underlying_price` of contract
            `OptionChain`, receipt filled, and `rate dividend`, continuous, per year; any number of underlyings and
            snapshots, any row order. Adjusted contracts, which have no multiplier, are left out; of two rows of one
            strike and type the later counts. A row without a number above 0 for bid, strike, iv or underlying, or
            without finite rates, is no point.
        params: What a slice needs.

    Returns:
        Contract `VolSurface`, sorted by symbol, ts_event and ts_expiry: one row for each settlement of a snapshot.
        Status `expired` where no time is left, `no_valid_contracts` without a usable one, `too_few` below `min_points`
        strikes, `nan` where sums overflow.
    """
    rows = _rows(chain)
    points = _points(rows)
    slices = (
        rows.group_by(_KEY)
        .agg(pl.col("expiry").min(), pl.col("years").first(), pl.col("ts_recv").max())
        .join(points.group_by(_KEY).agg(pl.col("forward").first(), n=pl.len()), on=_KEY, how="left")
        .with_columns(pl.col("n").fill_null(0))
        .sort(_KEY)
        .with_row_index("slice")
        .with_columns(status=_status(params))
    )
    is_fitted = pl.col("status") == Status.OK
    wanted = slices.filter(is_fitted)
    if not wanted.is_empty():
        points = points.join(wanted.select(_KEY), on=_KEY, how="semi", maintain_order="left")
        slices = slices.join(_fitted(wanted, points), on="slice", how="left")
    return (
        pl.concat([slices, _UNFITTED], how="diagonal")
        .with_columns(
            status=pl.when(is_fitted & pl.col("rmse").is_null()).then(pl.lit(Status.NAN)).otherwise("status"),
            ts_known=pl.max_horizontal("ts_recv", "ts_recv_before"),
        )
        .sort(_KEY)
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(VolSurface).items())
    )


def _rows(chain: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with `years`, and `forward` and `variance` where the row can be a point."""
    years = (pl.col("ts_expiry") - pl.col("ts_event")).dt.total_nanoseconds() / _NS_PER_YEAR
    forward = pl.col("underlying_price") * ((pl.col("rate") - pl.col("dividend")) * pl.col("years")).exp()
    variance = pl.col("iv") ** 2 * pl.col("years")
    moneyness = pl.col("strike") / pl.col("forward")
    positive = (pl.col("bid"), pl.col("strike"), pl.col("iv"), pl.col("forward"), variance, moneyness)
    is_usable = pl.all_horizontal(value.is_finite() & (value > 0) for value in positive)
    return (
        chain.filter(pl.col("multiplier").is_not_null())
        .unique([*_KEY, "type", "strike"], keep="last", maintain_order=True)
        .with_columns(years=years)
        .with_columns(forward=forward)
        .with_columns(variance=pl.when(is_usable).then(variance))
        .with_columns(forward=pl.when(pl.col("variance").is_not_null()).then("forward"))
    )


def _points(rows: pl.DataFrame) -> pl.DataFrame:
    """Return `k w` of the options out of the money, slice after slice by strike, and each slice's one `forward`."""
    is_out = (
        pl.when(pl.col("strike") >= pl.col("forward")).then(pl.lit(OptionType.CALL)).otherwise(pl.lit(OptionType.PUT))
    )
    return (
        rows.filter(pl.col("variance").is_not_null())
        .with_columns(pl.col("forward").median().over(_KEY))
        .filter(pl.col("type") == is_out)
        .sort(*_KEY, "strike")
        .select(*_KEY, "forward", k=(pl.col("strike") / pl.col("forward")).log(), w="variance")
    )


def _status(params: VolSurfaceParams) -> pl.Expr:
    return (
        pl.when(pl.col("years") <= 0)
        .then(pl.lit(Status.EXPIRED))
        .when(pl.col("n") == 0)
        .then(pl.lit(Status.NO_VALID_CONTRACTS))
        .when(pl.col("n") < params.min_points)
        .then(pl.lit(Status.TOO_FEW))
        .otherwise(pl.lit(Status.OK))
    )


@np.errstate(all="ignore")  # sums of huge variances overflow: null in the end
def _fitted(slices: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """Return the parameters of slices with enough points, by their number in `slice`; null where they overflow."""
    count = slices.get_column("n").to_numpy().astype(np.int64)
    start = np.cumsum(count) - count
    k, w = points.get_column("k").to_numpy(), points.get_column("w").to_numpy()
    svi, rmse = _svi.fit(k, w, start)
    low, high = k[start], k[start + count - 1]
    is_finite: Array = np.all(np.isfinite([*svi, rmse]), axis=0)
    before, has_before = _before(slices, is_finite)
    shared_low, shared_high = np.maximum(low, low[before]), np.minimum(high, high[before])
    is_compared = has_before & is_finite & (shared_low <= shared_high)
    least_g, falls = [], []
    for first in range(0, len(start), _BLOCK_SLICES):
        rows = slice(first, first + _BLOCK_SLICES)
        here, near = svi.at(rows), svi.at(before[rows])
        least_g.append(_svi.least_g(here, low[rows], high[rows]))
        falls.append(_svi.falls(near, here, shared_low[rows], shared_high[rows]))
    found = pl.DataFrame(
        {
            "slice": slices.get_column("slice"),
            "k_low": low,
            "k_high": high,
            **svi._asdict(),
            "rmse": rmse,
            "min_g": np.concatenate(least_g),
            "calendar_arbitrage": np.concatenate(falls),
            "ts_recv_before": slices.get_column("ts_recv").gather(before),
            "is_finite": is_finite,
            "is_compared": is_compared,
        }
    )
    return found.select(
        "slice",
        "k_low",
        "k_high",
        "ts_recv_before",
        pl.when("is_finite").then(pl.col(*Svi._fields, "rmse")),
        pl.when("is_finite").then(pl.col("min_g").fill_nan(None)),
        pl.when("is_compared").then("calendar_arbitrage"),
        arbitrage=pl.when("is_finite").then(~(pl.col("min_g").fill_nan(-inf) >= 0)),
    )


def _before(slices: pl.DataFrame, is_finite: Array) -> tuple[Array, Array]:
    """Return of each slice the last finite one before it in its snapshot, and whether there is one; else itself."""
    snapshot = slices.select(pl.struct("symbol", "ts_event").rle_id()).to_series().to_numpy()
    place = np.arange(len(snapshot))
    latest = np.maximum.accumulate(np.where(is_finite, place, -1))
    before = np.append(-1, latest[:-1])
    has_before = (before >= 0) & (snapshot[before] == snapshot)
    return np.where(has_before, before, place), has_before
