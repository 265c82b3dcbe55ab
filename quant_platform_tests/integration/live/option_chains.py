"""Small option chains in a real Redis, and a live writer over them, for the tests of the keys of options."""

import json
import time
from datetime import UTC, date, datetime

import polars as pl

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.options import OptionChain
from quant_platform.feeds import chain_payload
from quant_platform.live.writer import Writer
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import redis_keys

S = 1_000_000_000
NOON = 1_723_118_400 * S  # date -u -d 2024-08-08T12:00 +%s
EXPIRY = date(2024, 8, 23)
TS_EXPIRY = datetime(2024, 8, 23, 8, tzinfo=UTC)
SPOT = 100.0
CONTRACTS = (
    # type, strike, iv, delta, gamma, open interest, volume
    ("C", 95.0, 0.50, 0.70, 0.020, 200.0, 10.0),
    ("C", 105.0, 0.45, 0.26, 0.018, 300.0, 50.0),
    ("P", 95.0, 0.55, -0.24, 0.017, 400.0, 20.0),
    ("P", 105.0, 0.48, -0.70, 0.021, 3.0, 5.0),  # too little open interest to count
)
INTERVALS = dict.fromkeys(("gex_dex", "dealer_flows", "volatility", "unusual_activity"), 1)
NAMES = {key.metric: key for key in redis_keys.OPTION_METRICS}


def settings_of(home, *with_chain, without=(), calendar="24/7", **analytics):
    """Return settings of symbols with a chain of Deribit, and of others; all families run in every cycle."""
    row = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001, "calendar": calendar, "sector": "coins"}
    chain = {"feed": "deribit", "venue_symbol": "BTC"}
    instruments = [Instrument(symbol=s, venue_symbol="X", chain=chain, **row) for s in with_chain]
    instruments += [Instrument(symbol=s, venue_symbol="X", **row) for s in without]
    analytics = {"cadence_hz": 1, "update_intervals": INTERVALS} | analytics
    return Settings(home=home, instruments=tuple(instruments), analytics=analytics)


def chain_rows(symbol="AAA", *, seconds=0, spot=SPOT, contracts=CONTRACTS, oi_factor=1.0, **others):
    """Return a chain so many seconds after noon, as a feed gives it."""
    rows = [
        {
            "ts_event": NOON + seconds * S,
            "ts_recv": NOON + seconds * S + 7,
            "symbol": symbol,
            "venue": "deribit",
            "contract": f"{symbol}-23AUG24-{strike:g}-{kind}",
            "type": kind,
            "strike": strike,
            "expiry": EXPIRY,
            "ts_expiry": TS_EXPIRY,
            "multiplier": 1.0,
            "bid": 1.0,
            "ask": 1.2,
            "iv": iv,
            "delta": delta,
            "gamma": gamma,
            "open_interest": interest * oi_factor,
            "volume": volume,
            "underlying_price": spot,
        }
        | others
        for kind, strike, iv, delta, gamma, interest, volume in contracts
    ]
    schema = polars_schema(OptionChain)
    physical = {name: pl.Int64() if name in {"ts_event", "ts_recv"} else dtype for name, dtype in schema.items()}
    return pl.DataFrame(rows, schema=physical).cast(schema).sort(OptionChain.sorted_by)


def publish(client, rows, *, seq=1, ttl_s=60):
    """Put a chain where a poller puts it."""
    payload = chain_payload.encoded(rows, ts_written=time.time_ns(), seq=seq)
    client.set(f"options:{rows['symbol'][0]}:chain", payload, ex=ttl_s)


def payload(client, metric, symbol="AAA"):
    """Return what a key says; None where it is not there."""
    raw = client.get(NAMES[metric].name(symbol))
    return raw and json.loads(raw)


def history(client, metric, symbol="AAA"):
    """Return a metric's entries, oldest first."""
    return [json.loads(entry) for entry in client.lrange(f"analytics:{symbol}:{metric}:history", 0, -1)][::-1]


class Live:
    """A live writer whose cycles are run one by one."""

    def __init__(self, settings):
        self.writer = Writer(settings, [one.symbol for one in settings.instruments])

    def until(self, is_done, *, seconds=20.0):
        """Run cycles until something is so."""
        latest = time.monotonic() + seconds
        while not is_done():
            assert time.monotonic() < latest, "in vain"
            self.writer.cycle()
            time.sleep(0.01)

    def cycles(self, count):
        """Run so many cycles."""
        for _ in range(count):
            self.writer.cycle()
