"""Where data comes from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from quant_platform.contracts._schema import Contract
from quant_platform.contracts.events import TOLD_EVENTS
from quant_platform.contracts.execution import Decision, Fill, Order
from quant_platform.settings._shared import Positive, Section

FeedName = Literal[
    "binance_usdm", "binance_spot", "recorded_lobster", "recorded_lean", "recorded_frames", "cboe", "deribit"
]
ChainFeed = Literal["cboe", "deribit", "recorded_lean_options"]
CAPTURED_FEEDS = ("binance_usdm", "binance_spot")
POLLED_FEEDS = ("cboe", "deribit")
"""Feeds of option chains that are asked for a snapshot again and again; they have no tape."""

_LATENCY = Field(50.0, ge=0, allow_inf_nan=False, description="Added to ts_event where a row has no receive time.")
_POLL = Field(60.0, gt=0, allow_inf_nan=False, description="Seconds from one snapshot of a chain to the next.")


class BinanceFeed(Section):
    """One Binance market."""

    ws_url: str = Field(description="WebSocket base, for capture.")
    rest_url: str = Field(description="REST base, for refills and snapshots.")
    archive_url: str = Field(description="Root of the public archive; file:// works.")
    api_key: SecretStr | None = Field(
        None, description="For refills of single trades (historicalTrades); without one they are aggTrades."
    )
    streams_per_connection: int = Field(200, ge=1, description="The venue's limit of streams on one connection.")
    assumed_latency_ms: float = _LATENCY

    @field_validator("archive_url")
    @classmethod
    def _archive_scheme(cls, value: str) -> str:
        if not value.startswith(("https://", "http://", "file:///")):
            raise ValueError("must start with https://, http:// or file:///")
        return value.rstrip("/")


class RecordedFeed(Section):
    """A folder of recorded files, read where they lie."""

    path: Path | None = Field(None, description="The folder.")
    assumed_latency_ms: float = _LATENCY

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


class CboeFeed(Section):
    """Cboe's delayed quotes, and its volatility indices."""

    poll_s: float = _POLL
    chains_url: str = Field(
        "https://cdn.cboe.com/api/global/delayed_quotes/options", description="A chain is <chains_url>/<name>.json."
    )
    vix1d_url: str = Field(
        "https://cdn.cboe.com/api/global/us_indices/daily_prices/VIX1D_History.csv",
        description="The index's daily prices as CSV; file:// works.",
    )
    assumed_latency_ms: float = _LATENCY


class DeribitFeed(Section):
    """Deribit's options over REST."""

    poll_s: float = _POLL
    rest_url: str = Field("https://www.deribit.com/api/v2", description="REST base.")
    tickers: bool = Field(
        False, description="Ask for each contract's ticker too: the venue's greeks and sizes, one request a contract."
    )
    assumed_latency_ms: float = _LATENCY


class IbkrGateway(Section):
    """A running TWS or IB Gateway."""

    host: str = "127.0.0.1"
    port: int = Field(4001, gt=0, lt=65536)
    client_id: int = Field(17, ge=0)


class Vix1dFeed(Section):
    """Where VIX1D is read, in order of preference: Cboe, IBKR where there is a gateway, Yahoo."""

    min_refetch_s: Mapping[Literal["cboe", "ibkr", "yahoo"], Positive] = Field(
        {"cboe": 900.0, "ibkr": 15.0, "yahoo": 60.0}, description="A source is not asked again before so long."
    )
    yahoo_url: str = Field("https://query1.finance.yahoo.com/v8/finance/chart/%5EVIX1D", description="Of the chart.")
    ibkr: IbkrGateway | None = Field(None, description="The gateway; none: IBKR is not asked.")


DeskKind = Literal[
    "decisions",
    "orders",
    "fills",
    "trade_settled",
    "execution_quality",
    "risk_violation",
    "position_sized",
    "portfolio_performance",
    "rebalancing",
    "news_sentiment_analyzed",
    "market_impact_assessment",
    "technical_indicator_computed",
    "correlation_matrix_updated",
]
_CONTRACTS: tuple[type[Contract], ...] = (Decision, Order, Fill, *TOLD_EVENTS)
DESK_CONTRACTS: Mapping[DeskKind, type[Contract]] = dict(zip(get_args(DeskKind), _CONTRACTS, strict=True))
"""What the desk tells, by kind: the contract of its rows. A kind is the last part of its table's name."""

