"""`qp backfill` on recorded Binance days, against pandas on the same zip files."""

import datetime as dt
import re
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from dagster import AssetKey

from quant_platform.defs.instance import dagster_instance
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.order_flow import ORDER_FLOW
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.settings import load_settings
from quant_platform.storage.lake import Lake

PROJECT = Path(__file__).parents[2]
USDM_DAY, SPOT_DAY = dt.date(2024, 8, 8), dt.date(2020, 11, 1)
TRADES = ["id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match"]
AGG_TRADES = ["id", "price", "qty", "first_id", "last_id", "time", "is_buyer_maker", "is_best_match"]
WIDTHS = {"market/bars_1s": 1, "market/bars_1m": 60, "market/bars_5m": 300}


class Day(NamedTuple):
    """A recorded symbol-day and where the archive has it."""

    symbol: str
    date: dt.date
    file: str
    columns: list[str]


DAYS = [
    *(
        Day(s, USDM_DAY, f"data/futures/um/daily/trades/{s}/{s}-trades-{USDM_DAY}.zip", TRADES)
        for s in ("BTCUSDT", "ETHUSDT")
    ),
    *(
        Day(f"{s}.SPOT", SPOT_DAY, f"data/spot/daily/aggTrades/{s}/{s}-aggTrades-{SPOT_DAY}.zip", AGG_TRADES)
        for s in ("BTCUSDT", "ETHUSDT")
    ),
]


class Home(NamedTuple):
    """A home that was filled from the recorded archive, and what the commands said."""

    path: Path
    archive: Path
    said: list[Any]
    environment: dict[str, str]


def backfill(qp_process: Any, home: Path, day: dt.date, environment: dict[str, str]) -> Any:
    symbols = ",".join(one.symbol for one in DAYS if one.date == day)
    return qp_process(home, PROJECT / "platform.yaml", "backfill", "--from", str(day), "--to", str(day),
                      "--symbols", symbols, **environment)  # fmt: skip


@pytest.fixture(scope="module")
def filled_home(real_data: Path, tmp_path_factory: pytest.TempPathFactory, qp_process: Any) -> Home:
    """Run both commands of the README once."""
    home, archive = tmp_path_factory.mktemp("real") / "home", real_data / "archive"
    environment = {
        "QP_FEEDS__BINANCE_USDM__ARCHIVE_URL": archive.as_uri(),
        "QP_FEEDS__BINANCE_SPOT__ARCHIVE_URL": archive.as_uri(),
    }
    said = [backfill(qp_process, home, day, environment) for day in (USDM_DAY, SPOT_DAY)]
    assert [one.code for one in said] == [0, 0], said
    return Home(home, archive, said, environment)


def tape(home: Home, day: Day) -> pd.DataFrame:
    """Return the day's rows as pandas reads them from the zip, in the order of their ids.

    A row of aggTrades stands for as many prints as its range of ids holds.
    """
    raw = pd.read_csv(home.archive / day.file, header=None, dtype=str)
    raw.columns = day.columns[: raw.shape[1]]
    if not raw.iloc[0, 0].isdigit():
        raw = raw.iloc[1:]
    trades = pd.DataFrame(
        {
            "id": raw["id"].astype("int64"),
            "ts": pd.to_datetime(raw["time"].astype("int64"), unit="ms", utc=True),
            "price": raw["price"].astype(float),
            "size": raw["qty"].astype(float),
            "is_sell": raw["is_buyer_maker"].str.lower() == "true",
            "prints": 1
            if "first_id" not in raw
            else raw["last_id"].astype("int64") - raw["first_id"].astype("int64") + 1,
        }
    )
    return trades[trades["ts"].dt.date == day.date].sort_values("id")


def bars_of(trades: pd.DataFrame, width_s: int) -> pd.DataFrame:
    """Resample trades with pandas alone."""
    trades = trades.assign(
        notional=trades["price"] * trades["size"],
        buy=trades["size"].where(~trades["is_sell"], 0.0),
        sell=trades["size"].where(trades["is_sell"], 0.0),
    )
    grouped = trades.groupby(trades["ts"].dt.floor(f"{width_s}s"), sort=True)
    bars = grouped.agg(
        open=("price", "first"),
        high=("price", "max"),
        low=("price", "min"),
        close=("price", "last"),
        volume=("size", "sum"),
        notional=("notional", "sum"),
        trade_count=("prints", "sum"),
        buy_volume=("buy", "sum"),
        sell_volume=("sell", "sum"),
    )
    return bars.assign(vwap=bars["notional"] / bars["volume"])


