"""A local order book: sequences worked by hand, a book kept without any cleverness, and the edge matrix."""

import pickle

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quant_platform.calculators import local_order_book
from quant_platform.contracts._schema import polars_schema, validated
from quant_platform.contracts.market import Book
from quant_platform_tests.unit.ipc import ipc_bytes

MS = 1_000_000
FIGURES = polars_schema(Book).names()[5:]
SNAPSHOT = ("snapshot", None, 100, None)
TWO_SIDED = ([(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0)])


def events(rows, symbol="BTCUSDT"):
    """Return events from rows (kind, first, final, previous, bids, asks, other columns); a millisecond apart."""
    made = []
    for number, (kind, first, final, previous, bids, asks, *other) in enumerate(rows):
        row = {
            "ts_event": number * MS,
            "ts_recv": (number + 50) * MS,
            "symbol": symbol,
            "venue": "binance_usdm",
            "kind": kind,
            "first_id": first,
            "final_id": final,
            "previous_id": previous,
        }
        for side, levels in (("bid", bids), ("ask", asks)):
            row |= {f"{side}_prices": [p for p, _ in levels], f"{side}_sizes": [q for _, q in levels]}
        made.append(row | (other[0] if other else {}))
    integers = {name: pl.Int64 if kind.is_temporal() else kind for name, kind in local_order_book.EVENTS.items()}
    return pl.DataFrame(made, schema=integers, strict=False).cast(local_order_book.EVENTS)


def folded(frame):
    state, rows = local_order_book.step(local_order_book.initial(), frame)
    return state, validated(Book, rows)


def rows_of(frame):
    return folded(frame)[1]


def touch(rows):
    return rows.select("bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1").rows()


def gaps(state):
    frame = local_order_book.gaps(state)
    assert frame.schema == local_order_book.GAPS
    return frame.select("symbol", "expected_id", "found_id").rows()


def diff(first, final, previous, bids=(), asks=(), **other):
    return "diff", first, final, previous, bids, asks, other


def test_a_snapshot_gives_five_levels_of_each_side_best_first():
    bids = [(float(price), price / 10) for price in (95, 99, 97, 94, 98, 96)]
    asks = [(103.0, 3.0), (101.0, 1.0), (102.0, 0.0)]
    (row,) = rows_of(events([(*SNAPSHOT, bids, asks)])).to_dicts()
    assert [row[f"bid_price_{n}"] for n in range(1, 6)] == [99, 98, 97, 96, 95]
    assert [row[f"bid_size_{n}"] for n in range(1, 6)] == [9.9, 9.8, 9.7, 9.6, 9.5]
    assert [row[f"ask_price_{n}"] for n in range(1, 6)] == [101, 103, None, None, None]
    assert [row[f"ask_size_{n}"] for n in range(1, 6)] == [1, 3, None, None, None]
    assert (row["sequence"], row["symbol"], row["venue"]) == (100, "BTCUSDT", "binance_usdm")


@pytest.mark.parametrize("is_spot", [True, False])
def test_diffs_set_add_and_remove_levels(is_spot):
    chain = [(101, 105, 100), (106, 106, 105), (107, 109, 106)]
    changes = [
        ([(99.0, 5.0)], []),
        ([(99.0, 0.0), (12.0, 0.0)], [(100.5, 7.0)]),  # a price that is not there can be removed
        ([(99.5, 2.0)], [(100.5, 0.0)]),
    ]
    diffs = [diff(a, b, None if is_spot else c, *change) for (a, b, c), change in zip(chain, changes, strict=True)]
    state, rows = folded(events([(*SNAPSHOT, *TWO_SIDED), *diffs]))
    assert touch(rows) == [(99, 1, 101, 3), (99, 5, 101, 3), (98, 2, 100.5, 7), (99.5, 2, 101, 3)]
    assert rows["sequence"].to_list() == [100, 105, 106, 109]
    assert gaps(state) == []


def test_a_change_below_the_fifth_level_gives_no_row():
    bids = [(float(price), 1.0) for price in range(99, 92, -1)]
    rows = rows_of(
        events(
            [
                (*SNAPSHOT, bids, []),
                diff(101, 101, 100, [(94.0, 9.0)]),  # the sixth
                diff(102, 102, 101, [(95.0, 9.0)]),  # the fifth
                diff(103, 103, 102, [(99.0, 1.0)]),  # nothing new
            ]
        )
    )
    assert rows["sequence"].to_list() == [100, 102]


