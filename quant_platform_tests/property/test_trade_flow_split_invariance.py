"""The law of sweeps, participants and toxicity: cutting the tape anywhere changes nothing.

What one pass gives is held against loops over each symbol's trades, written from the definitions alone.
"""

import itertools
import json
import math

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from quant_platform.calculators import participants, sweeps, toxicity
from quant_platform.calculators.participants import InstitutionalParams, ParticipantParams
from quant_platform.calculators.sweeps import SweepParams
from quant_platform.calculators.toxicity import ToxicityParams

INSTANT = pl.Datetime("ns", "UTC")
MS = 1_000_000
RULES = InstitutionalParams(notional=20.0, dark_venues=("D",), cluster_trades=3, cluster_ms=100, passive_trades=3)

ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 50, 99, 100, 101, 350]),  # ms since the trade before, of whatever symbol
        st.integers(0, 5_000),  # ms until receipt
        st.sampled_from(["A", "A", "A", "1000"]),
        st.sampled_from([4.5, 5.0, 5.0, 5.5]),
        st.sampled_from([0.1, 1.0, 3.0, 7.0]),
        st.sampled_from([-1, 1, 1, 1, 0]),
        st.sampled_from(["D", "X", None]),
        st.sampled_from([(4.5, 5.0), (4.5, 5.0), (5.0, 5.5), (5.0, 5.0), (5.5, 5.0), (None, 5.0)]),
    ),
    max_size=45,
)


def signed_tape(rows):
    """Return the rows as a signed tape in the order of time, ids of all symbols being one sequence."""
    times = list(itertools.accumulate((row[0] for row in rows), initial=0))[1:]
    return pl.DataFrame(
        {
            "ts_event": [t * MS for t in times],
            "ts_recv": [(t + row[1]) * MS for t, row in zip(times, rows, strict=True)],
            "symbol": [row[2] for row in rows],
            "venue": [row[6] for row in rows],
            "trade_id": range(len(rows)),
            "last_trade_id": range(len(rows)),
            "price": [row[3] for row in rows],
            "size": [row[4] for row in rows],
            "aggressor": [row[5] for row in rows],
            "bid_price": [row[7][0] for row in rows],
            "ask_price": [row[7][1] for row in rows],
        },
        schema={
            "ts_event": INSTANT,
            "ts_recv": INSTANT,
            "symbol": pl.String,
            "venue": pl.String,
            "trade_id": pl.Int64,
            "last_trade_id": pl.Int64,
            "price": pl.Float64,
            "size": pl.Float64,
            "aggressor": pl.Int8,
            "bid_price": pl.Float64,
            "ask_price": pl.Float64,
        },
    )


