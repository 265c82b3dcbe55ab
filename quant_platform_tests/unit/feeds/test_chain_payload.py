"""Chains as Redis holds them: what we write comes back as it was, and what others write is understood or counted."""

import json
from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.options import OptionChain
from quant_platform.feeds import chain_payload
from quant_platform.feeds.option_chain import ChainError
from quant_platform.storage import redis_keys

NOW_NS = 1_709_305_200_000_000_000  # date -u -d 2024-03-01T15:00 +%s
NOW = datetime(2024, 3, 1, 15, tzinfo=UTC)
CLOSE = datetime(2024, 3, 15, 20, tzinfo=UTC)  # 16:00 in New York, in summer
NUMBERS = ("bid", "ask", "bid_size", "ask_size", "last", "iv", "delta", "gamma", "vega", "theta")
NUMBERS += ("open_interest", "volume", "underlying_price")
OF_ONE = {
    "ts_event": NOW,
    "ts_recv": NOW,
    "symbol": "SPX.X",
    "venue": "cboe",
    "contract": "SPXW240315C05100500",
    "type": "C",
    "strike": 5100.5,
    "expiry": date(2024, 3, 15),
    "ts_expiry": CLOSE,
    "multiplier": 100.0,
}


def frame(*rows):
    return pl.DataFrame([OF_ONE | row for row in rows], schema=polars_schema(OptionChain)).sort("ts_event", "contract")


def read(*contracts, **head):
    payload = {"ts_event": NOW_NS, "underlying_price": 5100.0} | head | {"contracts": list(contracts)}
    return chain_payload.rows_of(json.dumps(payload).encode(), symbol="SPX.X")


def one(**contract):
    (row,) = read(contract).rows.to_dicts()
    return row


def test_the_payload_has_the_fields_of_its_key():
    told = json.loads(chain_payload.encoded(frame({"bid": 1.5, "underlying_price": 5099.5}), ts_written=5, seq=2))
    assert tuple(told) == redis_keys.OPTION_CHAIN.fields
    (contract,) = told.pop("contracts")
    assert told == {
        "ts_written": 5,
        "ts": NOW_NS,
        "seq": 2,
        "symbol": "SPX.X",
        "ts_event": NOW_NS,
        "ts_recv": NOW_NS,
        "venue": "cboe",
        "underlying_price": 5099.5,
    }
    assert set(contract) == set(OptionChain.columns()) - {"symbol", "ts_event", "ts_recv", "venue"}
    assert (contract["expiry"], contract["ts_expiry"]) == ("2024-03-15", int(CLOSE.timestamp()) * 10**9)
    assert (contract["bid"], contract["ask"]) == (1.5, None)


def test_the_chains_price_is_that_of_the_settlement_that_comes_next():
    later = {
        "contract": "SPXW240322C05100500",
        "expiry": date(2024, 3, 22),
        "ts_expiry": datetime(2024, 3, 22, 20, tzinfo=UTC),
    }
    rows = frame({"underlying_price": 5099.5}, later | {"underlying_price": 5101.0})
    assert json.loads(chain_payload.encoded(rows, ts_written=5, seq=2))["underlying_price"] == 5099.5


POSITIVE = st.none() | st.floats(1e-9, 1e12)


@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(NUMBERS, POSITIVE)), min_size=1, max_size=4),
    st.none() | st.just(100.0) | st.floats(0.01, 1e6),
    st.none() | st.just(NOW),
)
def test_what_we_write_comes_back_bit_for_bit(numbers, multiplier, received):
    rows = frame(
        *(
            values
            | {
                "contract": f"SPXW240315C0510{n}000",
                "strike": 5100.0 + n,
                "multiplier": multiplier,
                "ts_recv": received,
            }
            for n, values in enumerate(numbers)
        )
    )
    parsed = chain_payload.rows_of(chain_payload.encoded(rows, ts_written=5, seq=2), symbol="SPX.X")
    assert_frame_equal(parsed.rows, rows, check_exact=True)
    assert parsed.quarantined.is_empty()


