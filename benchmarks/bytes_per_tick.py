"""Claim: real ticks take fewer bytes in the lake than any other writer of the same columns needs."""

import datetime as dt
import gzip
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _harness import ROOT, Measurement, PeerNotInstalledError, Result, Verdict, Worker, peer_python
from bars import ARCTIC

DATA = Path(os.environ.get("QP_BENCH_DATA", ROOT.parent / "shared" / "data"))
ARCHIVE = DATA / "archive"
FRAMES = DATA / "binance_frames_hft"
_USDM, _SPOT = "binance_usdm", "binance_spot"
_DAYS = (
    ("USD-M trades", _USDM, ("BTCUSDT", "ETHUSDT"), "trades", dt.date(2024, 8, 8)),
    ("spot trades", _SPOT, ("BTCUSDT", "ETHUSDT"), "trades", dt.date(2024, 8, 8)),
    ("spot aggTrades", _SPOT, ("BTCUSDT", "ETHUSDT", "ETHBTC"), "aggTrades", dt.date(2020, 11, 1)),
)
_RECORDED = {
    (_USDM, "BTCUSDT"): "usdm_btcusdt_20240808.part1.jsonl.gz",
    (_USDM, "ETHUSDT"): "usdm_ethusdt_20240808.part1.jsonl.gz",
    (_SPOT, "BTCUSDT"): "spot_btcusdt_20240808.jsonl.gz",
    (_SPOT, "ETHUSDT"): "spot_ethusdt_20240808.jsonl.gz",
}
ARCHIVE_TRADES, LIVE_TRADES, QUOTES = "archive trades", "live trades", "quotes"

