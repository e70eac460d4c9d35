"""What a worker's log says: where its pages are, which lanes it owns, which batches are in doubt."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_LINE = re.compile(r"^ts=(\S+) level=(\w+) ", re.MULTILINE)
_PAGES = re.compile(r"pages at (http://\S+?)[\"\s]")
_OWNED = re.compile(r"now held: ([\d,]+|none)")
_DOUBT = re.compile(r"lane (\d+)[,:] batch (\d+)(?:: in doubt| was intended and is not in the ledger)")


@dataclass(frozen=True, slots=True)
class Doubt:
    """A batch that a worker reported in doubt. `at`: seconds since the epoch."""

    at: float
    lane: int
    batch_no: int


class WorkerLog:
    """Reads a worker's log file from its latest start on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text, self._read_to = "", 0

    def restart(self) -> None:
        """Forget what is there: a new process is about to write."""
        self._read_to = self.path.stat().st_size if self.path.exists() else 0
        self._text = ""

    def text(self) -> str:
        """Return the whole lines written since the latest start."""
        with self.path.open("rb") as log:
            log.seek(self._read_to)
            new = log.read()
        whole = new.rfind(b"\n") + 1
        self._text += new[:whole].decode("utf-8", "replace")
        self._read_to += whole
        return self._text

    def pages(self) -> str:
        """Return the URL of the worker's pages; "" where it has not reported it yet."""
        found = _PAGES.search(self.text())
        return found[1].rstrip("/") if found else ""

    def lanes(self) -> frozenset[int]:
        """Return the lanes that the worker last reported as owned."""
        found = _OWNED.findall(self.text())
        return frozenset(map(int, found[-1].split(","))) if found and found[-1] != "none" else frozenset()


def doubts_of(log: Path) -> Iterator[Doubt]:
    """Yield the batches in doubt that a worker's log reports, from all of its processes."""
    for line in log.read_text("utf-8", "replace").splitlines():
        if (at := _LINE.match(line)) and (of := _DOUBT.search(line)):
            yield Doubt(datetime.fromisoformat(at[1]).timestamp(), int(of[1]), int(of[2]))
