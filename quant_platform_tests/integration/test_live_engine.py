"""The live engine against the batch: opened from whatever the disk has, stepped in any chunks, it says the same."""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.contracts._schema import contract_of, polars_schema
from quant_platform.feeds.binance import describe
from quant_platform.live import opening, writer
from quant_platform.live.engine import KEYS, Engine
from quant_platform.live.hours import served_from
from quant_platform.live.opening import BOOK, FOLDED, HIDDEN, QUOTES, SWEEPS, TAPE, TRADES
from quant_platform.live.window import Chunk
from quant_platform.pipeline.engine import Engine as Pipeline
from quant_platform.pipeline.pending import FOLLOWING
from quant_platform.storage import redis_keys
from quant_platform.storage.landing import Writer
from quant_platform.storage.live_store import Server, connect
from quant_platform_tests.landed import at_ms, land, market
from quant_platform_tests.unit.pipeline.conftest import MakeEngine, settings_below

YESTERDAY, DAY = date(2024, 8, 7), date(2024, 8, 8)
SYMBOL = "AAA"
CLOSED = datetime(2024, 8, 9, tzinfo=UTC)
SIZE = {"default_bucket_size": 60.0}
SHOWN = {table: (key, family) for family, keys in KEYS.items() for key, table in keys.items()}
COLUMNS_OF_RECEIPT = ["ts_known"]  # a row's own latest receipt: live has it from another cut


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[MakeEngine]:
    with ExitStack() as opened:
        yield lambda **given: opened.enter_context(Pipeline(settings_below(tmp_path, instrument=SIZE, **given)))


@pytest.fixture(scope="module")
def days() -> tuple[list[bytes], list[bytes]]:
    before = market(SYMBOL, at_ms(YESTERDAY, 23.5), seconds=1_600, seed=5)
    first_id = 1 + sum(b"@trade" in line for line in before)
    return before, market(SYMBOL, at_ms(DAY, 0.2), seconds=1_500, seed=6, first_id=first_id)


def follow(engine: Pipeline, day: date, *, closed_before: datetime | None = None) -> None:
    for table in FOLLOWING:
        (outcome,) = engine.run(table, [SYMBOL], [day], closed_before=closed_before)
        assert outcome.status.is_usable, outcome.error


def rows(engine: Pipeline, table: str, day: date = DAY) -> pl.DataFrame:
    names = polars_schema(contract_of(table)).names()
    return engine.lake.scan(table, [SYMBOL], day, day).select(names).collect().sort(contract_of(table).sorted_by)


def grow(engine: Pipeline, lines: list[bytes]) -> Writer:
    """Append lines to the segment that grows, durably, and leave it open."""
    settings = engine.settings
    writer = Writer(settings.landing, "binance_usdm", SYMBOL, describe, segment_s=60, segment_bytes=1 << 26)
    for line in lines:
        received, _, payload = line.partition(b" ")
        writer.append([int(received), payload, *describe(payload)])
    writer.flush()
    return writer


def live_engine(engine: Pipeline, **changes: Any) -> tuple[Engine, opening.Opened]:
    settings = engine.settings
    one = Engine(settings, [SYMBOL])
    opened = opening.opened(settings, engine.lake, SYMBOL, DAY)
    noon = at_ms(DAY, 12) * 1_000_000
    one.adopt(opened, served_from(settings, settings.instrument(SYMBOL), noon), is_roll=False, **changes)
    return one, opened


def chunks(engine: Pipeline, opened: opening.Opened, seed: int) -> Iterator[Chunk]:
    """Yield what comes after a symbol's position, cut at random times of the market."""
    rng = random.Random(seed)
    frames = [rows(engine, table) for table in (TRADES, QUOTES, "market/book")]
    trades = frames[0].filter(pl.col("trade_id") > (opened.position.last_trade_id or 0))
    instant = pl.col("ts_event").to_physical()
    quotes = frames[1].filter(instant > (opened.position.last_quote or (0, 0))[0])
    times = sorted(rng.sample(trades["ts_event"].to_physical().to_list(), 40))
    for start, end in zip([0, *times], [*times, 2**62], strict=True):
        yield Chunk(*(frame.filter(instant >= start, instant < end) for frame in (trades, quotes, frames[2])))


