"""The seam to dataframely: parting rows by rule, shapes, fingerprints, and the dictionary's lines."""

import math
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any, ClassVar

import polars as pl
import pytest

from quant_platform.contracts import _schema
from quant_platform.contracts._schema import (
    Contract,
    all_contracts,
    choice,
    column_docs,
    conformed,
    contract_of,
    empty,
    fingerprint,
    identifier,
    polars_schema,
    real,
    rule,
    rule_docs,
    split,
    text,
    validated,
)
from quant_platform.contracts.enums import GapStatus
from quant_platform.contracts.market import Bar1s, Gap, Trade

NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)


def trades(*changes: dict[str, Any]) -> pl.DataFrame:
    """One good trade for each set of changes to it."""
    good = {
        "ts_event": NOON,
        "ts_recv": None,
        "symbol": "BTCUSDT",
        "venue": "binance_usdm",
        "trade_id": 7,
        "first_trade_id": 7,
        "last_trade_id": 7,
        "price": 100.0,
        "size": 1.0,
        "aggressor": 1,
    }
    return pl.DataFrame([good | change for change in changes], schema=polars_schema(Trade))


def test_split_without_bad_rows_returns_all_and_an_empty_frame_with_a_rule_column() -> None:
    rows = trades({}, {"trade_id": 8, "first_trade_id": 8, "last_trade_id": 9})
    good, bad = split(Trade, rows.with_columns(line=pl.Series([2, 3])), keep=("line",))
    assert good.equals(rows)
    assert bad.schema == pl.Schema({**polars_schema(Trade), "line": pl.Int64, "rule": pl.String})
    assert bad.is_empty()


def test_split_of_all_bad_rows_keeps_the_dtypes_of_the_good() -> None:
    good, bad = split(Trade, trades({"price": -1.0}, {"price": 0.0}))
    assert good.schema == polars_schema(Trade)
    assert good.is_empty()
    assert bad.height == 2


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"price": None}, "price|nullability"),
        ({"price": -1.0}, "price|min_exclusive"),
        ({"price": 0.0}, "price|min_exclusive"),
        ({"price": math.inf}, "price|inf"),
        ({"price": math.nan}, "price|nan"),
        ({"aggressor": 2}, "aggressor|is_in"),
        ({"trade_id": -1, "first_trade_id": -1}, "first_trade_id|min,trade_id|min"),
        ({"last_trade_id": 6}, "ids_in_order"),
        ({"trade_id": 6}, "ids_in_order"),
        ({"price": -1.0, "size": -1.0, "last_trade_id": 3}, "ids_in_order,price|min_exclusive,size|min_exclusive"),
    ],
)
def test_split_names_every_rule_that_a_row_breaks(change: dict[str, Any], broken: str) -> None:
    good, bad = split(Trade, trades({}, change, {}))
    assert good.equals(trades({}, {}))
    (found,) = bad["rule"]
    assert sorted(found.split(",")) == sorted(broken.split(","))
    assert bad.drop("rule").equals(trades(change))


def test_split_keeps_each_bad_rows_own_columns() -> None:
    rows = trades({"size": -1.0}, {}, {"price": -1.0}, {}).with_columns(
        source_line=pl.Series([2, 3, 4, 5]), raw=pl.Series(["a", "b", "c", "d"])
    )
    bad = split(Trade, rows, keep=("source_line", "raw")).bad
    assert bad.select("source_line", "raw", "rule").rows() == [
        (2, "a", "size|min_exclusive"),
        (4, "c", "price|min_exclusive"),
    ]


def test_split_takes_columns_in_any_order() -> None:
    rows = trades({}, {"price": -1.0})
    good, bad = split(Trade, rows.select(sorted(rows.columns)))
    assert good.equals(rows[:1])
    assert bad["rule"].to_list() == ["price|min_exclusive"]


def test_split_of_a_closed_vocabulary_quarantines_another_word() -> None:
    gap = {"symbol": "A", "first_id": 1, "last_id": 2, "missing": 2, "status": "lost", "filled_by": None}
    rows = pl.DataFrame([gap | dict.fromkeys(("ts_start", "ts_end", "ts_known"), NOON)], schema=polars_schema(Gap))
    assert split(Gap, rows).bad["rule"].to_list() == ["status|check__is_in"]
    assert validated(Gap, rows.with_columns(status=pl.lit(GapStatus.OPEN.value))).height == 1


def test_conformed_names_every_problem_of_the_shape() -> None:
    rows = trades({}).drop("venue").with_columns(trade_id=pl.col("trade_id").cast(pl.Int32), extra=1)
    with pytest.raises(ValueError, match=r"market/trades does not keep its contract") as caught:
        conformed(Trade, rows)
    message = str(caught.value)
    assert "column 'venue' is missing" in message
    assert "column 'extra' is not in the contract" in message
    assert "column 'trade_id' is Int32, the contract says Int64" in message


def test_conformed_refuses_another_time_unit_and_zone() -> None:
    rows = trades({}).with_columns(
        pl.col("ts_event").dt.cast_time_unit("us"), pl.col("ts_recv").dt.replace_time_zone(None)
    )
    with pytest.raises(ValueError, match=r"'ts_event' is Datetime.*'us'.*'ts_recv' is Datetime.*None"):
        conformed(Trade, rows)


