"""The whole contract once more, one record at a time in plain Python: what a lane's records must add up to."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from adledger.pipeline.log.record_block import RecordBlock
from adledger.pipeline.stages.slow_path import DecodeContext, PlainEvent, decode_plain
from adledger.schemas.classes import Class
from adledger.schemas.wire import Flag, Malformed, currency_code

HOUR_MS = 3_600_000


class LogRecord(NamedTuple):
    """One record of a lane; sorts in log order."""

    log_time: int
    topic: int
    offset: int
    key: bytes | None
    value: bytes | None


class Counted(NamedTuple):
    """What a plain count found; the keys of `rollup` are those of adledger.loadtest.traffic.ground_truth.ROLLUP_KEY."""

    rollup: dict[tuple[int, int, int, int, int], tuple[int, int]]
    classes: Counter[tuple[int, int]]  # (lane, class)
    malformed: Counter[int]
    misrouted: Counter[int]  # lane
    conflicts: Counter[int]  # lane


def records_of(block: RecordBlock) -> Iterator[tuple[int, bytes | None, bytes | None]]:
    """Yield (log time, key, value) of a block."""
    at = {"keys": 0, "values": 0}

    def text(buffer: str, end: int) -> bytes | None:
        if end < 0:
            return None
        begin, at[buffer] = at[buffer], end
        return getattr(block, buffer)[begin:end].tobytes()

    for log_time, key_end, value_end in zip(
        block.log_times.tolist(), block.key_ends.tolist(), block.value_ends.tolist(), strict=True
    ):
        yield log_time, text("keys", key_end), text("values", value_end)


def count(
    lanes: dict[int, Iterable[LogRecord]], *, partitions: int, window_hours: int = 24, lateness_hours: int = 24,
    currency: str = "USD",
) -> Counted:  # fmt: skip
    """Classify every record of every lane, in log order."""
    found = Counted({}, Counter(), Counter(), Counter(), Counter())
    for lane, records in lanes.items():
        context = DecodeContext(lane, partitions, (1, 2), currency_code(currency))
        firsts: dict[tuple[int, int, int], tuple[int, tuple[object, ...]]] = {}
        clock = 0
        for record in sorted(records):
            clock = max(clock, record.log_time)
            event = decode_plain(record.value, record.key, record.topic + 1, record.log_time, context)
            if isinstance(event, Malformed):
                found.classes[lane, Class.MALFORMED] += 1
                found.malformed[event] += 1
                continue
            found.misrouted[lane] += event.flags >> Flag.MISROUTED & 1
            name = (event.event_type_code, event.publisher_id, event.id_hash)
            first = firsts.get(name)
            if first and clock - first[0] <= window_hours * HOUR_MS:
                verdict = Class.DUPLICATE
                found.conflicts[lane] += first[1] != _payload(event)
            else:
                firsts[name] = clock, _payload(event)
                expired = clock - event.event_time > lateness_hours * HOUR_MS
                verdict = Class.EXPIRED if expired else Class.BILLABLE
            found.classes[lane, verdict] += 1
            _add(found, event, verdict)
    return found


def _payload(event: PlainEvent) -> tuple[object, ...]:
    return (
        event.event_time, event.site_id, event.campaign_id, event.creative_id, event.advertiser_id, event.user_hash,
        event.price_micros, event.currency_code, event.impression_hash,
    )  # fmt: skip


def _add(found: Counted, event: PlainEvent, verdict: Class) -> None:
    minute = event.event_time // 60_000 * 60
    key = (event.publisher_id, minute, event.event_type_code, int(verdict), event.currency_code)
    records, money = found.rollup.get(key, (0, 0))
    found.rollup[key] = records + 1, money + event.price_micros * (1 if event.event_type_code == 1 else 1000)
