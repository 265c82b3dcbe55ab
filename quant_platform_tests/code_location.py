"""The code location over one home, as the daemon sees it: sensors are looked at, and what they ask for is run."""

from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import PARTITION_NAME_TAG

from quant_platform.defs.build import build_defs
from quant_platform.defs.resources import Platform

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Location:
    def __init__(self, platform: Platform, instance: dg.DagsterInstance) -> None:
        self.platform, self.instance = platform, instance
        self.definitions = build_defs(resource_overrides={"platform": platform})

    def tick(self, sensor: str, cursor: str | None = None) -> Any:
        """Evaluate a sensor once."""
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(
            instance=self.instance, cursor=cursor, repository_def=repository, resources={"platform": self.platform}
        )
        return repository.get_sensor_def(sensor).evaluate_tick(context)

    def execute(self, job: str | None, request: dg.RunRequest) -> dg.DagsterRun:
        """Run what a sensor asked for, as a run worker does."""
        assert job
        definition = self.definitions.resolve_job_def(job)
        if request.asset_selection:
            definition = definition.get_subset(asset_selection=set(request.asset_selection))
        tags = {**request.tags, PARTITION_NAME_TAG: request.partition_key}
        run = self.instance.create_run_for_job(job_def=definition, tags=tags, run_config=QUIET)
        execute_run(InMemoryJob(definition), run, self.instance)
        found = self.instance.get_run_by_id(run.run_id)
        assert found
        return found

    def materialized(self, table: str) -> set[str]:
        """Return the dates that the UI shows as materialised."""
        return self.instance.get_materialized_partitions(dg.AssetKey(table.split("/")))
