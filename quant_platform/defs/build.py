"""`build_defs`: everything that the code location holds. Tests and the CLI swap parts through `resource_overrides`."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from quant_platform.defs import jobs, latest_values, live_health, maintain, schedules, sensors
from quant_platform.defs.assets import (
    events,
    execution,
    live,
    market,
    marts,
    microstructure,
    options,
    reports,
    statistics,
    tca_report,
    volatility,
)
from quant_platform.defs.partitions import daily
from quant_platform.defs.resources import Platform
from quant_platform.defs.table_asset import table_asset

# A step that fails for some units has told what it left for the others: what reads them runs all the same.
_EXECUTOR = dg.in_process_executor.configured(
    {"step_dependency_config": {"require_upstream_step_success": False}}, name="in_process_after_outputs"
)


TABLES = tuple(
    spec
    for domain in (market, microstructure, options, volatility, statistics, execution, events, live)
    for spec in domain.TABLES
)
"""Every table of the lake, as the asset that it becomes."""


def build_defs(*, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return the code location's definitions.

    Args:
        resource_overrides: Resources by name (`platform`, `warehouse`) that replace the default ones.

    Raises:
        SettingsError: platform.yaml or the environment is wrong.
    """
    # Checks with a status per date, and a first date without a session before it, are what we want and are tested.
    for feature in ("partitions_def on an AssetCheckSpec", "`allow_nonexistent_upstream_partitions`"):
        warnings.filterwarnings("ignore", message=f".*{feature}")
    overrides = dict(resource_overrides or {})
    platform: Platform = overrides.setdefault("platform", Platform())
    partitions = daily(platform.settings.partitions.start)
    daily_market, near_real_time = jobs.daily_market(), jobs.near_real_time()
    daily_execution, execution_so_far = jobs.daily_execution(), jobs.execution_so_far()
    publish_latest, maintenance = latest_values.job(), maintain.job()
    return dg.Definitions(
        assets=[
            *(table_asset(spec, partitions) for spec in TABLES),
            marts.dbt_models(),
            reports.daily_market_report(partitions),
            tca_report.daily_tca_report(partitions),
        ],
        asset_checks=[live_health.check()],
        jobs=[daily_market, near_real_time, daily_execution, execution_so_far, publish_latest, maintenance],
        schedules=[
            schedules.daily_market(daily_market),
            latest_values.schedule(publish_latest),
            maintain.schedule(maintenance),
        ],
        sensors=[
            sensors.near_real_time(near_real_time),
            sensors.close_dates(daily_market),
            sensors.desk_files(daily_execution, execution_so_far),
            sensors.live_health(),
        ],
        resources={"warehouse": marts.read_only_warehouse(platform.settings), **overrides},
        executor=_EXECUTOR,
    )
