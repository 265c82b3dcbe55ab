"""Which rows a window lets go, when, and in which order: a real Redis, entries written by hand."""

import time

import polars as pl
import pytest
from structlog.testing import capture_logs

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.live import _window_refill
from quant_platform.live.window import Position, Window
from quant_platform.settings import Settings
from quant_platform_tests.streamed import (
    DELAY,
    MS,
    NOON,
    book,
    both,
    ids,
    instruments,
    land,
    lines,
    publish,
    quote,
    taken,
    trade,
)

LATER = NOON + 3_600_000 * MS  # our clock, an hour after all that is written
GRACE_S = 0.5
NOTHING = Position(None, None, None)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    """A hole is given up after a part of the two seconds that it has; faults/ waits for all of them."""
    monkeypatch.setattr(_window_refill, "GRACE_S", GRACE_S)


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path, instruments=instruments("AAA", "BBB"))


@pytest.fixture
def window(settings):
    window = Window(settings, ["BBB", "AAA"])
    yield window
    window.close()


def sequences(rows):
    return rows["sequence"].to_list()


def test_rows_keep_the_contracts_and_are_sorted_by_symbol(window, client):
    publish(client, {"trades": [trade(1, 5, symbol="BBB")], "depth": [book(7, symbol="BBB")]}, symbol="BBB")
    publish(client, {"trades": [trade(4, 1), trade(5, 2)], "quotes": [quote(3, 0), quote(4, 9)]})
    window.read(client)
    chunk = window.take(LATER)
    for rows, contract in zip(chunk, (Trade, Quote, Book), strict=True):
        assert rows.schema == polars_schema(contract)
        assert contract.is_valid(rows)
    assert chunk.trades["symbol"].to_list() == ["AAA", "AAA", "BBB"]
    assert chunk.trades["ts_recv"].to_physical().to_list() == [NOON + ms * MS + DELAY for ms in (1, 2, 5)]
    assert window.market_ns("AAA") == NOON + 9 * MS
    assert abs(window.heard_s["BBB"] - time.monotonic()) < 60
    assert sequences(window.take(LATER).quotes) == [4]  # no trade came before it
    assert all(rows.is_empty() for rows in window.take(LATER))


def test_nothing_is_nothing(window, client):
    window.read(client)
    assert all(rows.is_empty() for rows in window.take(LATER))
    assert (window.market_ns("AAA"), window.has_gap("AAA"), window.book_gap_ns("AAA")) == (None, False, None)


def test_trades_go_by_id_each_once(window, client):
    publish(client, {"trades": [trade(1), trade(4, 4), trade(2, 2), trade(4, 4)]})
    window.read(client)
    assert ids(window.take(LATER)) == [1, 2]
    publish(client, {"trades": [trade(2, 2), trade(3, 3)]})
    window.read(client)
    assert ids(window.take(LATER)) == [3, 4]
    assert window.counts["duplicates"] == 2
    assert not window.has_gap("AAA")


def test_an_aggregate_is_cut_to_what_is_not_known(window, client):
    publish(client, {"trades": [trade(1), trade(2, last=5, size=8.0), trade(4, size=3.0)]})
    window.read(client)
    rows = window.take(LATER).trades
    assert rows.select("trade_id", "last_trade_id", "size").rows() == [
        (1, 1, 1.0),
        (2, 3, None),
        (4, 4, 3.0),
        (5, 5, None),
    ]


def test_missing_trades_come_from_closed_and_open_segments(window, client, settings):
    rows = [trade(k, k) for k in range(1, 9)]
    with_torn_end = land(settings, lines(*rows[:3]), lines(*rows[3:6]), is_open=True)
    with next((settings.landing / "segments").rglob("open.frames")).open("ab") as file:
        file.write(lines(rows[6])[0][:-9])
    publish(client, {"trades": [rows[0], rows[6], rows[7]]})
    window.read(client)
    assert ids(window.take(LATER)) == [1]
    assert taken(window, client, until=8) == [2, 3, 4, 5, 6, 7, 8]
    assert (window.counts["refilled"], window.has_gap("AAA")) == (5, False)
    with_torn_end.close()


