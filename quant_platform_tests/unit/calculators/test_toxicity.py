"""Toxicity: the oracle, ratios and volumes worked by hand, VPIN there and missing, and the edge matrix."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import participants, toxicity
from quant_platform.calculators.participants import InstitutionalParams, ParticipantParams
from quant_platform.calculators.toxicity import ToxicityParams
from quant_platform.contracts._schema import INSTANT, polars_schema, validated
from quant_platform.contracts.enums import Level, Status
from quant_platform.contracts.microstructure import Toxicity
from quant_platform_tests.unit.ipc import ipc_bytes

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "toxicity_cases.json").read_text())
CASES = {case["id"]: case for case in ORACLE["cases"]}
BLENDS = [case for case in ORACLE["cases"] if case["id"].startswith("blend_")]
MS = 1_000_000
DEFAULTS = ToxicityParams()
VPIN = pl.Schema({"symbol": pl.String, "ts_open": INSTANT, "vpin": pl.Float64, "ts_known": INSTANT})
INPUTS = pl.Schema(
    {"vpin": pl.Float64, "aggressor_ratio": pl.Float64, "large_trade_ratio": pl.Float64, "trade_count": pl.Int64}
)


def vpin(*rows):
    """Return VPIN's rows from (minute, value) or (minute, value, known in ms)."""
    full = [(symbol, minute * 60_000 * MS, value, (known or [0])[0] * MS) for symbol, minute, value, *known in rows]
    numbers = {name: pl.Int64 if dtype == INSTANT else dtype for name, dtype in VPIN.items()}
    return pl.DataFrame(full, schema=numbers, orient="row").cast(dict(VPIN))


NO_VPIN = vpin()


def toxic(trades, vpins=NO_VPIN, params=DEFAULTS):
    return toxicity.step(toxicity.initial(), trades, vpins, params)[1]


def last(trades, vpins=NO_VPIN, params=DEFAULTS):
    return toxic(trades, vpins, params).to_dicts()[-1]


@pytest.mark.parametrize("case", BLENDS, ids=lambda case: case["id"])
def test_blend_oracle(case):
    inputs = {"trade_count": case["inputs"]["trades"], **case["inputs"]}
    (found,) = toxicity.blend(pl.DataFrame([inputs], schema=INPUTS)).to_dicts()
    for name, value in case["expected"].items():
        wanted = pytest.approx(value, rel=0, abs=case["tolerance"]["abs"]) if isinstance(value, float) else value
        assert found[name] == wanted


def test_ratios_oracle(signed):
    case = CASES["ratios"]
    params = ToxicityParams(large_trade_notional=case["inputs"]["large_trade_notional"])
    found = last(signed([{**row, "ts_ms": k} for k, row in enumerate(case["inputs"]["trades"])]), params=params)
    for name, value in case["expected"].items():
        assert found[name] == pytest.approx(value, rel=0, abs=case["tolerance"]["abs"])


def test_level_oracle():
    case = CASES["level_from_cdf"]
    cdf = pl.DataFrame({"cdf": case["inputs"]["cdf"]})
    found = cdf.select(toxicity.level(pl.col("cdf"), moderate=0.80, high=0.95)).to_series()
    assert found.to_list() == case["expected"]["level"]


def test_a_value_that_misses_its_threshold_by_rounding_has_reached_it():
    values = pl.DataFrame({"value": [0.1 * 3, math.nextafter(0.3, 0), 0.2999]})
    found = values.select(toxicity.level(pl.col("value"), moderate=0.3, high=0.4)).to_series()
    assert found.to_list() == [Level.MODERATE, Level.MODERATE, Level.LOW]


def test_weights_need_not_sum_to_one():
    inputs = pl.DataFrame([(0.5, None, 1.0, 20)], schema=INPUTS, orient="row")
    (found,) = toxicity.blend(inputs, ToxicityParams(weights=(1.0, 5.0, 2.0))).to_dicts()
    assert found["toxicity_adjusted"] == (0.5 + 2.0) / 3
    assert found["confidence"] == 0.5 * 3 / 8


def test_every_case_of_the_oracle_is_run():
    assert set(CASES) == {case["id"] for case in BLENDS} | {"ratios", "level_from_cdf", "participants"}


