"""Claim: a fill of a book of 100 symbols has its row of costs within 30 seconds of its file, through the daemon."""

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from _harness import ROOT, Measurement, Result, Verdict

SYMBOLS, TICKS, ORDERS = 100, 1_000_000, 100_000
FILES, FILE_ORDERS, FILE_EVERY_S = 18, 100, 10.0
FILLS_AN_ORDER = 3
LIMIT_S, LIMIT_MB = 30, 800
_HOURS = 20  # of the date have passed
_PARTS = _HOURS  # of each table of ticks: one an hour
_LAST_S = 60  # of the tape: in the segment that still grows, stepped by nobody
_RECENT_S = 300  # orders of the files that are timed ended so long before the end of the tape, at most
_FEED = "binance_usdm"
_POLL_S = 0.2
_PATIENCE_S = 180
_NS = 1_000_000_000
_PORTS = ("PORT", "FILES_PORT")


class _Size(NamedTuple):
    symbols: int
    ticks: int
    orders: int
    files: int


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Make an open date, start `qp up`, drop files of the desk, and watch for the rows of their orders."""
    from quant_platform.settings import load_settings

    size = _Size(10, 100_000, 2_000, 3) if is_quick else _Size(SYMBOLS, TICKS, ORDERS, FILES * rounds // 7 or 1)
    # Ticks and orders are of the first hours of a date that does not end while this runs.
    date = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)).date()
    names = [f"BOOK{number:03}" for number in range(size.symbols)]
    environment = _environment(folder, names)
    os.environ.update(environment)
    settings = load_settings()
    path = _price_path(date, size.ticks)
    started = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        list(pool.map(_seed, names, [date] * len(names), [size.ticks] * len(names)))
    writers = [_grow(settings, name, path) for name in names]
    seeded_s = time.perf_counter() - started
    desk = _desk(path, names, size)
    started = time.perf_counter()
    _take(settings, folder, date, names, {kind: rows.filter(pl.col("file") < 0) for kind, rows in desk.items()})
    taken_s = time.perf_counter() - started
    seconds, peaks = _watched(settings, environment, date, desk, size.files)
    for writer in writers:
        writer.close()
    p50, p95 = (float(np.percentile(seconds, share)) for share in (50, 95))
    drops = f"{size.files} times {FILE_ORDERS} orders of any symbols"
    return Result(
        title=f"TCA of an open date: {size.symbols} symbols, {size.ticks * size.symbols / 1e6:g} M ticks, "
        f"{size.orders:,} orders",
        unit="s",
        how="`qp up`: UI and daemon on this machine, no capture beside them. Ticks of 20 hours lie in hourly parts of "
        "the open date, those of the last minute in segments that still grow; all but the last orders have been told "
        f"and costed. Then, every {FILE_EVERY_S:g} s, three CSV files come into the desk's folder: decisions, orders "
        f"and fills of what was done since, {drops}. A clock starts when the file of fills has its name, and stops "
        "when the lake's parts hold the order's row and those of its fills: every order is timed.",
        measurements=[
            Measurement(name="last fill's file → rows in the lake", values=seconds, note=f"{len(seconds):,} orders"),
        ],
        verdicts=[
            Verdict(claim="p50, seconds", measured=p50, floor=LIMIT_S, goal=15, is_more_better=False),
            Verdict(claim="p95, seconds", measured=p95, floor=LIMIT_S, goal=20, is_more_better=False),
            Verdict(
                claim="MB at most, the process of a run", measured=peaks["run"], floor=LIMIT_MB, is_more_better=False
            ),
        ],
        notes=[
            (
                f"{FILE_ORDERS} orders every {FILE_EVERY_S:g} s are {FILE_ORDERS / FILE_EVERY_S:g} a second; all "
                f"{size.orders:,} in {_HOURS} hours are {size.orders / _HOURS / 3600:.2g} a second"
            ),
            f"All processes of `qp up` together had {peaks['all']:,.0f} MB at most, pages that they share counted once",
            f"Before: {seeded_s:.0f} s to write the ticks, {taken_s:.0f} s to take and cost what was told earlier",
            (
                "2 of these seconds are for a file to settle, up to 5 until the daemon looks at the sensor, up to 1 "
                "until it looks at its queue, and some 4 for a run's process to get ready where runs follow at once"
            ),
        ],
    )


def _environment(folder: Path, names: list[str]) -> dict[str, str]:
    from near_real_time import _free_ports

    config = folder / "platform.yaml"
    row = f"feed: {_FEED}, tick_size: 0.1, lot_size: 0.001, sector: simulated"
    listed = [f"  - {{symbol: {name}, venue_symbol: {name}, {row}}}" for name in names]
    config.write_text("\n".join(["partitions: {start: 2024-01-01}", "instruments:", *listed, ""]), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("QP_", "DAGSTER_"))}
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
    ports = {f"QP_UI__{name}": str(port) for name, port in zip(_PORTS, _free_ports(len(_PORTS)), strict=True)}
    return kept | ports | {"QP_HOME": str(folder / "home"), "QP_CONFIG": str(config), "DO_NOT_TRACK": "1"}


class _Path(NamedTuple):
    """Prices that every symbol has: a tick each, ns from midnight on; a third of them are trades."""

    midnight: int
    ts: Any
    bid: Any
    is_trade: Any


def _price_path(date: dt.date, ticks: int) -> _Path:
    random = np.random.default_rng(7)
    midnight = int(dt.datetime.combine(date, dt.time(), dt.UTC).timestamp()) * _NS
    ts = midnight + np.sort(random.integers(0, _HOURS * 3_600_000, ticks)) * 1_000_000
    bid = 500_000 + np.cumsum(random.choice([-1, 0, 0, 0, 1], ticks))
    return _Path(midnight, ts, bid, random.random(ticks) < 1 / 3)


def _end(path: _Path) -> int:
    return path.midnight + _HOURS * 3_600 * _NS


def _seed(symbol: str, date: dt.date, ticks: int) -> None:
    """Leave what stepping leaves: parts of trades and quotes, what they remember, and the ledger's rows."""
    import pickle

    from quant_platform.contracts._schema import INSTANT
    from quant_platform.contracts.market import Quote, Trade
    from quant_platform.pipeline import capture
    from quant_platform.pipeline.ledger import Ledger
    from quant_platform.pipeline.open_date import Memory
    from quant_platform.pipeline.recipes import RECIPES
    from quant_platform.pipeline.units import Outcome, Unit, UnitStatus, Work
    from quant_platform.settings import load_settings
    from quant_platform.storage.lake import Lake

    settings, path = load_settings(), _price_path(date, ticks)
    lake, random = Lake(settings.lake_uri), np.random.default_rng(sum(map(ord, symbol)))
    size = random.integers(1, 2_000, ticks) / 1_000
    number = np.arange(1, ticks + 1)
    times = {"ts_event": pl.Series(path.ts).cast(INSTANT), "ts_recv": pl.Series(path.ts + 20_000_000).cast(INSTANT)}
    names = {"symbol": pl.repeat(symbol, ticks, eager=True), "venue": pl.repeat(_FEED, ticks, eager=True)}
    every = pl.DataFrame(
        {
            **times,
            **names,
            "trade_id": number,
            "first_trade_id": number,
            "last_trade_id": number,
            "sequence": number,
            "price": (path.bid + random.integers(0, 2, ticks)) / 10,
            "size": size,
            "aggressor": random.choice(np.array([-1, 1], np.int8), ticks),
            "bid_price": path.bid / 10,
            "ask_price": (path.bid + 1) / 10,
            "bid_size": size,
            "ask_size": size,
            "is_ts_event_assumed": pl.repeat(False, ticks, eager=True),
            "is_trade": path.is_trade,
        }
    ).filter(pl.col("ts_event").to_physical() < _end(path) - _LAST_S * _NS)
    for contract, is_own in ((Trade, pl.col("is_trade")), (Quote, ~pl.col("is_trade"))):
        rows, unit = every.filter(is_own).select(list(contract.columns())), Unit(contract.table, symbol, date)
        key, parts, written = ("trade_id" if contract is Trade else "sequence"), [], 0
        for piece in rows.iter_slices(-(-rows.height // _PARTS)):
            parts.append((piece[key][0], piece[key][-1]))
            written += lake.write(*unit, piece, part=parts[-1]).bytes
        work = Work(unit, RECIPES[contract.table], settings, lake)
        memory = Memory("", capture.FOLD.opened(work), parts=tuple(parts), rows=rows.height, bytes=written)
        lake.write_state(*unit, pickle.dumps(memory, protocol=5))
        Ledger(settings.ledger).record([Outcome(unit, UnitStatus.OPEN, rows=rows.height, bytes=written)])


def _grow(settings: Any, symbol: str, path: _Path) -> Any:
    """Write the last minute to a segment that still grows, as a collector does; return its writer."""
    from quant_platform.feeds.binance import describe
    from quant_platform.storage.landing import Writer

    writer = Writer(settings.landing, _FEED, symbol, describe, segment_s=3_600, segment_bytes=1 << 26)
    is_last = path.ts >= _end(path) - _LAST_S * _NS
    numbers = np.flatnonzero(is_last) + 1
    name = symbol.lower()
    for number, ns, bid, is_trade in zip(
        numbers.tolist(), path.ts[is_last].tolist(), path.bid[is_last].tolist(), path.is_trade[is_last], strict=True
    ):
        ms, price = ns // 1_000_000, f"{bid / 10:.1f}"
        if is_trade:
            body = (
                f'"e":"trade","E":{ms},"T":{ms},"s":"{symbol}","t":{number},"p":"{price}","q":"1","X":"MARKET","m":true'
            )
            stream = "trade"
        else:
            ask = f"{(bid + 1) / 10:.1f}"
            stream, own = "bookTicker", f'"u":{number},"b":"{price}","B":"1","a":"{ask}","A":"1"'
        body = f'"e":"{stream}","E":{ms},"T":{ms},"s":"{symbol}",{own}'
        payload = f'{{"stream":"{name}@{stream}","data":{{{body}}}}}'.encode()
        writer.append([ns + 20_000_000, payload, *describe(payload)])
    writer.flush()
    return writer


def _desk(path: _Path, names: list[str], size: _Size) -> dict[str, pl.DataFrame]:
    """Return decisions, orders and fills of 1 to 30 minutes; `file` is the one that tells of them, -1 for earlier."""
    random, timed = np.random.default_rng(11), size.files * FILE_ORDERS
    count, first, end = size.orders, path.midnight + 600 * _NS, _end(path)
    is_timed = np.arange(count) >= count - timed
    lasts = (np.exp(random.uniform(np.log(60), np.log(1_800), count)) * _NS).astype(np.int64)
    done = np.where(
        is_timed,
        end - random.integers(1, _RECENT_S * _NS, count),
        random.integers(first, end - _RECENT_S * _NS, count),
    )
    arrived = np.maximum(done - lasts, first - 60 * _NS)
    order = np.repeat(np.arange(count), FILLS_AN_ORDER)
    filled = arrived[order] + (random.random(len(order)) * (done - arrived)[order]).astype(np.int64)
    side, lots = random.choice([-1, 1], count), random.integers(1, 100, len(order)) / 1_000
    bid = path.bid[np.searchsorted(path.ts, filled) - 1]
    ids = pl.Series(np.arange(count)).cast(pl.String).str.zfill(6)
    file = pl.Series(np.where(is_timed, (np.arange(count) - (count - timed)) // FILE_ORDERS, -1))
    common = {"symbol": pl.Series(random.choice(names, count)), "side": pl.Series(np.where(side > 0, "buy", "sell"))}
    quantity = np.add.reduceat(lots, np.arange(0, len(order), FILLS_AN_ORDER))
    decided = {"decision_id": "D" + ids, "ts_event": _instants(arrived - 5 * _NS), **common, "quantity": quantity}
    price = path.bid[np.searchsorted(path.ts, arrived - 5 * _NS, side="right") - 1] / 10
    return {
        "decisions": pl.DataFrame(
            {**decided, "ts_recv": decided["ts_event"], "strategy": "book", "price": price, "file": file}
        ),
        "orders": pl.DataFrame(
            {
                **decided,
                "order_id": "O" + ids,
                "ts_event": _instants(arrived),
                "ts_recv": _instants(done),
                "ts_done": _instants(done),
                "status": "filled",
                "file": file,
            }
        ),
        "fills": pl.DataFrame(
            {
                "fill_id": "F" + pl.Series(np.arange(len(order))).cast(pl.String).str.zfill(7),
                "order_id": "O" + ids.gather(order),
                "ts_event": _instants(filled),
                "ts_recv": _instants(filled),
                **{name: values.gather(order) for name, values in common.items()},
                "price": (bid + (side[order] > 0)) / 10,
                "quantity": lots,
                "fee": 0.0,
                "file": file.gather(order),
            }
        ),
    }


def _instants(ns: Any) -> pl.Series:
    return pl.Series(ns).cast(pl.Datetime("ns", "UTC"))


def _take(settings: Any, folder: Path, date: dt.date, names: list[str], desk: dict[str, pl.DataFrame]) -> None:
    """Have what was told earlier taken in, and costed."""
    from quant_platform.pipeline.desk_intake import ingested
    from quant_platform.pipeline.engine import Engine
    from quant_platform.pipeline.open_tca import TABLES

    for kind, rows in desk.items():
        path = _written(folder / f"{kind}.csv", rows)
        taken = ingested(settings, path, ts_intake=time.time_ns())
        if taken.status != "taken":
            raise RuntimeError(f"{path} was {taken.status}: {taken.why}")
    with Engine(settings) as engine:
        for table in TABLES:
            for outcome in engine.run(table, names, [date]):
                if not outcome.is_healthy:
                    raise RuntimeError(f"{outcome.unit}: {outcome.error} {dict(outcome.checks)}")


def _written(path: Path, rows: pl.DataFrame) -> Path:
    rows.drop("file").write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%S%.9fZ")
    return path


class _Watch:
    """Files dropped one after the other, and the rows that are waited for."""

    def __init__(self, settings: Any, date: dt.date, desk: dict[str, pl.DataFrame]) -> None:
        from quant_platform.pipeline.desk_intake import inbox
        from quant_platform.storage.lake import Lake

        self.lake, self.folder, self.date, self.desk = Lake(settings.lake_uri), inbox(settings), date, desk
        self.folder.mkdir(parents=True, exist_ok=True)
        self.of_order = dict(desk["fills"].select("fill_id", "order_id").iter_rows())
        self.missing: dict[tuple[str, str], set[str]] = {}  # by table and symbol
        self.dropped: dict[str, float] = {}  # by order, as `seen` is
        self.seen: dict[str, float] = {}
        self.stamps: dict[Path, int] = {}

    @property
    def left(self) -> int:
        """How many rows have not come."""
        return sum(map(len, self.missing.values()))

    def drop(self, number: int) -> None:
        """Drop the files of one time, each whole under its name at once, that of fills last."""
        for kind, rows in self.desk.items():
            path, own = self.folder / f"{kind}.{number:04}.csv", rows.filter(pl.col("file") == number)
            _written(path.with_suffix(".tmp"), own).rename(path)
            if kind in _ROWS:
                table, name = _ROWS[kind]
                for symbol, ids in own.group_by("symbol").agg(name).iter_rows():
                    self.missing.setdefault((table, symbol), set()).update(ids)
        now = time.time()
        self.dropped |= dict.fromkeys(self.desk["orders"].filter(pl.col("file") == number)["order_id"], now)

    def look(self) -> None:
        """Take note of what has come, and of when the part that holds it was published."""
        for (table, symbol), ids in list(self.missing.items()):
            path = self.lake.path(table, symbol, self.date).with_name(f"{symbol}.0-0.parquet")
            stamp = path.stat().st_mtime_ns if path.is_file() else 0
            if stamp == self.stamps.get(path):
                continue
            self.stamps[path] = stamp
            name = "order_id" if table == _ROWS["orders"][0] else "fill_id"
            found = ids & set(pl.read_parquet(path, columns=[name], glob=False)[name])
            for one in found:
                order = self.of_order.get(one, one)
                self.seen[order] = max(self.seen.get(order, 0.0), stamp / 1e9)
            if found == ids:
                del self.missing[table, symbol]
            else:
                self.missing[table, symbol] = ids - found


_ROWS = {"orders": ("execution/tca_orders", "order_id"), "fills": ("execution/tca_fills", "fill_id")}


def _watched(
    settings: Any, environment: dict[str, str], date: dt.date, desk: dict[str, pl.DataFrame], files: int
) -> tuple[list[float], dict[str, float]]:
    """Return the seconds of each order of the files that are timed, and the most memory of the processes."""
    from quant_platform.defs.instance import dagster_instance

    watch, peaks = _Watch(settings, date, desk), {"run": 0.0, "all": 0.0}
    qp = str(Path(sys.executable).with_name("qp"))
    up = subprocess.Popen([qp, "up"], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        with dagster_instance(settings) as instance:
            _await_daemon(instance)
        started, number = time.monotonic(), 0
        while (number < files or watch.left) and up.poll() is None:
            elapsed = time.monotonic() - started
            if elapsed > files * FILE_EVERY_S + _PATIENCE_S:
                raise RuntimeError(f"{watch.left} rows never came.")
            if number < files and elapsed >= number * FILE_EVERY_S:
                watch.drop(number)
                number += 1
            watch.look()
            peaks = {what: max(peaks[what], megabytes) for what, megabytes in _memory(up.pid).items()}
            time.sleep(_POLL_S)
    finally:
        up.send_signal(signal.SIGINT)
        up.wait(60)
    if up.returncode:
        raise RuntimeError(f"`qp up` ended with {up.returncode}.")
    return [at - watch.dropped[order] for order, at in watch.seen.items()], peaks


def _await_daemon(instance: Any) -> None:
    """Wait until the daemon has looked at the desk's sensor: the first files are not to pay for its start."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        states = [state for state in instance.all_instigator_state() if state.instigator_name == "desk_files"]
        if any(getattr(state.instigator_data, "last_tick_timestamp", None) for state in states):
            return
        time.sleep(1)
    raise RuntimeError("The daemon has not looked at its sensors.")


def _memory(root: int) -> dict[str, float]:
    """Return MB now: of all processes below one together, and of the largest that executes a run."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = {"run": 0.0, "all": 0.0}, [(root, False)]
    while waiting:
        pid, is_run = waiting.pop()
        with suppress(OSError):
            rollup = (Path("/proc") / str(pid) / "smaps_rollup").read_text(encoding="utf-8").splitlines()
            kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
            found["all"] += kib["Pss"] * 1_024 / 1e6
            is_one = b"run_launcher" in (Path("/proc") / str(pid) / "cmdline").read_bytes()
            found["run"] = max(found["run"], kib["Rss"] * 1_024 / 1e6 if is_run or is_one else 0.0)
            waiting += [(child, is_run or is_one) for child in children.get(pid, [])]
    return found
