"""A fetch that brings nothing: how it differs from one that was cut short, and where the log can be read again.

The last batch of an answer may be cut off, and a limit may be smaller than a batch: a larger limit brings it then. Where it
does not, the batch's length is false or its bytes are gone: brokers answer such a fetch without an error, and without
records, forever. So the tries are bounded, and the lane is told which offset can't be read, and where the next batch begins.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from adledger.pipeline.log.kafka.fetch_requests import FetchedPartition
from adledger.pipeline.records.batch_format import LENGTH_FIELD_END
from adledger.pipeline.retry import RetryPolicy
from adledger.schemas.wire import BATCH_BYTES_MAX

LIMIT_BYTES_MAX = 2 * BATCH_BYTES_MAX
"""The largest limit of a fetch, whatever a batch says of itself: twice what a batch may have decompressed."""

FOLLOWING_BYTES_MAX = 16 << 20
"""How much is fetched to see what follows a damaged batch: 16 of the largest batches that brokers accept by default."""

TRIES_MAX = 8
"""How often a fetch that brings nothing is sent: a broker that reads from remote storage may need some tries."""

LINEAR_PROBES = 64
"""How many offsets after one that can't be read are tried one by one, before the search takes larger steps."""

_LENGTH_AT, _LAST_DELTA_AT, _COUNTED_TO = 8, 23, 27


def stated_bytes(data: bytes, at: int = 0) -> int:
    """Return the size that the batch at `at` says that it has; 0 where its length is cut off."""
    if len(data) - at < LENGTH_FIELD_END:
        return 0
    return LENGTH_FIELD_END + int.from_bytes(data[at + _LENGTH_AT : at + LENGTH_FIELD_END], "big")


def whole_batch_bytes(data: bytes, at: int) -> int:
    """Return the size of the batch that begins at `at`; 0 where there is none, or it is cut off."""
    size = stated_bytes(data, at)
    return size if size <= len(data) - at else 0


def reaches(data: bytes, position: int) -> bool:
    """Return whether a whole batch of an answer goes beyond a position, as far as its header says; or can't say."""
    at = 0
    while size := whole_batch_bytes(data, at):
        if size < _COUNTED_TO:
            return True  # no header has so few bytes: decoding says so
        base = int.from_bytes(data[at : at + _LENGTH_AT], "big")
        last = int.from_bytes(data[at + _LAST_DELTA_AT : at + _COUNTED_TO], "big", signed=True)
        if base + last >= position:
            return True
        at += size
    return False


def brings_nothing(answer: FetchedPartition, position: int) -> bool:
    """Return whether a fetch at a position before the end does not bring the lane any further."""
    return position < answer.end and not reaches(answer.data, position)


async def fetch_alone(
    ask: Callable[[int], Awaitable[FetchedPartition]], position: int, bytes_max: int, retry: RetryPolicy
) -> FetchedPartition:
    """Return the first answer to `ask(bytes_max)` that goes beyond the position, or the TRIES_MAX-th, which does not.

    The limit is doubled, or raised to the size that the batch says that it has.
    """
    retry = replace(retry, attempts_max=TRIES_MAX)
    for attempt in retry.attempts():
        answer = await ask(bytes_max)
        if attempt.is_last or not brings_nothing(answer, position):
            return answer
        bytes_max = min(max(2 * bytes_max, stated_bytes(answer.data)), LIMIT_BYTES_MAX)
        await retry.pause(attempt)
    raise AssertionError("the last attempt returns")


def nothing_brought(answer: FetchedPartition, position: int) -> str:
    """Return what is wrong with an answer that brings nothing."""
    has, stated = len(answer.data), stated_bytes(answer.data)
    if stated > has:
        return f"the record batch at offset {position} says that it has {stated} bytes, and the broker returns {has}"
    return f"the log goes up to offset {answer.end}, and the broker returns no record batch that reaches offset {position}"


async def readable_from(holds: Callable[[int], Awaitable[bool]], start: int, end: int) -> int:
    """Return an offset after `start` where `holds` is true and before which it is not, or `end`.

    Brokers find a batch by their index, so behind a damaged one they find some again. It is the first such offset among
    the next LINEAR_PROBES; beyond those the search takes larger steps, about 2 * log2(end - start), and may miss offsets
    that can be read between others that can't.
    """
    near = min(start + LINEAR_PROBES, end - 1)
    for offset in range(start + 1, near + 1):
        if await holds(offset):
            return offset
    bad, step = near, 1
    while True:
        good = min(bad + step, end)
        if good == end or await holds(good):
            break
        bad, step = good, 2 * step
    while good - bad > 1:
        middle = (bad + good) // 2
        if await holds(middle):
            good = middle
        else:
            bad = middle
    return good
