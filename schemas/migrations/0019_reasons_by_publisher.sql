-- v_reasons adds up the events of each verdict before it splits them into gross and step: a filter by publisher and period
-- then reads the projection by_publisher of `events`, which no query can whose columns multiply rows, and what is split is a
-- row for many events.
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
    period,
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
    sum(rows) AS events,
    sum(nanos) * toDecimal128('0.000000001', 9) AS money
FROM (
    SELECT
        publisher_id, toStartOfFifteenMinutes(event_time) AS period, event_type, currency, class_code, reasons, judge_version,
        count() AS rows, sum(toInt128(money_nanos)) AS nanos
    FROM {database}.events{all}
    GROUP BY publisher_id, period, event_type, currency, class_code, reasons, judge_version
)
GROUP BY publisher_id, period, event_type, currency, step, reason;
