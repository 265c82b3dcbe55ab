"""Asset checks of lake tables: what the ledger knows of a date, turned into one evaluation a check and date.

Blocking is the ledger's job, not Dagster's: a red blocking check refuses the units that read that file.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from quant_platform.contracts.events_out import PerformanceAttribution
from quant_platform.contracts.execution import TcaOrder
from quant_platform.contracts.live import LiveParity
from quant_platform.contracts.options import ChainQuality
from quant_platform.feeds.vix1d import Vix1dParams
from quant_platform.pipeline import events, execution, live_values, options, vix1d
from quant_platform.pipeline.live_parity import TOLERANCE
from quant_platform.pipeline.units import Outcome, UnitStatus
from quant_platform.settings import Settings
from quant_platform.storage import vix1d_archive

CONTRACT = "contract"
COVERAGE = "coverage"
TRADE_IDS = "trade_ids"
GAPS_TABLE = "market/gaps"
LIVE_PARITY = "live_parity"
WATERFALL = "waterfall_reconciles"
FRESH_SOURCE = "fresh_source"
_MOST_EVIDENCE = 50
_CHECK_NAMES = {
    "is_crossed": "crossed_markets",
    "is_parity_broken": "put_call_parity",
    "is_underlying_stale": "stale_underlying",
    "is_open_interest_off": "open_interest_jumps",
}
_OF_CHAINS = {
    "crossed_markets": "No snapshot has more crossed quotes than analytics.chain_quality.max_crossed_share.",
    "put_call_parity": "No snapshot breaks put-call parity at more strikes than max_parity_share.",
    "stale_underlying": "The underlying's price is of the quotes' time: parity agrees within max_underlying_gap.",
    "open_interest_jumps": "Open interest is that of the session before within max_open_interest_change.",
}
"""What `analytics.chain_quality` calls wrong, in every snapshot of the date."""
_OF_ORDERS = {
    "shortfall_identity": ("identity_broken", "The four parts sum to the shortfall, and to paper less real profit."),
    "fills_within_orders": ("overfilled", "No order is filled beyond its quantity."),
    "fills_within_life": ("filled_outside_life", "No fill is before its order, or after its end."),
    "prices_within_range": ("outside_range", "Every fill's price is within the range of the date's trades."),
}
"""Checks of orders: what is counted, and what is to hold."""


def specs(table: str, partitions: dg.PartitionsDefinition[str]) -> list[dg.AssetCheckSpec]:
    """Return the checks of a table, each with its own status a date."""
    described = {
        CONTRACT: "Rows that broke a rule of the contract are within the limit; red refuses what reads this date.",
        COVERAGE: "Every symbol that has history has this date, or the source is on record as not having it.",
    }
    if table == GAPS_TABLE:
        described[TRADE_IDS] = "No trade ids are missing from the tape."
    if table == ChainQuality.table:
        described |= _OF_CHAINS
    if table == vix1d.VIX1D:
        described[FRESH_SOURCE] = (
            f"A source of the index gave a reading within {Vix1dParams().max_age_sessions} sessions of the date."
        )
    if table == TcaOrder.table:
        described |= {name: text for name, (_, text) in _OF_ORDERS.items()}
    if table == PerformanceAttribution.table:
        described[WATERFALL] = "Paper profit less delay, trading, opportunity and fees is realised profit, to 1e-9."
    if table == LiveParity.table:
        described[LIVE_PARITY] = (
            f"What was served is what the folds give over the captured rows as received, to {TOLERANCE:g}, wherever it "
            "said that nothing was missing; and nothing was served that was never captured."
        )
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
        *([_chain_quality(outcomes, flag) for flag in options.QUALITY_MEASURES] if table == ChainQuality.table else []),
        *([_orders(outcomes, name) for name in _OF_ORDERS] if table == TcaOrder.table else []),
        *([_waterfall(outcomes)] if table == PerformanceAttribution.table else []),
        *([_live_parity(outcomes)] if table == LiveParity.table else []),
    ):
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(table.split("/")),
            check_name=name,
            passed=passed,
            metadata=metadata,
            partition=day.isoformat(),
            blocking=False,
            severity=dg.AssetCheckSeverity.ERROR
            if name in {"shortfall_identity", CONTRACT, LIVE_PARITY, WATERFALL}
            else dg.AssetCheckSeverity.WARN,
        )


def fresh_source(settings: Settings, day: date) -> dg.AssetCheckEvaluation:
    """Return whether some source gave a reading of the volatility index lately, as of a date.

    Dates before the first reading on record pass, and all of them where no source has ever been asked.
    """
    asked, last = vix1d_archive.sources(settings.landing), vix1d.newest(settings, day)
    metadata: dict[str, Any] = {"failures_in_a_row": {name: told.failures for name, told in (asked or {}).items()}}
    if last:
        age = vix1d.age_sessions(last, day)
        told = datetime.fromtimestamp(last.ts_event / 1e9, UTC).isoformat()
        metadata |= {"last_source": last.source, "last_reading": told, "last_value": last.value, "age_sessions": age}
        is_fresh = age <= Vix1dParams().max_age_sessions
    else:
        metadata["last_source"] = "none: there is no reading of the date or of one before it"
        is_fresh = vix1d.first_date(settings) is not None
    is_in_use = bool(asked or vix1d_archive.dates(settings.landing))
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(vix1d.VIX1D.split("/")),
        check_name=FRESH_SOURCE,
        passed=is_fresh or not is_in_use,
        metadata=metadata,
        partition=day.isoformat(),
        blocking=False,
        severity=dg.AssetCheckSeverity.ERROR,
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


def _chain_quality(outcomes: Sequence[Outcome], flag: str) -> tuple[str, bool, dict[str, Any]]:
    judged = {o.unit.symbol: json.loads(o.facts[flag]) for o in outcomes if flag in o.facts}
    wrong = {symbol: found for symbol, found in judged.items() if found["wrong"]}
    metadata = {"snapshots": sum(found["snapshots"] for found in judged.values()), "by_symbol": judged}
    return _CHECK_NAMES[flag], not wrong, metadata | {"measure": options.QUALITY_MEASURES[flag]}


def _orders(outcomes: Sequence[Outcome], name: str) -> tuple[str, bool, dict[str, Any]]:
    told = {o.unit.symbol: json.loads(o.facts[execution.CHECKS]) for o in outcomes if execution.CHECKS in o.facts}
    fact, _ = _OF_ORDERS[name]
    return name, not any(found[fact] for found in told.values()), {"by_symbol": told}


def _waterfall(outcomes: Sequence[Outcome]) -> tuple[str, bool, dict[str, Any]]:
    broken = sum(int(o.facts.get(events.CHECK, "0")) for o in outcomes)
    return WATERFALL, not broken, {"waterfalls": sum(o.rows for o in outcomes), "unreconciled": broken}


def _live_parity(outcomes: Sequence[Outcome]) -> tuple[str, bool, dict[str, Any]]:
    rows = [
        {"symbol": o.unit.symbol, **row} for o in outcomes for row in json.loads(o.facts.get(live_values.FACTS, "[]"))
    ]
    unjudged = {o.unit.symbol: f"{o.status}: {o.error}" for o in outcomes if not o.status.is_usable}
    worst = sorted(rows, key=lambda row: (row["missing"], row["max_difference"] or 0.0), reverse=True)
    metadata: dict[str, Any] = {
        "samples": sum(row["samples"] for row in rows),
        "compared": sum(row["compared"] for row in rows),
        "with_gap": sum(row["with_gap"] for row in rows),
        "differing": sum(row["differing"] for row in rows),
        "never_captured": sum(row["missing"] for row in rows),
        "unjudged": unjudged,
        "max_difference": max((row["max_difference"] or 0.0 for row in rows), default=0.0),
        "max_final_difference": max((row["max_final_difference"] or 0.0 for row in rows), default=0.0),
    }
    if worst:
        metadata["worst"] = dg.MetadataValue.table([dg.TableRecord(row) for row in worst[:_MOST_EVIDENCE]])
    return LIVE_PARITY, not (unjudged or metadata["differing"] or metadata["never_captured"]), metadata
