"""The columns that workers write, table by table; the SQL in `migrations/` must say the same (a test compares).

`lane`, `batch_no`, `send_by` (the stamp) stand in every protocol table and are added by the sink.
"""

PROTOCOL_TABLES = ("events", "dead_letters", "rollup_minute", "ledger")
"""Written under the protocol, in this order; the ledger row is last."""

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
"""Columns of `events` beside those of pipeline.stages.columns.EVENT_DTYPES."""

ROLLUP_MINUTE = {
    "publisher_id": "u4",
    "minute": "u4",  # seconds since the epoch, start of the minute of event_time
    "event_type_code": "u1",
    "class_code": "u1",
    "currency_code": "u2",
    "records": "u4",
    "money_nanos": "i8",
    "clock_day": "u4",  # seconds since the epoch, start of the day of the batch's lane clock: the partition
}

DEAD_LETTERS = {
    "topic": "u1",
    "offset": "i8",
    "log_time": "i8",
    "lane_clock": "i8",
    "reason_code": "u1",  # schemas.wire.Malformed
    "key": "O",
    "value": "O",
}
