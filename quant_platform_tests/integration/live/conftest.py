"""An aggregator over a server of its own for each module."""

import pytest

from quant_platform_tests.integration.live.aggregate_keys import Cycles, settings_of


@pytest.fixture(scope="module")
def settings(server):
    return settings_of(server.home)


@pytest.fixture
def written(settings, client):
    return Cycles(settings, client)


@pytest.fixture
def aggregator(written):
    return written.aggregator
