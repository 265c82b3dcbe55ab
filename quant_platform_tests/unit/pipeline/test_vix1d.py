"""`volatility/vix1d` and `volatility/vix1d_regime` through the engine: from what is on record to what it means."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from quant_platform.pipeline import vix1d
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.units import Outcome, Unit
from quant_platform.pipeline.vix1d import VIX1D, VIX1D_REGIME, age_sessions, earlier, newest
from quant_platform.settings import Settings
from quant_platform.simulation.vix1d import write_history
from quant_platform.storage import vix1d_archive
from quant_platform.storage.lake import ALL_SYMBOLS
from quant_platform.storage.vix1d_archive import Reading, Refused
from quant_platform_tests.unit.pipeline.conftest import MakeEngine

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "vol_regime_cases.json").read_text())
STATISTICS = [case for case in ORACLE["cases"] if "history" in case["inputs"]]
S = 1_000_000_000
DAY = date(2024, 3, 8)
NEXT = date(2024, 3, 9)
MONDAY = date(2024, 3, 11)


def at(day: date, hour: int = 21, minute: int = 15) -> int:
    return int(datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC).timestamp()) * S


def reading(value: float, ts: int, source: str = "cboe") -> Reading:
    return Reading(source, ts, ts + 50_000_000, value)


def daily(values: Sequence[float], *, last: date = DAY, source: str = "cboe") -> list[Reading]:
    """One reading a date, the last of them of `last`."""
    first = last - timedelta(days=len(values) - 1)
    return [reading(value, at(first + timedelta(days=n)), source) for n, value in enumerate(values)]


@pytest.fixture
def engine_of(engine: MakeEngine) -> Callable[..., Engine]:
    def make(*entries: Reading | Refused, **given) -> Engine:
        one = engine(**given)
        vix1d_archive.append(one.settings.landing, entries)
        return one

    return make


def run(one: Engine, *days: date, table: str = VIX1D_REGIME, symbols: Sequence[str] = ("AAA", "BBB")) -> list[Outcome]:
    if table == VIX1D_REGIME:
        one.run(VIX1D, symbols, days)
    return one.run(table, symbols, days)


def rows(one: Engine, table: str = VIX1D_REGIME, day: date = DAY) -> pl.DataFrame:
    return one.lake.scan(table, None, day, day).collect()


@pytest.mark.parametrize("case", STATISTICS, ids=lambda case: case["id"])
def test_history_oracle_over_daily_and_over_intraday_readings(engine_of: Callable[..., Engine], case) -> None:
    history = case["inputs"]["history"]
    minutes = [reading(value, at(DAY, 10, n), "yahoo") for n, value in enumerate(history)]
    one = engine_of(*daily(history), *minutes)
    run(one, DAY)
    for source in ("cboe", "yahoo"):
        last = rows(one).filter(pl.col("source") == source).sort("ts_event").to_dicts()[-1]
        for name, key in (("zscore", "z_score"), ("percentile", "percentile"), ("samples", "samples")):
            expected = case["expected"][name]
            assert last[key] == (None if expected is None else pytest.approx(expected, abs=1e-12)), name


def test_rows_hold_what_is_on_record_and_one_file_is_of_all_symbols(engine_of: Callable[..., Engine]) -> None:
    one = engine_of(reading(14.75, at(DAY)), reading(14.0, at(DAY, 15), "yahoo"), reading(9.0, at(MONDAY)))
    (outcome,) = run(one, DAY, table=VIX1D)
    assert (outcome.unit, outcome.status, outcome.rows) == (Unit(VIX1D, ALL_SYMBOLS, DAY), "ok", 2)
    assert one.lake.path(VIX1D, ALL_SYMBOLS, DAY).name == "all.parquet"
    assert rows(one, VIX1D).select("source", "value", "symbol").rows() == [
        ("cboe", 14.75, "VIX1D"),
        ("yahoo", 14.0, "VIX1D"),
    ]
    assert rows(one, VIX1D)["ts_recv"].to_physical().to_list() == [at(DAY) + 50_000_000, at(DAY, 15) + 50_000_000]


@pytest.mark.parametrize("symbols", [[], ["AAA"], ["AAA", "BBB"]])
def test_a_run_has_one_unit_a_date_whatever_symbols_it_names(engine_of: Callable[..., Engine], symbols) -> None:
    one = engine_of(reading(14.75, at(DAY)))
    outcomes = run(one, DAY, NEXT, symbols=symbols)
    assert [outcome.unit for outcome in outcomes] == [Unit(VIX1D_REGIME, ALL_SYMBOLS, day) for day in (DAY, NEXT)]
    assert [outcome.status for outcome in outcomes] == ["ok", "absent"]
    assert all(outcome.is_skipped for outcome in run(one, DAY, NEXT, symbols=["BBB"]))
    assert one.stale() == []
    assert one.ledger.rebuild(one.lake) == []


def test_a_date_without_readings_is_absent_and_no_obstacle(engine_of: Callable[..., Engine]) -> None:
    one = engine_of(reading(10.0, at(DAY)), reading(12.0, at(MONDAY)))
    outcomes = run(one, DAY, NEXT, date(2024, 3, 10), MONDAY)
    assert [outcome.status for outcome in outcomes] == ["ok", "absent", "absent", "ok"]
    assert all(outcome.is_healthy for outcome in outcomes)
    assert rows(one, day=MONDAY)["samples"].to_list() == [2]


def test_a_window_is_whole_where_the_lake_has_one_date_alone(engine_of: Callable[..., Engine]) -> None:
    values = [10.0 + n % 7 for n in range(600)]
    one = engine_of(*daily(values))
    run(one, DAY)
    (row,) = rows(one).to_dicts()
    window = pl.Series(values[-480:])
    assert row["samples"] == 480
    assert row["z_score"] == pytest.approx((values[-1] - window.mean()) / window.std(), abs=1e-12)
    assert row["percentile"] == pytest.approx((window <= values[-1]).mean(), abs=1e-12)


def test_each_source_is_held_against_its_own_past(engine_of: Callable[..., Engine]) -> None:
    one = engine_of(
        *daily([10.0] * 20 + [11.0]), *daily([30.0] * 20 + [29.0], source="yahoo"), reading(5.0, at(DAY), "manual")
    )
    run(one, DAY)
    found = {row["source"]: row for row in rows(one).to_dicts()}
    # Twenty equal values and one off by 1: deviations 20/21 and -1/21, variance 20/21 / 20 = 1/21, z = 20/21 · √21.
    assert found["cboe"]["z_score"] == pytest.approx(20 / 21 * 21**0.5, abs=1e-12)
    assert found["yahoo"]["z_score"] == pytest.approx(-20 / 21 * 21**0.5, abs=1e-12)
    assert (found["manual"]["z_score"], found["manual"]["samples"]) == (None, 1)
    assert {source: row["regime"] for source, row in found.items()} == {
        "cboe": "ELEVATED",  # by its z-score
        "yahoo": "ELEVATED",  # by its value
        "manual": "NORMAL",  # low, and nothing says that this is low for it
    }


def test_changes_reach_over_midnight_and_a_regime_follows_from_them(engine_of: Callable[..., Engine]) -> None:
    midnight = at(NEXT, 0, 0)
    one = engine_of(
        *(
            reading(value, midnight + minute * 60 * S, "yahoo")
            for minute, value in ((-70, 15.0), (-6, 12.0), (1, 17.0))
        ),
    )
    run(one, NEXT)
    (row,) = rows(one, day=NEXT).to_dicts()
    assert (row["change_5m"], row["change_1h"], row["regime"]) == (5.0, 2.0, "SHOCK")
    assert row["ts_known"].timestamp() == pytest.approx(midnight / S + 60.05)


def test_what_came_later_makes_its_date_and_the_regimes_after_it_stale(engine_of: Callable[..., Engine]) -> None:
    one = engine_of(reading(10.0, at(DAY)), reading(12.0, at(MONDAY)))
    run(one, DAY, MONDAY)
    vix1d_archive.append(one.settings.landing, [reading(11.0, at(DAY, 20))])
    assert Unit(VIX1D_REGIME, ALL_SYMBOLS, MONDAY) in one.stale()
    outcomes = run(one, DAY, MONDAY)
    assert not any(outcome.is_skipped for outcome in outcomes)
    assert rows(one, day=MONDAY)["samples"].to_list() == [3]
    # Another source's readings are no part of this one's window.
    vix1d_archive.append(one.settings.landing, [reading(11.0, at(DAY, 20), "manual")])
    assert Unit(VIX1D_REGIME, ALL_SYMBOLS, MONDAY) not in one.stale()


def test_a_parameter_changes_the_regime_and_no_instrument_does(
    engine_of: Callable[..., Engine], engine: MakeEngine, settings: Callable[..., Settings]
) -> None:
    run(engine_of(reading(20.0, at(DAY))), DAY)
    assert (
        run(engine(analytics={"vol_regime": {"shock_value": 19.0, "elevated_value": 18.5}}), DAY)[0].is_skipped is False
    )
    other = [one.model_copy(update={"tick_size": 0.5}) for one in settings().instruments]
    assert (
        engine(
            instruments=tuple(other), analytics={"vol_regime": {"shock_value": 19.0, "elevated_value": 18.5}}
        ).stale()
        == []
    )


def test_broken_rows_are_quarantined_and_the_others_stay(engine_of: Callable[..., Engine]) -> None:
    broken = Refused("cboe", at(DAY), at(DAY), "value|number", 7, "03/08/2024,1,1,1,zero")
    good = [reading(10.0, at(DAY, 10, n)) for n in range(5)]
    one = engine_of(*good, broken, quality={"max_quarantined_share": 0.3})
    path = one.settings.landing / "vix1d" / f"{DAY}.jsonl"
    with path.open("ab") as file:
        file.write(b'{"source":"manual","ts_event":%d,"ts_recv":1,"value":-3}\n' % at(DAY, 11))
    (outcome,) = run(one, DAY, table=VIX1D)
    assert (outcome.status, outcome.rows, outcome.quarantined, outcome.is_red) == ("ok", 5, 2, False)
    kept = pl.read_parquet(one.settings.quarantine / VIX1D / f"date={DAY}" / "all.parquet")
    assert kept.select("rule", "source_file", "source_line").rows() == [
        ("value|number", f"vix1d/{DAY}.jsonl", 6),
        ("value|min_exclusive", f"vix1d/{DAY}.jsonl", 7),
    ]
    assert kept["raw"].to_list()[0] == broken.raw


def test_a_date_of_broken_rows_alone_is_red_and_later_ones_are_not(engine_of: Callable[..., Engine]) -> None:
    one = engine_of(Refused("cboe", at(DAY), at(DAY), "value|number", 7, "x"), reading(10.0, at(MONDAY)))
    assert [outcome.status for outcome in run(one, DAY, MONDAY)] == ["blocked", "ok"]


def test_the_simulated_history_stands_in_only_where_no_real_source_said_anything(
    engine_of: Callable[..., Engine],
) -> None:
    one = engine_of(reading(99.0, at(DAY)))
    write_history(one.settings.simulated_vix1d, dates=[date(2024, 3, 4) + timedelta(days=n) for n in range(7)])
    outcomes = run(one, *(date(2024, 3, 4) + timedelta(days=n) for n in range(7)))
    assert [outcome.status for outcome in outcomes] == [*["ok"] * 5, "absent", "absent"]
    thursday, friday = rows(one, day=date(2024, 3, 7)).to_dicts(), rows(one).to_dicts()
    assert [(row["source"], row["samples"]) for row in thursday] == [("simulated", 480)]
    assert [(row["source"], row["samples"], row["value"]) for row in friday] == [("cboe", 1, 99.0)]
    assert newest(one.settings, DAY).source == "cboe"
    assert newest(one.settings, date(2024, 3, 7)).source == "simulated"
    assert newest(one.settings, date(2000, 1, 1)) is None


def test_earlier_readings_stop_where_there_are_enough(settings: Callable[..., Settings]) -> None:
    one = settings()
    vix1d_archive.append(one.landing, [*daily([1.0] * 30), reading(2.0, at(DAY, 1), "manual")])
    assert len(earlier(one, MONDAY, {"cboe"}, 10)) == 10
    assert len(earlier(one, MONDAY, {"cboe", "manual"}, 10)) == 11
    assert len(earlier(one, DAY, {"cboe"}, 100)) == 29
    assert earlier(one, MONDAY, set(), 100) == []
    far = daily([1.0] * 3, last=DAY - timedelta(days=vix1d.LOOKBACK_DATES))
    vix1d_archive.append(one.landing, far)
    assert len(earlier(one, MONDAY, {"cboe"}, 1_000)) == 30


def test_age_counts_sessions_of_new_york() -> None:
    friday = reading(1.0, at(DAY))
    assert [age_sessions(friday, day) for day in (date(2024, 3, 7), DAY, NEXT, MONDAY, date(2024, 3, 13))] == [
        0,
        0,
        0,
        1,
        3,
    ]
    before_good_friday = reading(1.0, at(date(2024, 3, 28), 20))
    assert age_sessions(before_good_friday, date(2024, 4, 1)) == 1
    assert (
        age_sessions(reading(1.0, at(date(2024, 3, 30), 15)), date(2024, 4, 1)) == 1
    )  # a Saturday is the Friday's session
