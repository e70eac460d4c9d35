-- Views for people: names for numbers, texts for hashes, money as Decimal(38, 9) of its currency.
-- {all} is nothing on one server, and _all, the tables over all shards, on a cluster.
-- v_events joins by sorting: the texts are read in the order of their hashes, and only those of the events at hand. A
-- hash join would read all of them, and hold them in memory, for every query (5 million pages: 0.2 s against 0.04 s).

CREATE OR REPLACE VIEW {database}.v_events {on_cluster} AS
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
    arrayMap(bit -> transform(
        bit,
        [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 32, 33, 34, 35, 36, 37, 48, 49, 50],
        ['MISROUTED', 'DUPLICATE_CONFLICT', 'UA_BLANK', 'UA_KNOWN_BOT', 'UA_NON_BROWSER', 'IP_DATACENTER',
         'IP_RESERVED', 'CRAWLER_IMPOSTOR', 'PREFETCH', 'TEST_TRAFFIC', 'INVALID_PLACEMENT', 'UNKNOWN_PUBLISHER',
         'PUBLISHER_SUSPENDED', 'CLICK_NO_IMPRESSION', 'CLICK_TOO_FAST', 'CLICK_TOO_LATE', 'DOUBLE_CLICK',
         'REPEAT_CLICK', 'CLICK_MISMATCH', 'USER_VELOCITY', 'USER_MANY_IPS', 'PERIODIC'],
        concat('BIT_', toString(bit))), bitPositionsToArray(e.reasons)) AS reasons,
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

CREATE OR REPLACE VIEW {database}.v_rollup_minute {on_cluster} AS
SELECT
    publisher_id,
    minute,
    currency,
    sumIf(records, event_type_code = 1 AND class_code = 1) AS impressions,
    sumIf(records, event_type_code = 2 AND class_code = 1) AS clicks,
    clicks / nullIf(impressions, 0) AS ctr,
    sumIf(toInt128(money_nanos), class_code = 1) * toDecimal128('0.000000001', 9) AS money,
    sum(records) AS received,
    sumIf(records, class_code = 2) AS duplicates,
    sumIf(records, class_code = 3) AS givt,
    sumIf(records, class_code = 4) AS sivt,
    sumIf(records, class_code = 5) AS expired,
    sumIf(toInt128(money_nanos), class_code = 2) * toDecimal128('0.000000001', 9) AS duplicate_money,
    sumIf(toInt128(money_nanos), class_code = 3) * toDecimal128('0.000000001', 9) AS givt_money,
    sumIf(toInt128(money_nanos), class_code = 4) * toDecimal128('0.000000001', 9) AS sivt_money,
    sumIf(toInt128(money_nanos), class_code = 5) * toDecimal128('0.000000001', 9) AS expired_money
FROM {database}.rollup_minute{all}
GROUP BY publisher_id, minute, currency_code, currency;

CREATE OR REPLACE VIEW {database}.v_ledger {on_cluster} AS
SELECT
    lane,
    batch_no,
    epoch,
    arrayZip(range_topic, range_start, range_end) AS ranges,
    cut_time,
    cut_topic,
    cut_offset,
    clock_before,
    clock_after,
    records_received,
    billable,
    duplicate,
    givt,
    sivt,
    expired,
    malformed,
    lost,
    records_received = billable + duplicate + givt + sivt + expired + malformed AS conserved,
    arrayMap((class_code, currency_code, records, nanos) -> (
        transform(class_code, [1, 2, 3, 4, 5, 6, 7],
            ['billable', 'duplicate', 'givt', 'sivt', 'expired', 'malformed', 'lost'], toString(class_code)),
        if(currency_code = 0, '', char(65 + intDiv(currency_code - 1, 676),
            65 + intDiv(currency_code - 1, 26) % 26, 65 + (currency_code - 1) % 26)),
        records,
        toInt128(nanos) * toDecimal128('0.000000001', 9)
    ), money.class_code, money.currency_code, money.records, money.money_nanos) AS money,
    judge_version,
    rollup_rows,
    written_at
FROM {database}.ledger{all};
