"""Volume-synchronised probability of informed trading: one-sidedness of equal buckets of volume, as a resumable fold.

Signing the trades is trade_sign's business. What adapts to a symbol, its bucket size and the reference of the CDF, is
made from earlier sessions and passed in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import polars as pl

from quant_platform.calculators._bulk_volume import OPEN_BAR, bought_less_sold, closed_bars
from quant_platform.calculators._tape import (
    BySymbol,
    Ordered,
    first_at,
    framed,
    in_order,
    integers,
    last_rows,
    symbol_starts,
    usable_trades,
)
from quant_platform.calculators._vpin_buckets import Flow, no_books, opened_books, poured
from quant_platform.contracts._schema import INSTANT, empty, polars_schema
from quant_platform.contracts.enums import Level, Signing, Status, VpinMethod
from quant_platform.contracts.microstructure import Vpin, VpinBucket

LOOKBACK_SESSIONS = 1
CDF_LOOKBACK_SESSIONS = 20
SIZE_LOOKBACK_SESSIONS = 20
BUCKETS_PER_SESSION = 50

_NS = 1_000_000_000
_UNITS = ("scale", "capacity", "is_warm")


@dataclass(frozen=True)
class VpinParams:
    """How VPIN is computed and judged.

    Attributes:
        n_buckets: Full buckets that the mean is taken of.
        sample_s: Width of the intervals of which the last trade gives a row, in seconds.
        signing: How the tape was signed; with `bvc` its bars are signed here, whatever the trades say.
        bar_s: Width of those bars in seconds; with `bvc` only.
        min_reference: Reference values below which there is no CDF.
        moderate_cdf: From here on the level is moderate.
        high_cdf: From here on it is high.
    """

    n_buckets: int = 50
    sample_s: int = 60
    signing: str = Signing.AUTO
    bar_s: int | None = None
    min_reference: int = 100
    moderate_cdf: float = 0.80
    high_cdf: float = 0.95

    def __post_init__(self) -> None:
        for name in ("n_buckets", "sample_s", "min_reference"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, was {getattr(self, name)}")
        if self.signing not in set(Signing):
            raise ValueError(f"signing must be one of {', '.join(Signing)}, was {self.signing}")
        if (self.signing == Signing.BVC) != (self.bar_s is not None and self.bar_s >= 1):
            raise ValueError(f"bar_s must be >= 1 with signing bvc and None without, was {self.bar_s}")
        if not 0 <= self.moderate_cdf <= self.high_cdf <= 1:
            raise ValueError(f"0 <= moderate_cdf <= high_cdf <= 1, were {self.moderate_cdf} and {self.high_cdf}")


@dataclass(frozen=True)
class State:
    """What the fold remembers: each symbol's book of buckets, and with `bvc` its open bar."""

    books: BySymbol
    open_bars: pl.DataFrame


class Rows(NamedTuple):
    """What a step adds: full buckets (`VpinBucket`), and sampled values (`Vpin`), still without cdf and level."""

    buckets: pl.DataFrame
    samples: pl.DataFrame


_DEFAULTS = VpinParams()


def bucket_sizes(
    daily_volumes: pl.DataFrame,
    *,
    discovered: float | Mapping[str, float] | None = None,
    defaults: Mapping[str, float | None] | None = None,
) -> pl.DataFrame:
    """Return each symbol's bucket size for a session: frozen at its open, made from what was known then.

    Args:
        daily_volumes: `symbol date volume` of earlier sessions, one row each, in base units; any row order.
        discovered: A size for every symbol, or by symbol. It wins.
        defaults: By symbol, for those without any volume; its keys name symbols also where they map to None.

    Returns:
        `symbol bucket_size`, sorted by symbol, for every symbol that an argument names: the discovered size, else the
        mean volume of the last `SIZE_LOOKBACK_SESSIONS` rows, or of those there are, over `BUCKETS_PER_SESSION`, else
        the default, else null. A size that is not finite and positive counts as missing.
    """
    by_symbol = discovered if isinstance(discovered, Mapping) else {}
    anywhere = None if isinstance(discovered, Mapping) else discovered
    named = {**dict.fromkeys(by_symbol), **(defaults or {})}
    volume = pl.col("volume")
    means = (
        daily_volumes.filter(volume.is_finite() & (volume >= 0))
        .sort("symbol", "date")
        .group_by("symbol")
        .agg(mean=volume.tail(SIZE_LOOKBACK_SESSIONS).mean() / BUCKETS_PER_SESSION)
    )
    symbols = pl.concat([daily_volumes.get_column("symbol"), pl.Series(list(named), dtype=pl.String)]).unique()
    choices = ("discovered", "mean", "default")
    return (
        pl.DataFrame({"symbol": symbols.drop_nulls().sort()})
        .join(means, on="symbol", how="left", maintain_order="left")
        .with_columns(
            discovered=pl.col("symbol").replace_strict(by_symbol, default=anywhere, return_dtype=pl.Float64),
            default=pl.col("symbol").replace_strict(named, default=None, return_dtype=pl.Float64),
        )
        .select(
            "symbol",
            bucket_size=pl.coalesce(pl.when(pl.col(c).is_finite() & (pl.col(c) > 0)).then(c) for c in choices),
        )
    )


