"""Chains polled by the collector from real servers: archived, shown in Redis, and what goes wrong said once."""

import asyncio
import datetime as dt
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
import redis
from filelock import FileLock
from pydantic import SecretStr
from structlog.testing import capture_logs

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Trade
from quant_platform.feeds import chain_payload, chain_snapshot
from quant_platform.feeds.replay import serving
from quant_platform.live import chains, collector
from quant_platform.live.collector import collect
from quant_platform.settings import CboeFeed, DeribitFeed, Feeds, Instrument, Settings, SettingsError, Vix1dFeed
from quant_platform.storage import chain_archive, live_store, redis_keys
from quant_platform.storage.chain_archive import Answer, Snapshot
from quant_platform.storage.lake import Lake
from quant_platform_tests.chain_venue import ChainVenue, Fault, cboe_chain, deribit_lists
from quant_platform_tests.scripted_venue import until

FRIDAY = dt.datetime(2025, 3, 14, 18, tzinfo=dt.UTC)  # 14:00 in New York
TODAY = FRIDAY.date()
PAGE = Fault(200, b"<html>Access denied</html>")
ROW = {"tick_size": 0.01, "lot_size": 1.0}


@pytest.fixture(autouse=True)
def _status_is_written_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "_STATUS_S", 0.02)


@pytest.fixture
def venue() -> Iterator[ChainVenue]:
    with ChainVenue() as venue:
        yield venue


def polled(symbol: str, feed: str, name: str, calendar: str = "XNYS") -> Instrument:
    chain = {"feed": feed, "venue_symbol": name}
    return Instrument(symbol=symbol, venue_symbol=symbol, feed=feed, calendar=calendar, chain=chain, **ROW)


def settings_of(home: Path, venue: ChainVenue, *instruments: Instrument, poll_s: float = 0.1, **more: Any) -> Settings:
    feeds = Feeds(
        cboe=CboeFeed(poll_s=poll_s, chains_url=venue.address, vix1d_url=""),
        deribit=DeribitFeed(poll_s=poll_s, rest_url=f"{venue.address}/api/v2"),
        vix1d=Vix1dFeed(yahoo_url=""),
    )
    listed = instruments or (polled("SPX", "cboe", "_SPX"),)
    # At whatever time the tests run.
    more["analytics"] = {"rth_only": False} | more.get("analytics", {})
    return Settings(home=home, feeds=feeds, instruments=listed, **more)


def collected(settings: Settings, body: Callable[[], Awaitable[None]], *symbols: str) -> list[str]:
    """Run `qp collect`'s coroutine while `body` runs; return what it said."""
    said: list[str] = []

    async def main() -> None:
        names = symbols or [i.symbol for i in settings.instruments]
        task = asyncio.create_task(collect(settings, names, say=said.append))
        try:
            await asyncio.wait_for(body(), 60)
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(main())
    return said


def archived(settings: Settings, symbol: str = "SPX", date: dt.date = TODAY) -> list[dt.datetime]:
    """Return the times of the snapshots of a symbol-day; each of them can be read."""
    instrument = settings.instrument(symbol)
    assert instrument.chain
    paths = chain_archive.paths(settings.landing / "chains", instrument.chain.feed, symbol, date)
    for path in paths:
        rows = chain_snapshot.rows_of(instrument.chain.feed, chain_archive.read(path), symbol=symbol).rows
        assert rows["ts_event"].to_physical().unique().to_list() == [chain_archive.ts_event_ns(path)]
    return [dt.datetime.fromtimestamp(chain_archive.ts_event_ns(path) / 1e9, dt.UTC) for path in paths]


def told(settings: Settings, symbol: str = "SPX") -> dict[str, Any]:
    """Return what `qp collect status` tells of a chain."""
    found = [state["chains"][symbol] for state in collector.status(settings) if symbol in state["chains"]]
    return found[0] if found else {}


def key(client: redis.Redis, symbol: str = "SPX") -> dict[str, Any]:
    return json.loads(client.get(redis_keys.OPTION_CHAIN.name(symbol)) or b"{}")


def minute(number: int) -> dt.datetime:
    return FRIDAY + dt.timedelta(minutes=number)


def with_redis(server: Settings, settings: Settings) -> Settings:
    return settings.model_copy(update={"redis_url": SecretStr(live_store.address(server))})


