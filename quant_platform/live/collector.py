"""`qp collect`: the streams of many symbols into landing, each trade once, and what did not come on record.

One task reads each connection and gives every message to its symbol's channel, which keeps the order and drops what it
has. Every `capture.flush_s` a thread makes the new lines of each symbol durable. Requests over REST run beside that.
Nothing is ever waited for but the disk, and for that only when too much is waiting for it. Option chains are polled by
`chains`.
"""

import asyncio
import contextlib
import gc
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from websockets.exceptions import InvalidURI

from quant_platform.feeds import binance
from quant_platform.feeds.binance_rest import Rest
from quant_platform.feeds.binance_stream import Streams
from quant_platform.live import _log, _status, vix1d
from quant_platform.live._channel import Channel
from quant_platform.live._refill import fill_holes, keep_snapshots
from quant_platform.live._sink import Sink
from quant_platform.live.chains import Poller
from quant_platform.settings import POLLED_FEEDS, Instrument, Settings, SettingsError
from quant_platform.storage.landing import LeaseHeldError

_MOST_BYTES_WAITING = 64 << 20
_LEASE_AGAIN_S = 1.0
_DISK_AGAIN_S = 1.0
_STATUS_S = 1.0
_NAMED = re.compile(rb'"stream"\s*:\s*"([^"@]{1,40})@')
_NOT_OURS = (*binance.UNDECODABLE, KeyError)
_LOG = structlog.get_logger()


class Publisher(Protocol):
    """Whoever shows the market to others, such as the Redis keys."""

    def put(self, symbol: str, lines: list[bytes]) -> None:
        """Take over lines of a symbol that were just landed, `<ts_recv> <JSON>` each. Never blocks, never raises."""


async def collect(
    settings: Settings, symbols: Sequence[str], *, say: Callable[[str], object], publisher: Publisher | None = None
) -> None:
    """Capture symbols until cancelled; then land what has come, close the segments and give the leases back.

    Args:
        settings: The configuration.
        symbols: The platform's names.
        say: Told what a person at the terminal should know, in sentences.
        publisher: Given what was landed.

    Raises:
        SettingsError: A symbol is not configured, or cannot be captured.
    """
    await _Collector(settings, symbols, say, publisher).run()


def run(settings: Settings, symbols: Sequence[str], *, publisher: Publisher | None = None) -> int:
    """Capture symbols until SIGINT or SIGTERM; return the exit code, 0.

    Raises:
        SettingsError: A symbol is not configured, or cannot be captured.
    """
    _log.configure()
    is_terminal = sys.stderr.isatty()

    def say(text: str) -> None:
        if is_terminal:
            sys.stderr.write(f"{text}\n")
        else:
            _LOG.info("said", text=text)

    async def until_signal() -> None:
        task = asyncio.create_task(collect(settings, symbols, say=say, publisher=publisher))

        def stop() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, lambda: None)  # it is stopping already
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    gc.freeze()  # what is loaded stays: looking through it again and again would take half of the time
    asyncio.run(until_signal())
    return 0


def status(settings: Settings) -> list[dict[str, Any]]:
    """Return what the collectors that run now tell of themselves, one row a process.

    Each has `pid`, `ts_started` (ns), `waiting` (symbols that another process holds) and `symbols`: by name `feed`,
    `ts_event` and `ts_recv` of the last message (ns), `lag_ms` between them (negative where our clock is behind the
    venue's: `is_clock_behind`), `messages`, `messages_per_s`, `last_trade_id`, `open_gaps` (ranges of trade ids),
    `duplicates`, `undecodable`, `reconnects`, `bytes_buffered` and `disk_error`; null where there is none yet. And
    `chains`: by name, what `chains.Poller.state` tells.
    """
    return _status.read(settings.landing)


