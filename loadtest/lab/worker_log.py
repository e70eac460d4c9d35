"""A worker's files: its log, for messages, and its event log, with the address of its pages and its lanes' events."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adledger.loadtest.lab.events import EventTail, events_of

EVENTS_SUFFIX = ".events.jsonl"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A batch that a worker reported in doubt. `at`: seconds since the epoch."""

    at: float
    lane: int
    batch_no: int


class WorkerLog:
    """Reads a worker's files from its latest start on."""

    def __init__(self, path: Path) -> None:
        self.path, self.events_path = path, path.with_suffix(EVENTS_SUFFIX)
        self.events = EventTail(self.events_path)
        self._from = 0

    def restart(self) -> None:
        """Skip the current content: a new process is about to write."""
        self._from = self.path.stat().st_size if self.path.exists() else 0
        self.events = EventTail(self.events_path)

    def text(self) -> str:
        """Return what it logged since the latest start."""
        with self.path.open("rb") as log:
            log.seek(self._from)
            return log.read().decode("utf-8", "replace")

    def pages(self) -> str:
        """Return the URL of the worker's pages; "" where it has not reported it yet."""
        bound = self.events.named("pages_bound")
        return str(bound[-1].fields["url"]).rstrip("/") if bound else ""

    def lanes(self) -> frozenset[int]:
        """Return the lanes that the worker last reported as owned."""
        moves = self.events.named("lanes_assigned", "lanes_revoked")
        return frozenset(moves[-1].fields["owned"]) if moves else frozenset()

    def count(self, name: str) -> int:
        """Return how often it reported an event since the latest start."""
        return len(self.events.named(name))


def doubts_of(event_log: Path) -> Iterator[Doubt]:
    """Yield the batches in doubt that a worker's event log reports, from all of its processes."""
    for event in events_of(event_log, "batch_in_doubt"):
        yield Doubt(event.at, event.fields["lane"], event.fields["batch_no"])