def test_missing_trades_are_given_up_and_late_ones_make_the_symbol_repairable(window, client):
    publish(client, {"trades": [trade(1), trade(4, 4)]})
    window.read(client)
    start = time.monotonic()
    assert taken(window, client, until=4) == [1, 4]
    assert time.monotonic() - start >= GRACE_S
    assert window.has_gap("AAA")
    assert window.repairable() == []
    publish(client, {"trades": [trade(3, 3), trade(5, 5)]})
    window.read(client)
    assert ids(window.take(LATER)) == [5]
    assert (window.counts["late"], window.repairable()) == (1, [])
    publish(client, {"trades": [trade(2, 2), trade(2, 2)]})
    window.read(client)
    window.take(LATER)
    assert (window.counts["late"], window.counts["duplicates"], window.repairable()) == (2, 1, ["AAA"])

    window.hold(["AAA"])
    window.adopt("AAA", Position(5, None, None))
    assert (window.has_gap("AAA"), window.repairable()) == (False, [])


def test_trades_that_the_collector_fetched_later_close_the_hole_in_time(window, client, settings):
    land(settings, lines(trade(1), trade(4, 4))).close()
    publish(client, {"trades": [trade(1), trade(4, 4)]})
    window.read(client)
    window.take(LATER)
    land(settings, lines(trade(2, 2), trade(3, 3))).close()  # they do not reach the Stream
    assert taken(window, client, until=4) == [2, 3, 4]
    assert not window.has_gap("AAA")


def test_an_id_beyond_reason_is_no_trade(window, client):
    publish(client, {"trades": [trade(1), trade(10**12), trade(2)]})
    window.read(client)
    assert ids(window.take(LATER)) == [1, 2]
    assert window.counts["malformed"] == 1


def test_held_rows_wait_and_follow_the_position(window, client):
    window.hold(["AAA"])
    publish(client, {"trades": [trade(k, k) for k in range(1, 6)], "quotes": [quote(k, k) for k in range(1, 6)]})
    publish(client, {"trades": [trade(1, symbol="BBB")]}, symbol="BBB")
    window.read(client)
    assert window.take(LATER).trades["symbol"].to_list() == ["BBB"]
    window.adopt("AAA", Position(3, (NOON + 2 * MS, 2), None))
    window.read(client)
    chunk = window.take(LATER)
    assert (ids(chunk), sequences(chunk.quotes)) == ([4, 5], [3, 4, 5])
    publish(client, {"trades": [trade(2, 2), trade(6, 6)]})
    window.read(client)
    assert ids(window.take(LATER)) == [6]


def test_a_symbol_that_begins_has_no_gap_but_one_that_goes_on_may_have(window, client):
    window.hold(["AAA", "BBB"])
    publish(client, {"trades": [trade(50)]})
    publish(client, {"trades": [trade(50, symbol="BBB")]}, symbol="BBB")
    window.read(client)
    window.adopt("AAA", NOTHING)
    window.adopt("BBB", Position(47, None, None))
    assert window.take(LATER).trades["symbol"].to_list() == ["AAA"]
    assert taken(window, client, until=50) == [50]
    assert (window.has_gap("AAA"), window.has_gap("BBB")) == (False, True)


def test_rows_at_the_end_of_the_session_wait(window, client):
    end = {"AAA": NOON + 3 * MS}
    rows = {"trades": [trade(k, k) for k in range(1, 6)], "quotes": [quote(k, k) for k in range(1, 6)]}
    publish(client, rows | {"depth": [book(k, k) for k in range(1, 6)]})
    window.read(client)
    window.read(client)
    chunk = window.take(LATER, end)
    assert (ids(chunk), sequences(chunk.quotes), sequences(chunk.books)) == ([1, 2], [1, 2], [1, 2])
    chunk = window.take(LATER, {})
    assert (ids(chunk), sequences(chunk.quotes), sequences(chunk.books)) == ([3, 4, 5], [3, 4, 5], [3, 4, 5])


def test_a_trade_waits_for_the_quotes_before_it_but_not_long(window, client):
    publish(client, {"trades": [trade(1, 10), trade(2, 20)], "quotes": [quote(1, 5), quote(2, 15)]})
    written = NOON + 20 * MS + 2 * DELAY
    window.read(client)
    chunk = window.take(written + 49 * MS)
    assert (ids(chunk), sequences(chunk.quotes)) == ([1], [1, 2])  # a quote of 15 ms may have one of 17 behind it
    assert ids(window.take(written + 51 * MS)) == [2]

    publish(client, {"trades": [trade(3, 30)]})
    window.read(client)
    assert ids(window.take(NOON)) == []
    window.read(client)
    assert ids(window.take(NOON - 10**12)) == [3]  # our clock may be set back


