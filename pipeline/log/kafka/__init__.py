"""Kafka as the log: a consumer group, whole record batches, topics fit for the protocol, and writing to it."""
