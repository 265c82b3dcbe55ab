"""Processes that meet at one home: each unit is built once, and the ledger loses nothing."""

import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from filelock import FileLock

from quant_platform.pipeline.ledger import Ledger
from quant_platform_tests.unit.pipeline.conftest import Archive, settings_below

DAY = date(2024, 8, 8)

RUNNER = """
import sys
from datetime import date
from pathlib import Path
from quant_platform.pipeline.build import build_unit
from quant_platform.pipeline.units import Unit
from quant_platform.settings import load_settings

settings = load_settings(Path(sys.argv[1]))
print("ready", flush=True)
outcome = build_unit(Unit("market/trades", "AAA", date(2024, 8, 8)), settings)
print(outcome.status, "skipped" if outcome.is_skipped else "built", flush=True)
"""


def test_second_run_on_the_same_unit_waits_and_then_skips(tmp_path: Path) -> None:
    Archive(tmp_path / "archive").put("AAA", DAY)
    settings = settings_below(tmp_path, pipeline={"workers": 2})
    config = tmp_path / "platform.json"  # which is YAML too
    config.write_text(settings.model_dump_json(exclude={"redis_url"}))
    lock = settings.home / "locks" / "market/trades" / DAY.isoformat() / "AAA.lock"
    lock.parent.mkdir(parents=True)
    runners = []
    with FileLock(lock):
        for _ in range(2):
            runner = subprocess.Popen(
                [sys.executable, "-c", RUNNER, str(config)], stdout=subprocess.PIPE, text=True, env=os.environ
            )
            runners.append(runner)
        for runner in runners:
            assert runner.stdout
            assert runner.stdout.readline() == "ready\n"
        time.sleep(1)
        assert [runner.poll() for runner in runners] == [None, None]
        assert not (settings.home / "lake").exists()  # both wait
    answers = sorted(runner.communicate(timeout=60)[0].strip() for runner in runners)
    assert answers == ["ok built", "ok skipped"]


WRITER = """
import sys
from datetime import date, timedelta
from pathlib import Path
from quant_platform.pipeline.ledger import Ledger
from quant_platform.pipeline.units import Outcome, Unit, UnitStatus

path, symbol = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for n in range(100):
    ledger = Ledger(path) if n % 10 == 0 else ledger
    ledger.record([Outcome(Unit("market/trades", symbol, date(2024, 1, 1) + timedelta(days=n)), UnitStatus.OK)])
"""


def test_two_processes_write_at_once_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "home" / "ledger.sqlite"  # made by both at once
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), symbol],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for symbol in "AB"
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=60)[1] for writer in writers] == ["", ""]
    assert len(Ledger(path).outcomes()) == 200
