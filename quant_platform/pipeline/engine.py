"""Run units on a bounded pool of processes, under locks, and keep the ledger. What a unit computes is its recipe's.

A unit is skipped when the key in its file's footer is the key it would be built with; so a killed run resumes where
it stopped, and a changed input, parameter or calculator rebuilds exactly what depends on it.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from datetime import datetime
from functools import partial
from typing import NamedTuple, Self

from quant_platform.pipeline import capture, open_date
from quant_platform.pipeline.ahead import Ahead
from quant_platform.pipeline.build import How, build_unit
from quant_platform.pipeline.ledger import Ledger
from quant_platform.pipeline.recipes import READ_ORDER, RECIPES
from quant_platform.pipeline.units import (
    Outcome,
    Source,
    Unit,
    UnitStatus,
    Work,
    outcome_on_disk,
    unit_symbols,
    usable_hash,
)
from quant_platform.pipeline.workers import Workers
from quant_platform.settings import Settings
from quant_platform.storage.lake import ALL_SYMBOLS, Lake

# Measured: decoded columns and their working copies take about this many bytes for each byte on disk.
_MEMORY_PER_LAKE_BYTE = 40
_MEMORY_OF_A_FETCH = 400_000_000
_FEW = 24  # small units: one thread has done them before workers have started
_WORKER_DIED = "Its worker process died twice, the second time with no other at work, perhaps for want of memory."

OnOutcome = Callable[[Outcome], None]


class Engine:
    """Build units of one table at a time. Use as a context manager: the pool is kept between tables.

    Args:
        settings: The whole tree; workers get a copy.

    Attributes:
        workers: The pool, for other work that takes processes.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lake = Lake(settings.lake_uri, assumed_latency_ms=settings.assumed_latency_ms)
        self.ledger = Ledger(settings.ledger)
        self.workers = Workers(settings.pipeline.workers)
        self._thread = Workers(0)
        self._turn = threading.Lock()
        self._ahead: tuple[_Asked, Ahead] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the workers now: they import what they need while this process does something else."""
        for _ in range(self.settings.pipeline.workers):
            self.workers.submit(_ready)

    def close(self) -> None:
        """Stop the pool; units not yet started are dropped, and are due again in the next run."""
        if self._ahead:
            self._ahead[1].stop()
        self._close_pools()
        if self._ahead:
            self._ahead[1].join()
            self._close_pools()  # that it has started meanwhile
        self._ahead = None

    def _close_pools(self) -> None:
        self.workers.close()
        self._thread.close()

    def run_ahead(
        self,
        tables: Collection[str],
        symbols: Sequence[str],
        dates: Iterable[Date],
        *,
        is_forced: bool = False,
        closed_before: datetime | None = None,
    ) -> None:
        """Begin to build tables; `run` of one of them with the same arguments waits for it, and returns what came.

        Arguments are those of `run`. What is built is the same in either way, only earlier.
        """
        if self._ahead:
            self._ahead[1].stop()
            self._ahead[1].join()
        asked = _Asked(tuple(symbols), tuple(dates), How(is_forced=is_forced, closed_before=closed_before))
        self._ahead = asked, Ahead(partial(self._run, asked), [table for table in READ_ORDER if table in tables])

    def run(
        self,
        table: str,
        symbols: Sequence[str],
        dates: Iterable[Date],
        *,
        is_forced: bool = False,
        closed_before: datetime | None = None,
        on_outcome: OnOutcome = lambda _: None,
    ) -> list[Outcome]:
        """Bring the table's symbol-days up to date and return what became of each, in date and symbol order.

        A unit that fails, or is blocked by its inputs, does not stop the others. A date that is still captured gains
        what came since, unless its session is over.

        Args:
            table: Such as `market/bars_1s`.
            symbols: Which instruments; a cross-symbol table has one unit a date, whatever they are.
            dates: Which trading dates.
            is_forced: Build again also what is up to date.
            closed_before: Captured dates whose sessions ended by then are closed; None closes none.
            on_outcome: Called in this thread after each unit.

        Raises:
            SettingsError: platform.yaml has no such symbol.
        """
        asked = _Asked(tuple(symbols), tuple(dates), How(is_forced=is_forced, closed_before=closed_before))
        if self._ahead and self._ahead[0] == asked and table in self._ahead[1]:
            return self._ahead[1].take(table, on_outcome)
        return self._run(asked, table, on_outcome)

    def _run(self, asked: "_Asked", table: str, on_outcome: OnOutcome) -> list[Outcome]:
        with self._turn:
            return self._run_alone(asked, table, on_outcome)

    def _run_alone(self, asked: "_Asked", table: str, on_outcome: OnOutcome) -> list[Outcome]:
        symbols, dates, how = asked
        for symbol in symbols:
            self.settings.instrument(symbol)
        names = [ALL_SYMBOLS] if RECIPES[table].is_cross_symbol else symbols
        units = [Unit(table, symbol, date) for date in dates for symbol in names]
        if not units:
            return []
        known = self._known(units)
        done: list[Outcome] = []
        due: deque[Work] = deque()
        for unit in units:
            work = Work(unit, RECIPES[table], self.settings, self.lake)
            early = self._blocked(work, known) or (None if how.is_forced else self._up_to_date(work, known))
            if early:
                done.append(early)
                on_outcome(early)
            else:
                due.append(work)
        for built in self._built(due, how, known=known):
            before = known.get(built.unit)
            # The ledger says how long the file took, not how long it took to see that it stands.
            outcome = replace(built, seconds=before.seconds) if built.is_skipped and before else built
            self.ledger.record([outcome])
            done.append(outcome)
            on_outcome(outcome)
        self.ledger.record(outcome for outcome in done if outcome.status is UnitStatus.BLOCKED)
        order = {unit: position for position, unit in enumerate(units)}
        return sorted(done, key=lambda outcome: order[outcome.unit])

    def stale(self, start: Date | None = None, end: Date | None = None) -> list[Unit]:
        """Return the symbol-days whose inputs, parameters or code have changed since they were built."""
        built = [
            outcome
            for outcome in self.ledger.outcomes(symbols=unit_symbols(self.settings), start=start, end=end)
            if outcome.key and outcome.unit.table in RECIPES
        ]
        known = self._known([outcome.unit for outcome in built])
        found = []
        for outcome in built:
            work = Work(outcome.unit, RECIPES[outcome.unit.table], self.settings, self.lake)
            if work.recipe.capture and capture.is_spent(self.settings.landing, work.instrument, outcome.facts):
                continue  # as good as it will ever be
            if work.recipe.fetch:
                work = replace(work, source=_recorded_source(outcome))
            if outcome.key != work.key(lambda unit: usable_hash(known.get(unit))):
                found.append(outcome.unit)
        return found

    def _known(self, units: Sequence[Unit]) -> dict[Unit, Outcome]:
        """Return what is known of the units and of all that they read."""
        if not units:
            return {}
        works = [Work(unit, RECIPES[unit.table], self.settings, self.lake) for unit in units]
        read = {u for work in works for u in (work.unit, *work.input_units())}
        dates = [unit.date for unit in read]
        tables = {unit.table for unit in read}
        rows = (o for t in tables for o in self.ledger.outcomes(t, start=min(dates), end=max(dates)))
        found = {o.unit: o for o in rows if o.unit in read}
        # The files are the truth: what a killed run or a lost ledger left out, they still say.
        adopted = {unit: o for unit in read - found.keys() if (o := outcome_on_disk(self.lake, unit))}
        self.ledger.record(adopted.values())
        return found | adopted

    def _blocked(self, work: Work, known: dict[Unit, Outcome]) -> Outcome | None:
        reasons = []
        for unit in work.input_units():
            outcome = known.get(unit)
            if unit.date != work.unit.date or unit.symbol != work.unit.symbol:
                continue  # missing or red history, or another symbol, only leaves less to read, and the key says so
            if outcome is None:
                reasons.append(f"{unit} has not been built: run `qp backfill` for it")
            elif outcome.is_red:
                red = ", ".join(n for n, c in outcome.checks.items() if c.is_blocking and not c.passed)
                reasons.append(f"{unit} has a red blocking check: {red}")
            elif not outcome.status.is_usable:
                reasons.append(f"{unit} is {outcome.status}: {outcome.error}")
        return Outcome(work.unit, UnitStatus.BLOCKED, error="; ".join(reasons) + ".") if reasons else None

    def _up_to_date(self, work: Work, known: dict[Unit, Outcome]) -> Outcome | None:
        """Return the ledger's row if it stands; units with a source must ask the source first, in a worker."""
        outcome = known.get(work.unit)
        if work.recipe.fetch or outcome is None or not outcome.status.is_usable:
            return None
        path = self.lake.path(*work.unit)
        if not path.is_file() or path.stat().st_size != outcome.bytes:
            return None
        is_current = outcome.key == work.key(lambda unit: usable_hash(known.get(unit)))
        return replace(outcome, is_skipped=True) if is_current else None

    def _built(self, due: deque[Work], how: "How", *, known: dict[Unit, Outcome]) -> Iterator[Outcome]:
        """Yield outcomes as units finish, never more memory under way than the budget, but always one unit.

        Of the units under way when a worker dies, nobody knows which one killed it: each goes again, alone.
        """
        budget = self.settings.pipeline.memory_budget_mb * 1e6
        width = self.settings.pipeline.workers or 1
        is_few = len(due) <= _FEW
        running: dict[Future[Outcome], tuple[Work, float]] = {}
        suspects: deque[Work] = deque()
        accused: set[Unit] = set()
        while due or suspects or running:
            is_alone = suspects or any(work.unit in accused for work, _ in running.values())
            queue, limit = suspects or due, 1 if is_alone else 2 * width
            while queue and len(running) < limit:
                need = _memory(queue[0], known)
                if running and sum(m for _, m in running.values()) + need > budget:
                    break
                work = queue.popleft()
                running[self._submit(work, how, is_few=is_few)] = (work, need)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                work, _ = running.pop(future)
                if not isinstance(future.exception(), BrokenProcessPool):
                    yield future.result()
                elif work.unit in accused:
                    yield Outcome(work.unit, UnitStatus.FAILED, error=_WORKER_DIED)
                else:
                    accused.add(work.unit)
                    suspects.append(work)

    def _submit(self, work: Work, how: "How", *, is_few: bool) -> Future[Outcome]:
        if is_few and open_date.is_small(work, how.closed_before):
            return self._thread.submit(build_unit, work.unit, self.settings, how)
        return self.workers.submit(build_unit, work.unit, self.settings, how)


class _Asked(NamedTuple):
    """What tables are brought up to date for."""

    symbols: tuple[str, ...]
    dates: tuple[Date, ...]
    how: How


def _ready() -> None:
    """Do nothing: a worker that can do this has imported this module."""


def _recorded_source(outcome: Outcome) -> Source | None:
    facts = outcome.facts
    return Source(facts["source"], facts["source_fingerprint"], None) if "source" in facts else None


def _memory(work: Work, known: dict[Unit, Outcome]) -> float:
    if work.recipe.fetch:
        return _MEMORY_OF_A_FETCH
    return sum(known[u].bytes for u in work.input_units() if u in known) * _MEMORY_PER_LAKE_BYTE
