"""The warehouse file, `warehouse.duckdb`: how a new one comes to be and takes the place of the old one.

Here: the copy, the lock and the swap. Not here: what stands in it (dbt_project), who runs dbt (defs).

Readers open the file read-only and briefly. DuckDB keeps one open instance per path and process, so a process that
never closes its connection never sees the next warehouse.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from filelock import FileLock

from quant_platform.storage.atomic import publish

_NO_DOWNLOADS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@contextmanager
def rebuilt(path: Path) -> Iterator[Path]:
    """Yield the path of a file to build in, a copy of the warehouse at `path`, and swap it in afterwards.

    The copy lets a builder replace one table and keep the others. Its name is that of the warehouse, in the folder
    `<path>.build`: DuckDB names the catalog after the file, and views may spell it. One builder at a time: another one
    waits. When the body raises, or the process dies, the old file stays as it was; what a dead builder left goes with
    the next build.

    Raises:
        duckdb.IOException: The present file is not a DuckDB file, or something else than a builder has it open to
            write; or the body left the new one open.
        FileNotFoundError: There was no warehouse, and the body built none.
        OSError: The folder cannot be written or the disk is full.
    """
    folder = path.with_name(f"{path.name}.build")
    new = folder / path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        try:
            if path.exists():
                # A file that someone writes to cannot be copied whole: DuckDB says so here.
                with duckdb.connect(path, read_only=True, config=_NO_DOWNLOADS):
                    shutil.copyfile(path, new)
            yield new
            if not new.exists():
                raise FileNotFoundError(f"No warehouse was built at {new}: {path} stays absent.")
            # What still stands in a log beside the file would be lost by the swap.
            with duckdb.connect(new, config=_NO_DOWNLOADS) as connection:
                connection.execute("checkpoint")
            publish(new, path)
        finally:
            shutil.rmtree(folder)
