"""The live clock: how often each calculator runs, and how long what it wrote lives."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from quant_platform.settings._shared import Positive, Section

METRIC_INTERVALS: Mapping[str, str] = {
    "vpin": "vpin",
    "toxicity": "flow_toxicity",
    "institutional_flow": "flow_toxicity",
    "retail_flow": "flow_toxicity",
    "obi": "order_book",
    "sweep": "sweep_detection",
    "hidden": "sweep_detection",
    "flow_clusters": "flow_clustering",
    "moc": "moc",
    "unusual": "unusual_activity",
    "gex": "gex_dex",
    "dex": "gex_dex",
    "vanna": "dealer_flows",
    "charm": "dealer_flows",
    "hedging_impact": "dealer_flows",
    "skew": "volatility",
}
"""Each symbol's live metrics, and which of `UpdateIntervals` is theirs."""

_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d")

_Ttl = Annotated[int, Field(ge=1)]


def _hours(value: Any) -> Any:
    if not isinstance(value, str) or not _HOURS.fullmatch(value):
        raise ValueError('must be hours and minutes in quotes, such as "04:00"')
    return value


_Hours = Annotated[str, BeforeValidator(_hours)]


class ExtendedHours(Section):
    """Hours of an exchange's day that hold in place of its regular ones; HH:MM, in the exchange's time zone."""

    open: _Hours = Field(description="From here on, included.")
    close: _Hours = Field(description="Up to here, excluded.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.open >= self.close:
            raise ValueError(f"open {self.open} must be before close {self.close}")
        return self


class UpdateIntervals(Section):
    """Seconds from one run of a calculator to its next."""

    vpin: Positive = Field(1.0, description="Of vpin.")
    gex_dex: Positive = Field(5.0, description="Of gex and dex.")
    flow_toxicity: Positive = Field(1.0, description="Of toxicity, institutional_flow and retail_flow.")
    order_book: Positive = Field(0.5, description="Of obi.")
    sweep_detection: Positive = Field(0.5, description="Of sweep and hidden.")
    dealer_flows: Positive = Field(5.0, description="Of vanna, charm and hedging_impact.")
    flow_clustering: Positive = Field(10.0, description="Of flow_clusters.")
    volatility: Positive = Field(15.0, description="Of skew.")
    portfolio: Positive = Field(2.0, description="Of the summary over all symbols.")
    sectors: Positive = Field(5.0, description="Of the summary of each sector.")
    correlation: Positive = Field(30.0, description="Of the correlation of all symbols.")
    moc: Positive = Field(5.0, description="Of moc, the closing auction.")
    unusual_activity: Positive = Field(5.0, description="Of unusual.")


class StoreTtls(Section):
    """Seconds that a live key outlives its last write; a metric without its own lives as long as `analytics` says."""

    market: _Ttl = Field(60, description="Of market:*; a symbol unheard for so long is not written any more.")
    analytics: _Ttl = Field(60, description="Of analytics:*; flow_clusters live three intervals if that is longer.")
    portfolio: _Ttl = Field(60, description="Of analytics:portfolio:*.")
    vix1d: _Ttl = Field(345_600, description="Of analytics:vix1d: a long weekend.")
    history: _Ttl = Field(604_800, description="Of the lists of earlier values.")
    vpin: _Ttl | None = None
    toxicity: _Ttl | None = None
    institutional_flow: _Ttl | None = None
    retail_flow: _Ttl | None = None
    obi: _Ttl | None = None
    sweep: _Ttl | None = None
    hidden: _Ttl | None = None
    moc: _Ttl | None = None
    unusual: _Ttl | None = None
    flow_clusters: _Ttl | None = None
    gex: _Ttl | None = None
    dex: _Ttl | None = None
    vanna: _Ttl | None = None
    charm: _Ttl | None = None
    hedging_impact: _Ttl | None = None
    skew: _Ttl | None = None

    def of(self, metric: str, intervals: UpdateIntervals) -> int:
        """Return the time to live of a metric of `METRIC_INTERVALS`, in seconds."""
        own: int | None = getattr(self, metric)
        if own is None and metric == "flow_clusters":
            return max(self.analytics, math.ceil(3 * intervals.flow_clustering))
        return own or self.analytics


class MaxAges(Section):
    """Seconds of the market's time after which a live value is too old for a summary."""

    trades: Positive = Field(300.0, description="Of what is made from trades.")
    chain: Positive | None = Field(
        None, description="Of what is made from option chains; unset: two polls of the feed, and its quotes' delay."
    )
