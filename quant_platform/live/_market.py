"""What the `market:*` keys of one symbol say: a fold over its lines. When they are written: `market_keys`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import msgspec
import polars as pl
from polars import selectors
from redis.client import Pipeline

from quant_platform.calculators import bars
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.feeds import frames
from quant_platform.feeds.recorded import Wanted
from quant_platform.feeds.sheet import line_text
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import Key

_OBJECT_BYTES = 64  # of a bytes object, beside its content
_MINUTE = bars.BarParams(60)
_MINUTE_NS = 60_000_000_000
_DAY_NS = 86_400_000_000_000
_STREAMS = {Trade.table: redis_keys.TRADES, Quote.table: redis_keys.QUOTES, Book.table: redis_keys.DEPTH}
_BARS = redis_keys.BARS_1MIN
_LIST_LENGTH = _BARS.max_entries or 0


class Batch(NamedTuple):
    """Lines to parse (`name` is their symbol), or entries to write, but for `ts_written` (`name` is their Stream).

    Where it `follows` the batch before, the two were parsed from the same lines, and readers shall see both or none.
    """

    name: str
    lines: list[bytes]
    size: int
    follows: bool = False

    @classmethod
    def of(cls, name: str, lines: list[bytes], *, follows: bool = False) -> "Batch":
        return cls(name, lines, sum(map(len, lines)) + _OBJECT_BYTES * len(lines), follows)


@dataclass
class Market:
    """What one symbol's keys say, from its lines so far. Times are integer UTC ns."""

    wanted: Wanted
    place: int = 0
    parsers: dict[str, frames.State] = field(default_factory=lambda: dict.fromkeys(_STREAMS, frames.initial()))
    sequences: Counter[str] = field(default_factory=Counter)
    market_time: int = 0
    last: tuple[int, int, float | None] = (0, 0, None)  # ts_event, trade_id, price
    last_trade_id: int | None = None
    volume: float = 0.0
    volume_since: int | None = None
    quote: dict[str, Any] = field(default_factory=dict)
    book: dict[str, Any] = field(default_factory=dict)
    bar_state: bars.State = field(default_factory=bars.initial)
    bars: dict[int, dict[str, Any]] = field(default_factory=dict)
    bars_from: int = 0
    listed_to: int | None = 0  # the newest bar in the list; None: the list must be written whole
    is_list_expected: bool = False
    is_dirty: bool = False

    def entries(self, lines: list[bytes]) -> Iterator[Batch]:
        """Fold lines, and yield the Streams' entries that they give."""
        texts = line_text(b"\n".join(lines)).split("\n")
        numbered = pl.DataFrame({"place": range(self.place, self.place + len(texts)), "text": texts})
        self.place += len(texts)
        self.is_dirty, follows = True, False
        for table, key in _STREAMS.items():
            self.parsers[table], found = frames.step(self.parsers[table], numbered, replace(self.wanted, table=table))
            if found.rows.is_empty():
                continue
            rows = found.rows.with_columns(selectors.temporal().to_physical())
            self._fold(table, rows)
            numbers = pl.int_range(1, rows.height + 1) + self.sequences[table]
            self.sequences[table] += rows.height
            fields = rows.with_columns(ts="ts_event", seq=numbers).select(key.fields[1:])
            entries = redis_keys.json_lines(fields)
            yield Batch.of(key.name(self.wanted.symbol), entries, follows=follows)
            follows = True

    def write(self, pipe: Pipeline, ts_written: int, ttl_s: int) -> int:
        """Queue what writes the strings and the bars, EXPIRE of the bars last; return how many commands."""
        before, symbol = len(pipe), self.wanted.symbol
        if self.quote or self.volume_since:
            ts = max(self.last[0], self.quote.get("ts_event", 0))
            ticker = {
                "last_trade_id": self.last_trade_id,
                "last": self.last[2],
                "bid": self.quote.get("bid_price"),
                "ask": self.quote.get("ask_price"),
                "volume": self.volume if self.volume_since else None,
                "volume_since": self.volume_since,
            }
            pipe.set(redis_keys.TICKER.name(symbol), self._payload(redis_keys.TICKER, ts, ts_written, ticker), ex=ttl_s)
        if self.book:
            book = {"bids": self._levels("bid"), "asks": self._levels("ask"), "sequence": self.book["sequence"]}
            payload = self._payload(redis_keys.BOOK, self.book["ts_event"], ts_written, book)
            pipe.set(redis_keys.BOOK.name(symbol), payload, ex=ttl_s)
        self._list(pipe, ts_written)
        pipe.expire(_BARS.name(symbol), ttl_s)
        self.is_dirty = False
        return len(pipe) - before

    def lost(self) -> None:
        """Have all of it written again."""
        self.is_dirty = True
        self.listed_to = None

    def _fold(self, table: str, rows: pl.DataFrame) -> None:
        newest = rows.row(-1, named=True)
        self.market_time = max(self.market_time, newest["ts_event"])
        if table == Quote.table:
            self.quote = newest
        elif table == Book.table:
            self.book = newest
        else:
            self._trade(rows, newest)

    def _trade(self, trades: pl.DataFrame, newest: dict[str, Any]) -> None:
        first, latest = trades["ts_event"][0], newest["ts_event"]
        self.last = max(self.last, (latest, newest["trade_id"], newest["price"]), key=lambda trade: trade[:2])
        midnight = latest // _DAY_NS * _DAY_NS
        if self.volume_since is None:
            self.volume_since = max(first, midnight)
            self.bars_from = (first // _MINUTE_NS + 1) * _MINUTE_NS  # of the minute before only a part came
        elif midnight > self.volume_since:
            self.volume, self.volume_since = 0.0, midnight
        self.volume += float(trades.filter(pl.col("ts_event") >= self.volume_since)["size"].sum())
        self.bar_state, touched = bars.step(self.bar_state, trades, _MINUTE)
        opening = pl.col("ts_event") // _MINUTE_NS * _MINUTE_NS
        last_ids = dict(trades.group_by(opening).agg(pl.col("last_trade_id").max()).rows())
        self.last_trade_id = max(self.last_trade_id or 0, *last_ids.values())
        for bar in touched.with_columns(selectors.temporal().to_physical()).rows(named=True):
            ts_open = bar["ts_open"]
            if ts_open >= self.bars_from:
                known = self.bars.get(ts_open, {"last_trade_id": 0})
                self.bars[ts_open] = bar | {"last_trade_id": max(known["last_trade_id"], last_ids[ts_open])}
                if self.listed_to and ts_open <= self.listed_to:
                    self.listed_to = None  # revised

    def _list(self, pipe: Pipeline, ts_written: int) -> None:
        """Queue what makes the list hold the bars that the market's time has passed."""
        closed = sorted(ts_open for ts_open in self.bars if ts_open + _MINUTE_NS <= self.market_time)
        if len(closed) > _LIST_LENGTH:
            closed = closed[-_LIST_LENGTH:]
            self.bars_from = closed[0]
            self.bar_state = bars.prune(self.bar_state, self.bars_from)
            self.bars = {ts_open: bar for ts_open, bar in self.bars.items() if ts_open >= self.bars_from}
        is_whole = self.listed_to is None
        new = [ts_open for ts_open in closed if ts_open > (self.listed_to or 0)]
        if new:
            name = _BARS.name(self.wanted.symbol)
            payloads = [self._payload(_BARS, ts_open + _MINUTE_NS, ts_written, self.bars[ts_open]) for ts_open in new]
            # Where the list is gone, LPUSHX does nothing, and EXPIRE will say so.
            (pipe.lpush if is_whole else pipe.lpushx)(name, *payloads)
            pipe.ltrim(name, 0, (len(new) if is_whole else _LIST_LENGTH) - 1)
        self.listed_to = closed[-1] if closed else 0
        self.is_list_expected = bool(closed) and not is_whole

    def _levels(self, side: str) -> list[tuple[float, float]]:
        levels = ((self.book[f"{side}_price_{i}"], self.book[f"{side}_size_{i}"]) for i in range(1, 6))
        return [level for level in levels if level[0] is not None]

    def _payload(self, key: Key, ts: int, ts_written: int, fields: dict[str, Any]) -> bytes:
        self.sequences[key.pattern] += 1
        written = {"ts_written": ts_written, "ts": ts, "seq": self.sequences[key.pattern], "symbol": self.wanted.symbol}
        payload = fields | written
        return msgspec.json.encode({name: payload[name] for name in key.fields})
