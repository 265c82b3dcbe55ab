"""`qp backfill` on recorded LOBSTER, Lean and frame files, against pandas, csv and json on the same files."""

import csv
import datetime as dt
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pytest

from quant_platform.contracts._schema import contract_of
from quant_platform.feeds import frames, lobster
from quant_platform.feeds.recorded import Wanted
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.recipes import READ_ORDER
from quant_platform.settings import load_settings
from quant_platform.storage.lake import Lake

LOBSTER_DAY, LEAN_DAY, FRAMES_DAY = dt.date(2012, 6, 21), dt.date(2013, 10, 7), dt.date(2024, 8, 8)
LOBSTER_ZIP = "lobster_20120621/LOBSTER_SampleFile_AMZN_2012-06-21_5.zip"
LEAN_FOLDER = "lean_equity_ticks"
FRAMES_FOLDER = "binance_frames_hft"
USDM_FILE = "usdm_ethusdt_20240808.part1.jsonl.gz"
SPOT_FILE = "spot_ethusdt_20240808.jsonl.gz"
CONFIG = """\
partitions: {{start: 2012-01-01}}
pipeline: {{workers: 0}}
feeds:
  recorded_lobster: {{path: {data}/lobster_20120621}}
  recorded_lean: {{path: {data}/lean_equity_ticks}}
  recorded_frames: {{path: {data}/binance_frames_hft, venue: binance_usdm}}
instruments:
  - {{symbol: AMZN, venue_symbol: AMZN, feed: recorded_lobster, tick_size: 0.01, lot_size: 1, calendar: XNYS}}
  - {{symbol: IBM, venue_symbol: IBM, feed: recorded_lean, tick_size: 0.01, lot_size: 1, calendar: XNYS}}
  - {{symbol: ETHUSDT, venue_symbol: ETHUSDT, feed: recorded_frames, tick_size: 0.01, lot_size: 0.001}}
"""
DAYS = {"AMZN": LOBSTER_DAY, "IBM": LEAN_DAY, "ETHUSDT": FRAMES_DAY}
MIDNIGHTS_NS = {
    "AMZN": 1_340_251_200_000_000_000,  # TZ=America/New_York date -d 2012-06-21 +%s
    "IBM": 1_381_118_400_000_000_000,
    "ETHUSDT": 1_723_075_200_000_000_000,  # UTC
}
DAY_NS = 86_400_000_000_000


class Home(NamedTuple):
    """A home that was filled from the recordings, and their folder."""

    path: Path
    data: Path

    def rows(self, table: str, symbol: str) -> pl.DataFrame:
        """Return a symbol's rows of its recorded date."""
        return Lake((self.path / "lake").as_uri()).scan(table, [symbol], DAYS[symbol], DAYS[symbol]).collect()

    def status(self, table: str, symbol: str) -> str:
        """Return what became of the unit."""
        footer = Lake((self.path / "lake").as_uri()).footer(table, symbol, DAYS[symbol])
        assert footer is not None
        return footer.metadata["status"]


@pytest.fixture(scope="module")
def home(real_data: Path, tmp_path_factory: pytest.TempPathFactory, qp_process: Any) -> Home:
    """Build every table of each recorded date: one by `qp backfill`, the others by the engine inside it."""
    root = tmp_path_factory.mktemp("recorded")
    config = root / "platform.yaml"
    config.write_text(CONFIG.format(data=real_data))
    filled = Home(root / "home", real_data)
    (symbol, day), *others = DAYS.items()
    said = qp_process(filled.path, config, "backfill", "--from", str(day), "--to", str(day), "--symbols", symbol)
    assert said.code == 0, said
    with engine_over(filled) as engine:
        for symbol, day in others:
            outcomes = [outcome for table in READ_ORDER for outcome in engine.run(table, [symbol], [day])]
            assert [outcome for outcome in outcomes if not outcome.is_healthy] == []
    return filled


def engine_over(home: Home) -> Engine:
    settings = load_settings(home.path.parent / "platform.yaml")
    return Engine(settings.model_copy(update={"home": home.path, "lake_uri": (home.path / "lake").as_uri()}))


def ns(rows: pl.DataFrame, column: str = "ts_event") -> list[int]:
    return rows[column].dt.timestamp("ns").to_list()


