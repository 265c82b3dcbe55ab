"""The archive of served payloads as a table: every line a row or in quarantine, and when a date is due."""

import json
from datetime import UTC, date, datetime

import polars as pl
import pytest

from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.pending import FOLLOWING
from quant_platform.pipeline.units import Outcome, UnitStatus
from quant_platform.storage import live_archive
from quant_platform_tests.landed import at_ms, land, market
from quant_platform_tests.unit.pipeline.conftest import MakeEngine

DAY = date(2024, 8, 8)
NS = int(datetime(2024, 8, 8, 9, tzinfo=UTC).timestamp()) * 10**9
CLOSED = datetime(2024, 8, 9, tzinfo=UTC)
GOOD = {"ts": NS, "ts_written": NS + 5, "seq": 1, "symbol": "AAA", "has_gap": False, "last_trade_id": 7, "vpin": 0.1}


@pytest.fixture
def one(engine: MakeEngine) -> Engine:
    return engine()


def archived(one: Engine, *lines: bytes) -> Outcome:
    live_archive.append(live_archive.path(one.settings.landing, "AAA", DAY), b"".join(lines))
    return built(one)


def built(one: Engine, closed_before: datetime | None = None) -> Outcome:
    return one.run("live/values", ["AAA"], [DAY], closed_before=closed_before)[0]


def line(metric: str = "vpin", **changes: object) -> bytes:
    return live_archive.line(metric, json.dumps(GOOD | changes).encode())


def rows(one: Engine) -> pl.DataFrame:
    return one.lake.scan("live/values", ["AAA"], DAY, DAY).collect()


def test_lines_are_rows_in_the_order_of_serving(one: Engine) -> None:
    outcome = archived(
        one,
        line(ts_known=NS + 3),
        line("obi", last_trade_id=None, sequence=9, seq=2, ts_written=NS + 1, ts_known=NS + 4),
        line(seq=3, has_gap=True, vpin=0.1 + 0.2),
    )
    assert (outcome.status, outcome.rows, outcome.quarantined, outcome.error) == (UnitStatus.OK, 3, 0, "")
    found = rows(one)
    assert found["metric"].to_list() == ["vpin", "obi", "vpin"]
    assert found["seq"].to_list() == [1, 2, 3]
    assert found["ts_written"].to_physical().to_list() == [NS + 5, NS + 1, NS + 5]
    assert found["ts_event"].to_physical().to_list() == [NS] * 3
    assert found["ts_known"].to_physical().to_list() == [NS + 5, NS + 4, NS + 5]
    assert found["last_trade_id"].to_list() == [7, None, 7]
    assert found["sequence"].to_list() == [None, 9, None]
    assert found["has_gap"].to_list() == [False, False, True]
    assert json.loads(found["payload"][2])["vpin"] == 0.1 + 0.2


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (b"{\n", "line|json"),
        (b"\xff\xfe{}\n", "line|json"),
        (b"[1, 2]\n", "line|json"),
        (b'{"metric":"vpin","payload":null}\n', "line|json"),
        (line(symbol="BBB"), "symbol|of_the_file"),
        (line(seq=None), "seq|nullability"),
        (line(seq=-1), "seq|min"),
        (line(ts="now"), "ts_event|nullability"),
        (line(ts_written=2**70), "ts_written|nullability"),
        (line(last_trade_id=-7), "last_trade_id|min"),
        (b'{"payload":%b}\n' % json.dumps(GOOD).encode(), "metric|nullability"),
    ],
)
def test_line_that_says_nothing_usable_is_quarantined_with_its_number(one: Engine, bad: bytes, rule: str) -> None:
    outcome = archived(one, *[line(seq=n + 1) for n in range(120)], bad, line(seq=121))
    assert (outcome.status, outcome.rows, outcome.quarantined, outcome.is_red) == (UnitStatus.OK, 121, 1, False)
    (file,) = one.settings.quarantine.rglob("*.parquet")
    kept = pl.read_parquet(file).row(0, named=True)
    assert rule in kept["rule"].split(",")
    assert (kept["source_file"], kept["source_line"]) == ("live_values/AAA/2024-08-08.jsonl", 121)
    assert kept["raw"] == bad.decode(errors="replace").rstrip("\n")


def test_date_without_a_file_is_absent(one: Engine) -> None:
    assert built(one).status is UnitStatus.ABSENT
    assert archived(one).status is UnitStatus.ABSENT  # nothing in it


def test_more_lines_are_another_source(one: Engine) -> None:
    assert archived(one, line()).rows == 1
    assert built(one).is_skipped
    again = archived(one, line(seq=2))
    assert (again.is_skipped, again.rows) == (False, 2)


def test_date_that_is_captured_waits_for_its_close(one: Engine) -> None:
    assert not {"live/values", "live/parity"} & set(FOLLOWING)
    land(one.settings, "AAA", market("AAA", at_ms(DAY, 9), seconds=60))
    waiting = archived(one, line())
    assert (waiting.status, waiting.rows, waiting.error) == (UnitStatus.OPEN, 0, "")
    for table in ("market/trades", "market/quotes"):
        one.run(table, ["AAA"], [DAY])
    (parity,) = one.run("live/parity", ["AAA"], [DAY])
    assert parity.status in {UnitStatus.OPEN, UnitStatus.BLOCKED}
    assert parity.rows == 0
    assert built(one, closed_before=CLOSED).status is UnitStatus.OK
