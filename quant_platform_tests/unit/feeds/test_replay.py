"""The parts of the replayed venue without sockets: messages, shifts, rubbish, pages, books."""

import json
from pathlib import Path

import polars as pl
import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Book as BookTable
from quant_platform.feeds import _replay_messages as messages
from quant_platform.feeds._replay_faults import DROP, DUPLICATE, MALFORMED, REORDER, Faults, Unruly, released_s
from quant_platform.feeds._replay_market import Book, Tape
from quant_platform.feeds._replay_messages import DEPTH, SNAPSHOT, TAPE, TRADE, Shift
from quant_platform.settings import SettingsError

T_NS = 1_700_000_000_000_000_000


def tape(*rows: tuple[int, str, str, int, bool]) -> pl.DataFrame:
    """Return single trades of (id, price, size, ms after T, is_buyer_maker)."""
    return pl.DataFrame(
        [
            (T_NS + ms * 10**6, TRADE, i, i, i, T_NS + ms * 10**6, price, size, maker, False)
            for i, price, size, ms, maker in rows
        ],
        schema=TAPE,
        orient="row",
    )


def book_row(sequence: int, bids: list[tuple[float, float]], asks: list[tuple[float, float]]) -> dict[str, object]:
    """Return a row of `market/book` with `at`; the levels that are not named are null."""
    row: dict[str, object] = dict.fromkeys(polars_schema(BookTable).names())
    row |= {"ts_event": T_NS + sequence * 10**6, "symbol": "X", "venue": "binance_usdm", "sequence": sequence}
    for side, levels in (("bid", bids), ("ask", asks)):
        for number, (price, size) in enumerate(levels, start=1):
            row |= {f"{side}_price_{number}": price, f"{side}_size_{number}": size}
    return row | {"at": T_NS + sequence * 10**6}


def books(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema={**polars_schema(BookTable), "at": pl.Int64}, orient="row")


def test_depth_sends_what_changed_and_zero_for_what_left():
    rows = books(
        book_row(10, [(9.5, 1.0), (9.0, 2.0)], [(10.0, 3.0)]),
        book_row(14, [(9.5, 1.5), (8.5, 4.0)], [(10.0, 3.0), (10.5, 1.0)]),
    )
    sent, _ = messages.depth(rows, rows.clear(), venue="binance_usdm", symbol="BTCUSDT", shift=Shift())
    assert sent["kind"].to_list() == [SNAPSHOT, DEPTH]
    first, second = (json.loads(data) for data in sent["data"])
    assert first["lastUpdateId"] == 10
    assert first["bids"] == [["9.5", "1.0"], ["9.0", "2.0"]]
    assert (second["U"], second["u"], second["pu"]) == (11, 14, 10)
    assert sorted(second["b"]) == [["8.5", "4.0"], ["9.0", "0"], ["9.5", "1.5"]]
    assert second["a"] == [["10.5", "1.0"]]


def test_depth_cut_anywhere_is_the_same():
    rows = books(
        book_row(1, [(9.0, 1.0)], [(10.0, 1.0)]),
        book_row(2, [(9.1, 1.0)], [(10.0, 1.0)]),
        book_row(3, [], []),
        book_row(4, [(9.2, 1.0)], [(10.0, 2.0)]),
        book_row(5, [(9.3, 1.0)], [(10.0, 2.0)]),
    )
    options = {"venue": "binance_usdm", "symbol": "BTCUSDT", "shift": Shift()}
    whole, _ = messages.depth(rows, rows.clear(), **options)
    for cut in range(1, 5):
        head, carried = messages.depth(rows[:cut], rows.clear(), **options)
        tail, _ = messages.depth(rows[cut:], carried, **options)
        assert pl.concat([head, tail]).equals(whole), cut


def test_depth_after_a_row_without_levels_does_not_follow_and_has_its_own_snapshot():
    rows = books(
        book_row(1, [(9.0, 1.0)], [(10.0, 1.0)]),
        book_row(7, [], []),
        book_row(9, [(9.2, 1.0)], [(10.0, 2.0)]),
    )
    sent, _ = messages.depth(rows, rows.clear(), venue="binance_usdm", symbol="BTCUSDT", shift=Shift())
    first, broken, again = (json.loads(data) for data in sent["data"])
    assert broken["pu"] == 7 != first["lastUpdateId"]
    assert again == {
        "lastUpdateId": 9,
        "E": broken["E"],
        "T": broken["T"],
        "bids": [["9.2", "1.0"]],
        "asks": [["10.0", "2.0"]],
    }


def test_shifted_moves_times_and_ids_and_nothing_else():
    recorded = (
        '{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006",'
        '"X":"MARKET","m":false}'
    )
    moved = messages.shifted(recorded, Shift(0, 5_000_000_000, 100, 7))
    assert moved == recorded.replace("1723161256322", "1723161261322").replace("5266583935", "5266584035")
    quote = '{"u":50093239212,"s":"BTCUSDT","b":"61837.63","B":"3","a":"61837.64","A":"1"}'
    assert messages.shifted(quote, Shift(0, 5_000_000_000, 100, 7)) == quote.replace("50093239212", "50093239219")
    in_microseconds = '{"E":1745000000000001,"u":5}'
    assert messages.shifted(in_microseconds, Shift(0, 2_000_000, 0, 0)) == '{"E":1745000000002001,"u":5}'


