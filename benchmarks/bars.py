"""Claim: from one Parquet file of 10 M ticks to 1 s, 1 m and 5 m bars in memory faster than the usual tools."""

import datetime as dt
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _harness import Measurement, PeerNotInstalledError, Result, Verdict, Worker, interleaved, peer_python

DATE = dt.date(2024, 8, 8)
SYMBOL = "BTCUSDT"
ROWS = 10_000_000
WIDTHS_S = {"1s": 1, "1m": 60, "5m": 300}
FIGURES = ("open", "high", "low", "close", "volume", "vwap", "trade_count", "buy_volume", "sell_volume")
TOLERANCE = 1e-9
_NS = 1_000_000_000
ARCTIC = ("arcticdb==6.28.2", "pandas==2.3.3", "numpy==2.4.6", "pyarrow==25.0.1")
_NUMBA = ("numba==0.68.1", "numpy==2.4.6", "pyarrow==25.0.1", "pandas==3.1.1")

Bars = Mapping[str, Any]
Job = Callable[[], Bars]


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time all contestants on one file that `Lake.write` has written."""
    from _ticks import day_of_ticks

    from quant_platform.storage.lake import Lake

    lake = Lake((folder / "lake").as_uri())
    written = lake.write("market/trades", SYMBOL, DATE, day_of_ticks(SYMBOL, DATE, ROWS // (20 if is_quick else 1)))
    default_file = str(folder / "duckdb.parquet")
    _write_with_duckdb(written.path, default_file)
    contestants: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
        "ours": ("ours", (), {"lake": (folder / "lake").as_uri()}),
        "pandas ×3": ("pandas_three", (), {"file": written.path}),
        "DuckDB ×3, same file": ("duckdb_three", (), {"file": written.path}),
        "DuckDB ×3, its default file": ("duckdb_three", (), {"file": default_file}),
        "DuckDB, cascaded, same file": ("duckdb_cascaded", (), {"file": written.path}),
        "ArcticDB + pandas": (
            "arctic_pandas",
            ("arctic", *ARCTIC),
            {"file": written.path, "store": str(folder / "arctic")},
        ),
        "fused read + numba fold": ("numba_fold", ("numba", *_NUMBA), {"file": written.path}),
    }
    workers: dict[str, Worker] = {}
    missing: list[Measurement] = []
    try:
        for name, (contestant, peer, arguments) in contestants.items():
            try:
                python = peer_python(*peer) if peer else Path(sys.executable)
            except PeerNotInstalledError as reason:
                missing.append(Measurement(name=name, not_run=str(reason)))
                continue
            workers[name] = Worker(python, "bars", contestant, **arguments)
            workers[name].run()
            workers[name].save(folder / name)
        reference = _read(folder / "ours")
        for name in workers:
            _require_equal(reference, _read(folder / name), name)
        seconds = interleaved({name: _at_work(worker) for name, worker in workers.items()}, rounds)
    finally:
        for worker in workers.values():
            worker.close()
    timed = [
        Measurement(name=name, values=[1_000 * s for s in values], note=_notes().get(name, ""))
        for name, values in seconds.items()
    ]
    middle = {row.name: row.median for row in timed}

    def faster(peer: str) -> float | None:
        return middle[peer] / middle["ours"] if peer in middle else None

    fold = faster("fused read + numba fold")
    counts = {width: rows.height for width, rows in reference.items()}
    return Result(
        title=f"Bars: {written.rows / 1e6:g} M ticks, lake → 1 s, 1 m and 5 m bars",
        unit="ms",
        how="One symbol-day, from the Parquet file to three frames in memory. Every contestant is a process of its own "
        "that stays up: imports, compilation and two runs come before the clock. In its turn each runs twice, the "
        "second counting: a process that slept through the others' turns first gets its memory back from the system.",
        measurements=[*timed, *missing],
        verdicts=[
            Verdict(claim="times faster than pandas ×3", measured=faster("pandas ×3"), floor=4, goal=8),
            Verdict(
                claim="times faster than DuckDB ×3, same file",
                measured=faster("DuckDB ×3, same file"),
                floor=2,
                goal=3,
            ),
            Verdict(
                claim="times faster than ArcticDB + pandas", measured=faster("ArcticDB + pandas"), floor=1, goal=1.5
            ),
            Verdict(
                claim="our time ÷ fused read + numba fold",
                measured=fold and 1 / fold,
                goal=1.1,
                is_more_better=False,
            ),
        ],
        notes=[
            f"All contestants' bars are equal to {TOLERANCE:g} before the clock starts ({counts})",
            "Ours also fills receive times, sorts late trades in, and returns `ts_known` and `revision`",
            f"The ticks are simulated (bursts, tick grid, round lots): {written.bytes / written.rows:.2f} bytes each",
        ],
    )


def _at_work(worker: Worker) -> Callable[[], float]:
    def second_run() -> float:
        worker.run()
        return worker.run()

    return second_run


def _notes() -> dict[str, str]:
    import duckdb
    import pandas as pd
    import polars as pl

    return {
        "ours": f"`Lake.scan` → `bars` → `cascade` twice; Polars {pl.__version__}",
        "pandas ×3": f"`read_parquet`, then a groupby per width; {pd.__version__}",
        "DuckDB ×3, same file": f"one query per width; {duckdb.__version__}",
        "DuckDB ×3, its default file": "written by `COPY … (FORMAT parquet)`",
        "DuckDB, cascaded, same file": "1 m from 1 s, 5 m from 1 m; shown, not judged",
        "ArcticDB + pandas": f"`resample` in its C++ to 1 s, pandas to 1 m and 5 m; LMDB; {ARCTIC[0]}",
        "fused read + numba fold": f"row groups decoded in threads while one loop folds; {_NUMBA[0]}",
    }


def ours(lake: str) -> Job:
    """The platform: one pass to 1 s, cascaded."""
    from quant_platform.calculators import bars as calculator
    from quant_platform.storage.lake import Lake

    store = Lake(lake)

    def job() -> Bars:
        # Of a tape of single prints the pipeline reads one id a row, too.
        trades = store.scan("market/trades", [SYMBOL], DATE, DATE).drop("last_trade_id")
        seconds = calculator.bars(trades)
        minutes = calculator.cascade(seconds, 60)
        return {"1s": seconds, "1m": minutes, "5m": calculator.cascade(minutes, 300)}

    return job


def pandas_three(file: str) -> Job:
    """Pandas, each width from the ticks."""
    import pandas as pd

    def job() -> Bars:
        ticks = pd.read_parquet(file, columns=["ts_event", "price", "size", "aggressor"])
        ticks["notional"] = ticks["price"] * ticks["size"]
        ticks["buy_volume"] = ticks["size"].where(ticks["aggressor"] == 1, 0.0)
        ticks["sell_volume"] = ticks["size"].where(ticks["aggressor"] == -1, 0.0)
        found = {}
        for width, seconds in WIDTHS_S.items():
            groups = ticks.groupby(ticks["ts_event"].dt.floor(f"{seconds}s").rename("ts_open"))
            found[width] = groups.agg(
                open=("price", "first"),
                high=("price", "max"),
                low=("price", "min"),
                close=("price", "last"),
                volume=("size", "sum"),
                notional=("notional", "sum"),
                trade_count=("price", "size"),
                buy_volume=("buy_volume", "sum"),
                sell_volume=("sell_volume", "sum"),
            )
            found[width]["vwap"] = found[width]["notional"] / found[width]["volume"]
        return found

    return job


_DUCKDB_TICKS = """
    SELECT epoch_ns(ts_event) // {ns} AS bucket, arg_min(price, trade_id) AS open, max(price) AS high,
        min(price) AS low, arg_max(price, trade_id) AS close, sum(size) AS volume,
        sum(price * size) / sum(size) AS vwap, count(*) AS trade_count,
        sum(CASE WHEN aggressor = 1 THEN size ELSE 0 END) AS buy_volume,
        sum(CASE WHEN aggressor = -1 THEN size ELSE 0 END) AS sell_volume
    FROM {source} GROUP BY bucket ORDER BY bucket"""
_DUCKDB_BARS = """
    SELECT bucket // {factor} AS bucket, arg_min(open, b.bucket) AS open, max(high) AS high, min(low) AS low,
        arg_max(close, b.bucket) AS close, sum(volume) AS volume, sum(vwap * volume) / sum(volume) AS vwap,
        sum(trade_count)::BIGINT AS trade_count, sum(buy_volume) AS buy_volume, sum(sell_volume) AS sell_volume
    FROM {source} b GROUP BY b.bucket // {factor} ORDER BY 1"""


