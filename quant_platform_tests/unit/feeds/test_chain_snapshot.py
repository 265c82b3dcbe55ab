"""Archived answers to rows: each venue's by its own module, and what is no chain refused."""

import datetime as dt
import json

import pytest

from quant_platform.feeds import cboe, deribit
from quant_platform.feeds.chain_snapshot import rows_of
from quant_platform.feeds.option_chain import ChainError
from quant_platform.storage.chain_archive import Answer, Snapshot

CBOE = {
    "timestamp": "2024-03-04 15:00:00",
    "data": {"symbol": "SPX", "current_price": 5100.0, "options": [{"option": "SPXW240305C05100000", "bid": 20.0}]},
}
RECEIVED = 1_709_564_401_123_456_000


def answer(body):
    return Answer(json.dumps(body).encode(), "https://venue")


def deribit_answers():
    listed = {
        "instrument_name": "BTC-28MAR25-60000-C",
        "kind": "option",
        "option_type": "call",
        "strike": 60000.0,
        "base_currency": "BTC",
        "quote_currency": "BTC",
        "expiration_timestamp": 1743148800000,
    }
    quoted = {"instrument_name": "BTC-28MAR25-60000-C", "creation_timestamp": 1742000000000, "underlying_price": 8e4}
    ticker = {"instrument_name": "BTC-28MAR25-60000-C", "timestamp": 1742000000001, "open_interest": 3.0}
    return {
        "instruments": answer({"result": [listed]}),
        "summaries": answer({"result": [quoted | {"open_interest": 2.0}]}),
        "ticker/BTC-28MAR25-60000-C": answer({"result": ticker}),
    }


def test_a_chain_of_cboe():
    found = rows_of("cboe", Snapshot({"chain": answer(CBOE)}, RECEIVED), symbol="SPX.I")
    direct = cboe.read_json(answer(CBOE).content, "https://venue", symbol="SPX.I")
    assert found.rows.drop("ts_recv").equals(direct.rows.drop("ts_recv"))
    assert found.rows["ts_recv"].dt.epoch("ns").to_list() == [RECEIVED]


def test_a_chain_of_deribit_with_and_without_tickers():
    answers = deribit_answers()
    found = rows_of("deribit", Snapshot(answers, None), symbol="BTC").rows.row(0, named=True)
    assert (found["open_interest"], found["ts_recv"]) == (3.0, None)
    del answers["ticker/BTC-28MAR25-60000-C"]
    direct = deribit.read_chain(answers["instruments"], answers["summaries"], symbol="BTC")
    assert rows_of("deribit", Snapshot(answers, None), symbol="BTC").rows.equals(direct.rows)
    assert direct.rows["open_interest"].to_list() == [2.0]


@pytest.mark.parametrize(
    ("feed", "names"), [("cboe", ["instruments"]), ("deribit", ["chain"]), ("deribit", ["summaries"]), ("cboe", [])]
)
def test_answers_that_are_no_chain_of_the_feed_are_refused(feed, names):
    with pytest.raises(ChainError, match=f"no chain of {feed}"):
        rows_of(feed, Snapshot({name: answer({}) for name in names}, None), symbol="X")


def test_receipt_keeps_its_microseconds():
    received = rows_of("cboe", Snapshot({"chain": answer(CBOE)}, RECEIVED + 789), symbol="X").rows["ts_recv"][0]
    assert received == dt.datetime(2024, 3, 4, 15, 0, 1, 123456, tzinfo=dt.UTC)
