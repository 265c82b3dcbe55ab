"""DAGSTER_HOME: written once, before anything concurrent, and opened the same way by every command."""

import os
from pathlib import Path

import dagster as dg
from filelock import FileLock

import quant_platform
from quant_platform.settings import Settings

_EVENTS_AT_ONCE = "100"
PROJECT = Path(quant_platform.__file__).parent.parent


def dagster_instance(settings: Settings) -> dg.DagsterInstance:
    """Return the instance of `$QP_HOME/dagster`, initialised if new, and export DAGSTER_HOME to child processes."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    # Several processes that initialise an empty DAGSTER_HOME together crash one another.
    with FileLock(home / "initialise.lock"):
        wanted = (PROJECT / "dagster.yaml").read_bytes()
        config = home / "dagster.yaml"
        if not config.is_file() or config.read_bytes() != wanted:
            config.write_bytes(wanted)
        os.environ["DAGSTER_HOME"] = str(home)
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", _EVENTS_AT_ONCE)
        instance = dg.DagsterInstance.get()
        instance.get_runs(limit=1)
    return instance