class _Venue:
    """One venue's streams and requests, and where its messages go."""

    def __init__(self, feed: str, settings: Settings, rest: Rest, has_room: asyncio.Event) -> None:
        own, capture = getattr(settings.feeds, feed), settings.capture
        self.rest = rest
        self._handlers: dict[str | None, Callable[..., None]] = {}
        self._channels: dict[str, Channel] = {}
        try:
            self.streams = Streams(
                own,
                silence_s=capture.silence_s,
                renew_s=capture.renew_h * 3600,
                receiver=self,
                has_room=has_room,
            )
        except InvalidURI as error:
            raise SettingsError(f"feeds.{feed}.ws_url is not a WebSocket address: {error}.") from None

    def add(self, channel: Channel) -> None:
        """Let a channel have its messages."""
        self._handlers.update(channel.handlers)
        self._channels.update(dict.fromkeys(channel.handlers, channel))

    def receive(self, payload: bytes, names: Sequence[str]) -> str | None:
        """Give a message to the channel of its stream; what names none goes to the connection's first."""
        ts_recv = time.time_ns()
        try:
            message = binance.decode(payload)
            handler = self._handlers[message.stream]
        except _NOT_OURS:
            self._channel_named(payload, names).odd(ts_recv, payload)
            return None
        if message.data is None:
            self._channel_named(payload, names).odd(ts_recv, payload)
        else:
            handler(ts_recv, payload, message.data)
        return message.stream

    def reconnected(self, names: Sequence[str]) -> None:
        """Count it for each symbol that it concerns."""
        for channel in {id(self._channels[name]): self._channels[name] for name in names}.values():
            channel.reconnects += 1

    def _channel_named(self, payload: bytes, names: Sequence[str]) -> Channel:
        if match := _NAMED.search(payload[:200]):
            start = f"{match[1].decode(errors='replace')}@"
            for name, channel in self._channels.items():
                if name.startswith(start):
                    return channel
        return self._channels[names[0]]


