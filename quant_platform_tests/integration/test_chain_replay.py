"""Deribit's REST of a replayed date, asked by the requests of the collector and by plain `httpx`."""

import asyncio
import datetime as dt
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Trade
from quant_platform.feeds import chain_snapshot
from quant_platform.feeds.chain_requests import Deribit
from quant_platform.feeds.replay import Faults, Replay, serving
from quant_platform.settings import DeribitFeed, Instrument, Settings
from quant_platform.storage import chain_archive
from quant_platform.storage.chain_archive import Answer, Snapshot
from quant_platform.storage.lake import Lake
from quant_platform_tests.chain_venue import deribit_lists

DAY = dt.date(2024, 3, 10)
MIDNIGHT = dt.datetime(2024, 3, 10, tzinfo=dt.UTC)
EXPIRIES = [dt.date(2024, 3, 11), dt.date(2024, 3, 29)]
STARTED = dt.datetime(2027, 1, 15, 17, 30, tzinfo=dt.UTC)  # not a whole number of days after the recording
SECOND = 10**9


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    row = {
        "feed": "binance_usdm",
        "tick_size": 0.1,
        "lot_size": 0.001,
        "chain": {"feed": "deribit", "venue_symbol": "SIM"},
    }
    return Settings(home=tmp_path / "home", instruments=(Instrument(symbol="SIMBTC", venue_symbol="SIMBTC", **row),))


def ns(moment: dt.datetime) -> int:
    return int(moment.timestamp()) * SECOND


def taped(settings: Settings, first: dt.datetime, *, count: int, every_s: float) -> None:
    """Put a tape into the lake: the replayed market's."""
    at = [ns(first) + round(k * every_s * SECOND) for k in range(count)]
    fixed = {"symbol": "SIMBTC", "venue": "binance_usdm", "price": 95_000.0, "size": 1.0, "aggressor": 1}
    rows = [
        fixed | {"ts_event": ts, "ts_recv": None, "trade_id": k, "first_trade_id": k, "last_trade_id": k}
        for k, ts in enumerate(at, start=1)
    ]
    tape = pl.DataFrame(rows, strict=False).select(polars_schema(Trade).names()).cast(polars_schema(Trade))
    Lake(settings.lake_uri).write("market/trades", "SIMBTC", DAY, tape)


def archive(root: Path, moment: dt.datetime, *, tickers: tuple[str, ...] = ()) -> None:
    """Put a snapshot where archived ones lie."""
    instruments, summaries = (json.dumps(each).encode() for each in deribit_lists(moment, "SIM", EXPIRIES))
    answers = {"instruments": Answer(instruments, "i"), "summaries": Answer(summaries, "s")}
    for name in tickers:
        ticker = {"instrument_name": name, "timestamp": int(moment.timestamp() * 1000), "greeks": {"delta": 0.5}}
        answers[f"ticker/{name}"] = Answer(json.dumps({"result": ticker}).encode(), "t")
    chain_archive.put(root, "deribit", "SIMBTC", moment.date(), Snapshot(answers, None), ts_event_ns=ns(moment))


