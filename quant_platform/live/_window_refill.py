"""What the Streams lost and the landing has: looked for in a thread, so that the others' rows need not wait."""

import datetime as dt
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from quant_platform.contracts._schema import Contract, contract_of, empty
from quant_platform.contracts.market import Quote, Trade
from quant_platform.feeds import frames
from quant_platform.feeds.recorded import RecordedError, Wanted
from quant_platform.live._window_rows import Notices
from quant_platform.settings import Settings
from quant_platform.storage import landing

GRACE_S = 2.0
"""What the collector missed itself it asks the venue for; so long after a hole was seen the landing is asked last."""

_LONGEST_S = 30.0
_ANY_DATE = dt.date.min
_LINES_PER_FILE = 1 << 40
_NEVER_S = float("-inf")

Found = Mapping[type[Contract], pl.DataFrame]


class Lack(NamedTuple):
    """What a symbol lacks: trades from the first of these ids to the last, and quotes between two times (ns)."""

    ids: tuple[int, int] | None = None
    quotes: tuple[int, int] | None = None


@dataclass
class _Look:
    """A symbol's look into the landing.

    Attributes:
        started_s: When the one under way began, by the monotonic clock.
        done_s: When the last that ended had begun.
        seen_s: When it was seen that something is missing.
        future: The one under way.
    """

    started_s: float = _NEVER_S
    done_s: float = _NEVER_S
    seen_s: float = _NEVER_S
    future: "Future[Found] | None" = None


class Refills:
    """Looks into the landing: one for a hole at once, one when its grace is over.

    Args:
        settings: The instruments, and where the landing is.
        notices: Told of files that cannot be read.
    """

    def __init__(self, settings: Settings, notices: Notices) -> None:
        self._settings, self._notices = settings, notices
        self._looks: dict[str, _Look] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="window-refill")

    def ask(self, symbol: str, lack: Lack, seen_s: float, now_s: float) -> None:
        """Look for it, unless a look is under way, or none is due for what was seen missing at that time."""
        look = self._looks.setdefault(symbol, _Look())
        last_s = seen_s + GRACE_S
        if look.future is None and look.done_s < (last_s if now_s >= last_s else seen_s):
            look.started_s, look.seen_s = now_s, seen_s
            look.future = self._thread.submit(_found, self._settings, symbol, lack)

    def is_over(self, symbol: str, seen_s: float, now_s: float) -> bool:
        """Whether what was seen missing at that time will not be found any more."""
        look = self._looks.get(symbol)
        return now_s >= seen_s + _LONGEST_S or (look is not None and look.done_s >= seen_s + GRACE_S)

    def forget(self, symbol: str) -> None:
        """Drop what is under way for it."""
        self._looks.pop(symbol, None)

    def done(self, now_s: float) -> dict[str, tuple[float, Found]]:
        """Return by symbol what was found since the last call, and when it was seen to be missing."""
        found = {}
        for symbol, look in self._looks.items():
            if look.future is not None and look.future.done():
                try:
                    found[symbol] = look.seen_s, look.future.result()
                except (OSError, RecordedError) as error:
                    self._notices.counts["unread_landing"] += 1
                    self._notices.say("landing not read, so that a gap may stay", symbol, now_s, reason=str(error))
                look.done_s, look.future = look.started_s, None
        return found

    def close(self) -> None:
        """End the thread when its look is over; nothing waits for it."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _found(settings: Settings, symbol: str, lack: Lack) -> Found:
    """Return the rows of the landing that a symbol lacks."""
    instrument = settings.instrument(symbol)
    paths = landing.paths_since(
        settings.landing,
        instrument.feed,
        symbol,
        trade_id=lack.ids[0] if lack.ids else None,
        ts_event=lack.quotes[0] if lack.quotes else None,
    )
    is_lacked = {}
    if lack.ids:
        is_lacked[Trade.table] = (pl.col("last_trade_id") >= lack.ids[0]) & (pl.col("first_trade_id") <= lack.ids[1])
    if lack.quotes:
        is_lacked[Quote.table] = pl.col("ts_event").to_physical().is_between(*lack.quotes)
    states = dict.fromkeys(is_lacked, frames.initial())
    rows: dict[str, list[pl.DataFrame]] = {table: [empty(contract_of(table))] for table in states}
    for number, path in enumerate(paths):
        for lines in frames.lines_of(path, number * _LINES_PER_FILE):
            for table in states:
                asked = Wanted(
                    table=table,
                    symbol=symbol,
                    venue_symbol=instrument.venue_symbol,
                    date=_ANY_DATE,
                    venue=instrument.feed,
                )
                states[table], found = frames.step(states[table], lines, asked)
                rows[table].append(found.rows.filter(is_lacked[table]))
    return {contract_of(table): pl.concat(parts) for table, parts in rows.items()}
