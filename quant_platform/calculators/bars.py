"""Time bars: a resumable fold over trades, and the cascade from narrow bars to wide ones. Signing trades is elsewhere.

Every stretch of the tape becomes partial bars, and partial bars of one interval are merged in one way, whether they
meet at the edge of two blocks, of two calls of `step`, or of the session so far and a late trade.
"""

from dataclasses import dataclass

import polars as pl

from quant_platform.calculators._bar_blocks import PARTIAL, partial_bars
from quant_platform.contracts._schema import INSTANT, empty, polars_schema
from quant_platform.contracts.market import Bar1s

LOOKBACK_SESSIONS = 0

_DAY_S = 86_400
_NS = 1_000_000_000
_KEY = ("symbol", "ts_open")
_COLUMNS = polars_schema(Bar1s).names()


@dataclass(frozen=True)
class BarParams:
    """The interval's width in seconds. It divides the day, so that no bar spans two UTC dates."""

    width_s: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.width_s <= _DAY_S or _DAY_S % self.width_s:
            raise ValueError(f"width_s must divide a day of {_DAY_S} s, was {self.width_s}")


@dataclass(frozen=True)
class State:
    """What the fold remembers. Times are integer UTC ns.

    Attributes:
        partials: The retained session's bars, one row per symbol and ts_open, as sums that more trades can join.
        watermarks: The largest ts_event seen of each symbol.
        retained_from: Trades from before it belong to bars that `prune` dropped, and are ignored.
    """

    partials: pl.DataFrame
    watermarks: pl.DataFrame
    retained_from: int | None = None


_ONE_SECOND = BarParams()


def initial() -> State:
    """Return the state before the first trade."""
    watermarks = pl.DataFrame(schema={"symbol": pl.String, "watermark": pl.Int64})
    return State(pl.DataFrame(schema=PARTIAL), watermarks)


def prune(state: State, before: int) -> State:
    """Drop the bars that open before an instant (integer UTC ns, a bar's edge), at the roll of a session.

    Trades from before that instant are ignored from then on: an earlier session is recomputed from the lake.
    """
    return State(state.partials.filter(pl.col("ts_open") >= before), state.watermarks, before)


def step(
    state: State, trades: pl.DataFrame | pl.LazyFrame, params: BarParams = _ONE_SECOND
) -> tuple[State, pl.DataFrame]:
    """Fold a chunk of the tape into the state, and return the bars that it touched.

    Cutting the tape anywhere changes nothing: of all outputs, the last row per symbol and ts_open is the bar of one
    pass over the whole tape. Sums of floats may differ by 1e-12 relative, counts may not.

    Args:
        state: What `initial` or the previous `step` returned, with the same parameters.
        trades: A frame, or a lazy tape of the lake that need not fit into memory. Columns of contract `Trade` (more
            are ignored, `first_trade_id` and `venue` are not needed; without `last_trade_id` each row is one trade),
            any number of symbols, rows in the order of arrival. `ts_recv` is filled, as the lake's scan does.
            Duplicates of (symbol, trade_id) were removed at intake. A row with a null, or with a price or size that is
            NaN, infinite, zero or negative, is ignored: intake has put it in quarantine.
        params: The interval's width.

    Returns:
        The next state, and the bars touched by this chunk as they now stand: contract `Bar1s`, sorted by symbol and
        ts_open. Open and close follow (ts_event, trade_id), whatever the order of arrival. `trade_count` and
        `revision` count by id range; `revision` those that came when their symbol's tape had reached the end of the
        bar. `vwap` is the plain quotient of two sums.

    Raises:
        ValueError: A usable trade has no `ts_recv`.
    """
    width_ns = params.width_s * _NS
    arrived = partial_bars(trades, width_ns)
    if state.retained_from is not None:
        arrived = arrived.filter(pl.col("ts_open") >= state.retained_from)
    if arrived.is_empty():
        return state, empty(Bar1s)
    arrived, newest = _with_revision(arrived, state.watermarks, width_ns)
    reopened = untouched = state.partials
    if state.partials.height:
        reopened = state.partials.join(arrived, on=_KEY, how="semi", maintain_order="left")
        untouched = state.partials.join(arrived, on=_KEY, how="anti", maintain_order="left")
    touched = _merged(pl.concat([reopened, arrived]))
    watermarks = (
        pl.concat([state.watermarks, newest]).group_by("symbol", maintain_order=True).agg(pl.col("watermark").max())
    )
    return State(pl.concat([untouched, touched]), watermarks, state.retained_from), _bars(touched, width_ns)


def bars(trades: pl.DataFrame | pl.LazyFrame, params: BarParams = _ONE_SECOND) -> pl.DataFrame:
    """Return the bars of a whole tape: one `step` from `initial`."""
    return step(initial(), trades, params)[1]


