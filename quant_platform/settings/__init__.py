"""One tree of settings: platform.yaml, then QP_* environment variables on top. Nothing here opens the lake.

`QP_CONFIG` names the file (default ./platform.yaml); any setting is `QP_SECTION__KEY`, for example
`QP_FEEDS__BINANCE_USDM__ARCHIVE_URL`.
"""

from quant_platform.settings._shared import SettingsError, config_path
from quant_platform.settings.analytics import Analytics, PriceStatistics, Vpin
from quant_platform.settings.feeds import (
    CAPTURED_FEEDS,
    DESK_CONTRACTS,
    DESK_IDS,
    EVENT_ALIASES,
    EVENT_ID,
    POLLED_FEEDS,
    REFUSED_FOLDER,
    BinanceFeed,
    CboeFeed,
    ChainFeed,
    DeribitFeed,
    DeskFeed,
    DeskKind,
    DeskMapping,
    FeedName,
    Feeds,
    IbkrGateway,
    RecordedFeed,
    RecordedFrames,
    RecordedLean,
    Vix1dFeed,
    desk_kind,
    required_columns,
)
from quant_platform.settings.instruments import Instrument, ListedOptions, Sources
from quant_platform.settings.live import METRIC_INTERVALS, ExtendedHours, MaxAges, StoreTtls, UpdateIntervals
from quant_platform.settings.load import load_settings, masked
from quant_platform.settings.tree import Capture, Partitions, Pipeline, Quality, Settings, Ui

__all__ = [
    "CAPTURED_FEEDS",
    "DESK_CONTRACTS",
    "DESK_IDS",
    "EVENT_ALIASES",
    "EVENT_ID",
    "METRIC_INTERVALS",
    "POLLED_FEEDS",
    "REFUSED_FOLDER",
    "Analytics",
    "BinanceFeed",
    "Capture",
    "CboeFeed",
    "ChainFeed",
    "DeribitFeed",
    "DeskFeed",
    "DeskKind",
    "DeskMapping",
    "ExtendedHours",
    "FeedName",
    "Feeds",
    "IbkrGateway",
    "Instrument",
    "ListedOptions",
    "MaxAges",
    "Partitions",
    "Pipeline",
    "PriceStatistics",
    "Quality",
    "RecordedFeed",
    "RecordedFrames",
    "RecordedLean",
    "Settings",
    "SettingsError",
    "Sources",
    "StoreTtls",
    "Ui",
    "UpdateIntervals",
    "Vix1dFeed",
    "Vpin",
    "config_path",
    "desk_kind",
    "load_settings",
    "masked",
    "required_columns",
]
