"""The processes that build: started when first needed, replaced when one dies; and slots over all runs of a machine."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from filelock import FileLock, Timeout

_Given = ParamSpec("_Given")
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Workers:
    """A pool that several threads may use.

    Args:
        count: How many processes; 0 is one thread of this process.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: Executor | None = None
        self._lock = threading.Lock()

    def submit(self, work: Callable[_Given, _Out], *args: _Given.args, **kwargs: _Given.kwargs) -> Future[_Out]:
        """Return the future of a call in one of them. A pool that lost a process gives way to a new one.

        Args:
            work: A function that workers can import.
            args: Its arguments, which can be pickled, as can `kwargs`.
            kwargs: The same by name.
        """
        with self._lock:
            self._pool = self._pool or _pool(self._count)
            try:
                return self._pool.submit(work, *args, **kwargs)
            except BrokenProcessPool:
                self._pool = _pool(self._count)
                return self._pool.submit(work, *args, **kwargs)

    def map(self, work: Callable[[_In], _Out], given: Iterable[_In]) -> Iterator[_Out]:
        """Yield what a function makes of each, in order.

        Args:
            work: A function that workers can import.
            given: Taken only as far as workers can go on: twice as many as there are workers.

        Raises:
            BrokenProcessPool: A worker died over one of them.
        """
        running: deque[Future[_Out]] = deque()
        for one in given:
            running.append(self.submit(work, one))
            if len(running) > 2 * self._count:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()

    def close(self) -> None:
        """Let what is under way end, and drop what waits."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool:
            pool.shutdown(cancel_futures=True)


@contextmanager
def slot(folder: Path, count: int) -> Iterator[None]:
    """Hold one of a number of slots; waits for it.

    Args:
        folder: Where their locks lie: all processes that name the same one share the slots.
        count: How many there are; one where it is 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for number in range(max(count, 1)):
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


def _pool(count: int) -> Executor:
    if count == 0:
        return ThreadPoolExecutor(1)
    # Workers are started by the fork server with this environment, before they import Polars.
    os.environ["POLARS_MAX_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
    context = multiprocessing.get_context("forkserver")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Let this worker die when the process that started it is killed: nobody else would end it."""
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
