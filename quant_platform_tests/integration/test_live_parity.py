"""Served values against the batch: green where they are what the folds give, red and named where they are not.

What is served here is made by the calculators themselves, in cycles of random length, as the live writer does it.
"""

import itertools
import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quant_platform.calculators import (
    flow_clusters,
    hidden_orders,
    order_book,
    participants,
    sweeps,
    toxicity,
    trade_sign,
    vpin,
)
from quant_platform.defs import checks
from quant_platform.defs.live_plots import differences
from quant_platform.pipeline.engine import Engine
from quant_platform.pipeline.options import OPTIONS
from quant_platform.pipeline.order_flow import (
    ORDER_FLOW,
    hidden_order_params,
    participant_params,
    toxicity_params,
    vpin_params,
)
from quant_platform.pipeline.recipes import RECIPES
from quant_platform.pipeline.units import Unit, UnitStatus, Work
from quant_platform.storage import live_archive
from quant_platform.storage import redis_keys as keys
from quant_platform_tests.landed import MS, at_ms, land, market
from quant_platform_tests.unit.pipeline.conftest import settings_below

BEFORE, DAY = date(2024, 8, 7), date(2024, 8, 8)
CLOSED = datetime(2024, 8, 9, tzinfo=UTC)
SYMBOL = "AAA"
LATENCY_NS = 100 * MS  # from receipt to serving; frames are received 20 ms after their event
TRADE_METRICS = ["flow_clusters", "hidden", "institutional_flow", "retail_flow", "sweep", "toxicity", "vpin"]
Payloads = list[tuple[keys.Key, dict[str, Any]]]


LINES = market(SYMBOL, at_ms(DAY, 9), seconds=600, seed=5, first_id=5_000)


