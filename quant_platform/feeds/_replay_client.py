"""One WebSocket connection to the replayed venue: what it subscribed to, and putting messages into its buffer."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

from quant_platform.feeds._replay_faults import MALFORMED, MALFORMED_BINARY, MALFORMED_HUGE, filled
from quant_platform.feeds._replay_messages import KINDS, SPOT, USDM

MOST_WAITING_BYTES = 64 << 20
_CONTROL_MESSAGES_PER_S = {USDM: 10, SPOT: 5}
_STREAMS = {USDM: 200, SPOT: 1_024}
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")


class Client:
    """One connection.

    Args:
        socket: It, open.
        venue: `binance_usdm` or `binance_spot`.
        is_combined: Whether messages come in an envelope that names the stream.
        first_key_of: The first stream's key of a symbol in lower case; None where it is not replayed.
        since: The event loop's time.
    """

    def __init__(
        self,
        socket: ServerConnection,
        *,
        venue: str,
        is_combined: bool,
        first_key_of: Callable[[str], int | None],
        since: float,
    ) -> None:
        self.socket, self.venue, self.since = socket, venue, since
        self.heads: dict[int, list[bytes]] = {}
        self.was_stalled = False
        self._is_combined, self._first_key_of = is_combined, first_key_of
        self._names: dict[str, None] = {}
        self._controlled: deque[float] = deque(maxlen=_CONTROL_MESSAGES_PER_S[venue])

    @property
    def waiting_bytes(self) -> int:
        """What it has not taken yet."""
        return self.socket.transport.get_write_buffer_size()

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent to it."""
        return self.socket.protocol.state is State.OPEN and not self.socket.transport.is_closing()

    def subscribe(self, names: Iterable[str]) -> bool:
        """Add streams; those that are not replayed are silent. Return whether the venue allows so many."""
        self._names |= dict.fromkeys(names)
        self._look_up()
        return len(self._names) <= _STREAMS[self.venue]

    def push(self, keys: list[int], data: list[bytes], notes: list[int]) -> None:
        """Put into its buffer what it subscribed to, without waiting."""
        heads, tail, protocol = self.heads, b"}" if self._is_combined else b"", self.socket.protocol
        for key, one, note in zip(keys, data, notes, strict=True):
            if key not in heads:
                continue
            if note == MALFORMED_BINARY:
                protocol.send_binary(one)
            elif note >= MALFORMED:
                protocol.send_text(filled(one) if note == MALFORMED_HUGE else one)
            else:
                for head in heads[key]:
                    protocol.send_text(head + one + tail)
        self.socket.transport.write(b"".join(protocol.data_to_send()))

    async def listen(self, subscribed: Callable[[], None]) -> None:
        """Answer control messages until the connection ends; `subscribed` is called when there is something to send."""
        try:
            async for message in self.socket:
                now = asyncio.get_running_loop().time()
                if len(self._controlled) == self._controlled.maxlen and now - self._controlled[0] < 1:
                    await self.socket.close(CloseCode.POLICY_VIOLATION, "Too many requests")
                    return
                self._controlled.append(now)
                await self.socket.send(msgspec.json.encode(self._answer(message)), text=True)
                if self.heads:
                    subscribed()
                if len(self._names) > _STREAMS[self.venue]:
                    await self.socket.close(CloseCode.POLICY_VIOLATION, "Too many streams")
        except ConnectionClosed:
            pass

    def _answer(self, message: str | bytes) -> dict[str, Any]:
        try:
            asked = msgspec.json.decode(message)
            ident = asked.get("id")
            method, names = asked.get("method"), asked.get("params", [])
        except (msgspec.DecodeError, AttributeError):
            return {"error": {"code": 3, "msg": "Invalid JSON: expected an object"}}
        if method not in _METHODS or not all(isinstance(name, str) for name in names):
            return {"error": {"code": 2, "msg": "Invalid request: unknown method or params"}, "id": ident}
        if method == "SUBSCRIBE":
            self.subscribe(names)
        elif method == "UNSUBSCRIBE":
            self._names = {name: None for name in self._names if name not in names}
            self._look_up()
        return {"result": list(self._names) if method == "LIST_SUBSCRIPTIONS" else None, "id": ident}

    def _look_up(self) -> None:
        self.heads = {}
        for name in self._names:
            symbol, _, kind = name.partition("@")
            first_key, position = self._first_key_of(symbol), KINDS.get(kind.partition("@")[0])
            if first_key is not None and position is not None:
                head = f'{{"stream":"{name}","data":'.encode() if self._is_combined else b""
                self.heads.setdefault(first_key + position, []).append(head)
