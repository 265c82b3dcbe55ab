"""The lake's files: layout, encodings, footers, and what a scan returns. Real Parquet on a real disk."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from quant_platform.contracts._schema import (
    Contract,
    all_contracts,
    column_docs,
    contract_of,
    fingerprint,
    polars_schema,
)
from quant_platform.contracts.market import Trade
from quant_platform.storage.encoding import ROW_GROUP_ROWS
from quant_platform.storage.lake import ALL_SYMBOLS, Lake, UnreadableFileError

TRADES = "market/trades"
DAY = date(2024, 8, 8)
NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)


def trades(symbol: str = "BTCUSDT", rows: int = 5, first_id: int = 100, start: datetime = NOON) -> pl.DataFrame:
    """Trades a millisecond apart, at few prices and sizes in no order, as on a real tape."""
    steps, dice = np.arange(rows), np.random.default_rng(7)
    base = int(start.timestamp()) * 1_000_000_000
    return pl.DataFrame(
        {
            "ts_event": pl.Series(base + steps * 1_000_000).cast(pl.Datetime("ns", "UTC")),
            "ts_recv": pl.Series([None] * rows, dtype=pl.Datetime("ns", "UTC")),
            "symbol": [symbol] * rows,
            "venue": ["binance_usdm"] * rows,
            "trade_id": first_id + steps,
            "first_trade_id": first_id + steps,
            "last_trade_id": first_id + steps,
            "price": 100 + dice.integers(0, 211, rows) * 0.1,
            "size": 0.001 * dice.integers(1, 98, rows),
            "aggressor": pl.Series(dice.choice([-1, 1], rows), dtype=pl.Int8),
        },
        schema=polars_schema(Trade),
    )


def one_row(contract: type[Contract]) -> pl.DataFrame:
    """A row of any table that keeps its rules: every number is 1, every time noon, a book's levels lie apart."""
    samples = {pl.String: "BTCUSDT", pl.Boolean: True, pl.Datetime: NOON}
    row: dict[str, Any] = {
        d.name: d.bounds.split(" · ")[0] if d.dtype == "String" and d.bounds else None for d in column_docs(contract)
    }
    row |= {"other_symbol": "ETHUSDT"}
    row |= {f"bid_price_{n}": 10 - n for n in range(1, 6)} | {f"ask_price_{n}": 10 + n for n in range(1, 6)}
    schema = polars_schema(contract)
    values = {name: row[name] or samples.get(dtype.base_type(), 1) for name, dtype in schema.items()}
    return pl.DataFrame([values], schema=schema)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake((tmp_path / "lake").as_uri(), assumed_latency_ms={"BTCUSDT": 20.0, "ETHUSDT": 30.0})


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_layout_is_table_date_symbol(lake: Lake, tmp_path: Path) -> None:
    written = lake.write(TRADES, "BTCUSDT", DAY, trades())
    assert files(tmp_path) == ["lake/market/trades/date=2024-08-08/BTCUSDT.parquet"]
    assert Path(written.path) == lake.path(TRADES, "BTCUSDT", DAY)
    assert (written.rows, written.bytes) == (5, Path(written.path).stat().st_size)


def test_rows_come_back_as_they_were(lake: Lake) -> None:
    lake.write(TRADES, "BTCUSDT", DAY, trades())
    assert_frame_equal(lake.scan(TRADES).drop("ts_recv", "is_ts_recv_assumed").collect(), trades().drop("ts_recv"))


def whose(contract: Any) -> str:
    return "BTCUSDT" if "symbol" in polars_schema(contract) else ALL_SYMBOLS


@pytest.mark.parametrize("contract", all_contracts(), ids=lambda c: c.table)
def test_every_tables_dtypes_come_back(lake: Lake, contract: Any) -> None:
    lake.write(contract.table, whose(contract), DAY, one_row(contract))
    found = lake.scan(contract.table).drop("is_ts_recv_assumed", strict=False).collect()
    assert_frame_equal(found, one_row(contract))


def columns_of(path: Path | str) -> dict[str, pq.ColumnChunkMetaData]:
    group = pq.read_metadata(path).row_group(0)
    return {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}


