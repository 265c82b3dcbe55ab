"""The quote that a fill met, and the mids after it. What orders have cost is computed elsewhere."""

import numpy as np
import polars as pl

from quant_platform.calculators._cores import on_all_cores
from quant_platform.calculators._figures import bps, is_positive, is_side, known_side, taken
from quant_platform.calculators._price_tape import NEVER, PriceTape
from quant_platform.calculators._tape import framed, integers
from quant_platform.calculators._timeline import Timeline
from quant_platform.calculators.benchmarks import Sessions, instants
from quant_platform.contracts.execution import MARKOUT_HORIZONS_NS, TcaStatus

_TOUCH = ("bid_price", "bid_size", "ask_price", "ask_size")
_HAS_MID = (TcaStatus.OK, TcaStatus.LOCKED)
_S = 1e9


def with_touch(rows: pl.DataFrame, quotes: pl.DataFrame, timeline: Timeline) -> pl.DataFrame:
    """Return the fills with the last quote strictly before each, and what it says of them.

    Args:
        rows: Fills by symbol and time, with `is_awaited`.
        quotes: Quotes in order, whatever they look like.
        timeline: Where instants fall among them.
    """
    place = timeline.place(rows.get_column("symbol"))
    row = timeline.rows_before(place, integers(rows, "ts_event")) - 1
    touch = taken(
        quotes.select(*_TOUCH, quote_ts="ts_event", quote_known="ts_recv"),
        np.where(row >= timeline.begin(place), row, -1),
    )
    is_fill = is_side() & is_positive("price") & is_positive("quantity")
    touch = touch.select(pl.when(~rows.get_column("is_awaited")).then(pl.all()))
    rows = pl.concat([rows, touch], how="horizontal").with_columns(
        quote_age_s=(pl.col("ts_event") - pl.col("quote_ts")).dt.total_nanoseconds() / _S, is_fill=is_fill
    )
    figures = ("price", "quantity", *_TOUCH, "quote_age_s", "quote_known")
    return (
        rows.with_columns(*(pl.when("is_fill").then(name).alias(name) for name in figures), side=known_side())
        .with_columns(status=_status())
        .with_columns(_against_touch())
        .with_columns(_spreads())
        .with_columns(e_over_q=pl.when(_is(TcaStatus.OK)).then(_ratio()))
    )


def _status() -> pl.Expr:
    bid, ask = pl.col("bid_price"), pl.col("ask_price")
    return (
        pl.when(~pl.col("is_fill"))
        .then(pl.lit(TcaStatus.INVALID_INPUT))
        .when("is_awaited")
        .then(pl.lit(TcaStatus.NOT_YET))
        .when(pl.col("quote_ts").is_null())
        .then(pl.lit(TcaStatus.NO_DATA))
        .when(bid.is_null() | ask.is_null())
        .then(pl.lit(TcaStatus.ONE_SIDED))
        .when(bid > ask)
        .then(pl.lit(TcaStatus.CROSSED))
        .when(bid == ask)
        .then(pl.lit(TcaStatus.LOCKED))
        .otherwise(pl.lit(TcaStatus.OK))
    )


def _is(*statuses: TcaStatus) -> pl.Expr:
    return pl.col("status").is_in(statuses)


def _against_touch() -> list[pl.Expr]:
    bid, ask, is_buy = pl.col("bid_price"), pl.col("ask_price"), pl.col("side") > 0
    far, far_size = (pl.when(is_buy).then(f"ask_{what}").otherwise(f"bid_{what}") for what in ("price", "size"))
    capped = pl.when(far_size.is_not_null()).then(pl.min_horizontal("quantity", far_size))
    figures = {
        "mid_price": (bid + ask) / 2,
        "price_improvement": pl.col("side") * (far - pl.col("price")),
        "capped_quantity": capped,
    }
    return [pl.when(_is(*_HAS_MID)).then(figure).alias(name) for name, figure in figures.items()]


