"""Which feed fills which raw table of an instrument, and what a folder without the day, or no folder, comes to."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from quant_platform.pipeline.units import UnitStatus

DAY = date(2024, 8, 8)
NOON_MS = int(datetime(2024, 8, 8, 12, tzinfo=UTC).timestamp()) * 1_000
SNAPSHOT = {"lastUpdateId": 5, "E": NOON_MS, "T": NOON_MS, "bids": [["99", "1"]], "asks": [["100", "2"]]}
QUOTE = {"u": 7, "T": NOON_MS, "E": NOON_MS, "b": "99", "B": "1", "a": "100", "A": "2"}


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Return a folder of frames that hold a quote and a book of AAA."""
    folder = tmp_path / "frames"
    folder.mkdir()
    payloads = [SNAPSHOT, {"stream": "aaa@bookTicker", "data": QUOTE}]
    lines = [f"{NOON_MS * 1_000_000} {json.dumps(payload)}" for payload in payloads]
    (folder / "aaa_20240808.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def built(engine: Any, settings: Any) -> Any:
    """Return a function that builds a raw table of AAA where frames come from a folder: its outcome."""

    def build(table: str, folder: Path | None, **instrument: Any) -> Any:
        feeds = settings().feeds
        feeds = feeds.model_copy(update={"recorded_frames": feeds.recorded_frames.model_copy(update={"path": folder})})
        (outcome,) = engine(feeds=feeds, instrument=instrument).run(table, ["AAA"], [DAY])
        return outcome

    return build


def test_tables_come_from_their_own_sources(built: Any, archive: Any, frames: Path) -> None:
    archive.put("AAA", DAY)
    sources = {"quotes": "recorded_frames", "book": "recorded_frames"}

    outcomes = {table: built(f"market/{table}", frames, sources=sources) for table in ("trades", "quotes", "book")}

    assert {table: (o.status, o.rows) for table, o in outcomes.items()} == {
        "trades": (UnitStatus.OK, 40),
        "quotes": (UnitStatus.OK, 1),
        "book": (UnitStatus.OK, 1),
    }
    assert outcomes["trades"].facts["source"] == f"AAA-trades-{DAY}.zip"
    assert outcomes["book"].facts["source"] == "aaa_20240808.jsonl"


def test_table_can_come_from_the_archive_where_the_others_are_recorded(built: Any, archive: Any, frames: Path) -> None:
    archive.put("AAA", DAY)
    mixed = {"feed": "recorded_frames", "sources": {"trades": "binance_usdm"}}

    assert built("market/trades", frames, **mixed).rows == 40
    assert built("market/quotes", frames, **mixed).rows == 1


def test_day_that_the_folder_lacks_is_absent(built: Any, frames: Path) -> None:
    (frames / "aaa_20240808.jsonl").rename(frames / "aaa_20240807.jsonl")

    assert built("market/book", frames, feed="recorded_frames").status is UnitStatus.ABSENT


def test_archive_has_no_book(built: Any, archive: Any) -> None:
    archive.put("AAA", DAY)

    assert built("market/book", None).status is UnitStatus.ABSENT


def test_depth_that_nobody_simulated_is_absent(built: Any) -> None:
    assert built("market/book", None, sources={"book": "recorded_frames"}).status is UnitStatus.ABSENT


def test_folder_that_is_not_there_is_told(built: Any, tmp_path: Path) -> None:
    outcome = built("market/book", tmp_path / "nowhere", feed="recorded_frames")

    assert outcome.status is UnitStatus.FAILED
    assert f"There is no folder {tmp_path / 'nowhere'}" in outcome.error


def test_recording_that_changed_is_read_again(built: Any, frames: Path) -> None:
    first = built("market/quotes", frames, feed="recorded_frames")
    path = frames / "aaa_20240808.jsonl"
    path.write_text(path.read_text().replace('"u": 7', '"u": 8'))

    second = built("market/quotes", frames, feed="recorded_frames")

    assert not second.is_skipped
    assert second.content_hash != first.content_hash
    assert built("market/quotes", frames, feed="recorded_frames").is_skipped