def test_validated_counts_rows_by_rule() -> None:
    with pytest.raises(
        ValueError, match=r"market/trades breaks its contract: price\|nan \(2 rows\), size\|min_exclusive \(1 rows\)"
    ):
        validated(Trade, trades({"price": math.nan}, {"price": math.nan}, {"size": 0.0}, {}))


def test_validated_returns_the_contracts_column_order() -> None:
    rows = trades({})
    assert validated(Trade, rows.select(sorted(rows.columns))).columns == rows.columns


def test_empty_has_the_contracts_dtypes() -> None:
    assert empty(Bar1s).schema == polars_schema(Bar1s)
    assert empty(Bar1s).is_empty()


def made(column: Any = None, doc: str = "A.", order: tuple[str, ...] = ("key",), **members: Any) -> type[Contract]:
    """A contract of one column, and of what else is given."""

    class Made(Contract):
        table: ClassVar[str] = ""
        sorted_by: ClassVar[tuple[str, ...]] = order
        key = column or real(doc, unit="bps", min=0)

    return type(Made.__name__, (Made,), members) if members else Made


@rule()
def key_is_small(cls) -> pl.Expr:
    """Require a small key."""
    return pl.col("key") < 1


@rule()
def key_is_tiny(cls) -> pl.Expr:
    """Require a small key."""
    return pl.col("key") < 0.1


@pytest.mark.parametrize(
    "other",
    [
        made(real("A.", unit="bps", min=1)),
        made(real("A.", unit="bps", min=0, max=9)),
        made(real("A.", unit="bps", min=0, nullable=True)),
        made(real("A.", unit="usd", min=0)),
        made(identifier("A.", min=0)),
        made(text("A.")),
        made(order=()),
        made(second=text("B.")),
        made(rule_of_key=key_is_small),
    ],
    ids=["bound", "new bound", "nullability", "unit", "dtype", "kind", "row order", "column", "rule"],
)
def test_fingerprint_changes_with_what_is_promised(other: type[Contract]) -> None:
    assert fingerprint(other) != fingerprint(made())


def test_fingerprint_stays_with_another_description() -> None:
    assert fingerprint(made(doc="Another.")) == fingerprint(made())


def test_fingerprint_changes_with_a_rules_body() -> None:
    assert fingerprint(made(r=key_is_small)) != fingerprint(made(r=key_is_tiny))


def test_fingerprint_changes_with_a_vocabulary() -> None:
    fewer = type("Fewer", (), {"__iter__": lambda _: iter(["open"])})()
    assert fingerprint(made(choice("A.", GapStatus))) != fingerprint(made(choice("A.", fewer)))


def test_fingerprint_is_the_same_in_another_process() -> None:
    script = (
        "from quant_platform.contracts._schema import all_contracts, fingerprint\n"
        "print(*(fingerprint(c) for c in all_contracts()))"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert other == [fingerprint(c) for c in all_contracts()]


def test_fingerprints_of_bars_differ_by_table_alone() -> None:
    assert len({fingerprint(c) for c in all_contracts()}) == len(all_contracts())


def test_column_docs_say_dtype_unit_null_bounds_and_meaning() -> None:
    docs = {doc.name: doc for doc in column_docs(Trade)}
    assert list(docs) == polars_schema(Trade).names()
    assert docs["price"] == ("price", "Float64", "quote currency", False, "> 0", "Price of the trade.")
    assert docs["aggressor"].bounds == "-1 · 0 · 1"
    assert docs["ts_recv"].is_nullable
    assert {doc.name: doc.bounds for doc in column_docs(Gap)}["status"] == "open · filled"


def test_rule_docs_hold_inherited_rules() -> None:
    assert rule_docs(Trade).keys() == {"ids_in_order"}
    assert rule_docs(Bar1s) == {"range_holds_prices": "Require low <= open, close <= high."}


def test_contract_of_a_known_table() -> None:
    assert contract_of("market/trades") is Trade


def test_contract_of_an_unknown_table_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"no table 'market/trade'\. Known tables: .*market/trades"):
        contract_of("market/trade")


def test_every_contract_stands_in_the_domain_of_its_table() -> None:
    own_modules = {
        "dealer": "options",
        "scorecards": "execution",
        "events_out": "events",
    }  # what follows from the domain's other tables
    for contract in all_contracts():
        module = contract.__module__.removeprefix("quant_platform.contracts.")
        assert own_modules.get(module, module) == contract.table.split("/")[0]
        assert set(contract.sorted_by) <= set(polars_schema(contract))


def test_every_column_of_every_contract_has_a_meaning() -> None:
    assert [d.name for c in all_contracts() for d in column_docs(c) if not d.doc.endswith(".")] == []


def test_a_rule_name_never_hides_a_column() -> None:
    for contract in all_contracts():
        assert not rule_docs(contract).keys() & set(polars_schema(contract))
        assert _schema._ROW not in polars_schema(contract)
