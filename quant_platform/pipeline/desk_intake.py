"""Files of the desk into the landing: one that is named, or all that lie whole in the folder where they are dropped.

What a file says is `feeds.desk`'s; where it is kept, `storage.desk_archive`'s. A file is archived before it is removed
from where it was dropped, and an intake that was killed is completed by the next one: nothing is lost, nothing twice.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date as Date  # noqa: N812  # `date` names fields here
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from quant_platform.contracts._schema import INSTANT
from quant_platform.feeds import desk
from quant_platform.feeds.desk import DeskError, UnfinishedError
from quant_platform.pipeline.desk import DESK, is_cross_symbol, table, trading_dates
from quant_platform.pipeline.sessions import ALWAYS_OPEN
from quant_platform.settings import (
    DESK_CONTRACTS,
    DESK_IDS,
    REFUSED_FOLDER,
    DeskKind,
    DeskMapping,
    Settings,
    desk_kind,
)
from quant_platform.storage import desk_archive, quarantine
from quant_platform.storage.atomic import published
from quant_platform.storage.desk_archive import Day, Receipt
from quant_platform.storage.lake import ALL_SYMBOLS

_PASSED_OVER = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".reason")
_KEPT_SUFFIXES = (".csv", ".gz", ".parquet")
_GIVEN_UP_NS = 600 * 1_000_000_000
_HOW_CHARACTERS = 8
_DATE, _OF = "trading_date_", "unit_symbol_"


@dataclass(frozen=True)
class Ingested:
    """What became of a file.

    Attributes:
        file: Its path.
        status: `known` where the same content was taken before.
        receipt: What was in it; None where it was refused.
        why: Why it was refused, or why it waits.
    """

    file: Path
    status: Literal["taken", "known", "refused", "waiting"]
    receipt: Receipt | None = None
    why: str = ""


class Watched(NamedTuple):
    """What a look at the folder brought: what became of each file, and symbols with new rows by kind and date."""

    files: list[Ingested]
    pending: dict[DeskKind, dict[Date, list[str]]]


def ingested(
    settings: Settings, path: Path, *, ts_intake: int, mapping: str | None = None, kind: DeskKind | None = None
) -> Ingested:
    """Take a file.

    Args:
        settings: The whole tree.
        path: CSV, plain or .gz, or Parquet; it stays where it is.
        ts_intake: Our clock, UTC ns.
        mapping: Which of `feeds.desk.mappings` reads it; None for own files.
        kind: Of an own file; None: as its columns say.

    Returns:
        `waiting` where it is not whole, or changed while it was read.

    Raises:
        OSError: The landing cannot be written.
    """
    try:
        return _taken(settings, path, _Reading(ts_intake, mapping, kind))
    except UnfinishedError as error:
        return Ingested(path, "waiting", why=str(error))
    except DeskError as error:
        return Ingested(path, "refused", why=str(error))


def inbox(settings: Settings) -> Path:
    """Return the folder where files are dropped."""
    return settings.home / settings.feeds.desk.landing


def watch(settings: Settings, now: int) -> Watched:
    """Take what lies whole in the folder where files are dropped; what is refused is moved to `refused/` beside it.

    A file that is not whole waits; where it has not changed for ten minutes, it is refused.

    Args:
        settings: The whole tree.
        now: Our clock, UTC ns.

    Raises:
        OSError: The landing cannot be written.
    """
    done = [_looked_at(settings, path, via, now) for path, via in _dropped(inbox(settings))]
    found: dict[DeskKind, dict[Date, set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in done:
        if one.status == "taken" and one.receipt:
            for day in one.receipt.days:
                found[one.receipt.kind][day.date].add(day.symbol)
    pending = {kind: {date: sorted(days[date]) for date in sorted(days)} for kind, days in sorted(found.items())}
    return Watched(done, pending)


class _Reading(NamedTuple):
    ts_intake: int
    mapping: str | None
    kind: DeskKind | None


def _dropped(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield files, and the names of the folders that they lie in below the inbox."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != REFUSED_FOLDER:
            yield from ((file, path.name) for file in sorted(path.iterdir()) if _is_file(file))
        elif _is_file(path):
            yield path, None


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith((".", "~")) and path.suffix.lower() not in _PASSED_OVER


def _looked_at(settings: Settings, path: Path, via: str | None, now: int) -> Ingested:
    try:
        return _taken_or_refused(settings, path, via, now)
    except FileNotFoundError:
        if path.exists():
            raise
        return Ingested(path, "waiting", why="It is gone: another process has taken it.")


def _taken_or_refused(settings: Settings, path: Path, via: str | None, now: int) -> Ingested:
    before = path.stat()
    quiet_ns = now - before.st_ctime_ns  # a copy may set the time of a file's change, not this one
    if quiet_ns < settings.feeds.desk.settle_s * 1e9:
        return Ingested(path, "waiting", why="It has just changed.")
    kind = desk_kind(via or "")
    one = ingested(settings, path, ts_intake=now, mapping=None if kind else via, kind=kind)
    if one.status == "refused" or (one.status == "waiting" and quiet_ns > _GIVEN_UP_NS):
        _refuse(path, one.why, before.st_mtime_ns)
        return Ingested(path, "refused", why=one.why)
    if one.receipt and _stamp(path) == (before.st_size, before.st_mtime_ns):
        path.unlink()
    return one


def _refuse(path: Path, why: str, changed_ns: int) -> None:
    folder = path.parent / REFUSED_FOLDER
    place = folder / path.name
    if place.exists():
        place = folder / f"{path.stem}.{changed_ns}{path.suffix}"
    with published(place.with_name(f"{place.name}.reason")) as file:
        file.write_text(f"{why}\n", encoding="utf-8")
    path.replace(place)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _taken(settings: Settings, path: Path, reading: _Reading) -> Ingested:
    content = _read(path)
    mapping = _mapping(settings, reading.mapping)
    root, sha256 = settings.landing / desk_archive.FOLDER, hashlib.sha256(content).hexdigest()
    with desk_archive.locked(root):
        parsed = None
        via = reading.mapping or reading.kind
        if via is None:
            parsed = _parsed(settings, content, mapping, reading)
            via = parsed.kind
        how = _how(settings, mapping)
        known = desk_archive.receipt(root, sha256, via)
        if known and known.is_complete and known.how == how:
            return Ingested(path, "known", known)
        if known:  # a revision is known here since it first came
            reading = reading._replace(ts_intake=known.ts_intake)
            parsed = None
        parsed = parsed or _parsed(settings, content, mapping, reading)
        begun = Receipt(sha256=sha256, via=via, kind=parsed.kind, how=how, file=path.name, ts_intake=reading.ts_intake)
        desk_archive.put_receipt(root, begun)
        desk_archive.put_raw(root, sha256, "".join(s for s in path.suffixes if s in _KEPT_SUFFIXES), content)
        return Ingested(path, "taken", _put(settings, root, begun, parsed, is_again=known is not None))


def _put(settings: Settings, root: Path, begun: Receipt, parsed: desk.Parsed, *, is_again: bool) -> Receipt:
    rows = _settled(root, begun, _placed(settings, parsed)).with_columns(
        source_file=pl.lit(begun.file), ts_intake=pl.lit(begun.ts_intake).cast(INSTANT)
    )
    rows = rows.select(*DESK_CONTRACTS[parsed.kind].columns(), *desk_archive.ORIGIN, _DATE, _OF)
    days = []
    is_placed = pl.col(_DATE).is_not_null()
    for (date, symbol), own in (
        rows.filter(is_placed).sort(_DATE, _OF, maintain_order=True).group_by(_DATE, _OF, maintain_order=True)
    ):
        assert isinstance(date, Date)
        desk_archive.put_part(root, begun, date, str(symbol), own.drop(_DATE, _OF))
        days.append(Day(date, str(symbol), own["rule"].null_count(), own.height - own["rule"].null_count()))
    unplaced = rows.filter(~is_placed)
    quarantine.put(
        settings.quarantine,
        table(parsed.kind),
        f"unplaced.{begun.ident}",
        desk_archive.instant(begun.ts_intake).date(),
        unplaced.select("rule", "source_file", "source_line", "raw"),
    )
    if is_again:
        desk_archive.drop_others(root, begun)
    done = Receipt(
        sha256=begun.sha256,
        via=begun.via,
        kind=begun.kind,
        how=begun.how,
        file=begun.file,
        ts_intake=begun.ts_intake,
        days=tuple(days),
        unplaced=unplaced.height,
        rules=desk.broken_rules(rows),
        left_out=parsed.left_out,
        unread=parsed.unread,
        is_complete=True,
    )
    desk_archive.complete(root, done)
    return done


def _placed(settings: Settings, parsed: desk.Parsed) -> pl.DataFrame:
    """Return the rows with their trading dates, and the symbols of their units; null where that is not known.

    Events are of UTC dates, and of no symbol.
    """
    if is_cross_symbol(parsed.kind):
        rows = parsed.rows.with_columns(pl.lit(ALL_SYMBOLS).alias(_OF))
        return rows.with_columns(trading_dates(ALWAYS_OPEN, rows["ts_event"]).alias(_DATE))
    is_named = (~pl.col("rule").str.contains(r"\b(symbol|ts_event)\|")).fill_null(value=True) & pl.col(
        "ts_event"
    ).is_not_null()
    rows = parsed.rows.with_columns(pl.col("symbol").alias(_OF)).with_row_index()
    named, others = rows.filter(is_named), rows.filter(~is_named)
    calendars = {i.symbol: i.calendar for i in settings.instruments}
    by_calendar = named.group_by(pl.col("symbol").replace_strict(calendars, return_dtype=pl.String).alias("calendar"))
    dated = [
        own.with_columns(trading_dates(str(calendar), own["ts_event"]).alias(_DATE)) for (calendar,), own in by_calendar
    ]
    nowhere = others.with_columns(pl.lit(None, pl.Date).alias(_DATE))
    together = pl.concat([nowhere, *dated]).sort("index").drop("index")
    is_beyond = pl.col(_DATE).is_null() & pl.col("rule").is_null()
    return together.with_columns(rule=pl.when(is_beyond).then(pl.lit("ts_event|calendar")).otherwise("rule"))


def _settled(root: Path, begun: Receipt, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows, those broken whose id was told of another symbol-day: it would count on both."""
    name = DESK_IDS[begun.kind]
    own = rows.filter(pl.col("rule").is_null()).select(
        pl.col(name).alias("id"), pl.col(_DATE).alias("date"), pl.col(_OF).alias("symbol"), file=pl.lit(begun.file)
    )
    known = desk_archive.first_told(root, begun.kind, begun.ident, own)
    firsts = known.select(pl.col("id").alias(name), first_date="date", first_symbol="symbol", first_file="file")
    joined = rows.join(firsts, on=name, how="left", maintain_order="left")
    is_other = (pl.col(_DATE) != pl.col("first_date")) | (pl.col(_OF) != pl.col("first_symbol"))
    moved = pl.format(f"{name}|moved from {{}} on {{}} of {{}}", "first_symbol", "first_date", "first_file")
    is_moved = pl.col("rule").is_null() & is_other
    return joined.with_columns(rule=pl.when(is_moved).then(moved).otherwise("rule")).select(rows.columns)


