"""The writer's heartbeat: what it did, how fast, and what goes wrong again and again."""

from collections import Counter
from collections.abc import Collection, Mapping

import msgspec
import structlog

from quant_platform.settings import Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.live_store import Batch

_LOG = structlog.get_logger()
_GROWTHS = 3


class Heart:
    """What one heartbeat after the other tells; `last_updates`, `overruns` and `cycle_ms` are set from outside."""

    def __init__(self, settings: Settings, started_ns: int) -> None:
        self._cadence_hz = settings.analytics.cadence_hz
        names = list(type(settings.analytics.update_intervals).model_fields)
        self.last_updates: dict[str, int | None] = dict.fromkeys(names)
        self.overruns = 0
        self.cycle_ms = 0.0
        self._started_ns = started_ns
        self._errors = dict.fromkeys(names, 0)
        self._growths: Counter[str] = Counter()

    def beat(
        self,
        batch: Batch,
        errors: Mapping[str, int],
        tried: Collection[str],
        ts_written: int,
        *,
        is_running: bool,
        **counts: int | str,
    ) -> None:
        """Queue the heartbeat; log an error when a family has failed in three of its turns in a row.

        Args:
            batch: Where to.
            errors: Failures of each family since the start.
            tried: The families that had a turn since the last heartbeat; of the others it says nothing new.
            ts_written: Our wall clock, UTC ns.
            is_running: False in the last one.
            counts: Further fields: `state`, `idle_symbols`, `opening_symbols`, `malformed`.
        """
        for name in tried:
            has_grown = errors.get(name, 0) > self._errors[name]
            self._growths[name] = self._growths[name] + 1 if has_grown else 0
            self._errors[name] = errors.get(name, 0)
            if self._growths[name] == _GROWTHS:
                _LOG.error("a calculator fails again and again", family=name, errors=self._errors[name])
        payload = {
            "ts_written": ts_written,
            "running": is_running,
            "cadence_hz": self._cadence_hz,
            "last_updates": self.last_updates,
            "error_counts": self._errors,
            "failing": [name for name, times in self._growths.items() if times >= _GROWTHS],
            "overruns": self.overruns,
            "cycle_ms": round(self.cycle_ms, 3),
            "started_at": self._started_ns,
            **counts,
        }
        key = redis_keys.HEARTBEAT
        batch.set(key.name(), msgspec.json.encode({name: payload[name] for name in key.fields}), key.ttl_s or 0)
