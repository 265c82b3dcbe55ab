"""One symbol's option chain as the live writer knows it: what was read, what was computed of it, what was before.

When it is read, and what is written of it, is not known here.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future

import polars as pl
import structlog

from quant_platform.contracts._schema import contract_of, empty
from quant_platform.feeds import chain_payload
from quant_platform.live._option_past import Past, past
from quant_platform.live.hours import Served, served_from
from quant_platform.pipeline import option_keys, options
from quant_platform.settings import METRIC_INTERVALS, Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import Key

FAMILIES = tuple(dict.fromkeys(METRIC_INTERVALS[key.metric] for key in redis_keys.OPTION_METRICS))
"""What shares an update interval."""

Content = bytes | dict[str, bytes]
"""A chain's payload, or those of its contracts by key."""

_LOG = structlog.get_logger()
_UNUSUAL = frozenset({METRIC_INTERVALS[redis_keys.UNUSUAL.metric]})
_EXPOSED = frozenset(FAMILIES) - _UNUSUAL
_AGAIN_S = 30.0


class LiveChain:
    """The chain of a symbol.

    Attributes:
        symbol: Its name.
        calendar: By which it is in its hours.
        content: What was read last; None where nothing was there.
        ts_event: Of the newest snapshot, UTC ns; None where none was read, or it has ended.
        has_gap: Whether contracts of that broke a rule.
        served: The session that it is in.
        is_heard: Whether what was read last is the newest snapshot, and in its hours.
        is_open: Whether what it said before is known.
        newest: What each key shows, one row.
        entries: Of the histories by key, in the order of time.
        new_entries: Those that nobody has taken yet, with their key.
    """

    def __init__(self, settings: Settings, symbol: str) -> None:
        self.symbol = symbol
        self._settings = settings
        self._instrument = settings.instrument(symbol)
        self.calendar = self._instrument.calendar
        self.content: Content | None = None
        self.ts_event: int | None = None
        self.has_gap = False
        self.served: Served | None = None
        self.is_heard = False
        self.is_open = False
        self.newest: dict[Key, pl.DataFrame] = {}
        self.entries: dict[Key, deque[bytes]] = {}
        self.new_entries: list[tuple[Key, Sequence[bytes]]] = []
        self._is_unread = False
        self._is_usable = False
        self._is_malformed = False
        self._rows: pl.DataFrame | None = None  # until all families have computed them
        self._pending: frozenset[str] = frozenset()
        self._opening: Future[Past] | None = None
        self._not_before_s = 0.0
        self._older_ns: int | None = None  # of the snapshot that was older than the newest one
        self._values = option_keys.values({table: empty(contract_of(table)) for table in option_keys.EXPOSURES})
        params = settings.analytics.exposure_history
        self._window = max(params.gamma_window, params.flow_window)

    @property
    def has_work(self) -> bool:
        """Whether something was read that was not parsed, or parsed that was not computed."""
        return self._is_unread or (self.is_heard and self.is_open and bool(self._pending))

    @property
    def is_out_of_hours(self) -> bool:
        """Whether what was read last would be shown if its market were open."""
        return self._is_usable and self.served is not None and not self.is_heard

    def take(self, content: Content | None) -> None:
        """Note what was read; what is the same as before changes nothing, and where nothing is there the chain ends."""
        if content == self.content:
            return
        self.content, self._is_unread = content, content is not None
        if content is None:
            self.ts_event, self._rows, self._pending = None, None, frozenset()
            self._is_usable = self._is_malformed = False

    def work(self, now_ns: int, thread: Executor) -> tuple[int, frozenset[str]]:
        """Parse what was read, and compute it where what was before is known.

        Args:
            now_ns: The market's time, UTC ns.
            thread: In which the chain is opened.

        Returns:
            How many payloads or contracts could not be used, and the families that failed.
        """
        malformed = self._parsed() if self._is_unread else 0
        self.follow(max(now_ns, self.ts_event or 0), thread)
        failed: frozenset[str] = frozenset()
        if self.is_heard and self.is_open:
            for families, compute in ((_EXPOSED, self._expose), (_UNUSUAL, self._find_unusual)):
                if families <= self._pending and not self._is_computed(families, compute):
                    failed |= families
        return malformed, failed

    def follow(self, now_ns: int, thread: Executor) -> None:
        """Tell whether the chain is in its hours, and have it opened where it is for the first time."""
        self.is_heard = False
        if not self._is_usable or self.ts_event is None:
            return
        self.served = served_from(self._settings, self._instrument, now_ns)
        self.is_heard = now_ns >= self.served.start_ns
        has_begun = self.is_open or self._opening is not None
        if self.is_heard and not has_begun and time.monotonic() >= self._not_before_s:
            self._opening = thread.submit(past, self._settings, self.symbol, self.served.date, self.ts_event)

    def is_opened(self) -> bool:
        """Go on from what was before, once that is known; return whether that is so since this call."""
        if self._opening is None or not self._opening.done():
            return False
        done, self._opening = self._opening, None
        if error := done.exception():
            self._not_before_s = time.monotonic() + _AGAIN_S
            _LOG.error("a chain was not opened; it is tried again", symbol=self.symbol, error=repr(error))
            return False
        found, most = done.result(), self._settings.analytics.history_entries
        self.entries = {key: deque(entries, most) for key, entries in found.entries.items()}
        self._values = self._values.clear()
        self._add_values(found.values)
        self.is_open = True
        return True

    def has(self, family: str) -> bool:
        """Return whether a family has computed the newest snapshot, and that is to be shown."""
        return self.is_heard and self.is_open and self.ts_event is not None and family not in self._pending

    def _parsed(self) -> int:
        """Parse what was read; return how many payloads or contracts could not be used."""
        assert self.content is not None  # it is unread
        self._is_unread = self._is_usable = False
        try:
            self._is_usable, malformed = self._snapshot(self.content)
        except Exception as error:  # noqa: BLE001  # one symbol's chain is not the others' trouble
            if not self._is_malformed:
                _LOG.warning("a chain was left out", symbol=self.symbol, error=str(error))
            self._is_malformed = True
            return 1
        self._is_malformed = False
        return malformed

    def _snapshot(self, content: Content) -> tuple[bool, int]:
        """Note a snapshot that is newer than the one before.

        Returns:
            Whether the content is that or the same snapshot, and how many contracts of it could not be used.
        """
        if isinstance(content, bytes):
            source = redis_keys.OPTION_CHAIN.name(self.symbol)
            if chain_payload.ts_event_of(content, source=source) == self.ts_event:
                return True, 0
            parsed = chain_payload.rows_of(content, symbol=self.symbol)
        else:
            parsed = chain_payload.rows_of_greeks(content, symbol=self.symbol)
        rows, broken = parsed.rows, parsed.quarantined.height
        if not (rows["ts_expiry"] > rows["ts_event"]).any():
            return False, broken
        ts_event = int(rows["ts_event"].to_physical()[0])
        served_from(self._settings, self._instrument, ts_event)  # which refuses a time that no calendar has
        if self.ts_event is None or ts_event > self.ts_event or self._has_gone_back(ts_event):
            self.ts_event, self.has_gap = ts_event, broken > 0
            self._rows, self._pending = option_keys.known(rows, self.symbol, self._settings), frozenset(FAMILIES)
        return ts_event == self.ts_event, broken

    def _has_gone_back(self, ts_event: int) -> bool:
        """Return whether the market began anew in the past: an older snapshot, and then one that follows it.

        One alone came late. What was before then is another past.
        """
        older_ns, self._older_ns = self._older_ns, ts_event
        if ts_event == self.ts_event or older_ns is None or ts_event <= older_ns:
            return False
        self.is_open, self._older_ns = False, None
        return True

    def _is_computed(self, families: frozenset[str], compute: Callable[[pl.DataFrame], None]) -> bool:
        """Compute the newest snapshot; return whether that was possible."""
        assert self._rows is not None  # it is pending
        try:
            compute(self._rows)
        except Exception as error:  # noqa: BLE001  # one symbol's chain is not the others' trouble
            _LOG.error("a calculator failed", family=sorted(families), symbols=[self.symbol], error=repr(error))
            return False
        self._pending -= families
        self._rows = self._rows if self._pending else None
        return True

    def _expose(self, rows: pl.DataFrame) -> None:
        totals = option_keys.exposures(rows, self._settings)
        self._keep(option_keys.shown(totals, self._values, self._settings))
        self._add_values(option_keys.values(totals))

    def _find_unusual(self, rows: pl.DataFrame) -> None:
        self._keep({redis_keys.UNUSUAL: options.unusual(rows, self._settings)})

    def _keep(self, shown: Mapping[Key, pl.DataFrame]) -> None:
        for key, rows in shown.items():
            self.newest[key] = rows
            entries = redis_keys.history_entries(key, rows)[self.symbol]
            self.entries[key].extend(entries)
            self.new_entries.append((key, entries))

    def _add_values(self, values: pl.DataFrame) -> None:
        together = pl.concat([self._values, values]).group_by("exposure", maintain_order=True)
        self._values = together.tail(self._window).select(values.columns)
