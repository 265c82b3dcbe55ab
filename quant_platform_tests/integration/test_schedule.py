"""The daily report's schedule: on by itself, yesterday's date at each tick, and a page at the end of its run."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from quant_platform.defs.build import build_defs
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.resources import Platform

YESTERDAY = date(2024, 3, 4)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SIX = datetime(2024, 3, 5, 6, tzinfo=UTC)


@pytest.mark.usefixtures("dagster_home")
def test_tick_at_six_makes_the_page_of_yesterday(market: Any, tmp_path: Path) -> None:
    platform = Platform(market.settings(tmp_path / "home"))
    definitions = build_defs(resource_overrides={"platform": platform})
    schedule = definitions.get_repository_def().get_schedule_def("daily_market")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == "0 6 * * *"
    assert schedule.execution_timezone in {None, "UTC"}
    with dagster_instance(platform.settings) as instance:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=SIX, repository_def=definitions.get_repository_def()
        )
        tick = schedule.evaluate_tick(context)

        assert tick.skip_message is None
        assert tick.run_requests
        (request,) = tick.run_requests
        assert request.partition_key == str(YESTERDAY)
        result = definitions.resolve_job_def(schedule.job_name).execute_in_process(
            instance=instance, partition_key=request.partition_key, tags=request.tags, run_config=QUIET
        )

        assert result.success
        (event,) = [
            event.step_materialization_data.materialization
            for event in result.get_asset_materialization_events()
            if event.asset_key == dg.AssetKey(["reports", "daily_market"])
        ]
    platform.close()
    page = tmp_path / "home" / "reports" / "daily_market" / f"{YESTERDAY}.html"
    assert event.partition == str(YESTERDAY)
    assert event.metadata["path"].value == str(page)
    assert event.metadata["bytes"].value == page.stat().st_size
    text = page.read_text()
    for symbol in ("AAA", "BBB", "CCC"):
        assert symbol in text
