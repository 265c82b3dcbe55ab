"""Recorded frames, replayed by a venue that misbehaves in every way, into a collector that is killed again and again.

What holds: each trade that the venue made available is in the lake once, and each that it did not is on record.
"""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from quant_platform.live import collector
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.pending import FOLLOWING, pending
from quant_platform.settings import Quality, Settings, load_settings
from quant_platform_tests.outside import NOBODY_ASKED

ROOT = Path(__file__).resolve().parents[2]
QP = Path(sys.executable).with_name("qp")
DAY = date(2024, 8, 8)
CLOSED = datetime(2024, 8, 12, tzinfo=UTC)
FILES = {"BTCUSDT": "usdm_btcusdt_20240808.part1.jsonl.gz", "BTCUSDT.SPOT": "spot_btcusdt_20240808.jsonl.gz"}
STORM = (
    "drop=0.05,lose=0.01,duplicate=0.05,reorder=0.05,malformed=0.01,disconnect_every_s=4,stall_every_s=7,stall_s=3,"
    "rest_429_share=0.1,rest_500_share=0.1"
)


class Printed(NamedTuple):
    """A trade as the recording says it."""

    price: float
    size: float
    aggressor: int
    ts_event_ms: int


@pytest.fixture(scope="module")
def frames(real_data: Path) -> Path:
    return real_data / "binance_frames_hft"


def recorded(path: Path) -> dict[int, Printed]:
    """Return the trades of a recording by id, read line by line."""
    found = {}
    with gzip.open(path) as lines:
        for line in lines:
            message = json.loads(line.split(b" ", 1)[1])
            if message.get("stream", "").endswith("@trade"):
                body = message["data"]
                found[body["t"]] = Printed(float(body["p"]), float(body["q"]), -1 if body["m"] else 1, body["T"])
    return found


