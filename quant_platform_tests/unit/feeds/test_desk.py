"""Files of the desk, whole or not, ours or a broker's: every row is read, left out and counted, or broken by name."""

import gzip
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.execution import Decision, Fill, Order
from quant_platform.feeds.desk import DeskError, Parsed, UnfinishedError, parsed, reason
from quant_platform.settings import DeskMapping

NOON = datetime(2024, 3, 8, 12, tzinfo=UTC)
INTAKE = datetime(2024, 3, 9, tzinfo=UTC)
FILLS = "fill_id,order_id,ts_event,symbol,side,price,quantity"
GOOD = "f1,o1,2024-03-08T12:00:00Z,AAA,buy,100.5,2"
ORDERS = "order_id,ts_event,symbol,side,quantity,status"


def read(content: bytes | str, mapping: DeskMapping | None = None, **more: Any) -> Parsed:
    content = content.encode() if isinstance(content, str) else content
    given = {"kind": None, "symbols": ("AAA", "BBB"), "venues": (), "ts_intake": INTAKE} | more
    return parsed(content, mapping=mapping, **given)


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


def rules(found: Parsed) -> list[str | None]:
    return found.rows["rule"].to_list()


def test_an_own_file_is_known_by_its_columns() -> None:
    decisions = "decision_id,ts_event,strategy,symbol,side,quantity\nd1,2024-03-08T12:00:00Z,s,AAA,B,1\n"
    orders = f"{ORDERS},decision_id\no1,2024-03-08T12:00:00Z,AAA,B,1,filled,d1\n"
    for content, kind, contract in (
        (decisions, "decisions", Decision),
        (orders, "orders", Order),
        (lines(FILLS, GOOD), "fills", Fill),
    ):
        found = read(content)
        assert found.kind == kind
        assert rules(found) == [None]
        assert found.rows.schema == {
            **polars_schema(contract),
            "rule": pl.String,
            "source_line": pl.Int64,
            "raw": pl.String,
        }


def test_a_row_is_read_column_by_column() -> None:
    content = lines(
        "fill_id;order_id;revision;ts_event;ts_recv;symbol;side;price;quantity;venue;fee;fee_currency;liquidity;note",
        "f1;o1;2;2024-03-08T12:00:00.5Z;1709899201;AAA;SLD;1,000.5;2;X;-0.1;USD;Added;hi",
    )
    found = read(content)
    row = found.rows.row(0, named=True)
    assert (row["fill_id"], row["order_id"], row["revision"], row["side"]) == ("f1", "o1", 2, -1)
    assert (row["price"], row["quantity"], row["fee"]) == (1000.5, 2.0, -0.1)
    assert (row["venue"], row["fee_currency"], row["fee_rate"], row["liquidity"]) == ("X", "USD", None, "maker")
    assert (row["ts_event"], row["ts_recv"]) == (NOON + timedelta(seconds=0.5), NOON + timedelta(seconds=1))
    assert (row["rule"], row["source_line"], row["raw"]) == (None, 2, None)
    assert found.unread == ("note",)


def test_without_a_revision_it_is_the_first_and_without_a_receipt_there_is_none() -> None:
    row = read(lines(FILLS, GOOD)).rows.row(0, named=True)
    assert (row["revision"], row["ts_recv"]) == (0, None)


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("f1,o1,2024-03-08T12:00:00,AAA,buy,100.5,2", "ts_event|no_time_zone"),
        ("f1,o1,,AAA,buy,100.5,2", "ts_event|nullability"),
        ("f1,o1,2024-03-10T00:00:01Z,AAA,buy,100.5,2", "ts_event|out_of_range"),
        ("f1,o1,2024-03-08T12:00:00Z,ZZZ,buy,100.5,2", "symbol|unknown"),
        ("f1,o1,2024-03-08T12:00:00Z,,buy,100.5,2", "symbol|nullability"),
        ("f1,o1,2024-03-08T12:00:00Z,AAA,maybe,100.5,2", "side|unknown"),
        ("f1,o1,2024-03-08T12:00:00Z,AAA,,100.5,2", "side|nullability"),
        ("f1,o1,2024-03-08T12:00:00Z,AAA,buy,-1,2", "price|min_exclusive"),
        ("f1,o1,2024-03-08T12:00:00Z,AAA,buy,x,2", "price|number"),
        ("f1,o1,2024-03-08T12:00:00Z,AAA,buy,nan,2", "price|nullability"),
        ("f1,o1,2024-03-08T12:00:00Z,AAA,buy,100.5,0", "quantity|min_exclusive"),
        (",o1,2024-03-08T12:00:00Z,AAA,buy,100.5,2", "fill_id|nullability"),
        ("f1,o1,2024-03-08T12:00:00Z,AAA,buy,x,y", "price|number,quantity|number"),
        ("f1,o1,2024-03-08T12:00:00Z,AAA,buy,100.5", "row|columns"),
        ("f1,o1,2024-03-08T12:00:00Z,AAA,buy,100.5,2,3", "row|columns"),
    ],
)
def test_a_row_that_breaks_a_rule_is_kept_with_its_name(row: str, rule: str) -> None:
    found = read(lines(FILLS, GOOD, row, GOOD.replace("f1", "f2")))
    assert rules(found) == [None, rule, None]
    assert found.rows["source_line"].to_list() == [2, 3, 4]
    assert found.rows["raw"].to_list() == [None, row, None]
    assert reason(rule) != rule


