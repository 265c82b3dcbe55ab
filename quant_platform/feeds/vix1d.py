"""Which source of VIX1D to ask next, and which of its readings stands. How a source is asked is not known here.

The state is data: it is kept between processes, and what is decided depends on it and on the time passed in alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from math import isfinite

_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Vix1dParams:
    """The sources, and how patient we are with them.

    Attributes:
        min_refetch_s: Sources in order of preference, and how long each is not asked again.
        backoff_base_s: After n failures in a row a source is left alone for base · 2ⁿ seconds,
        backoff_cap_s: but no longer than that.
        max_age_sessions: Trading dates that may lie after that of an accepted reading, today's included.
    """

    min_refetch_s: Mapping[str, float] = field(default_factory=lambda: {"cboe": 900.0, "ibkr": 15.0, "yahoo": 60.0})
    backoff_base_s: float = 60.0
    backoff_cap_s: float = 3_600.0
    max_age_sessions: int = 2

    def __post_init__(self) -> None:
        if not self.min_refetch_s:
            raise ValueError("min_refetch_s must name a source")
        for source, seconds in self.min_refetch_s.items():
            if not seconds >= 0:
                raise ValueError(f"min_refetch_s of {source} must be >= 0, was {seconds}")
        if not 0 < self.backoff_base_s <= self.backoff_cap_s:
            raise ValueError(
                f"0 < backoff_base_s <= backoff_cap_s must hold, were {self.backoff_base_s} and {self.backoff_cap_s}"
            )
        if self.max_age_sessions < 0:
            raise ValueError(f"max_age_sessions must be >= 0, was {self.max_age_sessions}")


@dataclass(frozen=True)
class Reading:
    """A value that a source gave.

    Attributes:
        ts_event: The source's time of it, integer UTC ns.
        session: The trading date that it belongs to.
        value: In vol points.
    """

    ts_event: int
    session: date
    value: float


@dataclass(frozen=True)
class Source:
    """What is remembered of a source.

    Attributes:
        asked: When it was last asked, integer UTC ns.
        failures: How many times in a row it has failed.
    """

    asked: int
    failures: int


@dataclass(frozen=True)
class State:
    """What is remembered between two questions.

    Attributes:
        sources: Those that were asked, by name.
        reading: The newest reading that was accepted: the one that stands.
        source: Who gave it.
    """

    sources: Mapping[str, Source] = field(default_factory=dict)
    reading: Reading | None = None
    source: str | None = None


_DEFAULTS = Vix1dParams()


def initial() -> State:
    """Return the state before the first question."""
    return State()


def backoff_s(failures: int, params: Vix1dParams = _DEFAULTS) -> float:
    """Return how long a source is left alone after so many failures in a row; 0 after none."""
    if failures == 0:
        return 0.0
    doublings = min(failures, 64)  # beyond any cap; the power must not overflow
    return min(params.backoff_cap_s, params.backoff_base_s * 2.0**doublings)


def choose(state: State, now: int, params: Vix1dParams = _DEFAULTS) -> str | None:
    """Return the source to ask now, or None where none is to be asked.

    It is the first one in order that is not left alone for its failures. Where that one was asked less than its
    `min_refetch_s` ago it has answered: nobody is asked, least of all those behind it. A source that failed waits for
    the longer of its backoff and its `min_refetch_s`, and those behind it are asked meanwhile.

    Args:
        state: What `initial` or `answered` returned.
        now: Integer UTC ns.
        params: The sources and waits.
    """
    for name, min_refetch_s in params.min_refetch_s.items():
        known = state.sources.get(name)
        if known is None:
            return name
        wait_s = max(min_refetch_s, backoff_s(known.failures, params))
        if now - known.asked >= round(wait_s * _NS):
            return name
        if known.failures == 0:
            return None
    return None


def answered(
    state: State,
    name: str,
    reading: Reading | None,
    *,
    now: int,
    sessions: Sequence[date],
    params: Vix1dParams = _DEFAULTS,
) -> State:
    """Return the state after a source was asked.

    Where the reading is not accepted the source has failed, and what stood stands.

    Args:
        state: What `initial` or `answered` returned.
        name: The source that was asked.
        reading: Its newest reading; None where it gave none.
        now: When it was asked, integer UTC ns.
        sessions: Trading dates up to today, the last `max_age_sessions` + 1 of them at least, any order.
        params: The sources and waits.
    """
    before = state.sources.get(name, Source(now, 0))
    is_good = reading is not None and is_accepted(reading, now, sessions, params)
    source = Source(now, 0 if is_good else before.failures + 1)
    state = replace(state, sources={**state.sources, name: source})
    if reading is None or not is_good or (state.reading and reading.ts_event < state.reading.ts_event):
        return state
    return replace(state, reading=reading, source=name)


def is_accepted(reading: Reading, now: int, sessions: Sequence[date], params: Vix1dParams = _DEFAULTS) -> bool:
    """Return whether a reading is a number above 0, not of the future, and at most `max_age_sessions` sessions old."""
    age = sum(day > reading.session for day in set(sessions))
    is_number = isfinite(reading.value) and reading.value > 0
    return is_number and reading.ts_event <= now and age <= params.max_age_sessions
