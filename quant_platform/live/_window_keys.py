"""What came under the `market:*` keys since the last look: Streams, a user's lists and strings. Rows: `_window_rows`.

Streams are read by one XREAD. A symbol without a Stream may have lists under the same names, newest first, which
are read without being consumed; and one without any of its own `ticker` and `book`. A key's type is looked up at the
start, every ten seconds where no Stream was seen, and when XREAD meets a key of another type.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import redis

from quant_platform.contracts._schema import Contract
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.live._window_rows import Entries, Notices
from quant_platform.storage import redis_keys

_STREAMS = {Trade: redis_keys.TRADES, Quote: redis_keys.QUOTES, Book: redis_keys.DEPTH}
_STRINGS = {Quote: redis_keys.TICKER, Book: redis_keys.BOOK}
_FIELD = redis_keys.STREAM_FIELD.encode()
_BEGINNING = b"0-0"
_RUN_ID = re.compile(rb"run_id:(\w+)")
_MOST_ENTRIES = 200_000  # of all streams, in one answer of Redis
_FEWEST_ENTRIES = 100
_ROUNDS = 5
_TYPES_AGAIN_S = 10.0
_CHECKED = 50  # streams a read: all of 500 symbols within 30 reads
_LIST_HEAD = 3
_LIST_DEPTH = 100
_WHOLE_LIST = 2 * redis_keys.STREAM_LENGTH
_LEVELS = 5

Table = type[Contract]


class _Place(NamedTuple):
    """Whose key it is."""

    table: Table
    code: int


class _Ticker(msgspec.Struct):
    """What is read of a ticker."""

    bid: float | None = None
    ask: float | None = None
    ts: int | None = None
    seq: int | None = None
    symbol: str | None = None


class _Book(msgspec.Struct):
    """What is read of a book."""

    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]
    ts: int | None = None
    sequence: int | None = None
    symbol: str | None = None


class Keys:
    """The keys of some symbols, and how far each was read.

    Args:
        names: The symbols; a symbol's code is its place among them.
        notices: Told of what cannot be read.
    """

    def __init__(self, names: Sequence[str], notices: Notices) -> None:
        self._names, self._notices = names, notices
        self._places = {
            key.name(symbol).encode(): _Place(table, code)
            for table, key in _STREAMS.items()
            for code, symbol in enumerate(names)
        }
        self._strings = {
            key.name(symbol).encode(): _Place(table, code)
            for table, key in _STRINGS.items()
            for code, symbol in enumerate(names)
        }
        self._found = _no_entries()
        self._ids: dict[bytes, bytes] = {}
        self._lists: dict[bytes, list[bytes]] = {}
        self._barred: set[bytes] = set()
        self._streamed: set[int] = set()
        self._texts: dict[bytes, bytes] = {}
        self._told: dict[bytes, tuple[int, int]] = {}
        self._count = max(_FEWEST_ENTRIES, _MOST_ENTRIES // max(len(self._places), 1))
        self._types_at_s: float | None = None
        self._run_id: bytes | None = None
        self._next_checked = 0

    def read(self, client: redis.Redis, now_ns: int, now_s: float) -> dict[Table, Entries]:
        """Return what came since the last call, oldest first under each key.

        Args:
            client: Of the Redis that holds the keys; its answers are bytes.
            now_ns: Our clock, UTC ns.
            now_s: The monotonic clock.

        Raises:
            redis.RedisError: Nothing is lost by it: the next call reads it.
        """
        found = self._found  # what was read before an error is still there
        if self._types_at_s is None:
            self._look_up(client, self._places, now_s)
            self._begin(client, found)
        elif now_s - self._types_at_s >= _TYPES_AGAIN_S:
            whole = (name for name, place in self._places.items() if place.code not in self._streamed)
            self._look_up(client, [*whole, *self._barred, *self._lists], now_s)
        self._read_streams(client, found, now_s)
        self._read_lists(client, found)
        self._read_texts(client, found, now_ns, now_s)
        self._found = _no_entries()
        return found

    def listed(self, table: Table) -> list[int]:
        """Return the codes of symbols whose rows of a table come as a list: `seq` is the user's affair there."""
        return [place.code for name in self._lists if (place := self._places[name]).table is table]

    def _begin(self, client: redis.Redis, found: Mapping[Table, Entries]) -> None:
        """Read what the streams hold, but of many streams only the newest entries."""
        names = self._streams()
        most = min(self._count, _WHOLE_LIST)
        answers = _pipelined(client, [(b"XREVRANGE", name, b"+", b"-", b"COUNT", most) for name in names])
        entries = {
            name: answer[::-1]
            for name, answer in zip(names, answers, strict=True)
            if not isinstance(answer, redis.RedisError)
        }
        self._ids = dict.fromkeys(names, _BEGINNING)
        self._take_in(entries, found)

    def _read_streams(self, client: redis.Redis, found: Mapping[Table, Entries], now_s: float) -> None:
        for _ in range(_ROUNDS):
            names = self._streams()
            if not names:
                return
            ids = [self._ids.setdefault(name, _BEGINNING) for name in names]
            read = (b"XREAD", b"COUNT", self._count, b"STREAMS", *names, *ids)
            checked = [names[(self._next_checked + k) % len(names)] for k in range(min(_CHECKED, len(names)))]
            self._next_checked = (self._next_checked + len(checked)) % len(names)
            info, answer, *newest = _pipelined(
                client, [(b"INFO", b"server"), read, *(_newest_of(name) for name in checked)]
            )
            if isinstance(answer, redis.RedisError):
                if not str(answer).startswith("WRONGTYPE"):
                    raise answer
                self._look_up(client, self._places, now_s)
                continue
            streams = dict(answer or ())
            self._take_in(streams, found)
            is_other = self._rewound(checked, newest)
            if self._is_other_server(info):
                is_other |= self._rewound(names, _pipelined(client, [_newest_of(name) for name in names]))
            if not is_other and all(len(entries) < self._count for entries in streams.values()):
                return

    def _is_other_server(self, info: Any) -> bool:
        found = _RUN_ID.search(info) if isinstance(info, bytes) else None
        before, self._run_id = self._run_id, found[1] if found else None
        return before is not None and self._run_id != before

    def _rewound(self, names: Iterable[bytes], newest: Iterable[Any]) -> bool:
        """Begin anew with streams that end before what was read of them: they are others. Return whether there are any.

        A server that was started anew, with a clock that was set back, gives lower ids.
        """
        is_any = False
        for name, entries in zip(names, newest, strict=True):
            if not isinstance(entries, redis.RedisError):
                last = entries[0][0] if entries else _BEGINNING
                if _order(last) < _order(self._ids[name]):
                    self._ids[name], is_any = _BEGINNING, is_any or bool(entries)
        return is_any

    def _take_in(self, streams: Mapping[bytes, Any], found: Mapping[Table, Entries]) -> None:
        for name, entries in streams.items():
            if not entries:
                continue
            table, code = self._places[name]
            self._ids[name] = entries[-1][0]
            self._streamed.add(code)
            found[table].add(code, _payloads(entries))

    def _look_up(self, client: redis.Redis, names: Iterable[bytes], now_s: float) -> None:
        """Find out which of the keys hold what."""
        names = list(dict.fromkeys(names))
        strings = [name for name, place in self._strings.items() if place.code not in self._streamed]
        types = _pipelined(client, [(b"TYPE", name) for name in (*names, *strings)])
        self._texts = {
            name: self._texts.get(name, b"")
            for name, kind in zip(strings, types[len(names) :], strict=True)
            if kind == b"string"
        }
        for name, kind in zip(names, types, strict=False):
            self._barred.discard(name)
            if kind == b"list":
                self._lists.setdefault(name, [])
            else:
                self._lists.pop(name, None)
            if kind == b"stream":
                self._streamed.add(self._places[name].code)
            elif kind not in (b"list", b"none"):
                self._barred.add(name)
                self._notices.counts["wrong_type"] += 1
                self._notices.say(
                    "market key of another type is not read",
                    self._names[self._places[name].code],
                    now_s,
                    key=name.decode(),
                    type=kind.decode(),
                )
        self._types_at_s = now_s

    def _streams(self) -> list[bytes]:
        if not self._lists and not self._barred:
            return list(self._places)
        return [name for name in self._places if name not in self._lists and name not in self._barred]

    def _read_lists(self, client: redis.Redis, found: Mapping[Table, Entries]) -> None:
        depths = {name: _LIST_DEPTH if head else _WHOLE_LIST for name, head in self._lists.items()}
        while depths:
            answers = _pipelined(client, [(b"LRANGE", name, 0, depth - 1) for name, depth in depths.items()])
            deeper = {}
            for (name, depth), entries in zip(depths.items(), answers, strict=True):
                if isinstance(entries, redis.RedisError):
                    continue  # it is of another type by now
                new = _before(entries, self._lists[name])
                if new is None and len(entries) == depth < _WHOLE_LIST:
                    deeper[name] = _WHOLE_LIST
                    continue
                table, code = self._places[name]
                found[table].add(code, (entries if new is None else new)[::-1])
                self._lists[name] = entries[:_LIST_HEAD]
            depths = deeper

    def _read_texts(self, client: redis.Redis, found: Mapping[Table, Entries], now_ns: int, now_s: float) -> None:
        """Read the tickers and books of symbols that have no Stream, where they changed."""
        names = [name for name in self._texts if self._is_needed(self._strings[name])]
        for name, text in zip(names, _pipelined(client, [(b"GET", name) for name in names]), strict=True):
            if not isinstance(text, bytes) or text == self._texts[name]:
                continue
            self._texts[name] = text
            table, code = self._strings[name]
            try:
                entry = self._quote(name, text, now_ns) if table is Quote else self._book(name, text, now_ns)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                self._notices.malformed(self._names[code], now_s, f"{name.decode()}: {error}", text)
                continue
            if entry:
                found[table].add(code, [msgspec.json.encode(entry)])

    def _is_needed(self, place: _Place) -> bool:
        stream = _STREAMS[place.table].name(self._names[place.code]).encode()
        return place.code not in self._streamed and stream not in self._lists

    def _quote(self, name: bytes, text: bytes, now_ns: int) -> dict[str, Any] | None:
        ticker = msgspec.json.decode(text, type=_Ticker)
        if ticker.bid is None and ticker.ask is None:
            return None
        prices = {"bid_price": ticker.bid, "ask_price": ticker.ask}
        return self._dated(name, ticker.ts, ticker.seq, now_ns) | {"symbol": ticker.symbol} | prices

    def _book(self, name: bytes, text: bytes, now_ns: int) -> dict[str, Any]:
        book = msgspec.json.decode(text, type=_Book)
        levels = {
            f"{side}_{what}_{place}": number
            for side, best_first in (("bid", book.bids), ("ask", book.asks))
            for place, level in enumerate(best_first[:_LEVELS], start=1)
            for what, number in zip(("price", "size"), level, strict=True)
        }
        return self._dated(name, book.ts, book.sequence, now_ns) | {"symbol": book.symbol} | levels

    def _dated(self, name: bytes, ts: int | None, sequence: int | None, now_ns: int) -> dict[str, Any]:
        """Return time and sequence; where the payload has none, the time of reading, which rises, and a count."""
        last_ts, last_sequence = self._told.get(name, (0, 0))
        told = max(now_ns, last_ts + 1) if ts is None else ts, last_sequence + 1 if sequence is None else sequence
        self._told[name] = told
        return {"ts_event": told[0], "sequence": told[1]}


def _no_entries() -> dict[Table, Entries]:
    return {table: Entries([], []) for table in _STREAMS}


def _pipelined(client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return the answers as Redis gave them, errors among them, from one round trip.

    The client translates the answers to commands that are texts; those to bytes it leaves alone, in half the time.
    """
    pipe = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)  # type: ignore[no-untyped-call]
    return pipe.execute(raise_on_error=False)


def _newest_of(name: bytes) -> tuple[Any, ...]:
    return b"XREVRANGE", name, b"+", b"-", b"COUNT", 1


def _order(entry_id: bytes) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split(b"-")))


def _payloads(entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[bytes]:
    """Return what stands in each entry under `data`; nothing where that is not there."""
    return [
        fields[1] if fields[0] == _FIELD else dict(zip(fields[::2], fields[1::2], strict=True)).get(_FIELD, b"")
        for _, fields in entries
    ]


def _before(entries: list[bytes], head: list[bytes]) -> list[bytes] | None:
    """Return the entries in front of those that were the first ones before; None where they are not there."""
    place = -1
    while head and head[0] in entries[place + 1 :]:
        place = entries.index(head[0], place + 1)
        again = entries[place : place + len(head)]
        if again == head[: len(again)]:
            return entries[:place]
    return None
