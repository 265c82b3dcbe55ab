"""Claim: one core receives, decodes, deduplicates and lands (fsynced) more than 100,000 messages a second."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _harness import HERE, Measurement, Result, Verdict, Worker, interleaved

MESSAGES = 1_000_000
TRADES_OF_TEN = 2  # the rest are quotes: a recorded minute of BTCUSDT has 7,032 trades among 39,669 of both
SYMBOL = "BTCUSDT"
START_MS = 1_723_161_255_000
FLOOR = 100_000
STREAMS = ("btcusdt@trade", "btcusdt@bookTicker")
_CHUNK_BYTES = 1 << 20

Job = Callable[[], int]


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Push the same messages at each contestant, each pinned to the last core, the server to the others."""
    count = MESSAGES // 20 if is_quick else MESSAGES
    size = _write_messages(folder / "wire", count)
    server = subprocess.Popen(
        [sys.executable, str(HERE / "capture.py"), str(folder / "wire")], stdout=subprocess.PIPE, text=True
    )
    workers: dict[str, Worker] = {}
    names = {
        "ours": "collected",
        "websockets + msgspec, nothing landed": "received_msgspec",
        "websockets + json, nothing landed": "received_json",
    }
    try:
        assert server.stdout
        port = int(server.stdout.readline())
        for name, contestant in names.items():
            workers[name] = Worker(
                sys.executable, "capture", contestant, port=port, count=count, size=size, folder=str(folder)
            )
        seconds = interleaved({name: worker.run for name, worker in workers.items()}, rounds)
    finally:
        for worker in workers.values():
            worker.close()
        server.kill()
        server.wait()
    rates = {name: [count / s for s in values] for name, values in seconds.items()}
    notes = {
        "ours": "`collect`: receive, decode, deduplicate, land; fsync every 0.25 s",
        "websockets + msgspec, nothing landed": "`recv(decode=False)`, the same struct",
        "websockets + json, nothing landed": "`async for`, `json.loads`",
    }
    timed = [Measurement(name=name, values=values, note=notes[name]) for name, values in rates.items()]
    medians = {row.name: row.median for row in timed}
    bare = medians["websockets + json, nothing landed"]
    return Result(
        title=f"Capture: {count / 1e6:g} M messages over loopback, trades and quotes, on one core",
        unit="messages/s",
        how="A server process pushes as fast as it is read from. Every contestant is a process of its own, pinned to "
        "one core. Ours ends when the last line is in the segment, fsynced.",
        measurements=timed,
        verdicts=[
            Verdict(claim="messages/s, landed", measured=medians["ours"], floor=FLOOR),
            Verdict(claim="of websockets + json, nothing landed", measured=medians["ours"] / bare),
        ],
        notes=[f"{size / count:.0f} bytes a message; {TRADES_OF_TEN} of 10 are trades"],
    )


def collected(port: int, count: int, size: int, folder: str) -> Job:
    """The collector as `qp collect` runs it, which also freezes what was loaded; in a new home each time."""
    from quant_platform.live.collector import collect
    from quant_platform.settings import BinanceFeed, Feeds, Instrument, Settings

    _pin()
    gc.freeze()
    address = f"127.0.0.1:{port}"
    feed = BinanceFeed(ws_url=f"ws://{address}", rest_url=f"http://{address}", archive_url="file:///none")
    instrument = Instrument(
        symbol=SYMBOL,
        venue_symbol=SYMBOL,
        feed="binance_usdm",
        sources={"book": "binance_spot"},
        tick_size=0.1,
        lot_size=0.001,
    )
    landed_bytes = size + count * len(f"{time.time_ns()} \n")

    def job() -> int:
        home = Path(folder) / f"home-{time.monotonic_ns()}"
        settings = Settings(
            home=home, feeds=Feeds(binance_usdm=feed), instruments=(instrument,), capture={"segment_mb": 10_000}
        )
        segments = settings.landing / "segments" / "binance_usdm" / SYMBOL

        async def until_landed() -> None:
            collecting = asyncio.create_task(collect(settings, [SYMBOL], say=lambda _: None))
            while _bytes_in(segments) < landed_bytes:
                assert not collecting.done()
                await asyncio.sleep(0.01)
            collecting.cancel()
            await asyncio.wait([collecting])

        asyncio.run(until_landed())
        for file in segments.glob("*.frames"):
            file.unlink()
        return count

    return job


def received_msgspec(port: int, count: int, size: int, folder: str) -> Job:
    """The same library and decoder, and nothing else."""
    del size, folder
    from websockets.asyncio.client import connect

    from quant_platform.feeds.binance import decode, stream_url

    _pin()

    async def receive() -> int:
        async with connect(stream_url(f"ws://127.0.0.1:{port}", STREAMS), compression=None) as connection:
            for _ in range(count):
                decode(await connection.recv(decode=False))
        return count

    return lambda: asyncio.run(receive())


def received_json(port: int, count: int, size: int, folder: str) -> Job:
    """What a script does first."""
    del size, folder
    from websockets.asyncio.client import connect

    _pin()

    async def receive() -> int:
        left = count
        address = f"ws://127.0.0.1:{port}/stream?streams={'/'.join(STREAMS)}"
        async with connect(address, compression=None) as connection:
            async for message in connection:
                json.loads(message)
                left -= 1
                if not left:
                    break
        return count

    return lambda: asyncio.run(receive())


def _bytes_in(segments: Path) -> int:
    try:
        return sum(file.stat().st_size for file in segments.glob("*.frames"))
    except FileNotFoundError:  # it was closed in between
        return 0


def _pin() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _write_messages(path: Path, count: int) -> int:
    """Write the messages as WebSocket frames, ready to be sent; return their size without the frames' heads."""
    size = 0
    with path.open("wb") as file:
        for number in range(1, count + 1):
            ms = START_MS + number // 10
            if number % 10 < TRADES_OF_TEN:
                trade_id = number // 10 * TRADES_OF_TEN + number % 10 + 1
                body: dict[str, Any] = {"e": "trade", "E": ms, "T": ms, "s": SYMBOL, "t": trade_id}
                body |= {"p": f"{61_800 + number % 97 / 10:.2f}", "q": "0.006", "X": "MARKET", "m": number % 3 == 0}
                stream = STREAMS[0]
            else:
                body = {"e": "bookTicker", "u": 5_123_107_839_020 + number, "s": SYMBOL, "b": "61800.20", "B": "2.507"}
                body |= {"a": "61800.30", "A": f"{number % 13 + 1}.510", "T": ms, "E": ms}
                stream = STREAMS[1]
            payload = json.dumps({"stream": stream, "data": body}, separators=(",", ":")).encode()
            file.write(b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload)
            size += len(payload)
    return size


async def _serve(frames: bytes) -> None:
    from websockets.asyncio.server import ServerConnection, serve

    async def push(connection: ServerConnection) -> None:
        for start in range(0, len(frames), _CHUNK_BYTES):
            connection.transport.write(frames[start : start + _CHUNK_BYTES])
            await connection.drain()
        await connection.wait_closed()

    async with serve(push, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {max(os.sched_getaffinity(0))} or os.sched_getaffinity(0))
    asyncio.run(_serve(Path(sys.argv[1]).read_bytes()))
