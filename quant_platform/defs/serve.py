"""`qp up`: the UI, the daemon, capture, live keys and report pages under one supervisor that leaves nothing behind."""

import contextlib
import functools
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import IO, Any

from quant_platform.defs.instance import PROJECT, dagster_instance
from quant_platform.pipeline.capture import THROUGH_SEGMENT
from quant_platform.pipeline.ledger import Ledger
from quant_platform.pipeline.units import UnitStatus
from quant_platform.settings import CAPTURED_FEEDS, Settings
from quant_platform.storage import live_store

HOST = "127.0.0.1"
_SERVED = ("reports", "quarantine")
_GRACE_S = 15


@dataclass(frozen=True)
class Replay:
    """What a replayed market is played from: a recorded date, its symbols, on which clock and how fast."""

    date: date
    symbols: tuple[str, ...]
    clock: str = "now"
    speed: float = 1.0


def serve(settings: Settings, *, say: Callable[[str], None], replay: Replay | None = None) -> int:
    """Run until Ctrl-C or SIGTERM, or until a child ends by itself; return the exit code.

    Args:
        settings: Where everything lies, and the ports.
        say: Told, in whole sentences, what was started and why it stopped, and what the children print.
        replay: A recorded market to capture; None captures the venues of platform.yaml.
    """
    ports = {"port": settings.ui.port, "files_port": settings.ui.files_port}
    for key, port in (ports | ({"replay_port": settings.ui.replay_port} if replay else {})).items():
        if _is_taken(port):
            say(f"Port {port} of {HOST} is taken: end what listens there, or set QP_UI__{key.upper()} to another one.")
            return 1
    dagster_instance(settings).dispose()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with (
        _redis(settings),
        _pages(settings.home, settings.ui.files_port),
        _children(_commands(settings, replay), _venues(settings, replay), say) as children,
    ):
        say(
            f"The UI is at http://{HOST}:{settings.ui.port}, the reports are at {settings.ui.files_url}/reports/. "
            "Ctrl-C stops all."
        )
        while not stop.wait(0.5):
            for name, child in children.items():
                if child.poll() is not None:
                    say(f"The {name} ended by itself with exit code {child.returncode}; the others are stopped too.")
                    return 1
        say("Stopping.")
    return 0


def newest_recorded(settings: Settings, day: date | None) -> Replay | None:
    """Return the market of a date, or of the newest one whose tape is whole; None where there is none.

    A replayed market is captured under its own date or today's: such dates are only played again when asked for.
    """
    ledger = Ledger(settings.ledger)
    held = [o for o in ledger.outcomes("market/trades", start=day, end=day) if o.status is UnitStatus.OK and o.rows]
    recorded = [o for o in held if day or THROUGH_SEGMENT not in o.facts]
    if not recorded:
        return None
    newest = max(o.unit.date for o in recorded)
    return Replay(newest, tuple(sorted(o.unit.symbol for o in recorded if o.unit.date == newest)))


def _commands(settings: Settings, replay: Replay | None) -> dict[str, list[str]]:
    bin_folder = Path(sys.executable).parent
    workspace = ["-w", str(PROJECT / "workspace.yaml")]
    commands = {
        "webserver": [str(bin_folder / "dagster-webserver"), "-h", HOST, "-p", str(settings.ui.port), *workspace],
        "daemon": [str(bin_folder / "dagster-daemon"), "run", *workspace],
    }
    qp = str(bin_folder / "qp")
    if replay is None:
        heard = [i for i in settings.instruments if i.feed in CAPTURED_FEEDS or i.polled_chain]
        symbols = [i.symbol for i in heard if not i.is_simulated]
        names = ["--symbols", ",".join(symbols)]
        return commands | ({"collector": [qp, "collect", *names], "live": [qp, "live", *names]} if symbols else {})
    names = ["--symbols", ",".join(replay.symbols)]
    what = ["--date", replay.date.isoformat(), "--clock", replay.clock, "--speed", str(replay.speed)]
    return {
        "replay": [qp, "replay", *names, *what, "--port", str(settings.ui.replay_port)],
        "collector": [qp, "collect", *names],
        "live": [qp, "live", *names],
        **commands,
    }


def _venues(settings: Settings, replay: Replay | None) -> dict[str, str]:
    """Return the environment in which the children find the venues: at the replay, where there is one."""
    if replay is None:
        return {}
    address = f"{HOST}:{settings.ui.replay_port}"
    return {
        f"QP_FEEDS__{feed.upper()}__{kind.upper()}_URL": f"{scheme}://{address}/{path}"
        for feed, path in (("binance_usdm", "usdm"), ("binance_spot", "spot"))
        for kind, scheme in (("ws", "ws"), ("rest", "http"))
    } | {
        "QP_FEEDS__DERIBIT__REST_URL": f"http://{address}/api/v2",
        # What is of today is not of a replayed market: its chains are not there, and nobody is asked for VIX1D.
        "QP_FEEDS__CBOE__CHAINS_URL": f"http://{address}/cboe",
        "QP_FEEDS__CBOE__VIX1D_URL": "",
        "QP_FEEDS__VIX1D__YAHOO_URL": "",
        # The demo records a chain every two hours; between two of them the one before is what there is.
        "QP_ANALYTICS__MAX_AGE_S__CHAIN": "7500",
    }


def _redis(settings: Settings) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if settings.redis_url else live_store.Server(settings)


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


@contextlib.contextmanager
def _children(
    commands: dict[str, list[str]], environment: dict[str, str], say: Callable[[str], None]
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start each command in a process group of its own, pass on what it prints, and end the groups on the way out."""
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            children[name] = subprocess.Popen(
                command,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
            )
            threading.Thread(target=_pass_on, args=(name, children[name].stdout, say), daemon=True).start()
        yield children
    finally:
        # The leaders end their own code servers when asked kindly; what is left of a group then is killed.
        for child in children.values():
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)
        for child in children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
        for child in children.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _pass_on(name: str, lines: IO[bytes], say: Callable[[str], None]) -> None:
    for line in lines:
        say(f"{name:>9} | {line.decode(errors='replace').rstrip()}")


@contextlib.contextmanager
def _pages(home: Path, port: int) -> Iterator[None]:
    handler = functools.partial(_ReadOnlyPages, directory=str(home))
    with http.server.ThreadingHTTPServer((HOST, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="pages", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _ReadOnlyPages(http.server.SimpleHTTPRequestHandler):
    """Files below `reports/` and `quarantine/`, nothing else of QP_HOME."""

    def translate_path(self, path: str) -> str:
        """Map a URL to a file, or to one that does not exist where it lies outside what is served."""
        found = Path(super().translate_path(path)).resolve()
        roots = [(Path(self.directory) / name).resolve() for name in _SERVED]
        return str(found) if any(found.is_relative_to(root) for root in roots) else os.devnull + "/outside"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Stay quiet: the UI's log is the one to read."""
