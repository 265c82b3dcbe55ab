"""What is wrong with a chain, counted by hand: crossed quotes, parity, the underlying, open interest."""

import math

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators.chain_quality import ChainQualityParams, chain_quality
from quant_platform.contracts._schema import INSTANT, empty, validated
from quant_platform.contracts.options import ChainQuality

DAY = 86_400_000_000_000
EXPIRY = 30 * DAY
SCHEMA = {
    "symbol": pl.String,
    "ts_event": pl.Int64,
    "ts_recv": pl.Int64,
    "contract": pl.String,
    "type": pl.String,
    "strike": pl.Float64,
    "ts_expiry": pl.Int64,
    "bid": pl.Float64,
    "ask": pl.Float64,
    "open_interest": pl.Float64,
    "underlying_price": pl.Float64,
    "rate": pl.Float64,
    "dividend": pl.Float64,
}
NOTHING = pl.DataFrame(schema=SCHEMA).cast({"ts_event": INSTANT})


def contract(kind, strike, mid, **changes):
    row = {"symbol": "X", "ts_event": 0, "ts_recv": 7, "contract": f"{kind}{strike:g}", "type": kind, "strike": strike}
    row |= {"ts_expiry": EXPIRY, "bid": mid - 0.1, "ask": mid + 0.1, "open_interest": 10.0, "underlying_price": 100.0}
    return row | {"rate": 0.0, "dividend": 0.0} | changes


def chain(*rows):
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.cast(dict.fromkeys(("ts_event", "ts_recv", "ts_expiry"), INSTANT))


def straddles(*strikes, forward=100.0):
    """Return calls and puts whose mids differ by forward - strike: parity holds exactly at rate 0."""
    return [
        row
        for strike in strikes
        for row in (
            contract("C", strike, 20 + max(forward - strike, 0)),
            contract("P", strike, 20 + max(strike - forward, 0)),
        )
    ]


def judged(rows, earlier=NOTHING, **params):
    (found,) = validated(ChainQuality, chain_quality(chain(*rows), earlier, ChainQualityParams(**params))).to_dicts()
    return found


def test_a_sound_chain_has_nothing_wrong():
    found = judged(straddles(90, 95, 100, 105, 110))
    assert (found["contracts"], found["two_sided"], found["crossed"], found["one_sided"]) == (10, 10, 0, 0)
    assert (found["parity_pairs"], found["parity_violations"]) == (5, 0)
    assert found["parity_price"] == pytest.approx(100.0)
    assert found["underlying_gap"] == pytest.approx(0.0, abs=1e-12)
    assert (found["open_interest_compared"], found["open_interest_change"]) == (None, None)
    assert not any(found[name] for name in found if name.startswith("is_"))
    assert found["status"] == "ok"


def test_crossed_and_one_sided_quotes_are_counted():
    rows = straddles(90, 100)
    rows[0] |= {"bid": 31.0, "ask": 30.0}
    rows[1] |= {"bid": None}
    found = judged(rows)
    assert (found["two_sided"], found["crossed"], found["one_sided"]) == (3, 1, 1)
    assert found["crossed_share"] == pytest.approx(1 / 3)
    assert found["is_crossed"]
    assert not judged(rows, max_crossed_share=0.34)["is_crossed"]


def test_a_strike_breaks_parity_where_its_quotes_leave_no_room_for_the_forward():
    rows = straddles(90, 95, 100, 105, 110)
    rows[0] |= {"bid": 33.9, "ask": 34.1}  # call 90 at 34, put at 20: forward 104 ± 0.2
    found = judged(rows, parity_tolerance=0.03)
    assert (found["parity_violations"], found["parity_share"], found["is_parity_broken"]) == (1, 0.2, True)
    # 104 - 0.2 is 3.8 above the forward: within a tolerance of 4 % nothing is broken.
    assert judged(rows, parity_tolerance=0.04)["parity_violations"] == 0


def test_an_underlying_of_another_time_is_seen():
    rows = [row | {"underlying_price": 103.0} for row in straddles(90, 95, 100, 105, 110)]
    found = judged(rows)
    assert found["underlying_gap"] == pytest.approx(0.03)
    assert found["is_underlying_stale"]
    assert not judged(rows, max_underlying_gap=0.031)["is_underlying_stale"]


def test_the_underlying_is_held_against_the_next_expiry_with_its_carry():
    rows = [row | {"rate": 0.10, "dividend": 0.02} for row in straddles(90, 95, 100, 105, 110)]
    later = [row | {"ts_expiry": 2 * EXPIRY, "underlying_price": 200.0} for row in straddles(95, 100, 105)]
    years = 30 / 365
    # Parity at strike 100: call less put is 0, so the forward is 100, and the spot that, less the carry.
    found = judged([*rows, *later])
    assert found["underlying_price"] == 100.0
    assert found["parity_price"] == pytest.approx(100 * math.exp(-0.08 * years), rel=1e-6)


def test_open_interest_is_held_against_the_last_snapshot_of_the_session_before():
    rows = straddles(95, 100, 105)
    before = chain(
        *(row | {"ts_event": -DAY, "open_interest": 1_000.0} for row in rows),
        *(row | {"ts_event": -1, "open_interest": 40.0} for row in rows[:4]),
        contract("C", 500.0, 1.0, ts_event=-1),
    )
    found = judged(rows, before)
    assert (found["open_interest_compared"], found["open_interest_change"]) == (4, -0.75)
    assert found["is_open_interest_off"]
    assert not judged(rows, before, max_open_interest_change=0.8)["is_open_interest_off"]


def test_where_nothing_can_be_compared_nothing_is_called_wrong():
    rows = [contract("C", 100.0, 1.0, bid=None, ask=None, open_interest=None, underlying_price=None)]
    found = judged(rows)
    assert (found["status"], found["without_open_interest"]) == ("no_data", 1)
    assert [found[name] for name in ("crossed_share", "parity_share", "underlying_gap")] == [None] * 3
    assert not any(found[name] for name in found if name.startswith("is_"))


def test_snapshots_and_symbols_do_not_mix_and_an_empty_chain_gives_no_row():
    one = straddles(95, 100, 105)
    two = [row | {"symbol": "Y", "underlying_price": 110.0} for row in straddles(95, 100, 105)]
    three = [row | {"ts_event": DAY} for row in one]
    together = chain_quality(chain(*two, *one, *three), NOTHING)
    apart = pl.concat(chain_quality(chain(*rows), NOTHING) for rows in (one, three, two))
    assert_frame_equal(together, apart)
    assert_frame_equal(chain_quality(chain(), NOTHING), empty(ChainQuality))


def test_two_runs_give_the_same_bits():
    rows = [contract("C", 100.0 + n, 5.0, open_interest=1 / (n + 3)) for n in range(3_000)]
    before = chain(*(row | {"ts_event": -1, "open_interest": 1 / (place + 7)} for place, row in enumerate(rows)))
    values = {chain_quality(chain(*rows), before)["open_interest_change"][0] for _ in range(20)}
    assert len(values) == 1


@pytest.mark.parametrize("name", ["max_crossed_share", "parity_tolerance", "max_open_interest_change"])
@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_limits_must_be_numbers(name, bad):
    with pytest.raises(ValueError, match=name):
        ChainQualityParams(**{name: bad})
