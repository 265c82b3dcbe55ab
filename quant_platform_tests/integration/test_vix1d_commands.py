"""VIX1D from the command line, and the check that tells of sources that are silent."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from quant_platform.defs.checks import fresh_source
from quant_platform.defs.partitions import daily
from quant_platform.defs.resources import Platform
from quant_platform.defs.table_asset import TableAsset, table_asset
from quant_platform.settings import Settings
from quant_platform.simulation.vix1d import write_history
from quant_platform.storage import vix1d_archive
from quant_platform.storage.vix1d_archive import Asked, Reading

S = 1_000_000_000
FRIDAY = date(2024, 3, 8)
CLOSE = int(datetime(2024, 3, 8, 21, 15, tzinfo=UTC).timestamp()) * S


def test_a_value_by_hand_is_on_record_and_reaches_the_lake(qp, tmp_path: Path) -> None:
    home = tmp_path / "home"
    said = qp("ingest-vix1d", "14.32", "--ts", "2024-03-08T16:15:00-05:00", home=home)
    assert (said.code, said.out) == (
        0,
        "VIX1D 14.32 is on record under 2024-03-08. `qp backfill` of that date brings it to the lake.\n",
    )
    again = qp("ingest-vix1d", "99", "--ts", "2024-03-08T21:15:00", home=home)
    assert again.code == 1
    assert "is on record already, and stays" in again.text
    ((_, reading),) = vix1d_archive.day(home / "landing", FRIDAY).readings
    assert (reading.source, reading.ts_event, reading.value) == ("manual", CLOSE, 14.32)
    assert abs(reading.ts_recv - datetime.now(UTC).timestamp() * S) < 60 * S

    assert qp("backfill", "--from", "2024-03-08", "--to", "2024-03-08", "--symbols", "AAA", home=home).code == 0
    listed = json.loads(qp("list-data", "--json", home=home).out)
    found = {row["table"]: row for row in listed if row["symbol"] == "all"}
    told = {table: (row["days"], row["rows"]) for table, row in found.items() if row["days"]}
    assert told == {"volatility/vix1d": (1, 1), "volatility/vix1d_regime": (1, 1)}
    assert {row["symbol"] for row in json.loads(qp("list-data", "--symbols", "AAA", "--json", home=home).out)} == {
        "AAA"
    }


def test_a_value_of_now_needs_no_time(qp, tmp_path: Path) -> None:
    assert qp("ingest-vix1d", "20").code == 0
    ((_, reading),) = vix1d_archive.day(tmp_path / "home" / "landing", datetime.now(UTC).date()).readings
    assert reading.ts_event == reading.ts_recv


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["0"], "0.0 is no reading of VIX1D: it must be a number above 0."),
        (["nan"], "nan is no reading of VIX1D"),
        (["inf"], "inf is no reading of VIX1D"),
        (["--", "-3"], "-3.0 is no reading of VIX1D"),
        (["14", "--ts", "yesterday"], "--ts yesterday is no time: write it as 2026-11-20T20:15:00+00:00."),
        (["14", "--ts", "2999-01-01"], "--ts 2999-01-01 is in the future"),
        (["14", "--ts", "1950-01-01"], "or before 1990"),
    ],
)
def test_what_is_no_reading_is_refused(qp, tmp_path: Path, arguments: list[str], reason: str) -> None:
    said = qp("ingest-vix1d", *arguments)
    assert said.code == 2
    assert reason in said.text
    assert vix1d_archive.dates(tmp_path / "home" / "landing") == []


def judged(settings: Settings, day: date):
    found = fresh_source(settings, day)
    assert found.partition == day.isoformat()
    return found.passed, {name: value.value for name, value in found.metadata.items()}


def test_the_check_is_red_more_than_two_sessions_after_the_last_reading(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    vix1d_archive.append(settings.landing, [Reading("cboe", CLOSE, CLOSE, 14.75)])
    # Of the dates after the Friday: a weekend, which counts for nothing, then Monday to Wednesday.
    found = [judged(settings, FRIDAY + timedelta(days=n)) for n in range(6)]
    assert [passed for passed, _ in found] == [True] * 5 + [False]
    assert [facts["age_sessions"] for _, facts in found] == [0, 0, 0, 1, 2, 3]
    assert found[-1][1] | {"failures_in_a_row": None} == {
        "failures_in_a_row": None,
        "last_source": "cboe",
        "last_reading": "2024-03-08T21:15:00+00:00",
        "last_value": 14.75,
        "age_sessions": 3,
    }
    assert judged(settings, FRIDAY - timedelta(days=1))[0]  # before the first reading there was nothing to give


@pytest.mark.parametrize(("day", "is_fresh"), [("2024-03-08", True), ("2024-03-09", True), ("2024-03-13", False)])
def test_a_run_evaluates_the_check_for_its_date(
    tmp_path: Path, dagster_home: None, day: str, *, is_fresh: bool
) -> None:
    settings = Settings(home=tmp_path, pipeline={"workers": 0})
    vix1d_archive.append(settings.landing, [Reading("cboe", CLOSE, CLOSE, 14.75)])
    platform = Platform(settings)
    done = dg.materialize(
        [table_asset(TableAsset("volatility/vix1d"), daily(date(2024, 3, 1)))],
        partition_key=day,
        resources={"platform": platform},
    )
    platform.close()
    assert done.success
    found = {check.check_name: check for check in done.get_asset_check_evaluations()}
    assert {name: check.passed for name, check in found.items()} == {
        "contract": True,
        "coverage": True,
        "fresh_source": is_fresh,
    }
    assert found["fresh_source"].partition == day
    assert found["fresh_source"].metadata["last_source"].value == "cboe"
    (event,) = done.asset_materializations_for_node("volatility__vix1d")
    assert event.metadata["symbols"].value == ("all" if day == "2024-03-08" else "none")


def test_the_check_is_red_where_all_sources_failed_from_the_start(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert judged(settings, FRIDAY)[0]  # nobody was ever asked
    vix1d_archive.remember(settings.landing, {"cboe": Asked(1, 4), "yahoo": Asked(2, 7)})
    passed, facts = judged(settings, FRIDAY)
    assert not passed
    assert facts["failures_in_a_row"] == {"cboe": 4, "yahoo": 7}


def test_a_simulated_history_is_fresh_and_its_end_is_no_alarm_where_nobody_is_asked(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    write_history(settings.simulated_vix1d, dates=[date(2024, 3, 4), FRIDAY])
    assert judged(settings, FRIDAY)[1]["last_source"] == "simulated"
    assert judged(settings, FRIDAY + timedelta(days=30))[0]
    vix1d_archive.remember(settings.landing, {"cboe": Asked(1, 4)})
    assert not judged(settings, FRIDAY + timedelta(days=30))[0]
