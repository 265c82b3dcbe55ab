"""A backfill in this process: the code location's own assets, level by level, in the same DAGSTER_HOME as the UI.

The backfill daemon would wait half a minute; and one run over all levels would stop every date at the first failure.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import groupby

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from quant_platform.defs.build import build_defs
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.resources import SYMBOLS_TAG, Platform
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import Outcome

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Backfill:
    """What a backfill did: units, and steps that failed otherwise."""

    outcomes: list[Outcome] = field(default_factory=list)
    step_errors: dict[str, str] = field(default_factory=dict)
    checks_passed: int = 0
    checks_failed: int = 0
    seconds_by_level: dict[str, float] = field(default_factory=dict)

    @property
    def unsound(self) -> list[Outcome]:
        """Units that failed, were blocked, or have a red blocking check."""
        return [outcome for outcome in self.outcomes if not outcome.is_healthy]

    @property
    def is_ok(self) -> bool:
        """Whether everything was built and is sound."""
        return not self.unsound and not self.step_errors


def backfill(platform: Platform, symbols: Sequence[str], start: date, end: date) -> Backfill:
    """Bring every asset up to date for the dates and symbols.

    A date on which some symbol is sound goes on to the next level; the units of the others are refused there as
    blocked. A level with nothing sound left is not run.

    Args:
        platform: Settings and engine; its observer is told of every unit.
        symbols: The platform's names.
        start: First trading date.
        end: Last trading date, included.
    """
    done = Backfill()
    platform.observers.append(done.outcomes.append)
    definitions = build_defs(resource_overrides={"platform": platform})
    job = definitions.resolve_implicit_global_asset_job_def()
    graph = definitions.resolve_asset_graph()
    dates = [start + timedelta(days=n) for n in range((end - start).days + 1)]
    with dagster_instance(platform.settings) as instance:
        for selection in _groups(graph):
            started = time.perf_counter()
            tables = {"/".join(key.path) for key in selection} & set(RECIPES)
            due = _sound_dates(platform, tables, symbols, dates) if tables else dates
            for tags in _ranges(due) if graph.get(selection[0]).is_partitioned else [{}]:
                result = job.execute_in_process(
                    instance=instance,
                    asset_selection=selection,
                    tags={**tags, SYMBOLS_TAG: ",".join(symbols)},
                    run_config=_QUIET,
                    raise_on_error=False,
                )
                done.step_errors |= _step_errors(result)
                passed = [evaluation.passed for evaluation in result.get_asset_check_evaluations()]
                done.checks_passed += sum(passed)
                done.checks_failed += len(passed) - sum(passed)
            done.seconds_by_level[_named(selection)] = time.perf_counter() - started
    platform.observers.remove(done.outcomes.append)
    return done


def _groups(graph: AssetGraph) -> Iterator[list[dg.AssetKey]]:
    """Yield what one run can hold, in order: a level of partitioned assets, or a whole chain of the others."""
    waiting = {key for key in graph.get_all_asset_keys() if graph.get(key).is_executable}
    while waiting:
        ready = {key for key in waiting if not graph.get(key).parent_keys & waiting}
        group = {key for key in ready if graph.get(key).is_partitioned}
        if not group:
            group = ready
            while more := {
                key
                for key in waiting - group
                if not graph.get(key).is_partitioned and graph.get(key).parent_keys & waiting <= group
            }:
                group |= more
        waiting -= group
        yield sorted(group)


def _named(selection: Sequence[dg.AssetKey]) -> str:
    domains = dict.fromkeys(key.path[0] for key in selection)
    return ", ".join(
        f"{domain}/{{{','.join(k.path[1] for k in selection if k.path[0] == domain)}}}" for domain in domains
    )


def _step_errors(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Return the errors of steps, by name, except those whose table of failed units is known already."""
    found = {}
    for event in result.filter_events(lambda e: e.is_step_failure):
        error = event.step_failure_data.error
        cause = error and (error.cause or error)
        if cause and event.step_failure_data.user_failure_data is None:
            found[event.step_key or "run"] = cause.message.strip()
    return found


def _sound_dates(platform: Platform, tables: set[str], symbols: Sequence[str], dates: list[date]) -> list[date]:
    inputs = {table for name in tables for table, _ in RECIPES[name].inputs}
    if not inputs:
        return dates
    rows = (
        outcome
        for table in inputs
        for outcome in platform.engine.ledger.outcomes(table, symbols=symbols, start=dates[0], end=dates[-1])
    )
    sound = {outcome.unit.date for outcome in rows if outcome.is_healthy}
    return [day for day in dates if day in sound]


def _ranges(dates: Sequence[date]) -> Iterator[dict[str, str]]:
    """Yield the run tags of each unbroken range of dates."""
    for _, numbered in groupby(enumerate(dates), lambda pair: pair[1] - timedelta(days=pair[0])):
        days = [day for _, day in numbered]
        yield {
            ASSET_PARTITION_RANGE_START_TAG: days[0].isoformat(),
            ASSET_PARTITION_RANGE_END_TAG: days[-1].isoformat(),
        }
