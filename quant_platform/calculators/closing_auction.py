"""What the closing auction may bring, estimated from volume, book and gamma. A published imbalance is no estimate."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.enums import AuctionSide, Status
from quant_platform.contracts.microstructure import ClosingImbalance

LOOKBACK_SESSIONS = 0

_VALUES = ("projected_volume", "imbalance_notional", "paired_notional", "imbalance_ratio", "side")
_STRENGTH, _FLAT_BELOW = 1.5, 0.05
_MINUTES_IN_FULL, _MOST_TIMES = 45, 12
_GAMMA_UNIT, _MOST_GAMMA, _GAMMA_WEIGHT = 1e9, 1.5, 0.25
_PAIRED_SHARE, _LEAST_PAIRED = 0.9, 0.15


@dataclass(frozen=True)
class ClosingAuctionParams:
    """How many minutes before the close an estimate begins to make sense."""

    window_min: float = 60.0

    def __post_init__(self) -> None:
        if not self.window_min > 0:
            raise ValueError(f"window_min must be > 0, was {self.window_min}")


_DEFAULT = ClosingAuctionParams()


def minute_inputs(
    bars: pl.LazyFrame,
    quotes: pl.LazyFrame,
    imbalances: pl.LazyFrame,
    exposures: pl.LazyFrame,
    *,
    ts_close: datetime,
    params: ClosingAuctionParams = _DEFAULT,
) -> pl.DataFrame:
    """Return what `closing_imbalance` takes, at the end of each of the session's last minutes in which it traded.

    Args:
        bars: `ts_open symbol volume ts_known` of one symbol's session in minutes, sorted by ts_open.
        quotes: `ts_event bid_price ask_price ts_recv`, sorted by ts_event; the last one by the minute's end counts.
        imbalances: `ts_event l5 ts_known`, sorted by ts_event; the last one by the minute's end counts.
        exposures: `ts_event gex_net ts_known` of the options on it, whole chains, sorted by ts_event; as the others.
        ts_close: When the session ends. A minute that ends with it has nothing left to estimate.
        params: When estimates begin; `window_volume` is what was traded since.

    Returns:
        One row a minute, by ts_event.
    """
    minute_end = pl.col("ts_open").dt.offset_by("1m")
    minutes = bars.filter(
        pl.col("ts_open") >= ts_close - timedelta(minutes=params.window_min), minute_end < ts_close
    ).select(
        "symbol",
        ts_event=minute_end,
        window_volume=pl.col("volume").cum_sum(),
        bars_known=pl.col("ts_known").cum_max(),
    )
    touch = quotes.select("ts_event", mid=(pl.col("bid_price") + pl.col("ask_price")) / 2, quote_known="ts_recv")
    depth = imbalances.select("ts_event", "l5", book_known="ts_known")
    gamma = exposures.select("ts_event", "gex_net", gamma_known="ts_known")
    known = ("bars_known", "quote_known", "book_known", "gamma_known")
    return (
        minutes.sort("ts_event")
        .join_asof(touch, on="ts_event")
        .join_asof(depth, on="ts_event")
        .join_asof(gamma, on="ts_event")
        .with_columns(
            ts_close=pl.lit(ts_close).cast(INSTANT),
            ts_known=pl.max_horizontal(known),
        )
        .drop(known)
        .collect(engine="in-memory")
    )


def closing_imbalance(inputs: pl.DataFrame, params: ClosingAuctionParams = _DEFAULT) -> pl.DataFrame:
    """Return an estimate of the closing auction for each row.

    `projected_volume` is the window's volume times 45/minutes to close, at least 1 and at most 12 times; minutes count
    as 1 at least. Its share `strength` = 1.5·|l5|, at most 1, is expected to be unpaired, times 1 + 1/4 of |net gamma|
    in 1e9 (at most 1.5); of the rest, the share 1 - 0.9·strength of all, at least 15 %, is paired. A strength below
    0.05 is no side. These constants are conventions and fitted to nothing.

    Args:
        inputs: Any rows, with `ts_event symbol ts_known`; `ts_close` the end of the session that is on, null where
            there is none or the symbol trades around the clock; `window_volume` in base units; `mid`; `l5` in [-1, 1];
            `gex_net` in quote currency per 1 %, null where it is not known: then it does not weigh.
        params: When estimates begin.

    Returns:
        Contract `ClosingImbalance`, row by row as the inputs. Statuses: `no_data` outside the last minutes of a
        session, or without mid, volume or times; `no_depth` without `l5`; `zero_volume`; `invalid_input` where a figure
        is not finite, a price not positive, a volume negative or |l5| above 1.
    """
    window_volume, mid, l5, gex_net = pl.col("window_volume"), pl.col("mid"), pl.col("l5"), pl.col("gex_net")
    minutes = (pl.col("ts_close") - pl.col("ts_event")).dt.total_nanoseconds() / 60e9
    is_bad = pl.any_horizontal(
        *(~figure.is_finite() for figure in (window_volume, mid, l5, gex_net)),
        mid <= 0,
        window_volume < 0,
        l5.abs() > 1,
    )
    status = (
        pl.when(~minutes.is_between(0, params.window_min, closed="right").fill_null(value=False))
        .then(pl.lit(Status.NO_DATA))
        .when(is_bad.fill_null(value=False))
        .then(pl.lit(Status.INVALID_INPUT))
        .when(window_volume.is_null() | mid.is_null())
        .then(pl.lit(Status.NO_DATA))
        .when(window_volume == 0)
        .then(pl.lit(Status.ZERO_VOLUME))
        .when(l5.is_null())
        .then(pl.lit(Status.NO_DEPTH))
        .otherwise(pl.lit(Status.OK))
    )
    times = (_MINUTES_IN_FULL / pl.max_horizontal(minutes, 1.0)).clip(1, _MOST_TIMES)
    strength = (_STRENGTH * l5.abs()).clip(upper_bound=1)
    gamma = 1 + _GAMMA_WEIGHT * (gex_net.abs() / _GAMMA_UNIT).clip(upper_bound=_MOST_GAMMA).fill_null(0)
    projected = pl.col("projected_volume") * mid
    imbalance, paired = pl.col("imbalance_notional"), pl.col("paired_notional")
    is_ok = pl.col("status") == Status.OK
    return (
        inputs.with_columns(
            status=status,
            minutes_to_close=pl.when(minutes > 0).then(minutes),
            estimated=pl.lit(value=True),
            projected_volume=window_volume * times,
        )
        .with_columns(
            imbalance_notional=projected * strength * gamma,
            paired_notional=projected * pl.max_horizontal(1 - _PAIRED_SHARE * strength, _LEAST_PAIRED),
        )
        .with_columns(
            imbalance_ratio=imbalance / (imbalance + paired),
            side=pl.when(strength < _FLAT_BELOW)
            .then(pl.lit(AuctionSide.FLAT))
            .when(l5 > 0)
            .then(pl.lit(AuctionSide.BUY))
            .otherwise(pl.lit(AuctionSide.SELL)),
        )
        .with_columns(pl.when(is_ok).then(pl.col(name)).alias(name) for name in _VALUES)
        .select(polars_schema(ClosingImbalance).names())
    )
