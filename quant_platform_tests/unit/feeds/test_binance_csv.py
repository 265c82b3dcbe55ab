"""Every dialect of the archive's CSV, and every way in which a file of it can be wrong."""

import datetime as dt

import polars as pl
import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Quote, Trade
from quant_platform.feeds.binance_archive import ArchiveError
from quant_platform.feeds.binance_csv import read_day, read_klines

DATE = dt.date(2024, 8, 8)
MIDNIGHT_MS = 1_723_075_200_000  # date -u -d 2024-08-08 +%s000
HEADER = "id,price,qty,quote_qty,time,is_buyer_maker"
AGAIN = (
    "Nothing was loaded. Delete the file from landing so that it is fetched again; if it comes back the same, the "
    "publisher's file is at fault."
)
ZIP = "BTCUSDT-trades-2024-08-08.zip"


def trade(ident, *, price="10.5", size="2", time=None, maker="true", tail=""):
    time = MIDNIGHT_MS + ident if time is None else time
    return f"{ident},{price},{size},21.0,{time},{maker}{tail}"


def csv(*lines):
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture
def read(archive_day, instrument):
    def read_text(text, *, kind="trades"):
        return read_day(archive_day(text, kind=kind), instrument, DATE)

    return read_text


def broken(parsed):
    return parsed.quarantined.select("rule", "source_line", "raw").rows()


def test_read_day_of_trades_is_the_contract(read):
    parsed = read(csv(HEADER, trade(1, maker="true"), trade(2, price="11", maker="false")))

    assert parsed.rows.schema == polars_schema(Trade)
    assert parsed.rows.rows(named=True) == [
        {
            "ts_event": dt.datetime(2024, 8, 8, 0, 0, 0, 1000 * i, tzinfo=dt.UTC),
            "ts_recv": None,
            "symbol": "BTC.PERP",
            "venue": "binance_usdm",
            "trade_id": i,
            "first_trade_id": i,
            "last_trade_id": i,
            "price": price,
            "size": 2.0,
            "aggressor": aggressor,
        }
        for i, price, aggressor in [(1, 10.5, -1), (2, 11.0, 1)]
    ]
    assert (parsed.tape, parsed.out_of_order, parsed.time_unit) == ("trades", 0, "ms")
    assert parsed.quarantined.schema == {
        "rule": pl.String,
        "source_file": pl.String,
        "source_line": pl.Int64,
        "raw": pl.String,
    }
    assert parsed.quarantined.height == 0


@pytest.mark.parametrize(
    "text",
    [
        csv(trade(1), trade(2)),
        csv(HEADER, trade(1), trade(2)),
        csv(trade(1, maker="True", tail=",True"), trade(2, maker="True", tail=",True")),
        csv(HEADER + ",is_best_match", trade(1, tail=",true"), trade(2, tail=",true")),
        csv(trade(1), trade(2)).replace("\n", "\r\n"),
        csv(HEADER, trade(1), trade(2)).removesuffix("\n"),
        csv(*(trade(i, time=(MIDNIGHT_MS + i) * 1000) for i in (1, 2))),
    ],
    ids=["bare", "header", "spot", "spot-header", "crlf", "no-last-newline", "us"],
)
def test_read_day_understands_every_dialect(read, text):
    parsed = read(text)

    assert parsed.rows.equals(read(csv(trade(1), trade(2))).rows)
    assert parsed.quarantined.height == 0


def test_read_day_keeps_microseconds(read):
    parsed = read(csv(trade(1, time=MIDNIGHT_MS * 1000 + 123_456)))

    assert parsed.time_unit == "us"
    assert parsed.rows["ts_event"].dt.timestamp("ns").to_list() == [MIDNIGHT_MS * 1_000_000 + 123_456_000]


@pytest.mark.parametrize("tail", ["", ",True"])
def test_read_day_of_aggregates_takes_the_first_id(read, tail):
    parsed = read(
        csv(
            f"900,10.5,2,101,103,{MIDNIGHT_MS},true{tail}",
            f"901,10.6,1,104,104,{MIDNIGHT_MS + 5},false{tail}",
        ),
        kind="aggTrades",
    )

    assert parsed.tape == "aggTrades"
    assert parsed.rows.select("trade_id", "first_trade_id", "last_trade_id", "size", "aggressor").rows() == [
        (101, 101, 103, 2.0, -1),
        (104, 104, 104, 1.0, 1),
    ]


def test_read_day_of_an_aggregate_that_runs_backward_is_quarantined(read):
    line = f"900,10.5,2,103,101,{MIDNIGHT_MS},true"

    assert broken(read(csv(line), kind="aggTrades")) == [("ids_in_order", 1, line)]


