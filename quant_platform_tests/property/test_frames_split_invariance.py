"""The laws of the frames' fold: cutting the lines anywhere changes nothing, and every trade id is there once."""

import datetime as dt
import json
import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.contracts._schema import contract_of, validated
from quant_platform.feeds import frames
from quant_platform.feeds.id_ranges import NOTHING, claimed
from quant_platform.feeds.recorded import Wanted

NOON_MS = 1_723_118_400_000
IDS = st.integers(0, 30)
AHEAD_MS = st.integers(-3, 3)
NUMBER = st.sampled_from([*["1.5", "2"] * 8, "0", "-1", "much", None])
LEVELS = st.lists(
    st.tuples(st.sampled_from([*["9", "10", "11"] * 5, "x"]), st.sampled_from(["0", "1", "2.5"])), max_size=3
)


def envelope(kind, data, **more):
    return {"stream": f"xusdt@{kind}", "data": data, **more}


@st.composite
def trades(draw):
    time = NOON_MS + draw(IDS)
    data = {"T": time, "t": draw(IDS), "p": draw(NUMBER), "q": draw(NUMBER), "m": draw(st.booleans())}
    is_refill = draw(st.booleans())
    return envelope("trade", data, refill=True) if is_refill else envelope("trade", data | {"E": time})


@st.composite
def aggregates(draw):
    time, first = NOON_MS + draw(IDS), draw(IDS)
    data = {"a": 1, "T": time, "f": first, "l": first + draw(st.integers(-1, 9)), "p": "2", "q": "5", "m": True}
    is_refill = draw(st.booleans())
    return envelope("aggTrade", data, refill=True) if is_refill else envelope("aggTrade", data | {"E": time})


@st.composite
def quotes(draw):
    times = draw(st.sampled_from([{}, {}, {"T": NOON_MS}, {"T": NOON_MS, "E": NOON_MS + draw(AHEAD_MS)}]))
    return envelope("bookTicker", {"u": draw(IDS), "b": draw(NUMBER), "B": "1", "a": "3", "A": "1", **times})


@st.composite
def diffs(draw):
    final = draw(IDS)
    data = {"E": NOON_MS + draw(AHEAD_MS), "U": draw(IDS), "u": final}
    data["pu"] = draw(st.sampled_from([None, None, None, final - 1]))
    return envelope("depth@100ms", data | {"b": draw(LEVELS), "a": draw(LEVELS)})


@st.composite
def snapshots(draw):
    times = draw(st.sampled_from([{}, {"E": NOON_MS, "T": NOON_MS}]))
    return {"lastUpdateId": draw(IDS), **times, "bids": draw(LEVELS), "asks": [["12", "1"]]}


@st.composite
def gaps(draw):
    first, start = draw(IDS), NOON_MS * 1_000_000
    data = {"first_id": first, "last_id": first + draw(st.integers(-2, 3)), "ts_start": start, "ts_end": start + 5}
    return envelope("gap", data | {"filled_by": draw(st.sampled_from([None, "aggTrades"]))})


MALFORMED = st.sampled_from(
    [
        "",
        "hello",
        '9999999999999999999 {"stream":"xusdt@trade","data":{"t":1}}',
        f'{NOON_MS}000000 {{"stream":"yusdt@trade","data":{{}}}}',
        f'{NOON_MS}000000 {{"stream":"xusdt@tra',
        f'{NOON_MS}000000 {{"stream":"xusdt@trade","data":{{"t":1',
        f'{NOON_MS}000000 {{"stream":"xusdt@trade","data":{{"t":99999999999999999999}}}}',
        f'{NOON_MS}000000 {{"stream":"xusdt@bookTicker","data":null}}',
        f'{NOON_MS}000000 {{"stream":"xusdt@depth","data":{{"E":99999999999999999,"b":{{}}}}}}',
        f'{NOON_MS}000000 {{"stream":"xusdt@gap"}}',
        f'{NOON_MS}000000 {{"lastUpdateId":"�"}}',
    ]
)


