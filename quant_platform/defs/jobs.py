"""Jobs: the selections that schedules and people start."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def daily_market() -> UnresolvedAssetJobDefinition:
    """Return the job that brings one trading date from the archive to its report."""
    return dg.define_asset_job(
        "daily_market",
        selection=dg.AssetSelection.groups("market", "microstructure", "statistics", "staging", "marts", "reports"),
        description="Archive → lake → bars → order flow, statistics → marts → daily report, for one trading date.",
    )
