"""What a collector received, on disk before anything else: segments of lines, and the manifest that lists the closed.

`$QP_HOME/landing/segments/<feed>/<symbol>/` holds `open.frames`, which grows, and `<number>.frames`, which never
change: 1, 2, 3 … without reuse. A line is `<ts_recv, integer ns> <payload>`. What a payload means is the feed's
business: it hands a `Describe` in. The files are the truth; `$QP_HOME/landing/manifest.sqlite` is an index, which
`repair` makes anew.

Start and recovery are one path: a writer first closes what a killed one left open, and lists what is not listed.
"""

import copy
import fcntl
import hashlib
import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

from quant_platform.storage._landing_lines import FIELDS, Lines, close_orphan, payload, spelled, write_at
from quant_platform.storage._manifest import Manifest, Segment, closed_path, folder_of
from quant_platform.storage.atomic import fsync_folder

__all__ = [
    "FIELDS",
    "Describe",
    "Entry",
    "LeaseHeldError",
    "Lines",
    "Manifest",
    "Salvaged",
    "Segment",
    "Writer",
    "greatest_id",
    "growing",
    "has_all",
    "is_in_use",
    "repair",
]

_OPEN = "open.frames"
_CLOSED = re.compile(r"(\d{8,})\.frames")
_LEASE = "lease.lock"
_LINES_PER_STEP = 1_000  # at once through the processor's cache


class LeaseHeldError(Exception):
    """Another writer has the symbol; the message names its process, and says what to do."""


class Entry(NamedTuple):
    """What a line says of itself: the venue's time, integer ns, and the trade ids; null where it has none."""

    ts_event: int | None
    first_id: int | None
    last_id: int | None


Describe = Callable[[bytes], Entry]
"""A payload to its entry; one without any fact for what is no frame. It never raises."""


@dataclass(frozen=True)
class Salvaged:
    """What a writer found when it started.

    `segments` were closed or listed now, by number. `cut_bytes` is the length of a last line that was never whole.
    `last_id` is the greatest trade id landed so far, null without trades.
    """

    segments: tuple[Segment, ...]
    cut_bytes: int
    last_id: int | None


def repair(landing: Path, feed: str, symbol: str, describe: Describe) -> list[Segment]:
    """List the closed files of a symbol that have no row, and return them by number. Safe beside the symbol's writer.

    Raises:
        OSError: A file or the manifest cannot be read or written.
    """
    manifest, folder = Manifest(landing), folder_of(landing, feed, symbol)
    listed = {segment.number for segment in manifest.segments(feed, symbol)}
    found = [_described(landing, feed, symbol, number, describe) for number in sorted(_numbers(folder) - listed)]
    if found:
        fsync_folder(folder)
        manifest.add(*found)
    return found


class _Facts:
    """What the manifest says of a segment, gathered while it grows."""

    def __init__(self) -> None:
        self.rows = self.bytes = 0
        self._first_id: int | None = None
        self._last_id: int | None = None
        self._ts_first: int | None = None
        self._ts_last: int | None = None
        self._sha256 = hashlib.sha256()

    def add(
        self,
        data: bytes,
        times: Sequence[int | None],
        first_ids: Sequence[int | None],
        last_ids: Sequence[int | None],
    ) -> None:
        """Take lines into account: their bytes, and the columns of their entries."""
        self.rows += len(times)
        self.bytes += len(data)
        self._sha256.update(data)
        self._ts_first, self._ts_last = _bound(min, self._ts_first, times), _bound(max, self._ts_last, times)
        self._first_id, self._last_id = _bound(min, self._first_id, first_ids), _bound(max, self._last_id, last_ids)

    def copy(self) -> Self:
        """Return the same, to go on from without changing this."""
        other = copy.copy(self)
        other._sha256 = self._sha256.copy()  # noqa: SLF001  # of this class
        return other

    def segment(self, feed: str, symbol: str, number: int, path: Path) -> Segment:
        """Return the segment that was gathered."""
        ids, times = (self._first_id, self._last_id), (self._ts_first, self._ts_last)
        return Segment(feed, symbol, number, self.rows, self.bytes, *ids, *times, self._sha256.hexdigest(), path)


