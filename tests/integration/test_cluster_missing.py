"""`migrate` with a cluster, on a ClickHouse server without one: everything missing is named, nothing is created."""

import re
from pathlib import Path

import pytest

from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.pipeline.errors import SinkError
from adledger.schemas.migrate import migrate
from adledger.sinks.connection import connect
from tests.support.clickhouse_servers import OWN, address_of, running_server

CLUSTER = (
    "<remote_servers><ads><shard><replica><host>127.0.0.1</host><port>9000</port></replica></shard></ads>"
    "</remote_servers><macros><shard>1</shard><replica>a</replica></macros>"
)


def refusal(server: ClickHouseServer, cluster: str) -> str:
    with connect(address_of(server)) as client:
        with pytest.raises(SinkError) as refused:
            migrate(client, database="clustered", cluster=cluster, release="test")
        assert client.execute("SELECT count() FROM system.databases WHERE name = 'clustered'") == [(0,)]
        assert "leave the setting cluster out" in refused.value.remedy
        return refused.value.message


def test_a_single_server_lacks_everything(clickhouse_server: ClickHouseServer) -> None:
    """The error names cluster, macros, Keeper and the DDL queue, each with its section of the configuration."""
    message = refusal(clickhouse_server, "ads")
    assert re.findall("<[a-z_]+>", message) == [
        "<remote_servers>", "<macros>", "<macros>", "<zookeeper>", "<distributed_ddl>",
    ]  # fmt: skip


def test_a_cluster_without_a_queue_lacks_it(tmp_path: Path) -> None:
    """Where cluster and macros are configured, the rest is named; for a misspelt cluster the error lists the existing
    ones.
    """
    with running_server(OWN, tmp_path / "server", more=CLUSTER) as server:
        assert isinstance(server, ClickHouseServer)
        message = refusal(server, "ads")
        assert "no Keeper" in message
        assert "no DDL queue" in message
        assert "macro" not in message
        assert "only ads" in refusal(server, "adz")


def test_a_dry_run_prints_all_the_same(clickhouse_server: ClickHouseServer) -> None:
    """The statements can be read before the cluster exists."""
    with connect(address_of(clickhouse_server)) as client:
        plan = migrate(client, database="clustered", cluster="ads", release="test", dry_run=True)
    assert any("ON CLUSTER ads" in statement for step in plan for statement in step.statements)
