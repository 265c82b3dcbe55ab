"""Recorded frames written by hand: what becomes a trade, a quote and a book, and how a line can be wrong."""

import datetime as dt
import gzip
import json

import pandas as pd
import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.feeds import frames
from quant_platform.feeds.recorded import RecordedError, Wanted

DATE = dt.date(2024, 8, 8)
MIDNIGHT_MS = 1_723_075_200_000  # date -u -d 2024-08-08 +%s000
DAY_MS = 86_400_000
NOON_MS = MIDNIGHT_MS + DAY_MS // 2
BEHIND_MS = 1_270  # the local clock is behind the venue's


def line(payload, time_ms):
    return f"{(time_ms - BEHIND_MS) * 1_000_000} {json.dumps(payload, separators=(',', ':'))}"


def stream(kind, data):
    return {"stream": f"btcusdt@{kind}", "data": data}


def trade(ident, time_ms=NOON_MS, *, price="61800.30", size="0.006", maker=False, **more):
    data = {"e": "trade", "E": time_ms + 1, "T": time_ms, "s": "BTCUSDT", "t": ident, "p": price, "q": size, "m": maker}
    return line(stream("trade", data | more), time_ms)


def ticker(ident, time_ms=NOON_MS, *, bid="61800.20", **more):
    data = {"e": "bookTicker", "u": ident, "s": "BTCUSDT", "b": bid, "B": "2.5", "a": "61800.40", "A": "2.6"}
    return line(stream("bookTicker", data | {"T": time_ms, "E": time_ms + 1} | more), time_ms)


def snapshot(last_id, time_ms=NOON_MS, **more):
    answer = {"lastUpdateId": last_id, "E": time_ms + 1, "T": time_ms}
    return line(answer | {"bids": [["100.0", "1"], ["99.0", "2"]], "asks": [["101.0", "3"]]} | more, time_ms)


