"""ClickHouse's own server as tests run it."""

from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.sinks.connection import connect
from tests.support.clickhouse_servers import address_of


def test_its_log_has_no_traces(clickhouse_server: ClickHouseServer) -> None:
    """It logs what its configuration says, information and worse: traces cost CPU with every query."""
    with connect(address_of(clickhouse_server)) as client:
        assert client.execute("SELECT sum(number) FROM numbers(10)") == [(45,)]
    logged = clickhouse_server.logged()
    assert "<Information>" in logged
    assert "<Debug>" not in logged
    assert "<Trace>" not in logged
