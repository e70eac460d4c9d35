"""Samples second by second: what was sent and consumed, CPU and memory by part, stages, as lines of seconds.csv."""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from adledger.loadtest.lab.worker_pages import Metrics, metrics_of
from adledger.loadtest.results.names import PARTS, STAGES
from adledger.loadtest.results.run_folder import Second
from adledger.loadtest.runner.freshness import Histograms, Matcher
from adledger.loadtest.runner.ledger_poller import DoneBatch
from adledger.loadtest.runner.outlet import Ack
from adledger.loadtest.runner.sender import SenderReport

SCRAPE_SECONDS = 1.0


@dataclass(slots=True)
class Usage:
    """CPU of a part's processes, including ended ones, and their current memory."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    _known: dict[int, tuple[psutil.Process, float]] = field(default_factory=dict)

    def look(self, pids: Sequence[int]) -> bool:
        """Sample the processes; False where there are none."""
        memory, seen = 0, False
        for pid in pids:
            try:
                process, before = self._known.get(pid) or (psutil.Process(pid), 0.0)
                times, used = process.cpu_times(), process.memory_info().rss
            except psutil.Error:
                continue
            now = times.user + times.system
            self.cpu_seconds += now - before
            self._known[pid] = process, now
            memory, seen = memory + used, True
        self.memory_bytes = memory
        return seen


class Scraper:
    """Scrapes workers once a second, in a thread, since they may not answer."""

    def __init__(self, urls: Callable[[], Sequence[str]]) -> None:
        self._urls = urls
        self._latest: dict[str, Metrics] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="scraper", daemon=True)

    def start(self) -> None:
        """Start scraping."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current scrape."""
        self._stopped.set()
        self._thread.join(30)

    def total(self) -> Metrics | None:
        """Return the last answers of all workers that ever answered, added up; None where none did."""
        latest = list(self._latest.values())
        if not latest:
            return None
        stages: dict[str, tuple[float, float]] = {}
        for metrics in latest:
            for stage, (count, seconds) in metrics.stages.items():
                counts, total = stages.get(stage, (0.0, 0.0))
                stages[stage] = counts + count, total + seconds
        return Metrics(sum(m.inserts for m in latest), sum(m.doubts for m in latest), stages)

    def _work(self) -> None:
        while not self._stopped.wait(SCRAPE_SECONDS):
            for url in self._urls():
                if (metrics := metrics_of(url)) is not None:
                    self._latest[url] = metrics


@dataclass(slots=True)
class RunTotals:
    """A run's totals so far."""

    sent: int = 0
    acknowledged: int = 0
    consumed: int = 0
    batches: int = 0
    batch_rows: int = 0
    generator_behind_ms: int = 0
    behind_ms: int = 0
    last_consumed_ms: int = 0

    @property
    def lag(self) -> int:
        """Records that are acknowledged but not consumed."""
        return self.acknowledged - self.consumed


class Samples:
    """Takes reports, batches and usage as they come; `end_second` makes a line of them.

    `load_ms` is when the measured load began, after the warm-up.
    """

    def __init__(self, load_ms: int) -> None:
        self.load_ms = load_ms
        self.totals = RunTotals()
        self.histograms = Histograms(load_ms)
        self.seconds: list[Second] = []
        self.usage = {part: Usage() for part in PARTS}
        self._matcher = Matcher()
        self._target: dict[int, int] = defaultdict(int)
        self._now: dict[str, float] = defaultdict(float)
        self._cpu = dict.fromkeys(PARTS, 0.0)
        self._metrics: Metrics | None = None

    def report(self, report: SenderReport) -> None:
        """Add a sender's report."""
        for due_ms, sent_ms, records in report.ticks:
            self._target[due_ms // 1_000] += records
            self.totals.sent += records
            self._now["sent"] += records
            late_ms = max(0, sent_ms - due_ms)
            self._now["behind_ms"] = late_ms
            self.totals.behind_ms = max(self.totals.behind_ms, late_ms if due_ms >= self.load_ms else 0)
        if report.ticks and report.ticks[-1][0] >= self.load_ms:
            behind = max(self.totals.generator_behind_ms, report.generator_behind_ms)
            self.totals.generator_behind_ms = behind
        for values in report.acks:
            ack = Ack(*values)
            self.totals.acknowledged += ack.count
            self._now["acknowledged"] += ack.count
            self._matcher.acknowledged(ack)

    def batch(self, done: DoneBatch) -> None:
        """Add a batch from the ledger."""
        totals = self.totals
        totals.consumed += done.records
        totals.last_consumed_ms = max(totals.last_consumed_ms, done.seen_ms)
        self._now["consumed"] += done.records
        if done.records:
            totals.batches += 1
            totals.batch_rows += done.records
            self._now["batches"] += 1
        for topic, records in done.by_topic:
            self._matcher.done(topic, done.lane, records, done.seen_ms)

    def match(self) -> None:
        """Count the freshness of the records that both sides have reported."""
        for fresh in self._matcher.matched():
            self.histograms.add(fresh)

    def end_second(
        self, end_ms: int, pids: Mapping[str, Sequence[int]], metrics: Metrics | None, parts: int | None
    ) -> Second:
        """Close the second that ends at `end_ms`, and return its line."""
        now, self._now = self._now, defaultdict(float)
        line: dict[str, float | None] = {
            "second": round((end_ms - self.load_ms) / 1_000), "time_ms": end_ms,
            "target_per_second": 0, "sent": now["sent"], "acknowledged": now["acknowledged"],
            "consumed": now["consumed"], "lag_records": self.totals.lag, "behind_ms": now["behind_ms"],
            "batches": now["batches"], "parts": parts,
            "batch_rows_mean": now["consumed"] / now["batches"] if now["batches"] else None,
        }  # fmt: skip
        line |= self.histograms.end_second(end_ms)
        for part, usage in self.usage.items():
            seen, before = usage.look(pids.get(part, ())), self._cpu[part]
            self._cpu[part] = usage.cpu_seconds
            first = not self.seconds  # CPU from before the load does not count
            line[f"{part}_cpu_cores"] = usage.cpu_seconds - before if seen and not first else None
            line[f"{part}_memory_bytes"] = usage.memory_bytes if seen else None
        line |= self._since(metrics)
        self.seconds.append(line)
        return line

    def finished(self) -> list[Second]:
        """Return all lines, each with the number of events that were due in it."""
        return [
            {**line, "target_per_second": self._target.get(int(line["time_ms"] or 0) // 1_000 - 1, 0)}
            for line in self.seconds
        ]

    def _since(self, metrics: Metrics | None) -> dict[str, float | None]:
        """Return what workers counted in this second: counters' differences, stages' means."""
        before, self._metrics = self._metrics, metrics or self._metrics
        out: dict[str, float | None] = {"inserts": None, "doubts": None}
        if metrics is None or before is None:
            return out
        out = {"inserts": metrics.inserts - before.inserts, "doubts": metrics.doubts - before.doubts}
        for stage in STAGES:
            count, seconds = metrics.stages.get(stage, (0.0, 0.0))
            count0, seconds0 = before.stages.get(stage, (0.0, 0.0))
            out[f"stage_{stage}_ms"] = (
                (seconds - seconds0) / (count - count0) * 1_000 if count > count0 else None
            )
        return out
