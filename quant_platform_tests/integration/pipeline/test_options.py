"""Archived chains through the engine: every table against plain sums over the answers, and what a bad file costs."""

import csv
import gzip
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_platform.pipeline import options
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.units import Outcome, Unit, UnitStatus
from quant_platform.settings import Feeds, Instrument, RecordedFeed, Settings
from quant_platform.storage import chain_archive
from quant_platform.storage.chain_archive import Answer, Snapshot

DAYS = [date(2024, 3, 4), date(2024, 3, 5)]
FIRST, SECOND = DAYS
SYMBOL, PLAIN, AAPL = "SPX", "AAA", "AAPL"
SPOT = 5_100.0
STRIKES = [4_700.0 + 50 * n for n in range(17)]
EXPIRIES = ["240306", "240315", "240419"]
TABLES = [recipe.table for recipe in options.OPTIONS]


def contracts(number: int) -> list[dict[str, Any]]:
    """Return quotes of a chain whose open interest grows from snapshot to snapshot."""
    made = []
    for place, expiry in enumerate(EXPIRIES):
        for strike in STRIKES:
            for kind, sign in (("C", 1), ("P", -1)):
                value = max(sign * (SPOT - strike), 0) + 40 * (place + 1) * math.exp(-(((strike - SPOT) / 300) ** 2))
                delta = 0.5 + sign * (SPOT - strike) / 900
                made.append(
                    {
                        "option": f"SPXW{expiry}{kind}{int(strike * 1_000):08d}",
                        "bid": round(value - 0.5, 2),
                        "ask": round(value + 0.5, 2),
                        "iv": 0.15 + 0.05 * ((strike - SPOT) / 1_000) ** 2 - (strike - SPOT) / 20_000,
                        "delta": round(sign * min(max(delta, 0.01), 0.99), 4),
                        "gamma": round(0.002 * math.exp(-(((strike - SPOT) / 200) ** 2)), 5),
                        "open_interest": float((7 * int(strike / 50) + place + number) % 40),
                        "volume": float(int(strike / 50) % 9),
                    }
                )
    return made


def moment(day: date, number: int) -> datetime:
    return datetime(day.year, day.month, day.day, 15 + number, tzinfo=UTC)


def put(settings: Settings, day: date, number: int, body: bytes | None = None) -> None:
    """Archive one snapshot an hour after three in the afternoon, received a second later."""
    time = moment(day, number)
    told = {"timestamp": f"{time:%Y-%m-%d %H:%M:%S}", "data": {"current_price": SPOT, "options": contracts(number)}}
    ns = int(time.timestamp()) * 1_000_000_000
    snapshot = Snapshot({"chain": Answer(body or json.dumps(told).encode(), "https://venue")}, ns + 1_000_000_000)
    chain_archive.put(settings.landing / "chains", "cboe", SYMBOL, day, snapshot, ts_event_ns=ns)


def settings_below(home: Path, real: Path | None = None) -> Settings:
    def one(symbol: str, feed: str, **more: Any) -> Instrument:
        fields = {"symbol": symbol, "venue_symbol": symbol, "feed": feed, "tick_size": 0.01, "lot_size": 1, **more}
        return Instrument.model_validate(fields)

    listed = [
        one(SYMBOL, "cboe", chain={"feed": "cboe", "venue_symbol": "_SPX", "rate": 0.05, "dividend": 0.01}),
        one(PLAIN, "binance_usdm"),
    ]
    feeds = Feeds()
    if real:
        feeds = Feeds(recorded_lean_options=RecordedFeed(path=real / "lean_options"))
        listed.append(one(AAPL, "cboe", chain={"feed": "recorded_lean_options", "venue_symbol": "aapl"}))
    return Settings(home=home, instruments=tuple(listed), feeds=feeds, pipeline={"workers": 0})


