"""Lines folded step by step: what was captured once stays so, and what cannot be dated yet waits."""

import datetime as dt
import gzip
import json
import pickle

import polars as pl
import pytest

from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.market import Gap, Trade
from quant_platform.feeds import frames
from quant_platform.feeds.recorded import RecordedError, Wanted

NOON_MS = 1_723_118_400_000  # date -u -d "2024-08-08 12:00" +%s000
NOON_NS = NOON_MS * 1_000_000
DATE = dt.date(2024, 8, 8)


def line(payload, received_ns=NOON_NS):
    return f"{received_ns} {json.dumps(payload, separators=(',', ':'))}"


def stream(kind, data, **more):
    return {"stream": f"btcusdt@{kind}", "data": data, **more}


def trade(ident, *, price="100.5", size="0.5", time=NOON_MS, refill=False):
    data = {"T": time, "t": ident, "p": price, "q": size, "m": False}
    return line(stream("trade", data, refill=True) if refill else stream("trade", data | {"e": "trade", "E": time}))


def aggregate(first, last, *, size="7", refill=True):
    data = {"a": 5_933_014, "p": "100.5", "q": size, "f": first, "l": last, "T": NOON_MS, "m": True}
    return line(
        stream("aggTrade", data, refill=True) if refill else stream("aggTrade", data | {"e": "aggTrade", "E": NOON_MS})
    )


def ticker(update, *, received_ns=NOON_NS, **times):
    data = {"u": update, "s": "BTCUSDT", "b": "100.0", "B": "1", "a": "101.0", "A": "1"}
    return line(stream("bookTicker", data | times), received_ns)


def gap(first, last, filled_by, *, received_ns=NOON_NS):
    data = {"first_id": first, "last_id": last, "ts_start": NOON_NS - 9, "ts_end": NOON_NS - 1, "filled_by": filled_by}
    return line(stream("gap", data), received_ns)


def wanted(table, venue="binance_usdm"):
    return Wanted(table=f"market/{table}", symbol="BTC", venue_symbol="BTCUSDT", date=DATE, venue=venue)


def folded(table, *steps, venue="binance_usdm"):
    """Return what each step gives; the state goes through pickle, as it does between runs."""
    state, found, place = frames.initial(), [], 1
    for texts in steps:
        lines = pl.DataFrame({"place": range(place, place + len(texts)), "text": pl.Series(texts, dtype=pl.String)})
        state, rows = frames.step(pickle.loads(pickle.dumps(state)), lines, wanted(table, venue))
        found.append(rows)
        place += len(texts)
    return found


def ids(found):
    return found.rows.select("first_trade_id", "last_trade_id", "size").rows()


def broken(found):
    return found.broken.select("place", "rule").rows()


def test_an_aggregate_is_a_row_with_its_ids():
    (found,) = folded("trades", [aggregate(70, 72, refill=False)])

    assert found.rows.schema == polars_schema(Trade)
    assert found.rows.drop("ts_event", "ts_recv").rows() == [("BTC", "binance_usdm", 70, 70, 72, 100.5, 7.0, -1)]
    assert found.rows["ts_event"].dt.epoch("ms").to_list() == [NOON_MS]


def test_refilled_trades_are_rows_like_the_others():
    (found,) = folded("trades", [trade(1), trade(4), trade(2, refill=True), aggregate(3, 3)])

    assert ids(found) == [(1, 1, 0.5), (2, 2, 0.5), (3, 3, 7.0), (4, 4, 0.5)]
    assert found.out_of_order == 2
    assert broken(found) == []


def test_a_refilled_aggregate_is_cut_to_the_ids_that_are_missing_and_loses_its_size():
    found = folded("trades", [trade(1), trade(2), trade(5)], [aggregate(2, 4), trade(6)])

    assert ids(found[1]) == [(3, 4, None), (6, 6, 0.5)]
    assert found[1].rows["trade_id"].to_list() == [3, 6]
    assert broken(found[1]) == []
    validated(Trade, found[1].rows)


def test_an_aggregate_around_captured_ids_becomes_a_row_a_hole():
    (found,) = folded("trades", [trade(3), trade(4), trade(7), aggregate(1, 9)])

    assert ids(found) == [(1, 2, None), (3, 3, 0.5), (4, 4, 0.5), (5, 6, None), (7, 7, 0.5), (8, 9, None)]


