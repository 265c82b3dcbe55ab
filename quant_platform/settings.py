"""One tree of settings: platform.yaml, then QP_* environment variables on top. Nothing here opens the lake.

`QP_CONFIG` names the file (default ./platform.yaml); any setting is `QP_SECTION__KEY`, for example
`QP_FEEDS__BINANCE_USDM__ARCHIVE_URL`.
"""

import os
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from quant_platform.calculators.closing_auction import ClosingAuctionParams
from quant_platform.calculators.flow_clusters import FlowClustersParams
from quant_platform.calculators.hidden_orders import HiddenOrderParams
from quant_platform.calculators.order_book import OrderBookParams
from quant_platform.calculators.participants import ParticipantParams
from quant_platform.calculators.sweeps import SweepParams
from quant_platform.calculators.toxicity import ToxicityParams
from quant_platform.calculators.trade_sign import TradeSignParams

_PREFIX = "QP_"
_USERINFO = re.compile(r"://[^/\s]+@")
_ALWAYS_OPEN = "24/7"

FeedName = Literal["binance_usdm", "binance_spot", "recorded_lobster", "recorded_lean", "recorded_frames"]
CAPTURED_FEEDS = ("binance_usdm", "binance_spot")
_WITHOUT_DEFAULT_FOLDER = ("recorded_lobster", "recorded_lean")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SettingsError(ValueError):
    """The configuration is wrong; the message names file, line and key, and says what to do."""


class _Loader(yaml.SafeLoader):
    """YAML whose dates stay text, so that pydantic judges them and the message can name the key."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Partitions(_Section):
    """Where history begins."""

    start: date = Field(date(2020, 1, 1), description="First trading date of every daily partition.")


class BinanceFeed(_Section):
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


class RecordedFeed(_Section):
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


class Feeds(_Section):
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


class Sources(_Section):
    """The feed of a table where it is not the instrument's own."""

    trades: FeedName | None = None
    quotes: FeedName | None = None
    book: FeedName | None = None


class Instrument(_Section):
    """One symbol: the platform's unique name, the venue's wire name, and the market's rules for it."""

    symbol: str = Field(min_length=1, description="The platform's unique name.")
    venue_symbol: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_]+$", description="The name on the wire.")
    feed: FeedName = Field(description="Where its tables come from.")
    sources: Sources = Field(Sources(), description="Tables that come from another feed.")
    tape: Literal["trades", "aggTrades"] = Field("trades", description="Preferred tape; the other if it is absent.")
    tick_size: Positive = Field(description="Smallest price step, in quote currency.")
    lot_size: Positive = Field(description="Smallest quantity step, in base units.")
    calendar: str = Field(_ALWAYS_OPEN, description="24/7 (UTC days), or an exchange_calendars name such as XNYS.")
    sector: str = "other"
    default_bucket_size: Positive | None = Field(
        None, description="VPIN's bucket in base units, while no earlier session says how much trades."
    )

    @field_validator("symbol")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value == "all" or "," in value or value != value.strip():
            raise ValueError("'all' is reserved, a comma separates symbols, and spaces around a name are not seen")
        return value

    @field_validator("calendar")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value != _ALWAYS_OPEN:
            import exchange_calendars

            if value not in exchange_calendars.get_calendar_names():
                raise ValueError("must be 24/7 or a name of exchange_calendars, such as XNYS")
        return value

    @property
    def is_simulated(self) -> bool:
        """Whether no venue lists it: only `qp demo` and a replay know it."""
        return self.sector == "simulated"

    def named_feeds(self) -> list[tuple[tuple[str, ...], FeedName]]:
        """Return each feed that this row names, with the key under which it does."""
        own = ((("sources", table), feed) for table, feed in self.sources if feed)
        return [(("feed",), self.feed), *own]

    def source_of(self, table: str) -> FeedName:
        """Return the feed that fills a raw table, such as `market/book`."""
        own: FeedName | None = getattr(self.sources, table.removeprefix("market/"))
        return own or self.feed


class PriceStatistics(_Section):
    """Windows of statistics/price_statistics, in one-minute bars."""

    window_bars: int = Field(60, ge=5)
    bollinger_bars: int = Field(20, ge=2)
    bollinger_width: Positive = 2.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bollinger_bars > self.window_bars:
            raise ValueError(f"bollinger_bars {self.bollinger_bars} must not exceed window_bars {self.window_bars}")
        return self


class Vpin(_Section):
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


class StoreTtls(_Section):
    """Seconds that a live key outlives its last write."""

    market: int = Field(60, ge=1, description="Of market:*.")


