"""A log is identified by its records: one that was truncated and grew again is not taken for the ledger's."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.pipeline.errors import LogRewritten, OffsetOutOfRange, UnreadableBatch
from adledger.pipeline.lanes import log_identity
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.log_identity import as_intended, changed_since, denied_epochs, known_epochs
from adledger.pipeline.lanes.overrides import LanePosition, skip_changed
from adledger.pipeline.log.record_block import RecordBlock, encode_batches
from adledger.pipeline.log.source import OffsetBounds, Topology
from adledger.pipeline.records.batch_format import HEADER_BYTES
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES, EncodedBatch, Fetched
from adledger.pipeline.stages.plain_hashes import xxh64
from adledger.pipeline.stages.walk import walk
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.memory import MemorySink
from adledger.sinks.overrides import OverrideKind
from adledger.sinks.sink import LedgerEntry, OffsetRange, Stamp
from tests.contracts import sink_suite

LANE, NOW, CLOCK = 1, 1_767_225_600, sink_suite.CLOCK
TOPOLOGY = Topology(("ad.impressions", "ad.clicks"), (1, 2), ("idA", "idB"), 4)
BATCHES, ROWS = 4, 5


def value(number: int) -> bytes:
    """Return an impression."""
    return (
        b'{"event_type":"impression","event_id":"e%d","event_time":%d,"publisher_id":1,"site_id":1,"campaign_id":1,'
        b'"creative_id":1,"advertiser_id":1,"user_id":"u","ip":"192.0.2.1","user_agent":"","page_url":"","price_micros":1}'
        % (number, CLOCK)
    )


class Log:
    """Topic 0 holds `records` (offset -> log time, value) from `first` to `end`; topic 1 is empty."""

    def __init__(self) -> None:
        self.records = {o: (CLOCK + o, value(o)) for o in range(BATCHES * ROWS)}
        self.first, self.end = 0, BATCHES * ROWS + 10
        self.named, self.named_at = dict[int, int](), dict[int, int]()
        self.denies_from: int | None = None
        self.damaged_from: int | None = None

    def overwrite(self, since: int, *, same_times: bool) -> None:
        """Replace the records from an offset on with others, a second later or at the same times."""
        for offset in range(since, self.end):
            self.records[offset] = (CLOCK + offset + 1000 * (not same_times), value(offset + 1_000))

    async def bounds(self, lane: int) -> dict[int, OffsetBounds]:
        assert lane == LANE
        return {0: OffsetBounds(self.first, self.end), 1: OffsetBounds(0, 0)}

    async def fetch(
        self, lane: int, positions: dict[int, int], bytes_max: int, wait_ms_max: int
    ) -> list[Fetched]:
        [(topic, position)] = positions.items()
        if topic in self.named and self.denies_from is not None:
            assert position == self.named_at[topic]
            raise LogRewritten("another past", since={topic: self.denies_from})
        if not self.first <= position <= self.end:
            raise OffsetOutOfRange("gone")
        if self.damaged_from is not None and position >= self.damaged_from:
            raise UnreadableBatch("damaged", topic=topic, start=position, end=position + 1)
        found = [
            self._encoded(offset, *self.records[offset])
            for offset in range(position, self.end)
            if offset in self.records
        ][:1]
        return [
            Fetched(topic, position, found[0].base_offset + 1 if found else self.end, self.end, tuple(found))
        ]

    def resume(self, lane: int, positions: dict[int, int], leader_epochs: dict[int, int]) -> None:
        self.named, self.named_at = leader_epochs, positions

    @staticmethod
    def _encoded(offset: int, time: int, text: bytes) -> EncodedBatch:
        [written] = encode_batches(RecordBlock.of([(time, b"u", text)]), offset)
        buffer = np.concatenate([written.data, np.zeros(READ_AHEAD_BYTES, np.uint8)])
        size = len(written.data)
        return EncodedBatch(
            buffer, HEADER_BYTES, size - HEADER_BYTES, 1, offset, time, time,
            last_offset_delta=0, whole=buffer[:size],
        )  # fmt: skip


class World:
    """A lane whose ledger has `BATCHES` batches of `ROWS` records of topic 0, as the log first had them."""

    topology = TOPOLOGY

    def __init__(self) -> None:
        self.source, self.sink = Log(), MemorySink(clock=lambda: NOW)

    async def written(
        self, dead: frozenset[int] = frozenset(), absent: frozenset[int] = frozenset()
    ) -> LedgerEntry:
        """Write the ledger's batches; offsets that are `dead` are dead letters, `absent` ones never had a record."""
        for offset in absent:
            del self.source.records[offset]
        for number in range(BATCHES):
            offsets = [o for o in range(number * ROWS, (number + 1) * ROWS) if o not in absent]
            entry = replace(
                sink_suite.entry(LANE, number + 1), epoch=TOPOLOGY.epoch, clock_after=CLOCK + 99,
                ranges=(OffsetRange(0, number * ROWS, (number + 1) * ROWS), OffsetRange(1, 0, 0)),
            )  # fmt: skip
            for table, wanted in (("events", False), ("dead_letters", True)):
                await self._write(
                    table, number + 1, np.array([o for o in offsets if (o in dead) == wanted], "i8")
                )
            await self.sink.insert("ledger", ledger_columns(entry), Stamp(LANE, number + 1, NOW))
        return entry

    async def _write(self, table: str, batch_no: int, offsets: np.ndarray) -> None:
        n = len(offsets)
        columns = sink_suite.events(n) if table == "events" else sink_suite.dead_letters([b"{"] * n)
        columns |= {"topic": np.zeros(n, "u1"), "offset": offsets, "log_time": CLOCK + offsets}
        if table == "events":
            columns["id_hash"] = np.array([xxh64(b"e%d" % o) for o in offsets], "u8")
        await self.sink.insert(table, columns, Stamp(LANE, batch_no, NOW))


