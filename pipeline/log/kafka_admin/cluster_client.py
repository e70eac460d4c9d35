"""A client that bootstraps again when no broker that it knows answers.

aiokafka requests metadata only from the brokers that it knows. Metadata lists the brokers that were up at the time, so
during a rolling restart a client may know only one; when that one dies, aiokafka would keep asking it forever although
the others are back. This client then goes back to the configured servers.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.cluster import ClusterMetadata

from adledger.pipeline.log.kafka_admin.failures import KAFKA_ERRORS

BOOTSTRAP_AFTER_SECONDS = 3.0
"""How long no known broker may answer: a moving leader takes less, and the metadata names the new one."""

AGAIN_AFTER_SECONDS = 1.0
"""When metadata is requested again that no broker gave. aiokafka would wait until it is old, and a worker whose brokers
answer everything else would count as cut off for minutes.
"""


class ClusterClient(AIOKafkaClient):  # type: ignore[misc] # aiokafka has no types
    """An AIOKafkaClient that bootstraps again. Takes the same options; `clock` is in seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:
        super().__init__(**options)
        self._options, self._clock = options, clock
        self._silent_since: float | None = None
        self._again: asyncio.TimerHandle | None = None

    @property
    def silent_seconds(self) -> float:
        """For how long no broker has answered; 0 while one does."""
        return 0.0 if self._silent_since is None else self._clock() - self._silent_since

    async def _metadata_update(self, cluster_metadata: ClusterMetadata, topics: Collection[str]) -> bool:
        """Aiokafka's hook for every request for metadata, by timer or by force."""
        began = self._clock()
        if await super()._metadata_update(cluster_metadata, topics):
            self._silent_since = None
            return True
        if self._silent_since is None:
            self._silent_since = began
        if self.silent_seconds >= BOOTSTRAP_AFTER_SECONDS and await self._ask_servers(
            cluster_metadata, topics
        ):
            self._silent_since = None
            return True
        if self._again is None:
            self._again = asyncio.get_running_loop().call_later(AGAIN_AFTER_SECONDS, self._request_again)
        return False

    def _request_again(self) -> None:
        self._again = None
        self.force_metadata_update()

    async def close(self) -> None:
        """Close all connections."""
        if self._again is not None:
            self._again.cancel()
        await super().close()

    async def _ask_servers(self, cluster_metadata: ClusterMetadata, topics: Collection[str]) -> bool:
        """Request the metadata from the configured servers. Returns whether one answered."""
        first = AIOKafkaClient(**self._options)
        try:
            await first.bootstrap()
            return bool(await first._metadata_update(cluster_metadata, topics))  # noqa: SLF001
        except KAFKA_ERRORS:
            return False
        finally:
            await first.close()
