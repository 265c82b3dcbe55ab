"""The embedded Redis server: real processes and sockets. What becomes of it when its parent is killed: faults/."""

import stat
from pathlib import Path

import psutil
import pytest
import redis
from pydantic import SecretStr

from quant_platform.settings import Settings
from quant_platform.storage import live_store
from quant_platform.storage.live_store import LiveStoreError, Server


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "a home")


def process_id(settings):
    with live_store.connect(settings) as client:
        return client.info("server")["process_id"]


def test_server_serves_while_it_is_open_and_leaves_nothing(settings):
    with Server(settings):
        with live_store.connect(settings) as client:
            client.set("a", "1", ex=60)
            assert client.get("a") == b"1"
        process = psutil.Process(process_id(settings))
        assert process.name() == "redis-server"
    assert not process.is_running()
    folder = settings.home / "redis"
    assert sorted(path.name for path in folder.iterdir() if path.name != "start.lock") == ["server.log"]


def test_server_listens_for_its_owner_alone_and_keeps_nothing(settings):
    with Server(settings), live_store.connect(settings) as client:
        assert psutil.Process(process_id(settings)).net_connections("inet") == []
        socket = settings.home / "redis" / "redis.sock"
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        configured = client.config_get("*")
        assert (configured["save"], configured["appendonly"]) == ("", "no")
        assert (configured["maxmemory-policy"], int(configured["maxmemory"])) == ("volatile-ttl", 1 << 30)


def test_second_start_uses_the_running_server_and_leaves_it(settings):
    with Server(settings):
        first = process_id(settings)
        with Server(settings):
            assert process_id(settings) == first
        assert process_id(settings) == first


def test_two_servers_of_two_homes_know_nothing_of_each_other(settings, tmp_path):
    other = Settings(home=tmp_path / "other")
    with Server(settings), Server(other):
        assert process_id(settings) != process_id(other)


def test_killed_server_is_replaced_by_the_next_start(settings):
    with Server(settings) as server:
        killed = psutil.Process(process_id(settings))
        killed.kill()
        with pytest.raises(redis.ConnectionError):
            process_id(settings)
        server.start()
        assert process_id(settings) != killed.pid
        assert not killed.is_running()
    with pytest.raises(LiveStoreError, match=r"There is no Redis address in .*QP_REDIS_URL"):
        live_store.connect(settings)


def test_address_and_socket_that_nobody_serves_are_replaced(settings):
    with Server(settings):
        url = live_store.address(settings)
        socket = settings.home / "redis" / "redis.sock"
        psutil.Process(process_id(settings)).kill()
        assert socket.exists()
        with Server(settings):
            assert live_store.address(settings) == url
            assert process_id(settings)


def test_home_whose_path_is_too_long_for_a_socket(tmp_path):
    settings = Settings(home=tmp_path / ("long" * 30))
    with Server(settings) as server:
        url = live_store.address(settings)
        folder = Path(url.removeprefix("unix://")).parent
        assert not folder.is_relative_to(tmp_path)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        psutil.Process(process_id(settings)).kill()
        server.start()
        assert not folder.exists()
        folder = Path(live_store.address(settings).removeprefix("unix://")).parent
        assert folder.is_dir()
    assert not folder.exists()


def test_own_redis_is_used_and_never_started_or_stopped(settings, tmp_path):
    with Server(settings):
        named = Settings(home=tmp_path / "named", redis_url=SecretStr(live_store.address(settings)))
        with Server(named):
            assert process_id(named) == process_id(settings)
        assert process_id(named)
    assert not (tmp_path / "named").exists()


def test_own_redis_that_hangs_is_waited_for_briefly(settings):
    with Server(settings):
        server = psutil.Process(process_id(settings))
        with live_store.connect(settings) as client:
            client.ping()
            server.suspend()
            try:
                with pytest.raises(redis.TimeoutError):
                    client.ping()
            finally:
                server.resume()


def test_server_that_does_not_start_is_said_with_its_log(settings, tmp_path, monkeypatch):
    broken = tmp_path / "bin" / "redis-server"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no memory\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent))
    with pytest.raises(LiveStoreError, match=r"did not start; .*server\.log says why") as raised:
        Server(settings).start()
    log = settings.home / "redis" / "server.log"
    assert str(log) in str(raised.value)
    assert log.read_text() == "no memory\n"
