"""What a lane has fetched and not yet put into a batch: it decides what to fetch next, and cuts batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adledger.pipeline.errors import UnreadableBatch
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.records.encoded import Fetched
from adledger.pipeline.stages.merge import Cut, CutPosition, OrderedRecords, Pending, cut
from adledger.pipeline.stages.walk import walk
from adledger.sinks.sink import OffsetRange


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is closed (settings of the same names)."""

    rows_max: int
    bytes_max: int
    age_ms_max: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch's records, its ranges, and the position at which it is cut."""

    records: OrderedRecords
    ranges: tuple[OffsetRange, ...]
    position: CutPosition
    clock_before: int

    @property
    def clock_after(self) -> int:
        """The watermark after the batch: its last record's or, without records, its position's."""
        clock = self.records.clock
        return int(clock[-1]) if len(clock) else self.position.time


@dataclass(slots=True)
class _Topic:
    """One topic's part: `start` is where the next batch begins, `position` where the next fetch does."""

    start: int
    position: int
    drained: bool = False
    parts: list[RecordRefs] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)  # bytes of memory a row, by part
    rows: int = 0
    size: float = 0

    def refs(self) -> RecordRefs:
        return RecordRefs.concat(self.parts)

    def add(self, refs: RecordRefs, size: int) -> None:
        """Add records that hold `size` bytes of memory, including keys and headers, which batches do not count."""
        self.parts.append(refs)
        self.sizes.append(size / len(refs))
        self.rows += len(refs)
        self.size += size

    def drop(self, count: int) -> None:
        """Drop the first `count` records, and the buffers that only they used."""
        while count:
            part, size = self.parts.pop(0), self.sizes.pop(0)
            if len(part) > count:
                self.parts.insert(0, part.take(slice(count, None)))
                self.sizes.insert(0, size)
            used = min(count, len(part))
            self.rows -= used
            self.size -= used * size
            count -= used


class LaneBuffer:
    """Fetched records of one lane, bounded: a topic that holds a full batch is not fetched."""

    def __init__(self, starts: Mapping[int, int], limits: BatchLimits) -> None:
        """Begin each topic (by index) at its offset."""
        self._limits = limits
        self._topics = [_Topic(starts[t], starts[t]) for t in range(len(starts))]
        self._unreadable: UnreadableBatch | None = None

    def wanted(self) -> dict[int, int]:
        """Return topic -> position of what to fetch: every topic that can be read and does not hold a full batch already."""
        return {
            t: topic.position
            for t, topic in enumerate(self._topics)
            if not self._full(topic) and (self._unreadable is None or self._unreadable.topic != t)
        }

    def end_at(self, unreadable: UnreadableBatch) -> None:
        """Fetch no more of a topic that can't be read any further now; what precedes can be cut."""
        self._unreadable = unreadable
        self._topics[unreadable.topic].drained = False

    @property
    def ends_soon(self) -> bool:
        """Whether a topic can't be read any further."""
        return self._unreadable is not None

    def check(self) -> None:
        """Raise UnreadableBatch if everything that precedes it is cut."""
        if self._unreadable is not None and not self._topics[self._unreadable.topic].rows:
            raise self._unreadable

    def add(self, fetched: Sequence[Fetched]) -> None:
        """Add fetched records."""
        for f in fetched:
            topic = self._topics[f.topic]
            assert f.position == topic.position, "a fetch goes on where the one before ended"
            refs = walk(f)
            if len(refs):
                topic.add(refs, sum(batch.size for batch in f.batches))
            topic.position = f.next_offset
            topic.drained = f.drained

    @property
    def rows(self) -> int:
        """Buffered records."""
        return sum(t.rows for t in self._topics)

    @property
    def full(self) -> bool:
        """Whether there is a batch by rows or bytes."""
        return any(self._full(t) for t in self._topics) or (
            self.rows >= self._limits.rows_max or sum(t.size for t in self._topics) >= self._limits.bytes_max
        )

    @property
    def drained(self) -> bool:
        """Whether every topic was at its end when last fetched."""
        return all(t.drained for t in self._topics)

    def positions(self) -> dict[int, int]:
        """Return topic -> where the next batch begins."""
        return {t: topic.start for t, topic in enumerate(self._topics)}

    def cut(self, clock_before: int) -> Batch | None:
        """Return the next batch and drop its records, or None if more must be fetched first.

        Where only offsets without records remain (control records, gaps), that is a batch of no records.
        """
        found = cut(
            [Pending(t.refs(), t.drained) for t in self._topics],
            clock_before, self._limits.rows_max, self._limits.bytes_max,
        )  # fmt: skip
        if found is None:
            if self.rows or not self.drained or all(t.start == t.position for t in self._topics):
                return None
            found = Cut((0,) * len(self._topics), OrderedRecords.none(), CutPosition(clock_before, 0, -1))
        for topic, taken in zip(self._topics, found.taken, strict=True):
            topic.drop(taken)
        return Batch(found.records, self._advance(), found.position, clock_before)

    def idle(self, clock_before: int, clock_after: int) -> Batch:
        """Return an empty batch, which advances the watermark, and positions past offsets without records."""
        assert not self.rows, "an idle lane holds no records"
        return Batch(OrderedRecords.none(), self._advance(), CutPosition(clock_after, 0, -1), clock_before)

    def _advance(self) -> tuple[OffsetRange, ...]:
        ranges = []
        for t, topic in enumerate(self._topics):
            end = int(topic.parts[0].offset[0]) if topic.parts else topic.position
            ranges.append(OffsetRange(t, topic.start, end))
            topic.start = end
        return tuple(ranges)

    def _full(self, topic: _Topic) -> bool:
        return topic.rows >= self._limits.rows_max or topic.size >= self._limits.bytes_max
