"""Binance's REST, as capture needs it: depth snapshots, and trades that the stream did not bring.

One request at a time to a venue, and none before a pause that it asked for is over, whoever asks.
"""

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import httpx
import msgspec
import structlog
import tenacity

from quant_platform.feeds.binance import AGG_TRADE, TRADE, ns
from quant_platform.feeds.retry_after import retry_after_s
from quant_platform.settings import BinanceFeed

PAGE = 1_000
_HISTORICAL_PAGE = 500
_DEPTH_LEVELS = 1_000
WINDOW_MS = 3_600_000 - 1  # the venue answers for less than an hour at once
_PATHS = {"binance_usdm": "/fapi/v1", "binance_spot": "/api/v3"}
_PAUSE_S = 60.0  # where the venue wants a pause and does not say how long: its limits are by the minute
_TIMEOUTS = httpx.Timeout(15.0, connect=10.0)
_LOG = structlog.get_logger()
_T = TypeVar("_T")


class VenueError(Exception):
    """The venue does not answer as it should; the message says what was asked, and what to do."""


class Refill(NamedTuple):
    """A trade or an aggregate of trades that REST gave: its ids, its time (ns), and the line to be landed."""

    first_id: int
    last_id: int
    ts_event: int
    line: bytes
    aggregate_id: int | None = None


class _TryAgainError(Exception):
    pass


class _Aggregate(msgspec.Struct, gc=False):
    aggregate_id: int = msgspec.field(name="a")
    first_id: int = msgspec.field(name="f")
    last_id: int = msgspec.field(name="l")
    time: int = msgspec.field(name="T")


class _Single(msgspec.Struct, gc=False, rename="camel"):
    id: int
    price: str
    qty: str
    time: int
    is_buyer_maker: bool


_objects = msgspec.json.Decoder(list[msgspec.Raw]).decode
_aggregate = msgspec.json.Decoder(_Aggregate).decode
_singles = msgspec.json.Decoder(list[_Single]).decode


