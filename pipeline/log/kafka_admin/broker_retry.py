"""Reading from brokers that may be away: the retry policy, with Kafka's errors explained and each failed attempt logged."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from aiokafka.errors import KafkaError

from adledger.pipeline.errors import LogError
from adledger.pipeline.retry import RetryPolicy

T = TypeVar("T")


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
                await self.policy.pause(attempt)
                await before_next()
        raise LogError(
            f"{what}: Kafka at {self.servers} could not be read in {self.policy.attempts_max} tries: {last!r}",
            remedy="Look at the brokers; retry_attempts_max and retry_backoff_ms_max set how long it retries.",
        ) from last
