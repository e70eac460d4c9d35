"""One load: starts workers and senders, runs the schedule, samples everything, drains and ends; all in bounded time."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from adledger.loadtest.lab.deployment import LabDeployment
from adledger.loadtest.lab.servers import Servers
from adledger.loadtest.lab.workers import wait_until_ready as wait_for_workers
from adledger.loadtest.profiles.profile import Profile
from adledger.loadtest.profiles.thresholds import Threshold
from adledger.loadtest.results.run_folder import FaultResult, Second
from adledger.loadtest.runner.assessment import metrics_so_far
from adledger.loadtest.runner.faults import Faults
from adledger.loadtest.runner.ledger_poller import LedgerPoller
from adledger.loadtest.runner.outlet import now_ms
from adledger.loadtest.runner.samples import Samples, Scraper
from adledger.loadtest.runner.schedule import Plan
from adledger.loadtest.runner.sender import Task
from adledger.loadtest.runner.senders import END_SECONDS_MAX, SenderProcess
from adledger.loadtest.runner.senders import wait_until_ready as wait_for_senders

POLL_SECONDS = 0.05
LEAD_MS = 500
"""Minimum time from the go command to the start of the first second."""


class Screen(Protocol):
    """Shows the progress."""

    def say(self, text: str) -> None:
        """Show a line."""

    def second(self, line: Second, total_seconds: float) -> None:
        """Show a second that ended."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The result of a load. `wrong` is what makes it invalid, in words; `drained_seconds` None: not all was consumed."""

    samples: Samples
    go_ms: int
    load_ended_ms: int
    sent: tuple[tuple[tuple[int, ...], int], ...]
    drained_seconds: float | None
    faults: tuple[FaultResult, ...]
    aborted: tuple[Threshold, ...]
    interrupted: bool
    wrong: list[str] = field(default_factory=list)


class Interrupt:
    """Remembers Ctrl-C and SIGTERM instead of raising; a second Ctrl-C raises."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def _take(self, number: int, _frame: object) -> None:
        if self.asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked.set()

    @contextmanager
    def watched(self) -> Iterator["Interrupt"]:
        """Take the signals within the block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._take) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


