"""The first connection to Kafka: retried while no broker is up yet, but not where one refuses us."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiokafka.conn import collect_hosts

from adledger.pipeline.log.kafka_admin.broker_retry import BrokerRetry
from adledger.pipeline.log.kafka_admin.cluster_client import ClusterClient
from adledger.pipeline.log.kafka_admin.failures import KAFKA_ERRORS, explain

LISTENS_SECONDS_MAX = 2.0


async def bootstrapped(options: Mapping[str, Any], retry: BrokerRetry) -> ClusterClient:
    """Return a client that knows the cluster; the caller closes it. `options` are those of `client_options`.

    Raises LogError with cause and remedy: at once where a broker is up but can't be used (a wrong password is not tried
    ten times), otherwise after the last attempt.
    """
    for attempt in retry.policy.attempts():
        client = ClusterClient(**options)
        try:
            await client.bootstrap()
        except KAFKA_ERRORS as error:
            await client.close()
            explained = await explain(error, options)
            if attempt.is_last or await _any_listens(options["bootstrap_servers"]):
                raise explained from error
            retry.say(f"{' '.join(explained.message.split())}; {attempt}")
        except BaseException:
            await client.close()
            raise
        else:
            return client
        await retry.policy.pause(attempt)
    raise AssertionError("the last attempt returns or raises")


async def _any_listens(servers: list[str]) -> bool:
    for host, port, _ in collect_hosts(servers):
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(LISTENS_SECONDS_MAX):
                _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
    return False
