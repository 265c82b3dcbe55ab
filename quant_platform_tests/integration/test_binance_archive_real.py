"""The recorded archive through fetch and parse, against pandas on the same zips."""

import datetime as dt
import hashlib
from types import SimpleNamespace

import pandas as pd
import pytest

from quant_platform.feeds.binance_archive import archive_path, fetch_day
from quant_platform.feeds.binance_csv import read_day, read_klines

TRADES = ["id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match"]
AGG_TRADES = ["agg_id", "price", "qty", "first_id", "last_id", "time", "is_buyer_maker", "is_best_match"]
QUOTES = ["update_id", "bid_price", "bid_size", "ask_price", "ask_size", "time", "event_time"]
USDM_DAY, SPOT_AGG_DAY = dt.date(2024, 8, 8), dt.date(2020, 11, 1)


def instrument(venue_symbol, feed):
    return SimpleNamespace(symbol=f"{venue_symbol}.TEST", venue_symbol=venue_symbol, feed=feed, tape="trades")


def in_pandas(path, names):
    raw = pd.read_csv(path, header=None, dtype=str)
    raw.columns = names[: raw.shape[1]]
    if not raw.iloc[0, 0].isdigit():
        raw = raw.iloc[1:].reset_index(drop=True)
    return raw


@pytest.mark.parametrize(
    ("venue_symbol", "feed", "date", "kind", "names"),
    [
        ("BTCUSDT", "binance_usdm", USDM_DAY, "trades", TRADES),
        ("ETHUSDT", "binance_usdm", USDM_DAY, "trades", TRADES),
        ("BTCUSDT", "binance_spot", USDM_DAY, "trades", TRADES),
        ("ETHUSDT", "binance_spot", USDM_DAY, "trades", TRADES),
        ("BTCUSDT", "binance_spot", SPOT_AGG_DAY, "aggTrades", AGG_TRADES),
        ("ETHUSDT", "binance_spot", SPOT_AGG_DAY, "aggTrades", AGG_TRADES),
        ("ETHBTC", "binance_spot", SPOT_AGG_DAY, "aggTrades", AGG_TRADES),
    ],
)
def test_recorded_trades_equal_pandas(real_data, tmp_path, venue_symbol, feed, date, kind, names):
    traded = instrument(venue_symbol, feed)
    day = fetch_day((real_data / "archive").as_uri(), traded, "market/trades", date, landing=tmp_path)
    assert day is not None
    assert (day.kind, day.fetched.is_verified) == (kind, True)
    assert day.fetched.sha256 == hashlib.sha256(day.fetched.path.read_bytes()).hexdigest()

    parsed = read_day(day, traded, date)

    raw = in_pandas(day.fetched.path, names)
    when = pd.to_datetime(raw["time"].astype("int64"), unit="ms", utc=True)
    expected = raw[when.dt.date == date]
    first, last = ("first_id", "last_id") if kind == "aggTrades" else ("id", "id")
    rows = parsed.rows.to_pandas()
    assert len(rows) == len(expected) > 1_000
    assert (rows["ts_event"].to_numpy() == when[expected.index].to_numpy()).all()
    assert (rows["first_trade_id"].to_numpy() == expected[first].astype("int64").to_numpy()).all()
    assert (rows["last_trade_id"].to_numpy() == expected[last].astype("int64").to_numpy()).all()
    assert (rows["price"].to_numpy() == expected["price"].astype(float).to_numpy()).all()
    assert (rows["size"].to_numpy() == expected["qty"].astype(float).to_numpy()).all()
    is_sell = expected["is_buyer_maker"].str.lower() == "true"
    assert (rows["aggressor"].to_numpy() == is_sell.map({True: -1, False: 1}).to_numpy()).all()
    assert parsed.quarantined.height == len(raw) - len(expected)
    assert set(parsed.quarantined["rule"]) <= {"ts_event|outside_date"}
    assert (parsed.tape, parsed.time_unit, parsed.out_of_order) == (kind, "ms", 0)


@pytest.mark.parametrize("venue_symbol", ["BTCUSDT", "ETHUSDT"])
def test_recorded_quotes_equal_pandas(real_data, tmp_path, venue_symbol):
    traded = instrument(venue_symbol, "binance_usdm")
    day = fetch_day((real_data / "archive").as_uri(), traded, "market/quotes", USDM_DAY, landing=tmp_path)
    assert day is not None

    parsed = read_day(day, traded, USDM_DAY)

    raw = in_pandas(day.fetched.path, QUOTES)
    when = pd.to_datetime(raw["time"].astype("int64"), unit="ms", utc=True)
    expected = raw[when.dt.date == USDM_DAY].assign(sequence=lambda r: r["update_id"].astype("int64"), when=when)
    expected = expected.sort_values(["when", "sequence"])
    rows = parsed.rows.to_pandas()
    assert len(rows) == len(expected) > 10_000
    assert (rows["sequence"].to_numpy() == expected["sequence"].to_numpy()).all()
    assert (rows["ts_event"].to_numpy() == expected["when"].to_numpy()).all()
    for name in ("bid_price", "bid_size", "ask_price", "ask_size"):
        assert (rows[name].to_numpy() == expected[name].astype(float).to_numpy()).all()
    assert parsed.quarantined.height == len(raw) - len(expected)


def test_recorded_archive_lacks_most_days(real_data, tmp_path):
    traded = instrument("BTCUSDT", "binance_usdm")
    root = (real_data / "archive").as_uri()

    assert fetch_day(root, traded, "market/trades", dt.date(2024, 8, 7), landing=tmp_path) is None


def test_official_klines_equal_pandas(real_data):
    path = real_data / "archive" / archive_path("binance_spot", "klines", "BTCUSDT", dt.date(2020, 1, 1))

    bars = read_klines(path)

    raw = pd.read_csv(path, header=None)
    assert bars.height == len(raw) == 1440
    assert bars["ts_open"].dt.epoch("ms").to_list() == raw[0].to_list()
    for name, column in {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}.items():
        assert bars[name].to_list() == raw[column].to_list()
    assert bars["trade_count"].to_list() == raw[8].to_list()
    assert bars["taker_buy_volume"].to_list() == raw[9].to_list()
