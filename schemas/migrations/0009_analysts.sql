-- What analysts read: v_events with each verdict's primary reason, v_reasons, v_duplicate_conflicts; and v_statement,
-- which publishers may read.
--
-- The primary reason is the lowest bit of `reasons` whose rule the judge version enforced (table judges). Money is exact:
-- sums of Int128 nanos, of one currency. Readers may see rows that no ledger row covers yet: what must be exact reads up
-- to the ledger.
--
-- Separation: v_statement rests on rollup_minute, in which no reason, rule or judge stands at all, so whoever may read
-- only these two can't learn which rule decided:
--     GRANT SELECT ON adledger.v_statement TO publisher_42;
--     GRANT SELECT ON adledger.rollup_minute TO publisher_42;
--     CREATE ROW POLICY publisher_42 ON adledger.rollup_minute USING publisher_id = 42 TO publisher_42;

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
    p.text AS page_url,
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

-- v_reasons: events and money of a quarter of an hour, by step and primary reason. For each publisher, period, type and
-- currency: gross = duplicate + expired + givt + sivt + net. Every event stands in two rows: in gross, and in its step.
CREATE OR REPLACE VIEW {database}.v_reasons {on_cluster} AS
WITH
    (SELECT (groupArray(version), groupArray(bits)) FROM (
        SELECT version, any(enforced) AS bits FROM {database}.judges GROUP BY version
        UNION ALL SELECT 0, 0)) AS judged,
    ['DUPLICATE_CONFLICT', 'UA_BLANK', 'UA_KNOWN_BOT', 'UA_NON_BROWSER', 'IP_DATACENTER', 'IP_RESERVED',
     'CRAWLER_IMPOSTOR', 'PREFETCH', 'TEST_TRAFFIC', 'INVALID_PLACEMENT', 'UNKNOWN_PUBLISHER', 'PUBLISHER_SUSPENDED',
     'CLICK_NO_IMPRESSION', 'CLICK_TOO_FAST', 'CLICK_TOO_LATE', 'DOUBLE_CLICK', 'REPEAT_CLICK', 'CLICK_MISMATCH',
     'USER_VELOCITY', 'USER_MANY_IPS', 'PERIODIC'] AS names,
    [1, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 37, 48, 49, 50] AS bits
SELECT
    publisher_id,
    toStartOfFifteenMinutes(event_time) AS period,
    event_type,
    currency,
    CAST(arrayJoin([toUInt8(1), transform(class_code, [2, 5, 3, 4, 1], [2, 3, 4, 5, 6], 7)]) AS Enum8(
        'gross' = 1, 'duplicate' = 2, 'expired' = 3, 'givt' = 4, 'sivt' = 5, 'net' = 6, 'unknown' = 7)) AS step,
    multiIf(
        step IN ('givt', 'sivt'), transform(
            bitPositionsToArray(bitAnd(reasons, transform(judge_version, judged.1, judged.2, toUInt64(0))))[1],
            bits, names, 'unknown'),
        step = 'duplicate' AND bitTest(reasons, 1), 'DUPLICATE_CONFLICT',
        '') AS reason,
    count() AS events,
    sum(toInt128(money_nanos)) * toDecimal128('0.000000001', 9) AS money
FROM {database}.events{all}
GROUP BY publisher_id, period, event_type, currency, step, reason;

-- v_duplicate_conflicts: a duplicate whose payload differs from its first's, beside that first. The first is the last
-- event of the same identity before it in its lane that is no duplicate itself.
CREATE OR REPLACE VIEW {database}.v_duplicate_conflicts {on_cluster} AS
SELECT
    d.event_type AS event_type,
    d.publisher_id AS publisher_id,
    d.id_hash AS id_hash,
    d.currency AS currency,
    d.price_micros AS price_micros,
    toInt128(d.money_nanos) * toDecimal128('0.000000001', 9) AS money,
    f.currency AS first_currency,
    f.price_micros AS first_price_micros,
    toInt128(f.money_nanos) * toDecimal128('0.000000001', 9) AS first_money,
    f.class AS first_class,
    arrayFilter(name -> name != '', [
        if(d.event_time != f.event_time, 'event_time', ''),
        if(d.site_id != f.site_id, 'site_id', ''),
        if(d.campaign_id != f.campaign_id, 'campaign_id', ''),
        if(d.creative_id != f.creative_id, 'creative_id', ''),
        if(d.advertiser_id != f.advertiser_id, 'advertiser_id', ''),
        if(d.user_hash != f.user_hash, 'user_id', ''),
        if(d.price_micros != f.price_micros, 'price_micros', ''),
        if(d.currency != f.currency, 'currency', ''),
        if(d.impression_hash != f.impression_hash, 'impression_id', '')]) AS differs,
    d.event_time AS event_time,
    f.event_time AS first_event_time,
    d.log_time AS log_time,
    f.log_time AS first_log_time,
    d.lane AS lane,
    d.batch_no AS batch_no,
    d.topic AS topic,
    d.offset AS offset,
    f.batch_no AS first_batch_no,
    f.topic AS first_topic,
    f.offset AS first_offset
FROM (
    SELECT *, event_type, class, currency FROM {database}.events{all} WHERE class_code = 2 AND bitTest(reasons, 1)
) AS d
ASOF LEFT JOIN (
    SELECT *, event_type, class, currency FROM {database}.events{all}
    WHERE class_code != 2 AND id_hash GLOBAL IN (
        SELECT id_hash FROM {database}.events{all} WHERE class_code = 2 AND bitTest(reasons, 1))
) AS f
ON d.lane = f.lane AND d.id_hash = f.id_hash AND d.publisher_id = f.publisher_id
    AND d.event_type_code = f.event_type_code AND d.lane_clock >= f.lane_clock;

-- v_statement: what a publisher is told: classes, events and money, and never which rule.
CREATE OR REPLACE VIEW {database}.v_statement {on_cluster} AS
SELECT
    publisher_id,
    toStartOfFifteenMinutes(minute) AS period,
    event_type,
    currency,
    class,
    sum(records) AS events,
    sum(toInt128(money_nanos)) * toDecimal128('0.000000001', 9) AS money
FROM {database}.rollup_minute{all}
GROUP BY publisher_id, period, event_type, currency, class;