def test_quotes_do_not_run_ahead_of_trades_that_wait(window, client):
    window.hold(["AAA"])
    window.adopt("AAA", Position(1, (NOON, 1), None))
    publish(client, {"trades": [trade(3, 30)], "quotes": [quote(k, 10 * k) for k in range(2, 8)]})
    window.read(client)
    window.read(client)
    chunk = window.take(LATER)
    assert (ids(chunk), sequences(chunk.quotes)) == ([], [])  # the missing trade may be of any time after the last
    publish(client, {"trades": [trade(2, 25)]})
    window.read(client)
    chunk = window.take(LATER)
    assert (ids(chunk), sequences(chunk.quotes)) == ([2, 3], [2, 3, 4, 5, 6, 7])


def test_the_newest_quotes_wait_for_a_trade_that_may_be_on_its_way(window, client):
    publish(client, {"trades": [trade(1, 1)], "quotes": [quote(1, 10), quote(2, 11), quote(3, 251), quote(4, 260)]})
    window.read(client)
    assert sequences(window.take(LATER).quotes) == [1]
    publish(client, {"trades": [trade(2, 255)]})
    window.read(client)
    chunk = window.take(LATER)
    assert (ids(chunk), sequences(chunk.quotes)) == ([2], [2, 3, 4])
    assert window.counts["overtaken"] == 0


def test_a_trade_that_was_overtaken_by_two_instants_is_told(window, client):
    publish(client, {"trades": [trade(1, 0)], "quotes": [quote(1, 5), quote(2, 10), quote(3, 15), quote(4, 100)]})
    window.read(client)
    assert sequences(both(window, LATER).quotes) == [1, 2, 3, 4]
    publish(client, {"trades": [trade(2, 16)]})  # strictly before it stands a quote of the two instants remembered
    window.read(client)
    assert (ids(window.take(LATER)), window.counts["overtaken"]) == ([2], 0)
    publish(client, {"trades": [trade(3, 15)]})
    window.read(client)
    assert (ids(window.take(LATER)), window.counts["overtaken"]) == ([3], 1)
    assert window.quote_gap_ns("AAA") == NOON + 15 * MS
    assert window.counts["out_of_order"] == 1


def test_quotes_and_books_only_rise(window, client):
    publish(
        client,
        {
            "quotes": [quote(2, 2, seq=1), quote(1, 1, seq=2), quote(3, 3)],
            "depth": [book(5, 5), book(4, 4), book(5, 5)],
        },
    )
    window.read(client)
    chunk = both(window, LATER)
    assert (sequences(chunk.quotes), sequences(chunk.books)) == ([1, 2, 3], [4, 5])
    publish(client, {"quotes": [quote(2, 2, seq=4), quote(0, 3, seq=5)], "depth": [book(1, 5, seq=9)]})
    window.read(client)
    assert all(rows.is_empty() for rows in both(window, LATER))
    assert (window.counts["late_quotes"], window.counts["late_books"]) == (2, 1)


def test_lost_quotes_come_from_the_landing_and_trades_wait_for_them(window, client, settings):
    quotes = [quote(10 + k, 10 * k, seq=k) for k in range(1, 7)]
    land(settings, lines(*quotes)).close()
    publish(client, {"trades": [trade(1, 5), trade(2, 45)], "quotes": [quotes[0], quotes[5]]})
    window.read(client)
    chunk = window.take(LATER)
    assert (ids(chunk), sequences(chunk.quotes)) == ([1], [11])
    latest, found = time.monotonic() + 10, []
    while 16 not in found:
        assert time.monotonic() < latest
        window.read(client)
        chunk = window.take(LATER)
        found += sequences(chunk.quotes)
        assert ids(chunk) == ([2] if found == [12, 13, 14] else [])
    assert found == [12, 13, 14, 15, 16]
    assert (window.counts["lost_quotes"], window.quote_gap_ns("AAA")) == (4, None)