EVENT_ID = "event_id"
DESK_IDS: Mapping[DeskKind, str] = {
    **dict.fromkeys(DESK_CONTRACTS, EVENT_ID),
    "decisions": "decision_id",
    "orders": "order_id",
    "fills": "fill_id",
}
"""By kind: the column that names a row."""

EVENT_ALIASES: Mapping[str, DeskKind] = {"trade_executed": "fills", "trading_decision": "decisions"}
"""Events that are rows of another kind, each by its `event_id` where the file has no id of that kind."""

REFUSED_FOLDER = "refused"
_ASSUMED = {"schema_version", "revision", "ts_recv"}
_Text = Annotated[str, BeforeValidator(str)]  # YAML reads -1 as a number; files are text


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


class DeskMapping(Section):
    """How a broker's export is read as rows of a contract; columns of the file that this does not name are not."""

    kind: DeskKind = Field(description="What a row of the export is.")
    columns: Mapping[str, str] = Field(description="Our column: the file's.")
    filter: Mapping[str, Annotated[tuple[_Text, ...], BeforeValidator(_listed)]] = Field(
        {}, description="The file's column: the value, or values, of rows that are taken; others are left out."
    )
    side_from_sign: str | None = Field(
        None, description="The file's column whose sign is the side; quantities are then taken without theirs."
    )
    id_from: tuple[str, ...] = Field(
        (), description="The file's columns that together name a row, where no single one does."
    )
    constants: Mapping[str, _Text] = Field({}, description="Our column: what every row has there.")
    symbols: Mapping[_Text, str] = Field({}, description="The file's name of an instrument: the platform's.")
    time_zone: str | None = Field(None, description="Of times that do not tell theirs, such as Europe/London.")

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str | None) -> str | None:
        try:
            return value and ZoneInfo(value).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no time zone: write it as Europe/London") from None

    @model_validator(mode="after")
    def _fits_the_contract(self) -> Self:
        columns, own_id = DESK_CONTRACTS[self.kind].columns(), DESK_IDS[self.kind]
        by_other_means = [*(["side"] if self.side_from_sign else []), *([own_id] if self.id_from else [])]
        told = [*self.columns, *self.constants, *by_other_means]
        if unknown := sorted({name for name in told if name not in columns}):
            raise ValueError(f"{self.kind} have no {', '.join(unknown)}; their columns are {', '.join(columns)}")
        if twice := sorted({name for name in told if told.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is told in more than one way: leave one")
        if lacking := [name for name in required_columns(self.kind) if name not in told]:
            raise ValueError(f"nothing says where {', '.join(lacking)} comes from: add it to columns or constants")
        return self


def required_columns(kind: DeskKind) -> list[str]:
    """Return the columns that a file of a kind must have; the others are null, or have a value that is assumed."""
    columns = DESK_CONTRACTS[kind].columns()
    return [name for name, column in columns.items() if not column.nullable and name not in _ASSUMED]


def desk_kind(name: str) -> DeskKind | None:
    """Return the kind of that name, or of the event that is another name of it; None where there is none."""
    return EVENT_ALIASES.get(name) or next((kind for kind in DESK_CONTRACTS if kind == name), None)


class DeskFeed(Section):
    """The desk's own decisions, orders, fills and events, as CSV or Parquet files dropped into a folder.

    A file in a folder of the landing is read by the mapping, or taken for the kind, that the folder is named after.
    """

    landing: Path = Field(Path("landing/desk"), description="Where files are dropped; below QP_HOME unless absolute.")
    assumed_latency_ms: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Added to ts_event of a first revision that has no receive time."
    )
    settle_s: Positive = Field(2.0, description="A dropped file is looked at when it has not changed for so long.")
    venues: tuple[str, ...] = Field((), description="Names that a fill's venue may have; empty: any.")
    mappings: Mapping[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], DeskMapping] = Field(
        {}, description="How a broker's export is read, by a name of your own."
    )

    @field_validator("mappings")
    @classmethod
    def _not_reserved(cls, value: Mapping[str, DeskMapping]) -> Mapping[str, DeskMapping]:
        if reserved := sorted({REFUSED_FOLDER, *DESK_CONTRACTS, *EVENT_ALIASES}.intersection(value)):
            raise ValueError(f"{', '.join(reserved)} is a folder of its own: give the mapping another name")
        return value


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
    recorded_lean_options: RecordedFeed = RecordedFeed()
    cboe: CboeFeed = CboeFeed()
    deribit: DeribitFeed = DeribitFeed()
    vix1d: Vix1dFeed = Vix1dFeed()
    desk: DeskFeed = DeskFeed()