def test_a_venue_that_is_not_listed_breaks_a_rule_where_there_is_a_list() -> None:
    content = lines(f"{FILLS},venue", f"{GOOD},X", f"{GOOD.replace('f1', 'f2')},Y", f"{GOOD.replace('f1', 'f3')},")
    assert rules(read(content)) == [None, None, None]
    assert rules(read(content, venues=("X",))) == [None, "venue|unknown", None]


def test_an_order_keeps_its_own_rules() -> None:
    head = f"{ORDERS},ts_done,confidence"
    row = "o{},2024-03-08T12:00:00Z,AAA,B,1,{},{},"
    found = read(
        lines(
            head,
            row.format(1, "Partially Filled", ""),
            row.format(2, "lost", ""),
            row.format(3, "DONE_FOR_DAY", 1709899199),
        )
    )
    assert rules(found) == [None, "status|unknown", "ends_after_it_began"]
    assert found.rows["status"].to_list() == ["open", None, "expired"]
    assert found.unread == ("confidence",)


@pytest.mark.parametrize("break_", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_sheet_may_be_written_by_any_program(delimiter: str, break_: str) -> None:
    rows = [
        FILLS,
        GOOD,
        "",
        ",,,,,,",
        f'"f,""2{break_}x",o1,2024-03-08T12:00:00Z,AAA,buy,"1,000",2',
        GOOD.replace("f1", "f3"),
    ]
    content = break_.join(
        row.replace(",", delimiter) if "1,000" not in row else row
        for row in rows
        if delimiter == "," or "1,000" not in row
    )
    found = read(b"\xef\xbb\xbf" + (content + break_).encode())
    assert set(rules(found)) == {None}
    names = found.rows["fill_id"].to_list()
    assert names == (["f1", f'f,"2{break_}x', "f3"] if delimiter == "," else ["f1", "f3"])
    if delimiter == ",":
        assert found.rows["price"].to_list() == [100.5, 1000.0, 100.5]
        assert found.rows["source_line"].to_list() == [2, 5, 7]


def test_a_broken_row_over_two_lines_is_kept_whole() -> None:
    found = read(lines(FILLS, GOOD, '"f\n2",o1,2024-03-08T12:00:00Z,AAA,buy,-5,2', '"f\n3",o1'))
    assert found.rows["raw"].to_list() == [None, '"f\n2",o1,2024-03-08T12:00:00Z,AAA,buy,-5,2', '"f\n3",o1']
    assert found.rows["source_line"].to_list() == [2, 3, 5]


def test_a_file_without_rows_is_whole() -> None:
    found = read(lines(FILLS))
    assert found.rows.height == 0
    assert found.rows.schema["ts_event"] == pl.Datetime("ns", "UTC")


def test_a_packed_file_says_the_same() -> None:
    content = lines(FILLS, GOOD, "f2,o1,2024-03-08T12:00:00Z,AAA,buy,x,2").encode()
    assert read(gzip.compress(content)).rows.equals(read(content).rows)
    assert read(gzip.compress(content.rstrip())).rows.equals(read(content).rows)


def parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def test_parquet_says_the_same_whatever_its_types() -> None:
    typed = pl.DataFrame(
        {
            "fill_id": ["f1", "f2", "f3"],
            "order_id": pl.Series(["o", None, "o"], dtype=pl.Categorical),
            "ts_event": pl.Series([NOON, NOON + timedelta(microseconds=1), None]).cast(
                pl.Datetime("ns", "America/New_York")
            ),
            "ts_recv": [NOON.timestamp(), None, float("nan")],
            "symbol": ["AAA", "AAA", "BBB"],
            "side": pl.Series([1, -1, 1], dtype=pl.Int8),
            "price": [100.5, float("nan"), 1e-7],
            "quantity": pl.Series([1, 2, 3], dtype=pl.Int32),
            "fee": pl.Series(["0.10", "0.20", None]).cast(pl.Decimal(10, 2)),
            "venue": pl.Series([None, None, None], dtype=pl.Null),
            "legs": [[1], [2], [3]],
            "age": [timedelta(1), None, None],
            "is_hidden": [True, None, False],
        }
    )
    found = read(parquet(typed))
    assert found.unread == ("legs", "age", "is_hidden")
    assert rules(found) == [None, "price|nullability", "ts_event|nullability"]
    first = found.rows.row(0, named=True)
    assert (first["ts_event"], first["ts_recv"], first["side"], first["price"]) == (NOON, NOON, 1, 100.5)
    assert (first["quantity"], first["fee"]) == (1.0, 0.1)
    assert found.rows["price"][2] == 1e-7
    assert found.rows["source_line"].to_list() == [1, 2, 3]
    assert '"fill_id": "f2"' in found.rows["raw"][1]


@pytest.mark.parametrize(
    ("times", "rule"),
    [
        (pl.Series([NOON.replace(tzinfo=None)]), "ts_event|no_time_zone"),
        (pl.Series([NOON.date()]), "ts_event|time"),
        (pl.Series([datetime(9999, 12, 31, tzinfo=UTC)]), "ts_event|time"),
        (pl.Series([1.7e300]), "ts_event|time"),
    ],
)
def test_a_time_in_parquet_breaks_the_rules_of_text(times: pl.Series, rule: str) -> None:
    frame = pl.DataFrame(
        {
            "fill_id": ["f1", "f2"],
            "ts_event": pl.concat([times, times]),
            "symbol": "AAA",
            "side": 1,
            "price": 1.0,
            "quantity": 1.0,
        }
    )
    with pytest.raises(DeskError, match=rule.replace("|", r"\|")):
        read(parquet(frame))


def test_a_whole_number_of_seconds_may_be_a_float() -> None:
    frame = pl.DataFrame(
        {"fill_id": ["f1"], "ts_event": [1.7098992e18], "symbol": "AAA", "side": 1.0, "price": 1, "quantity": 1}
    )
    assert read(parquet(frame)).rows["ts_event"].to_list() == [NOON]


def mapped(**more: Any) -> DeskMapping:
    columns = {"ts_event": "when", "symbol": "ticker", "price": "px", "quantity": "amount"}
    return DeskMapping(
        **(
            {"kind": "fills", "columns": columns, "side_from_sign": "amount", "id_from": ["when", "ticker", "amount"]}
            | more
        )
    )


def test_a_mapping_reads_a_brokers_export() -> None:
    content = lines(
        "when,ticker,amount,px,type,extra",
        "2024-03-08 07:00:00,A,3,1.5,trade,x",
        "2024-03-08 07:00:00,A,-2,1.5,Trade,x",
        "2024-03-08 07:00:00,A,-2,1.5,order,x",
        "2024-03-08 07:00:00,B,-2,1.5,trade,x",
        "2024-03-08 07:00:00,A,3,1.6,trade,x",
        "2024-03-08 07:00:00,A,0,1.6,trade,x",
        "2024-03-08 07:00:00,A,,1.6,trade,x",
    )
    found = read(
        content,
        mapped(
            filter={"type": "trade", "ticker": ["A"]},
            symbols={"A": "AAA"},
            constants={"venue": "X", "revision": 1},
            time_zone="America/New_York",
        ),
    )
    assert found.left_out == 3
    assert found.unread == ()
    assert rules(found) == [
        None,
        None,
        "side|nullability,quantity|min_exclusive",
        "side|nullability,quantity|nullability",
    ]
    rows = found.rows.head(2)
    assert rows["fill_id"].to_list() == ["2024-03-08 07:00:00|A|3", "2024-03-08 07:00:00|A|3#2"]
    assert (rows["side"].to_list(), rows["quantity"].to_list()) == ([1, 1], [3.0, 3.0])
    assert rows["symbol"].to_list() == ["AAA", "AAA"]
    assert rows["ts_event"].to_list() == [NOON, NOON]
    assert rows.select("venue", "revision").unique().rows() == [("X", 1)]
    assert found.rows["source_line"].to_list() == [2, 6, 7, 8]


def test_a_mapping_may_name_a_column_without_a_name() -> None:
    found = read(
        ",ticker,amount,px\n1709899200,AAA,-3,5\n",
        mapped(columns={"ts_event": "", "symbol": "ticker", "price": "px", "quantity": "amount"}, id_from=[""]),
    )
    assert found.rows.select("fill_id", "side", "quantity").row(0) == ("1709899200", -1, 3.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n", "none of the columns decision_id, order_id, fill_id"),
        (
            lines("fill_id,price", "1,2"),
            "It lacks the columns 'ts_event', 'symbol', 'side', 'quantity'; it has 'fill_id', 'price'",
        ),
        (lines(f"{FILLS},price", f"{GOOD},5"), "Several of its columns are named 'price'"),
        (b"PK\x03\x04", "a workbook of Excel: save it as CSV"),
        (b"\xff\xfef\x00", "UTF-16"),
        (gzip.compress(b"a\n" * 99, mtime=0)[:-8] + bytes(8), "gzip stream is damaged"),
        (b"PAR1 and nothing else PAR1", "damaged Parquet"),
        (f"{FILLS}\n{'x' * 200_000},\n", "Line 2 is no CSV"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_to_do(content: bytes | str, says: str) -> None:
    with pytest.raises(DeskError) as refused:
        read(content)
    assert says in str(refused.value)
    assert not isinstance(refused.value, UnfinishedError)


def test_a_file_of_which_no_row_can_be_used_is_refused_with_the_rules() -> None:
    bad = "f1,o1,2024-03-08T12:00:00,AAA,buy,100.5,2"
    with pytest.raises(
        DeskError,
        match=r"None of its 2 rows.*ts_event\|no_time_zone \(2 rows\): its time does not tell a zone.* set time_zone",
    ):
        read(lines(FILLS, bad, bad))


@pytest.mark.parametrize("content", [b"", b"\n \n", lines(FILLS, GOOD).encode()[:-1], b"PAR1\x00", b"PAR1"])
def test_a_file_that_is_not_whole_is_told_apart(content: bytes) -> None:
    with pytest.raises(UnfinishedError):
        read(content)


def test_every_cut_of_a_file_is_not_whole_or_ends_with_a_line() -> None:
    content = lines(FILLS, GOOD, GOOD.replace("f1", "f2")).encode()
    whole = read(content).rows
    for size in range(len(content)):
        try:
            cut = read(content[:size]).rows
        except UnfinishedError:
            continue
        assert cut.equals(whole.head(cut.height))
    for packed in (gzip.compress(content), parquet(read(content).rows.drop("rule", "raw", "source_line"))):
        for size in range(1, len(packed), 7):
            with pytest.raises(DeskError):
                read(packed[:size])


def test_a_mapping_says_which_column_is_not_there() -> None:
    with pytest.raises(DeskError, match="It lacks the columns 'ticker', 'px', 'type'; it has 'when', 'amount'"):
        read("when,amount\n1,2\n", mapped(filter={"type": "x"}))


def test_a_filter_may_leave_nothing() -> None:
    found = read("when,ticker,amount,px\n1709899200,AAA,3,1\n", mapped(filter={"ticker": "BBB"}))
    assert (found.rows.height, found.left_out) == (0, 1)
    assert found.rows.schema == read(lines(FILLS, GOOD)).rows.schema


def test_a_mapping_of_orders_may_have_ids_and_sides_of_its_own() -> None:
    orders = DeskMapping(
        kind="orders",
        columns={"order_id": "id", "ts_event": "t", "symbol": "s", "side": "way", "quantity": "q"},
        constants={"status": "filled"},
    )
    found = read("id,t,s,way,q,place_\no1,1709899200,AAA,SS,-3,x\no2,1709899200,AAA,SS,3,x\n", orders)
    assert rules(found) == ["quantity|min_exclusive", None]
    assert found.rows["side"].to_list() == [-1, -1]
