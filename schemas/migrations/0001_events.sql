-- events: one row for each event that was received and could be decoded, whatever its class.
--
-- Stored columns are numbers, so that writing costs no Python for each row; the names that people use are ALIAS
-- columns, computed when read. Ordered for analysts by publisher and time. The projection holds the same columns in
-- the lane's order, written atomically with the part: recovery, rebuild and replay read it (55 of 109 bytes an event
-- once merged). Codecs are the server's default: fresh parts LZ4, merged parts what its <compression> says; T64 and
-- Delta on the columns saved 2 % and cost 15 % of the insert, ZSTD at insert cost 75 %.
--
-- The bloom filters (3 x 1.6 bytes an event) answer look-ups by id, user or address; the sink leaves them out of
-- inserts (a quarter of its CPU) and merges build them.
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
    offset Int64,
    log_time DateTime64(3, 'UTC'),
    lane_clock DateTime64(3, 'UTC') COMMENT 'running maximum of log_time in the lane',

    event_type_code UInt8,
    event_time DateTime64(3, 'UTC'),
    publisher_id UInt32,
    site_id UInt32,
    campaign_id UInt32,
    creative_id UInt32,
    advertiser_id UInt32,
    placement_id UInt32,
    id_hash UInt64 COMMENT 'xxHash64(event_id)',
    user_hash UInt64 COMMENT 'xxHash64(user_id)',
    ua_hash UInt64 COMMENT 'xxHash64(user_agent); the text is in user_agents',
    page_hash UInt64 COMMENT 'xxHash64(page_url); the text is in pages',
    impression_hash UInt64 COMMENT 'xxHash64(impression_id) of a click; 0 on impressions',
    ip_hi UInt64,
    ip_lo UInt64,
    price_micros UInt32,
    currency_code UInt16,
    country_code UInt16,
    width_px UInt16,
    height_px UInt16,
    flags UInt16,

    class_code UInt8,
    reasons UInt64 COMMENT 'bits; names in v_events',
    money_nanos Int64 COMMENT 'sum as sum(toInt128(money_nanos))',
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
    PROJECTION by_lane
    (
        SELECT
            lane, batch_no, send_by, topic, offset, log_time, lane_clock,
            event_type_code, event_time, publisher_id, site_id, campaign_id, creative_id, advertiser_id, placement_id,
            id_hash, user_hash, ua_hash, page_hash, impression_hash, ip_hi, ip_lo, price_micros, currency_code,
            country_code, width_px, height_px, flags, class_code, reasons, money_nanos, judge_version
        ORDER BY lane, batch_no, topic, offset
    ),
    CONSTRAINT in_time CHECK toUnixTimestamp(nowInBlock()) <= send_by
)
ENGINE = {merge_tree}
PARTITION BY toYYYYMMDD(lane_clock)
ORDER BY (publisher_id, event_time)
SETTINGS
    fsync_after_insert = 1, fsync_part_directory = 1,
    min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1,
    min_bytes_for_wide_part = 134217728, merge_selector_base = 10,
    min_age_to_force_merge_seconds = 7200, min_age_to_force_merge_on_partition_only = 1,
    lightweight_mutation_projection_mode = 'rebuild';

-- with a cluster only
CREATE TABLE IF NOT EXISTS {database}.events_all {on_cluster} AS {database}.events
ENGINE = Distributed('{cluster}', '{database}', 'events');
