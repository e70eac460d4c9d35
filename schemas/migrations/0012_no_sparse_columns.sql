-- No column is stored sparse. ClickHouse does so where at least 15 of 16 values are the default, and then sends the column
-- in a form of its own, which drivers turn into objects, one a row. `topic` is such a column wherever clicks are rare.
-- It costs little room: a column of defaults compresses to almost nothing anyway. Parts that are there stay as they are
-- until they are merged; what reads them converts (sinks/arrays.py).
ALTER TABLE {database}.events {on_cluster} MODIFY SETTING ratio_of_defaults_for_sparse_serialization = 1;
ALTER TABLE {database}.dead_letters {on_cluster} MODIFY SETTING ratio_of_defaults_for_sparse_serialization = 1;
ALTER TABLE {database}.rollup_minute {on_cluster} MODIFY SETTING ratio_of_defaults_for_sparse_serialization = 1;
ALTER TABLE {database}.ledger {on_cluster} MODIFY SETTING ratio_of_defaults_for_sparse_serialization = 1;
ALTER TABLE {database}.user_agents {on_cluster} MODIFY SETTING ratio_of_defaults_for_sparse_serialization = 1;
ALTER TABLE {database}.pages {on_cluster} MODIFY SETTING ratio_of_defaults_for_sparse_serialization = 1;
