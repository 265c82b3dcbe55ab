"""Lean's option minutes and universes written by hand: what stands at the end of a minute, and what is refused."""

import datetime as dt
import zipfile

import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.options import OptionChain
from quant_platform.feeds import lean_options
from quant_platform.feeds.option_chain import ChainError

DATE = dt.date(2015, 12, 23)
CALL, PUT = "call_7500000_20151224", "put_7500000_20151224"
OPEN = 34_200_000  # 09:30
MINUTE = 60_000
QUOTES = {
    CALL: [
        f"{OPEN},10000,10000,10000,10000,2,15000,15500,15000,15200,5",
        f"{OPEN + 2 * MINUTE},10100,10100,10100,10100,3,,,,,0",
    ],
    PUT: [f"{OPEN + MINUTE},20000,20000,20000,20100,1,21000,21000,21000,21000,4"],
}
TRADES = {CALL: [f"{OPEN},12000,12500,12000,12345,7", f"{OPEN + 3 * MINUTE},13000,13000,13000,13000,2"]}
OPEN_INTEREST = {CALL: ["23520000,11755"], PUT: [f"{OPEN + MINUTE},40"]}
HEADER = "#expiry,strike,right,open,high,low,close,volume,open_interest,implied_volatility,delta,gamma,vega,theta,rho"
UNIVERSE = [
    HEADER,
    ",,,749.5500,749.9900,748.5400,748.5400,11492,,,,,,,",
    "20151224,590,C,159.8000,164.4000,154.4500,160.0500,0,,0,0,0,0,0,0",
    "20151231,752.5,P,4.1,4.2,3.9,4.05,12,34,0.2345,-0.5,0.01,0.3,-0.2,-0.1",
]


@pytest.fixture
def archive(tmp_path):
    """Return a function that writes a zip of one kind: the lines of each contract."""

    def write(kind, contracts, date="20151223"):
        path = tmp_path / f"goog_{date}_{kind}_american.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
            for contract, lines in contracts.items():
                written.writestr(f"{date}_goog_minute_{kind}_american_{contract}.csv", "\n".join(lines))
        return path

    return write


@pytest.fixture
def underlying(tmp_path):
    path = tmp_path / "und.zip"
    with zipfile.ZipFile(path, "w") as written:
        lines = [
            f"{OPEN - MINUTE},7500000,7500000,7500000,7512500,10",
            f"{OPEN + 2 * MINUTE},7500000,7500000,7500000,7520000,1",
        ]
        written.writestr("20151223_goog_minute_trade.csv", "\n".join(lines))
    return path


def read(*paths, **named):
    return lean_options.read_minutes(*paths, symbol="GOOG.US", date=DATE, **named)


def universe(lines, root="GOOG"):
    content = "\n".join(lines).encode()
    return lean_options.read_universe(content, "goog.csv", symbol="GOOG.US", root=root, date=DATE)


def broken(parsed):
    return parsed.quarantined.select("rule", "source_file", "source_line", "raw").rows()


def at(hour, minute):
    return dt.datetime(2015, 12, 23, hour, minute, tzinfo=dt.UTC)  # New York is five hours behind


def test_minute_is_known_when_it_ends(archive, underlying):
    parsed = read(
        archive("quote", QUOTES), archive("trade", TRADES), archive("openinterest", OPEN_INTEREST), underlying
    )
    assert parsed.rows.schema == polars_schema(OptionChain)
    assert parsed.quarantined.is_empty()
    assert parsed.facts == {"contracts": "2", "expired": "0", "adjusted": "0"}
    columns = ["ts_event", "contract", "bid", "bid_size", "ask", "ask_size", "last", "volume", "open_interest"]
    call, put = "GOOG151224C00750000", "GOOG151224P00750000"
    assert parsed.rows.select(*columns, "underlying_price").rows() == [
        (at(14, 31), call, 1.0, 2.0, 1.52, 5.0, 1.2345, 7.0, 11755.0, 751.25),
        (at(14, 32), put, 2.01, 1.0, 2.1, 4.0, None, 0.0, 40.0, 751.25),
        (at(14, 33), call, 1.01, 3.0, None, 0.0, 1.2345, 7.0, 11755.0, 752.0),
        (at(14, 34), call, None, None, None, None, 1.3, 9.0, 11755.0, 752.0),
    ]
    row = parsed.rows.row(0, named=True)
    assert (row["type"], row["strike"], row["expiry"], row["multiplier"]) == ("C", 750.0, dt.date(2015, 12, 24), 100.0)
    assert row["ts_expiry"] == dt.datetime(2015, 12, 24, 21, tzinfo=dt.UTC)
    assert (row["symbol"], row["venue"]) == ("GOOG.US", "recorded_lean")


