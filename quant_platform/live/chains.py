"""Snapshots of option chains, asked for again and again: archived as they came, and shown as a key in Redis.

What venues are asked is `feeds.chain_requests`'. Reading, archiving and showing happen in one thread beside the loop,
in which the collector captures the market; whatever goes wrong with a chain is said once, and the next poll goes on.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import polars as pl
import redis
import structlog
from filelock import FileLock, Timeout

from quant_platform.feeds import chain_payload, chain_requests
from quant_platform.live.chain_intake import Read, archived, chain_of, read
from quant_platform.live.hours import is_quoted
from quant_platform.settings import ChainFeed, Instrument, ListedOptions, Settings, masked
from quant_platform.storage import live_store, redis_keys
from quant_platform.storage.chain_archive import Snapshot

_LEASE_AGAIN_S = 1.0
_LONGEST_WRITE_S = 60.0
_FIRST_APART_S = 1.0
_FIRST_AGAIN_S = 5.0
_LONGEST_BACKOFF_S = 300.0
_POLLS_OF_A_KEY = 3  # a key outlives so many polls that fail
_LOG = structlog.get_logger()


@dataclass
class _Polled:
    """One chain, and how it fares."""

    instrument: Instrument
    chain: ListedOptions
    ts_event: int | None = None
    ts_recv: int | None = None
    contracts: int | None = None
    quarantined: int | None = None
    failures: int = 0
    in_a_row: int = 0
    error: str | None = None

    def is_newest(self, found: Read) -> bool:
        """Return whether no later snapshot was read: a venue's cache may answer with an older one."""
        return self.ts_event is None or found.ts_event_ns >= self.ts_event


