"""The replayed venue over real sockets, seen by a plain `websockets` and `httpx` client."""

import asyncio
import contextlib
import datetime as dt
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import websockets
from websockets.asyncio.client import connect

from quant_platform.calculators import local_order_book
from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.feeds import frames as recorded_frames
from quant_platform.feeds.binance_archive import archive_path
from quant_platform.feeds.recorded import RecordedError, Wanted
from quant_platform.feeds.replay import Faults, Replay, serving
from quant_platform.pipeline.engine import Engine
from quant_platform.settings import BinanceFeed, Feeds, Instrument, Settings
from quant_platform.storage.lake import Lake
from quant_platform.storage.landing import Entry, Writer
from quant_platform_tests import landed

DAY = dt.date(2024, 3, 10)
DAY_NS = 1_710_028_800_000_000_000  # date -u -d 2024-03-10 +%s
HFT_DAY = dt.date(2024, 8, 8)
STARTED_NS = 1_800_000_000_000_000_000
STARTED = dt.datetime.fromtimestamp(STARTED_NS / 1e9, dt.UTC)
FEED = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
SPOT = FEED | {"feed": "binance_spot"}
LEVELS = [name for name in polars_schema(Book).names() if "_price_" in name or "_size_" in name]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    instruments = (
        Instrument(symbol="BTCUSDT", venue_symbol="BTCUSDT", **FEED),
        Instrument(symbol="BTCUSDT.SPOT", venue_symbol="BTCUSDT", **SPOT),
    )
    return Settings(home=tmp_path / "home", instruments=instruments, pipeline={"workers": 0})


def trades(count: int, symbol: str = "BTCUSDT", venue: str = "binance_usdm", every_ms: int = 20) -> pl.DataFrame:
    """Return a tape from ten in the morning; ids from 1001 on, some trades of one time and price."""
    rng = np.random.default_rng(1)
    ids = np.arange(1_001, 1_001 + count)
    at = DAY_NS + 36_000 * 10**9 + np.arange(count) // 2 * 2 * every_ms * 10**6
    return pl.DataFrame(
        {
            "ts_event": at,
            "ts_recv": None,
            "symbol": symbol,
            "venue": venue,
            "trade_id": ids,
            "first_trade_id": ids,
            "last_trade_id": ids,
            "price": (rng.integers(600_000, 600_005, count) / 10),
            "size": (rng.integers(1, 5_000, count) / 1_000),
            "aggressor": rng.choice([-1, 1], count),
        },
        strict=False,
    ).cast(polars_schema(Trade))


def quotes(count: int, symbol: str = "BTCUSDT", venue: str = "binance_usdm") -> pl.DataFrame:
    rng = np.random.default_rng(2)
    bid = rng.integers(600_000, 600_050, count) / 10
    at = DAY_NS + 36_000 * 10**9 + np.arange(count) * 15 * 10**6
    return pl.DataFrame(
        {
            "ts_event": at,
            "ts_recv": at + 3 * 10**6,
            "symbol": symbol,
            "venue": venue,
            "bid_price": bid,
            "bid_size": rng.integers(1, 900, count) / 100,
            "ask_price": bid + 0.5,
            "ask_size": rng.integers(1, 900, count) / 100,
            "sequence": np.arange(5_000_000, 5_000_000 + 10 * count, 10),
            "is_ts_event_assumed": False,
        },
        strict=False,
    ).cast(polars_schema(Quote))


