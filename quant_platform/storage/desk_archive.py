"""What the desk's files said: each file as it came, its rows by trading date and symbol, and a receipt.

Under the root: `raw/<sha256><suffix>`, `<kind>/<date>/<symbol>/<part>.parquet`, `receipts/<sha256>.<via>.json`, and an
index of the ids. A part
is named after its file's content and how that was read, so that the names in a folder say what is in it. A receipt is
written when an intake begins and again when it is complete: what a killed one left undone, the next does.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from datetime import date as Date  # noqa: N812  # `date` names fields here
from pathlib import Path
from urllib.parse import quote

import msgspec
import polars as pl
from filelock import FileLock

from quant_platform.settings import DeskKind
from quant_platform.storage._desk_index import first_told
from quant_platform.storage.atomic import fsync_folder, published, sweep

__all__ = [
    "FOLDER",
    "ORIGIN",
    "Day",
    "Receipt",
    "complete",
    "drop_others",
    "first_told",
    "instant",
    "locked",
    "parts",
    "put_part",
    "put_raw",
    "put_receipt",
    "read",
    "receipt",
    "receipts",
]

FOLDER = "desk_archive"
ORIGIN = {
    "rule": pl.String(),
    "source_file": pl.String(),
    "source_line": pl.Int64(),
    "raw": pl.String(),
    "ts_intake": pl.Datetime("ns", "UTC"),
}
"""Columns of a part beside the contract's: the rule that a row breaks, null if none, and where and when it came in."""

_SUFFIX = ".parquet"
_NAME_CHARACTERS = 16
_RECEIPTS, _RAW = "receipts", "raw"


class Day(msgspec.Struct, frozen=True, gc=False):
    """What a file had for a symbol-day."""

    date: Date
    symbol: str
    rows: int
    quarantined: int


class Receipt(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What became of a file.

    Attributes:
        sha256: Of its content.
        via: The mapping that it was read by, or its kind.
        kind: Of its rows.
        how: Hash of all else that shapes its rows: the mapping, the instruments, the code.
        file: Its name when it came.
        ts_intake: Our clock when it was first taken, UTC ns.
        days: Its rows by date and symbol.
        unplaced: Rows of which it is not known which symbol-day they are of; they are in quarantine alone.
        rules: How many rows broke what.
        left_out: Rows that the mapping's filter did not take.
        unread: Columns that were not read.
        is_complete: Whether everything is in its place.
    """

    sha256: str
    via: str
    kind: DeskKind
    how: str
    file: str
    ts_intake: int
    days: tuple[Day, ...] = ()
    unplaced: int = 0
    rules: dict[str, int] = {}  # msgspec copies it
    left_out: int = 0
    unread: tuple[str, ...] = ()
    is_complete: bool = False

    @property
    def ident(self) -> str:
        """Names content and reading, whatever `how` is."""
        return f"{self.sha256[:_NAME_CHARACTERS]}.{self.via}"


_decoded = msgspec.json.Decoder(Receipt).decode


def locked(root: Path) -> FileLock:
    """Return the lock of whoever takes files: one at a time."""
    root.mkdir(parents=True, exist_ok=True)
    return FileLock(root / "intake.lock")


def receipt(root: Path, sha256: str, via: str) -> Receipt | None:
    """Return what is on record of a content that is read that way; None where it never came."""
    try:
        return _decoded(_receipt_path(root, sha256, via).read_bytes())
    except FileNotFoundError:
        return None


def put_receipt(root: Path, one: Receipt) -> None:
    """Publish a receipt, in place of the one before.

    Raises:
        OSError: It cannot be written.
    """
    path = _receipt_path(root, one.sha256, one.via)
    sweep(path)
    with published(path) as file:
        file.write_bytes(msgspec.json.encode(one))


def receipts(root: Path, since_ns: int = 0) -> Iterator[tuple[int, Receipt]]:
    """Yield complete receipts written since a time, each with that of its writing (UTC ns), oldest first."""
    folder = root / _RECEIPTS
    found = [(path.stat().st_mtime_ns, path) for path in folder.glob("*.json")] if folder.is_dir() else []
    for written, path in sorted(found):
        if written >= since_ns and (one := _decoded(path.read_bytes())).is_complete:
            yield written, one


def complete(root: Path, one: Receipt) -> None:
    """Publish the receipt of a file whose parts are all in place, after their folders are durable too.

    Raises:
        OSError: It cannot be written.
    """
    own = root / one.kind
    dates = {own / day.date.isoformat() for day in one.days}
    for folder in (*sorted(dates), *((own,) if dates else ()), root):
        fsync_folder(folder)
    put_receipt(root, one)


def put_raw(root: Path, sha256: str, suffix: str, content: bytes) -> None:
    """Keep a file as it came.

    Raises:
        OSError: It cannot be written.
    """
    path = root / _RAW / f"{sha256}{suffix}"
    if not path.exists():
        sweep(path)
        with published(path) as file:
            file.write_bytes(content)


def put_part(root: Path, one: Receipt, date: Date, symbol: str, rows: pl.DataFrame) -> None:
    """Publish what a file has for a symbol-day: the contract's columns and those of `ORIGIN`.

    Raises:
        OSError: It cannot be written.
    """
    path = _folder(root, one.kind, symbol, date) / f"{one.ident}.{one.how}{_SUFFIX}"
    sweep(path)
    with published(path) as file:
        rows.write_parquet(file, statistics=False)


def drop_others(root: Path, one: Receipt) -> None:
    """Remove parts of the same content that were read the same way, but with another outcome."""
    for path in root.glob(f"*/*/*/{one.ident}.*{_SUFFIX}"):
        if path.name != f"{one.ident}.{one.how}{_SUFFIX}":
            path.unlink()


def parts(root: Path, kind: str, symbol: str, date: Date) -> list[Path]:
    """Return the files of a symbol-day, by name."""
    folder = _folder(root, kind, symbol, date)
    return sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX) if folder.is_dir() else []


def read(paths: list[Path]) -> pl.DataFrame:
    """Return the rows of parts as they came in: by time of intake, file and line.

    Raises:
        OSError: One cannot be read.
    """
    rows = pl.concat(pl.read_parquet(path, glob=False, hive_partitioning=False) for path in paths)
    return rows.sort("ts_intake", "source_file", "source_line", maintain_order=True)


def instant(ns: int) -> datetime:
    """Return UTC ns as a time; what is finer than a microsecond is cut off."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).replace(microsecond=ns // 1_000 % 1_000_000)


def _folder(root: Path, kind: str, symbol: str, date: Date) -> Path:
    return root / kind / date.isoformat() / quote(symbol, safe="")


def _receipt_path(root: Path, sha256: str, via: str) -> Path:
    return root / _RECEIPTS / f"{sha256}.{via}.json"
