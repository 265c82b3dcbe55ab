"""Time bars: the oracle, hand-worked revisions, pandas as a second opinion, and the edge matrix."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import _bar_blocks, bars
from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.market import Bar1m, Bar1s, Bar5m
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "bars_cases.json").read_text())
MS = 1_000_000
SECOND = 1_000_000_000


def ns(frame, column):
    return frame[column].to_physical().to_list()


def random_tape(tape, *, rows, symbols, seed):
    """Arrival order is not time order, ids repeat between symbols, instants repeat, rows are aggregates."""
    random = np.random.default_rng(seed)
    ids = np.arange(rows) * 3
    return tape(
        [
            {
                "ts_ms": int(random.integers(0, 400_000)),
                "recv_ms": int(random.integers(400_000, 900_000)),
                "symbol": f"S{random.integers(symbols)}",
                "trade_id": int(ids[k]),
                "last_trade_id": int(ids[k] + random.integers(0, 3)),
                "price": float(random.integers(1, 1000)) / 8,
                "size": float(random.integers(1, 50)) / 16,
                "aggressor": int(random.integers(-1, 2)),
            }
            for k in random.permutation(rows)
        ]
    )


def pandas_bars(trades, width_s):
    """Group by floor, in pandas: another library and another way."""
    frame = trades.to_pandas().sort_values(["symbol", "ts_event", "trade_id"])
    frame["ts_open"] = frame["ts_event"].dt.floor(f"{width_s}s")
    frame["notional"] = frame["price"] * frame["size"]
    frame["buy_volume"] = frame["size"].where(frame["aggressor"] == 1, 0.0)
    frame["sell_volume"] = frame["size"].where(frame["aggressor"] == -1, 0.0)
    frame["trade_count"] = frame["last_trade_id"] - frame["first_trade_id"] + 1
    found = frame.groupby(["symbol", "ts_open"]).agg(
        open=("price", "first"),
        high=("price", "max"),
        low=("price", "min"),
        close=("price", "last"),
        volume=("size", "sum"),
        notional=("notional", "sum"),
        trade_count=("trade_count", "sum"),
        buy_volume=("buy_volume", "sum"),
        sell_volume=("sell_volume", "sum"),
        received=("ts_recv", "max"),
    )
    found["vwap"] = found["notional"] / found["volume"]
    found = found.reset_index()
    ends = found["ts_open"] + pd.Timedelta(seconds=width_s)
    found["ts_known"] = found["received"].where(found["received"] > ends, ends)
    return found


def assert_equals_pandas(ours, trades, width_s):
    theirs = pandas_bars(trades, width_s)
    assert ours["symbol"].to_list() == theirs["symbol"].to_list()
    for column in ("ts_open", "ts_known"):
        assert ns(ours, column) == theirs[column].astype("datetime64[ns, UTC]").astype("int64").to_list()
    for column in ("open", "high", "low", "close", "volume", "trade_count", "buy_volume", "sell_volume"):
        assert ours[column].to_list() == theirs[column].to_list()  # eighths and sixteenths: sums are exact
    np.testing.assert_allclose(ours["vwap"], theirs["vwap"], rtol=1e-12)


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda case: case["id"])
def test_bars_oracle(case, tape):
    rows = [{**row, "ts_ms": row["ts"]} for row in case["inputs"]["trades"]]
    trades = tape(rows)
    one_second = bars.bars(trades)
    one_minute = bars.cascade(one_second, 60)
    found = {
        "bars_1s": [one_second],
        "bars_1m": [one_minute, bars.bars(trades, bars.BarParams(60))],
        "bars_5m": [bars.cascade(one_minute, 300), bars.bars(trades, bars.BarParams(300))],
    }
    for name, expected in case["expected"].items():
        for frame in found[name]:
            assert [t // MS for t in ns(frame, "ts_open")] == [bar["ts_open"] for bar in expected]
            for ours, bar in zip(frame.to_dicts(), expected, strict=True):
                for column in bar.keys() - {"ts_open"}:
                    assert ours[column] == pytest.approx(bar[column], rel=0, abs=case["tolerance"]["abs"])


@pytest.mark.parametrize("width_s", [1, 60, 300])
@pytest.mark.parametrize("symbols", [1, 3, 500])
def test_bars_equal_pandas_on_a_random_tape(tape, width_s, symbols):
    trades = random_tape(tape, rows=2_000, symbols=symbols, seed=symbols)
    assert_equals_pandas(bars.bars(trades, bars.BarParams(width_s)), trades, width_s)


@pytest.mark.parametrize("block_rows", [1, 7, 256])
def test_bars_do_not_depend_on_the_size_of_blocks(tape, monkeypatch, block_rows):
    trades = random_tape(tape, rows=600, symbols=3, seed=4)
    whole = bars.bars(trades, bars.BarParams(60))
    monkeypatch.setattr(_bar_blocks, "_BLOCK_ROWS", block_rows)
    assert_frame_equal(bars.bars(trades, bars.BarParams(60)), whole, rel_tol=1e-12, abs_tol=0)


def test_cascade_equals_bars_from_trades(tape):
    trades = random_tape(tape, rows=3_000, symbols=3, seed=5)
    one_minute = bars.cascade(bars.bars(trades).sample(fraction=1, shuffle=True, seed=1), 60)
    assert_equals_pandas(one_minute, trades, 60)
    assert_equals_pandas(bars.cascade(one_minute, 300), trades, 300)


def test_a_late_trade_revises_its_bar(tape):
    trades = tape(
        [
            {"ts_ms": 100, "trade_id": 10, "price": 10.0, "size": 2.0},
            {"ts_ms": 1_000, "trade_id": 12, "price": 30.0},  # the first second is over
            {"ts_ms": 900, "trade_id": 11, "price": 20.0, "size": 2.0, "aggressor": -1, "recv_ms": 2_500},
        ]
    )
    state, before = bars.step(bars.initial(), trades[:2])
    _, after = bars.step(state, trades[2:])
    assert before["revision"].to_list() == [0, 0]
    (bar,) = after.to_dicts()
    assert (bar["open"], bar["close"], bar["high"], bar["low"]) == (10.0, 20.0, 20.0, 10.0)
    assert (bar["volume"], bar["vwap"], bar["buy_volume"], bar["sell_volume"]) == (4.0, 15.0, 2.0, 2.0)
    assert (bar["trade_count"], bar["revision"]) == (2, 1)
    assert ns(after, "ts_known") == [2_500 * MS]


def test_a_trade_out_of_order_within_an_open_bar_is_no_revision(tape):
    trades = tape(
        [
            {"ts_ms": 500, "trade_id": 2, "price": 11.0},
            {"ts_ms": 400, "trade_id": 1, "price": 10.0},
            {"ts_ms": 999, "trade_id": 3, "price": 12.0},
        ]
    )
    (bar,) = bars.bars(trades).to_dicts()
    assert (bar["open"], bar["close"], bar["revision"]) == (10.0, 12.0, 0)


def test_a_bar_closes_at_the_instant_of_its_end(tape):
    rows = [{"ts_ms": 1_000, "trade_id": 2, "price": 1.0}, {"ts_ms": 999, "trade_id": 1, "price": 1.0}]
    assert bars.bars(tape(rows))["revision"].to_list() == [1, 0]


def test_revision_counts_the_prints_of_a_late_aggregate(tape):
    rows = [
        {"ts_ms": 5_000, "trade_id": 50, "price": 1.0},
        {"ts_ms": 10, "trade_id": 1, "last_trade_id": 4, "price": 1.0},
    ]
    assert bars.bars(tape(rows))["revision"].to_list() == [4, 0]


def test_another_symbols_time_closes_no_bar(tape):
    rows = [
        {"ts_ms": 9_000, "symbol": "B", "price": 1.0},
        {"ts_ms": 10, "symbol": "A", "price": 1.0},
        {"ts_ms": 20, "symbol": "A", "price": 2.0},
    ]
    found = bars.bars(tape(rows))
    assert found["symbol"].to_list() == ["A", "B"]
    assert found["revision"].to_list() == [0, 0]


def test_a_symbol_that_comes_back_late_in_the_same_chunk_is_seen(tape):
    rows = [
        {"ts_ms": 2_000, "symbol": "A", "trade_id": 5, "price": 1.0},
        {"ts_ms": 10, "symbol": "B", "trade_id": 1, "price": 1.0},
        {"ts_ms": 20, "symbol": "A", "trade_id": 4, "price": 2.0},
    ]
    assert bars.bars(tape(rows))["revision"].to_list() == [1, 0, 0]


def test_step_returns_only_the_bars_it_touched(tape):
    trades = tape([{"ts_ms": t, "price": 1.0} for t in (0, 1_500, 1_600, 3_000)])
    state, _ = bars.step(bars.initial(), trades[:2])
    _, touched = bars.step(state, trades[2:])
    assert ns(touched, "ts_open") == [SECOND, 3 * SECOND]
    assert touched["trade_count"].to_list() == [2, 1]


def test_known_time_is_never_before_the_end_of_the_interval(tape):
    trades = tape([{"ts_ms": 10, "price": 1.0}, {"ts_ms": 1_990, "price": 1.0}])
    assert ns(bars.bars(trades), "ts_known") == [1_000 * MS, 2_040 * MS]


def test_prune_drops_old_bars_and_ignores_their_late_trades(tape):
    state, _ = bars.step(bars.initial(), tape([{"ts_ms": 100, "price": 1.0}, {"ts_ms": 2_100, "price": 2.0}]))
    pruned = bars.prune(state, 2 * SECOND)
    assert pruned.partials["ts_open"].to_list() == [2 * SECOND]
    late = tape([{"ts_ms": 200, "trade_id": 7, "price": 9.0}])
    same, touched = bars.step(pruned, late)
    assert same is pruned
    assert touched.is_empty()
    _, touched = bars.step(pruned, tape([{"ts_ms": 2_200, "trade_id": 8, "price": 3.0}]))
    assert touched.select("open", "close", "trade_count").rows() == [(2.0, 3.0, 2)]


def test_the_state_survives_serialisation(tape):
    trades = random_tape(tape, rows=100, symbols=2, seed=6)
    state, _ = bars.step(bars.initial(), trades[:60])
    revived = bars.State(
        pl.read_ipc(io.BytesIO(ipc_bytes(state.partials))),
        pl.read_ipc(io.BytesIO(ipc_bytes(state.watermarks))),
    )
    assert_frame_equal(bars.step(revived, trades[60:])[1], bars.step(state, trades[60:])[1])


@pytest.mark.parametrize("frame", ["1s", "1m", "5m"])
def test_an_empty_tape_gives_empty_bars_with_the_right_dtypes(tape, frame):
    found = bars.bars(tape([]))
    found = found if frame == "1s" else bars.cascade(found, {"1m": 60, "5m": 300}[frame])
    assert found.is_empty()
    assert found.schema == polars_schema({"1s": Bar1s, "1m": Bar1m, "5m": Bar5m}[frame])


@pytest.mark.parametrize("column", ["price", "size"])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_a_bad_row_among_good_ones_is_ignored(tape, column, value):
    good = [{"ts_ms": 10, "price": 1.0}, {"ts_ms": 30, "price": 3.0}]
    bad = {"ts_ms": 20, "trade_id": 99, "price": 2.0, "size": 1.0, column: value}
    rows = [good[0], bad, good[1]]
    assert_frame_equal(bars.bars(tape(rows)).drop("trade_count"), bars.bars(tape(good)).drop("trade_count"))
    assert bars.bars(tape(rows))["trade_count"].to_list() == [2]


def test_a_tape_of_bad_rows_gives_no_bars(tape):
    trades = tape([{"ts_ms": 10, "price": 0.0}]).with_columns(ts_recv=None).cast({"ts_recv": pl.Datetime("ns", "UTC")})
    assert bars.bars(trades).is_empty()
    assert bars.bars(pl.DataFrame([dict.fromkeys(trades.columns)] * 3, schema=trades.schema)).is_empty()


def test_a_usable_trade_without_receive_time_is_refused(tape):
    trades = tape([{"ts_ms": 10, "price": 1.0}]).with_columns(ts_recv=pl.lit(None, pl.Datetime("ns", "UTC")))
    with pytest.raises(ValueError, match="1 trades have no ts_recv"):
        bars.bars(trades)


def test_a_bar_of_one_price_has_that_vwap_within_rounding(tape):
    found = bars.bars(tape([{"ts_ms": k, "price": 0.1, "size": 0.3} for k in range(7)]))
    assert found["vwap"].item() == pytest.approx(0.1, rel=1e-15)
    assert (found["high"].item(), found["low"].item()) == (0.1, 0.1)


def test_times_before_1970_floor_downwards(tape):
    rows = [{"ts_ms": -1, "price": 1.0}, {"ts_ms": -1_500, "trade_id": 1, "price": 2.0}]
    assert ns(bars.bars(tape(rows)), "ts_open") == [-2 * SECOND, -SECOND]
    assert ns(bars.cascade(bars.bars(tape(rows)), 60), "ts_open") == [-60 * SECOND]


def test_symbols_may_be_categorical_and_other_columns_are_ignored(tape):
    trades = random_tape(tape, rows=200, symbols=3, seed=7)
    extended = trades.drop("venue").with_columns(pl.col("symbol").cast(pl.Categorical), note=pl.lit("x"))
    assert_frame_equal(bars.bars(extended), bars.bars(trades))


def test_two_identical_runs_give_identical_bytes(tape):
    trades = random_tape(tape, rows=3_000, symbols=5, seed=8)
    assert ipc_bytes(bars.bars(trades)) == ipc_bytes(bars.bars(trades))
    narrow = bars.bars(trades)
    assert ipc_bytes(bars.cascade(narrow, 60)) == ipc_bytes(bars.cascade(narrow, 60))


def test_bars_keep_their_contracts(tape):
    narrow = bars.bars(random_tape(tape, rows=500, symbols=2, seed=9))
    assert validated(Bar1s, narrow).height == narrow.height
    assert not validated(Bar1m, bars.cascade(narrow, 60)).is_empty()


@pytest.mark.parametrize("width_s", [0, -5, 7, 86_401, 172_800])
def test_a_width_that_does_not_divide_the_day_is_refused(width_s):
    with pytest.raises(ValueError, match=f"width_s must divide a day of 86400 s, was {width_s}"):
        bars.BarParams(width_s)


@pytest.mark.parametrize("rows_read", [1, 7, 333, 5_000])
@pytest.mark.parametrize("is_in_order", [True, False])
def test_a_lazy_tape_gives_the_bars_of_the_frame_however_it_is_read(tape, monkeypatch, rows_read, is_in_order):
    frame = random_tape(tape, rows=1_000, symbols=1 if is_in_order else 3, seed=11)
    frame = frame.sort("ts_event", "trade_id") if is_in_order else frame
    monkeypatch.setattr(_bar_blocks, "_READ_ROWS", rows_read)
    found, wanted = bars.bars(frame.lazy()), bars.bars(frame)
    assert wanted.height > 10
    # Late trades are counted by arrival, whatever block they came in.
    assert_frame_equal(found, wanted, rel_tol=1e-12)