def _parsed(settings: Settings, content: bytes, mapping: DeskMapping | None, reading: _Reading) -> desk.Parsed:
    return desk.parsed(
        content,
        kind=reading.kind,
        mapping=mapping,
        symbols={instrument.symbol for instrument in settings.instruments},
        venues=settings.feeds.desk.venues,
        ts_intake=desk_archive.instant(reading.ts_intake),
    )


def _read(path: Path) -> bytes:
    try:
        before = _stamp(path)
        content = path.read_bytes()
        if _stamp(path) != before:
            raise UnfinishedError("It changed while it was read: take it when it is whole.")
    except OSError as error:
        raise DeskError(f"It cannot be read: {error.strerror}.") from error
    return content


def _mapping(settings: Settings, name: str | None) -> DeskMapping | None:
    mappings = settings.feeds.desk.mappings
    if name is None:
        return None
    if name not in mappings:
        known = ", ".join(sorted(mappings)) or "none"
        raise DeskError(f"There is no mapping '{name}' under feeds.desk.mappings; known: {known}.")
    return mappings[name]


def _how(settings: Settings, mapping: DeskMapping | None) -> str:
    """Return a hash of what shapes a file's rows beside its content: with another one it is read anew."""
    parts = {
        "mapping": mapping.model_dump(mode="json") if mapping else None,
        "instruments": sorted((i.symbol, i.calendar) for i in settings.instruments),
        "venues": sorted(settings.feeds.desk.venues),
        "code": DESK[0].code_version,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_HOW_CHARACTERS]
