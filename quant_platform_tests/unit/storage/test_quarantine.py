"""Rows that broke a rule: one file a symbol-day, which always says what the last build found."""

from datetime import date
from pathlib import Path

import polars as pl

from quant_platform.storage import quarantine

DAY = date(2024, 8, 8)


def rows(*rules: str) -> pl.DataFrame:
    lines = range(2, 2 + len(rules))
    return pl.DataFrame(
        {"rule": rules, "source_file": "a.zip", "source_line": lines, "raw": [f"raw {line}" for line in lines]},
        schema={k: quarantine.SCHEMA[k] for k in ("rule", "source_file", "source_line", "raw")},
    )


def test_put_names_table_and_symbol_beside_rule_file_and_line(tmp_path: Path) -> None:
    quarantine.put(tmp_path, "market/trades", "BTC/USD", DAY, rows("price|nan", "size|min"))
    path = tmp_path / "market/trades/date=2024-08-08/BTC%2FUSD.parquet"
    stored = pl.read_parquet(path)
    assert stored.schema == quarantine.SCHEMA
    assert stored.row(1) == ("size|min", "a.zip", 3, "raw 3", "market/trades", "BTC/USD")


def test_put_replaces_what_an_earlier_build_found(tmp_path: Path) -> None:
    quarantine.put(tmp_path, "market/trades", "A", DAY, rows("one", "two"))
    quarantine.put(tmp_path, "market/trades", "A", DAY, rows("three"))
    assert quarantine.counts(tmp_path, DAY, DAY).rows() == [(DAY, "market/trades", "A", "three", 1)]


def test_put_of_nothing_removes_the_file_and_its_leftovers(tmp_path: Path) -> None:
    folder = tmp_path / "market/trades/date=2024-08-08"
    quarantine.put(tmp_path, "market/trades", "A", DAY, rows("one"))
    (folder / "A.parquet.0a.tmp").touch()
    quarantine.put(tmp_path, "market/trades", "A", DAY, rows())
    assert list(folder.iterdir()) == []
    quarantine.put(tmp_path, "market/trades", "B", DAY, None)
    assert list(folder.iterdir()) == []


def test_counts_by_date_table_symbol_and_rule_within_the_dates(tmp_path: Path) -> None:
    quarantine.put(tmp_path, "market/trades", "A", DAY, rows("x", "y", "x"))
    quarantine.put(tmp_path, "market/quotes", "B", DAY, rows("x"))
    quarantine.put(tmp_path, "market/quotes", "B", date(2024, 8, 9), rows("x", "x", "x", "x"))
    quarantine.put(tmp_path, "market/quotes", "B", date(2024, 8, 7), rows("x"))
    assert quarantine.counts(tmp_path, DAY, date(2024, 8, 9)).rows() == [
        (date(2024, 8, 9), "market/quotes", "B", "x", 4),
        (DAY, "market/trades", "A", "x", 2),
        (DAY, "market/quotes", "B", "x", 1),
        (DAY, "market/trades", "A", "y", 1),
    ]


def test_counts_of_nothing_has_its_columns(tmp_path: Path) -> None:
    counts = quarantine.counts(tmp_path / "none", DAY, DAY)
    assert counts.columns == ["date", "table", "symbol", "rule", "rows"]
    assert counts.is_empty()


def test_commonest_is_the_rule_of_most_rows_and_its_first_line_over_all_parts(tmp_path: Path) -> None:
    quarantine.put(tmp_path, "market/trades", "A", DAY, rows("size|min", "price|min"), part=10)
    quarantine.put(tmp_path, "market/trades", "A", DAY, rows("price|nan", "price|nan", "size|min", "size|min"), part=2)
    quarantine.put(tmp_path, "market/trades", "A.B", DAY, rows("x", "x", "x", "x", "x"), part=2)
    told = quarantine.commonest(tmp_path, "market/trades", "A", DAY)
    assert told == "size|min: 3 rows, the first in line 2 of a.zip"


def test_a_quarantine_that_was_tidied_up_names_no_rule(tmp_path: Path) -> None:
    assert quarantine.commonest(tmp_path, "market/trades", "A", DAY) is None
