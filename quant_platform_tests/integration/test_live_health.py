"""The live writer's check: what the sensor tells Dagster of heartbeats in a real Redis, and when it is silent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis

from quant_platform.defs import live_health
from quant_platform.defs.build import build_defs
from quant_platform.defs.doctor import findings
from quant_platform.defs.instance import dagster_instance
from quant_platform.defs.resources import Platform
from quant_platform.settings import Settings
from quant_platform.storage import live_archive, live_store, redis_keys
from quant_platform.storage.live_store import Server

BEAT = {"running": True, "state": "active", "failing": [], "error_counts": {"vpin": 0}, "cycle_ms": 3.5, "overruns": 1}
NAME = redis_keys.HEARTBEAT.name()

pytestmark = pytest.mark.usefixtures("dagster_home")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    with Server(settings) as server:
        yield server


@pytest.fixture
def client(settings: Settings, server: Server) -> Iterator[redis.Redis]:
    with live_store.connect(settings) as client:
        yield client


class Daemon:
    """Asks the sensor as Dagster's daemon does, and keeps its cursor and its events as that does."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.instance, self._cursor = instance, None
        self._resources = {"platform": Platform(settings)}
        self._sensor = build_defs(resource_overrides=self._resources).resolve_sensor_def("live_health")

    def tick(self) -> list[tuple[bool, str]]:
        """Return the evaluations that this tick added: whether passed, and the outcome."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self._cursor, resources=self._resources)
        found = self._sensor.evaluate_tick(context)
        assert not found.run_requests
        assert found.skip_message
        self._cursor = found.cursor
        for event in found.asset_events:
            self.instance.report_runless_asset_event(event)
        return [(event.passed, event.metadata["outcome"].value) for event in found.asset_events]

    def latest(self) -> dg.AssetCheckEvaluation:
        """Return what the instance says of the check."""
        storage = self.instance.event_log_storage
        (record,) = storage.get_latest_asset_check_execution_by_key([live_health.KEY]).values()
        assert record.event
        assert record.event.dagster_event
        return record.event.dagster_event.asset_check_evaluation_data


@pytest.fixture
def daemon(settings: Settings) -> Iterator[Daemon]:
    with dagster_instance(settings) as instance:
        yield Daemon(settings, instance)


def beat(client: redis.Redis, **changed: Any) -> None:
    client.set(NAME, json.dumps(BEAT | changed), ex=10)


def test_changes_are_told_once_and_nothing_else_is(daemon: Daemon, client: redis.Redis) -> None:
    assert daemon.tick() == []  # nobody ever started a writer
    beat(client)
    assert daemon.tick() == [(True, "active")]
    assert daemon.tick() == []
    beat(client, error_counts={"vpin": 3}, failing=["vpin"])
    assert daemon.tick() == [(False, "failing: vpin")]
    beat(client, error_counts={"vpin": 9}, failing=["vpin"])
    assert daemon.tick() == []
    told = daemon.latest()
    assert (told.passed, told.metadata["error_counts"].value) == (False, {"vpin": 3})
    assert "vpin" in str(told.description)
    beat(client, error_counts={"vpin": 9, "moc": 3}, failing=["vpin", "moc"])
    assert daemon.tick() == [(False, "failing: moc, vpin")]
    beat(client, error_counts={"vpin": 9})
    assert daemon.tick() == [(True, "active")]
    assert daemon.latest().passed


def test_idle_is_healthy_and_a_writer_that_is_gone_or_stopped_is_not(daemon: Daemon, client: redis.Redis) -> None:
    beat(client, state="idle")
    assert daemon.tick() == [(True, "idle")]
    assert "idle" in str(daemon.latest().description)
    client.delete(NAME)
    assert daemon.tick() == [(False, "gone")]
    assert daemon.tick() == []
    beat(client, running=False)
    assert daemon.tick() == [(False, "stopped")]
    client.set(NAME, "no object")
    assert daemon.tick() == [(False, "malformed")]
    beat(client)
    assert daemon.tick() == [(True, "active")]


def test_a_redis_that_dies_is_told_and_so_is_one_that_is_not_there(
    daemon: Daemon, client: redis.Redis, server: Server
) -> None:
    beat(client)
    assert daemon.tick() == [(True, "active")]
    server.stop()
    assert daemon.tick() == [(False, "gone")]
    assert "qp live" in str(daemon.latest().description)


def test_a_named_redis_that_is_not_reached_is_told(settings: Settings, client: redis.Redis) -> None:
    unreached = settings.model_copy(update={"redis_url": Settings(redis_url="redis://:secret@127.0.0.1:1").redis_url})
    found = live_health.health(unreached)
    assert (found.outcome, found.is_ok) == ("no Redis", False)
    assert "secret" not in found.says


def test_the_check_can_be_asked_for_and_dates_leave_it_out(
    settings: Settings, daemon: Daemon, client: redis.Redis
) -> None:
    definitions = build_defs(resource_overrides={"platform": Platform(settings)})
    assert live_health.KEY in definitions.resolve_asset_graph().asset_check_keys
    daily = definitions.resolve_job_def("daily_market").asset_layer.asset_graph
    assert live_health.KEY not in daily.asset_check_keys
    assert daily.executable_asset_keys == definitions.resolve_asset_graph().executable_asset_keys
    job = definitions.resolve_implicit_global_asset_job_def()
    alone = job.get_subset(asset_selection=frozenset(), asset_check_selection={live_health.KEY})
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

    def asked() -> tuple[bool, str]:
        result = alone.execute_in_process(instance=daemon.instance, run_config=quiet)
        assert result.success
        (told,) = result.get_asset_check_evaluations()
        return told.passed, told.metadata["outcome"].value

    assert asked() == (True, "none")
    (settings.landing / live_archive.FOLDER).mkdir(parents=True)
    assert asked() == (False, "gone")
    beat(client)
    assert asked() == (True, "active")


def test_doctor_speaks_of_a_writer_that_was_started_here(settings: Settings, client: redis.Redis) -> None:
    def lines() -> list[tuple[bool, str]]:
        return [(finding.is_ok, finding.detail) for finding in findings(settings) if finding.what == "live writer"]

    assert lines() == []
    (settings.landing / live_archive.FOLDER).mkdir(parents=True)
    ((is_ok, detail),) = lines()
    assert is_ok
    assert "no heartbeat" in detail
    beat(client, failing=["moc"])
    ((is_ok, detail),) = lines()
    assert not is_ok
    assert "moc" in detail
