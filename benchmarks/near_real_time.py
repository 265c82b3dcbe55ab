"""Claim: a closed segment is in today's partition within seconds, also late on a busy day, with all of `make up` on."""

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from _harness import ROOT, Measurement, Result, Verdict

SYMBOLS = ("SIMBTC", "SIMETH", "SIMSOL")
TICKS = 20_000_000
_LINES_PER_SEGMENT = 300_000
_POLL_S = 0.2
_FEED = "binance_usdm"


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Fill today with ticks, start `qp up --replay`, and watch each segment until its run has ended."""
    from quant_platform.pipeline.engine import Engine
    from quant_platform.settings import load_settings

    ticks = 200_000 if is_quick else TICKS
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("QP_", "DAGSTER_"))}
    environment |= {"QP_HOME": str(folder / "home"), "QP_CONFIG": str(ROOT / "platform.yaml"), "DO_NOT_TRACK": "1"}
    environment |= {f"QP_UI__{name}": str(port) for name, port in zip(_PORTS, _free_ports(len(_PORTS)), strict=True)}
    qp = str(Path(sys.executable).with_name("qp"))
    subprocess.run([qp, "demo"], env=environment, cwd=ROOT, check=True, capture_output=True)
    os.environ.update({"QP_HOME": environment["QP_HOME"], "QP_CONFIG": environment["QP_CONFIG"]})
    settings = load_settings()
    for symbol in SYMBOLS:
        _land(settings, symbol, ticks // len(SYMBOLS))
    with Engine(settings) as engine:
        started = time.perf_counter()
        _step_all(engine)
        stepped_s = time.perf_counter() - started
    seconds = _watch(settings, environment, qp, minutes=1 + rounds)
    p50, p95 = (float(np.percentile(seconds, share)) for share in (50, 95))
    row = Measurement(
        name="closed segment → run ended", values=seconds, note=f"{len(seconds)} segments of {len(SYMBOLS)} symbols"
    )
    return Result(
        title=f"Near real time: today holds {ticks / 1e6:.1f} M ticks already",
        unit="s",
        how="`qp up --replay`: UI, daemon, replay, collector and Redis on this machine; a segment a minute and symbol. "
        "The clock starts when a segment gets its name, and stops when the run has ended after which every table that "
        f"follows contains it. Before, {ticks:,} ticks were landed, and took {stepped_s:.0f} s through all of them.",
        measurements=[row],
        verdicts=[
            Verdict(claim="p50, seconds", measured=p50, floor=30, goal=8, is_more_better=False),
            Verdict(claim="p95, seconds", measured=p95, floor=30, goal=15, is_more_better=False),
        ],
    )


_PORTS = ("PORT", "FILES_PORT", "REPLAY_PORT")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


def _land(settings: object, symbol: str, ticks: int) -> None:
    """Land frames of a third trades and two thirds quotes, spread over today until now."""
    from quant_platform.feeds.binance import describe
    from quant_platform.storage.landing import repair

    rng = np.random.default_rng(sum(map(ord, symbol)))
    now = time.time_ns()
    midnight = now - now % 86_400_000_000_000
    ms = np.sort(rng.integers(midnight // 1_000_000, now // 1_000_000, ticks))
    is_trade = rng.random(ticks) < 1 / 3
    price = 50_000 + np.cumsum(rng.choice((-1, 0, 0, 0, 1), ticks)) * 0.1
    frame = pl.DataFrame(
        {"ms": ms, "is_trade": is_trade, "id": np.cumsum(is_trade), "u": np.arange(ticks), "price": price.round(1)}
    ).with_columns(
        size=pl.Series((rng.integers(1, 2_000, ticks) / 1000).round(3)),
        is_sale=pl.Series(rng.random(ticks) < 0.5),
        ask=(pl.col("price") + 0.1).round(1),
    )
    name, wire = settings.instrument(symbol).venue_symbol.lower(), settings.instrument(symbol).venue_symbol
    head = pl.concat_str((pl.col("ms") + 5) * 1_000_000, pl.lit(f' {{"stream":"{name}@'))
    trade = pl.concat_str(
        pl.lit('trade","data":{"e":"trade","E":'),
        pl.col("ms"),
        pl.lit(',"T":'),
        pl.col("ms"),
        pl.lit(f',"s":"{wire}","t":'),
        pl.col("id"),
        pl.lit(',"p":"'),
        pl.col("price"),
        pl.lit('","q":"'),
        pl.col("size"),
        pl.lit('","X":"MARKET","m":'),
        pl.col("is_sale"),
        pl.lit("}}"),
    )
    quote = pl.concat_str(
        pl.lit('bookTicker","data":{"e":"bookTicker","u":'),
        pl.col("u"),
        pl.lit(f',"s":"{wire}","b":"'),
        pl.col("price"),
        pl.lit('","B":"'),
        pl.col("size"),
        pl.lit('","a":"'),
        pl.col("ask"),
        pl.lit('","A":"1.5","T":'),
        pl.col("ms"),
        pl.lit(',"E":'),
        pl.col("ms"),
        pl.lit("}}"),
    )
    place = settings.landing / "segments" / _FEED / symbol
    place.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(frame.iter_slices(_LINES_PER_SEGMENT), start=1):
        lines = part.select(line=pl.concat_str(head, pl.when("is_trade").then(trade).otherwise(quote)))["line"]
        (place / f"{number:08d}.frames").write_text("\n".join([*lines, ""]), encoding="utf-8")
    repair(settings.landing, _FEED, symbol, describe)


def _step_all(engine: object) -> None:
    from quant_platform.pipeline.pending import FOLLOWING, pending

    for day, symbols in pending(engine.settings, engine.ledger).symbols.items():
        for table in FOLLOWING:
            for outcome in engine.run(table, symbols, [day]):
                if not outcome.status.is_usable:
                    raise RuntimeError(f"{outcome.unit}: {outcome.error}")


def _watch(settings: object, environment: dict[str, str], qp: str, *, minutes: int) -> list[float]:
    """Return the seconds from each segment's close to the end of the run that brought it to all tables."""
    from quant_platform.defs.instance import dagster_instance
    from quant_platform.pipeline.ledger import Ledger
    from quant_platform.pipeline.pending import pending
    from quant_platform.storage.landing import Manifest

    manifest, ledger = Manifest(settings.landing), Ledger(settings.ledger)
    position = max((position for position, _ in manifest.after(0)), default=0)
    up = subprocess.Popen([qp, "up", "--replay"], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    waiting: dict[tuple[str, int], float] = {}
    contained: dict[tuple[str, int], float] = {}
    deadline = time.monotonic() + 60 * minutes + 60
    try:
        with dagster_instance(settings) as instance:
            while time.monotonic() < deadline and up.poll() is None:
                landed = manifest.after(position)
                for _, segment in landed:
                    waiting.setdefault((segment.symbol, segment.number), segment.path.stat().st_mtime)
                due = {s for symbols in pending(settings, ledger, position).symbols.values() for s in symbols}
                for name in waiting.keys() - contained.keys():
                    if name[0] not in due:
                        contained[name] = time.time()
                time.sleep(_POLL_S)
            ends = sorted(r.end_time for r in instance.get_run_records() if r.end_time and r.dagster_run.is_success)
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)
    if up.returncode:
        raise RuntimeError(f"`qp up --replay` ended with {up.returncode}.")
    # The first segments meet a daemon and a code server that are still starting.
    warm = datetime.now(UTC).timestamp() - 60 * minutes
    return [
        next(end for end in ends if end >= at - _POLL_S) - waiting[name]
        for name, at in contained.items()
        if waiting[name] > warm and ends and ends[-1] >= at - _POLL_S
    ]
