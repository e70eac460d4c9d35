"""Trying again while a broker is away: bounded, and each try shown."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from aiokafka.errors import KafkaError

from adledger.pipeline.errors import LogError

BACKOFF_MS_MIN = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """`attempts_max` tries, pauses doubling from BACKOFF_MS_MIN to `backoff_ms_max`; `servers` for the messages."""

    servers: str
    attempts_max: int
    backoff_ms_max: int
    say: Callable[[str], None]

    def pause_seconds(self, attempt: int) -> float:
        """Return the pause after the attempt of this number, from 1."""
        return float(min(BACKOFF_MS_MIN * 2 ** min(attempt - 1, 30), self.backoff_ms_max) / 1000)

    async def keep_trying(
        self, what: str, call: Callable[[], Awaitable[T]], before_next: Callable[[], Awaitable[None]]
    ) -> T:
        """Return what `call` returns. KafkaErrors of it are tried again, after `before_next`; then LogError."""
        for attempt in range(1, self.attempts_max + 1):
            try:
                return await call()
            except KafkaError as error:
                last = error
            # Without `what`: all lanes see the same broker go, and the same line is said once.
            self.say(f"Kafka at {self.servers}: {last!r}; try {attempt} of {self.attempts_max}")
            if attempt < self.attempts_max:
                await asyncio.sleep(self.pause_seconds(attempt))
                await before_next()
        raise LogError(
            f"{what}: Kafka at {self.servers} could not be read in {self.attempts_max} tries: {last!r}",
            remedy="Look at the brokers; retry_attempts_max and retry_backoff_ms_max say how long is waited.",
        ) from last
