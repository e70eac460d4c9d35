"""Chaos: faults in a real broker, ClickHouse and workers while they process traffic with a known ground truth."""
