"""LOBSTER zips written by hand: what becomes a trade, a quote and a book, and every way in which a zip can be wrong."""

import datetime as dt
import zipfile

import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.feeds import lobster
from quant_platform.feeds.recorded import RecordedError, Wanted

DATE = dt.date(2012, 6, 21)
MIDNIGHT_NS = 1_340_251_200_000_000_000  # TZ=America/New_York date -d 2012-06-21 +%s
STEM = "AMZN_2012-06-21_34200000_57600000"
EMPTY_ASK, EMPTY_BID = "9999999999,0", "-9999999999,0"
MESSAGES = [
    "34200.017459617,5,0,1,2238200,-1",
    "34200.18960767,1,11885113,21,2238100,1",
    "34200.190226476,4,11885113,21,2238100,1",
    "34201.5,3,3911376,20,2239600,-1",
    "34202,7,0,0,-1,-1",
]
BOOKS = [
    "2239500,100,2231800,100",
    "2239500,100,2238100,21",
    "2239500,100,2231800,100",
    "2239500,100,2231800,100",
    "2239500,100,2231800,100",
]


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a day's zip: messages, books, levels; or its members as they shall stand in it."""

    def write(messages=MESSAGES, books=BOOKS, *, levels=1, stem=STEM, name="", members=None):
        path = tmp_path / (name or f"LOBSTER_SampleFile_AMZN_2012-06-21_{levels}.zip")
        texts = {f"{stem}_message_{levels}.csv": messages, f"{stem}_orderbook_{levels}.csv": books}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("ReadMe.txt", "hello")
            for member, lines in (texts if members is None else members).items():
                archive.writestr(member, "".join(f"{line}\r\n" for line in lines))
        return tmp_path

    return write


def wanted(table):
    return Wanted(table=f"market/{table}", symbol="AMZN.US", venue_symbol="AMZN", date=DATE)


def read(folder, table):
    recording = lobster.find(folder, wanted(table))
    assert recording is not None
    return lobster.read_day(recording, wanted(table))


def broken(parsed):
    return parsed.quarantined.select("rule", "source_file", "source_line", "raw").rows()


def test_trades_are_the_executions_with_the_side_of_the_aggressor(folder):
    parsed = read(folder(), "trades")

    assert parsed.rows.schema == polars_schema(Trade)
    assert parsed.rows["ts_event"].dt.timestamp("ns").to_list() == [
        MIDNIGHT_NS + 34_200_017_459_617,
        MIDNIGHT_NS + 34_200_190_226_476,
    ]
    assert parsed.rows.drop("ts_event").rows() == [
        (None, "AMZN.US", "NASDAQ", 1, 1, 1, 223.82, 1.0, 1),
        (None, "AMZN.US", "NASDAQ", 2, 2, 2, 223.81, 21.0, -1),
    ]
    assert parsed.facts == {"levels": "1", "out_of_order": "0", "tape": "trades"}
    assert parsed.quarantined.height == 0


def test_cross_is_a_trade_without_aggressor(folder):
    parsed = read(folder(["34200.1,6,-1,500,2238200,-1"], BOOKS[:1]), "trades")

    assert parsed.rows.select("price", "size", "aggressor").rows() == [(223.82, 500.0, 0)]


def test_executions_tell_what_the_tape_does_not(folder):
    (path,) = folder().glob("*.zip")

    assert lobster.executions(path).drop("ts_event").rows() == [
        (1, 223.82, 1.0, 1, True),
        (2, 223.81, 21.0, -1, False),
    ]


def test_quotes_are_the_changes_of_the_best_level(folder):
    parsed = read(folder(), "quotes")

    assert parsed.rows.schema == polars_schema(Quote)
    figures = ["bid_price", "bid_size", "ask_price", "ask_size", "sequence", "is_ts_event_assumed"]
    assert parsed.rows.select(figures).rows() == [
        (223.18, 100.0, 223.95, 100.0, 1, False),
        (223.81, 21.0, 223.95, 100.0, 2, False),
        (223.18, 100.0, 223.95, 100.0, 3, False),
    ]


def test_quote_of_an_empty_side_is_null_and_its_return_a_change(folder):
    books = [f"{EMPTY_ASK},{EMPTY_BID}", f"2239500,100,{EMPTY_BID}", f"2239500,100,{EMPTY_BID}"]

    parsed = read(folder(MESSAGES[:3], books), "quotes")

    assert parsed.rows.select("bid_price", "bid_size", "ask_price", "ask_size", "sequence").rows() == [
        (None, None, None, None, 1),
        (None, None, 223.95, 100.0, 2),
    ]


