"""VIX1D beside the capture: sources are asked in their turn, readings put on record, and what stands goes to Redis.

The archive is the truth: the key and its histories are written anew from it whenever something came, whoever put it
there. Where all sources fail nothing is written, and the key stays until its time to live ends.
"""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import httpx
import msgspec
import polars as pl
import redis
import structlog
from filelock import FileLock, Timeout

from quant_platform.feeds import vix1d as turns
from quant_platform.feeds import vix1d_sources
from quant_platform.feeds.vix1d import Source, State, Vix1dParams
from quant_platform.feeds.vix1d_sources import SIMULATED, Answer, SourceError
from quant_platform.pipeline import vix1d as record
from quant_platform.settings import Settings, masked
from quant_platform.storage import live_store, redis_keys, vix1d_archive
from quant_platform.storage.live_store import LiveStoreError
from quant_platform.storage.redis_keys import VIX1D, VIX1D_HISTORY, VIX1D_SOURCE_HISTORY
from quant_platform.storage.vix1d_archive import Asked, Reading, date_of

_LOG = structlog.get_logger()
_TURN_S = 1.0
_LOOK_S = 10.0  # at what others put on record, and whether Redis still has the key
_NEWEST_FILES = 5
_TIMEOUTS = httpx.Timeout(15.0, connect=10.0)
_NS = 1_000_000_000


class Standing(NamedTuple):
    """What stands, and what was before it.

    Attributes:
        rows: Contract `VolIndexRegime`, in the order of receipt: each source's newest readings.
        reading: The one that stands.
    """

    rows: pl.DataFrame
    reading: Reading


async def keep(settings: Settings) -> None:
    """Ask the sources and publish what stands, until cancelled. It raises nothing: what goes wrong is logged.

    Of several processes of one QP_HOME one does it; where that one ends, the next takes over.
    """
    keeper = _Keeper(settings)
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUTS, follow_redirects=True) as client:
            while True:
                try:
                    await keeper.turn(client)
                except Exception as error:  # noqa: BLE001  # the index's trouble is not the capture's
                    keeper.say("vix1d not kept", error=repr(error))
                    await asyncio.sleep(_LOOK_S)
                await asyncio.sleep(_TURN_S)
    finally:
        keeper.close()


def standing(settings: Settings) -> Standing | None:
    """Return what is on record up to now; None where nothing is.

    Where there is no reading of a real source, those that `qp demo` simulated stand in.
    """
    last = record.newest(settings, date_of(time.time_ns()))
    if last is None:
        return None
    newest = vix1d_archive.dates(settings.landing)[-_NEWEST_FILES:]
    days = (vix1d_archive.day(settings.landing, date) for date in newest)
    sources = {last.source, *(reading.source for day in days for _, reading in day.readings)}
    count = settings.analytics.history_entries + settings.analytics.vol_regime.window
    readings = record.earlier(settings, date_of(last.ts_event) + timedelta(days=1), sources, count)
    readings.sort(key=lambda reading: (reading.ts_recv, reading.ts_event))
    order = {(reading.source, reading.ts_event): place for place, reading in enumerate(readings)}
    rows = record.regimes(readings, [], settings)
    places = [order[key] for key in zip(rows["source"], rows["ts_event"].to_physical(), strict=True)]
    return Standing(rows.with_columns(place=pl.Series(places, dtype=pl.Int64)).sort("place").drop("place"), last)


