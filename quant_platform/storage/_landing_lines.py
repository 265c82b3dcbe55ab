"""Lines of landing as bytes in a file: how they are spelled, written at an offset, and cut after a kill."""

import os
from pathlib import Path
from typing import Any

FIELDS = 5
Lines = list[Any]
"""`FIELDS` for each line, one after the other: `ts_recv`, payload, and the three of its `landing.Entry`.

A tuple for each would keep the garbage collector at work, which costs more than all else that is done to a line.
"""

_MAX_PAYLOAD_BYTES = 16_000_000
_KEPT_OF_LONGER_BYTES = 1_000


def spelled(batch: Lines) -> bytes:
    """Return lines as bytes, each one line whatever its payload."""
    times, payloads = batch[0::FIELDS], batch[1::FIELDS]
    together = b"".join(payloads)
    if b"\n" in together or len(together) > _MAX_PAYLOAD_BYTES:
        payloads = [_landed(payload) for payload in payloads]
    parts = [b""] * (2 * len(times))
    parts[0::2], parts[1::2] = times, payloads
    return b"%d %b\n" * len(times) % tuple(parts)  # one format for all: a quarter of the time of one for each


def payload(line: bytes) -> bytes:
    """Return a line without its time."""
    return line.partition(b" ")[2].rstrip(b"\n")


def write_at(descriptor: int, data: bytes, offset: int) -> None:
    """Write all of `data`, from an offset on.

    Raises:
        OSError: Some of it may have been written.
    """
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def close_orphan(orphan: Path, closed: Path) -> int:
    """Close what a killed writer left open, without a last line that is not whole; return how long that was.

    Where no line is whole the file goes, and there is no closed one.
    """
    if not orphan.exists():
        return 0
    with orphan.open("r+b") as file:
        whole_bytes = sum(len(line) for line in file if line.endswith(b"\n"))
        cut_bytes = file.seek(0, os.SEEK_END) - whole_bytes
        file.truncate(whole_bytes)
        os.fsync(file.fileno())
    if whole_bytes:
        orphan.replace(closed)
    else:
        orphan.unlink()
    return cut_bytes


def _landed(payload: bytes) -> bytes:
    kept = payload if len(payload) <= _MAX_PAYLOAD_BYTES else payload[:_KEPT_OF_LONGER_BYTES]
    return kept.replace(b"\n", b" ")