def built(root: Path, captured: Sequence[bytes]) -> Engine:
    """Return an engine whose lake holds the day that these lines are, closed, and the one before it."""
    one = Engine(settings_below(root, instrument={"default_bucket_size": 200.0}))
    land(one.settings, SYMBOL, market(SYMBOL, at_ms(BEFORE, 20), seconds=600))
    land(one.settings, SYMBOL, captured)
    of_order_flow, of_options = ({recipe.table for recipe in recipes} for recipes in (ORDER_FLOW, OPTIONS))
    for table in RECIPES:
        if table.startswith("market/") or table in of_order_flow | of_options:
            outcomes = one.run(table, [SYMBOL], [BEFORE, DAY], closed_before=CLOSED)
            expected = UnitStatus.ABSENT if table in of_options else UnitStatus.OK
            assert {o.status for o in outcomes} == {expected}, outcomes
    return one


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the lake of `LINES`, to be copied."""
    root = tmp_path_factory.mktemp("parity")
    built(root, LINES).close()
    return root


@pytest.fixture
def one(whole: Path, tmp_path: Path) -> Iterator[Engine]:
    """Return an engine over a copy of the lake of `LINES`."""
    shutil.copytree(whole / "home", tmp_path / "home")
    with Engine(settings_below(tmp_path, instrument={"default_bucket_size": 200.0})) as engine:
        yield engine


class Live:
    """One symbol's folds from the lake's warm-up, stepped in cycles over what is captured and given."""

    def __init__(self, one: Engine, *, first_seq: int = 1) -> None:
        self.settings = one.settings
        self.instrument = one.settings.instrument(SYMBOL)
        self.seq = first_seq - 1
        self.state = {
            table: RECIPES[table].fold.opened(Work(Unit(table, SYMBOL, DAY), RECIPES[table], one.settings, one.lake))
            for table in RECIPES
            if table.startswith("microstructure/") and RECIPES[table].fold
        }
        self.rows: dict[keys.Key, pl.DataFrame] = {}

    def step(self, trades: pl.DataFrame, quotes: pl.DataFrame, books: pl.DataFrame) -> None:
        """Take in a chunk."""
        analytics, state = self.settings.analytics, self.state

        def stepped(name: str, calculator: Any, *given: Any) -> pl.DataFrame:
            state[f"microstructure/{name}"], rows = calculator.step(state[f"microstructure/{name}"], *given)
            return rows

        tape = stepped("signed_trades", trade_sign, trades, quotes, analytics.trade_sign)
        if books.height:
            book = state["microstructure/order_book_imbalance"]
            fold, rows = order_book.step(book.fold, books, analytics.order_book)
            state["microstructure/order_book_imbalance"] = book._replace(fold=fold)
            self._show(keys.OBI, rows)
        hidden = stepped(
            "hidden_orders", hidden_orders, tape, quotes, hidden_order_params(self.settings, self.instrument)
        )
        self._show(keys.HIDDEN, hidden)
        if tape.is_empty():
            return
        buckets = state["microstructure/vpin"]
        fold, found = vpin.step(buckets.fold, tape, buckets.sizes, vpin_params(self.settings))
        state["microstructure/vpin"] = replace(buckets, fold=fold)
        samples = vpin.standardised(found.samples, buckets.reference, vpin_params(self.settings))
        self._show(keys.VPIN, samples)
        params = toxicity_params(self.settings, self.instrument)
        self._show(keys.TOXICITY, stepped("toxicity", toxicity, tape, samples, params))
        params = participant_params(self.settings, self.instrument)
        flow = stepped("participant_flow", participants, tape, params)
        self._show(keys.INSTITUTIONAL_FLOW, flow)
        self._show(keys.RETAIL_FLOW, flow)
        stepped("sweeps", sweeps, tape, analytics.sweep_detection)
        self._show(keys.SWEEP, sweeps.latest(state["microstructure/sweeps"], analytics.sweep_detection))
        self._show(keys.FLOW_CLUSTERS, stepped("flow_clusters", flow_clusters, tape, analytics.flow_clustering))

    def served(self, at_ns: int, *, has_gap: bool = False) -> Payloads:
        """Return what is served at a time."""
        self.seq += 1
        gaps = [SYMBOL] if has_gap else []
        return [
            (key, json.loads(keys.encoded(key, rows, ts_written=at_ns, seq=self.seq, has_gap=gaps)[SYMBOL]))
            for key, rows in self.rows.items()
        ]

    def _show(self, key: keys.Key, rows: pl.DataFrame) -> None:
        if rows.height:
            self.rows[key] = rows.tail(1)


def frames(one: Engine) -> list[pl.DataFrame]:
    """Return the captured trades, quotes and books."""
    return [one.lake.scan(f"market/{name}", [SYMBOL], DAY, DAY).collect() for name in ("trades", "quotes", "book")]


def between(rows: pl.DataFrame, start_ns: int, end_ns: int) -> pl.DataFrame:
    return rows.filter(pl.col("ts_event").to_physical().is_between(start_ns, end_ns, closed="left"))


def cycles(rows: Sequence[pl.DataFrame], count: int, seed: int = 1) -> list[tuple[int, int]]:
    """Return intervals of market time, ns, of random lengths, that hold all rows."""
    first = min(int(r["ts_event"].to_physical().min()) for r in rows)
    last = max(int(r["ts_event"].to_physical().max()) for r in rows) + 1
    inner = sorted(random.Random(seed).sample(range(first + 1, last), count - 1))
    edges = [first, *inner, last]
    return list(itertools.pairwise(edges))


def lived(one: Engine, rows: Sequence[pl.DataFrame], count: int = 60, every: int = 3) -> Payloads:
    """Return what a writer that saw these rows served, one sample in some cycles."""
    live, found = Live(one), []
    for number, (start, end) in enumerate(cycles(rows, count)):
        live.step(*(between(r, start, end) for r in rows))
        if number % every == 0:
            found += live.served(end + LATENCY_NS)
    return found


def judged(one: Engine, payloads: Payloads) -> tuple[Mapping[str, dict[str, Any]], Any]:
    """Archive what was served; return the parity's rows by metric, and what the check says."""
    text = b"".join(live_archive.line(key.metric, json.dumps(payload).encode()) for key, payload in payloads)
    live_archive.append(live_archive.path(one.settings.landing, SYMBOL, DAY), text)
    (values,) = one.run("live/values", [SYMBOL], [DAY], closed_before=CLOSED)
    assert (values.status, values.rows, values.quarantined, values.error) == (UnitStatus.OK, len(payloads), 0, "")
    (outcome,) = one.run("live/parity", [SYMBOL], [DAY], closed_before=CLOSED)
    assert (outcome.status, outcome.error) == (UnitStatus.OK, "")
    found = one.lake.scan("live/parity", [SYMBOL], DAY, DAY).collect().rows(named=True)
    evaluations = {e.check_name: e for e in checks.evaluations("live/parity", DAY, [outcome], {SYMBOL: DAY})}
    return {row["metric"]: row for row in found}, evaluations["live_parity"]


def test_what_the_calculators_served_is_what_the_folds_give(one: Engine) -> None:
    payloads = lived(one, frames(one))
    found, check = judged(one, payloads)
    assert sorted(found) == sorted([*TRADE_METRICS, "obi"])
    for row in found.values():
        assert row["samples"] == row["compared"] == 20, row
        assert row["max_difference"] <= 1e-9, row
        assert row["max_final_difference"] <= 1e-9, row
        assert (row["missing"], row["with_gap"], row["before_open"], row["restarts"], row["differing"]) == (0,) * 5
    assert found["vpin"]["fields"] >= 12
    assert check.passed
    assert differences(one.lake, "live/parity", DAY).startswith("![plot](data:image/png;base64,")


