"""A real HTTP server on loopback whose answers a test can script, and archive days made by hand."""

import datetime as dt
import hashlib
import threading
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from quant_platform.feeds.binance_archive import ArchiveDay, Fetched, archive_path
from quant_platform.feeds.download import Retry

Answer = Callable[["_Handler", bytes], None]


@dataclass
class Shelf:
    """What the server has, what it answers next, and what it was asked (path, Range)."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    next_answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    asked: list[tuple[str, str]] = field(default_factory=list)
    tag: str = '"v1"'
    has_ranges: bool = True

    def put(self, path: str, body: bytes, *, digest: str = "") -> None:
        """Shelve a file with its checksum, or with a wrong one."""
        self.files[path] = body
        digest = digest or hashlib.sha256(body).hexdigest()
        self.files[f"{path}.CHECKSUM"] = f"{digest}  {path.rsplit('/', 1)[-1]}\n".encode()

    def answer(self, path: str, *answers: Answer) -> None:
        """Give these answers, in turn, before the file itself."""
        self.next_answers[path] += answers

    @staticmethod
    def status(code: int, **headers: str) -> Answer:
        """Answer with a bare status."""

        def answer(handler: "_Handler", _: bytes) -> None:
            handler.send_response(code)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        return answer

    @staticmethod
    def instead(other: bytes) -> Answer:
        """Answer with another body."""

        def answer(handler: "_Handler", _: bytes) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(other)))
            handler.end_headers()
            handler.wfile.write(other)

        return answer

    @staticmethod
    def cut(handler: "_Handler", body: bytes) -> None:
        """Promise the whole, send the first half, hang up."""
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        if handler.server.shelf.tag:
            handler.send_header("ETag", handler.server.shelf.tag)
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.close_connection = True


class _Server(ThreadingHTTPServer):
    shelf: Shelf


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        shelf, path = self.server.shelf, self.path.lstrip("/")
        wanted = self.headers.get("Range", "")
        shelf.asked.append((path, wanted))
        body = shelf.files.get(path)
        if shelf.next_answers[path]:
            shelf.next_answers[path].pop(0)(self, body or b"")
            return
        if body is None:
            shelf.status(404)(self, b"")
            return
        is_part = bool(wanted) and shelf.has_ranges and self.headers.get("If-Range") == shelf.tag
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if is_part else 0
        if is_part and start >= len(body):
            shelf.status(416)(self, b"")
            return
        self.send_response(206 if is_part else 200)
        if is_part:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if shelf.tag:
            self.send_header("ETag", shelf.tag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """Serve a shelf on a free port of loopback."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.shelf = Shelf(url=f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
        thread.start()
        yield server.shelf
        server.shutdown()
        thread.join()


@pytest.fixture
def quick() -> Retry:
    """Retry four times, at once."""
    return Retry(attempts=4, first_wait_s=0.001, longest_wait_s=0.002)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record how long a retry would have slept, and do not sleep."""
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", slept.append)
    return slept


@pytest.fixture
def instrument() -> SimpleNamespace:
    return SimpleNamespace(symbol="BTC.PERP", venue_symbol="BTCUSDT", feed="binance_usdm", tape="trades")


@pytest.fixture
def archive_day(tmp_path: Path) -> Callable[..., ArchiveDay]:
    """Write a day's zip: a text for its one member, or `members` as they shall stand in it."""

    def write(text: str | bytes = "", *, kind: str = "trades", members: dict | None = None) -> ArchiveDay:
        path = tmp_path / Path(archive_path("binance_usdm", kind, "BTCUSDT", dt.date(2024, 8, 8))).name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in (members or {f"{path.stem}.csv": text}).items():
                archive.writestr(name, content)
        table = "market/quotes" if kind == "bookTicker" else "market/trades"
        return ArchiveDay(table=table, kind=kind, fetched=Fetched(path=path, sha256="0" * 64, url="file:///"))

    return write