@pytest.mark.parametrize("again", [trade(5), trade(5, refill=True), aggregate(5, 5), aggregate(4, 6)])
@pytest.mark.parametrize("is_cut", [True, False])
def test_what_is_captured_already_is_a_duplicate_in_the_same_step_and_in_a_later_one(again, is_cut):
    first = [trade(n) for n in (4, 5, 6)]
    found = folded("trades", first, [again]) if is_cut else folded("trades", [*first, again])

    assert sum(part.rows.height for part in found) == 3
    assert broken(found[-1]) == [(4, "trade_id|duplicate")]
    assert found[-1].broken["text"].to_list() == [again]


def test_of_the_same_aggregate_twice_the_first_counts():
    (found,) = folded("trades", [aggregate(1, 4, size="9"), trade(2), aggregate(1, 4), aggregate(3, 6)])

    assert ids(found) == [(1, 4, 9.0), (5, 6, None)]
    assert broken(found) == [(2, "trade_id|duplicate"), (3, "trade_id|duplicate")]


def test_a_trade_that_broke_a_rule_is_not_captured_so_a_refill_gives_it():
    found = folded("trades", [trade(1), trade(2, price="0"), trade(3)], [trade(2, refill=True)])

    assert broken(found[0]) == [(2, "price|min_exclusive")]
    assert ids(found[1]) == [(2, 2, 0.5)]


@pytest.mark.parametrize("wrong", [trade(1, size=None), trade(1, size="much"), aggregate(1, 2, size=None)])
def test_a_trade_without_a_size_is_broken(wrong):
    (found,) = folded("trades", [wrong])

    assert broken(found) == [(1, "size|nullability")]
    assert found.rows.height == 0


@pytest.mark.parametrize("time", [-1, 10**13, 10**16, 10**18])
def test_a_time_that_cannot_be_is_no_time(time):
    (found,) = folded("trades", [trade(1, time=time)])

    assert broken(found) == [(1, "ts_event|nullability")]


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ('9223372036854775808 {"stream":"btcusdt@trade","data":{}}', "frame|format"),
        (f'{NOON_NS} {{"stream":"btcusdt@tra', "frame|stream"),
        (f'{NOON_NS} {{"stream":"btcusdt@trade', "frame|stream"),
        (f'{NOON_NS} {{"stream":"btcusdt@trade"', "frame|json"),
        (f'{NOON_NS} {{"stream":"btcusdt@trade","data":' + "[" * 50_000, "frame|json"),
    ],
)
def test_a_line_that_ends_early_or_is_absurd_is_broken(wrong, rule):
    (found,) = folded("trades", [trade(1), wrong, trade(2)])

    assert broken(found) == [(2, rule)]
    assert found.rows["trade_id"].to_list() == [1, 2]


def test_a_step_gives_rows_of_all_dates_in_order():
    (found,) = folded("trades", [trade(2, time=NOON_MS + 86_400_000), trade(1)])

    assert found.rows["trade_id"].to_list() == [1, 2]
    assert found.rows["ts_event"].dt.date().to_list() == [DATE, DATE + dt.timedelta(days=1)]


def test_a_quote_is_there_once_by_its_update():
    found = folded(
        "quotes", [ticker(5, T=NOON_MS), ticker(5, T=NOON_MS), ticker(7, T=NOON_MS)], [ticker(6, T=NOON_MS), ticker(8)]
    )

    assert [part.rows["sequence"].to_list() for part in found] == [[5, 7], []]
    assert broken(found[0]) == [(2, "sequence|duplicate")]
    assert broken(found[1]) == [(4, "sequence|duplicate"), (5, "ts_event|nullability")]