def test_tampered_value_is_red_and_named(one: Engine) -> None:
    payloads = lived(one, frames(one))
    (sample,) = [payload for key, payload in payloads if key is keys.TOXICITY and payload["seq"] == 12]
    honest, sample["aggressor_ratio"] = sample["aggressor_ratio"], sample["aggressor_ratio"] * (1 + 3e-9)
    found, check = judged(one, payloads)
    row = found["toxicity"]
    assert not check.passed
    assert (row["differing"], row["worst_field"], row["worst_id"]) == (1, "aggressor_ratio", sample["last_trade_id"])
    assert (json.loads(row["worst_served"]), json.loads(row["worst_computed"])) == (sample["aggressor_ratio"], honest)
    assert row["max_difference"] == pytest.approx(3e-9, rel=1e-3)
    assert all(other["differing"] == 0 for metric, other in found.items() if metric != "toxicity")
    evidence = check.metadata["worst"].records[0].data
    assert (evidence["symbol"], evidence["metric"], evidence["worst_field"]) == (SYMBOL, "toxicity", "aggressor_ratio")


def test_wrong_label_count_side_or_null_is_red(one: Engine) -> None:
    payloads = lived(one, frames(one))
    wrong = {
        keys.VPIN: ("level", "high"),
        keys.FLOW_CLUSTERS: ("samples", 149),
        keys.OBI: ("status", "no_data"),
        keys.SWEEP: ("side", 7),
        keys.RETAIL_FLOW: ("retail_notional_share", None),
    }
    for key, (field, value) in wrong.items():
        sample = next(payload for k, payload in reversed(payloads) if k is key)
        assert sample[field] != value
        sample[field] = value
    found, check = judged(one, payloads)
    for key, (field, _) in wrong.items():
        row = found[key.metric]
        assert (row["differing"], row["max_difference"], row["worst_field"]) == (1, 1.0, field)
    assert sum(row["differing"] for row in found.values()) == len(wrong)
    assert not check.passed


def test_sample_that_lacks_trades_is_held_against_the_final_tape_alone(one: Engine) -> None:
    trades, quotes, books = frames(one)
    lost = trades.slice(200, 40)["trade_id"].to_list()
    live, payloads = Live(one), []
    for number, (start, end) in enumerate(cycles([trades, quotes, books], 30)):
        seen = trades.filter(~pl.col("trade_id").is_in(lost))
        live.step(*(between(r, start, end) for r in (seen, quotes, books)))
        is_behind = bool(between(trades, 0, end)["trade_id"].is_in(lost).any())
        payloads += live.served(end + LATENCY_NS, has_gap=is_behind)
        assert number or not is_behind
    found, check = judged(one, payloads)
    for metric in TRADE_METRICS:
        row = found[metric]
        assert row["compared"] + row["with_gap"] == row["samples"] == 30
        assert min(row["compared"], row["with_gap"]) > 0
        assert row["max_difference"] <= 1e-9, row
    assert found["vpin"]["max_final_difference"] > 1e-6
    assert check.passed


def test_what_was_served_and_never_captured_is_red(one: Engine) -> None:
    payloads = lived(one, frames(one))
    key, sample = next((k, p) for k, p in payloads if k is keys.VPIN)
    payloads.append((key, sample | {"last_trade_id": 4_999, "seq": 99, "ts_written": sample["ts_written"] + 1}))
    found, check = judged(one, payloads)
    assert (found["vpin"]["missing"], found["vpin"]["compared"], found["vpin"]["differing"]) == (1, 20, 0)
    assert not check.passed
    assert check.metadata["never_captured"].value == 1


