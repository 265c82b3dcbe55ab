"""Which symbols there are, and the market's rules for them."""

from typing import Literal

from pydantic import Field, field_validator

from quant_platform.settings._shared import Positive, Section
from quant_platform.settings.feeds import POLLED_FEEDS, ChainFeed, FeedName

_ALWAYS_OPEN = "24/7"


class Sources(Section):
    """The feed of a table where it is not the instrument's own."""

    trades: FeedName | None = None
    quotes: FeedName | None = None
    book: FeedName | None = None


class ListedOptions(Section):
    """The options on a symbol: where their chain comes from, and what it costs to hold the underlying."""

    feed: ChainFeed = Field(description="Where the chain comes from.")
    venue_symbol: str = Field(
        pattern=r"^[A-Za-z0-9_^]+$", description="The underlying's name there, such as BTC or _SPX."
    )
    rate: float = Field(0.0, allow_inf_nan=False, description="Continuous, per year; 0.03 is 3 %.")
    dividend: float = Field(0.0, allow_inf_nan=False, description="Continuous yield of the underlying, per year.")


class Instrument(Section):
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

    chain: ListedOptions | None = Field(None, description="The options on it, where a feed has them.")

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

    @property
    def polled_chain(self) -> ListedOptions | None:
        """Its chain, where a venue is asked for snapshots of it."""
        return self.chain if self.chain and self.chain.feed in POLLED_FEEDS else None

    def named_feeds(self) -> list[tuple[tuple[str, ...], str]]:
        """Return each feed that this row names, with the key under which it does."""
        own = ((("sources", table), feed) for table, feed in self.sources if feed)
        chain = [(("chain", "feed"), self.chain.feed)] if self.chain else []
        return [(("feed",), self.feed), *own, *chain]

    def source_of(self, table: str) -> FeedName:
        """Return the feed that fills a raw table, such as `market/book`."""
        own: FeedName | None = getattr(self.sources, table.removeprefix("market/"))
        return own or self.feed