def test_book_has_five_levels_and_a_row_where_one_of_them_changed(folder):
    def state(*, fifth_bid=100, sixth_ask=100):
        levels = [(2239500 + 100 * i, 10 + i, 2231800 - 100 * i, 20 + i) for i in range(6)]
        levels[4] = (*levels[4][:3], fifth_bid)
        levels[5] = (levels[5][0], sixth_ask, *levels[5][2:])
        return ",".join(str(figure) for level in levels for figure in level)

    books = [state(), state(sixth_ask=1), state(fifth_bid=7), state(fifth_bid=7)]

    parsed = read(folder(MESSAGES[:4], books, levels=6), "book")

    assert parsed.rows.schema == polars_schema(Book)
    assert parsed.rows["sequence"].to_list() == [1, 3]
    first = parsed.rows.row(0, named=True)
    assert [first[f"ask_price_{n}"] for n in range(1, 6)] == [223.95, 223.96, 223.97, 223.98, 223.99]
    assert [first[f"ask_size_{n}"] for n in range(1, 6)] == [10, 11, 12, 13, 14]
    assert [first[f"bid_price_{n}"] for n in range(1, 6)] == [223.18, 223.17, 223.16, 223.15, 223.14]
    assert [first[f"bid_size_{n}"] for n in range(1, 6)] == [20, 21, 22, 23, 100]
    assert parsed.rows["bid_size_5"].to_list() == [100, 7]


def test_book_of_one_level_has_no_others(folder):
    parsed = read(folder(), "book")

    assert parsed.rows["ask_price_1"].to_list() == [223.95] * 3
    assert parsed.rows.select(f"{side}_{figure}_{n}" for side in ("bid", "ask") for figure in ("price", "size")
                              for n in range(2, 6)).null_count().row(0) == (3,) * 16  # fmt: skip


def test_the_zip_with_the_most_levels_is_taken(folder):
    folder(levels=1)
    folder(books=[f"{book},2239900,1,2231000,1" for book in BOOKS], levels=2)
    root = folder(
        books=[f"{book},2239900,1,2231000,1" for book in BOOKS], levels=10, name="other_MSFT_2012-06-21_10.zip"
    )

    recording = lobster.find(root, wanted("trades"))

    assert recording is not None
    assert [path.name for path in recording.files] == ["LOBSTER_SampleFile_AMZN_2012-06-21_2.zip"]


@pytest.mark.parametrize("name", ["AMZN_2012-06-21_34200000_57600000_10.zip", "amzn_2012-06-21_5.zip"])
def test_zips_are_known_by_symbol_and_date(folder, name):
    assert lobster.find(folder(name=name), wanted("trades")) is not None


@pytest.mark.parametrize(
    "name", ["XAMZN_2012-06-21_1.zip", "AMZN_2012-06-22_1.zip", "AMZN_2012-06-21_1.7z", "AMZN.zip"]
)
def test_another_day_is_absent(folder, name):
    assert lobster.find(folder(name=name), wanted("trades")) is None


@pytest.mark.parametrize(
    ("time", "ns"),
    [
        ("43002.632812672004", 43_002_632_812_672),  # a float's rest, as one of the recorded rows has it
        ("43002.632812671996", 43_002_632_812_672),
        ("34200.9999999996", 34_201_000_000_000),
        ("34200.", 34_200_000_000_000),
        ("0.000000001", 1),
    ],
)
def test_times_are_exact_to_the_nanosecond(folder, time, ns):
    parsed = read(folder([f"{time},5,0,1,2238200,-1"], BOOKS[:1]), "trades")

    assert parsed.rows["ts_event"].dt.timestamp("ns").to_list() == [MIDNIGHT_NS + ns]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("soon,4,1,1,2238200,1", "ts_event|numeric"),
        ("-34200.1,4,1,1,2238200,1", "ts_event|numeric"),
        ("3.42e4,4,1,1,2238200,1", "ts_event|numeric"),
        ("86400.0,4,1,1,2238200,1", "ts_event|outside_date"),
        ("34200.1,9,1,1,2238200,1", "type|is_in"),
        ("34200.1,x,1,1,2238200,1", "type|integer"),
        ("34200.1,4,1,1,2238200,2", "direction|is_in"),
        ("34200.1,4,1,1.5,2238200,1", "size|integer"),
        ("34200.1,4,1,,2238200,1", "size|nullability"),
        ("34200.1,4,1,1,2238200", "row|columns"),
        ("34200.1,4,1,0,2238200,1", "size|min_exclusive"),
        ("34200.1,4,1,1,-1,1", "price|min_exclusive"),
    ],
)
def test_bad_message_is_quarantined_with_its_line(folder, line, rule):
    root = folder([MESSAGES[0], line, MESSAGES[2]], BOOKS[:3])

    parsed = read(root, "trades")

    member = f"LOBSTER_SampleFile_AMZN_2012-06-21_1.zip/{STEM}_message_1.csv"
    assert broken(parsed) == [(rule, member, 2, line)]
    assert parsed.rows["price"].to_list() == [223.82, 223.81]


