"""Schedules: when jobs start by themselves."""

import dagster as dg
from dagster._core.definitions.partitions.partitioned_schedule import (
    UnresolvedPartitionedAssetScheduleDefinition,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def daily_market(
    job: UnresolvedAssetJobDefinition,
) -> dg.ScheduleDefinition | UnresolvedPartitionedAssetScheduleDefinition:
    """Return the schedule of the daily report: 06:00 UTC, when the archive has the day that ended at midnight."""
    return dg.build_schedule_from_partitioned_job(
        job,
        name="daily_market",
        hour_of_day=6,
        minute_of_hour=0,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
