"""A small simulated market, homes filled from it, and ways to run `qp` on them; no assertions of what it says."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from filelock import FileLock

from quant_platform.settings import Instrument, Settings, load_settings
from quant_platform.simulation.market import MarketParams, write_archive
from quant_platform.storage.live_store import Server, connect
from quant_platform_tests.outside import NOBODY_ASKED

DAYS = (date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6))
SYMBOLS = ("AAA", "BBB", "CCC")
PROJECT = Path(__file__).resolve().parents[2]
_QP = Path(sys.executable).with_name("qp")


@dataclass(frozen=True)
class Market:
    """An archive of three days of three symbols, and the platform.yaml that names it."""

    archive: Path
    config: Path

    def settings(self, home: Path) -> Settings:
        """Return the settings over this market that write below `home`."""
        return load_settings(self.config).model_copy(update={"home": home, "lake_uri": (home / "lake").as_uri()})

    def file(self, symbol: str, kind: str, day: date) -> Path:
        """Return where the archive keeps a day."""
        return self.archive / f"data/futures/um/daily/{kind}/{symbol}/{symbol}-{kind}-{day}.zip"


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both streams, wrapped lines joined."""
        return " ".join(f"{self.out}\n{self.err}".split())


Qp = Callable[..., Said]


def written_config(root: Path, archive: Path) -> Path:
    """Write the platform.yaml of the small market; return its path."""
    row = "feed: binance_usdm, tick_size: 0.1, lot_size: 0.001"
    lines = [
        "partitions: {start: 2024-03-01}",
        "pipeline: {workers: 0}",
        "feeds:",
        "  binance_usdm:",
        f"    archive_url: '{archive.as_uri()}'",
        "instruments:",
        *(f"  - {{symbol: {s}, venue_symbol: {s}, {row}}}" for s in SYMBOLS),
    ]
    path = root / "platform.yaml"
    path.write_text("\n".join([*lines, ""]))
    return path


Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder once for all workers of a test run: `(name, make)` calls `make` with the folder to fill."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, make: Callable[[Path], None]) -> Path:
        root, finished = shared / name, shared / f"{name}.finished"
        with FileLock(shared / f"{name}.lock"):
            if not finished.exists():
                shutil.rmtree(root, ignore_errors=True)  # of a worker that failed half-way
                root.mkdir()
                make(root)
                finished.touch()
        return root

    return made


@pytest.fixture(scope="session")
def market(once: Once) -> Market:
    """Return the simulated market; whoever spoils files works on a copy."""
    instruments = [
        Instrument(symbol=s, venue_symbol=s, feed="binance_usdm", tick_size=0.1, lot_size=0.001) for s in SYMBOLS
    ]
    few = MarketParams(trades_per_day=2_000, quotes_per_day=2_000)

    def make(root: Path) -> None:
        (root / "archive").mkdir()
        write_archive(root / "archive", instruments=instruments, dates=DAYS, params=few)
        written_config(root, root / "archive")

    root = once("market", make)
    return Market(root / "archive", root / "platform.yaml")


@pytest.fixture
def own_market(market: Market, tmp_path: Path) -> Market:
    """Return a copy of the market that a test may spoil."""
    shutil.copytree(market.archive, tmp_path / "archive")
    return Market(tmp_path / "archive", written_config(tmp_path, tmp_path / "archive"))


def environment(home: Path, config: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command: ours without settings of the outside, and what is named."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("QP_", "DAGSTER_"))}
    return kept | {"QP_HOME": str(home), "QP_CONFIG": str(config), "DO_NOT_TRACK": "1"} | NOBODY_ASKED | more


@pytest.fixture(scope="session")
def qp_started() -> Callable[..., "subprocess.Popen[str]"]:
    """Start `qp` as a process of its own: `(home, config, *arguments, **environment)`."""

    def start(home: Path, config: Path, *arguments: str, **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(_QP), *arguments],
            cwd=PROJECT,
            env=environment(home, config, **more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def qp_process(qp_started: Callable[..., "subprocess.Popen[str]"]) -> Qp:
    """Run `qp` as a process of its own: `(home, config, *arguments, **environment)`."""

    def run(home: Path, config: Path, *arguments: str, **more: str) -> Said:
        with qp_started(home, config, *arguments, **more) as process:
            out, err = process.communicate(timeout=240)
        return Said(process.returncode, out, err)

    return run


@pytest.fixture
def qp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, market: Market) -> Qp:
    """Run `qp` in this process, which saves its imports: `(*arguments, home=, config=, **environment)`."""

    def run(*arguments: str, home: Path = tmp_path / "home", config: Path = market.config, **more: str) -> Said:
        from quant_platform import cli

        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("QP_", "DAGSTER_"))]:
                patch.delenv(name)
            patch.setenv("DAGSTER_HOME", "")  # so that what the command sets is undone
            for name, value in {"QP_HOME": str(home), "QP_CONFIG": str(config), **NOBODY_ASKED, **more}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["qp", *arguments])
            capsys.readouterr()
            with pytest.raises(SystemExit) as ended:
                cli.main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def filled(market: Market, once: Once, qp_process: Qp) -> Path:
    """Return a home that `qp backfill` filled with the first two days; tests only read it."""

    def make(root: Path) -> None:
        said = qp_process(root / "home", market.config, "backfill", "--from", str(DAYS[0]), "--to", str(DAYS[1]))
        assert said.code == 0, said

    return once("filled", make) / "home"


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Find a port that nobody listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture
def dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo, after the test, the DAGSTER_HOME that the code under test exports."""
    monkeypatch.setenv("DAGSTER_HOME", "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Run a Redis server, and return the settings that name it."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    with Server(settings):
        yield settings


@pytest.fixture
def client(server: Settings) -> Iterator[redis.Redis]:
    """Return a client of that server, whose keys are gone."""
    with connect(server) as client:
        client.flushall()
        yield client
