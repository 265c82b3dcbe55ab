"""The whole tree, and where things are written."""

import os
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from quant_platform.settings._shared import PREFIX, Positive, Section, SettingsError, config_path
from quant_platform.settings.analytics import Analytics
from quant_platform.settings.feeds import BinanceFeed, CboeFeed, DeribitFeed, Feeds, RecordedFeed, RecordedLean
from quant_platform.settings.instruments import Instrument

_WITHOUT_DEFAULT_FOLDER = ("recorded_lobster", "recorded_lean", "recorded_lean_options")
_Feed = BinanceFeed | RecordedFeed | CboeFeed | DeribitFeed


class Partitions(Section):
    """Where history begins."""

    start: date = Field(date(2020, 1, 1), description="First trading date of every daily partition.")


class Capture(Section):
    """The collector: what it risks, when it closes a segment, when it gives a connection up."""

    flush_s: Positive = Field(0.25, description="What came in is on disk, fsynced, at least so often.")
    segment_s: Positive = Field(
        60.0, description="Segments are closed at each multiple of this, all symbols' together."
    )
    segment_mb: Positive = Field(64.0, description="A segment is closed at this size.")
    silence_s: Positive = Field(30.0, description="A connection without data for so long is taken for dead.")
    renew_h: Positive = Field(23.5, description="A connection is replaced before the venue ends it at 24 hours.")
    depth_interval_ms: Literal[100, 250, 500, 1000] = Field(100, description="Of the depth stream.")


class Retention(Section):
    """How long `qp maintain` leaves what nothing needs any more."""

    segments_days: Positive = Field(
        30.0, description="Captured segments stay so long after their dates' sessions; longer until these are whole."
    )
    intraday_runs_days: Positive = Field(2.0, description="Dagster's runs of an open date stay so long.")


class Quality(Section):
    """What turns a blocking check red."""

    max_quarantined_share: float = Field(
        0.01, ge=0, le=1, description="Of a symbol-day's rows; above it the contract check is red."
    )


class Pipeline(Section):
    """The local pool."""

    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=0, description="Processes; 0 = in this one.")
    memory_budget_mb: Positive = Field(4096, description="Estimated memory of all units under way at once.")


class Ui(Section):
    """What `qp up` serves on 127.0.0.1."""

    port: int = Field(3000, gt=0, lt=65536, description="Of the Dagster UI.")
    files_port: int = Field(3001, gt=0, lt=65536, description="Of the pages of reports/ and quarantine/.")
    replay_port: int = Field(3002, gt=0, lt=65536, description="Of the replayed venue.")

    @property
    def files_url(self) -> str:
        """Where those pages begin, so that the UI can link to them."""
        return f"http://127.0.0.1:{self.files_port}"


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    home: Path = Field(Path("var"), description="Where everything is written.")
    lake_uri: str = Field("", description="Default: file://<home>/lake.")
    redis_url: SecretStr | None = Field(None, description="An own Redis server; unset: embedded.")
    partitions: Partitions = Partitions()
    feeds: Feeds = Feeds()
    instruments: tuple[Instrument, ...] = ()
    analytics: Analytics = Analytics()
    capture: Capture = Capture()
    retention: Retention = Retention()
    quality: Quality = Quality()
    pipeline: Pipeline = Pipeline()
    ui: Ui = Ui()

    @model_validator(mode="before")
    @classmethod
    def _places(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values["home"] = Path(values.get("home") or "var").expanduser().absolute()
            values["lake_uri"] = values.get("lake_uri") or (values["home"] / "lake").as_uri()
        return values

    @field_validator("instruments")
    @classmethod
    def _unique(cls, value: tuple[Instrument, ...]) -> tuple[Instrument, ...]:
        names = [instrument.symbol for instrument in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"symbol {', '.join(twice)} stands more than once: every symbol needs its own name")
        return value

    @field_validator("instruments")
    @classmethod
    def _recordings_have_folders(cls, value: tuple[Instrument, ...], info: ValidationInfo) -> tuple[Instrument, ...]:
        feeds = info.data.get("feeds") or Feeds()
        lacking = [
            InitErrorDetails(
                type=PydanticCustomError("no_path", "needs a folder: set feeds.{feed}.path", {"feed": feed}),
                loc=(position, *key),
                input=feed,
            )
            for position, instrument in enumerate(value)
            for key, feed in instrument.named_feeds()
            if feed in _WITHOUT_DEFAULT_FOLDER and getattr(feeds, feed).path is None
        ]
        if lacking:
            raise ValidationError.from_exception_data("instruments", lacking)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, which arrives as the initial values."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings

    @property
    def landing(self) -> Path:
        """Every raw input, until retention."""
        return self.home / "landing"

    @property
    def quarantine(self) -> Path:
        """Rows that broke a rule."""
        return self.home / "quarantine"

    @property
    def reports(self) -> Path:
        """Rendered reports."""
        return self.home / "reports"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file that only dbt writes."""
        return self.home / "warehouse.duckdb"

    @property
    def ledger(self) -> Path:
        """The index of units."""
        return self.home / "ledger.sqlite"

    @property
    def dagster_home(self) -> Path:
        """Dagster's storage."""
        return self.home / "dagster"

    @property
    def simulated_archive(self) -> Path:
        """The archive that `qp demo` simulates."""
        return self.home / "simulated_archive"

    @property
    def simulated_frames(self) -> Path:
        """The depth messages that `qp demo` simulates."""
        return self.simulated_archive / "frames"

    @property
    def assumed_latency_ms(self) -> dict[str, float]:
        """By symbol: what `Lake` adds to ts_event where a row has no receive time."""
        return {i.symbol: self.feed_of(i).assumed_latency_ms for i in self.instruments}

    @property
    def simulated_chains(self) -> Path:
        """The snapshots of option chains that `qp demo` simulates, laid out as the landing's."""
        return self.simulated_archive / "chains"

    @property
    def simulated_vix1d(self) -> Path:
        """The history of VIX1D that `qp demo` simulates, as Cboe publishes it."""
        return self.simulated_archive / "VIX1D_History.csv"

    def feed_of(self, instrument: Instrument) -> _Feed:
        """Return the settings of the instrument's feed."""
        feed: _Feed = getattr(self.feeds, instrument.feed)
        return feed

    def dark_venues(self, instrument: Instrument) -> tuple[str, ...]:
        """Return the codes of venues on the instrument's tape that show no quotes; empty where its feed has none."""
        feed = self.feed_of(instrument)
        return feed.dark_venues if isinstance(feed, RecordedLean) else ()

    def instrument(self, symbol: str) -> Instrument:
        """Return one instrument.

        Raises:
            SettingsError: platform.yaml has no such symbol; the message lists those it has.
        """
        for instrument in self.instruments:
            if instrument.symbol == symbol:
                return instrument
        known = ", ".join(i.symbol for i in self.instruments) or "none"
        raise SettingsError(
            f"There is no instrument '{symbol}' in {config_path()}. Known: {known}. Add it under 'instruments:'."
        )
