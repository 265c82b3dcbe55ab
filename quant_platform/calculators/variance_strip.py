"""The variance that a strip of options prices, by the arithmetic of Cboe's volatility index, and an index from strips.

`variance = 2/T Σ ΔK/K² exp(RT) Q(K) - (F/K0 - 1)²/T` (Cboe, Volatility Index Methodology). Over one day in calendar
time it is our own `vix1d_proxy`; the exchange's VIX1D counts business time and is not replicated.
"""

from dataclasses import dataclass
from math import inf

import polars as pl

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import OptionType, Status
from quant_platform.contracts.volatility import VarianceStrip, Vix1dProxy

LOOKBACK_SESSIONS = 0

_KEY = ("symbol", "ts_event", "ts_expiry")
_SNAPSHOT = ("symbol", "ts_event")
_NS_PER_MINUTE = 60_000_000_000
_MINUTES_PER_YEAR = 365 * 1_440
_VALUES = ("atm_strike", "forward", "k0", "variance")
_CALL, _PUT = pl.lit(OptionType.CALL), pl.lit(OptionType.PUT)


@dataclass(frozen=True)
class VarianceIndexParams:
    """Over what time the index is.

    Attributes:
        horizon_minutes: Minutes from the snapshot; 1,440 is one day, 43,200 the thirty days of VIX.
    """

    horizon_minutes: float = 1_440.0

    def __post_init__(self) -> None:
        if not 0 < self.horizon_minutes < inf:
            raise ValueError(f"horizon_minutes must be > 0 and finite, was {self.horizon_minutes}")


_DEFAULTS = VarianceIndexParams()


def variance_strips(chain: pl.DataFrame) -> pl.DataFrame:
    """Return the variance that each settlement of each snapshot prices.

    Args:
        chain: `ts_event ts_recv symbol expiry ts_expiry type strike multiplier bid ask` of contract `OptionChain`,
            receipt filled, and `rate`, continuous, per year; any number of underlyings and snapshots, any row order.
            Adjusted contracts, which have no multiplier, are left out; of two rows of one strike and type the later
            counts. A bid that is null or 0 is that of an option nobody bids for: it is listed, but has no price.

    Returns:
        Contract `VarianceStrip`, sorted by symbol, ts_event and ts_expiry: one row for each settlement of a snapshot.
        The forward is that of the strike where the mids of call and put differ least, of two such strikes the lower.
        Status `expired` where no time is left, `invalid_input` where the rate is no number or the variance is negative,
        `no_valid_contracts` where no strike up to the forward has a price on both sides, `one_sided` without a put
        below or a call above it, `nan` where sums overflow.
    """
    listed = _listed(chain)
    slices = (
        listed.group_by(_KEY)
        .agg(
            pl.col("expiry").min(),
            pl.col("rate").first(),
            minutes=(pl.col("ts_expiry") - pl.col("ts_event")).first().dt.total_nanoseconds() / _NS_PER_MINUTE,
            contracts_skipped=(~pl.col("is_usable")).sum(),
            ts_known=pl.col("ts_recv").max(),
        )
        .with_columns(years=pl.col("minutes") / _MINUTES_PER_YEAR)
    )
    usable = listed.filter("is_usable").drop("rate")
    at_the_money = _at_the_money(usable, slices)
    strip = strips(usable, at_the_money).join(slices.select(*_KEY, "rate", "years"), on=_KEY, how="left")
    sums = (
        contributions(strip)
        .group_by(_KEY)
        .agg(
            total=pl.col("contribution").sum(),
            n_strikes=pl.len(),
            has_put=(pl.col("strike") < pl.col("k0")).any(),
            has_call=(pl.col("strike") > pl.col("k0")).any(),
        )
    )
    return (
        slices.join(at_the_money, on=_KEY, how="left")
        .join(sums, on=_KEY, how="left")
        .with_columns(
            pl.col("n_strikes").fill_null(0),
            variance=pl.col("total") - (pl.col("forward") / pl.col("k0") - 1) ** 2 / pl.col("years"),
        )
        .with_columns(status=_status())
        .with_columns(pl.when(pl.col("status") == Status.OK).then(pl.col(_VALUES)))
        .sort(_KEY)
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(VarianceStrip).items())
    )


