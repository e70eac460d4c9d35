"""A real Kafka broker on this machine: one KRaft process, its data in a folder, on the loopback.

For tests, load tests and chaos: it can be killed, paused and started again on the same ports and data. It ends
with the thread that started it, however that ends (Linux), so that nothing is left behind.
"""

import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from adledger.loadtest.lab.kafka_jars import kafka_jars
from adledger.loadtest.lab.processes import Process, pause, resume
from adledger.pipeline.errors import AdledgerError

HOST = "127.0.0.1"
START_SECONDS_MAX = 90
STOP_SECONDS_MAX = 30
POLL_SECONDS = 0.05
JVM = ("-Xms128m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
"""For a short life: it starts with 5.6 CPU seconds instead of 9.1, since little is compiled and by one compiler."""
LOAD_JVM = ("-Xms256m", "-Xmx768m", "-XX:+UseParallelGC", "-Djava.awt.headless=true")
"""For load that is measured."""
STARTED = "Kafka Server started"
PORT_TAKEN = "Address already in use"
START_TRIES = 3

_LOG4J = """
appenders=file
appender.file.type=File
appender.file.name=file
appender.file.fileName={log}
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=%d %p %c{{1}} %m%n
rootLogger.level=INFO
rootLogger.appenderRefs=file
rootLogger.appenderRef.file.ref=file
"""


class BrokerFailed(AdledgerError):  # noqa: N818
    """The broker did not start, or ended early."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener: a name, its security protocol, and Kafka's properties of it (`listener.name.<name>.` is put before).

    Brokers use the first listener among themselves, and `LocalBroker.servers` names it.
    """

    name: str = "PLAINTEXT"
    protocol: str = "PLAINTEXT"
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quorum:
    """A node's place in a cluster: `voters` is "" for the controller, and its NODE@HOST:PORT for brokers."""

    node: int
    cluster_id: str
    voters: str = ""

    @property
    def roles(self) -> str:
        """Kafka's process.roles."""
        return "broker" if self.voters else "controller"


class LocalBroker:
    """A broker with its data in `directory`. Its ports are chosen on creation, so that proxies know them before `start`."""

    def __init__(
        self,
        directory: Path,
        *,
        listeners: Sequence[Listener] = (Listener(),),
        properties: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
        jvm: Sequence[str] = JVM,
        quorum: Quorum | None = None,
    ) -> None:
        """`properties` are Kafka's and override ours; `format_arguments` go to StorageTool (`--add-scram` ...).

        `quorum` None: the node is both broker and controller, a cluster of one.
        """
        self.directory = directory.absolute()
        self.listeners = tuple(listeners)
        self.properties = dict(properties or {})
        self.advertised: dict[str, str] = {}
        """Listener name -> HOST:PORT to tell clients instead of its own, e.g. a proxy's. Read at `start`."""
        self._format_arguments, self._jvm = tuple(format_arguments), tuple(jvm)
        self._quorum = quorum
        self._process: Process | None = None
        self._choose_ports()

    @property
    def servers(self) -> str:
        """HOST:PORT of the first listener."""
        return self.address(self.listeners[0].name)

    @property
    def log(self) -> Path:
        """The broker's own log."""
        return self.directory / "broker.log"

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.exit_code is None

    def address(self, listener: str) -> str:
        """HOST:PORT of a listener."""
        return f"{HOST}:{self.ports[listener]}"

    def start(self) -> Self:
        """Start it on its existing data, and return when it serves. Raises KafkaMissing, BrokerFailed."""
        jars = kafka_jars()
        for _ in range(START_TRIES):
            fresh = not (self.directory / "data").exists()
            self._write_configuration()
            if fresh:
                self._format()
            self._process = self._spawn(jars)
            if self._serves():
                return self
            self.kill()
            if not fresh or PORT_TAKEN not in self._logged():
                break
            self._choose_ports()  # another process took one between our choosing it and the broker's start
        raise BrokerFailed(
            f"Kafka did not start within {START_SECONDS_MAX} s: {self._logged().strip()[-300:]}",
            remedy=f"read {self.log}",
        )

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
        self._process = None

    def stop(self) -> None:
        """Shut it down (SIGTERM); kill it where that takes too long."""
        if self._process is not None:
            self._process.stop()
        self._process = None

    def pause(self) -> None:
        """Pause its process (SIGSTOP); connections stay open."""
        pause(self.pid)

    def resume(self) -> None:
        """Resume a paused process."""
        resume(self.pid)

    def tool(
        self, main_class: str, *arguments: str, timeout_seconds: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Run one of Kafka's own tools by its class; captures the output, and ignores the exit code."""
        return subprocess.run(  # noqa: S603
            ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_jars()}/*", main_class, *arguments],  # noqa: S607
            capture_output=True, text=True, timeout=timeout_seconds, check=False,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _choose_ports(self) -> None:
        names = [listener.name for listener in self.listeners] + ["CONTROLLER"]
        sockets = [socket.create_server((HOST, 0)) for _ in names]
        self.ports = {name: s.getsockname()[1] for name, s in zip(names, sockets, strict=True)}
        for s in sockets:
            s.close()

    def _write_configuration(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{name}={value}\n" for name, value in self._configuration().items() if value)
        (self.directory / "server.properties").write_text(text)
        (self.directory / "log4j2.properties").write_text(_LOG4J.format(log=self.log))

    def _configuration(self) -> dict[str, str]:
        protocols = {listener.name: listener.protocol for listener in self.listeners} | {
            "CONTROLLER": "PLAINTEXT"
        }
        own = {
            f"listener.name.{listener.name.lower()}.{name}": value
            for listener in self.listeners
            for name, value in listener.properties.items()
        }
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "log.dirs": str(self.directory / "data"),
            "listeners": ",".join(f"{name}://{HOST}:{port}" for name, port in self.ports.items()),
            "advertised.listeners": ",".join(
                f"{listener.name}://{self.advertised.get(listener.name, self.address(listener.name))}" for listener in self.listeners
            ),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "inter.broker.listener.name": self.listeners[0].name,
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": self.address("CONTROLLER"),
            "auto.create.topics.enable": "false",
            "broker.session.timeout.ms": "3000",  # so that a killed broker can register again soon
            "broker.heartbeat.interval.ms": "500",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "offsets.topic.num.partitions": "4",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "log.message.timestamp.after.max.ms": str(2**62),  # imports carry the times of their events
            **own,
            **({} if self._quorum is None else self._in_cluster(self._quorum)),
            **self.properties,
        }  # fmt: skip

    def _in_cluster(self, quorum: Quorum) -> dict[str, str]:
        """Return what differs in a cluster, where a node is broker or controller, not both."""
        controller = f"CONTROLLER://{self.address('CONTROLLER')}"
        served = ",".join(f"{listener.name}://{self.address(listener.name)}" for listener in self.listeners)
        own = {
            "process.roles": quorum.roles,
            "node.id": str(quorum.node),
            "listeners": served if quorum.voters else controller,
            "controller.quorum.voters": quorum.voters or f"{quorum.node}@{self.address('CONTROLLER')}",
            "controller.quorum.bootstrap.servers": "",
        }
        return own if quorum.voters else own | {"advertised.listeners": "", "inter.broker.listener.name": ""}

    def _format(self) -> None:
        """Format the data folder."""
        quorum = self._quorum
        which = (
            ("--standalone", "--cluster-id", uuid4().hex[:22])
            if quorum is None
            else ("--cluster-id", quorum.cluster_id)
        )
        done = self.tool(
            "kafka.tools.StorageTool", "format", *which,
            "--config", str(self.directory / "server.properties"), *self._format_arguments,
        )  # fmt: skip
        if done.returncode:
            raise BrokerFailed(
                f"Kafka's data folder could not be made: {(done.stderr or done.stdout).strip()[-500:]}",
                remedy=f"look at {self.directory / 'server.properties'}",
            )

    def _spawn(self, jars: Path) -> Process:
        self._from = self.log.stat().st_size if self.log.exists() else 0
        return Process(
            ["java", *self._jvm, f"-Dlog4j2.configurationFile=file:{self.directory}/log4j2.properties",
             "-cp", f"{jars}/*", "kafka.Kafka", str(self.directory / "server.properties")],
            self.directory / "broker.out",
        )  # fmt: skip

    def _serves(self) -> bool:
        """Return whether it serves; False where it ended or took too long."""
        last = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < last and self.alive:
            if STARTED in self._logged():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _logged(self) -> str:
        """Return what it logged since its last start."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._from)
                return log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return (self.directory / "broker.out").read_text("utf-8", "replace")
