"""The keys of Redis as outsiders rely on them: a change of snapshots/redis_keys.txt is a reviewed diff.

To renew it: `QP_RENEW_SNAPSHOTS=1 .venv/bin/pytest quant_platform_tests/unit/storage/test_redis_keys.py`
"""

import os
from pathlib import Path

import pytest

from quant_platform.storage import redis_keys

SNAPSHOT = Path(__file__).parents[2] / "snapshots" / "redis_keys.txt"


def described(key):
    most = "" if key.max_entries is None else f", {key.max_entries} entries"
    return f"{key.pattern}\n  {key.type}{most}, {key.ttl_s} s\n  {' '.join(key.fields)}\n"


def test_keys_are_those_of_the_snapshot():
    text = "".join(map(described, redis_keys.KEYS))
    if os.environ.get("QP_RENEW_SNAPSHOTS") == "1":
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8")


@pytest.mark.parametrize("key", redis_keys.KEYS, ids=lambda key: key.pattern)
def test_every_payload_says_when_and_of_what_and_every_key_ends(key):
    assert {"ts", "ts_written", "seq", "symbol"} <= set(key.fields)
    assert len(set(key.fields)) == len(key.fields)
    assert key.ttl_s > 0


def test_name_holds_the_symbol_as_it_is():
    assert redis_keys.TICKER.name("BTCUSDT.SPOT") == "market:BTCUSDT.SPOT:ticker"
    assert redis_keys.BARS_1MIN.name("{symbol}:x") == "market:{symbol}:x:bars:1min"