def _spreads() -> list[pl.Expr]:
    mid, price = pl.col("mid_price"), pl.col("price")
    return [
        bps((pl.col("ask_price") - pl.col("bid_price")) / mid).alias("quoted_spread_bps"),
        bps(2 * pl.col("side") * (price - mid) / mid).alias("effective_spread_bps"),
        (pl.col("price_improvement") * pl.col("capped_quantity")).alias("price_improvement_amount"),
    ]


def _ratio() -> pl.Expr:
    return pl.col("effective_spread_bps") / pl.col("quoted_spread_bps")


def with_later_mids(rows: pl.DataFrame, tape: PriceTape, own: pl.DataFrame) -> pl.DataFrame:
    """Return the fills with realised spreads and markouts, and `ts_known`.

    Args:
        rows: What `with_touch` returns.
        tape: The mids.
        own: What `own_sessions` returns: how far each fill's session can be looked at.
    """
    ts, end, is_fill = integers(rows, "ts_event"), own.get_column("ts_end"), rows.get_column("is_fill")
    moments = ts + np.array(list(MARKOUT_HORIZONS_NS.values()))[:, None]
    place = tape.timeline.place(rows.get_column("symbol"))
    last = np.array(on_all_cores(lambda instants: tape.last(place, instants), list(moments)))
    reach = pl.select(pl.when(is_fill).then(end).to_physical().fill_null(NEVER)).to_series().to_numpy()
    later = tape.at(np.where(moments <= reach, last, -1))
    known = np.where(later.known > NEVER, np.maximum(later.known, moments), NEVER).max(axis=0)
    has_close = is_fill & (end >= rows.get_column("ts_event"))
    rows = rows.with_columns(
        *framed({f"mid_{name}": price for name, price in zip(MARKOUT_HORIZONS_NS, later.price, strict=True)}),
        instants("mids_known", known),
        ts_markout_end=end,
        mid_close=pl.when(has_close).then(own.get_column("close_price")),
        close_known=pl.when(has_close).then(own.get_column("close_known")),
    )
    side, price = pl.col("side"), pl.col("price")
    mids = {name: pl.col(f"mid_{name}") for name in (*MARKOUT_HORIZONS_NS, "close")}
    return rows.with_columns(
        *(
            bps(2 * side * (price - mids[name]) / pl.col("mid_price")).alias(f"realised_spread_{name}_bps")
            for name in MARKOUT_HORIZONS_NS
        ),
        *(bps(side * (mid - price) / price).alias(f"markout_{name}_bps") for name, mid in mids.items()),
        ts_known=pl.max_horizontal("ts_recv", "ts_event", "quote_known", "mids_known", "close_known"),
    )


def is_awaited(rows: pl.DataFrame, own: pl.DataFrame) -> pl.Series:
    """Return whether a fill's session is not over and its quotes do not reach the fill yet.

    Args:
        rows: Fills.
        own: What `own_sessions` returns.
    """
    is_reached = own.get_column("ts_end") >= rows.get_column("ts_event")
    return ~own.get_column("is_over").fill_null(value=True) & ~is_reached.fill_null(value=False)


def own_sessions(
    rows: pl.DataFrame, quotes: pl.DataFrame, timeline: Timeline, hours: Sessions, prices: pl.DataFrame
) -> pl.DataFrame:
    """Return the session that holds each fill, row by row, null where none does.

    Args:
        rows: Fills.
        quotes: Quotes in order.
        timeline: Where instants fall among them.
        hours: Sessions.
        prices: Of each session.

    Returns:
        The prices, and `ts_end`: the last quote of the session.
    """
    place = timeline.place(hours.rows.get_column("symbol"))
    last = timeline.rows_before(place, integers(hours.rows, "ts_close")) - 1
    ends = taken(quotes.select(ts_end="ts_event"), np.where(last >= timeline.begin(place), last, -1))
    sessions = pl.concat([hours.rows.drop("symbol"), prices, ends], how="horizontal").with_columns(
        ts_end=pl.when(pl.col("ts_end") >= pl.col("ts_open")).then("ts_end")
    )
    ts = rows.get_column("ts_event")
    own = taken(sessions, hours.not_closed_by(rows.get_column("symbol"), integers(rows, "ts_event")))
    return own.select(pl.when(own.get_column("ts_open") <= ts).then(pl.all()))
