"""Portfolio and sectors, from payloads in a real Redis; sums worked by hand. Correlations: the file beside."""

import json
import math

import polars as pl
import pytest
import redis
from pydantic import SecretStr
from structlog.testing import capture_logs

from quant_platform.calculators import cross_asset
from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.microstructure import ParticipantFlow, Toxicity, Vpin
from quant_platform.storage import live_store, redis_keys
from quant_platform.storage.live_store import Batch
from quant_platform_tests.integration.live.aggregate_keys import (
    CORRELATION,
    MARKET,
    NOW,
    SECOND,
    SUMMARY,
    put,
    put_bars,
    put_vpin,
)

ALL = {"portfolio", "sectors", "correlation"}


def row_of(contract, **values):
    schema = polars_schema(contract)
    return pl.DataFrame([dict.fromkeys(schema) | values], schema=schema)


def test_the_portfolio_sums_what_the_keys_of_the_symbols_hold(client, written):
    for symbol, vpin, level in (("A", 0.2, "low"), ("B", None, "high"), ("C", 0.6, None)):
        put_vpin(client, symbol, vpin)
        toxicity = {"toxicity_adjusted": 0.5, "toxicity_adjusted_level": level}
        put(client, f"analytics:{symbol}:toxicity", **toxicity)
    for symbol, volume in (("A", 10), ("C", 2.5)):
        put(client, f"market:{symbol}:ticker", volume=volume)
    found = written({"portfolio"})
    expected = {"symbols": 3, "avg_vpin": 0.4, "vpin_count": 2, "toxic_count": 1, "avg_toxicity": 0.5}
    expected |= {"total_volume": 12.5, "volume_count": 2, "total_gex_net": None, "gex_count": 0, "vix1d": None}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["by_sector"].keys() == {"s1", "s2"}
    of_sector = {"symbols": 2, "avg_vpin": 0.2, "vpin_count": 1, "toxic_count": 1, "total_volume": 10.0}
    assert {name: found["by_sector"]["s1"][name] for name in of_sector} == pytest.approx(of_sector)


def test_payloads_are_read_as_the_writer_encodes_them(client, written):
    times = {"ts_event": MARKET}
    flow = row_of(
        ParticipantFlow,
        symbol="A",
        institutional_notional_share=0.5,
        institutional_net_notional=-7e5,
        retail_notional_share=0.125,
        retail_net_notional=3e3,
        unclassified_notional_share=0.375,
        **times,
    )
    rows = {
        redis_keys.VPIN: row_of(Vpin, symbol="A", vpin=0.25, **times),
        redis_keys.TOXICITY: row_of(
            Toxicity, symbol="A", toxicity_adjusted=0.75, toxicity_adjusted_level="high", **times
        ),
        redis_keys.INSTITUTIONAL_FLOW: flow,
        redis_keys.RETAIL_FLOW: flow,
    }
    for key, row in rows.items():
        client.set(key.name("A"), redis_keys.encoded(key, row, ts_written=NOW, seq=1, has_gap=())["A"])
    found = written(ALL, "analytics:portfolio:sector:s1")
    expected = {"sector": "s1", "symbols": 1, "avg_vpin": 0.25, "avg_toxicity": 0.75, "toxic_count": 1}
    expected |= {"institutional_net_notional": -7e5, "retail_net_notional": 3e3, "flow_mix_count": 1}
    assert {name: found[name] for name in expected} == expected
    assert found["flow_mix"] == {"institutional": 0.5, "retail": 0.125, "unclassified": 0.375}
    assert set(redis_keys.SECTOR.fields) == set(found)
    assert set(redis_keys.PORTFOLIO.fields) == set(json.loads(client.get(SUMMARY)))


