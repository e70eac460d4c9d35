"""Waiting for something that is expected to happen, in bounded time."""

import time
from collections.abc import Callable

from adledger.pipeline.errors import AdledgerError

WAIT_SECONDS_MAX = 90.0
POLL_SECONDS = 0.05


class NotSeen(AdledgerError):  # noqa: N818
    """An effect was not seen in time: the run does not count."""


class Broken(AdledgerError):  # noqa: N818
    """A law that must hold under a fault was violated."""


def until(condition: Callable[[], bool], expected: str, seconds_max: float = WAIT_SECONDS_MAX) -> float:
    """Wait until `condition` holds and return the seconds that took. Raises NotSeen."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds_max:
            raise NotSeen(
                f"not seen within {seconds_max:.0f} s: {expected}", remedy="read the logs in the run's folder"
            )
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began
