"""Claim: durable ingest into landing is many times as fast as into SQLite, commit for commit."""

import gc
import hashlib
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from _harness import Measurement, Result, Verdict, Worker, interleaved

MESSAGES = 1_000_000
BATCHES = (25_000, 1_000)
FEED, SYMBOL = "binance_usdm", "BTCUSDT"
_PAYLOAD = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":%d,"T":%d,"s":"BTCUSDT","t":%d,'
    b'"p":"%.2f","q":"%.3f","X":"MARKET","m":%b}}'
)
_CONTESTANTS = {"ours": "ours", "SQLite, WAL": "sqlite_wal", "SQLite, rollback journal": "sqlite_rollback"}
_NOTES = {
    "ours": "`append` and `flush` a batch, `roll` at 64 MB; sha256 and the manifest's rows included",
    "SQLite, WAL": "`executemany` and one commit a batch, `synchronous=FULL`; one table, its key the trade id",
    "SQLite, rollback journal": "the same in SQLite's default journal mode",
}

Job = Callable[[], Any]


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time the same messages into each, for each size of a batch."""
    count = MESSAGES // (20 if is_quick else 1)
    measurements: list[Measurement] = []
    verdicts: list[Verdict] = []
    sizes: list[str] = []
    for batch in BATCHES:
        group = f"{batch:,} messages an fsync"
        target = folder / str(batch)
        workers: dict[str, Worker] = {}
        try:
            for name, contestant in _CONTESTANTS.items():
                workers[name] = Worker(
                    sys.executable, "landing", contestant, target=str(target / contestant), count=count, batch=batch
                )
                workers[name].run()
                workers[name].save(target / contestant)
            _require_equal(target)
            seconds = interleaved({name: worker.run for name, worker in workers.items()}, rounds)
        finally:
            for worker in workers.values():
                worker.close()
        timed = {
            name: Measurement(name=name, group=group, values=[count / s / 1e6 for s in values], note=_NOTES[name])
            for name, values in seconds.items()
        }
        measurements += timed.values()
        verdicts += [
            Verdict(
                claim=f"times as fast as {name}, {group}", measured=timed["ours"].median / timed[name].median, floor=10
            )
            for name in timed
            if name != "ours"
        ]
        sizes += [
            f"{name} {sum(p.stat().st_size for p in (target / contestant).rglob('*') if p.is_file()) / count:.0f}"
            for name, contestant in _CONTESTANTS.items()
            if batch == BATCHES[0]
        ]
    return Result(
        title=f"Landing: {count / 1e6:.2g} M trade messages, durable",
        unit="M messages/s",
        how="One process, one thread: each message is handed over with its time and trade id, each batch is fsynced. "
        "25,000 is a quarter of a second at 100,000 messages/s. Every contestant is a process of its own that stays "
        "up; two runs come before the clock. More is better.",
        measurements=measurements,
        verdicts=verdicts,
        notes=["All contestants returned the same lines in the same order", f"Bytes a message: {', '.join(sizes)}"],
    )


def ours(target: str, count: int, batch: int) -> Job:
    """The platform's landing, as the collector drives it."""
    from quant_platform.storage.landing import Entry, Lines, Manifest, Writer

    batches = _batches(list(_messages(count)), batch)
    gc.freeze()  # as the collector does: what is there already is not looked through again

    def job() -> Iterator[bytes]:
        shutil.rmtree(target, ignore_errors=True)
        writer = Writer(
            Path(target), FEED, SYMBOL, lambda _: Entry(None, None, None), segment_s=1e9, segment_bytes=64_000_000
        )
        for messages in batches:
            lines: Lines = []
            for ts_recv, payload, (ts_event, first_id, last_id) in messages:
                lines += (ts_recv, payload, ts_event, first_id, last_id)
            writer.append(lines)
            writer.flush()
            if writer.is_due(messages[-1][0]):
                writer.roll()
        writer.close()
        return (line for segment in Manifest(Path(target)).segments(FEED, SYMBOL) for line in segment.path.open("rb"))

    return job


def sqlite_wal(target: str, count: int, batch: int) -> Job:
    """A table in the journal mode that its documentation advises for this."""
    return _sqlite(target, count, batch, "WAL")


def sqlite_rollback(target: str, count: int, batch: int) -> Job:
    """A table in the journal mode that it has by default."""
    return _sqlite(target, count, batch, "DELETE")


def _sqlite(target: str, count: int, batch: int, journal_mode: str) -> Job:
    import sqlite3

    batches = _batches(list(_messages(count)), batch)
    gc.freeze()

    def job() -> Iterator[bytes]:
        shutil.rmtree(target, ignore_errors=True)
        Path(target).mkdir(parents=True)
        path = Path(target) / "trades.sqlite"
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE trades (trade_id INTEGER PRIMARY KEY, ts_event INTEGER, ts_recv INTEGER, payload BLOB)"
        )
        for messages in batches:
            buffer: list[tuple[int, int, int, bytes]] = []
            append = buffer.append
            for ts_recv, payload, (ts_event, trade_id, _) in messages:
                append((trade_id, ts_event, ts_recv, payload))
            with connection:
                connection.executemany("INSERT INTO trades VALUES (?,?,?,?)", buffer)
        connection.close()
        rows = sqlite3.connect(path).execute("SELECT ts_recv, payload FROM trades ORDER BY trade_id")
        return (b"%d %b\n" % row for row in rows)

    return job


def save(lines: Iterator[bytes], folder: str) -> None:
    """Write a digest of the last run's lines."""
    digest, count = hashlib.sha256(), 0
    for line in lines:
        digest.update(line)
        count += 1
    Path(folder, "digest.json").write_text(json.dumps([count, digest.hexdigest()]), encoding="utf-8")


def _messages(count: int) -> Iterator[tuple[int, bytes, tuple[int, int, int]]]:
    """Yield seeded trades as `ts_recv payload (ts_event first_id last_id)`."""
    draw = random.Random(7)
    time_ms, price = 1_723_118_400_000, 57_421.10
    for trade_id in range(5_000_000_000, 5_000_000_000 + count):
        time_ms += draw.random() < 0.02
        price += draw.choice((-0.1, 0.0, 0.1))
        side = b"true" if draw.random() < 0.5 else b"false"
        payload = _PAYLOAD % (time_ms + 3, time_ms, trade_id, price, draw.expovariate(20), side)
        yield time_ms * 1_000_000 + 4_123_456, payload, (time_ms * 1_000_000, trade_id, trade_id)


def _batches(messages: list[Any], size: int) -> list[list[Any]]:
    rest = iter(messages)
    return list(iter(lambda: list(islice(rest, size)), []))


def _require_equal(folder: Path) -> None:
    digests = {path.parent.name: path.read_text(encoding="utf-8") for path in folder.glob("*/digest.json")}
    if len(digests) != len(_CONTESTANTS) or len(set(digests.values())) != 1:
        raise RuntimeError(f"The contestants hold different lines, so their times say nothing: {digests}")
