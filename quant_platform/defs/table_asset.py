"""A lake table as a Dagster asset: one line a table in assets/<domain>.py, one body for all of them here."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from inspect import getdoc
from typing import Any

import dagster as dg
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

from quant_platform.contracts._schema import column_docs, contract_of
from quant_platform.defs import checks
from quant_platform.defs.jobs import EXECUTION_SO_FAR, NEAR_REAL_TIME
from quant_platform.defs.partitions import dates_of
from quant_platform.defs.plots import Plot
from quant_platform.defs.resources import Platform
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import Outcome, UnitStatus, unit_symbols
from quant_platform.pipeline.vix1d import VIX1D

POOL = "lake"
# A plot costs more than the event that carries it: a range run draws its newest date, which the asset's page shows.
_PLOTTED_DATES = 1
_LOGGED_EVERY = 25


@dataclass(frozen=True)
class TableAsset:
    """What the definition of a table asset needs beside its recipe and contract; `reads`: assets that are no tables."""

    table: str
    owners: tuple[str, ...] = ("team:data-platform",)
    kinds: tuple[str, ...] = ("polars", "parquet")
    plot: Plot | None = None
    reads: tuple[dg.AssetKey, ...] = ()
    fresh_within: timedelta = timedelta(hours=36)


def table_asset(spec: TableAsset, partitions: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    """Return the asset definition of one lake table."""
    key = dg.AssetKey(spec.table.split("/"))
    contract = contract_of(spec.table)
    recipe = RECIPES[spec.table]

    @dg.multi_asset(
        name=spec.table.replace("/", "__"),
        specs=[
            dg.AssetSpec(
                key,
                deps=[
                    dg.AssetDep(
                        dg.AssetKey(read.table.split("/")),
                        partition_mapping=dg.TimeWindowPartitionMapping(
                            start_offset=-read.lookback_sessions, allow_nonexistent_upstream_partitions=True
                        ),
                    )
                    for read in recipe.inputs
                ]
                + [dg.AssetDep(key) for key in spec.reads],
                description=getdoc(contract),
                group_name=spec.table.split("/", maxsplit=1)[0],
                owners=list(spec.owners),
                kinds=set(spec.kinds),
                code_version=recipe.code_version,
                partitions_def=partitions,
                freshness_policy=dg.FreshnessPolicy.time_window(fail_window=spec.fresh_within),
                metadata={"dagster/column_schema": _column_schema(spec.table), "dagster/table_name": spec.table},
            )
        ],
        check_specs=checks.specs(spec.table, partitions),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=POOL,
    )
    def body(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Iterator[Any]:
        dates = dates_of(context)
        platform.live_as(context.run.run_id)
        if key not in context.selected_asset_keys:  # somebody asked for the checks alone
            on_disk, first_dates = _ledger_view(platform, spec.table, dates)
            for day in dates:
                yield from _evaluations(platform, spec.table, day, on_disk[day], first_dates)
            return
        outcomes = platform.engine.run(
            spec.table,
            platform.symbols(context.run.tags),
            dates,
            is_forced=platform.is_forced,
            closed_before=platform.closed_before(context.run.tags),
            on_outcome=_progress(context, platform),
        )
        yield from reported(context, platform, spec, dates, outcomes)

    return body


def reported(
    context: dg.AssetExecutionContext,
    platform: Platform,
    spec: TableAsset,
    dates: Sequence[date],
    outcomes: Sequence[Outcome],
) -> Iterator[Any]:
    """Tell Dagster what a run left on disk: metadata and checks for each date, then success or a table of failures.

    Raises:
        dg.Failure: A unit failed or was blocked; the dates whose units all succeeded are materialised all the same.
    """
    key = dg.AssetKey(spec.table.split("/"))
    on_disk, first_dates = _ledger_view(platform, spec.table, dates)
    unsound = [outcome for outcome in outcomes if not outcome.status.is_usable]
    unsound_dates = {outcome.unit.date for outcome in unsound}
    is_brief = context.job_name in {NEAR_REAL_TIME, EXECUTION_SO_FAR}
    metadata = {
        day: _metadata(platform, spec, day, on_disk[day], is_brief=is_brief, has_plot=day in dates[-_PLOTTED_DATES:])
        for day in dates
        if day not in unsound_dates
    }
    if not unsound:
        for day in dates:
            context.add_asset_metadata(metadata[day], asset_key=key, partition_key=day.isoformat())
    for day in dates:
        yield from _evaluations(platform, spec.table, day, on_disk[day], first_dates)
    if unsound:
        for day, facts in metadata.items():
            context.log_event(dg.AssetMaterialization(asset_key=key, partition=day.isoformat(), metadata=facts))
        # An output without events: it lets the run go on to what reads the sound units (build.py's executor).
        yield dg.MaterializeResult(asset_key=key, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})
        raise dg.Failure(
            f"{len(unsound)} of {len(outcomes)} units of {spec.table} failed or were blocked.",
            metadata={"failures": _failures(unsound)},
            allow_retries=any(outcome.status is UnitStatus.FAILED for outcome in unsound),
        )
    yield dg.MaterializeResult(asset_key=key)


def _evaluations(
    platform: Platform, table: str, day: date, outcomes: Sequence[Outcome], first_dates: dict[str, date]
) -> Iterator[dg.AssetCheckEvaluation]:
    yield from checks.evaluations(table, day, outcomes, first_dates)
    if table == VIX1D:
        yield checks.fresh_source(platform.settings, day)


def _progress(context: dg.AssetExecutionContext, platform: Platform) -> Callable[[Outcome], None]:
    counts: Counter[str] = Counter()

    def tell(outcome: Outcome) -> None:
        counts["up to date" if outcome.is_skipped else outcome.status.value] += 1
        if not outcome.status.is_usable:
            context.log.error("%s: %s: %s", outcome.unit, outcome.status, outcome.error)
        elif counts.total() % _LOGGED_EVERY == 0:
            context.log.info("Units done: %s.", ", ".join(f"{n} {status}" for status, n in counts.items()))
        for observer in platform.observers:
            observer(outcome)

    return tell


def _ledger_view(
    platform: Platform, table: str, dates: Sequence[date]
) -> tuple[dict[date, list[Outcome]], dict[str, date]]:
    known = unit_symbols(platform.settings)
    on_disk: dict[date, list[Outcome]] = {day: [] for day in dates}
    for outcome in platform.engine.ledger.outcomes(table, symbols=known, start=min(dates), end=max(dates)):
        if outcome.unit.date in on_disk:
            on_disk[outcome.unit.date].append(outcome)
    return on_disk, platform.engine.ledger.first_dates(table)


def _metadata(
    platform: Platform, spec: TableAsset, day: date, outcomes: Sequence[Outcome], *, is_brief: bool, has_plot: bool
) -> dict[str, Any]:
    """Describe the whole partition; briefly where a run comes every minute, and files are many."""
    present = [o for o in outcomes if o.status in {UnitStatus.OK, UnitStatus.OPEN}]
    metadata: dict[str, Any] = {
        "dagster/row_count": sum(o.rows for o in outcomes),
        "bytes": sum(o.bytes for o in outcomes),
        "seconds": round(sum(o.seconds for o in outcomes), 3),
        "symbols": ", ".join(o.unit.symbol for o in present) or "none",
        "quarantined_rows": sum(o.quarantined for o in outcomes),
    }
    if is_brief:
        return metadata
    first, last = _time_range(platform, spec.table, day)
    metadata["time_range"] = f"{first} to {last}" if first else "no rows"
    if absent := [o.unit.symbol for o in outcomes if o.status is UnitStatus.ABSENT]:
        metadata["absent_at_source"] = ", ".join(absent)
    if spec.plot and has_plot:
        metadata["plot"] = dg.MetadataValue.md(spec.plot(platform.engine.lake, spec.table, day))
    return metadata


def _time_range(platform: Platform, table: str, day: date) -> tuple[Any, Any]:
    columns = contract_of(table).columns()
    column = next(n for n in ("ts_event", "ts_open", "ts_start", "period_start", "date") if n in columns)
    return platform.engine.lake.time_range(table, day, column)


def _failures(unsound: Sequence[Outcome]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {"symbol": o.unit.symbol, "date": o.unit.date.isoformat(), "status": o.status.value, "why": o.error}
            )
            for o in unsound
        ]
    )


def _column_schema(table: str) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                doc.name,
                doc.dtype,
                f"{doc.doc} [{doc.unit}]" if doc.unit else doc.doc,
                constraints=dg.TableColumnConstraints(
                    nullable=doc.is_nullable, other=[doc.bounds] if doc.bounds else None
                ),
            )
            for doc in column_docs(contract_of(table))
        ]
    )
