"""What asset bodies are handed: the settings, the engine, and which symbols a run is for."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property

from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.units import Outcome
from quant_platform.settings import Settings, load_settings

SYMBOLS_TAG = "qp/symbols"
DATE_TAG = "qp/date"
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

    @cached_property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings or load_settings()

    @cached_property
    def engine(self) -> Engine:
        """The engine; its pool starts with the first unit and ends with the process, or with `close`."""
        return Engine(self.settings)

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
        """Stop the engine's pool, if it ever started."""
        if "engine" in self.__dict__:
            self.engine.close()
