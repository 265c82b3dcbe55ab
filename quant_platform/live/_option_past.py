"""What a symbol's chain said before: from the lake's option tables, and from the snapshots archived since.

It reads the disk, and where that has nothing, the histories that Redis holds; it keeps nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from typing import Any, NamedTuple

import msgspec
import polars as pl
import structlog

from quant_platform.contracts._schema import contract_of, empty, polars_schema
from quant_platform.feeds import chain_snapshot
from quant_platform.feeds.option_chain import ChainError
from quant_platform.pipeline import option_keys, options
from quant_platform.pipeline.option_keys import EXPOSURES, OF_WHOLE_CHAINS, TABLES
from quant_platform.pipeline.options import GAMMA_EXPOSURE, HISTORY_SESSIONS, UNUSUAL_ACTIVITY
from quant_platform.pipeline.sessions import earlier_sessions
from quant_platform.settings import POLLED_FEEDS, Settings
from quant_platform.storage import chain_archive, live_store, redis_keys
from quant_platform.storage.lake import Lake
from quant_platform.storage.redis_keys import Key

_LOG = structlog.get_logger()


class Past(NamedTuple):
    """One symbol's chain before now.

    Attributes:
        entries: Of the histories by key, one a snapshot, in the order of time.
        values: `option_keys.values` of the snapshots.
    """

    entries: Mapping[Key, Sequence[bytes]]
    values: pl.DataFrame


class _Entry(msgspec.Struct):
    ts: int


def past(settings: Settings, symbol: str, date: Date, before_ns: int) -> Past:
    """Return what a symbol's chain said before an instant.

    Args:
        settings: The whole tree.
        symbol: With a chain.
        date: The trading date of the instant.
        before_ns: UTC ns; later snapshots are left out.

    Raises:
        OSError: The lake or the archive cannot be read.
        ValueError: A calculator refuses what is in them.
        redis.RedisError: Redis was not reached.
    """
    params = settings.analytics.exposure_history
    window = max(params.gamma_window, params.flow_window)
    most = max(settings.analytics.history_entries, window)
    lake = Lake(settings.lake_uri)
    days = [*earlier_sessions(settings.instrument(symbol).calendar, date, HISTORY_SESSIONS), date]
    stored = {
        table: _stored([lake.scan(table, [symbol], day, day) for day in days], table, before_ns, most)
        for table in TABLES
    }
    known_ns = stored[GAMMA_EXPOSURE]["ts_event"].to_physical().to_list()
    times = range(known_ns[-1] + 1 if known_ns else 0, before_ns)
    archived = _archived(settings, symbol, date, times, window)
    totals = {
        table: pl.concat([stored[table], *(snapshot[table] for snapshot in archived)])
        .unique("ts_event", keep="first")
        .sort("ts_event")
        for table in TABLES
    }
    nothing = option_keys.values({table: totals[table].clear() for table in EXPOSURES})
    rows = option_keys.shown(totals, nothing, settings) | {redis_keys.UNUSUAL: totals[UNUSUAL_ACTIVITY]}
    entries = {key: redis_keys.history_entries(key, found).get(symbol, []) for key, found in rows.items()}
    if not any(entries.values()):
        entries = _kept(settings, symbol, before_ns)
    return Past(entries, option_keys.values(totals))


def _kept(settings: Settings, symbol: str, before_ns: int) -> dict[Key, list[bytes]]:
    """Return the histories that Redis holds, without what is later."""
    found = {}
    with live_store.connect(settings) as client:
        for key in redis_keys.OPTION_METRICS:
            newest_first: Any = client.lrange(redis_keys.HISTORY.name(symbol, metric=key.metric), 0, -1)
            found[key] = [entry for entry in newest_first[::-1] if _is_before(entry, before_ns)]
    return found


def _is_before(entry: bytes, before_ns: int) -> bool:
    try:
        return msgspec.json.decode(entry, type=_Entry).ts < before_ns
    except msgspec.MsgspecError:
        return False


def _stored(days: Sequence[pl.LazyFrame], table: str, before_ns: int, most: int) -> pl.DataFrame:
    """Return a table's last rows over whole chains; no more dates are read than it takes."""
    found: list[pl.DataFrame] = []
    for rows in reversed(days):
        of_date = rows.filter(OF_WHOLE_CHAINS[table], pl.col("ts_event").to_physical() < before_ns)
        found.insert(0, of_date.select(polars_schema(contract_of(table)).names()).collect())
        if sum(part.height for part in found) >= most:
            break
    return pl.concat([empty(contract_of(table)), *found]).tail(most)


def _archived(settings: Settings, symbol: str, date: Date, times: range, most: int) -> list[dict[str, pl.DataFrame]]:
    """Return the rows over whole chains, by table, of the last archived snapshots whose times are among these."""
    instrument = settings.instrument(symbol)
    assert instrument.chain is not None  # it has options
    if instrument.chain.feed not in POLLED_FEEDS:
        return []
    paths = [
        path for path in options.archived_day(settings, instrument, date) if chain_archive.ts_event_ns(path) in times
    ]
    found = []
    for path in paths[-most:]:
        try:
            rows = chain_snapshot.rows_of(instrument.chain.feed, chain_archive.read(path), symbol=symbol).rows
        except (ChainError, chain_archive.UnreadableSnapshotError) as error:
            _LOG.warning("an archived snapshot is left out of the histories", path=str(path), error=str(error))
            continue
        if rows.height:
            chain = option_keys.known(rows, symbol, settings)
            found.append(option_keys.exposures(chain, settings) | {UNUSUAL_ACTIVITY: options.unusual(chain, settings)})
    return found
