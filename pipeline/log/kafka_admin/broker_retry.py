"""Reading from brokers that may be away: the retry policy, with what Kafka's errors mean and each attempt said."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from aiokafka.errors import KafkaError

from adledger.pipeline.errors import LogError
from adledger.pipeline.retry import RetryPolicy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BrokerRetry:
    """A policy for brokers, which messages name by `servers`; `say` is given a line for each attempt that failed."""

    servers: str
    policy: RetryPolicy
    say: Callable[[str], None]

    async def call(
        self, what: str, function: Callable[[], Awaitable[T]], before_next: Callable[[], Awaitable[None]]
    ) -> T:
        """Return what `function` returns. Its KafkaErrors are retried, after `before_next`; then LogError."""
        last: KafkaError | None = None
        for attempt in self.policy.attempts():
            try:
                return await function()
            except KafkaError as error:
                last = error
            # Without `what`: all lanes lose the same broker, and the same line is said once.
            self.say(f"Kafka at {self.servers}: {last!r}; {attempt}")
            if not attempt.is_last:
                await self.policy.pause(attempt)
                await before_next()
        raise LogError(
            f"{what}: Kafka at {self.servers} could not be read in {self.policy.attempts_max} tries: {last!r}",
            remedy="Look at the brokers; retry_attempts_max and retry_backoff_ms_max say how long is waited.",
        ) from last