OWN = {
    "market/trades": trades() | aggregates(),
    "market/quotes": quotes() | quotes() | diffs(),
    "market/book": diffs() | diffs() | snapshots(),
    "market/gaps": gaps(),
}
OTHERS = st.one_of(*OWN.values())


@st.composite
def lines(draw, table):
    payloads = st.one_of(*[OWN[table]] * 6, OTHERS, MALFORMED)
    texts = [
        found if isinstance(found, str) else f"{NOON_MS * 1_000_000 + n * 1_000} {json.dumps(found)}"
        for n, found in enumerate(draw(st.lists(payloads, min_size=15, max_size=30)))
    ]
    places = np.cumsum(draw(st.lists(st.integers(1, 3), min_size=len(texts), max_size=len(texts))), dtype=np.int64)
    return pl.DataFrame({"place": places, "text": pl.Series(texts, dtype=pl.String)})


@pytest.mark.parametrize(
    ("table", "venue"),
    [
        ("market/trades", "binance_usdm"),
        ("market/quotes", "binance_usdm"),
        ("market/quotes", "binance_spot"),
        ("market/book", "binance_usdm"),
        ("market/book", "binance_spot"),
        ("market/gaps", "binance_usdm"),
    ],
)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_cutting_the_lines_anywhere_changes_nothing(data, table, venue):
    tape = data.draw(lines(table))
    wanted = Wanted(table=table, symbol="X", venue_symbol="XUSDT", date=dt.date(2024, 8, 8), venue=venue)
    contract = contract_of(table)
    cuts = sorted(data.draw(st.lists(st.integers(0, tape.height), min_size=2, max_size=5)))
    state, steps = frames.initial(), []
    for start, stop in zip([0, *cuts], [*cuts, tape.height], strict=True):
        state, found = frames.step(pickle.loads(pickle.dumps(state)), tape[start:stop], wanted)
        steps.append(found)
    _, whole = frames.step(frames.initial(), tape, wanted)
    rows = pl.concat([found.rows for found in steps]).sort(contract.sorted_by, maintain_order=True)
    assert_frame_equal(rows, whole.rows)
    assert_frame_equal(pl.concat([found.broken for found in steps]).sort("place"), whole.broken)
    assert sum(found.out_of_order for found in steps) == whole.out_of_order
    validated(contract, whole.rows)
    texts = dict(tape.rows())
    assert all(texts[place] == text for place, text in whole.broken.select("place", "text").rows())
    assert whole.broken["place"].is_unique().all()


@settings(max_examples=60, deadline=None)
@given(lines("market/trades"))
def test_every_trade_id_is_there_once(tape):
    wanted = Wanted(table="market/trades", symbol="X", venue_symbol="XUSDT", date=dt.date(2024, 8, 8))
    rows = frames.step(frames.initial(), tape, wanted)[1].rows
    ids = [n for first, last in rows.select("first_trade_id", "last_trade_id").rows() for n in range(first, last + 1)]
    assert len(ids) == len(set(ids))


ROWS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from([0, 0, 0, 1, 2, 5, 20])), max_size=30)


@given(ROWS, ROWS)
def test_claims_are_those_of_one_id_after_the_other(before, after):
    seen, expected = set(), []
    for row, (first, length) in enumerate([*before, *after]):
        new = sorted(set(range(first, first + length + 1)) - seen)
        seen.update(new)
        starts = [n for n in new if n - 1 not in new]
        stops = [n for n in new if n + 1 not in new]
        expected += [(row - len(before), *piece) for piece in zip(starts, stops, strict=True) if row >= len(before)]

    captured = NOTHING
    for rows in (before, after):
        first, length = np.array(rows, np.int64).reshape(-1, 2).T
        claim = claimed(captured, first, first + length)
        captured = claim.captured

    assert list(zip(*(c.tolist() for c in (claim.rows, claim.first, claim.last)), strict=True)) == expected
    assert [n for first, last in captured.tolist() for n in range(first, last + 1)] == sorted(seen)
    assert (captured[1:, 0] > captured[:-1, 1] + 1).all()