def test_several_snapshots_are_no_payload():
    rows = frame({}, {"ts_event": CLOSE})
    with pytest.raises(ValueError, match="one snapshot"):
        chain_payload.encoded(rows, ts_written=5, seq=2)
    with pytest.raises(ValueError, match="one snapshot"):
        chain_payload.encoded(rows.clear(), ts_written=5, seq=2)


@pytest.mark.parametrize(
    "expiry",
    [
        "2024-03-15",
        "2024-03-15T16:00:00",
        "20240315",
        "240315",
        1710460800,
        "1710460800",
        1710460800000,
        20240315,
        240315,
        "SPXW240315C05100500",
    ],
)
@pytest.mark.parametrize("kind", [{"type": "C"}, {"right": "call"}, {"right": "C"}, {"type": "CALL"}])
def test_expiry_and_right_in_any_spelling(expiry, kind):
    row = one(strike=5100.5, expiry=expiry, **kind)
    assert (row["expiry"], row["type"], row["strike"]) == (date(2024, 3, 15), "C", 5100.5)
    assert row["ts_expiry"] == CLOSE


def test_the_name_is_the_authority():
    row = one(contract="SPXW  240315P05100500", strike=1.0, expiry="2030-01-01", type="C")
    assert (row["expiry"], row["type"], row["strike"]) == (date(2024, 3, 15), "P", 5100.5)
    row = one(contract="BTC-15MAR24-60000-P", strike=1.0, right="CALL")
    assert (row["expiry"], row["type"], row["strike"]) == (date(2024, 3, 15), "P", 60_000.0)
    assert (row["ts_expiry"], row["multiplier"]) == (datetime(2024, 3, 15, 8, tzinfo=UTC), 1.0)


def test_what_is_left_out():
    row = one(strike=5100.5, expiry="2024-03-15", type="P")
    assert row.pop("contract")
    assert {name for name, value in row.items() if value is None} == {*NUMBERS, "ts_recv"} - {"underlying_price"}
    assert (row["multiplier"], row["underlying_price"], row["symbol"]) == (100.0, 5100.0, "SPX.X")
    assert one(strike=5.0, expiry="2024-03-15", type="P", multiplier=None)["multiplier"] is None
    (crypto,) = read({"strike": 5.0, "expiry": "2024-03-15", "type": "P"}, venue="deribit").rows.to_dicts()
    assert (crypto["multiplier"], crypto["ts_expiry"]) == (1.0, datetime(2024, 3, 15, 8, tzinfo=UTC))


def test_the_chains_price_stands_for_contracts_that_leave_theirs_out_or_have_none_at_all():
    of = {"expiry": "2024-03-15", "type": "P"}
    rows = read(
        {"strike": 1.0} | of,
        {"strike": 2.0, "underlying_price": 7.0} | of,
        {"strike": 3.0, "underlying_price": None} | of,
    ).rows
    assert rows.sort("strike")["underlying_price"].to_list() == [5100.0, 7.0, None]
    rows = read({"strike": 1.0, "underlying_price": None} | of).rows
    assert rows["underlying_price"].to_list() == [5100.0]


@pytest.mark.parametrize(
    "contract",
    [
        None,
        5,
        {},
        {"strike": 5.0, "expiry": "2024-03-15"},
        {"strike": 5.0, "expiry": "soon", "type": "C"},
        {"strike": 5.0, "expiry": "2024-03-15", "type": "X"},
        {"strike": -5.0, "expiry": "2024-03-15", "type": "C"},
        {"strike": "5", "expiry": "2024-03-15", "type": "C"},
        {"strike": 5.0, "expiry": ["2024-03-15"], "type": "C"},
        {"strike": 5.0, "expiry": "2024-03-15", "type": "C", "bid": -1},
        {"strike": 5.0, "expiry": "2024-03-15", "type": "C", "ts_expiry": 2**70},
    ],
)
def test_a_contract_that_breaks_a_rule_is_named_and_the_others_stand(contract):
    good = {"strike": 6.0, "expiry": "2024-03-15", "type": "C"}
    parsed = read(good, contract, good | {"strike": 7.0})
    assert parsed.rows["strike"].to_list() == [6.0, 7.0]
    (bad,) = parsed.quarantined.to_dicts()
    assert (bad["source_file"], bad["source_line"]) == ("options:SPX.X:chain", 2)
    assert json.loads(bad["raw"]) == contract
    assert bad["rule"]
    assert parsed.facts["contracts"] == "3"


