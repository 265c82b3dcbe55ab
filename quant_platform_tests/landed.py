"""A small captured market: frames as a venue sends them, landed as segments."""

import json
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime

from quant_platform.feeds.binance import describe
from quant_platform.settings import Settings
from quant_platform.storage.landing import Writer

MS = 1_000_000


def at_ms(day: date, hour: float) -> int:
    """Return a time of a UTC date in ms."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000 + hour * 3_600_000)


def market(venue_symbol: str, start_ms: int, *, seconds: int, seed: int = 1, first_id: int = 1) -> list[bytes]:
    """Return `<receive time> <JSON>` lines: a snapshot, then each second a quote, a diff, and up to three trades."""
    rng, name = random.Random(seed), venue_symbol.lower()
    lines, update, trade, mid = [], 1_000, first_id, 1000

    def add(ms: int, message: dict) -> None:
        lines.append(f"{(ms + 20) * MS} {json.dumps(message, separators=(',', ':'))}".encode())

    bids, asks = ([[str(mid + side * k), "5"] for k in range(1, 8)] for side in (-1, 1))
    add(start_ms, {"lastUpdateId": update, "E": start_ms, "T": start_ms, "bids": bids, "asks": asks})
    for second in range(seconds):
        ms = start_ms + 1000 * second
        bid, ask = mid - 1, mid + 1
        quote = {"e": "bookTicker", "u": update + 1, "s": venue_symbol, "T": ms + 1, "E": ms + 2}
        quote |= {"b": str(bid), "B": str(rng.randint(1, 9)), "a": str(ask), "A": str(rng.randint(1, 9))}
        add(ms + 1, {"stream": f"{name}@bookTicker", "data": quote})
        diff = {"e": "depthUpdate", "E": ms + 3, "T": ms + 2, "s": venue_symbol, "U": update + 1, "u": update + 2}
        diff |= {"pu": update, "b": [[str(bid), str(rng.randint(1, 9))]], "a": [[str(ask), str(rng.randint(1, 9))]]}
        add(ms + 2, {"stream": f"{name}@depth@100ms", "data": diff})
        update += 2
        for n in range(rng.randint(0, 3)):
            print_ms, is_sale = ms + 100 + 200 * n, rng.random() < 0.5
            body = {"e": "trade", "E": print_ms + 1, "T": print_ms, "s": venue_symbol, "t": trade}
            body |= {"p": str(bid if is_sale else ask), "q": str(rng.randint(1, 20)), "X": "MARKET", "m": is_sale}
            add(print_ms, {"stream": f"{name}@trade", "data": body})
            trade += 1
        mid += rng.choice((0, 0, 0, 1, -1))
    return lines


def land(settings: Settings, symbol: str, *segments: Sequence[bytes]) -> None:
    """Land the lines, each sequence a closed segment."""
    writer = Writer(settings.landing, "binance_usdm", symbol, describe, segment_s=60, segment_bytes=1 << 26)
    for lines in segments:
        for line in lines:
            received, _, payload = line.partition(b" ")
            writer.append([int(received), payload, *describe(payload)])
        writer.roll()
    writer.close()
