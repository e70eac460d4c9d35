"""The nodes of one run: producers, workers that come and go, an operator who restarts what has halted."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.halts import HaltReason
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.compute import Computed
from adledger.pipeline.lanes.emit import Event
from adledger.pipeline.lanes.events import Halted, LaneCrashed, Phase, PhaseChanged, RestartScheduled
from adledger.pipeline.lanes.ports import IdleWatermark, LaneLimits
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.retry import RetryPolicy
from adledger.schemas.classes import Class
from adledger.schemas.wire import currency_code
from tests.simulation import expected
from tests.simulation.clickhouse import Server, SimSink
from tests.simulation.kafka import CLOCK_BEGINS_MS, TOPIC_IS_NEW, TOPICS, Broker, SimSource
from tests.simulation.loop import Node
from tests.simulation.world import World

FAULT_SECONDS = 40.0
"""How long faults happen; producers end before."""
PATIENCE_SECONDS = 240.0
"""How long lanes may take to reach their ends after the faults."""
UNDECODABLE_SHARE = 0.03
"""The share of record batches that can't be decoded."""
FAILING_SHARE = 0.01
"""Of the batches that are computed: a bug, or a lack of memory, after the lane's state has changed."""
DEADLINE_SECONDS = 4


DEFECT = "struck by the simulation"


class Defect(Exception):  # noqa: N818 - what is done to a lane
    """A bug that strikes when it likes."""


@dataclass(slots=True)
class Process:
    """A worker's slot: its node is a new one after each restart."""

    name: str
    instance: str | None
    release: int = 0
    node: Node | None = None
    worker: Worker | None = None
    count: int = 0
    restarting: bool = False