def duckdb_three(file: str) -> Job:
    """DuckDB, each width from the ticks."""
    import duckdb

    connection = duckdb.connect()

    def job() -> Bars:
        return {
            width: connection.sql(_DUCKDB_TICKS.format(ns=seconds * _NS, source=f"'{file}'")).to_arrow_table()
            for width, seconds in WIDTHS_S.items()
        }

    return job


def duckdb_cascaded(file: str) -> Job:
    """DuckDB, wide bars from narrow ones."""
    import duckdb

    connection = duckdb.connect()

    def job() -> Bars:
        seconds = connection.sql(_DUCKDB_TICKS.format(ns=_NS, source=f"'{file}'")).to_arrow_table()
        connection.register("seconds", seconds)
        minutes = connection.sql(_DUCKDB_BARS.format(factor=60, source="seconds")).to_arrow_table()
        connection.register("minutes", minutes)
        fives = connection.sql(_DUCKDB_BARS.format(factor=5, source="minutes")).to_arrow_table()
        return {"1s": seconds, "1m": minutes, "5m": fives}

    return job


def arctic_pandas(file: str, store: str) -> Job:
    """ArcticDB's own resampling to seconds, and pandas from there."""
    import arcticdb
    import pandas as pd

    ticks = pd.read_parquet(file, columns=["ts_event", "price", "size", "aggressor"])
    ticks.index = pd.DatetimeIndex(ticks.pop("ts_event")).tz_localize(None)
    library = arcticdb.Arctic(f"lmdb://{store}").get_library("ticks", create_if_missing=True)
    library.write(SYMBOL, ticks)
    query = arcticdb.QueryBuilder()
    query = query.apply("notional", query["price"] * query["size"])
    query = query.apply("buy_volume", arcticdb.where(query["aggressor"] == 1, query["size"], 0.0))
    query = query.apply("sell_volume", arcticdb.where(query["aggressor"] == -1, query["size"], 0.0))
    query = query.resample("1s").agg(
        {
            "open": ("price", "first"),
            "high": ("price", "max"),
            "low": ("price", "min"),
            "close": ("price", "last"),
            "volume": ("size", "sum"),
            "notional": ("notional", "sum"),
            "trade_count": ("price", "count"),
            "buy_volume": ("buy_volume", "sum"),
            "sell_volume": ("sell_volume", "sum"),
        }
    )
    rules = {"open": "first", "high": "max", "low": "min", "close": "last"}

    def wider(narrow: Any, seconds: int) -> Any:
        sums = [name for name in narrow.columns if name not in rules]
        grouped = narrow.groupby(narrow.index.floor(f"{seconds}s"))
        return grouped.agg({**rules, **dict.fromkeys(sums, "sum")})

    def job() -> Bars:
        seconds = library.read(SYMBOL, query_builder=query).data
        minutes = wider(seconds, 60)
        found = {"1s": seconds, "1m": minutes, "5m": wider(minutes, 300)}
        for rows in found.values():
            rows["vwap"] = rows["notional"] / rows["volume"]
            rows.index.name = "ts_open"
        return found

    return job