def test_aggregated_joins_neighbours_of_one_price_time_and_side():
    rows = tape(
        (1, "10.0", "0.1", 0, False),
        (2, "10.0", "0.2", 0, False),
        (3, "10.0", "0.3", 0, True),  # another side
        (4, "10.5", "0.4", 1, True),
        (6, "10.5", "0.5", 1, True),  # 5 is missing
    )
    found = messages.aggregated(rows)
    assert found.select("first_id", "last_id", "size").rows() == [
        (1, 2, "0.3"),
        (3, 3, "0.3"),
        (4, 4, "0.4"),
        (6, 6, "0.5"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dorp=0.1", "There is no fault 'dorp'"),
        ("drop=much", "'much' is none"),
        ("drop=2", "a share from 0 to 1"),
        ("burst_every_s=3", "at least 10"),
        ("stall_s=-1", "from 0 on"),
    ],
)
def test_faults_that_are_none_are_refused(text, said):
    with pytest.raises(SettingsError, match=said):
        Faults.parsed(text)


def test_faults_are_read_from_a_text():
    assert Faults.parsed("drop=0.5, seed=7") == Faults(drop=0.5, seed=7)
    assert Faults.parsed("") == Faults()


def unruly_rows(count: int) -> pl.DataFrame:
    data = [f'{{"t":{i},"p":"{i}.5"}}'.encode() for i in range(count)]
    return pl.DataFrame({"at": range(count), "key": [0] * count, "data": data}, schema_overrides={"at": pl.Int64})


def test_unruly_keeps_every_message_and_says_what_it_did():
    faults = Faults(duplicate=0.2, reorder=0.2, drop=0.2, malformed=0.2, seed=1)
    unruly, rows = Unruly(faults, {0: "x@trade"}), unruly_rows(1_000)
    sent = pl.concat([unruly.sent(rows[:500], 499), unruly.sent(rows[500:], None)])
    notes = dict(sent["note"].value_counts().rows())
    plain = sent.filter((pl.col("note") != DUPLICATE) & (pl.col("note") < MALFORMED))
    assert sorted(plain["data"]) == sorted(rows["data"])
    for note in (DUPLICATE, REORDER, DROP):
        assert 120 < notes[note] < 280
    assert sent.height == 1_000 + notes[DUPLICATE] + sum(count for note, count in notes.items() if note >= MALFORMED)
    again = Unruly(faults, {0: "x@trade"})
    assert pl.concat([again.sent(rows[:500], 499), again.sent(rows[500:], None)]).equals(sent)


def test_unruly_reorders_behind_the_next_three():
    sent = Unruly(Faults(reorder=0.05, seed=3), {0: "x@trade"}).sent(unruly_rows(200), None)
    place = {data: n for n, data in enumerate(sent["data"])}
    late = sent.filter(pl.col("note") == REORDER)
    assert late.height > 3
    for data in late["data"]:
        number = json.loads(data)["t"]
        # Another late one may stand between.
        assert place[data] > place[f'{{"t":{number + 1},"p":"{number + 1}.5"}}'.encode()] or number + 1 in {
            json.loads(other)["t"] for other in late["data"]
        }


@pytest.mark.parametrize(
    ("elapsed_s", "sent_s"),
    [(0, 0), (9.5, 9.5), (10, 10), (18.9, 10), (19, 10), (19.5, 15), (20, 20), (31, 30), (40, 40)],
)
def test_a_burst_holds_nine_seconds_back_and_sends_ten_in_one(elapsed_s, sent_s):
    assert released_s(elapsed_s, 20) == pytest.approx(sent_s)
    assert released_s(elapsed_s, 0) == elapsed_s


def test_tape_gives_pages_by_id_by_time_and_the_newest(tmp_path: Path):
    kept = Tape(tmp_path / "tape")
    every = tape(*((i, "10", "1", i, False) for i in range(1, 31)))
    for start in range(0, 30, 10):
        kept.add(every[start : start + 10])

    def ids(**asked: int | None) -> list[int]:
        options = {"from_id": None, "start_ns": None, "end_ns": None, "limit": 5, "made_until": T_NS + 30 * 10**6}
        return kept.page(**(options | asked))["id"].to_list()

    assert ids() == [26, 27, 28, 29, 30]
    assert ids(from_id=8) == [8, 9, 10, 11, 12]
    assert ids(from_id=29) == [29, 30]
    assert ids(from_id=8, made_until=T_NS + 9 * 10**6) == [8, 9]
    assert ids(start_ns=T_NS + 19 * 10**6, end_ns=T_NS + 22 * 10**6) == [19, 20, 21, 22]


def test_book_lets_diffs_wait_for_a_snapshot_behind_them():
    book = Book()
    book.fold('{"U":3,"u":5,"pu":2,"b":[["9.0","1"]],"a":[]}')
    book.fold('{"U":6,"u":8,"pu":5,"b":[["9.0","0"],["9.1","2"]],"a":[]}')
    assert book.snapshot(5) is None
    book.fold('{"lastUpdateId":6,"bids":[["8.0","1"]],"asks":[["10.0","1"]]}')
    assert book.snapshot(5) == {"lastUpdateId": 8, "bids": [["9.1", "2"], ["8.0", "1"]], "asks": [["10.0", "1"]]}
    book.fold('{"U":20,"u":21,"pu":19,"b":[],"a":[]}')
    assert not book.is_known
