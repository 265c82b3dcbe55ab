"""dbt inside this process. Which assets it builds, and what becomes of the file, is the business of assets/marts.

A dbt subprocess costs two to three times as much, nearly all of it imports that Dagster's dbt integration has already
made; and `DbtCliResource.cli` runs `dbt --version` first, which asks the package index for news.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

PROJECT = Path(__file__).parents[2] / "dbt_project"
_MANIFEST = PROJECT / "target" / "manifest.json"
_PARSED = PROJECT / "target" / "partial_parse.msgpack"
_QUIETLY = ("--quiet", "--log-level-file", "none", "--no-send-anonymous-usage-stats")
_SOURCES = (".sql", ".yml")


class DbtError(RuntimeError):
    """dbt did not finish; the message is dbt's own."""


@dataclass(frozen=True)
class Invocation:
    """What dbt said: its structured log events in their order, and whether everything, tests included, passed."""

    events: tuple[dict[str, Any], ...]
    errors: tuple[str, ...]
    is_successful: bool


def manifest() -> Path:
    """Return the path of the project's manifest, parsed again where it is absent or older than the project's files.

    Raises:
        DbtError: The project does not parse.
        OSError: The project's `target` folder cannot be written.
    """
    if _is_stale():
        _MANIFEST.parent.mkdir(exist_ok=True)
        with FileLock(_MANIFEST.parent / "parse.lock"):
            if _is_stale():
                parsed = _invoked(["parse"], target=_MANIFEST.parent)
                if not parsed.is_successful:
                    raise DbtError(f"The dbt project in {PROJECT} does not parse: {' '.join(parsed.errors)}")
                # dbt leaves the files alone when nothing in them changed.
                _MANIFEST.touch()
    return _MANIFEST


def build(*selection: str, warehouse: Path, lake: Path, target: Path) -> Invocation:
    """Build models and run their tests.

    Args:
        selection: dbt's own arguments, such as `--select marts`; none builds everything.
        warehouse: DuckDB file to build in; closed when this returns.
        lake: The lake's root folder.
        target: Folder for dbt's compiled SQL, results and log.

    Raises:
        DbtError: dbt broke off before it ran anything.
    """
    manifest()
    with _environment(QP_WAREHOUSE_BUILD=str(warehouse), QP_LAKE_PATH=str(lake)):
        return _invoked(["build", *selection, "--no-write-json"], target=target, parsed=_PARSED.read_bytes())


def _invoked(arguments: Sequence[str], *, target: Path, parsed: bytes | None = None) -> Invocation:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.adapters.factory import reset_adapters
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest
    from dbt_common.events.functions import msg_to_dict

    events: list[dict[str, Any]] = []
    # Handed in, the parsed project is used as it is: dbt's own check parses anew for every other warehouse path.
    runner = dbtRunner(
        manifest=None if parsed is None else Manifest.from_msgpack(parsed),
        callbacks=[lambda message: events.append(msg_to_dict(message))],
    )
    try:
        result = runner.invoke([*_QUIETLY, *arguments, *_folders(target)])
    finally:
        # dbt-duckdb keeps the file open, and with it DuckDB's lock, for the life of the process.
        reset_adapters()  # type: ignore[no-untyped-call]  # dbt's
        if DuckDBConnectionManager._ENV:  # noqa: SLF001  # its own close_all_connections only forgets it
            DuckDBConnectionManager._ENV.close()  # noqa: SLF001
            DuckDBConnectionManager.close_all_connections()
    if result.exception is not None:
        if isinstance(result.exception, Exception):
            raise DbtError(f"dbt broke off: {result.exception}") from result.exception
        raise result.exception
    errors = tuple(event["info"]["msg"] for event in events if event["info"]["level"] == "error")
    return Invocation(tuple(events), errors, result.success)


def _folders(target: Path) -> list[str]:
    folders = {"project-dir": PROJECT, "profiles-dir": PROJECT, "target-path": target, "log-path": target}
    return [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]


def _is_stale() -> bool:
    if not (_MANIFEST.is_file() and _PARSED.is_file()):
        return True
    parsed_at = _MANIFEST.stat().st_mtime
    return any(path.stat().st_mtime > parsed_at for path in source_files())


def source_files() -> Iterator[Path]:
    """Yield the files that the manifest is made of."""
    for folder in (PROJECT / "models", PROJECT / "macros", PROJECT / "tests", PROJECT):
        paths = folder.glob("*") if folder == PROJECT else folder.rglob("*")
        yield from (path for path in paths if path.suffix in _SOURCES)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[Mapping[str, str]]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield os.environ
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