def price_change_std(bars: pl.DataFrame) -> pl.DataFrame:
    """Return `symbol price_change_std`: the standard deviation (ddof 1) of the changes from close to close.

    Args:
        bars: `symbol ts_open close` of earlier sessions, of the width that `bvc` uses; any row order.
    """
    return (
        bars.sort("symbol", "ts_open")
        .group_by("symbol", maintain_order=True)
        .agg(price_change_std=pl.col("close").diff().std())
    )


def initial() -> State:
    """Return the state before the first trade."""
    return State(no_books(0), OPEN_BAR.to_frame())


def opened(state: State) -> State:
    """Return the state at a session's open, after the earlier ones were folded: they are the warm-up.

    Buckets go on. The volume since the open, which stands in while they are too few, begins anew.
    """
    since_open = {"session_volume": 0, "session_signed": 0, "is_warm": True}
    return replace(state, books=state.books.changed(slice(None), since_open))


def step(state: State, trades: pl.DataFrame, sizes: pl.DataFrame, params: VpinParams = _DEFAULTS) -> tuple[State, Rows]:
    """Fold a chunk of the signed tape into the buckets.

    Cutting the tape anywhere changes nothing: the buckets of all chunks, and the last sample per symbol and ts_open,
    are those of one pass over the whole tape, to the last bit.

    Args:
        state: What `initial`, `opened` or the previous `step` returned, with the same parameters.
        trades: The signed tape of `trade_sign`: contract `Trade` with any other columns, any number of symbols, any row
            order. Rows that cannot be used, and late ones, are ignored as there.
        sizes: `symbol bucket_size`, and with `bvc` also `price_change_std`; the same frame for the whole fold. A symbol
            without a size, or with `bvc` without a standard deviation > 0, gets rows of null with status `no_data`.
        params: Number of buckets, sampling, and how volume is signed.

    Returns:
        The next state, and the rows, sorted by symbol and time.

        A bucket holds exactly its size: the trade that fills it is split, and one trade can fill many. Volume of
        unknown side counts half as bought and half as sold. `vpin` is the mean of |bought - sold| ÷ size over the last
        `n_buckets` full buckets. Before there are as many, a bucket's `vpin` is null with status `too_few`, and a
        sample's is |bought - sold| ÷ volume since the open, with method `simple_imbalance`.

        With `bvc` a bar counts when the next one begins, so that rows stand for bars: the bought share of its volume is
        the normal distribution function of its close less the one before, over `price_change_std`; one half where there
        is none before. `ts_known` is then never before the bar's end.

    Raises:
        ValueError: A usable trade has no `ts_recv`, or a bucket size is far too small for what is traded.
    """
    known = state.books if state.books.places else no_books(params.n_buckets)
    tape = in_order(usable_trades(trades), "trade_id", known)
    if missing := tape.rows.get_column("ts_recv").null_count():
        raise ValueError(f"{missing} trades have no ts_recv: read them through the lake's scan, which fills it in")
    books = opened_books(known, tape.symbols, _usable_sizes(sizes, params))
    last = last_rows(tape.starts, tape.rows.height)
    seen = {"last_ts": integers(tape.rows, "ts_event")[last], "last_tie": integers(tape.rows, "trade_id")[last]}
    books = books.changed(books.at(tape.symbols), seen)
    open_bars, flow = state.open_bars, _flow_of_trades(tape)
    if params.bar_s is not None:
        open_bars, flow = _bulk(state.open_bars, tape, books, sizes, params.bar_s)
    if not flow.symbols:
        return State(books, open_bars), Rows(empty(VpinBucket), empty(Vpin))
    places = books.at(flow.symbols)
    book = {name: values[places] for name, values in books.facts.items()}
    after, buckets, samples = poured(book, flow, params.sample_s * _NS)
    names = pl.Series(flow.symbols)
    filled, sampled = (
        framed({**rows, **{name: book[name][rows["owner"]] for name in _UNITS}, "symbol": names[rows["owner"]]})
        for rows in (buckets, samples)
    )
    rows = Rows(filled.select(_bucket_columns(params)), sampled.select(_sample_columns(params)))
    return State(books.changed(places, after), open_bars), rows


