"""Served payloads on their way to disk: all of them, each once, in order; and nobody waits for a disk that stands."""

import json
import os
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from quant_platform.live.archive import Archive
from quant_platform.settings import Settings
from quant_platform.storage import live_archive
from quant_platform.storage.redis_keys import OBI, VPIN

DAY, NEXT = date(2024, 8, 8), date(2024, 8, 9)
MB = 1_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def archive(settings: Settings) -> Iterator[Archive]:
    one = Archive(settings)
    yield one
    one.stop()


def payload(number: int, **more: object) -> bytes:
    return json.dumps({"seq": number, **more}).encode()


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in (live_archive.read(file) or b"").splitlines()]


def test_each_payload_is_a_line_of_its_symbol_and_date(settings: Settings, archive: Archive) -> None:
    dates = {"AAA": DAY, "X/Y 1": NEXT}
    archive.put(dates, VPIN, {"AAA": payload(1), "X/Y 1": payload(7)})
    archive.put(dates, OBI, {"AAA": payload(2)})
    archive.put({"AAA": NEXT}, OBI, {"AAA": payload(3)})
    archive.stop()
    root = settings.landing / "live_values"
    assert sorted(str(file.relative_to(root)) for file in root.rglob("*.jsonl")) == [
        "AAA/2024-08-08.jsonl",
        "AAA/2024-08-09.jsonl",
        "X%2FY%201/2024-08-09.jsonl",
    ]
    assert lines(root / "AAA/2024-08-08.jsonl") == [
        {"metric": "vpin", "payload": {"seq": 1}},
        {"metric": "obi", "payload": {"seq": 2}},
    ]
    assert lines(root / "AAA/2024-08-09.jsonl") == [{"metric": "obi", "payload": {"seq": 3}}]
    assert lines(root / "X%2FY%201/2024-08-09.jsonl")[0]["payload"] == {"seq": 7}
    assert archive.dropped == 0


def test_what_is_put_is_written_without_a_stop(settings: Settings, archive: Archive) -> None:
    file = live_archive.path(settings.landing, "AAA", DAY)
    for number in range(2):
        archive.put({"AAA": DAY}, VPIN, {"AAA": payload(number)})
        patience = time.monotonic() + 10
        while len(lines(file)) <= number and time.monotonic() < patience:
            time.sleep(0.02)
        assert len(lines(file)) == number + 1


def test_a_restart_cuts_what_a_killed_writer_left_torn(settings: Settings, archive: Archive) -> None:
    file = live_archive.path(settings.landing, "AAA", DAY)
    live_archive.append(file, live_archive.line("vpin", payload(1)))
    with file.open("ab") as killed:
        killed.write(live_archive.line("vpin", payload(2))[:-9])
    assert [line["payload"]["seq"] for line in lines(file)] == [1]  # a reader passes it over

    archive.put({"AAA": DAY}, VPIN, {"AAA": payload(3)})
    archive.stop()
    assert file.read_bytes().endswith(b"\n")
    assert [line["payload"]["seq"] for line in lines(file)] == [1, 3]


def test_file_that_holds_nothing_but_a_torn_line_begins_anew(settings: Settings) -> None:
    file = live_archive.path(settings.landing, "AAA", DAY)
    live_archive.append(file, b'{"metric')
    assert live_archive.read(file) is None
    live_archive.append(file, live_archive.line("vpin", payload(1)))
    assert [line["payload"]["seq"] for line in lines(file)] == [1]


def test_nobody_waits_for_a_disk_that_stands_still_and_what_is_lost_is_counted(
    settings: Settings, archive: Archive
) -> None:
    file = live_archive.path(settings.landing, "AAA", DAY)
    file.parent.mkdir(parents=True)
    os.mkfifo(file)  # takes 64 kB, and then nothing
    large = payload(0, pad="x" * MB)
    slowest = 0.0
    for _ in range(100):
        started = time.perf_counter()
        archive.put({"AAA": DAY}, VPIN, {"AAA": large})
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 0.25
    assert archive.dropped == 100 - 63  # 64 MB wait, and no more
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    patience, taken = time.monotonic() + 20, 0
    while taken < 63 * MB and time.monotonic() < patience:  # the disk moves again
        try:
            taken += len(os.read(reader, MB))
        except BlockingIOError:
            time.sleep(0.001)
    assert taken >= 63 * MB
    archive.stop()
    archive_again = archive.dropped
    assert archive_again == 37
    os.close(reader)


def test_disk_that_refuses_is_counted_and_the_next_payload_is_tried(settings: Settings, archive: Archive) -> None:
    folder = live_archive.path(settings.landing, "AAA", DAY).parent
    folder.parent.mkdir(parents=True)
    folder.write_text("a file in the folder's place")
    archive.put({"AAA": DAY, "BBB": DAY}, VPIN, {"AAA": payload(1), "BBB": payload(1)})
    patience = time.monotonic() + 10
    while archive.dropped == 0 and time.monotonic() < patience:
        time.sleep(0.02)
    folder.unlink()
    archive.put({"AAA": DAY}, VPIN, {"AAA": payload(2)})
    archive.stop()
    assert archive.dropped == 1
    assert [line["payload"]["seq"] for line in lines(live_archive.path(settings.landing, "AAA", DAY))] == [2]
    assert len(lines(live_archive.path(settings.landing, "BBB", DAY))) == 1


def test_a_minute_of_five_hundred_symbols_costs_little(settings: Settings, archive: Archive) -> None:
    symbols = [f"S{number}" for number in range(500)]
    dates, text = dict.fromkeys(symbols, DAY), payload(1, pad="x" * 700)
    started = time.process_time()
    put = 0.0
    for _ in range(8):
        begun = time.perf_counter()
        archive.put(dates, VPIN, dict.fromkeys(symbols, text))
        put += time.perf_counter() - begun
    archive.stop()
    assert time.process_time() - started < 3.0  # of sixty
    assert put < 0.5
    files = list((settings.landing / "live_values").rglob("*.jsonl"))
    assert len(files) == 500
    assert {file.read_bytes().count(b"\n") for file in files} == {8}
