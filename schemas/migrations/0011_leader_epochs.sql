-- The leader epoch before each range's end. A lane that starts names them to the broker, which then objects where an
-- unclean election put other records in the place of those that the ledger has. Older rows have none.
ALTER TABLE {database}.ledger {on_cluster}
    ADD COLUMN IF NOT EXISTS range_leader_epoch Array(Int32)
    COMMENT 'of the record batch before range_end, -1 where not known, [] where the log has none' AFTER range_end;

-- with a cluster only
ALTER TABLE {database}.ledger_all {on_cluster}
    ADD COLUMN IF NOT EXISTS range_leader_epoch Array(Int32) AFTER range_end;
