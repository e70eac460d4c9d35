"""Rows that settle a question between closers: each arrives within seconds of the server's clock that it names, or never.

So a closer that has read that clock waits FENCE_SECONDS, and until no such insert runs any more; then it knows every row that
names an earlier time, and so does every other closer. The tables' constraints `in_time` and `soon` make the server refuse others.
"""

from collections.abc import Callable, Mapping

from adledger.pipeline.errors import SinkError
from adledger.pipeline.ledger.queries import QueryClient, TableNames, server_seconds

FENCE_SECONDS = 5
"""As in the constraints `soon` of period_overrides and period_books."""

RUNNING_SECONDS_MAX = 60
"""How long an insert that began in time is waited for."""

POLL_SECONDS = 0.2

Sleep = Callable[[float], None]


def consistent(cluster: str | None) -> Mapping[str, object]:
    """Return the settings of a closer's session: on a cluster its reads must see every row that was answered OK.

    The fence compares times of the server's clock, so closers and overrides of a cluster must go through one server.
    """
    if cluster is None:
        return {}
    return {"insert_quorum": "auto", "insert_quorum_parallel": 0, "select_sequential_consistency": 1}


def fenced_until(client: QueryClient, tables: TableNames, sleep: Sleep | None) -> int:
    """Return a second of the server's clock, now, once every row that names it or an earlier one is there.

    `sleep` None: without waiting, to look and not to close. Raises SinkError if an insert does not end.
    """
    now = server_seconds(client)
    if sleep is None:
        return now
    while server_seconds(client) <= now + FENCE_SECONDS:
        sleep(POLL_SECONDS)
    running = f"startsWith(query_id, '{fenced_query_id(tables.database, '')}')"
    processes = (
        "system.processes"
        if tables.cluster is None
        else f"clusterAllReplicas('{tables.cluster}', system.processes)"
    )
    query = f"SELECT count() FROM {processes} WHERE {running}"  # noqa: S608 - a setting with a pattern
    while client.execute(query)[0][0]:
        if server_seconds(client) > now + FENCE_SECONDS + RUNNING_SECONDS_MAX:
            raise SinkError(
                "an insert into period_overrides or period_books has been running for a minute",
                remedy=f"KILL QUERY WHERE {running} SYNC, then close again",
            )
        sleep(POLL_SECONDS)
    return now


def fenced_query_id(database: str, name: str) -> str:
    """Return the query id of such an insert."""
    return f"adledger/{database}/periods/{name}"
