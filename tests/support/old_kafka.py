"""Old Kafka brokers in ZooKeeper mode, which adledger refuses: one ZooKeeper and one broker, each a process on the loopback."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from adledger.loadtest.lab.kafka_jars import kafka_jars
from adledger.loadtest.lab.processes import Process

POM = Path(__file__).parent / "kafka-old-pom.xml"
HOST = "127.0.0.1"
JVM = ("-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
START_SECONDS_MAX = 120
LOOK_SECONDS = 0.1


@contextmanager
def old_kafka(folder: Path, version: str, **properties: str) -> Iterator[str]:
    """Run a broker of a version, and yield its HOST:PORT; `properties` are Kafka's, with _ for a dot. Raises KafkaMissing."""
    jars = kafka_jars(POM, version)
    zookeeper, broker = _free_port(), _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "broker.id": "1", "zookeeper.connect": f"{HOST}:{zookeeper}", "listeners": f"PLAINTEXT://{HOST}:{broker}",
        "log.dirs": str(folder / "data"), "offsets.topic.replication.factor": "1", "offsets.topic.num.partitions": "1",
    } | {name.replace("_", "."): value for name, value in properties.items()}  # fmt: skip
    coordination = {
        "dataDir": str(folder / "zookeeper"),
        "clientPort": str(zookeeper),
        "admin.enableServer": "false",
    }
    with ExitStack() as running:
        for name, main_class, configuration, port in (
            ("zookeeper", "org.apache.zookeeper.server.quorum.QuorumPeerMain", coordination, zookeeper),
            ("kafka", "kafka.Kafka", settings, broker),
        ):
            path = folder / f"{name}.properties"
            path.write_text("".join(f"{key}={value}\n" for key, value in configuration.items()))
            log = folder / f"{name}.log"
            process = Process(
                ["java", *JVM, "-cp", f"{jars}/*", main_class, str(path)], log, out=folder / f"{name}.out"
            )
            running.callback(process.kill)
            _until_open(port, process)
        yield f"{HOST}:{broker}"


def _until_open(port: int, process: Process) -> None:
    last = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < last:
        assert process.exit_code is None, process.log.read_text()[-2000:]
        with closing(socket.socket()) as attempt:
            if attempt.connect_ex((HOST, port)) == 0:
                return
        time.sleep(LOOK_SECONDS)
    raise AssertionError(f"does not listen: {process.log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])