class Rest:
    """One venue's REST, for as long as the `async with` block lasts.

    Args:
        feed: `binance_usdm` or `binance_spot`.
        settings: The venue's settings.
        attempts: Requests in all before `VenueError`, the first included.
        first_wait_s: Wait after the first server error or timeout; it doubles from then on, with as much jitter.
    """

    def __init__(self, feed: str, settings: BinanceFeed, *, attempts: int = 6, first_wait_s: float = 0.5) -> None:
        self.feed = feed
        self._base = settings.rest_url.rstrip("/") + _PATHS[feed]
        self._key = settings.api_key
        self._turn = asyncio.Lock()
        self._pause_until = 0.0
        self._client = httpx.AsyncClient(timeout=_TIMEOUTS)
        self._attempts = attempts
        self._wait = tenacity.wait_exponential_jitter(multiplier=first_wait_s, max=30.0, jitter=first_wait_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    @property
    def has_key(self) -> bool:
        """Whether single trades can be had."""
        return self._key is not None

    async def depth(self, venue_symbol: str) -> bytes:
        """Return a snapshot of the book as it stands in the answer.

        Raises:
            VenueError: It could not be had.
        """
        return await self._get("/depth", {"symbol": venue_symbol, "limit": str(_DEPTH_LEVELS)})

    async def aggregates_since(self, venue_symbol: str, time_ms: int) -> list[Refill]:
        """Return the aggregate trades of the hour from a time on, at most `PAGE` of them, in order.

        Raises:
            VenueError: They could not be had.
        """
        return await self._aggregates(venue_symbol, {"startTime": str(time_ms), "endTime": str(time_ms + WINDOW_MS)})

    async def aggregates_from(self, venue_symbol: str, aggregate_id: int) -> list[Refill]:
        """Return the aggregate trades from one on, at most `PAGE` of them, in order.

        Raises:
            VenueError: They could not be had.
        """
        found = await self._aggregates(venue_symbol, {"fromId": str(aggregate_id)})
        return [trade for trade in found if (trade.aggregate_id or 0) >= aggregate_id]

    async def trades_from(self, venue_symbol: str, trade_id: int) -> list[Refill]:
        """Return single trades from one on, at most 500 of them, in order; this needs the API key.

        Raises:
            VenueError: They could not be had.
        """
        assert self._key is not None
        answer = await self._get(
            "/historicalTrades",
            {"symbol": venue_symbol, "fromId": str(trade_id), "limit": str(_HISTORICAL_PAGE)},
            {"X-MBX-APIKEY": self._key.get_secret_value()},
        )
        stream = f"{venue_symbol.lower()}@{TRADE}"
        return [
            Refill(
                trade.id,
                trade.id,
                _time(trade.time),
                msgspec.json.encode(
                    {
                        "stream": stream,
                        "data": {
                            "t": trade.id,
                            "p": trade.price,
                            "q": trade.qty,
                            "T": trade.time,
                            "m": trade.is_buyer_maker,
                        },
                        "refill": True,
                    }
                ),
            )
            for trade in _read(_singles, answer, "historicalTrades")
            if trade.id >= trade_id
        ]

    async def _aggregates(self, venue_symbol: str, wanted: Mapping[str, str]) -> list[Refill]:
        answer = await self._get("/aggTrades", {"symbol": venue_symbol, **wanted, "limit": str(PAGE)})
        head = f'{{"stream":"{venue_symbol.lower()}@{AGG_TRADE}","data":'.encode()
        found = []
        for raw in _read(_objects, answer, "aggTrades"):
            trade = _read(_aggregate, bytes(raw), "aggTrades")
            line = head + bytes(raw) + b',"refill":true}'
            found.append(Refill(trade.first_id, trade.last_id, _time(trade.time), line, trade.aggregate_id))
        return found

    async def _get(self, path: str, wanted: Mapping[str, str], headers: Mapping[str, str] | None = None) -> bytes:
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            wait=self._wait,
            stop=tenacity.stop_after_attempt(self._attempts),
            before_sleep=self._log,
            reraise=True,
        )
        try:
            return await retrying(self._once, path, wanted, headers or {})
        except _TryAgainError as error:
            raise VenueError(
                f"{self._base}{path} for {wanted['symbol']} could not be had in {self._attempts} attempts: {error}. "
                "It is asked again later; check the network and the venue's status."
            ) from error

    async def _once(self, path: str, wanted: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(self._pause_until - loop.time())
            try:
                answer = await self._client.get(f"{self._base}{path}", params=wanted, headers=headers)
            except httpx.TransportError as error:
                raise _TryAgainError(f"{type(error).__name__}: {error}") from error
            reason = f"it answered {answer.status_code} {answer.reason_phrase}"
            if answer.status_code in {418, 429}:
                asked_s = retry_after_s(answer.headers)
                pause_s = _PAUSE_S if asked_s is None else asked_s
                self._pause_until = loop.time() + pause_s
                _LOG.warning("venue_wants_pause", feed=self.feed, status=answer.status_code, pause_s=pause_s)
                raise _TryAgainError(reason)
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise _TryAgainError(reason)
        if answer.status_code != httpx.codes.OK:
            raise VenueError(
                f"{self._base}{path} for {wanted['symbol']} could not be had: {reason}: {answer.text[:200]}. "
                "Check venue_symbol, rest_url and api_key in platform.yaml."
            )
        return answer.content

    def _log(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        _LOG.warning(
            "request_retried",
            feed=self.feed,
            path=state.args[0],
            attempt=state.attempt_number,
            wait_s=round(state.upcoming_sleep, 3),
            reason=str(error),
        )


def _read(decode: Callable[[bytes], _T], answer: bytes, what: str) -> _T:
    try:
        return decode(answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise VenueError(f"The venue's answer to {what} is not understood: {error}: {answer[:200]!r}.") from error


def _time(time: int) -> int:
    value = ns(time)
    if value is None:
        raise VenueError(f"The venue named a time that does not exist: {time}.")
    return value
