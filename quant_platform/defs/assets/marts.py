"""dbt's models as assets: staging views on the lake, and the marts that reports read. The SQL is in dbt_project."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource

from quant_platform.defs import dbt_runner, dbt_specs
from quant_platform.defs.resources import Platform
from quant_platform.settings import Settings
from quant_platform.storage.lake import Lake
from quant_platform.storage.warehouse import rebuilt

if TYPE_CHECKING:
    from dagster_dbt import DagsterDbtTranslator

_FRESH_WITHIN = timedelta(hours=36)


def dbt_models() -> dg.AssetsDefinition:
    """Return every dbt model as an asset, and every dbt test as an asset check.

    Keys, groups and owners stand in the dbt project: a model's key is its schema and name, such as
    `marts/fct_daily_bars`; a source's is the lake table's, such as `market/bars_1m`.

    Raises:
        DbtError: The project does not parse.
    """
    known = dbt_specs.specs(dbt_runner.manifest())
    policy = dg.FreshnessPolicy.time_window(fail_window=_FRESH_WITHIN)

    @dg.multi_asset(
        name="dbt_models",
        specs=[spec.replace_attributes(freshness_policy=policy) for spec in known.assets],
        check_specs=known.checks,
        can_subset=True,
        allow_arbitrary_check_specs=True,  # dbt tests sources too
    )
    def body(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
        from dagster_dbt import DagsterDbtTranslator

        manifest, translator = json.loads(dbt_runner.manifest().read_bytes()), DagsterDbtTranslator()
        settings = platform.settings
        with rebuilt(settings.warehouse) as new:
            invocation = dbt_runner.build(
                *_selection(context, manifest, translator),
                warehouse=new,
                lake=Lake(settings.lake_uri).root,
                target=settings.home / "dbt",
            )
            events = list(_dagster_events(context, invocation, manifest, translator))
            if not invocation.is_successful:
                # Nothing of this build stays, so nothing of it counts as materialised; what is red must show.
                yield from (event for event in events if not isinstance(event, dg.Output))
                raise dg.Failure(f"dbt failed, the warehouse stays as it was: {' '.join(invocation.errors)}")
            with duckdb.connect(new, read_only=True) as connection:
                events = [_measured(context, event, connection) for event in events]
        yield from events

    return body


class Warehouse(DuckDBResource):
    """The warehouse to read: short read-only connections, closed whatever happens, whose clock is UTC."""

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection to the warehouse as it is now; close it soon, to see the next one.

        Raises:
            FileNotFoundError: Nothing has built the warehouse yet.
        """
        if not Path(self.database).exists():
            raise FileNotFoundError(f"There is no warehouse {self.database} yet: materialise the marts first.")
        with super().get_connection() as connection:
            try:
                # DuckDB takes no time zone when it connects, and hands out times in the machine's own.
                connection.execute("set TimeZone = 'UTC'")
                yield connection
            finally:
                connection.close()


def read_only_warehouse(settings: Settings) -> Warehouse:
    """Return the resource through which assets read the warehouse."""
    return Warehouse(database=str(settings.warehouse), connection_config={"access_mode": "READ_ONLY"})


def _selection(
    context: dg.AssetExecutionContext, manifest: dict[str, Any], translator: "DagsterDbtTranslator"
) -> list[str]:
    from dagster_dbt.asset_utils import get_subset_selection_for_context

    selected, indirect_selection = get_subset_selection_for_context(
        context=context,
        manifest=manifest,
        select=None,
        exclude=None,
        selector=None,
        dagster_dbt_translator=translator,
        current_dbt_indirect_selection_env=None,
    )
    return [*selected, *(["--indirect-selection", indirect_selection] if indirect_selection else [])]


def _dagster_events(
    context: dg.AssetExecutionContext,
    invocation: dbt_runner.Invocation,
    manifest: dict[str, Any],
    translator: "DagsterDbtTranslator",
) -> Iterator[Any]:
    from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

    for event in invocation.events:
        message = DbtCoreCliEventMessage(raw_event=event, event_history_metadata={})
        yield from message.to_default_asset_events(manifest, translator, context)


def _measured(context: dg.AssetExecutionContext, event: Any, warehouse: duckdb.DuckDBPyConnection) -> Any:
    if not isinstance(event, dg.Output):
        return event
    schema, name = context.asset_key_for_output(event.output_name).path
    table = warehouse.table(f"{schema}.{name}")
    metadata: dict[str, Any] = {"dagster/row_count": len(table)}
    if "trading_date" in table.columns and len(table):
        first, last = table.aggregate("min(trading_date), max(trading_date)").fetchall()[0]
        metadata["time_range"] = f"{first} to {last}"
    return event.with_metadata({**event.metadata, **metadata})
