"""Run units on a bounded pool of processes, under locks, and keep the ledger. What a unit computes is its recipe's.

A unit is skipped when the key in its file's footer is the key it would be built with; so a killed run resumes where
it stopped, and a changed input, parameter or calculator rebuilds exactly what depends on it.
"""

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from datetime import date as Date  # noqa: N812  # `date` names parameters here
from datetime import datetime
from functools import partial
from typing import NamedTuple, Self, TypeVar
from urllib.parse import quote

from filelock import FileLock, Timeout

from quant_platform.contracts._schema import contract_of, empty
from quant_platform.pipeline import capture, open_date
from quant_platform.pipeline.ahead import Ahead
from quant_platform.pipeline.capture import THROUGH_SEGMENT
from quant_platform.pipeline.ledger import Ledger, checks_json
from quant_platform.pipeline.recipes import READ_ORDER, RECIPES
from quant_platform.pipeline.units import (
    Built,
    Outcome,
    Recipe,
    Source,
    Unit,
    UnitStatus,
    Work,
    contract_check,
    outcome_on_disk,
    unit_symbols,
    usable_hash,
)
from quant_platform.settings import Settings
from quant_platform.storage import quarantine
from quant_platform.storage.lake import ALL_SYMBOLS, Lake, metadata_json

# Measured: decoded columns and their working copies take about this many bytes for each byte on disk.
_MEMORY_PER_LAKE_BYTE = 40
_MEMORY_OF_A_FETCH = 400_000_000
_WORKER_DIED = "Its worker process died twice, the second time with no other at work, perhaps for want of memory."

OnOutcome = Callable[[Outcome], None]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Engine:
    """Build units of one table at a time. Use as a context manager: the pool is kept between tables.

    Args:
        settings: The whole tree; workers get a copy.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lake = Lake(settings.lake_uri, assumed_latency_ms=settings.assumed_latency_ms)
        self.ledger = Ledger(settings.ledger)
        self._pool: Executor | None = None
        self._thread: Executor | None = None
        self._turn, self._starting = threading.Lock(), threading.Lock()
        self._ahead: tuple[_Asked, Ahead] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the workers now: they import what they need while this process does something else."""
        for _ in range(self.settings.pipeline.workers):
            self._workers().submit(_ready)

    def close(self) -> None:
        """Stop the pool; units not yet started are dropped, and are due again in the next run."""
        if self._ahead:
            self._ahead[1].stop()
        self._shut_down()
        if self._ahead:
            self._ahead[1].join()
            self._shut_down()  # of a pool that it has started meanwhile
        self._ahead = self._pool = self._thread = None

    def _shut_down(self) -> None:
        for pool in (self._pool, self._thread):
            if pool:
                pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[_In], _Out], given: Iterable[_In]) -> Iterator[_Out]:
        """Yield what a function makes of each, in order, made by the workers side by side.

        Args:
            work: A function that workers can import.
            given: Taken only as far as workers can go on: twice as many as there are workers.
        """
        running: deque[Future[_Out]] = deque()
        for one in given:
            running.append(self._workers().submit(work, one))
            if len(running) > 2 * self.settings.pipeline.workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

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
        asked = _Asked(tuple(symbols), tuple(dates), _How(is_forced=is_forced, closed_before=closed_before))
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
        asked = _Asked(tuple(symbols), tuple(dates), _How(is_forced=is_forced, closed_before=closed_before))
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

    def _built(self, due: deque[Work], how: "_How", *, known: dict[Unit, Outcome]) -> Iterator[Outcome]:
        """Yield outcomes as units finish, never more memory under way than the budget, but always one unit.

        Of the units under way when a worker dies, nobody knows which one killed it: each goes again, alone.
        """
        budget = self.settings.pipeline.memory_budget_mb * 1e6
        width = self.settings.pipeline.workers or 1
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
                running[self._submit(work, how)] = (work, need)
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

    def _submit(self, work: Work, how: "_How") -> Future[Outcome]:
        if open_date.is_small(work, how.closed_before):
            self._thread = self._thread or ThreadPoolExecutor(1)
            return self._thread.submit(build_unit, work.unit, self.settings, how)
        try:
            return self._workers().submit(build_unit, work.unit, self.settings, how)
        except BrokenProcessPool:
            self._pool = _pool(self.settings.pipeline.workers)
            return self._pool.submit(build_unit, work.unit, self.settings, how)

    def _workers(self) -> Executor:
        with self._starting:
            self._pool = self._pool or _pool(self.settings.pipeline.workers)
            return self._pool


class _How(NamedTuple):
    """What a run asks of every unit."""

    is_forced: bool = False
    closed_before: datetime | None = None


class _Asked(NamedTuple):
    """What tables are brought up to date for."""

    symbols: tuple[str, ...]
    dates: tuple[Date, ...]
    how: _How


_AS_DUE = _How()


