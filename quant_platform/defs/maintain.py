"""`qp maintain`, and the job that does it daily: what nothing needs any more goes, of captured segments and of runs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from quant_platform.defs.jobs import NEAR_REAL_TIME
from quant_platform.defs.resources import DATE_TAG, Platform
from quant_platform.pipeline import retention
from quant_platform.pipeline.pending import FOLLOWING
from quant_platform.settings import Settings
from quant_platform.storage.landing import Segment

_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_AT_ONCE = 500


@dataclass(frozen=True)
class Maintained:
    """What went, or would go."""

    segments: list[Segment] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each symbol's segments, and one for the runs."""
        symbols = sorted({(segment.feed, segment.symbol) for segment in self.segments})
        found = [(name, [s for s in self.segments if (s.feed, s.symbol) == name]) for name in symbols]
        rows = [
            {"what": "segments", "of": f"{feed} {symbol}", "count": len(own), "bytes": sum(s.bytes for s in own)}
            for (feed, symbol), own in found
        ]
        runs = {"what": "runs", "of": NEAR_REAL_TIME, "count": len(self.run_ids), "bytes": None}
        return [*rows, *([runs] if self.run_ids else [])]


def maintain(
    settings: Settings,
    instance: dg.DagsterInstance,
    now: datetime,
    *,
    is_dry: bool = False,
    on_done: Callable[[str, int], None] = lambda _, __: None,
) -> Maintained:
    """Remove what is older than `retention` says and needed by nothing; killed half-way, the next one goes on.

    Args:
        settings: The whole tree.
        instance: Whose runs.
        now: The wall clock, UTC.
        is_dry: Only return what would go.
        on_done: Told of each thing that went, and of how many it is one.

    Raises:
        OSError: Something cannot be read or removed.
    """
    found = Maintained(
        retention.retired(settings, now),
        superseded_runs(instance, now - timedelta(days=settings.retention.intraday_runs_days)),
    )
    if is_dry:
        return found
    total = len(found.segments) + len(found.run_ids)
    retention.remove(found.segments, lambda segment: on_done(f"{segment.symbol} {segment.number}", total))
    for run_id in found.run_ids:
        # Its events first: a run without them is found again by the next one, events without their run are not.
        instance.event_log_storage.delete_events(run_id)
        instance.run_storage.delete_run(run_id)
        on_done(f"run {run_id[:8]}", total)
    return found


def superseded_runs(instance: dg.DagsterInstance, before: datetime) -> list[str]:
    """Return the finished runs of open dates, older than a time, that no partition was last materialised by."""
    runs: list[dg.DagsterRun] = []
    wanted = dg.RunsFilter(job_name=NEAR_REAL_TIME, statuses=_FINISHED, created_before=before)
    while batch := instance.get_runs(wanted, cursor=runs[-1].run_id if runs else None, limit=_AT_ONCE):
        runs += batch
    kept = _newest(instance, {run.tags[DATE_TAG] for run in runs if DATE_TAG in run.tags})
    return [run.run_id for run in reversed(runs) if run.run_id not in kept]


def _newest(instance: dg.DagsterInstance, dates: Iterable[str]) -> set[str]:
    """Return the runs by which the partitions of these dates were last materialised."""
    found: set[str] = set()
    for table in FOLLOWING:
        key = dg.AssetKey(table.split("/"))
        newest = instance.event_log_storage.get_latest_storage_id_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, set(dates)
        )
        if newest:
            events = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, storage_ids=list(newest.values())), limit=len(newest)
            )
            found |= {record.run_id for record in events.records}
    return found


def job() -> dg.JobDefinition:
    """Return the job."""

    @dg.op(name="remove")
    def body(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
        platform.live_as(context.run_id)
        done = maintain(platform.settings, context.instance, datetime.now(UTC))
        freed = sum(segment.bytes for segment in done.segments)
        context.add_output_metadata({"segments": len(done.segments), "bytes": freed, "runs": len(done.run_ids)})

    @dg.job(name="maintain", description="Removes captured segments and intraday runs that nothing needs any more.")
    def graph() -> None:
        body()

    return graph


def schedule(daily: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the job's schedule: daily, after the date before has been built."""
    return dg.ScheduleDefinition(
        name="maintain",
        job=daily,
        cron_schedule="30 7 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
