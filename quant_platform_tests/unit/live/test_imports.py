"""What the live writer loads before its first cycle: what it does not need would make each start slower."""

import subprocess
import sys

import pytest

NOT_NEEDED = (
    "dagster",
    "sqlalchemy",
    "pandas",
    "scipy",
    "numba",
    "sklearn",
    "mlflow",
    "duckdb",
    "matplotlib",
    "plotly",
)


@pytest.mark.parametrize("module", ["quant_platform.live.writer", "quant_platform.cli"])
def test_a_start_loads_nothing_heavy_that_it_does_not_need(module):
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "polars" in loaded
    assert not set(NOT_NEEDED) & set(loaded)


def test_sqlalchemy_can_be_loaded_after_the_contracts():
    code = (
        "import quant_platform.contracts._schema, sqlalchemy; print(sqlalchemy.create_engine('sqlite://').dialect.name)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "sqlite"
