"""A CSV held in memory to typed columns, each row with its line; lines that do not fit, with a rule. No venue here."""

import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

LINE = "source_line"
INTEGER, REAL, FLAG, TEXT = pl.Int64(), pl.Float64(), pl.Boolean(), pl.String()

QUARANTINE = pl.Schema({"rule": pl.String, "source_file": pl.String, LINE: pl.Int64, "raw": pl.String})

_WORD = {INTEGER: "integer", REAL: "numeric", FLAG: "boolean", TEXT: "text"}
_DEFLATE_AT_ONCE_BYTES = 2**31 - 1
_GZIP = 16 + zlib.MAX_WBITS  # zlib's word for "with a gzip head"


@dataclass(frozen=True)
class Column:
    """A column of the file: its names in headers, and where it is read, our name and type."""

    headers: str
    name: str = ""
    dtype: pl.DataType = TEXT


@dataclass(frozen=True)
class Layout:
    """The columns of a kind of file, how its last field looks when whole, and how many columns may be missing."""

    columns: tuple[Column, ...]
    last_field: re.Pattern[str]
    optional: int = 0

    @property
    def widths(self) -> range:
        """How many columns a file may have."""
        return range(len(self.columns) - self.optional, len(self.columns) + 1)

    @property
    def read(self) -> dict[int, Column]:
        """The columns that are read, by position."""
        return {i: column for i, column in enumerate(self.columns) if column.name}


@dataclass(frozen=True)
class Sheet:
    """The unzipped file, and what its first line says."""

    file: str
    content: bytes
    layout: Layout
    width: int
    has_header: bool

    @property
    def first_line(self) -> int:
        """The 1-based line of the first row."""
        return 2 if self.has_header else 1

    @cached_property
    def line_ends(self) -> np.ndarray:
        """The offset at which each line ends."""
        ends = np.flatnonzero(np.frombuffer(self.content, np.uint8) == ord("\n"))
        is_open = len(self.content) > 0 and not self.content.endswith(b"\n")
        return np.append(ends, len(self.content)) if is_open else ends

    @property
    def is_cut(self) -> bool:
        """Whether the last line ends before its last field does."""
        start = self.content.rfind(b"\n") + 1
        if start == len(self.content) or (self.has_header and not start):
            return False
        fields = line_text(self.content[start:]).rstrip("\r").split(",")
        return len(fields) != self.width or self.layout.last_field.fullmatch(fields[-1].strip()) is None

    def texts(self, lines: pl.Series) -> list[str]:
        """Return these lines (1-based) as they stand in the file."""
        ends = self.line_ends
        starts = np.append(0, ends + 1)
        return [line_text(self.content[starts[line - 1] : ends[line - 1]]).removesuffix("\r") for line in lines]