def test_a_chain_is_archived_as_it_came_and_shown(
    tmp_path: Path, venue: ChainVenue, server: Settings, client: redis.Redis
) -> None:
    settings = with_redis(server, settings_of(tmp_path, venue))
    for number in range(3):
        venue.put("/_SPX.json", cboe_chain(minute(number), contracts=4 + number))

        async def body(number: int = number) -> None:
            await until(lambda: told(settings).get("contracts") == 4 + number)

        said = collected(settings, body)
        assert said[0] == "Polling the option chains of SPX."
        payload = key(client)
        assert payload["ts"] == payload["ts_event"] == int(minute(number).timestamp()) * 10**9
        assert len(payload["contracts"]) == 4 + number
        assert payload["underlying_price"] == 4010.0
    assert archived(settings) == [minute(0), minute(1), minute(2)]
    (first, *_) = chain_archive.paths(settings.landing / "chains", "cboe", "SPX", TODAY)
    stored = chain_archive.read(first)
    assert json.loads(stored.answers["chain"].content) == cboe_chain(minute(0))
    assert stored.ts_recv_ns is not None
    assert abs(stored.ts_recv_ns / 1e9 - time.time()) < 60


def test_the_key_holds_what_the_parser_reads_and_lives_as_long_as_is_set(
    tmp_path: Path, venue: ChainVenue, server: Settings, client: redis.Redis
) -> None:
    venue.put("/_SPX.json", cboe_chain(FRIDAY))
    for poll_s, market_s, lives_s in ((0.1, 40, 40), (100.0, 40, 300)):
        settings = settings_of(tmp_path, venue, poll_s=poll_s, analytics={"store_ttls": {"market": market_s}})

        async def body() -> None:
            client.flushall()
            await until(lambda: key(client))

        collected(with_redis(server, settings), body)
        assert lives_s - 5 <= client.ttl(redis_keys.OPTION_CHAIN.name("SPX")) <= lives_s
    rows = chain_payload.rows_of(client.get(redis_keys.OPTION_CHAIN.name("SPX")), symbol="SPX").rows
    snapshot = Snapshot({"chain": Answer(venue.answers["/_SPX.json"], "")}, None)
    expected = chain_snapshot.rows_of("cboe", snapshot, symbol="SPX").rows
    assert rows.drop("ts_recv").equals(expected.drop("ts_recv"))


def test_a_snapshot_that_was_archived_is_shown_again_and_not_archived_again(
    tmp_path: Path, venue: ChainVenue, server: Settings, client: redis.Redis
) -> None:
    settings = with_redis(server, settings_of(tmp_path, venue))
    venue.put("/_SPX.json", cboe_chain(FRIDAY))

    async def body() -> None:
        await until(lambda: key(client).get("seq", 0) >= 4)

    collected(settings, body)
    (path,) = chain_archive.paths(settings.landing / "chains", "cboe", "SPX", TODAY)
    written = path.stat().st_mtime_ns
    collected(settings, body)
    assert path.stat().st_mtime_ns == written
    assert archived(settings) == [FRIDAY]


def test_an_older_snapshot_is_archived_and_does_not_take_the_place_of_the_newest(
    tmp_path: Path, venue: ChainVenue, server: Settings, client: redis.Redis
) -> None:
    settings = with_redis(server, settings_of(tmp_path, venue))
    venue.put("/_SPX.json", cboe_chain(minute(1), contracts=6))

    async def body() -> None:
        await until(lambda: key(client))
        venue.put("/_SPX.json", cboe_chain(minute(0), contracts=4))
        await until(lambda: archived(settings) == [minute(0), minute(1)])
        seq = key(client)["seq"]
        asked = len(venue.asked)
        await until(lambda: len(venue.asked) > asked + 2)
        assert (key(client)["seq"], len(key(client)["contracts"])) == (seq, 6)
        assert (told(settings)["contracts"], told(settings)["failures"]) == (6, 0)

    collected(settings, body)


FAULTS: list[tuple[list[Fault], str]] = [
    ([Fault(403, b"AccessDenied")], "it answered 403 Forbidden: 'AccessDenied'"),
    ([PAGE], "is a web page, not JSON"),
    ([Fault(200, json.dumps(cboe_chain(FRIDAY)).encode()[:-90])], "is no whole JSON text"),
    ([Fault(200, b"")], "is empty"),
    ([Fault(200, b'{"data":{"options":[]},"timestamp":"2025-03-14 18:00:00"}')], "holds no contract that can be used"),
    ([Fault(200, b'{"data":', is_cut=True)] * 3, "RemoteProtocolError"),
    ([Fault(500)] * 3, "it answered 500 Internal Server Error"),
]


