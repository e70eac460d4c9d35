"""Broker and ClickHouse behind proxies that can drop, delay or hold traffic."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adledger.loadtest.lab.broker import HOST, Listener, LocalBroker
from adledger.loadtest.lab.clickhouse import LocalClickHouse
from adledger.loadtest.lab.clickhouse_frames import Insert
from adledger.loadtest.lab.disk import Disk
from adledger.loadtest.lab.processes import pause, resume
from adledger.loadtest.lab.proxies import Proxies
from adledger.loadtest.lab.waiting import NotSeen
from adledger.pipeline.addresses import KafkaAddress, ServerAddress

MID_INSERT_SECONDS_MAX = 30.0
SHORTER_THAN_AN_INSERT_SECONDS = 0.001
ANSWER_ON_ITS_WAY_SECONDS = 0.03

DIRECT, WORKERS = "DIRECT", "WORKERS"


class ProxiedServers:
    """Workers reach `source` and `clickhouse`, through proxies; tests reach `direct_source` and `server.address`."""

    def __init__(self, broker: LocalBroker, server: LocalClickHouse, proxies: Proxies, disk: Disk) -> None:
        self.broker, self.server, self.proxies, self.disk = broker, server, proxies, disk
        self.source = KafkaAddress((proxies.kafka.address,))
        self.direct_source = KafkaAddress((broker.servers,))
        self.clickhouse = ServerAddress(HOST, proxies.clickhouse.port, server.address.http_port)

    def pause_clickhouse_in_mid_insert(self, table: str | None = None) -> set[Insert]:
        """Pause ClickHouse (SIGSTOP) while inserts run on it, one of them into `table` where that is given.

        It has received their rows and not answered. Raises NotSeen.
        """
        inserts, server = self.proxies.inserts, self.server

        def running() -> bool:
            return any(table in (None, insert.table) for insert in inserts.under_way())

        last = time.monotonic() + MID_INSERT_SECONDS_MAX
        while time.monotonic() < last:
            if not running():
                time.sleep(SHORTER_THAN_AN_INSERT_SECONDS)
                continue
            stopped = pause(server.pid)
            time.sleep(ANSWER_ON_ITS_WAY_SECONDS)
            if stopped and running():
                return inserts.under_way()
            resume(server.pid)
        raise NotSeen(
            f"no insert into {table or 'any table'} was running on ClickHouse", remedy="more traffic"
        )


@contextmanager
def proxied_servers(folder: Path) -> Iterator[ProxiedServers]:
    """Start the servers and the proxies; they end with the block. Raises BrokerFailed, SinkError, KafkaMissing."""
    disk = Disk(folder / "clickhouse")
    broker = LocalBroker(folder / "broker", listeners=(Listener(DIRECT), Listener(WORKERS)))
    try:
        with LocalClickHouse(disk.folder / "data") as server:
            kafka = (HOST, broker.ports[WORKERS])
            with Proxies(kafka, (server.address.host, server.address.port)) as proxies:
                broker.advertised[WORKERS] = proxies.kafka.address
                with broker:
                    if broker.ports[WORKERS] != kafka[1]:
                        raise NotSeen("another process took the broker's port", remedy="run it again")
                    yield ProxiedServers(broker, server, proxies, disk)
    finally:
        disk.close()