def test_lost_quotes_that_were_not_landed_are_told(window, client):
    publish(client, {"trades": [trade(1, 0), trade(2, 99)], "quotes": [quote(1, 1), quote(9, 100)]})
    window.read(client)
    assert taken(window, client, until=2) == [1, 2]
    assert window.quote_gap_ns("AAA") == NOON + 100 * MS
    assert not window.has_gap("AAA")


def test_quotes_that_are_lost_again_and_again_hold_trades_up_for_the_grace_only(window, client):
    latest, sequence, number = time.monotonic() + 2, 0, 0
    longest, last = 0.0, time.monotonic()
    while time.monotonic() < latest:
        sequence, number = sequence + 2, number + 1
        publish(client, {"trades": [trade(number, sequence)], "quotes": [quote(sequence, sequence)]})
        window.read(client)
        if ids(window.take(LATER)):
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        time.sleep(0.02)
    assert GRACE_S < longest < 2 * GRACE_S + 0.5


@pytest.mark.parametrize(
    ("numbers", "lost"), [((1, 2, 3), 0), ((1, 2, 5), 2), ((7, 8, 1), 0), ((7, 8, 3), 2), ((4, 5, 5), 0)]
)
def test_lost_books_are_seen_by_the_numbers_of_the_entries(window, client, numbers, lost):
    rows = [book(20 + k, k, seq=seq) for k, seq in enumerate(numbers)]
    if numbers[1] == numbers[2]:
        rows[2] = rows[1]  # an entry that was written twice
    for row in rows:
        publish(client, {"depth": [row]})
        window.read(client)
    assert window.counts["lost_books"] == lost
    assert window.book_gap_ns("AAA") == (NOON + 2 * MS if lost else None)


def test_memory_has_a_bound_and_what_went_is_told(settings, client):
    window = Window(settings, ["AAA"], limit_rows=100)
    window.hold(["AAA"])
    for start in range(1, 201, 20):
        publish(client, {"trades": [trade(k, k) for k in range(start, start + 20)], "depth": [book(start, start)]})
        window.read(client)
        window.take(LATER)
        assert sum(rows.height for rows in window._all_waiting()) <= 100
    window.adopt("AAA", NOTHING)
    found = taken(window, client, until=200)
    assert found == list(range(found[0], 201))
    assert 100 < found[0] < 150
    assert window.has_gap("AAA")
    assert window.book_gap_ns("AAA") is not None
    window.close()


def test_what_was_dropped_is_refilled_when_it_was_landed(settings, client):
    rows = [trade(k, k) for k in range(1, 201)]
    land(settings, lines(*rows)).close()
    window = Window(settings, ["AAA"], limit_rows=50)
    window.hold(["AAA"])
    for start in range(0, 200, 20):
        publish(client, {"trades": rows[start : start + 20]})
        window.read(client)
    window.adopt("AAA", NOTHING)
    assert taken(window, client, until=200) == list(range(1, 201))
    assert not window.has_gap("AAA")
    window.close()


def test_the_same_warning_is_logged_once(window, client):
    with capture_logs() as logs:
        for _ in range(3):
            publish(client, {"trades": [b"null"]})
            window.read(client)
    assert [log["symbol"] for log in logs if log["log_level"] == "warning"] == ["AAA"]
    assert window.counts["malformed"] == 3


def test_cutting_at_reads_gives_one_tape(settings, client):
    """The same entries, read at once or one by one, give the same rows in the same order."""
    trades = [trade(k, 7 * k) for k in range(1, 40)]
    quotes = [quote(k, 5 * k) for k in range(1, 60)]
    tapes = []
    for step in (1, 3, 100):
        client.flushall()
        window, parts = Window(settings, ["AAA"]), []
        for place in range(0, 60, step):
            publish(client, {"trades": trades[place : place + step], "quotes": quotes[place : place + step]})
            window.read(client)
            parts.append(window.take(LATER))
        window.read(client)
        parts.append(window.take(LATER))
        tapes.append([pl.concat(rows) for rows in zip(*parts, strict=True)])
        window.close()
    for tape in tapes[1:]:
        assert tape[0].equals(tapes[0][0])
        assert tape[1].equals(tapes[0][1])
