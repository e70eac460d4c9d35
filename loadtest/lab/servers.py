"""Broker and ClickHouse of a load test: started here, or named by the user."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adledger.loadtest.lab.broker import LOAD_JVM, LocalBroker
from adledger.loadtest.lab.clickhouse import LocalClickHouse
from adledger.pipeline.addresses import EmbeddedAddress, FilesAddress, KafkaAddress, ServerAddress


@dataclass(frozen=True, slots=True)
class Servers:
    """Their addresses. `broker` and `server` are None where this process does not run them: faults can't touch those.

    `clickhouse_text` is the address with its password.
    """

    source: str
    clickhouse: ServerAddress
    clickhouse_text: str
    broker: LocalBroker | None
    server: LocalClickHouse | None

    def pids(self, named: Mapping[str, tuple[int, ...]]) -> dict[str, Sequence[int]]:
        """Return the processes to watch, by part."""
        own = {
            "broker": [self.broker.pid] if self.broker is not None and self.broker.alive else [],
            "clickhouse": [self.server.pid] if self.server is not None else [],
        }
        return {part: [*own.get(part, []), *named.get(part, ())] for part in {*own, *named}}


@contextmanager
def own_servers(folder: Path) -> Iterator[Servers]:
    """Start a broker and a ClickHouse with their data in `folder`; they end with the block. Raises SinkError, BrokerFailed."""
    with (
        LocalBroker(folder / "broker", jvm=LOAD_JVM) as broker,
        LocalClickHouse(folder / "clickhouse") as server,
    ):
        yield Servers(f"kafka://{broker.servers}", server.address, str(server.address), broker, server)


@contextmanager
def named_servers(
    source: KafkaAddress | FilesAddress, clickhouse: ServerAddress | EmbeddedAddress, clickhouse_text: str
) -> Iterator[Servers]:
    """Yield servers that the user named; an `embedded:` ClickHouse is started here and ends with the block."""
    if isinstance(clickhouse, EmbeddedAddress):
        with LocalClickHouse(clickhouse.directory) as server:
            yield Servers(str(source), server.address, str(server.address), None, server)
    else:
        yield Servers(str(source), clickhouse, clickhouse_text, None, None)
