"""ClickHouse as a lane uses it: the Protocol and its implementations."""