def test_late_trade_is_not_of_the_rows_as_received_until_it_came(tmp_path: Path) -> None:
    trades = [n for n, line in enumerate(LINES) if b"@trade" in line]
    late, arrives = trades[250], trades[450]
    moment = int(LINES[arrives].split(b" ")[0]) + 1
    moved = b"%d %s" % (moment, LINES[late].split(b" ", 1)[1])
    with built(tmp_path, [*LINES[:late], *LINES[late + 1 : arrives + 1], moved, *LINES[arrives + 1 :]]) as one:
        rows = frames(one)
        without = [rows[0].filter(pl.col("ts_recv").to_physical() != moment), *rows[1:]]
        assert without[0].height == rows[0].height - 1
        payloads, live, seen = [], Live(one), without
        for number, (start, end) in enumerate(cycles(rows, 60)):
            if end + LATENCY_NS > moment and seen is without:  # opened anew, with all that is there
                seen, live = rows, Live(one, first_seq=live.seq + 1)
                live.step(*(between(r, 0, start) for r in rows))
            live.step(*(between(r, start, end) for r in seen))
            if number % 3 == 0:
                payloads += live.served(end + LATENCY_NS)
        found, check = judged(one, payloads)
    for metric in TRADE_METRICS:
        assert found[metric]["compared"] == 20
        assert found[metric]["max_difference"] <= 1e-9, found[metric]
    assert found["vpin"]["max_final_difference"] > 1e-6
    assert check.passed


def test_quotes_that_came_behind_the_trades_after_them_are_not_of_the_rows_as_received(tmp_path: Path) -> None:
    first, last = (
        next(n for n, line in enumerate(LINES) if line.startswith(b"%d" % (at_ms(DAY, 9) // 1000 + s)))
        for s in (300, 330)
    )
    stalled = [line for line in LINES[first:last] if b"bookTicker" in line]
    moment = int(LINES[last].split(b" ")[0]) - 1
    stalled = [b"%d %s" % (moment, line.split(b" ", 1)[1]) for line in stalled]
    with built(
        tmp_path,
        [
            *(x for n, x in enumerate(LINES) if n < last and not (n >= first and b"bookTicker" in x)),
            *stalled,
            *LINES[last:],
        ],
    ) as one:
        rows = frames(one)
        assert (rows[1]["ts_recv"].to_physical() == moment).sum() == len(stalled)
        # Those that came within the cycle of their time are stepped with it; the others are dropped.
        too_late_ns = max(end for _, end in cycles(rows, 60) if end + LATENCY_NS < moment)
        is_dropped = (pl.col("ts_recv").to_physical() == moment) & (pl.col("ts_event").to_physical() < too_late_ns)
        without = [rows[0], rows[1].filter(~is_dropped), rows[2]]
        assert 0 < without[1].height - (rows[1].height - len(stalled)) < len(stalled) / 2
        found, check = judged(one, lived(one, without, count=60, every=1))
    assert {metric: found[metric]["differing"] for metric in TRADE_METRICS} == dict.fromkeys(TRADE_METRICS, 0)
    assert found["toxicity"]["max_final_difference"] > 0
    assert check.passed


def test_restart_is_seen_and_values_of_the_session_before_are_not_judged(one: Engine) -> None:
    rows = frames(one)
    live = Live(one)
    tape = one.lake.scan("microstructure/signed_trades", [SYMBOL], BEFORE, BEFORE).collect()
    opening = sweeps.latest(live.state["microstructure/sweeps"], one.settings.analytics.sweep_detection)
    assert opening["last_trade_id"].to_list() == [tape["last_trade_id"].max()]
    live.rows[keys.SWEEP] = opening
    payloads = live.served(at_ms(DAY, 8) * MS)
    first, second = cycles(rows, 2)
    live.step(*(between(r, *first) for r in rows))
    payloads += live.served(first[1] + LATENCY_NS)
    live.seq = 0
    live.step(*(between(r, *second) for r in rows))
    payloads += live.served(second[1] + LATENCY_NS)
    found, check = judged(one, payloads)
    row = found["sweep"]
    assert (row["samples"], row["before_open"], row["compared"], row["missing"], row["restarts"]) == (3, 1, 2, 0, 1)
    assert row["max_difference"] == 0
    assert check.passed


def test_metric_that_is_no_fold_is_counted_and_not_judged(one: Engine) -> None:
    now = at_ms(DAY, 9) * MS
    payload = {"ts": now, "ts_written": now + 1, "seq": 1, "symbol": SYMBOL, "side": "BUY"}
    found, check = judged(one, [(keys.MOC, payload)])
    assert (found["moc"]["samples"], found["moc"]["compared"], found["moc"]["max_difference"]) == (1, 0, None)
    assert check.passed
    assert differences(one.lake, "live/parity", DAY).startswith("Nothing")


def test_date_without_an_archive_is_absent_and_its_check_green(one: Engine) -> None:
    for table in ("live/values", "live/parity"):
        (outcome,) = one.run(table, [SYMBOL], [DAY], closed_before=CLOSED)
        assert outcome.status is UnitStatus.ABSENT
    (check,) = [e for e in checks.evaluations("live/parity", DAY, [outcome], {}) if e.check_name == "live_parity"]
    assert check.passed
