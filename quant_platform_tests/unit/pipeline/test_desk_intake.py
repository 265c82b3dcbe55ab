"""Files of the desk into the landing: whole ones once, broken ones aside with the reason, half-written ones later."""

import gzip
import os
import threading
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_platform.feeds import desk
from quant_platform.pipeline.desk_intake import Ingested, inbox, ingested, watch
from quant_platform.settings import DeskFeed, DeskMapping, Feeds, Instrument, Settings
from quant_platform.storage import desk_archive, quarantine
from quant_platform.storage.desk_archive import Day

S = 1_000_000_000
NOON = datetime(2024, 3, 8, 12, tzinfo=UTC)
NOW = int(datetime(2024, 3, 10, tzinfo=UTC).timestamp()) * S
FRIDAY = date(2024, 3, 8)
FILLS = "fill_id,order_id,ts_event,symbol,side,price,quantity"
BROKER = DeskMapping(
    kind="fills",
    columns={"ts_event": "when", "symbol": "name", "price": "px", "quantity": "amount", "fill_id": "id"},
    side_from_sign="amount",
)


def fill(ident: str = "f1", *, at: str = "2024-03-08T12:00:00Z", symbol: str = "AAA", price: str = "100.5") -> str:
    return f"{ident},o1,{at},{symbol},buy,{price},2"


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    row: dict[str, Any] = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    return Settings(
        home=tmp_path / "home",
        feeds=Feeds(desk=DeskFeed(mappings={"broker": BROKER})),
        instruments=(
            Instrument(symbol="AAA", venue_symbol="AAA", **row),
            Instrument(symbol="B/B", venue_symbol="BB", calendar="XNYS", **row),
        ),
    )


