-- Closing billing periods (docs/adr/0024-periods.md). Nothing in these tables is changed or removed: a period's final sums, and
-- the adjustments that follow, are rows of one attempt (`run_id`), and count once the attempt's row of `closings` is there,
-- which is written last. Of two attempts at one period, alike in every figure, the views take the earlier one.

-- closings: one attempt at closing one period, complete: which batches of which lanes are in its final sums, what was booked
-- in it, and digests of the rows that were written. Arrays of a lane are parallel to `lanes`.
CREATE TABLE IF NOT EXISTS {database}.closings {on_cluster}
(
    charge_period_start DateTime('UTC') COMMENT 'first second of the period; it has 15 minutes',
    run_id UUID COMMENT 'of the attempt, and of its rows in publisher_periods and adjustments',
    closed_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'the server''s clock',
    closes_at DateTime64(3, 'UTC') COMMENT 'the watermark that no event in time is past',
    books_begin DateTime('UTC') COMMENT 'the first period that has final sums; 1970: all, those before the first row are empty',
    partitions UInt16 COMMENT 'lanes of the log, as far as the included batches say',
    lanes Array(UInt16),
    included_batch Array(UInt64) COMMENT 'last batch whose events in time are in the final sums; 0: none',
    booked_batch Array(UInt64) COMMENT 'last batch whose late events are booked in this period or an earlier one; 0: none',
    included_clock Array(DateTime64(3, 'UTC')) COMMENT 'watermark after the included batch',
    left_out Array(String) COMMENT 'override_id of the operator override that leaves the lane out; empty: the lane is past the close',
    range_topic Array(Array(UInt8)) COMMENT 'of the included batch',
    range_end Array(Array(Int64)) COMMENT 'of the included batch: the offset after the last, parallel to range_topic',
    judge_versions Array(UInt64) COMMENT 'evaluator versions of the batches that were read',
    publisher_rows UInt64 COMMENT 'in publisher_periods',
    publisher_digest UInt64,
    adjustment_rows UInt64 COMMENT 'in adjustments',
    adjustment_digest UInt64,
    digest_definition UInt8 COMMENT 'how both digests are made',
    money Nested(class_code UInt8, currency_code UInt16, records UInt64, money_nanos Int128) COMMENT 'final sums',
    release String,
    author String MATERIALIZED currentUser() COMMENT 'ClickHouse user who wrote the row',

    charge_period_end DateTime('UTC') ALIAS charge_period_start + 900 COMMENT 'exclusive'
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY (charge_period_start, closed_at, run_id)
SETTINGS
    fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
    min_free_disk_bytes_to_perform_insert = 268435456;

-- publisher_periods: final sums of a publisher's period by event type, class and currency. Read v_publisher_periods: only it
-- leaves out attempts that were not completed. A partition is a day of periods, so that a closing reads its own day back; a
-- publisher's month is one or two granules of each day.
CREATE TABLE IF NOT EXISTS {database}.publisher_periods {on_cluster}
(
    publisher_id UInt32,
    charge_period_start DateTime('UTC') CODEC(DoubleDelta, Default),
    event_type_code UInt8,
    class_code UInt8,
    currency_code UInt16,
    records UInt64 CODEC(T64, Default),
    money_nanos Int128 COMMENT 'of the currency',
    run_id UUID,

    charge_period_end DateTime('UTC') ALIAS charge_period_start + 900 COMMENT 'exclusive',
    event_type Enum8('impression' = 1, 'click' = 2) ALIAS event_type_code,
    class Enum8('billable' = 1, 'duplicate' = 2, 'givt' = 3, 'sivt' = 4, 'expired' = 5, 'malformed' = 6, 'lost' = 7)
        ALIAS class_code,
    billing_currency String ALIAS if(currency_code = 0, '', char(
        65 + intDiv(currency_code - 1, 676), 65 + intDiv(currency_code - 1, 26) % 26, 65 + (currency_code - 1) % 26))
)
ENGINE = {merge_tree_of_all_shards}
PARTITION BY toYYYYMMDD(charge_period_start)
ORDER BY (publisher_id, charge_period_start, event_type_code, class_code, currency_code)
SETTINGS
    fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
    min_free_disk_bytes_to_perform_insert = 268435456;

-- adjustments: signed corrections of periods that were closed, each booked in the period in which it was found. Read
-- v_adjustments. The id is a hash of what the adjustment is of, so every attempt makes the same one.
CREATE TABLE IF NOT EXISTS {database}.adjustments {on_cluster}
(
    adjustment_id String COMMENT '32 hexadecimal digits',
    cause LowCardinality(String) COMMENT 'after_close: read after the period''s close; lane_left_out: in time, of a lane that an operator left out',
    billing_account_type Enum8('publisher' = 1, 'campaign' = 2),
    billing_account_id UInt32 COMMENT 'publisher_id or campaign_id',
    charge_period_start DateTime('UTC') COMMENT 'the period that is corrected',
    booked_period_start DateTime('UTC') COMMENT 'the period in whose statement it is',
    event_type_code UInt8,
    class_code UInt8,
    currency_code UInt16,
    records Int64,
    money_nanos Int128 COMMENT 'of the currency',
    run_id UUID,

    charge_class String ALIAS 'Correction',
    charge_period_end DateTime('UTC') ALIAS charge_period_start + 900 COMMENT 'exclusive',
    event_type Enum8('impression' = 1, 'click' = 2) ALIAS event_type_code,
    class Enum8('billable' = 1, 'duplicate' = 2, 'givt' = 3, 'sivt' = 4, 'expired' = 5, 'malformed' = 6, 'lost' = 7)
        ALIAS class_code,
    billing_currency String ALIAS if(currency_code = 0, '', char(
        65 + intDiv(currency_code - 1, 676), 65 + intDiv(currency_code - 1, 26) % 26, 65 + (currency_code - 1) % 26))
)
ENGINE = {merge_tree_of_all_shards}
PARTITION BY toYYYYMMDD(booked_period_start)
ORDER BY (billing_account_type, billing_account_id, charge_period_start, booked_period_start)
SETTINGS
    fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
    min_free_disk_bytes_to_perform_insert = 268435456;

-- period_overrides: lanes that an operator leaves out of periods which they hold open, written by `adledger periods
-- leave-out`. The server refuses a row that arrives late, so that whoever waits that long has seen all that were checked
-- before: docs/adr/0024-periods.md has the reasons. Of several for one lane and period the one that was checked first counts.
CREATE TABLE IF NOT EXISTS {database}.period_overrides {on_cluster}
(
    override_id String,
    lane UInt16,
    first_period_start DateTime('UTC'),
    last_period_start DateTime('UTC'),
    batch_no UInt64 COMMENT 'last batch of the lane that is in the final sums; 0: none',
    partitions UInt16 COMMENT 'lanes of the log when it was written',
    checked_at UInt32 COMMENT 'the server''s clock (seconds) before the ledger showed that the lane is not past the first period''s close',
    send_by UInt32 COMMENT 'last second of the server''s clock that the row may arrive in',
    reason String,
    author String,
    written_by String MATERIALIZED currentUser() COMMENT 'ClickHouse user who wrote the row',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),

    CONSTRAINT in_time CHECK toUnixTimestamp(nowInBlock()) <= send_by,
    CONSTRAINT soon CHECK send_by <= checked_at + 5,
    CONSTRAINT of_the_past CHECK toUnixTimestamp(last_period_start) + 900 < checked_at,
    CONSTRAINT whole_periods CHECK toUnixTimestamp(first_period_start) % 900 = 0 AND toUnixTimestamp(last_period_start) % 900 = 0
        AND first_period_start <= last_period_start
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY (lane, first_period_start, checked_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- period_books: with which period final sums begin. The first closer writes a row, under a deadline as period_overrides has
-- it; of several the one with the earliest proposed_at counts.
CREATE TABLE IF NOT EXISTS {database}.period_books {on_cluster}
(
    first_period_start DateTime('UTC') COMMENT 'the first period that is closed',
    books_begin DateTime('UTC') COMMENT '1970: earlier periods are in the books too, and have no final sums but empty ones; else the same',
    proposed_at UInt32 COMMENT 'the server''s clock (seconds)',
    send_by UInt32 COMMENT 'last second of the server''s clock that the row may arrive in',
    release String,
    written_by String MATERIALIZED currentUser() COMMENT 'ClickHouse user who wrote the row',

    CONSTRAINT in_time CHECK toUnixTimestamp(nowInBlock()) <= send_by,
    CONSTRAINT soon CHECK send_by <= proposed_at + 5,
    CONSTRAINT whole_periods CHECK toUnixTimestamp(first_period_start) % 900 = 0
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY (proposed_at, first_period_start, books_begin)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- v_closings: the attempt that counts, of each closed period.
CREATE OR REPLACE VIEW {database}.v_closings {on_cluster} AS
SELECT *, charge_period_end, author
FROM {database}.closings
WHERE (charge_period_start, closed_at, run_id) IN (
    SELECT charge_period_start, min(closed_at), argMin(run_id, (closed_at, run_id))
    FROM {database}.closings GROUP BY charge_period_start);

-- v_publisher_periods: final sums of closed periods. One currency a row: never add money of several.
CREATE OR REPLACE VIEW {database}.v_publisher_periods {on_cluster} AS
SELECT
    publisher_id,
    charge_period_start,
    charge_period_end,
    billing_currency,
    event_type,
    class,
    records,
    money_nanos * toDecimal128('0.000000001', 9) AS money,
    run_id
FROM {database}.publisher_periods
WHERE (charge_period_start, run_id) IN (
    SELECT charge_period_start, argMin(run_id, (closed_at, run_id)) FROM {database}.closings GROUP BY charge_period_start);

-- v_adjustments: what was booked after a period had closed.
CREATE OR REPLACE VIEW {database}.v_adjustments {on_cluster} AS
SELECT
    adjustment_id,
    cause,
    billing_account_type,
    billing_account_id,
    charge_period_start,
    charge_period_end,
    booked_period_start,
    charge_class,
    billing_currency,
    event_type,
    class,
    records,
    money_nanos * toDecimal128('0.000000001', 9) AS money,
    run_id
FROM {database}.adjustments
WHERE (booked_period_start, run_id) IN (
    SELECT charge_period_start, argMin(run_id, (closed_at, run_id)) FROM {database}.closings GROUP BY charge_period_start);

-- A closing reads the rollups of known batches: without this it would read its whole day.
ALTER TABLE {database}.rollup_minute {on_cluster} ADD PROJECTION IF NOT EXISTS by_batch
(
    SELECT lane, batch_no, publisher_id, minute, event_type_code, class_code, currency_code, after_close, records, money_nanos, clock_day
    ORDER BY lane, batch_no
);
