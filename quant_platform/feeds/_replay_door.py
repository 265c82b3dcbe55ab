"""The replayed venue's door: WebSocket connections and REST requests on one port."""

import asyncio
import random
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from quant_platform.feeds import _replay_rest as rest
from quant_platform.feeds._replay_chains import ROOT as CHAINS
from quant_platform.feeds._replay_chains import Chains, Moved
from quant_platform.feeds._replay_client import Client
from quant_platform.feeds._replay_timeline import KEYS_PER_MARKET
from quant_platform.feeds._replay_venue import VENUES, Replay

_MS_NS = 1_000_000


class Door:
    """Who may come in, and what they get.

    Args:
        replay: The venue behind it.
        chains: The option chains of the date.
    """

    def __init__(self, replay: Replay, chains: Chains) -> None:
        self._replay, self._chains = replay, chains
        self._random = random.Random(f"{replay.faults.seed}:rest")  # noqa: S311  # faults, not secrets

    async def connected(self, socket: ServerConnection) -> None:
        """Serve one WebSocket connection until it ends."""
        assert socket.request is not None
        parts = urlsplit(socket.request.path)
        prefix, kind, *streams = parts.path.strip("/").split("/")
        venue, loop = VENUES[prefix], asyncio.get_running_loop()
        is_combined = kind == "stream"
        if is_combined:
            streams = dict(parse_qsl(parts.query)).get("streams", "").split("/")
        keys = {
            market.venue_symbol.lower(): number * KEYS_PER_MARKET
            for number, market in enumerate(self._replay.markets)
            if market.venue == venue
        }
        client = Client(socket, venue=venue, is_combined=is_combined, first_key_of=keys.get, since=loop.time())
        if not client.subscribe(filter(None, streams)):
            await socket.close(CloseCode.POLICY_VIOLATION, "Too many streams")
            return
        self._replay.clients.add(client)
        if client.heads:
            self._replay.subscribed.set()
        cut_s = self._replay.faults.disconnect_every_s
        cut = loop.call_later(cut_s, self._cut, client) if cut_s else None
        try:
            await client.listen(self._replay.subscribed.set)
        finally:
            self._replay.clients.discard(client)
            if cut:
                cut.cancel()

    def _cut(self, client: Client) -> None:
        self._replay.counted["disconnect"] += 1
        if self._replay.counted["disconnect"] % 2:
            client.socket.transport.abort()
        else:
            self._replay.close(client, CloseCode.GOING_AWAY, "")

    async def asked(self, _: ServerConnection, request: Request) -> Response | None:
        """Answer a REST request; None where it asks for a WebSocket."""
        parts = urlsplit(request.path)
        prefix, _slash, path = parts.path.strip("/").partition("/")
        if parts.path == "/replay/status":
            return _response(rest.Answer(200, self._replay.status()))
        venue = VENUES.get(prefix)
        is_socket = path.split("/")[0] in {"ws", "stream"}
        if venue and is_socket and request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        root = CHAINS if parts.path.startswith(CHAINS) else f"/{prefix}{rest.ROOTS[venue]}" if venue else None
        if root is None or not parts.path.startswith(root):
            return _response(rest.Answer(404, {"code": -5000, "msg": f"Path {parts.path} is invalid."}))
        if fault := self._fault():
            return fault
        method, query = parts.path.removeprefix(root), dict(parse_qsl(parts.query))
        if venue is None:
            return _response(await self._of_chains(method, query))
        question = rest.Asked(venue, method, query, bool(request.headers.get("X-MBX-APIKEY")))
        return _response(await self._of_market(question))

    def _fault(self) -> Response | None:
        faults, chance = self._replay.faults, self._random.random()
        for status, share in ((429, faults.rest_429_share), (500, faults.rest_500_share)):
            if chance < share:
                self._replay.counted[f"rest_{status}"] += 1
                return _response(rest.Answer(status, {"code": -1003, "msg": "A fault of the replay."}), retry_after_s=1)
            chance -= share
        return None

    async def _of_market(self, question: rest.Asked) -> rest.Answer:
        markets = {m.venue_symbol: m for m in self._replay.markets if m.venue == question.venue}
        until, venue_ms = self._replay.made_until(), self._replay.venue_ns() // _MS_NS
        if question.method == "depth":  # it reads what the event loop writes
            return rest.answer(question, markets, made_until=until, venue_ms=venue_ms)
        return await asyncio.to_thread(rest.answer, question, markets, made_until=until, venue_ms=venue_ms)

    async def _of_chains(self, method: str, query: dict[str, str]) -> rest.Answer:
        at_ns, shift_ns = self._replay.recorded_at()
        moved = Moved.by(shift_ns)
        return await asyncio.to_thread(self._chains.answer, method, query, at_ns=at_ns, moved=moved)


def _response(answer: rest.Answer, retry_after_s: int | None = None) -> Response:
    body = msgspec.json.encode(answer.body)
    headers = Headers(
        [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
    )
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    return Response(answer.status, HTTPStatus(answer.status).phrase, headers, body)
