"""The small archive of the pipeline's unit tests, and engines over it."""

from quant_platform_tests.unit.pipeline.conftest import _own_environment, archive, engine, settings

__all__ = ["_own_environment", "archive", "engine", "settings"]
