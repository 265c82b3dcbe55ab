"""Parts of one calculation on all cores. What the parts are is the calculators' business."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import polars as pl

Part = TypeVar("Part")
Found = TypeVar("Found")


def on_all_cores(job: Callable[[Part], Found], parts: Sequence[Part]) -> list[Found]:
    """Return what a job finds in each part, in their order; numpy lets other threads run while it computes.

    Args:
        job: Looks at nothing that another part changes.
        parts: Each worth some milliseconds: it costs about one to start threads and to take turns in the interpreter.
    """
    if len(parts) < 2:
        return [job(part) for part in parts]
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        return list(pool.map(job, parts))