class LoadRun:
    """Runs one plan on one deployment."""

    def __init__(
        self, deployment: LabDeployment[Servers], plan: Plan, profile: Profile, folder: Path, screen: Screen, interrupt: Interrupt,
        *, senders: int, urls: Sequence[str], pids: Mapping[str, tuple[int, ...]], faults: Faults,
    ) -> None:  # fmt: skip
        self._deployment, self._plan, self._profile = deployment, plan, profile
        self._folder, self._screen, self._interrupt = folder, screen, interrupt
        self._senders_wanted, self._urls, self._named_pids = senders, tuple(urls), pids
        self._faults = faults
        self._senders: list[SenderProcess] = []
        self._aborted: list[Threshold] = []
        self._wrong: list[str] = []
        self._next_second_ms = 0

    def run(self) -> Outcome:
        """Run the load. Raises AdledgerError where workers or senders don't get ready."""
        try:
            return self._run()
        finally:
            for sender in self._senders:
                sender.kill()
            for worker in self._deployment.workers:
                worker.stop()

    def _run(self) -> Outcome:
        self._screen.say("starting workers and senders")
        for worker in self._deployment.workers:
            worker.start()
        self._start_senders()
        wait_for_senders(self._senders)
        wait_for_workers(self._deployment.workers, list(self._urls))
        schedule = self._plan.schedule
        go_ms = -(-(now_ms() + LEAD_MS) // 1_000) * 1_000
        samples = Samples(go_ms + round(schedule.warm_up_seconds * 1_000))
        poller = LedgerPoller(self._deployment.tables, self._plan.model.partitions)
        scraper = Scraper(self._worker_urls)
        for sender in self._senders:
            sender.go(go_ms)
        poller.start()
        scraper.start()
        self._faults.start((samples.load_ms - now_ms()) / 1_000)
        self._next_second_ms = go_ms + 1_000
        try:
            self._until_sent(samples, poller, scraper, go_ms)
            load_ended_ms = now_ms()
            self._faults.stop()
            drained = self._drain(samples, poller, scraper, load_ended_ms)
        finally:
            self._faults.stop()
            poller.stop()
            scraper.stop()
        for sender in self._senders:
            if sender.failure:
                self._wrong.append(f"delivery failed: {sender.failure.splitlines()[0]}")
        return Outcome(
            samples=samples, go_ms=go_ms, load_ended_ms=load_ended_ms,
            sent=tuple((sender.task.partitions, sender.sent_until_ms) for sender in self._senders),
            drained_seconds=drained, faults=tuple(self._faults.results), aborted=tuple(self._aborted),
            interrupted=self._interrupt.asked.is_set(), wrong=self._wrong,
        )  # fmt: skip

    def _start_senders(self) -> None:
        count = min(self._senders_wanted, self._plan.model.partitions)
        settings = self._deployment.settings.model_dump(mode="json", exclude_unset=True)
        for number in range(count):
            task = Task(
                model=self._plan.model, schedule=self._plan.schedule, settings=settings,
                partitions=tuple(range(number, self._plan.model.partitions, count)),
            )  # fmt: skip
            self._senders.append(SenderProcess.start(task, self._folder / f"sender-{number + 1}.log"))

    def _until_sent(self, samples: Samples, poller: LedgerPoller, scraper: Scraper, go_ms: int) -> None:
        last_ms = go_ms + (self._plan.schedule.total_seconds + END_SECONDS_MAX) * 1_000
        stopped = False
        while not all(sender.ended.is_set() for sender in self._senders):
            self._step(samples, poller, scraper)
            if not stopped and (self._interrupt.asked.is_set() or self._aborted or self._workers_dead()):
                stopped = True
                for sender in self._senders:
                    sender.stop()
            if now_ms() > last_ms:
                self._wrong.append(f"senders did not end within {END_SECONDS_MAX} s of the schedule's end")
                return
            time.sleep(POLL_SECONDS)

    def _drain(self, samples: Samples, poller: LedgerPoller, scraper: Scraper, ended_ms: int) -> float | None:
        """Wait until everything acknowledged is consumed; return how long that took."""
        last_ms = ended_ms + self._profile.load.drain_seconds * 1_000
        self._screen.say("sent; waiting for the last events to become queryable")
        while now_ms() < last_ms:
            self._step(samples, poller, scraper)
            if samples.totals.lag <= 0:
                self._step(samples, poller, scraper)
                self._end_second(samples, poller, scraper)
                return max(0.0, (samples.totals.last_consumed_ms - ended_ms) / 1_000)
            if self._workers_dead():
                break
            time.sleep(POLL_SECONDS)
        return None

    def _step(self, samples: Samples, poller: LedgerPoller, scraper: Scraper) -> None:
        """Process new reports, and close the second once it is over."""
        for sender in self._senders:
            while not sender.reports.empty():
                samples.report(sender.reports.get())
        while not poller.batches.empty():
            samples.batch(poller.batches.get())
        samples.match()
        while now_ms() >= self._next_second_ms:
            self._end_second(samples, poller, scraper)

    def _end_second(self, samples: Samples, poller: LedgerPoller, scraper: Scraper) -> None:
        line = samples.end_second(self._next_second_ms, self._pids(), scraper.total(), poller.parts)
        self._next_second_ms += 1_000
        self._screen.second(line, self._plan.schedule.seconds)
        second = line["second"] or 0
        if second <= 0:
            return
        now = metrics_so_far(samples)
        for threshold in self._profile.thresholds:
            value = now.get(threshold.name)
            if (
                threshold.abort_on_fail
                and threshold not in self._aborted
                and second > threshold.delay_seconds
                and value is not None
                and not threshold.holds(value)
            ):
                self._aborted.append(threshold)

    def _workers_dead(self) -> bool:
        """Whether a worker ended unexpectedly; each is reported once."""
        dead = False
        for worker in self._deployment.workers:
            if worker.died:
                dead = True
                if not any(text.startswith(worker.name) for text in self._wrong):
                    self._wrong.append(f"{worker.name} ended with {worker.exit_code}: read its log")
        return dead

    def _worker_urls(self) -> Sequence[str]:
        return [*(worker.url for worker in self._deployment.workers if worker.url), *self._urls]

    def _pids(self) -> dict[str, Sequence[int]]:
        workers = [worker.pid for worker in self._deployment.workers if worker.started]
        own = self._deployment.servers.pids(self._named_pids)
        return {
            **own,
            "worker": [*workers, *own.get("worker", ())],
            "generator": [sender.process.pid for sender in self._senders],
        }