def test_volumes_and_spread_crossing_by_hand(signed):
    quote = {"bid": 99.0, "ask": 101.0}
    rows = [
        {"price": 101.0, "size": 1.0, "aggressor": 1, **quote},  # at the far quote
        {"price": 102.0, "size": 2.0, "aggressor": 1, **quote},  # through it
        {"price": 100.0, "size": 4.0, "aggressor": 1, **quote},  # inside
        {"price": 99.0, "size": 8.0, "aggressor": -1, **quote},  # at
        {"price": 98.0, "size": 16.0, "aggressor": -1, **quote},  # through
        {"price": 101.0, "size": 32.0, "aggressor": -1, **quote},  # the near quote
        {"price": 101.0, "size": 64.0, "aggressor": 0, **quote},  # nobody crossed
        {"price": 101.0, "size": 128.0, "aggressor": 1},  # no quote
        {"price": 101.0, "size": 256.0, "aggressor": 1, "bid": 101.0},  # one side of it
        {"price": 101.0, "size": 512.0, "aggressor": 1, "bid": 102.0, "ask": 101.0},  # crossed
        {"price": 101.0, "size": 1_024.0, "aggressor": 1, "bid": 101.0, "ask": 101.0},  # locked
    ]
    found = last(signed([{**row, "ts_ms": k} for k, row in enumerate(rows)]))
    sold, unknown = 8 + 16 + 32, 64
    bought = 2_047 - sold - unknown
    assert (found["buy_volume"], found["sell_volume"], found["unclassified_volume"]) == (bought, sold, unknown)
    assert found["aggressor_ratio"] == (bought - sold) / 2_047
    assert found["spread_cross_ratio"] == (1 + 2 + 8 + 16 + 1_024) / (127 + 1_024)


def test_no_trade_with_a_quote_gives_no_spread_crossing(signed):
    assert last(signed([{"ts_ms": 0, "price": 5.0}]))["spread_cross_ratio"] is None


def test_an_unsigned_tape_has_no_aggressor_ratio_and_its_weight_drops_out(signed):
    found = last(signed([{"ts_ms": k, "price": 5.0, "aggressor": 0} for k in range(80)]))
    assert found["aggressor_ratio"] is None
    assert (found["toxicity_adjusted"], found["toxicity_adjusted_level"]) == (0.0, Level.LOW)
    assert found["confidence"] == pytest.approx(0.2, rel=1e-15)


@pytest.mark.parametrize(
    ("symbol", "ratio"),
    [("SPY   240809C00500000", 0.5), ("BTC-27DEC24-100000-C", 0.5), ("BTCUSDT", 0.0), ("SPY", 0.0)],
)
def test_contracts_make_a_trade_large_for_options_only(signed, symbol, ratio):
    rows = [{"ts_ms": k, "price": 0.5, "size": 250.0 - k % 2, "symbol": symbol} for k in range(2)]
    expected = ratio and 250 / 499
    assert last(signed(rows))["large_trade_ratio"] == expected


def test_a_large_notional_makes_an_option_trade_large_too(signed):
    rows = [{"ts_ms": 0, "price": 2_500.0, "size": 100.0, "symbol": "SPY   240809C00500000"}]
    assert last(signed(rows))["large_trade_ratio"] == 1.0


def test_vpin_of_the_same_interval_is_blended(signed):
    rows = [{"ts_ms": t, "price": 1.0} for t in (1_000, 61_000, 121_000, 181_000)]
    values = vpin(("BTCUSDT", 0, 0.8), ("BTCUSDT", 1, None), ("BTCUSDT", 2, math.nan), ("ETHUSDT", 3, 0.9))
    found = toxic(signed(rows), values)
    assert found["vpin"].to_list() == [0.8, None, None, None]
    # All trades are buys of a small size: ratio 1, no large trade.
    np.testing.assert_allclose(found["toxicity_adjusted"], [0.5 * 0.8 + 0.3, *[0.3 / 0.5] * 3], rtol=1e-15)
    np.testing.assert_allclose(found["confidence"], [1 / 40, *(0.5 * np.array([2, 3, 4]) / 40)], rtol=1e-15)
    assert found["toxicity_adjusted_level"].to_list() == [Level.HIGH, *[Level.MODERATE] * 3]


def test_known_time_includes_the_receipts_behind_vpin(signed):
    trades = signed([{"ts_ms": 1_000, "price": 1.0}, {"ts_ms": 61_000, "price": 1.0}])
    found = toxic(trades, vpin(("BTCUSDT", 0, 0.8, 1_200), ("BTCUSDT", 1, None, 99_000)))
    assert found["ts_known"].to_physical().to_list() == [1_200 * MS, 61_050 * MS]


def test_the_last_of_two_values_of_vpin_counts(signed):
    found = toxic(signed([{"ts_ms": 0, "price": 1.0}]), vpin(("BTCUSDT", 0, 0.1), ("BTCUSDT", 0, 0.2)))
    assert found["vpin"].to_list() == [0.2]


def test_venue_mix_by_hand(signed):
    rows = [
        {"venue": "XNAS", "size": 1.5, "aggressor": 1},
        {"venue": "FINRA", "size": 2.0, "aggressor": -1},
        {"venue": "XNAS", "size": 4.0, "aggressor": 0},
        {"venue": None, "size": 8.0, "aggressor": 1},
        {"venue": "XNAS", "size": 0.5, "aggressor": 1},
        {"venue": 'a "b"', "size": 1.0, "aggressor": 1, "symbol": "ETHUSDT"},
    ]
    found = toxic(signed([{"ts_ms": k, "price": 1.0, **row} for k, row in enumerate(rows)]))
    mixes = [json.loads(mix) for mix in found["venue_mix"]]
    assert mixes == [
        {
            "FINRA": {"buy": 0.0, "sell": 2.0, "unclassified": 0.0},
            "XNAS": {"buy": 2.0, "sell": 0.0, "unclassified": 4.0},
        },
        {'a "b"': {"buy": 1.0, "sell": 0.0, "unclassified": 0.0}},
    ]


