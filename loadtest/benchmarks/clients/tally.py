"""What all contestants in Python share: the counting, when a quarter was read, and what is written at the end.

Runs in each contestant's own environment, beside the contestant's script: it imports only the standard library and orjson.
"""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

Minute = tuple[int, int]
"""Publisher, and the minute as seconds since the epoch."""


class Tally:
    """Counts the first of each event id: impressions, clicks and nanos by publisher and minute."""

    def __init__(self, events: int, unique: int, folder: Path) -> None:
        self.events, self.unique, self.folder = events, unique, folder
        self.read = 0
        self.seen: set[str] = set()
        self.minutes: dict[Minute, list[int]] = {}
        self._mark_at = events // 4
        self._mark: tuple[int, float, float] | None = None

    @property
    def done(self) -> bool:
        """Whether every record of the topic was read."""
        return self.read >= self.events

    def add_values(self, values: Iterable[bytes]) -> None:
        """Parse and count records."""
        seen, minutes, loads = self.seen, self.minutes, orjson.loads
        n = 0
        for value in values:
            n += 1
            event = loads(value)
            event_id = event["event_id"]
            if event_id in seen:
                continue
            seen.add(event_id)
            key = event["publisher_id"], event["event_time"] // 60_000 * 60
            counts = minutes.get(key)
            if counts is None:
                counts = minutes[key] = [0, 0, 0]
            if event["event_type"] == "click":
                counts[1] += 1
                counts[2] += event["price_micros"] * 1_000
            else:
                counts[0] += 1
                counts[2] += event["price_micros"]
        self.was_read(n)

    def was_read(self, n: int) -> None:
        """Count n more records as read; the first quarter is start-up, and the rest is timed separately."""
        self.read += n
        if self._mark is None and self.read >= self._mark_at:
            self._mark = self.read, time.process_time(), time.monotonic()

    def finish(self) -> None:
        """Write what was found and what it took."""
        assert self._mark is not None, "fewer records were read than were there"
        at, cpu, wall = self._mark
        report = {
            "events": self.read, "mark_events": at, "steady_cpu_seconds": time.process_time() - cpu,
            "steady_seconds": time.monotonic() - wall,
        }  # fmt: skip
        with (self.folder / "found.tsv").open("w") as file:
            for (publisher, minute), counts in self.minutes.items():
                file.write(f"{publisher}\t{minute}\t{counts[0]}\t{counts[1]}\t{counts[2]}\n")
        (self.folder / "report.json").write_text(json.dumps(report))


def arguments() -> tuple[str, str, Tally]:
    """Return servers, topic and an empty tally from the command line: SERVERS TOPIC EVENTS UNIQUE FOLDER."""
    servers, topic, events, unique, folder = sys.argv[1:6]
    return servers, topic, Tally(int(events), int(unique), Path(folder))


def nanos(event: dict[str, Any]) -> int:
    """Return what an event is worth."""
    return int(event["price_micros"]) * (1_000 if event["event_type"] == "click" else 1)
