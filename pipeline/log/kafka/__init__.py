"""Kafka as the log: group membership, commits, reading whole record batches, and writing them."""
