"""From a closed segment to a partition: the sensors' ticks and the runs that they ask for, in a real instance."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import PARTITION_NAME_TAG

from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.maintain import maintain, superseded_runs
from quant_platform.defs.resources import DATE_TAG, SYMBOLS_TAG, Platform
from quant_platform.pipeline.pending import FOLLOWING
from quant_platform_tests.code_location import Location
from quant_platform_tests.landed import at_ms, land, market

DAY = date(2024, 3, 4)
KEY = DAY.isoformat()
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def location(market_: Any, tmp_path: Path) -> Iterator[Location]:
    platform = Platform(market_.settings(tmp_path / "home"))
    with dagster_instance(platform.settings) as instance:
        yield Location(platform, instance)
    platform.close()


@pytest.fixture
def market_(request: pytest.FixtureRequest) -> Any:
    """Return the archive's market under a name that does not hide the captured one."""
    return request.getfixturevalue("market")


@pytest.mark.usefixtures("dagster_home")
def test_segments_become_a_partition_and_the_close_makes_it_whole(location: Location) -> None:
    settings, lines = location.platform.settings, market("AAA", at_ms(DAY, 9), seconds=600)
    assert location.tick("near_real_time").run_requests == []
    land(settings, "AAA", lines[:900], lines[900:])

    (request,) = location.tick("near_real_time").run_requests
    assert request.partition_key == KEY
    assert (request.tags[DATE_TAG], request.tags[SYMBOLS_TAG]) == (KEY, "AAA")
    assert location.execute("near_real_time", request).is_success
    for table in FOLLOWING:
        assert location.materialized(table) == {KEY}, table
    trades = location.platform.engine.lake.scan("market/trades", ["AAA"], DAY, DAY).collect()
    assert trades["trade_id"].to_list() == list(range(1, sum(b"@trade" in line for line in lines) + 1))

    done = location.tick("near_real_time")
    assert done.run_requests == []
    assert done.cursor == "2"
    assert location.tick("close_dates").run_requests == []

    land(settings, "BBB", market("BBB", at_ms(DAY, 24) + 180_000, seconds=5))
    (closing,) = location.tick("close_dates").run_requests
    assert closing.tags[SYMBOLS_TAG] == "AAA"
    location.execute("daily_market", closing)
    assert location.platform.engine.lake.path("market/trades", "AAA", DAY).is_file()
    assert location.tick("close_dates").run_requests == []
    page = settings.reports / "daily_market" / f"{KEY}.html"
    assert "AAA" in page.read_text()


