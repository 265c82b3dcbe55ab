"""In which half of a cycle a family has its turn, and that each symbol has its own once an interval."""

import itertools
import threading
import time

import pytest

from quant_platform.live.window import Window
from quant_platform.live.writer import Writer, run
from quant_platform.settings import Settings
from quant_platform.storage import live_store, redis_keys
from quant_platform.storage.live_store import Server
from quant_platform_tests.served import cycles_until, heartbeat, payload, seconds, writer
from quant_platform_tests.streamed import NOON, instruments, publish

SYMBOLS = ("AAA", "BBB")
INTERVALS = {"order_book": 0.5, "vpin": 1, "flow_toxicity": 1, "sweep_detection": 1.5, "flow_clustering": 2}
KEYS = (redis_keys.OBI, redis_keys.VPIN, redis_keys.TOXICITY, redis_keys.HIDDEN, redis_keys.FLOW_CLUSTERS)


@pytest.fixture
def client(tmp_path):
    settings = Settings(home=tmp_path)
    with Server(settings), live_store.connect(settings) as client:
        yield client


@pytest.fixture
def live(tmp_path, client):
    address = live_store.address(Settings(home=tmp_path))
    one = writer(tmp_path, address, *instruments(*SYMBOLS), update_intervals=INTERVALS)
    yield one
    one.close()


def counts(client):
    """How often each key was written."""
    return {(key.metric, symbol): payload(client, key, symbol).get("seq", 0) for key in KEYS for symbol in SYMBOLS}


def test_families_share_out_the_halves_and_slow_ones_their_symbols(client, live):
    for symbol in SYMBOLS:
        publish(client, seconds(1, 30, NOON, symbol=symbol), symbol=symbol)
    cycles_until(live, lambda: all(counts(client).values()))
    halves = []
    before = counts(client)
    for _ in range(24):  # three times all turns of intervals of one, two, three and four cycles: six seconds
        live.half_cycle()
        now = counts(client)
        halves.append({key for key in now if now[key] > before[key]})
        assert all(now[key] - before[key] <= 1 for key in now)
        before = now

    def turns(key, *symbols):
        """The halves, of those above, in which exactly these symbols of a key were written."""
        mine = [{symbol for metric, symbol in half if metric == key.metric} for half in halves]
        return [number for number, names in enumerate(mine) if names == set(symbols)]

    first = turns(redis_keys.OBI, *SYMBOLS)[0]
    assert first <= 1
    assert turns(redis_keys.OBI, *SYMBOLS) == list(range(first, 24, 2))
    # Twelve cycles: VPIN's are every second one, in the half in which there is no book, toxicity with it.
    vpin = turns(redis_keys.VPIN, *SYMBOLS)
    assert (len(vpin), {b - a for a, b in itertools.pairwise(vpin)}) == (6, {4})
    assert not set(vpin) & set(turns(redis_keys.OBI, *SYMBOLS))
    assert turns(redis_keys.TOXICITY, *SYMBOLS) == vpin
    # Three cycles, of which each symbol has one; and four, of which two are the family's.
    for key, apart in ((redis_keys.HIDDEN, 6), (redis_keys.FLOW_CLUSTERS, 8)):
        own = [turns(key, symbol) for symbol in SYMBOLS]
        assert [len(numbers) for numbers in own] == [24 // apart] * 2, key.metric
        assert all({b - a for a, b in itertools.pairwise(n)} == {apart} for n in own), key.metric
    slow = {number for symbol in SYMBOLS for number in turns(redis_keys.FLOW_CLUSTERS, symbol)}
    assert not slow & {*vpin, *turns(redis_keys.OBI, *SYMBOLS)}


def test_the_heartbeat_tells_how_long_both_halves_took(client, live, monkeypatch):
    def told():
        live.half_cycle()
        return heartbeat(client)["cycle_ms"]

    live.cycle()
    with monkeypatch.context() as slow:
        read = Window.read
        slow.setattr(Window, "read", lambda *given: (time.sleep(0.3), read(*given)))
        live.cycle()
    assert told() >= 600
    assert 300 <= told() < 600
    assert told() < 300


def test_a_cycle_is_late_when_it_ends_after_the_next_was_due(tmp_path, monkeypatch):
    stop, lasting_s = threading.Event(), [0.3, 0, 0, 0, 1.3, 0, 0, 0]  # halves, each due a quarter of a second on
    overruns = []

    def half_cycle(live):
        overruns.append(live.heart.overruns)
        time.sleep(lasting_s[len(overruns) - 1])
        if len(overruns) == len(lasting_s):
            stop.set()

    monkeypatch.setattr(Writer, "half_cycle", half_cycle)
    run(Settings(home=tmp_path, instruments=instruments("AAA")), ["AAA"], stop)
    # The third takes 1.3 s in place of half a second: it is late, and of those after it one is left out.
    assert overruns == [0, 0, 0, 0, 0, 0, 2, 2]
