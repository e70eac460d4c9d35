"""Faults of one lane only: a record batch that can't be read, no memory for a batch, a bug.

Such a fault may pass (a checksum that the network broke, memory that other lanes use), so the lane restarts from the
ledger a few times before it halts. No fault makes a lane give up records or write dead letters: an operator names the
position at which it goes on. A server that is unavailable is not a lane's fault; lanes wait for it without limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from adledger.pipeline.errors import LaneHalted, UnreadableBatch
from adledger.pipeline.halts import WAYS_OUT, HaltReason, override_command
from adledger.pipeline.retry import Attempt, RetryPolicy
from adledger.sinks.sink import OffsetRange

FAULT_TRIES_MAX = 5
"""How often a lane meets a fault that may pass, without completing a batch, before it halts."""
FAULT_PAUSE_MS_MIN = 1_000


def fault_policy(retry: RetryPolicy) -> RetryPolicy:
    """Return the policy for faults that may pass: about 15 s in total."""
    return replace(
        retry, attempts_max=FAULT_TRIES_MAX, backoff_ms_min=min(FAULT_PAUSE_MS_MIN, retry.backoff_ms_max)
    )


@dataclass(slots=True)
class FaultCount:
    """How many times in a row one lane met the same fault."""

    policy: RetryPolicy
    reason: HaltReason | None = None
    times: int = 0

    def pause_seconds(self, error: LaneHalted, *, progressed: bool) -> float | None:
        """Return how long to wait before the lane restarts, or None if it halts.

        `progressed`: it has completed a batch since its last start.
        """
        self.times = 1 if progressed or error.reason is not self.reason else self.times + 1
        self.reason = error.reason
        if not WAYS_OUT[error.reason].passes or Attempt(self.times, self.policy.attempts_max).is_last:
            self.times = 0
            return None
        return self.policy.pause_seconds(self.times)


def unreadable(lane: int, error: UnreadableBatch, topics: Sequence[str]) -> LaneHalted:
    """Return the error that halts a lane at a record batch that can't be read."""
    reason = HaltReason.OUT_OF_MEMORY if error.no_memory else HaltReason.BATCH_UNREADABLE
    command = override_command(reason, lane, {topics[error.topic]: error.end})
    return LaneHalted(
        f"lane {lane}: {error.message}",
        reason=reason,
        remedy=f"{error.remedy}; or give up the batch: {command}",
    )


def crashed(lane: int, error: Exception, batch: Sequence[OffsetRange], topics: Sequence[str]) -> LaneHalted:
    """Return the error that halts a lane after an exception; `batch` are the ranges that it worked on, if any."""
    ends: Mapping[str, int] = {topics[r.topic]: r.end for r in batch}
    if isinstance(error, MemoryError):
        reason, what = HaltReason.OUT_OF_MEMORY, "there is no memory for its batch"
        remedy = "give the worker more memory, or fewer lanes"
    else:
        reason, what = HaltReason.BUG, f"a bug: {error!r}"
        remedy = "report it, with the traceback in the log, and run a release without it"
    return LaneHalted(
        f"lane {lane}: {what}",
        reason=reason,
        remedy=f"{remedy}; or give up the batch: {override_command(reason, lane, ends)}",
    )
