"""The replayed venue itself: its clock, what it sends to whom, and what it counts. Sockets and HTTP are `replay`'s."""

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from websockets.frames import CloseCode

from quant_platform.feeds._replay_client import MOST_WAITING_BYTES, Client
from quant_platform.feeds._replay_faults import NOTES, Faults, Unruly, released_s
from quant_platform.feeds._replay_market import Market
from quant_platform.feeds._replay_messages import KINDS, SPOT, USDM, Shift
from quant_platform.feeds._replay_sources import First, Source
from quant_platform.feeds._replay_timeline import KEYS_PER_MARKET, Block, Played, blocks

Clock = Literal["now", "recorded"]
VENUES = {"usdm": USDM, "spot": SPOT}
_PREFIXES = {venue: prefix for prefix, venue in VENUES.items()}
_MESSAGES_PER_STEP = 4_096
_STEP_S = 0.005
_LONGEST_SLEEP_S = 0.1
_PATIENCE_S = 10.0
_AHEAD_BYTES = 1 << 20
_PAUSE_NS = 1_000_000_000
_MS_NS = 1_000_000


class Recorded(NamedTuple):
    """A market with where its messages come from, where each of those begins, and its greatest id that was landed."""

    market: Market
    sources: Sequence[Source]
    firsts: Sequence[First]
    landed_id: int | None


