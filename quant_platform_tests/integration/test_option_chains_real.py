"""Every recorded option chain through its parser, against csv, json and zipfile on the same files."""

import csv
import datetime as dt
import gzip
import io
import json
import math
import re
import zipfile
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from quant_platform.feeds import cboe, deribit, lean_options
from quant_platform.storage.chain_archive import Answer

NEW_YORK = ZoneInfo("America/New_York")
OSI = re.compile(r"([A-Z]+)(\d{6})([CP])(\d{8})")
SHEETS = {  # when each was saved, from its third line, by date(1)
    "ndx_2022-12": "2022-12-13T01:31:00+00:00",
    "qqq_2024-03-22": "2024-03-23T01:46:00+00:00",
    "spx_2022-03-23_es-locale": "2022-03-23T14:11:00+00:00",
    "spx_2022-06-11": "2022-06-12T00:47:00+00:00",
    "spx_2022-12-12": "2022-12-13T01:30:00+00:00",
    "spx_2023-02-07": "2023-02-07T22:34:00+00:00",
    "spx_2024-01-07": "2024-01-07T15:52:00+00:00",
    "spy_2025-04-30": "2025-05-01T00:35:00+00:00",
    "spy_2025-05-01_1649": "2025-05-01T20:49:00+00:00",
    "spy_2025-05-02": "2025-05-02T22:47:00+00:00",
    "spy_2025-05-06_1814": "2025-05-06T22:14:00+00:00",
    "spy_2025-05-08_1657": "2025-05-08T20:57:00+00:00",
}
MINUTES = ["goog_20151223", "spx_20210104", "spxw_20210104", "spxw_20210105", "spy_20230803", "twx_20140605"]
UNIVERSES = [
    "aapl_20140602",
    "aapl_20140603",
    "aapl_20140604",
    "aapl_20140605",
    "goog_20151223",
    "goog_20151224",
    "spx_20151222",
    "spy_20231228",
    "spy_20231229",
]


