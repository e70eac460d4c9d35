"""A chaos run, from start to report."""

import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from clickhouse_driver.errors import Error as DriverError

from adledger.loadtest.chaos.control_runs import try_controls
from adledger.loadtest.chaos.deployment import deploy, differences_from
from adledger.loadtest.chaos.faults import FAULTS
from adledger.loadtest.chaos.plan import KILLS_TOGETHER, planned
from adledger.loadtest.chaos.play import Play
from adledger.loadtest.chaos.results import ChaosReport, ChaosVerdict, ControlDone, FaultDone
from adledger.loadtest.chaos.traffic import ChaosTraffic, traffic_model
from adledger.loadtest.lab.proxied import ProxiedServers, proxied_servers
from adledger.loadtest.lab.waiting import Broken, NotSeen, until
from adledger.loadtest.lab.worker_log import EVENTS_SUFFIX, Doubt, doubts_of
from adledger.pipeline.errors import AdledgerError

LANES = 6
PLANNED_SECONDS = 1_200
"""ChaosTraffic is planned for a round on a slow machine; the rest of the plan at the end of a run is not sent."""
FIRST_LANES_SECONDS_MAX = 120.0
END_SECONDS_MAX = 120.0
ROUND_SECONDS_MAX = 600.0
"""No fault starts later than this; a round takes half of it. The run then ends and reports the faults that are missing."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ChaosRequest:
    """The command's options. `seconds`: how long to start faults; None: one round. `faults`: kind -> how often in a round."""

    seed: int
    faults: Mapping[str, int]
    folder: Path
    seconds: float | None = None
    workers: int = 3
    rate_per_second: float = 1_500.0
    outage_seconds: float = 15.0
    slow_seconds: float = 6.0
    controls: bool = True
    keep: bool = False

    @property
    def long_seconds(self) -> float:
        """How long ClickHouse is away or slow in a round."""
        away, slow = self.faults.get("outage", 0), self.faults.get("slow-clickhouse", 0)
        return away * self.outage_seconds + slow * self.slow_seconds


def execute(request: ChaosRequest, say: Say) -> ChaosReport:
    """Run it and write its report to the folder. Raises UsageError, KafkaMissing, BrokerFailed, SinkError."""
    request.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that processes end and mounts are removed
    began, cpu = time.monotonic(), _cpu_seconds()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with proxied_servers(request.folder) as given:
            report = replace(_main(request, given, say), started=started)
            if (
                request.controls and report.verdict is ChaosVerdict.PASSED
            ):  # otherwise they would change nothing
                report = replace(report, controls=tuple(_controls(request, given, say)))
    finally:
        if not request.keep:
            shutil.rmtree(request.folder / "broker", ignore_errors=True)
            shutil.rmtree(request.folder / "clickhouse", ignore_errors=True)
    report = replace(
        report, seconds=round(time.monotonic() - began, 1), cpu_seconds=round(_cpu_seconds() - cpu, 1)
    )
    report.write(request.folder)
    return report


def _main(request: ChaosRequest, given: ProxiedServers, say: Say) -> ChaosReport:
    deployment = deploy(given, request.folder / "run", partitions=LANES)
    seconds = PLANNED_SECONDS + (request.seconds or 0) + request.long_seconds
    model = traffic_model(request.seed, seconds, request.rate_per_second, LANES)
    traffic = ChaosTraffic(model, deployment.direct, request.rate_per_second)
    chance = random.Random(request.seed)  # noqa: S311 - to be repeated
    play = Play(deployment, traffic, chance, request.outage_seconds, request.slow_seconds)
    report = ChaosReport(
        seed=request.seed, started="", seconds=0.0, workers=request.workers, lanes=LANES, records=0, kills=0,
        faults=(), controls=(), wrong=(), died=(),
    )  # fmt: skip
    course = _Course(request, play, say)
    try:
        for number in range(1, request.workers + 1):
            deployment.worker(f"worker-{number}").start()
        say(f"{request.workers} workers start; {request.folder}")
        until(
            lambda: len(play.working()) == request.workers, "lanes of every worker", FIRST_LANES_SECONDS_MAX
        )
        course.run()
        say("traffic stops; catching up with the rest")
        ground_truth = traffic.stop()
        report = replace(report, records=ground_truth.records_received)
        play.caught_up(ground_truth.records_received, END_SECONDS_MAX)
        for worker in deployment.workers:
            worker.stop()
        report = replace(report, wrong=tuple(differences_from(ground_truth, deployment)), compared=True)
    except (AdledgerError, OSError, DriverError) as error:
        report = replace(report, stopped=str(error))
    except KeyboardInterrupt:
        report = replace(report, interrupted=True, stopped="interrupted")
    finally:
        traffic.end()
        report = course.reported(report)
        deployment.end()
    return replace(report, died=tuple(play.died))


