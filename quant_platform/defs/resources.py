"""What asset bodies are handed: the settings, the engine, and which symbols a run is for."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from quant_platform.defs.run_locks import run_lock
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.units import Outcome
from quant_platform.settings import Settings, load_settings

SYMBOLS_TAG = "qp/symbols"
DATE_TAG = "qp/date"
DESK_DATE_TAG = "qp/desk-date"
CLOSED_BEFORE_TAG = "qp/closed-before"


class Platform:
    """The platform as one resource, opened on first use and kept for the life of the process.

    Args:
        settings: The tree to use; read from platform.yaml and the environment when omitted.
        is_forced: Build again also what is up to date.

    Attributes:
        observers: Told of each unit's outcome, in the process that runs the asset.
    """

    def __init__(self, settings: Settings | None = None, *, is_forced: bool = False) -> None:
        self._settings = settings
        self.is_forced = is_forced
        self.observers: list[Callable[[Outcome], None]] = []
        self._lives: dict[str, FileLock] = {}

    @cached_property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings or load_settings()

    @cached_property
    def engine(self) -> Engine:
        """The engine; its pool starts with the first unit and ends with the process, or with `close`."""
        return Engine(self.settings)

    @property
    def run_locks(self) -> Path:
        """Where the locks of living runs lie."""
        return self.settings.home / "locks" / "runs"

    def live_as(self, run_id: str) -> None:
        """Hold the run's lock for as long as this process lives, unless whoever started it here holds it already."""
        if run_id not in self._lives:
            self._lives[run_id] = run_lock(self.run_locks, run_id)
            with suppress(Timeout):
                self._lives[run_id].acquire(timeout=0)

    def symbols(self, run_tags: Mapping[str, str]) -> list[str]:
        """Return the run's symbols: those of its `qp/symbols` tag, else every configured one.

        Raises:
            SettingsError: The tag names a symbol that platform.yaml does not have.
        """
        tag = run_tags.get(SYMBOLS_TAG, "").strip()
        if not tag:
            return [instrument.symbol for instrument in self.settings.instruments]
        return [self.settings.instrument(name.strip()).symbol for name in tag.split(",")]

    def closed_before(self, run_tags: Mapping[str, str]) -> datetime | None:
        """Return the time by which sessions must have ended for this run to close their dates; None: it closes none."""
        tag = run_tags.get(CLOSED_BEFORE_TAG)
        return datetime.fromisoformat(tag) if tag else None

    def close(self) -> None:
        """Stop the engine's pool, if it ever started, and let go of the runs' locks."""
        if "engine" in self.__dict__:
            self.engine.close()
        for lock in self._lives.values():
            lock.release()
