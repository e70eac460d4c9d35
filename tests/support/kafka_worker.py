"""A worker in the test's own process, whose source the test can look into and hold up."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from adledger import __version__
from adledger.pipeline.lanes.start import lines_to, make_sink, make_worker
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.pipeline.records.encoded import Fetched
from adledger.schemas.migrate import migrate
from tests.support.kafka_deployment import Deployment

POLL_SECONDS = 0.02


class GatedSource(KafkaSource):
    """A source whose fetches wait while `gate` is closed; a lane that fetches is neither ended nor started again."""

    gate: asyncio.Event
    fetching = 0

    async def fetch(
        self, lane: int, positions: Mapping[int, int], bytes_max: int, wait_ms_max: int
    ) -> Sequence[Fetched]:
        """Wait for the gate, then fetch."""
        await self.gate.wait()
        self.fetching += 1
        try:
            return await super().fetch(lane, positions, bytes_max, wait_ms_max)
        finally:
            self.fetching -= 1

    async def hold(self) -> None:
        """Close the gate, and return when no fetch is under way: its retries would meet what is done next."""
        self.gate.clear()
        while self.fetching:  # noqa: ASYNC110 - a fetch ends within its wait
            await asyncio.sleep(POLL_SECONDS)

    @property
    def known_brokers(self) -> set[int]:
        """The brokers that the worker would ask, as far as it has connected."""
        return set() if self._joined is None else {b.nodeId for b in self._joined.client.cluster.brokers()}


@dataclass(slots=True)
class WorkerHere:
    """A worker that runs, and its lines."""

    source: GatedSource
    lines: list[str] = field(default_factory=list)

    def reported(self, text: str) -> bool:
        """Whether a line has this text."""
        return any(text in line for line in self.lines)


@asynccontextmanager
async def worker_here(made: Deployment) -> AsyncIterator[WorkerHere]:
    """Run a worker of a deployment until the block ends; its gate is open."""
    with made.client() as client:
        migrate(client, database=made.settings.database, release=__version__)
    lines: list[str] = []
    source = GatedSource.of(made.settings, lines.append)
    source.gate = asyncio.Event()
    source.gate.set()
    sink = make_sink(made.settings, made.server)
    worker = make_worker(made.settings, source, sink, until_caught_up=False, emit=lines_to(lines.append))
    running = asyncio.create_task(worker.run())
    try:
        yield WorkerHere(source, lines)
    finally:
        worker.stop()
        source.gate.set()
        await asyncio.gather(running, return_exceptions=True)
        await sink.close()
