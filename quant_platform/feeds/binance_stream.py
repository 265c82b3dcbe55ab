"""Binance's streams kept coming: connections opened, watched, renewed before the venue ends them, and opened again.

The streams are named in the address, so nothing is ever sent but the pongs of `websockets`. What a message holds is
the receiver's business; of one that two connections bring, it keeps the first.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog
import tenacity
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.uri import parse_uri

from quant_platform.feeds.binance import entrance, stream_url
from quant_platform.feeds.retry_after import retry_after_s
from quant_platform.settings import BinanceFeed

_OVERLAP_S = 5.0
_EARLY_S = 10.0
_LONGEST_WAIT_S = 30.0
_LARGEST_MESSAGE_BYTES = 64 << 20
_OPEN_S, _CLOSE_S = 10.0, 1.0
_LOG = structlog.get_logger()


class Receiver(Protocol):
    """What the messages are for."""

    def receive(self, payload: bytes, names: Sequence[str]) -> str | None:
        """Take a message over; return the stream that it names. `names` are those of its connection."""

    def reconnected(self, names: Sequence[str]) -> None:
        """Hear that these streams, whose connection had ended, come again over another one."""


class _EndedEarlyError(Exception):
    pass


class Streams:
    """One venue's streams, while `run` runs.

    Args:
        settings: The venue's settings.
        silence_s: A connection that brings no data for so long is taken for dead; pings are no data.
        renew_s: At this age a connection is replaced by one that is opened before it is closed.
        receiver: Whom the messages are given to, in their order.
        has_room: Nothing is read while it is not set.

    Raises:
        InvalidURI: `ws_url` is no address.
    """

    def __init__(
        self, settings: BinanceFeed, *, silence_s: float, renew_s: float, receiver: Receiver, has_room: asyncio.Event
    ) -> None:
        parse_uri(settings.ws_url)
        self._settings = settings
        self._silence_s, self._renew_s = silence_s, renew_s
        self._receiver, self._has_room = receiver, has_room
        self._begun: set[str] = set()

    async def run(self, names: Sequence[str]) -> None:
        """Bring these streams over as many connections as they need, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for base in sorted({entrance(self._settings.ws_url, name) for name in names}):
                own = [name for name in names if entrance(self._settings.ws_url, name) == base]
                size = self._settings.streams_per_connection
                for first in range(0, len(own), size):
                    group.create_task(self._keep(base, own[first : first + size]))

    async def _keep(self, base: str, names: Sequence[str]) -> None:
        while True:
            async for attempt in _patience():
                with attempt:
                    await self._brought(base, names)

    async def _brought(self, base: str, names: Sequence[str]) -> None:
        """Bring the streams until their connection ends; raise where it could not be opened, or ended at once."""
        link = await self._opened(base, names)
        if names[0] in self._begun:
            self._receiver.reconnected(names)
        self._begun.add(names[0])
        try:
            while not await link.is_over(self._renew_s):
                link = await self._renewed(link, base, names)
        finally:
            await link.close()
        _LOG.warning("connection_ended", streams=len(names), first=names[0], age_s=link.age_s(), reason=link.reason)
        if link.age_s() < _EARLY_S:
            raise _EndedEarlyError(link.reason)

    async def _opened(self, base: str, names: Sequence[str]) -> "_Link":
        connection = await connect(
            stream_url(base, names),
            compression=None,
            max_size=_LARGEST_MESSAGE_BYTES,
            ping_interval=None,
            open_timeout=_OPEN_S,
            close_timeout=_CLOSE_S,
        )
        _LOG.info("connection_opened", streams=len(names), first=names[0], address=base)
        return _Link(connection, names, self._receiver, self._has_room, self._silence_s)

    async def _renewed(self, link: "_Link", base: str, names: Sequence[str]) -> "_Link":
        """Return the connection that replaces one which has come of age; the same one where it ended meanwhile."""
        async for attempt in _patience(unless=link):
            with attempt:
                successor = await self._opened(base, names)
                try:
                    await successor.has_delivered(_OVERLAP_S)
                except BaseException:
                    await successor.close()
                    raise
                await link.close()
                _LOG.info("connection_renewed", streams=len(names), first=names[0], age_s=link.age_s())
                return successor
        return link


