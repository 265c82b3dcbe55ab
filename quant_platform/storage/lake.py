"""The lake: every table as Parquet, `<table>/date=YYYY-MM-DD/<symbol>.parquet`. Callers name tables, never paths.

Here: layout, publishing, footers, scans. Not here: how columns lie in a file (encoding.py), which units are due
(pipeline), what a column means (contracts).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from quant_platform.contracts._schema import Contract, all_contracts, contract_of, fingerprint, polars_schema, validated
from quant_platform.storage import encoding
from quant_platform.storage.atomic import published, sweep

ALL_SYMBOLS = "all"
DEFAULT_LATENCY_MS = 50.0
_PART = re.compile(r"^(?P<name>.+?)(?:\.(?P<first>\d+)-(?P<last>\d+))?\.parquet$")
_PREFIX = "qp."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UnreadableFileError(OSError):
    """A lake file is not whole Parquet; the message names it."""


@dataclass(frozen=True)
class FileInfo:
    """What a write left on disk."""

    path: str
    rows: int
    bytes: int
    content_hash: str


@dataclass(frozen=True)
class Footer:
    """What a lake file says of itself: rows, bytes on disk, and the platform's own metadata."""

    rows: int
    bytes: int
    metadata: dict[str, str]

    @property
    def content_hash(self) -> str:
        """Hash of the file's data pages."""
        return self.metadata["content_hash"]