def build_unit(unit: Unit, settings: Settings, how: _How = _AS_DUE) -> Outcome:
    """Build one unit in this process, under its lock; errors come back as an outcome, never as an exception."""
    started = time.perf_counter()
    work = Work(
        unit,
        RECIPES[unit.table],
        settings,
        Lake(settings.lake_uri, assumed_latency_ms=settings.assumed_latency_ms),
    )
    lock = settings.home / "locks" / unit.table / unit.date.isoformat() / f"{quote(unit.symbol, safe='')}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if open_date.is_open(work, how.closed_before):
                started = time.perf_counter()
                outcome = open_date.append(work, is_forced=how.is_forced)
            else:
                with _slot(settings):
                    started = time.perf_counter()
                    outcome = _build(work, is_forced=how.is_forced)
                if work.lake.read_state(*unit) is not None and outcome.status.is_usable:
                    work.lake.drop_open(*unit)  # the date is closed
    except Exception as error:  # noqa: BLE001  # one unit's failure, of whatever kind, must not stop the others
        outcome = Outcome(unit, UnitStatus.FAILED, error=f"{type(error).__name__}: {error}")
    return replace(outcome, seconds=round(time.perf_counter() - started, 4))


def _build(work: Work, *, is_forced: bool) -> Outcome:
    recipe, unit, lake = work.recipe, work.unit, work.lake
    present = outcome_on_disk(lake, unit)
    if recipe.capture and present and capture.is_spent(work.settings.landing, work.instrument, present.facts):
        if present.content_hash != lake.recomputed_hash(*unit):
            raise OSError(
                f"{lake.path(*unit)} is damaged, and the segments that it was built of are gone: put back a copy."
            )
        return replace(present, is_skipped=True)
    status = UnitStatus.OK
    inputs = {u: outcome_on_disk(lake, u) for u in work.input_units() if u.date == unit.date}
    unfit = ", ".join(str(u) for u, found in inputs.items() if u.symbol == unit.symbol and not usable_hash(found))
    if unfit:
        reason = f"The file of {unfit} is missing, damaged or red: run `qp backfill` for it."
        return Outcome(unit, UnitStatus.BLOCKED, error=reason)
    if work.session is None:
        status = UnitStatus.CALENDAR_CLOSED
    elif recipe.fetch:
        work = replace(work, source=recipe.fetch(work))
        status = UnitStatus.OK if work.source else UnitStatus.ABSENT
    elif _is_absent(recipe, inputs):
        status = UnitStatus.ABSENT
    key = work.key(work.content_hash)
    if not is_forced and present and present.key == key and present.content_hash == lake.recomputed_hash(*unit):
        return replace(present, is_skipped=True)
    built = recipe.build(work) if status is UnitStatus.OK else Built(empty(contract_of(unit.table)))
    quarantined = 0 if built.quarantined is None else built.quarantined.height
    facts = dict(built.facts)
    if through := _through_segment(inputs.values()):
        facts[THROUGH_SEGMENT] = through
    if work.source:
        facts |= {"source": work.source.name, "source_fingerprint": work.source.fingerprint}
    checks = {"contract": contract_check(built.rows.height, quarantined, work.settings)}
    quarantine.put(work.settings.quarantine, *unit, built.quarantined)
    info = lake.write(
        *unit,
        built.rows,
        metadata={
            "status": status.value,
            "key": key,
            "code_version": recipe.code_version,
            "quarantined": str(quarantined),
            "checks": checks_json(checks),
            "facts": metadata_json(facts),
        },
    )
    return Outcome(
        unit,
        status,
        key=key,
        content_hash=info.content_hash,
        rows=info.rows,
        bytes=info.bytes,
        quarantined=quarantined,
        checks=checks,
        facts=facts,
    )


def _through_segment(inputs: Iterable[Outcome | None]) -> str | None:
    """Return the last segment of a capture that all inputs contain."""
    through = [outcome.facts[THROUGH_SEGMENT] for outcome in inputs if outcome and THROUGH_SEGMENT in outcome.facts]
    return min(through, key=int, default=None)


def _is_absent(recipe: Recipe, inputs: Mapping[Unit, Outcome | None]) -> bool:
    there = {unit.table for unit, outcome in inputs.items() if outcome and outcome.status is not UnitStatus.ABSENT}
    absent = {unit.table for unit in inputs} - there
    required = {read.table for read in recipe.inputs if not read.is_optional}
    return bool(absent & required) or (bool(inputs) and not there)


def _pool(workers: int) -> Executor:
    """Return the pool: `workers` processes, or one thread of this process where workers is 0."""
    if workers == 0:
        return ThreadPoolExecutor(1)
    # Workers are started by the fork server with this environment, before they import Polars.
    os.environ["POLARS_MAX_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)


def _ready() -> None:
    """Do nothing: a worker that can do this has imported this module."""


def _end_with_parent() -> None:
    """Let this worker die when the process that started it is killed: nobody else would end it."""
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


@contextmanager
def _slot(settings: Settings) -> Iterator[None]:
    """Hold one of as many slots as the machine has workers, over all runs that share this QP_HOME."""
    folder = settings.home / "locks" / "slots"
    folder.mkdir(parents=True, exist_ok=True)
    count = max(settings.pipeline.workers, 1)
    while True:
        for number in range(count):
            lock = FileLock(folder / f"{number}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield
            finally:
                lock.release()
            return
        threading.Event().wait(0.02)


def _recorded_source(outcome: Outcome) -> Source | None:
    facts = outcome.facts
    return Source(facts["source"], facts["source_fingerprint"], None) if "source" in facts else None


def _memory(work: Work, known: dict[Unit, Outcome]) -> float:
    if work.recipe.fetch:
        return _MEMORY_OF_A_FETCH
    return sum(known[u].bytes for u in work.input_units() if u in known) * _MEMORY_PER_LAKE_BYTE
