"""Dagster's SQLite event log with kept connections; what an event is and where it lies stays Dagster's.

Dagster's own opens an engine and a file several times for each event, which costs more than the event.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from dagster import EventLogEntry
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event

_KEPT_SHARDS = 8
_BUSY_TIMEOUT_S = 60


class KeptSqliteEventLogStorage(SqliteEventLogStorage):
    """SQLite event log, one file a run and an index, whose newest shards stay connected."""

    _kept: OrderedDict[str, Engine]

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        """Return the storage of a DAGSTER_HOME, where Dagster's own would keep it."""
        return cls(str(Path(config_value["base_dir"]) / "history" / "runs"), inst_data)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._kept = OrderedDict()
        self._begun: dict[str, Connection] = {}
        self._tables: set[str] = set()
        self._columns: set[str] = set()
        super().__init__(*args, **kwargs)
        # With Dagster's plain lock, a transaction around others would wait for itself.
        self._db_lock = threading.RLock()  # type: ignore[assignment]

    def has_table(self, table_name: str) -> bool:
        """Return whether the index has a table; one that is there stays."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event in its run's file and, where it speaks of an asset, in the index: one transaction each."""
        with self._together(event.run_id, INDEX_SHARD_NAME):
            super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events, all or none."""
        with self._together(*{event.run_id: None for event in events}, INDEX_SHARD_NAME):
            for event in events:
                super().store_event(event)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            if shard in self._begun:
                yield self._begun[shard]
            else:
                with self._engine(shard).begin() as connection:
                    yield connection

    @contextmanager
    def _together(self, *shards: str) -> Iterator[None]:
        """Make one transaction of all that the block does in each of these shards."""
        with self._db_lock, ExitStack() as stack:
            for shard in shards:
                self._begun[shard] = stack.enter_context(self._engine(shard).begin())
                stack.callback(self._begun.pop, shard)
            yield

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        if column_name not in self._columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._columns.add(column_name)
        return column_name in self._columns

    def _engine(self, shard: str) -> Engine:
        engine = self._kept.pop(shard, None)
        if engine is None:
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool,
                pool_size=1,
                connect_args={"timeout": _BUSY_TIMEOUT_S},
            )
            event.listen(engine, "connect", _relax)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
        self._kept[shard] = engine
        if len(self._kept) > _KEPT_SHARDS:
            self._kept.popitem(last=False)[1].dispose()
        return engine

    def delete_events(self, run_id: str) -> None:
        """Delete the run's events, and its file, which Dagster's own would leave."""
        super().delete_events(run_id)
        if engine := self._kept.pop(run_id, None):
            engine.dispose()
        self._initialized_dbs.discard(run_id)
        shard = Path(self.path_for_shard(run_id))
        for path in (shard, *(shard.with_name(f"{shard.name}{suffix}") for suffix in ("-wal", "-shm"))):
            path.unlink(missing_ok=True)

    def dispose(self) -> None:
        """Let go of every file."""
        while self._kept:
            self._kept.popitem()[1].dispose()
        super().dispose()


def _relax(connection: Any, _: object) -> None:
    # In WAL mode NORMAL cannot corrupt; a power cut may lose the last events, never the data that they speak of.
    connection.execute("PRAGMA synchronous=NORMAL")
