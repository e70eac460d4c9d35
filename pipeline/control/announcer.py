"""Sending `ad.rollups`: a batch's rollups, keyed by lane, with a separate producer.

The producer is not idempotent: readers drop repeats by (epoch, lane, batch number, part) anyway, and aiokafka's
idempotent producer never gives up on a message, while a lane must learn within `DELIVERY_SECONDS_MAX` that it must
wait. Order within a lane holds: a lane's next batch comes after the answer to this one.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer, errors

from adledger.pipeline.addresses import KafkaAddress
from adledger.pipeline.control.rollups_message import encode, record_key, split
from adledger.pipeline.errors import SinkUnavailable
from adledger.pipeline.lanes.ports import RolledUp
from adledger.pipeline.log.kafka_admin.failures import KAFKA_ERRORS, explain
from adledger.pipeline.log.kafka_admin.properties import client_options
from adledger.pipeline.settings import Settings

DELIVERY_SECONDS_MAX = 10.0
"""From the call until all in-sync brokers have answered, including a first connection. After that, the call fails."""

REQUEST_MS_MAX = 4_000
"""Timeout of a request, and how long aiokafka retries a message. Then another producer sends it, which bootstraps again."""

MESSAGE_BYTES_MAX = 1_048_576
"""The largest message that the producer accepts; messages are smaller (adledger.pipeline.control.rollups_message.PART_ROWS_MAX)."""


CHECK_BROKERS = "check the brokers and the topic's min.insync.replicas; the message is sent again"


def _count_nothing(_: str) -> None:
    """Do nothing."""


class Announcer:
    """Announces batches on a topic; connects when the first one comes. `announce` is the lanes' `Announce` port."""

    def __init__(
        self, topic: str, options: Mapping[str, Any], count: Callable[[str], None] = _count_nothing
    ) -> None:
        """`options` are those of `client_options`; `count` is called for each batch with "sent" or "failed"."""
        self._topic = topic
        self._servers = ",".join(options["bootstrap_servers"])
        self._options = {**options, "request_timeout_ms": REQUEST_MS_MAX}
        self._count = count
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._ending: set[asyncio.Task[None]] = set()

    @classmethod
    def of(cls, settings: Settings, count: Callable[[str], None] = _count_nothing) -> "Announcer":
        """Return the announcer of a worker on Kafka. Raises UsageError: the properties are wrong."""
        assert isinstance(settings.source, KafkaAddress), "announcements are Kafka's"
        return cls(settings.rollups_topic, client_options(settings.source.servers, settings.kafka), count)

    async def announce(self, batch: RolledUp) -> None:
        """Return when the brokers have all messages of a batch. Raises SinkUnavailable: send it again."""
        messages = await asyncio.to_thread(_messages, batch)
        producer, sent = None, []
        try:
            async with asyncio.timeout(DELIVERY_SECONDS_MAX):
                producer = await self._started()
                key = record_key(batch.lane)
                for message in messages:
                    sent.append(await producer.send(self._topic, value=message, key=key))  # noqa: PERF401 - kept on errors
                await asyncio.gather(*sent)
        except KAFKA_ERRORS as error:
            self._count("failed")
            while sent:
                sent.pop().cancel()  # none stays: its error's traceback refers to this frame, a cycle with the batch
            if producer is not None:
                self._replace(producer)
            raise await self._failure(batch, error, connected=producer is not None) from error
        self._count("sent")

    async def stop(self) -> None:
        """Close the connections. Messages that no caller waits for are dropped."""
        async with self._starting:
            if self._producer is not None:
                self._replace(self._producer)
        await asyncio.gather(*self._ending)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(**self._options, acks="all", max_request_size=MESSAGE_BYTES_MAX)
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    def _replace(self, producer: AIOKafkaProducer) -> None:
        """Use another producer next time: one whose sending task died would fail forever."""
        if self._producer is producer:
            self._producer = None
            ending = asyncio.create_task(_end(producer))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _failure(self, batch: RolledUp, error: BaseException, *, connected: bool) -> SinkUnavailable:
        what = f"{self._topic} did not take the message of lane {batch.lane}, batch {batch.batch_no}"
        match error:
            case TimeoutError():
                why, remedy = f"no answer in {DELIVERY_SECONDS_MAX:.0f} s", CHECK_BROKERS
            case errors.UnknownTopicOrPartitionError():
                why, remedy = (
                    "there is no such topic",
                    "run adledger topics create; the message is then sent again",
                )
            case errors.MessageSizeTooLargeError():
                why = "larger than the topic's max.message.bytes"
                remedy = f"set max.message.bytes of {self._topic} to Kafka's default (1048588); the message is sent again"
            case errors.KafkaTimeoutError() | errors.KafkaError(retriable=True) if connected:
                # A leader is moving: looking for the cause would delay the next attempt.
                why, remedy = f"Kafka at {self._servers}: {error!r}", CHECK_BROKERS
            case _:
                cause = await explain(error, self._options)
                why, remedy = cause.message, cause.remedy
        return SinkUnavailable(f"{what}: {why}", remedy=remedy)


async def _end(producer: AIOKafkaProducer) -> None:
    """Stop a producer; messages that other lanes are still sending may be answered first."""
    with suppress(*KAFKA_ERRORS):
        async with asyncio.timeout(DELIVERY_SECONDS_MAX):
            await producer.stop()


def _messages(batch: RolledUp) -> list[bytes]:
    parts = split(batch.epoch, batch.lane, batch.batch_no, batch.clock_after, batch.rollup)
    return [encode(part) for part in parts]
