"""Schedules: when jobs start by themselves."""

from datetime import timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from quant_platform.defs.resources import CLOSED_BEFORE_TAG


def daily_market(job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule of the daily report: 06:00 UTC, when the archive has the day that ended at midnight."""

    @dg.schedule(
        name="daily_market",
        job=job,
        cron_schedule="0 6 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def yesterday(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        # The newest partition would be the wrong one: open dates are partitions too.
        now = context.scheduled_execution_time
        tags = {CLOSED_BEFORE_TAG: now.isoformat()}
        return dg.RunRequest(partition_key=(now - timedelta(days=1)).date().isoformat(), tags=tags)

    return yesterday