def by_symbol(tape):
    """Return each symbol's trades in order, as dicts with integer times in ms."""
    trades = tape.with_columns(pl.col("ts_event", "ts_recv").to_physical() // MS).to_dicts()
    return {symbol: [t for t in trades if t["symbol"] == symbol] for symbol in sorted({t["symbol"] for t in trades})}


def folded(step, state, tape, cuts, key):
    """Return the last row of each key over all chunks."""
    outputs = []
    for start, stop in itertools.pairwise([0, *sorted(cuts), tape.height]):
        state, rows = step(state, tape[start:stop])
        outputs.append(rows)
    return pl.concat(outputs).unique(key, keep="last").sort(key)


def run_at(trades, end, params):
    """Return the first place of the run that ends at a place, and whether it is a sweep."""
    newest = trades[end]
    start = end
    while (
        start > max(0, end - params.window_trades + 1)
        and newest["ts_event"] - trades[start - 1]["ts_event"] <= params.window_ms
        and trades[start - 1]["aggressor"] == newest["aggressor"] != 0
        and (trades[start]["price"] - trades[start - 1]["price"]) * newest["aggressor"] >= 0
    ):
        start -= 1
    run = trades[start : end + 1]
    return start, (
        len(run) >= params.min_trades
        and len({t["price"] for t in run}) >= params.min_price_levels
        and sum(t["size"] for t in run) >= params.min_volume
        and newest["aggressor"] != 0
    )


def sweeps_by_loop(trades, params):
    """Return sets of places: runs that hold, merged while they overlap."""
    found = []
    for end in range(len(trades)):
        start, holds = run_at(trades, end, params)
        if holds and found and start <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        elif holds:
            found.append((start, end))
    return found


@settings(max_examples=100, deadline=None)
@given(
    ROWS,
    st.lists(st.integers(0, 45), max_size=6),
    st.sampled_from([SweepParams(), SweepParams(window_trades=4, window_ms=100, min_volume=3.0)]),
)
def test_sweeps_are_those_of_a_loop_however_the_tape_is_cut(rows, cuts, params):
    tape = signed_tape(rows)
    key = ["symbol", "first_trade_id"]
    cuts = [min(cut, tape.height) for cut in cuts]
    in_one_pass = sweeps.step(sweeps.initial(), tape, params)[1]
    by_cuts = folded(lambda state, chunk: sweeps.step(state, chunk, params), sweeps.initial(), tape, cuts, key)
    assert_frame_equal(by_cuts, in_one_pass.sort(key), check_exact=True)
    expected = []
    for symbol, trades in by_symbol(tape).items():
        for first, last in sweeps_by_loop(trades, params):
            swept = trades[first : last + 1]
            prices = {t["price"] for t in swept}
            ids = (swept[0]["trade_id"], swept[-1]["trade_id"])
            expected.append(
                (symbol, *ids, swept[-1]["aggressor"], len(swept), len(prices), max(t["ts_recv"] for t in swept))
            )
            row = in_one_pass.filter(symbol=symbol, first_trade_id=ids[0]).to_dicts()[0]
            assert math.isclose(row["volume"], math.fsum(t["size"] for t in swept), rel_tol=1e-12)
            assert math.isclose(row["notional"], math.fsum(t["size"] * t["price"] for t in swept), rel_tol=1e-12)
    columns = ["symbol", "first_trade_id", "last_trade_id", "side", "trade_count", "price_levels"]
    known = pl.col("ts_known").to_physical() // MS
    assert in_one_pass.sort(key).select(*columns, known).rows() == sorted(expected)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 45))
def test_flags_and_latest_values_are_those_of_a_loop(rows, cut):
    tape, params = signed_tape(rows), SweepParams(window_trades=5, window_ms=200)
    ordered = tape.sort("symbol", "ts_event", "trade_id")
    flags, expected = sweeps.in_sweep(ordered, params).to_list(), []
    state, _ = sweeps.step(sweeps.initial(), tape[:cut], params)
    state, _ = sweeps.step(state, tape[cut:], params)
    latest = sweeps.latest(state, params)
    for symbol, trades in by_symbol(tape).items():
        ranges = [range(first, last + 1) for first, last in sweeps_by_loop(trades, params)]
        expected += [any(place in swept for swept in ranges) for place in range(len(trades))]
        start, holds = run_at(trades, len(trades) - 1, params)
        run = trades[start:]
        row = latest.filter(symbol=symbol).select("value", "side", "trade_count", "price_levels").row(0)
        assert row == (holds, run[-1]["aggressor"] * holds, len(run), len({t["price"] for t in run}))
    assert flags == expected


def marks(trades, place):
    """Say which rules mark a trade, given all trades up to the sample point, and which can be told."""
    trade = trades[place]
    alike = [t for t in trades if (t["price"], t["aggressor"]) == (trade["price"], trade["aggressor"])]
    clusters = [[t for t in alike if 0 <= t["ts_event"] - one["ts_event"] <= RULES.cluster_ms] for one in alike]

    def is_taken(t):
        bid, ask = t["bid_price"], t["ask_price"]
        has_quote = bid is not None and ask is not None and bid <= ask
        return has_quote and t["aggressor"] != 0 and t["price"] == (ask if t["aggressor"] > 0 else bid)

    series = [place]
    for step in (-1, 1):
        at = place + step
        while 0 <= at < len(trades) and trades[at] in alike and is_taken(trades[at]):
            series.append(at)
            at += step
    bid, ask = trade["bid_price"], trade["ask_price"]
    return {
        "notional": (trade["price"] * trade["size"] >= RULES.notional, True),
        "dark_venue": (trade["venue"] in RULES.dark_venues, trade["venue"] is not None),
        "time_cluster": (
            trade["aggressor"] != 0 and any(trade in c and len(c) >= RULES.cluster_trades for c in clusters),
            True,
        ),
        "passive": (
            is_taken(trade) and len(series) >= RULES.passive_trades,
            bid is not None and ask is not None and bid <= ask,
        ),
    }