@dataclass(slots=True)
class _Course:
    """The faults, one after the other, each until the deployment has recovered."""

    request: ChaosRequest
    play: Play
    say: Say

    _done: list[FaultDone] = field(default_factory=list)
    _memory: int = 0
    _epoch: float = 0.0

    def run(self) -> None:
        """Do all faults."""
        self.play.traffic.start()
        began, self._epoch = time.monotonic(), time.time()
        last = began + ROUND_SECONDS_MAX + (self.request.seconds or 0) + self.request.long_seconds
        for kind in self._kinds(began):
            if time.monotonic() > last:
                raise NotSeen(
                    f"{kind} was not done: {len(self._done)} faults took {last - began:.0f} s already"
                )
            fault = self._do(kind, began)
            self._done.append(fault)
            self._memory = max([self._memory, *(w.memory_bytes() for w in self.play.deployment.workers)])
            self.say(_line(fault))
            if fault.recovery_seconds is None:  # the effects of later faults would not show
                raise NotSeen(f"not caught up after {kind}, at {fault.ended_second:.0f} s")

    def reported(self, report: ChaosReport) -> ChaosReport:
        """Return the report with the faults that were done."""
        logs = sorted(self.play.deployment.folder.glob(f"*{EVENTS_SUFFIX}"))
        doubts = sorted((d for log in logs for d in doubts_of(log)), key=lambda d: d.at)
        outages = [self.request.outage_seconds for fault in self._done if fault.kind == "outage"]
        return replace(
            report,
            faults=tuple(self._with_doubts(self._done, doubts, self._epoch)),
            kills=KILLS_TOGETHER * sum(f.kind == "kill-worker" and f.took_effect for f in self._done),
            memory_peak_bytes=self._memory,
            longest_outage_seconds=max(outages, default=0.0),
        )

    def _kinds(self, began: float) -> Iterator[str]:
        number = 0
        while True:
            for kind in planned(self.request.seed, number, self.request.faults):
                if self.request.seconds is not None and time.monotonic() - began > self.request.seconds:
                    return
                yield kind
            number += 1
            if self.request.seconds is None or not self.request.faults:
                return

    def _do(self, kind: str, began: float) -> FaultDone:
        at = time.monotonic() - began
        effect = held = True
        try:
            seen = FAULTS[kind](self.play)
        except Broken as error:
            held, seen = False, error.message
        except (AdledgerError, OSError, DriverError) as error:
            effect, seen = False, str(error)
        ended = time.monotonic() - began
        recovery: float | None = None
        try:
            recovery = round(self.play.caught_up(self.play.traffic.records), 2)
        except NotSeen as error:
            held, seen = held and not effect, f"{seen}; {error.message}"
        return FaultDone(kind, round(at, 2), round(ended, 2), effect, held, seen, recovery)

    def _with_doubts(self, done: list[FaultDone], doubts: list[Doubt], epoch: float) -> Iterator[FaultDone]:
        """Yield the faults with the batches that came into doubt between their start and the next fault's."""
        ends = [*(fault.began_second for fault in done[1:]), float("inf")][: len(done)]
        for fault, end in zip(done, ends, strict=True):
            batches = {(d.lane, d.batch_no) for d in doubts if fault.began_second <= d.at - epoch < end}
            yield replace(
                fault, batches_in_doubt=len(batches), replayed=self.play.deployment.tables.records_of(batches)
            )


def _controls(request: ChaosRequest, given: ProxiedServers, say: Say) -> Iterator[ControlDone]:
    try:
        for done in try_controls(request.faults, given, request.folder):
            say(f"control {done.fault}, without {done.without}: {done.differs or 'NOTHING: ' + done.why_not}")
            yield done
    except KeyboardInterrupt:
        return


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _line(fault: FaultDone) -> str:
    mark = "" if fault.took_effect and fault.held else "NOT " + ("held: " if fault.took_effect else "seen: ")
    after = "" if fault.recovery_seconds is None else f"; caught up after {fault.recovery_seconds:.1f} s"
    return f"{fault.began_second:7.1f} s  {fault.kind}: {mark}{fault.seen}{after}"