@pytest.mark.parametrize("table", WIDTHS)
@pytest.mark.parametrize("day", DAYS, ids=lambda d: f"{d.symbol}-{d.date}")
def test_bars_equal_pandas(filled_home: Home, day: Day, table: str) -> None:
    expected = bars_of(tape(filled_home, day), WIDTHS[table])

    ours = Lake((filled_home.path / "lake").as_uri()).scan(table, [day.symbol], day.date, day.date).collect()

    assert ours["ts_open"].dt.epoch("ns").to_list() == expected.index.as_unit("ns").asi8.tolist()
    assert len(expected) >= 2
    for name in ("open", "high", "low", "close"):
        assert ours[name].to_list() == expected[name].to_list()
    assert ours["trade_count"].to_list() == expected["trade_count"].to_list()
    for name in ("volume", "vwap", "buy_volume", "sell_volume"):
        np.testing.assert_allclose(ours[name].to_numpy(), expected[name].to_numpy(), rtol=1e-9, atol=1e-9)


def test_every_trade_of_the_files_is_counted(filled_home: Home) -> None:
    lake = Lake((filled_home.path / "lake").as_uri())
    for day in DAYS:
        trades = tape(filled_home, day)
        for table in WIDTHS:
            ours = lake.scan(table, [day.symbol], day.date, day.date)
            assert ours.select(pl.col("trade_count").sum()).collect().item() == trades["prints"].sum() > 1_000


@pytest.mark.parametrize("day", DAYS[:2], ids=lambda d: d.symbol)
def test_signed_tape_carries_the_quote_that_pandas_finds(filled_home: Home, day: Day) -> None:
    file = f"data/futures/um/daily/bookTicker/{day.symbol}/{day.symbol}-bookTicker-{day.date}.zip"
    quotes = pd.read_csv(filled_home.archive / file).sort_values("update_id")
    quotes["ts"] = pd.to_datetime(quotes["transaction_time"], unit="ms", utc=True)
    expected = pd.merge_asof(
        tape(filled_home, day).sort_values(["ts", "id"]),
        quotes.sort_values(["ts", "update_id"]),
        on="ts",
        allow_exact_matches=False,
        tolerance=pd.Timedelta(seconds=5),
    )

    lake = Lake((filled_home.path / "lake").as_uri())
    ours = lake.scan("microstructure/signed_trades", [day.symbol], day.date, day.date).collect()

    assert ours["trade_id"].to_list() == expected["id"].to_list()
    assert ours["aggressor"].to_list() == np.where(expected["is_sell"], -1, 1).tolist()
    for name, column in {
        "bid_price": "best_bid_price",
        "bid_size": "best_bid_qty",
        "ask_price": "best_ask_price",
        "ask_size": "best_ask_qty",
    }.items():
        np.testing.assert_array_equal(ours[name].to_numpy(), expected[column].to_numpy())
    assert ours["bid_price"].null_count() < len(ours) / 10


def test_order_flow_is_built_of_every_recorded_day(filled_home: Home) -> None:
    lake = Lake((filled_home.path / "lake").as_uri())
    for day in DAYS:
        flow = lake.scan("microstructure/participant_flow", [day.symbol], day.date, day.date).collect()
        kinds = ("institutional", "retail", "unclassified")
        np.testing.assert_allclose(flow.select(pl.sum_horizontal(f"{k}_notional_share" for k in kinds)), 1, rtol=1e-12)
        assert flow["trade_count"].max() == 200  # a full window
        for recipe in ORDER_FLOW:
            footer = lake.footer(recipe.table, day.symbol, day.date)
            assert footer is not None
            has_books = day.date == USDM_DAY
            wanted = "ok" if has_books or recipe.table != "microstructure/order_book_imbalance" else "absent"
            assert (recipe.table, footer.metadata["status"]) == (recipe.table, wanted)


def test_quotes_that_spot_does_not_publish_are_on_record_as_absent(filled_home: Home) -> None:
    lake = Lake((filled_home.path / "lake").as_uri())
    for symbol in ("BTCUSDT.SPOT", "ETHUSDT.SPOT"):
        footer = lake.footer("market/quotes", symbol, SPOT_DAY)
        assert footer is not None
        assert (footer.rows, footer.metadata["status"]) == (0, "absent")
        assert f"market/quotes {symbol} {SPOT_DAY}: the archive does not have this day" in filled_home.said[1].text


