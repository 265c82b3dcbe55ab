"""What the TCA report reduces one date of the desk to: means with their intervals, markouts, the worst orders.

Here: sums and means over what orders and fills have cost. Not here: what one has cost, which comes with the inputs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from quant_platform.calculators._clusters import ClusterSums, bootstrap_interval
from quant_platform.calculators.execution_quality import fill_rates, time_to_fill
from quant_platform.calculators.scorecards import ScorecardParams, excess_cost_bps
from quant_platform.contracts._schema import INSTANT
from quant_platform.contracts.execution import MARKOUT_HORIZONS_NS, PARTICIPATION_RATES
from quant_platform.contracts.scorecards import ImpactMeasure

WORST_SHOWN = 10
LEAST_FOR_INTERVAL = 10
NOT_TOLD = "not told"
ALL = "All"
BEYOND_EXPECTED = "expected"
BENCHMARKS = ("arrival", "decision", "vwap", "twap", *(f"pwp_{rate}" for rate in PARTICIPATION_RATES))
BENCHMARKS += ("open", "close", "prev_close")
PARTS = ("delay", "trading", "opportunity", "fees")
HORIZONS = (*MARKOUT_HORIZONS_NS, "close")

_MOST_DRAWN = 1000
_CHART_STEPS = 240
_CHART_MARGIN = 0.2  # of the order's life, before and after it
_LEAST_MARGIN_NS = 30_000_000_000


@dataclass(frozen=True)
class TcaDigest:
    """What the inputs are reduced to.

    Means are by notional, and `low_bps high_bps` the ends of the interval of a mean when orders are drawn again with
    replacement; null below `LEAST_FOR_INTERVAL` orders.

    Attributes:
        orders: `DailyTca.orders` with `score duration_s is_filled`, and in money `notional` filled, `ordered` (at the
            arrival mid, else the decision's price), `decided` (at the decision's price) and `arrival_paid`; and
            `excess_cost_bps` and `paper_bps` (of what was decided).
        fills: `DailyTca.fills` with `notional`.
        benchmarks: `benchmark orders notional notional_share cost_bps low_bps high_bps median_bps paid`, a row a
            benchmark in the order of `BENCHMARKS`, and last `expected`: cost against arrival beyond what was expected.
        shortfall: `part orders decided bps low_bps high_bps money`: paper, the four parts, realised, and shortfall, of
            the orders that know all of them; by decided notional. Profit is positive in paper and realised, cost in
            the others.
        markouts: `by group horizon fills orders notional markout_bps low_bps high_bps`; `by` is all, liquidity or
            venue.
        fill_times: `group orders fill_rate fill_rate_orders any_fill_orders filled censored median_s median_low_s
            median_high_s`: all orders first, then by algo.
        impact: `measure orders mean_bps low_bps high_bps`, and the columns of `ImpactFit` as `fit_*`.
        worst: Of `orders`, those that paid most money against arrival, most first.
    """

    orders: pl.DataFrame
    fills: pl.DataFrame
    benchmarks: pl.DataFrame
    shortfall: pl.DataFrame
    markouts: pl.DataFrame
    fill_times: pl.DataFrame
    impact: pl.DataFrame
    worst: pl.DataFrame


def digest(
    *,
    orders: pl.DataFrame,
    fills: pl.DataFrame,
    quality: pl.DataFrame,
    impact: pl.DataFrame,
    impact_fits: pl.DataFrame,
    params: ScorecardParams,
) -> TcaDigest:
    """Reduce the frames of `DailyTca`, each in its order; see there."""
    orders = _orders(orders, quality)
    fills = fills.with_columns(notional=pl.col("price") * pl.col("quantity"))
    return TcaDigest(
        orders=orders,
        fills=fills,
        benchmarks=_benchmarks(orders, params),
        shortfall=_shortfall(orders, params),
        markouts=_markouts(fills, params),
        fill_times=_fill_times(orders, params),
        impact=_impact(impact, impact_fits, orders, params),
        worst=worst_orders(orders),
    )


def worst_orders(orders: pl.DataFrame) -> pl.DataFrame:
    """Return the `WORST_SHOWN` orders that paid most money against arrival, most first; gains are left out.

    Args:
        orders: Contract `TcaOrder`.
    """
    return (
        orders.with_columns(arrival_paid=_paid("arrival"))
        .filter(pl.col("arrival_paid") > 0)
        .sort("arrival_paid", "order_id", descending=[True, False])
        .head(WORST_SHOWN)
        .select(orders.columns)
    )


def chart_instants(orders: pl.DataFrame) -> pl.DataFrame:
    """Return the instants whose mids the charts of the worst orders draw: their lives, and a margin around them.

    Args:
        orders: Contract `TcaOrder`.

    Returns:
        `order_id symbol ts_event`, by order and time.
    """
    start = pl.col("ts_event").cast(pl.Int64)
    end = pl.max_horizontal("ts_done", "ts_last_fill", "ts_event").cast(pl.Int64)
    margin = pl.max_horizontal((end - start) * _CHART_MARGIN, pl.lit(_LEAST_MARGIN_NS)).cast(pl.Int64)
    steps = pl.DataFrame({"step": range(_CHART_STEPS + 1)}, schema={"step": pl.Int64()})
    at = pl.col("from") + (pl.col("to") - pl.col("from")) // _CHART_STEPS * pl.col("step")
    return (
        worst_orders(orders)
        .select("order_id", "symbol", (start - margin).alias("from"), (end + margin).alias("to"))
        .join(steps, how="cross", maintain_order="left_right")
        .select("order_id", "symbol", ts_event=at.cast(INSTANT))
        .sort("order_id", "ts_event")
    )


def _orders(orders: pl.DataFrame, quality: pl.DataFrame) -> pl.DataFrame:
    filled, arrival, decided = pl.col("filled_quantity"), pl.col("arrival_price"), pl.col("decision_price")
    paper = pl.col("side") * (pl.col("cancel_price") - decided) / decided * 1e4
    return orders.join(
        quality.select("order_id", "score", "duration_s", "is_filled"),
        on="order_id",
        how="left",
        maintain_order="left",
    ).with_columns(
        notional=pl.when(filled == 0).then(0.0).otherwise(filled * pl.col("avg_price")),
        ordered=pl.col("quantity") * pl.coalesce(arrival, decided),
        decided=pl.col("quantity") * decided,
        arrival_paid=_paid("arrival"),
        excess_cost_bps=excess_cost_bps(),
        paper_bps=pl.when(pl.col("shortfall_bps").is_not_null()).then(paper),
    )


def _paid(benchmark: str) -> pl.Expr:
    """Return the money that a cost in bps stands for."""
    return pl.col(f"{benchmark}_cost_bps") / 1e4 * pl.col("filled_quantity") * pl.col(f"{benchmark}_price")


def _benchmarks(orders: pl.DataFrame, params: ScorecardParams) -> pl.DataFrame:
    beyond = pl.col("excess_cost_bps") / 1e4 * pl.col("filled_quantity") * pl.col("arrival_price")
    costs = {name: (pl.col(f"{name}_cost_bps"), _paid(name)) for name in BENCHMARKS}
    costs[BEYOND_EXPECTED] = (pl.col("excess_cost_bps"), beyond)
    parts = [
        orders.select(pl.lit(name).alias("benchmark"), cluster="order_id", weight="notional", value=cost, paid=paid)
        for name, (cost, paid) in costs.items()
    ]
    more = (
        pl.concat(parts)
        .filter(_is_weighed())
        .group_by("benchmark", maintain_order=True)
        .agg(median_bps=pl.col("value").median(), paid=pl.col("paid").sum())
    )
    total = orders.get_column("notional").sum()
    return (
        pl.DataFrame({"benchmark": list(costs)})
        .join(_means(parts, ["benchmark"], params), on="benchmark", how="left", maintain_order="left")
        .join(more, on="benchmark", how="left", maintain_order="left")
        .select(
            "benchmark",
            pl.col("orders").fill_null(0),
            notional="weight",
            notional_share=pl.col("weight") / total,
            cost_bps="mean",
            low_bps="low",
            high_bps="high",
            median_bps="median_bps",
            paid="paid",
        )
    )


def _shortfall(orders: pl.DataFrame, params: ScorecardParams) -> pl.DataFrame:
    values = {
        "paper": pl.col("paper_bps"),
        **{part: pl.col(f"{part}_bps") for part in PARTS},
        "realised": pl.col("paper_bps") - pl.col("shortfall_bps"),
        "shortfall": pl.col("shortfall_bps"),
    }
    whole = orders.filter(pl.all_horizontal(value.is_not_null() for value in values.values()))
    parts = (
        whole.select(pl.lit(name).alias("part"), cluster="order_id", weight="decided", value=value)
        for name, value in values.items()
    )
    return (
        pl.DataFrame({"part": list(values)})
        .join(_means(parts, ["part"], params), on="part", how="left", maintain_order="left")
        .select(
            "part",
            pl.col("orders").fill_null(0),
            decided="weight",
            bps="mean",
            low_bps="low",
            high_bps="high",
            money=pl.col("mean") / 1e4 * pl.col("weight"),
        )
    )


def _markouts(fills: pl.DataFrame, params: ScorecardParams) -> pl.DataFrame:
    by = {"all": pl.lit(ALL), "liquidity": pl.col("liquidity"), "venue": pl.col("venue")}
    parts = (
        fills.select(
            pl.lit(name).alias("by"),
            group.fill_null(NOT_TOLD).alias("group"),
            pl.lit(horizon).alias("horizon"),
            cluster=pl.coalesce("order_id", "fill_id"),
            weight="notional",
            value=f"markout_{horizon}_bps",
        )
        for name, group in by.items()
        for horizon in HORIZONS
    )
    means = _means(parts, ["by", "group", "horizon"], params).sort("by", "group", maintain_order=True)
    return means.select(
        "by",
        "group",
        "horizon",
        fills="observations",
        orders="orders",
        notional="weight",
        markout_bps="mean",
        low_bps="low",
        high_bps="high",
    )


def _fill_times(orders: pl.DataFrame, params: ScorecardParams) -> pl.DataFrame:
    price = pl.col("ordered") / pl.col("quantity")
    rows = orders.select(
        "duration_s",
        "is_filled",
        algo=pl.col("algo").fill_null(NOT_TOLD),
        quantity="ordered",
        filled_quantity=pl.col("filled_quantity") * price,
    )
    both = [
        fill_rates(named, ["group"]).join(
            time_to_fill(named, ["group"], confidence=params.confidence), on="group", how="left", maintain_order="left"
        )
        for named in (rows.with_columns(group=pl.lit(ALL)), rows.rename({"algo": "group"}))
    ]
    return pl.concat(both, how="diagonal").select(
        "group",
        "orders",
        fill_rate="fill_rate_quantity",
        fill_rate_orders="fill_rate_orders",
        any_fill_orders="any_fill_orders",
        filled="filled",
        censored="censored",
        median_s="median_s",
        median_low_s="median_low_s",
        median_high_s="median_high_s",
    )


def _impact(
    impact: pl.DataFrame, impact_fits: pl.DataFrame, orders: pl.DataFrame, params: ScorecardParams
) -> pl.DataFrame:
    weights = orders.select("order_id", "notional")
    parts = (
        impact.join(weights, on="order_id", maintain_order="left").select(
            pl.lit(str(measure)).alias("measure"), cluster="order_id", weight="notional", value=f"{measure}_bps"
        )
        for measure in ImpactMeasure
    )
    fits = impact_fits.select("measure", pl.exclude("date", "symbol", "measure", "ts_known").name.prefix("fit_"))
    return (
        pl.DataFrame({"measure": [str(measure) for measure in ImpactMeasure]})
        .join(_means(parts, ["measure"], params), on="measure", how="left", maintain_order="left")
        .join(fits, on="measure", how="left", maintain_order="left")
        .select(
            "measure",
            pl.col("orders").fill_null(0),
            pl.col("mean").alias("mean_bps"),
            pl.col("low").alias("low_bps"),
            pl.col("high").alias("high_bps"),
            *fits.columns[1:],
        )
    )


def _means(parts: Iterable[pl.DataFrame], keys: list[str], params: ScorecardParams) -> pl.DataFrame:
    """Return weighted means, and their intervals when orders are drawn again.

    Args:
        parts: The keys, `cluster weight value`, each combination of keys in one part alone; in order of time.
        keys: Columns without nulls.
        params: Draws, seed and confidence.

    Returns:
        The keys, `orders` = clusters, `observations weight mean low high`, in the order in which the keys came. Of more
        than `_MOST_DRAWN` orders so many blocks of orders that follow one another are drawn: that bounds the work.
    """
    weight = pl.col("weight")
    sums = pl.concat(
        part.filter(_is_weighed())
        .group_by(*keys, "cluster", maintain_order=True)
        .agg(weight.sum(), total=(weight * pl.col("value")).sum(), observations=pl.len().cast(pl.Int64))
        for part in parts
    )
    cells = sums.group_by(*keys, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("orders"),
        pl.col("observations").sum(),
        weight.sum(),
        mean=pl.col("total").sum() / weight.sum(),
    )
    judged = cells.filter(pl.col("orders") >= LEAST_FOR_INTERVAL).select(*keys, "orders").with_row_index("cell")
    place, count = pl.int_range(pl.len(), dtype=pl.Int64).over("cell"), pl.col("orders")
    drawn = (
        sums.join(judged, on=keys, maintain_order="left")
        .sort("cell", maintain_order=True)
        .group_by("cell", place * count.clip(upper_bound=_MOST_DRAWN) // count, maintain_order=True)
        .agg(pl.col("weight", "total").sum())
    )
    counted = np.arange(drawn.height)
    low, high = bootstrap_interval(
        ClusterSums(
            drawn.get_column("cell").to_numpy().astype(np.int64),
            counted,
            np.zeros_like(counted),
            drawn.get_column("weight").to_numpy(),
            drawn.get_column("total").to_numpy(),
        ),
        draws=params.draws,
        confidence=params.confidence,
        seed=params.seed,
    )
    ends = judged.select(*keys).with_columns(pl.Series("low", low), pl.Series("high", high))
    return cells.join(ends, on=keys, how="left", maintain_order="left")


def _is_weighed() -> pl.Expr:
    return (pl.col("weight") > 0) & pl.col("value").is_not_null()
