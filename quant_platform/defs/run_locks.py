"""A run's process holds a lock while it lives: nothing else would tell the UI, and the sensors, that it was killed."""

from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout


def run_lock(folder: Path, run_id: str) -> FileLock:
    """Return the lock of a run, not acquired yet.

    Args:
        folder: Of the locks, `$QP_HOME/locks/runs`.
        run_id: Dagster's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{run_id}.lock")


def end_killed(instance: dg.DagsterInstance, folder: Path) -> None:
    """Mark the runs of killed processes as failed: they hold their lock no more, and have not finished."""
    for path in folder.glob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                run = instance.get_run_by_id(path.stem)
                if run and not run.is_finished:
                    instance.report_run_failed(run, "Its process was killed. What it finished stands: run it again.")
        except Timeout:
            continue  # at work
        path.unlink(missing_ok=True)