def vix1d_proxy(strips: pl.DataFrame, params: VarianceIndexParams = _DEFAULTS) -> pl.DataFrame:
    """Return the index of each snapshot: total variance between two settlements, by the time between them.

    Args:
        strips: `ts_event symbol ts_expiry minutes variance ts_known` of contract `VarianceStrip`, any row order. Rows
            without a variance are passed over.
        params: The horizon.

    Returns:
        Contract `Vix1dProxy`, sorted by symbol and ts_event: one row a snapshot. The near strip is the last one that
        settles by the horizon, the next one the first beyond it. Without both the value is null, unless a strip settles
        at the horizon itself: nothing is extrapolated. Status `no_data` without a variance, `too_few` where the
        horizon is not enclosed.
    """
    horizon = params.horizon_minutes
    usable = strips.filter(pl.col("variance").is_finite() & (pl.col("minutes") > 0)).sort("minutes")
    side = (*_SNAPSHOT, "minutes", "variance", "ts_expiry", "ts_known")
    near = usable.filter(pl.col("minutes") <= horizon).unique(_SNAPSHOT, keep="last", maintain_order=True).select(side)
    later = usable.filter(pl.col("minutes") > horizon).unique(_SNAPSHOT, keep="first", maintain_order=True).select(side)
    span = pl.col("minutes_next") - pl.col("minutes_near")
    weight = pl.when(pl.col("minutes_near") == horizon).then(0.0).otherwise((horizon - pl.col("minutes_near")) / span)
    near_total = pl.col("variance_near") * pl.col("minutes_near") * (1 - weight)
    next_total = pl.when(weight == 0).then(0.0).otherwise(pl.col("variance_next") * pl.col("minutes_next") * weight)
    index = 100 * ((near_total + next_total) / horizon).sqrt()
    is_ok = pl.col("vix1d_proxy").is_not_null()
    used = pl.max_horizontal("ts_known_near", "ts_known_next")
    return (
        strips.group_by(_SNAPSHOT)
        .agg(pl.col("ts_known").max())
        .join(near.rename({name: f"{name}_near" for name in side[2:]}), on=_SNAPSHOT, how="left")
        .join(later.rename({name: f"{name}_next" for name in side[2:]}), on=_SNAPSHOT, how="left")
        .with_columns(vix1d_proxy=index, horizon_minutes=pl.lit(horizon))
        .with_columns(
            near_ts_expiry="ts_expiry_near",
            near_variance="variance_near",
            next_ts_expiry="ts_expiry_next",
            next_variance="variance_next",
            status=pl.when(is_ok)
            .then(pl.lit(Status.OK))
            .when(pl.all_horizontal(pl.col("variance_near", "variance_next").is_null()))
            .then(pl.lit(Status.NO_DATA))
            .otherwise(pl.lit(Status.TOO_FEW)),
            ts_known=pl.when(is_ok).then(used).otherwise("ts_known"),
        )
        .sort(_SNAPSHOT)
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(Vix1dProxy).items())
    )


def strips(options: pl.DataFrame, at_the_money: pl.DataFrame) -> pl.DataFrame:
    """Return the strips' prices: puts below `k0`, calls above it, and the mean of both at it.

    Going outwards from `k0`, an option without a price is passed over, and the strip ends before the second of two
    neighbours without one.

    Args:
        options: `symbol ts_event ts_expiry type strike price`, each option once; a null price is that of an option
            nobody bids for.
        at_the_money: `symbol ts_event ts_expiry k0`, one row a strip.

    Returns:
        `symbol ts_event ts_expiry k0 strike q`, sorted.
    """
    strike, k0, is_call = pl.col("strike"), pl.col("k0"), pl.col("type") == OptionType.CALL
    is_none = pl.col("price").is_null()
    side = [*_KEY, "type"]
    is_pair = is_none & is_none.shift(fill_value=False).over(side)
    outwards = (
        options.join(at_the_money.select(*_KEY, "k0"), on=_KEY)
        .filter((is_call & (strike > k0)) | (~is_call & (strike < k0)))
        .sort(*side, (strike - k0).abs())
        .with_columns(is_beyond=is_pair)
        .with_columns(pl.col("is_beyond").cum_max().over(side))
        .filter(~pl.col("is_beyond") & ~is_none)
    )
    middle = (
        options.join(at_the_money.select(*_KEY, "k0"), left_on=[*_KEY, "strike"], right_on=[*_KEY, "k0"])
        .group_by(*_KEY, "strike")
        .agg(pl.col("price").mean())
        .with_columns(k0=strike)
    )
    columns = (*_KEY, "k0", "strike", pl.col("price").alias("q"))
    return pl.concat([outwards.select(columns), middle.select(columns)]).sort(*_KEY, "strike")


