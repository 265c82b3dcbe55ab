"""Batches to a real Redis: what is written, what a refused command does to the others, and a server that hangs."""

import os
import signal
import time

import pytest
import redis

from quant_platform.storage import live_store
from quant_platform.storage.live_store import Batch

SECRET = b"what the payload says"


def commands(client):
    return client.info("stats")["total_commands_processed"]


def test_strings_and_lists_are_written_with_their_ends(client):
    batch = Batch()
    batch.set("a", b"\x00\r\n", 60)
    batch.set("symbol:\u00e9 $5", b"", 10)
    batch.push("list", [b"1", b"2", b"3"], 5, 100)
    before = commands(client)
    assert batch.send(client) == 5
    assert commands(client) - before == 6  # INFO counts itself: no MULTI, no command that was not asked for
    assert (client.get("a"), client.get("symbol:\u00e9 $5")) == (b"\x00\r\n", b"")
    assert client.lrange("list", 0, -1) == [b"3", b"2", b"1"]
    lives = [client.ttl(name) for name in ("a", "symbol:\u00e9 $5", "list")]
    assert all(left in {most - 1, most} for left, most in zip(lives, (60, 10, 100), strict=True))


def test_a_list_keeps_the_newest_and_begins_anew_once_it_is_deleted(client):
    for entries in ([b"1", b"2", b"3"], [b"4", b"5", b"6"]):
        batch = Batch()
        batch.push("list", entries, 5, 60)
        batch.send(client)
    assert client.lrange("list", 0, -1) == [b"6", b"5", b"4", b"3", b"2"]
    batch = Batch()
    batch.delete("list")
    batch.push("list", [b"7", b"8"], 5, 60)
    assert batch.send(client) == 4
    assert client.lrange("list", 0, -1) == [b"8", b"7"]


def test_nothing_to_write_asks_nobody(tmp_path):
    with redis.Redis.from_url(f"unix://{tmp_path}/nobody.sock") as client:
        assert Batch().send(client) == 0


def test_a_refused_command_does_not_stop_the_others_and_is_raised_at_the_end(client):
    client.set("kept", "by somebody else")
    batch = Batch()
    batch.set("before", b"1", 60)
    batch.push("kept", [SECRET], 5, 60)
    batch.set("after", b"2", 60)
    with pytest.raises(redis.ResponseError, match=r"^kept: WRONGTYPE .* \(2 of 5 commands were refused\)$") as raised:
        batch.send(client)
    assert SECRET.decode() not in str(raised.value)
    assert client.mget("before", "kept", "after") == [b"1", b"by somebody else", b"2"]


def test_a_full_server_is_said_by_key_and_the_connection_goes_on(client):
    limits = {name: client.config_get(name)[name] for name in ("maxmemory-policy", "maxmemory")}
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 200_000)
    try:
        batch = Batch()
        for number in range(500):
            batch.set(f"full:{number}", SECRET * 100, 60)
        with pytest.raises(
            redis.exceptions.OutOfMemoryError, match=r"^full:\d+: .* commands were refused\)$"
        ) as raised:
            batch.send(client)
        assert SECRET.decode() not in str(raised.value)
        assert client.get("full:0") == SECRET * 100
    finally:
        for name, value in limits.items():
            client.config_set(name, value)
    assert batch.send(client) == 500


def test_a_server_that_hangs_is_given_up_and_its_late_answers_are_nobodys(client):
    process = client.info("server")["process_id"]
    client.set("a", "right")
    batch = Batch()
    batch.set("b", b"1", 60)
    os.kill(process, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(redis.TimeoutError):
            batch.send(client)
        assert time.monotonic() - start < 10 * live_store.TIMEOUT_S
    finally:
        os.kill(process, signal.SIGCONT)
    assert client.get("a") == b"right"


def test_no_server_is_an_error_at_once(tmp_path):
    batch = Batch()
    batch.set("a", b"1", 60)
    with redis.Redis.from_url(f"unix://{tmp_path}/nobody.sock") as client, pytest.raises(redis.ConnectionError):
        batch.send(client)


def test_answers_larger_than_the_sockets_buffers_do_not_block(client):
    """Ten thousand refusals are a megabyte of answers that the server has ready before all is sent."""
    client.set("kept", "by somebody else")
    batch = Batch()
    for _ in range(5_000):
        batch.push("kept", [b"x" * 1_000], 5, 60)
    with pytest.raises(redis.ResponseError, match=r"10000 of 15000"):
        batch.send(client)
    assert client.get("kept") == b"by somebody else"