@dataclass(slots=True)
class Deployment:
    """One run. `stopped` maps a lane to the message with which it halted."""

    world: World
    broker: Broker
    server: Server
    cooperative: bool = False
    make_sink: Callable[..., SimSink] = SimSink
    make_source: Callable[..., SimSource] = SimSource
    processes: list[Process] = field(default_factory=list)
    stopped: dict[int, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    damaged: bool = False
    closed: bool = False
    idle_watermark: IdleWatermark | None = None
    on_phase: Callable[[int, Phase], None] = lambda *_: None
    _ids: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)

    # workers

    def limits(self) -> LaneLimits:
        return LaneLimits(
            batch=BatchLimits(rows_max=9, bytes_max=4_000, age_ms_max=400),
            fetch_bytes_max=1 << 20,
            window_ms=expected.WINDOW_MS,
            allowed_lateness_ms=expected.ALLOWED_LATENESS_MS,
            write_deadline_seconds=DEADLINE_SECONDS,
            retry=RetryPolicy(attempts_max=None, backoff_ms_max=1_000, draw=self.world.rng.random),
            default_currency=currency_code("USD"),
            close_delays=expected.CLOSE_DELAYS,
            idle_watermark=self.idle_watermark,
        )

    def start(self, process: Process) -> None:
        """Start a worker as a new process, unless it runs or the deployment is closed."""
        if self.closed or (process.node is not None and not process.node.dead):
            return
        process.count += 1
        process.restarting = False
        node = process.node = Node(f"{process.name}.{process.count}")
        self.world.loop.add(node)
        self.world.say(node.name, f"starts, release {process.release}")
        self.world.loop.on_node(node, self._begin, process, node)

    def _begin(self, process: Process, node: Node) -> None:
        process.worker = Worker(
            self.make_source(self.world, self.broker, process.instance, self.cooperative),
            self.make_sink(self.world, self.server, DEADLINE_SECONDS),
            self.limits(),
            cpu_threads=1, inserts_per_second_max=200, revoke_ms_max=1_500, until_caught_up=False,
            emit=lambda event: self._on_event(node, event),
        )  # fmt: skip
        self.world.loop.create_task(self._work(process, node, process.worker))

    async def _work(self, process: Process, node: Node, worker: Worker) -> None:
        with suppress(AdledgerError):  # already in the trace
            await worker.run()
        self.world.say(node.name, "has ended")
        if process.node is node:
            node.dead = True
            self.world.loop.remove(node)
            self.restart_later(process)

    def _on_event(self, node: Node, event: Event) -> None:
        if text := event.line:
            self.world.say(node.name, text.replace("\n", " "))
        match event:
            case LaneCrashed() if DEFECT in event.traceback:
                pass
            case LaneCrashed():
                self.failures.append(f"crash of an invariant in {node.name}: {text}")
            case PhaseChanged(lane, phase):
                self.on_phase(lane, phase)
            case Halted(halt_reason=HaltReason.BUG) if Defect.__name__ in event.reason:
                self.world.loop.on_network(self.world.defects.uniform(0.5, 20.0), self._fixed, node)
            case Halted(lane=lane):
                self._stopped(lane, text)
            case RestartScheduled(lane=lane, reason=reason) if TOPIC_IS_NEW in reason:
                self._stopped(lane, text)

    def _stopped(self, lane: int, text: str) -> None:
        self.stopped[lane] = text
        if not self.damaged:
            self.failures.append(f"stopped: {text}")

    def _fixed(self, node: Node) -> None:
        """An operator starts the worker again, whose lane a bug has halted."""
        for process in self.processes:
            if process.node is node and not node.dead and process.worker is not None:
                self.world.loop.on_node(node, process.worker.stop)

    def crashed(self, node: Node) -> None:
        """A node is gone: its process is started again, unless the deployment is closed."""
        for process in self.processes:
            if process.node is node:
                self.restart_later(process)

    def restart_later(self, process: Process) -> None:
        if self.closed or process.restarting:
            return
        process.restarting = True
        if self.world.rng.random() < 0.35:
            process.release = (process.release + 1) % expected.RELEASES
            self.world.fault("new release", process.name, f"release {process.release}")
        delay = self.world.rng.choice((0.1, 1.0, 3.0, 9.0)) * self.world.rng.random()
        self.world.loop.on_network(delay, self._restart, process)

    def _restart(self, process: Process) -> None:
        if not self.closed and process.restarting:
            self.start(process)

    def worked(self, node: Node | None, found: Any) -> Any:
        """What a newer release makes of a batch: some billable events are givt; and what a defect makes of it."""
        if isinstance(found, Computed) and not self.world.quiet:
            self._strike(node)
        release = next((p.release for p in self.processes if p.node is node), 0)
        if not isinstance(found, Computed) or not release:
            return found
        events = dict(found.events)
        givt = (events["class_code"] == Class.BILLABLE) & (events["publisher_id"] % 3 == 0)
        events["class_code"] = np.where(givt, Class.GIVT, events["class_code"]).astype(np.uint8)
        version = expected.judge_version(release)
        events["judge_version"] = np.full(len(events["offset"]), version, np.uint64)
        return dataclasses.replace(found, events=events, judge_version=version)

    def _strike(self, node: Node | None) -> None:
        """Sometimes fail one lane's batch: by a bug, or for lack of memory."""
        if self.world.defects.random() >= FAILING_SHARE:
            return
        is_bug = self.world.defects.random() < 0.5
        self.world.fault("bug in one lane" if is_bug else "no memory for one lane", node.name if node else "")
        raise Defect(DEFECT) if is_bug else MemoryError(DEFECT)

    # producers

    def produce(self, topic: int, lane: int) -> None:
        """Append a few records to one partition."""
        rng = self.world.rng
        if rng.random() < 0.04:
            self.broker.gap(topic, lane, rng.randrange(1, 3))
        self.broker.append(topic, lane, [self._record(topic) for _ in range(rng.randrange(1, 5))])
        if self.world.hostile.random() < UNDECODABLE_SHARE:
            size, covers = self.world.hostile.randrange(1, 99), self.world.hostile.randrange(1, 5)
            self.broker.append_undecodable(topic, lane, self.world.hostile.randbytes(size), covers)
        if rng.random() < 0.04:  # a marker without records before it
            self.world.loop.on_network(rng.uniform(0.3, 9.0), self.broker.gap, topic, lane, 1)

    def _record(self, topic: int) -> tuple[bytes | None, bytes | None]:
        rng = self.world.rng
        dice = rng.random()
        mine = [known for known in self._ids if known[0] == topic]
        if mine and dice < 0.25:
            _, user, fields = rng.choice(mine)
            self.world.fault("duplicate record", "producer", fields["event_id"])
            if rng.random() < 0.2:
                fields = {**fields, "price_micros": fields["price_micros"] + 1}
        elif dice > 0.93:
            return None, rng.choice((None, b"", b"{", b'{"event_type":"click"}'))
        else:
            user = f"u{rng.randrange(9)}"
            fields = self._fields(topic, user)
            self._ids.append((topic, user, fields))
        return user.encode(), json.dumps(fields, separators=(",", ":")).encode()

    def _fields(self, topic: int, user: str) -> dict[str, Any]:
        rng = self.world.rng
        late = rng.choice((0, 0, 0, 5_000, 25_000))
        fields = {
            "event_type": ("impression", "click")[topic],
            "event_id": f"e{len(self._ids)}",
            "event_time": int(CLOCK_BEGINS_MS + self.world.now * 1000) - rng.randrange(500) - late,
            "publisher_id": rng.randrange(5), "site_id": 1, "campaign_id": rng.randrange(9), "creative_id": 3,
            "advertiser_id": 4, "user_id": user, "ip": "192.0.2.1", "user_agent": f"agent {rng.randrange(4)}",
            "page_url": f"/{rng.randrange(6)}", "price_micros": rng.randrange(1, 10**6),
        }  # fmt: skip
        if rng.random() < 0.3:
            fields["currency"] = "EUR"
        if topic == 1:
            fields["impression_id"] = "e0"
        return fields

    # the end

    def positions(self) -> dict[int, dict[int, int]]:
        """Return lane -> topic -> the ledger's end."""
        ends: dict[int, dict[int, int]] = {}
        for part in self.server.parts:
            if part.table == "ledger" and part.visible:
                of_lane = ends.setdefault(part.stamp.lane, {})
                topics, last = part.block["range_topic"][0], part.block["range_end"][0]
                for topic, end in zip(topics, last, strict=True):
                    of_lane[int(topic)] = max(of_lane.get(int(topic), 0), int(end))
        return ends

    def behind(self) -> list[int]:
        """Return the lanes with records or a batch that are not in the ledger yet, and that did not halt."""
        ends, under_way = self.positions(), self._under_way()
        lanes = [lane for lane in range(self.broker.lanes) if lane not in self.stopped]
        return [lane for lane in lanes if lane in under_way or self._has_more(lane, ends.get(lane, {}))]

    def _has_more(self, lane: int, ends: dict[int, int]) -> bool:
        for topic in range(len(TOPICS)):
            log = self.broker.log(topic, lane)
            position = ends.get(topic, log.first)
            if any(position <= offset < log.end for offset in reversed(log.history)):
                return True
        return False

    def _under_way(self) -> set[int]:
        """Return the lanes with event rows of a batch that is not in the ledger yet."""
        done = {(p.stamp.lane, p.stamp.batch_no) for p in self.server.parts if p.table == "ledger"}
        return {p.stamp.lane for p in self.server.parts if (p.stamp.lane, p.stamp.batch_no) not in done}
