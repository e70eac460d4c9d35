"""Writing encoded record batches to Kafka: idempotent, acknowledged by all in-sync replicas, in order.

aiokafka's producer handles the connections, the leaders, the retries and the sequence numbers. It accepts batches that
are already encoded because it uses a builder only through the methods of `_Encoded`.
"""

import asyncio
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaProducer, errors
from aiokafka.producer.message_accumulator import BatchBuilder

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka_admin.failures import KAFKA_ERRORS, explain

IN_FLIGHT_BYTES_MAX = 32 * 1024 * 1024
"""The most bytes that may await acknowledgement; `append_encoded` waits while there are more."""
SILENCE_SECONDS_MAX = 120
"""An idempotent producer retries forever. When nothing is acknowledged for this long, writing ends with an error."""
POLL_SECONDS = 1.0
ABANDON_SECONDS_MAX = 5
"""How long an abandoned producer waits for answers to what it sent."""

_BASE_OFFSET = struct.Struct(">q")
_PRODUCER = struct.Struct(">qhi")  # producer id, epoch, base sequence
_PRODUCER_AT = 43
_CRC = struct.Struct(">I")
_CRC_AT, _ATTRIBUTES_AT = 17, 21
_APPEND_TIME = 1  # RecordMetadata.timestamp_type


class _Encoded(BatchBuilder):  # type: ignore[misc] # aiokafka is untyped
    """A batch that is already encoded, in its own buffer. It is complete, so it is closed from the start."""

    def __init__(self, data: bytearray, count: int) -> None:  # not super's, which would create an encoder
        self._data = data
        self._count = count
        _BASE_OFFSET.pack_into(data, 0, 0)  # the broker assigns offsets

    def append(self, **_: object) -> None:
        """Accept no more records."""

    def close(self) -> None:
        """Do nothing: it is closed."""

    def closed(self) -> bool:
        """Return True: it is complete, so it does not linger."""
        return True

    def size(self) -> int:
        """Return its bytes."""
        return len(self._data)

    def record_count(self) -> int:
        """Return how many records it has, and so how many sequence numbers it takes."""
        return self._count

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        _PRODUCER.pack_into(self._data, _PRODUCER_AT, producer_id, producer_epoch, base_sequence)
        crc = google_crc32c.value(np.frombuffer(self._data, np.uint8)[_ATTRIBUTES_AT:])
        _CRC.pack_into(self._data, _CRC_AT, crc)

    def _build(self) -> bytearray:
        return self._data


class BatchProducer:
    """Appends encoded batches to topics' partitions. Created by `batch_producer`; used from one event loop."""

    def __init__(self, producer: AIOKafkaProducer, options: Mapping[str, Any]) -> None:
        self._producer = producer
        self._options = options
        self._order: dict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_flight_bytes = 0
        self._acknowledged = asyncio.Event()
        self._failure: BaseException | None = None
        self.records_written: dict[str, int] = defaultdict(int)
        """Topic -> number of acknowledged records."""
        self.on_written: Callable[[str, int, int, int], None] = lambda *_: None
        """Called for each batch, in order within a partition: topic, partition, records, the broker's append time (ms;
        -1 where the topic keeps the records' own, or a batch that was resent had arrived the first time)."""

    async def append_encoded(
        self, topic: str, partition: int, batch: bytes | bytearray | npt.NDArray[np.uint8], count: int
    ) -> None:
        """Send a v2 batch (61 bytes of header, then `count` records, offset deltas 0 to count - 1, create times).

        The batch is copied, unless it is a bytearray: the producer owns that from then on. Batches of one partition keep
        the order of the calls, even where calls overlap. Returns when the batch is queued; it is written when `flush` has
        returned. Raises LogError when any batch failed: apart from `records_written`, it is then unknown which of those
        since the last flush are written.
        """
        encoded = _Encoded(batch if isinstance(batch, bytearray) else bytearray(batch), count)
        async with self._order[topic, partition]:
            await self._until(IN_FLIGHT_BYTES_MAX)
            self._in_flight_bytes += encoded.size()
            try:
                delivered = await self._producer.send_batch(encoded, topic, partition=partition)
            except KAFKA_ERRORS as error:
                self._failure = self._failure or error
                raise await self._explained(error) from error
        delivered.add_done_callback(lambda future: self._done(future, topic, partition, encoded))

    async def flush(self) -> None:
        """Wait until everything appended is acknowledged. Raises LogError."""
        await self._until(0)

    async def _until(self, bytes_max: int) -> None:
        """Wait until at most `bytes_max` bytes await acknowledgement."""
        silent_seconds = 0.0
        while self._in_flight_bytes > bytes_max and self._failure is None:
            self._acknowledged.clear()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._acknowledged.wait()
                silent_seconds = 0.0
            except TimeoutError:
                silent_seconds += POLL_SECONDS
                if silent_seconds >= SILENCE_SECONDS_MAX:
                    self._failure = errors.KafkaTimeoutError(
                        f"nothing was acknowledged for {SILENCE_SECONDS_MAX} s"
                    )
        if self._failure is not None:
            raise await self._explained(self._failure) from self._failure

    def _done(self, future: "asyncio.Future[Any]", topic: str, partition: int, batch: _Encoded) -> None:
        self._in_flight_bytes -= batch.size()
        self._acknowledged.set()
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            self._failure = self._failure or error
        else:
            self.records_written[topic] += batch.record_count()
            appended = future.result()
            log_time = appended.timestamp if appended.timestamp_type == _APPEND_TIME else -1
            self.on_written(topic, partition, batch.record_count(), log_time)

    async def _explained(self, error: BaseException) -> LogError:
        if isinstance(error, errors.MessageSizeTooLargeError):
            return LogError(
                "Kafka refuses a record batch that is larger than the topic's max.message.bytes",
                remedy="adledger topics check: it prints the command that raises the limit",
            )
        return await explain(error, self._options)


@asynccontextmanager
async def batch_producer(options: Mapping[str, Any]) -> AsyncIterator[BatchProducer]:
    """Yield a producer of encoded batches; `options` are those of `client_options`.

    Leaving the block flushes; leaving it by an exception abandons what was not sent. Raises LogError.
    """
    producer = AIOKafkaProducer(**options, enable_idempotence=True, acks="all")
    try:
        try:
            await producer.start()
        except KAFKA_ERRORS as error:
            raise await explain(error, options) from error
        batches = BatchProducer(producer, options)
        yield batches
        await batches.flush()
        await producer.stop()
    except BaseException:
        await _abandon(producer)
        raise


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End a producer that may have undeliverable batches: its own `stop` would wait for them forever."""
    producer._closed = True  # noqa: SLF001
    with suppress(*KAFKA_ERRORS):
        async with asyncio.timeout(ABANDON_SECONDS_MAX):
            await producer._sender.close()  # noqa: SLF001
    await producer.client.close()
