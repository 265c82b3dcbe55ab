"""Units of work: one table, symbol and date; the recipe that builds one; the key that says when it is up to date.

No pool, no ledger, no lake writes here.
"""

import ast
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date as Date  # noqa: N812  # `date` names fields here
from enum import StrEnum
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple, cast

import polars as pl

from quant_platform.contracts._schema import contract_of, fingerprint
from quant_platform.pipeline.sessions import ALWAYS_OPEN, Session, earlier_sessions, session
from quant_platform.settings import Instrument, Settings
from quant_platform.storage import quarantine
from quant_platform.storage.lake import ALL_SYMBOLS, Footer, Lake, UnreadableFileError

# Code that shapes a table's values; contracts count through the schema hash, storage through the file itself.
_HASHED_PACKAGES = ("quant_platform.calculators", "quant_platform.feeds")


class Unit(NamedTuple):
    """One symbol-day of one table."""

    table: str
    symbol: str
    date: Date

    def __str__(self) -> str:
        """Name the unit as messages do."""
        return f"{self.table} {self.symbol} {self.date}"


class UnitStatus(StrEnum):
    """What became of a unit."""

    OK = "ok"
    OPEN = "open"  # still captured: parts, if the table follows an open date, and no whole file
    ABSENT = "absent"  # the source has no such day
    CALENDAR_CLOSED = "calendar_closed"
    FAILED = "failed"
    BLOCKED = "blocked"  # an input is missing, failed, or red

    @property
    def is_usable(self) -> bool:
        """Whether downstream units may read what it left."""
        return self in {UnitStatus.OK, UnitStatus.OPEN, UnitStatus.ABSENT, UnitStatus.CALENDAR_CLOSED}


CAPTURED = "captured"


class Source(NamedTuple):
    """What a unit of a raw table parses: raw files in landing."""

    name: str
    fingerprint: str
    handle: Any
    is_captured: bool = False


class Built(NamedTuple):
    """What a recipe made: good rows, quarantined rows, and facts for the file's footer."""

    rows: pl.DataFrame
    quarantined: pl.DataFrame | None = None
    facts: Mapping[str, str] = {}  # never mutated


class Input(NamedTuple):
    """A table that a recipe reads, for the unit's date and so many sessions before it.

    What is made from an absent day is absent too, unless that input is optional; and where all inputs are.
    `is_each_symbol`, for tables that belong to no symbol: the files of every configured symbol are read, as many as
    there are.
    """

    table: str
    lookback_sessions: int = 0
    is_optional: bool = False
    is_each_symbol: bool = False


Streams = Mapping[str, Any]  # lazy rows by table; for `CAPTURED` the segments


@dataclass(frozen=True)
class Fold:
    """A table that is made step by step: a whole date in one step, an open date in one for what came since the last.

    Attributes:
        opened: Returns the state at the open: the fold over earlier sessions, its output discarded. It is pickled.
        step: Returns the next state and the rows of what the streams brought.
        streams: The tables of the unit's own date that `step` is handed, by name, in the order of arrival.
    """

    opened: Callable[["Work"], Any]
    step: Callable[["Work", Any, Streams], tuple[Any, Built]]
    streams: tuple[str, ...]

    def __call__(self, work: "Work") -> Built:
        """Return the whole date."""
        return self.step(work, self.opened(work), {table: work.today(table) for table in self.streams})[1]


