"""What tests run against: a real broker, ClickHouse and workers as processes, and the proxies and faults that hurt them."""