def test_spot_quotes_wait_for_the_first_message_with_a_time():
    at = [NOON_NS + n for n in range(5)]
    timed = line(stream("depth@100ms", {"E": NOON_MS + 40, "U": 1, "u": 1, "b": [], "a": []}), at[3])
    found = folded(
        "quotes",
        [ticker(1, received_ns=at[0]), "hello"],
        [ticker(2, received_ns=at[2]), timed, ticker(3, received_ns=at[4])],
        venue="binance_spot",
    )

    ahead = 40_000_000 - 3  # of the timed message: the estimate of all
    assert [part.rows.height for part in found] == [0, 3]
    assert found[1].rows["ts_event"].dt.timestamp("ns").to_list() == [at[n] + ahead for n in (0, 2, 4)]
    assert found[1].rows["is_ts_event_assumed"].all()
    assert broken(found[0]) == [(2, "frame|format")]


def test_a_line_that_waited_is_named_by_its_own_place_and_text():
    timed = line(stream("trade", {"E": NOON_MS, "T": NOON_MS, "t": 1, "p": "1", "q": "1", "m": True}))
    waited = [ticker(5), ticker(4)]

    found = folded("quotes", waited, [timed], venue="binance_spot")

    assert found[1].broken.select("place", "rule", "text").rows() == [(2, "sequence|duplicate", waited[1])]


def test_a_spot_book_that_cannot_be_dated_yet_keeps_its_order():
    answer = line({"lastUpdateId": 10, "bids": [["99", "1"]], "asks": [["101", "1"]]})
    diff = line(stream("depth@100ms", {"E": NOON_MS + 1, "U": 11, "u": 12, "b": [["100", "2"]], "a": []}))

    found = folded("book", [answer], [diff], venue="binance_spot")

    assert found[0].rows.height == 0
    assert found[1].rows.select("sequence", "bid_price_1").rows() == [(10, 99.0), (12, 100.0)]


def test_a_book_goes_on_in_the_next_step():
    answer = line({"lastUpdateId": 10, "T": NOON_MS, "bids": [["99", "1"]], "asks": [["101", "1"]]})
    diff = line(
        stream("depth@100ms", {"T": NOON_MS + 1, "U": 11, "u": 12, "pu": 10, "b": [["100", "2"]], "a": [["101", "0"]]})
    )

    found = folded("book", [answer], [diff])

    best = found[1].rows.select("sequence", "bid_price_1", "bid_size_1", "bid_price_2", "ask_price_1").rows()
    assert best == [(12, 100.0, 2.0, 99.0, None)]


def test_gaps_are_the_fates_that_were_landed():
    (found,) = folded("gaps", [gap(9, 12, None), trade(13), gap(3, 3, "aggTrades", received_ns=NOON_NS + 7)])

    assert found.rows.schema == polars_schema(Gap)
    assert found.rows.select("symbol", "first_id", "last_id", "missing", "status", "filled_by").rows() == [
        ("BTC", 3, 3, 1, "filled", "aggTrades"),
        ("BTC", 9, 12, 4, "open", None),
    ]
    times = found.rows.select(pl.col("ts_start", "ts_end", "ts_known").dt.timestamp("ns")).rows()
    assert times == [(NOON_NS - 9, NOON_NS - 1, NOON_NS + 7), (NOON_NS - 9, NOON_NS - 1, NOON_NS)]


def test_a_gap_that_lacks_an_id_is_broken():
    (found,) = folded("gaps", [gap(None, 12, None)])

    assert broken(found) == [(1, "first_id|nullability,missing|nullability")]


def test_lines_of_a_segment_have_places_in_chunks(tmp_path, monkeypatch):
    content = b"1 {}\n\nb\xc3\xa4r\r\n\xff\x00\xe2\x82\nlast\n"
    path = tmp_path / "00000001.frames"
    path.write_bytes(content)
    monkeypatch.setattr(frames, "_CHUNK_BYTES", 7)

    chunks = list(frames.lines_of(path, first_place=1_000))

    assert len(chunks) > 2
    expected = content.decode(errors="replace").split("\n")[:-1]
    assert pl.concat(chunks).rows() == [(1_001 + n, text) for n, text in enumerate(expected)]


def test_a_last_line_without_its_end_is_read_too(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x\ny"))

    assert pl.concat(frames.lines_of(path)).rows() == [(1, "x"), (2, "y")]


def test_a_segment_that_is_gone_is_told(tmp_path):
    with pytest.raises(RecordedError, match=r"00000007\.frames cannot be read: .*No such file"):
        next(frames.lines_of(tmp_path / "00000007.frames"))
