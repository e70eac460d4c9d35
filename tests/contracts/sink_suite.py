"""The laws of `Sink`, for every implementation: subclass `SinkContract` and define a `harness` fixture.

Each test uses its own lane, so that one database serves them all.
"""

import asyncio
import itertools
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pytest

from adledger.pipeline.errors import InsertRefused, InsertUnknown
from adledger.pipeline.records.columns import EventColumns
from adledger.pipeline.stages import identity
from adledger.schemas.classes import Class
from adledger.schemas.event_columns import EVENT_DTYPES, WINDOW_COLUMNS
from adledger.schemas.tables import EVENTS_EXTRA, PROTOCOL_COLUMNS, PROTOCOL_TABLES, ROLLUP_MINUTE
from adledger.schemas.wire import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, EventType
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.sink import Columns, LastRecord, LedgerEntry, Money, OffsetRange, Sink, Stamp

DAY_MS = 86_400_000
CLOCK = 1_767_225_600_000  # 2026-01-01T00:00:00Z, the first ms of a partition

_lanes = itertools.count(1)


class Harness(Protocol):
    """What the suite needs besides the sink."""

    sink: Sink

    async def rows(self, table: str, lane: int) -> list[tuple[Any, ...]]:
        """Return the lane's rows of a protocol table, every column of PROTOCOL_COLUMNS, in any order."""

    async def texts(self, table: str) -> dict[int, bytes]:
        """Return what a table of dimension strings holds, each hash once."""

    async def held_insert(self, stamp: Stamp) -> asyncio.Task[None]:
        """Start an insert into events that runs on the server until it is killed; return its outcome."""