@pytest.mark.parametrize(
    ("previous", "first", "final"),
    [(100, 105, 110), (90, 95, 110), (90, 100, 110), (99, 101, 110), (None, 101, 110), (None, 95, 110)],
)
def test_the_first_diff_after_a_snapshot_may_reach_over_it(previous, first, final):
    state, rows = folded(events([(*SNAPSHOT, *TWO_SIDED), diff(first, final, previous, [(99.0, 4.0)])]))
    assert touch(rows)[-1] == (99, 4, 101, 3)
    assert gaps(state) == []


@pytest.mark.parametrize(
    ("previous", "first", "final", "found"),
    [(101, 102, 110, 101), (104, 105, 110, 104), (101, 100, 110, 101), (None, 102, 110, 102)],
)
def test_a_diff_that_begins_behind_the_snapshot_is_a_gap(previous, first, final, found):
    state, rows = folded(events([(*SNAPSHOT, *TWO_SIDED), diff(first, final, previous, [(99.0, 4.0)])]))
    assert gaps(state) == [("BTCUSDT", 100, found)]
    assert rows["sequence"].to_list() == [100, final]
    assert rows[1].select(FIGURES).row(0) == (None,) * len(FIGURES)


@pytest.mark.parametrize(("previous", "first"), [(104, 105), (104, 111), (111, 112), (None, 112)])
def test_a_break_of_the_sequence_is_a_gap_until_the_next_snapshot(previous, first):
    chain = None if previous is None else 100
    frame = events(
        [
            (*SNAPSHOT, *TWO_SIDED),
            diff(101, 110, chain, [(99.0, 4.0)]),
            diff(first, 120, previous, [(99.0, 5.0)]),  # does not follow 110
            diff(121, 130, previous and 120, [(99.0, 6.0)]),  # waits
            ("snapshot", None, 125, None, [(97.0, 1.0)], [(102.0, 1.0)]),
            diff(131, 140, previous and 130, [(97.0, 3.0)]),
        ]
    )
    state, rows = folded(frame)
    assert touch(rows) == [
        (99, 1, 101, 3),
        (99, 4, 101, 3),
        (None, None, None, None),
        (97, 1, 102, 1),
        (99, 6, 102, 1),
        (99, 6, 102, 1),
    ]
    assert rows["sequence"].to_list() == [100, 110, 120, 125, 130, 140]
    (gap,) = local_order_book.gaps(state).to_dicts()
    assert (gap["expected_id"], gap["found_id"]) == (110, first if previous is None else previous)
    found = local_order_book.gaps(state).select(pl.col("ts_start", "ts_end", "ts_known").to_physical()).row(0)
    assert found == (1 * MS, 2 * MS, 52 * MS)


def test_diffs_that_came_before_their_snapshot_are_known_with_it():
    frame = events(
        [
            diff(90, 95, 89, [(50.0, 1.0)]),  # part of the snapshot
            diff(96, 103, 95, [(99.0, 7.0)]),
            diff(104, 108, 103, [(99.0, 8.0)]),
            (*SNAPSHOT, *TWO_SIDED),
            diff(109, 110, 108, [(99.0, 9.0)]),
        ]
    )
    rows = rows_of(frame)
    assert rows["sequence"].to_list() == [100, 103, 108, 110]
    assert rows["bid_size_1"].to_list() == [1, 7, 8, 9]
    assert rows["ts_recv"].to_physical().to_list() == [53 * MS, 53 * MS, 53 * MS, 54 * MS]
    assert rows["ts_event"].to_physical().to_list() == [3 * MS, 3 * MS, 3 * MS, 4 * MS]  # never back


def test_a_snapshot_older_than_the_stream_is_a_gap():
    frame = events(
        [
            diff(120, 125, 119),
            (*SNAPSHOT, *TWO_SIDED),
            diff(126, 130, 125),
            ("snapshot", None, 128, None, *TWO_SIDED),
            diff(131, 133, 130, [(99.0, 2.0)]),
        ]
    )
    state, rows = folded(frame)
    assert gaps(state) == [("BTCUSDT", 100, 119)]
    assert rows["sequence"].to_list() == [100, 125, 128, 133]


