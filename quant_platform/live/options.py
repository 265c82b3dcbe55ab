"""What live keys show of option chains: read when their turn comes, valued by the batch's functions once a snapshot.

A chain that is the same as before is not computed again; one that says nothing, because it is empty, expired, older, or
no chain at all, takes nothing's place. Chains that are new are computed between the cycles, one after the other, and
shown by the next cycle. What a symbol said before is brought from the disk by a thread, and then it is served.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date as Date  # noqa: N812  # `date` names things elsewhere
from typing import Any

import polars as pl
import redis
import structlog

from quant_platform.live._option_chain import FAMILIES, Content, LiveChain
from quant_platform.settings import METRIC_INTERVALS, Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.live_store import Batch
from quant_platform.storage.redis_keys import Key

KEYS: Mapping[str, Sequence[Key]] = {
    family: [key for key in redis_keys.OPTION_METRICS if METRIC_INTERVALS[key.metric] == family] for family in FAMILIES
}
"""Each family's keys; a family is what shares an update interval."""

_LOG = structlog.get_logger()
_SCANNING = METRIC_INTERVALS[redis_keys.GEX.metric]
_SCAN_COUNT = 1_000  # keys that Redis looks at in one call
_MOST_SCANS = 100
_GLOB = str.maketrans({sign: f"\\{sign}" for sign in "\\*?[]"})


