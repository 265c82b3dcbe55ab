"""Three dates, the middle one bad for two of three symbols: what each date's status says, however it is run.

How a unit is built, skipped or blocked is tested with the engine; here it is what Dagster shows of it.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster import DagsterEventType
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from quant_platform.defs.backfill import backfill
from quant_platform.defs.build import build_defs
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.resources import Platform
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import Unit, UnitStatus
from quant_platform.storage.lake import ALL_SYMBOLS
from quant_platform_tests.every_unit import UNFED, every_unit

FIRST, BAD, LAST = DATES = (date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6))
SOUND, CORRUPT, RED = SYMBOLS = ("AAA", "BBB", "CCC")
TRADES = "market/trades"
BOOK, LIVE_VALUES = "market/book", "live/values"
# The archive has no book, no symbol has options, no desk traded, and no writer ran: which is sound.
ABSENT = {BOOK, LIVE_VALUES, "live/parity"} | UNFED
FROM_QUOTES = {"market/quotes", "statistics/liquidity", "microstructure/order_book_imbalance"}
FROM_TRADES = RECIPES.keys() - FROM_QUOTES - UNFED - {TRADES, BOOK, LIVE_VALUES}
# What looks back over midnight is built again on the day after a repair.
# Without an order they are absent; but what reads a failed tape is blocked before anybody looks.
READ_TAPE = {
    "execution/tca_orders",
    "execution/quality",
    "execution/impact",
    "events/out/decision_outcome_analysis",
}
OF_THE_DATE = {"execution/tca_orders", "events/out/decision_outcome_analysis"}
"""Of those, the ones that read no date but their own."""
SUMS = {
    f"events/out/{name}" for name in ("performance_attribution", "strategy_performance", "model_performance_feedback")
}
"""Sums over all symbols of their date."""
SCORECARDS = {
    "execution/venue_scorecard",
    "execution/algo_scorecard",
    "execution/impact_fit",
    "execution/quality_trend",
}
LOOKS_BACK = {table for table in FROM_TRADES | FROM_QUOTES if any(r.lookback_sessions for r in RECIPES[table].inputs)}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def keyed(table: str) -> dg.AssetKey:
    return dg.AssetKey(table.split("/"))


def corrupt_zip(content: bytes) -> bytes:
    """Overwrite the middle of the packed data."""
    half = len(content) // 2
    return content[:half] + bytes(64) + content[half + 64 :]


def negative_prices(content: bytes) -> bytes:
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

    is_success: list[bool]
    failures: set[tuple[str, str, str]]
    materialized: dict[str, set[str]]
    checks: dict[tuple[str, str], dict[str, str]]
    statuses: dict[Unit, UnitStatus]
    files: dict[Unit, int]


class Runs:
    """The ways to bring the same dates up to date, and what became visible of them."""

    def __init__(self, platform: Platform, way: str) -> None:
        self.platform, self.way = platform, way

    def run(self, dates: tuple[date, ...] = DATES) -> Truth:
        """Run everything once, by single dates these alone, and return the whole truth."""
        with dagster_instance(self.platform.settings) as instance:
            before = {run.run_id for run in instance.get_runs()}
        if self.way == "backfill":
            done = backfill(self.platform, SYMBOLS, FIRST, LAST)
            is_sound = done.is_ok
        with dagster_instance(self.platform.settings) as instance:
            if self.way != "backfill":
                self._execute(instance, dates)
            runs = [run for run in instance.get_runs() if run.run_id not in before]
            if self.way == "backfill":
                assert is_sound == all(run.is_success for run in runs)
            return self._truth(instance, runs)

    def _execute(self, instance: dg.DagsterInstance, dates: tuple[date, ...]) -> None:
        """Run the whole job as a run worker does, with the executor of the code location."""
        definitions = build_defs(resource_overrides={"platform": self.platform})
        job = (
            definitions.resolve_job_def("daily_market")
            if self.way == "single"
            else definitions.resolve_implicit_global_asset_job_def()
        )
        span = {ASSET_PARTITION_RANGE_START_TAG: str(FIRST), ASSET_PARTITION_RANGE_END_TAG: str(LAST)}
        for tags in [{PARTITION_NAME_TAG: str(d)} for d in dates] if self.way == "single" else [span]:
            run = instance.create_run_for_job(job_def=job, tags=tags, run_config=QUIET)
            execute_run(InMemoryJob(job), run, instance)

    def _truth(self, instance: dg.DagsterInstance, runs: list[dg.DagsterRun]) -> Truth:
        ledger, lake = self.platform.engine.ledger, self.platform.engine.lake
        checks: dict[tuple[str, str], dict[str, str]] = {}
        keys = [dg.AssetCheckKey(keyed(t), name) for t in RECIPES for name in ("contract", "coverage")]
        for info in instance.event_log_storage.get_asset_check_partition_info(keys):
            name = ("/".join(info.check_key.asset_key.path), info.check_key.name)
            checks.setdefault(name, {})[str(info.partition_key)] = info.latest_execution_status.value
        paths = {unit: lake.path(*unit) for unit in every_unit(SYMBOLS, DATES)}
        return Truth(
            is_success=[run.is_success for run in reversed(runs)],
            failures={row for run in runs for row in failures(instance, run.run_id)},
            materialized={
                t: instance.get_materialized_partitions(keyed(t)) for t in (*RECIPES, "reports/daily_market")
            },
            checks=checks,
            statuses={o.unit: o.status for o in ledger.outcomes()},
            files={unit: path.stat().st_mtime_ns for unit, path in paths.items() if path.exists()},
        )


def failures(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[str, str, str]]:
    """Yield symbol, date and status of each row in the failure tables of a run; each must say why."""
    for record in instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE).records:
        event = record.event_log_entry.dagster_event
        assert event
        told: Any = event.step_failure_data.user_failure_data
        assert told, event.step_failure_data.error
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
def test_bad_middle_date_reddens_itself_alone_until_repaired(own_market: Any, tmp_path: Path, way: str) -> None:
    spoiled = {
        own_market.file(CORRUPT, "trades", BAD): corrupt_zip,
        own_market.file(RED, "trades", BAD): negative_prices,
    }
    sound = {path: path.read_bytes() for path in spoiled}
    for path, spoil in spoiled.items():
        replace_file(path, spoil(sound[path]))
    everything = every_unit(SYMBOLS, DATES)
    absent = {unit for unit in everything if unit.table in ABSENT}
    blocked = {Unit(table, symbol, BAD) for table in FROM_TRADES | READ_TAPE for symbol in (CORRUPT, RED)}
    failed = {Unit(TRADES, CORRUPT, BAD)}
    with runs_over(own_market, tmp_path / "home", way) as runs:
        truth = runs.run()

        assert {unit for unit, s in truth.statuses.items() if s is UnitStatus.BLOCKED} == blocked
        assert {unit for unit, s in truth.statuses.items() if s is UnitStatus.FAILED} == failed
        assert {
            unit for unit, s in truth.statuses.items() if s is UnitStatus.OK
        } == everything - blocked - failed - absent
        assert set(truth.files) == everything - blocked - failed
        assert truth.materialized["market/quotes"] == {str(d) for d in DATES}
        assert truth.checks["market/quotes", "contract"] == {str(d): "SUCCEEDED" for d in DATES}
        for table in {TRADES, *FROM_TRADES}:
            assert truth.materialized[table] == {str(FIRST), str(LAST)}, table
            middle_red = {str(FIRST): "SUCCEEDED", str(BAD): "FAILED", str(LAST): "SUCCEEDED"}
            assert truth.checks[table, "contract"] == middle_red, table
            assert truth.checks[table, "coverage"] == middle_red, table
        assert truth.failures == {
            (CORRUPT, str(BAD), "failed"),
            (CORRUPT, str(BAD), "blocked"),
            (RED, str(BAD), "blocked"),
        }
        if way == "single":
            assert truth.is_success == [True, False, True]
        else:
            assert not all(truth.is_success)
        assert truth.materialized["reports/daily_market"] == {str(d) for d in DATES}
        assert marts(runs.platform) == {(s, d) for s in SYMBOLS for d in DATES} - {(CORRUPT, BAD), (RED, BAD)}

        for path, content in sound.items():
            replace_file(path, content)
        repaired = runs.run((BAD, LAST))

        assert all(repaired.is_success)
        assert repaired.failures == set()
        sound_statuses = dict.fromkeys(everything, UnitStatus.OK) | dict.fromkeys(absent, UnitStatus.ABSENT)
        assert repaired.statuses == sound_statuses
        for table in RECIPES:
            assert repaired.materialized[table] == {str(d) for d in DATES}
            assert set(repaired.checks[table, "contract"].values()) == {"SUCCEEDED"}
            assert set(repaired.checks[table, "coverage"].values()) == {"SUCCEEDED"}
        due = blocked | failed | {Unit(TRADES, RED, BAD)}
        due |= {Unit(t, s, LAST) for t in LOOKS_BACK for s in (CORRUPT, RED)}
        due |= {Unit(t, ALL_SYMBOLS, d) for t in SCORECARDS for d in (BAD, LAST)}
        due |= {Unit(t, ALL_SYMBOLS, BAD) for t in SUMS}
        due |= {Unit(t, s, LAST) for t in READ_TAPE - OF_THE_DATE for s in (CORRUPT, RED)}
        assert {u for u, written in repaired.files.items() if truth.files.get(u) != written} == due
        assert marts(runs.platform) == {(s, d) for s in SYMBOLS for d in DATES}


def marts(platform: Platform) -> set[tuple[str, date]]:
    with duckdb.connect(platform.settings.warehouse, read_only=True) as connection:
        return set(connection.execute("SELECT symbol, trading_date FROM marts.fct_daily_bars").fetchall())


@pytest.mark.usefixtures("dagster_home")
def test_backfill_of_a_red_date_alone_is_not_ok(own_market: Any, tmp_path: Path) -> None:
    path = own_market.file(RED, "trades", BAD)
    replace_file(path, negative_prices(path.read_bytes()))
    with runs_over(own_market, tmp_path / "home", "backfill") as runs:
        done = backfill(runs.platform, [RED], BAD, BAD)

    assert not done.is_ok
    assert Unit(TRADES, RED, BAD) in {outcome.unit for outcome in done.unsound}
    assert done.step_errors == {}
