"""A venue of option chains on 127.0.0.1 that answers what a test tells it, over HTTP; and chains to answer with."""

import contextlib
import datetime as dt
import http.server
import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit


class Fault(NamedTuple):
    """What is answered once in place of the venue's own answer; with `is_cut`, less than its length says."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed
    is_cut: bool = False


class Asked(NamedTuple):
    at_s: float
    path: str
    query: dict[str, str]


class ChainVenue:
    """A server, as a context manager.

    Attributes:
        answers: The bodies by path; of `ticker` by path and the contract's name. What has none is 404.
        faults: What is answered first.
        asked: What was asked.
        most_at_once: How many requests were being answered at once at most.
        takes_s: How long an answer takes.
    """

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.faults: deque[Fault | None] = deque()
        self.asked: list[Asked] = []
        self.most_at_once, self.takes_s = 0, 0.0
        self._at_once, self._lock = 0, threading.Lock()
        venue = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                venue._answer(self)

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, path: str, content: Any) -> None:
        self.answers[path] = content if isinstance(content, bytes) else json.dumps(content).encode()

    def paths(self) -> list[str]:
        """Return what was asked, without the folder, in order."""
        return [one.path.rsplit("/", 1)[1] for one in self.asked]

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        address = urlsplit(request.path)
        query = dict(parse_qsl(address.query))
        with self._lock:
            self.asked.append(Asked(time.monotonic(), address.path, query))
            fault = self.faults.popleft() if self.faults else None
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.takes_s)
        name = f"{address.path} {query['instrument_name']}" if "instrument_name" in query else address.path
        body = self.answers.get(name)
        answer = fault or (Fault(200, body) if body is not None else Fault(404, b'{"error":{"code":13020}}'))
        with self._lock:
            self._at_once -= 1
        request.send_response(answer.status)
        for header, value in answer.headers.items():
            request.send_header(header, value)
        request.send_header("Content-Length", str(len(answer.body) + 100 * answer.is_cut))
        request.end_headers()
        with contextlib.suppress(BrokenPipeError):  # who asked was killed
            request.wfile.write(answer.body)


def cboe_chain(moment: dt.datetime, *, symbol: str = "_SPX", root: str = "SPXW", contracts: int = 4) -> dict[str, Any]:
    """Return Cboe's JSON of a moment: calls and puts a month ahead, at whole strikes from 4000 on."""
    expiry = moment.date() + dt.timedelta(days=30)
    names = [f"{root}{expiry:%y%m%d}{'CP'[k % 2]}{(4000 + k // 2) * 1000:08d}" for k in range(contracts)]
    figures = {"bid": 10.0, "ask": 10.5, "iv": 0.2, "open_interest": 100.0, "volume": 3.0, "delta": 0.5, "gamma": 0.01}
    options = [{"option": name, **figures} for name in names]
    return {
        "timestamp": f"{moment:%Y-%m-%d %H:%M:%S}",
        "data": {"symbol": symbol, "current_price": 4010.0, "options": options},
    }


def deribit_names(currency: str, expiries: Sequence[dt.date], strikes: Sequence[int]) -> list[str]:
    """Return the names of calls and puts."""
    days = [f"{day.day}{day:%b%y}".upper() for day in expiries]
    return [f"{currency}-{day}-{strike}-{right}" for day in days for strike in strikes for right in "CP"]


def deribit_lists(
    moment: dt.datetime, currency: str, expiries: Sequence[dt.date], strikes: Sequence[int] = (90_000, 100_000)
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return Deribit's instruments and book summaries at a moment; a summary's open interest is its number from 1."""
    names = deribit_names(currency, expiries, strikes)
    ms = int(moment.timestamp() * 1000)
    instruments = []
    for name in names:
        _, day, strike, right = name.split("-")
        settles = dt.datetime.strptime(f"{day} 08 +0000", "%d%b%y %H %z")
        instruments.append(
            {
                "instrument_name": name,
                "kind": "option",
                "base_currency": currency,
                "quote_currency": currency,
                "strike": float(strike),
                "option_type": {"C": "call", "P": "put"}[right],
                "creation_timestamp": ms - 86_400_000,
                "expiration_timestamp": int(settles.timestamp() * 1000),
            }
        )
    summaries = [
        {
            "instrument_name": name,
            "creation_timestamp": ms,
            "bid_price": 0.02,
            "ask_price": 0.03,
            "mark_iv": 55.5,
            "open_interest": float(number),
            "volume": 1.0,
            "underlying_price": 95_000.0,
            "underlying_index": f"{currency}-{name.split('-')[1]}",
        }
        for number, name in enumerate(names, start=1)
    ]
    return {"jsonrpc": "2.0", "result": instruments}, {"jsonrpc": "2.0", "result": summaries}
