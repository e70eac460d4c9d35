"""A batch in doubt that an older release began, whose decoder refused more: it is settled once, and every table agrees."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.lanes import compute, doubt, intent
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.delivery import Delivery
from adledger.pipeline.ledger.check import StoredEntry, check_entry
from adledger.pipeline.log.files import FilesLogWriter, Manifest
from adledger.pipeline.log.record_block import RecordBlock
from adledger.pipeline.records.columns import Decoded, RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, bytes_at, decode
from adledger.pipeline.stages.digest import digest
from adledger.schemas.classes import Class
from adledger.schemas.digests import CURRENT, FIRST
from adledger.schemas.wire import Malformed
from adledger.sinks.ledger import ledger_entry
from tests.integration.test_doubt import (
    CRASH_AFTER,
    CRASH_BEFORE,
    CRASH_ON_THE_WIRE,
    LIMITS,
    TABLES,
    FateOf,
    Runs,
)
from tests.support.wire_texts import IMPRESSION, LOG_TIME

pytestmark = pytest.mark.usefixtures("without_pauses")

BATCH_ROWS = 4
REFUSED_BEFORE = {
    b'"country": "de"': Malformed.OUT_OF_RANGE,
    b"null": Malformed.WRONG_TYPE,
    b"\\ud800": Malformed.NOT_JSON,
}
"""What a record that this release accepts, or has another reason to refuse, was to the release before."""


def record(number: int, **changed: object) -> bytes:
    return json.dumps(IMPRESSION | {"event_id": f"e-{number}"} | changed).encode()


BATCHES = [
    [record(1), record(2), record(3), record(4)],
    [record(5, country="de"), record(6, width=None), record(7, x="\ud800"), record(8, country="de")],
    [record(9), record(10, country="de"), b"no JSON", record(11, page_url="\ud800")],
    [b"{", record(12, page_url="\ud800"), record(13, ip=None), b"[]"],
    [record(14), record(15), record(16, width=None), record(17)],
]
"""All good; good now, and all refused before; of every kind; refused by both, one for another reason; mostly good."""
REFUSED_BY_BOTH = 6


class OneByOne(Runs):
    """Workers whose batches are those above."""

    limits = replace(LIMITS, batch=BatchLimits(BATCH_ROWS, 1 << 24, 10))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases") / "log"
    with FilesLogWriter.create(folder, Manifest.new(1)) as writer:
        for batch in BATCHES:
            writer.append(0, 0, RecordBlock.of([(LOG_TIME, b"u-14", value) for value in batch]))
    return folder


def decode_as_before(refs: RecordRefs, context: DecodeContext) -> Decoded:
    """Decode, and refuse what the release before refused."""
    decoded = decode(refs, context)
    for row in range(len(refs)):
        value = bytes_at(int(refs.value_addr[row]), int(refs.value_len[row])) or b""
        for mark, reason in REFUSED_BEFORE.items():
            if mark in value:
                decoded.status[row] = reason
    return decoded


@contextmanager
def older_release() -> Iterator[None]:
    """Workers are of the release before: its decoder, and its version of intents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "decode", decode_as_before)
        patch.setattr(doubt, "decode", decode_as_before)
        patch.setattr(intent, "VERSION", 1)
        patch.setattr(intent, "READABLE_VERSIONS", (1,))
        yield


def assert_tables_agree(runs: Runs) -> None:
    """Every record is in one table once, and each ledger row has the counts and digests of its batch's rows."""
    entries = [
        ledger_entry({name: values[0] for name, values in block.items()})
        for _, block in runs.sink.tables["ledger"]
    ]
    assert [entry.batch_no for entry in entries] == list(range(1, len(BATCHES) + 1))
    offsets = [
        int(o)
        for t in ("events", "dead_letters")
        for _, block in runs.sink.tables[t]
        for o in block["offset"]
    ]
    assert sorted(offsets) == list(range(BATCH_ROWS * len(BATCHES)))
    for entry in entries:
        of_batch = {
            table: [block for stamp, block in runs.sink.tables[table] if stamp.batch_no == entry.batch_no]
            for table in ("events", "dead_letters")
        }
        for table, stored in (("events", entry.events_digest), ("dead_letters", entry.dead_letters_digest)):
            found = sum(digest(table, block, entry.digest_definition) for block in of_batch[table])
            assert found % 2**64 == stored, (entry.batch_no, table)
        malformed = sum(len(block["offset"]) for block in of_batch["dead_letters"])
        assert entry.counts.get(int(Class.MALFORMED), 0) == malformed
        assert entry.records_received == BATCH_ROWS
        checksum = next(b["seal"][0] for s, b in runs.sink.tables["ledger"] if s.batch_no == entry.batch_no)
        assert not list(check_entry(StoredEntry(entry, int(checksum))))


