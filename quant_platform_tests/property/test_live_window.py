"""However a tape is cut, reordered and repeated on its way, what a window lets go is the tape by id, once."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant_platform.live.window import Position, Window
from quant_platform.settings import Settings
from quant_platform.storage import live_store
from quant_platform.storage.live_store import Server
from quant_platform_tests.streamed import MS, NOON, ids, instruments, publish, quote, trade

LATER = NOON + 3_600_000 * MS
EXAMPLES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    settings = Settings(home=tmp_path_factory.mktemp("home"), instruments=instruments("AAA", "BBB"))
    with Server(settings):
        yield settings


@pytest.fixture(scope="module")
def client(home):
    with live_store.connect(home) as client:
        yield client


@st.composite
def tapes(draw):
    """Return trades of one symbol whose ids leave no hole, times that rise with them, and how they are sent."""
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=25))
    steps = draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    first, ms, rows = draw(st.integers(0, 5)), 0, []
    for length, step in zip(lengths, steps, strict=True):
        ms += step
        rows.append((first, first + length - 1, ms))
        first += length
    again = draw(st.lists(st.sampled_from(rows), max_size=5))
    return rows, draw(st.permutations(rows + again)), draw(st.lists(st.integers(0, len(rows)), max_size=6))


def pieces(rows, cuts):
    bounds = [0, *sorted(cuts), len(rows)]
    return [rows[a:b] for a, b in itertools.pairwise(bounds)]


@EXAMPLES
@given(tapes(), tapes())
def test_released_trades_are_the_tape(home, client, one, other):
    client.flushall()
    window = Window(home, ["AAA", "BBB"])
    found = {"AAA": [], "BBB": []}
    sent = {"AAA": pieces(one[1], one[2]), "BBB": pieces(other[1], other[2])}
    # A tape begins where its first id is known to be: else the first that comes is the first.
    window.hold(sent)
    for symbol, tape in (("AAA", one), ("BBB", other)):
        window.adopt(symbol, Position(tape[0][0][0] - 1, None, None))
    for turn in range(max(map(len, sent.values()))):
        for symbol, parts in sent.items():
            for first, last, ms in parts[turn] if turn < len(parts) else []:
                publish(client, {"trades": [trade(first, ms, last=last, symbol=symbol)]}, symbol=symbol)
        window.read(client)
        chunk = window.take(LATER)
        assert chunk.trades["symbol"].is_sorted()
        for symbol, first, last in chunk.trades.select("symbol", "trade_id", "last_trade_id").iter_rows():
            found[symbol].append((first, last))
    assert found["AAA"] == [row[:2] for row in one[0]]
    assert found["BBB"] == [row[:2] for row in other[0]]
    repeated = len(one[1]) + len(other[1]) - len(one[0]) - len(other[0])
    assert window.counts["duplicates"] == repeated
    assert not window.counts["gaps"]
    window.close()


@st.composite
def markets(draw):
    """Return trades and quotes in the order of their times, and where what is published together ends."""
    steps = draw(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), min_size=1, max_size=30))
    rows, ms, counts = [], 0, {True: 0, False: 0}
    for is_trade, step in steps:
        ms, counts[is_trade] = ms + step, counts[is_trade] + 1
        rows.append((is_trade, counts[is_trade], ms))
    return rows, draw(st.lists(st.integers(0, len(rows)), max_size=6))


@EXAMPLES
@given(markets())
def test_each_trade_goes_with_all_quotes_before_it(home, client, market):
    rows, cuts = market
    client.flushall()
    window = Window(home, ["AAA"])
    window.hold(["AAA"])
    window.adopt("AAA", Position(0, None, None))
    time_of = {number: ms for is_trade, number, ms in rows if is_trade}
    quotes, trades = [], []
    for part in [*pieces(rows, cuts), [], []]:
        entries = {"trades": [trade(n, ms) for is_trade, n, ms in part if is_trade]}
        publish(client, entries | {"quotes": [quote(n, ms) for is_trade, n, ms in part if not is_trade]})
        window.read(client)
        chunk = window.take(NOON)  # nothing is old by our clock
        quotes += chunk.quotes["sequence"].to_list()
        trades += ids(chunk)
        for number in ids(chunk):
            assert {n for is_trade, n, ms in rows if not is_trade and ms < time_of[number]} <= set(quotes)
    assert trades == list(time_of)
    assert quotes == [number for is_trade, number, _ in rows if not is_trade]
    assert window.counts["overtaken"] == 0
    window.close()