def test_encodings_are_really_in_the_file(lake: Lake) -> None:
    path = lake.write(TRADES, "BTCUSDT", DAY, trades(rows=50_000)).path
    columns = columns_of(path)
    for name in ("ts_event", "ts_recv", "trade_id", "first_trade_id", "last_trade_id"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings, name
        assert not columns[name].has_dictionary_page, name
    for name in ("price", "size", "symbol", "venue", "aggressor"):
        assert "RLE_DICTIONARY" in columns[name].encodings, name
    assert {column.compression for column in columns.values()} == {"ZSTD"}


def test_a_column_without_nulls_is_required_in_the_file_and_others_are_not(lake: Lake) -> None:
    schema = pq.read_schema(lake.write(TRADES, "BTCUSDT", DAY, trades(rows=10)).path)
    assert {field.name for field in schema if field.nullable} == {"ts_recv", "size"}


def test_statistics_are_those_of_times_keys_and_symbol(lake: Lake) -> None:
    columns = columns_of(lake.write(TRADES, "BTCUSDT", DAY, trades(rows=10)).path)
    assert {name for name, column in columns.items() if column.statistics} == {
        "ts_event",
        "ts_recv",
        "symbol",
        "trade_id",
    }
    assert columns["symbol"].statistics.min == columns["symbol"].statistics.max == "BTCUSDT"


def test_texts_come_back_whether_or_not_they_repeat(lake: Lake) -> None:
    names = pl.Series("venue", ["XNAS", "ARCX", "XNAS"])
    for venue in (names, names.head(1).extend_constant("XNAS", 2)):
        frame = trades(rows=3).with_columns(venue)
        path = lake.write(TRADES, "BTCUSDT", DAY, frame).path
        assert pq.read_table(path, partitioning=None)["venue"].to_pylist() == venue.to_list()
        assert pq.read_schema(path).field("venue").type == pa.string()


def test_what_is_kept_is_pressed_harder_than_a_part(lake: Lake) -> None:
    rows = 5_000
    prices = np.random.default_rng(7).normal(size=rows).cumsum().round(1) + 60_000
    frame = trades(rows=rows).with_columns(pl.Series("price", prices))
    kept = lake.write(TRADES, "BTCUSDT", DAY, frame)
    part = lake.write(TRADES, "BTCUSDT", DAY, frame, part=(1, rows))
    assert kept.bytes < 0.99 * part.bytes


def flipped(path: Path | str, position: int) -> None:
    content = bytearray(Path(path).read_bytes())
    content[position] ^= 1
    Path(path).write_bytes(content)


def test_page_checksums_catch_a_flipped_bit(lake: Lake) -> None:
    path = lake.write(TRADES, "BTCUSDT", DAY, trades(rows=1_000)).path
    size = columns_of(path)["size"]
    flipped(path, (size.dictionary_page_offset or size.data_page_offset) + size.total_compressed_size - 1)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)


def test_row_groups_hold_a_million_rows(lake: Lake) -> None:
    parquet = pq.read_metadata(lake.write(TRADES, "BTCUSDT", DAY, trades(rows=ROW_GROUP_ROWS + 7)).path)
    assert [parquet.row_group(i).num_rows for i in range(parquet.num_row_groups)] == [ROW_GROUP_ROWS, 7]
    assert lake.recomputed_hash(TRADES, "BTCUSDT", DAY) == parquet.metadata[b"qp.content_hash"].decode()


def test_same_inputs_give_the_same_bytes(lake: Lake, tmp_path: Path) -> None:
    other = Lake((tmp_path / "other").as_uri())
    frame = trades(rows=3_000)
    first = lake.write(TRADES, "BTCUSDT", DAY, frame, metadata={"b": "2", "a": "1"})
    # Other chunks, another order of rows and of texts: the file is the same.
    shuffled = pl.concat([frame[2_000:], frame[:2_000]], rechunk=False)
    second = other.write(TRADES, "BTCUSDT", DAY, shuffled, metadata={"a": "1", "b": "2"})
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
    assert first.content_hash == second.content_hash


def test_metadata_is_in_the_footer_and_not_in_the_content_hash(lake: Lake) -> None:
    first = lake.write(TRADES, "BTCUSDT", DAY, trades(), metadata={"key": "k1"})
    second = lake.write(TRADES, "BTCUSDT", DAY, trades(), metadata={"key": "k2", "facts": '{"é":1}'})
    footer = lake.footer(TRADES, "BTCUSDT", DAY)
    assert footer is not None
    assert footer.metadata == {
        "schema_hash": fingerprint(Trade),
        "key": "k2",
        "facts": '{"é":1}',
        "content_hash": second.content_hash,
    }
    assert (footer.rows, footer.bytes) == (5, second.bytes)
    assert first.content_hash == second.content_hash


def test_content_hash_changes_with_one_value(lake: Lake) -> None:
    first = lake.write(TRADES, "BTCUSDT", DAY, trades())
    other = trades().with_columns(price=pl.when(pl.col("trade_id") == 102).then(1.0).otherwise("price"))
    assert lake.write(TRADES, "BTCUSDT", DAY, other).content_hash != first.content_hash


