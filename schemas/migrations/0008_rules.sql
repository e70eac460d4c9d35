-- rules: rule sets as they were published, append-only, written by `adledger rules publish`. The newest is in force where
-- the setting `rules` is `published`; every worker looks for it every few seconds and takes it at a batch boundary.
CREATE TABLE IF NOT EXISTS {database}.rules {on_cluster}
(
    version UInt64 COMMENT 'hash of what the set decides',
    text String COMMENT 'TOML, whole',
    author String,
    reason String,
    published_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY published_at
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- publishers: who they are and whether they are paid; append-only, the highest version of a publisher counts.
CREATE TABLE IF NOT EXISTS {database}.publishers {on_cluster}
(
    publisher_id UInt32,
    status LowCardinality(String) COMMENT 'active or suspended',
    name String,
    since Date,
    author String,
    reason String,
    version UInt64 COMMENT 'microseconds of the server''s clock at the import; one for all its rows',
    changed_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY (publisher_id, version)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- judges: what each judge version is made of. Workers write a row before the first batch that names it; the same
-- version twice says the same.
CREATE TABLE IF NOT EXISTS {database}.judges {on_cluster}
(
    version UInt64,
    rules_version UInt64 COMMENT 'of the rule set as it was published',
    turned Array(LowCardinality(String)) COMMENT 'rules that the guardrail has turned to flag',
    rules String COMMENT 'TOML of the set that judges, turned rules included',
    enforced UInt64 COMMENT 'bits of the rules whose hits decide a class',
    not_evaluated Map(String, String) COMMENT 'rule: why',
    list_names Array(String),
    list_versions Array(String),
    list_contents Array(String) COMMENT 'SHA-256',
    list_usable Array(Bool),
    lists_version String,
    publishers_version String,
    logic_version UInt32,
    release String,
    stored_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY (version, stored_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- alerts: what asks for a person, and what the person decided; append-only.
--   breach   a rule left its bounds in a lane, and is flagged there from the next batch on
--   resume   a person lets a rule enforce again, in all lanes
--   refused  a published set that workers can't use; the one before stays in force
CREATE TABLE IF NOT EXISTS {database}.alerts {on_cluster}
(
    kind LowCardinality(String),
    rule LowCardinality(String) COMMENT 'breach, resume: name of the rule',
    rules_version UInt64 COMMENT 'of the published set',
    lane Int32 DEFAULT -1 COMMENT 'breach',
    batch_no UInt64 DEFAULT 0 COMMENT 'breach: the batch that showed it',
    clock DateTime64(3, 'UTC') DEFAULT 0 COMMENT 'breach: lane clock after that batch',
    currency_code UInt16 DEFAULT 0,
    events UInt64 DEFAULT 0 COMMENT 'of the currency, in the window',
    invalidated_nanos Int128 DEFAULT 0,
    money_nanos Int128 DEFAULT 0,
    share_min_ppm UInt32 DEFAULT 0,
    share_max_ppm UInt32 DEFAULT 0,
    author String DEFAULT '',
    what String DEFAULT '' COMMENT 'resume: the reason; refused: the error',
    raised_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY raised_at
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