def test_what_was_received_twice_is_ignored():
    twice = [(*SNAPSHOT, *TWO_SIDED), diff(101, 110, 100, [(99.0, 4.0)]), diff(111, 112, 110, [(99.0, 5.0)])]
    once, doubled = (rows_of(events(rows)) for rows in (twice, [*twice, twice[1], twice[0], twice[2]]))
    assert_frame_equal(doubled, once)


def test_a_newer_snapshot_replaces_the_book():
    frame = events([(*SNAPSHOT, *TWO_SIDED), ("snapshot", None, 150, None, [(90.0, 1.0)], []), diff(151, 152, 150)])
    state, rows = folded(frame)
    assert touch(rows) == [(99, 1, 101, 3), (90, 1, None, None)]
    assert gaps(state) == []


def test_only_the_latest_diffs_wait_for_a_snapshot():
    waiting = local_order_book._WAITING
    diffs = [diff(k, k, k - 1, [(99.0, float(k))]) for k in range(1, waiting + 11)]
    snapshot = ("snapshot", None, 5, None, *TWO_SIDED)
    state, rows = folded(events([*diffs, snapshot]))
    assert gaps(state) == [("BTCUSDT", 5, 10)]
    assert len(state.books["BTCUSDT"].waiting) == waiting
    state, rows = folded(events([*diffs, ("snapshot", None, 10, None, *TWO_SIDED)]))
    assert gaps(state) == []
    assert rows.height == 1 + waiting


def test_before_the_first_snapshot_there_are_no_rows():
    state, rows = folded(events([diff(1, 2, 0, [(99.0, 1.0)])]))
    assert_frame_equal(rows, polars_schema(Book).to_frame())
    assert gaps(state) == []


def test_no_events_give_no_rows():
    state, rows = folded(events([]))
    assert_frame_equal(rows, polars_schema(Book).to_frame())
    assert state == local_order_book.initial()


GOOD = diff(101, 110, 100, [(99.0, 4.0)])


@pytest.mark.parametrize(
    "bad",
    [
        diff(101, 110, 100, [(float("nan"), 4.0)]),
        diff(101, 110, 100, [(99.0, float("inf"))]),
        diff(101, 110, 100, [(99.0, float("nan"))]),
        diff(101, 110, 100, [(0.0, 4.0)]),
        diff(101, 110, 100, [], [(101.0, -1.0)]),
        diff(101, 110, 100, [], [(None, 1.0)]),
        diff(101, 110, 100, ask_prices=[101.0]),
        diff(101, 110, 100, bid_prices=None),
        diff(None, 110, 100, [(99.0, 4.0)]),
        diff(101, None, 100, [(99.0, 4.0)]),
        diff(101, 110, 100, [(99.0, 4.0)], kind="trade"),
        diff(101, 110, 100, [(99.0, 4.0)], kind=None),
        diff(101, 110, 100, [(99.0, 4.0)], symbol=None),
        diff(101, 110, 100, [(99.0, 4.0)], ts_event=None),
        diff(101, 110, 100, [(99.0, 4.0)], ts_recv=None),
    ],
)
def test_a_row_that_is_no_message_is_a_lost_message(bad):
    follows = diff(111, 112, 110, [(99.0, 5.0)])
    state, rows = folded(events([(*SNAPSHOT, *TWO_SIDED), bad, follows]))
    assert rows["bid_size_1"].to_list() == [1, None]
    assert gaps(state) == [("BTCUSDT", 100, 110)]
    state, rows = folded(events([(*SNAPSHOT, *TWO_SIDED), bad, GOOD, follows]))
    assert rows["bid_size_1"].to_list() == [1, 4, 5]


def test_symbols_are_kept_apart():
    one = [(*SNAPSHOT, *TWO_SIDED), diff(101, 110, 100, [(99.0, 4.0)]), diff(112, 113, 111, [(99.0, 5.0)])]
    other = [("snapshot", None, 7, None, [(10.0, 1.0)], []), diff(8, 8, None, [(11.0, 2.0)]), diff(9, 9, None)]
    frames = events(one), events(other, symbol="ETHUSDT")
    mixed = pl.concat([frame[k : k + 1] for k in range(3) for frame in reversed(frames)])
    state, rows = folded(mixed)
    assert_frame_equal(rows, pl.concat([rows_of(frame) for frame in frames]))
    assert gaps(state) == [("BTCUSDT", 110, 111)]


