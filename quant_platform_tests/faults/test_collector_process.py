"""The collector as a process: killed, stopped, beside another one, on a full disk, in a burst."""

import asyncio
import json
import os
import random
import resource
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from quant_platform.feeds.binance import describe
from quant_platform.live.collector import status
from quant_platform.settings import Settings, load_settings
from quant_platform.storage.landing import Manifest
from quant_platform_tests.outside import NOBODY_ASKED
from quant_platform_tests.scripted_venue import Scripted, Venue, account_of, landed_lines, until

KILLS = 10
COLLECT = """
import sys
import time
from pathlib import Path
from quant_platform.live import collector
from quant_platform.settings import load_settings

clock, true_ns = Path(__file__).with_name("clock"), time.time_ns
if clock.exists():  # our own clock, off by so many ns
    time.time_ns = lambda: true_ns() + int(clock.read_text())
collector._MOST_BYTES_WAITING = int(sys.argv[2]) if len(sys.argv) > 2 else collector._MOST_BYTES_WAITING
sys.exit(collector.run(load_settings(), sys.argv[1].split(",")))
"""


class Collectors:
    """Processes over one home and one venue; all of them end with the test."""

    def __init__(self, root: Path, venue: Venue, **capture: Any) -> None:
        self.home, self._root, self._running = root / "home", root, []
        row = "feed: binance_usdm, tick_size: 0.1, lot_size: 0.001"
        address = f"127.0.0.1:{venue.port}"
        settings = {"flush_s": 0.02, "silence_s": 20} | capture
        (root / "platform.yaml").write_text(
            f"feeds: {{binance_usdm: {{ws_url: 'ws://{address}', rest_url: 'http://{address}'}}}}\n"
            f"capture: {json.dumps(settings)}\n"
            "instruments:\n"
            + "".join(f"  - {{symbol: {s}, venue_symbol: {s}, {row}}}\n" for s in ("BTCUSDT", "ETHUSDT"))
        )
        (root / "collect.py").write_text(COLLECT)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._running:
            if process.returncode is None:
                process.kill()
                await process.wait()

    @property
    def settings(self) -> Settings:
        return load_settings(self._root / "platform.yaml").model_copy(update={"home": self.home})

    async def started(self, *arguments: str) -> Process:
        environment = {
            **os.environ,
            **NOBODY_ASKED,
            "QP_HOME": str(self.home),
            "QP_CONFIG": str(self._root / "platform.yaml"),
        }
        script = str(self._root / "collect.py")
        log = (self._root / "log").open("ab")
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, *(arguments or ("BTCUSDT",)), env=environment, stdout=PIPE, stderr=log
        )
        log.close()
        self._running.append(process)
        return process

    def log(self) -> list[dict[str, Any]]:
        """Return what was logged, a JSON object a line."""
        return [json.loads(line) for line in (self._root / "log").read_text().splitlines() if line.startswith("{")]

    def state(self, symbol: str = "BTCUSDT") -> dict[str, Any]:
        found = [state["symbols"][symbol] for state in status(self.settings) if symbol in state["symbols"]]
        return found[0] if found else dict.fromkeys(["messages", "open_gaps", "bytes_buffered", "disk_error"])


async def stopped(process: Process, number: int = signal.SIGTERM) -> None:
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 20) == 0


def require_whole(collectors: Collectors) -> None:
    """Hold that every closed file is as the manifest says, and that every line in it is whole."""
    segments = Manifest(collectors.settings.landing).segments("binance_usdm", "BTCUSDT")
    folder = collectors.home / "landing/segments/binance_usdm/BTCUSDT"
    assert [segment.path for segment in segments] == sorted(folder.glob("*.frames"))
    for segment in segments:
        content = segment.path.read_bytes()
        assert content.endswith(b"\n")
        assert (segment.rows, segment.bytes) == (content.count(b"\n"), len(content))
        for line in content.splitlines():
            assert json.loads(line.partition(b" ")[2])


async def trading(venue: Venue, dice: random.Random, *, lost: float, unknown: float) -> None:
    """Make trades without end, some of which the stream does not bring, and some of those REST neither."""
    while True:
        messages = []
        for _ in range(10):
            message = venue.trade()
            if dice.random() >= lost:
                messages.append(message)
            elif dice.random() < unknown:
                venue.unknown.add(venue.made["BTCUSDT"])
        await venue.send(*messages, venue.quote(), venue.depth())
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kills", [KILLS, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_killed_again_and_again_each_trade_is_landed_once_or_on_record(tmp_path: Path, kills: int) -> None:
    dice = random.Random(kills)

    async def scenario() -> Venue:
        async with Venue(step_ms=1) as venue, Collectors(tmp_path, venue, segment_s=0.5) as collectors:
            market = asyncio.create_task(trading(venue, dice, lost=0.02, unknown=0.2))
            for _ in range(kills):
                before = venue.opened
                process = await collectors.started()
                await until(lambda before=before: venue.opened > before, 60)
                await asyncio.sleep(dice.uniform(0, 0.7))
                process.kill()
                await process.wait()
                await until(lambda: not venue.connections)
            before = venue.opened
            process = await collectors.started()
            await until(lambda: venue.opened > before, 60)
            await asyncio.sleep(0.5)
            assert not market.done()
            market.cancel()
            await asyncio.wait([market])
            await venue.send(*(venue.trade() for _ in range(3)))
            last = venue.made["BTCUSDT"]
            await until(lambda: collectors.state().get("last_trade_id") == last, 20)
            await until(lambda: collectors.state()["open_gaps"] == [], 60)
            await stopped(process)
            require_whole(collectors)
            assert not list(collectors.home.rglob("*.tmp"))
            return venue

    venue = asyncio.run(scenario())
    account = account_of(landed_lines(tmp_path / "home"))
    first = min(account.landed)
    account.require_each_once(range(first, venue.made["BTCUSDT"] + 1))
    assert account.lost <= venue.unknown
    assert set(account.told.values()) == {"aggTrades", None}
    # Holes of its own making, while no collector ran, and those that the stream left.
    assert len(account.told) > kills


