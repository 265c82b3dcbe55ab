"""The live keys of a date that lies in the lake: its last rows and its last chain, published anew and served once."""

import time
from datetime import date as Date  # noqa: N812  # `date` names parameters here

import polars as pl
import redis
import structlog

from quant_platform.contracts._schema import contract_of
from quant_platform.feeds import chain_payload, chain_snapshot
from quant_platform.feeds.option_chain import ChainError
from quant_platform.live.keys_view import Snapshot, snapshot
from quant_platform.live.writer import Writer
from quant_platform.pipeline import options
from quant_platform.settings import POLLED_FEEDS, Settings
from quant_platform.storage import chain_archive, redis_keys
from quant_platform.storage.lake import Lake
from quant_platform.storage.live_store import Server, connect

_LOG = structlog.get_logger()
_STREAMS = {
    "market/trades": redis_keys.TRADES,
    "market/quotes": redis_keys.QUOTES,
    "market/book": redis_keys.DEPTH,
}
_ROWS = 500
_LONGEST_S = 15.0
_PAUSE_S = 0.1


def rehearsed(settings: Settings, symbol: str, date: Date) -> Snapshot:
    """Return the keys of a symbol as the live writer serves them at the end of a date.

    Args:
        settings: The whole tree; its Redis is used, an embedded one only for as long as this takes.
        symbol: With a tape, quotes or books on that date.
        date: A trading date of the lake.

    Raises:
        LiveStoreError: There is no Redis to be had.
        redis.RedisError: It was lost.
    """
    wanted = {key.name(symbol) for key in redis_keys.METRICS if key is not redis_keys.MOC}
    lake = Lake(settings.lake_uri, assumed_latency_ms=settings.assumed_latency_ms)
    with Server(settings), connect(settings) as client:
        for table, key in _STREAMS.items():
            _publish(client, key, lake.scan(table, [symbol], date, date).tail(_ROWS).collect(), symbol, table)
        if _publish_chain(settings, client, symbol, date):
            wanted |= {key.name(symbol) for key in redis_keys.OPTION_METRICS}
        writer = Writer(settings, [symbol])
        try:
            deadline = time.monotonic() + _LONGEST_S
            while time.monotonic() < deadline:
                writer.cycle()
                found = snapshot(client, settings.instrument(symbol), time.time_ns())
                if all(row.is_there for row in found.rows if row.key in wanted):
                    break
                time.sleep(_PAUSE_S)
        finally:
            writer.close()
    return found


def _publish(client: redis.Redis, key: redis_keys.Key, rows: pl.DataFrame, symbol: str, table: str) -> None:
    if rows.is_empty():
        return
    ordered = rows.sort(contract_of(table).sorted_by)
    fields = ordered.with_columns(
        ts_written=pl.lit(time.time_ns()), ts="ts_event", seq=pl.int_range(1, rows.height + 1)
    ).select(key.fields)
    pipe = client.pipeline(transaction=True)
    for entry in redis_keys.json_lines(fields):
        pipe.xadd(key.name(symbol), {redis_keys.STREAM_FIELD: entry}, maxlen=redis_keys.STREAM_LENGTH)
    pipe.expire(key.name(symbol), redis_keys.MARKET_TTL_S)
    pipe.execute()


def _publish_chain(settings: Settings, client: redis.Redis, symbol: str, date: Date) -> bool:
    """Write the newest archived chain of a date; return whether there is one that can be used."""
    instrument = settings.instrument(symbol)
    if instrument.chain is None or instrument.chain.feed not in POLLED_FEEDS:
        return False
    paths = options.archived_day(settings, instrument, date)
    if not paths:
        return False
    try:
        rows = chain_snapshot.rows_of(instrument.chain.feed, chain_archive.read(paths[-1]), symbol=symbol).rows
    except (ChainError, chain_archive.UnreadableSnapshotError) as error:
        _LOG.warning("the newest chain is not shown", path=str(paths[-1]), error=str(error))
        return False
    if rows.height:
        payload = chain_payload.encoded(rows, ts_written=time.time_ns(), seq=1)
        client.set(redis_keys.OPTION_CHAIN.name(symbol), payload, ex=redis_keys.OPTION_CHAIN.ttl_s)
    return rows.height > 0
