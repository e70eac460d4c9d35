"""A ledger entry as a row of the table `ledger`, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from adledger.schemas.classes import CLASS_NAMES, Class
from adledger.sinks.row_checksum import row_checksum
from adledger.sinks.sink import Columns, LedgerEntry, Money, OffsetRange


def ledger_columns(entry: LedgerEntry) -> Columns:
    """Return the entry as columns of one row for `insert("ledger", ...)`; lane and batch number come from the stamp."""
    return {
        "epoch": [entry.epoch.encode()],
        "range_topic": [[r.topic for r in entry.ranges]],
        "range_start": [[r.start for r in entry.ranges]],
        "range_end": [[r.end for r in entry.ranges]],
        "range_leader_epoch": [list(entry.leader_epochs)],
        "cut_time": [entry.cut_time],
        "cut_topic": [entry.cut_topic],
        "cut_offset": [entry.cut_offset],
        "clock_before": [entry.clock_before],
        "clock_after": [entry.clock_after],
        "records_received": [entry.records_received],
        **{name: [entry.counts.get(c, 0)] for c, name in CLASS_NAMES.items()},
        "money.class_code": [[m.class_code for m in entry.money]],
        "money.currency_code": [[m.currency_code for m in entry.money]],
        "money.records": [[m.records for m in entry.money]],
        "money.money_nanos": [[m.money_nanos for m in entry.money]],
        "judge_version": [entry.judge_version],
        "rollup_rows": [entry.rollup_rows],
        "events_digest": [entry.events_digest],
        "dead_letters_digest": [entry.dead_letters_digest],
        "digest_definition": [entry.digest_definition],
        "seal": [row_checksum(entry)],
    }


def ledger_entry(row: Mapping[str, Any]) -> LedgerEntry:
    """Return the entry of a row of `ledger` (column name -> value; times as integers of ms, epoch as bytes).

    Classes without records are left out of `counts`.
    """
    return LedgerEntry(
        lane=int(row["lane"]),
        batch_no=int(row["batch_no"]),
        epoch=bytes(row["epoch"]).decode(),
        ranges=tuple(OffsetRange(*r) for r in _rows(row, "range_topic", "range_start", "range_end")),
        cut_time=int(row["cut_time"]),
        cut_topic=int(row["cut_topic"]),
        cut_offset=int(row["cut_offset"]),
        clock_before=int(row["clock_before"]),
        clock_after=int(row["clock_after"]),
        records_received=int(row["records_received"]),
        counts={int(c): n for c in Class if (n := int(row[CLASS_NAMES[c]]))},
        money=tuple(
            Money(*m)
            for m in _rows(
                row, "money.class_code", "money.currency_code", "money.records", "money.money_nanos"
            )
        ),
        judge_version=int(row["judge_version"]),
        rollup_rows=int(row["rollup_rows"]),
        events_digest=int(row["events_digest"]),
        dead_letters_digest=int(row["dead_letters_digest"]),
        leader_epochs=tuple(int(epoch) for epoch in row["range_leader_epoch"]),
        digest_definition=int(row["digest_definition"]),
    )


def _rows(row: Mapping[str, Any], *arrays: str) -> Sequence[tuple[int, ...]]:
    return [tuple(int(v) for v in values) for values in zip(*(row[name] for name in arrays), strict=True)]
