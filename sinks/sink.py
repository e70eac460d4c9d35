"""What a lane needs from ClickHouse. The native client and the in-memory fake implement it and pass one contract suite.

Rows go in by table, as columns (numpy arrays; object arrays or lists for strings and for arrays of a few rows), each
insert with its `Stamp`. Every table that the protocol writes has the columns `lane, batch_no, send_by` and the
constraint `nowInBlock() <= send_by`, so that the server refuses a block that arrives too late, whichever worker sent it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from adledger.pipeline.records.columns import EventColumns
from adledger.schemas.digests import FIRST

Columns = Mapping[str, Any]
"""Column name -> values, all of one length."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every row of an insert carries: lane, batch number, and the last server second in which it may arrive."""

    lane: int
    batch_no: int
    send_by: int


@dataclass(frozen=True, slots=True)
class Money:
    """Records and money of one class and currency."""

    class_code: int
    currency_code: int
    records: int
    money_nanos: int


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Offsets [start, end) of one topic, by index."""

    topic: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One completed batch. `counts` has records by class code, `money` what they are worth.

    The digests (adledger.pipeline.stages.digest) are of the rows that the batch wrote into `events` and `dead_letters`,
    over the columns of a numbered definition (adledger.schemas.digests): the first one in rows that name none.
    `leader_epochs` are those of the record batches before each range's end (-1: unknown). There are none in a log without
    leaders, and in rows of a release that did not store them.
    """

    lane: int
    batch_no: int
    epoch: str
    ranges: tuple[OffsetRange, ...]
    cut_time: int  # the position: log time (ms), topic index, offset
    cut_topic: int
    cut_offset: int
    clock_before: int  # watermark (ms) before and after the batch
    clock_after: int
    records_received: int
    counts: Mapping[int, int]
    money: tuple[Money, ...]
    judge_version: int
    rollup_rows: int
    events_digest: int
    dead_letters_digest: int
    leader_epochs: tuple[int, ...] = ()
    digest_definition: int = FIRST


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """The event rows of one batch as stored in `events`, in lane order (topic index, offset as stored)."""

    topic: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    log_time: npt.NDArray[np.int64]
    lane_clock: npt.NDArray[np.int64]
    class_code: npt.NDArray[np.uint8]
    reasons: npt.NDArray[np.uint64]
    judge_version: npt.NDArray[np.uint64]
    columns: EventColumns


@dataclass(frozen=True, slots=True)
class StoredReasons:
    """Why the records behind a batch's rows of `dead_letters` are malformed, by topic index and offset as stored."""

    topic: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    reason_code: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Identities:
    """A block of first-of-their-key events for the dedupe state: key, source, fingerprint, watermark (ms).

    `expected` is the approximate number in all blocks together, 0 if unknown.
    """

    key: npt.NDArray[np.uint64]
    source: npt.NDArray[np.uint64]
    fingerprint: npt.NDArray[np.uint32]
    lane_clock: npt.NDArray[np.int64]
    expected: int = 0

    @property
    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The four columns, in this order."""
        return self.key, self.source, self.fingerprint, self.lane_clock


@dataclass(frozen=True, slots=True)
class RuleEvents:
    """A block of non-duplicate events for the rules' windows, in the lane's order, with the watermark (ms) at each.

    Only the columns in adledger.schemas.event_columns.WINDOW_COLUMNS must have rows; the others may be empty.
    """

    columns: EventColumns
    lane_clock: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LastRecord:
    """One record as the tables have it: its batch, offset, log time (ms), and for an event its id.

    The log must have the same record at that offset.
    """

    batch_no: int
    offset: int
    log_time: int
    id_hash: int | None


class BatchWriter(Protocol):
    """Writing, with a deadline."""

    async def server_time(self) -> int:
        """Return the server's clock, whole seconds since the epoch. Raises SinkUnavailable, SinkError."""

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        """Insert one block into one partition; returns when it is durable.

        Raises SinkUnavailable (nothing was sent), InsertRefused (`late` if it missed its deadline),
        InsertUnknown (sent, no answer). After any of the three the batch is in doubt.
        """

    async def insert_texts(self, table: str, hashes: Columns) -> None:
        """Insert distinct strings (`user_agents`, `pages`): idempotent, outside the protocol."""

    async def quiesce(self, lane: int) -> None:
        """Return once no insert of this lane runs on the server; those that keep running are killed."""


class LaneStore(Protocol):
    """Reading back how far a lane is: the tables are the state."""

    async def ledger_end(self, lane: int) -> LedgerEntry | None:
        """Return the lane's last ledger entry, or None."""

    async def last_batches(self, lane: int, from_batch_no: int) -> Mapping[str, Sequence[int]]:
        """Return table -> the batch numbers >= from_batch_no that it holds rows of (ascending)."""


class BatchStore(Protocol):
    """Reading back one batch, which may be in doubt."""

    async def batch_rows(self, lane: int, batch_no: int) -> Mapping[str, int]:
        """Return table -> rows of that batch, for every table that the protocol writes."""

    async def stored_events(self, lane: int, batch_no: int) -> StoredEvents:
        """Return the event rows of one batch."""

    async def stored_reasons(self, lane: int, batch_no: int) -> StoredReasons:
        """Return the reasons of one batch's dead letters."""


class StateStore(Protocol):
    """Reading back the dedupe state, the rules' windows, and the record that identifies the log."""

    def identities(self, lane: int, clock_from: int, before_batch_no: int) -> AsyncIterator[Identities]:
        """Yield the first event of each key (class not duplicate), in any order.

        Those with lane_clock >= clock_from (ms) and batch_no < before_batch_no.
        """

    def rule_events(self, lane: int, clock_from: int, before_batch_no: int) -> AsyncIterator[RuleEvents]:
        """Yield the same events, exactly in the lane's order: by batch, watermark, topic and offset."""

    async def last_record(
        self, lane: int, topic: int, before_batch_no: int, clock_from: int
    ) -> LastRecord | None:
        """Return the last record of a topic before a batch, in the epoch of the lane's last ledger row.

        None if there is none with a watermark >= clock_from (ms), after the offsets that were last given up.
        """


class Sink(BatchWriter, LaneStore, BatchStore, StateStore, Protocol):
    """ClickHouse as a lane uses it."""
