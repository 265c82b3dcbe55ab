"""The keys of Redis as outsiders rely on them: a change of snapshots/redis_keys.txt is a reviewed diff.

To renew it: `QP_RENEW_SNAPSHOTS=1 .venv/bin/pytest quant_platform_tests/unit/storage/test_redis_keys.py`
"""

import os
from pathlib import Path

import pytest

from quant_platform.settings import METRIC_INTERVALS, StoreTtls
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import KeyType

SNAPSHOT = Path(__file__).parents[2] / "snapshots" / "redis_keys.txt"
METRICS = (*redis_keys.METRICS, *redis_keys.OPTION_METRICS)
OURS = [key for key in redis_keys.KEYS if key.ttl_s is not None]
HISTORIES = {redis_keys.HISTORY, redis_keys.VIX1D_HISTORY, redis_keys.VIX1D_SOURCE_HISTORY}
ABOUT_SYMBOLS = [key for key in OURS if key not in HISTORIES and key is not redis_keys.HEARTBEAT]


def described(key):
    most = "" if key.max_entries is None else f", {key.max_entries} entries"
    lives = "written by others" if key.ttl_s is None else f"{key.ttl_s} s"
    lines = [key.pattern, f"  {key.type}{most}, {lives}"]
    lines += [f"  {' '.join(key.fields)}"] if key.fields else []
    lines += [f"  history of {key.metric}: ts {' '.join(key.headlines)}"] if key.metric else []
    return "".join(f"{line}\n" for line in lines)


def test_keys_are_those_of_the_snapshot():
    text = "".join(map(described, redis_keys.KEYS))
    if os.environ.get("QP_RENEW_SNAPSHOTS") == "1":
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8")


@pytest.mark.parametrize("key", ABOUT_SYMBOLS, ids=lambda key: key.pattern)
def test_every_payload_says_when_and_of_what(key):
    assert {"ts", "ts_written", "seq", "symbol"} <= set(key.fields)


@pytest.mark.parametrize("key", OURS, ids=lambda key: key.pattern)
def test_every_key_ends_and_no_field_stands_twice(key):
    assert len(set(key.fields)) == len(key.fields)
    assert key.ttl_s > 0


@pytest.mark.parametrize("key", METRICS, ids=lambda key: key.metric)
def test_metrics_say_whether_trades_are_missing_why_a_value_is_null_and_what_their_history_keeps(key):
    assert {"has_gap", "status"} <= set(key.fields)
    assert ("last_trade_id" in key.fields) == (key in redis_keys.METRICS and key is not redis_keys.OBI)
    assert key.headlines
    assert set(key.headlines) <= set(key.fields)


def test_the_settings_know_every_metric():
    known = {key.metric for key in METRICS}
    assert len(known) == len(METRICS)
    assert known == METRIC_INTERVALS.keys()
    assert known <= StoreTtls.model_fields.keys()


def test_both_sides_of_the_participants_hold_each_column_once():
    sides = (redis_keys.INSTITUTIONAL_FLOW, redis_keys.RETAIL_FLOW)
    columns = set(redis_keys.INSTITUTIONAL_FLOW.contract.columns())
    shared = set(sides[0].fields) & set(sides[1].fields)
    assert set(sides[0].fields) | set(sides[1].fields) >= columns
    assert shared & columns == {"ts_open", "ts_event", "symbol", "last_trade_id", "trade_count", "status", "ts_known"}


def test_the_keys_of_exposures_share_out_the_columns_of_a_whole_chain():
    whole = set(redis_keys.GEX.contract.columns()) - {"strike", "expiry", "symbol"}
    assert whole <= set(redis_keys.GEX.fields) | set(redis_keys.DEX.fields)
    flows = (redis_keys.VANNA, redis_keys.CHARM, redis_keys.HEDGING_IMPACT)
    whole = set(redis_keys.VANNA.contract.columns()) - {"expiry", "symbol"}
    assert whole <= set().union(*(key.fields for key in flows))
    parts = [{name for name in key.fields if name.endswith(("_pt", "_day", "_pct", "_move"))} for key in flows]
    assert [len(part) for part in parts] == [4, 4, 6]
    assert len(set().union(*parts)) == 14


def test_a_key_of_greeks_names_its_contract():
    name = "options:A.P:A240315C00100000:greeks"
    assert redis_keys.contract_of_greeks(name, "A.P") == "A240315C00100000"
    assert redis_keys.contract_of_greeks("options:A:5:C:greeks", "A") == "5:C"


def test_name_holds_the_symbol_as_it_is():
    assert redis_keys.TICKER.name("BTCUSDT.SPOT") == "market:BTCUSDT.SPOT:ticker"
    assert redis_keys.BARS_1MIN.name("{symbol}:x") == "market:{symbol}:x:bars:1min"
    assert redis_keys.SWEEP.name("{metric}") == "analytics:{metric}:metric:sweep"
    assert redis_keys.HISTORY.name("A{sector}", metric="sweep") == "analytics:A{sector}:sweep:history"
    assert redis_keys.SECTOR.name(sector="layer 1") == "analytics:portfolio:sector:layer 1"
    assert redis_keys.PORTFOLIO.name() == "analytics:portfolio:summary"


def test_name_wants_every_part():
    with pytest.raises(KeyError, match="metric"):
        redis_keys.HISTORY.name("AAA")


def test_lists_of_a_symbol_are_capped():
    assert all(key.max_entries for key in redis_keys.KEYS if key.type is KeyType.LIST)
