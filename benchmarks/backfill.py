"""Claim: `qp backfill` over many days costs little more than the arithmetic in it."""

import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree

from _harness import ROOT, Measurement, Result, Verdict, interleaved

FIRST = dt.date(2024, 7, 1)
DAYS = 30
SYMBOLS = ("BTCUSDT",)
TRADES, QUOTES = 100_000, 200_000


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time the command on an empty QP_HOME against the same functions in a pool of the same width."""
    from quant_platform.settings import load_settings
    from quant_platform.simulation.market import MarketParams, write_archive

    days, symbols = 3 if is_quick else DAYS, SYMBOLS
    dates = [FIRST + dt.timedelta(days=n) for n in range(days)]
    settings = load_settings(ROOT / "platform.yaml")
    instruments = [settings.instrument(symbol) for symbol in symbols]
    market = MarketParams(trades_per_day=TRADES, quotes_per_day=QUOTES)
    zips = write_archive(folder / "archive", instruments=instruments, dates=dates, params=market)
    cores = os.cpu_count() or 1

    def whole() -> float:
        home = folder / "home"
        rmtree(home, ignore_errors=True)
        return _timed_command(home, folder / "archive", dates, symbols)

    def computed() -> float:
        units = [(symbol, day, str(folder / "archive")) for day in dates for symbol in symbols]
        return _pool_seconds(units, cores)

    def built() -> float:
        home = folder / "units"
        rmtree(home, ignore_errors=True)
        return _units_seconds(home, folder / "archive", dates, symbols)

    seconds = interleaved(
        {"qp backfill": whole, "its units alone": built, "the calculators alone": computed},
        rounds,
    )
    notes = {
        "qp backfill": "the units, the Dagster run, its events and checks, dbt, report pages; process start included",
        "its units alone": "`Engine.run`, table by table: fetch, checksum, parse, compute, lake, ledger; warm",
        "the calculators alone": f"parse, gaps, bars, cascades, statistics; {cores} warm processes, all in memory",
    }
    timed = [Measurement(name=name, values=values, note=notes[name]) for name, values in seconds.items()]
    middle = {row.name: row.median for row in timed}
    return Result(
        title=f"Backfill overhead: {days} days × {len(symbols)} symbol",
        unit="s",
        how=f"{len(zips)} simulated archive zips, at least {TRADES:,} trades and {QUOTES:,} quotes per symbol-day. "
        "The whole is the command in a process of its own on an empty QP_HOME; "
        "the part is the same functions on the same zips.",
        measurements=timed,
        verdicts=[
            Verdict(
                claim="whole ÷ its units",
                measured=middle["qp backfill"] / middle["its units alone"],
                floor=1.5,
                goal=1.2,
                is_more_better=False,
            ),
            Verdict(
                claim="whole ÷ calculators in memory",
                measured=middle["qp backfill"] / middle["the calculators alone"],
                is_more_better=False,
            ),
        ],
        notes=[
            "A unit is one table of one symbol-day, from its input files to its own: what a backfill is for",
            "The calculators pass frames in memory, verify no checksum and write nothing; one thread of Polars each",
        ],
    )


def symbol_day(symbol: str, day: dt.date, archive: str) -> int:
    """Do one symbol-day's arithmetic: the functions that the pipeline's recipes name, and nothing of the pipeline."""
    import polars as pl

    from quant_platform.calculators import bars, price_statistics
    from quant_platform.feeds import binance_archive, binance_csv, normalize
    from quant_platform.settings import load_settings

    settings = load_settings(ROOT / "platform.yaml")
    instrument = settings.instrument(symbol)
    frames = {}
    for table in ("market/trades", "market/quotes"):
        kind = binance_archive.kinds_for(instrument, table)[0]
        path = Path(archive) / binance_archive.archive_path(instrument.feed, kind, instrument.venue_symbol, day)
        # The zip is read where it lies: the copy into landing and its checksum are overhead.
        fetched = binance_archive.Fetched(path=path, sha256="", url=path.as_uri())
        source = binance_archive.ArchiveDay(table=table, kind=kind, fetched=fetched)
        frames[table] = binance_csv.read_day(source, instrument, day).rows
    latency = pl.duration(milliseconds=settings.assumed_latency_ms[symbol])
    trades = frames["market/trades"].with_columns(pl.col("ts_recv").fill_null(pl.col("ts_event") + latency))
    frames["market/gaps"] = normalize.trade_gaps(trades.lazy())
    frames["market/bars_1s"] = bars.bars(trades)
    frames["market/bars_1m"] = bars.cascade(frames["market/bars_1s"], 60)
    frames["market/bars_5m"] = bars.cascade(frames["market/bars_1m"], 300)
    closes = frames["market/bars_1m"].select("ts_open", "symbol", "close", "ts_known")
    frames["statistics/price_statistics"] = price_statistics.price_statistics(closes)
    return sum(rows.height for rows in frames.values())


def _pool_seconds(units: Sequence[tuple[str, dt.date, str]], cores: int) -> float:
    os.environ["POLARS_MAX_THREADS"] = "1"
    try:
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            list(pool.map(symbol_day, *zip(*units[:cores], strict=True)))  # imports come before the clock
            start = time.perf_counter()
            list(pool.map(symbol_day, *zip(*units, strict=True)))
            return time.perf_counter() - start
    finally:
        del os.environ["POLARS_MAX_THREADS"]


def _units_seconds(home: Path, archive: Path, dates: Sequence[dt.date], symbols: Sequence[str]) -> float:
    from quant_platform.pipeline.engine import Engine
    from quant_platform.pipeline.recipes import RECIPES
    from quant_platform.settings import load_settings

    settings = load_settings(ROOT / "platform.yaml")
    local = settings.feeds.binance_usdm.model_copy(update={"archive_url": archive.as_uri()})
    feeds = settings.feeds.model_copy(update={"binance_usdm": local})
    engine = Engine(settings.model_copy(update={"home": home, "lake_uri": (home / "lake").as_uri(), "feeds": feeds}))
    try:
        engine.start()  # imports come before the clock
        engine.run("market/trades", symbols, dates[:1])
        start = time.perf_counter()
        outcomes = [outcome for table in RECIPES for outcome in engine.run(table, symbols, dates)]
        seconds = time.perf_counter() - start
    finally:
        engine.close()
    if unsound := [outcome for outcome in outcomes if not outcome.is_healthy]:
        raise RuntimeError(f"{len(unsound)} units failed; the first: {unsound[0].unit}: {unsound[0].error}")
    return seconds


def _timed_command(home: Path, archive: Path, dates: Sequence[dt.date], symbols: Sequence[str]) -> float:
    command = [str(Path(sys.executable).with_name("qp")), "backfill"]
    command += ["--from", str(dates[0]), "--to", str(dates[-1]), "--symbols", ",".join(symbols)]
    # `qp` shall see this benchmark's settings and nobody else's.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("QP_", "DAGSTER_"))} | {
        "QP_HOME": str(home),
        "QP_CONFIG": str(ROOT / "platform.yaml"),
        "QP_FEEDS__BINANCE_USDM__ARCHIVE_URL": archive.as_uri(),
        "DO_NOT_TRACK": "1",
    }
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(
            f"`{' '.join(command[1:])}` ended with {done.returncode}: {(done.stderr + done.stdout)[-2_000:]}"
        )
    return seconds
