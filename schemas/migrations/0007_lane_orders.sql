-- lane_orders: what a person ordered a lane to do where it stands still, or where partitions were added.
--
-- Append-only, written by `adledger lane ... --execute`. The lane's owner carries an order out by the normal protocol,
-- and only where it fits exactly what the lane finds; an order that fits no more does nothing. skip, adopt and barrier
-- become the batch `batch_no` of the ledger, with these ranges and this epoch; clear removes rows of a batch that has
-- no ledger row, so that it can be written again. range_* are parallel arrays, and so are leftover_*.
CREATE TABLE IF NOT EXISTS {database}.lane_orders {on_cluster}
(
    lane UInt16,
    batch_no UInt64,
    kind LowCardinality(String) COMMENT 'skip, adopt, clear or barrier',
    epoch String COMMENT 'of the log from this batch on',
    range_topic Array(UInt8),
    range_start Array(Int64),
    range_end Array(Int64),
    parent Int32 DEFAULT -1 COMMENT 'barrier of a new lane: the lane that had its users before; -1: none',
    parent_ends Array(Int64) COMMENT 'offsets by topic that the parent must have reached',
    leftover_table Array(String),
    leftover_rows Array(UInt64),
    leftover_send_by Array(UInt32) COMMENT 'the latest of the rows; later ones are another writing and stay',
    leftover_digest Array(UInt64),
    reason String,
    author String,
    ordered_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY (lane, batch_no, ordered_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- retention_log: partitions that the retention job drops, each written before the drop, so that what is missing on
-- purpose is told from what was lost.
CREATE TABLE IF NOT EXISTS {database}.retention_log {on_cluster}
(
    table LowCardinality(String),
    day Date COMMENT 'day of the lane clock: the partition',
    rows UInt64,
    bytes UInt64,
    clock_min DateTime64(3, 'UTC') COMMENT 'smallest ledgered clock of all lanes at that time',
    retention_days UInt32,
    dropped_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {merge_tree}
ORDER BY (table, day)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- with a cluster only
CREATE TABLE IF NOT EXISTS {database}.retention_log_all {on_cluster} AS {database}.retention_log
ENGINE = Distributed('{cluster}', '{database}', 'retention_log');