class Stage:
    """A replay and a collector as processes of their own, over one home."""

    def __init__(self, home: Path, frames: Path, symbols: str, *, speed: float, faults: str = "") -> None:
        self.home, self.symbols, self.settings = home, symbols, settings_of(home)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("QP_", "DAGSTER_"))}
        self.environment |= {
            "QP_HOME": str(home),
            **NOBODY_ASKED,
            "QP_CONFIG": str(ROOT / "platform.yaml"),
            "QP_CAPTURE__SILENCE_S": "1",
        }
        self.environment |= {"QP_CAPTURE__SEGMENT_S": "5"}
        command = ["replay", "--date", DAY.isoformat(), "--symbols", symbols, "--clock", "recorded", "--port", "0"]
        command += ["--speed", str(speed), "--frames", str(frames), *(["--faults", faults] if faults else [])]
        self.replay = subprocess.Popen(
            [QP, *command], env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.replay.stdout
        self.port = int(self.replay.stdout.readline().split("http://127.0.0.1:")[1].split(".")[0])
        for feed, path in (("BINANCE_USDM", "usdm"), ("BINANCE_SPOT", "spot")):
            self.environment[f"QP_FEEDS__{feed}__WS_URL"] = f"ws://127.0.0.1:{self.port}/{path}"
            self.environment[f"QP_FEEDS__{feed}__REST_URL"] = f"http://127.0.0.1:{self.port}/{path}"
        self.collector = self.collect()

    def collect(self) -> "subprocess.Popen[bytes]":
        """Start a collector."""
        command = [QP, "collect", "--symbols", self.symbols]
        with (self.home / "collector.log").open("ab") as log:
            self.collector = subprocess.Popen(command, env=self.environment, stderr=log, start_new_session=True)
        return self.collector

    def kill(self) -> None:
        """Kill the collector, at whatever it does."""
        self.collector.send_signal(signal.SIGKILL)
        self.collector.wait()

    def told(self) -> dict[str, Any]:
        """Return what the replay says of itself."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/replay/status", timeout=10) as answer:
            return json.load(answer)

    def status(self) -> dict[str, Any]:
        """Return what the living collector says of its symbols."""
        found = [one for one in collector.status(self.settings) if one["pid"] == self.collector.pid]
        return found[0]["symbols"] if found else {}

    def until(self, is_so: Callable[[], bool], timeout_s: float = 120) -> None:
        """Wait."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < deadline, (self.told(), self.status(), self.log()[-3000:])
            time.sleep(0.3)

    def log(self) -> str:
        """Return what the collectors said."""
        return (self.home / "collector.log").read_text()

    def stop(self) -> None:
        """End the collector as Ctrl-C does, then the replay."""
        self.collector.send_signal(signal.SIGINT)
        assert self.collector.wait(30) == 0, self.log()[-3000:]
        self.replay.send_signal(signal.SIGINT)
        assert self.replay.wait(30) == 0


@pytest.fixture
def stage(tmp_path: Path, frames: Path) -> Iterator[Callable[..., Stage]]:
    begun: list[Stage] = []

    def begin(symbols: str, **given: Any) -> Stage:
        begun.append(Stage(tmp_path, frames, symbols, **given))
        return begun[-1]

    yield begin
    for one in begun:
        for process in (one.collector, one.replay):
            process.kill()
            process.wait()
        assert one.replay.stdout
        one.replay.stdout.close()


def settings_of(home: Path) -> Settings:
    # A storm's rubbish may not refuse the date.
    given = {"home": home, "lake_uri": (home / "lake").as_uri(), "quality": Quality(max_quarantined_share=0.5)}
    return load_settings(ROOT / "platform.yaml").model_copy(update=given)


def step_and_close(home: Path) -> Engine:
    """Take what was captured through the tables that follow it, first open and then closed."""
    engine = Engine(settings_of(home))
    due = pending(engine.settings, engine.ledger).symbols
    for closed_before in (None, CLOSED):
        for day, names in due.items():
            for table in FOLLOWING:
                unsound = [o for o in engine.run(table, names, [day], closed_before=closed_before) if o.error]
                assert unsound == []
    return engine


def held(engine: Engine, symbol: str) -> tuple[pl.DataFrame, set[int], set[int]]:
    """Return the tape, the ids that it covers, and those that are on record as missing."""
    tape = engine.lake.scan("market/trades", [symbol]).collect()
    gaps = engine.lake.scan("market/gaps", [symbol]).filter(pl.col("status") == "open").collect()
    covered = [n for a, b in tape.select("first_trade_id", "last_trade_id").rows() for n in range(a, b + 1)]
    assert len(covered) == len(set(covered))
    return tape, set(covered), {n for a, b in gaps.select("first_id", "last_id").rows() for n in range(a, b + 1)}


def assert_as_recorded(tape: pl.DataFrame, truth: dict[int, Printed]) -> None:
    single = tape.filter(pl.col("first_trade_id") == pl.col("last_trade_id"), pl.col("size").is_not_null())
    said = single.select("trade_id", "price", "size", "aggressor", pl.col("ts_event").dt.epoch("ms")).rows()
    assert {n: Printed(*values) for n, *values in said} == {n: truth[n] for n, *_ in said}


def test_recorded_frames_are_in_the_lake_as_recorded(stage: Callable[..., Stage], frames: Path, tmp_path: Path) -> None:
    one = stage("BTCUSDT,BTCUSDT.SPOT", speed=25, faults="disconnect_every_s=3")
    last = {symbol: max(recorded(frames / name)) for symbol, name in FILES.items()}
    one.until(lambda: one.told()["ended"])
    one.until(
        lambda: all(one.status()[s]["last_trade_id"] == n and not one.status()[s]["open_gaps"] for s, n in last.items())
    )
    one.stop()
    engine = step_and_close(tmp_path)
    for symbol, name in FILES.items():
        truth = recorded(frames / name)
        tape, covered, missing = held(engine, symbol)
        assert covered == truth.keys()
        assert missing == set()
        assert_as_recorded(tape, truth)
    # The spot recording goes on over midnight of the venue's clock.
    assert {d for s, d in engine.lake.symbol_days("market/trades") if s == "BTCUSDT.SPOT"} == {DAY, date(2024, 8, 9)}


def storm(stage: Callable[..., Stage], frames: Path, home: Path, *, kills: int, speed: float, seed: int) -> None:
    rng = random.Random(seed)
    truth = recorded(frames / FILES["BTCUSDT"])
    one = stage("BTCUSDT", speed=speed, faults=f"{STORM},seed={seed}")
    for _ in range(kills):
        time.sleep(rng.uniform(1.5, 4))
        one.kill()
        one.collect()
    one.until(lambda: one.told()["ended"], timeout_s=600)
    one.until(lambda: "BTCUSDT" in one.status() and not one.status()["BTCUSDT"]["open_gaps"])
    lost = {n for ranges in one.told()["lost"].values() for first, last in ranges for n in range(first, last + 1)}
    one.stop()
    tape, covered, missing = held(step_and_close(home), "BTCUSDT")
    assert_as_recorded(tape, truth)
    assert covered <= truth.keys()
    # Nothing is known before the first trade that was ever landed: the first collector may have died before.
    begin, end = min(covered), max(covered)
    assert {n for n in truth if begin <= n <= end} - covered <= missing
    assert sum(n < begin for n in truth) < 0.2 * len(truth)
    assert missing & covered == set()
    assert missing <= lost
    assert max(truth) - end < 50  # what came after the last good frame, if that was dropped


def test_storm(stage: Callable[..., Stage], frames: Path, tmp_path: Path) -> None:
    storm(stage, frames, tmp_path, kills=10, speed=5, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(2, 12))
def test_storm_again_and_again(stage: Callable[..., Stage], frames: Path, tmp_path: Path, seed: int) -> None:
    storm(stage, frames, tmp_path, kills=20, speed=3, seed=seed)
