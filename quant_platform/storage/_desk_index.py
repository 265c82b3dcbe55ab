"""Of which symbol-day each id of the desk was first told, over all files; made anew from the parts where it is lost."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from quant_platform.settings import DESK_IDS

_FILE = "index.sqlite"
_CREATE = """
CREATE TABLE told (kind TEXT, id TEXT, date TEXT, symbol TEXT, file TEXT, ident TEXT, PRIMARY KEY (kind, id))
WITHOUT ROWID
"""
_INSERT = "INSERT OR IGNORE INTO told VALUES (?, ?, ?, ?, ?, ?)"
SCHEMA = pl.Schema({"id": pl.String, "date": pl.Date, "symbol": pl.String, "file": pl.String})


def first_told(root: Path, kind: str, ident: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Put ids on record that are not yet, and return of which symbol-day each is on record.

    Args:
        root: Of the archive; the caller holds its lock.
        kind: Of the rows.
        ident: Of the file that tells them; what it told before counts no more.
        rows: `SCHEMA`, in the file's order.

    Returns:
        `SCHEMA`, one row an id: what was told first.

    Raises:
        OSError: The index cannot be written.
    """
    try:
        with closing(sqlite3.connect(root / _FILE)) as connection, connection:
            _prepare(connection, root)
            connection.execute("DELETE FROM told WHERE ident = ?", (ident,))
            connection.executemany(_INSERT, _entries(kind, ident, rows))
            connection.execute("CREATE TEMP TABLE asked (id TEXT PRIMARY KEY) WITHOUT ROWID")
            connection.executemany("INSERT OR IGNORE INTO asked VALUES (?)", ((one,) for one in rows["id"]))
            query = "SELECT id, date, symbol, file FROM asked JOIN told USING (id) WHERE kind = ?"
            found = connection.execute(query, (kind,)).fetchall()
    except sqlite3.Error as error:
        raise OSError(f"{root / _FILE} cannot be used: {error}. Remove it: it is made anew from the parts.") from error
    texts = pl.DataFrame(found, schema=dict.fromkeys(SCHEMA, pl.String), orient="row")
    return texts.with_columns(pl.col("date").str.to_date())


def _prepare(connection: sqlite3.Connection, root: Path) -> None:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'told'").fetchone():
        return
    connection.execute("BEGIN")
    connection.execute(_CREATE)
    connection.execute("CREATE INDEX by_ident ON told (ident)")
    parts = [(path, pl.read_parquet(path, glob=False)) for path in root.glob("*/*/*/*.parquet")]
    for path, rows in sorted(parts, key=lambda part: (part[1]["ts_intake"][0], part[0].name)):
        kind, date, symbol = path.parts[-4:-1]
        whole = rows.filter(pl.col("rule").is_null())
        own_id = next(name for known, name in DESK_IDS.items() if known == kind)
        named = whole.select(pl.col(own_id).alias("id"), file="source_file")
        placed = named.with_columns(date=pl.lit(date), symbol=pl.lit(unquote(symbol)))
        ident = ".".join(path.name.split(".")[:2])
        connection.executemany(_INSERT, _entries(kind, ident, placed))


def _entries(kind: str, ident: str, rows: pl.DataFrame) -> Iterator[tuple[str, ...]]:
    texts = rows.select("id", pl.col("date").cast(pl.String), "symbol", "file")
    return ((kind, *row, ident) for row in texts.iter_rows())
