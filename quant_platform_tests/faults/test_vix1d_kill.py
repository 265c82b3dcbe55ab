"""`kill -9` of who puts readings of VIX1D on record: what was acknowledged is there, each once, and nothing is torn."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quant_platform.storage import vix1d_archive
from quant_platform.storage.vix1d_archive import Reading

S = 1_000_000_000
START = 1_709_856_000 * S  # midnight of 8 March 2024
_WRITER = """
import sys
from pathlib import Path
from quant_platform.storage.vix1d_archive import Reading, append

landing, start = Path(sys.argv[1]), int(sys.argv[2])
for n in range(1_000_000):
    # Every tenth reading is of the next date, and each one comes with the one before it again.
    times = [(k, start + k * 10**9 + (k % 10 == 0) * 86_400 * 10**9) for k in (max(n - 1, 0), n)]
    append(landing, [Reading("x" * 3_000, ts, 1, 1.0 + k) for k, ts in times])
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path, seed: int) -> None:
    wait_s = random.Random(seed).uniform(0.05, 0.4)
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path), str(START)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n"
        time.sleep(wait_s)
        os.kill(writer.pid, signal.SIGKILL)
        told = [0, *(int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n"))]
    for day in vix1d_archive.dates(tmp_path):  # what a killed writer left torn, the next one cuts off
        midnight = START + 86_400 * S * (day.day - 8)
        vix1d_archive.append(tmp_path, [Reading("next", midnight, 1, 0.5)])
    days = [vix1d_archive.day(tmp_path, day) for day in vix1d_archive.dates(tmp_path)]
    assert [found.refused for found in days] == [[]] * len(days)
    values = [one.value - 1.0 for found in days for _, one in found.readings if one.source != "next"]
    assert len(values) == len(set(values))
    assert set(values) >= set(map(float, told))
    assert len(values) <= len(told) + 1