OFFSETS = st.integers(0, BATCHES * ROWS - 1)


@settings(max_examples=60, deadline=None)
@given(
    st.none() | OFFSETS,
    st.frozensets(OFFSETS, max_size=12),
    st.frozensets(OFFSETS, max_size=12),
    st.booleans(),
)
def test_exactly_an_overwritten_log_is_detected(since, dead, absent, same_times):
    """Law: a log changed from an offset on is detected as changed from there or shortly before; an unchanged one is the same
    log.

    The changed offsets may be events, dead letters, or markers without a record; times show it, or ids where the times
    agree.
    """

    async def check() -> None:
        world = World()
        entry = await world.written(dead - absent, absent)
        assert await changed_since(world, entry, {}) == {}
        if since is None or (same_times and (dead or absent)):
            return
        world.source.overwrite(since, same_times=same_times)
        known = {o for o in range(BATCHES * ROWS) if o not in absent}
        found = await changed_since(world, entry, {})
        if not known:
            assert found == {}, "nothing was written of this topic: there is nothing to know it by"
            return
        assert found[0] <= since
        kept = [o for o in known if o < found[0]]
        assert all(o < since for o in kept)

    asyncio.run(check())


async def test_records_removed_by_retention_are_not_compared():
    """Where the log no longer holds the last record there is nothing to compare, and no alarm."""
    world = World()
    entry = await world.written()
    world.source.first = BATCHES * ROWS
    world.source.overwrite(BATCHES * ROWS, same_times=False)
    assert await changed_since(world, entry, {}) == {}


def with_epochs(entry: LedgerEntry) -> LedgerEntry:
    return replace(entry, leader_epochs=(4, -1))


async def test_an_epoch_that_the_broker_has_is_kept():
    """The epoch is named at the ledger's end; a topic whose epoch is unknown is not checked."""
    world = World()
    entry = with_epochs(await world.written())
    assert known_epochs(entry) == {0: 4}
    assert await denied_epochs(world, entry) == {}
    assert (world.source.named, world.source.named_at[0]) == ({0: 4}, BATCHES * ROWS)
    assert await changed_since(world, entry, {}) == {}
    assert world.source.named == {}, "the records are read without presuming anything"


@pytest.mark.parametrize("denied", [0, 7, BATCHES * ROWS - 1])
async def test_where_the_records_agree_a_denied_epoch_is_no_alarm(denied):
    """The last record is the ledger's and nothing follows it, so it is the same log, whatever the broker says."""
    world = World()
    entry = with_epochs(await world.written())
    world.source.denies_from = denied
    assert await denied_epochs(world, entry) == {0: denied}
    assert await changed_since(world, entry, {0: denied}) == {}


async def test_a_damaged_batch_after_the_ledger_denies_no_epoch():
    """The lane can start behind it, so that an override gets it past it; a denied epoch is answered before damage."""
    world = World()
    entry = with_epochs(await world.written())
    world.source.damaged_from = BATCHES * ROWS
    assert await denied_epochs(world, entry) == {}
    assert await changed_since(world, entry, {}) == {}
    world.source.denies_from = 7
    assert await denied_epochs(world, entry) == {0: 7}


