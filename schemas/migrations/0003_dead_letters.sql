-- dead_letters: one malformed record, with its bytes. A null key or value is stored as an empty one.
CREATE TABLE IF NOT EXISTS {database}.dead_letters {on_cluster}
(
    lane UInt16,
    batch_no UInt64,
    send_by UInt32,
    topic UInt8,
    offset Int64,
    log_time DateTime64(3, 'UTC'),
    lane_clock DateTime64(3, 'UTC'),
    reason_code UInt8,
    key String CODEC(ZSTD(1)),
    value String CODEC(ZSTD(1)),

    reason Enum8(
        'ok' = 0, 'tombstone' = 1, 'too_large' = 2, 'not_json' = 3, 'too_deep' = 4, 'not_an_object' = 5,
        'repeated_key' = 6, 'missing_field' = 7, 'wrong_type' = 8, 'out_of_range' = 9, 'wrong_topic' = 10,
        'from_the_future' = 11, 'rejected_earlier' = 12) ALIAS reason_code,

    CONSTRAINT in_time CHECK toUnixTimestamp(nowInBlock()) <= send_by
)
ENGINE = {merge_tree}
PARTITION BY toYYYYMMDD(lane_clock)
ORDER BY (lane, batch_no, topic, offset)
SETTINGS
    fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
    min_age_to_force_merge_seconds = 7200, min_age_to_force_merge_on_partition_only = 1;

-- with a cluster only
CREATE TABLE IF NOT EXISTS {database}.dead_letters_all {on_cluster} AS {database}.dead_letters
ENGINE = Distributed('{cluster}', '{database}', 'dead_letters');