Day = tuple[str, str, dt.date, Any]
"""Table, symbol, date, rows."""


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Write the same frames with every writer and count bytes on disk. Sizes do not vary: there are no rounds."""
    del rounds, is_quick
    if not ARCHIVE.is_dir():
        raise FileNotFoundError(
            f"The real ticks are not in {DATA}: set QP_BENCH_DATA to the folder that holds archive/."
        )
    sets = _sets(folder)
    writers = _writers()
    measurements: list[Measurement] = []
    sizes: dict[tuple[str, str], float] = {}
    for label, days in sets.items():
        rows = sum(day[3].height for day in days)
        for name, write in writers.items():
            try:
                sizes[label, name] = sum(write(folder / name / label, days)) / rows
            except PeerNotInstalledError as reason:
                measurements.append(Measurement(name=name, group=label, not_run=str(reason)))
                continue
            note = f"{rows:,} rows in {len(days)} files" if name == "ours" else ""
            measurements.append(Measurement(name=name, group=label, values=[sizes[label, name]], note=note))

    def ratio(label: str, *peers: str) -> float:
        return sizes[label, "ours"] / min(sizes[label, peer] for peer in peers)

    duckdb = [name for name in writers if name.startswith("DuckDB")]
    verdicts = []
    for label, limit in ((ARCHIVE_TRADES, 3.3), ("USD-M trades", 3.3), (LIVE_TRADES, 5.0), (QUOTES, None)):
        less = {"is_more_better": False}
        if limit:
            verdicts.append(
                Verdict(claim=f"bytes per tick, {label}", measured=sizes[label, "ours"], goal=limit, **less)
            )
        verdicts += [
            Verdict(
                claim=f"ours ÷ Polars' default, {label}", measured=ratio(label, "Polars default"), floor=0.5, **less
            ),
            Verdict(claim=f"ours ÷ DuckDB's best, {label}", measured=ratio(label, *duckdb), goal=1.0, **less),
        ]
    return Result(
        title="Bytes per tick: real recorded trades and quotes",
        unit="bytes",
        how="Real archive files through the real parser and `Lake.write`; every other writer gets the same frames. "
        "Live rows are the same trades with the receive times that were recorded with them (100 ns clock).",
        measurements=measurements,
        verdicts=verdicts,
        notes=[
            "The files hold minutes, not days (2,000 to 33,000 rows): footers and dictionaries weigh more than usual",
            "Every second row of `spot aggTrades` (2020) has a size of its own",
            "SQLite and ArcticDB: the store's file with all days in it",
        ],
    )


def _sets(folder: Path) -> dict[str, list[Day]]:
    import polars as pl

    sets: dict[str, list[Day]] = {ARCHIVE_TRADES: [], LIVE_TRADES: [], QUOTES: []}
    for label, feed, names, tape, date in _DAYS:
        days = [_parsed(folder, feed=feed, name=name, tape=tape, date=date, table="market/trades") for name in names]
        sets[label] = days
        sets[ARCHIVE_TRADES] += days
        if date.year < 2024:
            continue
        for name, (table, symbol, _, rows) in zip(names, days, strict=True):
            received = _receive_times(FRAMES / _RECORDED[feed, name])
            live = rows.drop("ts_recv").join(received, on="trade_id", how="inner", maintain_order="left")
            sets[LIVE_TRADES].append((table, symbol, date, live.select(rows.columns).sort("ts_event", "trade_id")))
    sets[QUOTES] = [
        _parsed(folder, feed=_USDM, name=name, tape="trades", date=dt.date(2024, 8, 8), table="market/quotes")
        for name in ("BTCUSDT", "ETHUSDT")
    ]
    assert all(pl.Series(day[3]["ts_recv"]).null_count() == 0 for day in sets[LIVE_TRADES])
    return sets


def _parsed(folder: Path, *, feed: str, name: str, tape: str, date: dt.date, table: str) -> Day:
    from quant_platform.feeds.binance_archive import fetch_day
    from quant_platform.feeds.binance_csv import read_day
    from quant_platform.settings import Instrument

    symbol = name if feed == _USDM else f"{name}.SPOT"
    instrument = Instrument(symbol=symbol, venue_symbol=name, feed=feed, tape=tape, tick_size=0.01, lot_size=0.001)
    day = fetch_day(ARCHIVE.as_uri(), instrument, table, date, landing=folder / "landing")
    assert day is not None, f"{ARCHIVE} lacks {table} of {symbol} on {date}"
    return table, symbol, date, read_day(day, instrument, date).rows


def _receive_times(path: Path) -> Any:
    import polars as pl

    def rows() -> Iterator[tuple[int, int]]:
        with gzip.open(path, "rt") as lines:
            for line in lines:
                received, _, frame = line.partition(" ")
                if '"e":"trade"' in frame:
                    yield json.loads(frame)["data"]["t"], int(received)

    times = pl.DataFrame(list(rows()), schema={"trade_id": pl.Int64, "ts_recv": pl.Int64}, orient="row")
    return times.unique("trade_id", keep="first").with_columns(pl.col("ts_recv").cast(pl.Datetime("ns", "UTC")))


def _writers() -> Mapping[str, Callable[[Path, Sequence[Day]], Iterator[int]]]:
    duckdb = {
        "DuckDB default": "",
        "DuckDB zstd": ", COMPRESSION zstd",
        "DuckDB V2 zstd": ", COMPRESSION zstd, PARQUET_VERSION v2",
    }
    return {
        "ours": _ours,
        "Polars default": _polars,
        "pandas default": _pandas,
        **{name: partial(_duckdb, options=options) for name, options in duckdb.items()},
        "SQLite": _sqlite,
        "ArcticDB": _arctic,
    }


def _ours(folder: Path, days: Sequence[Day]) -> Iterator[int]:
    from quant_platform.storage.lake import Lake

    lake = Lake(folder.as_uri())
    for table, symbol, date, rows in days:
        yield lake.write(table, symbol, date, rows).bytes


def _polars(folder: Path, days: Sequence[Day]) -> Iterator[int]:
    for path, rows in _files(folder, days):
        rows.write_parquet(path)
        yield path.stat().st_size


def _pandas(folder: Path, days: Sequence[Day]) -> Iterator[int]:
    for path, rows in _files(folder, days):
        rows.to_pandas().to_parquet(path)
        yield path.stat().st_size


def _duckdb(folder: Path, days: Sequence[Day], options: str) -> Iterator[int]:
    import duckdb

    for path, rows in _files(folder, days):
        connection = duckdb.connect()
        connection.register("ticks", rows.to_arrow())
        connection.execute(f"COPY ticks TO '{path}' (FORMAT parquet{options})")
        yield path.stat().st_size


def _sqlite(folder: Path, days: Sequence[Day]) -> Iterator[int]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ticks.sqlite"
    connection = sqlite3.connect(path)
    for _, _, _, rows in days:
        plain = rows.with_columns(rows[name].to_physical() for name in ("ts_event", "ts_recv"))
        columns = ", ".join(plain.columns)
        connection.execute(f"CREATE TABLE IF NOT EXISTS ticks ({columns})")
        marks = ", ".join("?" * plain.width)
        connection.executemany(f"INSERT INTO ticks VALUES ({marks})", plain.iter_rows())
    connection.commit()
    connection.close()
    yield path.stat().st_size


def _arctic(folder: Path, days: Sequence[Day]) -> Iterator[int]:
    python = peer_python("arctic", *ARCTIC)
    files = [str(path) for path, rows in _files(folder, days) if rows.write_parquet(path) is None]
    worker = Worker(python, "bytes_per_tick", "arctic_store", files=files, store=str(folder / "store"))
    worker.run()
    worker.close()
    yield sum(path.stat().st_blocks * 512 for path in (folder / "store").rglob("*") if path.is_file())


def arctic_store(files: list[str], store: str) -> Callable[[], None]:
    """ArcticDB, one symbol a file."""
    import arcticdb
    import pandas as pd

    def job() -> None:
        library = arcticdb.Arctic(f"lmdb://{store}").get_library("ticks", create_if_missing=True)
        for file in files:
            rows = pd.read_parquet(file)
            rows.index = pd.DatetimeIndex(rows.pop("ts_event")).tz_localize(None)
            rows["ts_recv"] = pd.DatetimeIndex(rows["ts_recv"]).tz_localize(None)
            library.write(Path(file).stem, rows)

    return job


def _files(folder: Path, days: Sequence[Day]) -> Iterator[tuple[Path, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    for _, symbol, date, rows in days:
        yield folder / f"{symbol}-{date}.parquet", rows
