"""From a batch's records to the rows of every table: pure, a function of the records, the clock and the state."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from adledger.pipeline.kernels.slots import KNOWN_SECRET, SlotSecret
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.records.columns import I64, U8, U64, Decoded, EventColumns, RecordRefs
from adledger.pipeline.rules.compiled import LaneEvaluator
from adledger.pipeline.stages.decode import DecodeContext, bytes_at, decode, pages, user_agents
from adledger.pipeline.stages.dedupe import DedupeState, SeenHashes
from adledger.pipeline.stages.digest import digest
from adledger.pipeline.stages.evaluate import Verdicts, evaluate
from adledger.pipeline.stages.identity import identity
from adledger.pipeline.stages.merge import DAY_MS
from adledger.pipeline.stages.periods import mark_after_close, marks_follow
from adledger.pipeline.stages.rollup import roll_up
from adledger.schemas.classes import Class, Reason
from adledger.schemas.digests import CURRENT, FIRST
from adledger.schemas.periods import CloseDelays
from adledger.schemas.wire import (
    DEAD_LETTER_BYTES_MAX,
    NANOS_PER_MICRO_CPC,
    NANOS_PER_MICRO_CPM,
    EventType,
    Malformed,
)
from adledger.sinks.sink import Columns, LedgerEntry, Money, StoredEvents


@dataclass(slots=True)
class LaneState:
    """What a lane remembers: a function of its earlier events; the dimension strings are only a cache."""

    dedupe: DedupeState
    evaluator: LaneEvaluator
    user_agents: SeenHashes
    pages: SeenHashes


@dataclass(frozen=True, slots=True)
class Computed:
    """A batch's rows by table, without the stamp. `texts` are user agents and pages not written recently."""

    events: Columns
    dead_letters: Columns
    texts: Mapping[str, Columns]
    judge_version: int
    not_evaluated: Mapping[Reason, int]  # rule -> on how many events it could not be evaluated

    @property
    def event_rows(self) -> int:
        """Rows for `events`."""
        return len(self.events["offset"])

    @property
    def dead_rows(self) -> int:
        """Rows for `dead_letters`."""
        return len(self.dead_letters["offset"])

    @property
    def malformed(self) -> int:
        """Records that those rows stand for."""
        return int(self.dead_letters["records"].sum(dtype=np.uint64))

    @property
    def dead_by_reason(self) -> Mapping[Malformed, int]:
        """Malformed records by reason; the sum is `malformed`."""
        counts = np.zeros(len(Malformed), np.uint64)
        np.add.at(counts, self.dead_letters["reason_code"], self.dead_letters["records"].astype(np.uint64))
        return {reason: int(counts[reason]) for reason in Malformed if counts[reason]}

    @property
    def events_by_reason(self) -> Mapping[Reason, int]:
        """Events that have each reason, whatever their class; most events have none."""
        found: U64 = self.events["reasons"]
        found = found[found != 0]
        present = int(np.bitwise_or.reduce(found))
        return {r: int(np.count_nonzero(found & np.uint64(1 << r))) for r in Reason if present >> r & 1}


def compute(
    refs: RecordRefs,
    clock: I64,
    state: LaneState,
    context: DecodeContext,
    allowed_lateness_ms: int,
    close_delays: CloseDelays,
) -> Computed:
    """Decode, dedupe and evaluate a batch's records (in the lane's order, with the watermark at each); changes `state`."""
    decoded = decode(refs, context)
    mark_after_close(decoded.columns, clock, close_delays)
    live = decoded.status == Malformed.OK
    duplicates = state.dedupe.apply(*identity(decoded.columns), clock, live)
    hits = state.evaluator.hits(decoded, clock, duplicates.duplicate)
    verdicts = evaluate(decoded, clock, duplicates, allowed_lateness_ms, hits)
    version = state.evaluator.compiled.version
    texts = {
        "user_agents": _texts(
            "ua_hash", user_agents, decoded, state.user_agents.unseen(decoded.columns.ua_hash, live)
        ),
        "pages": _texts("page_hash", pages, decoded, state.pages.unseen(decoded.columns.page_hash, live)),
    }
    dead = np.flatnonzero(~live)
    return Computed(
        _events(decoded, clock, verdicts, version, None if not len(dead) else live),
        dead_letters(refs.take(dead), clock[dead], decoded.status[dead]),
        {table: columns for table, columns in texts.items() if len(columns["text"])},
        version,
        hits.not_evaluated,
    )


def dead_letters(refs: RecordRefs, clock: I64, reason: U8) -> Columns:
    """Return the rows of `dead_letters` for malformed records, and for batches that can't be decoded.

    A null key or value is stored empty, one over DEAD_LETTER_BYTES_MAX up to there.
    """
    columns = (refs.key_addr, refs.key_len, refs.value_addr, refs.value_len)
    addresses = zip(*(column.tolist() for column in columns), strict=True)
    most = DEAD_LETTER_BYTES_MAX
    texts = [(bytes_at(ka, min(kl, most)), bytes_at(va, min(vl, most))) for ka, kl, va, vl in addresses]
    return {
        "topic": refs.topic,
        "offset": refs.offset,
        "log_time": refs.log_time,
        "lane_clock": clock,
        "reason_code": reason,
        "key": _objects([key or b"" for key, _ in texts]),
        "value": _objects([value or b"" for _, value in texts]),
        "records": refs.records,
    }


