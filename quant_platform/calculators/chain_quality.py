"""What is wrong with snapshots of option chains as venues publish them: crossed quotes, broken parity, stale prices."""

from dataclasses import dataclass, fields
from math import isfinite

import polars as pl

from quant_platform.calculators._european import years_left
from quant_platform.calculators.implied_vol import forwards
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import OptionType, Status
from quant_platform.contracts.options import ChainQuality

LOOKBACK_SESSIONS = 1

_KEY = ["symbol", "ts_event"]
_SLICE = [*_KEY, "ts_expiry"]


@dataclass(frozen=True, kw_only=True)
class ChainQualityParams:
    """From where on something is wrong.

    Attributes:
        max_crossed_share: Of the contracts with two quotes, those whose bid is above the offer.
        parity_tolerance: What parity may be off beyond the quotes, as a share of the forward; exercise before expiry,
            which the model does not know, needs some.
        max_parity_share: Of the strikes with both a call and a put, those that break it.
        max_underlying_gap: |price of the underlying ÷ the one that parity implies - 1|: beyond it the price is of
            another time than the quotes.
        max_open_interest_change: |open interest ÷ that at the end of the session before - 1| over the contracts listed
            at both times.
    """

    max_crossed_share: float = 0.01
    parity_tolerance: float = 0.002
    max_parity_share: float = 0.05
    max_underlying_gap: float = 0.01
    max_open_interest_change: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be >= 0 and finite, was {value}")


_DEFAULTS = ChainQualityParams()


def chain_quality(chain: pl.DataFrame, earlier: pl.DataFrame, params: ChainQualityParams = _DEFAULTS) -> pl.DataFrame:
    """Return what is wrong with each snapshot.

    Parity is held against the forward that the expiry's own quotes imply (`implied_vol.forwards`): a strike breaks it
    where that forward lies outside what its quotes leave room for, by more than the tolerance. The underlying is held
    against the forward of the expiry that comes next.

    Args:
        chain: Contract `OptionChain`, receipt filled, and beside it `rate` and `dividend` of the underlying per year;
            any number of underlyings and snapshots, any row order.
        earlier: `symbol ts_event contract open_interest` of the session before; the last snapshot of a symbol counts.
        params: From where on something is wrong.

    Returns:
        Contract `ChainQuality`, one row a snapshot, by symbol and ts_event. Where nothing can be compared a share or
        gap is null, and nothing is called wrong.
    """
    bid, ask = pl.col("bid"), pl.col("ask")
    is_two_sided = (bid > 0) & (ask > 0)
    counts = chain.group_by(_KEY).agg(
        contracts=pl.len(),
        two_sided=is_two_sided.sum(),
        one_sided=((bid > 0).fill_null(value=False) ^ (ask > 0).fill_null(value=False)).sum(),
        crossed=(is_two_sided & (bid > ask)).sum(),
        without_open_interest=pl.col("open_interest").is_null().sum(),
        ts_known=pl.col("ts_recv").max(),
    )
    parity = forwards(chain).select(*_SLICE, "forward").drop_nulls()
    found = (
        counts.join(_parity(chain, parity, params), on=_KEY, how="left")
        .join(_underlying(chain, parity), on=_KEY, how="left")
        .join(_open_interest(chain, earlier), on=_KEY, how="left")
        .with_columns(
            pl.col("parity_pairs", "parity_violations").fill_null(0),
            crossed_share=_share("crossed", "two_sided"),
        )
        .with_columns(
            parity_share=_share("parity_violations", "parity_pairs"),
            status=pl.when(pl.col("two_sided") > 0).then(pl.lit(Status.OK)).otherwise(pl.lit(Status.NO_DATA)),
        )
    )
    return (
        found.with_columns(
            is_crossed=_is_above("crossed_share", params.max_crossed_share),
            is_parity_broken=_is_above("parity_share", params.max_parity_share),
            is_underlying_stale=_is_above("underlying_gap", params.max_underlying_gap),
            is_open_interest_off=_is_above("open_interest_change", params.max_open_interest_change),
        )
        .sort(_KEY)
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(ChainQuality).items())
    )


def _share(part: str, whole: str) -> pl.Expr:
    return pl.when(pl.col(whole) > 0).then(pl.col(part) / pl.col(whole))


def _is_above(column: str, limit: float) -> pl.Expr:
    return (pl.col(column).abs() > limit).fill_null(value=False)


def _parity(chain: pl.DataFrame, parity: pl.DataFrame, params: ChainQualityParams) -> pl.DataFrame:
    quoted = chain.filter((pl.col("bid") > 0) & (pl.col("ask") >= pl.col("bid")), pl.col("rate").is_finite())
    sides = quoted.select(*_SLICE, "strike", "type", "bid", "ask", growth=(pl.col("rate") * years_left()).exp())
    calls, puts = (sides.filter(pl.col("type") == kind) for kind in (OptionType.CALL, OptionType.PUT))
    pairs = calls.join(puts, on=[*_SLICE, "strike"], suffix="_put").join(parity, on=_SLICE)
    low = pl.col("strike") + (pl.col("bid") - pl.col("ask_put")) * pl.col("growth")
    high = pl.col("strike") + (pl.col("ask") - pl.col("bid_put")) * pl.col("growth")
    room = params.parity_tolerance * pl.col("forward")
    is_broken = (pl.col("forward") < low - room) | (pl.col("forward") > high + room)
    return pairs.group_by(_KEY).agg(parity_pairs=pl.len(), parity_violations=is_broken.sum())


def _underlying(chain: pl.DataFrame, parity: pl.DataFrame) -> pl.DataFrame:
    carry = ((pl.col("dividend") - pl.col("rate")) * years_left()).exp()
    return (
        chain.group_by(_SLICE)
        .agg(pl.col("underlying_price").median(), pl.col("rate", "dividend").first())
        .join(parity, on=_SLICE)
        .with_columns(parity_price=pl.col("forward") * carry)
        .sort("ts_expiry")
        .group_by(_KEY)
        .agg(pl.col("underlying_price", "parity_price").first())
        .with_columns(underlying_gap=pl.col("underlying_price") / pl.col("parity_price") - 1)
    )


def _open_interest(chain: pl.DataFrame, earlier: pl.DataFrame) -> pl.DataFrame:
    before = (
        earlier.filter(pl.col("ts_event") == pl.col("ts_event").max().over("symbol"))
        .select("symbol", "contract", before="open_interest")
        .drop_nulls()
        .unique(["symbol", "contract"], keep="last", maintain_order=True)
    )
    both = (
        chain.select(*_KEY, "contract", "open_interest")
        .drop_nulls()
        .join(before, on=["symbol", "contract"], maintain_order="left")
    )
    totals = both.group_by(_KEY, maintain_order=True).agg(
        pl.col("open_interest", "before").sum(), open_interest_compared=pl.len()
    )
    return totals.select(
        *_KEY,
        "open_interest_compared",
        open_interest_change=pl.when(pl.col("before") > 0).then(pl.col("open_interest") / pl.col("before") - 1),
    )
