"""Deribit's answers written by hand: the join, prices in coins and in dollars, and every way to be wrong."""

import datetime as dt
import json

import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.options import OptionChain
from quant_platform.feeds.deribit import Answer, read_chain
from quant_platform.feeds.option_chain import ChainError

NAME = "BTC-28MAR25-60000-C"
INSTRUMENT = {
    "instrument_name": NAME,
    "kind": "option",
    "option_type": "call",
    "strike": 60000.0,
    "base_currency": "BTC",
    "quote_currency": "BTC",
    "expiration_timestamp": 1743148800000,  # date -u -d @1743148800: 2025-03-28 08:00
    "contract_size": 1.0,
}
SUMMARY = {
    "instrument_name": NAME,
    "creation_timestamp": 1742000000000,
    "bid_price": 0.25,
    "ask_price": 0.5,
    "last": 0.125,
    "mark_iv": 63.29,
    "open_interest": 9.1,
    "volume": 2.5,
    "underlying_price": 80000.0,
}
TICKER = {
    "instrument_name": NAME,
    "timestamp": 1742000001500,
    "best_bid_price": 0.375,
    "best_bid_amount": 4.0,
    "best_ask_price": 0.0,
    "best_ask_amount": 0.0,
    "last_price": None,
    "mark_iv": 320.5,
    "open_interest": 10.0,
    "underlying_price": 80000.0,
    "greeks": {"delta": 0.78, "gamma": 0.00004, "vega": 34.6, "theta": -93.1, "rho": 1.0},
    "stats": {"volume": 3.5, "high": None},
}


def answer(result, source="summaries.json"):
    return Answer(json.dumps({"jsonrpc": "2.0", "result": result}).encode(), source)


def named(record, name, **changes):
    return record | {"instrument_name": name} | changes


def read(instruments, summaries, *tickers):
    return read_chain(
        answer(instruments, "instruments.json"),
        None if summaries is None else answer(summaries),
        [answer(ticker, f"ticker-{number}.json") for number, ticker in enumerate(tickers)],
        symbol="BTCUSD",
    )


def broken(parsed):
    return parsed.quarantined.select("rule", "source_file", "source_line").rows()


def test_summary_of_a_coin_option_is_turned_into_dollars():
    parsed = read([INSTRUMENT], [SUMMARY])
    assert parsed.rows.schema == polars_schema(OptionChain)
    assert parsed.rows.row(0, named=True) == {
        "ts_event": dt.datetime(2025, 3, 15, 0, 53, 20, tzinfo=dt.UTC),  # date -u -d @1742000000
        "ts_recv": None,
        "symbol": "BTCUSD",
        "venue": "deribit",
        "contract": NAME,
        "type": "C",
        "strike": 60000.0,
        "expiry": dt.date(2025, 3, 28),
        "ts_expiry": dt.datetime(2025, 3, 28, 8, tzinfo=dt.UTC),
        "multiplier": 1.0,
        "bid": 20000.0,
        "ask": 40000.0,
        "bid_size": None,
        "ask_size": None,
        "last": 10000.0,
        "iv": 0.6329,
        "delta": None,
        "gamma": None,
        "vega": None,
        "theta": None,
        "open_interest": 9.1,
        "volume": 2.5,
        "underlying_price": 80000.0,
    }
    assert parsed.facts == {
        "instruments": "1",
        "instruments_broken": "0",
        "contracts": "1",
        "unquoted": "0",
        "expired": "0",
        "adjusted": "0",
    }


def test_ticker_takes_the_place_of_the_summary():
    row = read([INSTRUMENT], [SUMMARY], TICKER).rows.row(0, named=True)
    assert (row["bid"], row["bid_size"], row["iv"]) == (30000.0, 4.0, 3.205)
    assert (row["ask"], row["last"]) == (None, None)  # an offer at 0 is none, and what the older summary says is gone
    assert [row[name] for name in ("delta", "gamma", "vega", "theta")] == [0.78, 0.00004, 34.6, -93.1]
    assert (row["open_interest"], row["volume"]) == (10.0, 3.5)
    assert row["ts_event"] == dt.datetime(2025, 3, 15, 0, 53, 21, 500_000, tzinfo=dt.UTC)


def test_option_on_usdc_is_in_dollars_already():
    name = "XRP_USDC-28MAR25-0d625-P"
    instrument = named(INSTRUMENT, name, base_currency="XRP", quote_currency="USDC", strike=0.625, option_type="put")
    row = read([instrument], [named(SUMMARY, name, underlying_price=2.5)]).rows.row(0, named=True)
    assert (row["strike"], row["type"], row["bid"], row["ask"]) == (0.625, "P", 0.25, 0.5)


