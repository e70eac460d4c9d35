-- events, as a new database gets it; its columns are those of the migrations, which follow and leave the table as it is.
-- A database that is there keeps the order of 0001, since a table's order can't be changed: both are supported.
--
-- One row for each event that was received and could be decoded, whatever its class. Stored columns are numbers, so that
-- writing costs no Python for each row; the names that people use are ALIAS columns, computed when read.
--
-- Ordered by lane, batch and offset: recovery, rebuild, replay and closing read a lane's batches as they were written. All
-- columns are stored once, so an event takes half the room that two orders took (docs/adr/0023-events-in-the-lanes-order.md).
-- Analysts read by publisher through by_publisher: what v_reasons reads, in that order; _part_offset leads newer
-- servers (25.8 does not use it) to the other columns of few rows. A granule of a lane spans little time, so by_time finds a period.
--
-- Codecs: offsets and log times rise within a batch; ids of campaigns and amounts of money use few of their bits. Default is
-- the server's: fresh parts LZ4, merged parts what its <compression> says.
--
-- The bloom filters answer look-ups by id, user or address; the sink leaves them out of inserts (a quarter of its CPU) and
-- merges build them.
--
-- merge_selector_base: fewer merges, of more parts at once; server CPU of insert and merges 25 % less than with 5, the
-- default. A day that is over is merged once more, as a whole.
--
-- fsync at insert, and again when a merge replaces parts that were fsynced: OK means durable, and stays so.
CREATE TABLE IF NOT EXISTS {database}.events {on_cluster}
(
    lane UInt16,
    batch_no UInt64,
    send_by UInt32 COMMENT 'last second of the server''s clock that the row may arrive in',
    topic UInt8,
    offset Int64 CODEC(DoubleDelta, Default),
    log_time DateTime64(3, 'UTC') CODEC(DoubleDelta, Default),
    lane_clock DateTime64(3, 'UTC') COMMENT 'running maximum of log_time in the lane' CODEC(DoubleDelta, Default),

    event_type_code UInt8,
    event_time DateTime64(3, 'UTC') CODEC(T64, Default),
    publisher_id UInt32,
    site_id UInt32,
    campaign_id UInt32 CODEC(T64, Default),
    creative_id UInt32 CODEC(T64, Default),
    advertiser_id UInt32 CODEC(T64, Default),
    placement_id UInt32 CODEC(T64, Default),
    id_hash UInt64 COMMENT 'xxHash64(event_id)',
    user_hash UInt64 COMMENT 'xxHash64(user_id)',
    ua_hash UInt64 COMMENT 'xxHash64(user_agent); the text is in user_agents',
    page_hash UInt64 COMMENT 'xxHash64(page_url); the text is in pages',
    impression_hash UInt64 COMMENT 'xxHash64(impression_id) of a click; 0 on impressions',
    ip_hi UInt64,
    ip_lo UInt64,
    price_micros UInt32 CODEC(T64, Default),
    currency_code UInt16,
    country_code UInt16,
    width_px UInt16,
    height_px UInt16,
    flags UInt16 CODEC(T64, Default),

    class_code UInt8,
    reasons UInt64 COMMENT 'bits; names in v_events',
    money_nanos Int64 COMMENT 'sum as sum(toInt128(money_nanos))' CODEC(T64, Default),
    judge_version UInt64,

    event_type Enum8('impression' = 1, 'click' = 2) ALIAS event_type_code,
    class Enum8('billable' = 1, 'duplicate' = 2, 'givt' = 3, 'sivt' = 4, 'expired' = 5, 'malformed' = 6, 'lost' = 7)
        ALIAS class_code,
    currency String ALIAS if(currency_code = 0, '', char(
        65 + intDiv(currency_code - 1, 676), 65 + intDiv(currency_code - 1, 26) % 26, 65 + (currency_code - 1) % 26)),
    country String ALIAS if(country_code = 0, '', char(
        65 + intDiv(country_code - 1, 26), 65 + (country_code - 1) % 26)),
    ip IPv6 ALIAS toIPv6(IPv6NumToString(toFixedString(concat(
        reverse(reinterpretAsFixedString(ip_hi)), reverse(reinterpretAsFixedString(ip_lo))), 16))),
    width Nullable(UInt16) ALIAS if(bitTest(flags, 0), width_px, NULL),
    height Nullable(UInt16) ALIAS if(bitTest(flags, 1), height_px, NULL),
    is_prefetch Bool ALIAS bitTest(flags, 2),
    is_test Bool ALIAS bitTest(flags, 3),
    misrouted Bool ALIAS bitTest(flags, 4),
    keyed_by_ip Bool ALIAS bitTest(flags, 5),

    INDEX by_id id_hash TYPE bloom_filter(0.002) GRANULARITY 1,
    INDEX by_user user_hash TYPE bloom_filter(0.002) GRANULARITY 1,
    INDEX by_ip ip_lo TYPE bloom_filter(0.002) GRANULARITY 1,
    INDEX by_time event_time TYPE minmax GRANULARITY 1,
    PROJECTION by_publisher
    (
        SELECT
            publisher_id, event_time, event_type_code, currency_code, class_code, reasons, judge_version, money_nanos,
            _part_offset
        ORDER BY publisher_id, event_time
    ),
    CONSTRAINT in_time CHECK toUnixTimestamp(nowInBlock()) <= send_by
)
ENGINE = {merge_tree}
PARTITION BY toYYYYMMDD(lane_clock)
ORDER BY (lane, batch_no, topic, offset)
SETTINGS
    fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
    min_bytes_for_wide_part = 134217728, merge_selector_base = 10,
    min_age_to_force_merge_seconds = 7200, min_age_to_force_merge_on_partition_only = 1,
    lightweight_mutation_projection_mode = 'rebuild';
