"""What orders and fills have cost: the implementation shortfall and its parts, costs against benchmarks, markouts.

Prices of the market come from `benchmarks`. Scorecards, impact and quality over many orders are computed elsewhere.
"""

import polars as pl

from quant_platform.calculators._figures import bps, finite, is_positive, is_side, known_side, taken
from quant_platform.calculators._fill_quotes import is_awaited, own_sessions, with_later_mids, with_touch
from quant_platform.calculators._order_fills import current, families, parents_with_fills
from quant_platform.calculators._price_tape import mids, ordered_quotes
from quant_platform.calculators._tape import integers
from quant_platform.calculators._timeline import Timeline
from quant_platform.calculators.benchmarks import (
    Market,
    Sessions,
    interval_benchmarks,
    last_mids,
    market,
    ordered_sessions,
    participation_prices,
    session_prices,
)
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.execution import (
    PARTICIPATION_RATES,
    Decision,
    Fill,
    PriceBasis,
    TcaFill,
    TcaOrder,
    TcaReason,
    TcaStatus,
)

LOOKBACK_SESSIONS = 1

_WHOLE = 1e-9  # relative: sums that are no further from a whole are it
_PWP = [f"pwp_{name}" for name in PARTICIPATION_RATES]
_SESSION = ("open", "close", "prev_close")
_BENCHMARKS = ("decision", "arrival", "vwap", "twap", *_SESSION, *_PWP)


def tca_orders(
    orders: pl.DataFrame,
    decisions: pl.DataFrame,
    fills: pl.DataFrame,
    *,
    trades: pl.DataFrame,
    quotes: pl.DataFrame,
    sessions: pl.DataFrame,
) -> pl.DataFrame:
    """Return what each parent order has cost, with the fills of all its descendants.

    The shortfall is Perold's, paper less real profit, in four parts. With side s, decision price D, arrival mid A,
    average fill price P, ordered X, filled q and the price C at which the rest was given up, they are delay
    s·q·(A - D), trading s·q·(P - A), opportunity s·(X - q)·(C - D) and fees, each ÷ (X·D). They sum to (paper profit -
    real profit) ÷ (X·D), where paper is s·X·(C - D) and real s·q·(C - P) - fees. A cost against a benchmark B is
    s·(P - B) ÷ B.

    Args:
        orders: Contract `Order`, any number of symbols, any row order; of each id the highest revision counts. An order
            whose parent is not among them is a parent itself. Rows without id, symbol or ts_event are ignored.
        decisions: Contract `Decision`; one of another symbol than the order is not the order's.
        fills: Contract `Fill`; those of no order, and of orders that are not among these, are left out.
        trades: Contract `Trade`, see `benchmarks.market`; at least from the first arrival to the last session's close.
        quotes: Contract `Quote`; from before the first arrival, and for the close before from the session before.
        sessions: `benchmarks.SESSIONS`. An order's session is the first that closes after its arrival.

    Returns:
        Contract `TcaOrder`, by (symbol, ts_event, order_id). `status` is `unfinished` without ts_done, and
        `invalid_input` where the side is none, the quantity is not > 0, ts_done is before ts_event, or a fill has no
        price, no quantity, or another symbol or side than its parent; figures in bps are null then.

        `arrival_price` is the last mid at or before the arrival; null while the mids do not reach the arrival, unless
        that session is over. VWAP and TWAP are over [ts_event, ts_done). PWP counts
        from the arrival to the close of the last session that opened by ts_done. C is the order's cancel_price, else
        the last mid at ts_done. VWAP, TWAP and that mid are null while the tape does not reach ts_done, unless that
        session is over. Without an arrival mid the delay and trading of what was filled are null, and the shortfall is
        not. Nothing filled: delay and trading are 0. Nothing unfilled, to 1e-9 of the quantity: opportunity is 0.

    Raises:
        ValueError: A trade or quote has no ts_recv, or the symbols and times are more than 63 bits can order.
    """
    tapes, hours = market(trades, quotes), ordered_sessions(sessions)
    del trades, quotes  # most of what a symbol-day needs: the tapes hold what is asked for
    rows = _with_decisions(parents_with_fills(orders, fills), decisions)
    rows = _with_prices(rows.with_columns(status=_order_status()), tapes, hours)
    return rows.with_columns(_costs()).with_columns(_parts()).with_columns(_reasons()).select(_order_columns())


