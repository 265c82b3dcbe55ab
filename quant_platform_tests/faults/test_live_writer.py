"""The live writer over a replayed market: killed, started again, its Redis killed too; what it served is right.

Real processes, real signals, a real Redis: replay, collector and writer run as `qp up` runs them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis

from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.options import OPTIONS
from quant_platform.pipeline.pending import FOLLOWING
from quant_platform.settings import load_settings
from quant_platform.storage import redis_keys
from quant_platform.storage.live_store import LiveStoreError, Server, connect
from quant_platform_tests.landed import at_ms, market
from quant_platform_tests.outside import NOBODY_ASKED

ROOT = Path(__file__).resolve().parents[2]
QP = Path(sys.executable).with_name("qp")
DAY = date(2024, 8, 8)
CLOSED = datetime(2024, 8, 12, tzinfo=UTC)
SYMBOL = "BTCUSDT"
SPEED = 15
SECONDS = 750
SERVED = [key for key in redis_keys.METRICS if key is not redis_keys.MOC]
NAMES = [key.name(SYMBOL) for key in SERVED]
OTHERS = [
    redis_keys.PORTFOLIO.name(),
    redis_keys.SECTOR.name(sector="layer1"),
    redis_keys.HEARTBEAT.name(),
    redis_keys.HISTORY.name(SYMBOL, metric="obi"),
]


class Stage:
    """A replay, a collector and a live writer as processes of their own, over one home and its Redis."""

    def __init__(self, home: Path) -> None:
        self.home = home
        frames = home / "frames"
        frames.mkdir(parents=True)
        lines = market(SYMBOL, at_ms(DAY, 9), seconds=SECONDS, seed=11)
        (frames / "usdm_btcusdt_20240808.jsonl").write_bytes(b"\n".join([*lines, b""]))
        config = (ROOT / "platform.yaml").read_text()
        (home / "platform.yaml").write_text(
            config.replace(
                'calendar: "24/7", sector: layer1}', 'calendar: "24/7", sector: layer1, default_bucket_size: 60}', 1
            )
        )
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("QP_", "DAGSTER_"))}
        self.environment |= {
            "QP_HOME": str(home),
            **NOBODY_ASKED,
            "QP_CONFIG": str(home / "platform.yaml"),
            "QP_CAPTURE__SEGMENT_S": "5",
            "QP_ANALYTICS__ARCHIVE_EVERY_S": "1",
            "QP_ANALYTICS__STORE_TTLS__ANALYTICS": "5",
            "QP_ANALYTICS__STORE_TTLS__SKEW": "20",
        }
        self.settings = self.load()
        self.server = Server(self.settings)
        self.server.start()
        self.client = connect(self.settings)
        command = ["replay", "--date", DAY.isoformat(), "--symbols", SYMBOL, "--clock", "recorded", "--port", "0"]
        self.replay = self.start(*command, "--speed", str(SPEED), "--frames", str(frames), stdout=subprocess.PIPE)
        assert self.replay.stdout
        port = int(self.replay.stdout.readline().split(b"http://127.0.0.1:")[1].split(b".")[0])
        self.environment["QP_FEEDS__BINANCE_USDM__WS_URL"] = f"ws://127.0.0.1:{port}/usdm"
        self.environment["QP_FEEDS__BINANCE_USDM__REST_URL"] = f"http://127.0.0.1:{port}/usdm"
        self.live = self.start("live", "--symbols", SYMBOL)
        self.collector = self.start("collect", "--symbols", SYMBOL)

    def load(self) -> Any:
        """Return the settings of this home."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return load_settings()

    def start(self, *command: str, **given: Any) -> "subprocess.Popen[bytes]":
        """Start a command of `qp`, what it says in a log of its name."""
        with (self.home / f"{command[0]}.log").open("ab") as log:
            return subprocess.Popen([QP, *command], env=self.environment, stderr=log, start_new_session=True, **given)

    def kill_redis(self) -> None:
        """Kill the server at whatever it does, and start the next a second later."""
        os.kill(self.client.info()["process_id"], signal.SIGKILL)
        time.sleep(1.0)
        self.server.start()

    def there(self, names: list[str]) -> set[str]:
        """Return which of these keys Redis has."""
        try:
            pipe = self.client.pipeline(transaction=False)
            for name in names:
                pipe.exists(name)
            return {name for name, is_there in zip(names, pipe.execute(), strict=True) if is_there}
        except (redis.RedisError, LiveStoreError):
            return set()

    def payload(self, key: redis_keys.Key) -> dict[str, Any]:
        """Return the payload of a key, empty while there is none."""
        return json.loads(self.client.get(key.name(SYMBOL)) or b"{}")

    def until(self, is_so: Callable[[], bool], timeout_s: float) -> float:
        """Wait, and return for how long."""
        start = time.monotonic()
        while not is_so():
            waited = time.monotonic() - start
            assert waited < timeout_s, self.logs()
            time.sleep(0.05)
        return time.monotonic() - start

    def logs(self) -> str:
        """Return the ends of what the processes said."""
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(self.home.glob("*.log")))

    def stop(self) -> None:
        """End all as Ctrl-C does."""
        for process in (self.live, self.collector, self.replay):
            process.send_signal(signal.SIGINT)
        for process in (self.live, self.collector, self.replay):
            assert process.wait(60) == 0, self.logs()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    one = Stage(tmp_path / "home")
    try:
        yield one
    finally:
        for process in (one.live, one.collector, one.replay):
            process.kill()
            process.wait()
        one.replay.stdout.close()
        one.server.stop()