def quote(ident, *, bid="10,1", ask="11,2", time=None):
    time = MIDNIGHT_MS + ident if time is None else time
    return f"{ident},{bid},{ask},{time},{MIDNIGHT_MS + ident + 7}"


def test_read_day_of_quotes_is_the_contract(read):
    parsed = read(
        csv(
            "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time",
            quote(1),
            quote(2, bid="0,0"),
            quote(3, ask="0.0,0.0"),
        ),
        kind="bookTicker",
    )

    assert parsed.tape is None
    assert parsed.rows.schema == polars_schema(Quote)
    assert parsed.rows.select("bid_price", "bid_size", "ask_price", "ask_size", "sequence").rows() == [
        (10.0, 1.0, 11.0, 2.0, 1),
        (None, None, 11.0, 2.0, 2),
        (10.0, 1.0, None, None, 3),
    ]
    assert parsed.rows["ts_event"].dt.epoch("ms").to_list() == [MIDNIGHT_MS + i for i in (1, 2, 3)]
    assert parsed.rows["ts_recv"].null_count() == 3


def test_read_day_of_quotes_quarantines_what_is_no_side(read):
    lines = [quote(1), quote(2, bid="0,5"), quote(3, ask=",2"), quote(4, ask="11,-2"), quote(1)]

    parsed = read(csv(*lines), kind="bookTicker")

    assert parsed.rows["sequence"].to_list() == [1]
    assert broken(parsed) == [
        ("bid_price|min_exclusive", 2, lines[1]),
        ("ask_price|nullability", 3, lines[2]),
        ("ask_size|min", 4, lines[3]),
        ("sequence|duplicate", 5, lines[4]),
    ]
    assert parsed.out_of_order == 1


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (trade(2, price=""), "price|nullability"),
        (trade(2, price="null"), "price|numeric"),
        (trade(2, price="ten"), "price|numeric"),
        (trade(2, price="-1"), "price|min_exclusive"),
        (trade(2, price="0"), "price|min_exclusive"),
        (trade(2, price="NaN"), "price|nan"),
        (trade(2, price="inf"), "price|inf"),
        (trade(2, size=""), "size|nullability"),
        (trade(2, size="x"), "size|numeric"),
        (trade(2, size="0.0"), "size|min_exclusive"),
        (trade(2, price="x", size="y"), "price|numeric,size|numeric"),
        (trade(2, price="-1", size="0"), "price|min_exclusive,size|min_exclusive"),
        (trade(2, maker="maybe"), "aggressor|boolean"),
        (trade(2, maker=""), "aggressor|nullability"),
        (trade(2, time="soon"), "ts_event|integer"),
        (trade(2, time=MIDNIGHT_MS - 1), "ts_event|outside_date"),
        (trade(2, time=MIDNIGHT_MS + 86_400_000), "ts_event|outside_date"),
        (trade(2, time=MIDNIGHT_MS * 1000), "ts_event|outside_date"),
        (trade(1, price="99"), "trade_id|duplicate"),
        (trade(-2, time=MIDNIGHT_MS), "trade_id|min,first_trade_id|min,last_trade_id|min"),
        ("2.5" + trade(2)[1:], "trade_id|integer"),
        (trade(2) + ",true,true", "row|columns"),
        ("2,10.5", "row|columns"),
        ("", "row|columns"),
        ("\ufffd\x00binary,\x01", "row|columns"),
        (trade(2) + '"', "aggressor|boolean"),
    ],
)
def test_read_day_quarantines_a_bad_row_and_keeps_the_others(read, line, rule):
    parsed = read(csv(HEADER, trade(1), line, trade(3)))

    assert parsed.rows["trade_id"].to_list() == [1, 3]
    assert parsed.rows["price"].to_list() == [10.5, 10.5]
    assert parsed.quarantined.rows() == [(rule, ZIP, 3, line)]


def test_read_day_takes_the_first_good_row_of_an_id(read):
    lines = [trade(1, price="-1"), trade(1, price="7"), trade(1, price="8"), trade(2)]

    parsed = read(csv(*lines))

    assert parsed.rows["price"].to_list() == [7.0, 10.5]
    assert broken(parsed) == [
        ("price|min_exclusive", 1, lines[0]),
        ("trade_id|duplicate", 3, lines[2]),
    ]


def test_read_day_finds_a_duplicate_that_is_not_next_to_its_first(read):
    lines = [trade(1), trade(2), trade(3), trade(1, price="99")]

    parsed = read(csv(*lines))

    assert parsed.rows["trade_id"].to_list() == [1, 2, 3]
    assert broken(parsed) == [("trade_id|duplicate", 4, lines[3])]


