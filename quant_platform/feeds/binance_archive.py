"""Fetch days of the public Binance archive into landing, verified. What is in a file: binance_csv.py."""

import datetime as dt
import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import structlog

from quant_platform.contracts.enums import Tape
from quant_platform.contracts.market import Quote, Trade
from quant_platform.feeds.download import (
    DownloadError,
    Progress,
    Retry,
    download,
    forget,
    local_path,
    read_text,
)
from quant_platform.storage.atomic import fsync_folder, published

Kind = Literal["trades", "aggTrades", "bookTicker", "klines"]

_MARKETS = {"binance_usdm": "futures/um", "binance_spot": "spot"}
_CHECKSUM = re.compile(r"([0-9a-fA-F]{64})\s+\*?(\S+)")
_LOG = structlog.get_logger()


class ArchiveError(Exception):
    """A day of the archive cannot be used; the message names the file, and says what to do."""


class ArchiveInstrument(Protocol):
    """What this feed needs to know of an instrument."""

    @property
    def symbol(self) -> str:
        """The platform's unique name."""

    @property
    def venue_symbol(self) -> str:
        """The name in the archive."""

    @property
    def feed(self) -> str:
        """`binance_usdm` or `binance_spot`."""

    @property
    def tape(self) -> str:
        """The preferred tape: `trades` or `aggTrades`."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A file of the archive, whole, in landing.

    Attributes:
        path: Where it lies.
        sha256: Its digest, the fingerprint of the source.
        url: Where it came from.
        is_verified: False where the archive publishes no checksum for it.
    """

    path: Path
    sha256: str
    url: str
    is_verified: bool = True


@dataclass(frozen=True, kw_only=True)
class ArchiveDay:
    """One symbol-day of a lake table, as the archive has it."""

    table: str
    kind: Kind
    fetched: Fetched


def archive_path(feed: str, kind: Kind, venue_symbol: str, date: dt.date) -> str:
    """Return where a symbol-day lies below the archive's root.

    Raises:
        ValueError: The feed has no archive of this layout.
    """
    if feed not in _MARKETS:
        raise ValueError(f"Feed '{feed}' has no Binance archive. Feeds that have one: {', '.join(_MARKETS)}.")
    folder, stem = (f"{venue_symbol}/1m", "1m") if kind == "klines" else (venue_symbol, kind)
    return f"data/{_MARKETS[feed]}/daily/{kind}/{folder}/{venue_symbol}-{stem}-{date.isoformat()}.zip"


def kinds_for(instrument: ArchiveInstrument, table: str) -> tuple[Kind, ...]:
    """Return the archive's kinds that can fill a table, the preferred one first; none where it has none.

    Raises:
        ValueError: The archive cannot fill that table.
    """
    if table == Trade.table:
        return ("aggTrades", "trades") if instrument.tape == Tape.AGG_TRADES else ("trades", "aggTrades")
    if table == Quote.table:
        return ("bookTicker",) if instrument.feed == "binance_usdm" else ()
    raise ValueError(f"The Binance archive cannot fill '{table}'. It can fill {Trade.table} and {Quote.table}.")


def fetch_day(
    archive_url: str,
    instrument: ArchiveInstrument,
    table: str,
    date: dt.date,
    *,
    landing: Path,
    on_progress: Progress | None = None,
    retry: Retry | None = None,
) -> ArchiveDay | None:
    """Fetch one symbol-day for `market/trades` or `market/quotes`.

    A symbol-day has exactly one tape: the instrument's own, or the other where the archive lacks the first.

    Returns:
        None where the archive does not have the day.

    Raises:
        ArchiveError: The day is there, or may be, and cannot be had.
    """
    kinds = kinds_for(instrument, table)
    for kind in kinds:
        path = archive_path(instrument.feed, kind, instrument.venue_symbol, date)
        try:
            fetched = fetch(archive_url, path, landing=landing, on_progress=on_progress, retry=retry)
        except ArchiveError:
            # Out of reach is not absent: only a copy of the other tape that we hold may stand in.
            others = [k for k in kinds if k != kind]
            for other in others:
                other_path = archive_path(instrument.feed, other, instrument.venue_symbol, date)
                if held := _verified_copy(archive_url, other_path, landing):
                    _LOG.warning("landing_copy_used", file=held.path.name, reason=f"{kind} out of reach")
                    return ArchiveDay(table=table, kind=other, fetched=held)
            raise
        if fetched:
            return ArchiveDay(table=table, kind=kind, fetched=fetched)
    return None


