"""Three dates, two symbols, the middle date of one symbol bad: what each date's status says, however it is run.

How a unit is built, skipped or blocked is tested with the engine; here it is what Dagster shows of it.
"""

import hashlib
import io
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from quant_platform.defs.backfill import backfill
from quant_platform.defs.build import build_defs
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.resources import Platform
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import Unit, UnitStatus

FIRST, BAD, LAST = DATES = (date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6))
GOOD_SYMBOL, BAD_SYMBOL = SYMBOLS = ("AAA", "BBB")
TRADES = "market/trades"
# By hand from docs/architecture.md: a table stands after those that it reads.
LEVELS = (
    ("market/trades", "market/quotes"),
    ("market/gaps", "market/bars_1s"),
    ("market/bars_1m",),
    ("market/bars_5m", "statistics/price_statistics"),
)
FROM_TRADES = {table for level in LEVELS for table in level} - {"market/quotes", TRADES}
# What looks back over midnight is built again on the day after a repair.
LOOKS_BACK = {"market/gaps", "statistics/price_statistics"}

Failures = set[tuple[str, str, str]]


def keyed(table: str) -> dg.AssetKey:
    return dg.AssetKey(table.split("/"))


def spoil_zip(content: bytes) -> bytes:
    """Overwrite the middle of the packed data."""
    half = len(content) // 2
    return content[:half] + bytes(64) + content[half + 64 :]


