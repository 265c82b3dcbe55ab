"""Fixtures for every kind of test. What one folder alone needs stands in that folder's conftest."""

import gc
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# A machine under load makes any example late, and lateness is not what properties are about.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files of quick tests last, the smallest at the very end: workers that take file by file end together."""
    sizes = Counter(item.path for item in items)

    def order(item: pytest.Item) -> tuple[bool, int]:
        is_quick = item.path.relative_to(Path(__file__).parent).parts[0] in {"property", "unit"}
        return is_quick, -sizes[item.path] if is_quick else 0

    items.sort(key=order)


def pytest_collection_finish() -> None:
    """Keep the collector of garbage from looking again and again through what is loaded by now, which stays."""
    gc.freeze()


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