@pytest.fixture
def new_engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    started: list[Engine] = []

    def start(settings: Settings | None = None) -> Engine:
        started.append(Engine(settings or settings_below(tmp_path)))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, list[Outcome]]]:
    """Two dates of three snapshots through every table; tests only read."""
    settings = settings_below(tmp_path_factory.mktemp("options"))
    for day in DAYS:
        for number in range(3):
            put(settings, day, number)
    with Engine(settings) as one:
        yield one, [o for table in TABLES for o in one.run(table, [SYMBOL, PLAIN], DAYS)]


def rows(one: Engine, table: str, day: date = FIRST) -> pl.DataFrame:
    return one.lake.scan(table, [SYMBOL], day, day).collect()


def test_every_table_has_rows_and_a_symbol_without_options_is_absent(built: tuple[Engine, list[Outcome]]) -> None:
    one, outcomes = built
    assert {(o.unit.symbol, o.status) for o in outcomes} == {
        (SYMBOL, UnitStatus.OK),
        (PLAIN, UnitStatus.ABSENT),
    }
    assert {table for table in TABLES if rows(one, table).is_empty()} == set()
    assert rows(one, options.CHAIN).height == 3 * len(STRIKES) * len(EXPIRIES) * 2


def test_exposures_are_plain_sums_over_the_answers(built: tuple[Engine, list[Outcome]]) -> None:
    one, _ = built
    found = rows(one, options.GAMMA_EXPOSURE)
    for number in range(3):
        by_cell: dict[Any, list[float]] = defaultdict(lambda: [0.0] * 4)
        for quote in contracts(number):
            if quote["open_interest"] < 5 or not 0 < quote["gamma"] <= 1:
                continue
            expiry, kind = (
                datetime.strptime(quote["option"][4:10], "%y%m%d").replace(tzinfo=UTC).date(),
                quote["option"][10],
            )
            gex = quote["gamma"] * quote["open_interest"] * 100 * SPOT * SPOT * 0.01
            dex = quote["delta"] * quote["open_interest"] * 100 * SPOT
            sign = 1 if kind == "C" else -1
            strike = int(quote["option"][11:]) / 1_000
            for cell in ((strike, expiry), (strike, None), (None, None)):
                for place, value in enumerate((gex, sign * gex, abs(dex), dex)):
                    by_cell[cell][place] += value
        at = found.filter(pl.col("ts_event") == moment(FIRST, number))
        told = at.select("strike", "expiry", "gex_gross", "gex_net", "dex_gross", "dex_net").rows()
        assert {cell[:2] for cell in told} == set(by_cell)
        for strike, expiry, *values in told:
            assert values == pytest.approx(by_cell[strike, expiry], rel=1e-9, abs=1e-3)


def test_a_history_counts_snapshots_over_dates(built: tuple[Engine, list[Outcome]]) -> None:
    one, _ = built
    history = rows(one, options.EXPOSURE_HISTORY, SECOND).filter(pl.col("exposure") == "gex_gross")
    assert history["samples"].to_list() == [4, 5, 6]
    totals = pl.concat(rows(one, options.GAMMA_EXPOSURE, day) for day in DAYS).filter(pl.col("strike").is_null())
    values = totals.sort("ts_event")["gex_gross"]
    assert values.dtype == pl.Float64
    expected = (values[5] - values.mean()) / values.std()  # type: ignore[operator]
    assert history["z_score"].to_list()[2] == pytest.approx(expected, rel=1e-12)
    assert history["status"].to_list() == ["too_few", "ok", "ok"]


def test_greeks_say_whose_they_are_and_when_they_were_known(built: tuple[Engine, list[Outcome]]) -> None:
    one, _ = built
    greeks = rows(one, options.GREEKS)
    assert set(greeks["source"]) == {"venue"}
    assert set(greeks["iv_source"]) == {"venue"}
    assert (greeks["ts_known"] - greeks["ts_event"]).dt.total_seconds().unique().to_list() == [1]


