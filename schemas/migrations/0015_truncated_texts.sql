-- User agents and pages that are longer than the contract allows are truncated, and flagged so; they were dead letters
-- before (docs/adr/0021-wire-contract.md). The flags are bits of `flags`; rows from before have neither.
ALTER TABLE {database}.events {on_cluster}
    ADD COLUMN IF NOT EXISTS user_agent_truncated Bool ALIAS bitTest(flags, 6) AFTER keyed_by_ip;
ALTER TABLE {database}.events {on_cluster}
    ADD COLUMN IF NOT EXISTS page_url_truncated Bool ALIAS bitTest(flags, 7) AFTER user_agent_truncated;

-- with a cluster only
ALTER TABLE {database}.events_all {on_cluster}
    ADD COLUMN IF NOT EXISTS user_agent_truncated Bool ALIAS bitTest(flags, 6) AFTER keyed_by_ip;

-- with a cluster only
ALTER TABLE {database}.events_all {on_cluster}
    ADD COLUMN IF NOT EXISTS page_url_truncated Bool ALIAS bitTest(flags, 7) AFTER user_agent_truncated;

-- The same view with the two flags, and v_events_of_ip, whose columns are those that v_events had when it was made.
CREATE OR REPLACE VIEW {database}.v_events {on_cluster} AS
WITH
    (SELECT (groupArray(version), groupArray(bits)) FROM (
        SELECT version, any(enforced) AS bits FROM {database}.judges GROUP BY version
        UNION ALL SELECT 0, 0)) AS judged,
    ['MISROUTED', 'DUPLICATE_CONFLICT', 'UA_BLANK', 'UA_KNOWN_BOT', 'UA_NON_BROWSER', 'IP_DATACENTER', 'IP_RESERVED',
     'CRAWLER_IMPOSTOR', 'PREFETCH', 'TEST_TRAFFIC', 'INVALID_PLACEMENT', 'UNKNOWN_PUBLISHER', 'PUBLISHER_SUSPENDED',
     'CLICK_NO_IMPRESSION', 'CLICK_TOO_FAST', 'CLICK_TOO_LATE', 'DOUBLE_CLICK', 'REPEAT_CLICK', 'CLICK_MISMATCH',
     'USER_VELOCITY', 'USER_MANY_IPS', 'PERIODIC'] AS names,
    [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 37, 48, 49, 50] AS bits
SELECT
    e.event_type AS event_type,
    e.event_time AS event_time,
    e.publisher_id AS publisher_id,
    e.site_id AS site_id,
    e.campaign_id AS campaign_id,
    e.creative_id AS creative_id,
    e.advertiser_id AS advertiser_id,
    e.placement_id AS placement_id,
    e.class AS class,
    if(bitAnd(e.reasons, transform(e.judge_version, judged.1, judged.2, toUInt64(0))) = 0, '', transform(
        bitPositionsToArray(bitAnd(e.reasons, transform(e.judge_version, judged.1, judged.2, toUInt64(0))))[1],
        bits, names, 'unknown')) AS primary_reason,
    arrayMap(bit -> transform(bit, bits, names, concat('BIT_', toString(bit))), bitPositionsToArray(e.reasons))
        AS reasons,
    arrayMap(bit -> transform(bit, bits, names, concat('BIT_', toString(bit))), bitPositionsToArray(bitAnd(
        e.reasons, bitNot(bitOr(transform(e.judge_version, judged.1, judged.2, toUInt64(0)), toUInt64(3))))))
        AS hints,
    toInt128(e.money_nanos) * toDecimal128('0.000000001', 9) AS money,
    e.currency AS currency,
    e.price_micros AS price_micros,
    e.country AS country,
    e.ip AS ip,
    e.width AS width,
    e.height AS height,
    e.is_prefetch AS is_prefetch,
    e.is_test AS is_test,
    e.misrouted AS misrouted,
    u.text AS user_agent,
    e.user_agent_truncated AS user_agent_truncated,
    p.text AS page_url,
    e.page_url_truncated AS page_url_truncated,
    e.id_hash AS id_hash,
    e.user_hash AS user_hash,
    e.impression_hash AS impression_hash,
    e.ua_hash AS ua_hash,
    e.page_hash AS page_hash,
    e.ip_hi AS ip_hi,
    e.ip_lo AS ip_lo,
    e.log_time AS log_time,
    e.lane_clock AS lane_clock,
    e.lane AS lane,
    e.batch_no AS batch_no,
    e.topic AS topic,
    e.offset AS offset,
    e.judge_version AS judge_version
FROM {database}.events{all} AS e
GLOBAL ANY LEFT JOIN {database}.user_agents{all} AS u ON e.ua_hash = u.ua_hash
GLOBAL ANY LEFT JOIN {database}.pages{all} AS p ON e.page_hash = p.page_hash
SETTINGS join_algorithm = 'full_sorting_merge';

-- v_events_of_ip(ip = '203.0.113.7'): by address, through the index on its low half.
CREATE OR REPLACE VIEW {database}.v_events_of_ip {on_cluster} AS
SELECT * FROM {database}.v_events
WHERE ip_lo = reinterpretAsUInt64(reverse(substring(IPv6StringToNum(toString(toIPv6({ip:String}))), 9, 8)))
    AND ip_hi = reinterpretAsUInt64(reverse(substring(IPv6StringToNum(toString(toIPv6({ip:String}))), 1, 8)));
