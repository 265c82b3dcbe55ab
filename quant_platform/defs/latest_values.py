"""The newest batch values under the live keys, for symbols whose market nobody hears: what a reader asks is the same.

Readers judge a value's age by its `ts`, so these live until the schedule has had two turns to renew them.
"""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import date
from typing import NamedTuple

import dagster as dg
import polars as pl
import redis

from quant_platform.contracts._schema import contract_of, empty
from quant_platform.contracts.enums import GapStatus
from quant_platform.defs.resources import Platform
from quant_platform.settings import Settings
from quant_platform.storage import live_store, redis_keys
from quant_platform.storage.lake import Lake
from quant_platform.storage.live_store import Batch
from quant_platform.storage.redis_keys import Key

_PERIOD_S = 3600
_CRON = "30 * * * *"
_GAPS = "market/gaps"


class Published(NamedTuple):
    """What became of the symbols' values.

    Attributes:
        written: Keys.
        kept: Keys whose payload is newer than the lake's.
        live: Symbols that were left out: their market is heard.
    """

    written: int
    kept: int
    live: tuple[str, ...]


class _Newest(NamedTuple):
    rows: pl.DataFrame
    with_gaps: frozenset[str]


def job() -> dg.JobDefinition:
    """Return the job; `qp/symbols` restricts it as it does every other."""

    @dg.op(name="publish")
    def body(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
        platform.live_as(context.run_id)
        settings = platform.settings
        with live_store.connect(settings) as client:
            done = publish(settings, client, platform.symbols(context.run.tags), time.time_ns())
        context.add_output_metadata(
            {"written_keys": done.written, "kept_keys": done.kept, "live_symbols": ", ".join(done.live)}
        )

    @dg.job(
        name="publish_latest",
        description="Newest closed rows of the lake → analytics:* keys, of symbols that have no market:* keys.",
    )
    def graph() -> None:
        body()

    return graph


def schedule(latest: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the job's schedule: hourly, while there is a Redis."""

    @dg.schedule(
        name="publish_latest",
        job=latest,
        cron_schedule=_CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def hourly(platform: dg.ResourceParam[Platform]) -> dg.RunRequest | dg.SkipReason:
        try:
            live_store.address(platform.settings)
        except live_store.LiveStoreError as error:
            return dg.SkipReason(str(error))
        return dg.RunRequest()

    return hourly


def publish(settings: Settings, client: redis.Redis, symbols: Sequence[str], now_ns: int) -> Published:
    """Write each metric's newest row of these symbols, but of those whose market is heard.

    Args:
        settings: Where the lake is, and how long keys live at least.
        client: Of the Redis to write.
        symbols: Whose.
        now_ns: Our clock, UTC ns.

    Raises:
        redis.RedisError: Redis was not reached, or refused a write.
    """
    live = _live(client, symbols)
    silent = [symbol for symbol in symbols if symbol not in live]
    lake = Lake(settings.lake_uri, assumed_latency_ms=settings.assumed_latency_ms)
    found: dict[str, _Newest] = {}
    batch, kept, written = Batch(), 0, 0
    for key in redis_keys.METRICS:
        assert key.contract
        table = key.contract.table
        if table not in found:
            found[table] = _newest(lake, table, silent)
        rows = _not_older(client, key, found[table].rows)
        kept += found[table].rows.height - rows.height
        written += rows.height
        has_gap = found[table].with_gaps if "last_trade_id" in key.fields else ()
        analytics = settings.analytics
        ttl_s = max(analytics.store_ttls.of(key.metric, analytics.update_intervals), 2 * _PERIOD_S)
        for symbol, payload in redis_keys.encoded(key, rows, ts_written=now_ns, seq=1, has_gap=has_gap).items():
            batch.set(key.name(symbol), payload, ttl_s)
    batch.send(client)
    return Published(written, kept, tuple(live))


def _live(client: redis.Redis, symbols: Sequence[str]) -> list[str]:
    pipe = client.pipeline(transaction=False)
    for symbol in symbols:
        pipe.exists(*(key.name(symbol) for key in redis_keys.MARKET_KEYS))
    return [symbol for symbol, count in zip(symbols, pipe.execute(), strict=True) if count]


def _newest(lake: Lake, table: str, symbols: Sequence[str]) -> _Newest:
    """Return the last row of each symbol's newest closed date that has one, and whose dates lack trades."""
    dates: dict[str, list[date]] = {symbol: [] for symbol in symbols}
    for symbol, day in lake.symbol_days(table):
        if symbol in dates:
            dates[symbol].append(day)
    rows, with_gaps = [empty(contract_of(table))], set()
    for symbol, days in dates.items():
        for day, row in _last_rows(lake, table, symbol, days):
            rows.append(row)
            gaps = lake.scan(_GAPS, [symbol], day, day).filter(pl.col("status") == GapStatus.OPEN)
            if gaps.head(1).collect().height:
                with_gaps.add(symbol)
            break
    return _Newest(pl.concat(rows), frozenset(with_gaps))


def _last_rows(lake: Lake, table: str, symbol: str, days: Sequence[date]) -> Iterator[tuple[date, pl.DataFrame]]:
    for day in reversed(days):
        row = lake.scan(table, [symbol], day, day).tail(1).collect()
        if row.height:
            yield day, row


def _not_older(client: redis.Redis, key: Key, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows but for those under whose key something newer stands."""
    if rows.is_empty():
        return rows
    payloads = client.mget([key.name(symbol) for symbol in rows["symbol"]])
    standing = pl.Series([_ts(payload) for payload in payloads], dtype=pl.Int64)
    return rows.filter((standing <= rows[key.ts_column].to_physical()).fill_null(value=True))


def _ts(payload: bytes | str | None) -> int | None:
    """Return a payload's `ts`, or None where it has none that can be read."""
    try:
        ts = json.loads(payload or b"")["ts"]
    except (ValueError, TypeError, KeyError):
        return None
    return ts if isinstance(ts, int) else None