def test_killed_in_the_middle_of_a_refill_it_goes_on_where_that_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue(step_ms=1) as venue, Collectors(tmp_path, venue) as collectors:
            process = await collectors.started()
            await venue.connected()
            await venue.send(venue.trade())
            # 4,000 trades are 1,334 aggregates: the first page comes, the second one does not.
            venue.scripted.extend([None, Scripted(429, {"Retry-After": "60"})])
            venue.made["BTCUSDT"] += 4_000
            await venue.send(venue.trade(), venue.trade())
            await until(lambda: len(landed_lines(collectors.home)) == 1_003)
            process.kill()
            await process.wait()
            await until(lambda: not venue.connections)
            assert account_of(landed_lines(collectors.home)[:3]).landed == Counter([1, 4_002, 4_003])
            process = await collectors.started()
            await until(lambda: any(b'"btcusdt@gap"' in line.text for line in landed_lines(collectors.home)), 30)
            await stopped(process)
            require_whole(collectors)
            account = account_of(landed_lines(collectors.home))
            account.require_each_once(range(1, 4_004))
            assert account.told == {(2, 4_001): "aggTrades"}

    asyncio.run(scenario())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_everything_landed_and_the_lease_free(tmp_path: Path, number: int) -> None:
    async def scenario() -> None:
        async with Venue() as venue, Collectors(tmp_path, venue, flush_s=30) as collectors:
            process = await collectors.started()
            await venue.connected()
            await venue.send(*(venue.trade() for _ in range(1_000)))
            await until(lambda: collectors.state()["messages"] == 1_000)
            assert landed_lines(collectors.home) == []
            await stopped(process, number)
            require_whole(collectors)
            assert status(collectors.settings) == []
            events = {entry["event"] for entry in collectors.log()}
            assert {"said", "connection_opened"} <= events

    asyncio.run(scenario())
    account_of(landed_lines(tmp_path / "home")).require_each_once(range(1, 1_001))


def test_of_two_collectors_one_has_the_symbol_and_the_other_says_so_and_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue(step_ms=1) as venue, Collectors(tmp_path, venue) as collectors:
            first = await collectors.started("BTCUSDT")
            await venue.connected()
            second = await collectors.started("BTCUSDT,ETHUSDT")
            await venue.connected(2)
            market = asyncio.create_task(trading(venue, random.Random(1), lost=0, unknown=0))
            assert [streams[0] for _, streams in venue.connections] == ["btcusdt@trade", "ethusdt@trade"]
            await until(lambda: ["BTCUSDT"] in [state["waiting"] for state in status(collectors.settings)])
            await asyncio.sleep(2.5)  # it tries again each second
            said = [entry["text"] for entry in collectors.log() if entry["event"] == "said"]
            (held,) = [text for text in said if "another process" in text]
            assert f"pid {first.pid} holds" in held
            assert "BTCUSDT waits until then; the other symbols go on." in held
            first.kill()
            await first.wait()
            await until(lambda: sum("btcusdt@trade" in streams for _, streams in venue.connections) == 1)
            await asyncio.sleep(0.5)
            assert not market.done()
            market.cancel()
            await asyncio.wait([market])
            await venue.send(venue.trade())
            await until(lambda: collectors.state().get("last_trade_id") == venue.made["BTCUSDT"])
            await until(lambda: collectors.state()["open_gaps"] == [])
            await stopped(second)
            account = account_of(landed_lines(collectors.home))
            account.require_each_once(range(min(account.landed), venue.made["BTCUSDT"] + 1))

    asyncio.run(scenario())


