"""What the tables must hold: computed from the log alone, in plain Python, and compared row by row, column by column.

Only the ranges, the watermark before and the evaluating release are taken from the ledger: a verdict is a function of the
log and the cuts.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from adledger.pipeline.ledger.check import StoredEntry, check_continuity, check_entry
from adledger.pipeline.stages.evaluate import CONTRACT_VERSION
from adledger.pipeline.stages.slow_path import DecodeContext, PlainEvent, decode_plain
from adledger.schemas.classes import Class, Reason
from adledger.schemas.digests import CURRENT
from adledger.schemas.event_columns import EVENT_DTYPES
from adledger.schemas.periods import CloseDelay, CloseDelays
from adledger.schemas.tables import PROTOCOL_COLUMNS
from adledger.schemas.wire import EventType, Flag, Malformed, currency_code
from adledger.sinks.blocks import Block
from adledger.sinks.ledger import ledger_entry
from adledger.sinks.sink import LedgerEntry
from tests.simulation.clickhouse import Server
from tests.simulation.kafka import Broker, LogRecord, Partition

WINDOW_MS = 18_000
ALLOWED_LATENESS_MS = 14_000
"""The dedupe window and how late an event may be: seconds, so that a run sees both edges many times."""
CLOSE_DELAYS = CloseDelays((CloseDelay(0, 4_000),))
"""Periods close seconds after their end: a log begins shortly before the end of one, and some of its events are late."""
RELEASES = 2


def judge_version(release: int) -> int:
    """Release 0 is the pipeline's own; later ones have one more rule, and another number."""
    return CONTRACT_VERSION + release


def is_givt(release: int, publisher_id: int) -> bool:
    """The rule that release 1 has and release 0 lacks."""
    return release > 0 and publisher_id % 3 == 0


Row = tuple[Any, ...]


def problems(broker: Broker, server: Server, stopped: Collection[int]) -> Iterator[str]:
    """Yield what is wrong with the tables. Lanes that `stopped` may have a batch under way."""
    rows = {table: _rows(server, table) for table in PROTOCOL_COLUMNS}
    written = _log_times(server) if any(log.lost for log in broker.logs.values()) else {}
    lanes: dict[int, list[LedgerEntry]] = {}
    for stored in sorted(_entries(server), key=lambda e: (e.entry.lane, e.entry.batch_no)):
        lanes.setdefault(stored.entry.lane, []).append(stored.entry)
        yield from (f"conservation: {p}" for p in check_entry(stored))
    texts: dict[str, dict[int, bytes]] = {"user_agents": {}, "pages": {}}
    for lane, entries in lanes.items():
        yield from _continuity(broker, lane, entries)
        expected = _Lane(broker, lane, written)
        for entry in entries:
            for table, wanted in expected.batch(entry, texts).items():
                found = rows[table].pop((lane, entry.batch_no), [])
                yield from _compare(table, lane, entry.batch_no, wanted, found)
            yield from expected.entry_problems(entry)
    under_way = {(lane, max((e.batch_no for e in lanes.get(lane, [])), default=0) + 1) for lane in stopped}
    for table in ("events", "dead_letters", "rollup_minute"):
        for lane, batch_no in rows[table].keys() - under_way:
            yield f"conservation: {table} holds rows of lane {lane}, batch {batch_no}, without a ledger row"
    for table, strings in texts.items():
        if any(server.texts[table].get(key) != text for key, text in strings.items()):
            yield f"texts: {table} lacks the text of a hash in events"


def _continuity(broker: Broker, lane: int, entries: list[LedgerEntry]) -> Iterator[str]:
    yield from (f"continuity: {p}" for p in check_continuity(entries))
    # a group that had no batch yet begins where the log begins
    begins = [r.start in (0, _first(broker, entries[0], r.topic)) for r in entries[0].ranges]
    if entries[0].batch_no != 1 or not all(begins):
        yield f"continuity: lane {lane} does not begin at the log's beginning"


def _first(broker: Broker, entry: LedgerEntry, topic: int) -> int:
    topic_id = entry.epoch.split("/")[0].split(",")[topic]
    return broker.logs[topic_id, entry.lane].first


def _compare(table: str, lane: int, batch_no: int, wanted: list[Row], found: list[Row]) -> Iterator[str]:
    if sorted(wanted) != sorted(found):
        missing, extra = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
        yield (
            f"ground truth: {table} of lane {lane}, batch {batch_no}: {missing.total()} rows missing, {extra.total()} too many; "
            f"first missing {next(iter(missing), None)}, first extra {next(iter(extra), None)}"
        )


