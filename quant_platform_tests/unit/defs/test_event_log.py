"""The event log with kept connections holds what Dagster's own would hold, and lets go of what is deleted."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from quant_platform.defs.event_log import KeptSqliteEventLogStorage
from quant_platform.defs.instance import PROJECT


@dg.asset
def counted() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(PROJECT / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


def test_events_are_there_for_the_next_process_and_for_dagsters_own_storage(home):
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, KeptSqliteEventLogStorage)
        run = dg.materialize([counted], instance=instance)
        stored = [e.dagster_event.event_type_value for e in instance.all_logs(run.run_id) if e.is_dagster_event]
    with dg.DagsterInstance.get() as again:
        found = [e.dagster_event.event_type_value for e in again.all_logs(run.run_id) if e.is_dagster_event]
        event = again.get_latest_materialization_event(counted.key)
    assert found == stored
    assert event.asset_materialization.metadata["rows"].value == 3
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get() as plain:
        assert type(plain.event_log_storage) is not KeptSqliteEventLogStorage
        assert plain.get_latest_materialization_event(counted.key).run_id == run.run_id


def test_more_runs_than_kept_shards_and_a_deleted_run(home):
    with dg.DagsterInstance.get() as instance:
        runs = [dg.materialize([counted], instance=instance).run_id for _ in range(10)]
        assert all(instance.all_logs(run) for run in runs)
        instance.delete_run(runs[0])
        assert not instance.all_logs(runs[0])
        assert instance.all_logs(runs[-1])
