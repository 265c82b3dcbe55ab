"""`qp live`: market keys in, analytics keys out, in cycles. What is computed is the engine's, what came the window's.

A cycle has two halves, half a period apart, so that neither takes long. Each reads, steps the families whose turn it
is, and writes what they say in one round trip, the heartbeat with it. Nothing in it waits: what takes long, a symbol's
opening, runs beside it in a thread.

Calls cost more than rows, so a family steps many symbols at once: all of them in one half of every cycle, or of every
second one. Where its interval is longer than that the symbols are shared out over the interval. Chains, which are
computed one by one, are shared out over all its cycles.
"""

import gc
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial

import msgspec
import polars as pl
import redis
import structlog

from quant_platform.live import _log, opening, options
from quant_platform.live._heart import Heart
from quant_platform.live._places import Places
from quant_platform.live.aggregate import Aggregator
from quant_platform.live.archive import Archive
from quant_platform.live.engine import KEYS, Engine
from quant_platform.live.opening import Opened
from quant_platform.live.options import OptionMetrics
from quant_platform.live.window import Chunk, Window
from quant_platform.pipeline.order_flow import hidden_order_params, toxicity_params
from quant_platform.settings import Settings, masked
from quant_platform.storage import discovered, live_store, redis_keys
from quant_platform.storage.lake import Lake
from quant_platform.storage.live_store import Batch
from quant_platform.storage.redis_keys import Key

_LOG = structlog.get_logger()
_AGGREGATES = ("portfolio", "sectors", "correlation")
_HISTORIES = {
    table: [key for keys in KEYS.values() for key, shown in keys.items() if shown == table]
    for keys in KEYS.values()
    for table in keys.values()
    if table != opening.HIDDEN
}
_SAY_AGAIN_S = 600.0
_READ_AHEAD_S = 0.08
_HALVES_PER_FULL_COLLECTION = 2_400
_TURNS = {
    "order_book": (0, 2),
    "sweep_detection": (0, 2),
    "vpin": (1, 4),
    "flow_toxicity": (1, 4),
    **dict.fromkeys(options.KEYS, (1, 2)),  # a chain costs the same in whatever company
}
"""By family, in which half of two cycles it has a turn first, and after how many halves it may have the next."""
_LAST_TURNS = (3, 4)  # of all others
_NS = 1_000_000_000


