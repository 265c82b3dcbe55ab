"""What the tests of the keys about many symbols put into Redis, and how they run the aggregator."""

import json
from concurrent.futures import wait

import numpy as np
import pytest

from quant_platform.live.aggregate import Aggregator
from quant_platform.settings import Instrument, Settings
from quant_platform.storage.live_store import Batch

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
MARKET = 1_723_075_200 * SECOND  # date -u -d 2024-08-08 +%s
NOW = MARKET + 1_000_000 * SECOND  # a replay: the wall clock is elsewhere
SECTORS = {"A": "s1", "B": "s1", "C": "s2"}
SUMMARY = "analytics:portfolio:summary"
CORRELATION = "analytics:portfolio:correlation"
DISCOVERED = "discovered:correlation_matrix"


def settings_of(home):
    row = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    instruments = tuple(
        Instrument(symbol=symbol, venue_symbol=f"{symbol}USDT", sector=sector, **row)
        for symbol, sector in SECTORS.items()
    )
    correlation = {"min_pairs": 3, "window_bars": 8}
    return Settings(home=home, instruments=instruments, analytics={"correlation": correlation})


class Cycles:
    """Runs an aggregator as the live writer does."""

    def __init__(self, settings, client):
        self.aggregator = Aggregator(settings, list(SECTORS))
        self._client = client

    def __call__(self, due, key=SUMMARY, now_ns=NOW, market_ns=MARKET):
        """Write what is due, correlations when they are ready, and return the payload of a key."""
        batch = Batch()
        self.aggregator.add(due, self._client, batch, now_ns, market_ns)
        if self.aggregator._computing is not None:
            wait([self.aggregator._computing])
            self.aggregator.add((), self._client, batch, now_ns, market_ns)
        batch.send(self._client)
        raw = self._client.get(key)
        return raw and json.loads(raw)


def put(client, name, *, ts=MARKET, ts_written=NOW, **fields):
    client.set(name, json.dumps({"ts": ts, "ts_written": ts_written} | fields))


def put_vpin(client, symbol, vpin, **times):
    put(client, f"analytics:{symbol}:vpin", vpin=vpin, **times)


def put_bars(client, symbol, closes, *, minute=0, seq=1):
    """Push bars as the collector does, one close a minute; None where nothing traded."""
    for k, close in enumerate(closes):
        if close is not None:
            bar = {"ts_open": MARKET + (minute + k) * MINUTE, "close": close, "seq": seq}
            client.lpush(f"market:{symbol}:bars:1min", json.dumps(bar))
            seq += 1


def correlation_of(x, y):
    return pytest.approx(np.corrcoef(np.diff(np.log(x)), np.diff(np.log(y)))[0, 1], abs=0.5e-6 + 1e-12)