def test_quality_is_on_record_with_the_file(built: tuple[Engine, list[Outcome]]) -> None:
    _, outcomes = built
    (facts,) = (o.facts for o in outcomes if o.unit == Unit(options.CHAIN_QUALITY, SYMBOL, SECOND))
    told = json.loads(facts["is_open_interest_off"])
    before = {quote["option"]: quote["open_interest"] for quote in contracts(2)}
    change = [sum(q["open_interest"] for q in contracts(n)) / sum(before.values()) - 1 for n in range(3)]
    assert told["snapshots"] == 3
    assert told["worst"] == pytest.approx(max(change, key=abs), rel=1e-12)
    assert json.loads(facts["is_crossed"])["wrong"] == 0


def test_one_bad_snapshot_costs_only_itself(new_engine: Callable[..., Engine]) -> None:
    one = new_engine()
    for number in range(2):
        put(one.settings, FIRST, number)
    put(one.settings, FIRST, 2, b"<html>Access denied</html>")
    folder = one.settings.landing / "chains" / "cboe" / SYMBOL / FIRST.isoformat()
    (folder / "1709575200000000000.parquet").write_bytes(b"PAR1 cut off")
    (outcome,) = one.run(options.CHAIN, [SYMBOL], [FIRST])
    assert (outcome.status, outcome.quarantined, outcome.facts["snapshots"]) == (UnitStatus.OK, 2, "2")
    kept = pl.read_parquet(next(one.settings.quarantine.rglob("*.parquet")))
    assert kept["rule"].to_list() == ["snapshot|unreadable"] * 2
    assert any("web page" in raw for raw in kept["raw"])
    assert any("is damaged" in raw for raw in kept["raw"])


def test_only_what_changed_is_built_again(new_engine: Callable[..., Engine], tmp_path: Path) -> None:
    one = new_engine()
    put(one.settings, FIRST, 0)
    first = [o for table in TABLES for o in one.run(table, [SYMBOL], [FIRST])]
    again = [o for table in TABLES for o in one.run(table, [SYMBOL], [FIRST])]
    assert [o.is_skipped for o in first] == [False] * len(TABLES)
    assert [o.is_skipped for o in again] == [True] * len(TABLES)
    put(one.settings, FIRST, 1)
    assert not one.run(options.CHAIN, [SYMBOL], [FIRST])[0].is_skipped
    dearer = settings_below(tmp_path)
    listed = dearer.instruments[0]
    assert listed.chain
    listed = listed.model_copy(update={"chain": listed.chain.model_copy(update={"rate": 0.06})})
    other = new_engine(dearer.model_copy(update={"instruments": (listed, *dearer.instruments[1:])}))
    assert Unit(options.GREEKS, SYMBOL, FIRST) in other.stale()


def test_a_recorded_day_of_lean_gives_what_its_lines_sum_to(real_data: Path, tmp_path: Path) -> None:
    settings = settings_below(tmp_path, real_data)
    day = date(2014, 6, 2)
    with Engine(settings) as one:
        for table in (options.CHAIN, options.GREEKS, options.GAMMA_EXPOSURE):
            (outcome,) = one.run(table, [AAPL], [day])
            assert outcome.status is UnitStatus.OK, outcome.error
        chain = one.lake.scan(options.CHAIN, [AAPL], day, day).collect()
        total = one.lake.scan(options.GAMMA_EXPOSURE, [AAPL], day, day).filter(pl.col("strike").is_null()).collect()
    text = gzip.decompress((real_data / "lean_options" / "universe_aapl_20140602.csv.gz").read_bytes()).decode()
    lines = list(csv.reader(io.StringIO(text)))[1:]
    spot = float(lines[0][6])
    listed = [line for line in lines if line[0]]
    assert chain.height == len(listed)
    gex = dex = 0.0
    for line in listed:
        interest, delta, gamma = (float(line[place] or 0) for place in (8, 10, 11))
        right = line[2]
        in_range = 0 <= (delta if right == "C" else -delta) <= 1
        if float(line[9]) and interest >= 5 and 0 < gamma <= 1 and in_range and line[0] > "20140602":
            gex += gamma * interest * 100 * spot * spot * 0.01
            dex += delta * interest * 100 * spot
    assert total["gex_gross"].to_list() == pytest.approx([gex], rel=1e-9)
    assert total["dex_net"].to_list() == pytest.approx([dex], rel=1e-9)