class Analytics(_Section):
    """Parameters of calculators; those that are a calculator's own class are described there."""

    price_statistics: PriceStatistics = PriceStatistics()
    trade_sign: TradeSignParams = TradeSignParams()
    vpin: Vpin = Vpin()
    order_book: OrderBookParams = OrderBookParams()
    toxicity_heuristics: ToxicityParams = ToxicityParams()
    participant_flow: ParticipantParams = ParticipantParams()
    sweep_detection: SweepParams = SweepParams()
    hidden_orders: HiddenOrderParams = HiddenOrderParams()
    flow_clustering: FlowClustersParams = FlowClustersParams()
    closing_auction: ClosingAuctionParams = ClosingAuctionParams()
    store_ttls: StoreTtls = StoreTtls()


class Capture(_Section):
    """The collector: what it risks, when it closes a segment, when it gives a connection up."""

    flush_s: Positive = Field(0.25, description="What came in is on disk, fsynced, at least so often.")
    segment_s: Positive = Field(60.0, description="A segment is closed at this age.")
    segment_mb: Positive = Field(64.0, description="A segment is closed at this size.")
    silence_s: Positive = Field(30.0, description="A connection without data for so long is taken for dead.")
    renew_h: Positive = Field(23.5, description="A connection is replaced before the venue ends it at 24 hours.")
    depth_interval_ms: Literal[100, 250, 500, 1000] = Field(100, description="Of the depth stream.")


class Quality(_Section):
    """What turns a blocking check red."""

    max_quarantined_share: float = Field(
        0.01, ge=0, le=1, description="Of a symbol-day's rows; above it the contract check is red."
    )


class Pipeline(_Section):
    """The local pool."""

    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=0, description="Processes; 0 = in this one.")
    memory_budget_mb: Positive = Field(4096, description="Estimated memory of all units under way at once.")


class Ui(_Section):
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
        env_prefix=_PREFIX,
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

    def feed_of(self, instrument: Instrument) -> BinanceFeed | RecordedFeed:
        """Return the settings of the instrument's feed."""
        feed: BinanceFeed | RecordedFeed = getattr(self.feeds, instrument.feed)
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


def config_path() -> Path:
    """Return the configuration file's path: `QP_CONFIG`, else ./platform.yaml."""
    return Path(os.environ.get("QP_CONFIG") or "platform.yaml").expanduser()


def load_settings(path: Path | None = None) -> Settings:
    """Read platform.yaml and the environment.

    Raises:
        SettingsError: A file, line and key that does not fit, in whole sentences, one line each.
    """
    path = path or config_path()
    if not path.is_file():
        raise SettingsError(f"There is no configuration file {path}. Write one, or set QP_CONFIG to its path.")
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
        nodes = yaml.compose(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError(f"{path}, line {line}: this is not YAML: {error.problem}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} is not YAML in UTF-8: {error}.") from None
    if not isinstance(tree, dict | None) or not all(isinstance(key, str) for key in tree or ()):
        raise SettingsError(f"{path}, line 1: the file must hold names and values, not a {type(tree).__name__}.")
    try:
        return Settings(**(tree or {}))
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(path, nodes, problem) for problem in error.errors())) from None
    except SourceError as error:
        named = [f"{_PREFIX}{name}".upper() for name in Settings.model_fields if f'"{name}"' in str(error)]
        variables = ", ".join(sorted(v for v in os.environ if v.upper().startswith(tuple(named))))
        raise SettingsError(
            f"environment variable {variables}: a whole section must be JSON ({error.__cause__}). "
            "Set its parts one by one instead, as QP_SECTION__KEY."
        ) from None


def masked(text: str) -> str:
    """Return the text with user and password in URLs replaced."""
    return _USERINFO.sub("://***@", text)


def _sentence(path: Path, nodes: yaml.Node | None, problem: Any) -> str:
    location = [str(part) if not isinstance(part, int) else part for part in problem["loc"]]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "there is no such setting; look at its spelling"
    is_shown = problem["type"] != "extra_forbidden" and isinstance(problem["input"], str | int | float)
    given = f" (it is {masked(repr(problem['input']))})" if is_shown else ""
    where = f"{path}, line {_line(nodes, location)}"
    # A part, or the section that holds it, may come from the environment, which wins.
    names = {
        _PREFIX + "__".join(str(part) for part in location[:depth]).upper() for depth in range(1, len(location) + 1)
    }
    if variables := sorted(v for v in os.environ if v.upper() in names):
        where = f"environment variable {', '.join(variables)}"
    return f"{where}: {key or 'the file'}: {message}{given}."


def _line(node: yaml.Node | None, location: list[str | int]) -> int:
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