def run(settings: Settings, symbols: Sequence[str], stop: threading.Event) -> None:
    """Serve symbols until told to stop.

    Args:
        settings: The whole tree.
        symbols: At least one.
        stop: Set from elsewhere, such as a signal's handler.
    """
    _log.configure()
    writer = Writer(settings, symbols)
    _LOG.info("serving", symbols=len(symbols), cadence_hz=settings.analytics.cadence_hz)
    gc.disable()  # it would stop a cycle for long: each is followed by its own
    cycle_s = 1 / settings.analytics.cadence_hz
    due_s, done = time.monotonic(), 0
    while not stop.wait(max(0.0, due_s - _READ_AHEAD_S - time.monotonic())):
        if time.monotonic() < due_s:
            writer.read()
        if stop.wait(max(0.0, due_s - time.monotonic())):
            break
        writer.half_cycle()
        done += 1
        gc.collect(1 if done % _HALVES_PER_FULL_COLLECTION else 2)
        due_s += cycle_s / 2
        if done % 2 == 0 and (late_s := time.monotonic() - due_s) > 0:
            missed = int(late_s // cycle_s)
            writer.heart.overruns += 1 + missed
            due_s += missed * cycle_s
    writer.close()


class Writer:
    """The live writer of some symbols; nothing is known at first, and each is opened when it is first heard."""

    def __init__(self, settings: Settings, symbols: Sequence[str]) -> None:
        self._settings = settings
        self._symbols = sorted(symbols)
        self._phase = {symbol: number for number, symbol in enumerate(self._symbols)}
        self._window = Window(settings, self._symbols)
        self._engines = [Engine(settings, members) for members in _alike(settings, self._symbols)]
        lake = Lake(settings.lake_uri, assumed_latency_ms=settings.assumed_latency_ms)
        self._places = Places(settings, self._window, self._engines, partial(_opened, settings, lake))
        self._options = OptionMetrics(settings, self._symbols)
        self._aggregator = Aggregator(settings, self._symbols)
        self._archive = Archive(settings)
        self._client: redis.Redis | None = None
        self._is_lost = False
        self._half = 0
        self._half_ms = 0.0
        self._sequences: dict[Key, Counter[str]] = defaultdict(Counter)
        self._archived_ns: dict[Key, dict[str, int]] = defaultdict(dict)
        self._gaps_ns: dict[str, tuple[int | None, int | None]] = {}
        self._said_s: dict[str, float] = {}
        self._with_history: set[str] = set()
        self._tried: set[str] = set()
        self.heart = Heart(settings, time.time_ns())

    def read(self) -> None:
        """Read what has come, and compute a chain, so that the next half finds less to do."""
        if self._client is not None:
            try:
                self._window.read(self._client)
            except redis.RedisError as error:
                self._lose(error)
        self._options.advance()

    def cycle(self) -> None:
        """Go through both halves of a cycle, without a pause between them."""
        self.half_cycle()
        self.half_cycle()

    def half_cycle(self) -> None:
        """Read, step and write once. Whatever is wrong with Redis or a calculator, the next half goes on."""
        started_s, now_ns, batch = time.monotonic(), time.time_ns(), Batch()
        try:
            if self._client is None:
                self._client = live_store.connect(self._settings)
            self._window.read(self._client)
            gone = self._without_history(self._client) if self._is_lost else []
            market_ns = self._step(now_ns, batch)
            self._write(now_ns, batch)
            if self._half % 2 or self._is_lost:
                self._serve_options(self._client, market_ns, now_ns, batch)
            due = [name for name in _AGGREGATES if self._is_lost or self._is_due(name)]
            self._aggregator.add(due, self._client, batch, now_ns, max(market_ns.values(), default=0))
            self.heart.last_updates.update(dict.fromkeys(due, now_ns))
            self._tried.update(due)
            self._beat(batch, now_ns, is_running=True)
            batch.send(self._client)
        except redis.ResponseError as error:
            self._say_again("redis refused a command; the others were written", error)
        except (redis.RedisError, live_store.LiveStoreError, OSError) as error:
            self._lose(error)
        except Exception as error:  # noqa: BLE001  # a cycle that breaks off is not the end of those after it
            self._say_again("a cycle broke off", error)
        else:
            if self._is_lost:
                _LOG.info("redis is written again")
                self._is_lost = False
                self._places.reopen(gone)
        self._half += 1
        before_ms, self._half_ms = self._half_ms, (time.monotonic() - started_s) * 1e3
        self.heart.cycle_ms = before_ms + self._half_ms

    def close(self) -> None:
        """Say in a last heartbeat that the writer has ended, and end its threads."""
        self._places.stop()
        self._options.stop()
        self._window.close()
        self._archive.stop()
        if self._client is None:
            return
        batch = Batch()
        self._beat(batch, time.time_ns(), is_running=False)
        try:
            batch.send(self._client)
        except redis.RedisError as error:
            _LOG.warning("the last heartbeat was not written", error=masked(str(error)))
        self._client.close()

    def _without_history(self, client: redis.Redis) -> list[str]:
        """Return the symbols whose histories were written and are not there: Redis lost them, or all it had."""
        pipe, symbols = client.pipeline(transaction=False), sorted(self._with_history)
        for symbol in symbols:
            pipe.exists(redis_keys.HISTORY.name(symbol, metric=redis_keys.OBI.metric))
        return [symbol for symbol, is_there in zip(symbols, pipe.execute(), strict=True) if not is_there]

    def _say_again(self, event: str, error: Exception) -> None:
        """Log what may go on for long once in ten minutes."""
        text = masked(repr(error))
        if time.monotonic() - self._said_s.get(text, -_SAY_AGAIN_S) >= _SAY_AGAIN_S:
            self._said_s[text] = time.monotonic()
            _LOG.error(event, error=text, exc_info=None if isinstance(error, redis.RedisError) else error)

    def _lose(self, error: Exception) -> None:
        if not self._is_lost:
            _LOG.error("redis is not reached; all keys are written at its return", error=masked(str(error)))
        self._is_lost = True
        if self._client is not None:
            self._client.close()
            self._client = None

    def _step(self, now_ns: int, batch: Batch) -> dict[str, int]:
        """Step what came; return the market's time of each symbol that was heard."""
        for opened in self._places.adopt():
            self._restore_history(opened, batch)
        chunk = self._window.take(now_ns, self._places.until)
        market_ns = {s: ns for s in self._symbols if (ns := self._window.market_ns(s)) is not None}
        gex_net = self._options.gex_net()
        for engine in self._engines:
            served = self._places.open(engine)
            engine.feed(chunk if len(served) == len(self._symbols) else _of(chunk, served))
            self._tell_gaps(engine, served)
            for family in KEYS:
                if turn := self._turn(family, served):
                    self._tried.add(family)
                    errors = engine.errors[family]
                    engine.run(family, turn, market_ns, gex_net)
                    if engine.errors[family] == errors:
                        self.heart.last_updates[family] = now_ns
        self._places.follow(market_ns)
        return market_ns

    def _tell_gaps(self, engine: Engine, served: Sequence[str]) -> None:
        for symbol in served:
            gaps = self._window.book_gap_ns(symbol), self._window.quote_gap_ns(symbol)
            books_ns, quotes_ns = gaps
            known_books_ns, known_quotes_ns = self._gaps_ns.get(symbol, (None, None))
            if books_ns is not None and books_ns != known_books_ns:
                engine.books_missed(symbol, books_ns)
            if quotes_ns is not None and quotes_ns != known_quotes_ns:
                engine.quotes_missed(symbol)
            self._gaps_ns[symbol] = gaps

    def _write(self, now_ns: int, batch: Batch) -> None:
        heard_after_s = time.monotonic() - self._settings.analytics.store_ttls.market
        for engine in self._engines:
            served = [s for s in self._places.open(engine) if self._window.heard_s.get(s, -math.inf) > heard_after_s]
            for family, keys in KEYS.items():
                turn = served if self._is_lost else self._turn(family, served)
                for key in keys if turn else ():
                    if (rows := engine.shown(key, family, turn)).height:
                        missed = {*engine.missed(family, key, rows), *filter(self._window.has_gap, rows["symbol"])}
                        self._show(key, rows, missed, now_ns, batch)
            for table, metrics in _HISTORIES.items():
                self._extend_histories(metrics, engine.closed(table), batch)

    def _serve_options(self, client: redis.Redis, market_ns: Mapping[str, int], now_ns: int, batch: Batch) -> None:
        """Read the chains whose turn it is, and write what they and the new ones say."""
        symbols, served = self._options.symbols, self._options
        turns = {family: symbols if self._is_lost else self._turn(family, symbols) for family in options.KEYS}
        served.step(client, turns, market_ns)
        self._tried |= served.failed
        for family, keys in options.KEYS.items():
            if heard := served.heard(family, turns[family]):
                self._tried.add(family)
                for key in keys:
                    self._show(key, served.shown(key, heard), served.with_gap(), now_ns, batch)
                if family not in served.failed:
                    self.heart.last_updates[family] = now_ns
        served.add_histories(batch, is_lost=self._is_lost)

    def _show(self, key: Key, rows: pl.DataFrame, missed: set[str], now_ns: int, batch: Batch) -> None:
        """Write the rows that a key shows, and hand a sample of them to the archive."""
        analytics, sequences = self._settings.analytics, self._sequences[key]
        sequences.update(rows["symbol"])
        payloads = redis_keys.encoded(key, rows, ts_written=now_ns, seq=sequences, has_gap=missed)
        ttl_s = analytics.store_ttls.of(key.metric, analytics.update_intervals)
        for symbol, payload in payloads.items():
            batch.set(key.name(symbol), payload, ttl_s)
        archived, every_ns = self._archived_ns[key], int(analytics.archive_every_s * _NS)
        due = {s: payload for s, payload in payloads.items() if abs(now_ns - archived.get(s, 0)) >= every_ns}
        if due:
            archived.update(dict.fromkeys(due, now_ns))
            self._archive.put(self._options.dates() | self._places.dates(), key, due)

    def _restore_history(self, opened: Opened, batch: Batch) -> None:
        """Write a symbol's histories as the lake has them, but for the newest row, which is not closed."""
        for table, keys in _HISTORIES.items():
            rows = opened.rows.get(table)
            if rows is None or rows.is_empty():
                continue
            for key in keys:
                batch.delete(redis_keys.HISTORY.name(opened.symbol, metric=key.metric))
            self._extend_histories(keys, rows.head(-1), batch)

    def _extend_histories(self, keys: Sequence[Key], rows: pl.DataFrame, batch: Batch) -> None:
        analytics = self._settings.analytics
        for key in keys if rows.height else ():
            for symbol, entries in redis_keys.history_entries(key, rows).items():
                name = redis_keys.HISTORY.name(symbol, metric=key.metric)
                batch.push(name, entries, analytics.history_entries, analytics.store_ttls.history)
                if key is redis_keys.OBI:
                    self._with_history.add(symbol)

    def _turn(self, family: str, served: Sequence[str]) -> Sequence[str]:
        """Return the symbols whose turn it is in this half of the cycle."""
        analytics = self._settings.analytics
        interval_s: float = getattr(analytics.update_intervals, family)
        first, apart = _TURNS.get(family, _LAST_TURNS)
        halves = 2 * max(1, round(interval_s * analytics.cadence_hz))
        apart = math.gcd(halves, apart)
        number, away = divmod(self._half - first, apart)
        if away:
            return []
        turns = halves // apart
        return served if turns == 1 else [s for s in served if (number - self._phase[s]) % turns == 0]

    def _is_due(self, family: str) -> bool:
        return bool(self._turn(family, self._symbols[:1]))

    def _beat(self, batch: Batch, now_ns: int, *, is_running: bool) -> None:
        counts = self._places.counts()
        errors: Counter[str] = Counter()
        for found in (self._aggregator.errors, self._options.errors, *(engine.errors for engine in self._engines)):
            errors.update(found)
        # Of a symbol that has no tape, its chain tells the hours.
        counts["idle_symbols"] += sum(self._window.market_ns(s) is None for s in self._options.out_of_hours())
        is_served = self._options.is_any_heard() or any(self._places.open(engine) for engine in self._engines)
        is_idle = counts["idle_symbols"] > 0 and not is_served
        self.heart.beat(
            batch,
            errors,
            self._tried,
            now_ns,
            is_running=is_running,
            state="idle" if is_idle else "active",
            malformed=self._window.counts["malformed"] + self._aggregator.counts["malformed"] + self._options.malformed,
            **counts,
        )
        self._tried.clear()


def _opened(settings: Settings, lake: Lake, symbol: str, day: date) -> Opened:
    """Open a symbol with what others discovered of it; that is archived first, so that the batch takes it too."""
    with live_store.connect(settings) as client:
        found = client.get(redis_keys.DISCOVERED_BUCKET_SIZE.name())
    if isinstance(found, bytes) and (size := _bucket_size(found, symbol)):
        discovered.take_bucket_size(settings.landing, symbol, day, size)
    return opening.opened(settings, lake, symbol, day)


def _bucket_size(payload: bytes, symbol: str) -> float | None:
    """Return the size in base units that a number, or a map of symbols, names; None where there is none."""
    try:
        found = msgspec.json.decode(payload, type=float | dict[str, float])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _LOG.warning("a discovered bucket size is ignored", symbol=symbol, error=str(error))
        return None
    size = found.get(symbol) if isinstance(found, dict) else found
    return size if size and math.isfinite(size) and size > 0 else None


def _alike(settings: Settings, symbols: Sequence[str]) -> list[list[str]]:
    """Return the symbols in groups for which the same parameters hold: these depend on which venues are dark."""
    groups: dict[object, list[str]] = defaultdict(list)
    for symbol in symbols:
        instrument = settings.instrument(symbol)
        groups[toxicity_params(settings, instrument), hidden_order_params(settings, instrument)].append(symbol)
    return list(groups.values())


def _of(chunk: Chunk, symbols: Sequence[str]) -> Chunk:
    return Chunk(*(rows.filter(pl.col("symbol").is_in(symbols)) for rows in chunk))
