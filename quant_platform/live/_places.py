"""Where each symbol stands: not heard yet, waiting for its opening, served, or outside its hours.

Openings run in a thread, one after the other, and read the disk; a symbol's rows wait in the window meanwhile.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import islice

import structlog

from quant_platform.live.engine import Engine
from quant_platform.live.hours import Served, served_from
from quant_platform.live.opening import Opened
from quant_platform.live.window import Position, Window
from quant_platform.settings import Instrument, Settings

_LOG = structlog.get_logger()
_AGAIN_S = 30.0
_MOST_UNDER_WAY = 16  # of the others the rows go on
_NOTHING = Position(None, None, None)


@dataclass
class _Place:
    """One symbol.

    Attributes:
        instrument: Its row of platform.yaml.
        engine: Whose folds it is in.
        served: Its session: the one that is on, or comes next; None while it was not heard.
        is_open: Whether it is in its session, and was opened.
        is_queued: Whether it waits for its opening, or is being opened.
        is_roll: Whether it was read up to the session that it is opened for.
        not_before_s: After a failure, when it is opened again, by the monotonic clock.
        opened_s: When it was opened last, by the monotonic clock.
    """

    instrument: Instrument
    engine: Engine
    served: Served | None = None
    is_open: bool = False
    is_queued: bool = False
    is_roll: bool = False
    not_before_s: float = 0.0
    opened_s: float = 0.0


class Places:
    """All symbols of a writer.

    Args:
        settings: The whole tree.
        window: Where their rows wait.
        engines: Each with the symbols that are its own.
        open_symbol: Opens a symbol on a date; it is called in a thread.
    """

    def __init__(
        self, settings: Settings, window: Window, engines: Iterable[Engine], open_symbol: Callable[[str, date], Opened]
    ) -> None:
        self._settings, self._window, self._open_symbol = settings, window, open_symbol
        self._places = {
            symbol: _Place(settings.instrument(symbol), engine) for engine in engines for symbol in engine.symbols
        }
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="opening")
        self._queue: dict[str, None] = {}  # in order
        self._under_way: dict[str, Future[Opened]] = {}
        window.hold(list(self._places))

    @property
    def until(self) -> dict[str, int]:
        """Up to where each symbol's rows may go: the end of its session, or the start of the one to be opened."""
        known = ((symbol, place, place.served) for symbol, place in self._places.items())
        return {symbol: s.end_ns if place.is_open else s.start_ns for symbol, place, s in known if s}

    def dates(self) -> dict[str, date]:
        """Return the trading date of each symbol that is served."""
        return {symbol: place.served.date for symbol, place in self._places.items() if place.is_open and place.served}

    def open(self, engine: Engine) -> list[str]:
        """Return the engine's symbols that are served, in their order."""
        return [symbol for symbol in engine.symbols if self._places[symbol].is_open]

    def counts(self) -> dict[str, int]:
        """Return how many symbols wait for their opening, and how many are outside their hours."""
        idle = (p.served is not None and not p.is_open and not p.is_queued for p in self._places.values())
        return {"opening_symbols": sum(p.is_queued for p in self._places.values()), "idle_symbols": sum(idle)}

    def reopen(self, symbols: Iterable[str]) -> None:
        """Open these symbols anew, those that are served: what Redis has lost of them comes from the disk."""
        for symbol in symbols:
            if (place := self._places[symbol]).is_open:
                self._enqueue(symbol, place, is_roll=False)

    def adopt(self) -> list[Opened]:
        """Return the symbols whose opening is done: from now on they are served."""
        done = [symbol for symbol, opening in self._under_way.items() if opening.done()]
        opened = [found for symbol in done if (found := self._finished(symbol))]
        began = list(islice(self._queue, _MOST_UNDER_WAY - len(self._under_way)))
        if began:
            self._window.hold(began)
        for symbol in began:
            del self._queue[symbol]
            place = self._places[symbol]
            assert place.served is not None  # its session has begun
            place.is_open = False
            self._under_way[symbol] = self._thread.submit(self._open_symbol, symbol, place.served.date)
        return opened

    def follow(self, market_ns: Mapping[str, int]) -> None:
        """Close what is over, and open what has begun; call it after the rows up to `until` were taken.

        Args:
            market_ns: The market's time of each symbol that was heard, UTC ns.
        """
        clocks: dict[str, int] = {}
        for symbol, ns in market_ns.items():
            calendar = self._places[symbol].instrument.calendar
            clocks[calendar] = max(ns, clocks.get(calendar, 0))
        repairable = set(self._window.repairable())
        for symbol, own_ns in market_ns.items():
            place = self._places[symbol]
            if place.is_queued:
                continue
            is_new = place.served is None
            if place.served is None or clocks[place.instrument.calendar] >= place.served.end_ns:
                from_ns = own_ns if place.served is None else max(own_ns, place.served.end_ns)
                place.served, place.is_open = served_from(self._settings, place.instrument, from_ns), False
                if is_new and place.served.start_ns > own_ns:
                    self._window.adopt(symbol, _NOTHING)
            has_begun = not place.is_open and own_ns >= place.served.start_ns
            is_repair = symbol in repairable and time.monotonic() >= place.opened_s + _AGAIN_S
            if (has_begun or is_repair) and time.monotonic() >= place.not_before_s:
                self._enqueue(symbol, place, is_roll=has_begun and not is_new)

    def stop(self) -> None:
        """End the thread, when the opening under way is done."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _enqueue(self, symbol: str, place: _Place, *, is_roll: bool) -> None:
        place.is_queued, place.is_roll = True, is_roll
        self._queue[symbol] = None

    def _finished(self, symbol: str) -> Opened | None:
        done, place = self._under_way.pop(symbol), self._places[symbol]
        place.is_queued, place.opened_s = False, time.monotonic()
        if error := done.exception():
            place.not_before_s = time.monotonic() + _AGAIN_S
            _LOG.error("a symbol was not opened; it is tried again", symbol=symbol, error=repr(error))
            return None
        opened = done.result()
        assert place.served is not None  # it was opened on a date
        place.engine.adopt(opened, place.served, is_roll=place.is_roll)
        self._window.adopt(symbol, opened.position)
        place.is_open = True
        return opened
