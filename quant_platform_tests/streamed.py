"""Rows of the market as a publisher writes them into the Streams, and the same as lines that a collector lands."""

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl
import redis

from quant_platform.feeds.binance import describe
from quant_platform.live.window import Chunk, Window
from quant_platform.settings import Instrument, Settings
from quant_platform.storage.landing import Writer

NOON = 1_723_118_400_000_000_000  # date -u -d 2024-08-08T12:00 +%s, ns
MS = 1_000_000
DELAY = 3 * MS
Row = dict[str, Any]


def instruments(*symbols: str) -> tuple[Instrument, ...]:
    """Return instruments of one venue; the venue's names are theirs with USDT."""
    row = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    return tuple(Instrument(symbol=symbol, venue_symbol=f"{symbol}USDT", **row) for symbol in symbols)


def trade(ident: int, ms: float = 0, *, last: int | None = None, symbol: str = "AAA", **other: Any) -> Row:
    """Return a trade so many ms after noon; all together where `last` is given."""
    ids = {"trade_id": ident, "first_trade_id": ident, "last_trade_id": ident if last is None else last}
    return _row(symbol, ms) | ids | {"price": 100.0, "size": 1.0, "aggressor": 1} | other


def quote(sequence: int, ms: float = 0, *, seq: int | None = None, symbol: str = "AAA", **other: Any) -> Row:
    """Return a quote; its entry's number is its update id, where no other is given."""
    prices = {"bid_price": 99.0, "bid_size": 1.0, "ask_price": 101.0, "ask_size": 2.0}
    rest = {"sequence": sequence, "is_ts_event_assumed": False}
    return _row(symbol, ms, sequence if seq is None else seq) | prices | rest | other


def book(sequence: int, ms: float = 0, *, seq: int | None = None, symbol: str = "AAA", **other: Any) -> Row:
    """Return a book of one level a side."""
    levels = {f"{side}_{what}_{n}": None for side in ("bid", "ask") for what in ("price", "size") for n in range(1, 6)}
    levels |= {"bid_price_1": 99.0, "bid_size_1": 1.0, "ask_price_1": 101.0, "ask_size_1": 2.0}
    return _row(symbol, ms, sequence if seq is None else seq) | {"sequence": sequence} | levels | other


def publish(client: redis.Redis, rows: Mapping[str, Iterable[Row | bytes]], *, symbol: str = "AAA") -> None:
    """Add entries to the Streams of a symbol, by the last part of their names; bytes as they are."""
    with client.pipeline() as pipe:
        for stream, entries in rows.items():
            for entry in entries:
                pipe.xadd(f"market:{symbol}:{stream}", {"data": payload(entry)})
        pipe.execute()


def payload(entry: Row | bytes) -> bytes:
    """Return an entry as it is written."""
    return entry if isinstance(entry, bytes) else json.dumps(entry).encode()


def lines(*rows: Row, venue_symbol: str = "AAAUSDT") -> list[bytes]:
    """Return the venue's messages behind trades and quotes, as lines."""
    return [_line(row, venue_symbol) for row in rows]


def land(settings: Settings, *parts: list[bytes], symbol: str = "AAA", is_open: bool = False) -> Writer:
    """Land lines, each part a closed segment; the last one stays open where that is asked for."""
    writer = Writer(settings.landing, "binance_usdm", symbol, describe, segment_s=1e9, segment_bytes=1 << 30)
    for place, part in enumerate(parts, start=1):
        for line in part:
            received, _, message = line.partition(b" ")
            writer.append([int(received), message, *describe(message)])
        if is_open and place == len(parts):
            writer.flush()
        else:
            writer.roll()
    return writer


def ids(chunk: Chunk) -> list[int]:
    """Return the ids of the trades of a chunk."""
    return chunk.trades["trade_id"].to_list()


def both(window: Window, now_ns: int) -> Chunk:
    """Return what two takes release: with the second one goes what waited for what might have been on its way."""
    first, second = window.take(now_ns), window.take(now_ns)
    return Chunk(*(pl.concat(rows) for rows in zip(first, second, strict=True)))


def taken(window: Window, client: redis.Redis, *, until: int, timeout_s: float = 20.0) -> list[int]:
    """Return the ids of the trades that are released, read after read, up to one."""
    found: list[int] = []
    latest = time.monotonic() + timeout_s
    while until not in found:
        assert time.monotonic() < latest, f"in vain: {found[-5:]}"
        window.read(client)
        found += ids(window.take(time.time_ns()))
        time.sleep(0.02)
    return found


def _row(symbol: str, ms: float, seq: int = 1) -> Row:
    ts = NOON + int(ms * MS)
    return {"ts_written": ts + 2 * DELAY, "ts": ts, "seq": seq, "symbol": symbol, "ts_event": ts} | {
        "ts_recv": ts + DELAY,
        "venue": "binance_usdm",
    }


def _line(row: Row, venue_symbol: str) -> bytes:
    ms = row["ts_event"] // MS
    if "trade_id" in row:
        kind, data = "trade", {"t": row["trade_id"], "p": str(row["price"]), "q": str(row["size"]), "m": False}
    else:
        kind, data = "bookTicker", {"u": row["sequence"], "b": "99", "B": "1", "a": "101", "A": "2"}
    message = {"stream": f"{venue_symbol.lower()}@{kind}", "data": data | {"E": ms, "T": ms}}
    return f"{row['ts_recv']} {json.dumps(message, separators=(',', ':'))}".encode()
