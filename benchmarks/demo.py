"""Claim: the demo takes a simulated week through every asset in less than a minute."""

import os
import subprocess
import sys
import time
from pathlib import Path
from shutil import rmtree

from _harness import ROOT, Measurement, Result, Verdict, interleaved


def measure(folder: Path, *, rounds: int, is_quick: bool) -> Result:
    """Time `qp demo` in a process of its own on an empty QP_HOME."""
    del is_quick  # one round of it is quick enough
    home = folder / "home"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("QP_", "DAGSTER_"))} | {
        "QP_HOME": str(home),
        "QP_CONFIG": str(ROOT / "platform.yaml"),
        "DO_NOT_TRACK": "1",
    }

    def demo() -> float:
        rmtree(home, ignore_errors=True)
        start = time.perf_counter()
        done = subprocess.run(
            [str(Path(sys.executable).with_name("qp")), "demo"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"`qp demo` ended with {done.returncode}: {(done.stderr + done.stdout)[-2_000:]}")
        return seconds

    row = Measurement(name="qp demo", values=interleaved({"qp demo": demo}, rounds)["qp demo"])
    return Result(
        title="The demo, after installation",
        unit="s",
        how="`qp demo` on an empty QP_HOME, process start included: seven dates of three symbols, simulated as "
        "official archive zips, ingested, computed, checked and reported.",
        measurements=[row],
        verdicts=[Verdict(claim="seconds", measured=row.median, floor=120, goal=60, is_more_better=False)],
    )
