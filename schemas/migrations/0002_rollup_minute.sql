-- rollup_minute: a row for each publisher, minute, event type, class and currency of one batch.
--
-- The rows of a batch stay rows of that batch: no summing merge, which would erase where they came from. Read it
-- through v_rollup_minute. The projection counts rows by batch, for recovery.
CREATE TABLE IF NOT EXISTS {database}.rollup_minute {on_cluster}
(
    lane UInt16,
    batch_no UInt64,
    send_by UInt32,
    publisher_id UInt32,
    minute DateTime('UTC') COMMENT 'of event_time',
    event_type_code UInt8,
    class_code UInt8,
    currency_code UInt16,
    records UInt32,
    money_nanos Int64 COMMENT 'sum as sum(toInt128(money_nanos))',
    clock_day DateTime('UTC') COMMENT 'day of the batch''s lane clock',

    event_type Enum8('impression' = 1, 'click' = 2) ALIAS event_type_code,
    class Enum8('billable' = 1, 'duplicate' = 2, 'givt' = 3, 'sivt' = 4, 'expired' = 5, 'malformed' = 6, 'lost' = 7)
        ALIAS class_code,
    currency String ALIAS if(currency_code = 0, '', char(
        65 + intDiv(currency_code - 1, 676), 65 + intDiv(currency_code - 1, 26) % 26, 65 + (currency_code - 1) % 26)),

    PROJECTION per_batch (SELECT lane, batch_no, count() GROUP BY lane, batch_no),
    CONSTRAINT in_time CHECK toUnixTimestamp(nowInBlock()) <= send_by
)
ENGINE = {merge_tree}
PARTITION BY toYYYYMMDD(clock_day)
ORDER BY (publisher_id, minute)
SETTINGS
    fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
    min_age_to_force_merge_seconds = 7200, min_age_to_force_merge_on_partition_only = 1,
    lightweight_mutation_projection_mode = 'rebuild';

-- with a cluster only
CREATE TABLE IF NOT EXISTS {database}.rollup_minute_all {on_cluster} AS {database}.rollup_minute
ENGINE = Distributed('{cluster}', '{database}', 'rollup_minute');