def bars_of(trades: pd.DataFrame, width_s: int) -> pd.DataFrame:
    """Resample trades (`ns price size side`, in order) with pandas alone."""
    trades = trades.assign(
        buy=trades["size"].where(trades["side"] > 0, 0.0), sell=trades["size"].where(trades["side"] < 0, 0.0)
    )
    return trades.groupby(trades["ns"] // (width_s * 10**9) * width_s * 10**9).agg(
        open=("price", "first"),
        high=("price", "max"),
        low=("price", "min"),
        close=("price", "last"),
        volume=("size", "sum"),
        trade_count=("size", "count"),
        buy_volume=("buy", "sum"),
        sell_volume=("sell", "sum"),
    )


def assert_bars_equal(home: Home, symbol: str, trades: pd.DataFrame) -> None:
    for table, width_s in {"market/bars_1s": 1, "market/bars_1m": 60, "market/bars_5m": 300}.items():
        ours, expected = home.rows(table, symbol), bars_of(trades, width_s)
        assert ns(ours, "ts_open") == expected.index.to_list()
        for name in ("open", "high", "low", "close", "trade_count"):
            assert ours[name].to_list() == expected[name].to_list(), (table, name)
        for name in ("volume", "buy_volume", "sell_volume"):
            np.testing.assert_allclose(ours[name].to_numpy(), expected[name].to_numpy(), rtol=1e-9, atol=1e-9)


# LOBSTER


