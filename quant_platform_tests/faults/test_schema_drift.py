"""A venue's files and messages of another shape, met by `qp backfill` and `qp collect` as processes of their own."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.units import Outcome
from quant_platform.settings import Instrument, Settings
from quant_platform.simulation.market import MarketParams, write_archive
from quant_platform.storage.lake import Lake
from quant_platform_tests.outside import NOBODY_ASKED
from quant_platform_tests.scripted_venue import Venue, landed_lines, qp_collect, until

QP = Path(sys.executable).with_name("qp")
DAY, FEED_DAY = date(2024, 3, 4), date(2024, 8, 8)
NAMELESS, PRICELESS = set(range(101, 104)), set(range(111, 116))

Line = list[str]


def renamed(lines: list[Line]) -> list[Line]:
    return [["timestamp" if name == "time" else name for name in lines[0]], *lines[1:]]


def exchanged(lines: list[Line]) -> list[Line]:
    return [[line[0], line[2], line[1], *line[3:]] for line in lines]


def widened(lines: list[Line]) -> list[Line]:
    return [[*lines[0], "is_best_match", "venue"], *([*line, "true", "X"] for line in lines[1:])]


def retyped(lines: list[Line]) -> list[Line]:
    return [lines[0], *([*line[:4], "2024-03-04T00:00:00Z", *line[5:]] for line in lines[1:])]


DRIFTS: dict[str, tuple[Callable[[list[Line]], list[Line]], str]] = {
    "RENAMED": (renamed, "RENAMED-trades-2024-03-04.zip, line 1: column 5 is called 'timestamp', and 'time' is"),
    "EXCHANGED": (exchanged, "EXCHANGED-trades-2024-03-04.zip, line 1: column 2 is called 'qty', and 'price' is"),
    "WIDENED": (
        widened,
        "WIDENED-trades-2024-03-04.zip, line 1 has 8 columns, and a trades file has 6 or 7 (id, price",
    ),
    "RETYPED": (retyped, "(100.00%; the limit is 1.00%). Most often ts_event|integer: "),
}


def drift(path: Path, change: Callable[[list[Line]], list[Line]]) -> None:
    """Have the publisher bring the file in another shape, its checksum right."""
    name = f"{path.stem}.csv"
    with zipfile.ZipFile(path) as archive:
        lines = [line.split(",") for line in archive.read(name).decode().splitlines()]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "".join(f"{','.join(line)}\n" for line in change(lines)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{digest}  {path.name}\n")


@pytest.mark.timeout(120)
def test_archive_files_of_another_shape_are_named_and_the_others_are_loaded(tmp_path: Path) -> None:
    symbols, row = ["SOUND", *DRIFTS], {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    instruments = [Instrument(symbol=s, venue_symbol=s, **row) for s in symbols]
    archive = tmp_path / "archive"
    archive.mkdir()
    small = MarketParams(trades_per_day=300, quotes_per_day=300)
    files = {path.name: path for path in write_archive(archive, instruments=instruments, dates=[DAY], params=small)}
    for symbol, (change, _) in DRIFTS.items():
        drift(files[f"{symbol}-trades-{DAY}.zip"], change)
    config = tmp_path / "platform.yaml"
    settings = {
        "partitions": {"start": "2024-03-01"},
        "pipeline": {"workers": 0},
        "feeds": {"binance_usdm": {"archive_url": archive.as_uri()}},
        "instruments": [{"symbol": s, "venue_symbol": s, **row} for s in symbols],
    }
    config.write_text(json.dumps(settings))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("QP_", "DAGSTER_"))}
    environment |= {**NOBODY_ASKED, "QP_HOME": str(tmp_path / "home"), "QP_CONFIG": str(config)}

    command = [QP, "backfill", "--from", str(DAY), "--to", str(DAY)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    said = " ".join((done.stdout + done.stderr).split())
    for symbol, (_, sentence) in DRIFTS.items():
        assert f"market/trades {symbol} {DAY}: " in said
        assert sentence in said
    assert "rows, the first in line 2 of RETYPED-trades-2024-03-04.zip." in said
    lake = Lake((tmp_path / "home/lake").as_uri())
    tape = lake.scan("market/trades").collect()
    assert set(tape["symbol"]) == {"SOUND"}
    for table in ("market/bars_1s", "market/bars_1m", "microstructure/vpin"):
        assert list(lake.symbol_days(table)) == [("SOUND", DAY)]
    assert lake.scan("market/quotes").collect()["symbol"].n_unique() == len(symbols)  # whose files are as they were


def without(message: bytes, field: str, instead: str) -> bytes:
    """Return a message in which the venue calls a field otherwise."""
    return message.replace(f'"{field}":'.encode(), f'"{instead}":'.encode())


def built(settings: Settings) -> tuple[dict[str, Outcome], dict[str, pl.DataFrame]]:
    """Take what was captured through the tape, as near real time does; return how that went, and the tapes."""
    with Engine(settings) as engine:
        outcomes = engine.run("market/trades", ["BTCUSDT", "ETHUSDT"], [FEED_DAY])
        tapes = {o.unit.symbol: engine.lake.scan("market/trades", [o.unit.symbol]).collect() for o in outcomes}
    return {outcome.unit.symbol: outcome for outcome in outcomes}, tapes


def test_messages_with_renamed_fields_are_named_kept_and_not_loaded(tmp_path: Path) -> None:
    async def scenario() -> Settings:
        async with Venue(step_ms=1_000) as venue, qp_collect(tmp_path, venue, "BTCUSDT", "ETHUSDT") as settings:
            await until(lambda: sum(len(streams) for _, streams in venue.connections) == 6, 30)
            venue.unknown.update(range(101, 104))  # REST has not what the stream has not told of
            for number in range(1, 121):
                message = venue.trade()
                if number in NAMELESS:
                    message = without(message, "t", "id")
                elif number in PRICELESS:
                    message = without(message, "p", "price")
                await venue.send(message, venue.trade("ETHUSDT"))
            for symbol in ("BTCUSDT", "ETHUSDT"):
                await until(lambda symbol=symbol: len(landed_lines(settings.home, symbol)) >= 120)
            await until(lambda: any(b"@gap" in line.text for line in landed_lines(settings.home)))
            return settings

    settings = asyncio.run(scenario())
    said = (tmp_path / "log").read_text()
    assert "message_not_understood" in said
    assert "Object missing `t` - at `$.data`" in said
    outcomes, tapes = built(settings)
    assert tapes["ETHUSDT"]["trade_id"].to_list() == list(range(1, 121))
    assert not outcomes["ETHUSDT"].is_red
    sound = set(range(1, 121)) - NAMELESS - PRICELESS
    assert set(tapes["BTCUSDT"]["trade_id"]) == sound
    assert outcomes["BTCUSDT"].is_red
    found = pl.read_parquet(settings.quarantine / f"market/trades/date={FEED_DAY}/BTCUSDT.part*.parquet")
    columns = Counter(rule.partition("|")[0] for rule in found["rule"])
    assert columns == {"trade_id": len(NAMELESS), "price": len(PRICELESS)}
    first = found.row(by_predicate=pl.col("raw").str.contains('"t":111,', literal=True), named=True)
    assert outcomes["BTCUSDT"].checks["contract"].detail == (
        "8 of 120 rows broke a rule (6.67%; the limit is 1.00%). Most often price|nullability: 5 rows, the first in "
        f"line {first['source_line']} of {first['source_file']}."
    )
