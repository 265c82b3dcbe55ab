"""Deribit's REST as a replayed date had it: of the archived snapshots of a chain the newest one there was by then.

Where the recording is shifted, so are its times, by the same offset. A contract's expiry is in its name, and is always
at 08:00 UTC: it is shifted by the offset rounded up to whole days, in names too. So what had not expired has not, and
each contract has up to a day more to live than it had.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from quant_platform.feeds import deribit
from quant_platform.feeds._replay_rest import Answer
from quant_platform.feeds.chain_snapshot import INSTRUMENTS, SUMMARIES, TICKER
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import chain_archive

ROOT = "/api/v2/public/"
_LISTS = {"get_instruments": INSTRUMENTS, "get_book_summary_by_currency": SUMMARIES}
_TIMES, _NAMES = ("creation_timestamp", "timestamp"), ("instrument_name", "underlying_index")
_EXPIRY = re.compile(r"(?<=-)\d{1,2}[A-Z]{3}\d{2}(?=-|$)")
_MS_NS, _DAY_NS, _DAY_MS = 1_000_000, 86_400_000_000_000, 86_400_000


class Moved(NamedTuple):
    """By how much times are shifted, ms, and expiries, days."""

    time_ms: int
    days: int

    @classmethod
    def by(cls, shift_ns: int) -> "Moved":
        """Return what an offset of the recording means."""
        return cls(shift_ns // _MS_NS, -(-shift_ns // _DAY_NS))


class Chains:
    """The archived chains of a date, from the landing, else those simulated, and the last one of the day before.

    Args:
        settings: Where they lie.
        instruments: Whose chains are wanted; those of other venues are passed over.
        date: The date.
    """

    def __init__(self, settings: Settings, instruments: Sequence[Instrument], date: dt.date) -> None:
        self.paths: dict[str, list[Path]] = {}
        for instrument in instruments:
            chain = instrument.chain
            if chain and chain.feed == deribit.VENUE:
                before = _archived(settings, instrument.symbol, date - dt.timedelta(days=1))[-1:]
                if paths := before + _archived(settings, instrument.symbol, date):
                    self.paths[chain.venue_symbol] = paths

    def answer(self, method: str, query: Mapping[str, str], *, at_ns: int, moved: Moved) -> Answer:
        """Return what the venue answers.

        Args:
            method: Such as `get_instruments`.
            query: Its parameters.
            at_ns: The time in the recording.
            moved: What its times are shifted by.
        """
        try:
            if method == "ticker":
                return self._ticker(query.get("instrument_name", ""), at_ns, moved)
            if method in _LISTS:
                return self._list(method, query, at_ns, moved)
        except chain_archive.UnreadableSnapshotError as error:
            return _error(500, 11094, f"internal_server_error: {error}")
        return _error(404, -32601, f"Method not found: public/{method}")

    def _list(self, method: str, query: Mapping[str, str], at_ns: int, moved: Moved) -> Answer:
        currency = query.get("currency", "")
        if currency not in self.paths:
            return _error(400, -32602, f"Invalid params: no chain of currency '{currency}' was recorded")
        answers = self._newest(currency, at_ns)
        if _LISTS[method] not in answers:
            return _error(503, 10040, f"retry: the recording has no {_LISTS[method]} of {currency} here")
        is_wanted = query.get("kind", "option") == "option"
        return _answer(answers[_LISTS[method]].content if is_wanted else b'{"result":[]}', moved)

    def _ticker(self, name: str, at_ns: int, moved: Moved) -> Answer:
        recorded = _renamed(name, -moved.days)
        for currency in self.paths:
            if found := self._newest(currency, at_ns).get(f"{TICKER}{recorded}"):
                return _answer(found.content, moved)
        return _error(404, 13020, f"not_found: the recording has no ticker of '{name}' here")

    def _newest(self, currency: str, at_ns: int) -> Mapping[str, chain_archive.Answer]:
        path = next((p for p in reversed(self.paths[currency]) if chain_archive.ts_event_ns(p) <= at_ns), None)
        return _snapshot(path).answers if path else {}


def _archived(settings: Settings, symbol: str, date: dt.date) -> list[Path]:
    roots = (settings.landing / "chains", settings.simulated_chains)
    found = (chain_archive.paths(root, deribit.VENUE, symbol, date) for root in roots)
    return next((paths for paths in found if paths), [])


@lru_cache(maxsize=4)
def _snapshot(path: Path) -> chain_archive.Snapshot:
    return chain_archive.read(path)


def _answer(content: bytes, moved: Moved) -> Answer:
    result = msgspec.json.decode(content)["result"]
    for record in result if isinstance(result, list) else [result]:
        for name in _TIMES:
            if isinstance(record.get(name), int | float):
                record[name] += moved.time_ms
        for name in _NAMES:
            if isinstance(record.get(name), str):
                record[name] = _renamed(record[name], moved.days)
        if isinstance(record.get("expiration_timestamp"), int | float):
            record["expiration_timestamp"] += moved.days * _DAY_MS
    return Answer(200, {"jsonrpc": "2.0", "result": result})


def _renamed(name: str, days: int) -> str:
    """Return the name of a contract or a future that expires so many days later."""

    def later(match: re.Match[str]) -> str:
        day = dt.datetime.strptime(match[0], "%d%b%y").replace(tzinfo=dt.UTC) + dt.timedelta(days=days)
        return f"{day.day}{day:%b%y}".upper()

    return _EXPIRY.sub(later, name) if days else name


def _error(status: int, code: int, text: str) -> Answer:
    body: dict[str, Any] = {"jsonrpc": "2.0", "error": {"code": code, "message": text}}
    return Answer(status, body)
