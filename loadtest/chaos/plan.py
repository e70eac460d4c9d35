"""Which faults happen in which order: a function of the seed."""

import random
from collections.abc import Mapping, Sequence

from adledger.pipeline.errors import UsageError

KILLS_TOGETHER = 8
"""Kills come in bursts: the next before the lanes have recovered from the one before."""

ROUND: Mapping[str, int] = {
    "kill-worker": 4, "pause-worker": 1, "kill-broker": 1, "kill-clickhouse": 2, "drop-insert-reply": 2,
    "drop-commit-reply": 1, "join-leave": 1, "full-disk": 1, "clock-jump": 1, "pause-clickhouse": 1,
    "slow-clickhouse": 1, "outage": 1,
}  # fmt: skip
"""Fault -> how often in one round; for `kill-worker` the number of bursts."""


def chosen(names: Sequence[str]) -> dict[str, int]:
    """Return the requested part of a round; all of it by default. Raises UsageError."""
    unknown = sorted(set(names) - ROUND.keys())
    if unknown:
        raise UsageError(
            f"--faults {','.join(names)}: there is no {', '.join(unknown)}", remedy=f"of {', '.join(ROUND)}"
        )
    return {name: times for name, times in ROUND.items() if not names or name in names}


def planned(seed: int, number: int, faults: Mapping[str, int]) -> list[str]:
    """Return the faults of a round, in the order of this seed and round number."""
    listed = [name for name, times in faults.items() for _ in range(times)]
    random.Random(f"{seed}/{number}").shuffle(listed)  # noqa: S311 - to be repeated
    return listed
