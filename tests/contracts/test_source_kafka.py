"""Kafka keeps the laws of `source_suite`, on a real broker, and a few of its own."""

import pytest

from adledger.pipeline.errors import LogError
from tests.contracts.source_suite import Listener, SourceLaws, joined
from tests.support.kafka_log import KafkaLog


@pytest.fixture
async def log(kafka):
    return await KafkaLog(kafka).make()


class TestKafkaSource(SourceLaws):
    """A group's member keeps the laws."""

    async def test_joining_twice_is_refused(self, log):
        """A member joins once."""
        source = log.member()
        await joined(source)
        with pytest.raises(LogError, match="joined already"):
            await source.join(Listener())
        await source.leave()

    async def test_leaving_without_joining_does_nothing(self, log):
        """A stop before the start is no error; a rejoin without a join is."""
        source = log.member()
        await source.leave()
        with pytest.raises(LogError):
            await source.rejoin()
