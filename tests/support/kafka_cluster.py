"""Several brokers and a controller on this machine, each a process with a small heap, for what one broker can't show.

The controller is a separate process, so that any broker may be killed.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from adledger.loadtest.lab.broker import LocalBroker, Quorum
from tests.support.brokers import need_kafka

CONTROLLER = 100
BROKER_JVM = (
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
)
CONTROLLER_JVM = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
)


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """Brokers by their node id, from 1, and the controller."""

    controller: LocalBroker
    brokers: Mapping[int, LocalBroker]

    @property
    def servers(self) -> str:
        """Return HOST:PORT of every broker, with commas."""
        return ",".join(broker.servers for broker in self.brokers.values())


@contextmanager
def cluster(directory: Path, brokers: int = 3, **properties: str) -> Iterator[LocalCluster]:
    """Start a controller and brokers; `properties` are Kafka's, with _ for a dot, and override those of a replicated
    cluster.
    """
    need_kafka()
    copies = str(min(brokers, 3))
    common = {
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "default.replication.factor": copies,
    } | {name.replace("_", "."): value for name, value in properties.items()}
    cluster_id = uuid4().hex[:22]
    controller = LocalBroker(
        directory / "controller", quorum=Quorum(CONTROLLER, cluster_id), jvm=CONTROLLER_JVM, properties=common
    )
    voters = f"{CONTROLLER}@{controller.address('CONTROLLER')}"
    nodes = {
        node: LocalBroker(
            directory / f"broker-{node}",
            quorum=Quorum(node, cluster_id, voters),
            jvm=BROKER_JVM,
            properties=common,
        )
        for node in range(1, brokers + 1)
    }
    with ExitStack() as open_nodes:
        open_nodes.enter_context(controller)
        for broker in nodes.values():
            open_nodes.enter_context(broker)
        yield LocalCluster(controller, nodes)
