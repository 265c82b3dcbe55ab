"""What calculators are told, over history and live."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from quant_platform.calculators.chain_quality import ChainQualityParams
from quant_platform.calculators.closing_auction import ClosingAuctionParams
from quant_platform.calculators.cross_asset import CorrelationParams
from quant_platform.calculators.dealer_exposure import DealerFlowParams, GammaExposureParams
from quant_platform.calculators.exposure_history import ExposureHistoryParams
from quant_platform.calculators.flow_clusters import FlowClustersParams
from quant_platform.calculators.hidden_orders import HiddenOrderParams
from quant_platform.calculators.impact import ImpactParams
from quant_platform.calculators.order_book import OrderBookParams
from quant_platform.calculators.participants import ParticipantParams
from quant_platform.calculators.quality_score import QualityParams
from quant_platform.calculators.scorecards import ScorecardParams
from quant_platform.calculators.skew import SkewParams
from quant_platform.calculators.sweeps import SweepParams
from quant_platform.calculators.toxicity import ToxicityParams
from quant_platform.calculators.trade_sign import TradeSignParams
from quant_platform.calculators.unusual_activity import UnusualActivityParams
from quant_platform.calculators.variance_strip import VarianceIndexParams
from quant_platform.calculators.vol_regime import VolRegimeParams
from quant_platform.calculators.vol_surface import VolSurfaceParams
from quant_platform.settings._shared import Positive, Section
from quant_platform.settings.live import METRIC_INTERVALS, ExtendedHours, MaxAges, StoreTtls, UpdateIntervals

_SUMMARIES = ("portfolio", "sectors", "correlation")
_SUMMARISED = ("vpin", "flow_toxicity", "gex_dex", "dealer_flows")
_FLOW = ParticipantParams()
_SWEEP = SweepParams()


class PriceStatistics(Section):
    """Windows of statistics/price_statistics, in one-minute bars."""

    window_bars: int = Field(60, ge=5)
    bollinger_bars: int = Field(20, ge=2)
    bollinger_width: Positive = 2.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bollinger_bars > self.window_bars:
            raise ValueError(f"bollinger_bars {self.bollinger_bars} must not exceed window_bars {self.window_bars}")
        return self


class Vpin(Section):
    """VPIN's buckets and thresholds; how trades are signed is `trade_sign`'s."""

    n_buckets: int = Field(50, ge=1, description="Full buckets that VPIN is the mean of.")
    sample_s: int = Field(60, ge=1, description="A row is the value after the last trade of such an interval.")
    bvc_bar_s: int | None = Field(
        None, ge=60, multiple_of=60, description="Sign volume in bulk, by bars of this width, not trade by trade."
    )
    min_reference: int = Field(100, ge=1, description="Earlier bucket values below which there is no cdf.")
    moderate_cdf: float = Field(0.80, ge=0, le=1)
    high_cdf: float = Field(0.95, ge=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.moderate_cdf > self.high_cdf:
            raise ValueError(f"moderate_cdf {self.moderate_cdf} must not exceed high_cdf {self.high_cdf}")
        return self


class Analytics(Section):
    """Parameters of calculators, those that are a calculator's own class described there; and the live clock."""

    price_statistics: PriceStatistics = PriceStatistics()
    trade_sign: TradeSignParams = TradeSignParams()
    vpin: Vpin = Vpin()
    order_book: OrderBookParams = OrderBookParams()
    participant_flow: ParticipantParams = ParticipantParams()
    toxicity_heuristics: ToxicityParams = Field(ToxicityParams(), validate_default=True)
    sweep_detection: SweepParams = SweepParams()
    hidden_orders: HiddenOrderParams = HiddenOrderParams()
    flow_clustering: FlowClustersParams = Field(FlowClustersParams(), validate_default=True)
    closing_auction: ClosingAuctionParams = ClosingAuctionParams()
    correlation: CorrelationParams = CorrelationParams()
    chain_quality: ChainQualityParams = ChainQualityParams()
    gamma_exposure: GammaExposureParams = GammaExposureParams()
    dealer_flow: DealerFlowParams = DealerFlowParams()
    skew: SkewParams = SkewParams()
    exposure_history: ExposureHistoryParams = ExposureHistoryParams()
    vol_surface: VolSurfaceParams = VolSurfaceParams()
    vix1d_proxy: VarianceIndexParams = VarianceIndexParams()
    vol_regime: VolRegimeParams = VolRegimeParams()
    unusual_activity: UnusualActivityParams = UnusualActivityParams()
    execution_quality: QualityParams = QualityParams()
    impact: ImpactParams = ImpactParams()
    scorecards: ScorecardParams = ScorecardParams()
    cadence_hz: Positive = Field(2.0, description="Cycles of the live writer a second.")
    rth_only: bool = Field(True, description="Whether a symbol is written in its exchange's trading hours only.")
    extended_hours: ExtendedHours | None = Field(None, description="Hours in place of the regular ones.")
    update_intervals: UpdateIntervals = UpdateIntervals()
    store_ttls: StoreTtls = StoreTtls()
    max_age_s: MaxAges = MaxAges()
    history_entries: int = Field(1_000, ge=1, le=5_000, description="Values kept in a metric's live history.")
    archive_every_s: Positive = Field(60.0, description="Of each symbol's live values, one in so long is archived.")

    @field_validator("toxicity_heuristics")
    @classmethod
    def _institutional_as_in_participant_flow(cls, value: ToxicityParams, info: ValidationInfo) -> ToxicityParams:
        flow = info.data.get("participant_flow", _FLOW)
        if value.institutional not in (flow.institutional, _FLOW.institutional):
            raise ValueError("who is institutional is told once: set analytics.participant_flow.institutional instead")
        return replace(value, institutional=flow.institutional)

    @field_validator("flow_clustering")
    @classmethod
    def _sweep_as_detected(cls, value: FlowClustersParams, info: ValidationInfo) -> FlowClustersParams:
        sweep = info.data.get("sweep_detection", _SWEEP)
        if value.sweep not in (sweep, _SWEEP):
            raise ValueError("what a sweep is, is told once: set analytics.sweep_detection instead")
        return replace(value, sweep=sweep)

    @model_validator(mode="after")
    def _clock_fits(self) -> Self:
        if problems := [*self._fast_readers(), *self._short_ttls()]:
            raise ValidationError.from_exception_data("analytics", problems)
        return self

    def _fast_readers(self) -> Iterator[InitErrorDetails]:
        every = dict(self.update_intervals)
        fastest = min(_SUMMARISED, key=every.__getitem__)
        for reader, read in (("flow_toxicity", "vpin"), ("portfolio", fastest), ("sectors", fastest)):
            if every[reader] < every[read]:
                text = f"must not be below update_intervals.{read} ({every[read]:g} s), which it reads"
                yield _refusal(("update_intervals", reader), every[reader], text)

    def _short_ttls(self) -> Iterator[InitErrorDetails]:
        every, ttls = dict(self.update_intervals), self.store_ttls
        lives = [(interval, "portfolio", ttls.portfolio) for interval in _SUMMARIES]
        for metric, interval in METRIC_INTERVALS.items():
            own = metric if getattr(ttls, metric) else "analytics"
            lives += (interval, own, ttls.of(metric, self.update_intervals)), (interval, "history", ttls.history)
        lives.sort(key=lambda life: every[life[0]])
        too_short = {setting: (interval, ttl_s) for interval, setting, ttl_s in lives if ttl_s < every[interval]}
        for setting, (interval, ttl_s) in too_short.items():
            text = (
                f"must not be below update_intervals.{interval} ({every[interval]:g} s): keys would vanish in between"
            )
            yield _refusal(("store_ttls", setting), ttl_s, text)


def _refusal(location: tuple[str, ...], given: float, text: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("clock", text), loc=location, input=given)
