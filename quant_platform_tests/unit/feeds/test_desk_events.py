"""Files of events: known by their columns, read like all files of the desk, and executions and decisions among them."""

from datetime import UTC, date, datetime

import polars as pl
import pytest

from quant_platform.contracts._schema import polars_schema
from quant_platform.contracts.events import EVENT_WORDS
from quant_platform.feeds import _desk_words as words
from quant_platform.feeds.desk import DeskError, Parsed, parsed, reason
from quant_platform.settings import DESK_CONTRACTS, EVENT_ALIASES, DeskKind, DeskMapping, desk_kind, required_columns

INTAKE = datetime(2024, 3, 9, tzinfo=UTC)
AT = "2024-03-08T12:00:00Z"
NEWS = "event_id,ts_event,symbol,news_sentiment,news_count,social_count,analyst_count"


def read(*rows: str, mapping: DeskMapping | None = None, kind: DeskKind | None = None) -> Parsed:
    content = "".join(f"{row}\n" for row in rows).encode()
    return parsed(content, kind=kind, mapping=mapping, symbols=("AAA", "BBB"), venues=(), ts_intake=INTAKE)


@pytest.mark.parametrize("kind", [kind for kind in DESK_CONTRACTS if kind != "orders"])
@pytest.mark.parametrize("which", ["needed", "all"])
def test_the_columns_of_an_event_name_its_kind_and_no_other(kind: DeskKind, which: str) -> None:
    columns = required_columns(kind) if which == "needed" else polars_schema(DESK_CONTRACTS[kind]).names()
    named = dict.fromkeys(["event_id", "ts_event", "schema_version", "source", "order_id", "decision_id", *columns])
    assert read(",".join(named)).kind == kind


def test_an_execution_and_a_decision_that_come_as_events_are_fills_and_decisions() -> None:
    executed = read(
        "event_id,schema_version,ts_event,source,symbol,decision_id,order_id,side,price,quantity",
        f"e1,1,{AT},oms,AAA,d1,o1,buy,100,2",
    )
    assert (executed.kind, executed.unread) == ("fills", ("schema_version", "source", "decision_id"))
    assert executed.rows.select("fill_id", "order_id", "price", "rule").row(0) == ("e1", "o1", 100.0, None)
    decided = read("event_id,ts_event,strategy,symbol,side,quantity", f"e2,{AT},s,AAA,sell,2")
    assert (decided.kind, decided.rows["decision_id"].to_list()) == ("decisions", ["e2"])
    both = read("event_id,fill_id,ts_event,symbol,side,price,quantity", f"e3,f3,{AT},AAA,buy,1,1")
    assert (both.kind, both.rows["fill_id"].to_list(), both.unread) == ("fills", ["f3"], ("event_id",))
    with_price = "event_id,ts_event,strategy,symbol,side,quantity,price,decision_id"
    assert read(with_price).kind == "decisions"
    assert read(f"{with_price},order_id,venue,fee").kind == "fills"
    assert {name: desk_kind(name) for name in EVENT_ALIASES} == {
        "trade_executed": "fills",
        "trading_decision": "decisions",
    }
    assert (desk_kind("risk_violation"), desk_kind("trades")) == ("risk_violation", None)


def test_a_newer_schema_of_an_execution_is_refused_and_of_an_event_quarantined() -> None:
    with pytest.raises(DeskError, match="Its schema_version is 3; what is read here is version 1"):
        read("event_id,schema_version,ts_event,symbol,side,price,quantity", f"e1,3,{AT},AAA,buy,1,1")
    found = read(f"schema_version,{NEWS}", f"2,n1,{AT},AAA,0.5,3,0,0", f",n2,{AT},AAA,0.5,3,0,0")
    assert found.rows["rule"].to_list() == ["schema_version_is_known", None]
    assert found.rows["schema_version"].to_list() == [2, 1]
    assert "newer" in reason("schema_version_is_known")


