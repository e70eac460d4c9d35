"""Running `adledger` as a process, and waiting for its effects."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.02
QUERY_POLL_SECONDS = 0.2
"""For conditions that query a server and last: 50 queries a second take a quarter of a core from what they wait for."""
PATIENCE_SECONDS = 120
ADLEDGER = (sys.executable, "-m", "adledger")


class Command:
    """An `adledger` process (or another program's); its output goes to files, so that it never waits for a reader."""

    def __init__(
        self, folder: Path, *arguments: str, program: Sequence[str] = ADLEDGER, **options: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen([*program, *arguments], stdout=out, stderr=err, **options)

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self) -> int:
        """Return the exit code (negative: the signal that ended it)."""
        return self.process.wait(PATIENCE_SECONDS)

    def until(self, what: Callable[[], bool], *, poll_seconds: float = POLL_SECONDS) -> None:
        """Return when `what` holds; fail when the process ends first or the time is up."""
        last = time.monotonic() + PATIENCE_SECONDS
        while not what():
            assert not self.ended, f"ended with {self.process.returncode}: {self.err}"
            assert time.monotonic() < last, f"not within {PATIENCE_SECONDS} s: {self.err}"
            time.sleep(poll_seconds)


@contextmanager
def started(folder: Path, *arguments: str, **options: Any) -> Iterator[Command]:
    """Start `adledger`; it does not outlive the block."""
    command = Command(folder, *arguments, **options)
    try:
        yield command
    finally:
        if not command.ended:
            command.process.kill()
        command.process.wait()


def adledger(folder: Path, *arguments: str) -> Command:
    """Run `adledger` to its end."""
    with started(folder, *arguments) as command:
        command.wait()
    return command
