"""What `qp` puts into the environment of its processes before libraries read it."""

import os
import subprocess
import sys

import pytest

OURS = {"OPENBLAS_NUM_THREADS": "1", "_RJEM_MALLOC_CONF": "dirty_decay_ms:10000"}
THE_USERS = {"OPENBLAS_NUM_THREADS": "2", "_RJEM_MALLOC_CONF": "tcache:false"}


@pytest.mark.parametrize("given", [{}, THE_USERS], ids=["nothing", "all"])
def test_environment_is_set_before_polars_and_what_the_user_set_stays(given: dict[str, str]) -> None:
    code = f"import quant_platform.cli, os, polars; print(*(os.environ[name] for name in {list(OURS)}), sep='|')"
    env = {name: value for name, value in os.environ.items() if name not in OURS} | given
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    found = dict(zip(OURS, said.strip().split("|"), strict=True))
    for name, value in (OURS | given).items():
        assert found[name].endswith(value)  # Polars puts its own defaults before ours, and the last one counts