def served(settings: Settings, body: Callable[[Replay], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        asked = {"date": DAY, "symbols": ["SIMBTC"], "now_ns": lambda: ns(STARTED)} | options
        async with serving(settings, **asked) as replay:
            return await asyncio.wait_for(body(replay), 30)

    return asyncio.run(main())


def address(replay: Replay, method: str) -> str:
    return f"http://127.0.0.1:{replay.port}/api/v2/public/{method}"


async def asked(replay: Replay, method: str, **query: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(address(replay, method), params=query)


async def taken(replay: Replay) -> pl.DataFrame:
    """Return the chain as the collector's own requests and parser see it."""
    feed = DeribitFeed(rest_url=f"http://127.0.0.1:{replay.port}/api/v2")
    async with Deribit(feed, now_ns=lambda: 1) as venue:
        parsed = chain_snapshot.rows_of("deribit", await venue.snapshot("SIM"), symbol="SIMBTC")
    assert parsed.quarantined.is_empty()
    assert parsed.facts["unquoted"] == "0"
    return parsed.rows


def test_the_newest_snapshot_by_then_is_served_as_it_was(settings: Settings) -> None:
    taped(settings, MIDNIGHT + dt.timedelta(hours=10), count=100, every_s=0.01)
    for hour in (9, 10, 11):
        archive(settings.landing / "chains", MIDNIGHT + dt.timedelta(hours=hour))
    recorded = chain_archive.read(chain_archive.paths(settings.landing / "chains", "deribit", "SIMBTC", DAY)[0]).answers

    async def body(replay: Replay) -> Any:
        instruments = await asked(replay, "get_instruments", currency="SIM", kind="option", expired="false")
        summaries = await asked(replay, "get_book_summary_by_currency", currency="SIM", kind="option")
        return instruments.json()["result"], summaries.json()["result"]

    # Nobody listens to the tape, so the market stands just before its first trade at ten: nine's is the newest.
    instruments, summaries = served(settings, body)
    assert instruments == json.loads(recorded["instruments"].content)["result"]
    assert summaries == json.loads(recorded["summaries"].content)["result"]


def test_with_the_market_the_chain_goes_on(settings: Settings) -> None:
    taped(settings, MIDNIGHT, count=200, every_s=0.02)
    for seconds in (0, 1, 2):
        archive(settings.simulated_chains, MIDNIGHT + dt.timedelta(seconds=seconds))

    async def body(replay: Replay) -> list[float]:
        found: list[float] = []
        while len(found) < 3:
            rows = await taken(replay)
            age_s = (ns(STARTED) - rows["ts_event"].to_physical()[0]) / SECOND
            if round(-age_s) not in found:
                found.append(round(-age_s))
            await asyncio.sleep(0.05)
        return found

    # Played as if it began now: the snapshots of seconds 0, 1 and 2 come in that order, at those times from the start.
    assert served(settings, body, clock="now") == [0, 1, 2]


def test_a_recording_that_begins_again_begins_with_its_first_chain(settings: Settings) -> None:
    taped(settings, MIDNIGHT, count=10, every_s=0.1)
    for milliseconds in (0, 500):
        moment = MIDNIGHT + dt.timedelta(milliseconds=milliseconds)
        instruments, summaries = (json.dumps(each).encode() for each in deribit_lists(moment, "SIM", EXPIRIES))
        answers = {"instruments": Answer(instruments, "i"), "summaries": Answer(summaries, "s")}
        snapshot = Snapshot(answers, None)
        at = ns(MIDNIGHT) + milliseconds * 1_000_000
        chain_archive.put(settings.simulated_chains, "deribit", "SIMBTC", DAY, snapshot, ts_event_ns=at)

    async def body(replay: Replay) -> list[int]:
        found: list[int] = []
        while len(found) < 4:
            ts = int((await taken(replay))["ts_event"].to_physical()[0])
            if not found or found[-1] != ts:
                found.append(ts)
        return found

    # The tape takes 900 ms; a second passes between two rounds.
    first, second, third, fourth = (ts - ns(STARTED) for ts in served(settings, body, clock="now"))
    assert (first, second) == (0, 500_000_000)
    assert (third, fourth) == (1_900_000_000, 2_400_000_000)


def test_shifted_names_and_expiries_agree_and_nothing_expires(settings: Settings) -> None:
    taped(settings, MIDNIGHT, count=10, every_s=0.02)
    archive(settings.simulated_chains, MIDNIGHT)

    async def body(replay: Replay) -> Any:
        rows = await taken(replay)
        summaries = await asked(replay, "get_book_summary_by_currency", currency="SIM")
        instruments = await asked(replay, "get_instruments", currency="SIM", kind="option")
        return rows, summaries.json()["result"], instruments.json()["result"]

    rows, summaries, instruments = served(settings, body, clock="now")
    # From 2024-03-10 00:00 to 2027-01-15 17:30 it is 1041 days and a part of one: expiries are 1042 days later.
    assert (STARTED - MIDNIGHT).days == 1041
    later = [day + dt.timedelta(days=1042) for day in EXPIRIES]
    assert rows["expiry"].unique().sort().to_list() == later == [dt.date(2027, 1, 17), dt.date(2027, 2, 4)]
    assert rows["ts_event"].unique().to_list() == [STARTED]
    left = rows.select(pl.col("ts_expiry") - pl.col("ts_event")).to_series().unique().sort().to_list()
    had = [dt.datetime.combine(day, dt.time(8), dt.UTC) - MIDNIGHT for day in EXPIRIES]
    assert all(dt.timedelta() <= new - old < dt.timedelta(days=1) for old, new in zip(had, left, strict=True))
    assert {each["underlying_index"] for each in summaries} == {"SIM-17JAN27", "SIM-4FEB27"}
    assert {each["creation_timestamp"] for each in instruments} == {int(STARTED.timestamp() - 86_400) * 1000}
    assert [each["open_interest"] for each in summaries] == [float(k) for k in range(1, 9)]


def test_tickers_that_were_recorded_are_served_by_their_shifted_names(settings: Settings) -> None:
    taped(settings, MIDNIGHT, count=10, every_s=0.02)
    archive(settings.simulated_chains, MIDNIGHT, tickers=("SIM-11MAR24-90000-C",))

    async def body(replay: Replay) -> Any:
        names = ("SIM-17JAN27-90000-C", "SIM-17JAN27-90000-P", "")
        return [await asked(replay, "ticker", instrument_name=name) for name in names]

    known, unknown, nameless = served(settings, body, clock="now")
    assert known.json()["result"] == {
        "instrument_name": "SIM-17JAN27-90000-C",
        "timestamp": int(STARTED.timestamp() * 1000),
        "greeks": {"delta": 0.5},
    }
    for answer in (unknown, nameless):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, 13020)


def test_what_there_is_not_is_an_error_in_deribits_form(settings: Settings) -> None:
    taped(settings, MIDNIGHT, count=10, every_s=0.02)
    archive(settings.simulated_chains, MIDNIGHT + dt.timedelta(hours=1))

    async def body(replay: Replay) -> Any:
        return [
            await asked(replay, "get_instruments", currency="BTC"),
            await asked(replay, "get_instruments", currency="SIM"),
            await asked(replay, "get_time"),
        ]

    found = served(settings, body)
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in found] == [
        (400, -32602),
        (503, 10040),  # the first snapshot is of one in the morning
        (404, -32601),
    ]


def test_before_the_first_snapshot_of_the_date_that_of_the_eve_stands(settings: Settings) -> None:
    taped(settings, MIDNIGHT, count=10, every_s=0.02)
    for hours in (-2, -1, 1):
        archive(settings.simulated_chains, MIDNIGHT + dt.timedelta(hours=hours))
    rows = served(settings, taken)
    assert rows["ts_event"].unique().to_list() == [MIDNIGHT - dt.timedelta(hours=1)]


def test_captured_chains_come_before_simulated_ones(settings: Settings) -> None:
    taped(settings, MIDNIGHT + dt.timedelta(hours=3), count=10, every_s=0.02)
    archive(settings.simulated_chains, MIDNIGHT + dt.timedelta(hours=2))
    archive(settings.landing / "chains", MIDNIGHT + dt.timedelta(hours=1))
    assert served(settings, taken)["ts_event"][0] == MIDNIGHT + dt.timedelta(hours=1)


def test_a_damaged_snapshot_is_an_error_that_names_it(settings: Settings) -> None:
    taped(settings, MIDNIGHT, count=10, every_s=0.02)
    archive(settings.simulated_chains, MIDNIGHT - dt.timedelta(hours=1))
    (path,) = chain_archive.paths(settings.simulated_chains, "deribit", "SIMBTC", DAY - dt.timedelta(days=1))
    path.write_bytes(path.read_bytes()[:100])

    async def body(replay: Replay) -> httpx.Response:
        return await asked(replay, "get_instruments", currency="SIM")

    answer = served(settings, body)
    assert answer.status_code == 500
    assert str(path) in answer.json()["error"]["message"]


def test_faults_are_done_to_chains_too(settings: Settings) -> None:
    taped(settings, MIDNIGHT, count=10, every_s=0.02)
    archive(settings.simulated_chains, MIDNIGHT - dt.timedelta(hours=1))

    async def body(replay: Replay) -> Any:
        return await asked(replay, "get_instruments", currency="SIM"), replay.counted["rest_429"]

    answer, counted = served(settings, body, faults=Faults(rest_429_share=1.0))
    assert (answer.status_code, answer.headers["Retry-After"], counted) == (429, "1", 1)


def test_without_chains_the_market_is_played_and_said_as_before(settings: Settings) -> None:
    taped(settings, MIDNIGHT, count=10, every_s=0.02)
    said: list[str] = []

    async def body(_: Replay) -> None:
        return None

    served(settings, body, say=said.append)
    assert "option chains" not in said[0]
    archive(settings.simulated_chains, MIDNIGHT)
    served(settings, body, say=said.append)
    assert "option chains of SIM is played" in said[-1]