def depth(previous_id, last_id, time_ms=NOON_MS, *, bids=(), asks=(), **more):
    data = {"e": "depthUpdate", "E": time_ms + 1, "T": time_ms, "s": "BTCUSDT", "U": previous_id + 1, "u": last_id}
    data |= {"pu": previous_id, "b": [list(level) for level in bids], "a": [list(level) for level in asks]}
    return line(stream("depth@0ms", data | more), time_ms)


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a file of these lines."""

    def write(lines, name="usdm_btcusdt_20240808.jsonl", *, end="\n"):
        text = ("\n".join(lines) + end).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return tmp_path

    return write


def wanted(table, *, venue="binance_usdm", date=DATE):
    return Wanted(table=f"market/{table}", symbol="BTC", venue_symbol="BTCUSDT", date=date, venue=venue)


def read(folder, table, **asked):
    recording = frames.find(folder, wanted(table, **asked))
    assert recording is not None
    return frames.read_day(recording, wanted(table, **asked))


def broken(parsed):
    return parsed.quarantined.select("rule", "source_file", "source_line", "raw").rows()


def best(parsed):
    return parsed.rows.select("sequence", "bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1").rows()


def test_trades_are_the_contract(folder):
    parsed = read(folder([trade(7), ticker(1), trade(8, NOON_MS + 5, price="61800.20", maker=True)]), "trades")

    assert parsed.rows.schema == polars_schema(Trade)
    assert parsed.rows["ts_event"].dt.epoch("ms").to_list() == [NOON_MS, NOON_MS + 5]
    assert parsed.rows["ts_recv"].dt.epoch("ms").to_list() == [NOON_MS - BEHIND_MS, NOON_MS + 5 - BEHIND_MS]
    assert parsed.rows.drop("ts_event", "ts_recv").rows() == [
        ("BTC", "binance_usdm", 7, 7, 7, 61800.3, 0.006, 1),
        ("BTC", "binance_usdm", 8, 8, 8, 61800.2, 0.006, -1),
    ]
    assert parsed.facts == {"out_of_order": "0", "tape": "trades"}
    assert parsed.quarantined.height == 0


def test_quotes_have_the_transaction_time(folder):
    parsed = read(folder([ticker(3), trade(7), ticker(4, NOON_MS + 2, bid="61800.10")]), "quotes")

    assert parsed.rows.schema == polars_schema(Quote)
    assert parsed.rows["ts_event"].dt.epoch("ms").to_list() == [NOON_MS, NOON_MS + 2]
    assert parsed.rows.drop("ts_event", "ts_recv").rows() == [
        ("BTC", "binance_usdm", 61800.2, 2.5, 61800.4, 2.6, 3, False),
        ("BTC", "binance_usdm", 61800.1, 2.5, 61800.4, 2.6, 4, False),
    ]


def test_microseconds_are_understood(folder):
    parsed = read(folder([trade(7, T=NOON_MS * 1_000 + 123)]), "trades")

    assert parsed.rows["ts_event"].dt.timestamp("ns").to_list() == [NOON_MS * 1_000_000 + 123_000]


def spot_ticker(ident, received_ns):
    data = {"u": ident, "s": "BTCUSDT", "b": "1.0", "B": "1", "a": "2.0", "A": "1"}
    return f"{received_ns} {json.dumps(stream('bookTicker', data))}"


def spot_trade(ident, received_ns, event_ms):
    data = {"e": "trade", "E": event_ms, "T": event_ms, "t": ident, "p": "1.5", "q": "1", "m": True}
    return f"{received_ns} {json.dumps(stream('trade', data))}"


def test_spot_quotes_are_dated_by_the_running_median_of_the_clocks(folder):
    received = [NOON_MS * 1_000_000 + n * 100_000_000 for n in range(8)]
    ahead_ms = {1: 1_270, 3: 1_250, 5: 1_400, 6: 1_280}  # of the timed messages, by position
    lines = [
        spot_trade(n, at, at // 1_000_000 + ahead_ms[n]) if n in ahead_ms else spot_ticker(n, at)
        for n, at in enumerate(received)
    ]
    # The first quote came before any time was known: it takes the first.
    medians = [1_270, *pd.Series(ahead_ms).reindex(range(8)).expanding().median().ffill().dropna()]
    expected = [at + round(medians[n] * 1_000_000) for n, at in enumerate(received) if n not in ahead_ms]

    parsed = read(folder(lines, "spot_btcusdt_20240808.jsonl"), "quotes", venue="binance_spot")

    assert parsed.rows["sequence"].to_list() == [0, 2, 4, 7]
    assert parsed.rows["ts_event"].dt.timestamp("ns").to_list() == expected
    assert parsed.rows["is_ts_event_assumed"].all()
    assert parsed.rows["ts_recv"].dt.timestamp("ns").to_list() == [received[n] for n in (0, 2, 4, 7)]


def test_estimated_times_never_fall(folder):
    at = NOON_MS * 1_000_000
    lines = [
        spot_trade(1, at, NOON_MS + 1_300),
        spot_ticker(1, at + 1),
        spot_trade(2, at + 2, NOON_MS + 1_200),  # the median falls by 50 ms
        spot_ticker(2, at + 3),
        spot_ticker(3, at + 100_000_000),
    ]

    parsed = read(folder(lines, "spot_btcusdt_20240808.jsonl"), "quotes", venue="binance_spot")

    first, last = at + 1 + 1_300_000_000, at + 100_000_000 + 1_249_999_999  # the median of 1.3 s and 1.2 s - 2 ns
    assert parsed.rows["ts_event"].dt.timestamp("ns").to_list() == [first, first, last]


def test_estimated_times_go_on_from_the_date_before(folder):
    midnight_ns = MIDNIGHT_MS * 1_000_000
    folder([spot_trade(1, midnight_ns - 10**9, MIDNIGHT_MS)], "spot_btcusdt_20240807.jsonl")  # a second behind
    lines = [spot_ticker(1, midnight_ns + 5), spot_trade(2, midnight_ns + 10, MIDNIGHT_MS + 2_000)]

    parsed = read(folder(lines, "spot_btcusdt_20240808.jsonl"), "quotes", venue="binance_spot")

    assert parsed.rows["ts_event"].dt.timestamp("ns").to_list() == [midnight_ns + 5 + 10**9]


def test_spot_quotes_of_a_recording_without_any_time_are_quarantined(folder):
    lines = [spot_ticker(n, NOON_MS * 1_000_000 + n) for n in range(2)]

    parsed = read(folder(lines, "spot_btcusdt_20240808.jsonl"), "quotes", venue="binance_spot")

    assert parsed.rows.height == 0
    assert broken(parsed) == [
        ("ts_event|nullability", "spot_btcusdt_20240808.jsonl", n, text) for n, text in enumerate(lines, start=1)
    ]


def test_a_tape_of_aggregates_says_so(folder):
    data = {"T": NOON_MS, "a": 1, "f": 7, "l": 9, "p": "61800.30", "q": "0.5", "m": True}

    parsed = read(folder([line(stream("aggTrade", data), NOON_MS)]), "trades")

    assert parsed.rows.select("trade_id", "last_trade_id").rows() == [(7, 9)]
    assert parsed.facts == {"out_of_order": "0", "tape": "aggTrades"}


def test_a_tape_of_trades_with_a_refilled_aggregate_is_one_of_trades(folder):
    data = {"T": NOON_MS, "a": 1, "f": 7, "l": 9, "p": "61800.30", "q": "0.5", "m": True}

    parsed = read(folder([trade(7), line(stream("aggTrade", data) | {"refill": True}, NOON_MS)]), "trades")

    assert parsed.rows.select("trade_id", "last_trade_id", "size").rows() == [(7, 7, 0.006), (8, 9, None)]
    assert parsed.facts["tape"] == "trades"


def test_gaps_belong_to_the_date_on_which_they_end(folder):
    midnight_ns = MIDNIGHT_MS * 1_000_000
    gaps = [
        line(stream("gap", {"first_id": n, "last_id": n, "ts_start": midnight_ns - 9, "ts_end": end}), MIDNIGHT_MS)
        for n, end in enumerate([midnight_ns - 1, midnight_ns])
    ]

    assert read(folder(gaps), "gaps").rows["first_id"].to_list() == [1]


def test_book_follows_snapshot_and_diffs(folder):
    lines = [
        depth(5, 9, NOON_MS - 2),
        snapshot(10),
        depth(9, 12, NOON_MS + 1, bids=[("100.0", "0"), ("99.5", "4")]),
        depth(12, 13, NOON_MS + 2, asks=[("500.0", "1")]),
        depth(13, 14, NOON_MS + 3, asks=[("101.0", "2.5")]),
    ]

    parsed = read(folder(lines), "book")

    assert parsed.rows.schema == polars_schema(Book)
    assert best(parsed) == [(10, 100.0, 1.0, 101.0, 3.0), (12, 99.5, 4.0, 101.0, 3.0), (13, 99.5, 4.0, 101.0, 3.0),
                            (14, 99.5, 4.0, 101.0, 2.5)]  # fmt: skip
    assert parsed.rows["ask_price_2"].to_list() == [None, None, 500.0, 500.0]
    assert parsed.rows["ts_event"].dt.epoch("ms").to_list() == [NOON_MS, NOON_MS + 1, NOON_MS + 2, NOON_MS + 3]
    assert parsed.facts == {"sequence_breaks": "0"}


def test_break_of_the_sequence_ends_the_book_and_is_counted(folder):
    lines = [
        snapshot(10),
        depth(10, 12, NOON_MS + 1, bids=[("99.5", "4")]),
        depth(20, 21, NOON_MS + 2, bids=[("98", "1")]),
    ]

    parsed = read(folder(lines), "book")

    assert best(parsed)[-1] == (21, None, None, None, None)
    assert parsed.facts == {"sequence_breaks": "1"}


def test_spot_snapshot_without_a_time_gets_the_estimated_one(folder):
    lines = [depth(5, 9, E=NOON_MS, T=None, pu=None), snapshot(9, E=None, T=None)]

    parsed = read(folder(lines, "spot_btcusdt_20240808.jsonl"), "book", venue="binance_spot")

    assert parsed.rows["ts_event"].dt.epoch("ms").to_list() == [NOON_MS]


def test_recording_without_a_snapshot_has_no_book(folder):
    assert read(folder([depth(9, 12, bids=[("99.5", "4")])]), "book").rows.height == 0


def test_book_goes_on_from_the_date_before(folder):
    early = MIDNIGHT_MS + DAY_MS + 5
    folder([snapshot(10, NOON_MS)], "usdm_btcusdt_20240808.part1.jsonl")
    root = folder([depth(10, 12, early, bids=[("99.5", "4"), ("100.0", "0")])], "usdm_btcusdt_20240809.jsonl.gz")

    assert best(read(root, "book")) == [(10, 100.0, 1.0, 101.0, 3.0)]
    assert best(read(root, "book", date=dt.date(2024, 8, 9))) == [(12, 99.5, 4.0, 101.0, 3.0)]


def test_book_of_a_file_that_starts_with_a_snapshot_owes_nothing_to_the_date_before(folder):
    folder([snapshot(10, MIDNIGHT_MS - 5), depth(10, 12, MIDNIGHT_MS - 1, bids=[("99.9", "4")])], "btcusdt_20240807")

    parsed = read(folder([snapshot(20), depth(20, 21, NOON_MS + 1, bids=[("99.5", "4")])]), "book")

    assert [row[0] for row in best(parsed)] == [20, 21]
    assert parsed.facts == {"sequence_breaks": "0"}


def test_break_of_the_date_before_is_not_counted_again(folder):
    folder(
        [snapshot(10, MIDNIGHT_MS - 9), depth(11, 12, MIDNIGHT_MS - 5), snapshot(12, MIDNIGHT_MS - 3)],
        "btcusdt_20240807",
    )

    parsed = read(folder([depth(12, 13, bids=[("99.5", "4")])]), "book")

    assert [row[0] for row in best(parsed)] == [13]
    assert parsed.facts == {"sequence_breaks": "0"}


def test_rows_belong_to_the_date_of_the_venue_whatever_the_file(folder):
    midnight = MIDNIGHT_MS + DAY_MS
    folder([trade(1, NOON_MS), trade(2, midnight - 1), trade(3, midnight + 1)])
    root = folder([trade(4, midnight - 1), trade(5, midnight + 2)], "usdm_btcusdt_20240809.jsonl")

    first, second = read(root, "trades"), read(root, "trades", date=dt.date(2024, 8, 9))

    assert first.rows["trade_id"].to_list() == [1, 2, 4]
    assert second.rows["trade_id"].to_list() == [3, 5]
    assert first.quarantined.height == second.quarantined.height == 0


def test_next_date_is_read_no_further_than_needed(folder, monkeypatch):
    midnight = MIDNIGHT_MS + DAY_MS
    folder([trade(1)])
    following = [
        trade(2, midnight - 1),
        *(trade(n, midnight + n * 60_000) for n in range(3, 20)),
        trade(30, midnight - 1),
    ]
    root = folder(following, "usdm_btcusdt_20240809.jsonl")
    monkeypatch.setattr(frames, "_CHUNK_BYTES", 400)

    assert read(root, "trades").rows["trade_id"].to_list() == [1, 2]


def test_row_of_quite_another_date_is_quarantined(folder):
    stray = trade(2, NOON_MS + 3 * DAY_MS)

    parsed = read(folder([trade(1), stray]), "trades")

    assert broken(parsed) == [("ts_event|outside_date", "usdm_btcusdt_20240808.jsonl", 2, stray)]


def test_parts_follow_each_other_by_number(folder):
    for part in (1, 2, 10):
        root = folder(
            [trade(part, NOON_MS + part), trade(part + 100, NOON_MS + part)], f"btcusdt_20240808.part{part}.gz"
        )

    recording = frames.find(root, wanted("trades"))

    assert recording is not None
    assert [path.name for path in recording.own] == [f"btcusdt_20240808.part{part}.gz" for part in (1, 2, 10)]
    assert frames.read_day(recording, wanted("trades")).rows.height == 6


@pytest.mark.parametrize(
    "name",
    ["btcusdt_20240808.gz", "BTCUSDT_20240808.jsonl", "usdm_btcusdt_20240808", "usdm_btcusdt_20240808.part3.jsonl.gz"],
)
def test_files_are_known_by_symbol_and_date(folder, name):
    assert read(folder([trade(1)], name), "trades").rows.height == 1


@pytest.mark.parametrize(
    "name", ["spot_btcusdt_20240808.gz", "btcusdt_20240807.gz", "xbtcusdt_20240808.gz", "btcusdt_20240808.csv"]
)
def test_another_day_is_absent(folder, name):
    assert frames.find(folder([trade(1)], name), wanted("trades")) is None


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ("", "frame|format"),
        ("hello", "frame|format"),
        ("172307520 {}", "frame|format"),
        (trade(2).replace(" ", ""), "frame|format"),
        (trade(2).replace("btcusdt@", "ethusdt@"), "frame|stream"),
        (f"{NOON_MS * 1_000_000} " + '{"result":null,"id":1}', "frame|stream"),
        (trade(2)[:-1], "frame|json"),
        (trade(2) + ',{"data":{}}', "frame|json"),
        (trade(2, t="seven"), "frame|json"),
        (trade(2, price="much"), "price|nullability"),
        (trade(2, price="0"), "price|min_exclusive"),
        (trade(2, size="-1"), "size|min_exclusive"),
        (trade(2, T=None, E=None), "ts_event|nullability"),
        (trade(2, m=None), "aggressor|nullability"),
        (trade(1), "trade_id|duplicate"),
    ],
)
def test_bad_line_of_the_tape_is_quarantined(folder, wrong, rule):
    parsed = read(folder([trade(1), wrong, trade(3)]), "trades")

    assert broken(parsed) == [(rule, "usdm_btcusdt_20240808.jsonl", 2, wrong)]
    assert parsed.rows["trade_id"].to_list() == [1, 3]


@pytest.mark.parametrize(
    ("levels", "rule"),
    [
        ({"bids": [("99.5",)]}, "frame|levels"),
        ({"bids": [("99.5", "x")]}, "frame|levels"),
        ({"asks": [("0", "1")]}, "frame|levels"),
        ({"asks": [("101", "-1")]}, "frame|levels"),
        ({"asks": [("101", "NaN")]}, "frame|levels"),
        ({"b": None}, "frame|levels"),
        ({"u": None}, "frame|levels"),
        ({"T": None, "E": None}, "frame|levels"),
        ({"b": {}}, "frame|json"),
    ],
)
def test_bad_diff_is_quarantined_and_breaks_the_sequence(folder, levels, rule):
    wrong = depth(10, 12, NOON_MS + 1, **levels)

    parsed = read(folder([snapshot(10), wrong, depth(12, 13, NOON_MS + 2, bids=[("99.5", "4")])]), "book")

    assert broken(parsed) == [(rule, "usdm_btcusdt_20240808.jsonl", 2, wrong)]
    assert best(parsed) == [(10, 100.0, 1.0, 101.0, 3.0), (13, None, None, None, None)]
    assert parsed.facts == {"sequence_breaks": "1"}


def test_bad_line_of_a_neighbour_is_reported_on_its_own_date(folder):
    near_ms = MIDNIGHT_MS - 1
    wrong = ["hello", trade(5, near_ms)[:-1], trade(6, near_ms, price="0"), trade(7, near_ms, T=NOON_MS - 3 * DAY_MS)]
    folder(wrong, "usdm_btcusdt_20240807.jsonl")
    early = [broken(read(folder([trade(1)]), "trades", date=DATE - dt.timedelta(days=n))) for n in (0, 1)]

    assert early[0] == []
    assert [row[2] for row in early[1]] == [1, 2, 3, 4]


def test_one_bad_line_among_many_is_found(folder):
    lines = [trade(n, NOON_MS + n) for n in range(1_000)]
    lines[613] = lines[613].replace('"m":false}', '"m":fal}')

    parsed = read(folder(lines), "trades")

    assert [row[0:3] for row in broken(parsed)] == [("frame|json", "usdm_btcusdt_20240808.jsonl", 614)]
    assert parsed.rows["trade_id"].to_list() == [n for n in range(1_000) if n != 613]


def test_line_that_was_not_finished_is_quarantined(folder):
    last = trade(2)[:-20]

    parsed = read(folder([trade(1), last], end=""), "trades")

    assert broken(parsed) == [("frame|json", "usdm_btcusdt_20240808.jsonl", 2, last)]


def test_ids_out_of_order_are_counted(folder):
    parsed = read(folder([trade(3, NOON_MS + 3), trade(1, NOON_MS + 1)]), "trades")

    assert parsed.rows["trade_id"].to_list() == [1, 3]
    assert parsed.facts["out_of_order"] == "1"


@pytest.mark.parametrize("table", ["trades", "quotes", "book"])
@pytest.mark.parametrize("venue", ["binance_usdm", "binance_spot"])
def test_empty_file_has_no_rows(folder, table, venue):
    assert read(folder([], "btcusdt_20240808", end=""), table, venue=venue).rows.height == 0


def test_file_that_was_cut_off_is_refused_by_name(folder):
    root = folder([trade(n) for n in range(100)], "usdm_btcusdt_20240808.jsonl.gz")
    path = root / "usdm_btcusdt_20240808.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-30])

    with pytest.raises(RecordedError, match=r"usdm_btcusdt_20240808\.jsonl\.gz cannot be read: .*`zcat usdm_btcusdt"):
        read(root, "trades")


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(RecordedError, match="There is no folder"):
        frames.find(tmp_path / "nowhere", wanted("trades"))


def test_file_that_is_gone_is_told(folder):
    recording = frames.find(folder([trade(1)]), wanted("trades"))
    assert recording is not None
    recording.own[0].unlink()

    with pytest.raises(RecordedError, match=r"usdm_btcusdt_20240808\.jsonl cannot be read: No such file"):
        recording.fingerprint()


def test_fingerprint_is_of_names_and_contents(folder):
    def fingerprint():
        recording = frames.find(root, wanted("trades"))
        assert recording is not None
        return recording.fingerprint()

    root = folder([trade(1)])
    before = fingerprint()
    assert fingerprint() == before

    folder([trade(1)], "usdm_btcusdt_20240809.jsonl")  # the next date's file holds the end of this date
    with_neighbour = fingerprint()
    folder([trade(2)])

    assert len({before, with_neighbour, fingerprint()}) == 3
