"""Waiting for what is expected to be seen."""

import time
from collections.abc import Callable

from adledger.pipeline.errors import AdledgerError

PATIENCE_SECONDS = 90.0
LOOK_SECONDS = 0.05


class NotSeen(AdledgerError):  # noqa: N818
    """A fault's effect was not seen in time: the run does not count."""


class Broken(AdledgerError):  # noqa: N818
    """What must hold under a fault did not hold."""


def until(what: Callable[[], bool], expected: str, seconds_max: float = PATIENCE_SECONDS) -> float:
    """Return the seconds until `what` held. Raises NotSeen."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds_max:
            raise NotSeen(
                f"not within {seconds_max:.0f} s: {expected}", remedy="read the logs in the run's folder"
            )
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - began
