"""`qp up`: the UI, the daemon and the report pages on 127.0.0.1 under one supervisor that leaves nothing behind."""

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
from pathlib import Path

from quant_platform.defs.instance import PROJECT, dagster_instance
from quant_platform.settings import Settings

HOST = "127.0.0.1"
_SERVED = ("reports", "quarantine")
_GRACE_S = 15


def serve(settings: Settings, *, say: Callable[[str], None]) -> int:
    """Run until Ctrl-C or SIGTERM, or until a child ends by itself; return the exit code.

    Args:
        settings: Where everything lies, and the ports.
        say: Told, in whole sentences, what was started and why it stopped.
    """
    for key, port in settings.ui.model_dump().items():
        if _is_taken(port):
            say(f"Port {port} of {HOST} is taken: end what listens there, or set QP_UI__{key.upper()} to another one.")
            return 1
    dagster_instance(settings).dispose()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    bin_folder = Path(sys.executable).parent
    workspace = ["-w", str(PROJECT / "workspace.yaml")]
    commands = {
        "webserver": [str(bin_folder / "dagster-webserver"), "-h", HOST, "-p", str(settings.ui.port), *workspace],
        "daemon": [str(bin_folder / "dagster-daemon"), "run", *workspace],
    }
    with _pages(settings.home, settings.ui.files_port), _children(commands) as children:
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


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


@contextlib.contextmanager
def _children(commands: dict[str, list[str]]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start each command in a process group of its own, and end the whole groups on the way out."""
    children: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            children[name] = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
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
