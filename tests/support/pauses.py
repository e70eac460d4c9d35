"""How long lanes pause, as their ledger shows it: the longest time between two batches of each lane."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import KafkaError

from tests.support.kafka_deployment import LedgerReader

LEDGER_POLL_SECONDS = 0.05
BROKERS_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Pauses:
    """What a fault cost: the longest gap of each lane, and the seconds from the fault until the brokers went on without one."""

    lanes: Mapping[int, float]
    brokers: float

    def __str__(self) -> str:
        """The line that is printed."""
        lanes = " ".join(f"{seconds:.1f}" for _, seconds in sorted(self.lanes.items()))
        return f"lanes paused {lanes} s; of that the brokers took {self.brokers:.1f} s to go on without it"


def longest_gaps(ledger: LedgerReader, ended: Callable[[float], bool]) -> dict[int, float]:
    """Return lane -> the longest time without a new batch, until `ended` says so of the seconds that passed."""
    batches = ledger.newest()
    began = time.monotonic()
    since = dict.fromkeys(batches, began)
    longest = dict.fromkeys(batches, 0.0)
    while not ended(time.monotonic() - began):
        found, now = ledger.newest(), time.monotonic()
        for lane, batch_no in found.items():
            longest[lane] = max(longest[lane], now - since[lane])
            if batch_no != batches[lane]:
                batches[lane], since[lane] = batch_no, now
        time.sleep(LEDGER_POLL_SECONDS)
    return longest


async def without_broker(servers: Sequence[str], group: str, node: int) -> float:
    """Return how long it takes until `node` leads nothing, is in sync with nothing, and does not coordinate the group."""
    began = time.monotonic()
    client = AIOKafkaClient(bootstrap_servers=list(servers), request_timeout_ms=2_000)
    await client.bootstrap()
    try:
        while True:
            try:
                found = await client.fetch_all_metadata()
                partitions = [p for topic in found._partitions.values() for p in topic.values()]
                if not any(node == p.leader or node in p.isr for p in partitions) and node != (
                    await client.coordinator_lookup(CoordinationType.GROUP, group)
                ):
                    return time.monotonic() - began
            except KafkaError:
                await client.force_metadata_update()
            await asyncio.sleep(BROKERS_POLL_SECONDS)
    finally:
        await client.close()


def pauses(
    ledger: LedgerReader,
    servers: Sequence[str],
    group: str,
    node: int,
    fault: Callable[[], None],
    seconds: float,
) -> Pauses:
    """Do the fault, and measure until `seconds` after the brokers went on without `node`."""
    with ThreadPoolExecutor(1) as pool:
        fault()
        moved: Future[float] = pool.submit(lambda: asyncio.run(without_broker(servers, group, node)))
        lanes = longest_gaps(ledger, lambda passed: moved.done() and passed >= moved.result() + seconds)
        return Pauses(lanes, moved.result())
