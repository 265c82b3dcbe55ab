"""Files in which collectors tell of themselves: whole ones of processes that run."""

import os
from pathlib import Path

from quant_platform.live import _status

NO_PID = 4_194_305  # above the greatest that Linux gives


def test_what_a_killed_process_left_goes_when_another_begins(tmp_path: Path) -> None:
    folder = tmp_path / "collectors"
    folder.mkdir()
    for name in (f"{NO_PID}.json", f"{NO_PID}.json.0f0f.tmp", f"{os.getpid()}.json.0f0f.tmp"):
        (folder / name).write_text("{")
    one = _status.StatusFile(tmp_path, ts_started=7)
    assert [path.name for path in folder.iterdir()] == [f"{os.getpid()}.json.0f0f.tmp"]
    chains = {"SPX": {"contracts": 4}}
    one.write(one.state([], ["AAA"], {}, now_s=0.0, chains=chains))
    told = {"pid": os.getpid(), "ts_started": 7, "symbols": {}, "chains": chains, "waiting": ["AAA"]}
    assert _status.read(tmp_path) == [told]
    one.remove()
    assert _status.read(tmp_path) == []
