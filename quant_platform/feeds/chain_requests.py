"""What is asked of Cboe and Deribit over HTTP for a snapshot of a chain. What they answer is their modules' to read.

A request is tried again after a server error, a timeout and a short pause that the venue wants; everything else ends
the snapshot. No request goes to a venue before a pause that it asked for is over, whoever asks.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import msgspec
import tenacity

from quant_platform.feeds import cboe
from quant_platform.feeds.chain_snapshot import CHAIN, INSTRUMENTS, SUMMARIES, TICKER
from quant_platform.feeds.download import DownloadError, local_path
from quant_platform.feeds.option_chain import decoded
from quant_platform.feeds.retry_after import retry_after_s
from quant_platform.settings import CboeFeed, DeribitFeed, Feeds
from quant_platform.storage.chain_archive import Answer, Snapshot

_PAUSE_S = 5.0  # where a venue wants a pause and does not say how long; a longer one ends the snapshot
_TIMEOUTS = httpx.Timeout(30.0, connect=10.0)
_INSTRUMENTS_AGE_S = 3_600.0
_TICKERS_AT_ONCE = 4
_GONE = (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND)

Clock = Callable[[], int]
"""Tells the present, UTC ns."""


class RequestError(Exception):
    """A venue did not give what was asked; the message says what that was, why, and what to do.

    Attributes:
        status: What it answered; None where there was no answer.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class _TryAgainError(Exception):
    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class _Requests:
    """Requests to one venue, and how patient they are.

    Args:
        key: The setting that names the address.
        attempts: Requests in all before `RequestError`, the first included.
        first_wait_s: Wait after the first server error or timeout; it doubles from then on, with as much jitter.
    """

    def __init__(self, key: str, *, attempts: int, first_wait_s: float) -> None:
        self._key, self._attempts = key, attempts
        self._wait = tenacity.wait_exponential_jitter(multiplier=first_wait_s, max=_PAUSE_S, jitter=first_wait_s)
        self._pause_until = 0.0
        self._client = httpx.AsyncClient(timeout=_TIMEOUTS, follow_redirects=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, url: str, wanted: Mapping[str, str]) -> Answer:
        """Return the answer.

        Raises:
            RequestError: It could not be had.
        """
        address = httpx.URL(url, params=wanted) if wanted else httpx.URL(url)
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            wait=self._wait,
            stop=tenacity.stop_after_attempt(self._attempts),
            reraise=True,
        )
        try:
            return Answer(await retrying(self._once, address), str(address))
        except _TryAgainError as error:
            raise RequestError(
                f"{address} could not be had in {self._attempts} attempts: {error}. It is asked again later; check the "
                "network and the venue's status.",
                error.status,
            ) from error

    async def _once(self, address: httpx.URL) -> bytes:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._pause_until - loop.time())
        try:
            answer = await self._client.get(address)
        except httpx.TransportError as error:
            raise _TryAgainError(f"{type(error).__name__}: {error}") from error
        except httpx.HTTPError as error:
            raise RequestError(f"{address} could not be had: {error}. Check {self._key}.") from error
        status = answer.status_code
        if status == httpx.codes.OK:
            return answer.content
        reason = f"it answered {status} {answer.reason_phrase}"
        asked_s = retry_after_s(answer.headers)
        if status == httpx.codes.TOO_MANY_REQUESTS or asked_s is not None:
            pause_s = _PAUSE_S if asked_s is None else asked_s
            self._pause_until = max(self._pause_until, loop.time() + pause_s)
            reason += f" and wants a pause of {pause_s:g} s"
            if pause_s > _PAUSE_S:
                raise RequestError(f"{address} could not be had: {reason}. It is left alone until then.", status)
            raise _TryAgainError(reason, status)
        if answer.is_server_error:
            raise _TryAgainError(reason, status)
        raise RequestError(
            f"{address} could not be had: {reason}: '{answer.text[:200]}'. The venue refuses, or knows no such name: "
            f"check the instrument's chain.venue_symbol and {self._key} in platform.yaml.",
            status,
        )


class Cboe(_Requests):
    """Cboe's delayed quotes: one answer a chain; file:// addresses are read.

    Args:
        settings: Where they are.
        now_ns: Our clock.
        attempts: See `_Requests`.
        first_wait_s: See `_Requests`.
    """

    def __init__(self, settings: CboeFeed, *, now_ns: Clock, attempts: int = 3, first_wait_s: float = 0.5) -> None:
        super().__init__("feeds.cboe.chains_url", attempts=attempts, first_wait_s=first_wait_s)
        self._base, self._now_ns = settings.chains_url.rstrip("/"), now_ns

    async def snapshot(self, venue_symbol: str) -> Snapshot:
        """Return a chain as the venue answers now; `venue_symbol` is the underlying's name there.

        Raises:
            RequestError: It could not be had.
        """
        url = f"{self._base}/{venue_symbol}.json"
        is_file = url.startswith("file:")
        answer = Answer(await asyncio.to_thread(_read, url), url) if is_file else await self.get(url, {})
        return Snapshot({CHAIN: answer}, self._now_ns())


