"""The Dagster instance: what dagster.yaml sets, and that its event log holds what Dagster's own would hold."""

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


def test_dagster_yaml_loads_with_telemetry_off_and_its_limits(home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        concurrency = instance.get_concurrency_config()
        run_queue = concurrency.run_queue_config

        assert instance.telemetry_enabled is False
        assert instance.run_retries_enabled is True
        assert instance.run_retries_max_retries == 2
        assert concurrency.pool_config.default_pool_limit == 2
        assert run_queue is not None
        assert {"key": "qp/date", "value": {"applyLimitPerUniqueValue": True}, "limit": 1} in (
            run_queue.tag_concurrency_limits or ()
        )
        assert type(instance.run_launcher).__name__ == "WarmRunLauncher"
        assert instance.run_coordinator.dequeue_interval_seconds == 1
        assert instance.wait_for_local_code_server_processes_on_shutdown is True
    assert type(instance.event_log_storage).__name__ == "KeptSqliteEventLogStorage"
    assert any(home.rglob("*.db")), "nothing was stored in DAGSTER_HOME"


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


def test_a_batch_that_fails_is_stored_event_by_event_and_once(home, monkeypatch, capsys):
    dates = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-06")

    @dg.multi_asset(specs=[dg.AssetSpec("dated", partitions_def=dates)], backfill_policy=dg.BackfillPolicy.single_run())
    def dated() -> dg.MaterializeResult:
        return dg.MaterializeResult(asset_key="dated")

    stored = KeptSqliteEventLogStorage._store_asset_event
    failures = iter([2])

    def failing_once(self, connection, event, event_id):
        if event.dagster_event.partition == "2024-01-03" and next(failures, None):
            raise OSError("the disk is full")
        stored(self, connection, event, event_id)

    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "100")
    monkeypatch.setattr(KeptSqliteEventLogStorage, "_store_asset_event", failing_once)
    tags = {"dagster/asset_partition_range_start": "2024-01-01", "dagster/asset_partition_range_end": "2024-01-05"}
    with dg.DagsterInstance.get() as instance:
        run = dg.materialize([dated], instance=instance, tags=tags)
        events = [e.dagster_event for e in instance.all_logs(run.run_id) if e.is_dagster_event]
        indexed = instance.fetch_materializations(dated.key, limit=100).records
    partitions = dates.get_partition_keys()
    for kind in ("ASSET_MATERIALIZATION_PLANNED", "ASSET_MATERIALIZATION"):
        assert sorted(e.partition for e in events if e.event_type_value == kind) == partitions
    assert sorted(record.partition_key for record in indexed) == partitions
    assert "the disk is full" in capsys.readouterr().err
