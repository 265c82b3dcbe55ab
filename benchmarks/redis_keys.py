"""Claim: a cycle's 7,500 keys are encoded and written, each with its time to live, within 40 ms."""

import json
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _harness import Measurement, Result, Verdict, Worker, interleaved

KEYS, SYMBOLS = 7_500, 500
TTL_S = 60
_PAYLOAD_BYTES = 400
_WRITERS = {
    "ours": "ours",
    "redis-py, pipeline": "pipeline",
    "redis-py, packed commands": "packed_commands",
    "by hand": "by_hand",
}
_WRITER_NOTES = {
    "ours": "`Batch`: `hiredis.pack_command` for each, one `send_packed_command`, `read_response` for each",
    "redis-py, pipeline": "`pipeline(transaction=False)`, `set(…, ex=…)`, `execute()`, with hiredis",
    "redis-py, packed commands": "`connection.pack_commands`, `send_packed_command`, `read_response` for each",
    "by hand": "the protocol's bytes formatted by our own code, sent and read as ours",
}
_ENCODERS = {"ours": "encoded_ours", "msgspec": "encoded_msgspec", "json": "encoded_json"}
_ENCODER_NOTES = {
    "ours": "`encoded`: `write_ndjson` of the whole frame, and its lines",
    "msgspec": "`msgspec.json.encode` of each of `rows(named=True)`",
    "json": "`json.dumps` of each of `rows(named=True)`",
}

Job = Callable[[], Any]


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time the writes against one Redis, and the payloads of one metric."""
    from quant_platform.settings import Settings
    from quant_platform.storage import live_store

    count = KEYS // (10 if is_quick else 1)
    settings = Settings(home=folder)
    with live_store.Server(settings), live_store.connect(settings) as client:
        writers = {
            name: Worker(
                sys.executable, "redis_keys", contestant, url=live_store.address(settings), count=count, mark=mark
            )
            for mark, (name, contestant) in enumerate(_WRITERS.items())
        }
        try:
            for mark, worker in enumerate(writers.values()):
                client.flushall()
                worker.run()
                _require_written(client, count, mark)
            writes = interleaved({name: worker.run for name, worker in writers.items()}, rounds)
        finally:
            for worker in writers.values():
                worker.close()
        server = client.info("server")["redis_version"]
    encoders = {name: Worker(sys.executable, "redis_keys", contestant) for name, contestant in _ENCODERS.items()}
    try:
        for name, worker in encoders.items():
            worker.run()
            worker.save(folder / name)
        _require_equal([folder / name for name in _ENCODERS])
        encodings = interleaved({name: worker.run for name, worker in encoders.items()}, rounds)
    finally:
        for worker in encoders.values():
            worker.close()
    written = _timed(writes, f"{count:,} keys", _WRITER_NOTES)
    made = _timed(encodings, f"{SYMBOLS} payloads of toxicity", _ENCODER_NOTES)
    times = {row.name: row.median for row in written}
    return Result(
        title=f"Live keys: {count:,} strings of {_PAYLOAD_BYTES} bytes with a time to live, and their payloads",
        unit="ms",
        how="Every contestant is a process of its own that stays up, and writes the same keys to the same embedded "
        "server, over its unix socket, in one round trip; two runs come before the clock. Less is better.",
        measurements=[*written, *made],
        verdicts=[
            Verdict(claim="ms to write", measured=times["ours"], floor=100, goal=40, is_more_better=False),
            Verdict(
                claim="times faster than redis-py's pipeline", measured=times["redis-py, pipeline"] / times["ours"]
            ),
            Verdict(claim="ms to encode 500 payloads", measured=made[0].median, goal=3, is_more_better=False),
        ],
        notes=[
            "redis-py walks through each command's arguments in Python; `Batch` calls the hiredis below it directly",
            "Bytes formatted by hand would be faster still; they would be a protocol of ours to keep",
            f"redis-py {version('redis')}, hiredis {version('hiredis')}, server {server}",
        ],
    )


def ours(url: str, count: int, mark: int) -> Job:
    """The platform's batch, from names and payloads."""
    from redis import Redis

    from quant_platform.storage.live_store import Batch

    client, keys = Redis.from_url(url), list(_keys(count, mark))

    def job() -> int:
        batch = Batch()
        for name, payload in keys:
            batch.set(name, payload, TTL_S)
        return batch.send(client)

    return job


def pipeline(url: str, count: int, mark: int) -> Job:
    """What redis-py's documentation advises."""
    from redis import Redis

    client, keys = Redis.from_url(url), list(_keys(count, mark))

    def job() -> int:
        pipe = client.pipeline(transaction=False)
        for name, payload in keys:
            pipe.set(name, payload, ex=TTL_S)
        return len(pipe.execute())

    return job