def test_a_contract_twice_counts_once():
    good = {"strike": 6.0, "expiry": "2024-03-15", "type": "C"}
    parsed = read(good | {"bid": 1.0}, good | {"bid": 2.0})
    assert parsed.rows["bid"].to_list() == [1.0]
    assert parsed.quarantined["rule"].to_list() == ["contract|duplicate"]


def test_no_contracts_are_no_rows():
    assert read().rows.schema == polars_schema(OptionChain)
    assert read().rows.is_empty()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"7",
        b"<html>busy</html>",
        b'{"ts_event": 1, "contracts": [',
        b"\xff\xfe",
        b'{"contracts": []}',
        b'{"ts_event": 1, "contracts": null}',
        b'{"ts_event": 1, "contracts": {}}',
        b'{"ts_event": -1, "contracts": []}',
        b'{"ts_event": 99999999999999999999, "contracts": []}',
        b'{"ts_event": "now", "contracts": []}',
    ],
)
def test_what_is_no_chain_is_refused_by_its_key(payload):
    with pytest.raises(ChainError, match=r"options:SPX\.X:chain"):
        chain_payload.rows_of(payload, symbol="SPX.X")


def test_the_time_alone():
    payload = chain_payload.encoded(frame({}), ts_written=5, seq=2)
    assert chain_payload.ts_event_of(payload, source="key") == NOW_NS
    assert chain_payload.ts_event_of(b'{"ts": 5, "contracts": "anything"}', source="key") == 5
    with pytest.raises(ChainError, match="key does not tell its ts_event"):
        chain_payload.ts_event_of(b"{}", source="key")


def greeks(name, **fields):
    return {f"options:SPX.X:{name}:greeks": json.dumps(fields).encode()}


def test_contracts_with_a_payload_each():
    payloads = greeks("SPXW240315C05100500", ts=NOW_NS - 5, iv=0.2, ts_recv=9, venue="cboe", underlying_price=5.0)
    payloads |= greeks("x", contract="SPXW240315P05100500", ts_event=NOW_NS, open_interest=7)
    payloads |= greeks("1", strike=8, right="put", expiry="2024-03-15", ts_event=NOW_NS - 9)
    rows = chain_payload.rows_of_greeks(payloads, symbol="SPX.X").rows
    assert rows["ts_event"].to_list() == [NOW] * 3
    assert rows["venue"].to_list() == ["cboe"] * 3
    by_name = {row["contract"]: row for row in rows.to_dicts()}
    assert set(by_name) == {"1", "SPXW240315C05100500", "SPXW240315P05100500"}
    call, put = by_name["SPXW240315C05100500"], by_name["SPXW240315P05100500"]
    assert (call["iv"], call["underlying_price"], put["open_interest"], put["type"]) == (0.2, 5.0, 7.0, "P")
    assert by_name["1"]["strike"] == 8.0


@pytest.mark.parametrize(
    "bad", [b"null", b"<html>", b"[1]", b'{"strike": "x"}', b'{"ts_event": 5, "contract": "what"}']
)
def test_a_contracts_bad_payload_is_named_by_its_key(bad):
    payloads = {"options:SPX.X:?:greeks": bad} | greeks("SPXW240315C05100500", ts_event=NOW_NS)
    parsed = chain_payload.rows_of_greeks(payloads, symbol="SPX.X")
    assert parsed.rows.height == 1
    assert parsed.quarantined.select("source_file", "raw").rows() == [("options:SPX.X:?:greeks", bad.decode())]


def test_contracts_none_of_which_tells_a_time_are_refused():
    with pytest.raises(ChainError, match=r"None of 1 payloads of options:SPX\.X:\*:greeks tells its ts_event"):
        chain_payload.rows_of_greeks(greeks("SPXW240315C05100500", iv=0.2), symbol="SPX.X")
