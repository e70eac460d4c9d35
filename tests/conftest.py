"""What all tests share."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.pipeline.lanes import doubt, lane
from tests.support.brokers import running_broker
from tests.support.clickhouse_servers import OWN, running_server

settings.register_profile("adledger", deadline=None, print_blob=True)
settings.load_profile("adledger")


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Give loggers their levels and ways back: a command that ran in this process may have silenced them."""
    yield
    logging.disable(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in ("adledger", "aiokafka"):
            logger.disabled, logger.propagate = False, True
            logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """One broker for all tests, whose topics and groups have unique names. A test that damages it starts another."""
    with running_broker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """ClickHouse's own server, one for all tests, whose databases have unique names. A test that damages it starts
    another.
    """
    with running_server(OWN, tmp_path_factory.mktemp("clickhouse-server")) as server:
        assert isinstance(server, ClickHouseServer)
        yield server


@pytest.fixture(scope="module")
def without_pauses() -> Iterator[None]:
    """Let lanes wait for nothing: the tests' server clock advances at each reading, and their log is complete."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doubt, "CLOCK_POLL_SECONDS_MAX", 0.0)
        patch.setattr(lane, "FETCH_WAIT_MS_MAX", 0)
        yield