def inflated(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return a member's content, its CRC checked; three times as fast as zipfile, which inflates in small steps."""
    is_simple = member.compress_type == zipfile.ZIP_DEFLATED and not member.flag_bits & 1
    if not is_simple or not 0 < member.file_size <= _DEFLATE_AT_ONCE_BYTES:
        return archive.read(member)
    with path.open("rb") as file:
        file.seek(member.header_offset)
        signature, name_bytes, extra_bytes = struct.unpack("<4s22xHH", file.read(30))
        if signature != b"PK\x03\x04":
            raise zipfile.BadZipFile("the local header is damaged")
        file.seek(name_bytes + extra_bytes, 1)
        deflated = file.read(member.compress_size)
    # A gzip file is the same stream between a fixed head and the CRC and length that the zip's directory holds.
    gzip = b"\x1f\x8b\x08" + bytes(7) + deflated + struct.pack("<II", member.CRC, member.file_size)
    return zlib.decompress(gzip, _GZIP, member.file_size)


def typed_columns(sheet: Sheet) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Return the columns that are read, with each row's line; and the lines that do not hold them, with a rule.

    One typed pass reads everything; only lines in which it found something odd are looked at field by field.
    """
    read = sheet.layout.read
    schema = {
        read[i].name if i in read else f"unread_{i}": read[i].dtype if i in read else pl.String()
        for i in range(sheet.width)
    }
    rows = pl.scan_csv(
        sheet.content,
        has_header=False,
        skip_lines=int(sheet.has_header),
        schema=schema,
        quote_char=None,
        encoding="utf8-lossy",
        ignore_errors=True,
        truncate_ragged_lines=True,
    )
    typed = rows.select(column.name for column in read.values()).collect()
    typed = typed.with_row_index(LINE, offset=sheet.first_line)
    is_odd = _is_odd(sheet, typed)
    if is_odd is None:
        return typed, []
    whole, broken = _diagnosed(sheet, typed.filter(is_odd)[LINE])
    return pl.concat([typed.filter(~is_odd), whole]).sort(LINE), [broken] if broken.height else []


def named(lines: pl.Series, rule: str) -> pl.DataFrame:
    """Return these lines with the one rule that they all break."""
    return lines.to_frame(LINE).with_columns(rule=pl.lit(rule))


def quarantine(sheet: Sheet, broken: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the lines that broke a rule, in their order: `rule, source_file, source_line`, and the line as `raw`.

    Args:
        sheet: The file.
        broken: Frames of `source_line` and `rule`.
    """
    if not broken:
        return QUARANTINE.to_frame()
    rows = pl.concat([part.select(LINE, "rule") for part in broken]).sort(LINE)
    return rows.select(
        "rule",
        source_file=pl.lit(sheet.file),
        source_line=pl.col(LINE).cast(pl.Int64),
        raw=pl.Series(sheet.texts(rows[LINE]), dtype=pl.String),
    )


def _is_odd(sheet: Sheet, typed: pl.DataFrame) -> pl.Series | None:
    """Mark the rows that lack a value or have a wrong number of fields; None where there are none."""
    commas = sheet.content.count(b",")
    is_even = commas == (sheet.width - 1) * (typed.height + sheet.has_header)
    if is_even and not sheet.is_cut and not any(typed.null_count().row(0)):
        return None
    is_odd = typed.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if not is_even:
        offsets = np.flatnonzero(np.frombuffer(sheet.content, np.uint8) == ord(","))
        per_line = np.diff(np.searchsorted(offsets, sheet.line_ends), prepend=0)
        is_odd |= pl.Series(per_line[sheet.first_line - 1 :] != sheet.width - 1)
    return is_odd | ((typed[LINE] == len(sheet.line_ends)) & sheet.is_cut)


def _diagnosed(sheet: Sheet, odd: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    lines = pl.DataFrame({LINE: odd, "raw": sheet.texts(odd)}, schema_overrides={"raw": pl.String})
    fields = pl.col("raw").str.split(",")
    values, rules = {}, []
    for i, column in sheet.layout.read.items():
        text = fields.list.get(i, null_on_oob=True).str.strip_chars()
        value = _flag(text) if column.dtype == FLAG else text.cast(column.dtype, strict=False)
        values[column.name] = value
        rules.append(
            pl.when(text == "")
            .then(pl.lit(f"{column.name}|nullability"))
            .when(value.is_null())
            .then(pl.lit(f"{column.name}|{_WORD[column.dtype]}"))
        )
    is_last = (pl.col(LINE) == len(sheet.line_ends)) & sheet.is_cut
    rule = (
        pl.when(is_last)
        .then(pl.lit("row|truncated"))
        .when(fields.list.len() != sheet.width)
        .then(pl.lit("row|columns"))
        .otherwise(pl.concat_str(rules, separator=",", ignore_nulls=True))
    )
    looked_at = lines.select(LINE, rule.alias("rule"), **values)
    is_whole = looked_at["rule"] == ""
    broken = looked_at.filter(~is_whole).select(LINE, "rule")
    return looked_at.filter(is_whole).drop("rule"), broken


def _flag(text: pl.Expr) -> pl.Expr:
    return text.str.to_lowercase().replace_strict({"true": True, "false": False}, default=None)


def line_text(content: bytes) -> str:
    """Return a line as text, whatever its bytes are."""
    return content.decode("utf-8", errors="replace")