def reasons(runs: Runs, batch_no: int) -> list[Malformed]:
    blocks = [block for stamp, block in runs.sink.tables["dead_letters"] if stamp.batch_no == batch_no]
    return [Malformed(code) for block in blocks for code in block["reason_code"][np.argsort(block["offset"])]]


@pytest.mark.parametrize("fate", [CRASH_BEFORE, CRASH_AFTER, CRASH_ON_THE_WIRE])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("batch_no", range(1, len(BATCHES) + 1))
def test_a_newer_release_settles_what_an_older_one_began(
    batch_no: int, table: str, fate: str, log: Path
) -> None:
    """Wherever the older release dies: rows that it stored stand, reasons included; the rest is this release's."""
    runs = OneByOne(log)
    runs.sink.faults = faults = FateOf(table, batch_no, fate, runs.sink)
    with older_release():
        caught_up = asyncio.run(runs.of_one_worker())
    assert caught_up == ((table, fate) not in faults.met), (
        "it dies unless the batch has no rows for the table"
    )
    asyncio.run(runs.to_the_end())
    assert_tables_agree(runs)


def test_a_batch_of_dead_letters_alone_stands(log: Path) -> None:
    """The older release found no event in batch 2 and stored its dead letters: they are not billed after that."""
    runs = OneByOne(log)
    runs.sink.faults = FateOf("dead_letters", 2, CRASH_AFTER, runs.sink)
    with older_release():
        asyncio.run(runs.of_one_worker())
    asyncio.run(runs.to_the_end())
    assert reasons(runs, 2) == [
        Malformed.OUT_OF_RANGE, Malformed.WRONG_TYPE, Malformed.NOT_JSON, Malformed.OUT_OF_RANGE,
    ]  # fmt: skip
    assert_tables_agree(runs)


def test_a_batch_without_rows_is_decoded_by_the_newer_release(log: Path) -> None:
    """What the older release only intended, this one evaluates: batch 2 is four events."""
    runs = OneByOne(log)
    runs.sink.faults = FateOf("dead_letters", 2, CRASH_BEFORE, runs.sink)
    with older_release():
        asyncio.run(runs.of_one_worker())
    asyncio.run(runs.to_the_end())
    assert reasons(runs, 2) == []
    assert sum(len(block["offset"]) for _, block in runs.sink.tables["dead_letters"]) == REFUSED_BY_BOTH
    assert_tables_agree(runs)


def test_events_that_are_stored_decide_what_is_a_dead_letter(log: Path) -> None:
    """The older release stored batch 3's one event: what this one would accept of the rest was rejected earlier."""
    runs = OneByOne(log)
    runs.sink.faults = FateOf("events", 3, CRASH_AFTER, runs.sink)
    with older_release():
        asyncio.run(runs.of_one_worker())
    asyncio.run(runs.to_the_end())
    assert reasons(runs, 3) == [Malformed.REJECTED_EARLIER, Malformed.NOT_JSON, Malformed.OUT_OF_RANGE]
    assert_tables_agree(runs)


@pytest.mark.parametrize("table", TABLES)
def test_an_older_release_refuses_what_a_newer_one_began(table: str, log: Path) -> None:
    """It would give other reasons to dead letters that are there: the lane halts until a newer release has it."""
    runs = OneByOne(log)
    runs.sink.faults = FateOf(table, 3, CRASH_AFTER, runs.sink)
    asyncio.run(runs.of_one_worker())
    with older_release(), pytest.raises(LaneHalted, match="version 3, this release knows up to 1") as halted:
        asyncio.run(runs.of_one_worker())
    assert "run the release that committed it, or a newer one" in halted.value.remedy
    asyncio.run(runs.to_the_end())
    assert_tables_agree(runs)


