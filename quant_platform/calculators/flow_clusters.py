"""Who may be behind the flow: each symbol's last trades in three clusters, named by how they behave. A guess.

How points are clustered is told in _k_means.py, what a sweep is in sweeps.py.
"""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from quant_platform.calculators import rolling, sweeps
from quant_platform.calculators._cores import on_all_cores
from quant_platform.calculators._k_means import k_means
from quant_platform.calculators._trade_windows import TradeWindows, no_trades, trade_windows
from quant_platform.calculators.rolling import Array
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import Status
from quant_platform.contracts.microstructure import FlowClusters

LOOKBACK_SESSIONS = 1
STRATEGIES = ("momentum", "mean_reversion", "hedging")
FEATURES = ("size", "direction", "return", "notional", "sweep", "gap")

_MEANS = ("size", "notional", "direction", "abs_return")
_POINT = ("log_size", "direction", "return", "log_notional", "sweep", "log_gap")
_CLUSTER_MEANS = (*(f"mean_{name}" for name in _MEANS), *(f"centroid_{name}" for name in FEATURES))
_SINCE_THE_TRADE_BEFORE = ("return", "abs_return", "log_gap")
_WINDOWS_AT_ONCE = 128  # their features stay in the processor's cache
_NOISE = 4 * np.finfo(float).eps  # prices are rounded: features that differ by less are equal
_NS = 1e9


@dataclass(frozen=True, kw_only=True)
class FlowClustersParams:
    """How many trades make a window, and how large the trades of an institution are on average.

    Attributes:
        window_trades: Most trades in a window.
        min_trades: Trades below which all values are null.
        institutional_size: Mean size from which a cluster is institutional, in base units.
        sample_s: Width of the intervals in seconds, each of which gives one row.
        sweep: What makes a sweep.
    """

    window_trades: int = 150
    min_trades: int = 30
    institutional_size: float = 250.0
    sample_s: int = 60
    sweep: sweeps.SweepParams = field(default_factory=sweeps.SweepParams)

    def __post_init__(self) -> None:
        if not len(STRATEGIES) <= self.min_trades <= self.window_trades:
            raise ValueError(
                f"min_trades must be between {len(STRATEGIES)} and window_trades = {self.window_trades}, "
                f"was {self.min_trades}"
            )
        if not self.institutional_size > 0:
            raise ValueError(f"institutional_size must be > 0, was {self.institutional_size}")
        if self.sample_s < 1:
            raise ValueError(f"sample_s must be >= 1, was {self.sample_s}")


@dataclass(frozen=True)
class State:
    """The trades that later windows need, a few hundred of each symbol."""

    tail: pl.DataFrame


_DEFAULTS = FlowClustersParams()


def initial() -> State:
    """Return the state before the first trade."""
    return State(no_trades())


def step(state: State, trades: pl.DataFrame, params: FlowClustersParams = _DEFAULTS) -> tuple[State, pl.DataFrame]:
    """Fold a chunk of the signed tape into the state, and return the clusters after each interval that it touched.

    Cutting the tape anywhere changes nothing: of all outputs, the last row per symbol and ts_open is the row of one
    pass over the whole tape.

    Args:
        state: What `initial` or the previous `step` returned, with the same parameters.
        trades: The signed tape, any number of symbols, any row order. A row with a null, or with a price or size that
            is NaN, infinite, zero or negative, is ignored, and so is one that is not later, by (ts_event, trade_id),
            than what came of its symbol in earlier chunks.
        params: The window, and who is institutional.

    Returns:
        The next state, and one row per symbol and interval: contract `FlowClusters`, sorted by symbol and ts_open,
        over the last `window_trades` trades up to the last one in the interval. Each trade is a point of six
        features: log(1 + size), aggressor, return since the trade before, log(1 + notional), whether it belongs to a
        sweep complete by then, log(1 + seconds since the trade before). A symbol's first trade has a return and a gap
        of 0. Features are standardised over the window (ddof 1), one that does not vary is 0, so that the return needs
        no scaling by volatility before. Three clusters, by k-means from farthest points; with fewer than three
        distinct points, `fallback`: one cluster holds all trades, and what is said of the other two is null but their
        count and share of 0. Shares are shares of trades. All values are null below `min_trades` (`too_few`), and
        where sizes or prices are so far apart that a mean overflows (`nan`).

    Raises:
        ValueError: A usable trade has no `ts_recv`.
    """
    windows = trade_windows(
        state.tail,
        trades,
        last=params.window_trades,
        sample_s=params.sample_s,
        context_rows=max(1, params.sweep.window_trades - 1),
    )
    return State(windows.tail), _clusters(windows, params)


def strategies(*, size: Array, notional: Array, direction: Array, abs_return: Array) -> Array:
    """Return which of three clusters is momentum, which mean reversion, and which hedging: windows x 3 places.

    Momentum is the cluster with the largest |direction|·(|return| + 1e-6); hedging, of the other two, the one with
    the largest notional·(1 - min(|direction|, 1)); mean reversion is the last. Of equal ones the smaller in size.

    Args:
        size: Windows x 3 mean sizes.
        notional: The same of price · size.
        direction: The same of the aggressor.
        abs_return: The same of the absolute return since the trade before.
    """
    directed = np.abs(direction)
    momentum = np.lexsort((size, -directed * (abs_return + 1e-6)), axis=1)[:, :1]
    undirected_notional = notional * (1 - np.minimum(directed, 1))
    np.put_along_axis(undirected_notional, momentum, -1.0, axis=1)
    hedging = np.lexsort((size, -undirected_notional), axis=1)[:, :1]
    return np.concatenate([momentum, 3 - momentum - hedging, hedging], axis=1)


