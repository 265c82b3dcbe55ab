"""Which source of VIX1D is asked, and which reading stands: hand-worked cases, and the oracle of the backoff."""

import json
import math
from datetime import date
from pathlib import Path

import msgspec
import pytest

from quant_platform.feeds.vix1d import Reading, State, Vix1dParams, answered, backoff_s, choose, initial

ORACLE = json.loads((Path(__file__).parents[2] / "golden" / "oracles" / "vol_regime_cases.json").read_text())
BACKOFF = next(case for case in ORACLE["cases"] if case["id"] == "backoff")
S = 1_000_000_000
T0 = 1_700_000_000 * S
THURSDAY, FRIDAY, MONDAY, TUESDAY = date(2023, 11, 9), date(2023, 11, 10), date(2023, 11, 13), date(2023, 11, 14)
SESSIONS = [THURSDAY, FRIDAY, MONDAY, TUESDAY]


def reading(value=12.5, *, ts=T0 - 60 * S, session=TUESDAY):
    return Reading(ts, session, value)


def after(*answers, state=None):
    """Give (source, seconds after T0, reading or None) in order; return the state after them."""
    state = state or initial()
    for source, seconds, given in answers:
        state = answered(state, source, given, now=T0 + seconds * S, sessions=SESSIONS)
    return state


def asked(state, seconds):
    return choose(state, T0 + seconds * S)


def test_backoff_oracle():
    given = BACKOFF["inputs"]
    params = Vix1dParams(backoff_base_s=given["base_s"], backoff_cap_s=given["cap_s"])
    assert [backoff_s(n, params) for n in given["failures"]] == BACKOFF["expected"]["wait_s"]
    assert backoff_s(0) == 0
    assert backoff_s(100_000) == 3_600


def test_the_first_source_is_asked_first_and_then_not_before_its_refetch_time():
    state = initial()
    assert asked(state, 0) == "cboe"
    state = after(("cboe", 0, reading()))
    assert [asked(state, seconds) for seconds in (0, 1, 899, 900)] == [None, None, None, "cboe"]


def test_sources_behind_are_asked_only_while_those_before_have_failed():
    state = after(("cboe", 0, None))
    assert asked(state, 0) == "ibkr"
    state = after(("ibkr", 0, None), state=state)
    assert asked(state, 0) == "yahoo"
    state = after(("yahoo", 0, None), state=state)
    assert asked(state, 0) is None
    # Waits: cboe max(900, 120), ibkr max(15, 120), yahoo max(60, 120).
    assert [asked(state, seconds) for seconds in (119, 120, 899, 900)] == [None, "ibkr", "ibkr", "cboe"]


def test_the_backoff_doubles_with_each_failure_in_a_row_and_ends_with_an_answer():
    params = Vix1dParams(min_refetch_s={"ibkr": 15.0})
    state, now = initial(), T0
    for wait in (120, 240, 480, 960, 1_920, 3_600, 3_600):
        state = answered(state, "ibkr", None, now=now, sessions=SESSIONS, params=params)
        assert choose(state, now + wait * S - 1, params) is None
        now += wait * S
        assert choose(state, now, params) == "ibkr"
    state = answered(state, "ibkr", reading(), now=now, sessions=SESSIONS, params=params)
    assert choose(state, now + 15 * S - 1, params) is None
    assert choose(state, now + 15 * S, params) == "ibkr"
    assert (
        choose(answered(state, "ibkr", None, now=now, sessions=SESSIONS, params=params), now + 120 * S, params)
        == "ibkr"
    )


def test_if_all_fail_the_reading_that_stood_stands():
    good = reading()
    state = after(("cboe", 0, good), ("cboe", 900, None), ("ibkr", 900, None), ("yahoo", 900, None))
    assert (state.reading, state.source) == (good, "cboe")


@pytest.mark.parametrize(
    ("given", "is_good"),
    [
        (reading(session=TUESDAY), True),
        (reading(session=FRIDAY), True),  # Monday and Tuesday came after it
        (reading(session=THURSDAY), False),
        (reading(ts=T0), True),
        (reading(ts=T0 + 1), False),
        (reading(0.0), False),
        (reading(-1.0), False),
        (reading(math.nan), False),
        (reading(math.inf), False),
        (None, False),
    ],
)
def test_a_reading_that_is_not_accepted_is_a_failure(given, is_good):
    state = after(("cboe", 0, given))
    assert (state.reading == given and given is not None) == is_good
    assert state.sources["cboe"].failures == (0 if is_good else 1)
    assert asked(state, 0) == (None if is_good else "ibkr")


def test_an_older_reading_of_another_source_does_not_replace_a_newer_one():
    newer, older = reading(15.0), reading(11.0, ts=T0 - 3_600 * S)
    state = after(("cboe", 0, None), ("ibkr", 0, newer), ("cboe", 900, older))
    assert (state.reading, state.source) == (newer, "ibkr")
    assert state.sources["cboe"].failures == 0
    corrected = reading(15.5)
    assert after(("cboe", 1_800, corrected), state=state).reading == corrected


def test_a_source_that_is_not_configured_is_not_asked():
    params = Vix1dParams(min_refetch_s={"cboe": 900.0, "yahoo": 60.0})
    state = answered(initial(), "cboe", None, now=T0, sessions=SESSIONS, params=params)
    assert choose(state, T0, params) == "yahoo"


def test_the_state_survives_as_json():
    state = after(("cboe", 0, None), ("ibkr", 0, reading()))
    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_refetch_s": {}},
        {"min_refetch_s": {"cboe": -1.0}},
        {"min_refetch_s": {"cboe": math.nan}},
        {"backoff_base_s": 0.0},
        {"backoff_cap_s": 59.0},
        {"max_age_sessions": -1},
    ],
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        Vix1dParams(**wrong)
