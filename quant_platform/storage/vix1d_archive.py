"""Readings of VIX1D as they came: `landing/vix1d/<UTC date of ts_event>.jsonl`, one JSON object a line.

A line is a reading, `{source, ts_event, ts_recv, value}`, or what a source said that is none, with the rule that it
broke. Beside them lies what is remembered of the sources. Who is asked, and when, is not known here.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from pathlib import Path

import msgspec
from filelock import FileLock

from quant_platform.storage import live_archive
from quant_platform.storage.atomic import fsync_folder, published

FOLDER = "vix1d"
_SUFFIX = ".jsonl"
_SOURCES = "sources.json"
_APPENDING = "append.lock"
_ASKING = "asking.lock"


class Reading(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A value that a source gave; times in UTC ns, the source's and ours, the value in vol points."""

    source: str
    ts_event: int
    ts_recv: int
    value: float


class Refused(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What a source said that is no reading: the rule that it broke, its line in the answer, and itself.

    `ts_event` is of the reading that it stood beside, so that it is filed there.
    """

    source: str
    ts_event: int
    ts_recv: int
    rule: str
    line: int
    raw: str


class Asked(msgspec.Struct, frozen=True, gc=False):
    """When a source was last asked, UTC ns, and how often in a row it has failed."""

    asked: int
    failures: int


@dataclass(frozen=True)
class Day:
    """What is on record of a date.

    Attributes:
        source: The file's name.
        readings: With their lines in the file, in its order.
        refused: Rule, line in the file, and what was refused.
    """

    source: str
    readings: list[tuple[int, Reading]]
    refused: list[tuple[str, int, str]]


_decoded = msgspec.json.Decoder(Reading).decode
_decoded_refusal = msgspec.json.Decoder(Refused).decode
_decoded_sources = msgspec.json.Decoder(dict[str, Asked]).decode


def date_of(ts_event: int) -> Date:
    """Return the date under which a reading is filed."""
    return datetime.fromtimestamp(ts_event // 1_000_000_000, UTC).date()


def append(landing: Path, entries: Iterable[Reading | Refused]) -> int:
    """Put on record, durably, what is not yet; return how many readings that was.

    A reading is known by its source and `ts_event`: the first one stays.

    Raises:
        OSError: It cannot be written; the dates before the one that failed are on record.
    """
    by_date: dict[Date, list[Reading | Refused]] = {}
    for entry in entries:
        by_date.setdefault(date_of(entry.ts_event), []).append(entry)
    if not by_date:
        return 0
    folder = landing / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    count, is_file_new = 0, False
    with FileLock(folder / _APPENDING):
        for date, own in sorted(by_date.items()):
            file = _path(landing, date)
            known = {_name(entry) for _, entry in _entries(live_archive.read(file) or b"") if entry}
            new: dict[tuple[str, ...], Reading | Refused] = {}
            for entry in own:
                if _name(entry) not in known:
                    new.setdefault(_name(entry), entry)
            if new:
                is_file_new |= not file.exists()
                live_archive.append(file, b"".join(msgspec.json.encode(entry) + b"\n" for entry in new.values()))
                _fsync(file)
                count += sum(isinstance(entry, Reading) for entry in new.values())
        if is_file_new:
            fsync_folder(folder)
    return count


def dates(landing: Path) -> list[Date]:
    """Return the dates that have a file, in order."""
    folder = landing / FOLDER
    if not folder.is_dir():
        return []
    return sorted(Date.fromisoformat(path.stem) for path in folder.iterdir() if path.suffix == _SUFFIX)


def day(landing: Path, date: Date, sources: Collection[str] | None = None) -> Day:
    """Return what is on record of a date; nothing where there is no file.

    A line that is neither a reading nor a refusal, is of another date, or tells a reading again, is among the refused.

    Args:
        landing: `$QP_HOME/landing`.
        date: As `date_of` gives it.
        sources: Look at lines of these alone; None for all.
    """
    file = _path(landing, date)
    found, lines = Day(f"{FOLDER}/{file.name}", [], []), live_archive.read(file) or b""
    if sources is not None:
        own = tuple(b'{"source":%b,' % msgspec.json.encode(source) for source in sources)
        lines = b"".join(line for line in lines.splitlines(keepends=True) if line.startswith(own))
    known = set[tuple[str, ...]]()
    for (number, entry), line in zip(_entries(lines), lines.splitlines(), strict=True):
        if isinstance(entry, Refused):
            found.refused.append((entry.rule, number, entry.raw))
        elif entry is None:
            found.refused.append(("line|json", number, line.decode(errors="replace")))
        elif date_of(entry.ts_event) != date:
            found.refused.append(("ts_event|of_the_date", number, line.decode()))
        elif _name(entry) in known:
            found.refused.append(("ts_event|repeated", number, line.decode()))
        else:
            known.add(_name(entry))
            found.readings.append((number, entry))
    return found


def sizes(landing: Path, count: int) -> list[tuple[str, int]]:
    """Return the names and sizes of the newest files: another list means that something came."""
    files = [_path(landing, date) for date in dates(landing)[-count:]]
    return [(file.name, file.stat().st_size) for file in files]


def asking(landing: Path) -> FileLock:
    """Return the lock of whoever asks the sources: one process at a time."""
    folder = landing / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / _ASKING)


def sources(landing: Path) -> Mapping[str, Asked] | None:
    """Return what is remembered of the sources, by name; None where none was ever asked, or it is not readable.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        return _decoded_sources((landing / FOLDER / _SOURCES).read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def remember(landing: Path, known: Mapping[str, Asked]) -> None:
    """Publish what is to be remembered of the sources.

    Raises:
        OSError: It cannot be written.
    """
    with published(landing / FOLDER / _SOURCES) as file:
        file.write_bytes(msgspec.json.encode(known))


def _path(landing: Path, date: Date) -> Path:
    return landing / FOLDER / f"{date.isoformat()}{_SUFFIX}"


def _entries(lines: bytes) -> Iterator[tuple[int, Reading | Refused | None]]:
    """Yield each line's number and what it says; None for what is neither a reading nor a refusal."""
    for number, line in enumerate(lines.splitlines(), start=1):
        try:
            yield number, _decoded_refusal(line) if b'"rule"' in line else _decoded(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            yield number, None


def _name(entry: Reading | Refused) -> tuple[str, ...]:
    if isinstance(entry, Reading):
        return entry.source, str(entry.ts_event)
    return entry.source, entry.rule, entry.raw


def _fsync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
