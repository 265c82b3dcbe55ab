"""The `market:*` keys of Redis, from the lines that the collector landed. Capture never waits for them.

A thread parses what was put, four times a second, and writes it, a piece at once. While Redis is down or hangs, parsing
goes on, so that prices, volumes and bars stay true. Entries of Streams wait, up to a limit of memory; then the oldest
go.
"""

import datetime as dt
import threading
import time
from collections import Counter, deque
from itertools import compress
from typing import Any, NamedTuple

import redis
import structlog

from quant_platform.feeds.recorded import Wanted
from quant_platform.live._market import Batch, Market
from quant_platform.settings import Settings, masked
from quant_platform.storage import live_store, redis_keys

_LOG = structlog.get_logger()
_CYCLE_S = 0.25
_STOP_S = 1.0
_LONGEST_WRITE_S = 2.0
_LIMIT_BYTES = 64 << 20
_BYTES_PER_CYCLE = 8 << 20
_ENTRIES_PER_WRITE = 5_000
_MARKETS_PER_WRITE = 50
_ANY_DATE = dt.date.min


class Status(NamedTuple):
    """How the publisher fares; the counts are from its start.

    Attributes:
        error: Why Redis was not written at the last attempt; empty while it is.
        waiting_bytes: Of lines to parse and entries to write, but for the batch under way.
        dropped_lines: They came faster than they could be parsed. Their symbols start anew: the book with the next
            snapshot, volume and bars with what comes.
        dropped_entries: Redis did not take them in time.
        refused_writes: Somebody else keeps another type of value under the key.
        failed_batches: They could not be parsed, and their symbols start anew too.
    """

    error: str
    waiting_bytes: int
    dropped_lines: int
    dropped_entries: int
    refused_writes: int
    failed_batches: int