def ratio(part, whole):
    return math.fsum(part) / math.fsum(whole) if math.fsum(whole) else None


def signed_ratio(trades):
    if not any(t["aggressor"] for t in trades):
        return None
    return abs(math.fsum(t["size"] * t["aggressor"] for t in trades)) / math.fsum(t["size"] for t in trades)


def expected_flow(trades, window):
    """Return a row of participants from all trades up to the sample point."""
    places = range(max(0, len(trades) - window), len(trades))
    marked = {place: marks(trades, place) for place in places}
    notional = {place: trades[place]["price"] * trades[place]["size"] for place in places}
    groups = {"institutional": [], "retail": [], "unclassified": []}
    for place in places:
        if any(hit for hit, _ in marked[place].values()):
            groups["institutional"].append(place)
        elif notional[place] < 5.0 and trades[place]["aggressor"] != 0:
            groups["retail"].append(place)
        else:
            groups["unclassified"].append(place)
    weights = dict(zip(("notional", "dark_venue", "time_cluster", "passive"), RULES.weights, strict=True))
    scores = {
        place: math.fsum(weights[rule] * hit for rule, (hit, _) in rules.items())
        / math.fsum(weights[rule] * is_known for rule, (_, is_known) in rules.items())
        for place, rules in marked.items()
    }
    row = {"institutional_score": ratio((notional[p] * scores[p] for p in places), notional.values())}
    for rule in weights:
        is_known = any(marked[place][rule][1] for place in places)
        row[f"{rule}_hits"] = sum(marked[place][rule][0] for place in places) if is_known else None
    for name, members in groups.items():
        row[f"{name}_notional_share"] = ratio((notional[p] for p in members), notional.values())
        row[f"{name}_trade_count"] = len(members)
    for name in ("institutional", "retail"):
        members = [trades[place] for place in groups[name]]
        row[f"{name}_aggressor_ratio"] = signed_ratio(members)
        row[f"{name}_net_notional"] = math.fsum(t["price"] * t["size"] * t["aggressor"] for t in members)
    return row


def expected_toxicity(trades, window, vpin):
    """Return a row of toxicity from all trades up to the sample point."""
    last = trades[-window:]
    volume = [t["size"] for t in last]
    quoted = [t for t in last if None not in (t["bid_price"], t["ask_price"]) and t["bid_price"] <= t["ask_price"]]
    crossing = [
        t
        for t in quoted
        if (t["aggressor"] > 0 and t["price"] >= t["ask_price"])
        or (t["aggressor"] < 0 and t["price"] <= t["bid_price"])
    ]
    inputs = {
        "vpin": (0.5, vpin),
        "aggressor_ratio": (0.3, signed_ratio(last)),
        "large_trade_ratio": (0.2, ratio((t["size"] for t in last if t["price"] * t["size"] >= 20.0), volume)),
    }
    present = {name: (weight, value) for name, (weight, value) in inputs.items() if value is not None}
    weight = math.fsum(weight for weight, _ in present.values())
    sides = {"buy": 1, "sell": -1, "unclassified": 0}
    mix = {}
    for venue in sorted({t["venue"] for t in last} - {None}):
        mix[venue] = {
            name: math.fsum(t["size"] for t in last if (t["venue"], t["aggressor"]) == (venue, side))
            for name, side in sides.items()
        }
    return {
        **{name: value for name, (_, value) in inputs.items()},
        "trade_count": len(last),
        "spread_cross_ratio": ratio((t["size"] for t in crossing), [t["size"] for t in quoted]),
        "toxicity_adjusted": math.fsum(w * value for w, value in present.values()) / weight,
        "confidence": min(1.0, len(last) / 40) * weight,
        "institutional_score": expected_flow(trades, window)["institutional_score"],
        "buy_volume": math.fsum(t["size"] for t in last if t["aggressor"] > 0),
        "sell_volume": math.fsum(t["size"] for t in last if t["aggressor"] < 0),
        "unclassified_volume": math.fsum(t["size"] for t in last if t["aggressor"] == 0),
        "venue_mix": mix or None,
    }