class Deribit(_Requests):
    """Deribit's options: what is listed, the quotes of all of it, and each contract's ticker where that is set.

    The list is asked for once an hour, and when something is quoted that it does not have.

    Args:
        settings: Where it is, and whether tickers are asked for.
        now_ns: Our clock.
        attempts: See `_Requests`.
        first_wait_s: See `_Requests`.
    """

    def __init__(self, settings: DeribitFeed, *, now_ns: Clock, attempts: int = 3, first_wait_s: float = 0.5) -> None:
        super().__init__("feeds.deribit.rest_url", attempts=attempts, first_wait_s=first_wait_s)
        self._base, self._now_ns = f"{settings.rest_url.rstrip('/')}/public", now_ns
        self._wants_tickers = settings.tickers
        self._listed: dict[str, _Listed] = {}

    async def snapshot(self, venue_symbol: str) -> Snapshot:
        """Return the chain of a currency as the venue answers now.

        A ticker whose contract is gone is left out; its summary stands.

        Raises:
            RequestError: It could not be had.
            ChainError: An answer is a web page, cut off or another JSON.
        """
        summaries = await self._ask("get_book_summary_by_currency", currency=venue_symbol, kind="option")
        quoted = await asyncio.to_thread(_names, summaries)
        answers = {INSTRUMENTS: await self._instruments(venue_symbol, quoted), SUMMARIES: summaries}
        if self._wants_tickers:
            answers |= await self._tickers(sorted(quoted))
        return Snapshot(answers, self._now_ns())

    async def _ask(self, method: str, **wanted: str) -> Answer:
        return await self.get(f"{self._base}/{method}", wanted)

    async def _instruments(self, currency: str, quoted: frozenset[str]) -> Answer:
        listed, now_s = self._listed.get(currency), asyncio.get_running_loop().time()
        if listed and now_s - listed.asked_s < _INSTRUMENTS_AGE_S and quoted <= listed.names:
            return listed.answer
        answer = await self._ask("get_instruments", currency=currency, kind="option", expired="false")
        # What is quoted and not listed even now is not asked for again with every snapshot.
        names = quoted | await asyncio.to_thread(_names, answer)
        self._listed[currency] = _Listed(answer, names, now_s)
        return answer

    async def _tickers(self, names: list[str]) -> dict[str, Answer]:
        found: dict[str, Answer] = {}

        async def ask(shared: Iterator[str]) -> None:
            for name in shared:
                try:
                    found[f"{TICKER}{name}"] = await self._ask("ticker", instrument_name=name)
                except RequestError as error:
                    if error.status not in _GONE:
                        raise

        shared = iter(names)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_TICKERS_AT_ONCE):
                    group.create_task(ask(shared))
        except* RequestError as errors:
            raise errors.exceptions[0] from None
        return found


Venue = Cboe | Deribit


def venue_of(feed: str, feeds: Feeds, *, now_ns: Clock) -> Venue:
    """Return the venue of a polled feed, `cboe` or `deribit`, to be asked within its `async with` block."""
    return Cboe(feeds.cboe, now_ns=now_ns) if feed == cboe.VENUE else Deribit(feeds.deribit, now_ns=now_ns)


class _Listed(NamedTuple):
    """What is listed of a currency, the names that need no new list, and when it was asked for."""

    answer: Answer
    names: frozenset[str]
    asked_s: float


class _Named(msgspec.Struct, gc=False):
    instrument_name: Any = None


class _Names(msgspec.Struct):
    result: list[_Named]


def _names(answer: Answer) -> frozenset[str]:
    """Return the contracts that a list of Deribit's names.

    Raises:
        ChainError: It cannot be read.
    """
    named = (each.instrument_name for each in decoded(answer.content, answer.source, _Names).result)
    return frozenset(name for name in named if isinstance(name, str))


def _read(url: str) -> bytes:
    try:
        return local_path(url).read_bytes()
    except (DownloadError, OSError) as error:
        raise RequestError(
            f"{url} could not be read: {error}. Check the instrument's chain.venue_symbol and feeds.cboe.chains_url in "
            "platform.yaml."
        ) from error
