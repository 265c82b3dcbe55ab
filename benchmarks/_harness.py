"""How every benchmark measures: interleaved rounds, contestants as processes, peers in environments of their own.

Only the standard library: contestants import this module inside their peers' environments. What is measured stands in
the benchmark files, how results are told in _results.py.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = ROOT / ".venv-peers"
LIBRARIES = ("polars", "duckdb", "pyarrow", "pandas", "numpy", "dagster", "websockets", "msgspec", "redis", "hiredis")


class PeerNotInstalledError(Exception):
    """A peer's environment cannot be made; the message is the reason that the table shows."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One line of a table: what one contestant needed in each round, or why it did not run.

    `group` parts a table by input: a line is held against ours, the first of its group.
    """

    name: str
    group: str = ""
    values: Sequence[float] = ()
    note: str = ""
    not_run: str = ""

    @property
    def median(self) -> float:
        """The middle round."""
        return median(self.values)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure against its floor and its goal, each optional."""

    claim: str
    measured: float | None
    floor: float | None = None
    goal: float | None = None
    is_more_better: bool = True


@dataclass(frozen=True, kw_only=True)
class Result:
    """All that a benchmark found."""

    title: str
    unit: str
    how: str
    measurements: Sequence[Measurement]
    verdicts: Sequence[Verdict]
    notes: Sequence[str] = field(default=())


class Worker:
    """A contestant's process. It is started and prepared outside the clock; each `run` is one timed call."""

    def __init__(self, python: Path | str, benchmark: str, contestant: str, **arguments: object) -> None:
        self._process = subprocess.Popen(
            [str(python), str(HERE / "_worker.py"), benchmark, contestant, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def run(self) -> float:
        """Return the seconds of one run."""
        return float(self._ask("run"))

    def save(self, folder: Path) -> None:
        """Have the last run's result written, to compare it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._ask(f"save {folder}")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            command = " ".join(str(a) for a in self._process.args[2:4])  # type: ignore[index]  # we gave a list
            raise RuntimeError(f"The contestant '{command}' ended early: exit code {self._process.wait()}.")
        return str(json.loads(line))


def interleaved(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run all contestants once a round, each round beginning with another one, after one round that does not count."""
    names = list(runs)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            seconds = runs[name]()
            if number >= 0:
                values[name].append(seconds)
        print(f"  round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return values


def peer_python(peer: str, *requirements: str) -> Path:
    """Return the interpreter of a peer's environment, made with uv on first use.

    Raises:
        PeerNotInstalledError: uv cannot make it.
    """
    python = PEERS / peer / "bin" / "python"
    wanted = "\n".join(requirements)
    mark = PEERS / peer / "requirements.txt"
    if mark.is_file() and mark.read_text() == wanted:
        return python
    uv = str(Path(sys.executable).with_name("uv"))
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(PEERS / peer)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise PeerNotInstalledError(f"{' '.join(requirements)} did not install: {reason}")
    mark.write_text(wanted)
    return python


def machine() -> dict[str, str]:
    """Return what the figures depend on: processor, memory, versions."""
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{model}, {os.cpu_count()} logical cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    }