def samples(trades):
    """Yield the opening second of each interval of 1 s, and the trades up to its last one."""
    for place, trade in enumerate(trades):
        if place + 1 == len(trades) or trades[place + 1]["ts_event"] // 1_000 != trade["ts_event"] // 1_000:
            yield trade["ts_event"] // 1_000, trades[: place + 1]


def assert_row(row, expected):
    for name, value in expected.items():
        found = json.loads(row[name]) if name == "venue_mix" and row[name] is not None else row[name]
        if isinstance(value, float):
            assert math.isclose(found, value, rel_tol=1e-12, abs_tol=1e-15), name
        elif isinstance(value, dict):
            assert found.keys() == value.keys()
            for inner in value:
                assert_row(found[inner], value[inner])
        else:
            assert found == value, name


@settings(max_examples=80, deadline=None)
@given(ROWS, st.lists(st.integers(0, 45), max_size=6), st.sampled_from([1, 2, 5, 200]))
def test_participants_are_those_of_a_loop_however_the_tape_is_cut(rows, cuts, window):
    tape, key = signed_tape(rows), ["symbol", "ts_open"]
    params = ParticipantParams(window_trades=window, sample_s=1, retail_notional=5.0, institutional=RULES)
    cuts = [min(cut, tape.height) for cut in cuts]
    in_one_pass = participants.step(participants.initial(), tape, params)[1]
    by_cuts = folded(
        lambda state, chunk: participants.step(state, chunk, params), participants.initial(), tape, cuts, key
    )
    assert_frame_equal(by_cuts, in_one_pass, rel_tol=1e-12, abs_tol=0)
    found = {(row["symbol"], row["ts_open"].timestamp()): row for row in in_one_pass.to_dicts()}
    for symbol, trades in by_symbol(tape).items():
        for second, seen in samples(trades):
            row = found.pop((symbol, second))
            assert row["last_trade_id"] == seen[-1]["trade_id"]
            assert_row(row, expected_flow(seen, window))
    assert not found


@settings(max_examples=60, deadline=None)
@given(st.data(), ROWS, st.lists(st.integers(0, 45), max_size=6), st.sampled_from([1, 3, 200]))
def test_toxicity_is_that_of_a_loop_however_the_tape_is_cut(data, rows, cuts, window):
    tape, key = signed_tape(rows), ["symbol", "ts_open"]
    params = ToxicityParams(window_trades=window, sample_s=1, large_trade_notional=20.0, institutional=RULES)
    cuts = [min(cut, tape.height) for cut in cuts]
    vpins = {
        (symbol, second): data.draw(st.one_of(st.none(), st.floats(0, 1)))
        for symbol, trades in by_symbol(tape).items()
        for second, _ in samples(trades)
    }
    vpin = pl.DataFrame(
        [(symbol, second * 1_000 * MS, value, 0) for (symbol, second), value in vpins.items()],
        schema={"symbol": pl.String, "ts_open": pl.Int64, "vpin": pl.Float64, "ts_known": pl.Int64},
        orient="row",
    ).cast({"ts_open": INSTANT, "ts_known": INSTANT})
    in_one_pass = toxicity.step(toxicity.initial(), tape, vpin, params)[1]
    by_cuts = folded(
        lambda state, chunk: toxicity.step(state, chunk, vpin, params), toxicity.initial(), tape, cuts, key
    )
    assert_frame_equal(by_cuts, in_one_pass, rel_tol=1e-12, abs_tol=0)
    found = {(row["symbol"], row["ts_open"].timestamp()): row for row in in_one_pass.to_dicts()}
    for symbol, trades in by_symbol(tape).items():
        for second, seen in samples(trades):
            assert_row(found.pop((symbol, second)), expected_toxicity(seen, window, vpins[symbol, second]))
    assert not found
