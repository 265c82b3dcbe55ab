"""Events through landing, engine and lake: dropped, handed over, corrected, quarantined; and what follows from them."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_platform.calculators.revisions import as_of, current
from quant_platform.contracts.events import TOLD_EVENTS
from quant_platform.pipeline import desk_intake, execution
from quant_platform.pipeline.desk import DESK, pending
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.events import CHECK, EVENTS
from quant_platform.pipeline.units import Outcome, Unit, UnitStatus
from quant_platform.reports.tca_day import headline_path
from quant_platform.settings import BinanceFeed, DeskFeed, DeskMapping, Feeds, Instrument, Settings
from quant_platform.simulation.desk import EVENT_KINDS, KINDS, desk_path, event_path
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.market import MarketParams, write_archive
from quant_platform.storage import desk_archive, quarantine
from quant_platform.storage.lake import ALL_SYMBOLS

FIRST, SECOND = DAYS = [date(2024, 3, 4), date(2024, 3, 5)]
TRADED, QUIET = "SIMBTC", "SIMETH"
OF_MARKET = ["market/trades", "market/quotes", "market/bars_1s", "market/bars_1m"]
TABLES = [recipe.table for recipe in (*DESK, *execution.EXECUTION, *EVENTS)]
INTAKE = int(datetime(2024, 3, 10, tzinfo=UTC).timestamp()) * 1_000_000_000
RISK = "events/in/risk_violation"
HEAD = (
    "event_id,revision,ts_event,ts_recv,symbol,limit_name,limit_kind,severity,limit_value,observed_value,limit_unit,"
    "risk_action"
)
BROKER = DeskMapping(
    kind="news_sentiment_analyzed",
    columns={"ts_event": "time", "symbol": "ticker", "news_sentiment": "score", "news_count": "n"},
    constants={"social_count": "0", "analyst_count": "0"},
    id_from=("time", "ticker"),
)


def settings_below(root: Path) -> Settings:
    feed = BinanceFeed(ws_url="ws://x", rest_url="http://x", archive_url=(root / "archive").as_uri())
    common = {"feed": "binance_usdm", "tick_size": 0.1, "lot_size": 0.001}
    listed = [Instrument.model_validate({"symbol": s, "venue_symbol": f"{s}USDT", **common}) for s in (TRADED, QUIET)]
    return Settings(
        home=root / "home",
        feeds=Feeds(binance_usdm=feed, desk=DeskFeed(mappings={"news_vendor": BROKER})),
        instruments=tuple(listed),
        pipeline={"workers": 0},
        quality={"max_quarantined_share": 0.9},
    )


def violation(ident: str = "v1", *, revision: str = "", at: str = "2024-03-04T12:00:00Z", **told: str) -> str:
    row = {"ts_recv": "", "symbol": TRADED, "severity": "breach", "observed": "1.2", "action": "Alerted"} | told
    return (
        f"{ident},{revision},{at},{row['ts_recv']},{row['symbol']},desk limit,position,{row['severity']},1,"
        f"{row['observed']},1,{row['action']}"
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_below(tmp_path)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    with Engine(settings) as one:
        yield one


def dropped(settings: Settings, name: str, *rows: str) -> Path:
    """Write a file where files are dropped, as if a while ago; a file that is cut has no last line break."""
    path = desk_intake.inbox(settings) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows))
    return path


def watched(settings: Settings) -> list[tuple[str, str, str]]:
    """Look at the folder as if a minute had passed."""
    found = desk_intake.watch(settings, _later()).files
    return [(one.file.name, one.status, one.receipt.kind if one.receipt else "") for one in found]


def _later() -> int:
    return int(datetime.now(UTC).timestamp() + 60) * 1_000_000_000


def built(engine: Engine, table: str = RISK, day: date = FIRST) -> Outcome:
    (outcome,) = engine.run(table, [], [day])
    return outcome


def test_events_are_dropped_taken_once_and_built_into_a_table_of_no_symbol(settings: Settings, engine: Engine) -> None:
    assert built(engine).status is UnitStatus.ABSENT
    dropped(settings, "a.csv", HEAD, violation("v1"), violation("v2", symbol="", at="2024-03-05T00:00:00Z"), "")
    dropped(settings, "risk_violation/b.csv", HEAD, violation("v3"), "")
    cut = dropped(settings, "c.csv", HEAD, violation("v4"))
    dropped(settings, "d.csv.tmp", HEAD, violation("v5"), "")
    dropped(settings, "trade_executed/e.csv", "event_id,ts_event,symbol,side,price,quantity", "")
    assert watched(settings) == [
        ("a.csv", "taken", "risk_violation"),
        ("c.csv", "waiting", ""),
        ("b.csv", "taken", "risk_violation"),
        ("e.csv", "taken", "fills"),
    ]
    told = pending(settings, engine.ledger).symbols["risk_violation"]
    assert told == {FIRST: [ALL_SYMBOLS], SECOND: [ALL_SYMBOLS]}
    outcome = built(engine)
    assert (outcome.unit, outcome.status, outcome.rows) == (Unit(RISK, ALL_SYMBOLS, FIRST), UnitStatus.OK, 2)
    assert built(engine, day=SECOND).rows == 1
    assert pending(settings, engine.ledger).symbols == {}
    rows = engine.lake.scan(RISK).collect()
    assert rows.select("event_id", "symbol", "severity", "risk_action", "schema_version").rows() == [
        ("v1", TRADED, "breach", "alerted", 1),
        ("v3", TRADED, "breach", "alerted", 1),
        ("v2", None, "breach", "alerted", 1),
    ]
    cut.write_text(cut.read_text() + "\n")
    dropped(settings, "again.csv", HEAD, violation("v1"), violation("v2", symbol="", at="2024-03-05T00:00:00Z"), "")
    assert watched(settings) == [("again.csv", "known", "risk_violation"), ("c.csv", "taken", "risk_violation")]
    assert built(engine).rows == 3
    assert built(engine).is_skipped
    assert [path.name for path in desk_intake.inbox(settings).iterdir() if path.is_file()] == ["d.csv.tmp"]


def test_parquet_is_read_as_csv_is(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    rows = {
        "event_id": ["s1"],
        "ts_event": [datetime(2024, 3, 4, 9, tzinfo=UTC)],
        "symbol": [TRADED],
        "fill_id": ["f1"],
    }
    rows |= {"settlement_status": ["settled"], "settlement_date": [FIRST], "quantity": [2.5], "cash_amount": [-250.0]}
    path = tmp_path / "settled.parquet"
    pl.DataFrame(rows).write_parquet(path)
    assert desk_intake.ingested(settings, path, ts_intake=INTAKE).status == "taken"
    assert built(engine, "events/in/trade_settled").rows == 1
    (row,) = engine.lake.scan("events/in/trade_settled").collect().rows(named=True)
    assert (row["settlement_date"], row["cash_amount"], row["ts_recv"]) == (FIRST, -250.0, row["ts_event"])


def test_a_correction_is_appended_and_known_when_it_came(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    first, later, other = tmp_path / "first.csv", tmp_path / "later.csv", tmp_path / "other.csv"
    first.write_text("\n".join([HEAD, violation("v1"), violation("v2", ts_recv="2024-03-04T12:00:05Z"), ""]))
    later.write_text("\n".join([HEAD, violation("v1", revision="1", observed="0.9", symbol=""), violation("v1"), ""]))
    other.write_text("\n".join([HEAD, violation("v2", observed="7"), ""]))
    for n, path in enumerate((first, later, other)):
        assert desk_intake.ingested(settings, path, ts_intake=INTAKE + n * 10**9).status == "taken"
    outcome = built(engine)
    assert (outcome.rows, outcome.quarantined, outcome.facts["told_again"]) == (3, 1, "1")
    rows = engine.lake.scan(RISK).collect()
    noon, intake = datetime(2024, 3, 4, 12, tzinfo=UTC), datetime(2024, 3, 10, tzinfo=UTC)
    assert rows.select("event_id", "revision", "observed_value", "ts_recv").rows() == [
        ("v1", 0, 1.2, noon),
        ("v1", 1, 0.9, intake + timedelta(seconds=1)),
        ("v2", 0, 1.2, noon + timedelta(seconds=5)),
    ]
    assert current(rows, "event_id")["observed_value"].to_list() == [0.9, 1.2]
    assert as_of(rows, "event_id", intake)["observed_value"].to_list() == [1.2, 1.2]
    kept = quarantine.counts(settings.quarantine, FIRST, FIRST)
    assert kept.select("table", "symbol", "rule", "rows").rows() == [
        (RISK, ALL_SYMBOLS, "revision|conflict of first.csv with other.csv", 1)
    ]


def test_bad_rows_are_kept_with_rule_file_and_line(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    rows = [
        violation("v1"),
        violation("v2", symbol="NOBODY"),
        violation("v3", severity="awful"),
        violation("v4", observed="-1"),
        violation("v5", at="noon"),
        violation("v6", symbol="")[:-8],
        "",
    ]
    path.write_text("\n".join([HEAD, *rows]))
    done = desk_intake.ingested(settings, path, ts_intake=INTAKE)
    assert done.receipt is not None
    assert done.receipt.unplaced == 2  # of no time, or of no columns
    outcome = built(engine)
    assert (outcome.rows, outcome.quarantined) == (1, 3)
    kept = pl.read_parquet(settings.quarantine / RISK / "date=2024-03-04" / "all.parquet")
    assert kept.select("rule", "source_file", "source_line").rows() == [
        ("symbol|unknown", "mixed.csv", 3),
        ("severity|unknown", "mixed.csv", 4),
        ("observed_value|min", "mixed.csv", 5),
    ]
    moved = tmp_path / "moved.csv"
    moved.write_text("\n".join([HEAD, violation("v1", revision="1", at="2024-03-05T12:00:00Z"), violation("v9"), ""]))
    again = desk_intake.ingested(settings, moved, ts_intake=INTAKE)
    assert again.receipt is not None
    assert list(again.receipt.rules) == ["event_id|moved from all on 2024-03-04 of mixed.csv"]
    # The index is made anew from the parts where it is lost, and says the same.
    (settings.landing / desk_archive.FOLDER / "index.sqlite").unlink()
    other = tmp_path / "other.csv"
    other.write_text("\n".join([HEAD, violation("v1", revision="2", at="2024-03-05T13:00:00Z"), violation("v8"), ""]))
    last = desk_intake.ingested(settings, other, ts_intake=INTAKE)
    assert last.receipt is not None
    assert list(last.receipt.rules) == ["event_id|moved from all on 2024-03-04 of mixed.csv"]


def test_a_mapping_of_platform_yaml_reads_events(settings: Settings, engine: Engine) -> None:
    dropped(settings, "news_vendor/x.csv", "time,ticker,score,n", f"1709550000,{TRADED},-0.25,4", "")
    assert watched(settings) == [("x.csv", "taken", "news_sentiment_analyzed")]
    built(engine, "events/in/news_sentiment_analyzed")
    (row,) = engine.lake.scan("events/in/news_sentiment_analyzed").collect().rows(named=True)
    assert (row["event_id"], row["news_sentiment"], row["news_count"]) == (f"1709550000|{TRADED}", -0.25, 4)


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, dict[Unit, Outcome]]]:
    """Two dates of a small market, in one of whose symbols a desk trades, through every table; tests only read."""
    root = tmp_path_factory.mktemp("events")
    settings = settings_below(root)
    market = MarketParams(trades_per_day=6_000, quotes_per_day=12_000)
    patient = tuple(replace(strategy, horizon_s=6 * 3_600) for strategy in DeskParams().strategies)
    desk = DeskParams(orders_per_day=60, order_notional=20_000, strategies=patient)
    for instrument, one in zip(settings.instruments, (desk, None), strict=True):
        write_archive(root / "archive", instruments=[instrument], dates=DAYS, params=market, desk=one)
    files = [desk_path(root / "archive", day, kind) for day in DAYS for kind in KINDS]
    for path in (*files, *(event_path(root / "archive", kind) for kind in EVENT_KINDS)):
        assert desk_intake.ingested(settings, path, ts_intake=INTAKE).status == "taken"
    told = {"page": "daily_tca/x.html", "ts_known": 1_709_600_000_000_000_000, "orders": 5, "fills": 9, "notional": 1.5}
    told |= {"largest_part": "fees", "revised_orders": 1}
    told |= dict.fromkeys(f"{n}_bps" for n in ("arrival_cost", "arrival_cost_low", "arrival_cost_high", "vwap_cost"))
    told |= {"arrival_paid": None, "excess_cost_bps": 2.0, "shortfall_bps": None, "largest_part_bps": 3.0}
    path = headline_path(settings.reports, FIRST)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(told))
    with Engine(settings) as one:
        outcomes = [o for table in (*OF_MARKET, *TABLES) for o in one.run(table, [TRADED, QUIET], DAYS)]
        yield one, {o.unit: o for o in outcomes}


def rows(one: Engine, table: str, day: date = FIRST) -> pl.DataFrame:
    return one.lake.scan(table, None, day, day).collect()


def test_every_table_stands_and_nothing_is_stale(traded: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, outcomes = traded
    unfed = {contract.table for contract in TOLD_EVENTS} - {contract.table for contract in EVENT_KINDS.values()}
    unfed.add(RISK)  # so small a desk stays within its limit
    for recipe in (*DESK[3:], *EVENTS):
        of = [ALL_SYMBOLS] if recipe.is_cross_symbol else [TRADED]
        found = {outcomes[Unit(recipe.table, symbol, FIRST)].status for symbol in of}
        assert found == {UnitStatus.ABSENT if recipe.table in unfed else UnitStatus.OK}, recipe.table
        assert not any(outcomes[Unit(recipe.table, symbol, FIRST)].quarantined for symbol in of)
    assert one.stale() == []


def test_an_execution_and_a_decision_have_one_truth(traded: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, _ = traded
    for event, table, ident in (
        ("trade_executed", "execution/fills", "fill_id"),
        ("trading_decision", "execution/decisions", "decision_id"),
    ):
        found, truth = rows(one, f"events/in/{event}"), rows(one, table)
        assert (
            found.select("event_id", "revision", "ts_event", "ts_recv").rows()
            == truth.select(ident, "revision", "ts_event", "ts_recv").rows()
        )
    decided = {o["order_id"]: o["decision_id"] for o in rows(one, "execution/orders").to_dicts() if o["decision_id"]}
    for row in rows(one, "events/in/trade_executed").head(50).to_dicts():
        assert row["decision_id"] == decided[row["order_id"][: len(f"{TRADED}-20240304-O000000")]]


def test_the_waterfall_is_that_of_fills_and_decisions(traded: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, outcomes = traded
    assert outcomes[Unit("events/out/performance_attribution", ALL_SYMBOLS, FIRST)].facts[CHECK] == "0"
    fills = current(rows(one, "execution/fills"), "fill_id").to_dicts()
    parents = {o["order_id"]: o["parent_order_id"] or o["order_id"] for o in rows(one, "execution/orders").to_dicts()}
    paper: dict[str, list[float]] = {}
    real: dict[str, list[float]] = {}
    for order in rows(one, "execution/tca_orders").filter(pl.col("shortfall_bps").is_not_null()).to_dicts():
        own = [f for f in fills if parents[f["order_id"]] == order["order_id"]]
        end, side = order["cancel_price"], order["side"]
        gain = math.fsum(side * f["quantity"] * (end - f["price"]) - f["fee"] * (f["fee_rate"] or 1) for f in own)
        paper.setdefault(order["strategy"], []).append(side * order["quantity"] * (end - order["decision_price"]))
        real.setdefault(order["strategy"], []).append(gain)
    found = rows(one, "events/out/performance_attribution").to_dicts()
    assert {row["strategy"] for row in found} == set(paper)
    scored = {row["strategy"]: row for row in rows(one, "events/out/strategy_performance").to_dicts()}
    for row in found:
        scale = row["decided_notional"]
        assert row["paper_pnl"] == pytest.approx(math.fsum(paper[row["strategy"]]), abs=1e-12 * scale)
        assert row["realised_pnl"] == pytest.approx(math.fsum(real[row["strategy"]]), abs=1e-12 * scale)
        lost = row["delay_cost"] + row["trading_cost"] + row["opportunity_cost"] + row["fees"]
        assert row["paper_pnl"] - lost == pytest.approx(row["realised_pnl"], abs=1e-12 * scale)
        assert scored[row["strategy"]]["realised_pnl"] == pytest.approx(row["realised_pnl"])


def test_an_outcome_is_read_from_the_next_date_where_its_horizon_ends_there(
    traded: tuple[Engine, dict[Unit, Outcome]],
) -> None:
    one, _ = traded
    found = rows(one, "events/out/decision_outcome_analysis")
    quotes = (
        pl.concat([rows(one, "market/quotes", day) for day in DAYS]).filter(symbol=TRADED).sort("ts_event", "sequence")
    )
    beyond = found.filter(pl.col("ts_horizon") > datetime(2024, 3, 5, tzinfo=UTC))
    assert beyond.height > 0
    assert "data_end" not in ",".join(found["reasons"])
    for row in [*beyond.to_dicts(), *found.head(20).to_dicts()]:
        last = quotes.filter(pl.col("ts_event") <= row["ts_horizon"]).row(-1, named=True)
        mid = (last["bid_price"] + last["ask_price"]) / 2
        assert row["horizon_price"] == pytest.approx(mid, rel=1e-12)
        assert row["realised_return_bps"] == pytest.approx(row["side"] * (mid / row["price"] - 1) * 1e4, abs=1e-8)
        assert row["ts_known"] >= row["ts_horizon"]
    last_day = rows(one, "events/out/decision_outcome_analysis", SECOND)
    late = last_day.filter(pl.col("ts_horizon") > datetime(2024, 3, 6, tzinfo=UTC))
    assert set(late["reasons"].str.contains("data_end")) == {True}


def test_a_models_score_is_that_of_its_decisions(traded: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, _ = traded
    (row,) = rows(one, "events/out/model_performance_feedback").to_dicts()
    known = rows(one, "events/out/decision_outcome_analysis").filter(pl.col("realised_cost_bps").is_not_null())
    assert (row["scored"], row["intervals"]) == (known.height, known.height)
    assert row["bias_bps"] == pytest.approx(known["excess_cost_bps"].mean())
    assert row["mean_absolute_error_bps"] == pytest.approx(known["excess_cost_bps"].abs().mean())
    assert 0.5 < row["inside_share"] <= 1  # of what was to hold 80 %


def test_what_the_report_said_is_a_row(traded: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, outcomes = traded
    (row,) = rows(one, "events/out/tca_report").to_dicts()
    assert (row["date"], row["path"], row["orders"], row["fills"]) == (FIRST, "reports/daily_tca/x.html", 5, 9)
    assert (row["arrival_cost_bps"], row["excess_cost_bps"], row["revised_orders"]) == (None, 2.0, 1)
    assert row["ts_known"] == datetime.fromtimestamp(1_709_600_000, UTC)
    assert outcomes[Unit("events/out/tca_report", ALL_SYMBOLS, SECOND)].status is UnitStatus.ABSENT


def test_events_of_a_simulated_desk_follow_from_what_it_did(traded: tuple[Engine, dict[Unit, Outcome]]) -> None:
    one, _ = traded
    decided = rows(one, "execution/decisions")
    sized, assessed = rows(one, "events/in/position_sized"), rows(one, "events/in/market_impact_assessment")
    assert sized["decision_id"].to_list() == assessed["decision_id"].to_list() == decided["decision_id"].to_list()
    assert (assessed["impact_cost_bps"] == decided["expected_cost_bps"]).all()
    fills = {f["fill_id"]: f for f in current(rows(one, "execution/fills"), "fill_id").to_dicts()}
    settled: list[dict[str, Any]] = rows(one, "events/in/trade_settled").to_dicts()
    assert {row["fill_id"] for row in settled} == {name for name, f in fills.items() if f["venue"] == "BEACON"}
    for row in settled:
        fill = fills[row["fill_id"]]
        assert row["ts_event"] > fill["ts_event"]
        if row["settlement_status"] == "settled":
            assert row["cash_amount"] == pytest.approx(-fill["side"] * fill["price"] * fill["quantity"])
        assert (row["failure_reason"] is None) == (row["settlement_status"] != "failed")
