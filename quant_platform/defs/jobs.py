"""Jobs: the selections that schedules, sensors and people start."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from quant_platform.defs import live_health
from quant_platform.pipeline import open_tca
from quant_platform.pipeline.pending import FOLLOWING

DAILY_MARKET = "daily_market"
NEAR_REAL_TIME = "near_real_time"
DAILY_EXECUTION = "daily_execution"
EXECUTION_SO_FAR = "execution_so_far"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration that leaves what a run says to the event log, and the terminal to what started it."""


def daily_market() -> UnresolvedAssetJobDefinition:
    """Return the job that brings one trading date from the archive to its report."""
    return dg.define_asset_job(
        DAILY_MARKET,
        selection=dg.AssetSelection.groups(
            "market",
            "microstructure",
            "options",
            "volatility",
            "statistics",
            "execution",
            "events",
            "live",
            "staging",
            "marts",
            "reports",
        )
        - dg.AssetSelection.checks(live_health.KEY),
        description="Archive → lake → bars → order flow, statistics, parity → marts → report, for one trading date.",
    )


def daily_execution() -> UnresolvedAssetJobDefinition:
    """Return the job that brings what the desk told of a date to its report."""
    return dg.define_asset_job(
        DAILY_EXECUTION,
        selection=dg.AssetSelection.groups("execution", "events") | dg.AssetSelection.assets(["reports", "daily_tca"]),
        description="Decisions, orders, fills, events → costs, scorecards → report, outcomes, for one trading date.",
    )


def execution_so_far() -> UnresolvedAssetJobDefinition:
    """Return the job that brings what the desk told of an open date to what it has cost so far."""
    return dg.define_asset_job(
        EXECUTION_SO_FAR,
        selection=dg.AssetSelection.assets(*(table.split("/") for table in open_tca.TABLES)),
        description="Decisions, orders, fills → costs of an open date so far, for the symbols of `qp/symbols`.",
    )


def near_real_time() -> UnresolvedAssetJobDefinition:
    """Return the job that steps what was captured of an open date through the tables that follow it."""
    return dg.define_asset_job(
        NEAR_REAL_TIME,
        selection=dg.AssetSelection.assets(*(table.split("/") for table in FOLLOWING)),
        description="New segments → ticks, bars and order flow of an open date, for the symbols of `qp/symbols`.",
    )