def stored_columns(stored: StoredEvents) -> Columns:
    """Return event rows read back, in the form of an insert; money is recomputed from price and type."""
    click = stored.columns.event_type_code == EventType.CLICK
    per_micro = np.where(click, np.int64(NANOS_PER_MICRO_CPC), np.int64(NANOS_PER_MICRO_CPM))
    return {
        **{f.name: getattr(stored.columns, f.name) for f in fields(EventColumns)},
        "topic": stored.topic,
        "offset": stored.offset,
        "log_time": stored.log_time,
        "lane_clock": stored.lane_clock,
        "class_code": stored.class_code,
        "reasons": stored.reasons,
        "money_nanos": stored.columns.price_micros * per_micro,
        "judge_version": stored.judge_version,
    }


def definition_of(stored: StoredEvents, close_delays: CloseDelays) -> int:
    """Return the digest definition that event rows read back follow: an older release's are not marked as after close."""
    return CURRENT if marks_follow(stored.columns, stored.lane_clock, close_delays) else FIRST


def rollup_rows(events: Columns, clock_after: int, secret: SlotSecret = KNOWN_SECRET) -> Columns:
    """Return the rows of `rollup_minute` that follow from a batch's event rows."""
    columns = EventColumns(**{f.name: events[f.name] for f in fields(EventColumns)})
    rollup = roll_up(columns, events["class_code"], events["money_nanos"], secret)
    day = clock_after // DAY_MS * (DAY_MS // 1000)
    return {**rollup, "clock_day": np.full(len(rollup["records"]), day, np.uint32)}


def ledger_row(
    intent: Intent, events: Columns, dead: Columns, rollup: Columns, definition: int = CURRENT
) -> LedgerEntry:
    """Return the ledger entry of a batch from the rows that it wrote, with digests of a definition."""
    money = _money(rollup)
    counts = {int(c): int(n) for c, n in enumerate(np.bincount(events["class_code"], minlength=8)) if n}
    if malformed := int(dead["records"].sum(dtype=np.uint64)):
        counts[int(Class.MALFORMED)] = malformed
    received = sum(counts.values())
    if intent.is_override and (lost := sum(r.end - r.start for r in intent.ranges)):
        counts[int(Class.LOST)] = lost
    return LedgerEntry(
        lane=intent.lane, batch_no=intent.batch_no, epoch=intent.epoch, ranges=intent.ranges,
        cut_time=intent.cut_time, cut_topic=intent.cut_topic, cut_offset=intent.cut_offset,
        clock_before=intent.clock_before, clock_after=intent.clock_after,
        records_received=received, counts=counts, money=money,
        judge_version=intent.judge_version, rollup_rows=len(rollup["records"]),
        events_digest=digest("events", events, definition),
        dead_letters_digest=digest("dead_letters", dead, definition),
        leader_epochs=intent.leader_epochs, digest_definition=definition,
    )  # fmt: skip


def _money(rollup: Columns) -> tuple[Money, ...]:
    """Return records and money by class and currency; one batch's nanos fit 64 bits (2^20 rows of at most 10^12)."""
    key = rollup["class_code"].astype(np.uint32) << 16 | rollup["currency_code"]
    groups, group = np.unique(key, return_inverse=True)
    nanos, records = np.zeros(len(groups), np.int64), np.zeros(len(groups), np.int64)
    np.add.at(nanos, group, rollup["money_nanos"])
    np.add.at(records, group, rollup["records"].astype(np.int64))
    return tuple(
        Money(int(k) >> 16, int(k) & 0xFFFF, int(r), int(n))
        for k, r, n in zip(groups, records, nanos, strict=True)
    )


def _events(decoded: Decoded, clock: I64, verdicts: Verdicts, judge_version: int, live: Any) -> Columns:
    refs = decoded.refs
    columns = {
        **{f.name: getattr(decoded.columns, f.name) for f in fields(EventColumns)},
        "topic": refs.topic,
        "offset": refs.offset,
        "log_time": refs.log_time,
        "lane_clock": clock,
        "class_code": verdicts.class_code,
        "reasons": verdicts.reasons,
        "money_nanos": verdicts.money_nanos,
        "judge_version": np.full(len(clock), judge_version, np.uint64),
    }
    return columns if live is None else {name: values[live] for name, values in columns.items()}


def _texts(hash_column: str, texts: Any, decoded: Decoded, rows: I64) -> Columns:
    hashes: U64 = getattr(decoded.columns, hash_column)[rows]
    return {hash_column: hashes, "text": _objects(texts(decoded, rows.tolist()))}


def _objects(values: list[bytes]) -> Any:
    return np.fromiter(values, object, len(values))
