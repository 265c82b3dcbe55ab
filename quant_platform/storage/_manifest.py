"""The index of closed segments, and where a symbol's files lie."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

_BUSY_S = 60.0
_CREATE = """
CREATE TABLE IF NOT EXISTS segments (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    feed TEXT NOT NULL, symbol TEXT NOT NULL, number INTEGER NOT NULL,
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, first_id INTEGER, last_id INTEGER,
    ts_first INTEGER, ts_last INTEGER, sha256 TEXT NOT NULL,
    UNIQUE (feed, symbol, number)
)
"""
_COLUMNS = "feed, symbol, number, rows, bytes, first_id, last_id, ts_first, ts_last, sha256"


@dataclass(frozen=True)
class Segment:
    """A closed file of lines.

    `rows` are lines. `first_id` and `last_id` are the least and the greatest trade id, null without trades; `ts_first`
    and `ts_last` the least and the greatest `ts_event`, integer ns, null where no line has one. `sha256` is of the
    whole file, in hexadecimal digits.
    """

    feed: str
    symbol: str
    number: int
    rows: int
    bytes: int
    first_id: int | None
    last_id: int | None
    ts_first: int | None
    ts_last: int | None
    sha256: str
    path: Path


class Manifest:
    """The index of closed segments. Any number of threads and processes read and add.

    Raises:
        OSError: By every method: the file cannot be read or written; the message says what to do.
    """

    def __init__(self, landing: Path) -> None:
        self._landing = landing
        self._path = landing / "manifest.sqlite"

    def add(self, *segments: Segment) -> None:
        """List segments, durably, all or none. One that is listed already stays as it is."""
        with self._connection() as connection:
            connection.executemany(
                f"INSERT INTO segments ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",  # noqa: S608  # names of ours
                [astuple(segment)[:-1] for segment in segments],
            )

    def segments(self, feed: str, symbol: str, after: int = 0) -> list[Segment]:
        """Return a symbol's segments, by number, from the one after the number `after`."""
        found = self._rows("WHERE feed = ? AND symbol = ? AND number > ? ORDER BY number", feed, symbol, after)
        return [segment for _, segment in found]

    def after(self, position: int) -> list[tuple[int, Segment]]:
        """Return what was listed after a position, each with its own; all positions are above 0 and only grow."""
        return self._rows("WHERE position > ? ORDER BY position", position)

    def newest(self) -> dict[tuple[str, str], Segment]:
        """Return each feed's and symbol's segment with the greatest number."""
        greatest = "SELECT feed, symbol, max(number) FROM segments GROUP BY feed, symbol"
        found = self._rows(f"WHERE (feed, symbol, number) IN ({greatest})")
        return {(segment.feed, segment.symbol): segment for _, segment in found}

    def reached(self, feed: str, symbol: str) -> tuple[int, int | None]:
        """Return a symbol's greatest number, 0 without segments, and its greatest trade id, null without trades."""
        query = "SELECT coalesce(max(number), 0), max(last_id) FROM segments WHERE feed = ? AND symbol = ?"
        with self._connection() as connection:
            number, last_id = connection.execute(query, (feed, symbol)).fetchone()
        return number, last_id

    def _rows(self, which: str, *values: object) -> list[tuple[int, Segment]]:
        with self._connection() as connection:
            query = f"SELECT position, {_COLUMNS} FROM segments {which}"  # noqa: S608  # names of ours
            found = connection.execute(query, values).fetchall()
        return [(row[0], Segment(*(*row[1:], closed_path(self._landing, *row[1:4])))) for row in found]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection for one transaction; a collector of many symbols cannot keep one open for each."""
        try:
            self._landing.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as connection, connection:
                if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'segments'").fetchone():
                    # The change to WAL does not wait for others as statements do.
                    with FileLock(self._path.with_name(f"{self._path.name}.lock")):
                        connection.execute("PRAGMA journal_mode=WAL")
                        connection.execute(_CREATE)
                connection.execute("PRAGMA synchronous=FULL")
                yield connection
        except sqlite3.Error as error:
            raise OSError(
                f"{self._path} cannot be used: {error}. Where the disk is full, free space. Where the file is damaged, "
                "stop the collectors, delete it and start them: they list all closed segments again."
            ) from error


def folder_of(landing: Path, feed: str, symbol: str) -> Path:
    """Return the folder of a symbol's segments."""
    return landing / "segments" / feed / quote(symbol, safe="")


def closed_path(landing: Path, feed: str, symbol: str, number: int) -> Path:
    """Return the path of a closed segment."""
    return folder_of(landing, feed, symbol) / f"{number:08d}.frames"
