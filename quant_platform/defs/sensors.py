"""Sensors: segments stepped within seconds, dates closed, the desk's files taken, the live writer looked at."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from quant_platform.defs import live_health as writer
from quant_platform.defs.jobs import QUIET
from quant_platform.defs.partitions import daily
from quant_platform.defs.resources import CLOSED_BEFORE_TAG, DATE_TAG, DESK_DATE_TAG, SYMBOLS_TAG, Platform
from quant_platform.defs.run_locks import end_killed
from quant_platform.pipeline import desk, desk_intake, open_tca, pending
from quant_platform.storage.lake import ALL_SYMBOLS

# The daemon looks at sensors every five seconds, whatever they ask for.
_INTERVAL_S = 5
_AFTER_A_FAILURE = timedelta(seconds=30)
_NO_TAGS: dict[str, str] = {}


def near_real_time(job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Return the sensor that asks for one run a date with new segments, for the symbols concerned."""

    @dg.sensor(
        name="near_real_time",
        job=job,
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Manifest of the landing − ledger = pending; one run a date at a time.",
    )
    def segments(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> Any:
        end_killed(context.instance, platform.run_locks)
        found = pending.pending(platform.settings, platform.engine.ledger, int(context.cursor or 0))
        context.update_cursor(str(found.position))
        yield from _requests(context, platform, job.name, {day: (names, {}) for day, names in found.symbols.items()})

    return segments


def close_dates(job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Return the sensor that asks for a captured date to be built from its beginning when its session is over."""

    @dg.sensor(
        name="close_dates",
        job=job,
        minimum_interval_seconds=6 * _INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Closes captured dates whose session is over: their parts become one file a symbol.",
    )
    def sessions(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> Any:
        now = datetime.now(UTC)
        due = pending.closing(platform.settings, platform.engine.ledger, now)
        # The session's end is what counts; a date on is after it, whatever the calendar.
        closed = {
            day: (
                names,
                {CLOSED_BEFORE_TAG: (datetime(day.year, day.month, day.day, tzinfo=UTC) + _A_DATE).isoformat()},
            )
            for day, names in due.items()
        }
        yield from _requests(context, platform, job.name, closed)

    return sessions


def desk_files(job: UnresolvedAssetJobDefinition, open_job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """Return the sensor that takes the files that were dropped, and asks for a run of each date that they tell of.

    Args:
        job: What a date that is not captured, or is closed, needs.
        open_job: What is known of a date that is open. It does not wait for the runs that step its segments.
    """

    @dg.sensor(
        name="desk_files",
        jobs=[job, open_job],
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes the desk's files from where they are dropped; one run a date at a time.",
    )
    def files(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> Any:
        settings, ledger = platform.settings, platform.engine.ledger
        for one in desk_intake.watch(settings, time.time_ns()).files:
            if one.status == "refused":
                context.log.warning("%s was refused: %s", one.file, one.why)
        found = desk.pending(settings, ledger, int(context.cursor or 0))
        context.update_cursor(str(found.position))
        dates = sorted({day for days in found.symbols.values() for day in days})
        named = {
            day: {name for days in found.symbols.values() for name in days.get(day, ())} - {ALL_SYMBOLS}
            for day in dates
        }
        still_open = {day: names & open_tca.open_symbols(ledger, day) for day, names in named.items()}
        for day, names in open_tca.behind(settings, ledger).items():
            still_open[day] = still_open.get(day, set()) | set(names)
        closed = {day: names - still_open[day] for day, names in named.items()}
        # A date of which no closed symbol has news lacks its events alone.
        events = {
            day: [
                dg.AssetKey(desk.table(kind).split("/"))
                for kind, days in found.symbols.items()
                if desk.is_cross_symbol(kind) and day in days
            ]
            for day, names in closed.items()
            if not names
        }
        answers = [
            *_requests(context, platform, job.name, _tagged(closed)),
            *_requests(
                context, platform, job.name, {day: ([], _NO_TAGS) for day, keys in events.items() if keys}, only=events
            ),
            *_requests(context, platform, open_job.name, _tagged(still_open), mark=DESK_DATE_TAG),
        ]
        # Dagster takes runs or a reason for none.
        yield from [one for one in answers if isinstance(one, dg.RunRequest)] or answers[:1]

    return files


def _tagged(days: dict[date, set[str]]) -> dict[date, tuple[list[str], dict[str, str]]]:
    return {day: (sorted(names), _NO_TAGS) for day, names in sorted(days.items()) if names}


def live_health() -> dg.SensorDefinition:
    """Return the sensor that evaluates the live writer's check when what its heartbeat says has changed."""

    @dg.sensor(
        name="live_health",
        minimum_interval_seconds=6 * _INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells when the live writer dies or a calculator of it fails again and again, and when that ends.",
    )
    def heartbeats(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> Any:
        found = writer.health(platform.settings)
        if found.heartbeat is None and not context.cursor:
            return dg.SkipReason("No live writer has been started yet.")
        if found.outcome == context.cursor:
            return dg.SkipReason(f"As before: {found.outcome}.")
        return dg.SensorResult(
            skip_reason=f"It was told that it is {found.outcome}.",
            cursor=found.outcome,
            asset_events=[found.evaluation()],
        )

    return heartbeats


_A_DATE = timedelta(days=2)


def _requests(
    context: dg.SensorEvaluationContext,
    platform: Platform,
    job_name: str,
    wanted: dict[date, tuple[list[str], dict[str, str]]],
    *,
    mark: str = DATE_TAG,
    only: Mapping[date, list[dg.AssetKey]] | None = None,
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    partitions, waiting, requests = daily(platform.settings.partitions.start), [], []
    for day, (names, more_tags) in wanted.items():
        key = day.isoformat()
        marked = {mark: key}
        if not partitions.has_partition_key(key):
            context.log.warning("%s is no partition, and is left out. Move partitions.start.", key)
        elif _is_under_way(context.instance, marked) or _has_just_failed(context.instance, job_name, marked):
            waiting.append(key)
        else:
            tags = {**marked, **more_tags, SYMBOLS_TAG: ",".join(names)}
            requests.append(
                dg.RunRequest(
                    job_name=job_name,
                    partition_key=key,
                    tags=tags,
                    run_config=QUIET,
                    asset_selection=only.get(day) if only else None,
                )
            )
    yield from requests
    if waiting and not requests:  # Dagster takes one or the other
        yield dg.SkipReason(f"A run is under way, or has just failed, for {', '.join(waiting)}.")


def _is_under_way(instance: dg.DagsterInstance, mark: dict[str, str]) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(tags=mark, statuses=NOT_FINISHED_STATUSES), limit=1))


def _has_just_failed(instance: dg.DagsterInstance, job_name: str, mark: dict[str, str]) -> bool:
    last = instance.get_run_records(dg.RunsFilter(job_name=job_name, tags=mark), limit=1)
    if not last or last[0].dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return False
    return datetime.now(UTC).timestamp() - (last[0].end_time or 0) < _AFTER_A_FAILURE.total_seconds()
