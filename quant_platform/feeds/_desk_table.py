"""A file of the desk as text columns, each row with its line: CSV, plain or .gz, or Parquet; meaning is desk.py's."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_OTHERS = {b"PK": "a zip, or a workbook of Excel", b"\xd0\xcf": "a workbook of Excel", b"\xff\xfe": "text in UTF-16"}
_DELIMITERS = ",;\t|"
_NS_YEARS = (1678, 2261)
_NO_TEXT = (pl.Binary, pl.Duration, pl.Object)  # and lists: nothing of the contracts is written so


class DeskError(Exception):
    """A file cannot be used; the message says why, and what to do."""


class UnfinishedError(DeskError):
    """A file ends before its content does: it may still be written."""


@dataclass(frozen=True)
class Table:
    """The rows of a file.

    Attributes:
        cells: The file's columns by their names, as text; null where there is none.
        lines: Of each row, its line; in Parquet its number, from 1.
        repeated: Names that several columns have; the first one is in `cells`.
        uneven: Lines whose number of fields is not the header's.
        raw: Returns rows of `cells`, by position, as they came.
        raw_uneven: The uneven lines as they came.
    """

    cells: pl.DataFrame
    lines: pl.Series
    repeated: frozenset[str]
    uneven: list[int]
    raw: Callable[[pl.Series], list[str]]
    raw_uneven: list[str]


def table(content: bytes) -> Table:
    """Return the rows of a file.

    Raises:
        UnfinishedError: It is not whole.
        DeskError: It is no CSV and no Parquet, or is damaged.
    """
    if content.startswith(_PARQUET):
        return _parquet(content)
    is_packed = content.startswith(_GZIP)
    if is_packed:
        try:
            content = gzip.decompress(content)
        except EOFError as error:
            raise UnfinishedError("Its gzip stream ends too early: write it again.") from error
        except (OSError, zlib.error) as error:
            raise DeskError(f"Its gzip stream is damaged ({error}): write it again.") from error
    for begins, what in _OTHERS.items():
        if content.startswith(begins):
            raise DeskError(f"It is {what}: save it as CSV in UTF-8, or as Parquet.")
    if not content.strip():
        raise UnfinishedError("It is empty: it needs at least a line that names its columns.")
    if not is_packed and not content.endswith((b"\n", b"\r")):
        raise UnfinishedError("Its last line has no line break, so it may be cut: write it again, or add the break.")
    return _csv(content.decode("utf-8-sig", errors="replace"))


def _csv(text: str) -> Table:
    head = text.lstrip().partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=head.count))
    names: list[str] = []
    rows: list[list[str]] = []
    spans: list[tuple[int, int]] = []
    uneven: list[tuple[int, int]] = []
    end = 0
    try:
        for fields in reader:
            start, end = end, reader.line_num
            if not "".join(fields).strip():
                continue  # such lines end many a sheet
            if not names:
                names = [field.strip() for field in fields]
            elif len(fields) == len(names):
                rows.append(fields)
                spans.append((start, end))
            else:
                uneven.append((start, end))
    except csv.Error as error:
        raise DeskError(f"Line {reader.line_num} is no CSV ({error}): mend or remove it.") from error

    def raw(places: pl.Series) -> list[str]:
        return _as_they_came(text, [spans[place] for place in places])

    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    firsts = dict(reversed([*zip(names, columns, strict=True)]))  # of columns of one name the first stays
    return Table(
        pl.DataFrame({name: pl.Series(firsts[name], dtype=pl.String) for name in dict.fromkeys(names)}),
        pl.Series([start + 1 for start, _ in spans], dtype=pl.Int64),
        _repeated(names),
        [start + 1 for start, _ in uneven],
        raw,
        _as_they_came(text, uneven),
    )


def _as_they_came(text: str, spans: list[tuple[int, int]]) -> list[str]:
    lines = io.StringIO(text, newline="").readlines() if spans else []
    return ["".join(lines[slice(*span)]).strip("\r\n") for span in spans]


def _repeated(names: list[str]) -> frozenset[str]:
    return frozenset(name for name in names if names.count(name) > 1)


def _parquet(content: bytes) -> Table:
    if not content.endswith(_PARQUET) or len(content) <= len(_PARQUET):
        raise UnfinishedError("Its Parquet has no footer, so it is cut: write it again.")
    try:
        rows = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DeskError(f"It is damaged Parquet ({error}): write it again.") from error

    def raw(places: pl.Series) -> list[str]:
        return [json.dumps(row, default=str) for row in rows.select(pl.all().gather(places)).to_dicts()]

    return Table(
        rows.with_columns(_text(name, dtype) for name, dtype in rows.schema.items()),
        pl.Series(range(1, rows.height + 1), dtype=pl.Int64),
        frozenset(),
        [],
        raw,
        [],
    )


def _text(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype.is_nested() or dtype in _NO_TEXT:
        return pl.lit(None, pl.String).alias(name)
    if isinstance(dtype, pl.Datetime):
        is_held = column.dt.year().is_between(*_NS_YEARS)
        zone = pl.lit("Z" if dtype.time_zone else "")
        utc = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone else column
        return pl.when(is_held).then(utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.9f") + zone).otherwise(utc.cast(pl.String))
    if dtype.is_float():
        wide = column.cast(pl.Float64)
        is_whole = (wide == wide.round()) & (wide.abs() < 2.0**63)  # else as 1.7e18, which is no time
        return (
            pl.when(is_whole)
            .then(wide.cast(pl.Int64, strict=False).cast(pl.String))
            .otherwise(wide.cast(pl.String))
            .alias(name)
        )
    return column.cast(pl.String)
