"""Simulated depth: the venue's messages, and a book whose best levels are the quote in force at each of them."""

import gzip
import json
import zipfile
from bisect import bisect_right
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from quant_platform.feeds import frames
from quant_platform.feeds.recorded import Wanted
from quant_platform.settings import Instrument, Sources
from quant_platform.simulation.depth_frames import depth_path
from quant_platform.simulation.market import MarketParams, write_archive

DAY = date(2024, 8, 8)
MIDNIGHT_MS = 1_723_075_200_000  # date -u -d 2024-08-08 +%s000
PARAMS = MarketParams(trades_per_day=1_000, quotes_per_day=20_000, depth_every_s=60)
SOL = Instrument(
    symbol="SOL",
    venue_symbol="SOLUSDT",
    feed="binance_usdm",
    sources=Sources(book="recorded_frames"),
    tick_size=0.01,
    lot_size=0.01,
)


def written(root: Path, instrument: Instrument = SOL) -> Path:
    write_archive(root, instruments=[instrument], dates=[DAY], params=PARAMS)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def messages(root: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return each line as its receive time and its JSON."""
    with gzip.open(depth_path(root, SOL, DAY), "rt") as file:
        return [(int(local), json.loads(text)) for local, text in (line.split(" ", 1) for line in file)]


@pytest.fixture(scope="module")
def quotes(root: Path) -> pd.DataFrame:
    name = f"SOLUSDT-bookTicker-{DAY}"
    with zipfile.ZipFile(root / f"data/futures/um/daily/bookTicker/SOLUSDT/{name}.zip") as archive:
        return pd.read_csv(archive.open(f"{name}.csv"))


def diffs(messages: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [message["data"] for _, message in messages[1:]]


def test_first_message_is_a_snapshot_and_the_others_are_diffs(messages: list[tuple[int, dict[str, Any]]]) -> None:
    assert list(messages[0][1]) == ["lastUpdateId", "E", "T", "bids", "asks"]
    assert {message["stream"] for _, message in messages[1:]} == {"solusdt@depth"}
    assert {tuple(diff) for diff in diffs(messages)} == {("e", "E", "T", "s", "U", "u", "pu", "b", "a")}
    assert {(diff["e"], diff["s"]) for diff in diffs(messages)} == {("depthUpdate", "SOLUSDT")}


def test_updates_follow_each_other_as_the_venue_demands(messages: list[tuple[int, dict[str, Any]]]) -> None:
    last, following = messages[0][1]["lastUpdateId"], diffs(messages)

    assert following[0]["U"] <= last <= following[0]["u"]
    assert all(after["pu"] == before["u"] for before, after in pairwise(following))
    assert all(diff["pu"] < diff["U"] <= diff["u"] for diff in following)


def test_messages_come_in_time_and_not_more_often_than_asked(messages: list[tuple[int, dict[str, Any]]]) -> None:
    shown = [message.get("data", message)["E"] for _, message in messages]

    assert 1_000 < len(messages) <= 24 * 60
    assert all((time - MIDNIGHT_MS) % 60_000 == 0 for time in shown)
    assert all(after > before for before, after in pairwise(shown))
    assert all(local > time * 1_000_000 for (local, _), time in zip(messages, shown, strict=True))


def test_best_levels_are_the_quote_in_force(messages: list[tuple[int, dict[str, Any]]], quotes: pd.DataFrame) -> None:
    book: dict[str, dict[float, float]] = {"b": {}, "a": {}}
    times, rows = quotes["transaction_time"].to_list(), list(quotes.itertuples())
    assert times == sorted(times)
    for _, message in messages:
        body = message.get("data", message)
        for side, levels in (("b", body.get("b", body.get("bids"))), ("a", body.get("a", body.get("asks")))):
            for price, size in levels:
                book[side][float(price)] = float(size)
            book[side] = {price: size for price, size in book[side].items() if size}
        bids, asks = sorted(book["b"].items(), reverse=True), sorted(book["a"].items())
        in_force = rows[bisect_right(times, body["E"]) - 1]

        assert len(bids) >= 5
        assert len(asks) >= 5
        assert (*bids[0], *asks[0]) == (
            in_force.best_bid_price,
            in_force.best_bid_qty,
            in_force.best_ask_price,
            in_force.best_ask_qty,
        )
        assert (body["T"], body.get("u", body.get("lastUpdateId"))) == (in_force.transaction_time, in_force.update_id)


def test_platform_reads_its_book_from_them(
    root: Path, messages: list[tuple[int, dict[str, Any]]], quotes: pd.DataFrame
) -> None:
    wanted = Wanted(table="market/book", symbol="SOL", venue_symbol="SOLUSDT", date=DAY, venue="binance_usdm")
    recording = frames.find(root / "frames", wanted)
    assert recording is not None

    parsed = frames.read_day(recording, wanted)

    assert parsed.quarantined.height == 0
    assert parsed.facts == {"sequence_breaks": "0"}
    books = parsed.rows.to_pandas().merge(quotes, left_on="sequence", right_on="update_id")
    assert len(books) == parsed.rows.height == len(messages)
    for ours, theirs in (("bid_price_1", "best_bid_price"), ("bid_size_1", "best_bid_qty"),
                         ("ask_price_1", "best_ask_price"), ("ask_size_1", "best_ask_qty")):  # fmt: skip
        assert (books[ours] == books[theirs]).all()
    assert sum(parsed.rows.null_count().row(0)) == 0


def test_same_day_is_the_same_bytes(root: Path, tmp_path: Path) -> None:
    again = depth_path(written(tmp_path), SOL, DAY)

    assert again.read_bytes() == depth_path(root, SOL, DAY).read_bytes()


@pytest.mark.parametrize("changed", [{"sources": Sources()}, {"feed": "binance_spot"}])
def test_depth_is_written_only_where_the_book_comes_from_it(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert not (written(tmp_path, SOL.model_copy(update=changed)) / "frames").exists()
