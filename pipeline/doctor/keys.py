"""What the newest records of a topic say of the producers: keys, partitioners, malformed records. Pure.

A record belongs to the lane that murmur2 gives its `user_id` (its `ip`, as sent, where that is empty), which is also
its key. A record in another lane is MISROUTED: that lane counts it once, but a repeat of it may be in a different lane,
which does not know the first.
"""

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from adledger.pipeline.findings import Finding
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, bytes_at, decode
from adledger.pipeline.stages.plain_hashes import partition_of
from adledger.schemas.wire import Flag, Malformed

ERROR_SHARE = 0.01
"""From this share on, misrouted or malformed records are a producer's mistake; below it they are advice."""

NO_KEY, OTHER_KEY, CRC32, OTHER_PARTITIONER = "no key", "other key", "crc32", "other partitioner"

_MURMUR2 = (
    "partition by murmur2 of the key: partitioner=murmur2_random in librdkafka and all that is built on it (Python's "
    "confluent-kafka, Go, .NET, Node.js, PHP, Rust); Java's own default is right. Then let the topic run out, or write to "
    "new topics: records in a wrong partition stay there"
)
_KEY = "set each record's key to the bytes of its user_id, and to its ip, as sent, where user_id is empty"


@dataclass(slots=True)
class KeySample:
    """Counts over the newest records of one topic's partitions."""

    topic: str
    records: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    misrouted: Counter[str] = field(default_factory=Counter)
    key_fields: Counter[str] = field(default_factory=Counter)
    """Of records with another key: the field that it was, "" for none of theirs."""

    def add(self, refs: RecordRefs, context: DecodeContext) -> None:
        """Count the records of one partition (all of one topic), as a worker would decode them."""
        decoded = decode(refs, context)
        live = decoded.status == Malformed.OK
        self.records += len(refs)
        self.malformed.update(Malformed(int(status)).name.lower() for status in decoded.status[~live])
        misrouted = live & ((decoded.columns.flags >> Flag.MISROUTED & 1) == 1)
        for row in np.flatnonzero(misrouted):
            value = bytes_at(int(refs.value_addr[row]), int(refs.value_len[row]))
            key = bytes_at(int(refs.key_addr[row]), int(refs.key_len[row]))
            assert value is not None, "an event has a value"
            self._add_misrouted(orjson.loads(value), key, context)

    def _add_misrouted(self, event: dict[str, Any], key: bytes | None, context: DecodeContext) -> None:
        why = why_misrouted(event, key, context.lane, context.partitions)
        self.misrouted[why] += 1
        if why == OTHER_KEY:
            named = (name for name, value in event.items() if str(value).encode() == key)
            self.key_fields[next(named, "")] += 1


def why_misrouted(event: dict[str, Any], key: bytes | None, lane: int, partitions: int) -> str:
    """Return why an event is in the wrong lane: its key, else the partitioner."""
    if key is None:
        return NO_KEY
    if key != (event["user_id"] or event["ip"]).encode():
        return OTHER_KEY
    assert partition_of(key, partitions) != lane, "right key, right lane: not misrouted"
    return CRC32 if zlib.crc32(key) % partitions == lane else OTHER_PARTITIONER


def findings(sample: KeySample) -> Iterator[Finding]:
    """Yield what a sample says of the topic's producers."""
    if not sample.records:
        return
    wrong = sample.misrouted
    if wrong[NO_KEY]:
        yield _finding(sample, wrong[NO_KEY], "have no key: they lie in any lane", _KEY)
    if wrong[OTHER_KEY]:
        field_name, count = sample.key_fields.most_common(1)[0]
        named = f": {field_name}, most often" if field_name and count * 2 > wrong[OTHER_KEY] else ""
        yield _finding(sample, wrong[OTHER_KEY], f"have another key than their user{named}", _KEY)
    if strayed := wrong[CRC32] + wrong[OTHER_PARTITIONER]:
        # A right key in a wrong lane is in the lane of its CRC-32 by chance once in as many times as there are lanes.
        by_crc32 = wrong[CRC32] * 2 > strayed
        why = "by CRC-32 of it, librdkafka's default" if by_crc32 else "by neither murmur2 nor CRC-32 of it"
        yield _finding(sample, strayed, f"have the right key and lie in a wrong lane, {why}", _MURMUR2)
    if malformed := sample.malformed.total():
        reasons = ", ".join(f"{name} {count}" for name, count in sample.malformed.most_common(3))
        yield _finding(
            sample, malformed, f"are malformed ({reasons})",
            "adledger dead-letters shows what workers refused, with their bytes; fix the producer according to the contract (docs/events.md)",
        )  # fmt: skip


def _finding(sample: KeySample, count: int, what: str, remedy: str) -> Finding:
    share = count / sample.records
    return Finding(
        f"{sample.topic}: {count:,} of the newest {sample.records:,} records ({share:.2%}) {what}",
        remedy,
        advice=share < ERROR_SHARE,
    )