def _clusters(windows: TradeWindows, params: FlowClustersParams) -> pl.DataFrame:
    samples = windows.stop - windows.start
    enough = np.flatnonzero(samples >= params.min_trades)
    trades = _trade_columns(windows, params.sweep)
    blocks = on_all_cores(
        lambda start: _cluster_columns(trades, windows, enough[start : start + _WINDOWS_AT_ONCE], params),
        range(0, max(1, len(enough)), _WINDOWS_AT_ONCE),
    )
    values = {name: np.full(len(samples), np.nan) for name in blocks[0]}
    for name, column in values.items():
        column[enough] = np.concatenate([block[name] for block in blocks])
    is_finite = values.pop("is_finite")
    status = np.select([np.isnan(is_finite), is_finite == 0], [Status.TOO_FEW.value, Status.NAN.value], Status.OK.value)
    is_ok = pl.col("status") == Status.OK
    return (
        windows.samples.with_columns(windows.ts_known, samples=pl.Series(samples), status=pl.Series(status))
        .with_columns(**{name: pl.Series(column, nan_to_null=True) for name, column in values.items()})
        .with_columns(pl.when(is_ok).then(pl.col(*values)))
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(FlowClusters).items())
    )


@np.errstate(all="ignore")  # the row before may be of another symbol, and huge prices overflow
def _trade_columns(windows: TradeWindows, sweep: sweeps.SweepParams) -> dict[str, Array]:
    """Return what describes each trade, and its features; `sweep` is the row that shows it to be in one."""
    price, size, ts = windows.column("price"), windows.column("size"), windows.column("ts_event")
    notional = price * size
    change = price / np.roll(price, 1) - 1
    return {
        "size": size,
        "notional": notional,
        "direction": windows.column("aggressor").astype(float),
        "abs_return": np.abs(change),
        "log_size": np.log1p(size),
        "return": change,
        "log_notional": np.log1p(notional),
        "sweep": sweeps.completed_at(windows.rows, sweep),
        "log_gap": np.log1p((ts - np.roll(ts, 1)) / _NS),
    }


@np.errstate(all="ignore")  # an empty cluster divides by zero, and huge sizes overflow: null in the end
def _cluster_columns(
    trades: dict[str, Array], windows: TradeWindows, chosen: Array, params: FlowClustersParams
) -> dict[str, Array]:
    """Return the values of some windows; NaN where null, `is_finite` where no mean overflowed."""
    start, context = windows.start[chosen, None], windows.context[chosen, None]
    place = windows.stop[chosen, None] + np.arange(-params.window_trades, 0)
    is_present, place = place >= start, np.maximum(place, start)
    window = {name: column[place] for name, column in trades.items()}
    for name in _SINCE_THE_TRADE_BEFORE:
        window[name][place == context] = 0.0
    window["sweep"] = window["sweep"] < windows.stop[chosen, None]
    points = _standardised(np.stack([window[name] for name in _POINT], axis=1), is_present)
    labels, is_distinct = k_means(points, is_present, len(STRATEGIES))
    is_member = (labels[:, None] == np.arange(len(STRATEGIES))[:, None]) & is_present[:, None]
    count = is_member.sum(axis=2)
    described = np.stack([window[name] for name in _MEANS], axis=2)
    means = is_member.astype(float) @ np.concatenate([described, points.swapaxes(1, 2)], axis=2) / count[..., None]
    is_finite = (np.isfinite(means) | (count == 0)[..., None]).all(axis=(1, 2))
    institutional = count * (means[..., _MEANS.index("size")] >= params.institutional_size)

    samples = count.sum(axis=1)
    order = strategies(**{name: np.nan_to_num(means[..., k]) for k, name in enumerate(_MEANS)})
    count = np.take_along_axis(count, order, axis=1)
    means = np.take_along_axis(means, order[..., None], axis=1)
    named: dict[str, Array] = {}
    for k, strategy in enumerate(STRATEGIES):
        named[f"{strategy}_share"] = count[:, k] / samples
        named[f"{strategy}_trade_count"] = count[:, k]
        named |= {f"{strategy}_{name}": means[:, k, column] for column, name in enumerate(_CLUSTER_MEANS)}
    return named | {
        "clusters_used": (count > 0).sum(axis=1),
        "fallback": ~is_distinct,
        "institutional_share": institutional.sum(axis=1) / samples,
        "retail_share": 1 - institutional.sum(axis=1) / samples,
        "is_finite": is_finite,
    }


def _standardised(features: Array, is_present: Array) -> Array:
    """Return windows x features x trades with mean 0 and standard deviation 1; 0 where nothing varies."""
    shape = features.shape
    each = rolling.Windows(features.reshape(-1, shape[2]), np.repeat(is_present, shape[1], axis=0))
    _, deviations = each.mean_and_deviations(_NOISE)
    std = rolling.standard_deviation(deviations, each.count)[:, None]
    return np.divide(deviations, std, out=np.zeros_like(deviations), where=std > 0).reshape(shape)