def books(count: int, symbol: str = "BTCUSDT", venue: str = "binance_usdm") -> pl.DataFrame:
    """Return five levels that move, one of them changing at each row at least."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(count):
        top = 60_000 + int(rng.integers(0, 8))
        row: dict[str, Any] = {
            "ts_event": DAY_NS + 36_000 * 10**9 + number * 100 * 10**6,
            "ts_recv": None,
            "symbol": symbol,
            "venue": venue,
            "sequence": 5_000_005 + 70 * number,
        }
        for level in range(1, 6):
            row |= {f"bid_price_{level}": float(top - level), f"bid_size_{level}": float(rng.integers(1, 99)) / 10}
            row |= {f"ask_price_{level}": float(top + level), f"ask_size_{level}": float(rng.integers(1, 99)) / 10}
        rows.append(row)
    return pl.DataFrame(rows, strict=False).select(polars_schema(Book).names()).cast(polars_schema(Book))


def write(settings: Settings, *tables: pl.DataFrame) -> None:
    names = {"trade_id": "market/trades", "is_ts_event_assumed": "market/quotes", "bid_price_5": "market/book"}
    for table in tables:
        name = next(known for column, known in names.items() if column in table.columns)
        Lake(settings.lake_uri).write(name, table["symbol"][0], DAY, table)


def drive(settings: Settings, body: Callable[[Replay], Awaitable[Any]], **options: Any) -> Any:
    """Serve, and return what `body` gives."""

    async def main() -> Any:
        asked = {"date": DAY, "symbols": ["BTCUSDT"], "now_ns": lambda: STARTED_NS, "speed": 0.0} | options
        async with serving(settings, **asked) as replay:
            return await asyncio.wait_for(body(replay), 60)

    return asyncio.run(main())


def socket(replay: Replay, path: str, **options: Any) -> connect:
    return connect(
        f"ws://127.0.0.1:{replay.port}{path}", compression=None, close_timeout=1, **{"max_size": None, **options}
    )


async def played(replay: Replay, path: str) -> list[str]:
    """Return all that comes until the recording has ended: the answer to a control message is the last of it."""
    async with socket(replay, path) as ws:

        async def ask_at_the_end() -> None:
            await replay.ended.wait()
            await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":99}')

        asking = asyncio.create_task(ask_at_the_end())
        got: list[str] = []
        async for message in ws:
            text = message if isinstance(message, str) else "<binary>"
            if '"id":99' in text:
                break
            got.append(text)
        await asking
        return got


async def rest(replay: Replay, path: str, key: str | None = None, **query: Any) -> httpx.Response:
    async with httpx.AsyncClient(headers={"X-MBX-APIKEY": key} if key else {}) as client:
        return await client.get(f"http://127.0.0.1:{replay.port}{path}", params=query)


async def status(replay: Replay) -> Any:
    return (await rest(replay, "/replay/status")).json()


def data_of(messages: list[str], stream: str) -> list[Any]:
    return [m["data"] for m in map(json.loads, messages) if m["stream"] == stream]


def lines(path: Path) -> Iterator[tuple[int, str]]:
    with gzip.open(path, "rt") as file:
        for line in file:
            at, _, text = line.rstrip("\n").partition(" ")
            yield int(at), text


def recorded_data(path: Path) -> dict[str, list[str]]:
    """Return the text of each `data` by stream, read by hand."""
    found: dict[str, list[str]] = defaultdict(list)
    for _, text in lines(path):
        if text.startswith('{"stream":"'):
            stream, _, data = text.removeprefix('{"stream":"').partition('","data":')
            found[stream].append(data[:-1])
    return found


@pytest.mark.parametrize(
    ("symbol", "prefix", "file", "depth"),
    [
        ("BTCUSDT", "usdm", "usdm_btcusdt_20240808.part1.jsonl.gz", "btcusdt@depth@0ms"),
        ("BTCUSDT.SPOT", "spot", "spot_btcusdt_20240808.jsonl.gz", "btcusdt@depth@100ms"),
    ],
)
def test_recorded_frames_come_as_they_were_recorded(settings, real_data, symbol, prefix, file, depth):
    folder = real_data / "binance_frames_hft"
    streams = ["btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms"]
    got = drive(
        settings,
        lambda replay: played(replay, f"/{prefix}/stream?streams={'/'.join(streams)}"),
        date=HFT_DAY,
        symbols=[symbol],
        frames=folder,
    )
    recorded = recorded_data(folder / file)
    for stream, source in zip(streams, (*streams[:2], depth), strict=True):
        head = f'{{"stream":"{stream}","data":'
        found = [text.removeprefix(head)[:-1] for text in got if text.startswith(head)]
        assert found == recorded[source], stream
    in_file = [t for _, t in lines(folder / file) if t.startswith('{"stream"')]
    assert [json.loads(t)["data"].get("e") for t in got] == [json.loads(t)["data"].get("e") for t in in_file]


def test_lake_rows_come_back_from_their_messages(settings):
    tape, ticks, book = trades(400), quotes(500), books(80)
    write(settings, tape, ticks, book)
    got = drive(settings, lambda r: played(r, "/usdm/stream?streams=btcusdt@trade/btcusdt@bookTicker/btcusdt@depth"))
    prints = data_of(got, "btcusdt@trade")
    assert [p["t"] for p in prints] == tape["trade_id"].to_list()
    assert [p["T"] * 10**6 for p in prints] == tape["ts_event"].to_physical().to_list()
    assert [float(p["p"]) for p in prints] == tape["price"].to_list()
    assert [float(p["q"]) for p in prints] == tape["size"].to_list()
    assert [1 - 2 * p["m"] for p in prints] == tape["aggressor"].to_list()
    tickers = data_of(got, "btcusdt@bookTicker")
    assert [t["u"] for t in tickers] == ticks["sequence"].to_list()
    for letter, name in (("b", "bid_price"), ("B", "bid_size"), ("a", "ask_price"), ("A", "ask_size")):
        assert [float(t[letter]) for t in tickers] == ticks[name].to_list()
    assert [t["T"] * 10**6 for t in tickers] == ticks["ts_event"].to_physical().to_list()
    # The order over all streams: by receipt where it is known, else by the venue's time.
    times = [m["data"]["T"] + (3 if "bookTicker" in m["stream"] else 0) for m in map(json.loads, got)]
    assert times == sorted(times)


def test_spot_messages_lack_what_the_spot_market_lacks(settings):
    write(settings, *(make(40, "BTCUSDT.SPOT", "binance_spot") for make in (trades, quotes, books)))
    got = drive(
        settings,
        lambda r: played(r, "/spot/stream?streams=btcusdt@trade/btcusdt@bookTicker/btcusdt@depth@100ms"),
        symbols=["BTCUSDT.SPOT"],
    )
    assert set(data_of(got, "btcusdt@bookTicker")[0]) == {"u", "s", "b", "B", "a", "A"}
    assert set(data_of(got, "btcusdt@depth@100ms")[0]) == {"e", "E", "s", "U", "u", "b", "a"}
    assert set(data_of(got, "btcusdt@trade")[0]) == {"e", "E", "s", "t", "p", "q", "T", "m", "M"}


def events_of(diffs: list[Any], snapshot: Any, *, ahead: bool) -> pl.DataFrame:
    """Return messages as the events of a local book, the snapshot before or behind the first diff."""
    rows = []
    for message in [snapshot, *diffs] if ahead else [*diffs[:1], snapshot, *diffs[1:]]:
        is_snapshot = "lastUpdateId" in message
        bids, asks = (message["bids"], message["asks"]) if is_snapshot else (message["b"], message["a"])
        rows.append(
            {
                "ts_event": message["T"] * 10**6,
                "ts_recv": message["T"] * 10**6,
                "symbol": "BTCUSDT",
                "venue": "binance_usdm",
                "kind": "snapshot" if is_snapshot else "diff",
                "first_id": message.get("U"),
                "final_id": message["lastUpdateId" if is_snapshot else "u"],
                "previous_id": message.get("pu"),
                **{
                    f"{side}_{name}": [float(level[n]) for level in levels]
                    for side, levels in (("bid", bids), ("ask", asks))
                    for n, name in enumerate(("prices", "sizes"))
                },
            }
        )
    times = {"ts_event": pl.Int64, "ts_recv": pl.Int64}
    return pl.DataFrame(rows, schema=local_order_book.EVENTS | times).cast(dict.fromkeys(times, INSTANT))


async def book_as_a_client_keeps_it(replay: Replay) -> pl.DataFrame:
    snapshot = (await rest(replay, "/usdm/fapi/v1/depth", symbol="BTCUSDT", limit=1000)).json()
    diffs = data_of(await played(replay, "/usdm/stream?streams=btcusdt@depth@100ms"), "btcusdt@depth@100ms")
    state, rows = local_order_book.step(local_order_book.initial(), events_of(diffs, snapshot, ahead=False))
    assert local_order_book.gaps(state).is_empty()
    return rows


def test_snapshot_and_diffs_of_the_lake_rebuild_its_rows(settings):
    book = books(120)
    write(settings, book)
    rows = drive(settings, book_as_a_client_keeps_it)
    assert rows.select("sequence", *LEVELS).equals(book.select("sequence", *LEVELS))


def test_snapshot_and_diffs_of_frames_rebuild_the_recorded_book(settings, real_data):
    folder = real_data / "binance_frames_hft"
    rows = drive(settings, book_as_a_client_keeps_it, date=HFT_DAY, frames=folder)
    wanted = Wanted(table="market/book", symbol="BTCUSDT", venue_symbol="BTCUSDT", date=HFT_DAY, venue="binance_usdm")
    recording = recorded_frames.find(folder, wanted)
    assert recording is not None
    own = recorded_frames.read_day(recording, wanted).rows
    # The snapshot that is given ahead stands at or behind the recorded one.
    after = own.filter(pl.col("sequence") > rows["sequence"][0]).select("sequence", *LEVELS)
    assert after.height > 1_000
    assert rows[1:].select("sequence", *LEVELS).tail(after.height).equals(after)


def test_a_snapshot_asked_for_midway_continues_in_the_diffs(settings):
    book = books(60)
    write(settings, book)

    async def body(replay: Replay) -> tuple[Any, list[Any]]:
        diffs: list[Any] = []
        snapshot = None
        async with socket(replay, "/usdm/ws/btcusdt@depth") as ws:
            while len(diffs) < 59:
                diffs.append(json.loads(await ws.recv()))
                if len(diffs) == 20:
                    snapshot = (await rest(replay, "/usdm/fapi/v1/depth", symbol="BTCUSDT")).json()
        return snapshot, diffs

    snapshot, diffs = drive(settings, body, speed=10.0)
    assert diffs[19]["u"] <= snapshot["lastUpdateId"] < diffs[-1]["u"]
    state, rows = local_order_book.step(local_order_book.initial(), events_of(diffs, snapshot, ahead=True))
    assert local_order_book.gaps(state).is_empty()
    last = book.filter(pl.col("sequence") >= snapshot["lastUpdateId"]).select("sequence", *LEVELS)
    assert rows.select("sequence", *LEVELS).equals(last)


def test_rest_gives_the_tape_in_pages_but_not_what_is_still_to_come(settings):
    tape = trades(3_000, every_ms=1)
    write(settings, tape)

    async def body(replay: Replay) -> dict[str, Any]:
        answers: dict[str, Any] = {"before": (await rest(replay, "/usdm/fapi/v1/aggTrades", symbol="BTCUSDT")).json()}
        got = await played(replay, "/usdm/stream?streams=btcusdt@aggTrade")
        answers["streamed"] = data_of(got, "btcusdt@aggTrade")
        pages: list[Any] = []
        while True:
            query = {"fromId": pages[-1]["a"] + 1} if pages else {"fromId": 0}
            page = (await rest(replay, "/usdm/fapi/v1/aggTrades", symbol="BTCUSDT", limit=1000, **query)).json()
            if not page:
                break
            pages += page
        answers["pages"] = pages
        singles = await rest(replay, "/usdm/fapi/v1/historicalTrades", "k", symbol="BTCUSDT", fromId=1500, limit=500)
        answers["singles"] = singles.json()
        answers["newest"] = (await rest(replay, "/usdm/fapi/v1/historicalTrades", "k", symbol="BTCUSDT")).json()
        first, last = pages[10]["T"], pages[20]["T"]
        answers["between"] = (
            await rest(replay, "/usdm/fapi/v1/aggTrades", symbol="BTCUSDT", startTime=first, endTime=last)
        ).json()
        return answers

    found = drive(settings, body)
    assert found["before"] == []
    assert [{k: v for k, v in a.items() if k not in {"e", "E", "s"}} for a in found["streamed"]] == found["pages"]
    assert [i for a in found["pages"] for i in range(a["f"], a["l"] + 1)] == tape["trade_id"].to_list()
    assert any(a["l"] > a["f"] for a in found["pages"])
    total = sum(float(a["q"]) for a in found["pages"])
    assert total == pytest.approx(tape["size"].sum(), rel=1e-12)
    assert [s["id"] for s in found["singles"]] == list(range(1_500, 2_000))
    row = tape.row(499, named=True)
    assert (float(found["singles"][0]["price"]), float(found["singles"][0]["qty"])) == (row["price"], row["size"])
    assert [s["id"] for s in found["newest"]] == list(range(3_901, 4_001))
    times = (found["pages"][10]["T"], found["pages"][20]["T"])
    assert found["between"] == [a for a in found["pages"] if times[0] <= a["T"] <= times[1]]


def test_rest_refuses_as_the_venue_does(settings):
    write(settings, trades(10))

    async def body(replay: Replay) -> list[tuple[int, int]]:
        asked = [
            ("/usdm/fapi/v1/historicalTrades", {"symbol": "BTCUSDT"}),
            ("/usdm/fapi/v1/aggTrades", {"symbol": "NOSUCH"}),
            ("/usdm/fapi/v1/aggTrades", {}),
            ("/usdm/fapi/v1/aggTrades", {"symbol": "BTCUSDT", "fromId": "x"}),
            ("/usdm/fapi/v1/nothing", {}),
            ("/coinm/fapi/v1/ping", {}),
        ]
        answers = [await rest(replay, path, **query) for path, query in asked]
        assert (await rest(replay, "/spot/api/v3/ping")).json() == {}
        return [(a.status_code, a.json()["code"]) for a in answers]

    assert drive(settings, body) == [(401, -2014), (400, -1121), (400, -1102), (400, -1100), (404, -5000), (404, -5000)]


def test_streams_are_subscribed_and_left_over_the_socket(settings):
    write(settings, trades(200), quotes(200))

    async def body(replay: Replay) -> list[Any]:
        async with socket(replay, "/usdm/ws") as ws:
            said = []
            for message in (
                {"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker", "nosuch@trade"], "id": 1},
                {"method": "NONSENSE", "id": 2},
                {"method": "UNSUBSCRIBE", "params": ["btcusdt@bookTicker"], "id": 3},
                {"method": "LIST_SUBSCRIPTIONS", "id": 4},
            ):
                await ws.send(json.dumps(message))
                while (answer := json.loads(await ws.recv())).get("id") is None:
                    assert answer["e"] == "bookTicker"
                said.append(answer)
            return said

    subscribed, nonsense, left, listed = drive(settings, body, speed=1.0)
    assert subscribed == {"result": None, "id": 1}
    assert nonsense["error"]["code"] == 2
    assert left == {"result": None, "id": 3}
    assert listed == {"result": ["nosuch@trade"], "id": 4}


def test_too_many_control_messages_end_the_connection(settings):
    write(settings, trades(10))

    async def body(replay: Replay) -> int | None:
        async with socket(replay, "/usdm/ws") as ws:
            with contextlib.suppress(websockets.ConnectionClosed):
                for number in range(50):
                    await ws.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
                    await ws.recv()
            return ws.close_code

    assert drive(settings, body) == 1008


def test_speed_paces_and_a_late_client_joins_at_the_present(settings):
    tape = trades(200)  # four seconds
    write(settings, tape)

    async def body(replay: Replay) -> tuple[float, list[Any], list[Any]]:
        began = time.perf_counter()
        whole = asyncio.create_task(played(replay, "/usdm/ws/btcusdt@trade"))
        await asyncio.sleep(1)
        late = await played(replay, "/usdm/ws/btcusdt@trade")
        return time.perf_counter() - began, await whole, late

    took_s, whole, late = drive(settings, body, speed=2.0)
    assert took_s > 1.8
    assert [json.loads(m)["t"] for m in whole] == tape["trade_id"].to_list()
    assert 0 < len(late) < len(whole)
    assert whole[-len(late) :] == late


def test_start_within_the_day_begins_there_with_a_whole_book(settings):
    tape, book = trades(400), books(100)
    write(settings, tape, book)
    at = dt.time(10, 0, 5)
    got = drive(settings, book_as_a_client_keeps_it, at=at)
    since = book.filter(pl.col("ts_event").dt.time() >= at)
    assert got.select("sequence", *LEVELS).equals(since.select("sequence", *LEVELS))
    prints = drive(settings, lambda r: played(r, "/usdm/ws/btcusdt@trade"), at=at)
    expected = tape.filter(pl.col("ts_event").dt.time() >= at)["trade_id"].to_list()
    assert [json.loads(m)["t"] for m in prints] == expected


def land(settings: Settings, last_id: int) -> Writer:
    """Land a trade as the collector does; it is in the open segment, which no manifest lists."""
    writer = Writer(
        settings.landing,
        "binance_usdm",
        "BTCUSDT",
        lambda _: Entry(None, None, None),
        segment_s=60,
        segment_bytes=10**9,
    )
    data = {"t": last_id, "p": "1", "q": "1", "T": 1_799_999_999_000, "m": True}
    line = json.dumps({"stream": "btcusdt@trade", "data": data}, separators=(",", ":")).encode()
    writer.append([STARTED_NS - 10**9, line, STARTED_NS - 10**9, last_id, last_id])
    writer.flush()
    return writer


@pytest.mark.parametrize("is_closed", [True, False])
def test_clock_now_shifts_times_and_goes_on_after_what_was_landed(settings, is_closed):
    write(settings, trades(100), quotes(100), books(20))  # two seconds
    writer = land(settings, 77_000)
    if is_closed:
        writer.close()

    async def body(replay: Replay) -> list[Any]:
        got = []
        async with socket(replay, "/usdm/stream?streams=btcusdt@trade/btcusdt@bookTicker/btcusdt@depth") as ws:
            while not got or got[-1]["data"].get("t", 0) < 77_120:  # in the second round
                got.append(json.loads(await ws.recv()))
        return got

    got = drive(settings, body, clock="now", speed=1.0)
    if not is_closed:
        writer.close()
    prints = [m["data"] for m in got if m["stream"] == "btcusdt@trade"]
    assert [p["t"] for p in prints] == list(range(prints[0]["t"], prints[0]["t"] + len(prints)))
    first = prints[0]["t"] - 77_001  # a client comes some trades late
    assert 0 <= first < 100
    assert prints[0]["T"] == STARTED_NS // 10**6 + first // 2 * 40
    assert all(a["T"] <= b["T"] for a, b in pairwise(prints))
    updates = [m["data"]["u"] for m in got if m["stream"] != "btcusdt@trade"]
    assert min(updates) >= STARTED_NS // 1_000
    diffs = [m["data"] for m in got if m["stream"] == "btcusdt@depth"]
    breaks = [a for a, b in pairwise(diffs) if b["pu"] != a["u"]]
    assert len(breaks) == 1  # the second round is another book


def test_clock_now_again_never_goes_back(settings):
    write(settings, trades(30), quotes(30))

    async def body(replay: Replay) -> tuple[int, int]:
        async with socket(replay, "/usdm/stream?streams=btcusdt@bookTicker") as ws:
            updates = [json.loads(await ws.recv())["data"]["u"] for _ in range(20)]
            return updates[0], updates[-1]

    _, last = drive(settings, body, clock="now", speed=1.0)
    first, _ = drive(settings, body, clock="now", speed=1.0, now_ns=lambda: STARTED_NS + 10**9)
    assert first > last


def test_raw_frames_on_clock_now_are_shifted_by_one_figure(settings, real_data):
    folder = real_data / "binance_frames_hft"

    async def body(replay: Replay) -> list[Any]:
        async with socket(replay, "/usdm/ws/btcusdt@trade") as ws:
            return [json.loads(await ws.recv()) for _ in range(30)]

    got = drive(settings, body, date=HFT_DAY, frames=folder, clock="now", speed=1.0)
    recorded = {
        d["t"]: d
        for d in map(json.loads, recorded_data(folder / "usdm_btcusdt_20240808.part1.jsonl.gz")["btcusdt@trade"])
    }
    shifts = {m["T"] - recorded[m["t"]]["T"] for m in got} | {m["E"] - recorded[m["t"]]["E"] for m in got}
    assert shifts == {STARTED_NS // 10**6 - 1_723_161_256_299}  # E of the recording's first line
    for message in got:
        own = recorded[message["t"]]
        assert {k: v for k, v in message.items() if k not in {"E", "T"}} == {
            k: v for k, v in own.items() if k not in {"E", "T"}
        }


def test_segments_are_replayed_and_what_was_refilled_is_on_rest_alone(settings):
    writer = Writer(
        settings.landing,
        "binance_usdm",
        "BTCUSDT",
        lambda _: Entry(None, None, None),
        segment_s=60,
        segment_bytes=10**9,
    )
    start = DAY_NS + 3_600 * 10**9
    for number in range(1, 11):
        at = start + number * 10**6
        data: dict[str, Any] = {"T": at // 10**6, "p": "10.5", "q": "2", "m": False}
        line: dict[str, Any] = {"stream": "btcusdt@trade", "data": {"t": number, **data}}
        if number == 5:
            line = {"stream": "btcusdt@aggTrade", "data": {"a": 3, "f": 5, "l": 5, **data}, "refill": True}
        text = json.dumps(line, separators=(",", ":")).encode()
        writer.append([at, text, at, number, number])
    writer.append([start, b"rubbish", None, None, None])
    writer.close()

    async def body(replay: Replay) -> tuple[list[str], Any]:
        got = await played(replay, "/usdm/ws/btcusdt@trade")
        return got, (await rest(replay, "/usdm/fapi/v1/aggTrades", symbol="BTCUSDT", fromId=0)).json()

    got, page = drive(settings, body)
    assert [json.loads(m)["t"] for m in got] == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert [i for a in page for i in range(a["f"], a["l"] + 1)] == list(range(1, 11))


def test_each_table_comes_from_the_first_place_that_has_it(settings, tmp_path):
    tape, book = trades(50), books(20)
    write(settings, tape, book)
    folder = tmp_path / "frames"
    folder.mkdir()
    start = DAY_NS + 36_000 * 10**9
    snapshot = f'{start} {{"lastUpdateId":1,"E":1,"T":1,"bids":[["1","1"]],"asks":[["2","1"]]}}\n'
    diff = {"e": "depthUpdate", "E": start // 10**6, "T": start // 10**6, "s": "BTCUSDT", "U": 2, "u": 3, "pu": 1}
    line = json.dumps({"stream": "btcusdt@depth", "data": {**diff, "b": [["1", "5"]], "a": []}}, separators=(",", ":"))
    (folder / "usdm_btcusdt_20240310.jsonl").write_text(f"{snapshot}{start + 1} {line}\n")
    got = drive(settings, lambda r: played(r, "/usdm/stream?streams=btcusdt@trade/btcusdt@depth"), frames=folder)
    assert [d["u"] for d in data_of(got, "btcusdt@depth")] == [3]
    assert len(data_of(got, "btcusdt@trade")) == 50


def build(settings: Settings, day: dt.date) -> None:
    """Make the tape of a closed date as a backfill does."""
    with Engine(settings) as engine:
        (outcome,) = engine.run("market/trades", ["BTCUSDT"], [day], closed_before=STARTED)
    assert outcome.status == "ok", outcome.error


def test_a_tape_of_aggregates_comes_as_aggregates(tmp_path):
    feed = BinanceFeed(ws_url="ws://none", rest_url="http://none", archive_url=(tmp_path / "archive").as_uri())
    instrument = Instrument(symbol="BTCUSDT", venue_symbol="BTCUSDT", **FEED)
    settings = Settings(
        home=tmp_path, feeds=Feeds(binance_usdm=feed), instruments=(instrument,), pipeline={"workers": 0}
    )
    rows = [f"{n},60000.5,0.25,{3 * n},{3 * n + 2},{DAY_NS // 10**6 + n},true" for n in range(1, 31)]
    path = tmp_path / "archive" / archive_path("binance_usdm", "aggTrades", "BTCUSDT", DAY)
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as packed:
        head = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
        packed.writestr(f"{path.stem}.csv", "\n".join([head, *rows, ""]))
    path.with_name(f"{path.name}.CHECKSUM").write_text(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    )
    build(settings, DAY)
    got = drive(settings, lambda r: played(r, "/usdm/stream?streams=btcusdt@trade/btcusdt@aggTrade"))
    assert [(d["f"], d["l"]) for d in data_of(got, "btcusdt@aggTrade")] == [(3 * n, 3 * n + 2) for n in range(1, 31)]
    assert len(got) == 30


def test_a_captured_date_is_played_as_it_came_and_is_no_recording_to_choose(settings):
    write(settings, trades(10))
    captured = DAY + dt.timedelta(days=1)
    lines = landed.market("BTCUSDT", landed.at_ms(captured, 9), seconds=20)
    landed.land(settings, "BTCUSDT", lines)
    build(settings, captured)
    path = "/usdm/stream?streams=btcusdt@trade"
    assert len(drive(settings, lambda r: played(r, path), date=None)) == 10
    came = [line.partition(b" ")[2].decode() for line in lines]
    assert drive(settings, lambda r: played(r, path), date=captured) == [text for text in came if "@trade" in text]


def test_a_recorded_date_that_is_captured_again_is_played_from_the_lake(settings):
    write(settings, trades(10))
    landed.land(settings, "BTCUSDT", landed.market("BTCUSDT", landed.at_ms(DAY, 9), seconds=20))
    assert len(drive(settings, lambda r: played(r, "/usdm/ws/btcusdt@trade"))) == 10


def test_a_replay_leaves_nothing_where_nothing_was_landed(settings):
    write(settings, trades(10))
    drive(settings, status)
    assert not settings.landing.exists()


def test_without_a_date_the_newest_is_played_and_none_is_said(settings):
    write(settings, trades(10))
    got = drive(settings, lambda r: played(r, "/usdm/ws/btcusdt@trade"), date=None)
    assert len(got) == 10
    with pytest.raises(RecordedError, match="no recording of 2020-01-01"):
        drive(settings, status, date=dt.date(2020, 1, 1))


def faulty(settings: Settings, path: str = "/usdm/stream?streams=btcusdt@trade", **faults: Any) -> tuple[Any, Any, Any]:
    """Return what came, what the status says, and the ids that REST has."""

    async def body(replay: Replay) -> tuple[Any, Any, Any]:
        got = await played(replay, path)
        page = await rest(replay, "/usdm/fapi/v1/historicalTrades", "k", symbol="BTCUSDT", fromId=0, limit=500)
        return got, await status(replay), [one["id"] for one in page.json()]

    return drive(settings, body, faults=Faults(**faults))


def test_dropped_trades_are_on_rest(settings):
    write(settings, trades(400))
    got, said, known = faulty(settings, drop=0.1)
    ids = [d["t"] for d in data_of(got, "btcusdt@trade")]
    assert said["faults"]["drop"]["usdm/btcusdt@trade"] == 400 - len(ids) > 10
    assert said["sent"] == {"usdm/btcusdt@trade": len(ids)}
    assert ids == sorted(set(ids))
    assert known == list(range(1_001, 1_401))


def test_lost_trades_are_nowhere(settings):
    write(settings, trades(400))
    got, said, known = faulty(settings, lose=0.1)
    ids = [d["t"] for d in data_of(got, "btcusdt@trade")]
    lost = [first for first, last in said["lost"]["usdm/btcusdt"] if first == last]
    assert sorted(ids + lost) == list(range(1_001, 1_401))
    assert len(lost) > 10
    assert known == ids


def test_duplicates_and_reordering_lose_nothing(settings):
    write(settings, trades(400))
    got, said, _ = faulty(settings, duplicate=0.1, reorder=0.1)
    ids = [d["t"] for d in data_of(got, "btcusdt@trade")]
    assert sorted(set(ids)) == list(range(1_001, 1_401))
    assert len(ids) - 400 == said["faults"]["duplicate"]["usdm/btcusdt@trade"] > 10
    assert said["faults"]["reorder"]["usdm/btcusdt@trade"] > 10
    first_of_each = list(dict.fromkeys(ids))
    assert first_of_each != sorted(first_of_each)


def test_rubbish_comes_among_the_messages(settings):
    write(settings, trades(400))
    got, said, _ = faulty(settings, malformed=0.2)
    whole = []
    for text in got:
        with contextlib.suppress(json.JSONDecodeError, KeyError, TypeError):
            if isinstance(ident := json.loads(text)["data"]["t"], int):
                whole.append(ident)
    assert whole == list(range(1_001, 1_401))
    assert len(got) - 400 == said["faults"]["malformed"]["usdm/btcusdt@trade"] > 50
    assert "<binary>" in got
    assert max(map(len, got)) > 16_000_000


def test_connections_are_cut_in_turn_abruptly_and_with_1001(settings):
    write(settings, trades(2_000))

    async def body(replay: Replay) -> tuple[list[int | None], Any]:
        codes = []
        for _ in range(2):
            async with socket(replay, "/usdm/ws/btcusdt@trade") as ws:
                with contextlib.suppress(websockets.ConnectionClosed):
                    while True:
                        await ws.recv()
                codes.append(ws.close_code)
        return codes, await status(replay)

    codes, said = drive(settings, body, speed=1.0, faults=Faults(disconnect_every_s=0.4))
    assert codes == [1006, 1001]
    assert said["faults"]["disconnect"] == 2


def test_a_stalled_connection_answers_pings_and_what_passed_never_comes(settings):
    write(settings, trades(300))  # six seconds

    async def body(replay: Replay) -> tuple[float, list[int], list[int], Any]:
        async with socket(replay, "/usdm/ws/btcusdt@trade") as ws:
            before = [json.loads(await ws.recv())["t"]]
            with contextlib.suppress(TimeoutError):
                while True:
                    before.append(json.loads(await asyncio.wait_for(ws.recv(), 0.4))["t"])
            pinged_s = await asyncio.wait_for(await ws.ping(), 0.5)
            after = [json.loads(await ws.recv())["t"] for _ in range(3)]
            return pinged_s, before, after, await status(replay)

    _, before, after, said = drive(settings, body, speed=1.0, faults=Faults(stall_every_s=0.5, stall_s=1.5))
    assert after[0] - before[-1] > 20
    assert after[0] % 2 == before[-1] % 2 or after[0] > before[-1]
    assert said["faults"]["stall"] >= 1


def test_rest_is_refused_at_times_with_retry_after(settings):
    write(settings, trades(10))

    async def body(replay: Replay) -> tuple[list[httpx.Response], Any]:
        return [await rest(replay, "/usdm/fapi/v1/ping") for _ in range(60)], await status(replay)

    answers, said = drive(settings, body, faults=Faults(rest_429_share=0.3, rest_500_share=0.3))
    codes = [a.status_code for a in answers]
    assert (codes.count(429), codes.count(500)) == (said["faults"]["rest_429"], said["faults"]["rest_500"])
    assert min(codes.count(code) for code in (200, 429, 500)) > 5
    assert {a.headers.get("Retry-After") for a in answers if a.status_code != 200} == {"1"}


def test_who_does_not_read_is_closed_with_1008(settings):
    write(settings, trades(1_000))

    async def body(replay: Replay) -> tuple[int | None, Any]:
        # Rubbish of 17 MB every 50th: more than 64 MB wait after 250 trades.
        async with socket(replay, "/usdm/ws/btcusdt@trade", max_queue=1) as ws:
            while not (await status(replay))["faults"].get("too_slow"):
                pass
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await ws.recv()
            return ws.close_code, await status(replay)

    code, said = drive(settings, body, speed=100.0, faults=Faults(malformed=1.0))
    assert code in {1008, 1006}
    assert said["connections"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_process_ends_with_0_at_a_signal(settings, tmp_path, number):
    write(settings, trades(10))
    config = tmp_path / "platform.yaml"
    row = "symbol: BTCUSDT, venue_symbol: BTCUSDT, feed: binance_usdm, tick_size: 0.1, lot_size: 0.001"
    config.write_text(f"instruments:\n  - {{{row}}}\n")
    program = (
        "import datetime as dt, sys\n"
        "from quant_platform.feeds.replay import Faults, run\n"
        "from quant_platform.settings import load_settings\n"
        f"sys.exit(run(load_settings(), date=dt.date(2024, 3, 10), symbols=['BTCUSDT'], clock='recorded', speed=1.0,"
        f" port=0, faults=Faults(), now_ns=lambda: {STARTED_NS}, say=lambda text: print(text, flush=True)))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"QP_CONFIG": str(config), "QP_HOME": str(settings.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        assert "is played at ws://127.0.0.1:" in child.stdout.readline()
        child.send_signal(number)
        assert child.wait(20) == 0
        assert "Stopping." in child.stdout.read()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