def test_payloads_say_when_and_which_they_are_and_live_for_a_minute(client, written):
    put_vpin(client, "A", 0.5, ts=MARKET - 5)
    put_vpin(client, "C", 0.5, ts=MARKET - 9)
    first = written({"portfolio", "sectors"})
    assert (first["ts"], first["ts_written"], first["seq"], first["symbol"]) == (MARKET - 5, NOW, 1, "all")
    assert json.loads(client.get("analytics:portfolio:sector:s2"))["ts"] == MARKET - 9
    assert written({"portfolio"}, now_ns=NOW + 1)["seq"] == 2
    assert json.loads(client.get("analytics:portfolio:sector:s2"))["seq"] == 1
    keys = client.keys("analytics:portfolio:*")
    assert len(keys) == 3
    assert all(58 <= client.ttl(key) <= 60 for key in keys)


def test_only_what_is_due_is_written(client, written):
    put_vpin(client, "A", 0.5)
    put_bars(client, "A", [1.0, 2.0])
    written({"sectors"})
    assert client.keys("analytics:portfolio:*") == [b"analytics:portfolio:sector:s1"]
    written({"portfolio"})
    assert sorted(client.keys("analytics:portfolio:*")) == [b"analytics:portfolio:sector:s1", SUMMARY.encode()]


@pytest.mark.parametrize(
    ("times", "is_stale"),
    [
        ({"ts_written": NOW - 2 * SECOND}, False),
        ({"ts_written": NOW - 2 * SECOND - 1}, True),
        ({"ts_written": NOW + 3600 * SECOND}, False),
        ({"ts": MARKET - 300 * SECOND}, False),
        ({"ts": MARKET - 300 * SECOND - 1}, True),
        ({"ts": MARKET + 3600 * SECOND}, False),
        ({"ts": 0}, True),
    ],
)
def test_a_payload_is_too_old_by_either_of_its_times(client, written, aggregator, times, is_stale):
    put_vpin(client, "A", 0.2, **times)
    put_vpin(client, "B", 0.6)
    found = written({"portfolio"})
    assert found["avg_vpin"] == pytest.approx(0.6 if is_stale else 0.4)
    assert found["symbols"] == (1 if is_stale else 2)
    assert aggregator.counts["stale"] == is_stale


def test_a_ticker_is_too_old_by_the_markets_time_alone(client, written):
    put(client, "market:A:ticker", volume=1.0, ts_written=NOW - 50 * SECOND)
    put(client, "market:B:ticker", volume=2.0, ts=MARKET - 301 * SECOND)
    client.set("market:C:ticker", '{"last": 1, "bid": 1, "ask": 2, "volume": 4.0}')  # somebody's own
    found = written({"portfolio"})
    assert (found["total_volume"], found["volume_count"], found["ts"]) == (5.0, 2, MARKET)


def test_stale_sectors_and_an_all_stale_portfolio_are_left_to_expire(client, written):
    put_vpin(client, "A", 0.2)
    put_vpin(client, "C", 0.4)
    written({"portfolio", "sectors"})
    later = NOW + 5 * SECOND
    put_vpin(client, "A", 0.6, ts_written=later)
    assert written({"portfolio", "sectors"}, now_ns=later)["avg_vpin"] == 0.6
    assert json.loads(client.get("analytics:portfolio:sector:s2"))["ts_written"] == NOW
    assert written({"portfolio", "sectors"}, now_ns=later + 5 * SECOND)["ts_written"] == later


def test_what_found_nothing_to_sum_is_written_as_soon_as_there_is_something(client, written):
    assert written({"portfolio", "sectors"}) is None
    assert written(set()) is None
    put_vpin(client, "A", 0.5)
    assert written(set())["avg_vpin"] == 0.5
    assert client.exists("analytics:portfolio:sector:s1")
    put_vpin(client, "A", 0.7)
    assert written(set())["avg_vpin"] == 0.5


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b"",
        b"{",
        b"[1, 2]",
        b"\xff\xfe",
        b'{"ts": 1, "ts_written": 1}',
        b'{"ts": "now", "ts_written": 1, "vpin": 0.5}',
        b'{"ts": 1' + b"0" * 30 + b', "ts_written": 1, "vpin": 0.5}',
        b'{"ts": 1, "ts_written": 1, "vpin": "high"}',
        b'{"ts": 1, "ts_written": 1, "vpin": NaN}',
        b'{"ts": 1, "ts_written": 1, "vpin": 0.5, "more": ' + b"[" * 100_000,
    ],
    ids=lambda raw: repr(raw[:40]),
)
def test_a_malformed_payload_is_counted_skipped_and_named_once(client, written, aggregator, raw):
    put_vpin(client, "B", 0.5)
    client.set("analytics:A:vpin", raw)
    with capture_logs() as logs:
        assert written({"portfolio"})["vpin_count"] == 1
        written({"portfolio"})
        assert aggregator.counts["malformed"] == 2
        assert [log["keys"] for log in logs] == [["analytics:A:vpin"]]
        put_vpin(client, "A", 0.5)
        assert written({"portfolio"})["vpin_count"] == 2
        client.set("analytics:A:vpin", raw)
        written({"portfolio"})
    assert len(logs) == 2