def test_what_no_file_tells_is_null(archive):
    rows = read(archive("quote", QUOTES)).rows
    assert rows.height == 3
    assert rows.select("last", "volume", "open_interest", "underlying_price").null_count().row(0) == (3, 3, 3, 3)


def test_index_prices_are_not_multiplied(archive, tmp_path):
    path = tmp_path / "spx.zip"
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("20151223_spx_minute_trade.csv", f"{OPEN},3764.61,3769.99,3764.61,3766.63,59")
    parsed = read(archive("quote", QUOTES), None, None, path, underlying_scale=lean_options.INDEX)
    assert parsed.rows["underlying_price"].unique().to_list() == [3766.63]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (f"{OPEN},10000,10000,10000,x,2,15000,15500,15000,15200,5", "bid_close|numeric"),
        (f"{OPEN},10000,10000,10000,-1,2,15000,15500,15000,15200,5", "bid|min_exclusive"),
        (f"{OPEN},10000,10000", "row|columns"),
        ("86400000,10000,10000,10000,10000,2,15000,15500,15000,15200,5", "ts_event|outside_date"),
        (",10000,10000,10000,10000,2,15000,15500,15000,15200,5", "ts_event|outside_date"),
        (QUOTES[CALL][1], "contract|duplicate"),
    ],
)
def test_bad_line_is_quarantined_with_its_file_and_the_others_stay(archive, line, rule):
    parsed = read(archive("quote", QUOTES | {CALL: [QUOTES[CALL][1], line]}))
    file = f"goog_20151223_quote_american.zip/20151223_goog_minute_quote_american_{CALL}.csv"
    assert broken(parsed) == [(rule, file, 2, line)]
    assert parsed.rows.height == 2


def test_zip_of_another_kind_or_date_is_refused(archive):
    with pytest.raises(ChainError, match="the minutes of quote of options on 2015-12-23 were expected"):
        read(archive("trade", TRADES))
    with pytest.raises(ChainError, match="Nothing was loaded"):
        read(archive("quote", QUOTES, date="20151224"))


def test_damaged_zip_is_refused(archive):
    path = archive("quote", QUOTES)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ChainError, match=r"goog_20151223_quote_american\.zip cannot be unzipped.*Copy the file anew"):
        read(path)


def test_underlying_of_another_date_is_refused(archive, tmp_path):
    path = tmp_path / "und.zip"
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("20151224_goog_minute_trade.csv", "")
    with pytest.raises(ChainError, match="the underlying's minutes of trades on 2015-12-23 were expected"):
        read(archive("quote", QUOTES), None, None, path)


def test_universe_is_the_chain_at_the_close():
    parsed = universe(UNIVERSE)
    assert parsed.rows.schema == polars_schema(OptionChain)
    first, second = parsed.rows.rows(named=True)
    assert (first["contract"], second["contract"]) == ("GOOG151224C00590000", "GOOG151231P00752500")
    assert {first["ts_event"], second["ts_event"]} == {at(21, 0)}
    assert {first["underlying_price"], second["underlying_price"]} == {748.54}
    assert [first[name] for name in ("iv", "delta", "gamma", "vega", "theta", "open_interest")] == [None] * 6
    assert (first["last"], first["volume"], first["bid"], first["ask"]) == (160.05, 0.0, None, None)
    assert [second[name] for name in ("iv", "delta", "gamma", "vega", "theta")] == [0.2345, -0.5, 0.01, 0.3, -0.2]
    assert (second["strike"], second["open_interest"], parsed.facts["contracts"]) == (752.5, 34.0, "2")