def test_bad_lines_of_both_files_are_kept_from_quotes(folder):
    root = folder(["x,1,1,1,1,1", *MESSAGES[1:]], [BOOKS[0], BOOKS[1], "2239500,100,,100", BOOKS[3], BOOKS[4]])

    parsed = read(root, "quotes")

    assert parsed.rows["sequence"].to_list() == [2, 4]
    name = "LOBSTER_SampleFile_AMZN_2012-06-21_1.zip/" + STEM
    assert broken(parsed) == [
        ("ts_event|numeric", f"{name}_message_1.csv", 1, "x,1,1,1,1,1"),
        ("bid_price_1|nullability", f"{name}_orderbook_1.csv", 3, "2239500,100,,100"),
    ]


def test_messages_out_of_order_are_sorted_and_counted(folder):
    parsed = read(folder([MESSAGES[2], MESSAGES[0]], BOOKS[:2]), "trades")

    assert parsed.rows["trade_id"].to_list() == [2, 1]
    assert parsed.facts["out_of_order"] == "1"


def test_day_without_messages_has_no_rows(folder):
    for table in ("trades", "quotes", "book"):
        assert read(folder([], []), table).rows.height == 0


def test_book_file_that_is_cut_is_told(folder):
    with pytest.raises(
        RecordedError, match=r"_orderbook_1\.csv has 4 lines and .*_message_1\.csv has 5: one of them is cut"
    ):
        read(folder(MESSAGES, BOOKS[:4]), "book")


@pytest.mark.parametrize(
    ("zipped", "said"),
    [
        ({"members": {f"{STEM}_message_1.csv": MESSAGES}}, r"holds no file named like .*_orderbook_LEVELS\.csv"),
        ({"members": {}}, r"holds no file named like .*_message_LEVELS\.csv"),
        ({"stem": STEM.replace("06-21", "06-22")}, r"holds AMZN on 2012-06-22, not AMZN on 2012-06-21"),
        ({"stem": STEM.replace("AMZN", "MSFT")}, r"holds MSFT on 2012-06-21, not AMZN"),
        ({"messages": ["34200.1,4,1,1,2238200"]}, r"_message_1\.csv, line 1 has 5 columns, and 6 are expected"),
    ],
)
def test_zip_that_is_no_lobster_day_is_refused(folder, zipped, said):
    with pytest.raises(RecordedError, match=said):
        read(folder(**zipped), "trades")


def test_book_with_other_columns_than_its_name_says_is_refused(folder):
    with pytest.raises(RecordedError, match=r"_orderbook_2\.csv, line 1 has 4 columns, and 8 are expected"):
        read(folder(levels=2), "quotes")


def test_truncated_zip_is_refused_by_name(folder):
    (path,) = folder().glob("*.zip")
    path.write_bytes(path.read_bytes()[:-40])

    with pytest.raises(RecordedError, match=r"AMZN_2012-06-21_1\.zip cannot be unzipped: "):
        read(path.parent, "trades")


def test_damaged_member_is_refused_by_name(folder):
    (path,) = folder().glob("*.zip")
    content = bytearray(path.read_bytes())
    at = content.index(b"message_1.csv") + len("message_1.csv") + 10
    content[at : at + 8] = bytes(8)
    path.write_bytes(content)

    with pytest.raises(RecordedError, match=r"AMZN_2012-06-21_1\.zip cannot be unzipped: "):
        read(path.parent, "trades")


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(
        RecordedError, match=r"There is no folder .*nowhere: check feeds\.<feed>\.path in platform\.yaml"
    ):
        lobster.find(tmp_path / "nowhere", wanted("trades"))
