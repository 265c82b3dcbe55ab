"""Where the desk's files lie: parts by symbol-day, receipts by content and reading."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from quant_platform.storage import desk_archive
from quant_platform.storage.desk_archive import Day, Receipt

FRIDAY = date(2024, 3, 8)
ONE = Receipt(sha256="a" * 64, via="fills", kind="fills", how="12345678", file="x.csv", ts_intake=7)
OTHER = Receipt(sha256="b" * 64, via="broker", kind="fills", how="12345678", file="y.csv", ts_intake=3)


def rows(*idents: str, of: Receipt = ONE) -> pl.DataFrame:
    origin = {name: pl.lit(None, dtype) for name, dtype in desk_archive.ORIGIN.items()}
    told = {"source_file": pl.lit(of.file), "ts_intake": pl.lit(of.ts_intake).cast(desk_archive.ORIGIN["ts_intake"])}
    lines = {"source_line": pl.int_range(pl.len(), 0, -1)}
    return pl.DataFrame({"fill_id": idents}).with_columns(**(origin | told | lines))


def test_parts_lie_by_kind_date_and_symbol(tmp_path: Path) -> None:
    desk_archive.put_part(tmp_path, ONE, FRIDAY, "B/B", rows("f1"))
    (path,) = desk_archive.parts(tmp_path, "fills", "B/B", FRIDAY)
    assert str(path.relative_to(tmp_path)) == "fills/2024-03-08/B%2FB/aaaaaaaaaaaaaaaa.fills.12345678.parquet"
    assert desk_archive.parts(tmp_path, "orders", "B/B", FRIDAY) == []
    path.with_name(f"{path.name}.0.tmp").touch()
    assert desk_archive.parts(tmp_path, "fills", "B/B", FRIDAY) == [path]


def test_rows_are_read_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    desk_archive.put_part(tmp_path, ONE, FRIDAY, "AAA", rows("f1", "f2"))
    desk_archive.put_part(tmp_path, OTHER, FRIDAY, "AAA", rows("f3", of=OTHER))
    found = desk_archive.read(desk_archive.parts(tmp_path, "fills", "AAA", FRIDAY))
    assert found["fill_id"].to_list() == ["f3", "f2", "f1"]


def test_parts_of_another_reading_are_dropped(tmp_path: Path) -> None:
    again = Receipt(sha256=ONE.sha256, via="fills", kind="fills", how="99999999", file="x.csv", ts_intake=7)
    for one, symbol in ((ONE, "AAA"), (ONE, "BBB"), (again, "AAA"), (OTHER, "AAA")):
        desk_archive.put_part(tmp_path, one, FRIDAY, symbol, rows("f1"))
    desk_archive.drop_others(tmp_path, again)
    names = [path.name for path in desk_archive.parts(tmp_path, "fills", "AAA", FRIDAY)]
    assert names == ["aaaaaaaaaaaaaaaa.fills.99999999.parquet", "bbbbbbbbbbbbbbbb.broker.12345678.parquet"]
    assert desk_archive.parts(tmp_path, "fills", "BBB", FRIDAY) == []


def test_only_complete_receipts_are_told_and_in_their_order(tmp_path: Path) -> None:
    assert list(desk_archive.receipts(tmp_path)) == []
    assert desk_archive.receipt(tmp_path, ONE.sha256, ONE.via) is None
    desk_archive.put_receipt(tmp_path, ONE)
    assert desk_archive.receipt(tmp_path, ONE.sha256, ONE.via) == ONE
    assert list(desk_archive.receipts(tmp_path)) == []
    whole = Receipt(
        **{name: getattr(OTHER, name) for name in ("sha256", "via", "kind", "how", "file", "ts_intake")},
        days=(Day(FRIDAY, "AAA", 3, 1),),
        rules={"price|number": 1},
        unread=("note",),
        is_complete=True,
    )
    desk_archive.put_part(tmp_path, whole, FRIDAY, "AAA", rows("f1"))
    desk_archive.complete(tmp_path, whole)
    ((written, found),) = desk_archive.receipts(tmp_path)
    assert found == whole
    assert list(desk_archive.receipts(tmp_path, written)) == [(written, whole)]
    assert list(desk_archive.receipts(tmp_path, written + 1)) == []


def test_raw_content_is_kept_once(tmp_path: Path) -> None:
    desk_archive.put_raw(tmp_path, ONE.sha256, ".csv", b"as it came")
    desk_archive.put_raw(tmp_path, ONE.sha256, ".csv", b"never")
    (path,) = (tmp_path / "raw").iterdir()
    assert (path.name, path.read_bytes()) == (f"{ONE.sha256}.csv", b"as it came")


def test_an_instant_keeps_microseconds() -> None:
    assert desk_archive.instant(1_709_899_200_123_456_789) == datetime(2024, 3, 8, 12, 0, 0, 123456, tzinfo=UTC)
