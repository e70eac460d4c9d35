"""The lab: a real broker, ClickHouse and workers as processes, and the proxies and faults that disturb them."""
