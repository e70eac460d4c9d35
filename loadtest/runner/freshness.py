"""Freshness: the time from when a record was due (and from when the log had it) until queries return it.

Senders report, by partition and in the log's order, when records were due. The ledger shows which offsets are done. Both
are sequences of records, which are matched in order.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hdrh.histogram import HdrHistogram

from adledger.loadtest.results.names import TAG_DUE, TAG_LOG_TIME
from adledger.loadtest.runner.outlet import Ack

LOWEST_US, HIGHEST_US, DIGITS = 1, 24 * 3_600 * 1_000_000, 3
US_PER_MS = 1_000
PERCENTILES = {"med": 50.0, "p(90)": 90.0, "p(99)": 99.0, "p(99.9)": 99.9, "max": 100.0}
SHORT = {"med": "p50", "p(90)": "p90", "p(99)": "p99", "p(99.9)": "p999", "max": "max"}
"""k6's names of percentiles, and those of columns."""
COLUMNS = {TAG_DUE: "freshness", TAG_LOG_TIME: "log_time_freshness"}
"""The prefix of a tag's columns in seconds.csv, and of its metrics."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """Records that became queryable together, with their ages (ms) since they were due and since their log time."""

    count: int
    due_ms: int
    age_ms: int
    log_age_ms: int


@dataclass(slots=True)
class _Run:
    count: int
    due_ms: int
    log_time_ms: int


class Matcher:
    """Matches the senders' acknowledged records with those in the ledger."""

    def __init__(self) -> None:
        self._acks: dict[tuple[int, int], deque[_Run]] = defaultdict(deque)
        self._seen: dict[tuple[int, int], deque[tuple[int, int]]] = defaultdict(deque)

    def acknowledged(self, ack: Ack) -> None:
        """Take an acknowledgement; in the order of the log within (topic, partition)."""
        self._acks[ack.topic, ack.partition].append(_Run(ack.count, ack.due_ms, ack.log_time_ms))

    def done(self, topic: int, partition: int, records: int, seen_ms: int) -> None:
        """Take records that the ledger has; in the order of the log within (topic, partition)."""
        if records:
            self._seen[topic, partition].append((records, seen_ms))

    def matched(self) -> Iterator[Fresh]:
        """Yield the records that both sides have reported, once."""
        for place, seen in self._seen.items():
            acks = self._acks[place]
            while seen and acks:
                (records, seen_ms), run = seen.popleft(), acks[0]
                count = min(records, run.count)
                yield Fresh(count, run.due_ms, seen_ms - run.due_ms, seen_ms - run.log_time_ms)
                run.count -= count
                if not run.count:
                    acks.popleft()
                if records > count:
                    seen.appendleft((records - count, seen_ms))


def histogram() -> HdrHistogram:
    """Return an empty histogram of microseconds, 1 us to a day, three digits."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS, b64_wrap=True)


class Histograms:
    """Freshness of a run: of all that was due from `measured_from_ms` on, and second by second of all."""

    def __init__(self, measured_from_ms: int) -> None:
        self._measured_from_ms = measured_from_ms
        self.whole = {TAG_DUE: histogram(), TAG_LOG_TIME: histogram()}
        self._second = {TAG_DUE: histogram(), TAG_LOG_TIME: histogram()}
        self._lines: list[str] = []

    def add(self, fresh: Fresh) -> None:
        """Count records by their ages."""
        for tag, age_ms in ((TAG_DUE, fresh.age_ms), (TAG_LOG_TIME, fresh.log_age_ms)):
            us = min(HIGHEST_US, max(LOWEST_US, age_ms * US_PER_MS))
            self._second[tag].record_value(us, fresh.count)
            if fresh.due_ms >= self._measured_from_ms:
                self.whole[tag].record_value(us, fresh.count)

    def end_second(self, end_ms: int) -> dict[str, float | None]:
        """Close a second that ends at `end_ms`; return the values that its line of seconds.csv has."""
        values: dict[str, float | None] = {}
        for tag, name in COLUMNS.items():
            of_tag = percentiles_ms(self._second[tag])
            values |= {f"{name}_{short}_ms": of_tag[key] for key, short in SHORT.items()}
        for tag, counts in self._second.items():
            if counts.get_total_count():
                start, most = (end_ms - 1_000) / 1_000, counts.get_max_value() / (US_PER_MS * 1_000)
                self._lines.append(
                    f"Tag={tag},{start:.3f},1.000,{most:.3f},{counts.encode().decode('ascii')}\n"
                )
        self._second = {tag: histogram() for tag in self._second}
        return values

    def write(self, path: Path, started_ms: int) -> None:
        """Write the HdrHistogram log (format 1.2, https://hdrhistogram.github.io/HdrHistogram/)."""
        with path.open("w", encoding="ascii") as file:
            file.write("#[Histogram log format version 1.2]\n")
            file.write(f"#[StartTime: {started_ms / 1_000:.3f} (seconds since epoch)]\n")
            file.write('"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n')
            file.writelines(self._lines)

    def metrics(self) -> dict[str, float | None]:
        """Return the freshness metrics of a summary."""
        out: dict[str, float | None] = {}
        for tag, column in COLUMNS.items():
            name, counts = f"{column}_ms", self.whole[tag]
            out |= {f"{name}.{key}": value for key, value in percentiles_ms(counts).items()}
            if tag == TAG_DUE:
                mean = counts.get_mean_value() / US_PER_MS if counts.get_total_count() else None
                out[f"{name}.avg"] = mean
        return out


def percentiles_ms(counts: HdrHistogram) -> dict[str, float | None]:
    """Return the percentiles (ms) by k6's names; None where nothing was counted."""
    if not counts.get_total_count():
        return dict.fromkeys(PERCENTILES)
    return {name: counts.get_value_at_percentile(p) / US_PER_MS for name, p in PERCENTILES.items()}


def read_log(path: Path) -> dict[str, HdrHistogram]:
    """Return the whole histograms, by tag, of a log that `write` wrote."""
    found: dict[str, HdrHistogram] = {}
    for line in _data_lines(path):
        tag, payload = line[0].removeprefix("Tag="), line[-1]
        found.setdefault(tag, histogram()).decode_and_add(payload)
    return found


def _data_lines(path: Path) -> Iterator[Sequence[str]]:
    for line in path.read_text("ascii").splitlines():
        if line.startswith("Tag="):
            yield line.split(",")
