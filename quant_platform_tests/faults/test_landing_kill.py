"""`kill -9` of a collector's writer: what was flushed is in closed segments once, in order; the next start goes on."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from quant_platform.storage.landing import Entry, LeaseHeldError, Manifest, Segment, Writer

FEED, SYMBOL = "binance_usdm", "BTCUSDT"
WRITER = """
import itertools, os, pathlib, random, signal, sys
from quant_platform.storage import landing

folder, run, dies = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
draw = random.Random(run)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def describe(payload):
    number = int(payload.split()[1])
    return landing.Entry(number, number, number)

if dies == "before the rename":
    pathlib.Path.replace = die
elif dies == "after the rename":
    replace = pathlib.Path.replace
    pathlib.Path.replace = lambda path, target: (replace(path, target), die())
elif dies == "after the row":
    add = landing.Manifest.add
    landing.Manifest.add = lambda manifest, *segments: (add(manifest, *segments), die())
elif dies == "in the middle of a line":
    pwrite = os.pwrite
    calls = itertools.count()
    def half(descriptor, data, offset):
        written = pwrite(descriptor, data[: len(data) // 2 + 1] if next(calls) == 3 else data, offset)
        return written if written == len(data) else die()
    os.pwrite = half

os.write(1, b"started\\n")
writer = landing.Writer(folder, "binance_usdm", "BTCUSDT", describe, segment_s=1e9, segment_bytes=2_000)
number = 0
while True:
    for _ in range(draw.randrange(1, 40)):
        payload = b"%d %d" % (run, number)
        writer.append([run, payload, *describe(payload)])
        number += 1
    writer.flush()
    os.write(1, b"%d\\n" % number)
    if writer.is_due(run):
        writer.roll()
"""


def describe(payload: bytes) -> Entry:
    number = int(payload.split()[1])
    return Entry(number, number, number)


def start(landing: Path, run: int, dies: str = "by the parent") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(landing), str(run), dies], stdout=subprocess.PIPE, text=True
    )


def flushed(process: "subprocess.Popen[str]") -> int:
    """Return how many lines the process said were flushed, of what it had not been asked before."""
    assert process.stdout
    said = process.stdout.read().split()
    return int(said[-1]) if said and said[-1].isdigit() else 0


def whole_segments(landing: Path) -> list[Segment]:
    """Salvage for the last time; return what is listed, after a look at each file."""
    last = Writer(landing, FEED, SYMBOL, describe, segment_s=1, segment_bytes=1)
    last.close()
    segments = Manifest(landing).segments(FEED, SYMBOL)
    folder = landing / "segments" / FEED / SYMBOL
    assert sorted(path.name for path in folder.iterdir()) == [*(s.path.name for s in segments), "lease.lock"]
    assert [segment.number for segment in segments] == list(range(1, len(segments) + 1))
    assert [segment.number for _, segment in Manifest(landing).after(0)] == list(range(1, len(segments) + 1))
    for segment in segments:
        content = segment.path.read_bytes()
        entries = [int(line.split()[2]) for line in content.splitlines()]
        assert content.endswith(b"\n")
        assert (segment.sha256, segment.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
        assert (segment.rows, segment.first_id, segment.last_id) == (len(entries), min(entries), max(entries))
        assert (segment.ts_first, segment.ts_last) == (min(entries), max(entries))
    return segments


def lines_by_run(segments: list[Segment]) -> dict[int, list[int]]:
    """Return the numbers of each run's lines as they stand; the runs come after one another."""
    found: dict[int, list[int]] = defaultdict(list)
    lines = [line.split() for segment in segments for line in segment.path.read_bytes().splitlines()]
    runs = [int(run) for run, _, _ in lines]
    assert runs == sorted(runs)
    for run, same_run, number in lines:
        assert run == same_run
        found[int(run)].append(int(number))
    return found


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])
def test_what_was_flushed_is_there_once_after_any_number_of_kills(tmp_path: Path, kills: int) -> None:
    draw = random.Random(4)
    promised = {}
    for run in range(1, kills + 1):
        with start(tmp_path, run) as process:
            assert process.stdout
            assert process.stdout.readline() == "started\n"
            time.sleep(draw.uniform(0, 0.15))
            os.kill(process.pid, signal.SIGKILL)
            promised[run] = flushed(process)
    found = lines_by_run(whole_segments(tmp_path))
    assert sum(promised.values()) > 0
    for run, count in promised.items():
        assert found[run] == list(range(len(found[run]))), f"run {run} has holes or repetitions"
        assert len(found[run]) >= count, f"run {run} lost lines that were flushed"


@pytest.mark.parametrize("dies", ["before the rename", "after the rename", "after the row", "in the middle of a line"])
def test_kill_at_the_worst_moment_leaves_every_flushed_line_once(tmp_path: Path, dies: str) -> None:
    with start(tmp_path, 1, dies) as process:
        promised = flushed(process)
        assert process.wait(30) == -signal.SIGKILL
    names = {path.name for path in (tmp_path / "segments" / FEED / SYMBOL).iterdir()}
    rows = len(Manifest(tmp_path).segments(FEED, SYMBOL))
    assert ("open.frames" in names, "00000001.frames" in names, rows) == {
        "before the rename": (True, False, 0),
        "after the rename": (False, True, 0),
        "after the row": (False, True, 1),
        "in the middle of a line": (True, False, 0),
    }[dies]
    found = lines_by_run(whole_segments(tmp_path))
    assert found[1] == list(range(len(found[1])))
    assert len(found[1]) >= promised > 0


def test_writer_of_another_process_is_named_and_its_death_frees_the_symbol(tmp_path: Path) -> None:
    with start(tmp_path, 1) as process:
        assert process.stdout
        process.stdout.readline()
        promised = int(process.stdout.readline())
        with pytest.raises(LeaseHeldError, match=rf"pid {process.pid} holds .*lease\.lock.* stop it"):
            Writer(tmp_path, FEED, SYMBOL, describe, segment_s=1, segment_bytes=1)
        process.kill()
    assert len(lines_by_run(whole_segments(tmp_path))[1]) >= promised > 0
