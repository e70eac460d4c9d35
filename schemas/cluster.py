"""Checks before the first migration that a server has what a cluster needs, and names everything that is missing.

ON CLUSTER uses a queue in Keeper, and Replicated tables get their paths from macros. Without one of them a migration
fails in its first statement, with an error that names none of them.
"""

from typing import Any, Protocol

from adledger.pipeline.errors import SinkError

MACROS = ("shard", "replica")

_NO_TABLE, _NO_ELEMENT = 60, 139


class StatementClient(Protocol):
    """What the checks need from clickhouse-driver's client."""

    def execute(self, query: str, params: Any = None, **options: Any) -> Any:
        """Run a query and return its rows."""


def check_cluster(client: StatementClient, cluster: str) -> None:
    """Raise SinkError naming everything that the server lacks for ON CLUSTER statements and Replicated tables."""
    lacking = missing_for_cluster(client, cluster)
    if lacking:
        raise SinkError(
            f"this server can't migrate with cluster {cluster}: it has no " + "; no ".join(lacking),
            remedy="configure them on every server of the cluster and restart it, or leave the setting cluster out for a "
            "single server",
        )


def missing_for_cluster(client: StatementClient, cluster: str) -> list[str]:
    """Return what the server lacks, each with where it is configured."""
    lacking = []
    clusters = {str(name) for (name,) in client.execute("SELECT DISTINCT cluster FROM system.clusters")}
    if cluster not in clusters:
        known = f", only {', '.join(sorted(clusters))}" if clusters else ""
        lacking.append(f"cluster of that name (<remote_servers>{known})")
    macros = {str(name) for (name,) in client.execute("SELECT macro FROM system.macros")}
    lacking += [f"macro {name} (<macros>)" for name in MACROS if name not in macros]
    if not _answers(client, "SELECT count() FROM system.zookeeper_connection"):
        lacking.append("Keeper (<zookeeper>)")
    if not _answers(client, "SELECT count() FROM system.distributed_ddl_queue WHERE 0"):
        lacking.append("DDL queue (<distributed_ddl>, which is kept in Keeper)")
    return lacking


def _answers(client: StatementClient, query: str) -> bool:
    """Return whether the server has the table and the feature behind it."""
    try:
        client.execute(query)
    except Exception as error:
        if getattr(error, "code", None) in (_NO_TABLE, _NO_ELEMENT):
            return False
        raise
    return True
