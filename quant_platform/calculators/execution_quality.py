"""How well orders are executed: fill rates, time to fill, hold time, and the spreads that fills paid.

What an order cost against benchmarks is TCA's, what orders did to the price is impact's, and one number of it all is
quality_score's.

Functions that take `keys` give one row for each combination of those columns, which may be null, sorted by them.
"""

from collections.abc import Sequence
from statistics import NormalDist

import polars as pl
import polars.selectors as cs

from quant_platform.contracts.enums import Status

SPREADS = (
    "quoted_spread_bps",
    "effective_spread_bps",
    "realised_spread_5s_bps",
    "markout_5s_bps",
    "markout_5m_bps",
)
"""What is averaged over fills by their notional."""

_NS = 1_000_000_000
_DIGITS = 9  # sums of partial fills miss the ordered quantity by their last bits, and a survival one half


def fill_rates(orders: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return how much of what was ordered was filled.

    Args:
        orders: The keys, `quantity` ordered and `filled_quantity`, one row an order, any row order. Quantities of a
            group are added up, so they must be of one unit: of one instrument, or notional. A row whose quantity is no
            number above 0, or whose filled quantity is no number from 0 on, is left out.
        keys: Columns that tell groups apart.

    Returns:
        The keys, `orders` used, `quantity filled_quantity`, `fill_rate_quantity` = filled ÷ ordered, above 1 if
        overfilled, `fill_rate_orders`, the share filled whole, `any_fill_orders`, the share with any fill, and
        `status`: `no_data` where no row can be used, and values are null.
    """
    quantity, filled = pl.col("quantity"), pl.col("filled_quantity")
    is_usable = is_order()
    return (
        in_order(orders, [*keys, "quantity", "filled_quantity"])
        .group_by(*keys, maintain_order=True)
        .agg(
            orders=is_usable.sum().cast(pl.Int64),
            quantity=quantity.filter(is_usable).sum(),
            filled_quantity=filled.filter(is_usable).sum(),
            fill_rate_orders=is_filled().filter(is_usable).mean(),
            any_fill_orders=(filled > 0).filter(is_usable).mean(),
        )
        .with_columns(fill_rate_quantity=filled / quantity)
        .with_columns(
            pl.when(pl.col("orders") > 0).then(pl.col("quantity", "filled_quantity", "fill_rate_quantity")),
            status=ok_or_no_data(pl.col("orders") > 0),
        )
        .with_columns(finite())
        .select(
            *keys,
            "orders",
            "quantity",
            "filled_quantity",
            "fill_rate_quantity",
            "fill_rate_orders",
            "any_fill_orders",
            "status",
        )
    )


def kaplan_meier(orders: pl.DataFrame, keys: Sequence[str], *, confidence: float = 0.95) -> pl.DataFrame:
    """Return the share of orders that are not yet filled, at each time at which one is.

    Args:
        orders: The keys, `duration_s` from the start of an order to its end, and `is_filled`: whether that end was the
            fill; if not, as for a cancel, the order counts as long as it stood (censored). Where both are at one time,
            the fill comes first. A row without a duration from 0 on, or without `is_filled`, is left out.
        keys: Columns that tell groups apart.
        confidence: Of the interval.

    Returns:
        The keys, `time_s at_risk fills survival survival_low survival_high`, by keys and time. The interval is that of
        Greenwood's variance on the scale of ln(-ln S), which keeps it within [0, 1]; null where nothing is left.
    """
    at_risk = pl.col("exits").sum().over(*keys) - pl.col("exits").cum_sum().over(*keys) + pl.col("exits")
    left = pl.col("at_risk") - pl.col("fills")
    survival = pl.col("survival")
    spread = pl.col("greenwood").cum_sum().over(*keys).sqrt() / survival.log().abs()
    power = (NormalDist().inv_cdf((1 + confidence) / 2) * spread).exp()
    return (
        orders.filter(_is_duration())
        .group_by(*keys, time_s="duration_s")
        .agg(fills=pl.col("is_filled").sum().cast(pl.Int64), exits=pl.len().cast(pl.Int64))
        .sort(*keys, "time_s")
        .with_columns(at_risk=at_risk)
        .filter(pl.col("fills") > 0)
        .with_columns(
            survival=(left / pl.col("at_risk")).cum_prod().over(*keys),
            greenwood=pl.when(left > 0).then(pl.col("fills") / (pl.col("at_risk") * left)),
        )
        .with_columns(power=pl.when(left > 0).then(power))
        .select(
            *keys,
            "time_s",
            "at_risk",
            "fills",
            "survival",
            survival_low=survival ** pl.col("power"),
            survival_high=survival ** (1 / pl.col("power")),
        )
    )


def time_to_fill(orders: pl.DataFrame, keys: Sequence[str], *, confidence: float = 0.95) -> pl.DataFrame:
    """Return the median time to fill, cancelled orders counted as long as they stood.

    Args:
        orders: See `kaplan_meier`.
        keys: Columns that tell groups apart.
        confidence: Of the interval.

    Returns:
        The keys, `filled` and `censored` orders, `median_s` = the first time at which no more than half are not yet
        filled, and `median_low_s median_high_s`, the first times at which the ends of the survival's interval are
        there; null where they never are. `status` is `no_data` without a duration, `too_few` where the median is null:
        fewer than half were seen to fill.
    """

    def first(column: str) -> pl.Expr:
        return pl.col("time_s").filter(pl.col(column).round(_DIGITS) <= 0.5).first()

    medians = (
        kaplan_meier(orders, keys, confidence=confidence)
        .group_by(*keys)
        .agg(median_s=first("survival"), median_low_s=first("survival_low"), median_high_s=first("survival_high"))
    )
    is_usable, is_done = _is_duration(), pl.col("is_filled")
    return (
        orders.group_by(*keys)
        .agg(
            filled=(is_usable & is_done).sum().cast(pl.Int64),
            censored=(is_usable & ~is_done).sum().cast(pl.Int64),
        )
        .join(medians, on=list(keys), how="left", nulls_equal=True)
        .sort(*keys)
        .with_columns(
            status=pl.when(pl.col("filled") + pl.col("censored") == 0)
            .then(pl.lit(Status.NO_DATA))
            .when(pl.col("median_s").is_null())
            .then(pl.lit(Status.TOO_FEW))
            .otherwise(pl.lit(Status.OK))
        )
    )


def hold_times(fills: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return how long what was closed had been held, first in first out.

    What is closed of a position is paired with its oldest part, and the mean is by quantity. Σ(quantity · time of the
    close) - Σ(quantity · time of the open) over what has been closed gives it without pairing.

    Args:
        fills: The keys, `ts_event fill_id side quantity`, any row order; the position is taken to be flat before them.
            A row without a side of ±1, or a quantity above 0, is left out.
        keys: Columns that tell positions apart, such as strategy and symbol.

    Returns:
        The keys, `closed_quantity`, `hold_s`, and `status`: `no_data` where nothing was closed, and both are null.
    """
    side, quantity = pl.col("side"), pl.col("quantity")
    before = pl.col("position") - pl.col("signed")
    seconds = (pl.col("ts_event") - pl.col("ts_event").min().over(*keys)).dt.total_nanoseconds() / _NS
    is_usable = side.is_in([-1, 1]) & quantity.is_finite() & (quantity > 0) & pl.col("ts_event").is_not_null()
    closing = pl.when(before * side < 0).then(pl.min_horizontal(quantity, before.abs())).otherwise(0.0)
    closed, opening = pl.col("closing").sum(), quantity - pl.col("closing")
    unmatched = pl.max_horizontal(closed.over(*keys) - (opening.cum_sum().over(*keys) - opening), 0.0)
    held = (pl.col("seconds") * (pl.col("closing") - pl.col("matched"))).sum() / closed
    return (
        fills.with_columns(is_usable=is_usable.fill_null(value=False))
        .with_columns(signed=pl.when("is_usable").then(side * quantity), quantity=pl.when("is_usable").then(quantity))
        .sort(*keys, "ts_event", "fill_id")
        .with_columns(seconds=seconds, position=pl.col("signed").cum_sum().over(*keys))
        .with_columns(closing=closing)
        .with_columns(matched=pl.min_horizontal(opening, unmatched))
        .group_by(*keys, maintain_order=True)
        .agg(closed_quantity=closed, hold_s=held)
        .with_columns(status=ok_or_no_data(pl.col("closed_quantity") > 0))
        .with_columns(pl.when(pl.col("closed_quantity") > 0).then(pl.col("closed_quantity", "hold_s")))
    )


def spread_quality(fills: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return the spreads that fills paid, and how often they did better than the quote.

    Args:
        fills: The keys, and `price quantity price_improvement price_improvement_amount` and `SPREADS` of contract
            `TcaFill`, each fill once, any row order. A row whose price or quantity is no number above 0 is left out;
            what is null, NaN or infinite of the others is left out of its own mean.
        keys: Columns that tell groups apart.

    Returns:
        The keys, `fills` used, `notional`, the mean of each of `SPREADS` by notional, `e_over_q` = the effective
        spreads ÷ the quoted ones of fills that have both, each by notional, null where the book was locked,
        `price_improvement_bps` = the amounts ÷ the notional of fills that have one, and the shares of the notional
        that was better than the far touch, at it, and worse: `improved_share at_quote_share outside_share`. `status`
        is `no_data` where no fill can be used.
    """
    better, weight = pl.col("price_improvement"), pl.col("notional")
    shares = {"improved_share": better > 0, "at_quote_share": better == 0, "outside_share": better < 0}
    return (
        _weighed(fills, keys)
        .group_by(*keys, maintain_order=True)
        .agg(
            fills=weight.count().cast(pl.Int64),
            notional=weight.sum(),
            **{name: weighted_mean(pl.col(name), weight) for name in SPREADS},
            e_over_q=ratio_of_means(pl.col("effective_spread_bps"), pl.col("quoted_spread_bps"), weight),
            price_improvement_bps=weighted_mean(pl.col("price_improvement_bps"), weight),
            **{name: weighted_mean(is_so.cast(pl.Float64), weight) for name, is_so in shares.items()},
        )
        .with_columns(
            pl.when(pl.col("fills") > 0).then("notional"),
            status=ok_or_no_data(pl.col("fills") > 0),
        )
        .with_columns(finite())
    )


def weighted_mean(value: pl.Expr, weight: pl.Expr) -> pl.Expr:
    """Return Σ weight·value ÷ Σ weight over rows that have both; null where none has."""
    both = (value * weight).is_not_null()
    total = weight.filter(both).sum()
    return pl.when(total > 0).then((value * weight).sum() / total)


def ratio_of_means(value: pl.Expr, base: pl.Expr, weight: pl.Expr) -> pl.Expr:
    """Return Σ weight·value ÷ Σ weight·base over rows that have all; null where the base is not above 0."""
    all_three = (value * base * weight).is_not_null()
    total = (base * weight).filter(all_three).sum()
    return pl.when(total > 0).then((value * weight).filter(all_three).sum() / total)


def is_order() -> pl.Expr:
    """Return whether `quantity` and `filled_quantity` are numbers above 0, and from 0 on."""
    quantity, filled = pl.col("quantity"), pl.col("filled_quantity")
    is_usable = quantity.is_finite() & (quantity > 0) & filled.is_finite() & (filled >= 0)
    return is_usable.fill_null(value=False)


def is_filled() -> pl.Expr:
    """Return whether all of `quantity` is filled, but for the last bits of a sum."""
    return (pl.col("filled_quantity") / pl.col("quantity")).round(_DIGITS) >= 1


def ok_or_no_data(is_known: pl.Expr) -> pl.Expr:
    """Return the status of a value that is known or not."""
    return pl.when(is_known).then(pl.lit(Status.OK)).otherwise(pl.lit(Status.NO_DATA))


def finite() -> pl.Expr:
    """Return the real columns, null where they are NaN or infinite."""
    return pl.when(cs.float().is_finite()).then(cs.float())


def in_order(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Return these columns sorted by all of them, so that sums do not depend on the order in which rows came."""
    return rows.select(columns).sort(columns)


def _is_duration() -> pl.Expr:
    duration = pl.col("duration_s")
    return (duration.is_finite() & (duration >= 0)).fill_null(value=False) & pl.col("is_filled").is_not_null()


def _weighed(fills: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return the keys, `notional`, and what is averaged by it, null where one of them is no number."""
    averaged = (*SPREADS, "price_improvement", "price_improvement_bps")
    notional = pl.col("price") * pl.col("quantity")
    is_usable = notional.is_finite() & (pl.col("price") > 0) & (pl.col("quantity") > 0)
    rows = fills.with_columns(
        notional=pl.when(is_usable).then(notional),
        price_improvement_bps=pl.col("price_improvement_amount") / notional * 1e4,
    )
    values = cs.by_name(averaged).cast(pl.Float64)
    known = pl.when(values.is_finite() & pl.col("notional").is_not_null()).then(values)
    return in_order(rows.with_columns(known), [*keys, "notional", *averaged])