@pytest.mark.parametrize("stage", ["closed yesterday", "yesterday still open", "parts of today", "nothing in the lake"])
def test_what_is_served_is_what_the_batch_computes(  # noqa: C901  # one story, told in order
    pipeline: MakeEngine, days: tuple[list[bytes], list[bytes]], stage: str
) -> None:
    before, today = days
    one = pipeline()
    land(one.settings, SYMBOL, before[:3000], before[3000:])
    if stage != "nothing in the lake":
        follow(one, YESTERDAY, closed_before=CLOSED if stage != "yesterday still open" else None)
    land(one.settings, SYMBOL, today[:2000])
    if stage == "parts of today":
        follow(one, DAY)
    land(one.settings, SYMBOL, today[2000:3000])
    writer = grow(one, today[3000:4000])
    engine, opened = live_engine(one)
    landed = [int(line.split(b'"t":')[1].split(b",")[0]) for line in today[:4000] if b"@trade" in line]
    # What follows the last quote comes with the streams.
    assert opened.position.last_trade_id in landed[-5:]
    for line in today[4000:]:
        received, _, payload = line.partition(b" ")
        writer.append([int(received), payload, *describe(payload)])
    writer.close()
    for day in (YESTERDAY, DAY):
        follow(one, day, closed_before=CLOSED)

    served: dict[str, list[pl.DataFrame]] = {table: [opened.rows[table]] for table in (*FOLDED, BOOK)}
    for chunk in chunks(one, opened, seed=7):
        engine.feed(chunk)
        for family in ("vpin", "flow_toxicity", "order_book", "sweep_detection", "flow_clustering"):
            engine.run(family, [SYMBOL], {}, {})
        for table, found in served.items():
            found.append(engine.closed(table))
    assert not engine.errors
    for table in FOLDED:
        shown, expected = engine.shown(*SHOWN[table], [SYMBOL]), rows(one, table)
        if table == SWEEPS:  # its key shows the newest run of trades, whether it is a sweep or not
            shown = shown.clear()
        sorting = contract_of(table).sorted_by
        found = opening.newest(table, pl.concat([*served[table], shown])).sort(sorting)
        found = found.filter(pl.col(sorting[0]).dt.date() == DAY)
        if table == HIDDEN:  # one row a trade: only the newest is kept
            found, expected = found.tail(1), expected.tail(1)
        assert found.height >= min(expected.height, 1), table
        known = expected if table != SWEEPS else expected.join(found, on=sorting, how="semi")
        assert_frame_equal(found.drop(COLUMNS_OF_RECEIPT), known.drop(COLUMNS_OF_RECEIPT), rel_tol=1e-9, abs_tol=1e-12)
    assert rows(one, TAPE).height == rows(one, TRADES).height


def test_a_discovered_bucket_size_holds_from_the_open_on_in_both_clocks(
    pipeline: MakeEngine, days: tuple[list[bytes], list[bytes]]
) -> None:
    one = pipeline()
    land(one.settings, SYMBOL, days[1])
    key, redis_name = opening.VPIN, redis_keys.DISCOVERED_BUCKET_SIZE.name()
    with Server(one.settings), connect(one.settings) as client:
        for payload in (b"17.5", b'{"AAA": 17.5, "BBB": 3}', b'"many"', b"-1"):
            client.set(redis_name, payload)
            opened = writer._opened(one.settings, one.lake, SYMBOL, DAY)
            assert opened.rows[key]["bucket_size"].unique().to_list() == [17.5], "the first one of a date stays"
    follow(one, DAY, closed_before=CLOSED)
    assert rows(one, key)["bucket_size"].unique().to_list() == [17.5]
    assert rows(one, "microstructure/vpin_buckets")["bucket_size"].unique().to_list() == [17.5]


@pytest.mark.parametrize("payload", [b'"many"', b"-1", b"0", b"null", b"nan", b'{"BBB": 3}', b"\xff"])
def test_what_is_no_bucket_size_is_ignored(payload: bytes) -> None:
    assert writer._bucket_size(payload, SYMBOL) is None
