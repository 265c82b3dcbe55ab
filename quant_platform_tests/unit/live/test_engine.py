"""The live engine's families: one that raises is counted, its other symbols and the other families go on."""

from datetime import UTC, datetime

import polars as pl
import pytest
from structlog.testing import capture_logs

from quant_platform.calculators import flow_clusters, vpin
from quant_platform.contracts._schema import INSTANT, polars_schema
from quant_platform.contracts.market import Book, Quote, Trade
from quant_platform.live import opening
from quant_platform.live.engine import KEYS, Engine
from quant_platform.live.hours import served_from
from quant_platform.live.window import Chunk
from quant_platform.settings import Settings
from quant_platform.storage import redis_keys
from quant_platform.storage.lake import Lake
from quant_platform_tests.streamed import NOON, book, instruments, quote, trade

SYMBOLS = ["AAA", "BBB", "CCC", "DDD", "EEE"]
DAY = datetime.fromtimestamp(NOON / 1e9, UTC).date()
BUCKET = 5.0
TRADED = ("vpin", "flow_toxicity", "sweep_detection", "flow_clustering")


@pytest.fixture
def settings(tmp_path):
    chosen = tuple(one.model_copy(update={"default_bucket_size": BUCKET}) for one in instruments(*SYMBOLS))
    return Settings(home=tmp_path, instruments=chosen)


@pytest.fixture
def engine(settings):
    engine, lake = Engine(settings, SYMBOLS), Lake(settings.lake_uri)
    for symbol in SYMBOLS:
        found = opening.opened(settings, lake, symbol, DAY)
        engine.adopt(found, served_from(settings, settings.instrument(symbol), NOON), is_roll=False)
    return engine


def frame(contract, rows):
    schema = polars_schema(contract)
    whole = {name: pl.Int64() if dtype.is_temporal() else dtype for name, dtype in schema.items()}
    columns = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=whole)
    times = [name for name, dtype in schema.items() if dtype == INSTANT]
    return columns.with_columns(pl.col(times).cast(INSTANT)).sort("symbol", *contract.sorted_by)


def chunk(first, last, *, symbols=SYMBOLS, traded=SYMBOLS):
    numbers = range(first, last + 1)
    return Chunk(
        frame(Trade, [trade(k, 1000 * k + 5, symbol=s, aggressor=1 if k % 3 else -1) for s in traded for k in numbers]),
        frame(Quote, [quote(k, 1000 * k, symbol=s) for s in symbols for k in numbers]),
        frame(Book, [book(k, 1000 * k, symbol=s) for s in symbols for k in numbers]),
    )


def stepped(engine, new, families=KEYS):
    engine.feed(new)
    for family in families:
        engine.run(family, SYMBOLS, {}, {})


def reached(engine, key, family):
    """Return the greatest trade id that each symbol's value includes."""
    return dict(engine.shown(key, family, SYMBOLS).select("symbol", "last_trade_id").rows())


def raising(calculator, monkeypatch, bad):
    """Let a calculator's step raise where one of these symbols is in its tape."""
    real = calculator.step

    def step(state, tape, *rest):
        if set(tape["symbol"]) & bad:
            raise ValueError("it cannot be")
        return real(state, tape, *rest)

    monkeypatch.setattr(calculator, "step", step)
    return real


def test_what_was_opened_and_came_is_shown_whole(engine):
    stepped(engine, chunk(1, 60))
    stepped(engine, chunk(61, 90))
    shown = engine.shown(redis_keys.VPIN, "vpin", SYMBOLS)
    assert shown["symbol"].to_list() == SYMBOLS
    assert shown["buckets_filled"].to_list() == [90 // BUCKET] * 5  # a trade is 1 large
    assert set(reached(engine, redis_keys.VPIN, "vpin").values()) == {90}
    assert not engine.errors
    assert engine.missed("vpin", redis_keys.VPIN, shown) == set()


def test_a_calculator_that_raises_is_counted_and_the_others_go_on(engine, monkeypatch):
    stepped(engine, chunk(1, 60))
    raising(vpin, monkeypatch, set(SYMBOLS))
    with capture_logs() as logs:
        stepped(engine, chunk(61, 90), ["vpin", "order_book", "sweep_detection", "flow_clustering"])
    assert dict(engine.errors) == {"vpin": 1}
    assert reached(engine, redis_keys.VPIN, "vpin") == {}  # what was written is left to its end
    assert engine.shown(redis_keys.HIDDEN, "sweep_detection", SYMBOLS)["trade_id"].to_list() == [90] * 5
    assert engine.shown(redis_keys.OBI, "order_book", SYMBOLS)["sequence"].to_list() == [90] * 5
    assert {log["event"] for log in logs} == {"a calculator failed"}
    assert {log["family"] for log in logs} == {"vpin"}


def test_a_bad_symbol_is_found_by_halves_and_the_others_lack_nothing(engine, monkeypatch):
    stepped(engine, chunk(1, 60))
    with monkeypatch.context() as patch, capture_logs() as logs:
        raising(vpin, patch, {"DDD"})
        stepped(engine, chunk(61, 90), ["vpin"])
    assert reached(engine, redis_keys.VPIN, "vpin") == {"AAA": 90, "BBB": 90, "CCC": 90, "EEE": 90}
    assert engine.errors["vpin"] == 1
    (log,) = logs
    assert (log["symbols"], log["count"]) == (["DDD"], 1)
    stepped(engine, chunk(91, 120), ["vpin"])  # what it missed it will not have, and that is told
    shown = engine.shown(redis_keys.VPIN, "vpin", SYMBOLS)
    assert set(reached(engine, redis_keys.VPIN, "vpin").values()) == {120}
    assert dict(shown.select("symbol", "buckets_filled").rows()) == {
        s: (90 if s == "DDD" else 120) // BUCKET for s in SYMBOLS
    }
    assert engine.missed("vpin", redis_keys.VPIN, shown) == {"DDD"}


def test_a_symbol_that_is_opened_again_lacks_nothing_any_more(engine, settings, monkeypatch):
    stepped(engine, chunk(1, 60))
    with monkeypatch.context() as patch:
        raising(flow_clusters, patch, {"BBB"})
        stepped(engine, chunk(61, 90), ["flow_clustering"])
    shown = engine.shown(redis_keys.FLOW_CLUSTERS, "flow_clustering", SYMBOLS)
    assert engine.missed("flow_clustering", redis_keys.FLOW_CLUSTERS, shown) == {"BBB"}
    again = opening.opened(settings, Lake(settings.lake_uri), "BBB", DAY)
    engine.adopt(again, served_from(settings, settings.instrument("BBB"), NOON), is_roll=False)
    assert engine.missed("flow_clustering", redis_keys.FLOW_CLUSTERS, shown) == set()


def test_a_symbol_without_trades_has_no_key_that_trades_feed_and_hurts_nobody(engine):
    others = [symbol for symbol in SYMBOLS if symbol != "CCC"]
    for first in (1, 31):
        stepped(engine, chunk(first, first + 29, traded=others))
    assert not engine.errors
    for family in TRADED:
        for key in KEYS[family]:
            assert "CCC" not in engine.shown(key, family, SYMBOLS)["symbol"].to_list(), key.metric
    assert set(reached(engine, redis_keys.VPIN, "vpin")) == set(others)
    assert engine.shown(redis_keys.OBI, "order_book", SYMBOLS)["symbol"].to_list() == SYMBOLS