def test_a_window_without_a_venue_has_no_mix(signed):
    without = {"ts_ms": 0, "price": 1.0, "venue": None}
    assert last(signed([without]))["venue_mix"] is None
    found = toxic(signed([without, {"ts_ms": 0, "price": 1.0, "symbol": "ETHUSDT"}]))
    assert [mix is None for mix in found["venue_mix"]] == [True, False]


def test_the_institutional_score_is_that_of_participants(random_signed):
    trades = random_signed(count=2_000, symbols=3, seed=1)
    rules = InstitutionalParams(dark_venues=("FINRA",), notional=1.0)
    ours = toxic(trades, params=ToxicityParams(institutional=rules))
    _, theirs = participants.step(participants.initial(), trades, ParticipantParams(institutional=rules))
    shared = ["symbol", "ts_open", "institutional_score", "dark_venue_hits", "ts_known"]
    assert_frame_equal(ours.select(shared), theirs.select(shared))
    assert 0 < ours["institutional_score"].min() < ours["institutional_score"].max() < 1


def test_the_window_holds_the_last_trades(signed):
    rows = [{"ts_ms": k, "price": 1.0, "aggressor": 1 if k < 3 else -1} for k in range(5)]
    assert last(signed(rows))["aggressor_ratio"] == 1 / 5
    assert last(signed(rows), params=ToxicityParams(window_trades=2))["aggressor_ratio"] == 1.0


def test_symbols_interleaved_are_apart(random_signed):
    trades = random_signed(count=1_500, symbols=3, seed=2)
    together = toxic(trades)
    for symbol in ("S0", "S1", "S2"):
        assert_frame_equal(together.filter(symbol=symbol), toxic(trades.filter(symbol=symbol)))


def test_row_order_does_not_matter(random_signed):
    trades = random_signed(count=1_000, symbols=3, seed=3)
    assert_frame_equal(toxic(trades.sample(fraction=1, shuffle=True, seed=4)), toxic(trades))


def test_an_empty_tape_gives_no_rows_of_the_right_types(signed):
    assert toxic(signed([])).is_empty()
    assert toxic(signed([])).schema == polars_schema(Toxicity)
    assert toxic(signed([]).clear(3)).is_empty()


@pytest.mark.parametrize(
    "bad",
    [
        *({column: value} for column in ("price", "size") for value in (None, math.nan, math.inf, 0.0, -1.0)),
        {"aggressor": None},
        {"symbol": None},
    ],
    ids=str,
)
def test_a_bad_row_among_good_ones_is_ignored(signed, bad):
    good = [{"ts_ms": 1_000 * k, "price": 5.0, "trade_id": k} for k in range(3)]
    wrong = {"ts_ms": 1_500, "price": 5.0, "trade_id": 9, **bad}
    assert_frame_equal(toxic(signed([*good[:2], wrong, good[2]])), toxic(signed(good)))


@pytest.mark.parametrize("size", [1e200, 1.7e308])
def test_sums_beyond_the_floats_are_null(signed, size):
    trades = signed([{"ts_ms": k, "price": 1e200 if size < 1e300 else 1e-300, "size": size} for k in range(2)])
    found = last(trades, vpin(("BTCUSDT", 0, 0.5)))
    assert (found.pop("status"), found.pop("trade_count")) == (Status.NAN, 2)
    known = {"ts_open", "ts_event", "symbol", "last_trade_id", "ts_known"}
    assert all(found[name] is None for name in found.keys() - known)
    assert validated(Toxicity, toxic(trades)).height == 1


def test_two_identical_runs_give_identical_bytes(random_signed):
    trades = random_signed(count=2_000, symbols=4, seed=5)
    assert ipc_bytes(toxic(trades)) == ipc_bytes(toxic(trades))


def test_toxicity_keeps_its_contract(random_signed):
    trades = random_signed(count=2_000, symbols=4, seed=6)
    values = vpin(*((f"S{k % 4}", k // 4, k % 10 / 9) for k in range(400)))
    found = validated(Toxicity, toxic(trades, values))
    assert found["vpin"].null_count() == 0
    assert found["status"].unique().to_list() == [Status.OK]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window_trades": 0}, "window_trades must be >= 1, was 0"),
        ({"sample_s": 0}, "sample_s must be >= 1, was 0"),
        ({"confident_trades": 0}, "confident_trades must be >= 1, was 0"),
        ({"large_trade_notional": 0.0}, "large_trade_notional must be > 0"),
        ({"large_trade_contracts": math.nan}, "large_trade_contracts must be > 0"),
        ({"weights": (0.5, 0.5, 0.0)}, "weights must be > 0"),
        ({"moderate": 0.8}, "were 0.8 and 0.7"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ToxicityParams(**wrong)
