"""What a killed backfill leaves in Dagster's own books, and who tidies it up."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from filelock import FileLock

from quant_platform.defs.run_locks import end_killed


@dg.op
def nothing() -> None:
    pass


@dg.job
def job() -> None:
    nothing()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as one:
        yield one


def started(instance: dg.DagsterInstance, folder: Path) -> tuple[str, FileLock]:
    run = instance.create_run_for_job(job_def=job)
    folder.mkdir(exist_ok=True)
    (folder / f"{run.run_id}.lock").touch()
    return run.run_id, FileLock(folder / f"{run.run_id}.lock")


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.status


def test_run_whose_process_is_gone_is_marked_failed(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run_id, _ = started(instance, tmp_path / "runs")
    end_killed(instance, tmp_path / "runs")
    assert status(instance, run_id) is dg.DagsterRunStatus.FAILURE
    assert list((tmp_path / "runs").iterdir()) == []


def test_run_at_work_is_left_alone(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run_id, lock = started(instance, tmp_path / "runs")
    with lock:
        end_killed(instance, tmp_path / "runs")
        assert status(instance, run_id) is not dg.DagsterRunStatus.FAILURE


def test_finished_run_keeps_its_status(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    result = job.execute_in_process(instance=instance)
    (folder / f"{result.run_id}.lock").touch()
    end_killed(instance, folder)
    assert status(instance, result.run_id) is dg.DagsterRunStatus.SUCCESS


def test_first_backfill_finds_nothing_to_tidy(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    end_killed(instance, tmp_path / "new" / "runs")