def test_events_that_vanished_halt_the_lane(log: Path) -> None:
    """Dead letters are written after events: where only they are there, and events were intended, rows are gone."""
    runs = OneByOne(log)
    runs.sink.faults = FateOf("dead_letters", 3, CRASH_AFTER, runs.sink)
    asyncio.run(runs.of_one_worker())
    runs.sink.tables["events"] = [row for row in runs.sink.tables["events"] if row[0].batch_no != 3]
    with pytest.raises(LaneHalted, match="events has 0 rows of the current batch, 2 were intended"):
        asyncio.run(runs.to_the_end())


LATE_BATCH = 2
LATE = LOG_TIME - 40 * 60_000
"""The time of an event that came after its period had closed, and is not too late to be billed."""


@pytest.fixture(scope="module")
def log_with_late_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each batch has two events in time and two that are late."""
    folder = tmp_path_factory.mktemp("late") / "log"
    with FilesLogWriter.create(folder, Manifest.new(1)) as writer:
        for batch in range(len(BATCHES)):
            times = [LOG_TIME, LATE, LOG_TIME, LATE]
            values = [record(10 * batch + n, event_time=time) for n, time in enumerate(times)]
            writer.append(0, 0, RecordBlock.of([(LOG_TIME, b"u-14", value) for value in values]))
    return folder


@contextmanager
def release_without_marks() -> Iterator[None]:
    """Workers are of the release before AFTER_CLOSE: events are not marked, ledger rows name no definition."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "mark_after_close", lambda *_: None)
        patch.setattr(Delivery.derive, "__defaults__", (FIRST,))
        patch.setattr(intent, "VERSION", 2)
        yield


def books(runs: Runs) -> dict[int, tuple[int, list[tuple[int, int]]]]:
    """Return batch number -> the definition of its ledger row, and (after_close, records) of its rollup rows."""
    found = {}
    for stamp, block in runs.sink.tables["ledger"]:
        rollups = [b for s, b in runs.sink.tables["rollup_minute"] if s.batch_no == stamp.batch_no]
        sums = [
            (int(late), int(n))
            for b in rollups
            for late, n in zip(b["after_close"], b["records"], strict=True)
        ]
        found[stamp.batch_no] = int(block["digest_definition"][0]), sorted(sums)
    return found


@pytest.mark.parametrize(
    ("table", "fate", "expected"),
    [
        ("events", CRASH_BEFORE, (CURRENT, [(0, 2), (1, 2)])),
        ("events", CRASH_AFTER, (FIRST, [(0, 2), (0, 2)])),
        ("rollup_minute", CRASH_BEFORE, (FIRST, [(0, 2), (0, 2)])),
        ("rollup_minute", CRASH_AFTER, (FIRST, [(0, 2), (0, 2)])),
        ("ledger", CRASH_BEFORE, (FIRST, [(0, 2), (0, 2)])),
        ("ledger", CRASH_AFTER, (FIRST, [(0, 2), (0, 2)])),
    ],
)
def test_events_that_an_older_release_did_not_mark_are_told_apart(
    table: str, fate: str, expected: tuple[int, list[tuple[int, int]]], log_with_late_events: Path
) -> None:
    """Stored rows without marks stay so in every table, under definition 1; a batch without rows is marked as a new one."""
    runs = OneByOne(log_with_late_events)
    runs.sink.faults = FateOf(table, LATE_BATCH, fate, runs.sink)
    with release_without_marks():
        asyncio.run(runs.of_one_worker())
    asyncio.run(runs.to_the_end())
    found = books(runs)
    assert found[1] == (FIRST, [(0, 2), (0, 2)])
    assert found[LATE_BATCH] == expected
    assert all(found[number] == (CURRENT, [(0, 2), (1, 2)]) for number in range(3, len(BATCHES) + 1))
    assert_tables_agree(runs)


@pytest.mark.parametrize("table", ["events", "rollup_minute", "ledger"])
@pytest.mark.parametrize("fate", [CRASH_BEFORE, CRASH_AFTER, CRASH_ON_THE_WIRE])
def test_marks_survive_doubt(table: str, fate: str, log_with_late_events: Path) -> None:
    """Wherever a worker dies, each batch has its late events in rollup rows of their own."""
    runs = OneByOne(log_with_late_events)
    runs.sink.faults = FateOf(table, LATE_BATCH, fate, runs.sink)
    asyncio.run(runs.of_one_worker())
    asyncio.run(runs.to_the_end())
    assert set(map(str, books(runs).values())) == {str((CURRENT, [(0, 2), (1, 2)]))}
    assert_tables_agree(runs)