@pytest.fixture
def put(tmp_path: Path):
    def write(text: str | bytes, name: str = "fills.csv", folder: Path = tmp_path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def part_names(settings: Settings) -> list[str]:
    root = settings.landing / desk_archive.FOLDER
    return sorted(str(path.relative_to(root)) for path in root.glob("*/*/*/*.parquet"))


def told(settings: Settings, symbol: str = "AAA", day: date = FRIDAY) -> pl.DataFrame:
    return desk_archive.read(desk_archive.parts(settings.landing / desk_archive.FOLDER, "fills", symbol, day))


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def test_rows_lie_under_the_trading_dates_of_their_symbols(settings: Settings, put) -> None:
    path = put(
        lines(
            FILLS,
            fill("f1"),
            fill("f2", at="2024-03-08T23:59:59.999999999Z"),
            fill("f3", at="2024-03-09T00:00:00Z"),
            fill("f4", at="2024-03-09T03:00:00Z", symbol="B/B"),  # 22:00 of Friday in New York
            fill("f5", at="2024-03-09T20:00:00Z", symbol="B/B"),  # a Saturday there
            fill("f6", price="x"),
            fill("f7", symbol="ZZZ"),
            fill("f8", at="yesterday"),
        )
    )
    done = ingested(settings, path, ts_intake=NOW)
    assert (done.status, done.file) == ("taken", path)
    assert done.receipt is not None
    assert done.receipt.days == (
        Day(FRIDAY, "AAA", 2, 1),
        Day(FRIDAY, "B/B", 2, 0),
        Day(date(2024, 3, 9), "AAA", 1, 0),
    )
    assert done.receipt.rules == {"price|number": 1, "symbol|unknown": 1, "ts_event|time": 1}
    assert done.receipt.unplaced == 2
    rows = told(settings)
    assert rows["fill_id"].to_list() == ["f1", "f2", "f6"]
    assert rows.select("rule", "source_file", "source_line", "raw").row(2) == (
        "price|number",
        "fills.csv",
        7,
        fill("f6", price="x"),
    )
    assert set(rows["ts_intake"].to_physical()) == {NOW}
    counted = quarantine.counts(settings.quarantine, date(2024, 3, 10), date(2024, 3, 10))
    assert counted.select("table", "rule", "rows").rows() == [
        ("execution/fills", "symbol|unknown", 1),
        ("execution/fills", "ts_event|time", 1),
    ]
    total = sum(day.rows + day.quarantined for day in done.receipt.days) + done.receipt.unplaced
    assert total == 8
    assert path.exists()
    raw = settings.landing / desk_archive.FOLDER / "raw" / f"{done.receipt.sha256}.csv"
    assert raw.read_bytes() == path.read_bytes()


def test_the_same_content_twice_changes_nothing(settings: Settings, put) -> None:
    path = put(lines(FILLS, fill("f1"), fill("f2", price="x")))
    first = ingested(settings, path, ts_intake=NOW)
    before = tree(settings.home)
    again = ingested(settings, put(path.read_bytes(), "copy.csv"), ts_intake=NOW + 5 * S)
    assert (first.status, again.status) == ("taken", "known")
    assert again.receipt == first.receipt
    assert tree(settings.home) == before


def test_the_same_content_is_taken_again_where_it_is_read_otherwise(settings: Settings, put) -> None:
    path = put(lines(FILLS, fill("f1"), fill("f2", symbol="CCC")))
    first = ingested(settings, path, ts_intake=NOW)
    assert first.receipt is not None
    assert (first.receipt.unplaced, len(part_names(settings))) == (1, 1)
    row = settings.instruments[0].model_copy(update={"symbol": "CCC"})
    more = settings.model_copy(update={"instruments": (*settings.instruments, row)})
    again = ingested(more, path, ts_intake=NOW + 5 * S)
    assert again.status == "taken"
    assert again.receipt is not None
    assert (again.receipt.unplaced, again.receipt.ts_intake) == (0, NOW)
    assert len(part_names(settings)) == 2
    assert all(again.receipt.how in name for name in part_names(settings))
    assert quarantine.counts(settings.quarantine, date(2024, 1, 1), date(2025, 1, 1)).is_empty()
    assert ingested(more, path, ts_intake=NOW).status == "known"


def test_one_content_may_be_read_by_several_mappings(settings: Settings, put) -> None:
    path = put(
        lines(
            "id,when,name,px,amount,order_id,ts_event,symbol,side,quantity,status",
            "f1,1709899200,AAA,5,-3,o1,1709899200,AAA,sell,3,filled",
        )
    )
    one = ingested(settings, path, ts_intake=NOW, mapping="broker")
    other = ingested(settings, path, ts_intake=NOW)
    assert [r.receipt and r.receipt.kind for r in (one, other)] == ["fills", "orders"]
    assert [name.split("/")[0] for name in part_names(settings)] == ["fills", "orders"]


def test_the_kind_may_be_named(settings: Settings, put) -> None:
    path = put(lines(f"{FILLS},status", f"{fill()},filled"))
    done = ingested(settings, path, ts_intake=NOW, kind="orders")
    assert done.receipt is not None
    assert done.receipt.kind == "orders"
    assert done.receipt.unread == ("fill_id", "price")


def test_a_calendar_that_does_not_reach_is_a_rule(settings: Settings, put) -> None:
    path = put(lines(FILLS, fill("f1"), fill("f2", at="1990-01-01T00:00:00Z", symbol="B/B")))
    done = ingested(settings, path, ts_intake=NOW)
    assert done.receipt is not None
    assert (done.receipt.rules, done.receipt.unplaced) == ({"ts_event|calendar": 1}, 1)


@pytest.mark.parametrize(
    ("content", "mapping", "status", "why"),
    [
        ("a,b\n1,2\n", None, "refused", "none of the columns"),
        (
            lines(FILLS, fill()),
            "nobody",
            "refused",
            "There is no mapping 'nobody' under feeds.desk.mappings; known: broker.",
        ),
        (lines(FILLS, fill())[:-1], None, "waiting", "no line break"),
        (gzip.compress(lines(FILLS, fill()).encode(), mtime=0)[:-9], None, "waiting", "ends too early"),
    ],
)
def test_what_is_refused_leaves_nothing(
    settings: Settings, put, content: Any, mapping: str | None, status: str, why: str
) -> None:
    done = ingested(settings, put(content), ts_intake=NOW, mapping=mapping)
    assert (done.status, done.receipt) == (status, None)
    assert why in done.why
    assert tree(settings.home) == {}


def test_a_file_that_is_not_there_is_refused(settings: Settings, tmp_path: Path) -> None:
    done = ingested(settings, tmp_path / "none.csv", ts_intake=NOW)
    assert (done.status, done.why) == ("refused", "It cannot be read: No such file or directory.")


def test_a_file_that_grows_while_it_is_read_waits(settings: Settings, put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(lines(FILLS, fill()))
    read_bytes = Path.read_bytes

    def growing(self: Path) -> bytes:
        content = read_bytes(self)
        if self == path:
            with path.open("a") as file:
                file.write(lines(fill("f2")))
        return content

    monkeypatch.setattr(Path, "read_bytes", growing)
    done = ingested(settings, path, ts_intake=NOW)
    assert (done.status, done.why) == ("waiting", "It changed while it was read: take it when it is whole.")


def later(path: Path, seconds: float) -> int:
    return path.stat().st_ctime_ns + int(seconds * S)


def statuses(files: list[Ingested]) -> dict[str, str]:
    return {one.file.name: one.status for one in files}


def test_the_inbox_gives_what_became_pending(settings: Settings, put) -> None:
    folder = inbox(settings)
    assert folder == settings.home / "landing" / "desk"
    assert watch(settings, NOW) == ([], {})
    put(lines(FILLS, fill("f1"), fill("f2", at="2024-03-07T12:00:00Z")), "a.csv", folder)
    put(lines("id,when,name,px,amount", "f3,1709899200,B/B,5,-3"), "b.csv", folder / "broker")
    put(
        lines("order_id,ts_event,symbol,side,quantity,status", "o1,1709899200,AAA,B,2,filled"),
        "c.csv",
        folder / "orders",
    )
    last = put("half", "x.csv.part", folder)
    put("hidden", ".y.csv", folder)
    found = watch(settings, later(last, 5))
    assert statuses(found.files) == {"a.csv": "taken", "b.csv": "taken", "c.csv": "taken"}
    assert found.pending == {
        "fills": {date(2024, 3, 7): ["AAA"], FRIDAY: ["AAA", "B/B"]},
        "orders": {FRIDAY: ["AAA"]},
    }
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [".y.csv", "x.csv.part"]
    assert watch(settings, later(last, 9)) == ([], {})


def test_a_file_waits_until_it_is_quiet_and_whole(settings: Settings, put) -> None:
    folder = inbox(settings)
    path = put(lines(FILLS, fill()), "a.csv", folder)
    assert watch(settings, later(path, 1)).files == [Ingested(path, "waiting", why="It has just changed.")]
    put(lines(FILLS, fill("f1"), fill("f2"))[:-9], "a.csv", folder)
    assert statuses(watch(settings, later(path, 60)).files) == {"a.csv": "waiting"}
    assert path.exists()
    put(lines(FILLS, fill("f1"), fill("f2")), "a.csv", folder)
    assert statuses(watch(settings, later(path, 60)).files) == {"a.csv": "taken"}
    assert told(settings)["fill_id"].to_list() == ["f1", "f2"]


def test_a_refused_file_is_moved_aside_with_the_reason(settings: Settings, put) -> None:
    folder = inbox(settings)
    for _ in range(2):
        path = put("a,b\n1,2\n", "a.csv", folder)
        assert statuses(watch(settings, later(path, 5)).files) == {"a.csv": "refused"}
    unknown = put(lines(FILLS, fill()), "b.csv", folder / "nobody")
    assert statuses(watch(settings, later(unknown, 5)).files) == {"b.csv": "refused"}
    names = sorted(path.name for path in (folder / "refused").iterdir())
    assert len(names) == 4
    assert names[-2:] == ["a.csv", "a.csv.reason"]
    assert "It has none of the columns" in (folder / "refused" / "a.csv.reason").read_text()
    assert "no mapping 'nobody'" in (folder / "nobody" / "refused" / "b.csv.reason").read_text()
    assert watch(settings, later(folder / "refused" / "a.csv", 99)) == ([], {})


def test_a_file_that_never_becomes_whole_is_given_up(settings: Settings, put) -> None:
    path = put(lines(FILLS, fill())[:-1], "a.csv", inbox(settings))
    assert statuses(watch(settings, later(path, 599)).files) == {"a.csv": "waiting"}
    assert statuses(watch(settings, later(path, 601)).files) == {"a.csv": "refused"}
    assert "has no line break" in (inbox(settings) / "refused" / "a.csv.reason").read_text()


def test_a_known_file_is_removed_from_the_inbox(settings: Settings, put) -> None:
    content = lines(FILLS, fill())
    ingested(settings, put(content), ts_intake=NOW)
    path = put(content, "again.csv", inbox(settings))
    found = watch(settings, later(path, 5))
    assert (statuses(found.files), found.pending) == ({"again.csv": "known"}, {})
    assert not path.exists()


def test_what_is_added_after_the_reading_stays(settings: Settings, put, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(lines(FILLS, fill("f1")), "a.csv", inbox(settings))
    complete = desk_archive.complete

    def completed(*arguments: Any) -> None:
        complete(*arguments)
        with path.open("a") as file:
            file.write(lines(fill("f2")))

    monkeypatch.setattr(desk_archive, "complete", completed)
    assert statuses(watch(settings, later(path, 5)).files) == {"a.csv": "taken"}
    monkeypatch.undo()
    assert statuses(watch(settings, later(path, 5)).files) == {"a.csv": "taken"}
    assert not path.exists()
    assert told(settings)["fill_id"].to_list() == ["f1", "f1", "f2"]


def test_two_watchers_take_a_file_once(settings: Settings, put) -> None:
    path = put(lines(FILLS, *(fill(f"f{n}") for n in range(2_000))), "a.csv", inbox(settings))
    now, found = later(path, 5), list[Ingested]()
    watchers = [threading.Thread(target=lambda: found.extend(watch(settings, now).files)) for _ in range(2)]
    for one in watchers:
        one.start()
    for one in watchers:
        one.join()
    assert sum(one.status == "taken" for one in found) == 1
    assert len(part_names(settings)) == 1


def test_a_landing_may_lie_elsewhere(settings: Settings, tmp_path: Path) -> None:
    share = DeskFeed(landing=tmp_path / "share")
    own = settings.model_copy(update={"feeds": Feeds(desk=share)})
    assert inbox(own) == tmp_path / "share"
    os.makedirs(inbox(own))  # noqa: PTH103
    assert watch(own, NOW) == ([], {})


def rules_of(done: Ingested) -> dict[str, int]:
    assert done.receipt is not None
    return done.receipt.rules


def test_an_id_stays_with_its_symbol_and_date(settings: Settings, put) -> None:
    first = put(lines(FILLS, fill("f1"), fill("f2"), fill("f3"), fill("f3", symbol="B/B")), "a.csv")
    assert rules_of(ingested(settings, first, ts_intake=NOW)) == {"fill_id|moved from AAA on 2024-03-08 of a.csv": 1}
    head = f"{FILLS},revision"
    second = put(
        lines(
            head,
            f"{fill('f1', at='2024-03-07T12:00:00Z')},1",
            f"{fill('f2', symbol='B/B')},0",
            f"{fill('f3', price='7')},1",
            f"{fill('f4', symbol='B/B')},0",
        ),
        "b.csv",
    )
    done = ingested(settings, second, ts_intake=NOW)
    assert rules_of(done) == {"fill_id|moved from AAA on 2024-03-08 of a.csv": 2}
    assert (
        desk.reason(next(iter(rules_of(done))))
        == "its id has been told of another symbol or trading date, and would count on both"
    )
    assert told(settings, "B/B").filter(pl.col("rule").is_null())["fill_id"].to_list() == ["f4"]
    assert told(settings)["fill_id"].to_list() == ["f1", "f2", "f3", "f3"]


def test_an_order_and_a_fill_may_have_one_name(settings: Settings, put) -> None:
    orders = put(lines("order_id,ts_event,symbol,side,quantity,status", "x,1709899200,AAA,B,2,filled"), "o.csv")
    fills = put(lines(FILLS, fill("x", symbol="B/B")), "f.csv")
    for path in (orders, fills):
        assert rules_of(ingested(settings, path, ts_intake=NOW)) == {}


@pytest.mark.parametrize("is_lost", [False, True])
def test_the_index_of_ids_is_made_anew_from_the_parts(settings: Settings, put, *, is_lost: bool) -> None:
    ingested(settings, put(lines(FILLS, fill("f1"), fill("f2", price="x")), "z.csv"), ts_intake=NOW)
    late = put(lines(FILLS, fill("f1", at="2024-03-07T12:00:00Z"), fill("f2", at="2024-03-07T12:00:00Z")), "a.csv")
    ingested(settings, late, ts_intake=NOW + S)
    if is_lost:
        (settings.landing / desk_archive.FOLDER / "index.sqlite").unlink()
    third = put(lines(FILLS, fill("f1", at="2024-03-06T12:00:00Z"), fill("f2", at="2024-03-06T12:00:00Z"), fill("f3")))
    assert rules_of(ingested(settings, third, ts_intake=NOW + 2 * S)) == {
        "fill_id|moved from AAA on 2024-03-08 of z.csv": 1,
        "fill_id|moved from AAA on 2024-03-07 of a.csv": 1,
    }


def test_an_index_that_is_damaged_is_named(settings: Settings, put) -> None:
    path = settings.landing / desk_archive.FOLDER / "index.sqlite"
    put("no database" * 99, path.name, path.parent)
    with pytest.raises(OSError, match=r"index.sqlite cannot be used: .* Remove it: it is made anew from the parts"):
        ingested(settings, put(lines(FILLS, fill())), ts_intake=NOW)


def test_what_is_read_otherwise_may_move(settings: Settings, put) -> None:
    path = put(lines(FILLS, fill("f1", at="2024-03-09T02:00:00Z"), fill("f2")))
    assert rules_of(ingested(settings, path, ts_intake=NOW)) == {}
    row = settings.instruments[0].model_copy(update={"calendar": "XNYS"})
    other = settings.model_copy(update={"instruments": (row, settings.instruments[1])})
    done = ingested(other, path, ts_intake=NOW)
    assert rules_of(done) == {}
    assert done.receipt is not None
    assert done.receipt.days == (Day(FRIDAY, "AAA", 2, 0),)


def test_an_error_of_the_landing_is_told_and_leaves_the_file(
    settings: Settings, put, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(lines(FILLS, fill()), "a.csv", inbox(settings))

    def gone(*_: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", "landing")

    monkeypatch.setattr(desk_archive, "put_raw", gone)
    with pytest.raises(FileNotFoundError, match="landing"):
        watch(settings, later(path, 5))
    monkeypatch.undo()
    assert statuses(watch(settings, later(path, 5)).files) == {"a.csv": "taken"}


def test_without_instruments_no_symbol_is_known(settings: Settings, put) -> None:
    done = ingested(settings.model_copy(update={"instruments": ()}), put(lines(FILLS, fill())), ts_intake=NOW)
    assert done.status == "refused"
    assert "symbol|unknown (1 rows)" in done.why
