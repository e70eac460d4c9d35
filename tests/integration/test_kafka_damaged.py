"""A real broker whose log is damaged: a lane tries, halts with its reason, and goes on by the command that it printed.

No fault of a broker or its disk makes a dead letter. A clean stop comes before the damage, since a broker that was killed
checks its log, and cuts it off where it is damaged.
"""

import asyncio
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adledger import __version__
from adledger.loadtest.lab.broker import LocalBroker
from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.halts import HaltReason
from adledger.pipeline.lanes.emit import Event
from adledger.pipeline.lanes.events import Halted, RestartScheduled
from adledger.pipeline.lanes.faults import FAULT_TRIES_MAX
from adledger.pipeline.lanes.start import make_sink, make_worker
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.schemas.classes import Class
from adledger.schemas.migrate import migrate
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.integration.test_lane_overrides import MODEL, checked, lane, lane_statuses, later
from tests.support.brokers import running_broker
from tests.support.kafka_deployment import Deployment
from tests.support.kafka_traffic import write_traffic_to_kafka
from tests.support.way_out import printed_command, shows_the_way_out

THREE_LANES = replace(MODEL, partitions=3)


def wrong_checksum(batch: bytearray) -> None:
    """Change a record; brokers send batches as they are on disk."""
    batch[-1] ^= 1


def too_short(batch: bytearray) -> None:
    """Say that it is shorter than any batch: the broker answers CORRUPT_MESSAGE."""
    struct.pack_into(">i", batch, 8, 5)


def too_long(batch: bytearray) -> None:
    """Say that it is longer than the file: the broker answers without an error, and without records."""
    struct.pack_into(">i", batch, 8, 2**30)


DAMAGES: tuple[tuple[Callable[[bytearray], None], str], ...] = (
    (wrong_checksum, "its checksum does not match"),
    (too_short, "CorruptRecordException"),
    (too_long, "returns no record batch that reaches offset"),
)
"""By lane: what is done to a batch, and what the lane says."""


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    with running_broker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One ClickHouse for all tests here: each has a database of its own."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


def damage(broker: LocalBroker, partition: str, offset: int, how: Callable[[bytearray], None]) -> int:
    """Damage the batch that begins at an offset, on a stopped broker's disk; return the offset after it."""
    [segment] = broker.directory.glob(f"data/**/{partition}/*.log")
    data, at = bytearray(segment.read_bytes()), 0
    while int.from_bytes(data[at : at + 8], "big") < offset:
        at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
    after = at + 12 + int.from_bytes(data[at + 8 : at + 12], "big")
    end = int.from_bytes(data[at : at + 8], "big") + int.from_bytes(data[at + 23 : at + 27], "big") + 1
    batch = data[at:after]
    how(batch)
    data[at:after] = batch
    segment.write_bytes(data)
    return end


def run(made: Deployment) -> list[Event]:
    """Run a worker here until it has caught up, or each lane has halted; return its events."""
    events: list[Event] = []

    async def to_the_end() -> None:
        sink = make_sink(made.settings, made.server)
        source = KafkaSource.of(made.settings, lambda _: None)
        worker = make_worker(made.settings, source, sink, until_caught_up=True, emit=events.append)
        try:
            assert await worker.run()
        except LaneHalted:
            pass
        finally:
            await sink.close()

    asyncio.run(to_the_end())
    return events


def dead_letters(made: Deployment, number: int, offsets: list[int]) -> int:
    """Return how many dead letters a lane has of impressions of these offsets."""
    where = {"lane": number, "first": offsets[0], "end": offsets[1]}
    with made.client() as client:
        [(found,)] = client.execute(
            f"SELECT count() FROM {made.settings.database}.dead_letters "
            "WHERE lane = %(lane)s AND topic = 0 AND offset >= %(first)s AND offset < %(end)s", where,
        )  # fmt: skip
    return int(found)


@shows_the_way_out(HaltReason.BATCH_UNREADABLE)
def test_damaged_batches(own_broker: LocalBroker, server: EmbeddedServer, tmp_path: Path):
    """A wrong checksum, CORRUPT_MESSAGE, and a length beyond the file: each lane starts again some times, halts, and names
    the offsets that it would give up. Exactly these are lost, none is a dead letter, and everything after them is billed.
    """
    made = Deployment.make(
        own_broker.servers, server, tmp_path, partitions=3, write_deadline_seconds=1, retry_backoff_ms_max=100
    )
    with made.client() as client:
        migrate(client, database=made.settings.database, release=__version__)
    model, written = THREE_LANES, write_traffic_to_kafka(THREE_LANES, made.settings).records_received
    run(made)
    topic = made.settings.topics[0]
    starts = {look["lane"]: look["positions"][topic] for look in lane_statuses(made)}
    for _ in range(3):
        model = later(model)
        written += write_traffic_to_kafka(model, made.settings).records_received
    ends = {look["lane"]: look["log"][topic]["end"] for look in lane_statuses(made)}
    own_broker.stop()
    after = {n: damage(own_broker, f"{topic}-{n}", starts[n], how) for n, (how, _) in enumerate(DAMAGES)}
    own_broker.start()
    events = run(made)
    halted = {event.lane: event for event in events if isinstance(event, Halted)}
    lost = 0
    for n, (_, message) in enumerate(DAMAGES):
        restarts = [event for event in events if isinstance(event, RestartScheduled) and event.lane == n]
        assert len(restarts) == FAULT_TRIES_MAX - 1
        assert halted[n].halt_reason is HaltReason.BATCH_UNREADABLE
        assert message in halted[n].reason
        command = printed_command(
            LaneHalted(halted[n].reason, reason=HaltReason.BATCH_UNREADABLE, remedy=halted[n].remedy)
        )
        done = lane(made, *command[1:])
        assert done.exit_code == 0, done.exception
        [override] = json.loads(done.stdout)["overrides"]
        given_up = override["ranges"][topic]
        assert given_up[0] == starts[n]
        assert after[n] <= given_up[1] <= ends[n]
        lost += given_up[1] - given_up[0]
        assert dead_letters(made, n, given_up) == 0
    assert not [event for event in run(made) if isinstance(event, Halted)]
    assert all(look["lag_records"] == 0 for look in lane_statuses(made))
    totals = checked(made).totals
    assert totals.records[Class.LOST] == lost
    assert totals.records_received == written - lost
