"""The [kafka] section: which of Kafka's own client properties a deployment may set."""

KAFKA_PROPERTIES = (
    "client.id", "connections.max.idle.ms", "group.instance.id", "heartbeat.interval.ms",
    "max.poll.interval.ms", "metadata.max.age.ms", "request.timeout.ms", "retry.backoff.ms",
    "sasl.kerberos.service.name", "sasl.mechanism", "sasl.password", "sasl.password.file", "sasl.username",
    "security.protocol", "session.timeout.ms", "ssl.ca.location", "ssl.certificate.location",
    "ssl.endpoint.identification.algorithm", "ssl.key.location", "ssl.key.password", "ssl.key.password.file",
)  # fmt: skip
"""What a deployment may say of its Kafka client, under Kafka's own key names (and files for the two secrets)."""
