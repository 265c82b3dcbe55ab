"""A Redis of its own for each module, empty before each test."""

import pytest

from quant_platform.storage import live_store
from quant_platform.storage.live_store import Server
from quant_platform_tests.integration.live.aggregate_keys import Cycles, settings_of


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    settings = settings_of(tmp_path_factory.mktemp("home"))
    with Server(settings):
        yield settings


@pytest.fixture
def client(settings):
    with live_store.connect(settings) as client:
        client.flushall()
        yield client


@pytest.fixture
def written(settings, client):
    return Cycles(settings, client)


@pytest.fixture
def aggregator(written):
    return written.aggregator
