"""Checks that brokers support topics by id (Kafka 3.1), and names the versions that they support instead."""

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import ApiVersionRequest

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka_admin.broker_retry import MissingAnswer
from adledger.pipeline.log.kafka_admin.metadata import METADATA_VERSION

FETCH, METADATA = 1, 3
FETCH_VERSION = 13
"""The first version with topic ids: a topic that was deleted and recreated under its name can't be mistaken for the old one."""

RELEASES = (
    (13, "3.1 or newer"),
    (12, "2.7 to 3.0"),
    (11, "2.3 to 2.6"),
    (10, "2.1 and 2.2"),
)
"""The newest Fetch version that a broker supports -> the Kafka releases with it."""


async def require_versions(client: AIOKafkaClient) -> None:
    """Check the versions of every reachable broker. Raises LogError naming those that are too old; KafkaError."""
    old = []
    for broker in client.cluster.brokers():
        try:
            response = await client.send(broker.nodeId, ApiVersionRequest())
        except errors.KafkaError:
            continue  # away: the others serve meanwhile
        newest = {api_key: newest for api_key, _, newest, *_ in response.api_versions}
        if missing := {FETCH, METADATA} - newest.keys():
            raise MissingAnswer(
                f"the versions that {broker.host}:{broker.port} supports of request {min(missing)}"
            )
        if newest[FETCH] < FETCH_VERSION or newest[METADATA] < METADATA_VERSION:
            old.append(_spoken(f"{broker.host}:{broker.port}", newest[FETCH]))
    if old:
        raise LogError(
            f"adledger needs Kafka 3.1 or newer (Fetch {FETCH_VERSION}, which names topics by id), and found "
            + "; ".join(old),
            remedy="upgrade the brokers, or use a service that supports it",
        )


def _spoken(where: str, fetch: int) -> str:
    release = next((name for version, name in RELEASES if fetch >= version), "")
    return f"{where} with Fetch up to {fetch}" + (f", as in Kafka {release}" if release else "")