def test_coin_price_without_a_forward_is_null():
    row = read([INSTRUMENT], [named(SUMMARY, NAME, underlying_price=None)]).rows.row(0, named=True)
    assert (row["bid"], row["ask"], row["last"], row["open_interest"]) == (None, None, None, 9.1)


def test_a_chain_has_one_time():
    second = "BTC-28MAR25-70000-C"
    instruments = [INSTRUMENT, named(INSTRUMENT, second, strike=70000.0)]
    rows = read(instruments, [SUMMARY, named(SUMMARY, second, creation_timestamp=1742000000999)]).rows
    assert rows["ts_event"].unique().to_list() == [dt.datetime(2025, 3, 15, 0, 53, 20, 999_000, tzinfo=dt.UTC)]


def test_instruments_of_other_kinds_are_passed_over():
    future = {"instrument_name": "BTC-PERPETUAL", "kind": "future", "base_currency": "BTC", "quote_currency": "USD"}
    parsed = read([future | {"expiration_timestamp": 32503708800000}, INSTRUMENT], [SUMMARY])
    assert (parsed.rows.height, parsed.facts["instruments"]) == (1, "1")


def test_contract_without_a_quote_is_counted():
    parsed = read([INSTRUMENT, named(INSTRUMENT, "BTC-28MAR25-70000-C", strike=70000.0)], [SUMMARY])
    assert (parsed.rows.height, parsed.facts["unquoted"]) == (1, "1")


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (named(SUMMARY, "BTC-28MAR25-61000-C"), "contract|unlisted"),
        (named(SUMMARY, "BTC-28MAR25-62000-C"), "contract|instrument"),  # strike
        (named(SUMMARY, "BTC-28MAR25-60000-P"), "contract|instrument"),  # type
        (named(SUMMARY, "BTC-29MAR25-60000-C"), "contract|instrument"),  # expiry
        (named(SUMMARY, "BTC_28MAR25"), "contract|name"),
        (SUMMARY, "contract|duplicate"),
        (named(SUMMARY, "BTC-28MAR25-63000-C", bid_price="0.25"), "bid_price|malformed"),
        (named(SUMMARY, "BTC-28MAR25-63000-C", creation_timestamp=1742000000000000000), "creation_timestamp|malformed"),
        (named(SUMMARY, "BTC-28MAR25-63000-C", open_interest=-1.0), "open_interest|min"),
    ],
)
def test_bad_quote_is_quarantined_and_the_others_stay(bad, rule):
    odd = ("BTC-28MAR25-62000-C", "BTC-28MAR25-60000-P", "BTC-29MAR25-60000-C", "BTC_28MAR25")
    right = named(INSTRUMENT, "BTC-28MAR25-63000-C", strike=63000.0)
    parsed = read([INSTRUMENT, right, *(named(INSTRUMENT, name) for name in odd)], [SUMMARY, bad])
    assert parsed.rows["contract"].to_list() == [NAME]
    assert broken(parsed) == [(rule, "summaries.json", 2)]
    assert json.loads(parsed.quarantined["raw"][0]) == bad
    assert parsed.facts["contracts"] == "2"


def test_ticker_that_cannot_be_read_is_quarantined_under_its_own_name():
    second = named(INSTRUMENT, "BTC-28MAR25-70000-C", strike=70000.0)
    parsed = read([INSTRUMENT, second], [SUMMARY], {"instrument_name": second["instrument_name"]}, TICKER)
    assert broken(parsed) == [("row|malformed", "ticker-0.json", 1)]
    assert parsed.rows["bid"].to_list() == [30000.0]


def test_tickers_alone_are_a_chain():
    assert read([INSTRUMENT], None, TICKER).rows["delta"].to_list() == [0.78]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>Too many requests</html>", "is a web page, not JSON"),
        (json.dumps({"jsonrpc": "2.0", "result": [SUMMARY]}).encode()[:-40], "cut off"),
        (b'{"jsonrpc":"2.0","error":{"message":"Invalid params","code":-32602}}', "is JSON, but no option chain"),
        (b'{"jsonrpc":"2.0","result":{"instrument_name":"BTC"}}', "is JSON, but no option chain"),
        (b'{"jsonrpc":"2.0","result":[]}', "hold no quote that tells its time"),
    ],
)
def test_answer_that_is_no_chain_is_refused_by_name(content, said):
    with pytest.raises(ChainError, match="Nothing was loaded") as error:
        read_chain(answer([INSTRUMENT]), Answer(content, "https://deribit/summaries"), symbol="BTCUSD")
    assert str(error.value).startswith("https://deribit/summaries")
    assert said in str(error.value)