@pytest.mark.parametrize("denied", [0, 7, BATCHES * ROWS - 1])
async def test_where_the_last_record_is_damaged_a_denied_epoch_decides(denied: int):
    """The records can't be compared, so what the broker denies counts as replaced: nothing is read past it in silence."""
    world = World()
    entry = with_epochs(await world.written())
    world.source.overwrite(denied, same_times=True)
    world.source.denies_from, world.source.damaged_from = denied, BATCHES * ROWS - 1
    assert await denied_epochs(world, entry) == {0: denied}
    assert await changed_since(world, entry, {0: denied}) == {0: denied}
    assert await changed_since(world, entry, {}) == {}, "damage alone says nothing"
    world.source.first = BATCHES * ROWS - 1
    assert await changed_since(world, entry, {0: denied}) == {0: BATCHES * ROWS - 1}, (
        "none before the log's first"
    )


async def test_a_denied_epoch_is_checked_however_old():
    """A topic that was silent for more than a day is compared only where the broker denies its epoch."""
    world = World()
    entry = replace(await world.written(), clock_after=CLOCK + 2 * log_identity.KNOWN_BY_AGE_MS_MAX)
    world.source.overwrite(ROWS, same_times=False)
    assert await changed_since(world, entry, {}) == {}
    assert (await changed_since(world, entry, {0: ROWS}))[0] <= ROWS


async def test_records_where_the_ledger_has_none_are_found_by_the_epoch():
    """Where the ledger has markers, or retention removed its records, a denied epoch and records in their place show a
    rewrite.
    """
    world = World()
    entry = with_epochs(await world.written(absent=frozenset(range(BATCHES * ROWS))))
    end = BATCHES * ROWS
    assert await changed_since(world, entry, {0: 5}) == {}, "nothing stands there: nothing can be missed"
    world.source.records |= {o: (CLOCK + o, value(o)) for o in range(9, end)}
    assert await changed_since(world, entry, {}) == {}, "nothing tells of them without the epoch"
    assert await changed_since(world, entry, {0: 5}) == {0: 9}
    world.source.first = 12
    assert await changed_since(world, entry, {0: 5}) == {0: 12}
    world.source.first = end
    assert await changed_since(world, entry, {0: 5}) == {}


async def test_looking_back_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """After a limit of batches everything that the log holds counts as changed."""
    monkeypatch.setattr(log_identity, "LOOKS_BACK_MAX", 2)
    world = World()
    entry = await world.written()
    world.source.overwrite(1, same_times=False)
    assert await changed_since(world, entry, {}) == {0: 0}


LANE_CLOCK = np.array([CLOCK, CLOCK + 1, CLOCK + 4])
INTENDED = Intent(
    TOPOLOGY.epoch, LANE, 7, (OffsetRange(0, 0, 2), OffsetRange(1, 5, 6)), CLOCK + 4, 1, 5, CLOCK, CLOCK + 4, 2, 1, 7,
    NOW, leader_epochs=(3, 4),
)  # fmt: skip
OTHERS = {
    "fewer": lambda refs, clock, epochs: (refs.take(slice(1, None)), clock[1:], epochs),
    "none": lambda refs, clock, epochs: (refs.take(slice(0, 0)), clock[:0], epochs),
    "later": lambda refs, clock, epochs: (refs, clock + 1, epochs),
    "another topic last": lambda refs, clock, epochs: (refs.take(np.array([2, 1, 0])), clock, epochs),
    "another leader": lambda refs, clock, epochs: (refs, clock, (3, 5)),
}


def refs_of_intended() -> RecordRefs:
    found = [walk(Fetched(0, o, o + 1, 2, (Log._encoded(o, CLOCK + o, value(o)),))) for o in range(2)]
    return RecordRefs.concat([*found, walk(Fetched(1, 5, 6, 6, (Log._encoded(5, CLOCK + 4, value(5)),)))])


@pytest.mark.parametrize("epochs", [(3, 4), (-1, 4), (3, -1), ()])
def test_a_batch_read_again_matches_its_intent(epochs):
    """It has as many records, up to the cut, by the same leaders as far as these are known."""
    assert as_intended(INTENDED, refs_of_intended(), LANE_CLOCK, epochs)
    assert as_intended(replace(INTENDED, leader_epochs=()), refs_of_intended(), LANE_CLOCK, epochs)


@pytest.mark.parametrize("what", OTHERS)
def test_other_records_are_not_what_was_intended(what):
    """Fewer records, another last one, or one by another leader show that the log was rewritten since."""
    assert not as_intended(INTENDED, *OTHERS[what](refs_of_intended(), LANE_CLOCK, (3, 4)))


def test_the_override_gives_up_the_changed_range():
    """In a new epoch, offsets from the first change to the ledger's end count as lost, and other topics go on."""
    override = skip_changed(LanePosition(LANE, 8, "idA,idB/4~1", {0: 20, 1: 6}), {0: 15})
    assert (override.kind, override.epoch, override.lost) == (OverrideKind.SKIP, "idA,idB/4~2", 5)
    assert override.ranges == (OffsetRange(0, 15, 20), OffsetRange(1, 6, 6))
