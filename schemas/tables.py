"""The columns that workers write, table by table; the SQL in `migrations/` must match (a test compares them).

`lane`, `batch_no`, `send_by` (the stamp) are in every protocol table; the sink adds them.
Types are numpy's: "O" is bytes, and "[u1]" a list of them in each row.
"""

from adledger.schemas.event_columns import EVENT_DTYPES

PROTOCOL_TABLES = ("events", "dead_letters", "rollup_minute", "ledger")
"""Written under the protocol, in this order; the ledger row is last."""

DISK_FREE_BYTES_MIN = 256 * 1024 * 1024
"""A table refuses inserts when its disk has less free space than this (set by the migrations): room for inserts under way."""

STAMP_COLUMNS = {"lane": "u2", "batch_no": "u8", "send_by": "u4"}

EVENTS_EXTRA = {
    "topic": "u1",
    "offset": "i8",
    "log_time": "i8",
    "lane_clock": "i8",
    "class_code": "u1",
    "reasons": "u8",
    "money_nanos": "i8",
    "judge_version": "u8",
}
"""Columns of `events` beside those of adledger.schemas.event_columns.EVENT_DTYPES."""

ROLLUP_MINUTE = {
    "publisher_id": "u4",
    "minute": "u4",  # seconds since the epoch, start of the minute of event_time
    "event_type_code": "u1",
    "class_code": "u1",
    "currency_code": "u2",
    "after_close": "u1",  # 1: the events came after their period had closed
    "records": "u4",
    "money_nanos": "i8",
    "clock_day": "u4",  # seconds since the epoch, start of the day of the batch's watermark: the partition
}

DEAD_LETTERS = {
    "topic": "u1",
    "offset": "i8",
    "log_time": "i8",
    "lane_clock": "i8",
    "reason_code": "u1",  # adledger.schemas.wire.Malformed
    "key": "O",
    "value": "O",
    "records": "u4",  # 1; of a batch that can't be decoded the offsets that its header covers
}

LEDGER = {
    "epoch": "O",
    "range_topic": "[u1]",
    "range_start": "[i8]",
    "range_end": "[i8]",
    "range_leader_epoch": "[i4]",  # of the record batch before range_end; [] where the log has none
    "cut_time": "i8",
    "cut_topic": "u1",
    "cut_offset": "i8",
    "clock_before": "i8",
    "clock_after": "i8",
    "records_received": "u8",
    "billable": "u8",  # records by class, under the names of adledger.schemas.classes.CLASS_NAMES
    "duplicate": "u8",
    "givt": "u8",
    "sivt": "u8",
    "expired": "u8",
    "malformed": "u8",
    "lost": "u8",
    "money.class_code": "[u1]",
    "money.currency_code": "[u2]",
    "money.records": "[u8]",
    "money.money_nanos": "[i8]",
    "judge_version": "u8",
    "rollup_rows": "u8",
    "events_digest": "u8",  # adledger.pipeline.stages.digest
    "dead_letters_digest": "u8",
    "digest_definition": "u1",  # adledger.schemas.digests
    "seal": "u8",  # adledger.sinks.row_checksum
}

PROTOCOL_COLUMNS: dict[str, dict[str, str]] = {
    "events": {**STAMP_COLUMNS, **EVENT_DTYPES, **EVENTS_EXTRA},
    "dead_letters": {**STAMP_COLUMNS, **DEAD_LETTERS},
    "rollup_minute": {**STAMP_COLUMNS, **ROLLUP_MINUTE},
    "ledger": {**STAMP_COLUMNS, **LEDGER},
}
"""Protocol table -> every column that is written to it."""

TEXT_COLUMNS: dict[str, dict[str, str]] = {
    "user_agents": {"ua_hash": "u8", "text": "O"},
    "pages": {"page_hash": "u8", "text": "O"},
}
"""Table of dimension strings -> its columns: the strings behind hashes, outside the protocol."""

PARTITION_CLOCKS = {
    "events": ("lane_clock", 86_400_000),
    "dead_letters": ("lane_clock", 86_400_000),
    "rollup_minute": ("clock_day", 86_400),
    "ledger": ("clock_after", 86_400_000),
}
"""Protocol table -> the column whose day is the partition, and how many of its units make a day."""