@pytest.mark.usefixtures("dagster_home")
def test_date_has_one_run_at_a_time_and_rests_after_a_failure(location: Location) -> None:
    settings, lines = location.platform.settings, market("AAA", at_ms(DAY, 9), seconds=60)
    land(settings, "AAA", lines)
    (request,) = location.tick("near_real_time").run_requests
    job = location.definitions.resolve_job_def("near_real_time")
    tags = {**request.tags, PARTITION_NAME_TAG: KEY}
    queued = location.instance.create_run_for_job(job_def=job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    assert location.tick("near_real_time").run_requests == []
    location.instance.report_run_failed(queued)
    rests = location.tick("near_real_time")
    assert rests.run_requests == []
    assert KEY in rests.skip_message
    land(settings, "BBB", market("BBB", at_ms(DAY, 33), seconds=5))
    assert [r.partition_key for r in location.tick("near_real_time").run_requests] == ["2024-03-05"]


@pytest.mark.usefixtures("dagster_home")
def test_unknown_symbols_and_dates_before_the_start_are_passed_over(location: Location) -> None:
    settings = location.platform.settings
    land(settings, "GONE", market("GONE", at_ms(DAY, 9), seconds=5))
    land(settings, "AAA", market("AAA", at_ms(date(1999, 1, 4), 9), seconds=5))
    tick = location.tick("near_real_time")
    assert tick.run_requests == []


@pytest.mark.usefixtures("dagster_home")
def test_sensor_schedule_and_backfills_at_once_leave_each_id_once(
    location: Location, market_: Any, qp_started: Any
) -> None:
    settings, lines = location.platform.settings, market("AAA", at_ms(DAY, 9), seconds=900)
    land(settings, "AAA", lines[:500], lines[500:1500])
    (request,) = location.tick("near_real_time").run_requests
    span = ("backfill", "--from", KEY, "--to", KEY, "--symbols", "AAA")
    # The backfills close the date; the sensor's run steps it, and the segment that comes meanwhile makes it due again.
    backfills = [qp_started(settings.home, market_.config, *span) for _ in range(2)]
    location.execute("near_real_time", request)
    land(settings, "AAA", lines[1500:])
    location.execute("near_real_time", request)
    for process in backfills:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, (out, err)
    for again in location.tick("near_real_time").run_requests:
        location.execute("near_real_time", again)
    assert location.tick("near_real_time").run_requests == []
    lake = location.platform.engine.lake
    ids = lake.scan("market/trades", ["AAA"], DAY, DAY).collect()["trade_id"].to_list()
    assert ids == list(range(1, sum(b"@trade" in line for line in lines) + 1))
    for table in FOLLOWING:
        assert [p.name for p in lake.path(table, "AAA", DAY).parent.iterdir()] == ["AAA.parquet"], table


@pytest.mark.usefixtures("dagster_home")
def test_runs_that_nothing_shows_go_and_each_partition_keeps_its_newest(location: Location, market_: Any) -> None:
    settings, lines = location.platform.settings, market("AAA", at_ms(DAY, 9), seconds=90)
    instance, later = location.instance, datetime.now(UTC) + timedelta(days=3)
    runs = []
    for start in range(0, 300, 100):
        land(settings, "AAA", lines[start : start + 100])
        (request,) = location.tick("near_real_time").run_requests
        runs.append(location.execute("near_real_time", request).run_id)
    unfinished = instance.create_run_for_job(
        job_def=location.definitions.resolve_job_def("near_real_time"), status=dg.DagsterRunStatus.STARTED
    )
    assert superseded_runs(instance, datetime.now(UTC) - timedelta(days=1)) == []
    assert superseded_runs(instance, later) == runs[:2]

    assert maintain(settings, instance, later, is_dry=True).run_ids == runs[:2]
    assert instance.get_run_by_id(runs[0])
    assert maintain(settings, instance, later).run_ids == runs[:2]

    assert {run.run_id for run in instance.get_runs()} == {runs[2], unfinished.run_id}
    shards = {path.stem for path in settings.dagster_home.rglob("runs/*.db")}
    assert shards & set(runs) == {runs[2]}
    for table in FOLLOWING:
        assert location.materialized(table) == {KEY}, table
        newest = instance.get_latest_materialization_event(dg.AssetKey(table.split("/")))
        assert newest
        assert newest.run_id == runs[2]
    assert maintain(settings, instance, later).run_ids == []
    # A run whose events went before its process was killed is found again.
    land(settings, "AAA", lines[300:])
    (request,) = location.tick("near_real_time").run_requests
    location.execute("near_real_time", request)
    instance.event_log_storage.delete_events(runs[2])
    assert maintain(settings, instance, later).run_ids == [runs[2]]
    assert [table for table in FOLLOWING if location.materialized(table) != {KEY}] == []


@pytest.mark.usefixtures("dagster_home")
def test_maintenance_runs_daily_in_dagster(location: Location) -> None:
    job = location.definitions.resolve_job_def("maintain")
    run = location.instance.create_run_for_job(job_def=job, run_config=QUIET)
    execute_run(InMemoryJob(job), run, location.instance)
    found = location.instance.get_run_by_id(run.run_id)
    assert found
    assert found.is_success
    assert location.definitions.get_repository_def().get_schedule_def("maintain").cron_schedule == "30 7 * * *"
