"""What a writer knows of a chain at its start: the lake's rows and the snapshots archived since, as in the batch."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from quant_platform.contracts.dealer import ExposureHistory
from quant_platform.feeds import chain_payload, chain_snapshot
from quant_platform.pipeline import option_keys, options
from quant_platform.pipeline.engine import Engine
from quant_platform.storage import chain_archive, redis_keys
from quant_platform.storage.live_store import Server, connect
from quant_platform_tests.integration.live.option_chains import INTERVALS, NAMES, Live
from quant_platform_tests.integration.pipeline.test_options import DAYS, FIRST, SECOND, SYMBOL, put, settings_below

TABLES = [recipe.table for recipe in options.OPTIONS]
EXPOSURES = {"dex": "dex_net", "vanna": "vanna", "charm": "charm"}


@pytest.fixture
def settings(tmp_path):
    """Return settings over two days of three archived snapshots each, with a Redis."""
    made = settings_below(tmp_path)
    clock = made.analytics.model_copy(
        update={
            "cadence_hz": 1.0,
            "update_intervals": made.analytics.update_intervals.model_copy(update=INTERVALS),
            "exposure_history": type(made.analytics.exposure_history)(gamma_min_samples=2, flow_min_samples=2),
        }
    )
    made = made.model_copy(update={"analytics": clock})
    for day in DAYS:
        for number in range(3):
            put(made, day, number)
    with Server(made):
        yield made


@pytest.fixture
def client(settings):
    with connect(settings) as client:
        yield client


def built(settings, days):
    """Let the batch build these days."""
    with Engine(settings) as engine:
        for table in TABLES:
            assert all(outcome.status.is_usable for outcome in engine.run(table, [SYMBOL], days))
        return engine.lake


def served(settings, client, *, newest):
    """Return the histories, newest last, after the newest archived snapshot of a day was served."""
    instrument = settings.instrument(SYMBOL)
    path = options.archived_day(settings, instrument, newest)[-1]
    parsed = chain_snapshot.rows_of("cboe", chain_archive.read(path), symbol=SYMBOL)
    client.set(f"options:{SYMBOL}:chain", chain_payload.encoded(parsed.rows, ts_written=1, seq=1))
    live = Live(settings)
    try:
        live.until(lambda: all(client.exists(key.name(SYMBOL)) for key in redis_keys.OPTION_METRICS))
        live.cycles(1)
    finally:
        live.writer.close()
    names = {metric: f"analytics:{SYMBOL}:{metric}:history" for metric in NAMES}
    return {metric: [json.loads(entry) for entry in client.lrange(name, 0, -1)][::-1] for metric, name in names.items()}


@pytest.mark.parametrize("in_lake", [[], [FIRST], DAYS], ids=["nothing in the lake", "yesterday", "both days"])
def test_histories_are_those_of_the_batch(settings, client, in_lake):
    lake = built(settings, in_lake) if in_lake else None
    found = served(settings, client, newest=SECOND)
    expected_days = DAYS if in_lake else [SECOND]  # of yesterday only the lake tells
    if lake is None:
        for path in (settings.landing / "chains" / "cboe" / SYMBOL / FIRST.isoformat()).iterdir():
            path.unlink()
    lake = built(settings, DAYS if in_lake else [SECOND])
    for key in redis_keys.OPTION_METRICS:
        table = key.contract.table
        rows = lake.scan(table, [SYMBOL]).filter(option_keys.OF_WHOLE_CHAINS[table]).sort("ts_event").collect()
        entries = found[key.metric]
        assert [entry["ts"] for entry in entries] == rows["ts_event"].to_physical().to_list(), key.metric
        assert len(entries) == 3 * len(expected_days)
        for name in set(key.headlines) & set(rows.columns) - {"headline_expiry"}:
            assert [entry[name] for entry in entries] == rows[name].to_list(), (key.metric, name)
    history = lake.scan(ExposureHistory.table, [SYMBOL], SECOND, SECOND).collect()
    for metric, exposure in EXPOSURES.items():
        expected = history.filter(pl.col("exposure") == exposure).sort("ts_event")["z_score"].to_list()
        standings = [entry["z_score"] for entry in found[metric]][-3:]
        assert [z is None for z in standings] == [z is None for z in expected] == [not in_lake, False, False], metric
        assert standings[1:] == pytest.approx(expected[1:], rel=1e-9), metric


def test_what_is_later_than_the_chain_is_left_out(settings, client):
    built(settings, DAYS)
    found = served(settings, client, newest=FIRST)
    times = [datetime(2024, 3, 4, hour, tzinfo=UTC) for hour in (15, 16, 17)]
    assert [entry["ts"] for entry in found["gex"]] == [int(time.timestamp()) * 10**9 for time in times]


def test_no_more_is_kept_than_wanted(settings, client):
    settings = settings.model_copy(update={"analytics": settings.analytics.model_copy(update={"history_entries": 2})})
    built(settings, DAYS)
    found = served(settings, client, newest=SECOND)
    assert [len(entries) for entries in found.values()] == [2] * len(NAMES)


def test_a_damaged_snapshot_is_left_out(settings, client, capsys):
    first, *_ = options.archived_day(settings, settings.instrument(SYMBOL), SECOND)
    first.write_bytes(b"no parquet")
    found = served(settings, client, newest=SECOND)
    assert len(found["gex"]) == 2
    assert first.name in capsys.readouterr().out
