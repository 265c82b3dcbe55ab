"""Payloads of metrics: what a reader parses is what the frame said, whatever it holds."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant_platform.contracts._schema import polars_schema
from quant_platform.storage import redis_keys
from quant_platform.storage.redis_keys import encoded, history_entries

NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)
NOON_NS = 1_723_118_400_000_000_000  # date -u -d 2024-08-08T12:00 +%s
NAMES = ["AAA", "B.P", 'C"\\\r\n é\u2028', "1000"]


def rows(key, symbols=NAMES, **columns):
    """Return a row a symbol, numbered; null where nothing is given."""
    schema = polars_schema(key.contract)
    frame = pl.DataFrame({name: [None] * len(symbols) for name in schema}, schema=schema)
    values = {key.ts_column: [NOON] * len(symbols), "symbol": symbols} | columns
    return frame.with_columns(pl.Series(name, found, schema[name]) for name, found in values.items())


@pytest.mark.parametrize("key", redis_keys.METRICS, ids=lambda key: key.metric)
def test_every_metric_has_exactly_its_fields_in_their_order(key):
    payloads = encoded(key, rows(key), ts_written=NOON_NS + 7, seq=3, has_gap={"B.P"})
    assert list(payloads) == NAMES
    for symbol, payload in payloads.items():
        said = json.loads(payload)
        assert tuple(said) == key.fields
        assert (said["symbol"], said["ts"], said["ts_written"], said["seq"]) == (symbol, NOON_NS, NOON_NS + 7, 3)
        assert said["has_gap"] is (symbol == "B.P")
        assert said[key.ts_column] == NOON_NS
        assert b"\n" not in payload


def test_values_come_as_they_are_times_as_integers_and_null_as_null():
    frame = rows(
        redis_keys.TOXICITY,
        ["AAA", "BBB"],
        last_trade_id=[2**62, 1],
        vpin=[0.1 + 0.2, None],
        toxicity_adjusted_level=["high", None],
        venue_mix=['{"Q":{"buy":1.5}}', None],
        status=["ok", "too_few"],
        ts_known=[NOON, None],
    )
    said = {s: json.loads(p) for s, p in encoded(redis_keys.TOXICITY, frame, ts_written=1, seq=1, has_gap=()).items()}
    first = {name: said["AAA"][name] for name in ("last_trade_id", "vpin", "toxicity_adjusted_level", "ts_known")}
    assert first == {
        "last_trade_id": 2**62,
        "vpin": 0.30000000000000004,
        "toxicity_adjusted_level": "high",
        "ts_known": NOON_NS,
    }
    assert said["AAA"]["venue_mix"] == '{"Q":{"buy":1.5}}'
    assert {name for name, value in said["BBB"].items() if value is not None} == {
        *("ts_written", "ts", "seq", "symbol", "has_gap", "last_trade_id", "ts_event", "status")
    }


@given(st.lists(st.floats(width=64), min_size=1, max_size=20))
def test_any_float_parses_and_comes_back_bit_for_bit_and_what_is_not_finite_is_null(values):
    symbols = [str(number) for number in range(len(values))]
    frame = rows(redis_keys.OBI, symbols, ofi=values, sequence=list(range(len(values))))
    payloads = encoded(redis_keys.OBI, frame, ts_written=1, seq=1, has_gap=())
    for symbol, value in zip(symbols, values, strict=True):
        said = json.loads(payloads[symbol], parse_constant=pytest.fail)["ofi"]
        if abs(value) < float("inf"):
            assert float(said).hex() == value.hex()
        else:
            assert said is None


@given(st.lists(st.text(), min_size=1, unique=True))
def test_any_symbol_finds_its_own_payload(symbols):
    seq = {symbol: number for number, symbol in enumerate(symbols)}
    frame = rows(redis_keys.VPIN, symbols)
    payloads = encoded(redis_keys.VPIN, frame, ts_written=1, seq=seq, has_gap=())
    assert {symbol: json.loads(payload)["seq"] for symbol, payload in payloads.items()} == seq
    assert all(json.loads(payload)["symbol"] == symbol for symbol, payload in payloads.items())


def test_a_sequence_number_that_is_missing_is_said():
    with pytest.raises(KeyError, match="BBB"):
        encoded(redis_keys.VPIN, rows(redis_keys.VPIN, ["AAA", "BBB"]), ts_written=1, seq={"AAA": 1}, has_gap=())


def test_no_rows_give_no_payloads():
    assert encoded(redis_keys.VPIN, rows(redis_keys.VPIN, []), ts_written=1, seq={}, has_gap=()) == {}
    assert history_entries(redis_keys.VPIN, rows(redis_keys.VPIN, [])) == {}


def test_last_trade_id_stands_beside_the_contract_or_is_the_trade_or_is_not_known():
    def last(key, frame):
        return json.loads(encoded(key, frame, ts_written=1, seq=1, has_gap=())["AAA"])["last_trade_id"]

    hidden, moc = (rows(key, ["AAA"]) for key in (redis_keys.HIDDEN, redis_keys.MOC))
    assert last(redis_keys.HIDDEN, hidden.with_columns(trade_id=pl.lit(5, pl.Int64))) == 5
    assert last(redis_keys.MOC, moc.with_columns(last_trade_id=pl.lit(6, pl.Int64))) == 6
    assert last(redis_keys.MOC, moc) is None


def test_history_keeps_the_headlines_of_every_row_in_their_order():
    frame = rows(
        redis_keys.VPIN,
        ["AAA", "BBB", "AAA"],
        ts_event=[NOON, NOON, NOON.replace(second=1)],
        vpin=[0.1, 0.2, 0.3],
        cdf=[None, 0.5, 0.6],
        level=[None, "low", "low"],
    )
    assert history_entries(redis_keys.VPIN, frame) == {
        "AAA": [
            b'{"ts":1723118400000000000,"vpin":0.1,"cdf":null,"level":null}',
            b'{"ts":1723118401000000000,"vpin":0.3,"cdf":0.6,"level":"low"}',
        ],
        "BBB": [b'{"ts":1723118400000000000,"vpin":0.2,"cdf":0.5,"level":"low"}'],
    }