class Poller:
    """The chains of instruments, each polled by one process at a time.

    Args:
        settings: The configuration.
        instruments: Those with a `polled_chain`.
    """

    def __init__(self, settings: Settings, instruments: Sequence[Instrument]) -> None:
        self._settings = settings
        self._polled = [_Polled(instrument, chain_of(instrument)) for instrument in instruments]
        self._keys = _Keys(settings)

    async def run(self) -> None:
        """Poll in the hours of trade until cancelled; the polls of a venue are spread over its `poll_s`.

        The first ones are not: they come one after the other.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="chains")
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._keys.close)
            stack.callback(thread.shutdown, cancel_futures=True)
            venues: dict[ChainFeed, chain_requests.Venue] = {}
            for feed in sorted({polled.chain.feed for polled in self._polled}):
                venue = venues[feed] = chain_requests.venue_of(feed, self._settings.feeds, now_ns=time.time_ns)
                await stack.enter_async_context(venue)
            async with asyncio.TaskGroup() as group:
                for feed, venue in venues.items():
                    own = [polled for polled in self._polled if polled.chain.feed == feed]
                    for number, polled in enumerate(own):
                        later_s = self._poll_s(polled) * number / len(own)
                        first_s = min(later_s, number * _FIRST_APART_S)
                        group.create_task(self._poll(polled, venue, thread, later_s=later_s, first_s=first_s))

    def state(self) -> dict[str, dict[str, Any]]:
        """Return how each chain fares, by symbol.

        `feed`, `ts_event` and `ts_recv` of the last snapshot (ns), `age_s` (how long ago `ts_event` was), `contracts`
        and `quarantined` in it, `failures` since the start, and `error`: why the last poll gave none. Null where there
        is none yet.
        """
        now_ns = time.time_ns()
        return {
            polled.instrument.symbol: {
                "feed": polled.chain.feed,
                "ts_event": polled.ts_event,
                "ts_recv": polled.ts_recv,
                "age_s": None if polled.ts_event is None else round((now_ns - polled.ts_event) / 1e9, 1),
                "contracts": polled.contracts,
                "quarantined": polled.quarantined,
                "failures": polled.failures,
                "error": polled.error,
            }
            for polled in self._polled
        }

    async def _poll(
        self,
        polled: _Polled,
        venue: chain_requests.Venue,
        thread: ThreadPoolExecutor,
        *,
        later_s: float,
        first_s: float,
    ) -> None:
        """Poll a chain: after `first_s`, then on a beat that begins after `later_s`; less often while it fails."""
        loop, poll_s = asyncio.get_running_loop(), self._poll_s(polled)
        lease = await self._lease(polled)
        try:
            await asyncio.to_thread(self._sweep, polled)
            beat, wait_s = loop.time() + later_s, first_s
            while True:
                await asyncio.sleep(wait_s)
                if is_quoted(self._settings, polled.instrument, time.time_ns()):
                    await self._poll_once(polled, venue, thread)
                if polled.in_a_row:
                    # A venue may be starting beside us, as a replay does: while it has never answered, ask it sooner.
                    first_again_s = poll_s if polled.ts_event else min(poll_s, _FIRST_AGAIN_S)
                    wait_s = min(first_again_s * 2.0 ** min(polled.in_a_row - 1, 32), max(poll_s, _LONGEST_BACKOFF_S))
                else:
                    wait_s = poll_s - (loop.time() - beat) % poll_s
        finally:
            lease.release()

    async def _poll_once(self, polled: _Polled, venue: chain_requests.Venue, thread: ThreadPoolExecutor) -> None:
        symbol, feed = polled.instrument.symbol, polled.chain.feed
        try:
            snapshot = await venue.snapshot(polled.chain.venue_symbol)
            found = await asyncio.get_running_loop().run_in_executor(thread, self._taken, polled, snapshot)
        except Exception as error:  # noqa: BLE001  # one chain's trouble is not the others', nor the capture's
            polled.error = str(error) or repr(error)
            if not polled.in_a_row:
                _LOG.warning("chain_not_polled", symbol=symbol, feed=feed, reason=polled.error)
            polled.failures += 1
            polled.in_a_row += 1
            return
        if polled.in_a_row:
            _LOG.info("chain_polled_again", symbol=symbol, feed=feed, failures=polled.in_a_row)
        polled.in_a_row, polled.error = 0, None
        if polled.is_newest(found):
            polled.ts_event, polled.ts_recv = found.ts_event_ns, snapshot.ts_recv_ns
            polled.contracts, polled.quarantined = found.rows.height, found.quarantined

    def _taken(self, polled: _Polled, snapshot: Snapshot) -> Read:
        """Read, archive and show a snapshot: it is shown also where the disk is full, but never after a newer one."""
        found = read(polled.instrument, snapshot)
        try:
            archived(self._settings, polled.instrument, snapshot, found)
        finally:
            if polled.is_newest(found):
                ttl_s = max(self._settings.analytics.store_ttls.market, round(_POLLS_OF_A_KEY * self._poll_s(polled)))
                self._keys.put(polled.instrument.symbol, found.rows, ttl_s)
        return found

    def _sweep(self, polled: _Polled) -> None:
        """Remove what killed processes had not put in its place; what is being written now is younger."""
        folder = self._settings.landing / "chains" / polled.chain.feed / quote(polled.instrument.symbol, safe="")
        with contextlib.suppress(OSError):
            for path in folder.glob("*/*.tmp"):
                if time.time() - path.stat().st_mtime > _LONGEST_WRITE_S:
                    path.unlink()

    def _poll_s(self, polled: _Polled) -> float:
        poll_s: float = getattr(self._settings.feeds, polled.chain.feed).poll_s
        return poll_s

    async def _lease(self, polled: _Polled) -> FileLock:
        """Return a lock of the chain that is held; wait while another process holds it."""
        name = f"{polled.chain.feed}-{quote(polled.instrument.symbol, safe='')}.lock"
        path = self._settings.home / "locks" / "chains" / name
        lock = FileLock(path)
        while True:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                lock.acquire(blocking=False)
            except (Timeout, OSError) as error:
                held = f"another process polls it already: it holds {path}"
                polled.error = held if isinstance(error, Timeout) else str(error)
                await asyncio.sleep(_LEASE_AGAIN_S)
            else:
                polled.error = None
                return lock


@dataclass
class _Keys:
    """The key of each chain. While Redis is away it is not written, which is said once."""

    settings: Settings
    _client: redis.Redis | None = None
    _is_away: bool = False
    _written: Counter[str] = field(default_factory=Counter)

    def put(self, symbol: str, rows: pl.DataFrame, ttl_s: int) -> None:
        """Write a chain's key, if Redis takes it."""
        seq = self._written[symbol] + 1
        payload = chain_payload.encoded(rows, ts_written=time.time_ns(), seq=seq)
        try:
            self._client = self._client or live_store.connect(self.settings)
            self._client.set(redis_keys.OPTION_CHAIN.name(symbol), payload, ex=ttl_s)
        except (live_store.LiveStoreError, redis.RedisError) as error:
            if not self._is_away:
                _LOG.warning("chain_key_not_written", symbol=symbol, error=masked(str(error)))
            self._is_away = True
            self.close()
            return
        self._written[symbol] = seq
        if self._is_away:
            _LOG.info("chain_keys_are_written_again")
            self._is_away = False

    def close(self) -> None:
        """Give the connection back."""
        if self._client is not None:
            self._client.close()
            self._client = None
