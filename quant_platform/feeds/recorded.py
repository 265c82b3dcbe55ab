"""What the recorded feeds share: folders, zips, days of New York, and what one day gives. Formats have modules."""

import datetime as dt
import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

from quant_platform.contracts._schema import Contract, split
from quant_platform.feeds.sheet import LINE, Layout, Sheet, inflated, line_text, named, quarantine

_NEW_YORK = ZoneInfo("America/New_York")


class RecordedError(Exception):
    """A recorded day cannot be used; the message names the file, and says what to do."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One symbol-day of one table, as a recorded feed is asked for it.

    Attributes:
        table: `market/trades`, `market/quotes` or `market/book`.
        symbol: The platform's unique name.
        venue_symbol: The name in the recording.
        date: The trading date.
        venue: Whose messages are recorded, where a format serves several venues.
    """

    table: str
    symbol: str
    venue_symbol: str
    date: dt.date
    venue: str = ""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The files of a symbol-day, and of the dates beside it where a date's file does not hold the whole of it."""

    own: tuple[Path, ...]
    before: tuple[Path, ...] = ()
    after: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, in the order of time."""
        return (*self.before, *self.own, *self.after)

    def fingerprint(self) -> str:
        """Return a digest of the files' names and contents.

        Raises:
            RecordedError: One cannot be read.
        """
        digest = hashlib.sha256()
        for path in self.files:
            try:
                with path.open("rb") as content:
                    digest.update(path.name.encode() + hashlib.file_digest(content, "sha256").digest())
            except OSError as error:
                raise RecordedError(f"{path} cannot be read: {error.strerror}. Make it readable.") from error
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """One symbol-day of one table.

    Attributes:
        rows: Keeps the contract, sorted as it says.
        quarantined: `rule, source_file, source_line` (1-based) and the line as `raw`.
        facts: For the file's footer.
    """

    rows: pl.DataFrame
    quarantined: pl.DataFrame
    facts: Mapping[str, str] = field(default_factory=dict)


def files_in(folder: Path) -> list[Path]:
    """Return the files of a folder by name.

    Raises:
        RecordedError: There is no such folder.
    """
    if not folder.is_dir():
        raise RecordedError(f"There is no folder {folder}: check feeds.<feed>.path in platform.yaml.")
    return sorted(path for path in folder.iterdir() if path.is_file())


def midnight_ns(date: dt.date) -> int:
    """Return when a date begins in New York, in UTC ns."""
    return int(dt.datetime(date.year, date.month, date.day, tzinfo=_NEW_YORK).timestamp()) * 1_000_000_000


def members(path: Path) -> list[str]:
    """Return the names of what a zip holds.

    Raises:
        RecordedError: It is no zip, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise _unreadable(path, error) from error


def headless_sheet(path: Path, member: str, layout: Layout) -> Sheet:
    """Return one CSV of a zip, which has no header, the width of its first line checked.

    Raises:
        RecordedError: It cannot be unzipped, or its first line has another number of columns.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            content = inflated(path, archive, archive.getinfo(member))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise _unreadable(path, error) from error
    name, width = f"{path.name}/{member}", len(layout.columns)
    first = line_text(content[: content.find(b"\n") if b"\n" in content else None]).strip()
    if content and (found := first.count(",") + 1) != width:
        columns = ", ".join(column.headers for column in layout.columns)
        raise RecordedError(
            f"{name}, line 1 has {found} columns, and {width} are expected ({columns}): '{first[:200]}'. Nothing was "
            "loaded. The file is of another kind."
        )
    return Sheet(name, content, layout, width, has_header=False)


def within(date: dt.date, since_midnight_ns: pl.Expr) -> pl.Expr:
    """Return whether times since midnight fall on a date in New York."""
    length = midnight_ns(date + dt.timedelta(days=1)) - midnight_ns(date)
    return since_midnight_ns.is_between(0, length, closed="left")


def dollars(ten_thousandths: pl.Expr) -> pl.Expr:
    """Return prices from integers of a hundredth of a cent: to each the nearest float."""
    # Polars divides by a constant by multiplying with its inverse, which misses the last bit; rounding sets it right.
    return (ten_thousandths / 10_000).round(4)


def parted(
    contract: type[Contract], frame: pl.DataFrame, sheet: Sheet, broken: Sequence[pl.DataFrame]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows that keep the contract, in its order, and the quarantine of the others and of `broken`.

    Args:
        contract: The table's.
        frame: The contract's columns and `source_line`.
        sheet: The file that the lines are of.
        broken: Lines that were found to be no rows: `source_line` and `rule`.
    """
    rows, bad = split(contract, frame, keep=(LINE,))
    return rows.sort(contract.sorted_by, maintain_order=True), quarantine(sheet, [*broken, bad.select(LINE, "rule")])


def take_out(frame: pl.DataFrame, is_wrong: pl.Expr, rule: str, broken: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the rows that are not wrong, and note the lines of the others in `broken`, under a rule's name."""
    marks = frame.select(is_wrong.fill_null(value=True)).to_series()
    if not marks.any():
        return frame
    broken.append(named(frame.filter(marks)[LINE], rule))
    return frame.filter(~marks)


def _unreadable(path: Path, error: Exception) -> RecordedError:
    return RecordedError(f"{path} cannot be unzipped: {error}. Nothing was loaded. Copy the file anew.")