def test_served_values_are_right_whatever_dies(stage: Stage) -> None:
    # Every family's keys, fresh and with an end.
    stage.until(lambda: stage.there(NAMES + OTHERS) == {*NAMES, *OTHERS}, 30)
    assert all(stage.client.pttl(name) > 0 for name in NAMES + OTHERS)
    beat = json.loads(stage.client.get(redis_keys.HEARTBEAT.name()))
    assert beat["running"] is True
    assert beat["state"] == "active"
    assert beat["error_counts"] == dict.fromkeys(beat["error_counts"], 0)
    assert {"vpin", "flow_toxicity", "order_book", "portfolio"} <= {n for n, at in beat["last_updates"].items() if at}

    # The writer dies: what it wrote ends by itself, its heartbeat first or last. The next one goes on.
    before = stage.payload(redis_keys.VPIN)["last_trade_id"]
    stage.live.send_signal(signal.SIGKILL)
    stage.live.wait()
    short = [name for name in NAMES if name != redis_keys.FLOW_CLUSTERS.name(SYMBOL)]  # that one lives 30 s
    stage.until(lambda: not stage.there([*short, redis_keys.HEARTBEAT.name()]), 15)
    stage.live = stage.start("live", "--symbols", SYMBOL)
    stage.until(lambda: stage.payload(redis_keys.VPIN).get("last_trade_id", 0) > before, 20)
    stage.until(lambda: stage.there(NAMES) == set(NAMES), 20)

    # Redis dies: all keys are back within two cycles of its return, but for the time of the connection.
    stage.kill_redis()
    waited = stage.until(lambda: stage.there(NAMES) == set(NAMES), 20)
    assert waited < 2.5
    stage.until(lambda: stage.client.exists(redis_keys.HISTORY.name(SYMBOL, metric="vpin")) == 1, 20)

    last_id = (stage.home / "frames/usdm_btcusdt_20240808.jsonl").read_bytes().count(b"@trade")
    stage.until(lambda: stage.payload(redis_keys.VPIN).get("last_trade_id", 0) >= last_id - 3, 90)
    time.sleep(2)
    stage.stop()
    assert stage.there([redis_keys.HEARTBEAT.name()])
    assert json.loads(stage.client.get(redis_keys.HEARTBEAT.name()))["running"] is False

    with Engine(stage.settings) as engine:
        for table in (*FOLLOWING, *(recipe.table for recipe in OPTIONS), "live/values", "live/parity"):
            (outcome,) = engine.run(table, [SYMBOL], [DAY], closed_before=CLOSED)
            assert outcome.status.is_usable, outcome.error
        parity = engine.lake.scan("live/parity", [SYMBOL], DAY, DAY).collect()
    report = parity.select(
        "metric", "samples", "compared", "with_gap", "missing", "restarts", "differing", "max_difference", "worst_field"
    )
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200):
        assert set(parity["metric"]) == {key.metric for key in SERVED}, report
        assert parity["differing"].sum() == 0, report
        assert parity["missing"].sum() == 0, report
        assert parity["max_difference"].max() <= 1e-9, report
        # The writer was started twice, and most of what it served lacked nothing.
        assert parity.filter(metric="obi")["restarts"].item() >= 1, report
        assert (parity["compared"] >= 0.5 * parity["samples"]).all(), report
