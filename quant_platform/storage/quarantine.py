"""Rows that broke a rule: `quarantine/<table>/date=…/<symbol>.parquet`, with the rule, the file and the line."""

import glob
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from pathlib import Path
from urllib.parse import quote

import polars as pl

from quant_platform.storage.atomic import published, sweep

SCHEMA = pl.Schema(
    {
        "rule": pl.String,
        "source_file": pl.String,
        "source_line": pl.Int64,
        "raw": pl.String,
        "table": pl.String,
        "symbol": pl.String,
    }
)


def put(root: Path, table: str, symbol: str, date: Date, rows: pl.DataFrame | None, *, part: int | None = None) -> None:
    """Make the symbol-day's quarantine hold exactly these rows; none removes the files of an earlier build.

    Args:
        root: The quarantine folder.
        table: The table that the rows were meant for.
        symbol: The platform's name.
        date: Trading date.
        rows: Columns `rule`, `source_file`, `source_line`, `raw` (the row as the source wrote it).
        part: Of an open date: the number of the part, to which alone the above applies.
    """
    folder, name = root / table / f"date={date.isoformat()}", quote(symbol, safe="")
    path = folder / (f"{name}.parquet" if part is None else f"{name}.part{part}.parquet")
    sweep(path)
    if part is None:
        for old in folder.glob(f"{glob.escape(name)}.part*.parquet"):
            old.unlink()
    if rows is None or rows.is_empty():
        path.unlink(missing_ok=True)
        return
    named = rows.with_columns(table=pl.lit(table), symbol=pl.lit(symbol))
    with published(path) as temporary:
        named.select(SCHEMA.names()).cast(SCHEMA).write_parquet(temporary)


def commonest(root: Path, table: str, symbol: str, date: Date) -> str | None:
    """Return the rule that most rows of a symbol-day broke, how many, and where the first of them stands.

    Such as `price|nullability: 12 rows, the first in line 3 of BTCUSDT-trades-2024-08-08.zip`: a rule begins with its
    column. None where no such row is kept: somebody has tidied up.
    """
    folder, name = root / table / f"date={date.isoformat()}", glob.escape(quote(symbol, safe=""))
    patterns = (f"{name}.parquet", f"{name}.part*.parquet")
    kept = [pl.read_parquet(path) for pattern in patterns for path in folder.glob(pattern)]
    if not kept:
        return None
    rows = pl.concat(kept).sort("source_file", "source_line")
    by_rule = rows.group_by("rule", maintain_order=True).agg(pl.len(), pl.struct(rows.columns).first().alias("first"))
    rule, count, first = by_rule.sort("len", descending=True, maintain_order=True).row(0)
    return f"{rule}: {count} rows, the first in line {first['source_line']} of {first['source_file']}"


def counts(root: Path, start: Date, end: Date) -> pl.DataFrame:
    """Return quarantined rows by `date table symbol rule`, dates inclusive, largest counts first."""
    frames = [
        pl.read_parquet(path)
        .group_by("table", "symbol", "rule")
        .agg(rows=pl.len().cast(pl.Int64))
        .with_columns(date=pl.lit(day))
        for path in sorted(root.glob("**/date=*/*.parquet"))
        if start <= (day := Date.fromisoformat(path.parent.name.removeprefix("date="))) <= end
    ]
    empty = pl.DataFrame(
        schema={"date": pl.Date, "table": pl.String, "symbol": pl.String, "rule": pl.String, "rows": pl.Int64}
    )
    return pl.concat([empty, *(f.select(empty.columns) for f in frames)]).sort(
        "rows", "table", "symbol", "rule", descending=[True, False, False, False]
    )