def events(count: int, *, clock: int = CLOCK, seed: int = 0, **given: Any) -> Columns:
    """Return `count` events of random numbers in one partition; `given` columns replace them."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for name, dtype in {**EVENT_DTYPES, **EVENTS_EXTRA}.items():
        limits = np.iinfo(dtype)
        columns[name] = rng.integers(limits.min, limits.max, count, dtype, endpoint=True)
    columns["event_type_code"] = rng.integers(1, 2, count, "u1", endpoint=True)
    columns["class_code"] = rng.integers(1, 6, count, "u1", endpoint=True)
    columns["event_time"] = rng.integers(EVENT_TIME_MS_MIN, EVENT_TIME_MS_MAX, count)
    columns["topic"] = rng.integers(0, 1, count, "u1", endpoint=True)
    columns["offset"] = rng.permutation(count).astype("i8")
    columns["log_time"] = clock + np.sort(rng.integers(0, DAY_MS, count))
    columns["lane_clock"] = np.maximum.accumulate(columns["log_time"])
    return {**columns, **given}


def rollups(count: int) -> Columns:
    """Return `count` rollup rows."""
    columns: dict[str, Any] = {name: np.arange(count, dtype=dtype) for name, dtype in ROLLUP_MINUTE.items()}
    return {**columns, "clock_day": np.full(count, CLOCK // 1000, "u4")}


def dead_letters(values: list[bytes | None]) -> Columns:
    """Return a dead letter for each value."""
    n = len(values)
    clock = np.full(n, CLOCK)
    return {
        "topic": np.zeros(n, "u1"), "offset": np.arange(n), "log_time": clock, "lane_clock": clock,
        "reason_code": np.full(n, 3, "u1"), "key": [b"k"] * n, "value": values,
        "records": np.ones(n, "u4"),
    }  # fmt: skip


def entry(lane: int, batch_no: int) -> LedgerEntry:
    """Return a ledger entry with every field at its extremes."""
    return LedgerEntry(
        lane=lane,
        batch_no=batch_no,
        epoch="Zm9v,\xfcmlaut'/16",
        ranges=(OffsetRange(0, 0, 7), OffsetRange(1, 2**62, 2**63 - 1)),
        cut_time=CLOCK,
        cut_topic=255,
        cut_offset=2**63 - 1,
        clock_before=EVENT_TIME_MS_MIN,
        clock_after=EVENT_TIME_MS_MAX,
        records_received=2**64 - 1,
        counts={Class.BILLABLE: 2**64 - 1, Class.LOST: 1},
        money=(Money(Class.BILLABLE, 65_535, 2**64 - 1, 2**63 - 1), Money(Class.GIVT, 1, 1, -1)),
        judge_version=2**64 - 1,
        rollup_rows=2**40,
        events_digest=2**64 - 1,
        dead_letters_digest=2**63,
    )


def led(lane: int, batch_no: int) -> LedgerEntry:
    """Return such an entry of a log with leader epochs, one of them unknown."""
    return replace(entry(lane, batch_no), leader_epochs=(-1, 2**31 - 1))


def extremes(table: str) -> Columns:
    """Return rows in which every column of a table has its least and its greatest value."""
    columns: dict[str, Any] = {}
    for name, dtype in PROTOCOL_COLUMNS[table].items():
        if dtype == "O":
            columns[name] = [b"", bytes(range(256))]
        else:
            limits = np.iinfo(dtype)
            columns[name] = np.array([limits.min, limits.max], dtype)
    times = ("event_time", "log_time", "lane_clock", "clock_day")
    for name in times:
        if name in columns:
            day = (CLOCK, CLOCK + DAY_MS - 1) if columns[name].dtype == np.int64 else (CLOCK // 1000,) * 2
            columns[name] = np.array(day, columns[name].dtype)
    return {name: values for name, values in columns.items() if name not in ("lane", "batch_no", "send_by")}


def as_rows(table: str, columns: Columns, stamp: Stamp) -> list[tuple[Any, ...]]:
    """Return columns and stamp as `Harness.rows` does."""
    n = len(next(iter(columns.values())))
    stamped = {
        "lane": [stamp.lane] * n,
        "batch_no": [stamp.batch_no] * n,
        "send_by": [stamp.send_by] * n,
        **columns,
    }
    lists = (np.asarray(stamped[name], object).tolist() for name in PROTOCOL_COLUMNS[table])
    return list(zip(*lists, strict=True))


class SinkContract:
    """The laws."""

    @pytest.fixture
    def lane(self) -> int:
        return next(_lanes)

    async def stamp(self, harness: Harness, lane: int, batch_no: int = 1) -> Stamp:
        return Stamp(lane, batch_no, await harness.sink.server_time() + 300)

    @pytest.mark.parametrize("table", ["events", "dead_letters", "rollup_minute"])
    async def test_every_value_comes_back_as_it_was_written(
        self, harness: Harness, lane: int, table: str
    ) -> None:
        """The least and the greatest value of every column round-trip."""
        stamp = await self.stamp(harness, lane, 2**64 - 1)
        columns = extremes(table)
        await harness.sink.insert(table, columns, stamp)
        assert sorted(await harness.rows(table, lane)) == sorted(as_rows(table, columns, stamp))

    async def test_a_null_key_or_value_is_stored_as_an_empty_one(self, harness: Harness, lane: int) -> None:
        """A tombstone's value is None; the row holds b""."""
        await harness.sink.insert(
            "dead_letters", dead_letters([None, b"x\x00\xff"]), await self.stamp(harness, lane)
        )
        values = [row[-2] for row in await harness.rows("dead_letters", lane)]
        assert sorted(values) == [b"", b"x\x00\xff"]

    async def test_a_block_that_comes_late_is_refused_whole(self, harness: Harness, lane: int) -> None:
        """After send_by the server refuses it with the reason, and no row is stored, in any protocol table."""
        now = await harness.sink.server_time()
        late = Stamp(lane, 1, now - 1)
        blocks = {
            "events": events(100), "dead_letters": dead_letters([b"x"]), "rollup_minute": rollups(3),
            "ledger": ledger_columns(entry(lane, 1)),
        }  # fmt: skip
        for table, columns in blocks.items():
            with pytest.raises(InsertRefused) as refused:
                await harness.sink.insert(table, columns, late)
            assert refused.value.late
        assert set((await harness.sink.batch_rows(lane, 1)).values()) == {0}

    async def test_a_block_in_the_last_second_is_accepted(self, harness: Harness, lane: int) -> None:
        """send_by itself is in time: doubt ends when the server's second is greater."""
        for _ in range(20):  # the second may turn between reading the clock and the insert
            now = await harness.sink.server_time()
            with suppress(InsertRefused):
                await harness.sink.insert("events", events(1), Stamp(lane, 1, now))
                break
            assert await harness.sink.server_time() > now
        assert (await harness.sink.batch_rows(lane, 1))["events"] == 1

    async def test_rows_of_two_partitions_are_not_one_insert(self, harness: Harness, lane: int) -> None:
        """Two days of the watermark in one block are refused by the sink, before anything is sent."""
        clock = np.array([CLOCK - 1, CLOCK])
        stamp = await self.stamp(harness, lane)
        with pytest.raises(ValueError, match="more than one day"):
            await harness.sink.insert("events", events(2, lane_clock=clock), stamp)
        assert (await harness.sink.batch_rows(lane, 1))["events"] == 0

    async def test_columns_must_be_the_tables(self, harness: Harness, lane: int) -> None:
        """The sink refuses a missing or extra column, another length, and a value that does not fit."""
        stamp = await self.stamp(harness, lane)
        good = events(2)
        wrong = [
            {k: v for k, v in good.items() if k != "reasons"},
            {**good, "typo": good["reasons"]},
            {**good, "reasons": np.zeros(3, "u8")},
            {**good, "publisher_id": np.array([0, 2**32])},
            {**good, "money_nanos": np.array([0.5, 1.0])},
        ]
        for columns in wrong:
            with pytest.raises(ValueError, match="events"):
                await harness.sink.insert("events", columns, stamp)

    async def test_an_insert_of_no_rows_is_nothing(self, harness: Harness, lane: int) -> None:
        """Without rows nothing is inserted, even after the deadline."""
        await harness.sink.insert("dead_letters", dead_letters([]), Stamp(lane, 1, 0))

    async def test_batch_rows_counts_every_table(self, harness: Harness, lane: int) -> None:
        """Rows are counted by table, of this batch of this lane only; zero where there are none."""
        stamp = await self.stamp(harness, lane)
        assert await harness.sink.batch_rows(lane, 1) == dict.fromkeys(PROTOCOL_TABLES, 0)
        await harness.sink.insert("events", events(1000), stamp)
        await harness.sink.insert("dead_letters", dead_letters([b"x", b"y"]), stamp)
        await harness.sink.insert("rollup_minute", rollups(30), stamp)
        await harness.sink.insert("rollup_minute", rollups(5), await self.stamp(harness, lane, 2))
        await harness.sink.insert("rollup_minute", rollups(7), await self.stamp(harness, next(_lanes)))
        await harness.sink.insert("ledger", ledger_columns(entry(lane, 1)), stamp)
        expected = {"events": 1000, "dead_letters": 2, "rollup_minute": 30, "ledger": 1}
        assert await harness.sink.batch_rows(lane, 1) == expected

    async def test_last_batches_are_ascending_from_the_given(self, harness: Harness, lane: int) -> None:
        """Every table is listed, with the batch numbers that it holds rows of, each once."""
        for number in (3, 1, 2):
            await harness.sink.insert("events", events(10), await self.stamp(harness, lane, number))
        await harness.sink.insert("rollup_minute", rollups(5), await self.stamp(harness, lane, 2))
        await harness.sink.insert("rollup_minute", rollups(5), await self.stamp(harness, lane, 2))
        found = await harness.sink.last_batches(lane, 2)
        assert {table: list(numbers) for table, numbers in found.items()} == {
            "events": [2, 3], "rollup_minute": [2], "dead_letters": [], "ledger": [],
        }  # fmt: skip

    async def test_the_ledgers_end_is_the_highest_batch(self, harness: Harness, lane: int) -> None:
        """It is None without a row, and else the entry of the highest number, field by field, in whatever order rows were
        written.
        """
        assert await harness.sink.ledger_end(lane) is None
        for number in (2, 3, 1):
            columns = ledger_columns(led(lane, number))
            await harness.sink.insert("ledger", columns, await self.stamp(harness, lane, number))
        assert await harness.sink.ledger_end(lane) == led(lane, 3)

    async def test_an_empty_batch_is_a_ledger_entry_too(self, harness: Harness, lane: int) -> None:
        """It has no ranges, no counts and no money, as an idle lane writes it."""
        empty = LedgerEntry(lane, 7, "e", (), 0, 0, -1, CLOCK, CLOCK, 0, {}, (), 0, 0, 0, 0)
        await harness.sink.insert("ledger", ledger_columns(empty), await self.stamp(harness, lane, 7))
        assert await harness.sink.ledger_end(lane) == empty

    async def test_stored_events_are_the_batchs_by_topic_and_offset(
        self, harness: Harness, lane: int
    ) -> None:
        """Every column that recovery needs is returned, for this batch only, with its dtype."""
        written = events(5000, seed=1)
        await harness.sink.insert("events", events(10, seed=2), await self.stamp(harness, lane, 1))
        await harness.sink.insert("events", written, await self.stamp(harness, lane, 2))
        stored = await harness.sink.stored_events(lane, 2)
        order = np.lexsort((written["offset"], written["topic"]))
        for name in ("topic", "offset", "log_time", "lane_clock", "class_code", "reasons"):
            assert np.array_equal(getattr(stored, name), written[name][order]), name
            assert getattr(stored, name).dtype == PROTOCOL_COLUMNS["events"][name], name
        for name, dtype in EVENT_DTYPES.items():
            assert np.array_equal(getattr(stored.columns, name), written[name][order]), name
            assert getattr(stored.columns, name).dtype == dtype, name

    async def test_stored_events_of_no_batch_are_none(self, harness: Harness, lane: int) -> None:
        """A batch that was never written has no rows, and every column."""
        stored = await harness.sink.stored_events(lane, 1)
        assert len(stored.offset) == len(stored.columns) == 0

    async def test_stored_reasons_are_the_batchs_by_topic_and_offset(
        self, harness: Harness, lane: int
    ) -> None:
        """Every dead letter of this batch only, with dtypes; of a batch that was never written there are none."""
        await harness.sink.insert("dead_letters", dead_letters([b"x"]), await self.stamp(harness, lane, 1))
        written = {**dead_letters([b"x"] * 300), "topic": np.arange(300, dtype="u1") % 2}
        written |= {"offset": np.arange(300)[::-1].copy(), "reason_code": np.arange(300, dtype="u1") % 13 + 1}
        await harness.sink.insert("dead_letters", written, await self.stamp(harness, lane, 2))
        stored = await harness.sink.stored_reasons(lane, 2)
        order = np.lexsort((written["offset"], written["topic"]))
        for name in ("topic", "offset", "reason_code"):
            assert np.array_equal(getattr(stored, name), written[name][order]), name
            assert getattr(stored, name).dtype == PROTOCOL_COLUMNS["dead_letters"][name], name
        assert len((await harness.sink.stored_reasons(lane, 3)).offset) == 0

    async def test_identities_are_the_firsts_in_time_and_before_the_batch(
        self, harness: Harness, lane: int
    ) -> None:
        """Duplicates are left out, and so are events before the watermark, in later batches, or in other lanes."""
        written = [events(3000, seed=n) for n in range(3)]
        for number, columns in enumerate(written, start=1):
            await harness.sink.insert("events", columns, await self.stamp(harness, lane, number))
        await harness.sink.insert("events", events(50), await self.stamp(harness, next(_lanes), 1))
        clock_from = CLOCK + DAY_MS // 3
        found = [block async for block in harness.sink.identities(lane, clock_from, 3)]
        expected = []
        for columns in written[:2]:
            wanted = (columns["class_code"] != Class.DUPLICATE) & (columns["lane_clock"] >= clock_from)
            rows = EventColumns(**{name: columns[name][wanted] for name in EVENT_DTYPES})
            keys, sources, fingerprints = identity.identity(rows)
            expected += zip(
                keys.tolist(),
                sources.tolist(),
                fingerprints.tolist(),
                columns["lane_clock"][wanted].tolist(),
                strict=True,
            )
        got = [
            row
            for block in found
            for row in zip(
                block.key.tolist(),
                block.source.tolist(),
                block.fingerprint.tolist(),
                block.lane_clock.tolist(),
                strict=True,
            )
        ]
        assert sorted(got) == sorted(expected)
        assert {(b.key.dtype, b.fingerprint.dtype, b.lane_clock.dtype) for b in found} == {
            (np.dtype("u8"), np.dtype("u4"), np.dtype("i8"))
        }

    async def test_identities_of_clicks_and_impressions_differ(self, harness: Harness, lane: int) -> None:
        """The same id as an impression and as a click are two events."""
        same = dict.fromkeys(("id_hash", "publisher_id"), np.full(2, 5))
        kinds = np.array([EventType.IMPRESSION, EventType.CLICK], "u1")
        columns = events(2, event_type_code=kinds, class_code=np.ones(2, "u1"), **same)
        await harness.sink.insert("events", columns, await self.stamp(harness, lane))
        keys = {k async for block in harness.sink.identities(lane, 0, 2) for k in block.key.tolist()}
        assert len(keys) == 2

    async def test_rule_events_are_the_firsts_in_the_lanes_order(self, harness: Harness, lane: int) -> None:
        """They are non-duplicates since the watermark and before the batch, by batch, watermark, topic and offset."""
        written = [events(3000, seed=n) for n in range(3)]
        for number, columns in enumerate(written, start=1):
            await harness.sink.insert("events", columns, await self.stamp(harness, lane, number))
        await harness.sink.insert("events", events(50), await self.stamp(harness, next(_lanes), 1))
        clock_from = CLOCK + DAY_MS // 3
        expected = []
        for columns in written[:2]:
            wanted = (columns["class_code"] != Class.DUPLICATE) & (columns["lane_clock"] >= clock_from)
            order = np.lexsort([columns[name][wanted] for name in ("offset", "topic", "lane_clock")])
            names = ("lane_clock", *WINDOW_COLUMNS)
            expected += zip(*(columns[name][wanted][order].tolist() for name in names), strict=True)
        got = []
        async for block in harness.sink.rule_events(lane, clock_from, 3):
            columns = [block.lane_clock, *(getattr(block.columns, name) for name in WINDOW_COLUMNS)]
            dtypes = ["i8", *(EVENT_DTYPES[name] for name in WINDOW_COLUMNS)]
            assert [c.dtype for c in columns] == [np.dtype(d) for d in dtypes]
            got += zip(*(c.tolist() for c in columns), strict=True)
        assert got == expected

    async def test_the_last_record_of_a_topic(self, harness: Harness, lane: int) -> None:
        """It is the last event or dead letter of this lane, epoch and topic, before the batch and in time.

        Before offsets that were given up there is none: the log may have records there that the tables have not.
        """
        for number, epoch in ((1, "old"), (2, "new"), (3, "new")):
            of = replace(entry(lane, number), epoch=epoch, counts={})
            await harness.sink.insert("ledger", ledger_columns(of), await self.stamp(harness, lane, number))
        zero, one = np.zeros(9, "u1"), np.ones(9, "u1")
        offsets = np.arange(9, dtype="i8")
        for number, topic in ((1, one), (2, zero)):
            columns = events(9, seed=number, topic=topic, offset=offsets)
            await harness.sink.insert("events", columns, await self.stamp(harness, lane, number))
        await harness.sink.insert("events", events(9, topic=zero), await self.stamp(harness, next(_lanes), 2))
        last = LastRecord(2, 8, int(columns["log_time"][-1]), int(columns["id_hash"][-1]))
        assert await harness.sink.last_record(lane, 0, 3, 0) == last
        assert await harness.sink.last_record(lane, 0, 3, last.log_time + 1) is None
        assert await harness.sink.last_record(lane, 0, 2, 0) is None
        assert await harness.sink.last_record(lane, 1, 3, 0) is None, "of another epoch"
        dead = {**dead_letters([b"{", b"["]), "offset": np.array([9, 10])}
        await harness.sink.insert("dead_letters", dead, await self.stamp(harness, lane, 3))
        assert await harness.sink.last_record(lane, 0, 3, 0) == last
        found = LastRecord(3, 10, int(dead["log_time"][-1]), None)
        assert await harness.sink.last_record(lane, 0, 4, 0) == found
        of = replace(entry(lane, 4), epoch="new", counts={Class.LOST: 1})
        await harness.sink.insert("ledger", ledger_columns(of), await self.stamp(harness, lane, 4))
        assert await harness.sink.last_record(lane, 0, 5, 0) is None

    async def test_reading_identities_may_stop_early(self, harness: Harness, lane: int) -> None:
        """A consumer that stops reading leaves a sink that works."""
        await harness.sink.insert("events", events(1000), await self.stamp(harness, lane))
        stream = harness.sink.identities(lane, 0, 2)
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        assert (await harness.sink.batch_rows(lane, 1))["events"] == 1000

    async def test_strings_may_be_written_again(self, harness: Harness, lane: int) -> None:
        """The same string under the same hash twice is one string; any bytes are valid."""
        key = 2**64 - lane
        for _ in range(2):
            await harness.sink.insert_texts(
                "user_agents", {"ua_hash": [key, lane], "text": [b"\xff\x00", b""]}
            )
        await harness.sink.insert_texts("pages", {"page_hash": [key], "text": ["/\u00fc".encode()]})
        agents, pages = await harness.texts("user_agents"), await harness.texts("pages")
        assert (agents[key], agents[lane], pages[key]) == (b"\xff\x00", b"", "/\u00fc".encode())

    async def test_quiesce_returns_when_nothing_runs(self, harness: Harness, lane: int) -> None:
        """Without an insert of the lane on the server it does not wait."""
        await harness.sink.quiesce(lane)

    async def test_quiesce_ends_the_lanes_inserts_and_no_others(self, harness: Harness, lane: int) -> None:
        """A running insert is killed: its outcome is unknown to its sender, and after quiesce it never lands."""
        other = next(_lanes)
        mine = await harness.held_insert(await self.stamp(harness, lane))
        theirs = await harness.held_insert(await self.stamp(harness, other))
        await harness.sink.quiesce(lane)
        with pytest.raises(InsertUnknown):
            await mine
        assert not theirs.done()
        assert (await harness.sink.batch_rows(lane, 1))["events"] == 0
        await harness.sink.quiesce(other)
        with pytest.raises(InsertUnknown):
            await theirs

    async def test_a_cancelled_insert_is_stored_whole_or_not_at_all(
        self, harness: Harness, lane: int
    ) -> None:
        """Cancelling leaves a sink that works, and after quiesce the batch no longer changes."""
        stamp = await self.stamp(harness, lane)
        task = asyncio.create_task(harness.sink.insert("events", events(20_000), stamp))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await harness.sink.quiesce(lane)
        assert (await harness.sink.batch_rows(lane, 1))["events"] in (0, 20_000)
