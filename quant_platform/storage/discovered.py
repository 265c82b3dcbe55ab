"""What others discovered of a symbol and the live writer took at a session's open, archived for the batch to take too.

A file is a number: `$QP_HOME/landing/discovered/vpin_bucket_size/<symbol>/<date>.json`. The first one of a date stays.
"""

import json
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from pathlib import Path
from urllib.parse import quote

from quant_platform.storage.atomic import published


def bucket_size(landing: Path, symbol: str, date: Date) -> float | None:
    """Return the bucket size of VPIN that was taken for a session, in base units; None where none was."""
    try:
        return float(json.loads(_path(landing, symbol, date).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def take_bucket_size(landing: Path, symbol: str, date: Date, size: float) -> None:
    """Archive the bucket size for a session, unless one was taken already.

    Raises:
        OSError: It cannot be written.
    """
    path = _path(landing, symbol, date)
    if not path.exists():
        with published(path) as file:
            file.write_text(json.dumps(size), encoding="utf-8")


def _path(landing: Path, symbol: str, date: Date) -> Path:
    return landing / "discovered" / "vpin_bucket_size" / quote(symbol, safe="") / f"{date.isoformat()}.json"