def numba_fold(file: str) -> Job:  # noqa: C901, PLR0915  # kernels live where numba is imported
    """What the hardware gives: threads decode row groups, one compiled loop folds them as they come."""
    from concurrent.futures import ThreadPoolExecutor

    import numba
    import numpy as np
    import pyarrow.parquet as pq

    @numba.njit(nogil=True)
    def fold(ts, price, size, aggressor, opens, rows, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, PLR0917  # numba's types
        for i in range(len(ts)):
            bucket = ts[i] // 1_000_000_000
            p, v = price[i], size[i]
            if count == 0 or opens[count - 1] != bucket:
                opens[count] = bucket
                rows[count, 0] = rows[count, 1] = rows[count, 2] = p
                rows[count, 4:] = 0.0
                count += 1
            bar = rows[count - 1]
            bar[1] = max(bar[1], p)
            bar[2] = min(bar[2], p)
            bar[3] = p
            bar[4] += v
            bar[5] += p * v
            bar[6] += 1
            if aggressor[i] == 1:
                bar[7] += v
            elif aggressor[i] == -1:
                bar[8] += v
        return count

    @numba.njit
    def widen(opens, rows, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  # numba's types
        wide_opens, wide, count = np.empty_like(opens), np.empty_like(rows), 0
        for i in range(len(opens)):
            bucket = opens[i] // factor
            if count == 0 or wide_opens[count - 1] != bucket:
                wide_opens[count] = bucket
                wide[count] = rows[i]
                count += 1
                continue
            bar = wide[count - 1]
            bar[1] = max(bar[1], rows[i, 1])
            bar[2] = min(bar[2], rows[i, 2])
            bar[3] = rows[i, 3]
            bar[4:] += rows[i, 4:]
        return wide_opens[:count], wide[:count]

    names = ["ts_event", "price", "size", "aggressor"]

    def decoded(group: int) -> list[Any]:
        table = pq.ParquetFile(file).read_row_group(group, columns=names, use_threads=False)
        columns = [table[name].combine_chunks() for name in names]
        return [columns[0].cast("int64").to_numpy(), *(c.to_numpy() for c in columns[1:])]

    def frame(opens: Any, rows: Any) -> Any:
        import pandas as pd

        names = ["open", "high", "low", "close", "volume", "notional", "trade_count", "buy_volume", "sell_volume"]
        bars = pd.DataFrame(rows, columns=names)
        bars["vwap"] = bars["notional"] / bars["volume"]
        return bars.assign(bucket=opens)

    pool = ThreadPoolExecutor()
    groups = pq.read_metadata(file).num_row_groups

    def job() -> Bars:
        opens, rows, count = np.empty(86_400, np.int64), np.empty((86_400, 9)), 0
        for columns in pool.map(decoded, range(groups)):
            count = fold(*columns, opens, rows, count)
        seconds = opens[:count], rows[:count]
        minutes = widen(*seconds, 60)
        return {"1s": frame(*seconds), "1m": frame(*minutes), "5m": frame(*widen(*minutes, 5))}

    return job


def save(result: Bars, folder: str) -> None:
    """Write a contestant's bars, whatever kind of frame it has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for width, rows in result.items():
        if hasattr(rows, "to_arrow"):
            table = rows.to_arrow()
        elif isinstance(rows, pa.Table):
            table = rows
        else:
            table = pa.Table.from_pandas(rows.reset_index() if rows.index.name else rows)
        pq.write_table(table, Path(folder) / f"{width}.parquet")


def _write_with_duckdb(source: str, target: str) -> None:
    import duckdb

    duckdb.execute(f"COPY (SELECT * FROM '{source}') TO '{target}' (FORMAT parquet)")


def _read(folder: Path) -> dict[str, Any]:
    import polars as pl

    found = {}
    for width, seconds in WIDTHS_S.items():
        rows = pl.read_parquet(folder / f"{width}.parquet")
        if "bucket" not in rows.columns:
            rows = rows.with_columns(bucket=pl.col("ts_open").dt.epoch("s") // seconds)
        found[width] = rows.select(pl.col("bucket").cast(pl.Int64), *FIGURES).filter(pl.col("trade_count") > 0)
    return found


def _require_equal(reference: Mapping[str, Any], found: Mapping[str, Any], name: str) -> None:
    from polars.testing import assert_frame_equal

    for width, rows in reference.items():
        try:
            assert_frame_equal(rows, found[width], check_dtypes=False, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        except AssertionError as difference:
            raise RuntimeError(
                f"The {width} bars of '{name}' are not ours, so its time says nothing: {difference}"
            ) from None