class OptionMetrics:
    """The option metrics of some symbols, of those that have a chain.

    A family that raises for a chain tries it again at its turns; its keys are left to their end meanwhile.

    Attributes:
        symbols: Those that have a chain.
        errors: By family, how often it could not be computed.
        failed: The families that failed between the last two steps.
        malformed: Payloads, and contracts of payloads, that could not be used.
    """

    def __init__(self, settings: Settings, symbols: Iterable[str]) -> None:
        self._chains = {symbol: LiveChain(settings, symbol) for symbol in symbols if settings.instrument(symbol).chain}
        self.symbols = list(self._chains)
        self.errors: Counter[str] = Counter()
        self.failed: set[str] = set()
        self.malformed = 0
        self._analytics = settings.analytics
        self._market_ns: Mapping[str, int] = {}
        self._queue: dict[str, None] = {}  # in order
        self._fresh: set[str] = set()
        self._worked: set[str] = set()
        self._failing: set[str] = set()
        self._restored: set[str] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chains")

    def step(self, client: redis.Redis, turns: Mapping[str, Sequence[str]], market_ns: Mapping[str, int]) -> None:
        """Read the chains whose turn it is, in one round trip; what is new of them is computed by `advance`.

        Args:
            client: Of Redis.
            turns: By family, the symbols whose turn it is, all of them of `symbols`.
            market_ns: The market's time of each symbol that was heard, UTC ns.

        Raises:
            redis.RedisError: Redis was not reached.
        """
        self._market_ns = market_ns
        for symbol, chain in self._chains.items():
            if chain.is_opened():
                self._restored.add(symbol)
                self._queue[symbol] = None
        self.advance()  # where there was no time between the cycles
        self._fresh, self._worked = self._worked, set()
        self.failed, self._failing = self._failing, set()
        due = sorted({symbol for turn in turns.values() for symbol in turn})
        if not due:
            return
        for symbol, content in self._read(client, due, turns.get(_SCANNING, ())):
            self._chains[symbol].take(content)
        clocks = self._clocks()
        for symbol in due:
            chain = self._chains[symbol]
            chain.follow(clocks[chain.calendar], self._thread)
            if chain.has_work:
                self._queue[symbol] = None

    def advance(self) -> None:
        """Compute one chain that is new; call it when there is time."""
        if not self._queue:
            return
        symbol = next(iter(self._queue))
        del self._queue[symbol]
        chain = self._chains[symbol]
        malformed, failed = chain.work(self._clocks()[chain.calendar], self._thread)
        self.malformed += malformed
        self.errors.update(failed)
        self._failing |= failed
        self._worked.add(symbol)

    def heard(self, family: str, turn: Iterable[str]) -> list[str]:
        """Return the symbols of a family that are to be shown: of these and of those with a new snapshot.

        Left out are those whose newest snapshot it has not computed, and those out of their hours.
        """
        return [symbol for symbol in dict.fromkeys((*turn, *sorted(self._fresh))) if self._chains[symbol].has(family)]

    def shown(self, key: Key, symbols: Iterable[str]) -> pl.DataFrame:
        """Return what a key shows of these symbols, at least one, which are heard; a row each."""
        return pl.concat(self._chains[symbol].newest[key] for symbol in symbols)

    def gex_net(self) -> dict[str, float | None]:
        """Return the net gamma exposure of the newest chain, in quote currency per 1 %, of symbols whose is known."""
        shown = ((symbol, chain.newest.get(redis_keys.GEX)) for symbol, chain in self._chains.items() if chain.is_heard)
        return {symbol: rows["gex_net"][0] for symbol, rows in shown if rows is not None}

    def with_gap(self) -> set[str]:
        """Return the symbols of whose newest chain contracts were left out."""
        return {symbol for symbol, chain in self._chains.items() if chain.has_gap}

    def dates(self) -> dict[str, Date]:
        """Return the trading date of each symbol whose chain was heard."""
        return {symbol: chain.served.date for symbol, chain in self._chains.items() if chain.served}

    def out_of_hours(self) -> list[str]:
        """Return the symbols whose chain is there, and whose market is closed."""
        return [symbol for symbol, chain in self._chains.items() if chain.is_out_of_hours]

    def is_any_heard(self) -> bool:
        """Return whether any chain is shown, or will be as soon as it is opened."""
        return any(chain.is_heard for chain in self._chains.values())

    def add_histories(self, batch: Batch, *, is_lost: bool) -> None:
        """Add what is new to the histories in Redis, and write those anew that were restored, or all that were lost."""
        for symbol, chain in self._chains.items():
            extended, chain.new_entries = chain.new_entries, []
            if symbol in self._restored or (is_lost and chain.is_open):
                extended = [(key, list(entries)) for key, entries in chain.entries.items()]
                for key in chain.entries:
                    batch.delete(redis_keys.HISTORY.name(symbol, metric=key.metric))
            for key, entries in extended:
                if entries:
                    name = redis_keys.HISTORY.name(symbol, metric=key.metric)
                    batch.push(name, entries, self._analytics.history_entries, self._analytics.store_ttls.history)
        self._restored = set()

    def stop(self) -> None:
        """End the thread, when the opening under way is done."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _read(
        self, client: redis.Redis, due: Sequence[str], scanned: Sequence[str]
    ) -> Iterator[tuple[str, Content | None]]:
        """Yield what is there of each symbol: its chain, else what its contracts have of their own."""
        found: Any = client.mget([redis_keys.OPTION_CHAIN.name(symbol) for symbol in due])
        for symbol, payload in zip(due, found, strict=True):
            known = self._chains[symbol].content
            if payload is not None:
                yield symbol, payload
            elif symbol in scanned:
                yield symbol, _greeks(client, symbol)
            else:
                yield symbol, known if isinstance(known, dict) else None

    def _clocks(self) -> dict[str, int]:
        """Return the market's time of each calendar of a chain: the latest of its symbols, by tape or chain."""
        clocks: dict[str, int] = {}
        for symbol, chain in self._chains.items():
            known_ns = (chain.ts_event or 0, self._market_ns.get(symbol, 0), clocks.get(chain.calendar, 0))
            clocks[chain.calendar] = max(known_ns)
        return clocks


def _greeks(client: redis.Redis, symbol: str) -> dict[str, bytes] | None:
    """Return the payloads of a symbol's contracts by key; None where there are none, or too many keys to look at."""
    pattern, names = redis_keys.OPTION_GREEKS.name(symbol.translate(_GLOB)), set[bytes]()
    cursor: int = 0
    for _ in range(_MOST_SCANS):
        answer: Any = client.scan(cursor, match=pattern, count=_SCAN_COUNT)
        cursor, some = answer
        names.update(some)
        if not cursor:
            break
    else:
        _LOG.warning("contracts are not looked for: Redis holds too many keys", symbol=symbol)
        return None
    ordered = sorted(names)
    payloads: Any = client.mget(ordered) if ordered else []
    found = zip(ordered, payloads, strict=True)
    return {name.decode(errors="replace"): payload for name, payload in found if payload is not None} or None