def test_an_event_may_be_of_no_symbol_but_not_of_one_that_nobody_knows() -> None:
    found = read(
        NEWS, f"n1,{AT},,0.5,3,0,0", f"n2,{AT},ZZZ,0.5,3,0,0", f"n3,{AT},AAA,0.5,0,0,0", f"n4,{AT},AAA,x,3,0,0"
    )
    assert found.rows["rule"].to_list() == [None, "symbol|unknown", "sentiment_is_of_texts", "news_sentiment|number"]
    assert found.rows["source_line"].to_list() == [2, 3, 4, 5]


def test_the_other_symbol_of_a_pair_is_looked_up_too() -> None:
    head = "event_id,ts_event,symbol,other_symbol,matrix_id,correlation_method,correlation,window_s"
    rows = (f"c{n},{AT},AAA,{other},m1,Pearson,0.5,3600" for n, other in enumerate(("BBB", "ZZZ", "AAA")))
    found = read(head, *rows)
    assert found.rows["rule"].to_list() == [None, "other_symbol|unknown", "is_a_pair"]
    assert found.rows["correlation_method"][0] == "pearson"


def test_words_and_dates_are_read_in_the_usual_spellings() -> None:
    head = "event_id,ts_event,symbol,fill_id,settlement_status,settlement_date,quantity"
    found = read(
        head,
        f"s1,{AT},AAA,f1,SETTLED,2024-03-08,1",
        f"s2,{AT},AAA,f2,lost,2024-03-08,1",
        f"s3,{AT},AAA,f3,pending,08.03.2024,1",
        f"s4,{AT},AAA,f4,pending,,1",
    )
    assert found.rows["rule"].to_list() == [
        None,
        "settlement_status|unknown",
        "settlement_date|date",
        "settlement_date|nullability",
    ]
    assert found.rows.select("settlement_status", "settlement_date").row(0) == ("settled", date(2024, 3, 8))
    assert all(reason(rule) != rule for rule in found.rows["rule"].drop_nulls())


def test_what_is_no_event_is_told_what_it_lacks() -> None:
    with pytest.raises(DeskError, match="of risk_violation, which it is nearest to, it lacks the columns 'limit_unit'"):
        read(
            "event_id,ts_event,symbol,order_id,limit_name,limit_kind,severity,limit_value,observed_value,risk_action",
        )
    both = "event_id,ts_event,symbol,indicator,timeframe_s,indicator_value,news_count,social_count,analyst_count"
    with pytest.raises(DeskError, match="are those of news_sentiment_analyzed, technical_indicator_computed: name its"):
        read(both)
    assert read(both, kind="news_sentiment_analyzed").kind == "news_sentiment_analyzed"


def test_a_mapping_may_read_an_event() -> None:
    mapping = DeskMapping(
        kind="technical_indicator_computed",
        columns={"ts_event": "when", "symbol": "ticker", "indicator_value": "rsi14"},
        constants={"indicator": "rsi", "timeframe_s": "60"},
        id_from=("ticker", "when"),
        symbols={"XXX": "BBB"},
        time_zone="UTC",
    )
    found = read("when,ticker,rsi14", "2024-03-08 12:00,XXX,71.5", "2024-03-08 12:01,AAA,-", mapping=mapping)
    assert found.rows["rule"].to_list() == [None, "indicator_value|number"]
    row = found.rows.row(0, named=True)
    assert (row["event_id"], row["symbol"], row["indicator_value"]) == ("XXX|2024-03-08 12:00", "BBB", 71.5)
    assert (row["schema_version"], row["revision"], row["timeframe_s"]) == (1, 0, 60.0)


@pytest.mark.parametrize("column", EVENT_WORDS)
def test_every_word_of_a_vocabulary_can_be_told_in_a_file(column: str) -> None:
    members = [str(word) for word in EVENT_WORDS[column]]
    for spelled in (members, [word.upper().replace("_", " ") for word in members]):
        found = words.word(pl.Series(spelled), words.own_words(EVENT_WORDS[column]))
        assert found.value.to_list() == members
        assert found.rule.null_count() == len(members)
