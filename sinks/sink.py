"""What a lane asks of ClickHouse. The native client and the in-memory fake implement it; one contract suite.

Rows go in by table, as columns (numpy arrays; object arrays or lists for texts and arrays of a few rows), each
insert with its `Stamp`. Every table that the protocol writes has the columns `lane, batch_no, send_by` and the
constraint `nowInBlock() <= send_by`, so that the server refuses a block that arrives too late, whichever worker sent it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from adledger.pipeline.records.columns import EventColumns

Columns = Mapping[str, Any]
"""Column name -> values, all of one length."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """In whose name rows are written: lane, batch number, and the last server second they may arrive in."""

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
    """One batch that is done. `counts` has records by class code, `money` what they are worth.

    The digests (adledger.pipeline.stages.digest) are of the rows that the batch wrote into `events` and `dead_letters`.
    `leader_epochs` are of the record batches before each range's end (-1: not known); none: of a log without leaders, or
    from a release that did not keep them.
    """

    lane: int
    batch_no: int
    epoch: str
    ranges: tuple[OffsetRange, ...]
    cut_time: int  # log time (ms) of the cut's place
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


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """The event rows of one batch as they stand in `events`, in lane order (topic index, offset as stored)."""

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

    `expected` is about how many there are in all blocks together, where that is known: 0 says nothing.
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

    `columns` has rows in adledger.schemas.event_columns.WINDOW_COLUMNS; the others may be empty.
    """

    columns: EventColumns
    lane_clock: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LastRecord:
    """What the tables know of one record: its batch, offset, log time (ms), and of an event its id.

    The log must hold the same.
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

        Raises SinkUnavailable (nothing was sent), InsertRefused (`late` where the deadline did it),
        InsertUnknown (sent, no answer). After any of the three the batch is in doubt.
        """

    async def insert_texts(self, table: str, hashes: Columns) -> None:
        """Insert distinct strings (`user_agents`, `pages`): idempotent, outside the protocol."""

    async def quiesce(self, lane: int) -> None:
        """Return when no insert of this lane is running on the server, killing what is left running."""


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
    """Reading back the dedupe state and the rules' windows, and what the log is known by."""

    def identities(self, lane: int, clock_from: int, before_batch_no: int) -> AsyncIterator[Identities]:
        """Yield the firsts (class not duplicate) with lane_clock >= clock_from (ms) and batch_no < the given, in any order."""

    def rule_events(self, lane: int, clock_from: int, before_batch_no: int) -> AsyncIterator[RuleEvents]:
        """Yield the same events, exactly in the lane's order: by batch, watermark, topic and offset."""

    async def last_record(
        self, lane: int, topic: int, before_batch_no: int, clock_from: int
    ) -> LastRecord | None:
        """Return the last record of a topic before a batch, in the epoch of the lane's last ledger row, after its last loss.

        None where there is none with a watermark >= clock_from (ms).
        """


class Sink(BatchWriter, LaneStore, BatchStore, StateStore, Protocol):
    """ClickHouse as a lane uses it."""
