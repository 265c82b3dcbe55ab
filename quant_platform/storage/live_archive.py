"""A sample of what the live writer served: `landing/live_values/<symbol>/<date>.jsonl`, one payload a line.

Lines are `{"metric": …, "payload": {…}}`, in the order of serving. They are not forced to the disk: a power cut may
take the last ones.
"""

import os
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from pathlib import Path
from urllib.parse import quote

FOLDER = "live_values"
_LOOKED_BACK_BYTES = 1 << 20  # longer than any line


def path(landing: Path, symbol: str, date: Date) -> Path:
    """Return where a symbol-day's payloads lie; the symbol is percent-encoded."""
    return landing / FOLDER / quote(symbol, safe="") / f"{date.isoformat()}.jsonl"


def line(metric: str, payload: bytes) -> bytes:
    """Return the line of a payload, one JSON object without a line break."""
    return b'{"metric":"%b","payload":%b}\n' % (metric.encode(), payload)


def append(file: Path, lines: bytes) -> None:
    """Append whole lines; a last one that a killed writer left torn is cut off before.

    Raises:
        OSError: It cannot be written; what was written of it the next call cuts off.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        if size := os.fstat(descriptor).st_size:
            start = max(0, size - _LOOKED_BACK_BYTES)
            last = os.pread(descriptor, 1, size - 1)
            if last != b"\n":
                os.ftruncate(descriptor, start + os.pread(descriptor, size - start, start).rfind(b"\n") + 1)
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def read(file: Path) -> bytes | None:
    """Return the whole lines of a file; None where there is none.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    return content[: content.rfind(b"\n") + 1] or None
