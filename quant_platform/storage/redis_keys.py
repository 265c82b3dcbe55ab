"""Every key in Redis: its name, type, time to live and the fields of its payload. No other file spells a key.

A payload is one JSON object. `ts` is the market's time of what it says, integer UTC ns, by which readers judge its age;
`ts_written` our wall clock at writing, ns; `seq` counts the payloads of one key from the writer's start, and begins at
1 again where the symbol starts anew; where trades feed it, `last_trade_id` is the greatest trade id it includes. Other
fields are columns of the named contract, times as integer UTC ns. In a Stream the object stands under the field `data`;
after an error of the connection an entry may come twice, with the same `seq`.
"""

from dataclasses import dataclass
from enum import StrEnum

from quant_platform.contracts._schema import Contract, polars_schema
from quant_platform.contracts.market import Bar1m, Book, Quote, Trade

STREAM_FIELD = "data"
STREAM_LENGTH = 10_000
MARKET_TTL_S = 60
_SYMBOL = "symbol"
_WRITTEN = ("ts_written", "ts", "seq", _SYMBOL)
_LAST_TRADE = "last_trade_id"


class KeyType(StrEnum):
    """What Redis holds under a key, as its TYPE command answers."""

    STREAM = "stream"
    STRING = "string"
    LIST = "list"


@dataclass(frozen=True, kw_only=True)
class Key:
    """One family of keys.

    Attributes:
        pattern: The name, with `{symbol}` in the symbol's place.
        type: What Redis holds under it.
        fields: Of the payload, or of each entry.
        ttl_s: Default time to live after the last write.
        max_entries: Of a Stream (trimmed about there) or a list (exactly), the newest ones stay.
    """

    pattern: str
    type: KeyType
    fields: tuple[str, ...]
    ttl_s: int = MARKET_TTL_S
    max_entries: int | None = None

    def name(self, symbol: str) -> str:
        """Return the key of one symbol."""
        return self.pattern.replace("{symbol}", symbol)


def _rows(name: str, contract: type[Contract]) -> Key:
    return Key(
        pattern=f"market:{{symbol}}:{name}", type=KeyType.STREAM, fields=_columns(contract), max_entries=STREAM_LENGTH
    )


def _columns(contract: type[Contract], *more: str) -> tuple[str, ...]:
    return (*_WRITTEN, *more, *(name for name in polars_schema(contract) if name != _SYMBOL))


TRADES = _rows("trades", Trade)
QUOTES = _rows("quotes", Quote)
DEPTH = _rows("depth", Book)
TICKER = Key(
    pattern="market:{symbol}:ticker",
    type=KeyType.STRING,
    fields=(*_WRITTEN, _LAST_TRADE, "last", "bid", "ask", "volume", "volume_since"),
)
"""`volume` in base units of the trades of the newest UTC date, from venue time `volume_since` (ns) on: midnight, or the
first trade where the writer began within the date. What is not known yet is null."""
BOOK = Key(pattern="market:{symbol}:book", type=KeyType.STRING, fields=(*_WRITTEN, "bids", "asks", "sequence"))
"""Up to five `[price, size]` a side, best first; none at all where the sequence broke, until the next snapshot."""
BARS_1MIN = Key(
    pattern="market:{symbol}:bars:1min", type=KeyType.LIST, fields=_columns(Bar1m, _LAST_TRADE), max_entries=390
)
"""Closed bars of which the whole tape was seen, newest first; `ts` is the bar's end. Late trades revise a bar."""

KEYS = (TRADES, QUOTES, DEPTH, TICKER, BOOK, BARS_1MIN)
