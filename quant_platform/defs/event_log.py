"""Dagster's SQLite event log with kept connections; what an event is and where it lies stays Dagster's.

Dagster's own opens an engine and a file several times for each event, which costs more than the event.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
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
        super().__init__(*args, **kwargs)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).begin() as connection:
            yield connection

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
        """Let go of the run's file, then delete it."""
        if engine := self._kept.pop(run_id, None):
            engine.dispose()
        super().delete_events(run_id)

    def dispose(self) -> None:
        """Let go of every file."""
        while self._kept:
            self._kept.popitem()[1].dispose()
        super().dispose()


def _relax(connection: Any, _: object) -> None:
    # In WAL mode NORMAL cannot corrupt; a power cut may lose the last events, never the data that they speak of.
    connection.execute("PRAGMA synchronous=NORMAL")
