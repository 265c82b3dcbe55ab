"""Claim: the live writer serves 500 symbols at 2 Hz under 20,000 ticks a second: on time, soon, and no trade lost."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import hiredis
import numpy as np
import polars as pl
import psutil
import redis
import yaml
from _harness import ROOT, Measurement, Result, Verdict
from option_chains import chain_rows

SYMBOLS = 500
TICKS_PER_S = 20_000
SECONDS = 300
_SHARES = {"trades": 0.2, "quotes": 0.5, "depth": 0.3}
_PIECE_S = 0.1
_WATCHED = 20
_STREAM_LENGTH = 1_000
_POLL_S = 0.025
_NS = 1_000_000_000
_FAMILIES = {
    "vpin": ("vpin", "last_trade_id", 1.0),
    "toxicity": ("toxicity", "last_trade_id", 1.0),
    "institutional_flow": ("institutional_flow", "last_trade_id", 1.0),
    "retail_flow": ("retail_flow", "last_trade_id", 1.0),
    "sweep": ("metric:sweep", "last_trade_id", 0.5),
    "hidden": ("metric:hidden", "last_trade_id", 0.5),
    "flow_clusters": ("flow_clusters", "last_trade_id", 10.0),
    "obi": ("obi", "sequence", 0.5),
}
_CHAIN, _OF_CHAINS = "gex", {"gex": ("gex", "ts", 5.0)}
_CONTRACTS = 2_000
_SENT = {"obi": "books", _CHAIN: "chains"}  # the others follow trades


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Start Redis and `qp live`, publish ticks for the time given, and watch keys and heartbeat."""
    del rounds  # one long run: its cycles are the samples
    return measured(folder, is_quick=is_quick, chains=0)


