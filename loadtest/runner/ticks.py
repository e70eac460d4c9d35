"""A chunk of generated records, cut into ticks: encoded batches that are due together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adledger.loadtest.runner.schedule import Schedule
from adledger.loadtest.traffic.generator import Chunk
from adledger.loadtest.traffic.kernels.shapes import I64
from adledger.pipeline.kernels.encode import NULL
from adledger.pipeline.log.record_block import RecordBlock, encode_batches

BATCH_BYTES_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class Packet:
    """Records of one partition as an encoded batch, ready to be sent. `topic` is its index."""

    topic: int
    partition: int
    count: int
    data: bytearray


@dataclass(frozen=True, slots=True)
class Tick:
    """What is sent together: all of the sender's records that are planned before `until_ms` and after the tick before."""

    until_ms: int
    count: int
    packets: Sequence[Packet]
    blocks: Sequence[tuple[int, int, RecordBlock]]


def cut(chunk: Chunk, schedule: Schedule, *, encode: bool) -> Iterator[Tick]:
    """Yield a chunk's ticks; the last ends with the chunk. Nothing planned from the schedule's end on is in them.

    With `encode` they hold packets, otherwise blocks. All of it is copied, since the chunk's memory is reused.
    """
    times = chunk.rows["log_time"]
    times = times[times < schedule.end_ms]
    if not len(times):
        return
    borders = _borders(int(times[0]), int(times[-1]), schedule)
    counts = np.diff(np.searchsorted(times, borders), prepend=0)
    places = [(t, p, block, _rows_until(block, borders)) for t, p, block in chunk.blocks]
    for k, (until, count) in enumerate(zip(borders.tolist(), counts.tolist(), strict=True)):
        if not count:
            continue
        packets: list[Packet] = []
        blocks: list[tuple[int, int, RecordBlock]] = []
        for topic, partition, block, ends in places:
            begin, end = (int(ends[k - 1]) if k else 0), int(ends[k])
            if begin == end:
                continue
            part = slice_block(block, begin, end)
            if encode:
                packets += _encoded(topic, partition, part)
            else:
                blocks.append((topic, partition, _copied(part)))
        yield Tick(until, count, packets, blocks)


def slice_block(block: RecordBlock, begin: int, end: int) -> RecordBlock:
    """Return rows [begin, end) of a block; only the ends are copied."""
    value_from, value_to, value_ends = _sliced(block.value_ends, begin, end)
    key_from, key_to, key_ends = _sliced(block.key_ends, begin, end)
    return RecordBlock(
        block.values[value_from:value_to],
        value_ends,
        block.keys[key_from:key_to],
        key_ends,
        block.log_times[begin:end],
    )


def _copied(block: RecordBlock) -> RecordBlock:
    return RecordBlock(
        block.values.copy(), block.value_ends, block.keys.copy(), block.key_ends, block.log_times.copy()
    )


def _borders(first_ms: int, last_ms: int, schedule: Schedule) -> I64:
    """Return the ends of the ticks between two planned times; the last is just behind the last record."""
    step = schedule.tick_planned_ms
    at = schedule.start_ms + ((first_ms - schedule.start_ms) // step + 1) * step
    return np.append(np.arange(at, last_ms + 1, step, dtype=np.int64), last_ms + 1)


def _rows_until(block: RecordBlock, borders: I64) -> I64:
    return np.searchsorted(block.log_times, borders)


def _sliced(ends: I64, begin: int, end: int) -> tuple[int, int, I64]:
    """Return where rows' bytes begin and end, and their ends counted from there."""
    at = int(ends[:begin].max(initial=0))
    own = ends[begin:end]
    to = int(max(own.max(initial=NULL), at))
    return at, to, np.where(own == NULL, NULL, own - at)


def _encoded(topic: int, partition: int, block: RecordBlock) -> Iterator[Packet]:
    for batch in encode_batches(block, 0, bytes_max=BATCH_BYTES_MAX):
        yield Packet(topic, partition, batch.next_offset - batch.base_offset, bytearray(batch.data))
