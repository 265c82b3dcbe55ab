"""Binance's live messages, USD-M and spot: names of streams, and the ids and times that a message says of itself.

Nothing is parsed into rows here (`frames`), no connection is opened (`binance_stream`) and nothing is asked for
(`binance_rest`).
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec

from quant_platform.settings import Instrument, SettingsError
from quant_platform.storage.landing import Entry

VENUES = ("binance_usdm", "binance_spot")
TRADE, AGG_TRADE, BOOK_TICKER, DEPTH, GAP = "trade", "aggTrade", "bookTicker", "depth", "gap"
NOTHING = Entry(None, None, None)

_TABLES = {TRADE: "market/trades", AGG_TRADE: "market/trades", BOOK_TICKER: "market/quotes", DEPTH: "market/book"}
_DEPTH_SUFFIX = {"binance_usdm": {100: "@100ms", 250: "", 500: "@500ms"}, "binance_spot": {100: "@100ms", 1000: ""}}
_MICROSECONDS_FROM = 10**14  # as ms this is the year 5138, as us it is 1973
_LARGEST = 2**63 - 1

Count = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]


class Fields(msgspec.Struct, gc=False):
    """What is read of a message's data, whatever its kind. Times are the venue's, in ms or us; of a gap line in ns."""

    event_time: Count | None = msgspec.field(name="E", default=None)
    transaction_time: Count | None = msgspec.field(name="T", default=None)
    trade_id: Count | None = msgspec.field(name="t", default=None)
    first_trade_id: Count | None = msgspec.field(name="f", default=None)
    last_trade_id: Count | None = msgspec.field(name="l", default=None)
    first_update_id: Count | None = msgspec.field(name="U", default=None)
    final_update_id: Count | None = msgspec.field(name="u", default=None)
    previous_update_id: Count | None = msgspec.field(name="pu", default=None)
    first_id: Count | None = None
    last_id: Count | None = None
    ts_end: Count | None = None
    filled_by: str | None = None


class Message(msgspec.Struct, gc=False):
    """A line's JSON: the combined stream's envelope, or the answer to a depth snapshot."""

    stream: str | None = None
    data: Fields | None = None
    refill: bool = False
    last_update_id: Count | None = msgspec.field(name="lastUpdateId", default=None)
    event_time: Count | None = msgspec.field(name="E", default=None)
    transaction_time: Count | None = msgspec.field(name="T", default=None)


_NEEDED: dict[str | None, tuple[str, ...]] = {
    TRADE: ("t", "T"),
    AGG_TRADE: ("f", "l", "T"),
    BOOK_TICKER: ("u",),
    DEPTH: ("U", "u"),
}


class _Named(msgspec.Struct):
    stream: str
    data: dict[str, msgspec.Raw]


decode: Callable[[bytes], Message] = msgspec.json.Decoder(Message).decode
"""A line's JSON as a message; fields that it lacks are None. It raises one of `UNDECODABLE`."""
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def describe(payload: bytes) -> Entry:
    """Return what a line says of itself: the venue's time in ns, and trade ids.

    Those of a gap line are the hole's. Of a refilled aggregate it is the first alone: it may reach past what the
    stream has brought so far, and what is landed of those ids must not seem to be.
    """
    try:
        message = decode(payload)
    except UNDECODABLE:
        return NOTHING
    data = message.data
    if data is None:
        return Entry(ns(message.transaction_time or message.event_time), None, None)
    ts_event = ns(data.transaction_time or data.event_time)
    match kind_of(message.stream):
        case "trade":
            return Entry(ts_event, data.trade_id, data.trade_id)
        case "aggTrade":
            return Entry(ts_event, data.first_trade_id, data.first_trade_id if message.refill else data.last_trade_id)
        case "gap":
            return Entry(data.ts_end, data.first_id, data.last_id)
        case _:
            return Entry(ts_event, None, None)


def oddity(payload: bytes) -> str:
    """Return why a message cannot be placed: the field that has another type, or those that are not there."""
    try:
        decode(payload)
        message = msgspec.json.decode(payload, type=_Named)
    except UNDECODABLE as error:
        return str(error)
    missing = [name for name in _NEEDED.get(kind_of(message.stream), ()) if name not in message.data]
    return (
        f"Object missing `{'`, `'.join(missing)}` - at `$.data`" if missing else "Its ids or its time are not credible"
    )


def kind_of(stream: str | None) -> str | None:
    """Return a stream's kind, such as `depth` of `btcusdt@depth@100ms`."""
    parts = (stream or "").split("@")
    return parts[1] if len(parts) > 1 else None


def ns(time: int | None) -> int | None:
    """Return a venue's time in ns, from ms or us; None where there is none, or no such year."""
    if time is None:
        return None
    value = time * 1_000_000 if time < _MICROSECONDS_FROM else time * 1_000
    return value if value <= _LARGEST else None


def streams(instrument: Instrument, *, depth_interval_ms: int) -> list[str]:
    """Return the streams of an instrument's own feed: its tape, the best quotes and the depth.

    A table that another live feed fills is left out. Recordings fill dates that are over: they take nothing from now.

    Raises:
        SettingsError: The feed is none of Binance's live ones, or has no such interval.
    """
    feed, name = instrument.feed, instrument.venue_symbol.lower()
    if feed not in VENUES:
        raise SettingsError(
            f"{instrument.symbol} comes from {feed}, which cannot be captured. "
            f"Live feeds are {' and '.join(VENUES)}: change its 'feed:' under 'instruments:', or leave it out."
        )
    suffixes = _DEPTH_SUFFIX[feed]
    if depth_interval_ms not in suffixes:
        known = ", ".join(map(str, suffixes))
        raise SettingsError(f"capture.depth_interval_ms: {feed} has {known}, not {depth_interval_ms}.")
    tape = AGG_TRADE if instrument.tape == "aggTrades" else TRADE
    names = {tape: tape, BOOK_TICKER: BOOK_TICKER, DEPTH: f"{DEPTH}{suffixes[depth_interval_ms]}"}
    elsewhere = set(VENUES) - {feed}
    return [f"{name}@{names[kind]}" for kind in names if instrument.source_of(_TABLES[kind]) not in elsewhere]


def stream_url(ws_url: str, names: Sequence[str]) -> str:
    """Return the address of a combined stream."""
    return f"{ws_url.rstrip('/')}/stream?streams={'/'.join(names)}"


def entrance(ws_url: str, stream: str) -> str:
    """Return the base address at which a stream is had: USD-M has `/market` beside `/public` for aggregate trades."""
    base = ws_url.rstrip("/")
    is_elsewhere = base.endswith("/public") and kind_of(stream) == AGG_TRADE
    return f"{base.removesuffix('/public')}/market" if is_elsewhere else base


def gap_line(venue_symbol: str, ids: tuple[int, int], *, ts_start: int, ts_end: int, filled_by: str | None) -> bytes:
    """Return the line that tells the fate of ids that the stream did not bring; null: the venue could not give them.

    Args:
        venue_symbol: The name on the wire.
        ids: The first and the last of them.
        ts_start: The venue's time of the trade before the hole, ns.
        ts_end: That of the trade after it.
        filled_by: `aggTrades`, `historicalTrades`, or None.
    """
    data = {
        "first_id": ids[0],
        "last_id": ids[1],
        "ts_start": ts_start,
        "ts_end": ts_end,
        "filled_by": filled_by,
    }
    return msgspec.json.encode({"stream": f"{venue_symbol.lower()}@{GAP}", "data": data})