@dataclass(frozen=True)
class Recipe:
    """How one table is made; functions are module-level, so that a worker process finds them by name.

    `archived` returns what else it reads of the landing for a unit, which then is part of its key.

    A raw table is fetched from its source and built from that; where its date was captured, `capture` is its fold over
    the captured lines, the stream `CAPTURED`.

    `so_far` is how a table that is no fold follows an open date: it is handed what it remembers (None at first) and its
    rows as they stand, and returns what it now remembers and all its rows. A raw table whose source does not grow with
    the capture `is_whole_at_once`: it is built on an open date as on any other.

    A table that is not cut by symbol `is_cross_symbol`: its units are of `ALL_SYMBOLS`, whatever symbols a run names,
    of every UTC date, and of no instrument.
    """

    table: str
    build: Callable[["Work"], Built]
    code: tuple[str, ...]
    inputs: tuple[Input, ...] = ()
    fetch: Callable[["Work"], Source | None] | None = None
    parameters: Callable[[Settings], Mapping[str, Any]] = lambda _: {}
    capture: Fold | None = None
    archived: Callable[["Work"], object] = lambda _: None
    is_cross_symbol: bool = False
    so_far: Callable[["Work", Any, pl.DataFrame], tuple[Any, Built]] | None = None
    is_whole_at_once: bool = False

    @property
    def fold(self) -> Fold | None:
        """How the table follows an open date; None where it waits for the close."""
        return self.capture or (self.build if isinstance(self.build, Fold) else None)

    @cached_property
    def code_version(self) -> str:
        """Hash of the build function and its helpers, of the modules in `code`, and of what these import of ours."""
        how = [self.build.opened, self.build.step] if isinstance(self.build, Fold) else [self.build]
        sources = [source for function in how for source in _sources(cast("FunctionType", function))]
        sources += [source for _, source in sorted(_closure(self.code))]
        return hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]

    @cached_property
    def so_far_version(self) -> str:
        """Hash of `so_far` and its helpers, which shape rows of open dates alone."""
        sources = _sources(cast("FunctionType", self.so_far)) if self.so_far else []
        return hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Work:
    """A unit with all it needs: settings, lake, recipe, and the source once fetched."""

    unit: Unit
    recipe: Recipe
    settings: Settings
    lake: Lake
    source: Source | None = None
    open_facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by stream, while the date is open

    @cached_property
    def instrument(self) -> Instrument:
        """The unit's row of platform.yaml."""
        return self.settings.instrument(self.unit.symbol)

    @property
    def calendar(self) -> str:
        """The calendar of the unit's dates."""
        return ALWAYS_OPEN if self.recipe.is_cross_symbol else self.instrument.calendar

    @cached_property
    def session(self) -> Session | None:
        """The unit's time window; None on a closed day."""
        return session(self.calendar, self.unit.date)

    def input_units(self) -> list[Unit]:
        """Return the units that this one reads, lookback sessions included, oldest first."""
        every = [instrument.symbol for instrument in self.settings.instruments]
        return [
            Unit(read.table, symbol, date)
            for read in self.recipe.inputs
            for date in [
                *earlier_sessions(self.calendar, self.unit.date, read.lookback_sessions),
                self.unit.date,
            ]
            for symbol in (every if read.is_each_symbol else [self.unit.symbol])
        ]

    def readable(self, table: str) -> list[Unit]:
        """Return the units of one input whose files are there and not red, oldest first."""
        units = (unit for unit in self.input_units() if unit.table == table)
        return [unit for unit in units if self.content_hash(unit)]

    def scan(self, table: str) -> pl.LazyFrame:
        """Return an input's rows, its lookback sessions included."""
        return pl.concat([self.lake.scan(t, [s], d, d) for t, s, d in self.readable(table)])

    def today(self, table: str) -> pl.LazyFrame:
        """Return an input's rows of the unit's own date."""
        return self.lake.scan(table, [self.unit.symbol], self.unit.date, self.unit.date)

    def earlier(self, table: str) -> pl.LazyFrame:
        """Return an input's rows of the lookback sessions; none where none of them is there."""
        before = [unit for unit in self.readable(table) if unit.date < self.unit.date]
        frames = [self.lake.scan(t, [s], d, d) for t, s, d in before]
        return pl.concat(frames or [self.lake.scan(table, [])])

    def facts(self, table: str) -> Mapping[str, str]:
        """Return what is on record of an input of the unit's own date: its file's, or an open date's."""
        outcome = outcome_on_disk(self.lake, self.unit._replace(table=table))
        return outcome.facts if outcome else self.open_facts.get(table, {})

    def content_hash(self, unit: Unit) -> str | None:
        """Return what the file says its data hash to; None where it is missing, damaged or red."""
        return usable_hash(outcome_on_disk(self.lake, unit))

    def key(self, content_hash: Callable[[Unit], str | None]) -> str:
        """Return the hash of everything that determines the unit's rows.

        Args:
            content_hash: Gives an input unit's content hash; None where it is missing or red.
        """
        inputs = [(str(unit), content_hash(unit)) for unit in self.input_units()]
        return self.hashed(inputs=inputs, source=self.source.fingerprint if self.source else None)

    def hashed(self, **inputs: object) -> str:
        """Return the hash of what shapes the unit's rows whatever its inputs are, and of `inputs`."""
        parts = {
            **inputs,
            "schema": fingerprint(contract_of(self.unit.table)),
            "code": self.recipe.code_version,
            "parameters": dict(self.recipe.parameters(self.settings)),
            **({} if self.recipe.is_cross_symbol else self._of_instrument()),
            "session": [str(bound) for bound in self.session or ()],
            "archived": self.recipe.archived(self),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def _of_instrument(self) -> Mapping[str, object]:
        return {
            "instrument": self.instrument.model_dump(mode="json"),
            "latency_ms": self.settings.feed_of(self.instrument).assumed_latency_ms,
        }


@dataclass(frozen=True)
class CheckResult:
    """One judgement on one unit; a red blocking check refuses the units downstream."""

    passed: bool
    is_blocking: bool
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What became of a unit, as the ledger keeps it."""

    unit: Unit
    status: UnitStatus
    key: str = ""
    content_hash: str = ""
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    quarantined: int = 0
    checks: Mapping[str, CheckResult] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    is_skipped: bool = False

    @property
    def is_red(self) -> bool:
        """Whether a blocking check failed."""
        return any(check.is_blocking and not check.passed for check in self.checks.values())

    @property
    def is_healthy(self) -> bool:
        """Whether downstream units may build on it."""
        return self.status.is_usable and not self.is_red


def contract_check(work: Work, rows: int, quarantined: int) -> CheckResult:
    """Return the judgement on the rows that broke a rule, which are in quarantine by now, beside those that did not."""
    total = rows + quarantined
    share = quarantined / total if total else 0.0
    limit = work.settings.quality.max_quarantined_share
    detail = f"{quarantined} of {total} rows broke a rule ({share:.2%}; the limit is {limit:.2%})."
    if share > limit and (rule := quarantine.commonest(work.settings.quarantine, *work.unit)):
        detail += f" Most often {rule}."
    return CheckResult(share <= limit, is_blocking=True, detail=detail)


def section_of(name: str) -> Callable[[Settings], Mapping[str, Any]]:
    """Return the parameters of a recipe that a section of `analytics`, a calculator's own class, holds."""
    return lambda settings: asdict(getattr(settings.analytics, name))


def unit_symbols(settings: Settings) -> set[str]:
    """Return the symbols that units may have: every configured one, and the one of cross-symbol tables."""
    return {ALL_SYMBOLS, *(instrument.symbol for instrument in settings.instruments)}


def usable_hash(outcome: Outcome | None) -> str | None:
    """Return the content hash that others may build on: None where there is no file, or a red one."""
    return outcome.content_hash if outcome and outcome.content_hash and not outcome.is_red else None


def outcome_of(unit: Unit, footer: Footer) -> Outcome:
    """Return what a file's footer says of its unit."""
    texts = footer.metadata
    return Outcome(
        unit,
        UnitStatus(texts["status"]),
        key=texts["key"],
        content_hash=texts["content_hash"],
        rows=footer.rows,
        bytes=footer.bytes,
        quarantined=int(texts["quarantined"]),
        checks={name: CheckResult(**check) for name, check in json.loads(texts["checks"]).items()},
        facts=json.loads(texts["facts"]),
    )


def outcome_on_disk(lake: Lake, unit: Unit) -> Outcome | None:
    """Return what the unit's file says of it; None where there is none, or it is damaged or not of our making."""
    try:
        footer = lake.footer(*unit)
    except UnreadableFileError:
        return None
    return outcome_of(unit, footer) if footer and "key" in footer.metadata else None


def _sources(function: FunctionType) -> list[str]:
    """Return the source of a function and of those that it calls in its own module, each once."""
    found: dict[str, str] = {}
    waiting = [function]
    while waiting:
        current = waiting.pop()
        if current.__qualname__ in found:
            continue
        found[current.__qualname__] = inspect.getsource(current)
        used = (current.__globals__.get(name) for name in current.__code__.co_names)
        waiting += [f for f in used if inspect.isfunction(f) and f.__module__ == function.__module__]
    return [source for _, source in sorted(found.items())]


@cache
def _closure(modules: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name], imported = _module(name)
            waiting += imported
    return frozenset(found.items())


@cache
def _module(name: str) -> tuple[str, list[str]]:
    """Return a module's source, and which modules it imports of those that shape values."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"A recipe names the module '{name}', which does not exist.")
    source = Path(spec.origin).read_text(encoding="utf-8")
    imported = []
    for node in _statements(ast.parse(source).body):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        imported += [n for n in names if n.startswith(_HASHED_PACKAGES) and _is_module(n)]
    return source, imported


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield statements, and those within them; expressions hold no imports, and are most of a tree."""
    for node in body:
        yield node
        for part in ("body", "orelse", "handlers", "finalbody"):
            yield from _statements(getattr(node, part, ()))


@cache
def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