@pytest.mark.parametrize(("faults", "reason"), FAULTS, ids=[reason for _, reason in FAULTS])
def test_what_is_no_chain_is_said_once_and_the_next_poll_goes_on(
    tmp_path: Path, venue: ChainVenue, faults: list[Fault], reason: str
) -> None:
    settings = settings_of(tmp_path, venue)
    venue.put("/_SPX.json", cboe_chain(minute(0)))

    async def body() -> None:
        await until(lambda: archived(settings) == [minute(0)])
        venue.faults.extend(faults * 100)
        await until(lambda: told(settings)["failures"] >= 2)
        assert reason in told(settings)["error"]
        assert told(settings)["contracts"] == 4  # of the last snapshot, which stands
        venue.faults.clear()
        venue.put("/_SPX.json", cboe_chain(minute(1)))
        await until(lambda: archived(settings) == [minute(0), minute(1)])
        await until(lambda: told(settings)["error"] is None)
        failures.append(told(settings)["failures"])

    failures: list[int] = []
    with capture_logs() as logs:
        collected(settings, body)
    (failed,) = [each for each in logs if each["event"] == "chain_not_polled"]
    assert (failed["symbol"], failed["feed"]) == ("SPX", "cboe")
    assert reason in failed["reason"]
    assert [each["failures"] for each in logs if each["event"] == "chain_polled_again"] == failures


def test_a_pause_that_the_venue_wants_is_kept_by_all_its_chains(tmp_path: Path, venue: ChainVenue) -> None:
    settings = settings_of(tmp_path, venue, polled("SPX", "cboe", "_SPX"), polled("NDX", "cboe", "_NDX"))
    venue.put("/_SPX.json", cboe_chain(FRIDAY))
    venue.put("/_NDX.json", cboe_chain(FRIDAY, symbol="_NDX", root="NDXP"))

    async def body() -> None:
        await until(lambda: archived(settings, "NDX") and archived(settings))
        before = len(venue.asked)
        venue.faults.append(Fault(429, headers={"Retry-After": "1"}))
        await until(lambda: len(venue.asked) >= before + 5)
        refused, *later = venue.asked[before:]
        assert min(one.at_s for one in later) - refused.at_s >= 0.95  # another was under way at most
        await until(lambda: told(settings)["error"] is None and told(settings, "NDX")["error"] is None)

    collected(settings, body)


def test_failures_in_a_row_are_asked_for_less_and_less(tmp_path: Path, venue: ChainVenue) -> None:
    settings = settings_of(tmp_path, venue, poll_s=0.2)

    async def body() -> None:
        await until(lambda: len(venue.asked) == 5)

    collected(settings, body)
    times = [one.at_s for one in venue.asked]
    waits = [b - a for a, b in pairwise(times)]
    # There is no such file: the beat is 0.2 s, and after the n-th failure in a row 2 to the n-1 beats pass.
    for wait_s, least_s in zip(waits, [0.2, 0.4, 0.8, 1.6], strict=True):
        assert least_s - 0.05 < wait_s < 2 * least_s + 0.2


def test_polls_of_a_venue_are_spread(tmp_path: Path, venue: ChainVenue) -> None:
    names = ("_A", "_B", "_C", "_D")
    settings = settings_of(tmp_path, venue, *(polled(n[1:], "cboe", n) for n in names), poll_s=1.2)
    for name in names:
        venue.put(f"/{name}.json", cboe_chain(FRIDAY))

    async def body() -> None:
        await until(lambda: len(venue.asked) == 5)

    collected(settings, body)
    assert venue.paths() == [*(f"{name}.json" for name in names), "_A.json"]
    since = [one.at_s - venue.asked[0].at_s for one in venue.asked]
    assert since == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.2], abs=0.28)