class _Collector:
    def __init__(
        self,
        settings: Settings,
        symbols: Sequence[str],
        say: Callable[[str], object],
        publisher: Publisher | None,
    ) -> None:
        self._settings, self._say, self._publisher = settings, say, publisher
        instruments = [settings.instrument(symbol) for symbol in dict.fromkeys(symbols)]
        if not instruments:
            raise SettingsError(
                f"There is nothing to capture: no instrument's 'feed:' is {' or '.join(binance.VENUES)} or its "
                f"'chain: {{feed: …}}' {' or '.join(POLLED_FEEDS)}, or none was named."
            )
        self._chains = Poller(settings, [i for i in instruments if i.polled_chain])
        instruments = [i for i in instruments if i.feed in binance.VENUES or not i.polled_chain]
        interval_ms = settings.capture.depth_interval_ms
        self._streams = {i.symbol: binance.streams(i, depth_interval_ms=interval_ms) for i in instruments}
        wire_names = [(i.feed, i.venue_symbol) for i in instruments]
        if twice := [i.symbol for i in instruments if wire_names.count((i.feed, i.venue_symbol)) > 1]:
            raise SettingsError(f"{' and '.join(twice)} are the same market: capture one of them.")
        self._instruments = instruments
        self._sinks: dict[str, tuple[Channel, Sink]] = {}
        self._waiting: list[str] = []
        self._errors: dict[str, str] = {}
        self._disk_again_s: dict[str, float] = {}
        self._has_room, self._is_stopping = asyncio.Event(), asyncio.Event()
        self._has_room.set()
        self._status = _status.StatusFile(settings.landing, time.time_ns())

    async def run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            self._venues: dict[str, _Venue] = {}
            for feed in sorted({instrument.feed for instrument in self._instruments}):
                rest = await stack.enter_async_context(Rest(feed, getattr(self._settings.feeds, feed)))
                self._venues[feed] = _Venue(feed, self._settings, rest, self._has_room)
            landing = asyncio.create_task(self._land_again_and_again())
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_outlived_by(landing))
                    group.create_task(self._report())
                    group.create_task(self._chains.run())
                    group.create_task(vix1d.keep(self._settings))
                    group.create_task(self._begin(group))
            finally:
                self._is_stopping.set()
                await landing
                await asyncio.gather(*(self._close(channel, sink) for channel, sink in self._sinks.values()))
                self._status.remove()

    async def _begin(self, group: asyncio.TaskGroup) -> None:
        """Start what can be started together; the rest follows when its lease is free."""
        if polled := self._chains.state():
            self._say(f"Polling the option chains of {', '.join(polled)}.")
        opened = await asyncio.gather(*(self._opened(instrument) for instrument in self._instruments))
        self._start(group, [channel for channel in opened if channel])
        for instrument, channel in zip(self._instruments, opened, strict=True):
            if channel is None:
                group.create_task(self._begin_later(group, instrument))

    async def _begin_later(self, group: asyncio.TaskGroup, instrument: Instrument) -> None:
        while True:
            await asyncio.sleep(_LEASE_AGAIN_S)
            if channel := await self._opened(instrument):
                self._start(group, [channel])
                return

    async def _opened(self, instrument: Instrument) -> Channel | None:
        symbol = instrument.symbol
        try:
            wants_lines = self._publisher is not None
            sink = await asyncio.to_thread(Sink, self._settings, instrument, wants_lines=wants_lines)
        except (LeaseHeldError, OSError) as error:
            if symbol not in self._waiting:
                self._waiting.append(symbol)
                self._say(f"{error} {symbol} waits until then; the other symbols go on.")
            return None
        if symbol in self._waiting:
            self._waiting.remove(symbol)
        channel = Channel(
            instrument,
            self._streams[symbol],
            last_trade=sink.last_trade,
            holes=sink.holes,
            most_bytes=_MOST_BYTES_WAITING,
            on_full=self._has_room.clear,
        )
        self._sinks[symbol] = channel, sink
        return channel

    def _start(self, group: asyncio.TaskGroup, channels: Sequence[Channel]) -> None:
        for feed, venue in self._venues.items():
            own = [channel for channel in channels if channel.instrument.feed == feed]
            for channel in own:
                venue.add(channel)
                group.create_task(fill_holes(channel, venue.rest))
                group.create_task(keep_snapshots(channel, venue.rest))
            if own:
                group.create_task(venue.streams.run([name for channel in own for name in channel.handlers]))
                self._say(f"Capturing {', '.join(c.instrument.symbol for c in own)} from {feed}.")

    async def _land_again_and_again(self) -> None:
        flush_s = self._settings.capture.flush_s
        while not self._is_stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), flush_s)
            await asyncio.gather(*(self._land(channel, sink) for channel, sink in list(self._sinks.values())))
            if all(channel.bytes_waiting < _MOST_BYTES_WAITING // 2 for channel, _ in self._sinks.values()):
                self._has_room.set()

    async def _land(self, channel: Channel, sink: Sink) -> None:
        symbol, now_s = channel.instrument.symbol, asyncio.get_running_loop().time()
        if now_s < self._disk_again_s.get(symbol, 0.0):
            return
        batch = channel.take()
        if not sink.has_work(batch):
            return
        if channel.bytes_waiting > _MOST_BYTES_WAITING:
            self._has_room.clear()
        try:
            landed = await asyncio.to_thread(sink.land, batch)
        except OSError as error:
            if symbol not in self._errors:
                _LOG.error("not_landed", symbol=symbol, reason=str(error), action="free disk space; it is tried again")
            self._errors[symbol] = str(error)
            self._disk_again_s[symbol] = now_s + _DISK_AGAIN_S
            return
        if self._errors.pop(symbol, None):
            _LOG.info("landed_again", symbol=symbol)
        channel.landed(landed.payload_bytes)
        if self._publisher and landed.lines:
            self._publisher.put(symbol, landed.lines)

    async def _close(self, channel: Channel, sink: Sink) -> None:
        try:
            await asyncio.to_thread(sink.close, channel.take())
        except OSError as error:
            _LOG.error("not_landed", symbol=channel.instrument.symbol, reason=str(error))

    async def _report(self) -> None:
        loop, is_written = asyncio.get_running_loop(), True
        while True:
            channels = [channel for channel, _ in self._sinks.values()]
            state = self._status.state(channels, self._waiting, self._errors, loop.time(), self._chains.state())
            try:
                await asyncio.to_thread(self._status.write, state)
                is_written = True
            except OSError as error:
                if is_written:
                    _LOG.error("status_not_written", reason=str(error))
                is_written = False
            await asyncio.sleep(_STATUS_S)


async def _outlived_by(task: "asyncio.Task[None]") -> None:
    await asyncio.shield(task)