def test_read_day_reports_bad_rows_of_all_kinds_by_line(read):
    lines = [
        trade(1),
        trade(2, price="x"),
        trade(1),
        trade(4, size="-3"),
        trade(5, time=1),
        trade(6),
        trade(7),
        "8,1",
    ]

    parsed = read(csv(HEADER, *lines))

    assert parsed.rows["trade_id"].to_list() == [1, 6, 7]
    assert broken(parsed) == [
        ("price|numeric", 3, lines[1]),
        ("trade_id|duplicate", 4, lines[2]),
        ("size|min_exclusive", 5, lines[3]),
        ("ts_event|outside_date", 6, lines[4]),
        ("row|columns", 9, lines[7]),
    ]


def test_read_day_sorts_rows_and_counts_those_out_of_order(read):
    same = MIDNIGHT_MS + 50
    parsed = read(csv(trade(5, time=same), trade(4, time=same), trade(1), trade(7, time=MIDNIGHT_MS), trade(8)))

    assert parsed.rows["trade_id"].to_list() == [7, 1, 8, 4, 5]
    assert parsed.out_of_order == 2
    assert parsed.quarantined.height == 0


def test_read_day_sorts_by_time_where_only_the_clock_goes_back(read):
    parsed = read(csv(trade(1, time=MIDNIGHT_MS + 9), trade(2, time=MIDNIGHT_MS + 3)))

    assert parsed.rows["trade_id"].to_list() == [2, 1]
    assert parsed.out_of_order == 0


@pytest.mark.parametrize("kept", range(1, len(trade(3)) - 1))
def test_read_day_of_a_file_cut_anywhere_in_its_last_line_keeps_the_rest(read, kept):
    text = csv(HEADER, trade(1), trade(2)) + trade(3)[:kept]

    parsed = read(text)

    assert parsed.rows["trade_id"].to_list() == [1, 2]
    assert parsed.quarantined.rows() == [("row|truncated", ZIP, 4, trade(3)[:kept])]


def test_read_day_of_quotes_cut_inside_the_last_time_keeps_the_rest(read):
    parsed = read(csv(quote(1)) + quote(2)[:-3], kind="bookTicker")

    assert parsed.rows["sequence"].to_list() == [1]
    assert broken(parsed) == [("row|truncated", 2, quote(2)[:-3])]


@pytest.mark.parametrize("text", ["", csv(HEADER), HEADER])
def test_read_day_of_an_empty_day_is_no_rows(read, text):
    parsed = read(text)

    assert parsed.rows.schema == polars_schema(Trade)
    assert (parsed.rows.height, parsed.quarantined.height, parsed.out_of_order) == (0, 0, 0)


def refused(read_anything):
    with pytest.raises(ArchiveError) as raised:
        read_anything()
    return str(raised.value)


def test_read_day_of_another_day_is_refused(read):
    other = MIDNIGHT_MS + 2 * 86_400_000
    text = csv(HEADER, trade(1), *(trade(i, time=other + i) for i in range(2, 4)))

    assert refused(lambda: read(text)) == (
        f"{ZIP}, line 3: time {other + 2} read in ms is 2024-08-10 00:00:00.002000, and 2 of 3 rows do not fall on "
        f"2024-08-08 (UTC). The file is of another day, or its times are in another unit. {AGAIN}"
    )


@pytest.mark.parametrize(
    ("factor", "reading"),
    [
        (1_000_000, "us is no date at all"),  # ns
        (0.001, "ms is 1970-01-20 22:37:55.200000"),  # s: 1,723,075,200 ms are 19 days 22:37:55.2
    ],
)
def test_read_day_in_another_unit_is_refused(read, factor, reading):
    time = int(MIDNIGHT_MS * factor)

    assert refused(lambda: read(csv(trade(1, time=time)))) == (
        f"{ZIP}, line 1: time {time} read in {reading}, and 1 of 1 rows do not fall on 2024-08-08 (UTC). "
        f"The file is of another day, or its times are in another unit. {AGAIN}"
    )


def test_read_day_that_is_half_another_day_keeps_its_own_half(read):
    parsed = read(csv(trade(1), trade(2, time=MIDNIGHT_MS - 5)))

    assert parsed.rows["trade_id"].to_list() == [1]
    assert broken(parsed)[0][:2] == ("ts_event|outside_date", 2)


