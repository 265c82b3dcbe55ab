"""How unusual the volume of an option chain is against its open interest. What dealers must hedge lives elsewhere."""

from dataclasses import dataclass, fields

import polars as pl

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import OptionActivity, OptionFlow, Status
from quant_platform.contracts.microstructure import UnusualActivity

LOOKBACK_SESSIONS = 0

_KEY = ("symbol", "ts_event")
_VALUES = (
    "score",
    "volume_oi_ratio",
    "max_contract_ratio",
    "large_notional_count",
    "high_ratio_count",
    "call_volume",
    "put_volume",
    "dominant_flow",
)


@dataclass(frozen=True, kw_only=True)
class UnusualActivityParams:
    """What saturates each part of the score, the parts' weights, and the cut-offs of the words.

    Attributes:
        contract_ratio_full: Volume ÷ open interest of the most active contract at which its part is full.
        volume_oi_full: The same of the whole chain.
        large_notional: Traded value of a contract, in quote currency, from which it counts as large.
        large_notional_full: Large contracts at which their part is full.
        high_ratio: Volume ÷ open interest from which a contract counts as high.
        high_ratio_full: High contracts at which their part is full.
        contract_ratio_weight: Weight of the most active contract's ratio; the four weights sum to 1.
        volume_oi_weight: Weight of the chain's ratio.
        large_notional_weight: Weight of the number of large contracts.
        high_ratio_weight: Weight of the number of high contracts.
        watch: Score from which the chain is `watch`.
        elevated: Score from which it is `elevated`.
        extreme: Score from which it is `extreme`.
        dominance: Beyond this |calls - puts| ÷ volume one side dominates.
    """

    contract_ratio_full: float = 1.5
    volume_oi_full: float = 0.35
    large_notional: float = 5e7
    large_notional_full: float = 3.0
    high_ratio: float = 1.0
    high_ratio_full: float = 10.0
    contract_ratio_weight: float = 0.45
    volume_oi_weight: float = 0.30
    large_notional_weight: float = 0.15
    high_ratio_weight: float = 0.10
    watch: float = 0.3
    elevated: float = 0.6
    extreme: float = 0.85
    dominance: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be > 0, was {getattr(self, field.name)}")
        weights = (
            self.contract_ratio_weight,
            self.volume_oi_weight,
            self.large_notional_weight,
            self.high_ratio_weight,
        )
        if abs(sum(weights) - 1) > 1e-9:
            raise ValueError(f"the four weights must sum to 1, were {weights}")
        if not self.watch < self.elevated < self.extreme:
            raise ValueError(f"watch < elevated < extreme, were {self.watch}, {self.elevated}, {self.extreme}")


_DEFAULTS = UnusualActivityParams()


def unusual_activity(
    snapshots: pl.DataFrame | pl.LazyFrame,
    contracts: pl.DataFrame | pl.LazyFrame,
    params: UnusualActivityParams = _DEFAULTS,
) -> pl.DataFrame:
    """Return one score for each snapshot of an option chain.

    Args:
        snapshots: `symbol ts_event ts_known`, one row for each snapshot that was taken, also of an empty chain; any
            number of underlyings, any row order.
        contracts: `symbol ts_event type volume open_interest price multiplier`, one row a contract of a snapshot,
            any row order. `type` is `C` or `P`; volume and open interest in contracts, price in quote currency for
            one unit of the underlying, of which a contract holds `multiplier`. Another type, or a volume or open
            interest that is null, NaN, infinite or negative: the contract is skipped and counted. A price or
            multiplier that is no number leaves it out of the count of large notionals only.
        params: Weights and cut-offs.

    Returns:
        Contract `UnusualActivity`, one row a snapshot, by symbol and ts_event. Status: `no_data` and
        `no_valid_contracts` where the classification is `absent`, `zero_volume` where it is `inactive`, else `ok`; all
        values but the classification and the counts of contracts are null unless `ok`.
    """
    chains = contracts.lazy().with_columns(_contract(params)).group_by(_KEY).agg(_chain(params))
    is_ok = pl.col("status") == Status.OK
    return (
        snapshots.lazy()
        .select("symbol", "ts_event", "ts_known")
        .unique(_KEY, keep="last", maintain_order=True)
        .join(chains, on=_KEY, how="left")
        .with_columns(pl.col("contracts_used", "contracts_skipped").fill_null(0))
        .with_columns(score=_score(params), dominant_flow=_dominant_flow(params), status=_status())
        .with_columns(
            pl.when(is_ok).then(pl.col(_VALUES)),
            classification=pl.when(is_ok).then(_level(params)).otherwise(_without_score()),
        )
        .sort(_KEY)
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(UnusualActivity).items())
        .collect(engine="in-memory")
    )