def content(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw


def expected(name: str) -> tuple[str, dt.date, float]:
    """Return type, expiry and strike of an OSI name, as plain Python reads it."""
    match = OSI.fullmatch(name)
    assert match is not None
    return match[3], dt.datetime.strptime(match[2], "%y%m%d").date(), int(match[4]) / 1000  # noqa: DTZ007


def names_are_kept(rows: pl.DataFrame) -> None:
    for name, *parts in rows.select("contract", "type", "expiry", "strike").unique().rows():
        assert tuple(parts) == expected(name)


def total(rows: pl.DataFrame, column: str) -> float:
    return math.fsum(rows[column].drop_nulls())


@pytest.mark.parametrize("name", SHEETS)
def test_sheet_of_cboe(real_data: Path, name: str) -> None:
    path = real_data / "cboe_quotedata" / f"{name}.csv.gz"
    raw = content(path)
    lines = list(csv.reader(raw.decode().splitlines()[4:]))
    halves = {line[at]: line[at + 1 : at + 10] for line in lines for at in (1, 12)}
    parsed = cboe.read_sheet(raw, path.name, symbol="X")
    assert parsed.rows.height == 2 * len(lines) == len(halves)
    assert parsed.quarantined.is_empty()
    assert set(parsed.rows["contract"]) == set(halves)
    assert parsed.rows["ts_event"].unique().to_list() == [dt.datetime.fromisoformat(SHEETS[name])]
    names_are_kept(parsed.rows)
    for column, at in (
        ("last", 0),
        ("bid", 2),
        ("ask", 3),
        ("volume", 4),
        ("iv", 5),
        ("delta", 6),
        ("open_interest", 8),
    ):
        assert total(parsed.rows, column) == math.fsum(float(half[at]) for half in halves.values()), column
    for root, expiry, settles in (
        parsed.rows.select(pl.col("contract").str.extract(r"^([A-Z]+)"), "expiry", "ts_expiry").unique().rows()
    ):
        hour = dt.time(9, 30) if root in {"SPX", "NDX"} else dt.time(16)
        assert settles == dt.datetime.combine(expiry, hour, NEW_YORK)


def test_json_of_cboe(real_data: Path) -> None:
    path = real_data / "cboe_quotedata" / "rut_delayed_quotes.json.gz"
    options = json.loads(content(path))["data"]["options"]
    parsed = cboe.read_json(content(path), path.name, symbol="RUT")
    assert parsed.rows.height == len(options) == 6680
    assert parsed.quarantined.is_empty()
    names_are_kept(parsed.rows)
    for column in ("bid", "ask", "iv", "delta", "gamma", "vega", "theta", "open_interest", "volume", "bid_size"):
        assert total(parsed.rows, column) == math.fsum(option[column] for option in options), column
    assert parsed.rows["iv"].max() == max(option["iv"] for option in options) > 3
    last = max(option["last_trade_time"] for option in options if option["last_trade_time"])
    traded = dt.datetime.fromisoformat(last).replace(tzinfo=NEW_YORK)
    assert traded < parsed.rows["ts_event"][0] < traded + dt.timedelta(hours=8)


@pytest.mark.parametrize("name", ["META", "TSLA"])
def test_json_of_an_options_desk(real_data: Path, name: str) -> None:
    path = real_data / "options_json_cboe_greeks" / f"{name}_2026-08-22.json.gz"
    quotes = json.loads(content(path))["quotes"]
    parsed = cboe.read_json(content(path), path.name, symbol=name)
    assert parsed.rows.height == len(quotes)
    assert parsed.quarantined.is_empty()
    by_name = {quote["symbol"]: quote for quote in quotes}
    for row in parsed.rows.iter_rows(named=True):
        quote = by_name[row["contract"]]
        assert (row["strike"], str(row["expiry"])) == (quote["strike"], quote["expiration"])
        assert row["type"] == quote["side"][0].upper()
        assert row["open_interest"] == quote["openInterest"]
        assert row["bid"] == (quote["bid"] or None)
        assert row["iv"] == (quote["iv"] or None)
    assert parsed.rows["open_interest"].null_count() > 0


def test_book_summaries_of_deribit(real_data: Path) -> None:
    path = real_data / "deribit" / "eth_book_summary_2024-01-08.csv.gz"
    lines = list(csv.DictReader(io.StringIO(content(path).decode())))
    figures = ("bid_price", "ask_price", "last", "open_interest", "volume", "underlying_price", "creation_timestamp")
    summaries = [
        {"instrument_name": line["instrument_name"]}
        | {name: float(line[name]) if line[name] else None for name in figures}
        for line in lines
    ]
    instruments = [
        {
            "instrument_name": line["instrument_name"],
            "kind": "option",
            "base_currency": line["base_currency"],
            "quote_currency": line["quote_currency"],
            "strike": float(line["strike_price"]),
            "option_type": {"C": "call", "P": "put"}[line["option_type"]],
            "expiration_timestamp": 1000
            * dt.datetime.strptime(f"{line['expire_date']} 08 +0000", "%d%b%y %H %z").timestamp(),
        }
        for line in lines
    ]
    parsed = deribit.read_chain(answer(instruments), answer(summaries), symbol="ETHUSD")
    assert parsed.rows.height == len(lines) == 684
    assert parsed.quarantined.is_empty()
    assert parsed.facts["unquoted"] == "0"
    coins = {line["instrument_name"]: line for line in lines}
    for row in parsed.rows.iter_rows(named=True):
        line = coins[row["contract"]]
        dollars = float(line["bid_price"]) * float(line["underlying_price"]) if line["bid_price"] else None
        assert row["bid"] == dollars
        assert (row["open_interest"], row["strike"]) == (float(line["open_interest"]), float(line["strike_price"]))
    assert parsed.rows["ts_event"].unique().to_list() == [
        dt.datetime.fromtimestamp(max(int(line["creation_timestamp"]) for line in lines) / 1000, dt.UTC)
    ]


def test_tickers_of_deribit(real_data: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(content(real_data / "deribit" / "btc_chain_greeks_2026-03.csv").decode())))
    instruments = [
        {
            "instrument_name": line["instrument_name"],
            "kind": "option",
            "base_currency": "BTC",
            "quote_currency": "BTC",
            "strike": float(line["strike"]),
            "option_type": line["type"],
            "expiration_timestamp": int(line["expiration_timestamp"]),
        }
        for line in lines
    ]
    figures = ("best_bid_price", "best_ask_price", "mark_iv", "open_interest", "underlying_price")
    tickers = [
        answer(
            {"instrument_name": line["instrument_name"], "timestamp": 1772800000000}
            | {name: float(line[name]) for name in figures}
            | {"greeks": {name: float(line[name]) for name in ("delta", "gamma", "theta", "vega")}}
            | {"stats": {"volume": float(line["volume"])}}
        )
        for line in lines
    ]
    parsed = deribit.read_chain(answer(instruments), None, tickers, symbol="BTCUSD")
    assert parsed.rows.height == len(lines) == 166
    assert parsed.quarantined.is_empty()
    assert total(parsed.rows, "delta") == math.fsum(float(line["delta"]) for line in lines)
    assert parsed.rows["iv"].max() == max(float(line["mark_iv"]) for line in lines) / 100
    assert set(parsed.rows["ts_expiry"].cast(pl.Int64) // 1_000_000) == {int(v["expiration_timestamp"]) for v in lines}


def test_answers_of_deribit_as_they_came(real_data: Path) -> None:
    folder = real_data / "ws_frames_cryptofeed"
    bodies = [line.split(": ", 1)[1] for line in content(folder / "DERIBIT.0.gz").decode().splitlines()[:2]]
    frames = [line.partition(": ")[2] for line in content(folder / "DERIBIT.ws.1.0.gz").decode().splitlines()]
    data = [json.loads(frame)["params"]["data"] for frame in frames if '"channel":"ticker.' in frame]
    for body, currency in zip(bodies, ("BTC", "ETH"), strict=True):
        listed = {each["instrument_name"] for each in json.loads(body)["result"] if each["kind"] == "option"}
        mine = {each["instrument_name"]: each for each in data if each["instrument_name"] in listed}
        assert mine
        parsed = deribit.read_chain(
            Answer(body.encode(), "instruments"),
            None,
            [answer(each) for each in mine.values()],
            symbol=currency,
        )
        assert parsed.rows.height == len(mine)
        assert parsed.quarantined.is_empty()
        assert int(parsed.facts["instruments"]) == len(listed)
        for row in parsed.rows.iter_rows(named=True):
            ticker = mine[row["contract"]]
            assert row["vega"] == ticker["greeks"]["vega"]
            assert row["bid"] == (ticker["best_bid_price"] * ticker["underlying_price"] or None)


@pytest.mark.parametrize("name", MINUTES)
def test_minutes_of_lean(real_data: Path, name: str) -> None:
    folder = real_data / "lean_options"
    root, day = name.split("_")
    date = dt.datetime.strptime(day, "%Y%m%d").date()  # noqa: DTZ007
    files = {kind: next(iter(folder.glob(f"{name}_{kind}_*.zip")), None) for kind in ("quote", "trade", "openinterest")}
    underlying = next(iter(folder.glob(f"und_{root}_{day}_trade.zip")), None)
    scale = lean_options.INDEX if root.startswith("spx") else lean_options.EQUITY
    assert files["quote"] is not None
    parsed = lean_options.read_minutes(
        files["quote"],
        files["trade"],
        files["openinterest"],
        underlying,
        underlying_scale=scale,
        symbol=root,
        date=date,
    )
    lines = {kind: list(zip_lines(path)) for kind, path in files.items() if path}
    minutes = {(contract, line[0]) for kind in ("quote", "trade") for contract, line in lines[kind]}
    assert parsed.rows.height == len(minutes)
    assert parsed.quarantined.is_empty()
    assert int(parsed.facts["contracts"]) == len({contract for contract, _ in minutes})
    assert total(parsed.rows, "bid") == pytest.approx(
        math.fsum(int(line[4]) / 10_000 for _, line in lines["quote"] if line[4]), rel=1e-12
    )
    last_rows = parsed.rows.sort("ts_event").group_by("contract").last()
    assert total(last_rows, "volume") == sum(int(line[5]) for _, line in lines["trade"])
    if "openinterest" in lines:
        known = {contract for contract, _ in minutes}
        assert total(last_rows, "open_interest") == sum(
            int(line[1]) for contract, line in lines["openinterest"] if contract in known
        )
    names_are_kept(parsed.rows)


def zip_lines(path: Path) -> list[tuple[str, list[str]]]:
    """Return the contract and the fields of every line of a zip."""
    with zipfile.ZipFile(path) as archive:
        return [
            (member.rsplit("_", 3)[1] + member.rsplit("_", 3)[2] + member.rsplit("_", 3)[3], line.split(","))
            for member in archive.namelist()
            for line in archive.read(member).decode().splitlines()
        ]


@pytest.mark.parametrize("name", UNIVERSES)
def test_universe_of_lean(real_data: Path, name: str) -> None:
    path = next(iter((real_data / "lean_options").glob(f"universe_{name}.csv*")))
    root, day = name.split("_")
    date = dt.datetime.strptime(day, "%Y%m%d").date()  # noqa: DTZ007
    lines = [line for line in csv.reader(io.StringIO(content(path).decode())) if line[0][:1].isdigit()]
    parsed = lean_options.read_universe(content(path), path.name, symbol=root, root=root.upper(), date=date)
    assert parsed.rows.height == len(lines)
    assert parsed.quarantined.is_empty()
    assert total(parsed.rows, "last") == math.fsum(float(line[6]) for line in lines)
    assert total(parsed.rows, "iv") == math.fsum(float(line[9]) for line in lines)
    assert parsed.rows["open_interest"].null_count() == sum(line[8] == "" for line in lines)
    assert parsed.rows["iv"].null_count() == sum(float(line[9]) == 0 for line in lines)
    names_are_kept(parsed.rows)


def answer(result: object) -> Answer:
    return Answer(json.dumps({"jsonrpc": "2.0", "result": result}).encode(), "answer")