def packed_commands(url: str, count: int, mark: int) -> Job:
    """redis-py's connection without its pipeline."""
    keys = list(_keys(count, mark))

    def packed(connection: Any) -> list[bytes]:
        return connection.pack_commands([("SET", name, payload, "EX", TTL_S) for name, payload in keys])

    return _sent(url, count, packed)


def by_hand(url: str, count: int, mark: int) -> Job:
    """The protocol's bytes from one format."""
    keys, ttl = list(_keys(count, mark)), b"%d" % TTL_S
    form = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nEX\r\n$%d\r\n%b\r\n"

    def packed(_: Any) -> list[bytes]:
        encoded = ((name.encode(), payload) for name, payload in keys)
        return [b"".join(form % (len(n), n, len(p), p, len(ttl), ttl) for n, p in encoded)]

    return _sent(url, count, packed)


def _sent(url: str, count: int, packed: Callable[[Any], list[bytes]]) -> Job:
    from redis import Redis

    connection: Any = Redis.from_url(url).connection_pool.get_connection()

    def job() -> int:
        connection.send_packed_command(packed(connection))
        return len([connection.read_response() for _ in range(count)])

    return job


def encoded_ours() -> Job:
    """The platform's payloads."""
    from quant_platform.storage.redis_keys import TOXICITY, encoded

    rows = _toxicity()
    seq = dict.fromkeys(rows["symbol"].to_list(), 3)
    return lambda: encoded(TOXICITY, rows, ts_written=1, seq=seq, has_gap={"SYM001"})


def encoded_msgspec() -> Job:
    """A dictionary a row, through the fastest encoder of dictionaries at hand."""
    import msgspec

    return _encoded_rows(msgspec.json.encode)


def encoded_json() -> Job:
    """The same through the standard library."""
    return _encoded_rows(lambda row: json.dumps(row, separators=(",", ":")).encode())


def _encoded_rows(encode: Callable[[dict[str, Any]], bytes]) -> Job:
    from polars import selectors

    from quant_platform.storage.redis_keys import TOXICITY

    rows = _toxicity()

    def job() -> dict[str, bytes]:
        found = {}
        for row in rows.with_columns(selectors.temporal().to_physical()).rows(named=True):
            symbol = row["symbol"]
            row |= {"ts_written": 1, "ts": row["ts_event"], "seq": 3, "has_gap": symbol == "SYM001"}
            found[symbol] = encode({name: row[name] for name in TOXICITY.fields})
        return found

    return job


def save(payloads: dict[str, bytes], folder: str) -> None:
    """Write the last run's payloads as what they say."""
    said = {symbol: json.loads(payload) for symbol, payload in payloads.items()}
    Path(folder, "payloads.json").write_text(json.dumps(said), encoding="utf-8")


def _toxicity() -> Any:
    import random

    import polars as pl

    from quant_platform.contracts._schema import polars_schema
    from quant_platform.contracts.microstructure import Toxicity

    draw = random.Random(7)
    values: dict[Any, Callable[[], Any]] = {
        pl.Float64: draw.random,
        pl.Int64: lambda: draw.randrange(10**10),
        pl.String: lambda: "moderate",
    }
    columns = {
        name: [values.get(dtype, lambda: 1_723_118_400_123_456_789)() for _ in range(SYMBOLS)]
        for name, dtype in polars_schema(Toxicity).items()
    }
    columns["symbol"] = [f"SYM{number:03}" for number in range(SYMBOLS)]
    return pl.DataFrame(columns, schema=polars_schema(Toxicity))


def _keys(count: int, mark: int) -> Iterable[tuple[str, bytes]]:
    for number in range(count):
        text = b'{"seq":%d,"mark":%d,"text":"' % (number, mark)
        yield (
            f"analytics:SYM{number % SYMBOLS:03}:metric:{number // SYMBOLS}",
            text.ljust(_PAYLOAD_BYTES - 2, b"x") + b'"}',
        )


def _require_written(client: Any, count: int, mark: int) -> None:
    names, payloads = zip(*_keys(count, mark), strict=True)
    if client.mget(names) != list(payloads) or client.dbsize() != count or not 0 < client.ttl(names[-1]) <= TTL_S:
        raise RuntimeError(f"Contestant {mark} did not write the keys, so its time says nothing.")


def _require_equal(folders: list[Path]) -> None:
    if len({(folder / "payloads.json").read_text(encoding="utf-8") for folder in folders}) != 1:
        raise RuntimeError("The contestants' payloads differ, so their times say nothing.")


def _timed(seconds: dict[str, list[float]], group: str, notes: dict[str, str]) -> list[Measurement]:
    return [
        Measurement(name=name, group=group, values=[s * 1e3 for s in values], note=notes[name])
        for name, values in seconds.items()
    ]