def _read_before(entry: LedgerEntry, topic: int, log: Partition) -> bool:
    """Whether the ledger row names a leader before the last one, for offsets that the last one replaced.

    Where they held no records, nothing in the other tables says so.
    """
    for r, epoch in zip(entry.ranges, entry.leader_epochs, strict=False):
        if r.topic == topic and r.start < r.end > log.epochs[-1]:
            return 0 <= epoch < len(log.epochs) - 1
    return False


def _rest(records: Mapping[int, LogRecord], start: int) -> LogRecord | None:
    """Return what a record batch that can't be decoded has from `start` on: retention may delete the offsets before."""
    base = max((offset for offset in records if offset < start), default=-1)
    if base < 0 or base + records[base].covers <= start:
        return None
    return replace(records[base], offset=start, covers=base + records[base].covers - start)


class _Lane:
    """A lane's expected tables, batch by batch."""

    def __init__(self, broker: Broker, lane: int, written: Mapping[tuple[int, ...], int]) -> None:
        self._broker, self._lane, self._written = broker, lane, written
        self._past_of: dict[int, int] = {}  # topic -> the batch whose records others have replaced
        self._jumps: list[str] = []
        self._context = DecodeContext(lane, broker.lanes, (1, 2), currency_code("USD"))
        self._firsts: dict[tuple[int, int, int], tuple[int, tuple[object, ...]]] = {}
        self._clock = self._records = self._malformed = 0
        self._last: tuple[int, int, int] | None = None
        self._classes: Counter[tuple[int, int]] = Counter()
        self._money: Counter[tuple[int, int]] = Counter()

    def batch(self, entry: LedgerEntry, texts: Mapping[str, dict[int, bytes]]) -> dict[str, list[Row]]:
        """Return table -> the batch's rows, but for send_by."""
        events: list[Row] = []
        dead: list[Row] = []
        rollup: dict[tuple[int, ...], list[int]] = {}
        release = entry.judge_version - CONTRACT_VERSION
        self._last, self._classes, self._money, self._malformed = None, Counter(), Counter(), 0
        self._records = 0
        ordered = self._ordered(entry)
        stamp = (self._lane, entry.batch_no)
        for clock, record in ordered:
            event = (
                Malformed.UNDECODABLE_BATCH
                if record.covers
                else decode_plain(record.value, record.key, record.topic + 1, record.log_time, self._context)
            )
            records = max(1, record.covers)
            self._records += records
            self._last = (clock, record.topic, record.offset)
            at = (record.topic, record.offset, record.log_time, clock)
            if isinstance(event, Malformed):
                self._malformed += records
                dead.append((*stamp, *at, int(event), record.key or b"", record.value or b"", records))
                continue
            verdict, reasons = self._evaluate(event, clock, release)
            money = event.price_micros * (1 if event.event_type_code == EventType.IMPRESSION else 1000)
            late = clock > CLOSE_DELAYS.closes_at(event.event_time)
            event = event._replace(flags=event.flags | late << Flag.AFTER_CLOSE)
            columns = tuple(getattr(event, name) for name in EVENT_DTYPES)
            events.append((*stamp, *columns, *at, int(verdict), reasons, money, entry.judge_version))
            texts["user_agents"][event.ua_hash] = event.user_agent
            texts["pages"][event.page_hash] = event.page_url
            key = (
                event.publisher_id,
                event.event_time // 60_000 * 60,
                event.event_type_code,
                int(verdict),
                event.currency_code,
                int(late),
            )
            group = rollup.setdefault(key, [0, 0])
            group[0] += 1
            group[1] += money
            self._classes[int(verdict), event.currency_code] += 1
            self._money[int(verdict), event.currency_code] += money
        self._clock = ordered[-1][0] if ordered else entry.clock_after
        day = entry.clock_after // 86_400_000 * 86_400
        rollups = [(*stamp, *key, *sums, day) for key, sums in rollup.items()]
        return {"events": events, "dead_letters": dead, "rollup_minute": rollups}

    def entry_problems(self, entry: LedgerEntry) -> Iterator[str]:
        """Yield where the ledger row differs from the batch."""
        name = f"ground truth: ledger of lane {self._lane}, batch {entry.batch_no}"
        yield from (f"silent jump: {jump}" for jump in self._jumps)
        self._jumps.clear()
        if entry.records_received != self._records:
            yield f"{name}: {entry.records_received} records, the log has {self._records}"
        if entry.digest_definition != CURRENT:
            yield f"{name}: digests of definition {entry.digest_definition}, no release wrote rows of it"
        if entry.clock_after != self._clock:
            yield f"{name}: clock {entry.clock_after}, should be {self._clock}"
        if self._last and (entry.cut_time, entry.cut_topic, entry.cut_offset) != self._last:
            yield f"{name}: cut at {entry.cut_time, entry.cut_topic, entry.cut_offset}, should be {self._last}"
        found = {(m.class_code, m.currency_code): (m.records, m.money_nanos) for m in entry.money}
        wanted = {key: (n, self._money[key]) for key, n in self._classes.items()}
        if found != wanted or entry.counts.get(Class.MALFORMED, 0) != self._malformed:
            yield f"{name}: money {found}, should be {wanted}"

    def _ordered(self, entry: LedgerEntry) -> list[tuple[int, LogRecord]]:
        """Return the batch's records with the watermark at each, in the lane's order."""
        ids = entry.epoch.split("/")[0].split(",")
        placed = []
        for r in entry.ranges:
            clock = entry.clock_before
            log = self._broker.logs[ids[r.topic], self._lane]
            past = self._is_of_the_past(entry, r.topic, log, range(r.start, r.end))
            for offset in range(r.start, r.end):
                records = log.lost if past and offset >= log.epochs[-1] else log.history
                record = records.get(offset) or (_rest(records, offset) if offset == r.start else None)
                if record is not None:
                    clock = max(clock, record.log_time)
                    placed.append((clock, record))
        return sorted(placed, key=lambda p: (p[0], p[1].topic, p[1].offset))

    def _is_of_the_past(self, entry: LedgerEntry, topic: int, log: Partition, offsets: range) -> bool:
        """Whether a batch has records that others have replaced since; no other may follow on it."""
        past = (
            entry.batch_no <= log.past_batches
            or _read_before(entry, topic, log)
            or any(
                offset in log.lost
                and log.lost[offset].log_time
                == self._written.get((self._lane, entry.batch_no, topic, offset))
                for offset in offsets
            )
        )
        if past and offsets.stop > log.epochs[-1]:
            self._past_of[topic] = entry.batch_no
        elif not past and topic in self._past_of and len(offsets):
            self._jumps.append(
                f"lane {self._lane}, batch {entry.batch_no} goes on at offset {offsets.start} of topic {topic}, batch "
                f"{self._past_of[topic]} ended in a past that the log does not have"
            )
        return past

    def _evaluate(self, event: PlainEvent, clock: int, release: int) -> tuple[Class, int]:
        reasons = (event.flags >> Flag.MISROUTED & 1) << Reason.MISROUTED
        name = (event.event_type_code, event.publisher_id, event.id_hash)
        payload = (
            event.event_time, event.site_id, event.campaign_id, event.creative_id, event.advertiser_id,
            event.user_hash, event.price_micros, event.currency_code, event.impression_hash,
        )  # fmt: skip
        first = self._firsts.get(name)
        if first is not None and clock - first[0] <= WINDOW_MS:
            return Class.DUPLICATE, reasons | (first[1] != payload) << Reason.DUPLICATE_CONFLICT
        self._firsts[name] = clock, payload
        if clock - event.event_time > ALLOWED_LATENESS_MS:
            return Class.EXPIRED, reasons
        return (Class.GIVT if is_givt(release, event.publisher_id) else Class.BILLABLE), reasons


