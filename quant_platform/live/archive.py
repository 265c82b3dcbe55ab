"""A sample of what was served, on its way to the landing: payloads are handed over, and a thread appends them.

Who hands over never waits for the disk. Where the file lies, and how a line is spelled, is storage's business.
"""

import threading
from collections.abc import Mapping
from datetime import date as Date  # noqa: N812  # `date` names things elsewhere

import structlog

from quant_platform.settings import Settings
from quant_platform.storage import live_archive
from quant_platform.storage.redis_keys import Key

_GATHER_S = 1.0  # what comes together is appended together: one file is opened once
_MOST_WAITING_BYTES = 64_000_000
_STOP_S = 10.0
_LOG = structlog.get_logger()


class Archive:
    """The archive of served payloads, and the thread that writes it.

    Attributes:
        dropped: Payloads that are not archived, because the disk stood still or refused them.
    """

    def __init__(self, settings: Settings) -> None:
        self.dropped = 0
        self._landing = settings.landing
        self._waiting: dict[tuple[str, Date], list[bytes]] = {}
        self._waiting_bytes = 0
        self._is_refused = False
        self._lock = threading.Lock()
        self._has_work, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="live archive", daemon=True)
        self._thread.start()

    def put(self, date_of: Mapping[str, Date], key: Key, payloads: Mapping[str, bytes]) -> None:
        """Hand a sample over, and return at once.

        Args:
            date_of: The trading date of each symbol.
            key: The metric.
            payloads: By symbol, as served.
        """
        lines = {(symbol, date_of[symbol]): live_archive.line(key.metric, text) for symbol, text in payloads.items()}
        size = sum(map(len, lines.values()))
        with self._lock:
            if self._waiting_bytes + size > _MOST_WAITING_BYTES:
                self.dropped += len(lines)
                return
            self._waiting_bytes += size
            for place, line in lines.items():
                self._waiting.setdefault(place, []).append(line)
        self._has_work.set()

    def stop(self) -> None:
        """Write what waits, unless the disk stands still, and end the thread."""
        self._is_over.set()
        self._has_work.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._is_over.is_set() or self._waiting:
            self._has_work.wait()
            self._is_over.wait(_GATHER_S)
            self._has_work.clear()
            with self._lock:
                batch, self._waiting = self._waiting, {}
            for (symbol, date), lines in batch.items():
                self._append(symbol, date, lines)

    def _append(self, symbol: str, date: Date, lines: list[bytes]) -> None:
        together, lost = b"".join(lines), 0
        try:
            live_archive.append(live_archive.path(self._landing, symbol, date), together)
        except OSError as error:
            lost = len(lines)
            if not self._is_refused:
                _LOG.warning("served values are not archived: make room for the landing", error=str(error))
        self._is_refused = bool(lost)
        with self._lock:
            self.dropped += lost
            self._waiting_bytes -= len(together)
