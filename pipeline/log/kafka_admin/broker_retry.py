"""Reading from brokers that may be away: the retry policy, with Kafka's errors explained and each failed attempt logged."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from aiokafka.errors import KafkaError

from adledger.pipeline.errors import LogError
from adledger.pipeline.retry import RetryPolicy

T = TypeVar("T")

THROTTLE_MS_MAX = 10_000
"""The longest wait that a broker's throttle time is granted: brokers ask for at most a quota's window, 10 s by default."""


class MissingAnswer(KafkaError):  # type: ignore[misc] # noqa: N818
    """A broker's answer leaves out what was asked for, without an error; `pause_seconds`: when to ask again, at the earliest.

    Under a quota brokers answer a fetch so: with nothing but the time for which they throttle this client.
    """

    retriable = True

    def __init__(self, what: str, throttle_ms: int = 0) -> None:
        quota = f": it throttles this client for {throttle_ms} ms (a quota)" if throttle_ms > 0 else ""
        super().__init__(f"the broker's answer leaves out {what}{quota}")
        self.pause_seconds = min(max(throttle_ms, 0), THROTTLE_MS_MAX) / 1000


@dataclass(frozen=True, slots=True)
class BrokerRetry:
    """A policy for brokers, which messages name by `servers`; `say` receives a line for each failed attempt."""

    servers: str
    policy: RetryPolicy
    say: Callable[[str], None]

    async def call(
        self, what: str, function: Callable[[], Awaitable[T]], before_next: Callable[[], Awaitable[None]]
    ) -> T:
        """Return what `function` returns. KafkaErrors are retried, each time after `before_next`; then raises LogError."""
        last: KafkaError | None = None
        for attempt in self.policy.attempts():
            try:
                return await function()
            except KafkaError as error:
                last = error
            # Without `what`: all lanes lose the same broker, and equal lines are logged once.
            self.say(f"Kafka at {self.servers}: {last!r}; {attempt}")
            if not attempt.is_last:
                await self.policy.pause(
                    attempt, last.pause_seconds if isinstance(last, MissingAnswer) else 0.0
                )
                await before_next()
        raise LogError(
            f"{what}: Kafka at {self.servers} could not be read in {self.policy.attempts_max} tries: {last!r}",
            remedy="Look at the brokers; retry_attempts_max and retry_backoff_ms_max set how long it retries.",
        ) from last
