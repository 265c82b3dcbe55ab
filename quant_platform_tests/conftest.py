"""Fixtures for every kind of test. What one folder alone needs stands in that folder's conftest."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A machine under load makes any example late, and lateness is not what properties are about.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of recorded market data, or skip; under QP_REQUIRE_REAL_DATA=1 its absence fails."""
    named = os.environ.get("QP_REAL_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        reason = f"There is no recorded market data at {folder}: set QP_REAL_DATA to its folder."
        if os.environ.get("QP_REQUIRE_REAL_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