def spoil_rows(content: bytes) -> bytes:
    """Turn the price of every twentieth row negative: five per cent, where one is allowed."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        (name,) = packed.namelist()
        header, *lines = packed.read(name).decode().splitlines()
    assert header.startswith("id,price,")
    lines = [line.replace(",", ",-", 1) if n % 20 == 0 else line for n, line in enumerate(lines)]
    spoiled = io.BytesIO()
    with zipfile.ZipFile(spoiled, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(name, "\n".join([header, *lines, ""]))
    return spoiled.getvalue()


def replace_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{hashlib.sha256(content).hexdigest()}  {path.name}\n")


@dataclass
class Truth:
    """What Dagster, the ledger and the lake say after runs."""

    runs: list[tuple[bool, str]]
    failures: Failures
    materialized: dict[str, set[str]]
    checks: dict[tuple[str, str], dict[str, str]]
    statuses: dict[Unit, UnitStatus]
    files: dict[Unit, int]

    def status(self, table: str, day: date, symbol: str) -> UnitStatus:
        """Return what the ledger holds of a unit."""
        return self.statuses[Unit(table, symbol, day)]


class Runs:
    """The three ways to bring the same dates up to date, and what became visible of them."""

    def __init__(self, platform: Platform, way: str) -> None:
        self.platform, self.way = platform, way

    def run(self) -> Truth:
        """Run everything once and return the whole truth."""
        before = self._run_ids()
        if self.way == "backfill":
            backfill(self.platform, SYMBOLS, FIRST, LAST)
        else:
            self._runs_of_the_implicit_job()
        return self._truth(before)

    def _runs_of_the_implicit_job(self) -> None:
        definitions = build_defs(resource_overrides={"platform": self.platform})
        job = definitions.resolve_implicit_global_asset_job_def()
        span = {ASSET_PARTITION_RANGE_START_TAG: str(FIRST), ASSET_PARTITION_RANGE_END_TAG: str(LAST)}
        with dagster_instance(self.platform.settings) as instance:
            for level in LEVELS:
                for how in [{"partition_key": str(d)} for d in DATES] if self.way == "single" else [{"tags": span}]:
                    selection = [keyed(table) for table in level]
                    job.execute_in_process(instance=instance, asset_selection=selection, raise_on_error=False, **how)

    def _run_ids(self) -> set[str]:
        with dagster_instance(self.platform.settings) as instance:
            return {run.run_id for run in instance.get_runs()}

    def _truth(self, before: set[str]) -> Truth:
        ledger, lake = self.platform.engine.ledger, self.platform.engine.lake
        with dagster_instance(self.platform.settings) as instance:
            runs = [run for run in instance.get_runs() if run.run_id not in before]
            checks: dict[tuple[str, str], dict[str, str]] = {}
            keys = [dg.AssetCheckKey(keyed(t), name) for t in RECIPES for name in ("contract", "coverage")]
            for info in instance.event_log_storage.get_asset_check_partition_info(keys):
                name = ("/".join(info.check_key.asset_key.path), info.check_key.name)
                checks.setdefault(name, {})[str(info.partition_key)] = info.latest_execution_status.value
            return Truth(
                runs=[(run.is_success, run.run_id) for run in runs],
                failures={row for run in runs for row in failures(instance, run.run_id)},
                materialized={t: instance.get_materialized_partitions(keyed(t)) for t in RECIPES},
                checks=checks,
                statuses={o.unit: o.status for o in ledger.outcomes()},
                files={
                    Unit(t, s, d): lake.path(t, s, d).stat().st_mtime_ns
                    for t in RECIPES
                    for s in SYMBOLS
                    for d in DATES
                    if lake.path(t, s, d).exists()
                },
            )


def failures(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[str, str, str]]:
    """Yield symbol, date and status of each row in the failure tables of a run; each must say why."""
    for record in instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        assert event
        told: Any = event.step_failure_data.user_failure_data
        for row in told.metadata["failures"].records:
            assert str(row.data["why"]).strip(" .")
            yield str(row.data["symbol"]), str(row.data["date"]), str(row.data["status"])


@contextmanager
def runs_over(market: Any, home: Path, way: str) -> Iterator[Runs]:
    platform = Platform(market.settings(home))
    try:
        yield Runs(platform, way)
    finally:
        platform.close()


@pytest.mark.usefixtures("dagster_home")
@pytest.mark.parametrize("way", ["single", "range", "backfill"])
@pytest.mark.parametrize(("spoil", "status"), [(spoil_zip, UnitStatus.FAILED), (spoil_rows, UnitStatus.OK)])
def test_bad_middle_date_reddens_itself_alone_until_repaired(
    own_market: Any, tmp_path: Path, way: str, spoil: Any, status: UnitStatus
) -> None:
    path = own_market.file(BAD_SYMBOL, "trades", BAD)
    sound = path.read_bytes()
    replace_file(path, spoil(sound))
    with runs_over(own_market, tmp_path / "home", way) as runs:
        truth = runs.run()

        assert truth.status(TRADES, BAD, BAD_SYMBOL) is status
        blocked = {Unit(table, BAD_SYMBOL, BAD) for table in FROM_TRADES}
        assert {unit for unit, s in truth.statuses.items() if s is UnitStatus.BLOCKED} == blocked
        bad = blocked | ({Unit(TRADES, BAD_SYMBOL, BAD)} if status is UnitStatus.FAILED else set())
        assert {s for unit, s in truth.statuses.items() if unit not in bad} == {UnitStatus.OK}
        everything = {Unit(t, s, d) for t in RECIPES for s in SYMBOLS for d in DATES}
        assert set(truth.statuses) == everything
        assert set(truth.files) == everything - bad

        bad_tables = {unit.table for unit in bad}
        for table in RECIPES:
            expected = {str(FIRST), str(LAST)} | ({str(BAD)} if table not in bad_tables else set())
            assert truth.materialized[table] == expected, table
        red = {t for t in RECIPES if t in bad_tables or t == TRADES}
        for table in RECIPES:
            contract = {str(d): "SUCCEEDED" for d in DATES} | ({str(BAD): "FAILED"} if table in red else {})
            assert truth.checks[table, "contract"] == contract, table
            coverage = {str(d): "SUCCEEDED" for d in DATES} | ({str(BAD): "FAILED"} if table in bad_tables else {})
            assert truth.checks[table, "coverage"] == coverage, table

        assert not all(is_success for is_success, _ in truth.runs)
        rows = {(BAD_SYMBOL, str(BAD), "blocked")}
        assert truth.failures == rows | ({(BAD_SYMBOL, str(BAD), "failed")} if status is UnitStatus.FAILED else set())

        replace_file(path, sound)
        repaired = runs.run()

        assert all(is_success for is_success, _ in repaired.runs)
        assert set(repaired.statuses.values()) == {UnitStatus.OK}
        assert set(repaired.statuses) == set(repaired.files) == everything
        for table in RECIPES:
            assert repaired.materialized[table] == {str(d) for d in DATES}
            assert set(repaired.checks[table, "contract"].values()) == {"SUCCEEDED"}
            assert set(repaired.checks[table, "coverage"].values()) == {"SUCCEEDED"}
        due = bad | {Unit(TRADES, BAD_SYMBOL, BAD)} | {Unit(t, BAD_SYMBOL, LAST) for t in LOOKS_BACK}
        assert {u for u, written in repaired.files.items() if truth.files.get(u) != written} == due
