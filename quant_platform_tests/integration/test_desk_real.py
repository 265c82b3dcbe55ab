"""Real exports of orders and fills, loaded by mappings of platform.yaml alone."""

import csv
import gzip
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from quant_platform.feeds.desk import Parsed, parsed
from quant_platform.pipeline.desk_intake import ingested
from quant_platform.settings import Settings, load_settings
from quant_platform.storage import desk_archive

STOCKS = ("AMD", "CERN", "COST", "DELL", "GPS", "INTC", "MMM")
PAIRS = ("EURUSD", "EURJPY")
NOW = datetime(2026, 11, 21, tzinfo=UTC)
CONFIG = """\
feeds:
  desk:
    mappings:
      tcapy_orders:
        kind: orders
        columns: {order_id: id, ts_event: date, ts_done: benchmark_date_end, symbol: ticker, side: side,
                  quantity: notional, algo: algo_id, broker: broker_id, limit_price: price_limit}
        filter: {ticker: [EURUSD, EURJPY], notional_currency: EUR}
        constants: {status: filled}
      tcapy_fills:
        kind: fills
        columns: {fill_id: id, order_id: ancestor_pointer_id, ts_event: date, symbol: ticker, side: side,
                  price: executed_price, quantity: executed_notional, venue: venue}
        filter: {event_type: trade, ticker: [EURUSD, EURJPY], notional_currency: EUR}
      pyfolio:
        kind: fills
        columns: {ts_event: "", symbol: symbol, price: price, quantity: amount}
        side_from_sign: amount
        id_from: ["", symbol, amount, price]
instruments:
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("desk")
    row = "feed: binance_usdm, tick_size: 0.00001, lot_size: 1"
    lines = [f"  - {{symbol: {name}, venue_symbol: {name}, {row}}}\n" for name in (*STOCKS, *PAIRS)]
    (root / "platform.yaml").write_text(CONFIG + "".join(lines))
    return load_settings(root / "platform.yaml").model_copy(update={"home": root / "home"})


def lines_of(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def read(settings: Settings, path: Path, mapping: str) -> Parsed:
    return parsed(
        path.read_bytes(),
        kind=None,
        mapping=settings.feeds.desk.mappings[mapping],
        symbols=[i.symbol for i in settings.instruments],
        venues=(),
        ts_intake=NOW,
    )


def test_signed_amounts_without_ids_are_fills(settings: Settings, real_data: Path) -> None:
    path = real_data / "fills_pyfolio" / "test_txn.csv.gz"
    found, lines = read(settings, path, "pyfolio"), lines_of(path)
    assert found.rows.height == len(lines) == 9367
    assert found.rows["rule"].null_count() == 9367
    assert found.rows["fill_id"].n_unique() == 9367
    told = found.rows.select("symbol", "price", signed=pl.col("side") * pl.col("quantity")).rows()
    assert told == [(line["symbol"], float(line["price"]), float(line["amount"])) for line in lines]
    times = [datetime.fromisoformat(line[""]) for line in lines]
    assert found.rows["ts_event"].to_list() == times


def test_events_of_one_file_are_told_apart_by_a_filter(settings: Settings, real_data: Path) -> None:
    path = real_data / "fills_tcapy" / "small_test_trade_df.csv.gz"
    found, lines = read(settings, path, "tcapy_fills"), lines_of(path)
    wanted = [
        line
        for line in lines
        if (line["event_type"], line["notional_currency"]) == ("trade", "EUR") and line["ticker"] in PAIRS
    ]
    assert (found.rows.height, found.left_out) == (197, 660 - 197)
    assert found.rows["rule"].null_count() == 197
    told = found.rows.select("fill_id", "order_id", "symbol", "side", "price", "quantity", "venue").rows()
    assert told == [
        (
            *(line["id"], line["ancestor_pointer_id"], line["ticker"], int(line["side"])),
            *(float(line["executed_price"]), float(line["executed_notional"]), line["venue"]),
        )
        for line in wanted
    ]


def test_orders_and_their_fills_lie_under_their_dates(settings: Settings, real_data: Path) -> None:
    ts_intake = int(NOW.timestamp()) * 1_000_000_000
    folder = real_data / "fills_tcapy"
    orders = ingested(settings, folder / "small_test_order_df.csv.gz", ts_intake=ts_intake, mapping="tcapy_orders")
    fills = ingested(settings, folder / "small_test_trade_df.csv.gz", ts_intake=ts_intake, mapping="tcapy_fills")
    assert [one.status for one in (orders, fills)] == ["taken", "taken"]
    assert fills.receipt is not None
    root = settings.landing / desk_archive.FOLDER
    parts = {
        kind: pl.concat(map(pl.read_parquet, sorted(root.glob(f"{kind}/*/*/*.parquet"))))
        for kind in ("orders", "fills")
    }
    assert parts["orders"].height == 196
    assert parts["fills"]["order_id"].is_in(parts["orders"]["order_id"].implode()).all()
    by_day = Counter(parts["fills"].select(pl.col("ts_event").dt.date(), "symbol").rows())
    assert {(day.date, day.symbol): day.rows for day in fills.receipt.days} == by_day
    assert (parts["orders"]["ts_done"] >= parts["orders"]["ts_event"]).all()
