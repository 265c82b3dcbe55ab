"""Regimes of volatility indices: where each reading stands in its source's history, and what that is called."""

from dataclasses import dataclass, fields
from math import isfinite

import polars as pl

from quant_platform.calculators.rolling import history_statistics
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.enums import Status, VolRegime
from quant_platform.contracts.volatility import VolIndexRegime

LOOKBACK_SESSIONS = 0

_KEY = ("symbol", "source")
_COLUMNS = (*_KEY, "ts_event", "ts_recv", pl.col("value").cast(pl.Float64))
_SPANS_S = {"change_5m": 300, "change_1h": 3_600}
_VALUES = ("value", "z_score", "percentile", *_SPANS_S, "regime")
_DIGITS = 9  # a figure is rounded before it is held against a cut-off, which it may miss by its last bits


@dataclass(frozen=True, kw_only=True)
class VolRegimeParams:
    """The history that a reading is held against, and the cut-offs of the regimes, in the index's points.

    Attributes:
        window: Most readings in a window.
        min_samples: Readings below which there is no z-score.
        shock_value: Reading from which it is a shock.
        shock_change_5m: Change within five minutes, up or down, from which it is a shock.
        elevated_value: Reading from which it is elevated.
        elevated_change_1h: Change within an hour, up or down, from which it is elevated.
        elevated_z_score: z-score from which it is elevated.
        benign_value: Reading up to which it is benign, if the z-score is low too.
        benign_z_score: z-score up to which it is benign, if the reading is low too.
    """

    window: int = 480
    min_samples: int = 15
    shock_value: float = 35.0
    shock_change_5m: float = 5.0
    elevated_value: float = 25.0
    elevated_change_1h: float = 2.0
    elevated_z_score: float = 1.5
    benign_value: float = 18.0
    benign_z_score: float = -1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not isfinite(getattr(self, field.name)):
                raise ValueError(f"{field.name} must be finite, was {getattr(self, field.name)}")
        if not 2 <= self.min_samples <= self.window:
            raise ValueError(f"2 <= min_samples <= window must hold, were {self.min_samples} and {self.window}")
        if not 0 < self.benign_value < self.elevated_value < self.shock_value:
            raise ValueError(
                "0 < benign_value < elevated_value < shock_value must hold, were "
                f"{self.benign_value}, {self.elevated_value} and {self.shock_value}"
            )
        if not self.benign_z_score < self.elevated_z_score:
            raise ValueError(
                f"benign_z_score < elevated_z_score must hold, were {self.benign_z_score} and {self.elevated_z_score}"
            )
        for name in ("shock_change_5m", "elevated_change_1h"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, was {getattr(self, name)}")


_DEFAULTS = VolRegimeParams()


def vol_regime(values: pl.DataFrame, earlier: pl.DataFrame, params: VolRegimeParams = _DEFAULTS) -> pl.DataFrame:
    """Return where each reading stands in the history of its source, and the regime that it means.

    Args:
        values: Contract `VolIndex`: `ts_event ts_recv symbol source value`, any number of indices and sources, any row
            order. The same `ts_event` again is the same reading, seen by another cycle: it counts once, with the later
            row's value.
        earlier: The same columns: what lies before, at least the last `window - 1` readings of each source and those of
            the last two hours, if there are so many.
        params: The window and the cut-offs.

    Returns:
        Contract `VolIndexRegime`, by symbol, source and ts_event: one row for each reading of `values`. A change is
        held against the newest reading that is at least its span older, and null where that one is above twice the span
        older. Status `no_data` where a value is null, `nan` where it is NaN or infinite, `invalid_vol` where it is not
        above 0: such a reading is in no window.
    """
    rows = (
        pl.concat(
            [earlier.select(_COLUMNS).with_columns(is_new=False), values.select(_COLUMNS).with_columns(is_new=True)]
        )
        .unique([*_KEY, "ts_event"], keep="last", maintain_order=True)
        .sort(*_KEY, "ts_event")
        .with_columns(status=_status())
        .with_columns(pl.when(pl.col("status") == Status.OK).then("value"), series=pl.struct(_KEY).rle_id())
    )
    usable = rows.filter(pl.col("value").is_not_null())
    series = pl.col("series").alias("symbol")
    statistics = history_statistics(
        rows.filter("is_new").select(series, "ts_event", "value"),
        rows.filter(~pl.col("is_new")).select(series, "ts_event", "value"),
        window=params.window,
        min_samples=params.min_samples,
    ).select("ts_event", "z_score", "percentile", "samples", series=pl.col("symbol"))
    known = usable.select(
        "series",
        "ts_event",
        known=pl.col("ts_recv").to_physical().rolling_max(params.window, min_samples=1).over("series"),
    )
    described = (
        rows.filter("is_new")
        .join(statistics, on=["series", "ts_event"], how="left")
        .join(known, on=["series", "ts_event"], how="left")
        .sort("series", "ts_event")
    )
    for name, span_s in _SPANS_S.items():
        described = _with_change(described, usable, name, span_s)
    ts_known = pl.max_horizontal(pl.col("ts_recv").to_physical(), "known", *(f"{name}_known" for name in _SPANS_S))
    return (
        regimes(described, params)
        .with_columns(
            pl.when(pl.col("status") == Status.OK).then(pl.col(_VALUES)),
            ts_known=ts_known,
            **{field.name: pl.lit(getattr(params, field.name)) for field in fields(params)},
        )
        .sort(*_KEY, "ts_event")
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(VolIndexRegime).items())
    )