class Replay:
    """A recorded date as it is played.

    Args:
        recorded: The markets; one at least, with one source at least.
        clock: `recorded` keeps times and ids, and begins when somebody has subscribed; `now` shifts them so that the
            recording begins at `started_ns`, and plays it again when it has ended.
        speed: Seconds of the recording in one; 0 is as fast as clients take it, and waits while there is none.
        faults: What it does wrong.
        start: Where to begin, on the recording's clock.
        started_ns: The present, UTC ns.

    Attributes:
        port: Where it is served.
        ended: Set once the recording is over; with the clock `now` it never is.
        playing: The task that plays; set by who starts it.
        subscribed: Set once somebody has subscribed.
        clients: Those who are connected.
        markets: What is replayed.
        faults: What it does wrong.
        counted: Faults that are not a message's.
    """

    def __init__(
        self,
        recorded: Sequence[Recorded],
        *,
        clock: Clock,
        speed: float,
        faults: Faults,
        start: int,
        started_ns: int,
    ) -> None:
        self.port = 0
        self.ended = asyncio.Event()
        self.playing: asyncio.Task[None]
        self._clock, self._speed, self.faults, self._start = clock, speed, faults, start
        self._started_ns = started_ns
        firsts = [first for one in recorded for first in one.firsts]
        self._origin = max(min(first.at for first in firsts), start)
        self._played = [
            Played(one.market, one.sources, self._first_shift(one, firsts) if clock == "now" else Shift())
            for one in recorded
        ]
        self._first_ids = [min(_trade_ids(one), default=0) for one in recorded]
        self.markets = [one.market for one in recorded]
        self._names = {
            number * KEYS_PER_MARKET + kind: f"{market.venue_symbol.lower()}@{name}"
            for number, market in enumerate(self.markets)
            for name, kind in KINDS.items()
        }
        self.clients: set[Client] = set()
        self.subscribed = asyncio.Event()
        self._position = self._origin - 1
        # With the clock `now` the present goes on while the first messages are read.
        self._began_s = asyncio.get_running_loop().time() if clock == "now" else None
        self._sent, self._noted, self.counted = Counter[int](), Counter[tuple[int, int]](), Counter[str]()
        self._passes = [0]  # how much later than the recording its messages are, round by round
        self._blocks = self._rounds()
        self._block: Block | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def _first_shift(self, own: Recorded, every: Sequence[First]) -> Shift:
        """Return what makes the first message one of `started_ns`, and its ids ones that were never there before."""
        timed = min((f for f in every if f.venue_ns is not None), key=lambda f: f.at, default=None)
        origin = self._origin if timed is None or timed.venue_ns is None else timed.venue_ns - timed.at + self._origin
        trade_ids, landed = _trade_ids(own), own.landed_id
        update_ids = [first.update_id for first in own.firsts if first.update_id is not None]
        return Shift(
            time_ns=(self._started_ns - origin) // _MS_NS * _MS_NS,
            trade_id=max(0, landed + 1 - min(trade_ids)) if trade_ids and landed is not None else 0,
            # No venue makes an update a microsecond: what a later start begins with is above all that was before.
            update_id=self._started_ns // 1_000 - min(update_ids) if update_ids else 0,
        )

    @property
    def names(self) -> list[str]:
        """What is replayed, such as `usdm/btcusdt`."""
        return [f"{_PREFIXES[market.venue]}/{market.venue_symbol.lower()}" for market in self.markets]

    def status(self) -> dict[str, Any]:
        """Return what was sent by stream, the faults done, the trades that are nowhere, and where the replay is."""
        faults: dict[str, Any] = {}
        for (note, key), count in sorted(self._noted.items()):
            faults.setdefault(NOTES[note], Counter())[self._label(key)] += count
        until = self.made_until()
        return {
            "replay_time_ns": until,
            "venue_time_ns": self.venue_ns(),
            "ended": self.ended.is_set(),
            "connections": len(self.clients),
            "sent": {self._label(key): count for key, count in sorted(self._sent.items())},
            "faults": faults | dict(sorted(self.counted.items())),
            "lost": {
                name: [(first, last) for at, first, last in list(market.lost) if at <= until]
                for name, market in zip(self.names, self.markets, strict=True)
                if market.lost
            },
        }

    def _label(self, key: int) -> str:
        return f"{_PREFIXES[self.markets[key // KEYS_PER_MARKET].venue]}/{self._names[key]}"

    def made_until(self) -> int:
        """Return where the market is on the recording's clock; what is held back for a burst has been made."""
        if self._began_s is None or not self._speed or self.ended.is_set():
            return self._position
        return self._origin + int((asyncio.get_running_loop().time() - self._began_s) * self._speed * 1e9)

    def recorded_at(self) -> tuple[int, int]:
        """Return where the market is in the recording, whichever time it is played, and what times are shifted by."""
        until = self.made_until()
        later = self._passes[max(bisect_right(self._passes, until - self._origin) - 1, 0)]
        return until - later, self._ahead_ns + later

    def venue_ns(self) -> int:
        """Return what the venue's clock says."""
        return self.made_until() + self._ahead_ns

    @property
    def _ahead_ns(self) -> int:
        return self._started_ns - self._origin if self._clock == "now" else 0

    async def load(self) -> None:
        """Read the first messages.

        Raises:
            RecordedError: A file cannot be read.
        """
        self._block = await asyncio.to_thread(next, self._blocks, None)
        self._expect_snapshots()

    async def play(self, say: Callable[[str], None]) -> None:
        """Send the recording, until it ends or the task is cancelled.

        Raises:
            RecordedError: A file cannot be read.
        """
        if self._clock == "recorded":
            await self.subscribed.wait()
        if self._began_s is None:
            self._began_s = asyncio.get_running_loop().time()
        while self._block is not None:
            coming = asyncio.create_task(asyncio.to_thread(next, self._blocks, None))
            try:
                await self._send(self._block)
            finally:
                self._block = await coming
            self._expect_snapshots()
        self.ended.set()
        say("The recording has ended. Connections stay open, and silent.")

    def _expect_snapshots(self) -> None:
        if block := self._block:
            for place in block.snapshots:
                self._market(block, place).expect(block.data[place].decode())

    def _rounds(self) -> Iterator[Block]:
        """Yield the recording's blocks; with the clock `now` again and again, times and ids going on."""
        unruly, played = Unruly(self.faults, self._names), self._played
        while True:
            latest = self._origin
            for block in blocks(played, self._start, unruly):
                latest = int(block.at[-1]) if len(block.at) else latest
                yield block
            if self._clock == "recorded":
                return
            length = (latest - self._origin - played[0].shift.at_ns + _PAUSE_NS) // _MS_NS * _MS_NS
            played = [
                one._replace(
                    shift=Shift(
                        one.shift.at_ns + length,
                        one.shift.time_ns + length,
                        max(one.market.greatest_id + 1 - first_id, 0),
                        one.shift.update_id + length // 1_000,
                    )
                )
                for one, first_id in zip(played, self._first_ids, strict=True)
            ]
            self._passes.append(played[0].shift.at_ns)

    async def _send(self, block: Block) -> None:
        loop = asyncio.get_running_loop()
        start, count = 0, len(block.at)
        while start < count:
            if self._speed:
                released = self._released(loop.time())
                due = int(np.searchsorted(block.at, released, side="right"))
                if due <= start:
                    wait_s = (int(block.at[start]) - released) / self._speed / 1e9
                    await asyncio.sleep(min(max(wait_s, _STEP_S), _LONGEST_SLEEP_S))
                    continue
            else:
                await self._taken()
                due = count
            end = min(due, start + _MESSAGES_PER_STEP)
            self._push(block, start, end)
            self._position = int(block.at[end - 1])
            start = end
            await asyncio.sleep(0)

    def _market(self, block: Block, place: int) -> Market:
        return self.markets[int(block.key[place]) // KEYS_PER_MARKET]

    def _released(self, now_s: float) -> int:
        assert self._began_s is not None
        sent_s = released_s(now_s - self._began_s, self.faults.burst_every_s)
        return self._origin + int(sent_s * self._speed * 1e9)

    def _push(self, block: Block, start: int, end: int) -> None:
        first, last = np.searchsorted(block.books, (start, end))
        for place in block.books[first:last].tolist():
            self._market(block, place).fold(block.data[place].decode())
        keys, data, notes = block.send_key[start:end], block.data[start:end], block.note[start:end].tolist()
        counts = Counter(keys)
        if any(notes):
            self._noted.update(
                (note, key) for note, key in zip(notes, block.key[start:end].tolist(), strict=True) if note
            )
        now = asyncio.get_running_loop().time()
        for client in list(self.clients):
            if not client.is_open:
                self.clients.discard(client)
            elif not self._is_stalled(client, now):
                client.push(keys, data, notes)
                for key, heads in client.heads.items():
                    if counts[key]:
                        self._sent[key] += counts[key] * len(heads)
                if client.waiting_bytes > MOST_WAITING_BYTES:
                    self._let_go(client)

    def _is_stalled(self, client: Client, now: float) -> bool:
        every_s, stall_s = self.faults.stall_every_s, self.faults.stall_s
        is_stalled = bool(every_s and stall_s) and (now - client.since) % (every_s + stall_s) >= every_s
        if is_stalled and not client.was_stalled:
            self.counted["stall"] += 1
        client.was_stalled = is_stalled
        return is_stalled

    async def _taken(self) -> None:
        """Wait until somebody listens and nobody lags; who takes nothing for long is let go."""
        loop = asyncio.get_running_loop()
        since, lag = loop.time(), None
        while True:
            listening = [client for client in self.clients if client.is_open and client.heads]
            lagging = [client for client in listening if client.waiting_bytes > _AHEAD_BYTES]
            if listening and not lagging:
                return
            now_waiting = sum(client.waiting_bytes for client in lagging)
            if now_waiting != lag:
                since, lag = loop.time(), now_waiting
            elif lagging and loop.time() - since > _PATIENCE_S:
                for client in lagging:
                    self._let_go(client)
            await asyncio.sleep(0.001)

    def _let_go(self, client: Client) -> None:
        self.counted["too_slow"] += 1
        self.clients.discard(client)
        self.close(client, CloseCode.POLICY_VIOLATION, "Too slow")

    def close(self, client: Client, code: CloseCode, reason: str) -> None:
        """Begin the closing handshake with a client."""
        task = asyncio.create_task(client.socket.close(code, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _trade_ids(recorded: Recorded) -> list[int]:
    return [first.trade_id for first in recorded.firsts if first.trade_id is not None]