def test_a_step_leaves_the_earlier_state_as_it_was():
    first, _ = folded(events([(*SNAPSHOT, *TWO_SIDED)]))
    following = events([diff(101, 110, 100, [(99.0, 4.0)])])
    once = local_order_book.step(first, following)[1]
    assert_frame_equal(local_order_book.step(first, following)[1], once)


def random_events(*, rows, seed):
    """Return a stream with spot ids, lost and doubled messages, and a snapshot of the plain book now and then."""
    random = np.random.default_rng(seed)
    made, sides, last = [], ({}, {}), 0
    for k in range(rows):
        if k % 23 == 20:
            made.append(("snapshot", None, last, None, *(list(side.items()) for side in sides)))
            continue
        changes = [
            [
                (float(random.integers(low, low + 400)), float(random.integers(0, 3)))
                for _ in range(random.integers(0, 30))
            ]
            for low in (1, 401)
        ]
        for side, levels in zip(sides, changes, strict=True):
            for price, size in levels:
                side[price] = size
                if not size:
                    del side[price]
        last += 1
        made += [] if random.random() < 0.02 else [diff(last, last, None, *changes)]
        made += made[-1:] if random.random() < 0.1 else []
    return events(made)


class PlainBook:
    """A book in two dictionaries, sorted anew after each message; spot ids."""

    def __init__(self):
        self.sides, self.last, self.shown, self.waiting, self.rows = ({}, {}), None, None, [], []

    def show(self, event, *, always):
        now = []
        for side, sign in zip(self.sides, (-1, 1), strict=True):
            prices = sorted(side, key=lambda price: sign * price)[:5]
            missing = [None] * (5 - len(prices))
            now += [*prices, *missing, *(side[price] for price in prices), *missing]
        if always or now != self.shown:
            self.rows.append((event["final_id"], *now))
        self.shown = now

    def change(self, event):
        for side, name in zip(self.sides, ("bid", "ask"), strict=True):
            side |= dict(zip(event[f"{name}_prices"], event[f"{name}_sizes"], strict=True))
            for price in [price for price, size in side.items() if not size]:
                del side[price]
        self.last = event["final_id"]

    def clear(self):
        for side in self.sides:
            side.clear()

    def snapshot(self, event):
        if self.last is None or event["final_id"] > self.last:
            self.clear()
            self.change(event)
            self.show(event, always=True)
            waited, self.waiting = self.waiting, []
            for late in waited:
                self.diff(late)

    def diff(self, event):
        if self.last is None:
            self.waiting.append(event)
        elif event["first_id"] > self.last + 1:
            self.clear()
            self.show(event, always=True)
            self.last = None
            self.waiting.append(event)
        elif event["final_id"] > self.last:
            self.change(event)
            self.show(event, always=False)


@pytest.mark.parametrize("near", [(5, 7), (64, 256)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rows_equal_those_of_a_plain_book(monkeypatch, seed, near):
    monkeypatch.setattr(local_order_book, "_NEAR", near[0])
    monkeypatch.setattr(local_order_book, "_NEAR_MOST", near[1])
    frame, plain = random_events(rows=900, seed=seed), PlainBook()
    for event in frame.iter_rows(named=True):
        getattr(plain, event["kind"])(event)
    state, rows = folded(frame)
    assert rows.select("sequence", *FIGURES).rows() == plain.rows
    assert rows.height > 100
    assert len(state.gaps) > 3


def test_two_runs_and_a_pickled_state_give_the_same_bytes():
    frame = random_events(rows=300, seed=7)
    state, head = local_order_book.step(local_order_book.initial(), frame[:150])
    state, tail = local_order_book.step(pickle.loads(pickle.dumps(state)), frame[150:])
    whole = rows_of(frame)
    assert_frame_equal(pl.concat([head, tail]), whole)
    assert ipc_bytes(rows_of(frame.clone())) == ipc_bytes(whole)
