"""Lean equity ticks written by hand: trades, the two halves of a quote, and every way in which a zip can be wrong."""

import datetime as dt
import zipfile

import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.market import Quote, Trade
from quant_platform.feeds import lean
from quant_platform.feeds.recorded import RecordedError, Wanted

DATE = dt.date(2013, 10, 7)
MIDNIGHT_MS = 1_381_118_400_000  # TZ=America/New_York date -d 2013-10-07 +%s000
OPEN = 34_200_000
TRADES = [f"{OPEN},1819700,200,N,1,0", f"{OPEN + 5},1819800,138862,D,20000020,0"]
QUOTES = [
    f"{OPEN},0,0,1824400,200,P,1,0",
    f"{OPEN + 1},1823800,500,0,0,N,1,0",
    f"{OPEN + 1},0,0,1824400,200,B,1,0",
    f"{OPEN + 2},1823800,500,0,0,K,1,0",
    f"{OPEN + 2},0,0,1824300,300,K,1,0",
]


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes a day's zip: its kind and lines, and what it and its member are called."""

    def write(kind, lines, *, name="", member=""):
        path = tmp_path / (name or f"ibm_20131007_{kind}.zip")
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member or f"20131007_ibm_{kind.capitalize()}_Tick.csv", "\n".join(lines))
        return tmp_path

    return write


def wanted(table, date=DATE):
    return Wanted(table=f"market/{table}", symbol="IBM.US", venue_symbol="IBM", date=date)


def read(folder, table, date=DATE):
    recording = lean.find(folder, wanted(table, date))
    assert recording is not None
    return lean.read_day(recording, wanted(table, date))


def best(parsed):
    return parsed.rows.select("bid_price", "bid_size", "ask_price", "ask_size", "sequence").rows()


def broken(parsed):
    return parsed.quarantined.select("rule", "source_line", "raw").rows()


def test_trades_are_the_contract(folder):
    parsed = read(folder("trade", TRADES), "trades")

    assert parsed.rows.schema == polars_schema(Trade)
    assert parsed.rows["ts_event"].dt.epoch("ms").to_list() == [MIDNIGHT_MS + OPEN, MIDNIGHT_MS + OPEN + 5]
    assert parsed.rows.drop("ts_event").rows() == [
        (None, "IBM.US", "N", 1, 1, 1, 181.97, 200.0, 0),
        (None, "IBM.US", "D", 2, 2, 2, 181.98, 138862.0, 0),
    ]
    assert parsed.facts == {"out_of_order": "0", "tape": "trades"}
    assert parsed.quarantined.height == 0


def test_bid_and_offer_of_one_time_are_one_quote(folder):
    parsed = read(folder("quote", QUOTES), "quotes")

    assert parsed.rows.schema == polars_schema(Quote)
    assert best(parsed) == [
        (None, None, 182.44, 200.0, 1),
        (182.38, 500.0, 182.44, 200.0, 3),
        (182.38, 500.0, 182.43, 300.0, 5),
    ]
    assert parsed.rows.select("venue", "is_ts_event_assumed").unique().rows() == [("recorded_lean", False)]


def test_best_of_another_venue_replaces_the_one_before(folder):
    lines = [
        f"{OPEN},1823900,500,0,0,N,1,0",
        f"{OPEN},0,0,1824400,200,N,1,0",
        f"{OPEN + 1},1823800,100,0,0,Z,1,0",  # the market fell: N said nothing more
        f"{OPEN + 1},0,0,1823900,100,Z,1,0",
    ]

    parsed = read(folder("quote", lines), "quotes")

    assert best(parsed) == [(182.39, 500.0, 182.44, 200.0, 2), (182.38, 100.0, 182.39, 100.0, 4)]


def test_half_without_the_other_half_stands_alone(folder):
    lines = [
        f"{OPEN},1823900,500,0,0,N,1,0",
        f"{OPEN + 1},0,0,1824400,200,N,1,0",  # another time
        f"{OPEN + 1},1823800,100,0,0,Z,1,0",  # the offer came first
    ]

    parsed = read(folder("quote", lines), "quotes")

    assert best(parsed) == [
        (182.39, 500.0, None, None, 1),
        (182.39, 500.0, 182.44, 200.0, 2),
        (182.38, 100.0, 182.44, 200.0, 3),
    ]


def test_quote_that_changes_nothing_is_no_row(folder):
    parsed = read(folder("quote", [*QUOTES[1:3], f"{OPEN + 9},1823800,500,0,0,Z,1,0"]), "quotes")

    assert best(parsed) == [(182.38, 500.0, 182.44, 200.0, 2)]


@pytest.mark.parametrize("kind", ["trade", "quote"])
def test_suspicious_rows_are_quarantined(folder, kind):
    lines = TRADES if kind == "trade" else QUOTES[:3]
    flagged = lines[-1].removesuffix("0") + "1"

    parsed = read(folder(kind, [*lines, flagged]), f"{kind}s")

    assert broken(parsed) == [("suspicious|flagged", len(lines) + 1, flagged)]
    assert parsed.rows.height == 2