def measured(folder: Path, *, is_quick: bool, chains: int) -> Result:
    """Do so; of some symbols a chain of options is renewed too, each at its poll's interval."""
    from quant_platform.settings import load_settings
    from quant_platform.storage.live_store import Server, connect

    symbols, rate, seconds = (50, 2_000, 60) if is_quick else (SYMBOLS, TICKS_PER_S, SECONDS)
    names = [f"S{number:03d}" for number in range(symbols)]
    with_chain = names[:: symbols // chains] if chains else []
    instrument = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001, "default_bucket_size": 20.0}
    sectors = ("one", "two", "three", "four", "five")
    config = {
        "instruments": [
            {"symbol": name, "venue_symbol": name, "sector": sectors[number % 5], **instrument}
            | ({"chain": {"feed": "deribit", "venue_symbol": name, "rate": 0.04}} if name in with_chain else {})
            for number, name in enumerate(names)
        ]
    }
    (folder / "platform.yaml").write_text(yaml.safe_dump(config))
    os.environ |= {"QP_HOME": str(folder / "home"), "QP_CONFIG": str(folder / "platform.yaml")}
    settings = load_settings()
    with Server(settings), connect(settings) as client:
        client.config_set("maxmemory", "4gb")
        live = subprocess.Popen([Path(sys.executable).with_name("qp"), "live"], cwd=ROOT, env=os.environ)
        job = {"names": names, "rate": rate, "log": str(folder / "sent.json"), "with_chain": with_chain}
        publisher = subprocess.Popen([sys.executable, __file__, json.dumps(job)], env=os.environ)
        try:
            _until_opened(client, symbols)
            publisher.send_signal(signal.SIGUSR1)
            time.sleep(15)  # every family has had its turn at the full rate
            keys = [(name, family) for name in names[:: max(1, symbols // _WATCHED)] for family in _FAMILIES]
            keys += [(name, family) for name in with_chain for family in _OF_CHAINS]
            seen = _watch(client, keys, seconds, psutil.Process(live.pid))
            publisher.send_signal(signal.SIGINT)
            publisher.wait(60)
            time.sleep(15)  # every family has had its turn
            sent = json.loads((folder / "sent.json").read_text())
            lost = _lost(client, names, sent)
        finally:
            publisher.kill()
            live.send_signal(signal.SIGINT)
            live.wait(60)
    return _told(seen, sent, lost, symbols=symbols, rate=rate, seconds=seconds, chains=len(with_chain))


def _until_opened(client: redis.Redis, symbols: int) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        beat = json.loads(client.get("heartbeat:analytics") or b"{}")
        served = sum(1 for _ in client.scan_iter("analytics:*:obi", count=5_000))
        if beat and not beat["opening_symbols"] and served >= symbols:
            return
        time.sleep(1)
    raise RuntimeError("The symbols were not opened within ten minutes.")


def _watch(client: redis.Redis, keys: list[tuple[str, str]], seconds: float, process: psutil.Process) -> dict:
    """Poll heartbeat and keys; return cycle times, overruns, memory, and when each id was first seen in a key."""
    families = _FAMILIES | _OF_CHAINS
    wire = [f"analytics:{name}:{families[family][0]}" for name, family in keys]
    known: dict[tuple[str, str], int] = {}
    reached: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    cycles: dict[int, float] = {}
    memory = [process.memory_info().rss]
    start = time.monotonic()
    first = json.loads(client.get("heartbeat:analytics"))
    beat = first
    while time.monotonic() - start < seconds:
        *payloads, beating = client.mget([*wire, "heartbeat:analytics"])
        now = time.time_ns()
        for (name, family), payload in zip(keys, payloads, strict=True):
            if payload is None:
                continue
            found = json.loads(payload)
            at = found[families[family][1]]
            if known.get((name, family), -1) < at:
                known[name, family] = at
                reached[family].append((name, at, now))
        if beating:
            beat = json.loads(beating)
            cycles[beat["ts_written"]] = beat["cycle_ms"]
        if len(memory) < 2 + (time.monotonic() - start) // 10:
            memory.append(process.memory_info().rss)
        time.sleep(_POLL_S)
    return {
        "cycles": [cycles[at] for at in sorted(cycles)],
        "overruns": beat["overruns"] - first["overruns"],
        "errors": sum(beat["error_counts"].values()),
        "malformed": beat["malformed"],
        "memory": memory,
        "reached": reached,
        "start": first["ts_written"],
    }


def _lost(client: redis.Redis, names: list[str], sent: dict) -> int:
    """Return how many symbols do not stand at their last trade, or say that they missed one."""
    lost = 0
    for name, payload in zip(names, client.mget([f"analytics:{name}:vpin" for name in names]), strict=True):
        found = json.loads(payload) if payload else {}
        lost += found.get("last_trade_id") != sent["last_trade"][name] or bool(found.get("has_gap"))
    return lost


def _told(seen: dict, sent: dict, lost: int, *, symbols: int, rate: int, seconds: int, chains: int) -> Result:
    cycles = np.array(seen["cycles"])
    count = round(seconds * 2)
    on_time = 100 * (1 - seen["overruns"] / count)
    rows = [
        Measurement(
            name="both halves of a cycle",
            group="ms",
            values=_spread(cycles),
            note=f"p99 {np.percentile(cycles, 99):.0f}",
        )
    ]
    late = []
    for family, (_, _, interval_s) in (_FAMILIES | (_OF_CHAINS if chains else {})).items():
        waits = _waits(seen["reached"][family], sent[_SENT.get(family, "trades")], seen["start"])
        p99 = float(np.percentile(waits, 99))
        late.append(p99 - interval_s)
        source = "chain" if family in _OF_CHAINS else "tick"
        note = f"p99 {1e3 * p99:.0f}" + (f"; {len(waits)} snapshots" if family in _OF_CHAINS else "")
        rows.append(Measurement(name=f"{source} → {family}", group="ms", values=_spread(1e3 * waits), note=note))
    memory = np.array(seen["memory"][1:]) / 2**20
    growth = 100 * (memory[-3:].mean() / memory[:3].mean() - 1)
    return Result(
        title=f"Live writer: {symbols} symbols, {rate:,} ticks/s for {seconds} s"
        + (f", {chains} chains of {_CONTRACTS:,} contracts" if chains else ""),
        unit="ms",
        how="One Redis, one publisher of Streams (a fifth trades, half quotes, the rest books), and `qp live` at the "
        f"default intervals, on this machine. A key's time is when a poll, every {1e3 * _POLL_S:.0f} ms, first sees an "
        f"id that is not below the tick's; {len(seen['reached']['vpin']):,} changes of vpin of every "
        f"{max(1, symbols // _WATCHED)}th symbol were seen. A Stream holds {_STREAM_LENGTH:,} entries, not the "
        "10,000 of the collector: those of 500 symbols did not fit into 4 GB. "
        f"Memory of the writer: {memory[0]:.0f} MiB at the start, "
        f"{memory[-1]:.0f} at the end. {sent['count']:,} ticks were published; {seen['malformed']} malformed, "
        f"{seen['errors']} errors of calculators.",
        measurements=rows,
        verdicts=[
            Verdict(claim="cycles on time, %", measured=on_time, floor=99, goal=99.9),
            Verdict(
                claim="cycle p99, both halves, ms",
                measured=float(np.percentile(cycles, 99)),
                goal=150,
                is_more_better=False,
            ),
            Verdict(
                claim="tick→key p99 beyond its interval, worst family, s",
                measured=max(late),
                goal=0.15,
                is_more_better=False,
            ),
            Verdict(claim="symbols that lost a trade", measured=lost, floor=0, goal=0, is_more_better=False),
            Verdict(claim="growth of memory, %", measured=growth, goal=5, is_more_better=False),
        ],
    )


def _spread(values: np.ndarray) -> list[float]:
    """Return the percentiles from the least to the greatest, in the place of hundreds of thousands of values."""
    return np.percentile(values, range(101)).round(3).tolist()


def _waits(reached: list, sent: dict, start_ns: int) -> np.ndarray:
    """Return for every tick that was sent in the time watched how long it took until a key included it."""
    waits = []
    for name in {name for name, _, _ in reached}:
        ids, times = (np.array(column) for column in zip(*sent[name], strict=True))
        at, when = (np.array(c) for c in zip(*((at, when) for n, at, when in reached if n == name), strict=True))
        is_watched = (times > start_ns + 12 * _NS) & (ids <= at[-1])
        place = np.searchsorted(at, ids[is_watched])
        waits.append((when[place] - times[is_watched]) / _NS)
    return np.concatenate(waits)


def _publish(names: list[str], rate: int, log: str, with_chain: list[str]) -> None:
    """Write entries as the collector does until SIGINT, slowly until SIGUSR1; then leave what was sent."""
    from quant_platform.feeds import chain_payload
    from quant_platform.settings import load_settings
    from quant_platform.storage import redis_keys
    from quant_platform.storage.live_store import connect

    stop, rates = [], [float(len(names))]
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    signal.signal(signal.SIGUSR1, lambda *_: rates.append(rate))
    settings = load_settings()
    client, poll_s = connect(settings), settings.feeds.deribit.poll_s
    connection = client.connection_pool.get_connection()
    contracts = chain_rows(_CONTRACTS, dt.datetime.now(dt.UTC)) if with_chain else None
    polls = {name: time.monotonic() + poll_s * at / len(with_chain) for at, name in enumerate(with_chain)}
    rng = np.random.default_rng(1)
    watched = set(names[:: max(1, len(names) // _WATCHED)])
    ids = {kind: np.zeros(len(names), np.int64) for kind in _SHARES}
    sent = {"trades": {n: [] for n in watched}, "books": {n: [] for n in watched}, "chains": {n: [] for n in polls}}
    price = 50_000 + 10.0 * np.arange(len(names))
    count, due = 0, time.monotonic()
    while not stop:
        now = time.time_ns()
        commands, written = [], {}
        for kind, share in _SHARES.items():
            number = rng.poisson(rates[-1] * _PIECE_S * share)
            owner = np.sort(rng.integers(0, len(names), number))
            first = np.searchsorted(owner, owner)
            id_ = ids[kind][owner] + 1 + np.arange(number) - first
            np.maximum.at(ids[kind], owner, id_)
            price += rng.choice((-0.1, 0, 0.1), len(names)) / 3
            frame = _entries(kind, names, owner, id_, price, now, rng)
            for name_number, line in zip(owner.tolist(), frame, strict=True):
                key = f"market:{names[name_number]}:{kind}"
                commands.append(
                    hiredis.pack_command((b"XADD", key, b"MAXLEN", b"~", b"%d" % _STREAM_LENGTH, b"*", b"data", line))
                )
            count += number
            written[kind] = (owner, id_)
        connection.send_packed_command([b"".join(commands)])
        for _ in commands:
            connection.read_response()
        after = time.time_ns()
        for kind, key in (("trades", "trades"), ("depth", "books")):
            for name_number, value in zip(*(column.tolist() for column in written[kind]), strict=True):
                if names[name_number] in watched:
                    sent[key][names[name_number]].append((value, after))
        for name in [name for name, at in polls.items() if at <= time.monotonic()]:
            polls[name] += poll_s
            ts_event = time.time_ns()
            rows = contracts.with_columns(ts_event=pl.lit(ts_event).cast(contracts.schema["ts_event"]))
            payload = chain_payload.encoded(rows, ts_written=ts_event, seq=1)
            client.set(redis_keys.OPTION_CHAIN.name(name), payload, ex=round(3 * poll_s))
            sent["chains"][name].append((ts_event, time.time_ns()))
        due += _PIECE_S
        time.sleep(max(0.0, due - time.monotonic()))
    last = dict(zip(names, ids["trades"].tolist(), strict=True))
    Path(log).write_text(json.dumps({**sent, "last_trade": last, "count": count}))


def _entries(  # noqa: PLR0917  # what a kind of tick is made of
    kind: str,
    names: list[str],
    owner: np.ndarray,
    id_: np.ndarray,
    price: np.ndarray,
    now: int,
    rng: np.random.Generator,
) -> list[bytes]:
    rows = len(owner)
    mid = price[owner].round(1)
    at = pl.Series(now - rng.integers(0, 2_000_000, rows)).sort()
    columns = {
        "ts_written": pl.repeat(now, rows, eager=True),
        "ts": at,
        "seq": id_,
        "symbol": pl.Series(names, dtype=pl.String)[owner],
        "ts_event": at,
        "ts_recv": at + 1_000_000,
        "venue": pl.repeat("binance_usdm", rows, eager=True),
    }
    sizes = (rng.integers(1, 3_000, (10, rows)) / 1_000).round(3)
    if kind == "trades":
        columns |= dict.fromkeys(("trade_id", "first_trade_id", "last_trade_id"), id_)
        columns |= {"price": mid, "size": sizes[0], "aggressor": rng.choice((-1, 1), rows)}
    elif kind == "quotes":
        columns |= {"bid_price": mid - 0.1, "bid_size": sizes[0], "ask_price": mid + 0.1, "ask_size": sizes[1]}
        columns |= {"sequence": id_, "is_ts_event_assumed": np.zeros(rows, bool)}
    else:
        columns |= {"sequence": id_}
        for level in range(5):
            columns |= {f"bid_price_{level + 1}": mid - 0.1 * (level + 1), f"bid_size_{level + 1}": sizes[level]}
            columns |= {f"ask_price_{level + 1}": mid + 0.1 * (level + 1), f"ask_size_{level + 1}": sizes[5 + level]}
    return pl.DataFrame(columns).write_ndjson().encode().splitlines()


if __name__ == "__main__":
    _publish(**json.loads(sys.argv[1]))