def fetch(
    archive_url: str,
    relative_path: str,
    *,
    landing: Path,
    on_progress: Progress | None = None,
    retry: Retry | None = None,
) -> Fetched | None:
    """Bring one file of the archive into `landing/archive`, verified against its published checksum.

    The checksum is asked for again each time: a file that the publisher has replaced is fetched again. Where
    the publisher is out of reach, or no longer has the day, a verified copy in landing is used. The caller
    holds the lock of the unit: two processes never fetch the same file at once.

    Args:
        archive_url: The archive's root: https://, http:// or file:///.
        relative_path: The file below it (`archive_path`).
        landing: The folder of raw inputs.
        on_progress: Told the bytes held and the total.
        retry: How patiently to ask again.

    Returns:
        None where the archive does not have the file.

    Raises:
        ArchiveError: It cannot be reached, written, or does not match its checksum.
    """
    retry = retry or Retry()
    url, path = _url(archive_url, relative_path), _landed(landing, relative_path)
    try:
        held = _verified_copy(archive_url, relative_path, landing)
        for _ in range(2):
            expected = _expected_digest(archive_url, url, held, retry)
            if held and expected == held.sha256:
                return held
            part = path.with_name(f"{path.name}.part")
            if not download(url, part, retry=retry, on_progress=on_progress):
                if expected:
                    _LOG.warning("archive_file_missing", file=path.name, reason="only its checksum is published")
                return None
            digest = _sha256(part)
            if expected in {digest, None}:
                _publish(part, path, expected)
                return Fetched(path=path, sha256=digest, url=url, is_verified=expected is not None)
            _LOG.warning("checksum_mismatched", file=path.name, expected=expected, found=digest)
            forget(part)
    except DownloadError as error:
        raise ArchiveError(str(error)) from error
    except OSError as error:
        raise ArchiveError(
            f"Could not store {error.filename or path}: {error.strerror}. "
            "Free disk space or set the permissions right, then run again."
        ) from error
    raise ArchiveError(
        f"{path.name} does not match its checksum: {url}.CHECKSUM says sha256 {expected}, two downloads gave "
        f"{digest}. Nothing was kept. Run again later; if it stays so, the publisher's file is damaged or "
        "something on the way changes it."
    )


def _expected_digest(archive_url: str, url: str, held: Fetched | None, retry: Retry) -> str | None:
    """Return the published digest; a verified copy in landing vouches where the publisher no longer does."""
    try:
        _check_root(archive_url)
        # With a good copy at hand a silent publisher is not worth a long wait.
        patience = replace(retry, attempts=min(2, retry.attempts)) if held else retry
        text = read_text(f"{url}.CHECKSUM", retry=patience)
        published_digest = None if text is None else _digest(text, url)
        reason = "its checksum is not published any more"
    except DownloadError as error:
        if held is None:
            raise
        published_digest, reason = None, str(error)
    if published_digest is None and held:
        _LOG.warning("landing_copy_used", file=held.path.name, reason=reason)
        return held.sha256
    return published_digest


def _check_root(archive_url: str) -> None:
    """Tell a mistyped folder from an archive that lacks a day."""
    if archive_url.startswith("file:") and not local_path(archive_url).is_dir():
        raise DownloadError(
            f"There is no folder {local_path(archive_url)}: check feeds.<feed>.archive_url in platform.yaml."
        )


def _url(archive_url: str, relative_path: str) -> str:
    return f"{archive_url.rstrip('/')}/{relative_path}"


def _landed(landing: Path, relative_path: str) -> Path:
    return landing / "archive" / relative_path


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.CHECKSUM")


def _digest(text: str, url: str) -> str:
    name = url.rsplit("/", 1)[1]
    match = _CHECKSUM.fullmatch(text.strip())
    if match is None or match[2] != name:
        raise DownloadError(
            f"{url}.CHECKSUM does not hold '<sha256>  {name}' but '{text.strip()[:80]}'. Check "
            "feeds.<feed>.archive_url in platform.yaml, or run again later."
        )
    return match[1].lower()


def _verified_copy(archive_url: str, relative_path: str, landing: Path) -> Fetched | None:
    """Return landing's copy where it matches the checksum that was stored beside it."""
    path, url = _landed(landing, relative_path), _url(archive_url, relative_path)
    try:
        expected = _digest(_checksum_file(path).read_text(errors="replace"), url)
        digest = _sha256(path)
    except (FileNotFoundError, DownloadError):
        return None
    return Fetched(path=path, sha256=digest, url=url) if digest == expected else None


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _publish(part: Path, path: Path, expected: str | None) -> None:
    with part.open("rb") as content:
        os.fsync(content.fileno())
    checksum_file = _checksum_file(path)
    # The old checksum goes first: killed in between, the pair is unverified and not wrong.
    checksum_file.unlink(missing_ok=True)
    part.replace(path)
    fsync_folder(path.parent)
    if expected is not None:
        with published(checksum_file) as temporary:
            temporary.write_text(f"{expected}  {path.name}\n")
    else:
        _LOG.warning("checksum_missing", file=path.name)
