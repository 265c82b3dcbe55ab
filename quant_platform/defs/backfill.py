"""A backfill in this process: the code location's own assets, in the same DAGSTER_HOME as the UI.

The backfill daemon would wait half a minute.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from quant_platform.defs.build import TABLES, build_defs
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.jobs import DAILY_MARKET, QUIET
from quant_platform.defs.resources import CLOSED_BEFORE_TAG, SYMBOLS_TAG, Platform
from quant_platform.defs.run_locks import end_killed, run_lock
from quant_platform.pipeline.units import Outcome

_EVALUATED = dg.DagsterEventType.ASSET_CHECK_EVALUATION
_LATE = timedelta(minutes=2)  # a session that ended later than this ago may still gain what is on its way


@dataclass
class Backfill:
    """What a backfill did: units, and steps that failed otherwise."""

    outcomes: list[Outcome] = field(default_factory=list)
    step_errors: dict[str, str] = field(default_factory=dict)
    checks_passed: int = 0
    checks_failed: int = 0
    seconds_by_step: dict[str, float] = field(default_factory=dict)

    @property
    def unsound(self) -> list[Outcome]:
        """Units that failed, were blocked, or have a red blocking check."""
        return [outcome for outcome in self.outcomes if not outcome.is_healthy]

    @property
    def is_ok(self) -> bool:
        """Whether everything was built and is sound."""
        return not self.unsound and not self.step_errors


def backfill(platform: Platform, symbols: Sequence[str], start: date, end: date) -> Backfill:
    """Bring every asset up to date for the dates and symbols, in one run that anybody can look at in the UI.

    A symbol-day that fails does not stop the others; what reads it is refused as blocked.

    Args:
        platform: Settings and engine; its observers are told of every unit.
        symbols: The platform's names.
        start: First trading date.
        end: Last trading date, included.
    """
    done = Backfill()
    platform.observers.append(done.outcomes.append)
    dates = [start + timedelta(days=n) for n in range((end - start).days + 1)]
    closed_before = datetime.now(UTC) - _LATE
    # While definitions load, and Dagster's steps tell what became of a table, the workers build the next ones; but
    # not those that read what other assets make.
    ahead = [spec.table for spec in TABLES if not spec.reads]
    platform.engine.run_ahead(ahead, symbols, dates, is_forced=platform.is_forced, closed_before=closed_before)
    job = build_defs(resource_overrides={"platform": platform}).resolve_job_def(DAILY_MARKET)
    tags = {
        ASSET_PARTITION_RANGE_START_TAG: start.isoformat(),
        ASSET_PARTITION_RANGE_END_TAG: end.isoformat(),
        SYMBOLS_TAG: ",".join(symbols),
        CLOSED_BEFORE_TAG: closed_before.isoformat(),
    }
    with dagster_instance(platform.settings) as instance:
        end_killed(instance, platform.run_locks)
        # `execute_in_process` would put its own executor in our executor's place, and stop at the first failure.
        run = instance.create_run_for_job(job_def=job, tags=tags, run_config=QUIET)
        lock = run_lock(platform.run_locks, run.run_id)
        with lock:
            events = list(execute_run_iterator(InMemoryJob(job), run, instance))
        Path(lock.lock_file).unlink(missing_ok=True)
        for step in instance.get_run_step_stats(run.run_id):
            if step.start_time and step.end_time:
                done.seconds_by_step[step.step_key.replace("__", "/")] = step.end_time - step.start_time
    platform.observers.remove(done.outcomes.append)
    done.step_errors = _step_errors(events)
    passed = [e.asset_check_evaluation_data.passed for e in events if e.event_type is _EVALUATED]
    done.checks_passed, done.checks_failed = sum(passed), len(passed) - sum(passed)
    return done


def _step_errors(events: Iterable[dg.DagsterEvent]) -> dict[str, str]:
    """Return the errors of steps, by name, except those whose table of failed units is known already."""
    found = {}
    for event in (event for event in events if event.is_step_failure):
        error = event.step_failure_data.error
        cause = error and (error.cause or error)
        if cause and event.step_failure_data.user_failure_data is None:
            found[event.step_key or "run"] = cause.message.strip()
    return found
