"""A producer can neither stop nor falsify a lane: crafted batches on a real broker, read by the real worker."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cramjam
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.pipeline.ledger.audit import AuditReport, Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.log.kafka.codecs import GZIP, LZ4, SNAPPY, ZSTD
from adledger.schemas.wire import BATCH_RECORDS_MAX, Malformed
from tests.support.crafted import one_byte_blocks_of, record, send_raw, snappy_bomb, with_deltas, wrapped
from tests.support.kafka_deployment import Deployment
from tests.support.wire_texts import IMPRESSION

LANE, PARTITIONS = 0, 2
REFUSED_BY_SOME = {"snappy declares 12 GiB"}
"""What newer brokers find out themselves."""
TIME = 1_767_225_600_000


def value(number: int) -> bytes:
    """Return an honest event."""
    return json.dumps(IMPRESSION | {"event_id": f"honest-{number}", "event_time": TIME}).encode()


@dataclass(frozen=True, slots=True)
class Attack:
    """A batch as no client writes it: its declared contents, and the events and malformed records that it must count as."""

    name: str
    batch: bytes
    records: int
    events: int = 0
    malformed: int = 0


def compressed(codec: int, *records: bytes) -> bytes:
    """Return a batch of these records as the broker accepts it: its records are whole."""
    compress = {ZSTD: cramjam.zstd.compress, GZIP: cramjam.gzip.compress, LZ4: one_byte_blocks_of}[codec]
    return wrapped(bytes(compress(b"".join(records))), len(records), codec, base_time=TIME, max_time=TIME)


def attacks() -> list[Attack]:
    many = BATCH_RECORDS_MAX + 1
    padded = value(9_000).replace(b"{", b"{" + b" " * 9_000)
    lie = snappy_bomb(12, bytes(cramjam.snappy.compress_raw(record(0, b"u", b"{}"))))
    return [
        Attack(
            "offsets beyond the header's last",
            with_deltas([0, 5], 1, [value(9_001), value(9_002)], TIME),
            2,
            0,
            2,
        ),
        Attack("equal offsets", with_deltas([0, 0], 1, [value(9_003), value(9_004)], TIME), 2, 0, 2),
        Attack("falling offsets", with_deltas([1, 0], 1, [value(9_005), value(9_006)], TIME), 2, 0, 2),
        Attack("lz4 blocks of one byte", compressed(LZ4, record(0, b"u-14", padded)), 1, 1, 0),
        Attack("zstd of 300 MiB", compressed(ZSTD, record(0, b"u", bytes(300 << 20))), 1, 0, 1),
        Attack("gzip of 100 MiB", compressed(GZIP, record(0, b"u", bytes(100 << 20))), 1, 0, 1),
        Attack(
            "too many records", compressed(ZSTD, *(record(i, None, None) for i in range(many))), many, 0, many
        ),
        Attack("snappy declares 12 GiB", wrapped(lie, 1, SNAPPY, base_time=TIME, max_time=TIME), 1, 0, 1),
    ]


async def send(made: Deployment, batches: Sequence[Attack], numbers: Iterator[int]) -> list[Attack]:
    """Send each batch after an honest event; return those that the broker accepted."""
    producer = AIOKafkaProducer(bootstrap_servers=made.settings.source.servers)
    await producer.start()
    topic = made.settings.topics[0]
    taken = []
    try:
        for attack in batches:
            await producer.send_and_wait(
                topic, value(next(numbers)), b"u-14", partition=LANE, timestamp_ms=TIME
            )
            try:
                await send_raw(producer, topic, LANE, attack.batch, attack.records)
            except KafkaError as error:
                print(f"refused: {attack.name}: {error!r}")  # noqa: T201
            else:
                taken.append(attack)
    finally:
        await producer.stop()
    return taken


def audited(made: Deployment) -> AuditReport:
    with made.client() as client:
        return audit(client, TableNames(made.settings.database), Scope(), recount=True)


def dead(made: Deployment) -> list[tuple[int, int]]:
    """Return (reason, records) of each dead letter."""
    with made.client() as client:
        return client.execute(
            f"SELECT reason_code, records FROM {made.settings.database}.dead_letters ORDER BY offset"
        )


def test_crafted_batches_are_dead_letters(
    kafka: LocalBroker, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """Each batch that can't be decoded is one dead letter for the offsets that it covers, and everything adds up.

    Honest events around it are events; a worker that starts after such a batch, as the ledger's last, goes on.
    """
    made = Deployment.make(kafka.servers, clickhouse_server, tmp_path, partitions=PARTITIONS)
    numbers, all_of = count(), attacks()
    taken: list[Attack] = []
    honest = 0
    for name, some in (("first", all_of), ("second", all_of[:1]), ("third", all_of[1:2])):
        taken += asyncio.run(send(made, some, numbers))
        honest += len(some)
        made.run_to_the_end(name)
        report = audited(made)
        assert (report.conserved, report.continuous, report.problems) == (True, True, [])
        letters = dead(made)
        assert {reason for reason, _ in letters} == {Malformed.UNDECODABLE_BATCH}
        assert sorted(n for _, n in letters) == sorted(a.malformed for a in taken if a.malformed)
        events = honest + sum(a.events for a in taken)
        assert report.totals.records_received == events + sum(a.malformed for a in taken)
    assert {a.name for a in all_of} - {a.name for a in taken} <= REFUSED_BY_SOME
