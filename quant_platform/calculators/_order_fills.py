"""Orders, their families and their fills: what was ordered, and what came of it. The market is not known here."""

import numpy as np
import polars as pl

from quant_platform.calculators import revisions
from quant_platform.calculators._figures import is_positive
from quant_platform.calculators._tape import Array, framed, integers
from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.execution import Fill, Order

FLAGS = ("has_fill_before_order", "has_fill_after_done", "has_correction")

_TOLD = ("symbol", "side", "ts_event", "ts_recv", "revision", "price", "quantity", "fee", "fee_currency", "fee_rate")
_SUMS = pl.Schema(
    {
        "place": pl.Int64(),
        "filled_quantity": pl.Float64(),
        "avg_price": pl.Float64(),
        "fees": pl.Float64(),
        "fill_count": pl.Int64(),
        "ts_first_fill": INSTANT,
        "ts_last_fill": INSTANT,
        "fills_known": INSTANT,
        "has_bad_fill": pl.Boolean(),
        **dict.fromkeys(FLAGS, pl.Boolean()),
    }
)


def current(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the revision of each id that counts; rows without id, symbol or ts_event are ignored.

    Args:
        rows: With `name symbol ts_event ts_recv revision`, any row order.
        name: The column of the id.
    """
    rows = rows.drop_nulls([name, "symbol", "ts_event"])
    return rows if rows.get_column(name).n_unique() == rows.height else revisions.current(rows, name)


def families(orders: pl.DataFrame) -> pl.DataFrame:
    """Return the orders, each with the parent of the whole family that it belongs to.

    Args:
        orders: Contract `Order`, any number of symbols, any row order.

    Returns:
        The orders by (symbol, ts_event, order_id), with `root`: the id of the parent of all, its own where it is that;
        and `is_orphan`: the parent that it names is not among the orders, or is its own descendant. Such an order is a
        parent itself.
    """
    known = current(orders.select(polars_schema(Order).names()), "order_id").sort("symbol", "ts_event", "order_id")
    own = pl.int_range(known.height, dtype=pl.Int64, eager=True)
    places = known.select("order_id", place=own)
    named = known.select(order_id="parent_order_id").join(places, on="order_id", how="left", maintain_order="left")
    parent = named.get_column("place").fill_null(own).to_numpy()
    root = parent
    for _ in range(known.height.bit_length()):  # each round looks twice as far up
        root = root[root]
    is_in_ring = parent[root] != root
    is_unknown = known.get_column("parent_order_id").is_not_null() & named.get_column("place").is_null()
    root = np.where(is_in_ring, own.to_numpy(), root)
    return known.with_columns(
        known.get_column("order_id").gather(root).alias("root"), is_orphan=is_unknown | pl.Series(is_in_ring)
    )


def parents_with_fills(orders: pl.DataFrame, fills: pl.DataFrame) -> pl.DataFrame:
    """Return the parent orders, each with what came of the fills of it and of all its descendants.

    Args:
        orders: Contract `Order`, any number of symbols, any row order.
        fills: Contract `Fill`, any row order. A fill whose order is not among the orders is left out.

    Returns:
        The parents of `families`, and of their fills `filled_quantity` (0 without fills, null where one of them is no
        fill: its price or quantity is not > 0, or it is of another symbol or side than the parent), `avg_price`, `fees`
        (in quote currency, null where one of them is not known), `fill_count`, the first and the last, `fills_known`,
        `has_bad_fill`, and `FLAGS`.
    """
    known = families(orders)
    is_head = known.get_column("root") == known.get_column("order_id")
    heads = known.filter(is_head).with_columns(place=pl.int_range(pl.len()))
    told = current(fills.select(polars_schema(Fill).names()), "fill_id")
    rows = known.select("order_id", row=pl.int_range(pl.len()))
    own = told.select("order_id").join(rows, on="order_id", how="left", maintain_order="left").get_column("row")
    head = known.select(order_id="root").join(rows, on="order_id", how="left", maintain_order="left").get_column("row")
    own, told = own.drop_nulls(), told.filter(own.is_not_null())
    place = (is_head.cum_sum() - 1).gather(head.gather(own))
    order = told.select(pl.arg_sort_by(place, "ts_event", "fill_id")).to_series()
    own, place = own.gather(order), place.gather(order)
    of_orders = known.select(order_ts="ts_event", order_done="ts_done", order_recv="ts_recv")[own]
    of_heads = heads.select("place", head_symbol="symbol", head_side="side")[place]
    sums = _sums(pl.concat([told.select(_TOLD)[order], of_orders, of_heads], how="horizontal"))
    return heads.join(sums, on="place", how="left", maintain_order="left").with_columns(
        pl.when(pl.col("fill_count").is_null()).then(0.0).otherwise("filled_quantity").alias("filled_quantity"),
        pl.when(pl.col("fill_count").is_null()).then(0.0).otherwise("fees").alias("fees"),
        pl.col("fill_count").fill_null(0),
        pl.col("has_bad_fill", *FLAGS).fill_null(value=False),
    )


def _sums(fills: pl.DataFrame) -> pl.DataFrame:
    """Return what the fills of each parent add up to; they stand together by its place, the earliest first."""
    if fills.is_empty():
        return pl.DataFrame(schema=_SUMS)
    ts = pl.col("ts_event")
    is_quote_currency = pl.col("fee_currency").fill_null("") == ""
    rate = pl.when(is_quote_currency | (pl.col("fee") == 0)).then(1.0).when(is_positive("fee_rate")).then("fee_rate")
    is_fill = (
        is_positive("price")
        & is_positive("quantity")
        & pl.col("symbol").eq_missing(pl.col("head_symbol"))
        & pl.col("side").eq_missing(pl.col("head_side"))
    )
    told = fills.select(
        "place",
        ts,
        is_bad=~is_fill,
        price=pl.when(is_fill).then("price"),
        quantity=pl.when(is_fill).then("quantity"),
        fee=pl.col("fee") * rate,
        known=pl.max_horizontal("ts_recv", "order_recv"),
        has_fill_before_order=ts < pl.col("order_ts"),
        has_fill_after_done=(ts > pl.col("order_done")).fill_null(value=False),
        has_correction=pl.col("revision").fill_null(0) > 0,
    )
    place = integers(told, "place")
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    counts = np.diff(starts, append=len(place))
    price, quantity, fee = (told.get_column(name).to_numpy() for name in ("price", "quantity", "fee"))
    with np.errstate(all="ignore"):  # what overflows is null in the end
        first = price[starts]
        filled = np.add.reduceat(quantity, starts)
        average = first + np.add.reduceat((price - np.repeat(first, counts)) * quantity, starts) / filled
        fees = np.add.reduceat(fee, starts)
    columns = {
        "place": place[starts],
        "filled_quantity": _finite(filled),
        "avg_price": _finite(average),
        "fees": _finite(fees),
        "fill_count": counts,
        "ts_first_fill": integers(told, "ts_event")[starts],
        "ts_last_fill": integers(told, "ts_event")[starts + counts - 1],
        "fills_known": np.maximum.reduceat(integers(told, "known"), starts),
        "has_bad_fill": np.logical_or.reduceat(told.get_column("is_bad").to_numpy(), starts) | ~np.isfinite(average),
        **{name: np.logical_or.reduceat(told.get_column(name).to_numpy(), starts) for name in FLAGS},
    }
    return framed(columns).cast(_SUMS)


def _finite(values: Array) -> Array:
    """Return the values with NaN for what is infinite."""
    return np.where(np.isfinite(values), values, np.nan)