def tca_fills(fills: pl.DataFrame, quotes: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """Return the quote that each fill met, and where the mid went after it.

    With side s, price P, mid M before the fill and M(h) the last mid at or before h after it: effective spread
    2·s·(P - M) ÷ M, realised spread 2·s·(P - M(h)) ÷ M, their difference the impact at h; markout s·(M(h) - P) ÷ P;
    price improvement s·(far touch - P), credited for no more than the far touch displayed.

    Args:
        fills: Contract `Fill`, any number of symbols, any row order; of each id the highest revision counts. Rows
            without id, symbol or ts_event are ignored.
        quotes: Contract `Quote`, see `benchmarks.market`.
        sessions: `benchmarks.SESSIONS`.

    Returns:
        Contract `TcaFill`, by (symbol, ts_event, fill_id). `status`: `invalid_input` where side, price or quantity is
        none, and every figure is null; `not_yet`, and every figure is null, where the quotes of a session that is not
        over do not reach the fill; `no_data` without a quote strictly before the fill; `one_sided`, `crossed` and
        `locked` after that quote, of which only the last one has spreads; there E/Q is null. A markout is null where no
        session holds the fill, and where the session's quotes end before the horizon does; that to the close, while the
        session is not over.

    Raises:
        ValueError: A quote has no ts_recv, or the symbols and times are more than 63 bits can order.
    """
    rows = current(fills.select(polars_schema(Fill).names()), "fill_id").sort("symbol", "ts_event", "fill_id")
    ordered, hours = ordered_quotes(quotes), ordered_sessions(sessions)
    timeline = Timeline.of(integers(ordered.rows, "ts_event"), ordered.starts, ordered.symbols)
    tape = mids(ordered)
    own = own_sessions(rows, ordered.rows, timeline, hours, session_prices(hours, tape))
    rows = rows.with_columns(is_awaited=is_awaited(rows, own))
    rows = with_later_mids(with_touch(rows, ordered.rows, timeline), tape, own)
    return rows.select(polars_schema(TcaFill).names())


def with_parents(fills: pl.DataFrame, orders: pl.DataFrame) -> pl.DataFrame:
    """Return the fills, each with the parent's order where an order of a family is named.

    Args:
        fills: `order_id` and any other columns.
        orders: Contract `Order`, of the fills' dates and those before on which parents were sent.

    Returns:
        The same rows and columns; an `order_id` that is null, or not among the orders, stays.
    """
    parents = families(orders).select("order_id", "root")
    named = fills.join(parents, on="order_id", how="left", maintain_order="left")
    return named.with_columns(order_id=pl.coalesce("root", "order_id")).drop("root")


def profits() -> tuple[pl.Expr, pl.Expr]:
    """Return the paper profit s·X·(C - D) and the real profit s·q·(C - P) - fees of each `TcaOrder`, in money.

    Letters are those of `tca_orders`; where nothing was given up C is P, which then cancels out of their difference.
    The paper profit is null where a price is missing; the real profit of an order without a fill is -fees.
    """
    side, filled, paid = pl.col("side"), pl.col("filled_quantity"), pl.col("avg_price")
    given_up = pl.coalesce("cancel_price", "avg_price")
    paper = side * pl.col("quantity") * (given_up - pl.col("decision_price"))
    return paper, (side * filled * (given_up - paid)).fill_null(0.0) - pl.col("fees")


def soundness(orders: pl.DataFrame, fills: pl.DataFrame, trades: pl.DataFrame) -> dict[str, int]:
    """Return how many orders and fills break what must hold, or lack something.

    Args:
        orders: Contract `TcaOrder`.
        fills: Contract `Fill`: all of a symbol and date.
        trades: `price` of the symbol's tape of the date.

    Returns:
        Counts: `orders`; `identity_broken`, whose parts do not sum to the shortfall, or whose shortfall is not paper
        less real profit ÷ decided value, by 1e-9 of it; `overfilled`; `filled_outside_life`, with a fill before the
        order or after its end; `unfinished`; `without_arrival`; `revised`; `fills`; `fills_without_order`; and
        `outside_range`, fills whose price is not within the tape's.
    """
    paper, real = profits()
    gaps = orders.filter(pl.col("shortfall_bps").is_not_null(), pl.col("delay_bps").is_not_null()).select(
        parts=pl.sum_horizontal(f"{part}_bps" for part in ("delay", "trading", "opportunity", "fees")),
        profit=(paper - real) / (pl.col("quantity") * pl.col("decision_price")) * 1e4,
        whole="shortfall_bps",
    )
    is_broken = pl.any_horizontal(
        (pl.col(name) - pl.col("whole")).abs() > _WHOLE * (pl.col("whole").abs() + 1) for name in ("parts", "profit")
    )
    low, high = trades.select(low=pl.col("price").min(), high=pl.col("price").max()).row(0)
    outside = 0 if low is None else fills.filter(~pl.col("price").is_between(low, high)).height
    return {
        "orders": orders.height,
        "identity_broken": gaps.filter(is_broken).height,
        "overfilled": int(orders["is_overfilled"].sum()),
        "filled_outside_life": orders.filter(pl.col("has_fill_before_order") | pl.col("has_fill_after_done")).height,
        "unfinished": orders.filter(pl.col("status") == TcaStatus.UNFINISHED).height,
        "without_arrival": orders.filter(pl.col("reasons").str.contains(TcaReason.NO_ARRIVAL)).height,
        "revised": int(orders["has_correction"].sum()),
        "fills": fills.height,
        "fills_without_order": fills["order_id"].null_count(),
        "outside_range": outside,
    }


def _with_decisions(rows: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    told = current(decisions.select(polars_schema(Decision).names()), "decision_id").select(
        "decision_id",
        "symbol",
        "strategy",
        finite(pl.col("expected_cost_bps")),
        decision_price=pl.when(is_positive("price")).then("price"),
        decision_recv="ts_recv",
        decision_revision="revision",
    )
    rows = rows.join(told, on=["decision_id", "symbol"], how="left", maintain_order="left")
    is_corrected = pl.max_horizontal("revision", "decision_revision") > 0
    return rows.with_columns(has_correction=pl.col("has_correction") | is_corrected)


def _order_status() -> pl.Expr:
    is_bad = (
        ~is_side()
        | ~is_positive("quantity")
        | (pl.col("ts_done") < pl.col("ts_event")).fill_null(value=False)
        | pl.col("has_bad_fill")
    )
    return (
        pl.when(is_bad)
        .then(pl.lit(TcaStatus.INVALID_INPUT))
        .when(pl.col("ts_done").is_null())
        .then(pl.lit(TcaStatus.UNFINISHED))
        .otherwise(pl.lit(TcaStatus.OK))
    )


def _with_prices(rows: pl.DataFrame, tapes: Market, hours: Sessions) -> pl.DataFrame:
    """Return the orders with every price that they are held against, and `ts_known`."""
    rows = rows.with_columns(is_ok=pl.col("status") == TcaStatus.OK)
    symbols, arrival = rows.get_column("symbol"), pl.col("ts_event")
    windows = rows.select(
        "symbol",
        "is_ok",
        ts_start=arrival,
        ts_end=pl.when("is_ok").then("ts_done").otherwise(arrival),
        quantity="filled_quantity",
    )
    last = taken(hours.rows, hours.opened_by(symbols, integers(windows, "ts_end")))
    until = pl.when("is_ok").then(pl.coalesce(last.get_column("ts_close"), "ts_start")).otherwise("ts_start")
    pwp = participation_prices(windows.with_columns(ts_end=until), tapes)
    own = hours.not_closed_by(symbols, integers(rows, "ts_event"))
    own_is_over = taken(hours.rows, own).get_column("is_over").fill_null(value=True)
    place = tapes.mids.timeline.place(symbols)
    has_arrived = own_is_over | pl.Series(tapes.mids.reaches(place, integers(rows, "ts_event")))
    known = pl.col("ts_known")
    interval = interval_benchmarks(windows, tapes).rename({"ts_known": "interval_known"})
    rest = last_mids(windows.select("symbol", ts_event="ts_end"), tapes.mids)
    rows = pl.concat(
        [
            rows.rename({"cancel_price": "told_cancel_price"}),
            last_mids(rows, tapes.mids).select(
                pl.when(has_arrived).then(name).alias(f"arrival_{short}")
                for short, name in (("price", "mid_price"), ("age_s", "age_s"), ("known", "ts_known"))
            ),
            interval,
            last.select(is_over=pl.col("is_over").fill_null(value=False)),
            (own_is_over & last.get_column("is_over").fill_null(value=True)).alias("is_final").to_frame(),
            rest.select(rest_price="mid_price", rest_known=known),
            pwp.rename({"ts_known": "pwp_known"}),
            taken(session_prices(hours, tapes.mids), own),
        ],
        how="horizontal",
    ).with_columns(is_whole=pl.col("is_ok") & (pl.col("has_reached_end") | pl.col("is_over")))
    is_told = pl.col("is_ok") & is_positive("told_cancel_price")
    is_read = pl.col("is_whole") & ~is_told & pl.col("rest_price").is_not_null()
    of_interval = ("market_volume", "vwap_price", "twap_price", "twap_basis", "interval_known")
    return rows.with_columns(
        *(pl.when("is_whole").then(name).alias(name) for name in of_interval),
        cancel_price=pl.when(is_told).then("told_cancel_price").when(is_read).then("rest_price"),
        cancel_price_basis=pl.when(is_told).then(pl.lit(PriceBasis.DESK)).when(is_read).then(pl.lit(PriceBasis.MID)),
        rest_known=pl.when(is_read).then("rest_known"),
    ).with_columns(
        ts_known=pl.max_horizontal(
            "ts_recv",
            "decision_recv",
            "fills_known",
            "ts_event",
            "ts_done",
            "arrival_known",
            "interval_known",
            "rest_known",
            "pwp_known",
            *(f"{name}_known" for name in _SESSION),
        )
    )


def _costs() -> list[pl.Expr]:
    benchmark = {name: pl.col(f"{name}_price") for name in _BENCHMARKS}
    paid = {name: pl.col("side") * (pl.col("avg_price") - price) / price for name, price in benchmark.items()}
    return [_if_ok(cost).alias(f"{name}_cost_bps") for name, cost in paid.items()]


def _parts() -> list[pl.Expr]:
    side, price, decided = pl.col("side"), pl.col("avg_price"), pl.col("decision_price")
    arrival, given_up = pl.col("arrival_price"), pl.col("cancel_price")
    is_decided, has_fill = decided.is_not_null(), pl.col("fill_count") > 0
    filled = pl.col("filled_quantity") / pl.col("quantity")
    is_whole = (1 - filled).abs() <= _WHOLE
    none = pl.when(is_decided).then(0.0)

    def of_filled(gain: pl.Expr) -> pl.Expr:
        return pl.when(has_fill).then(side * filled * gain / decided).otherwise(none)

    opportunity = pl.when(is_whole).then(none).otherwise(side * (1 - filled) * (given_up - decided) / decided)
    fees = pl.col("fees") / pl.col("quantity") / decided
    return [
        _if_ok(of_filled(arrival - decided)).alias("delay_bps"),
        _if_ok(of_filled(price - arrival)).alias("trading_bps"),
        _if_ok(opportunity).alias("opportunity_bps"),
        _if_ok(fees).alias("fees_bps"),
        _if_ok(of_filled(price - decided) + opportunity + fees).alias("shortfall_bps"),
        (is_positive("quantity") & (filled > 1 + _WHOLE)).fill_null(value=False).alias("is_overfilled"),
        (~is_whole).fill_null(value=False).alias("has_rest"),
    ]


def _if_ok(share: pl.Expr) -> pl.Expr:
    return bps(pl.when("is_ok").then(share))


def _reasons() -> pl.Expr:
    """Return the words for what is null in an `ok` row."""
    has_fill, is_whole = pl.col("fill_count") > 0, pl.col("is_whole")
    words = {
        TcaReason.NOTHING_FILLED: ~has_fill,
        TcaReason.NO_DECISION: pl.col("decision_price").is_null(),
        TcaReason.NO_ARRIVAL: pl.col("arrival_price").is_null(),
        TcaReason.NO_CANCEL_PRICE: pl.col("cancel_price").is_null() & pl.col("has_rest"),
        TcaReason.NO_FEE: pl.col("fees").is_null(),
        TcaReason.DATA_END: ~is_whole,
        TcaReason.ZERO_VOLUME: is_whole & pl.col("vwap_price").is_null(),
        TcaReason.NO_PREVAILING: is_whole & pl.col("twap_price").is_null(),
        TcaReason.VOLUME_ENDS: has_fill & pl.any_horizontal(pl.col(f"{name}_price").is_null() for name in _PWP),
        TcaReason.NO_OPEN: pl.col("open_price").is_null(),
        TcaReason.NO_CLOSE: pl.col("close_price").is_null(),
        TcaReason.NO_PREV_CLOSE: pl.col("prev_close_price").is_null(),
        TcaReason.NOT_YET: ~pl.col("is_final"),
    }
    told = [pl.when(pl.col("is_ok") & is_so).then(pl.lit(word)) for word, is_so in words.items()]
    return pl.concat_str(told, separator=",", ignore_nulls=True).alias("reasons")


def _order_columns() -> list[pl.Expr]:
    told = {"side": known_side(), "quantity": pl.when(is_positive("quantity")).then("quantity")}
    return [told.get(name, pl.col(name)).alias(name) for name in polars_schema(TcaOrder).names()]
