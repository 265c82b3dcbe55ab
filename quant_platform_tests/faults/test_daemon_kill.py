"""The daemon, its code server and the run's process are killed with segments waiting: each is stepped once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest

from quant_platform.defs.instance import dagster_instance
from quant_platform.pipeline.ledger import Ledger
from quant_platform.pipeline.pending import pending
from quant_platform.settings import Settings, load_settings
from quant_platform.storage.lake import Lake
from quant_platform_tests.landed import at_ms, land, market

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2024, 3, 4)
SYMBOL = "SIMBTC"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in [name for name in os.environ if name.startswith(("QP_", "DAGSTER_HOME"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("QP_HOME", str(tmp_path))
    monkeypatch.setenv("QP_CONFIG", str(ROOT / "platform.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    return load_settings()


@pytest.fixture
def daemon(settings: Settings) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Start daemons, each the head of a session of its own; what is left of them is killed at the end."""
    begun: list[subprocess.Popen[bytes]] = []
    command = [Path(sys.executable).with_name("dagster-daemon"), "run", "-w", ROOT / "workspace.yaml"]

    def begin() -> "subprocess.Popen[bytes]":
        with (settings.home / "daemon.log").open("ab") as log:
            begun.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        return begun[-1]

    yield begin
    for one in begun:
        kill_all(one)


def kill_all(daemon: "subprocess.Popen[bytes]") -> None:
    """Kill a daemon with its code server and run processes, which are of its session."""
    try:
        os.killpg(daemon.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    daemon.wait()


def until(is_so: Callable[[], bool], settings: Settings, *, timeout_s: float = 200) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, (settings.home / "daemon.log").read_text()[-4000:]
        time.sleep(0.2)


@pytest.mark.timeout(600)
def test_segments_that_wait_are_each_stepped_once(
    settings: Settings, daemon: Callable[[], "subprocess.Popen[bytes]"]
) -> None:
    lines = market(settings.instrument(SYMBOL).venue_symbol, at_ms(DAY, 9), seconds=900)
    thirds = [lines[:1000], lines[1000:2000], lines[2000:]]
    ledger = Ledger(settings.ledger)
    with dagster_instance(settings) as instance:
        land(settings, SYMBOL, thirds[0])
        first = daemon()
        # Dead in the middle of a run: some tables have stepped the segment, others have not.
        until(lambda: bool(ledger.outcomes("market/bars_1s")), settings)
        kill_all(first)
        land(settings, SYMBOL, thirds[1])
        second = daemon()
        until(lambda: not pending(settings, ledger).symbols, settings)
        land(settings, SYMBOL, thirds[2])
        until(lambda: not pending(settings, ledger).symbols, settings)
        until(lambda: all(run.is_finished for run in instance.get_runs()), settings)
        kill_all(second)
        runs = instance.get_runs()
    tape = Lake(settings.lake_uri).scan("market/trades", [SYMBOL], DAY, DAY).collect()
    assert tape["trade_id"].to_list() == list(range(1, sum(b"@trade" in line for line in lines) + 1))
    # The killed run is told as failed, and may be tried again besides what the sensor asks for: it finds nothing to do.
    killed, *others = [run.status.value for run in reversed(runs)]
    assert killed == "FAILURE"
    assert len(others) >= 2
    assert set(others) == {"SUCCESS"}
