"""Build one unit in the process that this is called in: under its lock, from inputs that are fit, to one file."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote

from filelock import FileLock

from quant_platform.contracts._schema import contract_of, empty
from quant_platform.pipeline import capture, open_date
from quant_platform.pipeline.capture import THROUGH_SEGMENT
from quant_platform.pipeline.ledger import checks_json
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import (
    Built,
    Outcome,
    Recipe,
    Unit,
    UnitStatus,
    Work,
    contract_check,
    outcome_on_disk,
    usable_hash,
)
from quant_platform.pipeline.workers import slot
from quant_platform.settings import Settings
from quant_platform.storage import quarantine
from quant_platform.storage.lake import Lake, metadata_json


class How(NamedTuple):
    """What a run asks of every unit."""

    is_forced: bool = False
    closed_before: datetime | None = None


_AS_DUE = How()


def build_unit(unit: Unit, settings: Settings, how: How = _AS_DUE) -> Outcome:
    """Build one unit in this process, under its lock; errors come back as an outcome, never as an exception."""
    started = time.perf_counter()
    work = Work(
        unit,
        RECIPES[unit.table],
        settings,
        Lake(settings.lake_uri, assumed_latency_ms=settings.assumed_latency_ms),
    )
    lock = settings.home / "locks" / unit.table / unit.date.isoformat() / f"{quote(unit.symbol, safe='')}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if open_date.is_open(work, how.closed_before):
                started = time.perf_counter()
                outcome = open_date.append(work, is_forced=how.is_forced)
            else:
                with slot(settings.home / "locks" / "slots", settings.pipeline.workers):
                    started = time.perf_counter()
                    outcome = _build(work, is_forced=how.is_forced)
                if work.lake.read_state(*unit) is not None and outcome.status.is_usable:
                    work.lake.drop_open(*unit)  # the date is closed
    except Exception as error:  # noqa: BLE001  # one unit's failure, of whatever kind, must not stop the others
        outcome = Outcome(unit, UnitStatus.FAILED, error=f"{type(error).__name__}: {error}")
    return replace(outcome, seconds=round(time.perf_counter() - started, 4))


def _build(work: Work, *, is_forced: bool) -> Outcome:
    recipe, unit, lake = work.recipe, work.unit, work.lake
    present = outcome_on_disk(lake, unit)
    if recipe.capture and present and capture.is_spent(work.settings.landing, work.instrument, present.facts):
        if present.content_hash != lake.recomputed_hash(*unit):
            raise OSError(
                f"{lake.path(*unit)} is damaged, and the segments that it was built of are gone: put back a copy."
            )
        return replace(present, is_skipped=True)
    status = UnitStatus.OK
    inputs = {u: outcome_on_disk(lake, u) for u in work.input_units() if u.date == unit.date}
    unfit = ", ".join(str(u) for u, found in inputs.items() if u.symbol == unit.symbol and not usable_hash(found))
    if unfit:
        reason = f"The file of {unfit} is missing, damaged or red: run `qp backfill` for it."
        return Outcome(unit, UnitStatus.BLOCKED, error=reason)
    if work.session is None:
        status = UnitStatus.CALENDAR_CLOSED
    elif recipe.fetch:
        work = replace(work, source=recipe.fetch(work))
        status = UnitStatus.OK if work.source else UnitStatus.ABSENT
    elif _is_absent(recipe, inputs):
        status = UnitStatus.ABSENT
    key = work.key(work.content_hash)
    if not is_forced and present and present.key == key and present.content_hash == lake.recomputed_hash(*unit):
        return replace(present, is_skipped=True)
    built = recipe.build(work) if status is UnitStatus.OK else Built(empty(contract_of(unit.table)))
    quarantined = 0 if built.quarantined is None else built.quarantined.height
    facts = dict(built.facts)
    if through := _through_segment(inputs.values()):
        facts[THROUGH_SEGMENT] = through
    if work.source:
        facts |= {"source": work.source.name, "source_fingerprint": work.source.fingerprint}
    quarantine.put(work.settings.quarantine, *unit, built.quarantined)
    checks = {"contract": contract_check(work, built.rows.height, quarantined)}
    info = lake.write(
        *unit,
        built.rows,
        metadata={
            "status": status.value,
            "key": key,
            "code_version": recipe.code_version,
            "quarantined": str(quarantined),
            "checks": checks_json(checks),
            "facts": metadata_json(facts),
        },
    )
    return Outcome(
        unit,
        status,
        key=key,
        content_hash=info.content_hash,
        rows=info.rows,
        bytes=info.bytes,
        quarantined=quarantined,
        checks=checks,
        facts=facts,
    )


def _through_segment(inputs: Iterable[Outcome | None]) -> str | None:
    """Return the last segment of a capture that all inputs contain."""
    through = [outcome.facts[THROUGH_SEGMENT] for outcome in inputs if outcome and THROUGH_SEGMENT in outcome.facts]
    return min(through, key=int, default=None)


def _is_absent(recipe: Recipe, inputs: Mapping[Unit, Outcome | None]) -> bool:
    there = {unit.table for unit, outcome in inputs.items() if outcome and outcome.status is not UnitStatus.ABSENT}
    absent = {unit.table for unit in inputs} - there
    required = {read.table for read in recipe.inputs if not read.is_optional}
    return bool(absent & required) or (bool(inputs) and not there)
