"""Scorecards of venues, algos, brokers and strategies: what they cost beyond what was expected, and how sure that is.

The quality of one order is quality_score's; errors that hang together by day and symbol are _clusters'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from datetime import timedelta

import numpy as np
import polars as pl
import polars.selectors as cs

from quant_platform.calculators import _clusters, _student_t
from quant_platform.calculators._clusters import ClusterSums
from quant_platform.calculators.execution_quality import SPREADS, finite, is_filled, is_order, spread_quality
from quant_platform.contracts._schema import Contract, polars_schema
from quant_platform.contracts.enums import Status
from quant_platform.contracts.execution import Liquidity
from quant_platform.contracts.scorecards import AlgoScorecard, Dimension, Period, VenueScorecard

LOOKBACK_SESSIONS = 0

_WIDTHS = {Period.DAY: "1d", Period.WEEK: "1w", Period.MONTH: "1mo"}
_CELL = ("period", "period_start")
_ATOM = ("date", "symbol")
_AVERAGED = ("arrival_cost_bps", *SPREADS, "price_improvement_bps")
"""What is averaged over a cell by notional."""


@dataclass(frozen=True, kw_only=True)
class ScorecardParams:
    """What a cell needs, and how sure it is to be.

    Attributes:
        min_orders: Orders below which a cell says nothing.
        min_days: Days below which a mean has no t and no interval: orders of one day share its market.
        draws: Of the bootstrap.
        seed: Of the bootstrap.
        confidence: Of the interval.
        false_discovery_rate: Share of the cells called discoveries that may be none.
    """

    min_orders: int = 30
    min_days: int = 5
    draws: int = 500
    seed: int = 0
    confidence: float = 0.95
    false_discovery_rate: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("min_orders", 1), ("min_days", 2), ("draws", 100), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, was {getattr(self, name)}")
        for name in ("confidence", "false_discovery_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be between 0 and 1, was {getattr(self, name)}")


_DEFAULTS = ScorecardParams()


def algo_scorecard(orders: pl.DataFrame, quality: pl.DataFrame, params: ScorecardParams = _DEFAULTS) -> pl.DataFrame:
    """Return what orders cost by algo, by broker and by strategy, each day, week and month.

    The excess cost of an order is its cost against arrival less what was expected; its mean gives each order one vote.
    The error of the mean is clustered by day and symbol; with few symbols, t has few degrees of freedom. The interval
    draws days again. q-values are among the cells of one dimension, period and first day, which are read side by side.

    Args:
        orders: `order_id date symbol strategy algo broker quantity filled_quantity avg_price decision_price
            arrival_price arrival_cost_bps expected_cost_bps ts_known` of contract `TcaOrder` with its trading `date`,
            one row an order, any row order; of all dates of the periods wanted. A row without a date or symbol is left
            out.
        quality: `order_id score ts_known` and the spreads of contract `OrderQuality`, one row an order.
        params: What a cell needs.

    Returns:
        Contract `AlgoScorecard`, by dimension, period, its first day, and member. The newest week and month are as far
        as the dates reach. Averages by notional are over orders that have the value; notional of all symbols is added
        up, so that they are to be quoted in one currency.
    """
    filled = pl.col("filled_quantity")
    price = pl.coalesce(pl.when(pl.col(name) > 0).then(name) for name in ("arrival_price", "decision_price"))
    traded = pl.when(pl.col("avg_price") > 0).then(filled * pl.col("avg_price"))
    scored = quality.select("order_id", "score", *SPREADS, "price_improvement_bps", scored_known="ts_known")
    rows = (
        orders.sort("order_id")
        .join(scored, on="order_id", how="left", maintain_order="left")
        .with_columns(finite())
        .with_columns(
            excess_cost_bps=excess_cost_bps(),
            notional=pl.when(filled == 0).then(0.0).when(filled > 0).then(traded),
            ts_known=pl.max_horizontal("ts_known", "scored_known"),
        )
    )
    sums = {
        "sum_orders": pl.lit(1),
        "sum_valid": is_order(),
        "sum_whole": is_order() & is_filled(),
        "sum_any": is_order() & (filled > 0),
        "sum_ordered": pl.when(is_order()).then(pl.col("quantity") * price),
        "sum_ordered_filled": pl.when(is_order()).then(filled * price),
        "sum_score": pl.col("score"),
        "sum_scored": pl.col("score").is_not_null(),
    }
    names = [str(dimension) for dimension in Dimension]
    atoms = _atoms(rows, names, sums)
    by_member = [
        atoms.group_by(pl.lit(name).alias("dimension"), pl.col(name).alias("member"), *_ATOM, maintain_order=True).agg(
            *_added()
        )
        for name in names
    ]
    cells = _cells(pl.concat(by_member), ["dimension"], "member", params).with_columns(
        fill_rate=pl.col("sum_ordered_filled") / pl.col("sum_ordered"),
        fill_rate_orders=pl.col("sum_whole") / pl.col("sum_valid"),
        any_fill_orders=pl.col("sum_any") / pl.col("sum_valid"),
        quality_score=pl.col("sum_score") / pl.col("sum_scored"),
    )
    return _card(cells, AlgoScorecard, ["fill_rate", "fill_rate_orders", "any_fill_orders", "quality_score"])


def venue_scorecard(fills: pl.DataFrame, orders: pl.DataFrame, params: ScorecardParams = _DEFAULTS) -> pl.DataFrame:
    """Return what fills cost by venue, each day, week and month.

    All that an order filled at a venue is one observation, at its average price there, so that a fill split in two
    changes nothing. See `algo_scorecard` for the excess cost and how sure it is.

    Args:
        fills: `order_id date symbol venue side liquidity ts_known` and what `spread_quality` reads of contract
            `TcaFill`, with the trading `date`, each fill once, any row order; `order_id` is that of the parent order. A
            fill without one counts in the spreads alone. A row without a date or symbol, or whose price or quantity is
            no number above 0, is left out.
        orders: `order_id date arrival_price expected_cost_bps ts_known` of contract `TcaOrder` with its trading
            `date`, which is also that of its fills; one row an order.
        params: What a cell needs.

    Returns:
        Contract `VenueScorecard`, by period, its first day, and venue.
    """
    keys = ["venue", *_ATOM, "order_id"]
    told = ("arrival_price", "expected_cost_bps")
    placed = orders.select("order_id", *told, order_date="date", order_known="ts_known")
    usable = (
        fills.with_columns(finite())
        .filter(pl.col("price") > 0, pl.col("quantity") > 0)
        .join(placed, on="order_id", how="left")
        .with_columns(date=pl.coalesce("order_date", "date"), ts_known=pl.max_horizontal("ts_known", "order_known"))
        .sort(*keys, "quantity")
    )
    arrival, own, liquidity = pl.col("arrival_price"), pl.col("price") * pl.col("quantity"), pl.col("liquidity")
    paid = pl.col("side") * (pl.col("notional") / pl.col("quantity") - arrival) / arrival * 1e4
    rows = (
        usable.group_by(keys)
        .agg(
            pl.col("quantity").sum(),
            pl.col("ts_known").max(),
            pl.col("side", *told).first(),
            maker=own.filter(liquidity == Liquidity.MAKER).sum(),
            placed=own.filter(liquidity.is_not_null()).sum(),
        )
        .join(spread_quality(usable, keys), on=keys, nulls_equal=True)
        .sort(keys)
        .with_columns(arrival_cost_bps=pl.when(arrival > 0).then(paid))
        .with_columns(finite())
        .with_columns(excess_cost_bps=excess_cost_bps())
    )
    sums = {
        "sum_orders": pl.col("order_id").is_not_null(),
        "sum_fills": pl.col("fills"),
        "sum_maker": pl.col("maker"),
        "sum_placed": pl.col("placed"),
    }
    cells = _cells(_atoms(rows, ["venue"], sums), [], "venue", params).with_columns(
        fills="sum_fills", maker_share=pl.col("sum_maker") / pl.col("sum_placed")
    )
    return _card(cells, VenueScorecard, ["maker_share"])


def excess_cost_bps() -> pl.Expr:
    """Return `arrival_cost_bps` less `expected_cost_bps`: positive = worse than expected; null where one is."""
    return pl.col("arrival_cost_bps") - pl.col("expected_cost_bps")


def _added() -> list[pl.Expr]:
    """Return what cells have in common with the parts that they are put together from."""
    return [
        cs.starts_with("sum_").sum(),
        pl.col("excess_low").min(),
        pl.col("excess_high").max(),
        pl.col("ts_known").max(),
    ]


def _atoms(rows: pl.DataFrame, keys: Sequence[str], sums: Mapping[str, pl.Expr]) -> pl.DataFrame:
    """Return sums by the keys, date and symbol, the parts of every cell, from rows in an order of their own.

    Sums of reals depend on the order in which they are taken, so that every step from here on keeps it.
    """
    weight, excess = pl.col("notional"), pl.col("excess_cost_bps")
    quoted, effective = pl.col("quoted_spread_bps"), pl.col("effective_spread_bps")
    common = {
        "sum_notional": weight,
        "sum_priced": weight.is_not_null(),
        "sum_excess": excess,
        "sum_excess_orders": excess.is_not_null(),
        "sum_quoted": pl.when(effective.is_not_null()).then(quoted * weight),
        "sum_effective": pl.when(quoted.is_not_null()).then(effective * weight),
        **{f"sum_{name}": pl.col(name) * weight for name in _AVERAGED},
        **{f"sum_weight_{name}": pl.when(pl.col(name).is_not_null()).then(weight) for name in _AVERAGED},
    }
    return (
        rows.filter(pl.all_horizontal(pl.col(_ATOM).is_not_null()))
        .select(*keys, *_ATOM, "ts_known", excess_low=excess, excess_high=excess, **common, **sums)
        .group_by(*keys, *_ATOM, maintain_order=True)
        .agg(*_added())
    )


def _cells(atoms: pl.DataFrame, dimension: list[str], member: str, params: ScorecardParams) -> pl.DataFrame:
    """Return the sums of each cell, and its excess cost with what can be said of it."""
    family = [*dimension, *_CELL]
    keys = [*family, member]
    has_excess = pl.col("sum_excess_orders") > 0
    dates = atoms.group_by(*dimension, member, "date", maintain_order=True).agg(*_added())
    cells = (
        _by_period(dates)
        .group_by(keys, maintain_order=True)
        .agg(*_added(), days=pl.len(), excess_days=has_excess.sum())
        .sort(keys)
        .with_row_index("cell")
    )
    observed = _by_period(atoms.select(*dimension, member, *_ATOM, "sum_excess", "sum_excess_orders")).join(
        cells.select("cell", *keys), on=keys, nulls_equal=True
    )
    symbols = observed.group_by("cell").agg(symbols=pl.col("symbol").n_unique())
    cells = (
        cells.join(symbols, on="cell", maintain_order="left")
        .with_columns(
            excess_cost_bps=pl.col("sum_excess") / pl.col("sum_excess_orders"),
            excess_status=_enough("sum_excess_orders", params),
            status=_enough("sum_orders", params),
            notional_share=pl.col("sum_notional") / pl.col("sum_notional").sum().over(family),
        )
        .with_columns(excess_status=_unless_nan("excess_status", "excess_cost_bps"))
    )
    cells = cells.with_columns(
        inference_status=pl.when((pl.col("excess_status") == Status.OK) & (pl.col("excess_days") < params.min_days))
        .then(pl.lit(Status.TOO_FEW))
        .when((pl.col("excess_status") == Status.OK) & _clusters.is_constant("excess_low", "excess_high"))
        .then(pl.lit(Status.CONSTANT))
        .otherwise("excess_status")
    )
    judged = cells.filter(pl.col("inference_status") == Status.OK).select("cell")
    observed = observed.filter(has_excess).join(judged, on="cell", how="semi")
    return (
        cells.join(_inference(observed.sort("cell", *_ATOM), params), on="cell", how="left", maintain_order="left")
        .with_columns(inference_status=_unless_nan("inference_status", "excess_t"))
        .with_columns(q_value=_clusters.false_discovery("p_value", family))
        .with_columns(is_discovery=pl.col("q_value") <= params.false_discovery_rate)
    )


def period_starts(date: Date) -> dict[Period, Date]:
    """Return the first day of each period that a date is in."""
    return {Period.DAY: date, Period.WEEK: date - timedelta(days=date.weekday()), Period.MONTH: date.replace(day=1)}


def holding(date: Date, cells: pl.DataFrame) -> pl.DataFrame:
    """Return the cells of the day, the week and the month that a date is in.

    Args:
        date: The trading date.
        cells: A scorecard: `period period_start` and whatever else.
    """
    starts = period_starts(date).items()
    return cells.filter(
        pl.any_horizontal((pl.col("period") == period) & (pl.col("period_start") == first) for period, first in starts)
    )


def _by_period(parts: pl.DataFrame) -> pl.DataFrame:
    """Return each part once for the day, the week and the month that it is in."""
    return pl.concat(
        parts.with_columns(period=pl.lit(str(period)), period_start=pl.col("date").dt.truncate(width))
        for period, width in _WIDTHS.items()
    )


def _inference(observed: pl.DataFrame, params: ScorecardParams) -> pl.DataFrame:
    """Return how sure the mean of each cell is, from its sums by date and symbol."""
    cell = observed.get_column("cell").rle_id().to_numpy().astype(np.int64)
    day, count, total = (
        observed.get_column(name).to_physical().to_numpy() for name in ("date", "sum_excess_orders", "sum_excess")
    )
    symbol = observed.get_column("symbol").rank("dense").to_numpy()
    sums = ClusterSums(cell, day, symbol, count, total)
    means = _clusters.cluster_means(sums)
    low, high = _clusters.bootstrap_interval(sums, draws=params.draws, confidence=params.confidence, seed=params.seed)
    return pl.DataFrame(
        {
            "cell": observed.get_column("cell").unique().sort(),
            "excess_std_error_bps": means.std_error,
            "excess_t": means.t,
            "excess_degrees": means.degrees,
            "excess_low_bps": low,
            "excess_high_bps": high,
            "p_value": _student_t.two_sided(means.t, means.degrees),
        }
    ).with_columns(pl.when(pl.all_horizontal(cs.float().is_finite())).then(pl.exclude("cell")))


def _enough(orders: str, params: ScorecardParams) -> pl.Expr:
    return (
        pl.when(pl.col(orders) == 0)
        .then(pl.lit(Status.NO_DATA))
        .when(pl.col(orders) < params.min_orders)
        .then(pl.lit(Status.TOO_FEW))
        .otherwise(pl.lit(Status.OK))
    )


def _unless_nan(status: str, value: str) -> pl.Expr:
    """Return the status, `nan` where it is `ok` and the value is no number."""
    is_none = ~pl.col(value).is_finite().fill_null(value=False)
    return pl.when((pl.col(status) == Status.OK) & is_none).then(pl.lit(Status.NAN)).otherwise(status)


def _card(cells: pl.DataFrame, contract: type[Contract], own: Sequence[str]) -> pl.DataFrame:
    """Return the contract's columns, null where too few orders stand behind them.

    Args:
        cells: What `_cells` returned.
        contract: The scorecard.
        own: Columns of this scorecard alone that too few orders make null.
    """
    averages = {name: pl.col(f"sum_{name}") / pl.col(f"sum_weight_{name}") for name in _AVERAGED}
    ratio = pl.when(pl.col("sum_quoted") > 0).then(pl.col("sum_effective") / pl.col("sum_quoted"))
    return (
        cells.with_columns(
            **averages,
            e_over_q=ratio,
            orders="sum_orders",
            excess_orders="sum_excess_orders",
            notional=pl.when(pl.col("sum_priced") > 0).then("sum_notional"),
        )
        .with_columns(finite())
        .with_columns(
            pl.when(pl.col("status") == Status.OK).then(pl.col(*_AVERAGED, "e_over_q", *own)),
            pl.when(pl.col("excess_status") == Status.OK).then("excess_cost_bps"),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(contract).items())
    )
