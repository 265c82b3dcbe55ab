"""Runs start in a process that has loaded the definitions before there was a run: one stands ready for the next.

Loading them costs more than a minute's run does. The process is a fresh interpreter that ends with its run, and does
what `dagster api execute_run` does; where a file that it loaded has changed meanwhile, it begins again as just that.
"""

import contextlib
import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.execution.run_cancellation_thread import start_run_cancellation_thread
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value, serialize_value

from quant_platform.defs import dbt_runner
from quant_platform.defs.instance import PROJECT
from quant_platform.defs.jobs import NEAR_REAL_TIME
from quant_platform.settings import config_path

_DEFINITIONS = "quant_platform.definitions"  # as workspace.yaml says
_GRACE_S = 10  # below that of `qp up`, which would kill them


class WarmRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Hands each run to the process that stands ready, and lets the next one get ready when the run has ended."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Dagster's
        self._inst_data = inst_data
        self._turn = threading.Lock()
        self._ready: subprocess.Popen[str] | None = None
        self._running: set[subprocess.Popen[str]] = set()
        self._is_disposed = False

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What dagster.yaml says of it."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return what can be configured: nothing."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData,
        config_value: Mapping[str, Any],  # noqa: ARG003  # there is none
    ) -> Self:
        """Return the launcher of a DAGSTER_HOME."""
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Give the run to a process."""
        origin = context.job_code_origin
        assert origin is not None  # every run that was asked for through a workspace has one
        arguments = ExecuteRunArgs(origin, context.dagster_run.run_id, self._instance.get_ref())
        with self._turn:
            process, self._ready = self._ready, None
            if process is None or process.poll() is not None:
                process = _started()
            self._running.add(process)
        threading.Thread(target=self._follow, args=(process, context.dagster_run.run_id), daemon=True).start()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:  # who follows it tells of its end
            process.stdin.write(f"{serialize_value(arguments)}\n")

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end; its process looks every few seconds whether it was asked, wherever it is."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return True

    def dispose(self) -> None:
        """Let the ready process go, and those at work come to an end."""
        with self._turn:
            self._is_disposed = True
            ready, self._ready, running = self._ready, None, list(self._running)
        if ready:
            ready.kill()  # it has nothing to do
            ready.communicate()
        deadline = time.monotonic() + _GRACE_S
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))

    def _follow(self, process: subprocess.Popen[str], run_id: str) -> None:
        """Wait for a run's end; tell where only its process ended; and let another process get ready."""
        code = process.wait()
        with self._turn:
            self._running.discard(process)
            if self._is_disposed:
                return
            if self._ready is None:
                self._ready = _started()
        run = self._instance.get_run_by_id(run_id)
        if run and not run.is_finished:
            self._instance.report_run_failed(run, f"Its process ended with exit code {code} before the run did.")


def _started() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "quant_platform.defs.run_launcher"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def _newest_loaded() -> float:
    """Return when the newest file changed that the definitions were made of."""
    modules = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    ours = [Path(path) for path in modules if path and Path(path).is_relative_to(PROJECT)]
    paths = (*ours, config_path(), *dbt_runner.source_files())
    return max(path.stat().st_mtime for path in paths if path.is_file())


def _execute_when_told() -> None:
    """Load the definitions, wait for a run on stdin, and execute it; end where whoever would tell has gone."""
    started = time.time()
    from dagster._cli.api import execute_run_command

    importlib.import_module(_DEFINITIONS).defs.get_repository_def().get_job(NEAR_REAL_TIME)
    with dg.DagsterInstance.get() as instance:
        instance.get_runs(limit=1)  # what that needs is loaded now too
        told = sys.stdin.readline().strip()
        if not told:
            return
        if _newest_loaded() > started:
            os.execv(sys.executable, [sys.executable, "-m", "dagster", "api", "execute_run", told])  # noqa: S606  # no shell is wanted
        _, ended = start_run_cancellation_thread(instance, deserialize_value(told, ExecuteRunArgs).run_id)
        try:
            execute_run_command.main([told], standalone_mode=False)
        finally:
            ended.set()


if __name__ == "__main__":
    _execute_when_told()