class Writer:
    """Land one symbol's lines: the only writer of its folder, by a lock that ends with the process.

    `append` belongs to one thread, the event loop's; it neither waits nor locks. `flush`, `roll` and `close` may be
    called from any thread beside it, and take turns. What is appended while they run is theirs or the next call's.

    Where one of them raises OSError, as on a full disk, nothing is lost and nothing is there twice: what was not
    flushed stays buffered, what was not closed stays open, and the next call takes it up again.

    Args:
        landing: The folder of raw inputs.
        feed: The name of the venue's market.
        symbol: The platform's name.
        describe: Reads the lines that another process left; it agrees with the entries given to `append`.
        segment_s: A segment is due when the clock passes a multiple of this, so that those of all symbols close
            together, and one run takes them up.
        segment_bytes: A segment is due at this size.

    Raises:
        LeaseHeldError: Another writer has this symbol.
        OSError: The folder cannot be read or written.
    """

    def __init__(
        self, landing: Path, feed: str, symbol: str, describe: Describe, *, segment_s: float, segment_bytes: int
    ) -> None:
        self._landing, self._feed, self._symbol = landing, feed, symbol
        self._segment_ns, self._segment_bytes = int(segment_s * 1e9), segment_bytes
        self._folder = folder_of(landing, feed, symbol)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._buffer: Lines = []
        self._turn = threading.RLock()
        self._file: int | None = None
        self._facts = _Facts()
        self._opened_ns = self._number = 0
        self._unlisted: list[Segment] = []
        self._lease = _lease(self._folder / _LEASE, feed, symbol)
        try:
            self.salvaged = self._salvage(describe)
        except BaseException:
            os.close(self._lease)
            raise

    def append(self, lines: Lines) -> None:
        """Take lines over; they are on disk after the next `flush`.

        Args:
            lines: The local clock, a message, and what `describe` says of it, for each. Newlines in a message are
                landed as spaces, and of more than 16 MB only the first kB.
        """
        self._buffer += lines

    def flush(self) -> list[bytes]:
        """Make what was appended durable, and return it as it stands in the file, in pieces of whole lines.

        Raises:
            OSError: It could not be written; it stays buffered, and the next call writes the same bytes.
        """
        with self._turn:
            batch = self._buffer[:]
            if not batch:
                return []
            if self._file is None:
                self._file = os.open(self._folder / _OPEN, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                facts, pieces = self._written(self._file, batch)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._file, self._facts.bytes)  # others may need the space
                raise
            if not self._facts.rows:
                self._opened_ns = batch[0]
            self._facts = facts
            del self._buffer[: len(batch)]
            return pieces

    def is_due(self, ts_recv: int) -> bool:
        """Whether the open segment is of an interval that is over, or has its size, going by what was flushed."""
        is_of_another = ts_recv // self._segment_ns != self._opened_ns // self._segment_ns  # a clock jumps either way
        return self._facts.rows > 0 and (is_of_another or self._facts.bytes >= self._segment_bytes)

    def roll(self) -> Segment | None:
        """Flush, close the open segment and list it; None where it has no line.

        Raises:
            OSError: The next call goes on where this one failed.
        """
        with self._turn:
            self.flush()
            closed, file = None, self._file
            if file is not None:
                path = self._closed_path()
                (self._folder / _OPEN).replace(path)
                closed = self._facts.segment(self._feed, self._symbol, self._number, path)
                self._unlisted.append(closed)
                self._file, self._facts, self._number = None, _Facts(), self._number + 1
                os.close(file)
            if self._unlisted:
                fsync_folder(self._folder)
                Manifest(self._landing).add(*self._unlisted)
                self._unlisted.clear()
            return closed

    def close(self) -> None:
        """Flush, close and list the open segment, and let another writer have the symbol. Nothing may follow.

        Raises:
            OSError: The symbol is still held, and the call may be repeated.
        """
        with self._turn:
            self.roll()
            os.close(self._lease)

    def _written(self, file: int, batch: Lines) -> tuple[_Facts, list[bytes]]:
        """Write and fsync lines after the last good byte, over what stands there; return the file's facts and them."""
        facts, pieces = self._facts.copy(), []
        for start in range(0, len(batch), FIELDS * _LINES_PER_STEP):
            lines = batch[start : start + FIELDS * _LINES_PER_STEP]
            data = spelled(lines)
            write_at(file, data, facts.bytes)
            facts.add(data, lines[2::FIELDS], lines[3::FIELDS], lines[4::FIELDS])
            pieces.append(data)
        os.fsync(file)
        if not self._facts.rows:
            fsync_folder(self._folder)
        return facts, pieces

    def _salvage(self, describe: Describe) -> Salvaged:
        manifest = Manifest(self._landing)
        self._number = max({manifest.reached(self._feed, self._symbol)[0]} | _numbers(self._folder)) + 1
        cut_bytes = close_orphan(self._folder / _OPEN, self._closed_path())
        segments = repair(self._landing, self._feed, self._symbol, describe)
        listed, last_id = manifest.reached(self._feed, self._symbol)
        self._number = listed + 1
        return Salvaged(tuple(segments), cut_bytes, last_id)

    def _closed_path(self) -> Path:
        return closed_path(self._landing, self._feed, self._symbol, self._number)


