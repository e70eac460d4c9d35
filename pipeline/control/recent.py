"""Faust's Kafka transport for an app whose every process reads all of a topic, from some minutes ago.

Nothing is ever committed: the group belongs to this process and leaves no trace in the broker. Where Faust would
seek to the committed offsets, this seeks to the first of the recent minutes. Written against faust-streaming 0.15.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

from adledger.pipeline.log.kafka_admin.cluster_client import ClusterClient

RECENT_SECONDS = 15 * 60
"""How far back a worker's live pages begin when it starts."""


class RecentThread(AIOKafkaConsumerThread):  # type: ignore[misc] # faust has no types
    """Runs the consumer: with a client that bootstraps again, and stops in order while brokers are away."""

    def _create_worker_consumer(self, transport: "RecentTransport") -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._client = ClusterClient(**self.app.cluster_options)  # noqa: SLF001 - it takes no client
        return consumer

    async def on_thread_stop(self) -> None:
        """Stop the consumer."""
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # aiokafka's Fetcher cancelled a request that waited to be tried again, and awaited it unprotected.
            await self._consumer._client.close()  # noqa: SLF001 - what is left to close


class RecentConsumer(Consumer):  # type: ignore[misc] # faust has no types
    """Begins, at each assignment, at the first record of the last `RECENT_SECONDS`."""

    def _new_consumer_thread(self) -> RecentThread:
        return RecentThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Seek, and return topic partition -> offset."""
        thread = self._thread
        consumer = thread._ensure_consumer()  # noqa: SLF001 - Faust's driver offers no other way
        partitions = list(self.assignment())
        since_ms = int((time.time() - RECENT_SECONDS) * 1000)
        found = await thread.call_thread(consumer.offsets_for_times, dict.fromkeys(partitions, since_ms))
        ends = await thread.call_thread(consumer.end_offsets, partitions)
        positions = {tp: found[tp].offset if found[tp] is not None else ends[tp] for tp in partitions}
        await thread.seek_wait(positions)
        return positions


class RecentTransport(Transport):  # type: ignore[misc] # faust has no types
    """Faust's transport with that consumer."""

    Consumer = RecentConsumer
