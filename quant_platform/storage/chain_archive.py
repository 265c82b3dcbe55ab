"""Raw snapshots of option chains, as the venue answered: `<root>/<feed>/<symbol>/<date>/<ts_event, ns>.parquet`.

One file a snapshot, one row an answer (`name source ts_recv body`), so that any tool opens it. Of two snapshots of one
`ts_event` the first stays.
"""

from collections.abc import Mapping
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import polars as pl

from quant_platform.contracts._schema import INSTANT
from quant_platform.storage.atomic import published

_SUFFIX = ".parquet"
_COLUMNS: dict[str, Any] = {"name": pl.String, "source": pl.String, "ts_recv": INSTANT, "body": pl.Binary}


class Answer(NamedTuple):
    """The body of an answer, and its address or file."""

    content: bytes
    source: str


class Snapshot(NamedTuple):
    """What makes one snapshot: its answers by name, and our clock at receipt (UTC ns; None where it is not told)."""

    answers: Mapping[str, Answer]
    ts_recv_ns: int | None


class UnreadableSnapshotError(Exception):
    """A file of the archive is damaged or not of our making; the message names it."""


def put(root: Path, feed: str, symbol: str, date: Date, snapshot: Snapshot, *, ts_event_ns: int) -> bool:
    """Archive a snapshot; return False where one of that time is there already.

    Args:
        root: `$QP_HOME/landing/chains`, or where simulated ones lie.
        feed: Whose answers they are.
        symbol: The platform's name of the underlying.
        date: The trading date that `ts_event` falls on where the underlying trades.
        snapshot: What the venue answered.
        ts_event_ns: When it says that the chain stood so.

    Raises:
        OSError: It cannot be written.
    """
    path = _folder(root, feed, symbol, date) / f"{ts_event_ns}{_SUFFIX}"
    if path.exists():
        return False
    rows = [(name, source, snapshot.ts_recv_ns, body) for name, (body, source) in snapshot.answers.items()]
    with published(path) as file:
        pl.DataFrame(rows, _COLUMNS, orient="row").write_parquet(
            file, compression="zstd", compression_level=1, statistics=False
        )
    return True


def paths(root: Path, feed: str, symbol: str, date: Date) -> list[Path]:
    """Return the files of a symbol-day, in the order of `ts_event`."""
    folder = _folder(root, feed, symbol, date)
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if path.suffix == _SUFFIX), key=ts_event_ns)


def ts_event_ns(path: Path) -> int:
    """Return the time of a snapshot, which is its file's name."""
    return int(path.stem)


def read(path: Path) -> Snapshot:
    """Return a snapshot.

    Raises:
        UnreadableSnapshotError: The file is damaged.
        OSError: It cannot be read.
    """
    try:
        rows = pl.read_parquet(path.read_bytes()).select(*_COLUMNS)
    except pl.exceptions.PolarsError as error:
        raise UnreadableSnapshotError(
            f"{path} is damaged: {error}. Delete it; the snapshot then is missing, and the others stand."
        ) from error
    received = rows["ts_recv"].to_physical().to_list()
    answers = {name: Answer(body, source) for name, body, source in rows.select("name", "body", "source").rows()}
    return Snapshot(answers, received[0] if received else None)


def _folder(root: Path, feed: str, symbol: str, date: Date) -> Path:
    return root / feed / quote(symbol, safe="") / date.isoformat()
