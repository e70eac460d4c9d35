"""The one retry policy: how many attempts a call gets, and how long the pauses between them are.

Pauses double from `backoff_ms_min` up to `backoff_ms_max`, and each is drawn from the upper half of that (equal
jitter): lanes that lose the same server at the same moment do not all come back at once. Sleep and randomness are
fields, so that tests and the simulation can replace them.

The caller decides which errors are retried. A commit or an insert with an unknown outcome never is: sending it again
could double or lose a batch (docs/exactly-once.md).
"""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self, TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

DOUBLINGS_MAX = 30
"""A lane retries for as long as ClickHouse is away: after a night of attempts 2**attempt would overflow a float."""

JITTER_SHARE = 0.5
"""The random share of a pause; the rest is fixed, so that a server that is starting is not called at once."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of the calls that a policy allows. `number` counts from 1."""

    number: int
    attempts_max: int | None

    @property
    def is_last(self) -> bool:
        """Whether no other attempt follows."""
        return self.number == self.attempts_max

    def __str__(self) -> str:
        return f"try {self.number}" + (f" of {self.attempts_max}" if self.attempts_max else "")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts_max` calls in total, the first included; None: until one succeeds.

    `draw` returns a number of [0, 1).
    """

    attempts_max: int | None
    backoff_ms_max: int
    backoff_ms_min: int = 100
    draw: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    sleep_blocking: Callable[[float], None] = time.sleep

    def attempts(self) -> Iterator[Attempt]:
        """Yield the attempts, for a caller whose loop does more between them than `call` can."""
        numbers = itertools.count(1) if self.attempts_max is None else range(1, self.attempts_max + 1)
        for number in numbers:
            yield Attempt(number, self.attempts_max)

    def pause_seconds(self, failures: int) -> float:
        """Return the pause after this many consecutive failures, counted from 1."""
        return self.longest_pause_ms(failures) / 1000 * (1 - JITTER_SHARE + JITTER_SHARE * self.draw())

    def longest_pause_ms(self, failures: int) -> int:
        """Return the pause after this many consecutive failures, without jitter."""
        doublings = min(failures - 1, DOUBLINGS_MAX)
        return min(self.backoff_ms_max, self.backoff_ms_min * 2**doublings)

    def oftener(self, backoff_ms_max: int) -> Self:
        """Return a policy that tries for as long as this one, with pauses of at most `backoff_ms_max`."""
        shorter = replace(self, backoff_ms_max=min(self.backoff_ms_max, backoff_ms_max))
        if self.attempts_max is None:
            return shorter
        longest_ms = sum(self.longest_pause_ms(failures) for failures in range(1, self.attempts_max))
        attempts = 1
        while longest_ms > 0:
            longest_ms -= shorter.longest_pause_ms(attempts)
            attempts += 1
        return replace(shorter, attempts_max=attempts)

    async def pause(self, after: Attempt, seconds_min: float = 0.0) -> None:
        """Sleep between an attempt and the next, for `seconds_min` at least: a server may say when to come back."""
        await self.sleep(max(self.pause_seconds(after.number), seconds_min))

    async def call(
        self,
        function: Callable[[], Awaitable[T]],
        on: type[E] | tuple[type[E], ...],
        failed: Callable[[E, Attempt], None],
    ) -> T:
        """Return what `function` returns. The errors of `on` are retried; the last attempt's is raised.

        `failed` is called with each error before another attempt, before the pause; an error that it raises ends the call.
        """
        for attempt in self.attempts():
            try:
                return await function()
            except on as error:
                if attempt.is_last:
                    raise
                failed(error, attempt)
            await self.pause(attempt)
        raise _no_attempt()

    def call_blocking(
        self,
        function: Callable[[], T],
        on: type[E] | tuple[type[E], ...],
        failed: Callable[[E, Attempt], None],
    ) -> T:
        """Do the same as `call`, where no event loop runs yet."""
        for attempt in self.attempts():
            try:
                return function()
            except on as error:
                if attempt.is_last:
                    raise
                failed(error, attempt)
            self.sleep_blocking(self.pause_seconds(attempt.number))
        raise _no_attempt()


def _no_attempt() -> AssertionError:
    return AssertionError("a policy allows at least one attempt")
