"""Trades that the venue sends after the bar of their minute was built: that bar is revised, and no other."""

import asyncio
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.units import UnitStatus
from quant_platform.settings import Settings
from quant_platform.storage.landing import Manifest, Segment
from quant_platform_tests.scripted_venue import Scripted, Venue, qp_collect, until

SYMBOL, DAY = "BTCUSDT", date(2024, 8, 8)
CLOSED = datetime(2024, 8, 9, tzinfo=UTC)
TABLES = ("market/trades", "market/gaps", "market/bars_1s", "market/bars_1m")
LATE = (20, 21)
# A trade a second from 23:54:16 on: 44 of them in the first minute, 60 in each of the next two.
AT = [datetime(2024, 8, 8, 23, minute, tzinfo=UTC) for minute in (54, 55, 56)]


def followed(settings: Settings, closed_before: datetime | None = None) -> dict[str, pl.DataFrame]:
    """Take what was captured through the tables, as near real time does; return their rows."""
    with Engine(settings) as engine:
        for table in TABLES:
            (outcome,) = engine.run(table, [SYMBOL], [DAY], closed_before=closed_before)
            assert outcome.status is (UnitStatus.OK if closed_before else UnitStatus.OPEN), outcome
        return {t: engine.lake.scan(t, [SYMBOL], DAY, DAY).collect() for t in TABLES}


def segments(settings: Settings) -> list[Segment]:
    return Manifest(settings.landing).segments("binance_usdm", SYMBOL)


def test_trades_after_their_bars_close_revise_it_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> Settings:
        async with Venue(step_ms=1_000) as venue, qp_collect(tmp_path, venue, SYMBOL) as settings:
            await venue.connected()
            venue.scripted.append(Scripted(429, {"Retry-After": "600"}))  # the late ones come from nowhere else
            for _ in range(200):
                message = venue.trade()
                if venue.made[SYMBOL] not in LATE:
                    await venue.send(message)
            await until(lambda: sum(segment.rows for segment in segments(settings)) == 198)
            before = await asyncio.to_thread(followed, settings)
            assert before["market/bars_1m"].select("ts_open", "trade_count", "volume", "revision").rows() == [
                (AT[0], 42, 21.0, 0),
                (AT[1], 60, 30.0, 0),
                (AT[2], 60, 30.0, 0),
            ]
            assert before["market/gaps"].select("first_id", "last_id", "status").rows() == [(*LATE, "open")]

            await venue.send(*(venue.trade_message(trade_id) for trade_id in LATE))
            await until(lambda: any(segment.last_id == LATE[1] for segment in segments(settings)))
            after = await asyncio.to_thread(followed, settings)
            is_first = pl.col("ts_open") == AT[0]
            (bar,) = after["market/bars_1m"].filter(is_first).to_dicts()
            assert (bar["trade_count"], bar["volume"], bar["revision"]) == (44, 22.0, len(LATE))
            assert bar["ts_known"] > before["market/bars_1m"].filter(is_first)["ts_known"].item()
            assert_frame_equal(after["market/bars_1m"].filter(~is_first), before["market/bars_1m"].filter(~is_first))
            return settings

    settings = asyncio.run(scenario())
    closed = followed(settings, CLOSED)
    assert closed["market/trades"]["trade_id"].to_list() == list(range(1, 201))
    assert closed["market/bars_1m"]["trade_count"].to_list() == [44, 60, 60, 36]
    again = settings.model_copy(update={"home": tmp_path / "again", "lake_uri": (tmp_path / "again/lake").as_uri()})
    shutil.copytree(settings.landing, again.landing)
    for table, rows in followed(again, CLOSED).items():
        assert_frame_equal(closed[table], rows)