@pytest.mark.parametrize("day", DAYS, ids=lambda d: f"{d.symbol}-{d.date}")
def test_mart_equals_pandas(filled_home: Home, day: Day) -> None:
    trades = tape(filled_home, day)
    with duckdb.connect(filled_home.path / "warehouse.duckdb", read_only=True) as connection:
        (row,) = connection.execute(
            "SELECT open, high, low, close, volume, vwap, trade_count, buy_volume, sell_volume"
            " FROM marts.fct_daily_bars WHERE symbol = ? AND trading_date = ?",
            [day.symbol, day.date],
        ).fetchall()

    price, size = trades["price"], trades["size"]
    assert row[:4] == (price.iloc[0], price.max(), price.min(), price.iloc[-1])
    assert row[6] == trades["prints"].sum()
    expected = [
        size.sum(),
        (price * size).sum() / size.sum(),
        size[~trades["is_sell"]].sum(),
        size[trades["is_sell"]].sum(),
    ]
    np.testing.assert_allclose([float(row[n]) for n in (4, 5, 7, 8)], expected, rtol=1e-9)


@pytest.mark.parametrize(("date", "symbol"), [(USDM_DAY, "BTCUSDT"), (SPOT_DAY, "ETHUSDT.SPOT")])
def test_report_page_opens_offline(filled_home: Home, date: dt.date, symbol: str) -> None:
    folder = filled_home.path / "reports" / "daily_market"
    text = (folder / f"{date}.html").read_text()

    assert symbol in text
    wanted = re.findall(r"""(?:src|href)\s*=\s*["']([^"'#]+)""", text)
    assert wanted
    for address in wanted:
        assert "://" not in address
        assert not address.startswith("//")
        assert address.startswith("data:") or (folder / address).is_file(), address


@pytest.mark.usefixtures("dagster_home")
def test_runs_and_dates_appear_in_the_dagster_instance(filled_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QP_HOME", str(filled_home.path))
    with dagster_instance(load_settings(PROJECT / "platform.yaml")) as instance:
        runs = instance.get_runs()
        assert runs
        assert all(run.is_success for run in runs)
        assert {run.tags.get("qp/symbols") for run in runs} == {"BTCUSDT,ETHUSDT", "BTCUSDT.SPOT,ETHUSDT.SPOT"}
        for key in (["market", "trades"], ["market", "bars_5m"], ["reports", "daily_market"]):
            assert instance.get_materialized_partitions(AssetKey(key)) == {str(USDM_DAY), str(SPOT_DAY)}, key
        assert instance.get_latest_materialization_event(AssetKey(["marts", "fct_daily_bars"]))


def test_second_backfill_builds_nothing_and_touches_no_file(
    filled_home: Home, qp_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written() -> dict[Path, tuple[int, int]]:
        files = (p for name in ("lake", "quarantine", "landing") for p in (filled_home.path / name).rglob("*.*"))
        return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in files if p.suffix in {".parquet", ".zip"}}

    before = written()

    said = backfill(qp_process, filled_home.path, USDM_DAY, filled_home.environment)

    assert said.code == 0, said
    lines = (line.split() for line in said.out.splitlines())
    tables = {line[0]: line[1:] for line in lines if line and line[0] in RECIPES and line[1].isdigit()}
    assert tables.keys() == RECIPES.keys()
    assert {counts[0] for counts in tables.values()} == {"0"}  # built
    # Up to date, absent: two symbols, whose archive has no book; VIX1D is one unit.
    assert {(counts[1], counts[2]) for counts in tables.values()} == {("2", "0"), ("0", "2"), ("0", "1")}
    for name, address in filled_home.environment.items():
        monkeypatch.setenv(name, address)
    settings = load_settings(PROJECT / "platform.yaml")
    settings = settings.model_copy(update={"home": filled_home.path, "lake_uri": (filled_home.path / "lake").as_uri()})
    with Engine(settings) as engine:  # the other command's units, which its steps would run
        spot = [one.symbol for one in DAYS if one.date == SPOT_DAY]
        again = [outcome for table in RECIPES for outcome in engine.run(table, spot, [SPOT_DAY])]
    assert [outcome for outcome in again if not outcome.is_skipped] == []
    assert {outcome.unit.table for outcome in again} == RECIPES.keys()
    assert written() == before
