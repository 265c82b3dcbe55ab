"""Tables built before they are asked for: workers need not wait while the results of the table before are told."""

import threading
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue

from quant_platform.pipeline.units import Outcome

Build = Callable[[str, Callable[[Outcome], None]], list[Outcome]]
"""Brings a table up to date and returns what became of its units, each of which it tells before."""
Told = SimpleQueue[Outcome | list[Outcome] | BaseException]
"""Outcomes as they come, and last all of them, or the error."""


class Ahead:
    """Build tables one after the other in a thread of its own, and hand each out once.

    Args:
        build: Called in the thread, for one table at a time.
        tables: Each after all that it reads.
    """

    def __init__(self, build: Build, tables: Sequence[str]) -> None:
        self._build = build
        self._told: dict[str, Told] = {table: SimpleQueue() for table in tables}
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(dict(self._told),), name="ahead", daemon=True)
        self._thread.start()

    def __contains__(self, table: str) -> bool:
        return table in self._told

    def take(self, table: str, on_outcome: Callable[[Outcome], None]) -> list[Outcome]:
        """Return what became of a table's units, as `build` returned it; waits until it is done.

        Args:
            table: One that was not taken before.
            on_outcome: Called in this thread for each outcome that `build` told of, as soon as it is there.

        Raises:
            BaseException: What `build` raised for this table.
        """
        told = self._told.pop(table)
        while isinstance(found := told.get(), Outcome):
            on_outcome(found)
        if isinstance(found, BaseException):
            raise found
        return found

    def stop(self) -> None:
        """Begin no other table; what is under way may end."""
        self._is_stopped.set()

    def join(self) -> None:
        """Wait for the thread's end."""
        self._thread.join()

    def _run(self, queues: Mapping[str, Told]) -> None:
        for table, told in queues.items():
            if self._is_stopped.is_set():
                told.put(RuntimeError(f"{table} was not built, because the engine was closed."))
                continue
            try:
                told.put(self._build(table, told.put))
            except BaseException as error:  # noqa: BLE001  # raised again in the thread that asks for the table
                told.put(error)
