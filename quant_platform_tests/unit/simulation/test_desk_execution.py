"""What slices are executed at: a walk through the book step by step, limits, and the tape that the fills are on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from quant_platform.simulation.depth_frames import _levels
from quant_platform.simulation.desk_book import far_side
from quant_platform.simulation.desk_execution import Fills, fills_of, with_fills
from quant_platform.simulation.desk_params import DeskParams
from quant_platform.simulation.desk_plan import Parents, Plan, Slices
from quant_platform.simulation.market_files import Quotes, Trades

DESK = DeskParams()
ARBOR, COMET = 0, 2
MIDNIGHT = 1_000_000


def whole(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


QUOTES = Quotes(
    update_id=whole([1, 2, 3, 4]),
    bid_ticks=whole([100_000, 100_010, 100_020, 100_015]),
    bid_lots=whole([50, 60, 70, 80]),
    ask_ticks=whole([100_002, 100_012, 100_022, 100_017]),
    ask_lots=whole([55, 65, 75, 85]),
    transaction_time=MIDNIGHT + whole([0, 1_000, 1_000, 2_000]),
    event_time=MIDNIGHT + whole([0, 1_000, 1_000, 2_000]),
)


def plan_of_one(
    side: int, lots: int, due: int, *, venue: int = ARBOR, is_maker: bool = False, limit_bps: float = np.inf
) -> Plan:
    parents = Parents(
        decided=whole([1]),
        arrived=whole([2]),
        ends=whole([9_000]),
        stops=whole([9_000]),
        side=whole([side]),
        lots=whole([lots]),
        strategy=whole([0]),
        algo=whole([0]),
        broker=whole([0]),
        signal=np.ones(1),
        limit_bps=np.array([limit_bps]),
        is_rejected=np.array([False]),
        is_cancelled=np.array([False]),
    )
    slices = Slices(
        parent=whole([0]),
        sent=whole([due - 1]),
        due=whole([due]),
        ends=whole([due]),
        lots=whole([lots]),
        sought=whole([lots]),
        venue=whole([venue]),
        is_maker=np.array([is_maker]),
    )
    return Plan(parents, slices)


def executed(plan: Plan) -> list[tuple[int, int]]:
    fills = fills_of(plan, DESK, QUOTES, MIDNIGHT)
    assert (fills.time == MIDNIGHT + plan.slices.due[0]).all()
    return list(zip(fills.price_ticks.tolist(), fills.lots.tolist(), strict=True))


def test_a_slice_meets_the_quote_strictly_before_it() -> None:
    assert executed(plan_of_one(1, 10, 1_000)) == [(100_002, 10)]
    assert executed(plan_of_one(1, 10, 1_001)) == [(100_022, 10)]
    assert executed(plan_of_one(-1, 10, 2_001)) == [(100_015, 10)]


def test_a_large_slice_walks_the_levels_behind_the_touch() -> None:
    # Levels stand 100,000 // 5,000 = 20 ticks apart; 65 is the median of the bids' sizes.
    def behind(ticks: int) -> int:
        return 65 + 65 * (ticks * 2_654_435_761 % 1_021) // 255

    first, second = 100_020, 100_040
    lots = 55 + behind(first) + 3

    assert executed(plan_of_one(1, lots, 500)) == [(100_002, 55), (first, behind(first)), (second, 3)]
    lots = 50 + behind(99_980) + 1
    assert executed(plan_of_one(-1, lots, 500)) == [(100_000, 50), (99_980, behind(99_980)), (99_960, 1)]


def test_a_thin_venue_gives_a_share_of_each_level() -> None:
    (touch, lots), *deeper = executed(plan_of_one(1, 55, 500, venue=COMET))

    assert (touch, lots) == (100_002, 5)
    assert sum(lots for _, lots in deeper) == 50


def test_the_last_level_gives_all_that_is_left() -> None:
    found = executed(plan_of_one(1, 1_000_000, 500))

    assert len(found) == 6
    assert sum(lots for _, lots in found) == 1_000_000
    assert [price for price, _ in found] == sorted(price for price, _ in found)


@pytest.mark.parametrize(("side", "touch"), [(1, 100_000), (-1, 100_002)])
def test_a_slice_that_waited_is_hit_for_all_at_the_near_touch(side: int, touch: int) -> None:
    assert executed(plan_of_one(side, 5_000, 500, is_maker=True)) == [(touch, 5_000)]


def test_nothing_is_executed_beyond_the_limit() -> None:
    # The mid at arrival is 100,001: a basis point is 10 ticks.
    assert executed(plan_of_one(1, 10_000, 500, limit_bps=1.0)) == [(100_002, 55)]
    assert executed(plan_of_one(-1, 10_000, 500, limit_bps=1.0)) == [(100_000, 50)]
    assert executed(plan_of_one(1, 10, 1_001, limit_bps=1.0)) == []
    assert executed(plan_of_one(1, 10, 1_001, limit_bps=1.0, is_maker=True)) == []
    assert executed(plan_of_one(-1, 10, 1_001, limit_bps=1.0)) == [(100_020, 10)]


def test_prices_stay_positive_where_the_book_is_at_its_last_tick() -> None:
    cheap = replace(QUOTES, bid_ticks=whole([2, 2, 2, 2]), ask_ticks=whole([3, 3, 3, 3]))

    fills = fills_of(plan_of_one(-1, 100_000, 500), DESK, cheap, MIDNIGHT)

    assert fills.price_ticks.min() == 1
    assert fills.lots.sum() == 100_000


def test_the_book_is_that_of_the_recorded_depth() -> None:
    standing, sides = whole([0, 1, 2, 3]), whole([1, 1, 1, 1])
    for sign, touch, lots in ((1, QUOTES.ask_ticks, QUOTES.ask_lots), (-1, QUOTES.bid_ticks, QUOTES.bid_lots)):
        expected = _levels(touch, lots, sign * 20, int(np.median(QUOTES.bid_lots)))
        for found, wanted in zip(far_side(QUOTES, standing, sign * sides), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


TAPE = Trades(
    row_id=whole(range(10, 20)),
    first_id=whole(range(10, 20)),
    last_id=whole(range(10, 20)),
    price_ticks=whole([7] * 10),
    lots=whole(range(1, 11)),
    time=MIDNIGHT + whole(range(0, 1_000, 100)),
    is_buyer_maker=np.zeros(10, dtype=np.bool_),
)
FILLS = Fills(
    part=whole([0, 0, 1, 2]),
    time=MIDNIGHT + whole([100, 100, 250, 2_000]),
    side=whole([1, 1, -1, -1]),
    price_ticks=whole([8, 9, 5, 6]),
    lots=whole([101, 102, 103, 104]),
    is_maker=np.array([False, False, False, True]),
)


def test_the_desks_prints_take_the_places_of_others() -> None:
    tape = with_fills(TAPE, FILLS, np.random.default_rng(1))

    assert tape.row_id.tolist() == list(range(10, 20))
    assert (np.diff(tape.time) >= 0).all()
    own = tape.lots > 100
    assert tape.lots[own].tolist() == [101, 102, 103, 104]
    assert tape.price_ticks[own].tolist() == [8, 9, 5, 6]
    assert tape.time[own].tolist() == FILLS.time.tolist()
    # The seller aggressed where the desk sold at once, the buyer where it waited to sell.
    assert tape.is_buyer_maker[own].tolist() == [False, False, True, False]
    assert (tape.price_ticks[~own] == 7).all()
    assert set(tape.lots[~own]) < set(range(1, 11))


def test_a_desk_that_did_nothing_leaves_the_tape_as_it_is() -> None:
    nothing = Fills._make(column[:0] for column in FILLS)

    tape = with_fills(TAPE, nothing, np.random.default_rng(1))

    assert tape.lots.tolist() == TAPE.lots.tolist()


def test_a_desk_larger_than_the_market_is_refused() -> None:
    six = Fills._make(np.concatenate([column, column[:2]]) for column in FILLS)

    with pytest.raises(ValueError, match="the desk executes 6 times in a day of 10 trades, more than half of them"):
        with_fills(TAPE, six, np.random.default_rng(1))
