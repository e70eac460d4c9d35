-- ledger: one row for each batch that is done: what it was made of, and what became of it.
--
-- Conservation: records_received = billable + duplicate + givt + sivt + expired + malformed. `lost` counts offsets
-- that an operator gave up. range_* are parallel arrays, offsets [start, end) of a topic; so are money.*.
CREATE TABLE IF NOT EXISTS {database}.ledger {on_cluster}
(
    lane UInt16,
    batch_no UInt64,
    send_by UInt32,
    epoch String COMMENT 'topic ids and partition count',
    range_topic Array(UInt8),
    range_start Array(Int64),
    range_end Array(Int64),
    cut_time DateTime64(3, 'UTC'),
    cut_topic UInt8,
    cut_offset Int64,
    clock_before DateTime64(3, 'UTC'),
    clock_after DateTime64(3, 'UTC'),
    records_received UInt64,
    billable UInt64,
    duplicate UInt64,
    givt UInt64,
    sivt UInt64,
    expired UInt64,
    malformed UInt64,
    lost UInt64,
    money Nested(class_code UInt8, currency_code UInt16, records UInt64, money_nanos Int64),
    judge_version UInt64,
    rollup_rows UInt64,
    events_digest UInt64 COMMENT 'of the rows written into events; adledger ledger check compares',
    dead_letters_digest UInt64,
    seal UInt64 COMMENT 'hash of this row',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'for people; nothing reads it',

    CONSTRAINT in_time CHECK toUnixTimestamp(nowInBlock()) <= send_by
)
ENGINE = {merge_tree}
PARTITION BY toYYYYMMDD(clock_after)
ORDER BY (lane, batch_no)
SETTINGS
    fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
    min_age_to_force_merge_seconds = 7200, min_age_to_force_merge_on_partition_only = 1;

-- with a cluster only
CREATE TABLE IF NOT EXISTS {database}.ledger_all {on_cluster} AS {database}.ledger
ENGINE = Distributed('{cluster}', '{database}', 'ledger');
