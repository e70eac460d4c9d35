"""A profile: the load, traffic, thresholds, settings and faults of a load test. `profiles.files` reads it."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adledger.loadtest.profiles.thresholds import Threshold
from adledger.pipeline.errors import UsageError

CONSTANT, RAMPING, REPLAY = "constant-arrival-rate", "ramping-arrival-rate", "replay"
EXECUTORS = (CONSTANT, RAMPING, REPLAY)
FAULTS = (
    "kill-worker", "stop-worker", "pause-worker", "kill-broker", "pause-broker", "kill-clickhouse", "pause-clickhouse",
)  # fmt: skip
DURATION_SECONDS_MAX = 24 * 3600
RATE_MAX = 2_000_000

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of ramping-arrival-rate: the rate changes linearly to `target` (events a second) in `seconds`."""

    target: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault under load: at `at_seconds` of the load (warm-up excluded), for `seconds`."""

    kind: str
    at_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """How much, when. `rate` is events a second (the mean of a replay); `stages` are ramping-arrival-rate's.

    After `seconds` of load, what was sent has `drain_seconds` to become queryable.
    """

    executor: str
    rate: float
    seconds: float
    warm_up_seconds: float
    stages: tuple[Stage, ...]
    start_rate: float
    drain_seconds: float
    partitions: int

    @property
    def log_time(self) -> str:
        """Whose times the log has: a replay brings its own, compressed hours; otherwise the broker's, as in production."""
        return "record" if self.executor == REPLAY else "append"


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile as it was read, defaults filled in. `traffic` are knobs of TrafficModel, `settings` the workers'."""

    name: str
    description: str
    load: Load
    traffic: Mapping[str, Any]
    thresholds: tuple[Threshold, ...]
    settings: Mapping[str, Any]
    faults: tuple[Fault, ...]
    replay_hours: float

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dataclasses.asdict(self)


def seconds_of(text: object) -> float:
    """Return a duration in seconds: `1h30m`, `90s`, `250ms`. Raises ValueError."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is no duration: write it as 30s, 5m, 1h30m or 250ms")
    hours, minutes, seconds, ms = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + ms / 1000


def fault_of(text: str) -> Fault:
    """Return the fault that `--fault KIND@AT[+DURATION]` names. Raises UsageError."""
    kind, _, when = text.partition("@")
    at, _, duration = when.partition("+")
    try:
        if kind not in FAULTS:
            raise ValueError(f"there is no fault {kind!r}")  # noqa: TRY301 - one remedy for both
        return Fault(kind, seconds_of(at), seconds_of(duration) if duration else 0.0)
    except ValueError as error:
        raise UsageError(
            f"--fault {text}: {error}",
            remedy=f"KIND@AT[+DURATION], e.g. pause-clickhouse@10s+5s; kinds: {', '.join(FAULTS)}",
        ) from None
