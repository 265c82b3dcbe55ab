"""How a run's process starts, ends and is ended, with the code location and processes of their own."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.tags import PARTITION_NAME_TAG
from filelock import FileLock

from quant_platform.defs.build import build_defs
from quant_platform.defs.instance import PROJECT, dagster_instance
from quant_platform.defs.resources import SYMBOLS_TAG, Platform
from quant_platform.defs.run_launcher import WarmRunLauncher
from quant_platform_tests.landed import at_ms, land, market

DAY = date(2024, 3, 4)
_PATIENCE_S = 90


class Launched:
    """An instance whose launcher is ours, and the runs that it is asked for."""

    def __init__(self, platform: Platform, instance: dg.DagsterInstance) -> None:
        self.platform, self.instance = platform, instance
        self.definitions = build_defs(resource_overrides={"platform": platform})
        assert isinstance(instance.run_launcher, WarmRunLauncher)
        self.launcher = instance.run_launcher

    def launch(self) -> str:
        """Ask for a run of the open date; return its id."""
        job = self.definitions.resolve_job_def("near_real_time")
        where = RepositoryPythonOrigin(
            sys.executable, ModuleCodePointer("quant_platform.definitions", "defs", str(PROJECT))
        )
        run = self.instance.create_run_for_job(
            job_def=job,
            tags={PARTITION_NAME_TAG: DAY.isoformat(), SYMBOLS_TAG: "AAA"},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            job_code_origin=JobPythonOrigin("near_real_time", where),
        )
        self.launcher.launch_run(LaunchRunContext(run, None))
        return run.run_id

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        """Return how a run ended, when it has."""
        until(lambda: self.run(run_id).is_finished)
        return self.run(run_id).status

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found
        return found

    def pid(self, run_id: str) -> int:
        """Return the process that said it took the run."""
        told = [
            event.dagster_event.engine_event_data.metadata["pid"].value
            for event in self.instance.all_logs(run_id)
            if event.dagster_event and "Started process for run" in (event.dagster_event.message or "")
        ]
        return int(told[0])

    def ready(self) -> int:
        """Return the process that stands ready, when there is one."""
        until(lambda: self.launcher._ready is not None)
        return self.launcher._ready.pid


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


@pytest.fixture
def launched(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launched]:
    small: Any = request.getfixturevalue("market")
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("QP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("QP_CONFIG", str(small.config))
    platform = Platform(small.settings(tmp_path / "home"))
    land(platform.settings, "AAA", market("AAA", at_ms(DAY, 9), seconds=60))
    with dagster_instance(platform.settings) as instance:
        yield Launched(platform, instance)
    platform.close()


def test_next_run_is_taken_by_the_process_that_stood_ready(launched: Launched) -> None:
    first = launched.launch()
    assert launched.ended(first) is dg.DagsterRunStatus.SUCCESS
    waiting = launched.ready()
    assert waiting != launched.pid(first)

    second = launched.launch()

    assert launched.ended(second) is dg.DagsterRunStatus.SUCCESS
    assert launched.pid(second) == waiting
    trades = launched.platform.engine.lake.scan("market/trades", ["AAA"], DAY, DAY).collect()
    assert trades.height > 0
    assert launched.ready() != waiting  # a process has one run
    last = psutil.Process(launched.ready())
    launched.instance.run_launcher.dispose()
    last.wait(_PATIENCE_S)


def test_process_that_stands_ready_begins_again_when_what_it_loaded_has_changed(
    launched: Launched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "platform.yaml"
    own.write_text(Path(os.environ["QP_CONFIG"]).read_text())
    monkeypatch.setenv("QP_CONFIG", str(own))
    assert launched.ended(launched.launch()) is dg.DagsterRunStatus.SUCCESS
    process = psutil.Process(launched.ready())
    until(lambda: process.status() == psutil.STATUS_SLEEPING and process.num_threads() > 1)
    time.sleep(0.1)  # what is changed while it loads counts too, but this is about afterwards
    own.write_text(own.read_text().replace("symbol: AAA", "symbol: ZZZ"))

    run_id = launched.launch()

    assert launched.ended(run_id) is dg.DagsterRunStatus.FAILURE  # the run names a symbol that is configured no more
    assert any(
        "AAA" in str(event.user_message) + str(event.dagster_event) for event in launched.instance.all_logs(run_id)
    )
    assert launched.pid(run_id) == process.pid


@pytest.fixture
def held(launched: Launched) -> Iterator[str]:
    """Start a run, and hold it at its first unit; return its id."""
    lock = launched.platform.settings.home / "locks" / "market/trades" / DAY.isoformat() / "AAA.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        run_id = launched.launch()
        until(
            lambda: any(e.dagster_event and e.dagster_event.is_step_start for e in launched.instance.all_logs(run_id))
        )
        yield run_id


def test_killed_run_is_known_to_have_failed(launched: Launched, held: str) -> None:
    os.kill(launched.pid(held), signal.SIGKILL)

    assert launched.ended(held) is dg.DagsterRunStatus.FAILURE
    said = [event.dagster_event.message for event in launched.instance.all_logs(held) if event.dagster_event]
    assert any("Its process ended with exit code -9 before the run did" in (message or "") for message in said)


def test_run_ends_when_somebody_wants_it_to(launched: Launched, held: str) -> None:
    assert launched.launcher.terminate(held)

    assert launched.ended(held) is dg.DagsterRunStatus.CANCELED
    assert not launched.launcher.terminate(held)
