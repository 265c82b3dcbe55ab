"""A venue on 127.0.0.1 that does what a test tells it, over real sockets; and what a collector made of it.

Trades are told by hand: ids from 1, three of them an aggregate, as much time apart as the test likes.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from quant_platform.settings import BinanceFeed, Feeds, Instrument, Settings, load_settings
from quant_platform_tests.outside import NOBODY_ASKED

START_MS = 1_723_161_255_000
AGGREGATED = 3


class Scripted(NamedTuple):
    """An answer that REST gives once, instead of its own."""

    status: int
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed
    body: bytes = b"{}"


class Asked(NamedTuple):
    at_s: float
    path: str
    query: dict[str, str]
    headers: Headers


@dataclass
class Venue:
    """The server, and what it knows.

    Attributes:
        made: How many trades were made of each wire symbol; REST knows of these.
        unknown: Ids that REST does not have.
        scripted: What REST answers first; None is its own answer.
        asked: What REST was asked.
        update_id: Of the book.
    """

    step_ms: int = 10
    root: str = "/fapi/v1/"
    made: Counter[str] = field(default_factory=Counter)
    unknown: set[int] = field(default_factory=set)
    scripted: deque[Scripted | None] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    update_id: int = 1_000
    quote_id: int = 1_000
    connections: list[tuple[ServerConnection, list[str]]] = field(default_factory=list)
    opened: int = 0
    port: int = 0
    _server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve, "127.0.0.1", self.port, process_request=self._answered, compression=None, ping_interval=None
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server
        self._server.close()
        await self._server.wait_closed()

    def feed(self, **more: Any) -> BinanceFeed:
        address = f"127.0.0.1:{self.port}"
        return BinanceFeed(ws_url=f"ws://{address}", rest_url=f"http://{address}", archive_url="file:///none", **more)

    def trade(self, symbol: str = "BTCUSDT") -> bytes:
        """Make the next trade; return its message."""
        self.made[symbol] += 1
        return self.trade_message(self.made[symbol], symbol)

    def trade_message(self, trade_id: int, symbol: str = "BTCUSDT") -> bytes:
        data = {"e": "trade", "E": self.ms(trade_id), "T": self.ms(trade_id), "s": symbol, "t": trade_id}
        data |= {"p": "100.5", "q": "0.5", "X": "MARKET", "m": trade_id % 2 == 0}
        return _message(f"{symbol.lower()}@trade", data)

    def quote(self, symbol: str = "BTCUSDT") -> bytes:
        self.quote_id += 1
        ms = self.ms(self.made[symbol])
        data = {"e": "bookTicker", "u": self.quote_id, "s": symbol, "b": "100.4", "B": "1", "a": "100.6", "A": "2"}
        return _message(f"{symbol.lower()}@bookTicker", data | {"T": ms, "E": ms})

    def depth(self, symbol: str = "BTCUSDT", *, previous: int | None = None, ms: int | None = None) -> bytes:
        before, self.update_id = self.update_id, self.update_id + 2
        ms = self.ms(self.made[symbol]) if ms is None else ms
        data = {"e": "depthUpdate", "E": ms, "T": ms, "s": symbol, "U": before + 1, "u": self.update_id}
        levels = {"b": [["100.4", "1"]], "a": []}
        return _message(
            f"{symbol.lower()}@depth@100ms", data | {"pu": before if previous is None else previous} | levels
        )

    def aggregate(self, number: int, symbol: str = "BTCUSDT") -> dict[str, Any] | None:
        """Return the aggregate of a number, of what was made by now."""
        first = AGGREGATED * number + 1
        last = min(first + AGGREGATED - 1, self.made[symbol])
        ids = [i for i in range(first, last + 1) if i not in self.unknown]
        if not ids:
            return None
        values = {"a": number, "p": "100.5", "q": f"{0.5 * len(ids)}", "f": ids[0], "l": ids[-1]}
        return values | {"T": self.ms(ids[0]), "m": False}

    def ms(self, trade_id: int) -> int:
        return START_MS + self.step_ms * trade_id

    async def send(self, *messages: bytes | str) -> None:
        """Send each message to every connection that has its stream; what names none goes to all of them."""
        for message in messages:
            text = message.encode() if isinstance(message, str) else message
            try:
                stream = json.loads(text)["stream"]
            except (ValueError, KeyError, TypeError):
                stream = None
            for connection, streams in list(self.connections):
                if stream is None or stream in streams:
                    with suppress(ConnectionClosed):
                        await connection.send(message, text=True if isinstance(message, str) or stream else None)

    async def connected(self, count: int = 1) -> None:
        """Wait until so many connections stand."""
        await until(lambda: len(self.connections) >= count)

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request
        streams = parse_qs(urlsplit(connection.request.path).query)["streams"][0].split("/")
        entry = connection, streams
        self.opened += 1
        self.connections.append(entry)
        try:
            await connection.wait_closed()
        finally:
            self.connections.remove(entry)

    def _answered(self, _: ServerConnection, request: Request) -> Response | None:
        address = urlsplit(request.path)
        if address.path == "/stream":
            return None
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.asked.append(Asked(time.monotonic(), address.path, query, request.headers))
        scripted = self.scripted.popleft() if self.scripted else None
        if scripted:
            return _response(scripted.status, scripted.body, scripted.headers)
        body = {"depth": self._depth, "aggTrades": self._aggregates, "historicalTrades": self._trades}
        return _response(200, json.dumps(body[address.path.removeprefix(self.root)](query)).encode(), {})

    def _depth(self, _: dict[str, str]) -> dict[str, Any]:
        return {"lastUpdateId": self.update_id, "E": 1, "T": 1, "bids": [["100.4", "1"]], "asks": [["100.6", "2"]]}

    def _aggregates(self, query: dict[str, str]) -> list[dict[str, Any]]:
        count = (self.made[query["symbol"]] + AGGREGATED - 1) // AGGREGATED
        start, end = int(query.get("startTime", 0)), int(query.get("endTime", 1 << 62))
        earliest = max((start - START_MS) // self.step_ms // AGGREGATED - 1, 0)
        found = (self.aggregate(n, query["symbol"]) for n in range(int(query.get("fromId", earliest)), count))
        return list(itertools.islice((a for a in found if a and start <= a["T"] <= end), int(query["limit"])))

    def _trades(self, query: dict[str, str]) -> list[dict[str, Any]]:
        ids = range(int(query["fromId"]), self.made[query["symbol"]] + 1)
        known = itertools.islice((i for i in ids if i not in self.unknown), int(query["limit"]))
        rest = {"price": "100.5", "qty": "0.5", "quoteQty": "50.25"}
        return [{"id": i, **rest, "time": self.ms(i), "isBuyerMaker": i % 2 == 0} for i in known]


def settings_for(home: Path, feed: BinanceFeed, *symbols: str, tape: str = "trades", **capture: Any) -> Settings:
    """Return settings that capture these symbols of USD-M from a venue, with short times."""
    instruments = tuple(
        Instrument(symbol=s, venue_symbol=s, feed="binance_usdm", tape=tape, tick_size=0.1, lot_size=0.001)
        for s in symbols or ("BTCUSDT",)
    )
    return Settings(
        home=home,
        feeds=Feeds(binance_usdm=feed),
        instruments=instruments,
        capture={"flush_s": 0.02, "silence_s": 20.0} | capture,
    )


@asynccontextmanager
async def qp_collect(root: Path, venue: Venue, *symbols: str) -> AsyncIterator[Settings]:
    """Run `qp collect` as a process over `root / "home"`; its log is `root / "log"`, and SIGTERM ends it well.

    Segments close every half second. Its settings are yielded.
    """
    row = "feed: binance_usdm, tick_size: 0.1, lot_size: 0.001"
    address = f"127.0.0.1:{venue.port}"
    (root / "platform.yaml").write_text(
        f"feeds: {{binance_usdm: {{ws_url: 'ws://{address}', rest_url: 'http://{address}'}}}}\n"
        "capture: {flush_s: 0.02, segment_s: 0.5}\n"
        "pipeline: {workers: 0}\n"
        "instruments:\n" + "".join(f"  - {{symbol: {s}, venue_symbol: {s}, {row}}}\n" for s in symbols)
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("QP_", "DAGSTER_"))}
    environment |= {**NOBODY_ASKED, "QP_HOME": str(root / "home"), "QP_CONFIG": str(root / "platform.yaml")}
    qp = str(Path(sys.executable).with_name("qp"))
    with (root / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(qp, "collect", env=environment, stdout=log, stderr=log)
    try:
        home = root / "home"
        yield load_settings(root / "platform.yaml").model_copy(
            update={"home": home, "lake_uri": (home / "lake").as_uri()}
        )
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0, (root / "log").read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Line(NamedTuple):
    ts_recv: int
    text: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.text)


def landed_lines(home: Path, symbol: str = "BTCUSDT") -> list[Line]:
    """Return the lines of the segments, and of the open one, in order."""
    folder = home / "landing/segments/binance_usdm" / symbol
    files = [*sorted(folder.glob("*.frames"))]
    lines = [line for path in files for line in path.read_bytes().split(b"\n") if line]
    return [Line(int(line.partition(b" ")[0]), line.partition(b" ")[2]) for line in lines]


@dataclass
class Account:
    """What became of each trade id: how often it was landed, and which are on record as not to be had."""

    landed: Counter[int]
    told: dict[tuple[int, int], str | None]

    @property
    def lost(self) -> set[int]:
        return {i for (a, b), by in self.told.items() if by is None for i in range(a, b + 1)}

    def require_each_once(self, ids: Iterable[int]) -> None:
        """Hold that each of these ids was landed exactly once, or is on record as lost; and that no other was."""
        wanted = set(ids)
        assert {i: n for i, n in self.landed.items() if n != 1} == {}
        assert wanted - self.landed.keys() - self.lost == set()
        assert self.landed.keys() - wanted == set()
        assert self.lost & self.landed.keys() == set()


def account_of(lines: Iterable[Line]) -> Account:
    """Count trades as the parser does: of a refilled aggregate those ids that lie in a hole, in each hole once."""
    landed: Counter[int] = Counter()
    told: dict[tuple[int, int], str | None] = {}
    refilled: Counter[tuple[int, int]] = Counter()
    for message in _decodable(lines):
        kind = str(message.get("stream", "")).partition("@")[2]
        data = message.get("data")
        if kind == "trade":
            landed[data["t"]] += 1
        elif kind == "aggTrade" and message.get("refill"):
            refilled[data["f"], data["l"]] += 1
        elif kind == "aggTrade":
            landed.update(range(data["f"], data["l"] + 1))
        elif kind == "gap":
            ids = data["first_id"], data["last_id"]
            assert ids not in told
            told[ids] = data["filled_by"]
    for (first, last), copies in refilled.items():
        holes = [range(a, b + 1) for (a, b), by in told.items() if by == "aggTrades" and a <= last and b >= first]
        assert copies <= len(holes), f"{copies} copies of {first} to {last} for the holes {holes}"
        landed.update(i for hole in holes for i in hole if first <= i <= last)
    return Account(landed, told)


def _decodable(lines: Iterable[Line]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            message = line.json
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if isinstance(message, dict):
            yield message


async def until(is_so: Any, within_s: float = 10.0) -> float:
    """Wait until something is so; return how long that took."""
    start = time.monotonic()
    while not is_so():
        assert time.monotonic() - start < within_s, "it never came to be"
        await asyncio.sleep(0.01)
    return time.monotonic() - start


def _message(stream: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


def _response(status: int, body: bytes, headers: dict[str, str]) -> Response:
    phrase = HTTPStatus(status).phrase
    every = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    return Response(status, phrase, Headers(every | headers), body)
