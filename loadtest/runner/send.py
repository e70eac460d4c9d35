"""Sends a profile's traffic to a deployment's own topics, to try it out without a load test."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory

from adledger.loadtest.profiles.profile import Profile
from adledger.loadtest.runner.outlet import now_ms
from adledger.loadtest.runner.schedule import plan
from adledger.loadtest.runner.sender import Task
from adledger.loadtest.runner.senders import SenderProcess, wait_until_ready
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.settings import Settings

LEAD_MS = 200
"""From the go command to the first tick."""
POLL_SECONDS = 1.0


def send(
    profile: Profile,
    settings: Settings,
    *,
    partitions: int,
    rate: float | None,
    seconds: float | None,
    seed: int,
    progress: Callable[[int], None],
) -> int:
    """Send a profile's events to the settings' topics, which have `partitions` partitions; return the number of records.

    `progress` is called each second with the records sent so far. Raises AdledgerError: the log did not take them.
    """
    load = replace(profile.load, partitions=partitions)
    planned = plan(
        replace(profile, load=load),
        settings,
        seed=seed,
        now_ms=now_ms() // 1_000 * 1_000,
        rate=rate,
        seconds=seconds,
    )
    task = Task(
        model=planned.model,
        schedule=planned.schedule,
        partitions=tuple(range(partitions)),
        settings=settings.model_dump(mode="json", exclude_unset=True),
    )
    with TemporaryDirectory(prefix="adledger-send-") as folder:
        sender = SenderProcess.start(task, Path(folder) / "sender.log")
        with closing(_Ending(sender)):
            wait_until_ready([sender])
            sender.go(now_ms() + LEAD_MS)
            sent = 0
            while not sender.ended.is_set():
                time.sleep(POLL_SECONDS)
                sent += _taken(sender)
                progress(sent)
            sent += _taken(sender)
        if sender.failure:
            raise AdledgerError(
                f"the log did not take the traffic: {sender.failure}", remedy="adledger doctor"
            )
    return sent


class _Ending:
    """Ends a sender that is left early, and waits for it."""

    def __init__(self, sender: SenderProcess) -> None:
        self._sender = sender

    def close(self) -> None:
        """Stop it, if it still runs."""
        self._sender.stop()
        if not self._sender.ended.wait(5):
            self._sender.kill()


def _taken(sender: SenderProcess) -> int:
    records = 0
    while True:
        try:
            report = sender.reports.get_nowait()
        except Empty:
            return records
        records += sum(count for _, _, count in report.ticks)
