"""Writing to Kafka from one ordinary thread, as an importer does: blocks of records into topics' partitions."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from adledger.pipeline.log.kafka.log_times import NO_TIME, largest_log_times
from adledger.pipeline.log.kafka.producer import BatchProducer, batch_producer
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.rate_limited_log import RateLimitedLog
from adledger.pipeline.log.kafka_admin.rights import Role
from adledger.pipeline.log.kafka_admin.topics import kafka_options, require_fit_topics
from adledger.pipeline.log.kafka_admin.topology import topology
from adledger.pipeline.log.record_block import BATCH_BYTES_MAX, RecordBlock, encode_batches
from adledger.pipeline.log.source import Topology
from adledger.pipeline.settings import Settings

QUEUED_BATCHES_MAX = 256
"""Encoded batches that may wait for the sending thread, so that parsing and sending overlap in bounded memory."""

T = TypeVar("T")

_log = logging.getLogger("adledger.kafka")


class KafkaLogWriter:
    """Writes to the event topics of these settings. Use it as a context manager: leaving it flushes and closes.

    Record timestamps are the blocks' log times; brokers replace them with the append time, unless log_time = record.
    """

    def __init__(self, settings: Settings, *, say: Callable[[str], None] | None = None) -> None:
        """Connect. `say` receives aiokafka's warnings, mostly about retries; None leaves its logging alone.

        Raises UsageError (properties), LogError (no broker, topics that a worker would refuse).
        """
        self._warnings = None if say is None else RateLimitedLog(say)
        if self._warnings is not None:
            self._warnings.open()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_note)
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-writer", daemon=True)
        self._thread.start()
        self._queued: deque[Future[None]] = deque()
        self._stack = AsyncExitStack()
        try:
            self._run(self._open(settings))
        except BaseException:
            self._end()
            raise

    @property
    def topology(self) -> Topology:
        """The log's topics and partitions."""
        return self._topology

    def append(self, topic: int, partition: int, block: RecordBlock) -> None:
        """Send records of one partition, in order. They are written when `flush` has returned. Raises LogError."""
        name = self._topology.topics[topic]
        for batch in encode_batches(block, 0, bytes_max=self._batch_bytes_max):
            count = batch.next_offset - batch.base_offset
            # The encoder reuses its buffer, so a copy is queued.
            self._queue(self._producer.append_encoded(name, partition, bytearray(batch.data), count))

    def log_time_max(self, partition: int) -> int:
        """Return the largest log time (ms) in a lane when this writer was opened; -1 where it was empty.

        It is also -1 where brokers assign the log times.
        """
        return self._log_times[partition]

    def flush(self) -> None:
        """Wait until everything appended is acknowledged by all in-sync replicas. Raises LogError."""
        while self._queued:
            self._queued.popleft().result()
        self._run(self._producer.flush())

    def records_written(self) -> int:
        """Return how many records were acknowledged."""
        return sum(self._producer.records_written.values())

    def close(self) -> None:
        """Flush and disconnect. Raises LogError."""
        try:
            self.flush()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop.is_closed():
            return
        if error is None:
            try:
                self.flush()
            except BaseException as failed:
                self.__exit__(type(failed), failed, failed.__traceback__)
                raise
        for waiting in self._queued:
            waiting.cancel()
        try:
            self._run(self._leave(kind, error, trace))
        finally:
            self._end()

    async def _open(self, settings: Settings) -> None:
        options = kafka_options(settings)
        checked = await require_fit_topics(settings, Role.PRODUCER)
        events = checked.topics[: len(settings.topics)]
        self._topology = topology(events)
        self._batch_bytes_max = min(BATCH_BYTES_MAX, checked.batch_bytes_max or BATCH_BYTES_MAX)
        self._log_times = [NO_TIME] * self._topology.partitions
        if settings.log_time == "record":
            async with connected(options) as client:
                self._log_times = await largest_log_times(client, events)
        self._producer: BatchProducer = await self._stack.enter_async_context(batch_producer(options))

    async def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The stack passes the error to its contexts, which raise it again, but the caller has it already.
        try:
            await self._stack.__aexit__(kind, error, trace)
        except BaseException as raised:
            if raised is not error:
                raise

    def _queue(self, sending: Coroutine[Any, Any, None]) -> None:
        self._queued.append(asyncio.run_coroutine_threadsafe(sending, self._loop))
        while len(self._queued) > QUEUED_BATCHES_MAX or (self._queued and self._queued[0].done()):
            self._queued.popleft().result()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end(self) -> None:
        """End the loop and its thread; tasks that still run are cancelled."""

        async def cancel_rest() -> None:
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self._run(cancel_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._warnings is not None:
            self._warnings.close()


def _note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Silence aiokafka's futures that are never awaited: the writer raises the same errors."""
    _log.debug("%s: %r", context.get("message"), context.get("exception"))
