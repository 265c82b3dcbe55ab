"""What the live writer served of chains against the batch's rows of the same snapshots: equal, or red and named."""

import json

import polars as pl
import pytest

from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import UnitStatus
from quant_platform.storage import live_archive, redis_keys
from quant_platform_tests.integration.live import test_option_histories as histories
from quant_platform_tests.integration.live.test_option_histories import SECOND, SYMBOL, served

settings, client = histories.settings, histories.client
METRICS = sorted(key.metric for key in redis_keys.OPTION_METRICS)


@pytest.fixture
def archived(settings, client):
    """Serve the newest snapshot, and return the lines that were archived of it."""
    served(settings, client, newest=SECOND)
    path = live_archive.path(settings.landing, SYMBOL, SECOND)
    return path, [json.loads(line) for line in path.read_bytes().splitlines()]


def judged(settings):
    """Let the batch build the date; return the parity's rows by metric."""
    with Engine(settings) as engine:
        for table, recipe in RECIPES.items():
            if not recipe.is_cross_symbol:
                outcomes = engine.run(table, [SYMBOL], [SECOND])
        (last,) = outcomes
        assert (last.unit.table, last.status, last.error) == ("live/parity", UnitStatus.OK, "")
        rows = engine.lake.scan("live/parity", [SYMBOL], SECOND, SECOND).collect()
    return {row["metric"]: row for row in rows.to_dicts()}


def test_what_was_served_is_what_the_batch_has(settings, archived):
    _, lines = archived
    found = judged(settings)
    assert sorted(found) == METRICS
    for metric, row in found.items():
        assert row["samples"] == row["compared"] == sum(line["metric"] == metric for line in lines) > 0
        assert row["max_difference"] == row["max_final_difference"] == 0.0
        assert (row["missing"], row["with_gap"], row["differing"]) == (0, 0, 0)
    assert found["gex"]["fields"] >= 10


def test_a_wrong_value_is_named(settings, archived):
    path, lines = archived
    for line in lines:
        if line["metric"] == "vanna":
            line["payload"]["vanna_shares_per_vol_pt"] *= 1 + 5e-9
        if line["metric"] == "skew":
            line["payload"]["headline_expiry"] = "2024-03-07"
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    found = judged(settings)
    assert found["vanna"]["worst_field"] == "vanna_shares_per_vol_pt"
    assert found["vanna"]["max_difference"] == pytest.approx(5e-9, rel=1e-3)
    assert (found["skew"]["worst_field"], found["skew"]["max_difference"]) == ("headline_expiry", 1.0)
    assert {metric for metric, row in found.items() if row["differing"]} == {"vanna", "skew"}
    assert found["skew"]["worst_id"] == lines[0]["payload"]["ts_event"]


def test_a_snapshot_that_was_never_archived_is_missing(settings, archived):
    path, lines = archived
    for line in lines:
        line["payload"]["ts"] += 1
    path.write_bytes(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    assert {row["missing"] for row in judged(settings).values()} == {1}


def test_without_rows_of_the_batch_nothing_is_judged(settings, archived):
    settings.landing.joinpath("chains").rename(settings.landing / "gone")
    found = judged(settings)
    assert sorted(found) == METRICS
    assert {(row["samples"] > 0, row["compared"], row["missing"]) for row in found.values()} == {(True, 0, 0)}


def test_contracts_left_out_are_said_and_not_judged(settings, archived):
    path, lines = archived
    path.write_bytes(
        b"".join(json.dumps(line | {"payload": line["payload"] | {"has_gap": True}}).encode() + b"\n" for line in lines)
    )
    rows = pl.DataFrame(list(judged(settings).values()))
    assert (rows["with_gap"] == rows["samples"]).all()
    assert (rows["compared"] == 0).all()