class _Queue:
    """Batches in their order, of a number of bytes in all: above it the oldest go."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._batches = deque[Batch]()
        self.size = 0

    def add(self, batch: Batch, *, is_oldest: bool = False) -> list[Batch]:
        """Take in a batch, and return those that had to go."""
        (self._batches.appendleft if is_oldest else self._batches.append)(batch)
        self.size += batch.size
        gone = []
        while self.size > self._limit:
            gone.append(self._pop())
        return gone

    def taken(self, *, most_bytes: int = _LIMIT_BYTES, most_lines: int = 1 << 30) -> list[Batch]:
        """Return the oldest batches, at least one and then no more than so much but what follows, and forget them."""
        batches: list[Batch] = []
        while self._batches and ((most_bytes > 0 and most_lines > 0) or self._batches[0].follows):
            batches.append(self._pop())
            most_bytes -= batches[-1].size
            most_lines -= len(batches[-1].lines)
        return batches

    def _pop(self) -> Batch:
        batch = self._batches.popleft()
        self.size -= batch.size
        return batch


class Publisher:
    """Writes the market keys of the lines that it is given, from a thread of its own.

    A trade that the collector missed and refilled counts in volume and bars when it comes. Where Redis was lost, the
    strings and the bars are written again at once, and the Streams go on with what waited.
    """

    def __init__(
        self, settings: Settings, *, ttl_s: int = redis_keys.MARKET_TTL_S, limit_bytes: int = _LIMIT_BYTES
    ) -> None:
        """Start the thread; it connects when it has something to write.

        Args:
            settings: The instruments, and where Redis is.
            ttl_s: Time to live of every key after its last write.
            limit_bytes: Of the lines that wait to be parsed, and again of the entries that wait to be written.
        """
        self._settings = settings
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._lines = _Queue(limit_bytes)
        self._torn = set[str]()
        self._entries = _Queue(limit_bytes)
        self._markets: dict[str, Market] = {}
        self._client: redis.Redis | None = None
        self._error = ""
        self._counts: Counter[str] = Counter()
        self._said = set[str]()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="market-keys", daemon=True)
        self._thread.start()

    def put(self, symbol: str, lines: list[bytes]) -> None:
        """Hand over landed lines of a symbol, `<ts_recv, ns> <JSON>` without the newline, in the order of arrival.

        It only takes note of them: it waits for nothing, and raises nothing.
        """
        if not lines:
            return
        batch = Batch.of(symbol, lines)
        with self._lock:
            for gone in self._lines.add(batch):
                self._torn.add(gone.name)
                self._counts["dropped_lines"] += len(gone.lines)

    def status(self) -> Status:
        """Return how it fares; from any thread."""
        waiting = self._lines.size + self._entries.size
        counts = {name: self._counts[name] for name in Status._fields[2:]}
        return Status(self._error, waiting, **counts)

    def stop(self) -> None:
        """Write what waits, for a second at most, and end the thread."""
        self._is_stopping.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        pause_s = _CYCLE_S
        while not self._is_stopping.wait(pause_s):
            start = time.monotonic()
            self._parse()
            self._write(latest=start + _LONGEST_WRITE_S)
            took_s = time.monotonic() - start
            # A Redis that hangs is asked for half of the time at most, and capture has half of a core at least.
            pause_s = max(_CYCLE_S - took_s, took_s)
        latest = time.monotonic() + _STOP_S
        while time.monotonic() < latest and self._parse():
            pass
        self._write(latest)
        if self._client is not None:
            self._client.close()

    def _parse(self) -> bool:
        """Parse some of what was put; return whether there was any."""
        with self._lock:
            batches = self._lines.taken(most_bytes=_BYTES_PER_CYCLE)
            torn, self._torn = self._torn, set()
        for symbol in torn:
            self._markets.pop(symbol, None)
            self._say("market lines dropped: they came faster than they could be parsed", symbol=symbol)
        lines: dict[str, list[bytes]] = {}
        for batch in batches:
            lines.setdefault(batch.name, []).extend(batch.lines)
        for symbol, texts in lines.items():
            try:
                for entries in self._market(symbol).entries(texts):
                    self._keep(entries)
            except Exception as error:  # noqa: BLE001  # one symbol's trouble is not the others'
                self._markets.pop(symbol, None)
                self._counts["failed_batches"] += 1
                self._say(f"market lines of {symbol} not published", error=repr(error))
        return bool(batches)

    def _market(self, symbol: str) -> Market:
        if symbol not in self._markets:
            instrument = self._settings.instrument(symbol)
            wanted = Wanted(
                table="",
                symbol=symbol,
                venue_symbol=instrument.venue_symbol,
                date=_ANY_DATE,
                venue=instrument.feed,
            )
            self._markets[symbol] = Market(wanted)
        return self._markets[symbol]

    def _keep(self, entries: Batch, *, is_oldest: bool = False) -> None:
        for gone in self._entries.add(entries, is_oldest=is_oldest):
            self._counts["dropped_entries"] += len(gone.lines)
            self._say("market entries dropped: Redis did not take them in time", stream=gone.name)

    def _write(self, latest: float) -> None:
        """Write what waits, until it is written, Redis fails, or the time has come."""
        try:
            if self._client is None:
                self._client = live_store.connect(self._settings)
            while time.monotonic() < latest:
                entries = self._entries.taken(most_lines=_ENTRIES_PER_WRITE)
                markets = [market for market in self._markets.values() if market.is_dirty][:_MARKETS_PER_WRITE]
                if not entries and not markets:
                    break
                self._write_some(self._client, entries, markets)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with Redis, parsing goes on
            self._error = masked(str(error)) or repr(error)
            self._say("market keys not written", error=self._error)
            for market in self._markets.values():
                market.lost()
            if self._client is not None:
                self._client.close()
            self._client = None
        else:
            if self._error:
                _LOG.info("market keys are written again", dropped_entries=self._counts["dropped_entries"])
                self._error = ""
                self._said.clear()

    def _write_some(self, client: redis.Redis, entries: list[Batch], markets: list[Market]) -> None:
        """Write these as one transaction; entries that Redis did not take wait on.

        Raises:
            redis.RedisError: It was not reached, or did not take all.
        """
        ts_written = time.time_ns()
        stamp = b'{"ts_written":%d,' % ts_written
        pipe = client.pipeline(transaction=True)  # who reads trades finds the quotes before them
        for batch in entries:
            for line in batch.lines:
                entry: dict[Any, Any] = {redis_keys.STREAM_FIELD: stamp + line[1:]}
                pipe.xadd(batch.name, entry, maxlen=redis_keys.STREAM_LENGTH)
            pipe.expire(batch.name, self._ttl_s)
        commands = [market.write(pipe, ts_written, self._ttl_s) for market in markets]
        failed: list[redis.RedisError] = []
        unwritten = entries
        try:
            answers = deque(pipe.execute(raise_on_error=False))
            unwritten = []
            for batch in entries:
                is_failed = [self._is_failed(answers.popleft(), failed) for _ in batch.lines]
                answers.popleft()
                if any(is_failed):
                    unwritten.append(Batch.of(batch.name, list(compress(batch.lines, is_failed))))
            for market, count in zip(markets, commands, strict=True):
                own = [answers.popleft() for _ in range(count)]
                for answer in own:
                    self._is_failed(answer, failed)
                if market.is_list_expected and not own[-1]:
                    market.lost()
        finally:
            for batch in reversed(unwritten):
                self._keep(batch, is_oldest=True)
        if failed:
            raise failed[0]

    def _is_failed(self, answer: Any, failed: list[redis.RedisError]) -> bool:
        """Note an answer that is an error; return whether to try again."""
        if not isinstance(answer, redis.RedisError):
            return False
        if str(answer).startswith("WRONGTYPE"):
            self._counts["refused_writes"] += 1
            self._say("a market key holds another type of value: end what writes it, or delete it", error=str(answer))
            return False
        failed.append(answer)
        return True

    def _say(self, event: str, **facts: Any) -> None:
        """Log what may go on for long once, until Redis is back."""
        if event not in self._said:
            self._said.add(event)
            _LOG.warning(event, **facts)