def contributions(strip: pl.DataFrame) -> pl.DataFrame:
    """Return the strips with `delta_k`, half the distance between the strikes beside, and what each strike adds.

    Args:
        strip: `symbol ts_event ts_expiry strike q rate years`, any row order; at the ends `delta_k` is the distance to
            the one strike beside, and null where there is none.

    Returns:
        The rows sorted by strike, with `delta_k` and `contribution` = 2/T · ΔK/K² · exp(RT) · q.
    """
    strike = pl.col("strike")
    below, above = strike - strike.shift(), strike.shift(-1) - strike
    delta_k = pl.mean_horizontal(below.over(_KEY), above.over(_KEY))
    growth = (pl.col("rate") * pl.col("years")).exp()
    return (
        strip.sort(*_KEY, "strike")
        .with_columns(delta_k=delta_k)
        .with_columns(contribution=2 / pl.col("years") * pl.col("delta_k") / strike**2 * growth * pl.col("q"))
    )


def _listed(chain: pl.DataFrame) -> pl.DataFrame:
    """Return each option once, with `is_usable`, and its mid as `price` where somebody bids."""
    strike, bid, ask = pl.col("strike"), pl.col("bid").fill_null(0.0), pl.col("ask")
    is_option = pl.col("type").is_in([OptionType.CALL, OptionType.PUT]) & strike.is_finite() & (strike > 0)
    is_quoted = ask.is_finite() & (bid > 0) & (bid <= ask)
    return (
        chain.filter(pl.col("multiplier").is_not_null())
        .unique([*_KEY, "type", "strike"], keep="last", maintain_order=True)
        .sort(*_KEY, "type", "strike")
        .with_columns(
            is_usable=(is_option & ((bid == 0) | is_quoted)).fill_null(value=False),
            price=pl.when(is_quoted).then((bid + ask) / 2),
        )
    )


def _at_the_money(options: pl.DataFrame, slices: pl.DataFrame) -> pl.DataFrame:
    """Return `atm_strike forward k0` of each strip that has them; strikes count where call and put have a price."""
    priced = options.filter(pl.col("price").is_not_null())
    call, put = (
        priced.filter(pl.col("type") == kind).select(*_KEY, "strike", name)
        for kind, name in ((_CALL, pl.col("price").alias("call")), (_PUT, pl.col("price").alias("put")))
    )
    both = call.join(put, on=[*_KEY, "strike"]).sort(*_KEY, "strike")
    gap = pl.col("call") - pl.col("put")
    growth = (pl.col("rate") * pl.col("years")).exp()
    forwards = (
        both.sort(*_KEY, gap.abs(), "strike")
        .unique(_KEY, keep="first", maintain_order=True)
        .join(slices.select(*_KEY, "rate", "years"), on=_KEY)
        .select(*_KEY, atm_strike="strike", forward=pl.col("strike") + growth * gap)
    )
    highest = (
        both.join(forwards, on=_KEY)
        .filter(pl.col("strike") <= pl.col("forward"))
        .group_by(_KEY)
        .agg(k0=pl.col("strike").max())
    )
    return forwards.join(highest, on=_KEY)


def _status() -> pl.Expr:
    return (
        pl.when(pl.col("minutes") <= 0)
        .then(pl.lit(Status.EXPIRED))
        .when(~pl.col("rate").is_finite().fill_null(value=False))
        .then(pl.lit(Status.INVALID_INPUT))
        .when(pl.col("k0").is_null())
        .then(pl.lit(Status.NO_VALID_CONTRACTS))
        .when(~(pl.col("has_put") & pl.col("has_call")))
        .then(pl.lit(Status.ONE_SIDED))
        .when(~pl.col("variance").is_finite())
        .then(pl.lit(Status.NAN))
        .when(pl.col("variance") < 0)
        .then(pl.lit(Status.INVALID_INPUT))
        .otherwise(pl.lit(Status.OK))
    )
