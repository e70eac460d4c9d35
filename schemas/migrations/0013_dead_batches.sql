-- A dead letter may stand for a whole record batch that can't be decoded: then `records` is the number of offsets that
-- the batch's header covers. The sum of `records` is what the ledger calls malformed; rows from before have 1.
ALTER TABLE {database}.dead_letters {on_cluster} ADD COLUMN IF NOT EXISTS records UInt32 DEFAULT 1 AFTER value;
ALTER TABLE {database}.dead_letters {on_cluster} MODIFY COLUMN reason Enum8(
    'ok' = 0, 'tombstone' = 1, 'too_large' = 2, 'not_json' = 3, 'too_deep' = 4, 'not_an_object' = 5,
    'repeated_key' = 6, 'missing_field' = 7, 'wrong_type' = 8, 'out_of_range' = 9, 'wrong_topic' = 10,
    'from_the_future' = 11, 'rejected_earlier' = 12, 'undecodable_batch' = 13) ALIAS reason_code;

-- with a cluster only
ALTER TABLE {database}.dead_letters_all {on_cluster} ADD COLUMN IF NOT EXISTS records UInt32 DEFAULT 1 AFTER value;

-- with a cluster only
ALTER TABLE {database}.dead_letters_all {on_cluster} MODIFY COLUMN reason Enum8(
    'ok' = 0, 'tombstone' = 1, 'too_large' = 2, 'not_json' = 3, 'too_deep' = 4, 'not_an_object' = 5,
    'repeated_key' = 6, 'missing_field' = 7, 'wrong_type' = 8, 'out_of_range' = 9, 'wrong_topic' = 10,
    'from_the_future' = 11, 'rejected_earlier' = 12, 'undecodable_batch' = 13) ALIAS reason_code;
