-- Which definition a ledger row's digests follow (schemas/digests.py): the columns that they cover. A release that adds a
-- column to a table writes another number, so that rows from before are still checked by the columns that they had.
ALTER TABLE {database}.ledger {on_cluster}
    ADD COLUMN IF NOT EXISTS digest_definition UInt8 DEFAULT 1
    COMMENT 'which columns the digests cover' AFTER dead_letters_digest;

-- with a cluster only
ALTER TABLE {database}.ledger_all {on_cluster}
    ADD COLUMN IF NOT EXISTS digest_definition UInt8 DEFAULT 1 AFTER dead_letters_digest;
