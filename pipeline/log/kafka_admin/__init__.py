"""Kafka around the log: connecting (TLS, logins, client properties), why it fails, topics and rights, the group as its coordinator describes it."""