def cascade(narrow: pl.DataFrame, width_s: int) -> pl.DataFrame:
    """Return wider bars from narrower ones, equal to those from the trades.

    Args:
        narrow: Bars of one width that divides `width_s`; any number of symbols, any row order.
        width_s: The new width; it divides the day.

    Returns:
        The same columns, sorted by symbol and ts_open. Only `revision` is another than from the trades: the sum over
        the narrow bars, which had closed earlier than the wide one.
    """
    width_ns = BarParams(width_s).width_s * _NS
    opens = pl.col("ts_open").to_physical()
    return (
        narrow.sort(_KEY)
        .with_columns(ts_open=(opens - opens.mod(width_ns)).cast(INSTANT))
        .group_by(_KEY, maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
            (pl.col("vwap") * pl.col("volume")).sum() / pl.col("volume").sum(),
            pl.col("trade_count", "buy_volume", "sell_volume", "revision").sum(),
            pl.col("ts_known").max(),
        )
        .with_columns(pl.max_horizontal("ts_known", pl.col("ts_open") + pl.duration(nanoseconds=width_ns)))
        .select(_COLUMNS)
    )


def cascade_step(narrow: pl.DataFrame, arrived: pl.DataFrame, width_s: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Fold narrow bars as they close, or are revised, into wider ones.

    Args:
        narrow: The state: the session's narrow bars so far; none before the first.
        arrived: Narrow bars that are new, or that stand in the place of an earlier one.
        width_s: As for `cascade`.

    Returns:
        The next state, and the wide bars touched by this step as they now stand, as `cascade` would return them.
    """
    known = pl.concat([narrow, arrived]).unique(_KEY, keep="last", maintain_order=True)
    width = f"{BarParams(width_s).width_s}s"
    wide = arrived.select("symbol", ts_open=pl.col("ts_open").dt.truncate(width)).unique()
    parts = known.with_columns(wide=pl.col("ts_open").dt.truncate(width)).join(
        wide, left_on=("symbol", "wide"), right_on=_KEY, how="semi", maintain_order="left"
    )
    return known, cascade(parts.drop("wide"), width_s)


def _with_revision(arrived: pl.DataFrame, watermarks: pl.DataFrame, width_ns: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Count as revisions all trades of a partial bar that had closed before its block came; and see how far they go."""
    if _is_one_tape_in_order(arrived):
        newest = arrived.head(1).select("symbol", watermark=pl.lit(arrived["last_ts"].max(), pl.Int64))
        before = watermarks.filter(pl.col("symbol") == newest["symbol"][0]).get_column("watermark")
        if before.is_empty() or before[0] <= arrived["first_ts"][0]:
            return arrived.select(PARTIAL.names()), newest  # no bar of it had closed
    blocks = arrived.group_by("symbol", "block", maintain_order=True).agg(pl.col("last_ts").max())
    seen = blocks.join(watermarks, on="symbol", how="left", maintain_order="left").select(
        "symbol",
        "block",
        seen=pl.max_horizontal("watermark", pl.col("last_ts").cum_max().shift().over("symbol")),
    )
    had_closed = pl.col("ts_open") + width_ns <= pl.col("seen")
    counted = (
        arrived.join(seen, on=("symbol", "block"), how="left", maintain_order="left")
        .with_columns(revision=pl.when(had_closed).then("trade_count").otherwise("revision"))
        .select(PARTIAL.names())
    )
    return counted, blocks.select("symbol", watermark="last_ts")


def _is_one_tape_in_order(partials: pl.DataFrame) -> bool:
    """Say whether all rows are of one symbol, in (first_ts, first_id) order."""
    ts, ids = (partials.get_column(name).to_numpy() for name in ("first_ts", "first_id"))
    forward = (ts[1:] > ts[:-1]) | ((ts[1:] == ts[:-1]) & (ids[1:] > ids[:-1]))
    symbols = partials.get_column("symbol")
    return bool(forward.all()) and bool((symbols == symbols[0]).all())


def _merged(partials: pl.DataFrame) -> pl.DataFrame:
    """Return one row per symbol and ts_open, sorted by them."""
    is_repeated = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in _KEY).fill_null(False)
    in_order = partials if _is_one_tape_in_order(partials) else partials.sort(*_KEY, "first_ts", "first_id")
    ordered = in_order.with_row_index("place").with_columns(is_repeated=is_repeated)
    has_parts = pl.col("is_repeated") | pl.col("is_repeated").shift(-1, fill_value=False)
    whole = (
        ordered.filter(has_parts)
        .group_by(_KEY, maintain_order=True)
        .agg(
            pl.col("place", "open", "first_ts", "first_id").first(),
            pl.col("close", "last_ts", "last_id").sort_by("last_ts", "last_id").last(),
            pl.col("high", "last_recv").max(),
            pl.col("low").min(),
            pl.col("volume", "notional", "trade_count", "buy_volume", "sell_volume", "revision").sum(),
        )
    )
    columns = ["place", *PARTIAL]
    single = ordered.filter(~has_parts)
    # Sorting by one integer costs a tenth of sorting by the key again.
    return pl.concat([single.select(columns), whole.select(columns)]).sort("place").drop("place")


def _bars(partials: pl.DataFrame, width_ns: int) -> pl.DataFrame:
    known = pl.max_horizontal("last_recv", pl.col("ts_open") + width_ns)
    return partials.with_columns(
        pl.col("ts_open").cast(INSTANT),
        vwap=pl.col("notional") / pl.col("volume"),
        ts_known=known.cast(INSTANT),
    ).select(_COLUMNS)