class _Keeper:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        in_use = vix1d_sources.in_use(settings.feeds)
        self._params = Vix1dParams(min_refetch_s=in_use) if in_use else None
        self._max_age = (self._params or Vix1dParams()).max_age_sessions
        self._lock: FileLock | None = None
        self._state: State | None = None
        self._client: redis.Redis | None = None
        self._is_owed = True
        self._heard_ns = 0
        self._gone_ns = 0  # when the key that was written ends
        self._seen: list[tuple[str, int]] = []
        self._look_again_s = self._write_again_s = 0.0
        self._seq = 0
        self._said = set[str]()

    async def turn(self, client: httpx.AsyncClient) -> None:
        """Ask whoever is to be asked now, and publish what is owed."""
        if not self._is_ours():
            return
        if self._state is None:
            self._state = await asyncio.to_thread(self._remembered)
        if self._params and (name := turns.choose(self._state, time.time_ns(), self._params)):
            answer, reason = None, ""
            try:
                answer = await vix1d_sources.ask(name, self._settings.feeds, client, time.time_ns)
            except SourceError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001  # whatever it is, the source has failed, and waits
                reason = repr(error)
            await asyncio.to_thread(self._take, self._state, self._params, name, answer, reason)
        try:
            await asyncio.to_thread(self._publish)
        except (redis.RedisError, LiveStoreError) as error:
            self.say("vix1d not published", error=masked(str(error)) or repr(error))
            self._disconnect()
            self._is_owed = True  # what Redis forgets, it is told again

    def say(self, event: str, **facts: object) -> None:
        """Log what may go on for long once, until it has ended."""
        if event not in self._said:
            self._said.add(event)
            _LOG.warning(event, **facts)

    def close(self) -> None:
        """Let go of Redis, and let another process ask."""
        self._disconnect()
        if self._lock:
            self._lock.release()

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _is_ours(self) -> bool:
        if self._lock is None:
            lock = vix1d_archive.asking(self._settings.landing)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
            self._lock = lock
        return True

    def _remembered(self) -> State:
        """Return what was remembered of the sources; a clock that was ahead then must not silence them now."""
        now = time.time_ns()
        known = vix1d_archive.sources(self._settings.landing) or {}
        return State({name: Source(min(told.asked, now), told.failures) for name, told in known.items()})

    def _take(self, state: State, params: Vix1dParams, name: str, answer: Answer | None, reason: str) -> None:
        now = time.time_ns()
        newest = answer.readings[-1] if answer else None
        days = record.sessions(date_of(now), params.max_age_sessions + 1)
        told = None
        if newest and newest.ts_event <= now:  # calendars do not know the far future
            told = turns.Reading(newest.ts_event, record.session_of(newest), newest.value)
        self._state = turns.answered(state, name, told, now=now, sessions=days, params=params)
        known = self._state.sources
        if failures := known[name].failures:
            wait_s = max(params.min_refetch_s[name], turns.backoff_s(failures, params))
            reason = reason or self._too_old_or_early(newest, now)
            _LOG.warning("vix1d_source_failed", source=name, reason=reason, failures=failures, again_in_s=wait_s)
        else:
            self._heard_ns, self._is_owed = now, True
            if name in state.sources and state.sources[name].failures:
                _LOG.info("vix1d_source_answers_again", source=name)
        landing = self._settings.landing
        if answer:
            past = [reading for reading in answer.readings if reading.ts_event <= now]
            refused = [msgspec.structs.replace(one, ts_event=min(one.ts_event, now)) for one in answer.refused]
            self._is_owed |= vix1d_archive.append(landing, [*past, *refused]) > 0
            self._seen = vix1d_archive.sizes(landing, _NEWEST_FILES)
        vix1d_archive.remember(landing, {name: Asked(known[name].asked, known[name].failures) for name in known})

    def _too_old_or_early(self, newest: Reading | None, now: int) -> str:
        assert newest is not None  # an answer has a reading
        told = datetime.fromtimestamp(newest.ts_event / _NS, UTC).isoformat()
        if newest.ts_event > now:
            return f"Its newest reading is of {told}, which is in the future: check both clocks."
        return f"Its newest reading is of {told}, more than {self._max_age} sessions ago."

    def _publish(self) -> None:
        """Write what stands where that is owed; a Redis that is not there is looked for now and then."""
        now_s = time.monotonic()
        if now_s >= self._look_again_s:
            self._look_again_s = now_s + _LOOK_S
            seen = vix1d_archive.sizes(self._settings.landing, _NEWEST_FILES)
            self._is_owed |= seen != self._seen or self._is_lost()
            self._seen = seen
        if self._is_owed and now_s >= self._write_again_s:
            self._write_again_s = now_s + _LOOK_S
            found = standing(self._settings)
            ttl_s = self._ttl_s(found.reading) if found else 0
            if found and ttl_s > 0:
                self._write(found, ttl_s)
            self._is_owed, self._write_again_s = False, 0.0

    def _ttl_s(self, reading: Reading) -> int:
        """Return how long the key has left: its time to live counts from when its source was last heard.

        A simulated reading is served where no source is asked, and never for one that failed.
        """
        whole = self._settings.analytics.store_ttls.vix1d
        if reading.source == SIMULATED:
            return 0 if self._params else whole
        return whole - (time.time_ns() - max(reading.ts_recv, self._heard_ns)) // _NS

    def _is_lost(self) -> bool:
        """Return whether Redis has not the key that it should have."""
        client, is_expected = self._client, time.time_ns() < self._gone_ns
        return client is not None and is_expected and not client.exists(VIX1D.name())

    def _write(self, found: Standing, ttl_s: int) -> None:
        """Write the key and its histories, all of it or nothing.

        Raises:
            redis.RedisError: Redis was not reached, or refused it.
            LiveStoreError: There is none.
        """
        settings, last = self._settings, found.reading
        kept, history_ttl_s = settings.analytics.history_entries, settings.analytics.store_ttls.history
        is_standing = (pl.col("source") == last.source) & (pl.col("ts_event").to_physical() == last.ts_event)
        self._seq += 1
        (payload,) = redis_keys.encoded(
            VIX1D, found.rows.filter(is_standing), ts_written=time.time_ns(), seq=self._seq, has_gap=()
        ).values()
        # What stood when it came: nothing newer had come before.
        lists = {VIX1D_HISTORY.name(): found.rows.filter(pl.col("ts_event") == pl.col("ts_event").cum_max())}
        for (source,), rows in found.rows.partition_by("source", as_dict=True).items():
            lists[VIX1D_SOURCE_HISTORY.name(source=str(source))] = rows.sort("ts_event")
        if self._client is None:
            self._client = live_store.connect(settings)
        pipe = self._client.pipeline(transaction=True)
        pipe.set(VIX1D.name(), payload, ex=ttl_s)
        for name, rows in lists.items():
            pipe.delete(name)
            pipe.lpush(name, *redis_keys.history_entries(VIX1D, rows.tail(kept))[vix1d_sources.SYMBOL])
            pipe.expire(name, history_ttl_s)
        pipe.execute()
        self._gone_ns = time.time_ns() + ttl_s * _NS
        self._said.clear()