def test_suspicious_quote_is_part_of_no_state(folder):
    parsed = read(folder("quote", [*QUOTES[1:3], f"{OPEN + 3},1900000,1,0,0,P,1,1", QUOTES[4]]), "quotes")

    assert best(parsed) == [(182.38, 500.0, 182.44, 200.0, 2), (182.38, 500.0, 182.43, 300.0, 4)]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("soon,1819700,200,N,1,0", "ms|integer"),
        (f"{OPEN},1819700.5,200,N,1,0", "price|integer"),
        (f"{OPEN},1819700,,N,1,0", "size|nullability"),
        (f"{OPEN},1819700,200,,1,0", "venue|nullability"),
        (f"{OPEN},1819700,200,N,1", "row|columns"),
        (f"{OPEN},1819700,200,N,1,0,0", "row|columns"),
        (f"{OPEN},0,200,N,1,0", "price|min_exclusive"),
        (f"{OPEN},1819700,0,N,1,0", "size|min_exclusive"),
        ("-1,1819700,200,N,1,0", "ts_event|outside_date"),
        ("86400000,1819700,200,N,1,0", "ts_event|outside_date"),
    ],
)
def test_bad_trade_is_quarantined_with_its_line(folder, line, rule):
    parsed = read(folder("trade", [TRADES[0], line, TRADES[1]]), "trades")

    assert broken(parsed) == [(rule, 2, line)]
    assert parsed.rows["trade_id"].to_list() == [1, 3]
    assert parsed.quarantined["source_file"].to_list() == ["ibm_20131007_trade.zip/20131007_ibm_Trade_Tick.csv"]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (f"{OPEN + 1},0,0,0,0,N,1,0", "row|no_side"),
        (f"{OPEN + 1},-1823800,500,0,0,N,1,0", "row|negative"),
        (f"{OPEN + 1},1823800,-500,0,0,N,1,0", "row|negative"),
        (f"{OPEN + 1},1823800,500,0,0,N,1", "row|columns"),
    ],
)
def test_bad_quote_is_quarantined_and_stands_for_nothing(folder, line, rule):
    parsed = read(folder("quote", [*QUOTES[1:3], line, *QUOTES[3:]]), "quotes")

    assert broken(parsed) == [(rule, 3, line)]
    assert best(parsed) == [(182.38, 500.0, 182.44, 200.0, 2), (182.38, 500.0, 182.43, 300.0, 5)]


def test_file_that_ends_within_a_line_loses_that_line(folder):
    parsed = read(folder("trade", [*TRADES, f"{OPEN + 9},1819800,10,D,1,"]), "trades")

    assert broken(parsed) == [("row|truncated", 3, f"{OPEN + 9},1819800,10,D,1,")]


def test_trading_before_the_open_and_after_the_close_belongs_to_the_date(folder):
    lines = ["0,1819700,1,P,2000,0", "86399999,1819700,1,P,2000,0"]

    parsed = read(folder("trade", lines), "trades")

    assert parsed.rows["ts_event"].dt.epoch("ms").to_list() == [MIDNIGHT_MS, MIDNIGHT_MS + 86_399_999]


def test_hours_of_winter_are_those_of_new_york(folder):
    root = folder("trade", TRADES, name="ibm_20131210_trade.zip", member="20131210_ibm_Trade_Tick.csv")

    parsed = read(root, "trades", dt.date(2013, 12, 10))

    assert parsed.rows["ts_event"][0].isoformat() == "2013-12-10T14:30:00+00:00"


def test_rows_out_of_order_are_sorted_and_counted(folder):
    parsed = read(folder("trade", TRADES[::-1]), "trades")

    assert parsed.rows["trade_id"].to_list() == [2, 1]
    assert parsed.facts["out_of_order"] == "1"


def test_tree_of_lean_is_read_too(folder):
    assert read(folder("trade", TRADES, name="ibm/20131007_trade.zip"), "trades").rows.height == 2


@pytest.mark.parametrize("table", ["quotes", "book"])
def test_what_the_folder_lacks_is_absent(folder, table):
    assert lean.find(folder("trade", TRADES), wanted(table)) is None


def test_empty_day_has_no_rows(folder):
    assert read(folder("trade", []), "trades").rows.height == 0
    assert read(folder("quote", []), "quotes").rows.height == 0


@pytest.mark.parametrize(
    ("zipped", "said"),
    [
        ({"lines": TRADES, "member": "20131008_ibm_Trade_Tick.csv"}, "must hold one file, 20131007_ibm_trade_tick.csv"),
        ({"lines": QUOTES}, r"line 1 has 8 columns, and 6 are expected \(time, price, size, exchange, condition, susp"),
    ],
)
def test_zip_of_another_kind_is_refused(folder, zipped, said):
    with pytest.raises(RecordedError, match=said):
        read(folder("trade", **zipped), "trades")


def test_truncated_zip_is_refused_by_name(folder):
    root = folder("trade", TRADES)
    path = root / "ibm_20131007_trade.zip"
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(RecordedError, match=r"ibm_20131007_trade\.zip cannot be unzipped: .*Copy the file anew"):
        read(root, "trades")


def test_missing_folder_is_told(tmp_path):
    with pytest.raises(RecordedError, match="There is no folder"):
        lean.find(tmp_path / "nowhere", wanted("book"))