@pytest.mark.parametrize("rows", [0, 1, 5_000])
def test_recomputed_hash_is_the_footers(lake: Lake, rows: int) -> None:
    written = lake.write(TRADES, "BTCUSDT", DAY, trades(rows=rows))
    footer = lake.footer(TRADES, "BTCUSDT", DAY)
    assert footer is not None
    assert lake.recomputed_hash(TRADES, "BTCUSDT", DAY) == footer.content_hash == written.content_hash


@pytest.mark.parametrize("column", ["ts_event", "price", "aggressor"])
def test_recomputed_hash_differs_after_a_flipped_bit(lake: Lake, column: str) -> None:
    written = lake.write(TRADES, "BTCUSDT", DAY, trades(rows=5_000))
    flipped(written.path, columns_of(written.path)[column].data_page_offset + 60)
    assert lake.recomputed_hash(TRADES, "BTCUSDT", DAY) != written.content_hash


def test_footer_of_no_file_is_none(lake: Lake) -> None:
    assert lake.footer(TRADES, "BTCUSDT", DAY) is None


@pytest.mark.parametrize("damaged", [b"", b"PAR1", b"not Parquet at all"])
def test_damaged_file_is_told_by_name(lake: Lake, damaged: bytes) -> None:
    path = Path(lake.write(TRADES, "BTCUSDT", DAY, trades()).path)
    path.write_bytes(damaged)
    for ask in (lake.footer, lake.recomputed_hash):
        with pytest.raises(UnreadableFileError, match=str(path)):
            ask(TRADES, "BTCUSDT", DAY)


def test_truncated_file_is_told_by_name(lake: Lake) -> None:
    path = Path(lake.write(TRADES, "BTCUSDT", DAY, trades()).path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableFileError, match=str(path)):
        lake.footer(TRADES, "BTCUSDT", DAY)


