"""Kafka's administration: connecting (TLS, logins, client properties), diagnosing failures, topics, rights, groups."""