def vpin(trades: pl.DataFrame, sizes: pl.DataFrame, params: VpinParams = _DEFAULTS) -> Rows:
    """Return buckets and samples of a whole tape: one `step` from `initial`, without a warm-up."""
    return step(initial(), trades, sizes, params)[1]


def reference(buckets: pl.DataFrame) -> pl.DataFrame:
    """Return what a session's VPINs are held against: the raw bucket values of the sessions before it.

    Args:
        buckets: `symbol ts_end vpin` of contract `VpinBucket`, of the `CDF_LOOKBACK_SESSIONS` before; any row order.

    Returns:
        `symbol vpins sessions`, one row a symbol: the values that are not null, sorted, and on how many UTC dates a
        bucket was filled.
    """
    return (
        buckets.group_by("symbol")
        .agg(vpins=pl.col("vpin").drop_nulls().sort(), sessions=pl.col("ts_end").dt.date().n_unique().cast(pl.Int64))
        .sort("symbol")
    )


def standardised(samples: pl.DataFrame, known: pl.DataFrame, params: VpinParams = _DEFAULTS) -> pl.DataFrame:
    """Return the samples with `cdf` and `level`.

    Args:
        samples: Contract `Vpin`, as `step` returns it.
        known: What `reference` returned.
        params: Fewest values, and thresholds.

    Returns:
        The same rows. `cdf` is the share of the symbol's reference values that are not above `vpin`: null below
        `min_reference` values, and with method `simple_imbalance`, which is another quantity. `level` is null where
        `cdf` is. `is_warm` is false where fewer than `CDF_LOOKBACK_SESSIONS` sessions are in the reference.
    """
    vpins = known.get_column("vpins")
    found = samples.select("symbol").join(
        known.select(
            "symbol", "sessions", values=vpins.list.len(), first=vpins.list.len().cum_sum() - vpins.list.len()
        ),
        on="symbol",
        how="left",
        maintain_order="left",
    )
    values, first = (found.get_column(name).fill_null(0).cast(pl.Int64).to_numpy() for name in ("values", "first"))
    raw = samples.get_column("vpin").fill_null(0.0).to_numpy()
    not_above = first_at(vpins.explode().to_numpy(), np.nextafter(raw, np.inf), first, first + values) - first
    has_cdf = (pl.col("method") == VpinMethod.BUCKETS) & (pl.Series(values) >= params.min_reference)
    cdf = pl.col("cdf")
    return (
        samples.with_columns(cdf=pl.when(has_cdf).then(pl.Series(not_above) / pl.Series(values)))
        .with_columns(
            level=pl.when(cdf >= params.high_cdf)
            .then(pl.lit(Level.HIGH))
            .when(cdf >= params.moderate_cdf)
            .then(pl.lit(Level.MODERATE))
            .when(cdf.is_not_null())
            .then(pl.lit(Level.LOW)),
            is_warm=pl.col("is_warm") & (found.get_column("sessions").fill_null(0) >= CDF_LOOKBACK_SESSIONS),
        )
        .select(polars_schema(Vpin).names())
    )


def _usable_sizes(sizes: pl.DataFrame, params: VpinParams) -> dict[str, float | None]:
    size = pl.col("bucket_size")
    if params.bar_s is not None:
        size = pl.when(pl.col("price_change_std") > 0).then(size)
    return dict(sizes.select("symbol", size).iter_rows())


def _flow_of_trades(tape: Ordered) -> Flow:
    return Flow(
        symbols=tape.symbols,
        starts=tape.starts,
        ts=integers(tape.rows, "ts_event"),
        recv=integers(tape.rows, "ts_recv"),
        last_id=integers(tape.rows, "last_trade_id"),
        size=tape.rows.get_column("size").to_numpy(),
        share=tape.rows.get_column("aggressor").to_numpy(),
    )


