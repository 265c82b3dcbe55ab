"""`qp up`: what answers, where, what is never handed out, and that nothing is left when it ends."""

import http.client
import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import psutil
import pytest
import redis

from quant_platform.storage import redis_keys
from quant_platform.storage.lake import Lake

ASSETS = "{ assetNodes { assetKey { path } } }"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Without many trades there are no clusters, and without depth the order book waits for some seconds.
_ONCE_TRADED = [
    key for key in redis_keys.METRICS if key not in {redis_keys.MOC, redis_keys.OBI, redis_keys.FLOW_CLUSTERS}
]


class Up(NamedTuple):
    """A running `qp up` and where it answers."""

    process: "subprocess.Popen[str]"
    port: int
    files_port: int


def ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def asset_keys(port: int) -> set[str]:
    """Return the keys that the UI's GraphQL lists; none while it does not answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": ASSETS}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(request, timeout=30) as response:
        return {"/".join(node["assetKey"]["path"]) for node in json.load(response)["data"]["assetNodes"]}
    return set()


def tree(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    return []


@contextmanager
def running(
    qp_started: Any, home: Path, config: Path, stop_with: signal.Signals, *options: str, **more: str
) -> Iterator[Up]:
    """Start `qp up` until its UI lists assets; afterwards stop it and see that nothing stays."""
    port, files_port = ports()
    more |= {"QP_UI__PORT": str(port), "QP_UI__FILES_PORT": str(files_port)}
    process = qp_started(home, config, "up", *options, **more)
    family: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 120
        while not asset_keys(port):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the UI did not answer"
            time.sleep(0.2)
        yield Up(process, port, files_port)
        family = tree(process)
        assert len(family) >= 3  # the supervisor, the webserver, the daemon
        process.send_signal(stop_with)
        out, err = process.communicate(timeout=60)
    finally:
        family = family or tree(process)
        _, left = psutil.wait_procs([p for p in family if p.pid != process.pid], timeout=5)
        for survivor in left:
            survivor.kill()
        process.kill()
        process.wait()
    assert left == []
    assert process.returncode == 0, (out, err)
    assert "Stopping." in out
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def up(filled: Path, market: Any, qp_started: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Return `qp up` over a filled home; it is ended by Ctrl-C's signal after the module's tests."""
    home = Path(shutil.copytree(filled, tmp_path_factory.mktemp("up") / "home"))
    with running(qp_started, home, market.config, signal.SIGINT) as started:
        yield started


def get(port: int, path: str) -> tuple[int, bytes]:
    """Ask for a path as it is written: urllib would tidy it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest("GET", path, skip_host=False)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_ui_lists_the_assets(up: Up) -> None:
    assert {"market/trades", "market/bars_1m", "marts/fct_daily_bars", "reports/daily_market"} <= asset_keys(up.port)


def test_everything_listens_on_loopback_alone(up: Up) -> None:
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in tree(up.process)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }

    assert {up.port, up.files_port} <= {port for _, port in listening}
    assert {ip for ip, _ in listening} == {"127.0.0.1"}


def test_reports_are_served(up: Up) -> None:
    status, page = get(up.files_port, "/reports/daily_market/2024-03-05.html")

    assert status == 200
    assert b"BBB" in page
    assert get(up.files_port, "/reports/daily_market/plotly.min.js")[0] == 200
    assert get(up.files_port, "/reports/")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ledger.sqlite",
        "/warehouse.duckdb",
        "/../",
        "/../home/ledger.sqlite",
        "/reports/../ledger.sqlite",
        "/reports/%2e%2e/ledger.sqlite",
        "/reports/..%2fledger.sqlite",
        "//ledger.sqlite",
        "/reports-not",
        "/dagster/dagster.yaml",
        "/dagster/",
        "/lake/market/trades/",
    ],
)
def test_nothing_but_reports_and_quarantine_is_served(up: Up, path: str) -> None:
    assert get(up.files_port, path)[0] == 404


def test_files_cannot_be_written(up: Up) -> None:
    for method in ("PUT", "POST", "DELETE"):
        connection = http.client.HTTPConnection("127.0.0.1", up.files_port, timeout=30)
        connection.request(method, "/reports/daily_market/2024-03-05.html", body=b"x")
        assert connection.getresponse().status == 501
        connection.close()


@pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium on PATH.")
@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("asset-groups", ("market", "statistics", "staging", "marts", "reports")),
        (
            "locations/quant_platform/asset-groups/market/lineage",
            ("trades", "quotes", "gaps", "bars_1s", "bars_1m", "bars_5m"),
        ),
    ],
)
def test_browser_shows_the_asset_graph(up: Up, tmp_path: Path, page: str, shown: tuple[str, ...]) -> None:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
               "--disable-background-networking", "--disable-component-update", "--disable-sync",
               f"--user-data-dir={tmp_path}", "--window-size=3600,2700", "--virtual-time-budget=20000", "--dump-dom",
               f"http://127.0.0.1:{up.port}/{page}"]  # fmt: skip
    names: list[str] = []
    for _ in range(3):  # the budget is virtual time: on a busy machine the first answer may miss it
        document = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        names = [name for name in shown if f">{name}<" in document]
        if len(names) == len(shown):
            break

    assert names == list(shown)


@pytest.mark.parametrize("name", ["QP_UI__PORT", "QP_UI__FILES_PORT"])
def test_taken_port_is_a_sentence(qp_process: Any, market: Any, tmp_path: Path, name: str) -> None:
    free = dict(zip(("QP_UI__PORT", "QP_UI__FILES_PORT"), map(str, ports()), strict=True))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]

        said = qp_process(tmp_path / "home", market.config, "up", **(free | {name: str(number)}))

    assert said.code == 1
    assert f"Port {number} of 127.0.0.1 is taken" in said.text
    assert name in said.text
    assert "Traceback" not in said.text


def test_replayed_market_is_captured_and_in_todays_partition_and_sigterm_ends_everything(
    filled: Path, market: Any, qp_started: Any, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(filled, tmp_path / "home"))
    replay_port, _ = ports()
    short = {"QP_CAPTURE__SEGMENT_S": "3", "QP_UI__REPLAY_PORT": str(replay_port)}
    with running(qp_started, home, market.config, signal.SIGTERM, "--replay", **short):
        lake, today = Lake((home / "lake").as_uri()), datetime.now(UTC).date()
        deadline = time.monotonic() + 150
        while lake.scan("market/trades", start=today).select(pl.len()).collect().item() == 0:
            assert time.monotonic() < deadline, "nothing came into today's partition"
            time.sleep(0.5)
        with redis.Redis.from_url((home / "redis" / "url").read_text().strip()) as store:
            heard = next(key.decode().split(":")[1] for key in store.keys("market:*:trades"))
            wanted = {key.name(heard) for key in _ONCE_TRADED} | {redis_keys.HEARTBEAT.name()}
            while missing := {name for name in wanted if not store.exists(name)}:
                assert time.monotonic() < deadline, missing
                time.sleep(0.5)
            assert {key.decode().split(":")[0] for key in store.keys("*")} == {"market", "analytics", "heartbeat"}
            assert all(store.ttl(key) > 0 for key in store.keys("*"))
    assert lake.scan("market/trades", start=today).collect()["trade_id"].is_unique().all()
