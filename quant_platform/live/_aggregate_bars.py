"""The closes that correlations are made of, read from the symbols' lists of bars and kept between readings."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct

from quant_platform.calculators.cross_asset import MINUTE_NS, Array
from quant_platform.settings import Settings
from quant_platform.storage.redis_keys import BARS_1MIN

_LISTS_PER_READING = 20  # whole ones: what a cycle has time for
_MINUTES = Annotated[int, Meta(multiple_of=MINUTE_NS, ge=0, le=2**63 - 1)]


class _Bar(Struct):
    ts_open: _MINUTES
    close: float
    seq: int | None = None


class Grid(NamedTuple):
    """What `correlation_matrix` reads; never changed once it is there.

    Attributes:
        closes: Symbols × minutes; NaN where there is no bar.
        minutes: The start of each minute, UTC ns, ascending.
    """

    closes: Array
    minutes: Array


_BAR = msgspec.json.Decoder(_Bar)


class Closes:
    """Closes of some symbols over the newest minutes in which anything traded.

    A list is read whole at first, some lists at a time; then its newest entries alone. It is read whole again where
    those do not go on from what was read before: `seq` counts what was pushed, and a revision pushes all bars anew.

    Attributes:
        grid: The closes so far.
        is_loaded: Whether every list has been read once.
    """

    def __init__(self, settings: Settings, symbols: Sequence[str]) -> None:
        self._window = settings.analytics.correlation.window_bars
        self._names = [BARS_1MIN.name(symbol) for symbol in symbols]
        self._newest: dict[int, _Bar] = {}
        self._unread = deque(range(len(symbols)))
        self._asked: list[int] = []
        self._asked_whole = 0
        self._few = 1 + math.ceil(settings.analytics.update_intervals.correlation / 60)
        self.grid = Grid(np.empty((len(symbols), 0)), np.empty(0, np.int64))
        self.is_loaded = False

    def ranges(self, *, is_due: bool) -> list[tuple[str, int, int]]:
        """Return what to read: a key, and the first and the last place in its list.

        Args:
            is_due: Whether to bring all lists up to date, not only to read whole what waits for that.
        """
        waiting = set(self._unread)
        whole = list(self._unread)[:_LISTS_PER_READING]
        few = [place for place in range(len(self._names)) if place not in waiting] if is_due else []
        self._asked, self._asked_whole = whole + few, len(whole)
        last = self._window - 1
        return [(self._names[k], 0, last) for k in whole] + [(self._names[k], 0, self._few - 1) for k in few]

    def take(self, answers: Sequence[Sequence[bytes]]) -> list[str]:
        """Take in what the ranges held, in their order; return the keys that held something that is no bar."""
        malformed = []
        places, minutes, closes = list[int](), list[int](), list[float]()
        for number, (place, entries) in enumerate(zip(self._asked, answers, strict=True)):
            bars = []
            for entry in reversed(entries):
                try:
                    bars.append(_BAR.decode(entry))
                except (ValueError, RecursionError):
                    malformed.append(self._names[place])
            is_whole = number < self._asked_whole
            if is_whole:
                self._unread.popleft()
            if bars:
                if not (is_whole or self._goes_on(place, bars)):
                    self._unread.append(place)
                self._newest[place] = bars[-1]
            places += [place] * len(bars)
            minutes += [bar.ts_open for bar in bars]
            closes += [bar.close for bar in bars]
        forgotten = self._asked[: self._asked_whole]
        self.grid = self._with(forgotten, np.array(places, np.int64), np.array(minutes, np.int64), np.array(closes))
        self.is_loaded = self.is_loaded or not self._unread
        return malformed

    def _goes_on(self, place: int, bars: list[_Bar]) -> bool:
        known, newest = self._newest.get(place), bars[-1]
        if known is None or known.ts_open not in {bar.ts_open for bar in bars}:
            return False
        if known.seq is None or newest.seq is None:
            return True
        return newest.seq - known.seq == sum(bar.ts_open > known.ts_open for bar in bars)

    def _with(self, forgotten: list[int], places: Array, minutes: Array, closes: Array) -> Grid:
        every = np.union1d(self.grid.minutes, minutes)[-self._window :]
        grid = np.full((len(self._names), len(every)), np.nan)
        is_kept = np.isin(self.grid.minutes, every)
        grid[:, np.searchsorted(every, self.grid.minutes[is_kept])] = self.grid.closes[:, is_kept]
        grid[forgotten] = np.nan
        is_inside = np.isin(minutes, every)
        # Of two bars of one minute the later one stays.
        grid[places[is_inside], np.searchsorted(every, minutes[is_inside])] = closes[is_inside]
        return Grid(grid, every)
