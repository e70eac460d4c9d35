"""The checksum of a ledger row: a hash of every figure in it, so that a figure altered by hand is noticed."""

import orjson
import xxhash

from adledger.schemas.digests import FIRST
from adledger.sinks.sink import LedgerEntry


def row_checksum(entry: LedgerEntry) -> int:
    """Return the hash of an entry, 0 <= checksum < 2^64. Classes without records count as absent.

    Missing leader epochs count as absent too, and so does the first digest definition: rows of a release without them keep
    their checksum.
    """
    figures = [
        [entry.lane, entry.batch_no, entry.epoch],
        [[r.topic, r.start, r.end] for r in entry.ranges],
        [entry.cut_time, entry.cut_topic, entry.cut_offset, entry.clock_before, entry.clock_after],
        [entry.records_received, sorted([int(code), n] for code, n in entry.counts.items() if n)],
        [[m.class_code, m.currency_code, m.records, m.money_nanos] for m in entry.money],
        [entry.judge_version, entry.rollup_rows, entry.events_digest, entry.dead_letters_digest],
        *([entry.leader_epochs] if entry.leader_epochs else []),
        *([{"digests": entry.digest_definition}] if entry.digest_definition != FIRST else []),
    ]
    return xxhash.xxh64_intdigest(orjson.dumps(figures))