NAMES = ("1000", "BRK.B", "BTC/USD", "S P", "%41", "X.1-2", "_X", ".X", "été")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Return a lake of all the names on two dates; tests only read it."""
    lake = Lake((tmp_path_factory.mktemp("named") / "lake").as_uri())
    for name in NAMES:
        lake.write(TRADES, name, DAY, trades(name, rows=2))
        lake.write(TRADES, name, date(2024, 8, 9), trades(name, rows=1))
    return lake


def by_duckdb(pattern: str) -> list[str]:
    return [name for (name,) in duckdb.sql(f"select symbol from read_parquet('{pattern}')").fetchall()]


READERS: dict[str, Callable[[str], list[Any]]] = {
    "pandas": lambda pattern: pd.read_parquet(_root(pattern))["symbol"].tolist(),
    "pyarrow": lambda pattern: ds.dataset(_root(pattern)).to_table()["symbol"].to_pylist(),
    "pyarrow.parquet": lambda pattern: pq.read_table(_root(pattern))["symbol"].to_pylist(),
    "DuckDB": by_duckdb,
    "Polars": lambda pattern: pl.scan_parquet(pattern).collect()["symbol"].to_list(),
}


def _root(pattern: str) -> str:
    return pattern.split("/date=", maxsplit=1)[0]


@pytest.mark.parametrize("reader", READERS)
def test_any_reader_takes_the_glob_and_reads_symbols_as_text(named: Lake, reader: str) -> None:
    assert sorted(READERS[reader](named.glob(TRADES))) == sorted(NAMES * 3)


@pytest.mark.parametrize("reader", ["pandas", "pyarrow", "DuckDB", "Polars"])
def test_any_reader_sees_utc_nanoseconds(lake: Lake, reader: str) -> None:
    frame = trades(rows=1).with_columns(pl.col("ts_event") + pl.duration(nanoseconds=1, time_unit="ns"))
    pattern = lake.write(TRADES, "BTCUSDT", DAY, frame).path
    if reader == "pandas":
        dtype = str(pd.read_parquet(pattern)["ts_event"].dtype)
    elif reader == "pyarrow":
        dtype = str(pq.read_table(pattern).schema.field("ts_event").type)
    elif reader == "DuckDB":
        dtype = str(duckdb.sql(f"select ts_event from '{pattern}'").types[0])
    else:
        dtype = str(pl.read_parquet(pattern).schema["ts_event"])
    assert dtype.replace("'", "").lower() in {
        "datetime64[ns, utc]",
        "timestamp[ns, tz=utc]",
        "datetime(time_unit=ns, time_zone=utc)",
        "timestamptz_ns",
    }


def test_symbol_days_return_the_names_as_they_are(named: Lake) -> None:
    assert set(named.symbol_days(TRADES)) == {(n, d) for n in NAMES for d in (DAY, date(2024, 8, 9))}
    assert named.tables() == [TRADES]


@pytest.mark.parametrize("name", NAMES)
def test_scan_of_one_name_returns_it_alone(named: Lake, name: str) -> None:
    assert named.scan(TRADES, [name]).collect()["symbol"].to_list() == [name] * 3


def test_scan_by_symbols_and_dates_both_ends_included(lake: Lake) -> None:
    days = [DAY + timedelta(days=n) for n in range(4)]
    for n, day in enumerate(days):
        for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
            lake.write(TRADES, symbol, day, trades(symbol, rows=1, first_id=n, start=NOON + timedelta(days=n)))

    def found(*args: Any) -> list[tuple[str, int]]:
        return lake.scan(TRADES, *args).select("symbol", "trade_id").collect().rows()

    assert found(["ETHUSDT"], days[1], days[2]) == [("ETHUSDT", 1), ("ETHUSDT", 2)]
    assert found(["ETHUSDT"], days[2]) == [("ETHUSDT", 2), ("ETHUSDT", 3)]
    assert found(["ETHUSDT"], None, days[0]) == [("ETHUSDT", 0)]
    assert found([]) == []
    # Date by date, then symbol by symbol, whatever latencies are assumed.
    assert found() == [(symbol, n) for n in range(4) for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")]


def test_scan_below_a_root_that_looks_like_a_glob(tmp_path: Path) -> None:
    lake = Lake((tmp_path / "a[1]*" / "lake").as_uri())
    lake.write(TRADES, "BTCUSDT", DAY, trades())
    assert lake.scan(TRADES).collect().height == 5


def test_open_date_is_read_from_its_parts_in_order_of_ids(lake: Lake) -> None:
    tape = trades(rows=25, first_id=1)
    for first, last in ((10, 20), (1, 2), (21, 25), (3, 9)):
        lake.write(TRADES, "BTCUSDT", DAY, tape[first - 1 : last], part=(first, last))
    lake.write(TRADES, "ETHUSDT", DAY, trades("ETHUSDT", rows=3))
    assert lake.scan(TRADES, ["BTCUSDT"]).collect()["trade_id"].to_list() == list(range(1, 26))
    assert lake.scan(TRADES).collect().height == 28
    assert list(lake.symbol_days(TRADES)) == [("ETHUSDT", DAY)]


def test_compacted_file_wins_over_parts_that_still_lie_there(lake: Lake) -> None:
    lake.write(TRADES, "BTCUSDT", DAY, trades(rows=2), part=(100, 101))
    lake.write(TRADES, "BTCUSDT", DAY, trades(rows=3))
    assert lake.scan(TRADES).collect()["trade_id"].to_list() == [100, 101, 102]


def test_parts_of_a_name_that_looks_like_a_part(lake: Lake) -> None:
    lake.write(TRADES, "X.1-2", DAY, trades("X.1-2", rows=2), part=(100, 101))
    lake.write(TRADES, "X", DAY, trades("X", rows=1))
    assert lake.scan(TRADES, ["X.1-2"]).collect().height == 2
    assert lake.scan(TRADES, ["X"]).collect().height == 1


def test_missing_receive_time_is_assumed_symbol_by_symbol(lake: Lake) -> None:
    received = NOON + timedelta(milliseconds=3)
    mixed = trades(rows=2).with_columns(
        ts_recv=pl.when(pl.col("trade_id") == 100).then(pl.lit(received, pl.Datetime("ns", "UTC")))
    )
    lake.write(TRADES, "BTCUSDT", DAY, mixed)
    for symbol in ("ETHUSDT", "OTHER"):
        lake.write(TRADES, symbol, DAY, trades(symbol, rows=1))
    found = lake.scan(TRADES).select("symbol", pl.col("ts_recv") - pl.col("ts_event"), "is_ts_recv_assumed").collect()
    assert found.rows() == [
        ("BTCUSDT", timedelta(milliseconds=3), False),
        ("BTCUSDT", timedelta(milliseconds=20), True),
        ("ETHUSDT", timedelta(milliseconds=30), True),
        ("OTHER", timedelta(milliseconds=50), True),  # the default
    ]


def test_table_without_receive_times_gets_no_such_columns(lake: Lake) -> None:
    table = "market/bars_1m"
    lake.write(table, "BTCUSDT", DAY, one_row(contract_of(table)))
    assert lake.scan(table).collect().columns == polars_schema(contract_of(table)).names()


@pytest.mark.parametrize("contract", all_contracts(), ids=lambda c: c.table)
def test_empty_scan_has_the_contracts_dtypes(lake: Lake, contract: Any) -> None:
    expected = dict(polars_schema(contract))
    if "ts_recv" in expected:
        expected["is_ts_recv_assumed"] = pl.Boolean()
    assert lake.scan(contract.table).collect().schema == pl.Schema(expected)
    lake.write(contract.table, whose(contract), DAY, polars_schema(contract).to_frame())
    assert lake.scan(contract.table).collect().schema == pl.Schema(expected)


def test_file_of_an_older_contract_lacks_a_column_that_reads_as_null(lake: Lake) -> None:
    path = Path(lake.write(TRADES, "BTCUSDT", DAY, trades()).path)
    pq.write_table(pq.read_table(path).drop_columns("ts_recv"), path)
    found = lake.scan(TRADES).collect()
    assert found["is_ts_recv_assumed"].all()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (trades().drop("price"), "column 'price' is missing"),
        (trades().with_columns(trade_id=pl.lit("7")), "column 'trade_id' is String"),
        (trades().with_columns(price=pl.lit(-1.0)), r"price\|min_exclusive \(5 rows\)"),
        (pl.concat([trades(), trades("ETHUSDT")]), "holds rows of BTCUSDT, ETHUSDT"),
    ],
    ids=["shape", "dtype", "rule", "symbol"],
)
def test_bad_frame_raises_and_leaves_the_old_file(lake: Lake, tmp_path: Path, bad: pl.DataFrame, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lake.write(TRADES, "BTCUSDT", DAY, bad)
    assert files(tmp_path) == []
    old = lake.write(TRADES, "BTCUSDT", DAY, trades())
    with pytest.raises(ValueError, match=said):
        lake.write(TRADES, "BTCUSDT", DAY, bad)
    assert lake.recomputed_hash(TRADES, "BTCUSDT", DAY) == old.content_hash
    assert len(files(tmp_path)) == 1


def test_crash_before_the_rename_leaves_the_old_file_and_the_next_write_sweeps(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Path(lake.write(TRADES, "BTCUSDT", DAY, trades()).path)
    before = old.read_bytes()
    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        killed.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            lake.write(TRADES, "BTCUSDT", DAY, trades(rows=9))
    assert old.read_bytes() == before
    assert len(files(tmp_path)) == 2
    assert lake.scan(TRADES).collect().height == 5
    assert by_duckdb(lake.glob(TRADES)) == ["BTCUSDT"] * 5
    lake.write(TRADES, "BTCUSDT", DAY, trades(rows=9))
    assert files(tmp_path) == ["lake/market/trades/date=2024-08-08/BTCUSDT.parquet"]


def test_unwritable_lake_is_told_by_path(tmp_path: Path) -> None:
    (tmp_path / "lake").write_bytes(b"a file where the lake should be")
    with pytest.raises(OSError, match=str(tmp_path / "lake")):
        Lake((tmp_path / "lake").as_uri()).write(TRADES, "BTCUSDT", DAY, trades())


def test_rows_are_put_into_the_contracts_order(lake: Lake) -> None:
    frame = pl.concat([trades(rows=3, first_id=50), trades(rows=3, first_id=10)])  # same instants, two id ranges
    lake.write(TRADES, "BTCUSDT", DAY, frame.sample(fraction=1, shuffle=True, seed=1))
    found = lake.scan(TRADES).select("ts_event", "trade_id").collect()
    assert found["trade_id"].to_list() == [10, 50, 11, 51, 12, 52]
    assert found["ts_event"].is_sorted()


def test_time_range_is_read_from_statistics(lake: Lake) -> None:
    assert lake.time_range(TRADES, DAY, "ts_event") == (None, None)
    lake.write(TRADES, "EMPTY", DAY, trades(rows=0))
    assert lake.time_range(TRADES, DAY, "ts_event") == (None, None)
    lake.write(TRADES, "BTCUSDT", DAY, trades(rows=3).with_columns(pl.col("ts_event").dt.offset_by("7ns")))
    lake.write(TRADES, "ETHUSDT", DAY, trades("ETHUSDT", rows=1, start=NOON + timedelta(hours=1)))
    assert lake.time_range(TRADES, DAY, "ts_event") == (NOON, NOON + timedelta(hours=1))


@pytest.mark.parametrize("uri", ["s3://bucket/lake", "lake", "file://host/lake", "/lake"])
def test_uri_that_is_no_local_folder_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="only file:///absolute/path"):
        Lake(uri)


def test_unknown_table_is_refused(lake: Lake) -> None:
    with pytest.raises(KeyError, match="no table 'market/nothing'"):
        lake.write("market/nothing", "BTCUSDT", DAY, trades())
