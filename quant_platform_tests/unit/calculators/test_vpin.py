"""VPIN: the oracle, hand-worked buckets, a loop in exact fractions as a second opinion, and the edge matrix."""

import datetime as dt
import json
import math
import pickle
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist, stdev

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import vpin
from quant_platform.calculators.vpin import VpinParams
from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.microstructure import Vpin, VpinBucket
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "vpin_cases.json").read_text())
BUCKET_CASES = [case for case in ORACLE["cases"] if "trades" in case["inputs"]]
CDF_CASES = [case for case in ORACLE["cases"] if "trades" not in case["inputs"]]
MS = 1_000_000
MINUTE = 60_000
DAY = 86_400_000


def sizes(**by_symbol):
    return pl.DataFrame(
        {"symbol": list(by_symbol), "bucket_size": list(by_symbol.values())},
        schema={"symbol": pl.String, "bucket_size": pl.Float64},
    )


def signed(tape, trades, **common):
    """A tape of (aggressor, size), one trade a millisecond, without what the calculator must ignore."""
    rows = [
        {"ts_ms": k, "price": 1.0, "aggressor": side, "size": size, **common} for k, (side, size) in enumerate(trades)
    ]
    return tape(rows)


def ns(frame, column):
    return frame[column].to_physical().to_list()


def volumes(buckets):
    return list(zip(buckets["buy_volume"], buckets["sell_volume"], strict=True))


@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "every_trade_cut_in_two"])
@pytest.mark.parametrize("case", BUCKET_CASES, ids=lambda case: case["id"])
def test_vpin_oracle(case, is_cut, tape):
    inputs, expected = case["inputs"], case["expected"]
    trades = [(trade["aggressor"], trade["size"]) for trade in inputs["trades"]]
    if is_cut:
        trades = [(side, size * part) for side, size in trades for part in (0.25, 0.75)]
    params = VpinParams(n_buckets=inputs["n_buckets"])
    size, tolerance = inputs["bucket_size"], case["tolerance"]["abs"]
    state, rows = vpin.step(vpin.initial(), signed(tape, trades), sizes(BTCUSDT=size), params)
    for found, wanted in zip(volumes(rows.buckets), expected["buckets"], strict=True):
        assert found == pytest.approx(wanted, abs=tolerance)
    assert rows.buckets.height == expected["buckets_filled"]
    if expected["vpin"] is None:
        assert rows.samples.is_empty()
        return
    last = rows.samples.row(-1, named=True)
    assert last["vpin"] == pytest.approx(expected["vpin"], abs=tolerance)
    assert (last["method"], last["buckets_filled"], last["cdf"]) == (
        expected["method"],
        expected["buckets_filled"],
        None,
    )
    # What is in the open bucket shows when one more trade of known side fills it.
    bought, sold = expected["open_bucket"]
    filler = tape([{"ts_ms": 999, "trade_id": 999, "price": 1.0, "size": size - bought - sold}])
    closing = vpin.step(state, filler, sizes(BTCUSDT=size), params)[1].buckets
    assert volumes(closing)[0] == pytest.approx((size - sold, sold), abs=tolerance)


@pytest.mark.parametrize("case", CDF_CASES, ids=lambda case: case["id"])
def test_vpin_oracle_of_the_cdf(case):
    inputs = case["inputs"]
    params = VpinParams(min_reference=inputs["min_reference"])
    known = vpin.reference(bucket_values({"A": inputs["reference"]}))
    found = vpin.standardised(sample_values([("A", inputs["vpin"], "buckets")]), known, params)
    assert found["cdf"].item() == case["expected"]["cdf"]


def test_every_case_of_the_oracle_is_run():
    assert len(BUCKET_CASES) + len(CDF_CASES) == len(ORACLE["cases"]) == 17
    assert len(CDF_CASES) == 5


def bucket_values(by_symbol, sessions=1):
    rows = [
        {"symbol": symbol, "ts_end": dt.datetime(2024, 8, 1 + k % sessions, tzinfo=dt.UTC), "vpin": value}
        for symbol, values in by_symbol.items()
        for k, value in enumerate(values)
    ]
    return pl.DataFrame(rows, schema={"symbol": pl.String, "ts_end": pl.Datetime("ns", "UTC"), "vpin": pl.Float64})