def _contract(params: UnusualActivityParams) -> list[pl.Expr]:
    """Return what is asked of each contract; volume and open interest are null where it is skipped."""
    volume, interest = pl.col("volume").cast(pl.Float64), pl.col("open_interest").cast(pl.Float64)
    is_usable = pl.col("type").is_in(["C", "P"]) & pl.all_horizontal(
        value.is_finite() & (value >= 0) for value in (volume, interest)
    )
    ratio = volume / pl.max_horizontal(interest, 1.0)
    notional = volume * pl.col("price") * pl.col("multiplier")
    is_used = is_usable.fill_null(False)
    return [
        is_used.alias("is_used"),
        pl.when(is_used).then(volume).alias("volume"),
        pl.when(is_used).then(interest).alias("open_interest"),
        pl.when(is_used).then(ratio).alias("ratio"),
        (is_used & notional.is_finite() & (notional >= params.large_notional)).fill_null(False).alias("is_large"),
    ]


def _chain(params: UnusualActivityParams) -> list[pl.Expr]:
    volume, is_used = pl.col("volume"), pl.col("is_used")
    return [
        volume.sum().alias("volume"),
        volume.filter(pl.col("type") == "C").sum().alias("call_volume"),
        volume.filter(pl.col("type") == "P").sum().alias("put_volume"),
        (volume.sum() / pl.max_horizontal(pl.col("open_interest").sum(), 1.0)).alias("volume_oi_ratio"),
        pl.col("ratio").max().alias("max_contract_ratio"),
        pl.col("is_large").sum().alias("large_notional_count"),
        (pl.col("ratio") >= params.high_ratio).sum().alias("high_ratio_count"),
        is_used.sum().alias("contracts_used"),
        (~is_used).sum().alias("contracts_skipped"),
    ]


def _score(params: UnusualActivityParams) -> pl.Expr:
    def part(name: str, full: float, weight: float) -> pl.Expr:
        return weight * pl.min_horizontal(pl.col(name) / full, 1.0)

    return (
        part("max_contract_ratio", params.contract_ratio_full, params.contract_ratio_weight)
        + part("volume_oi_ratio", params.volume_oi_full, params.volume_oi_weight)
        + part("large_notional_count", params.large_notional_full, params.large_notional_weight)
        + part("high_ratio_count", params.high_ratio_full, params.high_ratio_weight)
    )


def _dominant_flow(params: UnusualActivityParams) -> pl.Expr:
    skew = (pl.col("call_volume") - pl.col("put_volume")) / pl.col("volume")
    return (
        pl.when(skew > params.dominance)
        .then(pl.lit(OptionFlow.CALL))
        .when(skew < -params.dominance)
        .then(pl.lit(OptionFlow.PUT))
        .otherwise(pl.lit(OptionFlow.BALANCED))
    )


def _status() -> pl.Expr:
    used = pl.col("contracts_used")
    return (
        pl.when(used + pl.col("contracts_skipped") == 0)
        .then(pl.lit(Status.NO_DATA))
        .when(used == 0)
        .then(pl.lit(Status.NO_VALID_CONTRACTS))
        .when(pl.col("volume") == 0)
        .then(pl.lit(Status.ZERO_VOLUME))
        .otherwise(pl.lit(Status.OK))
    )


def _level(params: UnusualActivityParams) -> pl.Expr:
    score = pl.col("score")
    return (
        pl.when(score >= params.extreme)
        .then(pl.lit(OptionActivity.EXTREME))
        .when(score >= params.elevated)
        .then(pl.lit(OptionActivity.ELEVATED))
        .when(score >= params.watch)
        .then(pl.lit(OptionActivity.WATCH))
        .otherwise(pl.lit(OptionActivity.NORMAL))
    )


def _without_score() -> pl.Expr:
    return (
        pl.when(pl.col("status") == Status.ZERO_VOLUME)
        .then(pl.lit(OptionActivity.INACTIVE))
        .otherwise(pl.lit(OptionActivity.ABSENT))
    )
