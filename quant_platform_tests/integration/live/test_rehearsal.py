"""The keys that the demo shows at its end: of a lake that `qp backfill` filled, and of the newest simulated chain."""

import json
import shutil
import time
from datetime import UTC, datetime

import pytest

from quant_platform.live.rehearsal import rehearsed
from quant_platform.storage import chain_archive, redis_keys
from quant_platform.storage.chain_archive import Answer, Snapshot
from quant_platform_tests.integration.conftest import DAYS
from quant_platform_tests.integration.pipeline.test_options import contracts

DAY, SYMBOL = DAYS[1], "AAA"


@pytest.fixture
def settings(market, filled, tmp_path):
    """Return settings over a copy of a filled home, whose first symbol has options."""
    shutil.copytree(filled, tmp_path / "home", ignore=shutil.ignore_patterns("redis", "dagster"))
    made = market.settings(tmp_path / "home")
    chain = {"feed": "cboe", "venue_symbol": "_SPX"}
    first, *others = made.instruments
    listed = type(first).model_validate(first.model_dump() | {"chain": chain})
    return made.model_copy(update={"instruments": (listed, *others)})


def put(settings, hour, body=None):
    moment = datetime(DAY.year, DAY.month, DAY.day, hour, tzinfo=UTC)
    told = {"timestamp": f"{moment:%Y-%m-%d %H:%M:%S}", "data": {"current_price": 5_100.0, "options": contracts(hour)}}
    ns = int(moment.timestamp()) * 1_000_000_000
    snapshot = Snapshot({"chain": Answer(body or json.dumps(told).encode(), "simulated")}, ns)
    chain_archive.put(settings.simulated_chains, "cboe", SYMBOL, DAY, snapshot, ts_event_ns=ns)
    return ns


def test_all_keys_are_there_those_of_options_from_the_newest_chain(settings):
    put(settings, 22)
    newest_ns = put(settings, 23)
    found = {row.key: row for row in rehearsed(settings, SYMBOL, DAY).rows}
    wanted = {key.name(SYMBOL) for key in (*redis_keys.METRICS, *redis_keys.OPTION_METRICS, redis_keys.OPTION_CHAIN)}
    assert {name for name in wanted if not found[name].is_there} == {redis_keys.MOC.name(SYMBOL)}
    for key in (redis_keys.OPTION_CHAIN, redis_keys.GEX, redis_keys.UNUSUAL):
        assert found[key.name(SYMBOL)].age_s == pytest.approx((time.time_ns() - newest_ns) / 1e9, abs=60)


@pytest.mark.parametrize("body", [None, b"<html>"], ids=["no chain", "a damaged one"])
def test_without_a_chain_the_others_are_there(settings, body):
    if body:
        put(settings, 23, body)
    found = {row.key: row for row in rehearsed(settings, SYMBOL, DAY).rows}
    assert found[redis_keys.VPIN.name(SYMBOL)].is_there
    assert found[redis_keys.GEX.name(SYMBOL)].says == "there is no chain"