def test_first_polls_are_soon_and_a_venue_that_never_answered_is_asked_again_soon(
    tmp_path: Path, venue: ChainVenue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "_FIRST_APART_S", 0.1)
    monkeypatch.setattr(chains, "_FIRST_AGAIN_S", 0.5)
    names = ("_A", "_B", "_C")
    settings = settings_of(tmp_path, venue, *(polled(n[1:], "cboe", n) for n in names), poll_s=60)
    venue.put("/_A.json", cboe_chain(FRIDAY))
    venue.put("/_B.json", cboe_chain(FRIDAY))

    async def body() -> None:
        await until(lambda: len(venue.asked) == 5)

    collected(settings, body)
    # There is no C: it is asked for again after half a second, and after another one.
    assert venue.paths() == ["_A.json", "_B.json", "_C.json", "_C.json", "_C.json"]
    since = [one.at_s - venue.asked[0].at_s for one in venue.asked]
    assert since == pytest.approx([0.0, 0.1, 0.2, 0.7, 1.7], abs=0.45)


def test_a_chain_goes_to_its_trading_date(tmp_path: Path, venue: ChainVenue) -> None:
    names = {"SPX": "XNYS", "COIN": "24/7"}
    settings = settings_of(tmp_path, venue, *(polled(n, "cboe", n, calendar) for n, calendar in names.items()))
    sunday = dt.datetime(2025, 3, 16, 15, tzinfo=dt.UTC)
    for name in names:
        venue.put(f"/{name}.json", cboe_chain(sunday))

    async def body() -> None:
        await until(lambda: all(told(settings, name).get("ts_event") for name in names))

    collected(settings, body)
    assert archived(settings, "SPX", dt.date(2025, 3, 14)) == [sunday]  # the Friday before
    assert archived(settings, "COIN", dt.date(2025, 3, 16)) == [sunday]


def test_outside_its_hours_a_chain_is_not_asked_for(tmp_path: Path, venue: ChainVenue) -> None:
    hour = dt.datetime.now(ZoneInfo("America/New_York")).hour
    far = {"open": "02:00", "close": "02:01"} if 6 <= hour < 20 else {"open": "13:00", "close": "13:01"}
    settings = settings_of(tmp_path, venue, analytics={"rth_only": True, "extended_hours": far})
    venue.put("/_SPX.json", cboe_chain(FRIDAY))

    async def body() -> None:
        await asyncio.sleep(0.5)

    collected(settings, body)
    assert venue.asked == []


def test_without_redis_the_archive_goes_on(tmp_path: Path, venue: ChainVenue) -> None:
    settings = settings_of(tmp_path, venue)
    times = []

    async def body() -> None:
        for number in range(3):
            venue.put("/_SPX.json", cboe_chain(minute(number)))
            times.append(minute(number))
            await until(lambda: archived(settings) == times)
        assert told(settings)["error"] is None

    with capture_logs() as logs:
        collected(settings, body)
    assert [each["event"] for each in logs if "chain" in each["event"]] == ["chain_key_not_written"]


def test_a_redis_that_comes_back_has_the_chain_again(tmp_path: Path, venue: ChainVenue) -> None:
    settings = settings_of(tmp_path, venue)
    venue.put("/_SPX.json", cboe_chain(FRIDAY))

    async def body() -> None:
        for _ in range(2):
            with live_store.Server(settings), live_store.connect(settings) as client:
                await until(lambda client=client: key(client).get("ts"))
            await until(lambda: "chain_key_not_written" in [each["event"] for each in logs])
        assert told(settings)["failures"] == 0

    with capture_logs() as logs:
        collected(settings, body)
    assert "chain_keys_are_written_again" in [each["event"] for each in logs]


def test_a_full_disk_is_said_and_the_key_is_shown(
    tmp_path: Path, venue: ChainVenue, server: Settings, client: redis.Redis
) -> None:
    settings = with_redis(server, settings_of(tmp_path, venue))
    venue.put("/_SPX.json", cboe_chain(FRIDAY))
    (tmp_path / "landing").mkdir()
    blocked = tmp_path / "landing" / "chains"
    blocked.write_text("")  # a file where the folder should be

    async def body() -> None:
        await until(lambda: told(settings).get("failures"))
        assert str(blocked) in told(settings)["error"]
        assert key(client)["ts"] == int(FRIDAY.timestamp()) * 10**9
        blocked.unlink()
        await until(lambda: archived(settings) == [FRIDAY])

    collected(settings, body)


def test_a_chain_that_another_process_polls_waits(tmp_path: Path, venue: ChainVenue) -> None:
    settings = settings_of(tmp_path, venue)
    venue.put("/_SPX.json", cboe_chain(FRIDAY))
    lock = tmp_path / "locks" / "chains" / "cboe-SPX.lock"
    lock.parent.mkdir(parents=True)

    async def body() -> None:
        await until(lambda: "another process polls it already" in str(told(settings).get("error")))
        assert venue.asked == []
        held.release()
        await until(lambda: archived(settings) == [FRIDAY])

    held = FileLock(lock)
    held.acquire()
    collected(settings, body)


