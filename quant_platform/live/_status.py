"""What a collector tells of itself while it runs: a file a process, `$QP_HOME/landing/collectors/<pid>.json`."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from quant_platform.live._channel import Channel
from quant_platform.storage.atomic import published


class StatusFile:
    """This process's file; those of processes that are no more go when it begins.

    Args:
        landing: The folder of raw inputs.
        ts_started: When the collector started, ns.
    """

    def __init__(self, landing: Path, ts_started: int) -> None:
        self._path = _folder(landing) / f"{os.getpid()}.json"
        self._ts_started = ts_started
        self._messages: dict[str, int] = {}
        self._written_s: float | None = None
        for path in _folder(landing).glob("*.json*"):  # those too that a killed process had not put in their place
            if not _is_alive(_pid(path)):
                path.unlink(missing_ok=True)

    def state(
        self,
        channels: Sequence[Channel],
        waiting: Sequence[str],
        errors: dict[str, str],
        now_s: float,
        chains: dict[str, dict[str, Any]],
    ) -> dict[str, Any]:
        """Return what is to be told.

        Args:
            channels: The symbols that are captured.
            waiting: Those that another process holds.
            errors: By symbol, why its lines are not on disk.
            now_s: The loop's time; messages a second are counted from the last call.
            chains: By symbol, how the polling of its chain fares.
        """
        passed_s = now_s - self._written_s if self._written_s is not None else 0.0
        symbols = {}
        for channel in channels:
            name = channel.instrument.symbol
            new = channel.messages - self._messages.get(name, 0)
            self._messages[name] = channel.messages
            symbols[name] = {
                "feed": channel.instrument.feed,
                "ts_event": channel.ts_event,
                "ts_recv": channel.ts_recv,
                "lag_ms": channel.lag_ms,
                "is_clock_behind": (channel.lag_ms or 0.0) < 0,
                "messages": channel.messages,
                "messages_per_s": round(new / passed_s, 1) if passed_s > 0 else 0.0,
                "last_trade_id": channel.last_trade_id,
                "open_gaps": [list(ids) for hole in channel.holes for ids in hole.missing],
                "duplicates": channel.duplicates,
                "undecodable": channel.undecodable,
                "reconnects": channel.reconnects,
                "bytes_buffered": channel.bytes_waiting,
                "disk_error": errors.get(name),
            }
        self._written_s = now_s
        return {
            "pid": os.getpid(),
            "ts_started": self._ts_started,
            "symbols": symbols,
            "chains": chains,
            "waiting": list(waiting),
        }

    def write(self, state: dict[str, Any]) -> None:
        """Put the file in its place, whole.

        Raises:
            OSError: The disk is full.
        """
        with published(self._path) as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")

    def remove(self) -> None:
        """Take the file away: the collector has ended."""
        self._path.unlink(missing_ok=True)


def read(landing: Path) -> list[dict[str, Any]]:
    """Return what the collectors that run tell of themselves, by process number."""
    found = []
    for path in sorted(_folder(landing).glob("*.json"), key=_pid):
        if _is_alive(_pid(path)):
            with suppress(FileNotFoundError):  # it has just ended
                found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def _folder(landing: Path) -> Path:
    return landing / "collectors"


def _pid(path: Path) -> int:
    return int(path.name.partition(".")[0])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
