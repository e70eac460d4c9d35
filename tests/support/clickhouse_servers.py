"""The two ClickHouse servers that tests run on: the embedded one, and ClickHouse's own, which a laptop may lack."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adledger.loadtest.lab.clickhouse_library import ClickHouseMissing
from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.pipeline.addresses import ServerAddress
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.services import missing

EMBEDDED, OWN = "embedded", "clickhouse"
SERVERS = (EMBEDDED, OWN)
"""Parameters of a fixture `server` whose tests run on both."""

AnyServer = EmbeddedServer | ClickHouseServer


@contextmanager
def running_server(kind: str, folder: Path, **options: Any) -> Iterator[AnyServer]:
    """Run a server of a kind in a folder; where ClickHouse's own is missing, the test is skipped, or fails in CI."""
    if kind == EMBEDDED:
        with EmbeddedServer.start(folder, **options) as embedded:
            yield embedded
        return
    try:
        server = ClickHouseServer.start(folder, **options)
    except ClickHouseMissing as error:
        missing("ClickHouse", error)
    with server:
        yield server


def users_xml(**passwords: str) -> str:
    """Return users.xml with `default`, without a password as the server itself needs, and users with one."""
    named = {"default": "", **passwords}
    users = "".join(
        f"<{name}><password>{password}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>"
        f"<quota>default</quota></{name}>"
        for name, password in named.items()
    )
    head = "<profiles><default/></profiles><quotas><default/></quotas>"
    return f"<clickhouse>{head}<users>{users}</users></clickhouse>"


def address_of(server: AnyServer) -> ServerAddress:
    """Return its address."""
    return ServerAddress(server.host, server.port, server.http_port)
