-- How long after its end a period of 15 minutes closes, by the lanes' watermarks. The delay decides for each event whether
-- it came after its period closed, so it is the database's: a worker with another one is refused. `adledger migrate` writes
-- the first row, for all periods. Where two rows begin with the same period, the first one written holds.
CREATE TABLE IF NOT EXISTS {database}.period_settings {on_cluster}
(
    effective_from_period DateTime('UTC') COMMENT 'start of the first period that the row is for',
    period_close_delay_minutes UInt16 COMMENT 'from the end of a period until it closes',
    author String DEFAULT currentUser() COMMENT 'ClickHouse user who wrote the row',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY effective_from_period
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
