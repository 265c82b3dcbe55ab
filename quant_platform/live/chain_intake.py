"""A snapshot of an option chain into the landing, checked by reading it: polled from a venue, or from a file.

Who polls is `chains`'; where snapshots lie is `storage.chain_archive`'s.
"""

import datetime as dt
import gzip
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from quant_platform.feeds import chain_snapshot
from quant_platform.feeds.option_chain import ChainError
from quant_platform.pipeline.sessions import trading_date
from quant_platform.settings import Instrument, ListedOptions, Settings
from quant_platform.storage import chain_archive
from quant_platform.storage.chain_archive import Answer, Snapshot

_GZIP = b"\x1f\x8b"
_HEAD_BYTES = 200
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Read(NamedTuple):
    """A snapshot as rows of `options/chain`, how many records are none, and where in time it belongs."""

    rows: pl.DataFrame
    quarantined: int
    ts_event_ns: int
    date: dt.date


class Ingested(NamedTuple):
    """What became of a file: what was in it, or why it was refused."""

    file: str
    status: Literal["archived", "known", "refused"]
    rows: int | None = None
    quarantined: int | None = None
    ts_event: str | None = None
    date: str | None = None
    why: str | None = None


def chain_of(instrument: Instrument) -> ListedOptions:
    """Return the chain of an instrument that has one."""
    assert instrument.chain is not None
    return instrument.chain


def read(instrument: Instrument, snapshot: Snapshot) -> Read:
    """Return what a snapshot of an instrument's polled chain says.

    Raises:
        ChainError: It cannot be read, or has no contract that can be used.
    """
    parsed = chain_snapshot.rows_of(chain_of(instrument).feed, snapshot, symbol=instrument.symbol)
    if parsed.rows.is_empty():
        source = next(iter(snapshot.answers.values())).source
        rules = ", ".join(parsed.quarantined["rule"].unique().sort()) or "it lists none"
        raise ChainError(f"{source} holds no contract that can be used: {rules}. Nothing was loaded.")
    ts_event_ns: int = parsed.rows["ts_event"].to_physical()[0]
    date = trading_date(instrument.calendar, _moment(ts_event_ns))
    return Read(parsed.rows, parsed.quarantined.height, ts_event_ns, date)


def archived(settings: Settings, instrument: Instrument, snapshot: Snapshot, found: Read) -> bool:
    """Archive a snapshot in the landing; return False where one of its time is there, or is one that was simulated.

    Raises:
        OSError: It cannot be written.
    """
    place = chain_of(instrument).feed, instrument.symbol, found.date
    # A simulated date that is played on its own clock is whole already: a copy of some of it would hide the rest.
    simulated = chain_archive.paths(settings.simulated_chains, *place)
    if any(chain_archive.ts_event_ns(path) == found.ts_event_ns for path in simulated):
        return False
    return chain_archive.put(settings.landing / "chains", *place, snapshot, ts_event_ns=found.ts_event_ns)


def ingested(settings: Settings, instrument: Instrument, path: Path) -> Ingested:
    """Archive a file of Cboe's, JSON or a sheet, plain or as .gz; when it was received is not told.

    Args:
        settings: Where the landing is.
        instrument: Its chain is Cboe's.
        path: The file.
    """
    try:
        snapshot = _snapshot(path)
        found = read(instrument, snapshot)
        _check_underlying(instrument, found)
        is_new = archived(settings, instrument, snapshot, found)
    except (ChainError, OSError) as error:
        return Ingested(str(path), "refused", why=str(error))
    return Ingested(
        str(path),
        "archived" if is_new else "known",
        found.rows.height,
        found.quarantined,
        _moment(found.ts_event_ns).isoformat(),
        found.date.isoformat(),
    )


def _snapshot(path: Path) -> Snapshot:
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ChainError(f"{path} cannot be read: {error}. Nothing was loaded. Fetch it again.") from error
    is_json = ".json" in path.suffixes or content[:_HEAD_BYTES].lstrip().startswith((b"{", b"["))
    name = chain_snapshot.CHAIN if is_json else chain_snapshot.SHEET
    return Snapshot({name: Answer(content, str(path))}, None)


def _check_underlying(instrument: Instrument, found: Read) -> None:
    """Hold that a chain is the instrument's, as far as the names of its contracts tell."""
    own = chain_of(instrument).venue_symbol.strip("_^").upper()
    roots = found.rows.select(pl.col("contract").str.extract(r"^([A-Z]+)").unique().sort()).to_series().drop_nulls()
    if not roots.str.starts_with(own).any():
        raise ChainError(
            f"Its contracts are of {', '.join(roots)}, and the chain of {instrument.symbol} is {own}. Nothing was "
            "loaded. Name the symbol that it is of."
        )


def _moment(ns: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=ns // 1_000)
