"""One zip of the Binance archive to typed columns, each row with its line. What rows mean: binance_csv.py."""

import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from quant_platform.feeds.binance_archive import ArchiveError, Kind

LINE = "source_line"
AGAIN = (
    "Nothing was loaded. Delete the file from landing so that it is fetched again; if it comes back the same, "
    "the publisher's file is at fault."
)

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_BOOLEAN = re.compile(r"true|false", re.IGNORECASE)
_WHOLE_TIME = re.compile(r"\d{13}|\d{16}")
_WORD = {pl.Int64(): "integer", pl.Float64(): "numeric", pl.Boolean(): "boolean"}
_DEFLATE_AT_ONCE_BYTES = 2**31 - 1


@dataclass(frozen=True)
class _Column:
    """A column of the file: its names in headers, and where it is read, our name and type."""

    headers: str
    name: str = ""
    dtype: pl.DataType = pl.String()  # noqa: RUF009  # a constant


@dataclass(frozen=True)
class _Layout:
    columns: tuple[_Column, ...]
    last_field: re.Pattern[str]
    optional: int = 0

    @property
    def widths(self) -> range:
        return range(len(self.columns) - self.optional, len(self.columns) + 1)

    @property
    def read(self) -> dict[int, _Column]:
        return {i: column for i, column in enumerate(self.columns) if column.name}


_INT, _REAL, _FLAG = pl.Int64(), pl.Float64(), pl.Boolean()
_MAKER = (_Column("is_buyer_maker", "aggressor", _FLAG), _Column("is_best_match"))
_PRICE = (_Column("price", "price", _REAL), _Column("qty quantity", "size", _REAL))
_LAYOUTS: dict[Kind, _Layout] = {
    "trades": _Layout(
        (
            _Column("id trade_id", "trade_id", _INT),
            *_PRICE,
            _Column("quote_qty base_qty"),
            _Column("time", "ts_event", _INT),
            *_MAKER,
        ),
        _BOOLEAN,
        optional=1,
    ),
    "aggTrades": _Layout(
        (
            _Column("agg_trade_id agg_id"),
            *_PRICE,
            _Column("first_trade_id first_id", "trade_id", _INT),
            _Column("last_trade_id last_id", "last_trade_id", _INT),
            _Column("transact_time time", "ts_event", _INT),
            *_MAKER,
        ),
        _BOOLEAN,
        optional=1,
    ),
    "bookTicker": _Layout(
        (
            _Column("update_id", "sequence", _INT),
            _Column("best_bid_price", "bid_price", _REAL),
            _Column("best_bid_qty", "bid_size", _REAL),
            _Column("best_ask_price", "ask_price", _REAL),
            _Column("best_ask_qty", "ask_size", _REAL),
            _Column("transaction_time", "ts_event", _INT),
            _Column("event_time"),
        ),
        _WHOLE_TIME,
    ),
    "klines": _Layout(
        (
            _Column("open_time", "ts_open", _INT),
            _Column("open", "open", _REAL),
            _Column("high", "high", _REAL),
            _Column("low", "low", _REAL),
            _Column("close", "close", _REAL),
            _Column("volume", "volume", _REAL),
            _Column("close_time"),
            _Column("quote_volume quote_asset_volume"),
            _Column("count number_of_trades", "trade_count", _INT),
            _Column("taker_buy_volume taker_buy_base_asset_volume", "taker_buy_volume", _REAL),
            _Column("taker_buy_quote_volume taker_buy_quote_asset_volume"),
            _Column("ignore"),
        ),
        re.compile(".+"),
    ),
}


@dataclass(frozen=True)
class Sheet:
    """The unzipped file, and what its first line says."""

    file: str
    content: bytes
    layout: _Layout
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
        fields = _text(self.content[start:]).rstrip("\r").split(",")
        return len(fields) != self.width or self.layout.last_field.fullmatch(fields[-1].strip()) is None

    def texts(self, lines: pl.Series) -> list[str]:
        """Return these lines (1-based) as they stand in the file."""
        ends = self.line_ends
        starts = np.append(0, ends + 1)
        return [_text(self.content[starts[line - 1] : ends[line - 1]]).removesuffix("\r") for line in lines]


def opened(path: Path, kind: Kind) -> Sheet:
    """Return a file's one member, its columns checked against the layout of its kind.

    Raises:
        ArchiveError: The zip is damaged, holds another file than its own day, or has other columns.
    """
    content, layout = _unzipped(path), _LAYOUTS[kind]
    first = _text(content[: content.find(b"\n") if b"\n" in content else None]).strip()
    fields = [field.strip() for field in first.split(",")]
    known = ", ".join(column.headers.split()[0] for column in layout.columns)
    if content and len(fields) not in layout.widths:
        expected = " or ".join(str(width) for width in layout.widths)
        raise ArchiveError(
            f"{path.name}, line 1 has {len(fields)} columns, and a {kind} file has {expected} ({known}): "
            f"'{first[:200]}'. Nothing was loaded. The publisher changed the format, or the file is another kind."
        )
    has_header = bool(content) and not any(_NUMBER.fullmatch(field) for field in fields)
    for position, (field, column) in enumerate(zip(fields, layout.columns, strict=False), start=1):
        if has_header and field not in column.headers.split():
            raise ArchiveError(
                f"{path.name}, line 1: column {position} is called '{field}', and '{column.headers.split()[0]}' is "
                f"expected there (columns of a {kind} file: {known}). Nothing was loaded. The publisher changed "
                "the format, or the file is another kind."
            )
    width = len(fields) if content else len(layout.columns)
    return Sheet(path.name, content, layout, width, has_header)


def _unzipped(path: Path) -> bytes:
    expected = f"{path.stem}.csv"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if names != [expected]:
                found = ", ".join(names) or "no file at all"
                raise ArchiveError(
                    f"{path.name} must hold one file, {expected}, and holds {found}. Which one is the day cannot "
                    f"be told. {AGAIN}"
                )
            return _inflated(path, archive, archive.infolist()[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ArchiveError(f"{path.name} cannot be unzipped: {error}. {AGAIN}") from error


def _inflated(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return a member's content, its CRC checked; twice as fast as zipfile, which inflates in small steps."""
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
    content: bytes = pa.decompress(gzip, decompressed_size=member.file_size, codec="gzip", asbytes=True)
    return content


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
        value = _flag(text) if column.dtype == _FLAG else text.cast(column.dtype, strict=False)
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


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")
