"""The demo's own command at a small size: nobody outside is asked anything, and it gives the same bytes each time."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from quant_platform.pipeline.recipes import RECIPES
from quant_platform.storage.lake import Lake

PROJECT = Path(__file__).resolve().parents[2]
# Loaded by every Python that the command starts: only loopback and local sockets may be reached.
NO_NETWORK = """
import ipaddress, os, socket

def _note(what):
    with open(os.environ["QP_TEST_CALLS"], "a") as calls:
        print(what, file=calls)
    raise OSError(f"this test allows loopback only, not {what}")

def _is_local(host):
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

def _guarded(original):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            _note(address)
        return original(self, address)
    return connect

socket.socket.connect = _guarded(socket.socket.connect)
socket.socket.connect_ex = _guarded(socket.socket.connect_ex)
_resolve = socket.getaddrinfo

def getaddrinfo(host, *args, **kwargs):
    if not _is_local(host):
        _note(host)
    return _resolve(host, *args, **kwargs)

socket.getaddrinfo = getaddrinfo
with open(os.environ["QP_TEST_CALLS"] + ".guarded", "a") as guarded:
    print(os.getpid(), file=guarded)
"""
SMALL_DEMO = """
import dataclasses, sys

if __name__ == "__main__":
    from quant_platform import cli
    from quant_platform.defs import demo

    demo.DAYS = 2
    demo.DESK = dataclasses.replace(demo.DESK, orders_per_day=12)
    demo.PARAMS = dataclasses.replace(demo.PARAMS, trades_per_day=2_000, quotes_per_day=2_000)
    sys.argv = ["qp", "demo"]
    cli.main()
"""


class Demo(NamedTuple):
    """One run of the demo."""

    home: Path
    out: str
    guarded: list[str]
    calls: list[str]


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> list[Demo]:
    """Run the small demo twice, side by side, in homes of their own."""
    root = tmp_path_factory.mktemp("demo")
    (root / "sitecustomize.py").write_text(NO_NETWORK)
    script = root / "small_demo.py"
    script.write_text(SMALL_DEMO)
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("QP_", "DAGSTER_", "DO_NOT", "DBT_"))}
    started = []
    for name in ("one", "two"):
        home, calls = root / name / "home", root / f"{name}.calls"
        own = {"QP_HOME": str(home), "QP_CONFIG": str(PROJECT / "platform.yaml"), "QP_TEST_CALLS": str(calls)}
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=root,
            env=outside | own | {"PYTHONPATH": str(root), "QP_PIPELINE__WORKERS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append((home, calls, process))
    done = []
    for home, calls, process in started:
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, out + err
        guarded = calls.with_name(f"{calls.name}.guarded").read_text().split()
        done.append(Demo(home, out, guarded, calls.read_text().splitlines() if calls.exists() else []))
    return done


def tree(home: Path) -> dict[str, str]:
    lake = home / "lake"
    files = (path for path in lake.rglob("*") if path.is_file())
    return {str(path.relative_to(lake)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_demo_asks_nobody_outside_this_machine(demos: list[Demo]) -> None:
    for demo in demos:
        assert len(set(demo.guarded)) >= 2  # the command and its workers' server
        assert demo.calls == []


def test_demo_gives_the_same_bytes_in_another_home(demos: list[Demo]) -> None:
    one, two = (tree(demo.home) for demo in demos)

    assert len(one) == 2 * sum(1 if recipe.is_cross_symbol else 3 for recipe in RECIPES.values())  # of two dates
    assert one == two


def test_each_dates_tca_report_is_told_as_an_event(demos: list[Demo]) -> None:
    home = demos[0].home
    told = Lake((home / "lake").as_uri()).scan("events/out/tca_report").collect()

    assert told.height == 2
    assert all((home / page).is_file() for page in told["path"])
    assert told["orders"].min() > 0


def test_demo_ends_with_a_summary_and_the_next_step(demos: list[Demo]) -> None:
    out = demos[0].out

    assert "market/trades" in out
    assert "0 failed" in out
    assert "bytes each" in out
    assert "make up" in out
    report: Any = next(line for line in out.splitlines() if line.startswith("Report: "))
    assert Path(report.removeprefix("Report: ")).is_file()