def _rows(server: Server, table: str) -> dict[tuple[int, int], list[Row]]:
    """Return (lane, batch) -> its rows, without send_by, columns in the order of PROTOCOL_COLUMNS."""
    found: dict[tuple[int, int], list[Row]] = {}
    names = [name for name in PROTOCOL_COLUMNS[table] if name != "send_by"]
    if table == "ledger":
        return found
    for part in server.parts:
        if part.table == table:
            rows = zip(*(np.asarray(part.block[name]).tolist() for name in names), strict=True)
            found.setdefault((part.stamp.lane, part.stamp.batch_no), []).extend(rows)
    return found


def _log_times(server: Server) -> dict[tuple[int, ...], int]:
    """Return (lane, batch, topic, offset) -> the log time that was written with it."""
    return {
        (part.stamp.lane, part.stamp.batch_no, int(topic), int(offset)): int(time)
        for part in server.parts
        if part.table in {"events", "dead_letters"}
        for topic, offset, time in zip(*(part.block[n] for n in ("topic", "offset", "log_time")), strict=True)
    }


def _entries(server: Server) -> Iterator[StoredEntry]:
    for part in server.parts:
        if part.table == "ledger":
            row: Block = {name: values[0] for name, values in part.block.items()}
            yield StoredEntry(ledger_entry(row), int(row["seal"]))
