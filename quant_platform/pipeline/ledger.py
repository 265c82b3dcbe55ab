"""The index of units: status, keys, rows, seconds, checks. The files are the truth; this can be rebuilt from them."""

import json
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from pathlib import Path
from typing import Any

from filelock import FileLock

from quant_platform.pipeline.units import CheckResult, Outcome, Unit, UnitStatus, outcome_of
from quant_platform.storage.lake import Lake, UnreadableFileError, metadata_json

_CREATE = """
CREATE TABLE IF NOT EXISTS units (
    table_name TEXT NOT NULL, symbol TEXT NOT NULL, date TEXT NOT NULL,
    status TEXT NOT NULL, key TEXT NOT NULL, content_hash TEXT NOT NULL,
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, seconds REAL NOT NULL, quarantined INTEGER NOT NULL,
    checks TEXT NOT NULL, facts TEXT NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (table_name, date, symbol)
) WITHOUT ROWID
"""


class Ledger:
    """Record and look up outcomes. Safe with several processes: WAL, one short transaction a call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = threading.local()
        path.parent.mkdir(parents=True, exist_ok=True)
        # The change to WAL does not wait for others as statements do.
        with FileLock(path.with_name(f"{path.name}.lock")), self._connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_CREATE)

    def record(self, outcomes: Iterable[Outcome]) -> None:
        """Store outcomes, replacing what was known of those units.

        A failed or blocked unit keeps the key, hash, rows and bytes of the file that it left untouched.
        """
        with self._connection() as connection:
            for outcome in outcomes:
                if outcome.status.is_usable:
                    connection.execute("INSERT OR REPLACE INTO units VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", _row(outcome))
                else:
                    connection.execute(
                        "INSERT INTO units VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET "
                        "status = excluded.status, error = excluded.error, seconds = excluded.seconds",
                        _row(outcome),
                    )

    def outcomes(
        self,
        table: str | None = None,
        *,
        symbols: Iterable[str] | None = None,
        start: Date | None = None,
        end: Date | None = None,
        status: UnitStatus | None = None,
    ) -> list[Outcome]:
        """Return what is known, by table, date and symbol; dates inclusive; None asks for all."""
        wanted = None if symbols is None else set(symbols)
        rows = (
            self._connection()
            .execute(
                "SELECT * FROM units WHERE (:table IS NULL OR table_name = :table)"
                " AND (:start IS NULL OR date >= :start) AND (:end IS NULL OR date <= :end)"
                " AND (:status IS NULL OR status = :status)"
                " ORDER BY table_name, date, symbol",
                {
                    "table": table,
                    "start": start and start.isoformat(),
                    "end": end and end.isoformat(),
                    "status": status and status.value,
                },
            )
            .fetchall()
        )
        return [_outcome(row) for row in rows if wanted is None or row[1] in wanted]

    def first_dates(self, table: str) -> dict[str, Date]:
        """Return the earliest date on record of each symbol in a table."""
        query = "SELECT symbol, MIN(date) FROM units WHERE table_name = ? GROUP BY symbol"
        rows = self._connection().execute(query, (table,)).fetchall()
        return {symbol: Date.fromisoformat(first) for symbol, first in rows}

    def rebuild(self, lake: Lake) -> list[Outcome]:
        """Make the index anew from the lake's files, recomputing their hashes; return what no longer matches.

        Seconds are not in the files and become 0. A file whose data pages differ from its footer is recorded as
        failed, so that nothing downstream reads it.
        """
        units = (Unit(table, *key) for table in lake.tables() for key in lake.symbol_days(table))
        found = [outcome for unit in units if (outcome := _from_file(lake, unit))]
        with self._connection() as connection:
            connection.execute("DELETE FROM units")
            connection.executemany("INSERT INTO units VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", map(_row, found))
        return [outcome for outcome in found if not outcome.status.is_usable]

    def _connection(self) -> sqlite3.Connection:
        # Kept, one a thread: to close the last connection costs a checkpoint, some 7 ms.
        if not hasattr(self._kept, "connection"):
            connection = sqlite3.connect(self._path, timeout=60)
            connection.execute("PRAGMA synchronous=NORMAL")
            self._kept.connection = connection
        kept: sqlite3.Connection = self._kept.connection
        return kept


def checks_json(checks: dict[str, CheckResult]) -> str:
    """Return the one spelling of a unit's checks."""
    return metadata_json({name: asdict(check) for name, check in checks.items()})


def _from_file(lake: Lake, unit: Unit) -> Outcome | None:
    try:
        footer = lake.footer(*unit)
        if footer is None or "key" not in footer.metadata:
            return None
        if lake.recomputed_hash(*unit) == footer.content_hash:
            return outcome_of(unit, footer)
        fault = f"{lake.path(*unit)} no longer matches its content hash"
    except UnreadableFileError as error:
        fault = str(error)
    return Outcome(unit, UnitStatus.FAILED, error=f"{fault}: run `qp backfill` for it.")


def _row(outcome: Outcome) -> tuple[Any, ...]:
    unit = outcome.unit
    return (
        unit.table,
        unit.symbol,
        unit.date.isoformat(),
        outcome.status.value,
        outcome.key,
        outcome.content_hash,
        outcome.rows,
        outcome.bytes,
        outcome.seconds,
        outcome.quarantined,
        checks_json(dict(outcome.checks)),
        metadata_json(dict(outcome.facts)),
        outcome.error,
    )


def _outcome(row: tuple[Any, ...]) -> Outcome:
    return Outcome(
        Unit(row[0], row[1], Date.fromisoformat(row[2])),
        UnitStatus(row[3]),
        key=row[4],
        content_hash=row[5],
        rows=row[6],
        bytes=row[7],
        seconds=row[8],
        quarantined=row[9],
        checks={name: CheckResult(**check) for name, check in json.loads(row[10]).items()},
        facts=json.loads(row[11]),
        error=row[12],
    )