def _bulk(
    open_bars: pl.DataFrame, tape: Ordered, books: BySymbol, sizes: pl.DataFrame, bar_s: int
) -> tuple[pl.DataFrame, Flow]:
    """Return the open bars after the tape, and the flow of those that it closed."""
    scales = pl.DataFrame({"symbol": pl.Series(list(books.places), dtype=pl.String), "scale": books.facts["scale"]})
    open_bars, bars = closed_bars(open_bars, tape.rows, scales, bar_s * _NS)
    known = bars.join(scales, on="symbol", how="left", maintain_order="left")
    known = known.join(sizes, on="symbol", how="left", maintain_order="left")
    starts, symbols = symbol_starts(bars)
    flow = Flow(
        symbols=symbols,
        starts=starts,
        ts=integers(bars, "ts"),
        recv=integers(bars, "recv"),
        last_id=integers(bars, "last_trade_id"),
        size=known.select((pl.col("units") / pl.col("scale")).fill_nan(0.0)).to_series().to_numpy(),
        share=bought_less_sold(known),
    )
    return open_bars, flow


def _labels(params: VpinParams) -> dict[str, pl.Expr]:
    return {
        "n_buckets": pl.lit(params.n_buckets, pl.Int64),
        "signing": pl.lit(str(params.signing)),
        "bar_s": pl.lit(params.bar_s, pl.Float64),
    }


@cache
def _bucket_columns(params: VpinParams) -> list[pl.Expr]:
    capacity, signed, scale = (pl.col(name) for name in ("capacity", "signed", "scale"))
    is_full = pl.col("bucket") >= params.n_buckets
    columns = {
        **_labels(params),
        "symbol": pl.col("symbol"),
        "bucket": pl.col("bucket"),
        "ts_start": pl.col("ts_start").cast(INSTANT),
        "ts_end": pl.col("ts_end").cast(INSTANT),
        "last_trade_id": pl.col("last_trade_id"),
        "bucket_size": capacity / scale,
        "buy_volume": (capacity + signed) / (2 * scale),
        "sell_volume": (capacity - signed) / (2 * scale),
        "imbalance": signed.abs() / capacity,
        "vpin": pl.when(is_full).then(pl.col("imbalance") / (capacity * params.n_buckets)),
        "status": pl.when(is_full).then(pl.lit(Status.OK)).otherwise(pl.lit(Status.TOO_FEW)),
        "ts_known": pl.col("last_recv").cast(INSTANT),
    }
    return [columns[name].alias(name) for name in polars_schema(VpinBucket)]


@cache
def _sample_columns(params: VpinParams) -> list[pl.Expr]:
    has_size, has_volume = pl.col("scale") > 0, pl.col("session_volume") > 0
    is_full = pl.col("filled") >= params.n_buckets
    of_buckets = pl.col("imbalance") / (pl.col("capacity") * params.n_buckets)
    since_open = pl.when(has_volume).then(pl.col("session_signed").abs() / pl.col("session_volume"))
    method = (
        pl.when(is_full).then(pl.lit(VpinMethod.BUCKETS)).when(has_volume).then(pl.lit(VpinMethod.SIMPLE_IMBALANCE))
    )
    status = pl.when(is_full | has_volume).then(pl.lit(Status.OK)).otherwise(pl.lit(Status.ZERO_VOLUME))
    columns = {
        **_labels(params),
        "ts_open": pl.col("ts_open").cast(INSTANT),
        "ts_event": pl.col("ts_event").cast(INSTANT),
        "symbol": pl.col("symbol"),
        "last_trade_id": pl.col("last_trade_id"),
        "vpin": pl.when(has_size).then(pl.when(is_full).then(of_buckets).otherwise(since_open)),
        "cdf": pl.lit(None, pl.Float64),
        "level": pl.lit(None, pl.String),
        "bucket_size": pl.when(has_size).then(pl.col("capacity") / pl.col("scale")),
        "buckets_filled": pl.col("filled"),
        "method": pl.when(has_size).then(method),
        "is_warm": pl.col("is_warm"),
        "status": pl.when(has_size).then(status).otherwise(pl.lit(Status.NO_DATA)),
        "ts_known": pl.col("last_recv").cast(INSTANT),
    }
    return [columns[name].alias(name) for name in polars_schema(Vpin)]