def test_a_full_disk_is_said_and_nothing_is_lost_when_space_returns(tmp_path: Path) -> None:
    # The kernel refuses to let any file of the process grow: the write fails as it does on a full disk.
    most_bytes = 300_000

    async def scenario() -> None:
        async with Venue(step_ms=1) as venue, Collectors(tmp_path, venue, segment_mb=1_000) as collectors:
            process = await collectors.started("BTCUSDT", str(most_bytes))
            await venue.connected()
            await venue.send(*(venue.trade() for _ in range(1_000)))
            await until(lambda: len(landed_lines(collectors.home)) == 1_000)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
            async with asyncio.timeout(90), asyncio.TaskGroup() as group:
                group.create_task(venue.send(*(venue.trade() for _ in range(20_000))))
                await until(lambda: collectors.state()["disk_error"], 20)
                await until(lambda: collectors.state()["bytes_buffered"] > most_bytes, 20)
                await asyncio.sleep(1.5)
                buffered = collectors.state()["bytes_buffered"]
                # It stops reading: a socket's worth more at most, while 20,000 messages are three million bytes.
                assert buffered < 3 * most_bytes + 600_000
                assert [entry["action"] for entry in collectors.log() if entry["event"] == "not_landed"] == [
                    "free disk space; it is tried again"
                ]
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await until(lambda: collectors.state()["last_trade_id"] == 21_000, 60)
            await until(lambda: not collectors.state()["disk_error"] and not collectors.state()["bytes_buffered"], 20)
            assert "landed_again" in {entry["event"] for entry in collectors.log()}
            await stopped(process)
            require_whole(collectors)
            account_of(landed_lines(collectors.home)).require_each_once(range(1, 21_001))

    asyncio.run(scenario())


def test_a_burst_of_ten_times_the_rate_loses_nothing_in_flat_memory(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue(step_ms=1) as venue, Collectors(tmp_path, venue) as collectors:
            process = await collectors.started()
            await venue.connected()
            memory = psutil.Process(process.pid).memory_info

            async def trades(count: int, per_s: int) -> None:
                start = time.monotonic()
                for sent in range(0, count, 50):
                    await venue.send(*(venue.trade() for _ in range(50)))
                    await asyncio.sleep(max(0.0, start + sent / per_s - time.monotonic()))

            await trades(3_000, 1_000)
            await until(lambda: collectors.state()["messages"] == 3_000)
            before = memory().rss
            peak = before
            burst = asyncio.create_task(trades(50_000, 10_000))
            while not burst.done():
                peak = max(peak, memory().rss)
                await asyncio.sleep(0.05)
            await burst
            await until(lambda: collectors.state()["messages"] == 53_000, 60)
            await until(lambda: collectors.state()["bytes_buffered"] == 0, 20)
            await stopped(process)
            # The burst is 9 MB on the wire; a queue of a second of it, as Python objects, is less than this.
            assert peak - before < 40e6
            account_of(landed_lines(collectors.home)).require_each_once(range(1, 53_001))

    asyncio.run(scenario())


@pytest.mark.parametrize("off_s", [-3_600, 3_600])
def test_a_clock_that_is_set_under_it_loses_nothing_and_doubles_nothing(tmp_path: Path, off_s: int) -> None:
    clock = tmp_path / "clock"

    def turn(seconds: int) -> None:
        published = tmp_path / "clock.new"
        published.write_text(str(seconds * 1_000_000_000))
        published.replace(clock)

    def closed(collectors: Collectors) -> int:
        return len(Manifest(collectors.settings.landing).segments("binance_usdm", "BTCUSDT"))

    async def scenario() -> None:
        turn(0)
        async with Venue() as venue, Collectors(tmp_path, venue, segment_s=0.5) as collectors:
            process = await collectors.started()
            await venue.connected()
            for seconds in (0, off_s, 0):
                turn(seconds)
                before = closed(collectors)
                await venue.send(*(venue.trade() for _ in range(40)))
                await until(lambda before=before: closed(collectors) > before)
            await stopped(process)

            lines = [line for line in landed_lines(collectors.home) if b"@trade" in line.text]
            account_of(landed_lines(collectors.home)).require_each_once(range(1, 121))
            require_whole(collectors)
            hours_off = [round((line.ts_recv - time.time_ns()) / 3.6e12) for line in lines]
            assert hours_off == [0] * 40 + [off_s // 3_600] * 40 + [0] * 40

    asyncio.run(scenario())


def test_every_line_that_was_landed_says_of_itself_what_the_manifest_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Venue() as venue, Collectors(tmp_path, venue) as collectors:
            process = await collectors.started()
            await venue.connected()
            await venue.send(*(venue.trade() for _ in range(9)))
            for _ in range(9):
                venue.trade()
            await venue.send(venue.trade(), venue.quote(), venue.depth(), '{"stream":"btcusdt@trade","data":{"t":')
            await until(lambda: any(b'"btcusdt@gap"' in line.text for line in landed_lines(collectors.home)))
            await stopped(process)
            (segment,) = Manifest(collectors.settings.landing).segments("binance_usdm", "BTCUSDT")
            entries = [describe(line.text) for line in landed_lines(collectors.home)]
            ids = [i for entry in entries for i in (entry.first_id, entry.last_id) if i is not None]
            times = [entry.ts_event for entry in entries if entry.ts_event is not None]
            assert (segment.first_id, segment.last_id) == (min(ids), max(ids)) == (1, 19)
            # The scripted snapshot is of the year 1970.
            assert (segment.ts_first, segment.ts_last) == (min(times), max(times)) == (1_000_000, venue.ms(19) * 10**6)
            assert Counter(entry.first_id is None for entry in entries)[True] == 4

    asyncio.run(scenario())
