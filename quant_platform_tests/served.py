"""A live writer that is driven cycle by cycle, the rows that it is given, and what it served."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import redis

from quant_platform.live.writer import Writer
from quant_platform.settings import Feeds, Instrument, RecordedLean, Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import Key
from quant_platform_tests.streamed import NOON, Row, book, quote, trade

BUCKET = 5.0
SOON_S = 20.0
_IN_EVERY_CYCLE = dict.fromkeys(("vpin", "flow_toxicity", "flow_clustering", "moc", "portfolio", "sectors"), 0.5)


def writer(home: Path, address: str, *instruments: Instrument, **analytics: Any) -> Writer:
    """Return a writer whose families all step in every cycle; VPIN's buckets are `BUCKET` large."""
    settings = Settings(
        home=home,
        redis_url=address,
        feeds=Feeds(recorded_lean=RecordedLean(path=home)),
        instruments=tuple(one.model_copy(update={"default_bucket_size": BUCKET}) for one in instruments),
        analytics={"update_intervals": _IN_EVERY_CYCLE} | analytics,
    )
    return Writer(settings, [one.symbol for one in instruments])


def payload(client: redis.Redis, key: Key, symbol: str = "AAA") -> dict[str, Any]:
    """Return the payload of a key, empty while there is none."""
    return json.loads(client.get(key.name(symbol)) or b"{}")


def heartbeat(client: redis.Redis) -> dict[str, Any]:
    """Return the heartbeat, empty while there is none."""
    return json.loads(client.get(redis_keys.HEARTBEAT.name()) or b"{}")


def cycles_until(writer: Writer, is_so: Callable[[], bool]) -> None:
    """Let cycles go on until something is so."""
    latest = time.monotonic() + SOON_S
    while not is_so():
        assert time.monotonic() < latest, "in vain"
        writer.cycle()
        time.sleep(0.01)


def seconds(first: int, last: int, start_ns: int, symbol: str = "AAA") -> Mapping[str, list[Row]]:
    """Return a quote, a trade of size 1 and a book a second, numbered first to last, the first ones at an instant."""
    at = [(k, (start_ns - NOON) / 1e6 + 1000 * (k - first)) for k in range(first, last + 1)]
    return {
        "quotes": [quote(k, ms, symbol=symbol) for k, ms in at],
        "trades": [trade(k, ms + 5, symbol=symbol, aggressor=1 if k % 3 else -1) for k, ms in at],
        "depth": [book(k, ms, symbol=symbol) for k, ms in at],
    }