@pytest.fixture(scope="module")
def lobster_day(real_data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    with zipfile.ZipFile(real_data / LOBSTER_ZIP) as archive:
        stem = "AMZN_2012-06-21_34200000_57600000"
        names = ["time", "type", "id", "size", "price", "direction"]
        messages = pd.read_csv(archive.open(f"{stem}_message_5.csv"), names=names, dtype={"time": str})
        books = pd.read_csv(archive.open(f"{stem}_orderbook_5.csv"), header=None)
    nearest = messages["time"].map(lambda text: int((Decimal(text) * 10**9).quantize(Decimal(1))))
    return messages.assign(ns=nearest + MIDNIGHTS_NS["AMZN"]), books


def test_lobster_trades_are_the_executions(home: Home, lobster_day: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    messages, _ = lobster_day
    expected = messages[messages["type"].isin([4, 5])]

    ours = home.rows("market/trades", "AMZN")

    assert ours.height == len(expected) == 11_419
    assert ns(ours) == expected["ns"].to_list()
    assert ours["price"].to_list() == [float(Decimal(price) / 10_000) for price in expected["price"]]
    assert ours["size"].to_list() == expected["size"].to_list()
    assert ours["aggressor"].to_list() == (-expected["direction"]).to_list()
    assert ours["trade_id"].to_list() == list(range(1, 11_420))
    assert home.rows("market/gaps", "AMZN").height == 0


def test_lobster_executions_tell_the_hidden_ones(home: Home, lobster_day: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    messages, _ = lobster_day

    found = lobster.executions(home.data / LOBSTER_ZIP)

    assert found["is_hidden"].to_list() == (messages[messages["type"].isin([4, 5])]["type"] == 5).to_list()
    assert found["is_hidden"].sum() == 2_445


def test_lobster_quotes_and_books_are_the_changed_states(
    home: Home, lobster_day: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    messages, books = lobster_day
    for table, width in {"market/quotes": 4, "market/book": 20}.items():
        states = books.iloc[:, :width]
        is_new = (states != states.shift()).any(axis=1)
        ours = home.rows(table, "AMZN")
        assert ours["sequence"].to_list() == [line + 1 for line in states.index[is_new]]
        assert ns(ours) == messages["ns"][is_new].to_list()
        for position in range(width):
            side, what = ("ask", "ask", "bid", "bid")[position % 4], ("price", "size")[position % 2]
            name = f"{side}_{what}" if table == "market/quotes" else f"{side}_{what}_{position // 4 + 1}"
            scale = 10_000 if what == "price" else 1
            assert ours[name].to_list() == [int(value) / scale for value in states[position][is_new]], name


def test_lobster_bars_equal_pandas(home: Home, lobster_day: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    messages, _ = lobster_day
    executed = messages[messages["type"].isin([4, 5])]
    trades = executed.assign(price=executed["price"] / 10_000, side=-executed["direction"])
    assert_bars_equal(home, "AMZN", trades)


# Lean


def lean_rows(data: Path, kind: str) -> list[list[str]]:
    with zipfile.ZipFile(data / LEAN_FOLDER / f"ibm_20131007_{kind}.zip") as archive:
        (name,) = archive.namelist()
        return list(csv.reader(io.TextIOWrapper(archive.open(name))))


def test_lean_trades_and_bars_equal_the_file(home: Home) -> None:
    raw = lean_rows(home.data, "trade")
    ours = home.rows("market/trades", "IBM")

    assert ours.height == len(raw) == 24_293
    assert ns(ours) == [int(row[0]) * 1_000_000 + MIDNIGHTS_NS["IBM"] for row in raw]
    assert ours["price"].to_list() == [float(Decimal(row[1]) / 10_000) for row in raw]
    assert ours["size"].to_list() == [float(row[2]) for row in raw]
    assert ours["venue"].to_list() == [row[3] for row in raw]
    assert set(ours["aggressor"]) == {0}
    assert home.rows("market/gaps", "IBM").height == 0
    trades = pd.DataFrame({"ns": ns(ours), "price": ours["price"], "size": ours["size"], "side": 0})
    assert_bars_equal(home, "IBM", trades)


def best_bids_and_offers(raw: list[list[str]]) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield `line ms bid bid_size ask ask_size` after each message: a bid row and the offer row after it are one."""
    bid = bid_size = ask = ask_size = 0
    before: tuple[int, int, int, int] | None = None
    for line, row in enumerate(raw, start=1):
        if row[7] == "1":
            continue
        ms, is_bid = int(row[0]), row[1] != "0"
        if is_bid:
            bid, bid_size = int(row[1]), int(row[2])
        else:
            ask, ask_size = int(row[3]), int(row[4])
        following = raw[line] if line < len(raw) else None
        if is_bid and following and following[0] == row[0] and following[3] != "0" and following[7] == "0":
            continue
        if (bid, bid_size, ask, ask_size) != before:
            before = (bid, bid_size, ask, ask_size)
            yield line, ms, *before


def test_lean_quotes_are_the_best_bid_and_offer(home: Home) -> None:
    expected = list(best_bids_and_offers(lean_rows(home.data, "quote")))
    ours = home.rows("market/quotes", "IBM")

    assert ours["sequence"].to_list() == [row[0] for row in expected]
    assert ns(ours) == [row[1] * 1_000_000 + MIDNIGHTS_NS["IBM"] for row in expected]
    for name, position, scale in (("bid_price", 2, 10_000), ("bid_size", 3, 1), ("ask_price", 4, 10_000),
                                  ("ask_size", 5, 1)):  # fmt: skip
        assert ours[name].fill_null(0).to_list() == [row[position] / scale for row in expected], name


def test_lean_market_is_hardly_ever_crossed_and_trades_are_within(home: Home) -> None:
    is_session = (
        pl.col("ts_event").dt.convert_time_zone("America/New_York").dt.time().is_between(dt.time(9, 31), dt.time(16))
    )
    quotes = home.rows("market/quotes", "IBM").filter(is_session)
    trades = home.rows("market/trades", "IBM").filter(is_session, pl.col("venue") != "D")

    judged = trades.join_asof(
        quotes.select("ts_event", "bid_price", "ask_price"), on="ts_event", allow_exact_matches=False
    )

    assert quotes.select((pl.col("bid_price") > pl.col("ask_price")).mean()).item() < 0.002
    assert judged.select(pl.col("price").is_between("bid_price", "ask_price").mean()).item() > 0.96


def test_lean_has_no_book_and_flags_one_quote(home: Home) -> None:
    assert home.status("market/book", "IBM") == "absent"
    quarantined = pl.read_parquet(home.path / f"quarantine/market/quotes/date={LEAN_DAY}/IBM.parquet")
    assert quarantined.select("rule", "source_line", "raw").rows() == [
        ("suspicious|flagged", 109_067, "72000122,0,0,1860000,100,P,1,1")
    ]


# Frames


def frame_lines(data: Path, name: str) -> list[tuple[int, dict[str, Any]]]:
    with gzip.open(data / FRAMES_FOLDER / name, "rt") as file:
        return [(int(local), json.loads(text)) for local, text in (line.split(" ", 1) for line in file)]


def is_of_the_date(time_ns: int) -> bool:
    return 0 <= time_ns - MIDNIGHTS_NS["ETHUSDT"] < DAY_NS


def of_kind(lines: list[tuple[int, dict[str, Any]]], kind: str) -> list[tuple[int, dict[str, Any]]]:
    return [(local, line["data"]) for local, line in lines if f"@{kind}" in line.get("stream", "")]


def test_frames_trades_and_bars_equal_the_file(home: Home) -> None:
    raw = [
        (local, d) for local, d in of_kind(frame_lines(home.data, USDM_FILE), "trade") if is_of_the_date(d["T"] * 10**6)
    ]
    ours = home.rows("market/trades", "ETHUSDT").sort("trade_id")

    assert ours.height == len(raw) > 6_000
    assert ours["trade_id"].to_list() == [d["t"] for _, d in raw]
    assert ns(ours) == [d["T"] * 10**6 for _, d in raw]
    assert ns(ours, "ts_recv") == [local for local, _ in raw]
    assert ours["price"].to_list() == [float(d["p"]) for _, d in raw]
    assert ours["size"].to_list() == [float(d["q"]) for _, d in raw]
    assert ours["aggressor"].to_list() == [-1 if d["m"] else 1 for _, d in raw]
    assert not ours["is_ts_recv_assumed"].any()
    assert home.rows("market/gaps", "ETHUSDT").height == 0
    ordered = home.rows("market/trades", "ETHUSDT")
    assert_bars_equal(
        home,
        "ETHUSDT",
        pd.DataFrame(
            {"ns": ns(ordered), "price": ordered["price"], "size": ordered["size"], "side": ordered["aggressor"]}
        ),
    )


def test_frames_quotes_equal_the_file(home: Home) -> None:
    raw = [
        (local, d)
        for local, d in of_kind(frame_lines(home.data, USDM_FILE), "bookTicker")
        if is_of_the_date(d["T"] * 10**6)
    ]
    ours = home.rows("market/quotes", "ETHUSDT").sort("sequence")

    assert ours.height == len(raw) > 20_000
    assert ours["sequence"].to_list() == [d["u"] for _, d in raw]
    assert ns(ours) == [d["T"] * 10**6 for _, d in raw]
    for name, letter in {"bid_price": "b", "bid_size": "B", "ask_price": "a", "ask_size": "A"}.items():
        assert ours[name].to_list() == [float(d[letter]) for _, d in raw]
    assert not ours["is_ts_event_assumed"].any()


def books_of(
    lines: list[tuple[int, dict[str, Any]]],
) -> dict[int, tuple[list[tuple[float, float]], list[tuple[float, float]]]]:
    """Return the five best levels after each update that changed them, by update id, kept in plain dictionaries."""
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    last, found, before = None, {}, None
    waiting = []
    for _, line in lines:
        body = line.get("data", line)
        if "lastUpdateId" in body:
            waiting = [body, *(diff for diff in waiting if diff["u"] > body["lastUpdateId"])]
        elif body.get("e") == "depthUpdate":
            waiting.append(body)
        if not waiting or (last is None and "lastUpdateId" not in waiting[0]):
            continue
        for update in waiting:
            for side, levels in (
                (bids, update.get("b", update.get("bids"))),
                (asks, update.get("a", update.get("asks"))),
            ):
                for price, size in levels:
                    side[float(price)] = float(size)
                    if not float(size):
                        del side[float(price)]
            last = update.get("u", update.get("lastUpdateId"))
            top = (sorted(bids.items(), reverse=True)[:5], sorted(asks.items())[:5])
            if top != before:
                found[last] = before = top
        waiting = []
    return found


def test_frames_book_equals_one_kept_in_dictionaries(home: Home) -> None:
    expected = books_of(frame_lines(home.data, USDM_FILE))
    ours = home.rows("market/book", "ETHUSDT")

    known = [key for key in expected if key <= ours["sequence"].max()]
    assert ours["sequence"].to_list() == known
    assert len(known) > 2_000
    for row in ours.iter_rows(named=True):
        bids, asks = expected[row["sequence"]]
        for side, levels in (("bid", bids), ("ask", asks)):
            assert [(row[f"{side}_price_{n}"], row[f"{side}_size_{n}"]) for n in range(1, 6)] == levels


def test_frames_tape_equals_the_archive_of_the_same_trades(home: Home) -> None:
    name = f"ETHUSDT-trades-{FRAMES_DAY}"
    with zipfile.ZipFile(home.data / f"archive/data/futures/um/daily/trades/ETHUSDT/{name}.zip") as archive:
        official = pd.read_csv(archive.open(f"{name}.csv")).rename(columns={"price": "official_price"})
    ours = home.rows("market/trades", "ETHUSDT").to_pandas()

    both = ours.merge(official, left_on="trade_id", right_on="id")

    assert len(both) > 6_000
    assert (both["price"] == both["official_price"]).all()
    assert (both["size"] == both["qty"]).all()
    assert (both["aggressor"] == both["is_buyer_maker"].map({True: -1, False: 1})).all()


def test_spot_quotes_are_dated_by_the_running_median(real_data: Path) -> None:
    wanted = Wanted(table="market/quotes", symbol="S", venue_symbol="ETHUSDT", date=FRAMES_DAY, venue="binance_spot")
    recording = frames.find(real_data / FRAMES_FOLDER, wanted)
    assert recording is not None
    lines = frame_lines(real_data, SPOT_FILE)
    ahead = pd.Series(
        {n: line["data"]["E"] * 10**6 - local for n, (local, line) in enumerate(lines) if "E" in line.get("data", {})}
    )
    median = ahead.rolling(1_001, min_periods=1).median().reindex(range(len(lines))).ffill().bfill()
    times = pd.Series(
        {n: local + round(median[n]) for n, (local, line) in enumerate(lines) if "bookTicker" in line.get("stream", "")}
    ).cummax()
    expected = [time for time in times if is_of_the_date(time)]

    ours = frames.read_day(recording, wanted).rows

    assert ours["is_ts_event_assumed"].all()
    np.testing.assert_allclose(np.array(ns(ours)), np.array(expected), atol=1, rtol=0)  # halves round either way
    behind_ms = (ours["ts_event"] - ours["ts_recv"]).dt.total_microseconds() / 1_000
    assert 1_250 < behind_ms.min() <= behind_ms.max() < 1_290


@pytest.mark.parametrize("venue", ["binance_usdm", "binance_spot"])
@pytest.mark.parametrize("table", ["market/trades", "market/quotes", "market/book"])
def test_frames_stepped_in_pieces_equal_the_whole_day(real_data: Path, venue: str, table: str) -> None:
    wanted = Wanted(table=table, symbol="S", venue_symbol="ETHUSDT", date=FRAMES_DAY, venue=venue)
    recording = frames.find(real_data / FRAMES_FOLDER, wanted)
    assert recording is not None
    lines = pl.concat(frames.lines_of(recording.own[0]))
    state, rows = frames.initial(), []
    for start, stop in pairwise([0, 7, 1_000, 1_001, 20_000, lines.height]):
        state, found = frames.step(state, lines[start:stop], wanted)
        assert found.broken.is_empty()
        rows.append(found.rows)

    day = frames.read_day(recording, wanted).rows

    is_of_day = pl.col("ts_event").dt.date() == FRAMES_DAY
    stepped = pl.concat(rows).filter(is_of_day).sort(contract_of(table).sorted_by)
    assert stepped.equals(day)


def test_frames_that_were_lost_and_refilled_give_every_trade_once(real_data: Path) -> None:
    raw = of_kind(frame_lines(real_data, USDM_FILE), "trade")
    lost = raw[2_000:3_500]
    streamed = [*raw[:2_000], *raw[3_500:3_900]]
    # As the venue aggregates: prints of one moment, price and side. The refill overlaps what was captured.
    aggregates = [
        {"f": group[0]["t"], "l": group[-1]["t"], "q": str(sum(Decimal(d["q"]) for d in group))}
        | {name: group[0][name] for name in ("T", "p", "m")}
        for _, prints in groupby((d for _, d in raw[1_990:3_510]), key=itemgetter("T", "p", "m"))
        for group in [list(prints)]
    ]
    texts = [
        *(f'{local} {{"stream":"ethusdt@trade","data":{json.dumps(d)}}}' for local, d in streamed),
        *(f'{raw[3_900][0]} {{"stream":"ethusdt@aggTrade","data":{json.dumps(d)},"refill":true}}' for d in aggregates),
        *(f'{local} {{"stream":"ethusdt@trade","data":{json.dumps(d)}}}' for local, d in raw[3_895:]),
    ]
    wanted = Wanted(table="market/trades", symbol="S", venue_symbol="ETHUSDT", date=FRAMES_DAY, venue="binance_usdm")

    rows = frames.step(frames.initial(), pl.DataFrame({"place": range(len(texts)), "text": texts}), wanted)[1].rows

    ranges = rows.select("first_trade_id", "last_trade_id").rows()
    assert [n for first, last in sorted(ranges) for n in range(first, last + 1)] == [d["t"] for _, d in raw]
    refilled = rows.filter(pl.col("trade_id").is_between(lost[0][1]["t"], lost[-1][1]["t"]))
    assert refilled.height < len(lost)
    assert sum(map(Decimal, refilled["size"].drop_nulls().cast(pl.String))) <= sum(Decimal(d["q"]) for _, d in lost)
    assert refilled["size"].null_count() <= 2  # at the edges


def test_second_run_finds_everything_up_to_date(home: Home) -> None:
    with engine_over(home) as engine:
        for symbol, day in DAYS.items():
            for table in ("market/trades", "market/quotes", "market/book"):
                (outcome,) = engine.run(table, [symbol], [day])
                assert outcome.is_skipped, outcome