def sample_values(rows, *, is_warm=True):
    schema = polars_schema(Vpin)
    known = [{"symbol": symbol, "vpin": value, "method": method, "is_warm": is_warm} for symbol, value, method in rows]
    return pl.DataFrame(known, schema=schema).select(schema.names())


def test_a_trade_that_fills_a_bucket_is_split(tape):
    rows = vpin.vpin(
        tape(
            [
                {"ts_ms": 1_000, "trade_id": 10, "last_trade_id": 12, "price": 1.0, "size": 4.0, "recv_ms": 9_000},
                {"ts_ms": 2_000, "trade_id": 13, "last_trade_id": 15, "price": 1.0, "size": 26.0, "aggressor": -1},
                {"ts_ms": 61_000, "trade_id": 16, "price": 1.0, "size": 3.0, "aggressor": 0},
            ]
        ),
        sizes(BTCUSDT=10.0),
        VpinParams(n_buckets=2),
    )
    assert volumes(rows.buckets) == [(4.0, 6.0), (0.0, 10.0), (0.0, 10.0)]
    assert rows.buckets["bucket"].to_list() == [1, 2, 3]
    assert [t // MS for t in ns(rows.buckets, "ts_start")] == [1_000, 2_000, 2_000]
    assert [t // MS for t in ns(rows.buckets, "ts_end")] == [2_000] * 3
    assert [t // MS for t in ns(rows.buckets, "ts_known")] == [9_000] * 3  # the first trade came late
    assert rows.buckets["last_trade_id"].to_list() == [15, 15, 15]
    assert rows.buckets["imbalance"].to_list() == [0.2, 1.0, 1.0]
    assert rows.buckets["vpin"].to_list() == [None, 0.6, 1.0]
    assert rows.buckets["status"].to_list() == ["too_few", "ok", "ok"]
    assert rows.buckets["bucket_size"].to_list() == [10.0] * 3
    assert [t // MS for t in ns(rows.samples, "ts_open")] == [0, 60_000]
    assert [t // MS for t in ns(rows.samples, "ts_event")] == [2_000, 61_000]
    assert [t // MS for t in ns(rows.samples, "ts_known")] == [9_000, 61_050]
    assert rows.samples["last_trade_id"].to_list() == [15, 16]
    assert rows.samples["vpin"].to_list() == [1.0, 1.0]
    assert rows.samples["method"].to_list() == ["buckets", "buckets"]


def test_a_bucket_that_a_trade_fills_to_the_brim_begins_with_the_next_one(tape):
    trades = signed(tape, [(1, 10.0), (-1, 5.0), (1, 5.0)])
    buckets = vpin.vpin(trades, sizes(BTCUSDT=10.0), VpinParams(n_buckets=1)).buckets
    assert [t // MS for t in ns(buckets, "ts_start")] == [0, 1]
    assert [t // MS for t in ns(buckets, "ts_end")] == [0, 2]
    state, _ = vpin.step(vpin.initial(), trades[:2], sizes(BTCUSDT=10.0))
    (bucket,) = vpin.step(state, trades[2:], sizes(BTCUSDT=10.0))[1].buckets.to_dicts()
    assert (bucket["ts_start"], bucket["ts_end"]) == tuple(
        buckets.row(1, named=True)[c] for c in ("ts_start", "ts_end")
    )


def test_labels_say_how_it_was_computed(tape):
    params = VpinParams(n_buckets=2, signing="lee_ready")
    rows = vpin.vpin(signed(tape, [(1, 5.0)]), sizes(BTCUSDT=10.0), params)
    (sample,) = rows.samples.to_dicts()
    wanted = {
        "n_buckets": 2,
        "buckets_filled": 0,
        "signing": "lee_ready",
        "bar_s": None,
        "is_warm": False,
        "level": None,
    }
    assert {name: sample[name] for name in wanted} == wanted


def test_a_revised_interval_comes_out_again(tape):
    trades = tape([{"ts_ms": t, "price": 1.0, "aggressor": s} for t, s in ((10, 1), (20, -1), (MINUTE, 1))])
    state, first = vpin.step(vpin.initial(), trades[:1], sizes(BTCUSDT=10.0))
    _, second = vpin.step(state, trades[1:], sizes(BTCUSDT=10.0))
    assert first.samples["vpin"].to_list() == [1.0]
    assert ns(second.samples, "ts_open") == [0, MINUTE * MS]
    assert second.samples["vpin"].to_list() == pytest.approx([0.0, 1 / 3])


def test_the_open_of_a_session_keeps_buckets_and_begins_its_own_volume(tape):
    params = VpinParams(n_buckets=2)
    state, _ = vpin.step(vpin.initial(), signed(tape, [(1, 10.0), (1, 4.0)]), sizes(BTCUSDT=10.0), params)
    state = vpin.opened(state)
    morning = tape(
        [
            {"ts_ms": DAY, "trade_id": 7, "price": 1.0, "aggressor": -1, "size": 2.0},
            {"ts_ms": DAY, "trade_id": 8, "symbol": "NEW", "price": 1.0},
            {"ts_ms": DAY + MINUTE, "trade_id": 9, "price": 1.0, "aggressor": -1, "size": 4.0},
        ]
    )
    rows = vpin.step(state, morning, sizes(BTCUSDT=10.0, NEW=1.0), params)[1]
    old = rows.samples.filter(symbol="BTCUSDT")
    assert old["vpin"].to_list() == pytest.approx([1.0, (1.0 + 0.2) / 2])  # 2 of 2 sold; then buckets 10/0 and 4/6
    assert old["method"].to_list() == ["simple_imbalance", "buckets"]
    assert old["buckets_filled"].to_list() == [1, 2]
    assert old["is_warm"].to_list() == [True, True]
    assert rows.samples.filter(symbol="NEW")["is_warm"].to_list() == [False]


def test_a_bucket_size_is_frozen_when_its_symbol_first_trades(tape):
    trades = signed(tape, [(1, 4.0), (-1, 6.0)])
    state, _ = vpin.step(vpin.initial(), trades[:1], sizes(BTCUSDT=10.0))
    assert vpin.step(state, trades[1:], sizes(BTCUSDT=3.0))[1].buckets["bucket_size"].to_list() == [10.0]


@pytest.mark.parametrize("known", [sizes(), sizes(OTHER=1.0), sizes(BTCUSDT=None), sizes(BTCUSDT=0.0)])
def test_a_symbol_without_a_bucket_size_gets_nulls(tape, known):
    rows = vpin.vpin(signed(tape, [(1, 5.0)]), known)
    assert rows.buckets.is_empty()
    (sample,) = rows.samples.to_dicts()
    assert (sample["vpin"], sample["method"], sample["bucket_size"], sample["status"]) == (None, None, None, "no_data")
    validated(Vpin, rows.samples)


def test_one_symbol_without_a_size_leaves_the_others_alone(tape):
    rows = [{"ts_ms": k, "symbol": s, "price": 1.0, "size": 3.0} for k in range(5) for s in ("B", "A", "C")]
    found = vpin.vpin(tape(rows), sizes(A=5.0, C=6.0), VpinParams(n_buckets=1))
    assert found.buckets["symbol"].to_list() == ["A", "A", "A", "C", "C"]
    assert found.samples["status"].to_list() == ["ok", "no_data", "ok"]


def test_sizes_too_small_to_be_counted_have_no_value(tape):
    (sample,) = vpin.vpin(signed(tape, [(1, 1e-9)]), sizes(BTCUSDT=1e6)).samples.to_dicts()
    assert (sample["vpin"], sample["method"], sample["status"]) == (None, None, "zero_volume")


def test_a_bucket_far_too_small_is_refused(tape):
    trades = signed(tape, [(1, 1e9)])
    with pytest.raises(ValueError, match=r"BTCUSDT traded 1e\+09 base units, far too much for a bucket_size of 0.001"):
        vpin.vpin(trades, sizes(BTCUSDT=1e-3))


def test_a_usable_trade_without_receive_time_is_refused(tape):
    trades = signed(tape, [(1, 1.0)]).with_columns(ts_recv=pl.lit(None, pl.Datetime("ns", "UTC")))
    with pytest.raises(ValueError, match="1 trades have no ts_recv"):
        vpin.vpin(trades, sizes(BTCUSDT=1.0))


@pytest.mark.parametrize("signing", ["auto", "bvc"])
def test_an_empty_tape_gives_empty_frames_with_the_right_dtypes(tape, signing):
    params = VpinParams(signing=signing, bar_s=60 if signing == "bvc" else None)
    known = sizes(BTCUSDT=1.0).with_columns(price_change_std=1.0)
    state, rows = vpin.step(vpin.initial(), tape([]), known, params)
    assert rows.buckets.is_empty()
    assert rows.samples.is_empty()
    assert rows.buckets.schema == polars_schema(VpinBucket)
    assert rows.samples.schema == polars_schema(Vpin)
    assert vpin.step(vpin.opened(state), signed(tape, [(1, 1.0)]), known, VpinParams())[1].buckets.height == 1
    nulls = pl.DataFrame([dict.fromkeys(tape([]).columns)] * 3, schema=tape([]).schema)
    assert vpin.vpin(nulls, known, params).samples.is_empty()


@pytest.mark.parametrize("column", ["price", "size"])
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_a_bad_row_among_good_ones_is_ignored(tape, column, value):
    good = signed(tape, [(1, 4.0), (-1, 6.0)])
    bad = tape([{"ts_ms": 0, "trade_id": 99, "price": 1.0, "size": 1.0, column: value}])
    for found, wanted in zip(
        vpin.vpin(pl.concat([bad, good]), sizes(BTCUSDT=5.0)), vpin.vpin(good, sizes(BTCUSDT=5.0)), strict=True
    ):
        assert_frame_equal(found, wanted)
        assert wanted.height


def test_late_rows_are_ignored_and_arrival_does_not_matter_within_a_chunk(tape):
    trades = tape(
        [
            {"ts_ms": t, "trade_id": t, "price": 1.0, "size": 3.0, "aggressor": s}
            for t, s in ((1, 1), (1, 1), (2, -1), (3, 1))
        ]
    )
    trades = trades.with_columns(trade_id=pl.Series([1, 2, 3, 4]))
    known = sizes(BTCUSDT=4.0)
    state, whole = vpin.step(vpin.initial(), trades, known)
    assert_frame_equal(vpin.vpin(trades.reverse(), known).buckets, whole.buckets)
    assert volumes(whole.buckets) == [(4.0, 0.0), (2.0, 2.0), (3.0, 1.0)]
    same, rows = vpin.step(state, trades[1:3], known)
    assert rows.samples.is_empty()
    assert rows.buckets.is_empty()
    after = tape([{"ts_ms": 4, "trade_id": 5, "price": 1.0, "size": 4.0}])
    assert_frame_equal(vpin.step(same, after, known)[1].buckets, vpin.step(state, after, known)[1].buckets)


def test_two_symbols_interleaved_are_as_each_alone(tape):
    trades = random_tape(tape, rows=400, symbols=2, seed=1)
    known = sizes(S0=5.0, S1=7.5)
    both = vpin.vpin(trades, known)
    for symbol in ("S0", "S1"):
        alone = vpin.vpin(trades.filter(symbol=symbol), known)
        assert_frame_equal(both.buckets.filter(symbol=symbol), alone.buckets)
        assert_frame_equal(both.samples.filter(symbol=symbol), alone.samples)


def random_tape(tape, *, rows, symbols, seed):
    """Sizes in lots of 0.001 that binary floats do not hold, some trades of many buckets."""
    random = np.random.default_rng(seed)
    return tape(
        [
            {
                "ts_ms": int(random.integers(0, 10 * MINUTE)),
                "recv_ms": int(random.integers(10 * MINUTE, 20 * MINUTE)),
                "symbol": f"S{random.integers(symbols)}",
                "trade_id": int(k),
                "price": float(random.integers(90, 110)),
                "size": float(random.choice([1, 7, 100, 999, 20_000])) / 1_000,
                "aggressor": int(random.integers(-1, 2)),
            }
            for k in random.permutation(rows)
        ]
    )


def by_loop(trades, size, n_buckets):
    """Fill buckets trade by trade in exact fractions; return them and the value after each trade."""
    size = Fraction(str(size))
    buckets, values, bought, sold, signed_volume, volume = [], [], Fraction(0), Fraction(0), Fraction(0), Fraction(0)
    for trade in trades.sort("ts_event", "trade_id").to_dicts():
        left = Fraction(str(trade["size"]))
        share = Fraction(trade["aggressor"] + 1, 2)
        signed_volume, volume = signed_volume + trade["aggressor"] * left, volume + left
        while left:
            part = min(left, size - bought - sold)
            bought, sold, left = bought + part * share, sold + part * (1 - share), left - part
            if bought + sold == size:
                buckets.append((bought, sold))
                bought, sold = Fraction(0), Fraction(0)
        last = buckets[-n_buckets:]
        is_full = len(last) == n_buckets
        values.append(sum(abs(b - s) / size for b, s in last) / n_buckets if is_full else abs(signed_volume) / volume)
    return buckets, values


@pytest.mark.parametrize("size", [0.3, 2.5, 33.333, 1_000.0])
@pytest.mark.parametrize("n_buckets", [1, 5])
@pytest.mark.parametrize("sample_s", [1, 240], ids=lambda s: f"{s}s")  # few and many trades an interval
def test_vpin_equals_exact_fractions_on_a_random_tape(tape, size, n_buckets, sample_s):
    trades = random_tape(tape, rows=300, symbols=1, seed=int(size * 10))
    rows = vpin.vpin(trades, sizes(S0=size), VpinParams(n_buckets=n_buckets, sample_s=sample_s))
    buckets, values = by_loop(trades, size, n_buckets)
    np.testing.assert_allclose(
        volumes(rows.buckets), np.array(buckets, float).reshape(-1, 2), rtol=1e-11, atol=1e-11 * size
    )
    last = trades.sort("ts_event", "trade_id").with_columns(value=pl.Series([float(v) for v in values]))
    last = last.group_by(pl.col("ts_event").dt.truncate(f"{sample_s}s"), maintain_order=True).agg(
        pl.col("value", "trade_id").last()
    )
    assert rows.samples["last_trade_id"].to_list() == last["trade_id"].to_list()
    np.testing.assert_allclose(rows.samples["vpin"], last["value"], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("block_rows", [1, 7, 100])
def test_vpin_does_not_depend_on_the_size_of_blocks(tape, monkeypatch, block_rows):
    trades = random_tape(tape, rows=300, symbols=3, seed=4)
    known = sizes(S0=5.0, S1=0.7, S2=50.0)
    whole = vpin.vpin(trades, known, VpinParams(n_buckets=3))
    monkeypatch.setattr("quant_platform.calculators._tape._BLOCK_ROWS", block_rows)
    assert ipc_bytes(*vpin.vpin(trades, known, VpinParams(n_buckets=3))) == ipc_bytes(*whole)


def test_rows_keep_their_contracts_and_two_runs_give_identical_bytes(tape):
    trades = random_tape(tape, rows=500, symbols=3, seed=8)
    known = sizes(S0=5.0, S1=0.7)
    rows = vpin.vpin(trades, known, VpinParams(n_buckets=3))
    assert validated(VpinBucket, rows.buckets).height > 100
    assert validated(Vpin, rows.samples).height == 30
    assert rows.samples["status"].unique().sort().to_list() == ["no_data", "ok"]
    assert ipc_bytes(*rows) == ipc_bytes(*vpin.vpin(trades, known, VpinParams(n_buckets=3)))


def test_the_state_survives_pickling(tape):
    trades = random_tape(tape, rows=200, symbols=2, seed=9).sort("ts_event", "trade_id")
    known = sizes(S0=5.0, S1=0.7)
    state, _ = vpin.step(vpin.initial(), trades[:120], known)
    revived = pickle.loads(pickle.dumps(state))
    assert ipc_bytes(*vpin.step(revived, trades[120:], known)[1]) == ipc_bytes(
        *vpin.step(state, trades[120:], known)[1]
    )


BULK = VpinParams(signing="bvc", bar_s=60, n_buckets=1)
BARS = [  # minute, price, size: closes 10, 11, 9
    (0, 12.0, 1.0),
    (0, 10.0, 3.0),
    (1, 11.0, 4.0),
    (3, 8.0, 1.0),
    (3, 9.0, 3.0),
    (4, 5.0, 9.0),
]


def bulk_tape(tape):
    return tape([{"ts_ms": m * MINUTE + k, "price": p, "size": v, "aggressor": 1} for k, (m, p, v) in enumerate(BARS)])


def test_bulk_volume_is_parted_by_the_price_change_of_each_bar(tape):
    known = sizes(BTCUSDT=4.0).with_columns(price_change_std=2.0)
    rows = vpin.vpin(bulk_tape(tape), known, BULK)
    bought = [0.5, NormalDist().cdf(1 / 2), NormalDist().cdf(-2 / 2)]
    np.testing.assert_allclose(rows.buckets["buy_volume"], [4 * share for share in bought], rtol=1e-11)
    np.testing.assert_allclose(rows.samples["vpin"], [abs(2 * share - 1) for share in bought], rtol=1e-11)
    assert [t // MS for t in ns(rows.samples, "ts_open")] == [0, MINUTE, 3 * MINUTE]
    assert [t // MS for t in ns(rows.samples, "ts_known")] == [MINUTE, 2 * MINUTE, 4 * MINUTE]
    assert rows.samples["last_trade_id"].to_list() == [1, 2, 4]
    assert rows.samples["bar_s"].to_list() == [60.0] * 3
    validated(Vpin, rows.samples)
    validated(VpinBucket, rows.buckets)


def test_bulk_volume_of_a_bar_is_split_between_buckets(tape):
    known = sizes(BTCUSDT=8.0).with_columns(price_change_std=2.0)
    (bucket,) = vpin.vpin(bulk_tape(tape), known, BULK).buckets.to_dicts()
    assert bucket["buy_volume"] == pytest.approx(4 * 0.5 + 4 * NormalDist().cdf(1 / 2), rel=1e-11)


def test_a_bar_that_goes_on_in_the_next_chunk_is_one_bar(tape):
    known = sizes(BTCUSDT=4.0).with_columns(price_change_std=2.0)
    trades, whole = bulk_tape(tape), vpin.vpin(bulk_tape(tape), known, BULK)
    state, outputs = vpin.initial(), []
    for row in range(trades.height):
        state, rows = vpin.step(state, trades[row : row + 1], known, BULK)
        outputs.append(rows)
    assert_frame_equal(pl.concat([rows.buckets for rows in outputs]), whole.buckets, check_exact=True)
    assert_frame_equal(pl.concat([rows.samples for rows in outputs]), whole.samples, check_exact=True)


@pytest.mark.parametrize("std", [None, 0.0])
def test_bulk_volume_without_a_standard_deviation_has_no_value(tape, std):
    known = sizes(BTCUSDT=4.0).with_columns(price_change_std=pl.lit(std, pl.Float64))
    samples = vpin.vpin(bulk_tape(tape), known, BULK).samples
    assert set(samples["status"]) == {"no_data"}
    assert samples["vpin"].null_count() == samples.height == 3


def test_price_change_std_is_of_the_changes_between_closes():
    closes = {"A": [1.0, 3.0, 2.0, 6.0], "B": [5.0, 5.0, 5.0], "C": [1.0, 2.0]}
    bars = pl.DataFrame(
        [{"symbol": s, "ts_open": k, "close": p} for s, values in closes.items() for k, p in enumerate(values)]
    )
    found = dict(vpin.price_change_std(bars.sample(fraction=1, shuffle=True, seed=1)).iter_rows())
    assert found == {"A": pytest.approx(stdev([2, -1, 4])), "B": 0.0, "C": None}


def volumes_of(**by_symbol):
    rows = [
        {"symbol": symbol, "date": dt.date(2024, 1, 1) + dt.timedelta(days=k), "volume": volume}
        for symbol, values in by_symbol.items()
        for k, volume in enumerate(values)
    ]
    return pl.DataFrame(rows, schema={"symbol": pl.String, "date": pl.Date, "volume": pl.Float64})


def test_bucket_size_is_a_fiftieth_of_the_mean_of_the_last_twenty_sessions():
    daily = volumes_of(OLD=[1e9] * 5 + [100.0] * 10 + [300.0] * 10, YOUNG=[50.0, 150.0])
    found = vpin.bucket_sizes(daily.sample(fraction=1, shuffle=True, seed=1), defaults={"OLD": 1.0})
    assert found.rows() == [("OLD", 200.0 / 50), ("YOUNG", 100.0 / 50)]


def test_bucket_size_prefers_discovered_then_volume_then_default():
    daily = volumes_of(A=[100.0], B=[100.0], Z=[0.0])
    defaults = {"A": 7.0, "C": 7.0, "D": None, "Z": 7.0}
    found = vpin.bucket_sizes(daily, discovered={"A": 3.0, "E": 4.0}, defaults=defaults)
    assert found.rows() == [("A", 3.0), ("B", 2.0), ("C", 7.0), ("D", None), ("E", 4.0), ("Z", 7.0)]
    everywhere = vpin.bucket_sizes(daily, discovered=5.0, defaults=defaults)
    assert everywhere["bucket_size"].to_list() == [5.0] * 5
    assert everywhere.schema == {"symbol": pl.String, "bucket_size": pl.Float64}


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_bucket_size_that_is_no_size_counts_as_missing(bad):
    assert vpin.bucket_sizes(volumes_of(A=[100.0, bad]), discovered=bad)["bucket_size"].to_list()[0] in {1.0, 2.0}
    assert vpin.bucket_sizes(volumes_of(), discovered={"A": bad}, defaults={"A": bad}).rows() == [("A", None)]


def test_no_volumes_and_no_symbols_give_no_sizes():
    assert vpin.bucket_sizes(volumes_of()).schema == {"symbol": pl.String, "bucket_size": pl.Float64}


def test_reference_holds_sorted_values_and_counts_sessions():
    buckets = bucket_values({"B": [0.5, None, 0.1], "A": [None]}, sessions=2)
    assert vpin.reference(buckets).rows() == [("A", [], 1), ("B", [0.1, 0.5], 2)]


def test_levels_stand_on_the_cdf():
    known = vpin.reference(bucket_values({"A": [k / 100 for k in range(1, 101)]}, sessions=20))
    rows = [("A", value, "buckets") for value in (0.5, 0.79, 0.80, 0.94, 0.95, 1.0, 0.0)]
    found = vpin.standardised(sample_values(rows), known)
    assert found["cdf"].to_list() == [0.5, 0.79, 0.80, 0.94, 0.95, 1.0, 0.0]
    assert found["level"].to_list() == ["low", "low", "moderate", "moderate", "high", "high", "low"]
    assert found["is_warm"].to_list() == [True] * 7
    assert found.schema == polars_schema(Vpin)


def test_only_what_can_be_compared_has_a_cdf():
    known = vpin.reference(bucket_values({"A": [0.1] * 100, "B": [0.2] * 99, "C": [0.3] * 100}, sessions=19))
    rows = [
        ("A", 0.1, "simple_imbalance"),
        ("A", None, None),
        ("B", 0.5, "buckets"),
        ("D", 0.5, "buckets"),
        ("C", 0.3, "buckets"),
    ]
    found = vpin.standardised(sample_values(rows), known)
    assert found["cdf"].to_list() == [None, None, None, None, 1.0]
    assert found["level"].to_list() == [None, None, None, None, "high"]
    assert found["is_warm"].to_list() == [False] * 5


def test_standardising_keeps_rows_that_were_not_warm_so():
    known = vpin.reference(bucket_values({"A": [0.1] * 100}, sessions=20))
    assert vpin.standardised(sample_values([("A", 0.1, "buckets")], is_warm=False), known)["is_warm"].to_list() == [
        False
    ]


def test_standardising_without_a_reference_or_without_rows():
    none = vpin.reference(bucket_values({}))
    found = vpin.standardised(sample_values([("A", 0.1, "buckets")]), none)
    assert (found["cdf"].item(), found["level"].item(), found["is_warm"].item()) == (None, None, False)
    assert vpin.standardised(sample_values([]), none).schema == polars_schema(Vpin)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_buckets": 0}, "n_buckets must be >= 1, was 0"),
        ({"sample_s": 0}, "sample_s must be >= 1, was 0"),
        ({"min_reference": 0}, "min_reference must be >= 1, was 0"),
        ({"signing": "coin"}, "signing must be one of auto, venue, lee_ready, quote, tick, bvc, was coin"),
        ({"signing": "bvc"}, "bar_s must be >= 1 with signing bvc and None without, was None"),
        ({"signing": "bvc", "bar_s": 0}, "bar_s must be >= 1 with signing bvc and None without, was 0"),
        ({"bar_s": 60}, "bar_s must be >= 1 with signing bvc and None without, was 60"),
        ({"moderate_cdf": 0.96}, "0 <= moderate_cdf <= high_cdf <= 1, were 0.96 and 0.95"),
    ],
)
def test_impossible_parameters_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VpinParams(**arguments)
