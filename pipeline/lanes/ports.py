"""What a lane is given: the log, ClickHouse, its limits, and where its CPU work runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pipeline.lanes.buffer import BatchLimits
from pipeline.log.source import Source, Topology
from sinks.sink import Columns, Sink

T = TypeVar("T")


class RunCpu(Protocol):
    """Runs a function of the data path, in a thread or at once, and returns what it returns."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Run it."""


class WriteTexts(Protocol):
    """Writes user agents and pages; returns when they are durable."""

    def __call__(self, texts: Mapping[str, Columns], /) -> Awaitable[None]:
        """Write them."""


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Limits and times of a lane, from the settings of the same names."""

    batch: BatchLimits
    fetch_bytes_max: int
    window_ms: int
    acceptance_ms: int
    write_deadline_seconds: int
    retry_attempts_max: int
    retry_backoff_ms_max: int
    default_currency: int


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside the lane."""

    source: Source
    sink: Sink
    topology: Topology
    limits: LaneLimits
    run_cpu: RunCpu
    say: Callable[[str], None]
    write_texts: WriteTexts
    pace: Callable[[], Awaitable[None]]  # returns when this worker may send another batch's inserts
