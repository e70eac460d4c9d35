"""The demo's progress on stderr: bars on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

from adledger.pipeline.cli.output import err
from adledger.pipeline.errors import SinkError

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, Task

POLL_SECONDS = 0.5
LINE_SECONDS = 5.0
"""Between two lines without a terminal."""

STARTING = "loading kernels and lists"
"""The description of a run until its first batches are in the ledger."""

LaneCounts = Callable[[], Sequence[int]]
"""Returns the records of each lane in the ledger so far. Raises SinkError until the tables exist."""


class DemoBars:
    """Bars on a terminal."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress

    def importing(self, name: str) -> Callable[[int, int], None]:
        """Begin a bar of bytes read."""
        task = self._progress.add_task(f"import {name}", total=None, unit="bytes")
        return lambda done, of: self._progress.update(task, completed=done, total=of or None)

    def generating(self, events: int) -> Callable[[int], None]:
        """Begin a bar of records written."""
        task = self._progress.add_task("generate", total=events, unit="events")
        return lambda written: self._progress.advance(task, written)

    @contextmanager
    def running(self, lane_records: Sequence[int], counts: LaneCounts) -> Iterator[None]:
        """Show a bar for the run and one for each lane, as the ledger fills."""
        total = self._progress.add_task(STARTING, total=sum(lane_records), unit="events")
        lanes = [
            self._progress.add_task(f"  lane {lane}", total=records, unit="events")
            for lane, records in enumerate(lane_records)
        ]

        def show(done: Sequence[int]) -> None:
            description = "run" if any(done) else STARTING
            self._progress.update(total, completed=sum(done), description=description)
            for task, records in zip(lanes, done, strict=True):
                self._progress.update(task, completed=records)

        with _polled(counts, show):
            yield
        for task in lanes:
            self._progress.remove_task(task)

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        self._progress.console.print(text, highlight=False, markup=False)


class DemoLines:
    """A line for each step, and one every few seconds of the run."""

    def importing(self, name: str) -> Callable[[int, int], None]:
        """Write that an import begins."""
        err(f"importing {name}")
        return lambda _done, _of: None

    def generating(self, events: int) -> Callable[[int], None]:
        """Write that the generator begins."""
        err(f"generating {events:,} events")
        return lambda _written: None

    @contextmanager
    def running(self, lane_records: Sequence[int], counts: LaneCounts) -> Iterator[None]:
        """Write how far the ledger is, every few seconds."""
        of, begin = sum(lane_records), time.monotonic()
        written_at = begin

        def show(done: Sequence[int]) -> None:
            nonlocal written_at
            now = time.monotonic()
            if now - written_at >= LINE_SECONDS:
                written_at = now
                if not any(done):
                    err(STARTING)
                    return
                lanes = sum(records >= all_of for records, all_of in zip(done, lane_records, strict=True))
                err(
                    f"running: {sum(done):,} of {of:,} events, {sum(done) / (now - begin):,.0f}/s, "
                    f"{lanes} of {len(lane_records)} lanes done"
                )

        err(f"running {of:,} events through {len(lane_records)} lanes")
        with _polled(counts, show):
            yield

    def say(self, text: str) -> None:
        """Write a line."""
        err(text)


@contextmanager
def progress_screen() -> Iterator[DemoBars | DemoLines]:
    """Yield bars if stderr is a terminal, else lines."""
    if not sys.stderr.isatty():
        yield DemoLines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), _rate_column(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield DemoBars(progress)


def _rate_column() -> "ProgressColumn":
    from rich.progress import ProgressColumn
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """Units per second."""

        def render(self, task: "Task") -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "", style="progress.data.speed")

    return RateColumn()


@contextmanager
def _polled(counts: LaneCounts, show: Callable[[Sequence[int]], None]) -> Iterator[None]:
    """Show the counts every POLL_SECONDS, from a thread, and once more at the end."""
    done = Event()

    def poll() -> None:
        while not done.wait(POLL_SECONDS):
            try:
                show(counts())
            except SinkError:  # no tables yet, or the server is busy: try again at the next poll
                continue

    thread = Thread(target=poll, name="demo-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    show(counts())
