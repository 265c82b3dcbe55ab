"""The code location: its names, and what every asset carries. What runs do is tested elsewhere.

The names stand in snapshots/definitions.txt, so that a change of them is a reviewed diff. To renew it:
`QP_RENEW_SNAPSHOTS=1 .venv/bin/pytest quant_platform_tests/integration/test_definitions.py`
"""

import base64
import os
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from quant_platform.contracts._schema import contract_of
from quant_platform.defs.build import build_defs
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.resources import Platform
from quant_platform.pipeline.desk import DESK
from quant_platform.pipeline.events import EVENTS
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.settings import load_settings
from quant_platform_tests.every_unit import UNFED

SNAPSHOT = Path(__file__).parents[1] / "snapshots" / "definitions.txt"
PROJECT = Path(__file__).parents[2]
DAYS = ("2024-03-04", "2024-03-05")
BUCKETS = "microstructure/vpin_buckets"  # of a first session there are none
# The archive has no book, no symbol has options, nobody read VIX1D, no desk traded, and no writer ran.
ABSENT = {"market/book", "live/values", "live/parity", *UNFED}
WITHOUT_PLOT = {
    "market/gaps",
    "market/book",
    "microstructure/closing_imbalance",
    "microstructure/unusual_activity",
    "options/chain",
    "options/chain_quality",
    "options/greeks",
    "volatility/variance_strips",
    "volatility/vix1d",
    "live/values",
    *(recipe.table for recipe in (*DESK, *EVENTS) if recipe.table != "events/out/performance_attribution"),
}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def shipped() -> dg.Definitions:
    """Return the code location over the platform.yaml of the repository."""
    return build_defs(resource_overrides={"platform": Platform(load_settings(PROJECT / "platform.yaml"))})


def names(definitions: dg.Definitions) -> Iterator[str]:
    """Yield every name that somebody may rely on, one a line, what belongs to an asset indented below it."""
    graph = definitions.resolve_asset_graph()
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        partitions = type(node.partitions_def).__name__ if node.partitions_def else "unpartitioned"
        yield f"asset {key.to_user_string()}"
        yield f"  {node.group_name}; {', '.join(node.owners)}; {', '.join(sorted(node.kinds))}; {partitions}"
        for parent in sorted(node.parent_keys):
            mapping: Any = graph.get_partition_mapping(key, parent)
            offsets = (
                f" from {mapping.start_offset} to {mapping.end_offset}" if hasattr(mapping, "start_offset") else ""
            )
            yield f"  reads {parent.to_user_string()} by {type(mapping).__name__}{offsets}"
        for check in sorted(c.name for c in graph.asset_check_keys if c.asset_key == key):
            yield f"  check {check}"
    repository = definitions.get_repository_def()
    for job in sorted(job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")):
        yield f"job {job}"
    for schedule in repository.schedule_defs:
        status = schedule.default_status.value
        yield f"schedule {schedule.name} of {schedule.job_name} at {schedule.cron_schedule}, {status}"
    for sensor in repository.sensor_defs:
        yield f"sensor {sensor.name}"
    for resource in sorted(repository.get_top_level_resources()):
        yield f"resource {resource}"


def test_names_are_those_of_the_snapshot(shipped: dg.Definitions) -> None:
    text = "\n".join([*names(shipped), ""])
    if os.environ.get("QP_RENEW_SNAPSHOTS") == "1":
        SNAPSHOT.write_text(text)

    assert text.splitlines() == SNAPSHOT.read_text().splitlines()


def test_code_location_loads_with_the_shipped_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QP_HOME", str(tmp_path))
    monkeypatch.setenv("QP_CONFIG", str(PROJECT / "platform.yaml"))

    from quant_platform.definitions import defs

    dg.Definitions.validate_loadable(defs)
    assert list(tmp_path.iterdir()) == []  # to load definitions is to write nothing


def test_every_asset_says_what_it_is_who_answers_for_it_and_when_it_is_late(shipped: dg.Definitions) -> None:
    graph = shipped.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        assert node.group_name == key.path[0], key
        assert node.freshness_policy, key


def test_partitions_begin_where_the_settings_say_and_hold_the_open_date(shipped: dg.Definitions) -> None:
    graph = shipped.resolve_asset_graph()
    settings = load_settings(PROJECT / "platform.yaml")
    for table in RECIPES:
        partitions: Any = graph.get(dg.AssetKey(table.split("/"))).partitions_def
        assert partitions.get_first_partition_key() == str(settings.partitions.start)
        assert partitions.end_offset == 2


@pytest.mark.parametrize("table", RECIPES)
def test_column_schema_is_the_contract_with_its_constraints(shipped: dg.Definitions, table: str) -> None:
    metadata = shipped.resolve_asset_graph().get(dg.AssetKey(table.split("/"))).metadata
    schema: Any = metadata["dagster/column_schema"]
    contract = contract_of(table)

    assert [column.name for column in schema.columns] == list(contract.columns())
    for column in schema.columns:
        assert column.description, column.name
        assert column.constraints.nullable == contract.columns()[column.name].nullable
    assert any(column.constraints.other for column in schema.columns)


@pytest.mark.usefixtures("dagster_home")
def test_each_date_of_a_range_run_carries_its_own_facts(filled: Path, market: Any) -> None:
    platform = Platform(market.settings(filled))
    lake = platform.engine.lake
    with dagster_instance(platform.settings) as instance:
        for table in RECIPES:
            records = instance.fetch_materializations(dg.AssetKey(table.split("/")), limit=10).records
            assert sorted(str(record.partition_key) for record in records) == list(DAYS)
            assert len({record.run_id for record in records}) == 1
            for record in records:
                assert record.asset_materialization
                facts: dict[str, Any] = {
                    name: value.value for name, value in record.asset_materialization.metadata.items()
                }
                files = lake.path(table, "AAA", platform.settings.partitions.start).parent.parent
                held = list((files / f"date={record.partition_key}").glob("*.parquet"))
                assert facts["bytes"] == sum(file.stat().st_size for file in held) > 0
                day = date.fromisoformat(str(record.partition_key))
                rows = lake.scan(table, None, day, day).collect()
                assert facts["dagster/row_count"] == rows.height
                assert facts["seconds"] > 0
                assert facts["symbols"] == ("none" if table in ABSENT else "AAA, BBB, CCC")
                assert facts["quarantined_rows"] == 0
                if rows.height:
                    column = next(name for name in ("ts_event", "ts_open", "ts_start") if name in rows.columns)
                    assert facts["time_range"] == f"{rows[column].min()!s} to {rows[column].max()!s}"
                else:
                    assert table in {"market/gaps", "microstructure/closing_imbalance", BUCKETS, *ABSENT}
                    assert facts["time_range"] == "no rows"
    platform.close()


@pytest.mark.usefixtures("dagster_home")
def test_newest_date_of_a_range_run_carries_its_picture(filled: Path, market: Any) -> None:
    with dagster_instance(market.settings(filled)) as instance:
        for table in RECIPES:
            event = instance.get_latest_materialization_event(dg.AssetKey(table.split("/")))
            assert event
            assert event.asset_materialization
            assert event.asset_materialization.partition == DAYS[-1]
            if table in WITHOUT_PLOT:
                assert "plot" not in event.asset_materialization.metadata
                continue
            told = event.asset_materialization.metadata["plot"].value
            if table in ABSENT:
                assert str(told).startswith(("Nothing", "No "))
                continue
            found = re.fullmatch(r"!\[plot\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", str(told))
            assert found, table
            picture = base64.b64decode(found[1])
            assert picture.startswith(PNG)
            assert len(picture) < 100_000  # it travels in the event
