"""Where data comes from."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from quant_platform.settings._shared import Section

FeedName = Literal["binance_usdm", "binance_spot", "recorded_lobster", "recorded_lean", "recorded_frames"]
CAPTURED_FEEDS = ("binance_usdm", "binance_spot")


class BinanceFeed(Section):
    """One Binance market."""

    ws_url: str = Field(description="WebSocket base, for capture.")
    rest_url: str = Field(description="REST base, for refills and snapshots.")
    archive_url: str = Field(description="Root of the public archive; file:// works.")
    api_key: SecretStr | None = Field(
        None, description="For refills of single trades (historicalTrades); without one they are aggTrades."
    )
    streams_per_connection: int = Field(200, ge=1, description="The venue's limit of streams on one connection.")
    assumed_latency_ms: float = Field(
        50.0, ge=0, allow_inf_nan=False, description="Added to ts_event where a row has no receive time."
    )

    @field_validator("archive_url")
    @classmethod
    def _archive_scheme(cls, value: str) -> str:
        if not value.startswith(("https://", "http://", "file:///")):
            raise ValueError("must start with https://, http:// or file:///")
        return value.rstrip("/")


class RecordedFeed(Section):
    """A folder of recorded files, read where they lie."""

    path: Path | None = Field(None, description="The folder.")
    assumed_latency_ms: float = Field(
        50.0, ge=0, allow_inf_nan=False, description="Added to ts_event where a row has no receive time."
    )

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else None


class RecordedLean(RecordedFeed):
    """Equity ticks of the consolidated tape."""

    dark_venues: tuple[str, ...] = Field(("D",), description="Codes of venues that show no quotes; D is FINRA's.")


class RecordedFrames(RecordedFeed):
    """WebSocket frames as they came, one a line: `<receive time, ns> <JSON>`."""

    path: Path | None = Field(None, description="The folder; unset: the one that `qp demo` fills.")
    venue: Literal["binance_usdm", "binance_spot", "binance_coinm"] = Field(
        "binance_usdm", description="Whose messages they are."
    )


class Feeds(Section):
    """Where data comes from."""

    binance_usdm: BinanceFeed = BinanceFeed(
        ws_url="wss://fstream.binance.com/public",
        rest_url="https://fapi.binance.com",
        archive_url="https://data.binance.vision",
    )
    binance_spot: BinanceFeed = BinanceFeed(
        ws_url="wss://stream.binance.com:9443",
        rest_url="https://api.binance.com",
        archive_url="https://data.binance.vision",
    )
    recorded_lobster: RecordedFeed = RecordedFeed()
    recorded_lean: RecordedLean = RecordedLean()
    recorded_frames: RecordedFrames = RecordedFrames()
