-- Inserts are refused (code 243, nothing written) while the disk has less than 256 MiB free. A disk that is filled to the
-- last byte is worse than one that refuses: the engine of chDB 4.4 answered inserts, and published merges, whose writes
-- failed for want of room (docs/chaos.md). On a large disk ask for more, by the same statements.
ALTER TABLE {database}.events {on_cluster} MODIFY SETTING min_free_disk_bytes_to_perform_insert = 268435456;
ALTER TABLE {database}.dead_letters {on_cluster} MODIFY SETTING min_free_disk_bytes_to_perform_insert = 268435456;
ALTER TABLE {database}.rollup_minute {on_cluster} MODIFY SETTING min_free_disk_bytes_to_perform_insert = 268435456;
ALTER TABLE {database}.ledger {on_cluster} MODIFY SETTING min_free_disk_bytes_to_perform_insert = 268435456;
ALTER TABLE {database}.user_agents {on_cluster} MODIFY SETTING min_free_disk_bytes_to_perform_insert = 268435456;
ALTER TABLE {database}.pages {on_cluster} MODIFY SETTING min_free_disk_bytes_to_perform_insert = 268435456;