def regimes(rows: pl.DataFrame, params: VolRegimeParams = _DEFAULTS) -> pl.DataFrame:
    """Return the rows with their `regime`: the first of shock, elevated and benign whose conditions hold, else normal.

    Args:
        rows: `value z_score change_5m change_1h`; a null satisfies no condition.
        params: The cut-offs.
    """
    value, z_score, change_5m, change_1h = (
        pl.col(name).round(_DIGITS) for name in ("value", "z_score", "change_5m", "change_1h")
    )
    is_shock = (value >= params.shock_value) | (change_5m.abs() >= params.shock_change_5m)
    is_elevated = (
        (value >= params.elevated_value)
        | (change_1h.abs() >= params.elevated_change_1h)
        | (z_score >= params.elevated_z_score)
    )
    is_benign = (value <= params.benign_value) & (z_score <= params.benign_z_score)
    return rows.with_columns(
        regime=pl.when(is_shock)
        .then(pl.lit(VolRegime.SHOCK))
        .when(is_elevated)
        .then(pl.lit(VolRegime.ELEVATED))
        .when(is_benign)
        .then(pl.lit(VolRegime.BENIGN))
        .otherwise(pl.lit(VolRegime.NORMAL))
    )


def _status() -> pl.Expr:
    value = pl.col("value")
    return (
        pl.when(value.is_null())
        .then(pl.lit(Status.NO_DATA))
        .when(~value.is_finite())
        .then(pl.lit(Status.NAN))
        .when(value <= 0)
        .then(pl.lit(Status.INVALID_VOL))
        .otherwise(pl.lit(Status.OK))
    )


def _with_change(rows: pl.DataFrame, readings: pl.DataFrame, name: str, span_s: int) -> pl.DataFrame:
    """Return the rows with the change over a span, null where there is none, and when its older reading was known."""
    span = pl.duration(seconds=span_s, time_unit="ns")
    older = readings.select("series", found_ts="ts_event", found="value", found_known=pl.col("ts_recv").to_physical())
    matched = (
        rows.with_columns(until=pl.col("ts_event") - span)
        .join_asof(older, left_on="until", right_on="found_ts", by="series", check_sortedness=False)
        .with_columns(is_near=pl.col("ts_event") - pl.col("found_ts") <= 2 * span)
    )
    return matched.with_columns(
        pl.when("is_near").then(pl.col("value") - pl.col("found")).alias(name),
        pl.when("is_near").then("found_known").alias(f"{name}_known"),
    ).drop("until", "found_ts", "found", "found_known", "is_near")