class Lake:
    """Read and write the lake's tables.

    Args:
        uri: `file:///…` today; other schemes raise.
        assumed_latency_ms: By symbol, added to `ts_event` where a row has no receive time.

    Raises:
        ValueError: The scheme is not supported.
    """

    def __init__(self, uri: str, *, assumed_latency_ms: Mapping[str, float] | None = None) -> None:
        parts = urlsplit(uri)
        if parts.scheme != "file" or parts.netloc:
            raise ValueError(f"QP_LAKE_URI is '{uri}': only file:///absolute/path is supported.")
        self._root = Path(unquote(parts.path))
        self._latency_ms = dict(assumed_latency_ms or {})

    @property
    def root(self) -> Path:
        """The folder that holds the tables, for programs that read the files themselves."""
        return self._root

    def path(self, table: str, symbol: str, date: Date) -> Path:
        """Return where a closed symbol-day lies."""
        return self._root / table / f"date={date.isoformat()}" / f"{_encoded(symbol)}.parquet"

    def glob(self, table: str) -> str:
        """Return the pattern that any Parquet reader takes for the whole table."""
        return str(self._root / table / "date=*" / "*.parquet")

    def write(
        self,
        table: str,
        symbol: str,
        date: Date,
        frame: pl.DataFrame,
        *,
        metadata: Mapping[str, str] | None = None,
        part: tuple[int, int] | None = None,
    ) -> FileInfo:
        """Publish one symbol-day, whole or not at all: the same inputs give the same bytes.

        Args:
            table: Such as `market/trades`.
            symbol: The platform's name, or `ALL_SYMBOLS` for a cross-symbol table.
            date: Trading date.
            frame: The contract's columns, of this symbol alone unless it is `ALL_SYMBOLS`; rows are put into the
                contract's order.
            metadata: Texts for the footer, beside the schema and content hashes.
            part: First and last id, for a part of a date that is still open.

        Raises:
            ValueError: The frame is not of the contract's shape, or a row breaks a rule or is of another symbol.
            OSError: The lake cannot be written.
        """
        contract = contract_of(table)
        rows = _ordered(validated(contract, frame), contract)
        if symbol != ALL_SYMBOLS and not (rows["symbol"] == symbol).all():
            found = ", ".join(sorted(rows["symbol"].unique()))
            raise ValueError(f"A frame for {table} of {symbol} on {date} holds rows of {found}.")
        path = self._part_path(table, symbol, date, part) if part else self.path(table, symbol, date)
        sweep(path)
        arrow = encoding.arrow(rows, contract)
        with published(path) as temporary, temporary.open("wb") as file:
            sink = _HashingSink(file)
            options = encoding.options(contract, arrow, is_passing=part is not None)
            with pq.ParquetWriter(sink, arrow.schema, **options) as writer:
                writer.write_table(arrow, row_group_size=encoding.ROW_GROUP_ROWS)
                content_hash = sink.digest()
                texts = {
                    "schema_hash": fingerprint(contract),
                    **(metadata or {}),
                    "content_hash": content_hash,
                }
                writer.add_key_value_metadata({f"{_PREFIX}{k}": v for k, v in sorted(texts.items())})
        return FileInfo(str(path), rows.height, path.stat().st_size, content_hash)

    def scan(
        self,
        table: str,
        symbols: Iterable[str] | None = None,
        start: Date | None = None,
        end: Date | None = None,
    ) -> pl.LazyFrame:
        """Return the rows of the trading dates from `start` to `end`, both included, in date and row order.

        Where the table has `ts_recv`, nulls are filled with `ts_event` + the symbol's assumed latency and
        `is_ts_recv_assumed` says where. An open date is read from its parts until its compacted file exists; of
        rows that were revised since, only the latest counts.
        Nothing on disk gives no rows with the contract's dtypes.
        """
        schema = polars_schema(contract_of(table))
        files = self._files(table, None if symbols is None else set(symbols), start, end)
        latencies = self._latency_ms if "ts_recv" in schema else {}
        is_revised = contract_of(table).is_revised
        frames = [
            _with_receive_time(
                _newest(_scanned([file.path for file in run], schema), table)
                if is_revised and is_part
                else _scanned([file.path for file in run], schema),
                latency,
            )
            for (latency, is_part, _), run in groupby(
                files,
                lambda file: (
                    latencies.get(file.symbol, DEFAULT_LATENCY_MS),
                    file.is_part,
                    file.is_part and file.path.parent,
                ),
            )
        ]
        if not frames:
            return _with_receive_time(schema.to_frame().lazy(), DEFAULT_LATENCY_MS)
        return frames[0] if len(frames) == 1 else pl.concat(frames)

    def footer(self, table: str, symbol: str, date: Date) -> Footer | None:
        """Return what the file says of itself, or None where there is no file.

        Raises:
            UnreadableFileError: There is one, and it is not whole Parquet.
        """
        path = self.path(table, symbol, date)
        if not path.is_file():
            return None
        parquet = _parquet_footer(path)
        texts = {k.decode(): v.decode() for k, v in (parquet.metadata or {}).items()}
        ours = {k.removeprefix(_PREFIX): v for k, v in texts.items() if k.startswith(_PREFIX)}
        return Footer(parquet.num_rows, path.stat().st_size, ours)

    def time_range(self, table: str, date: Date, column: str) -> tuple[datetime, datetime] | tuple[None, None]:
        """Return the least and the greatest value of a time column on one date, from the files' statistics alone.

        Nanoseconds are cut to microseconds.
        """
        found = []
        for _, path, _ in self._files(table, None, date, date):
            parquet = _parquet_footer(path)
            position = parquet.schema.names.index(column)
            for group in range(parquet.num_row_groups):
                statistics = parquet.row_group(group).column(position).statistics
                if statistics and statistics.has_min_max:
                    # The raw integers: pyarrow wants pandas to make times of them.
                    found += [statistics.min_raw, statistics.max_raw]
        if not found:
            return None, None
        return _EPOCH + timedelta(microseconds=min(found) // 1000), _EPOCH + timedelta(microseconds=max(found) // 1000)

    def recomputed_hash(self, table: str, symbol: str, date: Date) -> str:
        """Return the content hash of the data pages as they lie on disk now, to hold against the footer's.

        Raises:
            UnreadableFileError: It is not whole Parquet.
        """
        path = self.path(table, symbol, date)
        parquet = _parquet_footer(path)
        chunks = (
            parquet.row_group(group).column(column)
            for group in range(parquet.num_row_groups)
            for column in range(parquet.num_columns)
        )
        end = max((_first_page(c) + c.total_compressed_size for c in chunks), default=4)
        with path.open("rb") as file:
            return hashlib.sha256(file.read(end)).hexdigest()

    def symbol_days(self, table: str) -> Iterator[tuple[str, Date]]:
        """Yield each closed symbol-day of a table, by date and then symbol."""
        for folder, date in self._dates(table, None, None):
            for name in sorted(p.name for p in folder.iterdir()):
                match = _PART.match(name)
                if match and not match["first"]:
                    yield unquote(match["name"]), date

    def write_state(self, table: str, symbol: str, date: Date, state: bytes) -> None:
        """Publish what an open date remembers, beside its parts: readers of the table pass over it."""
        path = self._state_path(table, symbol, date)
        sweep(path)
        with published(path) as temporary:
            temporary.write_bytes(state)

    def read_state(self, table: str, symbol: str, date: Date) -> bytes | None:
        """Return what `write_state` last published; None where the date is not open."""
        try:
            return self._state_path(table, symbol, date).read_bytes()
        except FileNotFoundError:
            return None

    def is_open(self, table: str, symbol: str, date: Date) -> bool:
        """Return whether the symbol-day has a state, and no compacted file yet."""
        return self._state_path(table, symbol, date).is_file() and not self.path(table, symbol, date).is_file()

    def scan_parts(self, table: str, symbol: str, date: Date, parts: Iterable[tuple[int, int]]) -> pl.LazyFrame:
        """Return the rows of some parts of an open date, in the order of `parts`."""
        schema, latency = polars_schema(contract_of(table)), self._latency_ms.get(symbol, DEFAULT_LATENCY_MS)
        paths = [self._part_path(table, symbol, date, part) for part in parts]
        return _with_receive_time(_scanned(paths, schema) if paths else schema.to_frame().lazy(), latency)

    def keep_parts(self, table: str, symbol: str, date: Date, parts: Iterable[tuple[int, int]]) -> None:
        """Remove the parts of an open date that are not among `parts`; the caller holds the write lock."""
        folder = self.path(table, symbol, date).parent
        kept = {self._part_path(table, symbol, date, part).name for part in parts}
        for path in folder.iterdir() if folder.is_dir() else ():
            match = _PART.match(path.name)
            if match and match["first"] and match["name"] == _encoded(symbol) and path.name not in kept:
                path.unlink()

    def drop_open(self, table: str, symbol: str, date: Date) -> None:
        """Remove an open date's parts and state, when its compacted file stands or it begins anew."""
        self.keep_parts(table, symbol, date, ())
        self._state_path(table, symbol, date).unlink(missing_ok=True)

    def _state_path(self, table: str, symbol: str, date: Date) -> Path:
        path = self.path(table, symbol, date)
        return path.with_name(f"_{path.stem}.state")

    def _part_path(self, table: str, symbol: str, date: Date, part: tuple[int, int]) -> Path:
        return self.path(table, symbol, date).with_name(f"{_encoded(symbol)}.{part[0]}-{part[1]}.parquet")

    def tables(self) -> list[str]:
        """Return the tables that have at least one date."""
        names = (contract.table for contract in all_contracts())
        return sorted(name for name in names if next((self._root / name).glob("date=*"), None))

    def _dates(self, table: str, start: Date | None, end: Date | None) -> Iterator[tuple[Path, Date]]:
        folder = self._root / table
        for path in sorted(folder.glob("date=*")) if folder.is_dir() else ():
            date = Date.fromisoformat(path.name.removeprefix("date="))
            if (start is None or date >= start) and (end is None or date <= end):
                yield path, date

    def _files(self, table: str, symbols: set[str] | None, start: Date | None, end: Date | None) -> Iterator["_File"]:
        for folder, _ in self._dates(table, start, end):
            closed: dict[str, Path] = {}
            parts: dict[str, list[tuple[int, Path]]] = {}
            for path in sorted(folder.iterdir()):
                match = _PART.match(path.name)
                symbol = unquote(match["name"]) if match else ""
                if not match or (symbols is not None and symbol not in symbols):
                    continue
                if match["first"]:
                    parts.setdefault(symbol, []).append((int(match["first"]), path))
                else:
                    closed[symbol] = path
            for symbol in sorted({*closed, *parts}):
                if symbol in closed:
                    yield _File(symbol, closed[symbol], is_part=False)
                else:
                    yield from (_File(symbol, path, is_part=True) for _, path in sorted(parts[symbol]))


class _File(NamedTuple):
    symbol: str
    path: Path
    is_part: bool


class _HashingSink:
    """A file that hashes what passes, so that the digest of the data pages can stand in the footer after them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self._file.write(data)
        self._size += len(data)
        return len(data)

    def digest(self) -> str:
        return self._hash.hexdigest()

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.flush()
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def metadata_json(value: object) -> str:
    """Return the one spelling of a value in a footer: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _encoded(symbol: str) -> str:
    name = quote(symbol, safe="")
    # A symbol that looks like a part ("X.1-2") must not be read as one; dataset readers pass over "." and "_" names.
    looks_like_part = re.search(r"\.\d+-\d+$", name)
    name = name.replace(".", "%2E") if looks_like_part or name.startswith(".") else name
    return f"%5F{name[1:]}" if name.startswith("_") else name


def _parquet_footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableFileError(f"{path} is not whole Parquet: {error}") from error


def _ordered(frame: pl.DataFrame, contract: type[Contract]) -> pl.DataFrame:
    keys = [pl.col(name) for name in contract.sorted_by]
    # A row is out of order when some key falls while every key before it stays.
    falls = pl.any_horizontal(
        pl.all_horizontal([key < key.shift(), *(k == k.shift() for k in keys[:i])]) for i, key in enumerate(keys)
    )
    is_out_of_order: bool = frame.select(falls.any()).item() if frame.height else False
    return frame.sort(contract.sorted_by, maintain_order=True) if is_out_of_order else frame


def _first_page(chunk: pq.ColumnChunkMetaData) -> int:
    return int(chunk.dictionary_page_offset or chunk.data_page_offset)


def _scanned(paths: list[Path], schema: pl.Schema) -> pl.LazyFrame:
    return pl.scan_parquet(paths, schema=schema, glob=False, hive_partitioning=False, missing_columns="insert")


def _newest(rows: pl.LazyFrame, table: str) -> pl.LazyFrame:
    name = ("symbol", *contract_of(table).sorted_by)
    return rows.sort("ts_known", maintain_order=True).unique(name, keep="last").sort(*name)


def _with_receive_time(frame: pl.LazyFrame, latency_ms: float) -> pl.LazyFrame:
    if "ts_recv" not in frame.collect_schema():
        return frame
    assumed = pl.col("ts_event") + pl.duration(nanoseconds=round(latency_ms * 1e6), time_unit="ns")
    return frame.with_columns(pl.col("ts_recv").fill_null(assumed), is_ts_recv_assumed=pl.col("ts_recv").is_null())
