"""Books kept from recorded diffs against the venue's own best quotes, and hidden orders against those LOBSTER marks."""

import gzip
import json
import zipfile

import numpy as np
import polars as pl
import pytest

from quant_platform.calculators import hidden_orders, local_order_book, order_book
from quant_platform.contracts._schema import INSTANT, polars_schema, validated
from quant_platform.contracts.market import Book, Trade
from quant_platform.contracts.microstructure import HiddenOrder, OrderBookImbalance

MS = 1_000_000


def levels(side):
    return [float(price) for price, _ in side], [float(size) for _, size in side]


def recorded(path):
    """Return the depth events of a recording and its best quotes by update id."""
    events, best = [], {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            received, _, text = line.partition(" ")
            message, recv = json.loads(text), int(received)
            data = message.get("data", message)
            if "lastUpdateId" in data:
                ids = ("snapshot", None, data["lastUpdateId"], None)
                ts = data["T"] * MS if "T" in data else recv
                events.append((ts, recv, "X", "v", *ids, *levels(data["bids"]), *levels(data["asks"])))
            elif data.get("e") == "depthUpdate":
                ids = ("diff", data["U"], data["u"], data.get("pu"))
                ts = data.get("T", data["E"]) * MS
                events.append((ts, recv, "X", "v", *ids, *levels(data["b"]), *levels(data["a"])))
            elif "A" in data:
                best[data["u"]] = tuple(float(data[name]) for name in "bBaA")
    schema = {name: pl.Int64 if kind.is_temporal() else kind for name, kind in local_order_book.EVENTS.items()}
    return pl.DataFrame(events, schema=schema, orient="row").cast(local_order_book.EVENTS), best


@pytest.mark.parametrize("name", ["usdm_btcusdt_20240808.part1", "spot_ethusdt_20240808"])
def test_recorded_diffs_keep_the_book_that_the_venue_quotes(real_data, name):
    events, best = recorded(real_data / "binance_frames_hft" / f"{name}.jsonl.gz")
    state, rows = local_order_book.step(local_order_book.initial(), events)
    assert state.gaps == ()
    assert rows["ts_event"].is_sorted()
    touch = rows.select("sequence", "bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1").rows()
    compared = [(tuple(ours), best[sequence]) for sequence, *ours in touch if sequence in best]
    assert len(compared) > 300
    assert all(ours == theirs for ours, theirs in compared)
    validated(Book, rows)
    imbalance = validated(OrderBookImbalance, order_book.order_book_imbalance(rows))
    assert set(imbalance["status"]) == {"ok"}
    assert set(imbalance["levels_used"]) == {5}


def test_inside_spread_and_excess_find_the_marked_hidden_executions(real_data):
    """Type 5 is the exchange's own mark."""
    path = real_data / "lobster_20120621" / "LOBSTER_SampleFile_AMZN_2012-06-21_1.zip"
    with zipfile.ZipFile(path) as archive:
        texts = {part: archive.read(next(n for n in archive.namelist() if part in n)) for part in ("message", "book")}
    happened = pl.read_csv(
        texts["message"], has_header=False, new_columns=["seconds", "type", "id", "size", "price", "direction"]
    )
    book = pl.read_csv(texts["book"], has_header=False, new_columns=["ask_price", "ask_size", "bid_price", "bid_size"])
    ts = (happened["seconds"] * 1e9).round().cast(pl.Int64)
    quotes = book.cast(pl.Float64).with_columns(
        ts_event=ts.cast(INSTANT),
        ts_recv=ts.cast(INSTANT),
        symbol=pl.lit("AMZN"),
        venue=pl.lit("NASDAQ"),
        sequence=pl.Series(np.arange(book.height)),
    )
    trades = (
        happened.select(
            pl.col("price", "size").cast(pl.Float64),
            "type",
            ts_event=ts.cast(INSTANT),
            ts_recv=ts.cast(INSTANT),
            symbol=pl.lit("AMZN"),
            venue=pl.lit("NASDAQ"),
            trade_id=pl.Series(np.arange(book.height)),
            aggressor=-pl.col("direction").cast(pl.Int8),
        )
        .filter(pl.col("type").is_in([4, 5]))
        .join_asof(
            quotes.select("ts_event", "bid_price", "bid_size", "ask_price", "ask_size"),
            on="ts_event",
            allow_exact_matches=False,
        )
    )
    assert set(polars_schema(Trade)) - {"first_trade_id", "last_trade_id"} <= set(trades.columns)
    rows = validated(HiddenOrder, hidden_orders.hidden_orders(trades, quotes))
    is_hidden = (trades["type"] == 5).to_numpy()
    is_inside, is_excess = (rows[rule].fill_null(value=False).to_numpy() for rule in ("inside_spread", "excess_size"))
    assert not (~is_hidden & (is_inside | is_excess)).any()
    assert is_inside.sum() / is_hidden.sum() == pytest.approx(0.90, abs=0.005)
    assert is_excess.sum() / is_hidden.sum() == pytest.approx(0.08, abs=0.005)
    assert rows["refill"].sum() > 0