def test_read_day_with_an_unknown_number_of_columns_is_refused(read):
    line = trade(1) + ",true,new"

    assert refused(lambda: read(csv(line))) == (
        f"{ZIP}, line 1 has 8 columns, and a trades file has 6 or 7 (id, price, qty, quote_qty, time, "
        f"is_buyer_maker, is_best_match): '{line}'. Nothing was loaded. The publisher changed the format, or the file "
        "is another kind."
    )


def test_read_day_with_a_renamed_column_is_refused(read):
    text = csv(HEADER.replace("time", "timestamp"), trade(1))

    assert refused(lambda: read(text)) == (
        f"{ZIP}, line 1: column 5 is called 'timestamp', and 'time' is expected there (columns of a trades file: id, "
        "price, qty, quote_qty, time, is_buyer_maker, is_best_match). Nothing was loaded. The publisher changed the "
        "format, or the file is another kind."
    )


def test_read_day_with_exchanged_columns_is_refused(read):
    text = csv("id,qty,price,quote_qty,time,is_buyer_maker", trade(1))

    assert refused(lambda: read(text)).startswith(
        f"{ZIP}, line 1: column 2 is called 'qty', and 'price' is expected there"
    )


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"a.csv": "", "b.csv": ""}, "a.csv, b.csv"),
        ({"ETHUSDT-trades-2024-08-08.csv": ""}, "ETHUSDT-trades-2024-08-08.csv"),
    ],
)
def test_read_day_of_a_zip_with_other_members_names_them(archive_day, instrument, members, found):
    day = archive_day(members=members)

    assert refused(lambda: read_day(day, instrument, DATE)) == (
        f"{ZIP} must hold one file, BTCUSDT-trades-2024-08-08.csv, and holds {found}. Which one is the day cannot be "
        f"told. {AGAIN}"
    )


def test_read_day_of_an_empty_zip_says_so(archive_day, instrument):
    day = archive_day()
    day.fetched.path.write_bytes(b"PK\x05\x06" + bytes(18))

    assert "and holds no file at all." in refused(lambda: read_day(day, instrument, DATE))


def damage(data, what):
    start = 30 + len("BTCUSDT-trades-2024-08-08.csv")  # the local header ends, the deflated stream begins
    if what == "stream":
        return data[: start + 5] + bytes(40) + data[start + 45 :]
    if what == "crc":
        directory = data.rfind(b"PK\x01\x02")
        return data[: directory + 16] + bytes(4) + data[directory + 20 :]
    if what == "local header":
        return b"XX" + data[2:]
    return {"cut": data[: len(data) // 2], "no zip": b"<html>", "empty": b""}[what]


@pytest.mark.parametrize("what", ["stream", "crc", "local header", "cut", "no zip", "empty"])
def test_read_day_of_a_damaged_zip_says_what_to_do(archive_day, instrument, what):
    day = archive_day(csv(HEADER, *(trade(i * 7919 % 1000 + 1000 * i) for i in range(500))))
    path = day.fetched.path
    path.write_bytes(damage(path.read_bytes(), what))

    message = refused(lambda: read_day(day, instrument, DATE))

    assert message.startswith(f"{ZIP} cannot be unzipped: ")
    assert message.endswith(f". {AGAIN}")


KLINE = "{t},10,12,9,11,5.5,{e},55,{n},2.5,25,0"


@pytest.mark.parametrize("scale", [1, 1000])
def test_read_klines_returns_the_publishers_bars(archive_day, scale):
    lines = [
        KLINE.format(t=(MIDNIGHT_MS + 60_000 * i) * scale, e=(MIDNIGHT_MS + 60_000 * i + 59_999) * scale, n=i)
        for i in (0, 1)
    ]
    header = (
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
        "taker_buy_quote_volume,ignore"
    )

    for text in (csv(*lines), csv(header, *lines)):
        bars = read_klines(archive_day(text, kind="klines").fetched.path)

        assert bars.rows() == [
            (dt.datetime(2024, 8, 8, 0, i, tzinfo=dt.UTC), 10.0, 12.0, 9.0, 11.0, 5.5, i, 2.5) for i in (0, 1)
        ]
        assert bars.columns == [
            "ts_open",
            "open",
            "high",
            "low",
            "close",
            "volume",
            "trade_count",
            "taker_buy_volume",
        ]


def test_read_klines_with_a_bad_line_is_refused(archive_day):
    good, bad = KLINE.format(t=MIDNIGHT_MS, e=1, n=1), KLINE.format(t=MIDNIGHT_MS, e=1, n="x")
    path = archive_day(csv(good, bad), kind="klines").fetched.path

    assert refused(lambda: read_klines(path)) == (
        f"BTCUSDT-1m-2024-08-08.zip, line 2 breaks trade_count|integer: '{bad}'. {AGAIN}"
    )
