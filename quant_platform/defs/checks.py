"""Asset checks of lake tables: what the ledger knows of a date, turned into one evaluation a check and date.

Blocking is the ledger's job, not Dagster's: a red blocking check refuses the units that read that file.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

import dagster as dg

from quant_platform.pipeline.units import Outcome, UnitStatus

CONTRACT = "contract"
COVERAGE = "coverage"
TRADE_IDS = "trade_ids"
GAPS_TABLE = "market/gaps"


def specs(table: str, partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetCheckSpec]:
    """Return the checks of a table, each with its own status a date."""
    described = {
        CONTRACT: "Rows that broke a rule of the contract are within the limit; red refuses what reads this date.",
        COVERAGE: "Every symbol that has history has this date, or the source is on record as not having it.",
    }
    if table == GAPS_TABLE:
        described[TRADE_IDS] = "No trade ids are missing from the tape."
    return [
        dg.AssetCheckSpec(name, asset=dg.AssetKey(table.split("/")), description=text, partitions_def=partitions)
        for name, text in described.items()
    ]


def evaluations(
    table: str, day: date, outcomes: Sequence[Outcome], first_dates: dict[str, date]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield one evaluation for each check of the table on one date.

    Args:
        table: Such as `market/trades`.
        day: The partition.
        outcomes: What the ledger knows of every symbol on that date.
        first_dates: The first date on record of each symbol with history in this table.
    """
    for name, passed, metadata in (
        _contract(outcomes),
        _coverage(day, outcomes, first_dates),
        *([_trade_ids(outcomes)] if table == GAPS_TABLE else []),
    ):
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(table.split("/")),
            check_name=name,
            passed=passed,
            metadata=metadata,
            partition=day.isoformat(),
            blocking=False,
            severity=dg.AssetCheckSeverity.ERROR if name == CONTRACT else dg.AssetCheckSeverity.WARN,
        )


def _contract(outcomes: Sequence[Outcome]) -> tuple[str, bool, dict[str, Any]]:
    judged = [(o, o.checks[CONTRACT]) for o in outcomes if CONTRACT in o.checks and o.status.is_usable]
    unjudged = {o.unit.symbol: f"{o.status}: {o.error}" for o in outcomes if not o.status.is_usable}
    return (
        CONTRACT,
        not unjudged and all(check.passed for _, check in judged),
        {
            "quarantined_rows": sum(o.quarantined for o in outcomes),
            "by_symbol": {o.unit.symbol: check.detail for o, check in judged} | unjudged,
        },
    )


def _coverage(day: date, outcomes: Sequence[Outcome], first_dates: dict[str, date]) -> tuple[str, bool, dict[str, Any]]:
    usable = {o.unit.symbol: o.status for o in outcomes if o.status.is_usable}
    missing = sorted(s for s, first in first_dates.items() if first <= day and s not in usable)
    return (
        COVERAGE,
        not missing,
        {
            "present": sorted(s for s, status in usable.items() if status is UnitStatus.OK),
            "open": sorted(s for s, status in usable.items() if status is UnitStatus.OPEN),
            "absent_at_source": sorted(s for s, status in usable.items() if status is UnitStatus.ABSENT),
            "calendar_closed": sorted(s for s, status in usable.items() if status is UnitStatus.CALENDAR_CLOSED),
            "missing": missing,
        },
    )


def _trade_ids(outcomes: Sequence[Outcome]) -> tuple[str, bool, dict[str, Any]]:
    holes = {o.unit.symbol: o.rows for o in outcomes if o.rows}
    return TRADE_IDS, not holes, {"gaps": sum(holes.values()), "gaps_by_symbol": holes}