def test_universe_without_the_underlying_has_no_price_of_it():
    parsed = universe([HEADER, *UNIVERSE[2:]], root="SPX")
    assert parsed.rows["underlying_price"].to_list() == [None, None]
    assert parsed.rows["ts_expiry"][0] == dt.datetime(2015, 12, 24, 14, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("20151324,590,C,1,1,1,1,0,,0,0,0,0,0,0", "contract|name"),
        ("20151224,590,X,1,1,1,1,0,,0,0,0,0,0,0", "contract|name"),
        ("20151224,590,C,1,1,1,x,0,,0,0,0,0,0,0", "close|numeric"),
        ("20151224,590,C,1,1", "row|columns"),
        ("20151224,0,C,1,1,1,1,0,,0,0,0,0,0,0", "strike|min_exclusive"),
        (UNIVERSE[2], "contract|duplicate"),
    ],
)
def test_bad_line_of_a_universe_is_quarantined_and_the_others_stay(line, rule):
    parsed = universe([*UNIVERSE, line])
    assert broken(parsed) == [(rule, "goog.csv", 5, line)]
    assert parsed.rows.height == 2


@pytest.mark.parametrize("lines", [[], ["<html>"], UNIVERSE[1:]])
def test_file_that_is_no_universe_is_refused(lines):
    with pytest.raises(ChainError, match=r"goog\.csv is no option universe of Lean.*Nothing was loaded"):
        universe(lines)


def test_a_day_of_minutes_is_found_flat_and_in_leans_own_folders(archive, tmp_path):
    flat = [
        archive(kind, rows) for kind, rows in (("quote", QUOTES), ("trade", TRADES), ("openinterest", OPEN_INTEREST))
    ]
    found = lean_options.find(tmp_path, "GOOG", DATE)
    assert found is not None
    assert {path.name for path in found.files} == {path.name for path in flat}
    own = tmp_path / "lean" / "option" / "usa" / "minute" / "goog"
    own.mkdir(parents=True)
    for path in flat:
        path.rename(own / path.name.removeprefix("goog_"))
    assert lean_options.find(tmp_path, "goog", DATE) is None
    nested = lean_options.find(tmp_path / "lean", "goog", DATE)
    assert nested is not None
    assert [path.name for path in nested.files] == [path.name.removeprefix("goog_") for path in found.files]
    one = lean_options.read_day(nested, symbol="GOOG.US", venue_symbol="goog", date=DATE)
    assert one.rows.height == 2
    assert one.rows["symbol"].unique().to_list() == ["GOOG.US"]


def test_minutes_become_the_state_at_each_half_hour(archive, tmp_path):
    later = {CALL: [*QUOTES[CALL], f"{OPEN + 45 * MINUTE},10200,10200,10200,10200,3,15100,15100,15100,15100,9"]}
    archive("quote", {**QUOTES, **later})
    found = lean_options.find(tmp_path, "goog", DATE)
    rows = lean_options.read_day(found, symbol="GOOG", venue_symbol="goog", date=DATE).rows
    half_past_nine = dt.datetime(2015, 12, 23, 14, 30, tzinfo=dt.UTC)
    ends = [half_past_nine + dt.timedelta(minutes=minutes) for minutes in (30, 60)]
    assert rows.select("ts_event", "type", "bid", "ask").rows() == [
        (ends[0], "C", 1.01, None),
        (ends[0], "P", 2.01, 2.1),
        (ends[1], "C", 1.02, 1.51),
        (ends[1], "P", 2.01, 2.1),
    ]


def test_a_universe_stands_in_where_there_are_no_minutes(tmp_path):
    folder = tmp_path / "option" / "usa" / "universes" / "goog"
    folder.mkdir(parents=True)
    (folder / "20151223.csv").write_text("\n".join(UNIVERSE))
    found = lean_options.find(tmp_path, "goog", DATE)
    rows = lean_options.read_day(found, symbol="GOOG", venue_symbol="goog", date=DATE).rows
    assert rows["contract"].to_list() == ["GOOG151224C00590000", "GOOG151231P00752500"]
    assert lean_options.find(tmp_path, "goog", DATE + dt.timedelta(days=1)) is None


def test_minutes_without_quotes_are_refused(archive, tmp_path):
    archive("trade", TRADES)
    found = lean_options.find(tmp_path, "goog", DATE)
    with pytest.raises(ChainError, match="no zip of quotes"):
        lean_options.read_day(found, symbol="GOOG", venue_symbol="goog", date=DATE)
