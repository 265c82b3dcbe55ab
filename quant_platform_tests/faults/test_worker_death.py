"""`kill -9` of a worker process under a unit: that unit fails and says so, every other one is built."""

import contextlib
import os
import threading
from datetime import date
from pathlib import Path

import psutil

from quant_platform.feeds.binance_archive import archive_path
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.units import UnitStatus
from quant_platform.settings import BinanceFeed, Feeds, Instrument, Settings
from quant_platform.simulation.market import MarketParams, write_archive

DAY = date(2024, 8, 8)
SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE")


def kill_who_holds(lock: Path, is_over: threading.Event, kills: list[int]) -> None:
    """Kill each process of ours that has the file open, until it is over."""
    while not is_over.wait(0.02):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if str(lock) in {file.path for file in process.open_files()}:
                    process.kill()
                    process.wait(10)
                    kills.append(process.pid)


def test_worker_that_dies_fails_its_own_unit_alone(tmp_path: Path) -> None:
    row = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    instruments = tuple(Instrument(symbol=s, venue_symbol=s, **row) for s in SYMBOLS)
    (tmp_path / "archive").mkdir()
    small = MarketParams(trades_per_day=500, quotes_per_day=500)
    write_archive(tmp_path / "archive", instruments=instruments, dates=[DAY], params=small)
    feed = BinanceFeed(ws_url="ws://none", rest_url="http://none", archive_url=(tmp_path / "archive").as_uri())
    settings = Settings(
        home=tmp_path / "home",
        feeds=Feeds(binance_usdm=feed),
        instruments=instruments,
        pipeline={"workers": 2},
    )
    # Who reads a pipe that nobody writes to waits for ever: there the worker stands when it is killed.
    trap = settings.landing / "archive" / f"{archive_path('binance_usdm', 'trades', 'BBB', DAY)}.CHECKSUM"
    trap.parent.mkdir(parents=True)
    os.mkfifo(trap)
    lock = settings.home / "locks" / "market/trades" / DAY.isoformat() / "BBB.lock"
    is_over, kills = threading.Event(), []
    killer = threading.Thread(target=kill_who_holds, args=(lock, is_over, kills))
    killer.start()
    try:
        with Engine(settings) as engine:
            outcomes = {o.unit.symbol: o for o in engine.run("market/trades", SYMBOLS, [DAY])}
    finally:
        is_over.set()
        killer.join()
    assert len(kills) == 2
    assert outcomes["BBB"].status is UnitStatus.FAILED
    assert "worker process died twice" in outcomes["BBB"].error
    assert {o.status for symbol, o in outcomes.items() if symbol != "BBB"} == {UnitStatus.OK}
    assert {o.unit.symbol: o.status for o in engine.ledger.outcomes()} == {s: o.status for s, o in outcomes.items()}