def test_twenty_thousand_contracts_do_not_stall_the_loop(tmp_path: Path, venue: ChainVenue) -> None:
    settings = settings_of(tmp_path, venue, poll_s=0.3)
    venue.put("/_SPX.json", cboe_chain(FRIDAY, contracts=20_000))
    lags: list[float] = []

    async def body() -> None:
        async def watch() -> None:
            while True:
                start = time.monotonic()
                await asyncio.sleep(0.005)
                lags.append(time.monotonic() - start - 0.005)

        watching = asyncio.create_task(watch())
        await until(lambda: len(venue.asked) >= 5 and told(settings).get("contracts") == 20_000)
        watching.cancel()

    collected(settings, body)
    # A stall of ours would come with each of the five answers; one or two may be another process' turn.
    assert sorted(lags)[-3] < 0.5


def test_symbols_without_a_chain_or_a_live_feed_are_refused(tmp_path: Path) -> None:
    bare = Instrument(symbol="SPX", venue_symbol="SPX", feed="cboe", **ROW)
    settings = Settings(home=tmp_path, instruments=(bare,))
    with pytest.raises(SettingsError, match="SPX comes from cboe, which cannot be captured"):
        asyncio.run(collect(settings, ["SPX"], say=lambda _: None))


DAY = dt.date(2024, 3, 10)
DAWN = dt.datetime(2024, 3, 10, tzinfo=dt.UTC)


def replayed_home(home: Path) -> Settings:
    """Return the settings of a home with a tape and simulated chains of a date."""
    chain = {"feed": "deribit", "venue_symbol": "SIM"}
    instrument = Instrument(symbol="SIMBTC", venue_symbol="SIMBTC", feed="binance_usdm", chain=chain, **ROW)
    settings = Settings(home=home, instruments=(instrument,))
    start = int(DAWN.timestamp()) * 10**9
    ids = pl.int_range(1, 201, eager=True)
    tape = pl.DataFrame({"trade_id": ids, "first_trade_id": ids, "last_trade_id": ids}).with_columns(
        ts_event=start + pl.col("trade_id") * 50_000_000,
        ts_recv=pl.lit(None),
        symbol=pl.lit("SIMBTC"),
        venue=pl.lit("binance_usdm"),
        price=pl.lit(95_000.0),
        size=pl.lit(1.0),
        aggressor=pl.lit(1),
    )
    schema = polars_schema(Trade)
    Lake(settings.lake_uri).write("market/trades", "SIMBTC", DAY, tape.select(schema.names()).cast(schema))
    for seconds in range(4):
        moment = DAWN + dt.timedelta(seconds=seconds)
        lists = deribit_lists(moment, "SIM", [dt.date(2024, 3, 15), dt.date(2024, 6, 28)], range(50_000, 150_000, 500))
        answers = {
            name: Answer(json.dumps(each).encode(), name)
            for name, each in zip(("instruments", "summaries"), lists, strict=True)
        }
        place = settings.simulated_chains, "deribit", "SIMBTC", DAY
        chain_archive.put(*place, Snapshot(answers, None), ts_event_ns=start + seconds * 10**9)
    return settings


