"""Chaos: a real broker, ClickHouse and workers are hurt while traffic with a known ground truth goes through."""