def _bound(which: Callable[..., Any], so_far: int | None, values: Sequence[int | None]) -> int | None:
    try:
        found = which(values, default=None)
    except TypeError:  # some have none: to look for them in all would take longer than all else
        found = which([value for value in values if value is not None], default=None)
    return found if so_far is None else so_far if found is None else which(so_far, found)


def _numbers(folder: Path) -> set[int]:
    return {int(match[1]) for path in folder.glob("*.frames") if (match := _CLOSED.fullmatch(path.name))}


def _lease(path: Path, feed: str, symbol: str) -> int:
    """Return a descriptor that holds the lock until it is closed, or its process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        write_at(descriptor, str(os.getpid()).encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode() or "unknown"
        os.close(descriptor)
        raise LeaseHeldError(
            f"{feed} {symbol} is captured by another process already: pid {holder} holds {path}. Let it go on, or stop "
            "it and start this one again."
        ) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _described(landing: Path, feed: str, symbol: str, number: int, describe: Describe) -> Segment:
    facts, path = _Facts(), closed_path(landing, feed, symbol, number)
    with path.open("rb") as file:
        while lines := list(islice(file, _LINES_PER_STEP)):
            facts.add(b"".join(lines), *zip(*(describe(payload(line)) for line in lines), strict=True))
    return facts.segment(feed, symbol, number, path)


def growing(landing: Path, feed: str, symbol: str) -> tuple[int, bytes]:
    """Return the number that a symbol's open segment will have, and what is in it by now; nothing where none is open.

    Raises:
        OSError: It cannot be read.
    """
    folder = folder_of(landing, feed, symbol)
    while True:
        closed = max(_numbers(folder), default=0)
        content = b""
        with suppress(FileNotFoundError):
            content = (folder / _OPEN).read_bytes()
        if closed == max(_numbers(folder), default=0):  # else it was closed in between
            return closed + 1, content


def greatest_id(landing: Path, feed: str, symbol: str, describe: Describe) -> int | None:
    """Return the greatest trade id that was landed, also in files that are not listed yet; None without trades.

    Raises:
        OSError: A file or the manifest cannot be read.
    """
    if not is_in_use(landing):
        return None
    _, content = growing(landing, feed, symbol)  # looked at first: what is closed meanwhile is among the closed
    listed, last_id = Manifest(landing).reached(feed, symbol)
    unlisted = [number for number in _numbers(folder_of(landing, feed, symbol)) if number > listed]
    found = [_described(landing, feed, symbol, number, describe).last_id for number in unlisted]
    found += [last_id, *(describe(payload(line)).last_id for line in content.split(b"\n"))]
    return max((number for number in found if number is not None), default=None)


def has_all(landing: Path, feed: str, symbol: str, first: int, last: int) -> bool:
    """Return whether the closed segments from one number to another are all on disk."""
    return set(range(first, last + 1)) <= _numbers(folder_of(landing, feed, symbol))


def is_in_use(landing: Path) -> bool:
    """Return whether anything was ever landed: a look that costs nothing where no collector has run."""
    return (landing / "manifest.sqlite").is_file()


def paths_since(
    landing: Path, feed: str, symbol: str, *, trade_id: int | None = None, ts_event: int | None = None
) -> list[Path]:
    """Return the files that may hold trades from an id on, or lines from a venue's time on (ns), oldest first.

    The last one may be the open segment, which grows and may end within a line. A segment that is closed meanwhile may
    be missing.

    Raises:
        OSError: The manifest cannot be read.
    """
    if not is_in_use(landing):
        return []
    manifest, folder = Manifest(landing), folder_of(landing, feed, symbol)
    listed = manifest.segments(feed, symbol)
    held = [
        segment.path
        for segment in listed
        if (trade_id is not None and segment.last_id is not None and segment.last_id >= trade_id)
        or (ts_event is not None and segment.ts_last is not None and segment.ts_last >= ts_event)
    ]
    greatest = listed[-1].number if listed else 0
    unlisted = [closed_path(landing, feed, symbol, n) for n in sorted(_numbers(folder)) if n > greatest]
    return [path for path in (*held, *unlisted, folder / _OPEN) if path.is_file()]