@pytest.mark.parametrize("clock", ["now", "recorded"])
def test_replayed_chains_are_polled_as_the_venues(
    tmp_path: Path, server: Settings, client: redis.Redis, clock: str
) -> None:
    recorded = replayed_home(tmp_path / "home")

    async def main() -> tuple[Settings, dict[str, Any], dict[str, Any]]:
        asked = {"date": DAY, "symbols": ["SIMBTC"], "now_ns": time.time_ns, "clock": clock}
        async with serving(recorded, **asked) as replay:
            base = f"127.0.0.1:{replay.port}"
            feeds = {
                "binance_usdm": {
                    "ws_url": f"ws://{base}/usdm",
                    "rest_url": f"http://{base}/usdm",
                    "archive_url": "file:///",
                },
                "deribit": {"poll_s": 0.2, "rest_url": f"http://{base}/api/v2"},
            }
            settings = with_redis(server, recorded.model_copy(update={"feeds": Feeds.model_validate(feeds)}))
            task = asyncio.create_task(collect(settings, ["SIMBTC"], say=lambda _: None))
            seen = set()

            def has_gone_on() -> bool:
                if ts := told(settings, "SIMBTC").get("ts_event"):
                    seen.add(ts)
                return len(seen) >= 3

            await until(has_gone_on, 20)
            state = told(settings, "SIMBTC")
            payload = key(client, "SIMBTC")
            task.cancel()
            await asyncio.wait([task])
        return settings, state, payload

    settings, state, payload = asyncio.run(main())
    assert state["failures"] == 0
    assert (state["contracts"], state["quarantined"]) == (800, 0)
    assert len(payload["contracts"]) == 800
    if clock == "recorded":
        # What was simulated is whole: no copy of some of it hides the rest.
        assert not (settings.landing / "chains").exists()
        assert payload["ts"] - int(DAWN.timestamp()) * 10**9 in {k * 10**9 for k in range(4)}
    else:
        today = dt.datetime.fromtimestamp(payload["ts"] / 1e9, dt.UTC).date()
        assert abs(payload["ts"] / 1e9 - time.time()) < 30
        assert len(archived(settings, "SIMBTC", today)) >= 2
        expires = min(each["ts_expiry"] for each in payload["contracts"])
        assert dt.timedelta(days=4) < dt.timedelta(seconds=(expires - payload["ts"]) / 1e9) < dt.timedelta(days=6.5)


KILLS = 3


def test_killed_collectors_leave_whole_snapshots(tmp_path: Path, venue: ChainVenue, qp_started: Any) -> None:
    dice = random.Random(KILLS)
    config = tmp_path / "platform.yaml"
    chain = "feed: cboe, tick_size: 0.01, lot_size: 1, calendar: XNYS"
    config.write_text(
        "analytics: {rth_only: false}\n"
        f"feeds: {{cboe: {{poll_s: 0.02, chains_url: '{venue.address}'}}}}\n"
        f"instruments:\n  - {{symbol: SPX, venue_symbol: SPX, {chain}, chain: {{feed: cboe, venue_symbol: _SPX}}}}\n"
    )
    home = tmp_path / "home"
    settings = settings_of(home, venue)
    served = set()

    def serve(number: int) -> None:
        moment = FRIDAY + dt.timedelta(seconds=number)
        served.add(moment)
        venue.put("/_SPX.json", cboe_chain(moment, contracts=3_000))

    number = 0
    serve(number)
    for _ in range(KILLS):
        process = qp_started(home, config, "collect")
        before = len(archived(settings))
        latest = time.monotonic() + 30
        while len(archived(settings)) < before + 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < latest, "nothing came"
            number += 1
            serve(number)
            time.sleep(0.05)
        time.sleep(dice.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        times = archived(settings)  # which reads them
        assert set(times) <= served
    assert len(times) >= 2 * KILLS
    folder = home / "landing" / "chains" / "cboe" / "SPX" / str(TODAY)
    left = folder / "1.parquet.0f0f.tmp"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    process = qp_started(home, config, "collect")
    latest = time.monotonic() + 30
    while left.exists():
        assert time.monotonic() < latest, "what was left behind stayed"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, (out, err)


def test_status_shows_chains(tmp_path: Path, venue: ChainVenue, qp_process: Any) -> None:
    settings = settings_of(tmp_path / "home", venue)
    config = tmp_path / "platform.yaml"
    config.write_text("instruments:\n  - {symbol: A, venue_symbol: A, feed: binance_usdm, tick_size: 1, lot_size: 1}\n")
    venue.put("/_SPX.json", cboe_chain(FRIDAY))
    said = []

    async def body() -> None:
        await until(lambda: told(settings).get("contracts"))
        said.append(await asyncio.to_thread(qp_process, settings.home, config, "collect", "status", "--json"))

    collected(settings, body)
    (answer,) = said
    assert answer.code == 0, answer
    (state,) = json.loads(answer.out)
    shown = state["chains"]["SPX"]
    assert {name: shown[name] for name in ("feed", "ts_event", "contracts", "failures", "error")} == {
        "feed": "cboe",
        "ts_event": int(FRIDAY.timestamp()) * 10**9,
        "contracts": 4,
        "failures": 0,
        "error": None,
    }
    assert shown["age_s"] == pytest.approx(time.time() - FRIDAY.timestamp(), abs=60)