class _Link:
    """One connection, read from by a task of its own."""

    def __init__(
        self,
        connection: ClientConnection,
        names: Sequence[str],
        receiver: Receiver,
        has_room: asyncio.Event,
        silence_s: float,
    ) -> None:
        self._connection, self._names, self._receiver = connection, names, receiver
        self._has_room, self._silence_s = has_room, silence_s
        self._loop = asyncio.get_running_loop()
        self._opened_s = self._loop.time()
        self._messages = 0
        self._undelivered = set(names)
        self.reason = ""
        self.pump = asyncio.create_task(self._pumped())

    def age_s(self) -> float:
        return round(self._loop.time() - self._opened_s, 3)

    async def _pumped(self) -> None:
        recv, receive, names = self._connection.recv, self._receiver.receive, self._names
        has_room, undelivered = self._has_room, self._undelivered
        try:
            while True:
                payload = await recv(decode=False)
                self._messages += 1
                stream = receive(payload, names)
                if undelivered:
                    undelivered.discard(stream or "")
                if not has_room.is_set():
                    await has_room.wait()
        except ConnectionClosed as closed:
            self.reason = str(closed)

    async def is_over(self, within_s: float) -> bool:
        """Wait until the connection has ended or fallen silent: then True; False when it has reached an age."""
        due, step_s = self._opened_s + within_s, min(self._silence_s / 10, 1.0)
        seen, since = self._messages, self._loop.time()
        while not self.pump.done():
            now = self._loop.time()
            if self._messages != seen or not self._has_room.is_set():
                seen, since = self._messages, now
            if now - since >= self._silence_s:
                self.reason = f"it brought no data for {self._silence_s:g} s"
                return True
            if now >= due:
                return False
            await asyncio.wait([self.pump], timeout=min(step_s, due - now))
        self.pump.result()
        return True

    async def has_delivered(self, within_s: float) -> None:
        """Wait until each stream has brought something, but no longer than so long; raise where the connection ends."""
        due = self._loop.time() + within_s
        while self._undelivered and (left_s := due - self._loop.time()) > 0:
            await asyncio.wait([self.pump], timeout=min(left_s, 0.05))
            if self.pump.done():
                self.pump.result()
                raise _EndedEarlyError(self.reason)

    async def close(self) -> None:
        """Close it properly where the venue still answers; what it had brought by then was received."""
        await self._connection.close()
        await asyncio.wait([self.pump], timeout=_CLOSE_S)
        self.pump.cancel()


_backoff = tenacity.wait_exponential_jitter(multiplier=0.1, max=_LONGEST_WAIT_S, jitter=0.1)


def _patience(unless: _Link | None = None) -> tenacity.AsyncRetrying:
    """Try again for ever, at growing intervals; or until a connection has ended."""

    def wait_s(state: tenacity.RetryCallState) -> float:
        return max(_backoff(state), _asked_s(state))

    def is_enough(_: tenacity.RetryCallState) -> bool:
        return unless is not None and unless.pump.done()

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(_is_passing),
        wait=wait_s,
        stop=is_enough,
        before_sleep=_log,
        retry_error_callback=lambda _: None,
    )


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, (OSError, WebSocketException, _EndedEarlyError))


def _asked_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return (retry_after_s(error.response.headers) if isinstance(error, InvalidStatus) else None) or 0.0


def _log(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _LOG.warning(
        "connection_retried",
        attempt=state.attempt_number,
        wait_s=round(state.upcoming_sleep, 3),
        reason=str(error) or type(error).__name__,
    )