def test_a_level_in_bytes_that_are_no_text_is_malformed(client, written, aggregator):
    put_vpin(client, "A", 0.5)
    raw = b'{"ts": %d, "ts_written": %d, "toxicity_adjusted": 0.5, "toxicity_adjusted_level": "\xff"}' % (MARKET, NOW)
    client.set("analytics:A:toxicity", raw)
    assert written({"portfolio"})["toxicity_count"] == 0
    assert aggregator.counts["malformed"] == 1


def test_a_key_of_another_type_counts_as_absent(client, written):
    put_vpin(client, "B", 0.5)
    client.lpush("analytics:A:vpin", "x")
    assert written({"portfolio"})["vpin_count"] == 1


def test_what_was_due_when_redis_was_away_is_written_at_its_return(settings, client, aggregator, written):
    nowhere = settings.model_copy(update={"redis_url": SecretStr(f"unix://{settings.home}/nothing")})
    with live_store.connect(nowhere) as away, pytest.raises(redis.ConnectionError):
        aggregator.add(ALL, away, Batch(), NOW, MARKET)
    put_vpin(client, "A", 0.5)
    put_bars(client, "A", [1.0, 1.1])
    assert written(set())["avg_vpin"] == 0.5
    assert client.exists(CORRELATION)


def test_a_refusal_of_redis_is_raised(settings, client, aggregator):
    client.acl_setuser("guest", enabled=True, nopass=True, keys=["market:*"], commands=["+@all"])
    url = f"unix://guest:any@{settings.home}/redis/redis.sock"
    with redis.Redis.from_url(url) as guest, pytest.raises(redis.exceptions.NoPermissionError):
        aggregator.add({"correlation"}, guest, Batch(), NOW, MARKET)
    client.acl_deluser("guest")


def test_what_cannot_be_computed_is_counted_and_does_not_stop_the_others(client, written, aggregator, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a fault")

    put_vpin(client, "A", 0.5)
    put_bars(client, "A", [1.0, 1.1])
    with monkeypatch.context() as faulty, capture_logs() as logs:
        faulty.setattr(cross_asset, "portfolio", fail)
        assert written(ALL, CORRELATION) is not None
        assert aggregator.errors == {"portfolio": 1, "sectors": 1}
        assert written(set()) is None
    assert [(log["family"], log["error"]) for log in logs] == [
        (["portfolio", "sectors"], "ZeroDivisionError('a fault')")
    ]
    with monkeypatch.context() as faulty:
        faulty.setattr(cross_asset, "correlation_matrix", fail)
        assert written(ALL) is not None
        assert aggregator.errors["correlation"] == 1
    assert json.loads(client.get(CORRELATION))["seq"] == 1
    assert written(ALL, CORRELATION)["seq"] == 2


def test_nothing_is_asked_where_nothing_is_due_or_waits(client, written):
    written(ALL)
    put_vpin(client, "A", 0.5)
    written(ALL)
    before = client.info("stats")["total_commands_processed"]
    assert math.isclose(written(set())["avg_vpin"], 0.5)
    assert client.info("stats")["total_commands_processed"] - before <= 2  # our GET, and INFO
