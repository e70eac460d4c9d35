-- Whether an event came after its period had closed, by the watermark at the event (schemas/periods.py): a flag, as it is
-- part of the rows that a lane reads back. Rollups keep such events in rows of their own. Rows from before read as not
-- after close; ledger rows of digest definition 2 or later say that the flag follows the rule.
ALTER TABLE {database}.events {on_cluster}
    ADD COLUMN IF NOT EXISTS after_close Bool ALIAS bitTest(flags, 8) AFTER page_url_truncated;
ALTER TABLE {database}.rollup_minute {on_cluster}
    ADD COLUMN IF NOT EXISTS after_close UInt8 DEFAULT 0
    COMMENT '1: the events came after their period had closed' AFTER currency_code;

-- with a cluster only
ALTER TABLE {database}.events_all {on_cluster}
    ADD COLUMN IF NOT EXISTS after_close Bool ALIAS bitTest(flags, 8);

-- with a cluster only
ALTER TABLE {database}.rollup_minute_all {on_cluster}
    ADD COLUMN IF NOT EXISTS after_close UInt8 DEFAULT 0 AFTER currency_code;
