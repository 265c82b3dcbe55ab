"""Where the exposures of a chain stand among those of its last snapshots. The exposures are computed elsewhere."""

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from quant_platform.calculators.rolling import history_statistics
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.dealer import ExposureHistory
from quant_platform.contracts.enums import Exposure, Status

_KEY = ("symbol", "ts_event")
_OF_GAMMA = {name: name.value for name in (Exposure.GEX_GROSS, Exposure.GEX_NET, Exposure.DEX_NET)}
_OF_FLOW = {Exposure.VANNA: "vanna_notional_per_vol_pt", Exposure.CHARM: "charm_notional_per_day"}
_OF_SKEW = {Exposure.SKEW: "skew"}
_NAME = pl.concat_str("symbol", "exposure", separator="\x1f")
"""Of the history of one exposure of one symbol."""


@dataclass(frozen=True, kw_only=True)
class ExposureHistoryParams:
    """How much history counts.

    Attributes:
        gamma_window: Most snapshots in a window of gamma and delta exposures.
        gamma_min_samples: Snapshots below which these have no z-score.
        flow_window: Most snapshots in a window of vanna, charm and skew.
        flow_min_samples: Snapshots below which these have no z-score.
    """

    gamma_window: int = 120
    gamma_min_samples: int = 5
    flow_window: int = 180
    flow_min_samples: int = 15

    def __post_init__(self) -> None:
        for window, least in (
            (self.gamma_window, self.gamma_min_samples),
            (self.flow_window, self.flow_min_samples),
        ):
            if not 2 <= least <= window:
                raise ValueError(f"2 <= min_samples <= window must hold, were {least} and {window}")


_DEFAULTS = ExposureHistoryParams()


def exposure_values(gamma_exposure: pl.DataFrame, dealer_flow: pl.DataFrame, skew: pl.DataFrame) -> pl.DataFrame:
    """Return the exposures of whole chains, of which histories are kept.

    Args:
        gamma_exposure: Contract `GammaExposure`; only the rows over all count.
        dealer_flow: Contract `DealerFlow`; as there. Vanna and charm are the notional ones of holders.
        skew: Contract `Skew`; only the headline rows count.

    Returns:
        `symbol ts_event ts_known exposure value`, a row for each exposure of each snapshot; null where it is not
        known.
    """
    totals = (
        (gamma_exposure.lazy().filter(pl.col("strike").is_null() & pl.col("expiry").is_null()), _OF_GAMMA),
        (dealer_flow.lazy().filter(pl.col("expiry").is_null()), _OF_FLOW),
        (skew.lazy().filter(pl.col("expiry").is_null()), _OF_SKEW),
    )
    return pl.concat(
        frame.select(*_KEY, "ts_known", **{name.value: pl.col(column) for name, column in columns.items()}).unpivot(
            index=[*_KEY, "ts_known"], variable_name="exposure", value_name="value"
        )
        for frame, columns in totals
    ).collect(engine="in-memory")


def exposure_history(
    values: pl.DataFrame, earlier: pl.DataFrame, params: ExposureHistoryParams = _DEFAULTS
) -> pl.DataFrame:
    """Return where each exposure stands in its history: the last values of its symbol, itself included.

    Args:
        values: `symbol ts_event ts_known exposure value`, as `exposure_values` gives them; any number of symbols, any
            row order. The same `ts_event` again is the same snapshot of the source, seen by another cycle: it counts
            once, with the later row's value.
        earlier: The same columns: what lies before, at least the last `window - 1` values of each symbol and exposure
            if there are so many. Snapshots that are in `values` too count once.
        params: How much history counts.

    Returns:
        Contract `ExposureHistory`, a row for each exposure of each snapshot of `values`, by symbol, ts_event and
        exposure. Status: `no_data` where the value is null, NaN or infinite: it is in no window, and its row has
        nulls and no samples; `too_few` below the least samples; `constant` where nothing varies; else `ok`. The
        percentile stands also in the last three.
    """
    statistics = pl.concat(
        history_statistics(_series(values, exposures), _series(earlier, exposures), window=window, min_samples=least)
        .lazy()
        .with_columns(least=least)
        for exposures, window, least in (
            (_OF_GAMMA, params.gamma_window, params.gamma_min_samples),
            (_OF_FLOW | _OF_SKEW, params.flow_window, params.flow_min_samples),
        )
    ).rename({"symbol": "series"})
    known = values.lazy().unique([*_KEY, "exposure"], keep="last", maintain_order=True)
    return (
        statistics.join(
            known.select(*_KEY, "exposure", "ts_known", series=_NAME), on=["series", "ts_event"], how="left"
        )
        .with_columns(status=_status())
        .sort(*_KEY, "exposure")
        .select(pl.col(name).cast(dtype) for name, dtype in polars_schema(ExposureHistory).items())
        .collect(engine="in-memory")
    )


def _series(values: pl.DataFrame, exposures: Collection[str]) -> pl.LazyFrame:
    """Return the values of some exposures, each exposure of a symbol as a history of its own."""
    return values.lazy().filter(pl.col("exposure").is_in(list(exposures))).with_columns(symbol=_NAME)


def _status() -> pl.Expr:
    return (
        pl.when(pl.col("samples") == 0)
        .then(pl.lit(Status.NO_DATA.value))
        .when(pl.col("samples") < pl.col("least"))
        .then(pl.lit(Status.TOO_FEW.value))
        .when(pl.col("z_score").is_null())
        .then(pl.lit(Status.CONSTANT.value))
        .otherwise(pl.lit(Status.OK.value))
    )
